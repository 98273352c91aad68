//! Notices a write of the storage engine that never ends.
//!
//! A store that stands still answers nobody, and nobody can mend it from inside. What was acknowledged is durable, so the process
//! ends itself and is started again by whoever keeps it running.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long one write may take: many times what the slowest card needs.
const WRITE_MAX: Duration = Duration::from_mins(10);
/// How often the writes under way are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The writes of this process that are under way.
static WRITES: OnceLock<Writes> = OnceLock::new();

/// Counts as a write under way until it is dropped.
pub(super) fn watched() -> Watched<'static> {
    let mut is_first = false;
    let writes = WRITES.get_or_init(|| {
        is_first = true;
        Writes::default()
    });
    if is_first {
        let watch = thread::Builder::new().name("store-watch".into());
        if let Err(error) = watch.spawn(end_once_overdue) {
            tracing::warn!(%error, "writes of the record store are not watched");
        }
    }
    writes.begin(Instant::now())
}

fn end_once_overdue() {
    loop {
        thread::sleep(LOOK_EVERY);
        if WRITES.get().is_some_and(|writes| writes.is_overdue(Instant::now())) {
            tracing::error!(
                limit_s = WRITE_MAX.as_secs(),
                "the record store stands still; this process ends, and can be started again: nothing that was acknowledged is lost"
            );
            std::process::abort();
        }
    }
}

#[derive(Default)]
struct Writes {
    under_way: Mutex<(u64, BTreeMap<u64, Instant>)>,
}

impl Writes {
    fn begin(&self, now: Instant) -> Watched<'_> {
        let mut under_way = self.under_way();
        let number = under_way.0;
        under_way.0 += 1;
        under_way.1.insert(number, now);
        Watched { writes: self, number }
    }

    fn is_overdue(&self, now: Instant) -> bool {
        self.under_way().1.values().any(|begun| now.saturating_duration_since(*begun) > WRITE_MAX)
    }

    fn under_way(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Instant>)> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A write under way.
pub(super) struct Watched<'w> {
    writes: &'w Writes,
    number: u64,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.writes.under_way().1.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_write_that_is_under_way_for_too_long_is_overdue() {
        let (writes, now) = (Writes::default(), Instant::now());
        let (early, late) = (writes.begin(now), writes.begin(now + WRITE_MAX));
        assert!(!writes.is_overdue(now + WRITE_MAX));
        let after = now + WRITE_MAX + Duration::from_millis(1);
        assert!(writes.is_overdue(after));
        drop(early);
        assert!(!writes.is_overdue(after));
        assert!(writes.is_overdue(after + WRITE_MAX));
        drop(late);
        assert!(!writes.is_overdue(after + WRITE_MAX));
    }
}
