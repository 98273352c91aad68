//! Hybrid logical clock stamps (Kulkarni et al., "Logical Physical Clocks", 2014), with the quality of the clock
//! behind each.
//!
//! A [`Stamp`] orders writes of all replicas. A [`Clock`] hands them out: never twice the same, never below what it has
//! seen. It never reads the time itself: callers pass `now`.
//!
//! Not here: what happens to a record whose stamp is too far ahead (`merge::admit` decides it).

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::id::{Incarnation, NodeId};

/// How far a stamp may run ahead of a trusted clock, in milliseconds, unless configured otherwise.
pub const DRIFT_BOUND_MS: u64 = 15 * 60 * 1000;

const COUNTER_BITS: u32 = 16;
/// The largest time that fits 48 bits, in milliseconds since 1970 (the year 10889).
pub const UNIX_MS_MAX: u64 = (1 << 48) - 1;

/// A point in hybrid time: 48 bits of milliseconds since 1970, 16 bits of counter.
#[derive(Clone, Copy, Debug, Default, Decode, Encode, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct HlcTime(#[n(0)] u64);

impl HlcTime {
    /// The first instant of `unix_ms`, which is cut to 48 bits.
    pub fn from_unix_ms(unix_ms: u64) -> Self {
        Self(unix_ms.min(UNIX_MS_MAX) << COUNTER_BITS)
    }

    /// Milliseconds since 1970.
    pub fn unix_ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// As one number that sorts like the time.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// Reads what [`Self::to_bits`] gave.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The next instant. Saturates at the end of time, which [`Clock`] can only reach through an untrusted peer's
    /// stamp; `merge::admit` keeps those out.
    #[must_use]
    pub fn successor(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// What is known about the clock that a time was read from.
#[derive(Clone, Copy, Debug, Default, Decode, Encode, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum ClockQuality {
    /// Never set: it started from the persisted floor.
    #[default]
    #[n(0)]
    Untrusted,
    /// Set once in this life and drifting since.
    #[n(1)]
    Estimated,
    /// Set by a peer that signs its time, or by the operator's time source.
    #[n(2)]
    Trusted,
}

/// Who wrote something, and when. Ordered by time, then node, then incarnation; quality only breaks a tie that no
/// honest clock produces.
#[derive(Clone, Copy, Debug, Default, Decode, Encode, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cbor(array)]
pub struct Stamp {
    /// When.
    #[n(0)]
    pub time: HlcTime,
    /// By which replica.
    #[n(1)]
    pub node: NodeId,
    /// In which of its lives.
    #[n(2)]
    pub incarnation: Incarnation,
    /// From how good a clock.
    #[n(3)]
    pub quality: ClockQuality,
}

/// Hands out the stamps of one replica.
#[derive(Clone, Debug)]
pub struct Clock {
    node: NodeId,
    incarnation: Incarnation,
    quality: ClockQuality,
    last: HlcTime,
}

impl Clock {
    /// A clock that starts no earlier than `floor`: the larger of what was persisted and the build date.
    pub fn new(node: NodeId, incarnation: Incarnation, quality: ClockQuality, floor: HlcTime) -> Self {
        Self { node, incarnation, quality, last: floor }
    }

    /// The latest time handed out or observed; persist it with each write.
    pub fn last(&self) -> HlcTime {
        self.last
    }

    /// How good the clock behind the stamps is.
    pub fn quality(&self) -> ClockQuality {
        self.quality
    }

    /// Records that the clock behind the stamps became better or worse.
    pub fn set_quality(&mut self, quality: ClockQuality) {
        self.quality = quality;
    }

    /// A stamp above everything handed out or observed so far, and not before `now_unix_ms`.
    pub fn stamp(&mut self, now_unix_ms: u64) -> Stamp {
        self.last = self.last.successor().max(HlcTime::from_unix_ms(now_unix_ms));
        Stamp { time: self.last, node: self.node, incarnation: self.incarnation, quality: self.quality }
    }

    /// Takes note of a stamp that was admitted from elsewhere, so that later edits here beat it.
    pub fn observe(&mut self, stamp: Stamp) {
        self.last = self.last.max(stamp.time);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the wall clock does and whatever is observed, stamps only grow and an edit beats what it has seen.
        #[test]
        fn stamps_grow_and_beat_what_was_seen(steps in prop::collection::vec((any::<u32>(), prop::option::of(any::<u32>())), 1..100)) {
            let mut clock = Clock::new(NodeId::default(), Incarnation(1), ClockQuality::Estimated, HlcTime::default());
            let mut floor = HlcTime::default();
            for (now, seen) in steps {
                if let Some(seen) = seen {
                    let seen = Stamp { time: HlcTime::from_unix_ms(seen.into()), ..Stamp::default() };
                    clock.observe(seen);
                    floor = floor.max(seen.time);
                }
                let stamp = clock.stamp(now.into());
                prop_assert!(stamp.time > floor);
                prop_assert!(stamp.time.unix_ms() >= u64::from(now));
                floor = stamp.time;
            }
        }
    }
}
