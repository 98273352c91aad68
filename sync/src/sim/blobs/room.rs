//! What leaves a store: content that no record names, and, for want of room, content that the bridge has said it holds (ADR 0011).
//!
//! What was given up for want of room is on demand: it comes back only once somebody waits for it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Inner, SimBlobs};
use crate::chunk::BlobHash;
use crate::domain::{Blob, Typed as _};
use crate::erase;
use crate::id::Epoch;
use crate::record::RecordKey;
use crate::sim::Sabotage;

/// What is known about blobs beside their bytes, as it is on the disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    /// Of what the bridge said that it holds it whole: its life, and the blob records that named it here then. Of others it may have said
    /// nothing: what they name it may have swept meanwhile.
    held_by_bridge: BTreeMap<BlobHash, (Epoch, BTreeSet<RecordKey>)>,
    on_demand: BTreeSet<BlobHash>,
}

impl Room {
    /// It is whole here.
    pub(super) fn note_whole(&mut self, blob: BlobHash) {
        self.on_demand.remove(&blob);
    }

    pub(super) fn is_on_demand(&self, blob: BlobHash) -> bool {
        self.on_demand.contains(&blob)
    }

    /// Whether the bridge, in this life of it, is known to hold a blob that these records name.
    fn is_held(&self, blob: BlobHash, bridge: Epoch, named_by: &BTreeSet<RecordKey>) -> bool {
        self.held_by_bridge
            .get(&blob)
            .is_some_and(|(epoch, asked_for)| *epoch == bridge && named_by.is_subset(asked_for))
    }
}

impl SimBlobs {
    /// Whether a blob was given up for want of room and nobody has waited for it since.
    pub(in crate::sim) fn is_on_demand(&self, blob: BlobHash) -> bool {
        self.lock().disk.room.is_on_demand(blob)
    }

    /// Whole blobs that could make way if the bridge, in this life of it, were known to hold them.
    pub(in crate::sim) fn unconfirmed(&self, bridge: Epoch) -> Vec<BlobHash> {
        let (content, named_by) = (self.content(), self.named_by());
        let inner = self.lock();
        let whole = inner.disk.whole.keys().filter(|blob| content.contains(blob));
        whole.filter(|blob| !inner.disk.room.is_held(**blob, bridge, &named_by[*blob])).copied().collect()
    }

    /// The bridge, in this life, has said whether it holds a blob.
    pub(in crate::sim) fn note_checked(&self, blob: BlobHash, is_held: bool, bridge: Epoch) {
        let named_by = self.named_by().remove(&blob).unwrap_or_default();
        let mut inner = self.lock();
        if is_held {
            inner.disk.room.held_by_bridge.insert(blob, (bridge, named_by));
        } else {
            inner.disk.room.held_by_bridge.remove(&blob);
        }
    }

    /// Gives up whole blobs until no more than `bytes` are used, as far as the bridge is known to hold them and records
    /// here make them content. Tells which.
    pub(in crate::sim) fn give_up(&self, bytes: u64, bridge: Epoch) -> Vec<BlobHash> {
        let (content, named_by) = (self.content(), self.named_by());
        let mut inner = self.lock();
        let asks_nobody = inner.sabotage == Some(Sabotage::EvictionAsksNobody);
        let mut gone = Vec::new();
        let whole: Vec<BlobHash> = inner.disk.whole.keys().copied().collect();
        for blob in whole {
            if inner.used_bytes() <= bytes {
                break;
            }
            // What a session deals with just now is in use.
            let is_in_use = inner.urgent.contains(&blob) || inner.claims.contains_key(&blob);
            if !content.contains(&blob) || is_in_use {
                continue;
            }
            if asks_nobody || inner.disk.room.is_held(blob, bridge, &named_by[&blob]) {
                inner.remove_whole(blob);
                inner.disk.room.on_demand.insert(blob);
                gone.push(blob);
            }
        }
        gone
    }

    /// Whole blobs that no record here names: the first look of a sweep.
    pub(in crate::sim) fn unreferenced(&self) -> BTreeSet<BlobHash> {
        let named = self.named();
        self.lock().disk.whole.keys().filter(|blob| !named.contains(blob)).copied().collect()
    }

    /// The second look: removes those of `marked` that are still not named. Tells which.
    pub(in crate::sim) fn sweep(&self, marked: &BTreeSet<BlobHash>) -> Vec<BlobHash> {
        let named = self.named();
        let mut inner = self.lock();
        let looks_once = inner.sabotage == Some(Sabotage::SweepLooksOnce);
        let still = |blob: &&BlobHash| looks_once || !named.contains(blob) && !inner.claims.contains_key(blob);
        let gone: Vec<BlobHash> =
            marked.iter().filter(still).filter(|blob| inner.disk.whole.contains_key(blob)).copied().collect();
        for &blob in &gone {
            inner.remove_whole(blob);
        }
        gone
    }

    /// What records here make content of some bucket.
    pub(in crate::sim) fn content(&self) -> BTreeSet<BlobHash> {
        erase::content(&self.records.all()).into_iter().map(|(_, blob)| blob).collect()
    }

    /// The blob records that name each.
    fn named_by(&self) -> BTreeMap<BlobHash, BTreeSet<RecordKey>> {
        let mut named_by: BTreeMap<BlobHash, BTreeSet<RecordKey>> = BTreeMap::new();
        for record in self.records.all() {
            if let Some(blob) = Blob::from_record(&record).and_then(|blob| blob.hash) {
                named_by.entry(blob).or_default().insert(record.key);
            }
        }
        named_by
    }

    /// What any record here names.
    pub(in crate::sim) fn named(&self) -> BTreeSet<BlobHash> {
        self.records.all().iter().flat_map(erase::blobs_named).collect()
    }
}

impl Inner {
    fn remove_whole(&mut self, blob: BlobHash) {
        self.disk.whole.remove(&blob);
        self.disk.rotten.remove(&blob);
        self.disk.room.held_by_bridge.remove(&blob);
    }
}
