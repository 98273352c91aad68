//! The time that local edits are stamped with, and against which received stamps are judged.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use alexandria_sync::hlc::{Clock, ClockQuality, DRIFT_BOUND_MS, HlcTime, Stamp};
use alexandria_sync::id::{Incarnation, NodeId};
use alexandria_sync::merge::ReceiverClock;

/// No clock is right that shows a time before this version was made (2026-11-01, in milliseconds since 1970).
pub const BUILD_UNIX_MS: u64 = 1_793_491_200_000;

/// The clock of one store.
#[derive(Debug)]
pub(crate) struct Time {
    clock: Clock,
    /// A time that was told by someone trusted, and when it was told. Counted on by the monotonic clock, so that
    /// a wrong system clock no longer matters.
    trusted: Option<(Instant, u64)>,
}

impl Time {
    /// Starts no earlier than what was `persisted` and than this version was made.
    pub(crate) fn new(node: NodeId, incarnation: Incarnation, persisted: HlcTime) -> Self {
        let quality = if system_unix_ms() < BUILD_UNIX_MS { ClockQuality::Untrusted } else { ClockQuality::Estimated };
        let floor = persisted.max(HlcTime::from_unix_ms(BUILD_UNIX_MS));
        Self { clock: Clock::new(node, incarnation, quality, floor), trusted: None }
    }

    /// Now, as well as it is known, in milliseconds since 1970.
    pub(crate) fn now_unix_ms(&self) -> u64 {
        match self.trusted {
            Some((at, unix_ms)) => unix_ms + at.elapsed().as_millis() as u64,
            None => system_unix_ms().max(BUILD_UNIX_MS),
        }
    }

    pub(crate) fn set_trusted(&mut self, unix_ms: u64) {
        self.trusted = Some((Instant::now(), unix_ms));
        self.clock.set_quality(ClockQuality::Trusted);
    }

    pub(crate) fn quality(&self) -> ClockQuality {
        self.clock.quality()
    }

    pub(crate) fn last(&self) -> HlcTime {
        self.clock.last()
    }

    pub(crate) fn stamp(&mut self) -> Stamp {
        let now = self.now_unix_ms();
        self.clock.stamp(now)
    }

    pub(crate) fn observe(&mut self, stamp: Stamp) {
        self.clock.observe(stamp);
    }

    pub(crate) fn receiver(&self) -> ReceiverClock {
        ReceiverClock { unix_ms: self.now_unix_ms(), quality: self.clock.quality(), drift_bound_ms: DRIFT_BOUND_MS }
    }
}

fn system_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
