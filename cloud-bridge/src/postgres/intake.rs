//! Whether many records come in just now.
//!
//! Pages that arrive while one is written are written together, so large ones mean that a node sends faster than they can be
//! written. A fleet that sends a little all the time never counts as many.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Records that are written together, from which on they are many.
const LARGE_RECORDS: usize = 1_000;
/// How long after the last of them more are expected.
const MORE_WITHIN: Duration = Duration::from_millis(500);

/// Counts what is taken in.
#[derive(Debug, Default)]
pub(super) struct Intake {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    large: usize,
    last_ended: Option<Instant>,
}

/// Something is being taken in for as long as this lives.
#[derive(Debug)]
pub(super) struct TakingIn<'i>(Option<&'i Intake>);

/// Whether so many records, written together, are many.
pub(super) fn are_many(records: usize) -> bool {
    records >= LARGE_RECORDS
}

impl Intake {
    /// So many records are about to be written.
    pub(super) fn begin(&self, records: usize) -> TakingIn<'_> {
        if !are_many(records) {
            return TakingIn(None);
        }
        self.state().large += 1;
        TakingIn(Some(self))
    }

    /// Whether many come in, or did a moment ago.
    pub(super) fn is_large(&self) -> bool {
        let state = self.state();
        state.large > 0 || state.last_ended.is_some_and(|ended| ended.elapsed() < MORE_WITHIN)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TakingIn<'_> {
    fn drop(&mut self) {
        if let Some(intake) = self.0 {
            let mut state = intake.state();
            state.large -= 1;
            state.last_ended = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_pages_count_and_they_count_until_the_last_has_ended() {
        let intake = Intake::default();
        let small = intake.begin(LARGE_RECORDS - 1);
        assert!(!intake.is_large());
        drop(small);
        assert!(!intake.is_large());
        let (one, other) = (intake.begin(LARGE_RECORDS), intake.begin(LARGE_RECORDS));
        drop(one);
        intake.state().last_ended = None;
        assert!(intake.is_large(), "the other one is still there");
        drop(other);
        assert!(intake.is_large(), "more may follow");
        intake.state().last_ended = Instant::now().checked_sub(MORE_WITHIN);
        assert!(!intake.is_large());
    }
}
