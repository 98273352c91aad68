//! Why replication waits, and for how long; and what the library hears of it, so that readers, pages and metrics know.

use std::sync::PoisonError;
use std::time::Duration;

use alexandria_sync::outlook::Wait;
use tokio::time::Instant;

use super::dial::Replicator;
use crate::library::outlook::LinkState;

impl Replicator {
    /// Tells the library how the link stands, now and whenever it changes, until it closes.
    pub(super) async fn tell(&self) {
        let library = &self.inner.library;
        let mut changes = self.inner.state.subscribe();
        loop {
            changes.borrow_and_update();
            library.tell_link(self.link_state());
            tokio::select! {
                () = library.closed() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    fn link_state(&self) -> Option<LinkState> {
        let status = self.status()?;
        let next_attempt = *self.inner.next_attempt.lock().unwrap_or_else(PoisonError::into_inner);
        Some(LinkState {
            connected: status.connected,
            records: status.rows_behind,
            bytes_to_send: status.bytes_to_send,
            bytes_per_s: status.receive_rate,
            wait: status.wait,
            next_attempt: next_attempt.map(Instant::into_std),
            budget: self.inner.link.budget_left(),
        })
    }

    /// How long to wait before the next attempt: as long as the link may not be used, else `usual`. Says why.
    pub(super) fn pause(&self, usual: Duration) -> Duration {
        let held = self.inner.link.held_for();
        let pause = held.as_ref().map_or(usual, |(_, pause)| *pause);
        *self.inner.next_attempt.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + pause);
        let not_asked = || (!self.inner.config.automatic).then_some(Wait::NotAsked);
        self.inner.state.send_modify(|state| {
            state.wait = held.map(|(wait, _)| wait).or_else(not_asked).or(state.wait.take());
        });
        pause
    }

    /// Whether dialling now would be against what the operator allows.
    pub(super) fn is_held(&self) -> bool {
        !self.inner.config.automatic || self.inner.link.held_for().is_some()
    }

    /// Waits the first of all waits, so that many readers do not make many attempts; tells it.
    pub(super) async fn soon(&self) -> Duration {
        let first = Duration::from_secs(self.inner.config.retry_min_s);
        // Over at once if the node stops.
        let _ = tokio::time::timeout(first, self.inner.library.closed()).await;
        first
    }

    /// Notes why a session's content waits, as its use of the link is measured.
    pub(super) fn waits(&self) -> impl Fn(Option<Wait>) + Send + Sync + use<> {
        let inner = std::sync::Arc::clone(&self.inner);
        move |wait| {
            inner.state.send_if_modified(|state| {
                // What is not of the link stays: there may be no room.
                let changed = state.wait != wait && !(wait.is_none() && state.wait == Some(Wait::NoRoom));
                if changed {
                    state.wait = wait;
                }
                changed
            });
        }
    }
}
