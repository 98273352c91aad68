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

    /// Forgets what was set aside of a bucket: let in after a tombstone has gone, it would bring back what was deleted. Deletes stay for as long as
    /// there is a row that they may delete.
    pub(in crate::sim) fn forget_aside_in(&self, bucket: BucketId) {
        let mut inner = self.lock();
        let has_rows = inner.tables.feeds.get(&bucket).is_some_and(|feed| !feed.is_empty());
        let goes = |version: &Record| version.key.bucket == bucket && !(has_rows && version.is_tombstone());
        let aside = inner.tables.quarantine.iter();
        let gone: Vec<Change> = aside
            .filter(|version| goes(version))
            .cloned()
            .map(|version| Change::ForgetVersion(Box::new(version)))
            .collect();
        if !gone.is_empty() {
            inner.commit(gone);
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

    pub(super) fn forget_version(&mut self, gone: &Record) {
        self.quarantine.retain(|version| version != gone);
        let is_aside = self.quarantine.iter().any(|version| version.key == gone.key);
        if !is_aside && !self.records.contains_key(&gone.key) {
            self.absence.held_back.remove(&gone.key);
        }
    }

    pub(super) fn forget_cursors(&mut self, bucket: BucketId) {
        self.cursors.retain(|&(_, of), _| of != bucket);
    }
}
