//! What a session has to do with the choice of collections: it pulls what is chosen, tells the store what the bridge has,
//! and asks the bridge about content that may be given up here.

use std::collections::HashMap;
use std::time::Duration;

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::driver::HostInput;
use alexandria_sync::id::NodeId;
use alexandria_sync::session::Event;
use alexandria_sync::wire::feature;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::store::selection::Selected;
use crate::store::{Store, StoreError};

/// The bridge is not asked about the same blob again before this has passed; then before twice that.
const ASK_AGAIN_MIN: Duration = Duration::from_secs(30);
/// In the end it is asked this often.
const ASK_AGAIN_MAX: Duration = Duration::from_hours(1);
/// Blobs that are remembered to have been asked about, at most.
const ASKED_MAX: usize = 8192;

/// One session with the bridge, as the store sees it.
#[derive(Clone)]
pub(super) struct Following {
    store: Store,
    bridge: NodeId,
    selected: Selected,
}

impl Following {
    /// What is chosen now, for a session with `bridge`.
    pub(super) async fn begin(store: Store, bridge: NodeId) -> Result<Self, StoreError> {
        store.records.set_bridge(Some(bridge));
        let selected = store.records.selected().await?;
        Ok(Self { store, bridge, selected })
    }

    pub(super) fn selected(&self) -> &Selected {
        &self.selected
    }

    /// Whether something else was chosen since.
    pub(super) fn is_outdated(&self) -> bool {
        *self.store.records.selection_changes().borrow() != self.selected.version
    }

    /// Resolves once something else was chosen.
    pub(super) async fn outdated(&self) {
        let version = self.selected.version;
        // Fails only if the store is gone.
        let _ = self.store.records.selection_changes().wait_for(|now| *now != version).await;
    }

    /// Takes note of what the session tells.
    pub(super) async fn hear(&self, event: &Event) {
        let (records, blobs) = (&self.store.records, &self.store.blobs);
        let noted = match event {
            Event::PeerHello(hello) => {
                let returning = self.selected.selection.returning.len();
                if hello.features & feature::OWN_ROWS == 0 && returning > 0 {
                    tracing::warn!(
                        returning,
                        "the bridge is too old to give back collections that were evicted here; update it"
                    );
                }
                Ok(())
            }
            Event::HeldByPeer { bucket, upto } => {
                records.note_held_by_bridge(self.bridge, *bucket, *upto);
                Ok(())
            }
            Event::Returned(bucket) => records.has_returned(self.selected.version, *bucket).await,
            Event::BlobChecked { blob, held_by_peer } => {
                blobs.note_checked(self.bridge, vec![(*blob, *held_by_peer)]).await
            }
            Event::BlobReceived { blob, .. } => blobs.note_checked(self.bridge, vec![(*blob, true)]).await,
            Event::Quiet => {
                records.try_again();
                Ok(())
            }
            Event::Applied(..) | Event::ContentBlocked | Event::CreditShort(_) | Event::PeerFetches { .. } => Ok(()),
        };
        if let Err(error) = noted {
            tracing::warn!(%error, "what the bridge has could not be noted");
        }
    }

    /// Asks about content that can be given up once the bridge is known to hold it, until the session is gone.
    pub(super) async fn ask(self, session: mpsc::Sender<HostInput>) {
        let mut unconfirmed = self.store.records.unconfirmed_changes();
        let mut asked = Asked::default();
        loop {
            unconfirmed.borrow_and_update();
            let blobs = asked.due(self.store.records.take_unconfirmed(), Instant::now());
            if !blobs.is_empty() && session.send(HostInput::CheckBlobs(blobs)).await.is_err() {
                return;
            }
            tokio::select! {
                () = session.closed() => return,
                changed = unconfirmed.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// When each blob may be asked about again.
#[derive(Default)]
struct Asked(HashMap<BlobHash, (Instant, Duration)>);

impl Asked {
    /// Those that may be asked about now, which counts as asked.
    fn due(&mut self, mut blobs: Vec<BlobHash>, now: Instant) -> Vec<BlobHash> {
        let mut room = ASKED_MAX.saturating_sub(self.0.len());
        blobs.retain(|blob| match self.0.get_mut(blob) {
            Some((due, _)) if now < *due => false,
            Some((due, wait)) => {
                *wait = (*wait * 2).min(ASK_AGAIN_MAX);
                *due = now + *wait;
                true
            }
            None if room > 0 => {
                room -= 1;
                self.0.insert(*blob, (now + ASK_AGAIN_MIN, ASK_AGAIN_MIN));
                true
            }
            None => false,
        });
        blobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever asked it again and again would keep a metered link busy for nothing.
    #[test]
    fn the_bridge_is_asked_about_a_blob_ever_more_rarely() {
        let blob = BlobHash::of(b"x");
        let start = Instant::now();
        let mut asked = Asked::default();
        let mut times = 0;
        for second in 0..24 * 3600 {
            times += asked.due(vec![blob], start + Duration::from_secs(second)).len();
        }
        assert!((24..40).contains(&times), "{times} times in a day");
    }
}
