//! A bucket is no longer wanted here: everything of it goes, and nobody hears of it.

use super::{Change, SimRecords, Tables};
use crate::id::{BucketId, Seq};
use crate::record::{Record, RecordKey};

impl SimRecords {
    /// Drops the records of a bucket and the cursors into it. Its rows are numbered on, so that nothing that comes later is
    /// taken for something seen.
    pub fn evict(&self, bucket: BucketId) {
        self.lock().commit(vec![Change::Evict(bucket)]);
    }

    /// Drops the records of a bucket that stand at a row or before it, but for those that have to stay. Which went.
    pub(in crate::sim) fn evict_upto(
        &self,
        bucket: BucketId,
        upto: Seq,
        stays: impl Fn(&Record) -> bool,
    ) -> Vec<Record> {
        let mut inner = self.lock();
        let Some(feed) = inner.tables.feeds.get(&bucket) else { return Vec::new() };
        let rows = feed.range(..=upto).map(|(_, key)| inner.tables.records[key].record.clone());
        let gone: Vec<Record> = rows.filter(|record| !stays(record)).collect();
        if !gone.is_empty() {
            inner.commit(vec![Change::EvictRows(gone.iter().map(|record| record.key).collect())]);
        }
        gone
    }

    /// Forgets what was set aside of a bucket: let in after a tombstone has gone, it would bring back what was deleted.
    pub(in crate::sim) fn forget_aside_in(&self, bucket: BucketId) {
        let mut inner = self.lock();
        if inner.tables.quarantine.iter().any(|version| version.key.bucket == bucket) {
            inner.commit(vec![Change::ForgetAsideIn(bucket)]);
        }
    }

    /// The bucket will be read again from its beginning.
    pub(in crate::sim) fn forget_cursors(&self, bucket: BucketId) {
        self.lock().commit(vec![Change::ForgetCursors(bucket)]);
    }
}

impl Tables {
    pub(super) fn evict(&mut self, bucket: BucketId) {
        self.records.retain(|key, _| key.bucket != bucket);
        self.feeds.remove(&bucket);
        self.forget_cursors(bucket);
    }

    pub(super) fn evict_rows(&mut self, keys: &[RecordKey]) {
        for key in keys {
            let Some(row) = self.records.remove(key) else { continue };
            if let Some(feed) = self.feeds.get_mut(&key.bucket) {
                feed.remove(&row.seq);
            }
        }
    }

    pub(super) fn forget_aside_in(&mut self, bucket: BucketId) {
        let (aside, stays) =
            std::mem::take(&mut self.quarantine).into_iter().partition(|version| version.key.bucket == bucket);
        self.quarantine = stays;
        let aside: Vec<Record> = aside;
        for version in aside.iter().filter(|version| !self.records.contains_key(&version.key)) {
            self.absence.held_back.remove(&version.key);
        }
    }

    pub(super) fn forget_cursors(&mut self, bucket: BucketId) {
        self.cursors.retain(|&(_, of), _| of != bucket);
    }
}
