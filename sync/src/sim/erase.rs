//! Erasing in the store in memory: what `erase` decides, carried out in one batch, and receipts once the log has
//! forgotten, too.

use std::collections::{BTreeMap, BTreeSet};

use super::Sabotage;
use super::records::{Batch, Change, Inner, SimRecords};
use crate::chunk::BlobHash;
use crate::domain::{Blob, Erasure, Typed};
use crate::erase::{self, Order};
use crate::id::BucketId;
use crate::record::{Record, RecordKey};

/// Blobs that records no longer name.
pub(super) type Former = BTreeMap<RecordKey, BTreeSet<BlobHash>>;

/// What is as it will be once what is being admitted counts.
#[derive(Default)]
pub(super) struct Joined {
    pub(super) records: BTreeMap<RecordKey, Record>,
    former: Former,
}

impl Joined {
    pub(super) fn insert(&mut self, before: Option<&Record>, after: Record) {
        note_unnamed(&mut self.former, before, &after);
        self.records.insert(after.key, after);
    }
}

/// Keeps what a record no longer names.
pub(super) fn note_unnamed(former: &mut Former, before: Option<&Record>, after: &Record) {
    let unnamed = erase::unnamed(before, after);
    if !unnamed.is_empty() {
        former.entry(after.key).or_default().extend(unnamed);
    }
}

impl SimRecords {
    /// Erases a record, known here or not; returns what orders it.
    pub fn erase(&self, target: RecordKey) -> Vec<Record> {
        let mut inner = self.lock();
        let now = inner.now.unix_ms;
        let stamp = inner.clock.stamp(now);
        let versions = inner.versions_about(target, &Joined::default());
        let mut blobs = inner.formerly_named(target, &Joined::default());
        blobs.extend(versions.iter().flat_map(erase::blobs_named));
        let orders = Order::records(target, &blobs, stamp);
        let mut changes = Vec::new();
        let mut joined = Joined::default();
        for order in &orders {
            // What is written here is not judged by the clock here, which may have been set back.
            inner.put(order, &mut joined, &mut changes);
            inner.carry_out_erasure(order.clone(), &mut joined, &mut changes);
        }
        changes.push(Change::Clock(inner.clock.last()));
        inner.commit(changes);
        orders
    }

    /// Erasures that no receipt was written for.
    pub fn pending_erasures(&self) -> BTreeSet<RecordKey> {
        self.lock().tables.pending_erasures.clone()
    }

    /// Writes the log anew, so that it holds nothing that was replaced, then the receipts, which it returns. Content is to be
    /// purged first.
    pub fn settle_erasures(&self) -> Vec<Record> {
        let mut inner = self.lock();
        let pending = inner.tables.pending_erasures.clone();
        if pending.is_empty() {
            return Vec::new();
        }
        if inner.sabotage != Some(Sabotage::ReceiptsComeFirst) {
            let whole = Change::Whole(Box::new(inner.tables.clone()));
            inner.log = vec![Batch { changes: vec![whole], sealed: true }];
            inner.unsynced = 0;
        }
        let (node, incarnation, now) = (inner.node, inner.tables.incarnation, inner.now.unix_ms);
        let (mut changes, mut receipts) = (Vec::new(), Vec::new());
        for erasure in pending {
            let receipt = erase::receipt(erasure, node, incarnation, inner.clock.stamp(now));
            changes.push(Change::Put { bucket: receipt.key.bucket, bytes: receipt.encode().into(), origin: None });
            receipts.push(receipt);
        }
        changes.extend([Change::SettledErasures, Change::Clock(inner.clock.last())]);
        inner.commit(changes);
        receipts
    }

    /// Whether anything was ever erased here.
    pub(super) fn has_erasures(&self) -> bool {
        self.lock().tables.records.keys().any(|key| key.kind == Erasure::KIND)
    }

    /// Whether there are any.
    pub(super) fn has_pending_erasures(&self) -> bool {
        !self.lock().tables.pending_erasures.is_empty()
    }

    /// Whether these bytes are anywhere on the disk.
    pub fn disk_contains(&self, bytes: &[u8]) -> bool {
        self.lock().log.iter().flat_map(|batch| &batch.changes).any(|change| change.contains(bytes))
    }
}

impl Inner {
    /// What is stored instead of a received version that an erasure held here has overtaken.
    pub(super) fn overtaken(&self, received: &Record, joined: &Joined) -> Option<Record> {
        let subject = erase::subject(received)?;
        let erasures = self.live_in(subject.bucket, joined).into_iter().filter_map(|record| Order::read(&record));
        erasures.into_iter().find_map(|order| erase::overtaken(received, &order))
    }

    /// Does all that follows from a record that was just admitted, if it is an erasure.
    pub(super) fn carry_out_erasure(&mut self, admitted: Record, joined: &mut Joined, changes: &mut Vec<Change>) {
        let mut orders = vec![admitted];
        while let Some(erasure) = orders.pop() {
            let Some(order) = Order::read(&erasure) else { continue };
            let versions = self.versions_about(order.target, joined);
            let mut earlier = BTreeSet::new();
            for tombstone in order.tombstones(&versions) {
                earlier.extend(self.formerly_named(tombstone.key, joined));
                self.put(&tombstone, joined, changes);
            }
            changes.push(Change::ForgetAside(order.target));
            let blobs = order.blobs_of(&versions, earlier);
            for &blob in &blobs {
                let key = RecordKey { bucket: order.target.bucket, kind: Blob::KIND, id: Blob::record_id(blob) };
                let is_named = self
                    .live_in(key.bucket, joined)
                    .iter()
                    .any(|record| record.key.kind != Blob::KIND && erase::blobs_named(record).contains(&blob));
                let held = self.current(key, joined).filter(|_| !is_named);
                if let Some(emptied) = held.and_then(|held| erase::emptied(held, order.stamp)) {
                    self.put(&emptied, joined, changes);
                }
            }
            for amendment in order.amendments(&blobs) {
                if self.current(amendment.key, joined).is_none() {
                    self.put(&amendment, joined, changes);
                    orders.push(amendment);
                }
            }
            changes.push(Change::PendingErasure(erasure.key));
        }
    }

    fn put(&self, record: &Record, joined: &mut Joined, changes: &mut Vec<Change>) {
        let held = self.current(record.key, joined).cloned();
        let merged = held.clone().map_or_else(|| record.clone(), |held| crate::merge::merge(held, record.clone()));
        if held.as_ref() != Some(&merged) {
            let bucket = merged.key.bucket;
            changes.push(Change::Put { bucket, bytes: merged.encode().into(), origin: None });
            joined.insert(held.as_ref(), merged);
        }
    }

    fn current<'a>(&'a self, key: RecordKey, joined: &'a Joined) -> Option<&'a Record> {
        joined.records.get(&key).or_else(|| self.tables.records.get(&key).map(|row| &row.record))
    }

    fn live_in(&self, bucket: BucketId, joined: &Joined) -> Vec<Record> {
        let held =
            self.tables.records.iter().filter(|(key, _)| !joined.records.contains_key(key)).map(|(_, row)| &row.record);
        let all = held.chain(joined.records.values());
        all.filter(|record| record.key.bucket == bucket && !record.is_tombstone()).cloned().collect()
    }

    /// What erasures that are held name.
    pub(super) fn erased(&self) -> BTreeSet<RecordKey> {
        let held = self.tables.records.values();
        held.filter_map(|row| Order::read(&row.record)).map(|order| order.target).collect()
    }

    fn formerly_named(&self, key: RecordKey, joined: &Joined) -> BTreeSet<BlobHash> {
        let former = [&self.tables.former, &joined.former].into_iter().filter_map(|former| former.get(&key));
        former.flatten().copied().collect()
    }

    /// Versions of the record that are held or set aside, and of what is about it.
    fn versions_about(&self, target: RecordKey, joined: &Joined) -> Vec<Record> {
        let held = self.live_in(target.bucket, joined);
        let all = held.into_iter().chain(self.tables.quarantine.iter().cloned());
        all.filter(|record| is_about(record, target)).collect()
    }
}

/// Whether a version is of the record, or of something about it.
pub(super) fn is_about(version: &Record, target: RecordKey) -> bool {
    version.key == target || erase::subject(version) == Some(target)
}
