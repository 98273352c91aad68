//! What is still to come here and why it waits, as far as the library knows it: what records name, and what replication
//! tells about the link.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use alexandria_sync::outlook::{BudgetLeft, Outlook, Wait};
use tokio::sync::watch;

use super::Library;
use crate::store::StoreError;
use crate::store::blobs::Waiting;

/// How long the amounts are good for: counting them reads a table through.
const COUNTED_KEPT: Duration = Duration::from_secs(5);

/// How the link stands, as replication tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkState {
    /// Whether a session is open.
    pub connected: bool,
    /// Records to come, as far as is known.
    pub records: u64,
    /// Bytes of content that the peer has asked for and that have not left.
    pub bytes_to_send: u64,
    /// Content received, in bytes a second.
    pub bytes_per_s: u64,
    /// Why something waits.
    pub wait: Option<Wait>,
    /// When the bridge is dialled next.
    pub next_attempt: Option<Instant>,
    /// What is left of the link's budgets.
    pub budget: Option<BudgetLeft>,
}

/// What the library was told of the link last, and what it has counted.
#[derive(Debug)]
pub(super) struct Prospects {
    /// `None` in a node of no fleet.
    link: watch::Sender<Option<LinkState>>,
    /// Other nodes on the local network with which a session is open.
    nearby: watch::Sender<usize>,
    counted: Mutex<Option<(Instant, Waiting)>>,
}

impl Default for Prospects {
    fn default() -> Self {
        Self { link: watch::Sender::new(None), nearby: watch::Sender::new(0), counted: Mutex::default() }
    }
}

impl Library {
    /// Says how the link stands; `None` if there is no fleet to get anything from.
    pub fn tell_link(&self, state: Option<LinkState>) {
        self.inner.prospects.link.send_if_modified(|known| {
            let changed = *known != state;
            *known = state;
            changed
        });
    }

    /// How the link stands, now and as it changes.
    pub fn link(&self) -> watch::Receiver<Option<LinkState>> {
        self.inner.prospects.link.subscribe()
    }

    /// Says with how many other nodes on the local network a session is open.
    pub fn tell_nearby(&self, sessions: usize) {
        self.inner.prospects.nearby.send_replace(sessions);
    }

    /// Whether content may come from another node on the local network.
    pub(super) fn is_anybody_nearby(&self) -> bool {
        *self.inner.prospects.nearby.borrow() > 0
    }

    /// What is still to come, and why it waits; `None` in a node of no fleet. Reads a table through now and then.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if what is wanted cannot be read.
    pub fn prospects(&self) -> Result<Option<Outlook>, StoreError> {
        let Some(link) = self.inner.prospects.link.borrow().clone() else { return Ok(None) };
        let content = self.waiting()?;
        let bytes: u64 = content.values().map(|amount| amount.bytes).sum();
        let moves = link.connected && link.bytes_per_s > 0 && bytes > 0;
        let next_attempt = link.next_attempt.filter(|_| !link.connected);
        Ok(Some(Outlook {
            connected: link.connected,
            records: link.records,
            content,
            bytes_to_send: link.bytes_to_send,
            bytes_per_s: link.bytes_per_s,
            done_in_s: moves.then(|| bytes.div_ceil(link.bytes_per_s)),
            wait: link.wait,
            next_attempt_s: next_attempt.map(|at| at.saturating_duration_since(Instant::now()).as_secs()),
            budget: link.budget,
        }))
    }

    fn waiting(&self) -> Result<Waiting, StoreError> {
        let mut counted = self.inner.prospects.counted.lock().unwrap_or_else(PoisonError::into_inner);
        match &*counted {
            Some((at, waiting)) if at.elapsed() < COUNTED_KEPT => Ok(waiting.clone()),
            _ => {
                let waiting = self.store().blobs.waiting()?;
                *counted = Some((Instant::now(), waiting.clone()));
                Ok(waiting)
            }
        }
    }
}
