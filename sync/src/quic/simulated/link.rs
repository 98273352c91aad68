//! One direction of a line: a queue in front of a bottleneck, a delay, and losses that have nothing to do with either.
//!
//! A datagram that finds no room in the queue is dropped; one that is lost otherwise has used the bottleneck, as on a
//! radio link. Datagrams are never reordered.

use std::time::Duration;

use crate::sim::Seeded;

/// What IPv4 and UDP add to a datagram on the line.
pub const HEADER_BYTES: u64 = 28;

/// However small a queue is said to be, this many full datagrams fit: below, a line could carry no burst at all.
const QUEUE_DATAGRAMS_MIN: u64 = 4;

const FULL_DATAGRAM_BYTES: u64 = 1500;

/// How datagrams are lost on the way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Each for itself, with this chance.
    Random {
        /// From 0 to 1.
        chance: f64,
    },
    /// In bursts (Gilbert 1960, Elliott 1963): the line is good or bad, and changes by chance from datagram to datagram.
    Bursts {
        /// The chance that a good line turns bad.
        turns_bad: f64,
        /// The chance that a bad line turns good.
        turns_good: f64,
        /// The chance of losing a datagram while the line is bad.
        chance_while_bad: f64,
    },
}

impl Loss {
    /// Nothing is lost.
    pub const NONE: Self = Self::Random { chance: 0.0 };

    /// Bursts of ten datagrams on average, of which half are lost; two percent are lost in all.
    pub const BURSTS: Self = Self::Bursts { turns_bad: 0.0042, turns_good: 0.1, chance_while_bad: 0.5 };
}

/// What a line is like, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkProfile {
    /// Bits in a second, headers included.
    pub bits_per_s: u64,
    /// From one end to the other and back, without any queue.
    pub round_trip: Duration,
    /// How much waits in front of the bottleneck before it drops, as a share of what the line holds in a round trip.
    pub queue_share: f64,
    /// What is lost on the way.
    pub loss: Loss,
    /// By how much a datagram may be late for other reasons, each for itself: a radio, or a machine that is busy.
    pub jitter: Duration,
}

impl LinkProfile {
    /// What the line holds in a round trip.
    pub fn in_a_round_trip_bytes(&self) -> u64 {
        (self.bits_per_s as f64 / 8.0 * self.round_trip.as_secs_f64()) as u64
    }

    /// Room in the queue.
    pub fn queue_bytes(&self) -> u64 {
        let share = (self.in_a_round_trip_bytes() as f64 * self.queue_share) as u64;
        share.max(QUEUE_DATAGRAMS_MIN * FULL_DATAGRAM_BYTES)
    }
}

/// What a line has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineStats {
    /// Datagrams that were put on it.
    pub offered: u64,
    /// Their bytes, headers included.
    pub offered_bytes: u64,
    /// Dropped because the queue was full.
    pub dropped: u64,
    /// Lost on the way.
    pub lost: u64,
    /// The longest that a datagram waited.
    pub queue_delay_max: Duration,
    /// How long all of them waited, added up.
    pub queue_delay_sum: Duration,
}

impl LineStats {
    /// How long a datagram waited on average.
    pub fn queue_delay_mean(&self) -> Duration {
        let carried = u32::try_from(self.offered - self.dropped).unwrap_or(u32::MAX);
        self.queue_delay_sum.checked_div(carried).unwrap_or_default()
    }
}

/// One direction of a line.
#[derive(Debug)]
pub(super) struct Link {
    profile: LinkProfile,
    chance: Seeded,
    /// When the bottleneck will have sent all that waits.
    idle_at: Duration,
    /// When the last datagram arrives.
    last_arrival: Duration,
    bad: bool,
    stats: LineStats,
}

impl Link {
    pub(super) fn new(profile: LinkProfile, chance: Seeded) -> Self {
        Self {
            profile,
            chance,
            idle_at: Duration::ZERO,
            last_arrival: Duration::ZERO,
            bad: false,
            stats: LineStats::default(),
        }
    }

    pub(super) fn change(&mut self, profile: LinkProfile) {
        self.profile = profile;
    }

    pub(super) fn stats(&self) -> LineStats {
        self.stats
    }

    /// Takes a datagram at `now`. Says when it arrives; `None` if it never does.
    pub(super) fn carry(&mut self, now: Duration, payload_bytes: u64) -> Option<Duration> {
        self.stats.offered += 1;
        self.stats.offered_bytes += payload_bytes + HEADER_BYTES;
        let size_bits = (payload_bytes + HEADER_BYTES) * 8;
        let wait = self.idle_at.saturating_sub(now);
        let waiting_bits = wait.as_secs_f64() * self.profile.bits_per_s as f64;
        if waiting_bits + size_bits as f64 > (self.profile.queue_bytes() * 8) as f64 {
            self.stats.dropped += 1;
            return None;
        }
        self.stats.queue_delay_max = self.stats.queue_delay_max.max(wait);
        self.stats.queue_delay_sum += wait;
        let serialized = Duration::from_secs_f64(size_bits as f64 / self.profile.bits_per_s as f64);
        self.idle_at = self.idle_at.max(now) + serialized;
        if self.loses() {
            self.stats.lost += 1;
            return None;
        }
        let jitter = Duration::from_micros(self.chance.below(self.profile.jitter.as_micros() as u64 + 1));
        self.last_arrival = self.last_arrival.max(self.idle_at + self.profile.round_trip / 2 + jitter);
        Some(self.last_arrival)
    }

    fn loses(&mut self) -> bool {
        match self.profile.loss {
            Loss::Random { chance } => self.happens(chance),
            Loss::Bursts { turns_bad, turns_good, chance_while_bad } => {
                let turns = self.happens(if self.bad { turns_good } else { turns_bad });
                self.bad ^= turns;
                let lost = self.happens(chance_while_bad);
                self.bad && lost
            }
        }
    }

    fn happens(&mut self, chance: f64) -> bool {
        const STEPS: u64 = 1_000_000_000;
        (self.chance.below(STEPS) as f64) < chance * STEPS as f64
    }
}
