//! A ledger in use by one session: bytes are reserved on disk before they may cross the wire.
//!
//! The host measures what has crossed ([`Account::measure`]), keeps what [`Account::reserve`] gives it on disk, says so
//! ([`Account::kept`]), and then tells the session how much it may go on with ([`Account::word`]). A crash at any point
//! leaves at least as much counted as has crossed; the end of the session gives back what was not used.
//!
//! Part of what is reserved is headroom: what may cross without having been asked for, such as records on their way when
//! the measure is taken. A session that cannot keep its headroom ends ([`Account::hold`]).

use super::{Hold, Ledger, LinkPolicy, Spent};
use crate::chunk::CHUNK_BYTES_MAX;

/// Bytes are reserved in multiples of this.
pub const SLICE_BYTES: u64 = 256 * 1024;
/// Bytes reserved ahead, at most, but for one chunk: with the headroom, what a crash may count too much.
const AHEAD_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// What content takes in this time is reserved ahead, in milliseconds.
const AHEAD_MS: u64 = 2_000;
/// What is taken to be on its way when a connection ends: what crossed in this time, in milliseconds.
const LATELY_MS: u64 = 1_000;
/// Windows of a connection are made no smaller than this by a small reserve, in bytes.
const WINDOW_BYTES_MIN: u64 = 32 * 1024;
/// Windows of a connection on a link without a budget, in bytes, for one lane and for all that is sent.
const LANE_WINDOW_BYTES: u64 = 1_250_000;
const SEND_WINDOW_BYTES: u64 = 8 * LANE_WINDOW_BYTES;
/// What an attempt to connect that gets no answer is taken to have used, in bytes.
pub const CONNECT_BYTES: u64 = 10 * 1024;
/// A page of records and what control says, in bytes: what goes at once when records may go.
const PAGE_ROOM_BYTES: u64 = 128 * 1024;

/// What a message of content costs beyond its own bytes, at least: its frame, a packet's head, and acknowledgements.
const MESSAGE_BYTES: u64 = 256;

/// Bytes that something of `len` bytes takes on the wire, both ways, on a link that loses some packets: with the heads
/// of packets and frames, acknowledgements, and what is sent again.
pub const fn wire_cost(len: u64) -> u64 {
    len + len / 8 + MESSAGE_BYTES
}

/// How much may be under way on a connection without having been reserved one by one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exposure {
    /// The receive window of a lane, in bytes.
    pub lane_window_bytes: u32,
    /// What may wait to be sent or acknowledged, in bytes.
    pub send_window_bytes: u64,
}

impl Exposure {
    /// What suits a policy: a part of its reserve, so that the reserve lasts.
    pub fn under(policy: &LinkPolicy) -> Self {
        let budgets = policy.bytes_a_day.into_iter().chain(policy.bytes_a_month);
        let window = match budgets.min() {
            Some(budget) => (policy.reserve(budget) / 4).clamp(WINDOW_BYTES_MIN, LANE_WINDOW_BYTES),
            None => LANE_WINDOW_BYTES,
        };
        Self { lane_window_bytes: window as u32, send_window_bytes: (window * 8).min(SEND_WINDOW_BYTES) }
    }

    /// What is reserved for records and control as long as a session is open.
    fn headroom_bytes(self) -> u64 {
        u64::from(self.lane_window_bytes) + PAGE_ROOM_BYTES
    }
}

/// How much a session may go on with, beyond what has crossed the wire.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Word {
    /// Content, in bytes.
    pub content_bytes: u64,
    /// Records, in bytes.
    pub records_bytes: u64,
}

/// The use of a link by one session.
#[derive(Debug)]
pub struct Account {
    ledger: Ledger,
    exposure: Exposure,
    /// Counted, kept on disk, and not used.
    ahead: u64,
    /// Counted, and not known to be on disk.
    keeping: u64,
    /// When what is ahead was counted.
    counted_at_unix_ms: u64,
    /// Something is counted otherwise than it is kept.
    is_changed: bool,
    rate: Option<Bucket>,
    lately: Lately,
}

/// Tokens for a rate: bytes that content may take now.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    tokens: i64,
    filled_at_ms: u64,
}

/// What has crossed in the present and the last second.
#[derive(Debug, Default)]
struct Lately {
    second: u64,
    now: u64,
    before: u64,
}

impl Account {
    /// The account of a session that is about to be opened at `now_ms` on a clock that never goes back.
    pub fn open(ledger: Ledger, now_unix_ms: u64, now_ms: u64) -> Self {
        let policy = ledger.policy();
        let rate = policy.rate_bytes_per_s.map(|rate| Bucket { rate, tokens: burst(rate), filled_at_ms: now_ms });
        Self {
            exposure: Exposure::under(policy),
            ledger,
            ahead: 0,
            keeping: 0,
            counted_at_unix_ms: now_unix_ms,
            is_changed: false,
            rate,
            lately: Lately::default(),
        }
    }

    /// The windows that its connection is to have.
    pub fn exposure(&self) -> Exposure {
        self.exposure
    }

    /// The ledger under it. What is reserved counts as used.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// So many bytes more have crossed the wire, both ways.
    pub fn measure(&mut self, bytes: u64, now_unix_ms: u64, now_ms: u64) {
        self.turn(now_unix_ms);
        let beyond = bytes.saturating_sub(self.ahead);
        self.ahead -= bytes - beyond;
        if beyond > 0 && self.ledger.policy().has_budget() {
            self.ledger.spend(beyond, now_unix_ms);
            self.is_changed = true;
        }
        if let Some(bucket) = &mut self.rate {
            bucket.tokens = bucket.tokens.saturating_sub_unsigned(bytes);
            bucket.fill(now_ms);
        }
        self.lately.note(bytes, now_ms);
    }

    /// Why the session must end now, if so.
    pub fn hold(&self, now_unix_ms: u64) -> Option<Hold> {
        let missing = self.exposure.headroom_bytes().saturating_sub(self.ahead + self.keeping);
        self.ledger.hold(missing, now_unix_ms)
    }

    /// Why content that would take `short_bytes` may not go on, if so, though records may.
    pub fn content_hold(&self, short_bytes: u64, now_unix_ms: u64) -> Option<Hold> {
        let reserved = self.ahead + self.keeping;
        self.ledger.content_hold_besides(reserved, short_bytes, now_unix_ms)
    }

    /// Counts what is needed next, if it is more than what is ahead: to be kept on disk, then [`Self::kept`].
    /// `short_bytes` is what content lacks.
    pub fn reserve(&mut self, short_bytes: Option<u64>, now_unix_ms: u64) -> Option<Spent> {
        self.turn(now_unix_ms);
        if self.keeping > 0 || !self.ledger.policy().has_budget() {
            return None;
        }
        let for_content = short_bytes.map_or(0, |short| self.content_to_reserve(short, now_unix_ms));
        let missing = (self.exposure.headroom_bytes() + for_content).saturating_sub(self.ahead);
        let take = missing.next_multiple_of(SLICE_BYTES).min(self.ledger.left(now_unix_ms).all_bytes);
        if take > 0 {
            self.ledger.spend(take, now_unix_ms);
            self.counted_at_unix_ms = now_unix_ms;
            self.keeping = take;
            self.is_changed = true;
        }
        std::mem::take(&mut self.is_changed).then(|| self.ledger.spent().clone())
    }

    /// What [`Self::reserve`] gave is on disk.
    pub fn kept(&mut self) {
        self.ahead += std::mem::take(&mut self.keeping);
    }

    /// What the session may go on with.
    pub fn word(&self, now_unix_ms: u64) -> Word {
        let tokens = self.rate.as_ref().map_or(u64::MAX, |bucket| bucket.tokens.try_into().unwrap_or_default());
        if !self.ledger.policy().has_budget() {
            return Word { content_bytes: tokens, records_bytes: u64::MAX };
        }
        let headroom = self.exposure.headroom_bytes();
        let left = self.ledger.left_besides(self.ahead + self.keeping, now_unix_ms).content_bytes;
        Word {
            content_bytes: self.ahead.saturating_sub(headroom).min(left).min(tokens),
            records_bytes: self.ahead.min(headroom).saturating_sub(self.exposure.lane_window_bytes.into()),
        }
    }

    /// Ends the use: gives back what was not used, but for what may still be on its way here.
    pub fn close(mut self, now_unix_ms: u64, now_ms: u64) -> Ledger {
        self.turn(now_unix_ms);
        let on_its_way = self.lately.bytes(now_ms).min(self.exposure.lane_window_bytes.into());
        let unused = (self.ahead + self.keeping).saturating_sub(on_its_way);
        if self.ledger.policy().has_budget() {
            self.ledger.give_back(unused, self.counted_at_unix_ms);
        }
        self.ledger
    }

    /// What content that lacks `short` bytes gets: as much, and what it will take in a moment, as far as there is some.
    fn content_to_reserve(&self, short: u64, now_unix_ms: u64) -> u64 {
        let left = self.ledger.left_besides(self.ahead + self.keeping, now_unix_ms).content_bytes;
        // A small part of what is left, so that a crash does not cost much of it.
        let soon = (self.lately.rate() * AHEAD_MS / 1000).min(AHEAD_BYTES_MAX).min(left / 8);
        // What is asked for and has not come is reserved too: on a slow link it is not let grow.
        if left < short || short > soon + wire_cost(CHUNK_BYTES_MAX.into()) {
            return 0;
        }
        short.max(soon)
    }

    /// Counts what is ahead in the period that has begun, not in the one that has ended.
    fn turn(&mut self, now_unix_ms: u64) {
        if self.ledger.periods(now_unix_ms) == self.ledger.periods(self.counted_at_unix_ms) {
            return;
        }
        if self.ledger.policy().has_budget() {
            self.ledger.give_back(self.ahead + std::mem::take(&mut self.keeping), self.counted_at_unix_ms);
            self.ahead = self.ahead.min(self.ledger.left(now_unix_ms).all_bytes);
            self.ledger.spend(self.ahead, now_unix_ms);
            self.is_changed = true;
        }
        self.counted_at_unix_ms = now_unix_ms;
    }
}

/// Tokens for a second, and at least for the largest chunk.
fn burst(rate: u64) -> i64 {
    i64::try_from(rate.max(wire_cost(CHUNK_BYTES_MAX.into()))).unwrap_or(i64::MAX)
}

impl Bucket {
    fn fill(&mut self, now_ms: u64) {
        let gained = u128::from(self.rate) * u128::from(now_ms.saturating_sub(self.filled_at_ms)) / 1000;
        if gained > 0 {
            let gained = i64::try_from(gained).unwrap_or(i64::MAX);
            self.tokens = self.tokens.saturating_add(gained).min(burst(self.rate));
            self.filled_at_ms = now_ms;
        }
    }
}

impl Lately {
    fn note(&mut self, bytes: u64, now_ms: u64) {
        let second = now_ms / LATELY_MS;
        if second > self.second {
            self.before = if second == self.second + 1 { self.now } else { 0 };
            (self.second, self.now) = (second, 0);
        }
        self.now += bytes;
    }

    /// Bytes in the last second or so.
    fn bytes(&self, now_ms: u64) -> u64 {
        match (now_ms / LATELY_MS).saturating_sub(self.second) {
            0 => self.before + self.now,
            1 => self.now,
            _ => 0,
        }
    }

    /// Bytes a second.
    fn rate(&self) -> u64 {
        self.before.max(self.now)
    }
}
