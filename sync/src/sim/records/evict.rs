//! A bucket is no longer wanted here: everything of it goes, and nobody hears of it.

use super::{Change, SimRecords, Tables};
use crate::id::BucketId;

impl SimRecords {
    /// Drops the records of a bucket and the cursors into it. Its rows are numbered on, so that nothing that comes later is
    /// taken for something seen.
    pub fn evict(&self, bucket: BucketId) {
        self.lock().commit(vec![Change::Evict(bucket)]);
    }
}

impl Tables {
    pub(super) fn evict(&mut self, bucket: BucketId) {
        self.records.retain(|key, _| key.bucket != bucket);
        self.feeds.remove(&bucket);
        self.cursors.retain(|&(_, of), _| of != bucket);
    }
}
