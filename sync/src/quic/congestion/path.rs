//! What a path is like, as its acknowledgements tell: how long it takes when nothing waits, and how much comes through.
//!
//! [`Path`] is fed one [`Batch`] for each acknowledgement. It sorts them into rounds: a round ends when something is
//! acknowledged that was sent after the round began.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Marks of recent acknowledgements that are kept, for rates over less than a round.
const MARKS_MAX: usize = 64;

/// For how long the shortest round trip counts, before it has to be seen again. It is looked for in two generations of
/// this length, so that a path that has become longer is believed after twice as long at most.
pub(super) const GENERATION: Duration = Duration::from_secs(10);
/// A generation lasts this many rounds at least.
pub(super) const GENERATION_ROUNDS: u32 = 16;

/// What one acknowledgement confirmed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// Bytes that arrived.
    pub(super) acked_bytes: u64,
    /// When the last of them was sent.
    pub(super) newest_sent: Instant,
    /// The sender had nothing more to send.
    pub(super) app_limited: bool,
}

/// What a whole round showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// Bytes in a second that went through the path, with those that were lost on the way.
    pub(super) carried_bytes_per_s: f64,
    /// Bytes in a second that arrived.
    pub(super) delivered_bytes_per_s: f64,
    /// The shortest round trip of the round: what always waits, waits here too.
    pub(super) rtt_min: Duration,
    /// The round trips of the round on average.
    pub(super) rtt_mean: Duration,
    /// The sender had nothing to send at some time of the round.
    pub(super) app_limited: bool,
}

/// The state of an acknowledgement clock at one moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    newest_sent: Instant,
    acked_bytes: u64,
}

/// The path's measurements.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// All that was ever acknowledged.
    acked_bytes: u64,
    /// Recent acknowledgements, the oldest first.
    marks: VecDeque<Mark>,
    /// Round trips of the last few acknowledgements.
    recent_rtts: VecDeque<Duration>,
    /// The shortest round trip of this generation, and of the one before.
    rtt_min: [Option<Duration>; 2],
    generation_began: Instant,
    generation_rounds: u32,
    /// Where the current round began.
    began: Mark,
    lost_bytes: u64,
    round_rtt_min: Duration,
    round_rtt_sum: Duration,
    round_rtts: u32,
    round_app_limited: bool,
}

impl Path {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            acked_bytes: 0,
            marks: VecDeque::with_capacity(MARKS_MAX),
            recent_rtts: VecDeque::with_capacity(RECENT_RTTS),
            rtt_min: [None, None],
            generation_began: now,
            generation_rounds: 0,
            began: Mark { at: now, newest_sent: now, acked_bytes: 0 },
            lost_bytes: 0,
            round_rtt_min: Duration::MAX,
            round_rtt_sum: Duration::ZERO,
            round_rtts: 0,
            round_app_limited: false,
        }
    }

    /// The shortest round trip that still counts; `None` before the first.
    pub(super) fn rtt_min(&self) -> Option<Duration> {
        self.rtt_min.iter().flatten().min().copied()
    }

    /// The shortest of the last few round trips: what waits now. `None` until there are enough to tell.
    pub(super) fn rtt_now(&self) -> Option<Duration> {
        if self.recent_rtts.len() < RECENT_RTTS { None } else { self.recent_rtts.iter().min().copied() }
    }

    /// Whether the shortest round trip should be looked for again.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.generation_rounds >= GENERATION_ROUNDS
            && now.saturating_duration_since(self.generation_began) >= GENERATION
    }

    /// Forgets the older half of what is known about the shortest round trip.
    pub(super) fn next_generation(&mut self, now: Instant) {
        // A generation that saw nothing leaves what was known before.
        if self.rtt_min[1].is_some() {
            self.rtt_min = [self.rtt_min[1], None];
        }
        self.generation_began = now;
        self.generation_rounds = 0;
    }

    /// Bytes were deemed lost.
    pub(super) fn on_lost(&mut self, bytes: u64) {
        self.lost_bytes = self.lost_bytes.saturating_add(bytes);
    }

    /// Takes in an acknowledgement. Returns the round that it ends, if it ends one.
    pub(super) fn on_batch(&mut self, batch: Batch, now: Instant) -> Option<Round> {
        let rtt = now.saturating_duration_since(batch.newest_sent);
        let shortest = &mut self.rtt_min[1];
        *shortest = Some(shortest.map_or(rtt, |shortest| shortest.min(rtt)));
        push_bounded(&mut self.recent_rtts, rtt, RECENT_RTTS);
        self.round_rtt_min = self.round_rtt_min.min(rtt);
        self.round_rtt_sum = self.round_rtt_sum.saturating_add(rtt);
        self.round_rtts += 1;
        self.round_app_limited |= batch.app_limited;
        self.acked_bytes = self.acked_bytes.saturating_add(batch.acked_bytes);
        // What was sent before the newest acknowledged one came late; it says nothing about when the newest was sent.
        let newest_sent = self.marks.back().map_or(batch.newest_sent, |mark| mark.newest_sent.max(batch.newest_sent));
        let mark = Mark { at: now, newest_sent, acked_bytes: self.acked_bytes };
        push_bounded(&mut self.marks, mark, MARKS_MAX);
        (batch.newest_sent >= self.began.at).then(|| self.end_round(mark))
    }

    fn end_round(&mut self, mark: Mark) -> Round {
        let acked = rate(&self.began, &mark, 0);
        let carried = rate(&self.began, &mark, self.lost_bytes);
        let round = Round {
            carried_bytes_per_s: carried.unwrap_or(0.0),
            delivered_bytes_per_s: acked.unwrap_or(0.0),
            rtt_min: self.round_rtt_min,
            rtt_mean: self.round_rtt_sum.checked_div(self.round_rtts).unwrap_or(self.round_rtt_min),
            app_limited: self.round_app_limited,
        };
        self.began = mark;
        self.lost_bytes = 0;
        self.round_rtt_min = Duration::MAX;
        self.round_rtt_sum = Duration::ZERO;
        self.round_rtts = 0;
        self.round_app_limited = false;
        self.generation_rounds = self.generation_rounds.saturating_add(1);
        round
    }

    /// Bytes in a second over the last acknowledgements that cover `bytes` or more; `None` if they are not that many.
    pub(super) fn rate_over(&self, bytes: u64) -> Option<f64> {
        let last = self.marks.back()?;
        let first = self.marks.iter().rev().find(|mark| last.acked_bytes - mark.acked_bytes >= bytes)?;
        rate(first, last, 0)
    }

    /// Bytes in a second over all acknowledgements of the last `span`, as far as they are remembered.
    pub(super) fn rate_within(&self, span: Duration) -> Option<f64> {
        let last = self.marks.back()?;
        let first = self.marks.iter().find(|mark| last.at.saturating_duration_since(mark.at) <= span)?;
        rate(first, last, 0)
    }
}

/// Round trips that tell together what waits now: fewer would take one late acknowledgement for a queue.
const RECENT_RTTS: usize = 8;

/// Neither acknowledgements that come in a heap nor a sender that was slow look like a fast path: the longer of the two
/// times counts, the one between the acknowledgements and the one between the sendings (as in BBR's delivery rate samples).
fn rate(from: &Mark, to: &Mark, lost_bytes: u64) -> Option<f64> {
    let acknowledged_in = to.at.saturating_duration_since(from.at);
    let sent_in = to.newest_sent.saturating_duration_since(from.newest_sent);
    let elapsed = acknowledged_in.max(sent_in);
    let bytes = (to.acked_bytes - from.acked_bytes).saturating_add(lost_bytes);
    (!elapsed.is_zero()).then(|| bytes as f64 / elapsed.as_secs_f64())
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, len_max: usize) {
    while queue.len() >= len_max {
        queue.pop_front();
    }
    queue.push_back(item);
}
