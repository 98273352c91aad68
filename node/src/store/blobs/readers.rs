//! Content and its readers: who reads what, and what they wait for.
//!
//! What is read does not make way for other content. What is waited for comes first (class 2), and is tried again whenever
//! somebody asks for it, also if there was no room before.

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::id::NodeId;
use alexandria_sync::store::Wanted;
use alexandria_sync::wire::Class;
use tokio::sync::watch;

use super::{Blobs, URGENT_MAX, locked};
use crate::store::error::StoreError;
use crate::store::in_use::Reading;
use crate::store::{demand, keys, tables};

/// A reader of a blob. While there is one, the blob does not make way for others.
#[derive(Debug)]
pub struct ReadingBlob {
    _counted: Reading<BlobHash>,
}

impl Blobs {
    /// Notes a reader of a blob, also of one that is still to come.
    pub fn reading(&self, hash: BlobHash) -> ReadingBlob {
        ReadingBlob { _counted: self.inner.readers.enter(hash) }
    }

    /// Says that a reader waits for a blob that is not here: it is asked for first (class 2), from the byte on that the
    /// reader is at, if that is known. If there was no room for it, it is tried again.
    pub fn want_now(&self, hash: BlobHash, at_bytes: Option<u64>) {
        let is_tried_again = locked(&self.inner.no_room).remove(&hash);
        let mut urgent = locked(&self.inner.urgent);
        match urgent.iter_mut().find(|(known, _)| *known == hash) {
            Some((_, from)) if at_bytes.is_none_or(|at| at == *from) => {
                if !is_tried_again {
                    return;
                }
            }
            Some((_, from)) => *from = at_bytes.unwrap_or_default(),
            None => {
                if urgent.len() == URGENT_MAX {
                    urgent.pop_front();
                }
                urgent.push_back((hash, at_bytes.unwrap_or_default()));
            }
        }
        drop(urgent);
        self.inner.wants.send_modify(|times| *times += 1);
    }

    /// Whether a reader waits for a blob for which there was no room when it was last tried.
    pub fn lacks_room_for(&self, hash: BlobHash) -> bool {
        locked(&self.inner.no_room).contains(&hash)
    }

    /// Notes that there was no room for a blob, if a reader waits for it: they are told.
    pub(super) fn note_no_room(&self, hash: BlobHash) {
        let awaited = locked(&self.inner.urgent).iter().any(|(blob, _)| *blob == hash);
        let mut no_room = locked(&self.inner.no_room);
        if awaited && no_room.len() < URGENT_MAX {
            no_room.insert(hash);
            drop(no_room);
            self.note_progress();
        }
    }

    /// Nobody waits for a blob any more.
    pub(super) fn no_longer_urgent(&self, hash: BlobHash) {
        locked(&self.inner.urgent).retain(|(waiting, _)| *waiting != hash);
        locked(&self.inner.no_room).remove(&hash);
    }

    /// Says that other blobs are wanted than before, or that there is room again.
    pub fn note_wants_changed(&self) {
        self.inner.wants.send_modify(|times| *times += 1);
    }

    /// Changes whenever a reader starts to wait for something, or something else is wanted.
    pub fn urgent_changes(&self) -> watch::Receiver<u64> {
        self.inner.wants.subscribe()
    }

    /// What readers wait for and some record names, oldest first.
    pub(super) fn urgent_of(&self, peer: NodeId) -> Result<Vec<Wanted>, StoreError> {
        let urgent: Vec<(BlobHash, u64)> = locked(&self.inner.urgent).iter().copied().collect();
        let engine = &self.inner.records.shared().engine;
        let mut asked = Vec::new();
        for (blob, from_bytes) in urgent {
            if self.held(blob)?.is_none() && self.is_referenced(blob)? && self.may(peer, blob)? {
                let size_bytes = match engine.get(&keys::wanted(blob))? {
                    Some(value) => tables::wanted_size(&value),
                    None => engine.get(&keys::on_demand(blob))?.map_or(0, |value| demand::on_demand_size(&value)),
                };
                asked.push(Wanted { blob, class: Class::Reader, size_bytes, from_bytes });
            }
        }
        Ok(asked)
    }
}
