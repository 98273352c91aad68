//! What a session has to do with the choice of collections: it pulls what is chosen, tells the store what the bridge has,
//! and asks the bridge about content that may be given up here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    asked: Arc<Mutex<Asked>>,
}

impl Following {
    /// What is chosen now, for a session with `bridge`.
    pub(super) async fn begin(store: Store, bridge: NodeId) -> Result<Self, StoreError> {
        store.records.set_bridge(Some(bridge));
        let selected = store.records.selected().await?;
        Ok(Self { store, bridge, selected, asked: Arc::default() })
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
        if let Event::BlobChecked { blob, held_by_peer: true } | Event::BlobReceived { blob, .. } = event {
            self.asked().is_held(*blob);
        }
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
        loop {
            unconfirmed.borrow_and_update();
            let (blobs, put_off) = {
                let mut asked = self.asked();
                (asked.due(self.store.records.take_unconfirmed(), Instant::now()), asked.put_off)
            };
            if !blobs.is_empty() && session.send(HostInput::CheckBlobs(blobs)).await.is_err() {
                return;
            }
            tokio::select! {
                () = session.closed() => return,
                changed = unconfirmed.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(put_off.unwrap_or_else(Instant::now)), if put_off.is_some() => {
                    self.asked().put_off = None;
                    // What still waits for the bridge is named again.
                    self.store.records.try_again();
                }
            }
        }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the bridge was asked about and is not known to hold.
#[derive(Default)]
struct Asked {
    /// When each blob may be asked about again, and how long that is after the last time.
    again: HashMap<BlobHash, (Instant, Duration)>,
    /// When the first of those that were named too early may be asked about.
    put_off: Option<Instant>,
}

impl Asked {
    /// Those that may be asked about now, which counts as asked. The others are put off.
    fn due(&mut self, mut blobs: Vec<BlobHash>, now: Instant) -> Vec<BlobHash> {
        if self.again.len() + blobs.len() > ASKED_MAX {
            // What has not been named for so long waits for nothing any more.
            self.again.retain(|_, (due, _)| now < *due + ASK_AGAIN_MAX);
        }
        blobs.retain(|blob| {
            let has_room = self.again.len() < ASKED_MAX;
            let due = match self.again.get_mut(blob) {
                Some((due, _)) if now < *due => *due,
                Some((due, wait)) => {
                    *wait = (*wait * 2).min(ASK_AGAIN_MAX);
                    *due = now + *wait;
                    return true;
                }
                None if has_room => {
                    self.again.insert(*blob, (now + ASK_AGAIN_MIN, ASK_AGAIN_MIN));
                    return true;
                }
                None => now + ASK_AGAIN_MAX,
            };
            self.put_off = Some(self.put_off.map_or(due, |first| first.min(due)));
            false
        });
        blobs
    }

    /// The bridge holds the blob: there is nothing more to ask.
    fn is_held(&mut self, blob: BlobHash) {
        self.again.remove(&blob);
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

    /// Nothing else may happen for the rest of the session.
    #[test]
    fn what_is_named_too_early_is_put_off_until_it_may_be_asked_about() {
        let (one, other) = (BlobHash::of(b"one"), BlobHash::of(b"other"));
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut asked = Asked::default();
        assert_eq!(asked.due(vec![one], at(0)), [one]);
        assert_eq!(asked.put_off, None, "the answer is awaited");
        assert_eq!(asked.due(vec![one, other], at(10)), [other]);
        assert!(asked.due(vec![other, one], at(20)).is_empty());
        assert_eq!(asked.put_off, Some(at(30)));
        assert_eq!(asked.due(vec![one], at(30)), [one]);
    }

    #[test]
    fn what_the_bridge_holds_makes_place_for_others() {
        let blob = |number: usize| BlobHash::of(&number.to_be_bytes());
        let now = Instant::now();
        let mut asked = Asked::default();
        assert_eq!(asked.due((0..ASKED_MAX).map(blob).collect(), now).len(), ASKED_MAX);
        assert!(asked.due(vec![blob(ASKED_MAX)], now).is_empty());
        assert_eq!(asked.put_off, Some(now + ASK_AGAIN_MAX));
        asked.is_held(blob(0));
        assert_eq!(asked.due(vec![blob(ASKED_MAX)], now).len(), 1);
        let later = now + ASK_AGAIN_MIN + ASK_AGAIN_MAX;
        assert_eq!(asked.due(vec![blob(0)], later).len(), 1, "the others are not named any more");
    }
}
