//! What somebody is reading just now, so that it is not given up meanwhile: content that is open, collections that are
//! being exported.
//!
//! Erasing asks nobody: what is to be forgotten goes, and a reader keeps the bytes of a file that is open.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alexandria_sync::id::BucketId;

use super::records::Records;

/// Who reads what. There are as many entries as there are readers, whose number others limit.
#[derive(Debug)]
pub(crate) struct Readers<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Default for Readers<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Copy + Eq + Hash> Readers<K> {
    /// Notes one more reader, until what is returned is dropped.
    pub(crate) fn enter(&self, what: K) -> Reading<K> {
        *locked(&self.0).entry(what).or_default() += 1;
        Reading { readers: Arc::clone(&self.0), what }
    }

    pub(crate) fn has(&self, what: K) -> bool {
        locked(&self.0).contains_key(&what)
    }
}

/// One reader of something.
#[derive(Debug)]
pub(crate) struct Reading<K: Copy + Eq + Hash> {
    readers: Arc<Mutex<HashMap<K, usize>>>,
    what: K,
}

impl<K: Copy + Eq + Hash> Drop for Reading<K> {
    fn drop(&mut self) {
        let mut readers = locked(&self.readers);
        if let Some(count) = readers.get_mut(&self.what) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&self.what);
            }
        }
    }
}

/// Buckets that stay as they are until this is dropped: nothing of them is evicted, neither records nor content.
pub struct Staying {
    readings: Vec<Reading<BucketId>>,
    records: Records,
}

impl Records {
    /// Keeps what these buckets hold from being evicted.
    pub fn let_stay(&self, buckets: impl IntoIterator<Item = BucketId>) -> Staying {
        let readings = buckets.into_iter().map(|bucket| self.shared().staying.enter(bucket)).collect();
        Staying { readings, records: self.clone() }
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        self.readings.clear();
        self.records.try_again();
    }
}

fn locked<K>(readers: &Mutex<HashMap<K, usize>>) -> MutexGuard<'_, HashMap<K, usize>> {
    readers.lock().unwrap_or_else(PoisonError::into_inner)
}
