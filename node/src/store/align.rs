//! Brings rows and content in line with what was chosen, in the background.
//!
//! A collection that is no longer kept is evicted: its records, their feed rows and every index row go, a few hundred at a
//! time, each step one transaction. A record goes only once the bridge has it: it has read the feed here past its row, and
//! would give it back. The record that makes a blob content of the collection waits for the content as well. What is left
//! is an edit that waits to be sent, or content that waits to be uploaded.
//!
//! A collection that is kept has its blobs looked at again: wanted, or on demand.
//!
//! The place that was reached is kept in the row of table `E`, so a restart goes on there; a choice in between starts anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Blob, Typed};
use alexandria_sync::erase::blobs_named;
use alexandria_sync::id::{BucketId, NodeId, RecordId, Seq};
use alexandria_sync::record::{Kind, Record};
use tokio::sync::watch;

use super::error::StoreError;
use super::keys::{self, KeyReader};
use super::records::{ROWS_MAX, Records};
use super::row::{Quarantined, RecordRow};
use super::selection::{CHOICES_MAX, Level, collection_of, level};
use super::usage::UseRow;
use super::writer::{Room, Transaction};
use super::{demand, quarantine, tables};

/// Rows that one step looks at, at most.
const ROWS_AT_ONCE: usize = 256;
/// Rows that are counted as waiting, at most.
pub const WAITING_COUNTED_MAX: u64 = 1000;
/// Blobs that the bridge is to be asked about, at most; the others are found again later.
pub const UNCONFIRMED_MAX: usize = 1024;

/// What is known of the bridge: which one it is, how far it has the buckets that are leaving, and which blobs it is to be
/// asked about.
#[derive(Debug, Default)]
pub(crate) struct Bridge {
    node: Option<NodeId>,
    has: BTreeMap<BucketId, Seq>,
    unconfirmed: BTreeSet<BlobHash>,
}

/// What a step came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// More is to be done. These blobs were given up with their collection, unless something else names them.
    More(Vec<BlobHash>),
    /// Some rows have to wait, for the bridge or until an export is done.
    Waiting,
    /// The collection is in line.
    Done,
}

impl Records {
    /// Notes which bridge this node belongs to. What another one said counts no more.
    pub fn set_bridge(&self, node: Option<NodeId>) {
        let mut bridge = self.bridge();
        if bridge.node != node {
            *bridge = Bridge { node, ..Bridge::default() };
        }
    }

    /// The bridge that this node belongs to.
    pub fn bridge_id(&self) -> Option<NodeId> {
        self.bridge().node
    }

    /// Notes that the bridge has made durable what this node has in `bucket`, up to a row, and would give it back.
    pub fn note_held_by_bridge(&self, bridge: NodeId, bucket: BucketId, upto: Seq) {
        self.set_bridge(Some(bridge));
        self.bridge().has.insert(bucket, upto);
        self.try_again();
    }

    /// Blobs that can be given up once the bridge is known to hold them; they are taken off the list.
    pub fn take_unconfirmed(&self) -> Vec<BlobHash> {
        std::mem::take(&mut self.bridge().unconfirmed).into_iter().collect()
    }

    /// Changes whenever there is something to be brought in line, or to be tried again.
    pub fn alignment_changes(&self) -> watch::Receiver<u64> {
        self.shared().alignment.subscribe()
    }

    pub(crate) fn try_again(&self) {
        self.shared().alignment.send_modify(|times| *times += 1);
    }

    /// Changes whenever there is more to ask the bridge about.
    pub fn unconfirmed_changes(&self) -> watch::Receiver<u64> {
        self.shared().unconfirmed.subscribe()
    }

    pub(crate) fn note_unconfirmed(&self, blobs: impl IntoIterator<Item = BlobHash>) {
        let mut bridge = self.bridge();
        let mut more = false;
        for blob in blobs {
            if bridge.unconfirmed.len() < UNCONFIRMED_MAX {
                more |= bridge.unconfirmed.insert(blob);
            }
        }
        drop(bridge);
        self.shared().unconfirmed.send_if_modified(|times| {
            *times += u64::from(more);
            more
        });
    }

    /// Collections that are to be brought in line.
    pub fn unaligned(&self) -> Result<Vec<RecordId>, StoreError> {
        let rows = self.shared().engine.scan_prefix(&[keys::UNALIGNED]).take(CHOICES_MAX);
        rows.map(|row| collection_of(&row?.0)).collect()
    }

    /// Takes the next step with a collection, durably.
    pub async fn align(&self, collection: RecordId) -> Result<Step, StoreError> {
        let bucket = BucketId::Collection(collection);
        let bridge = {
            let bridge = self.bridge();
            bridge.node.map(|node| (node, bridge.has.get(&bucket).copied().unwrap_or_default()))
        };
        let shared = std::sync::Arc::clone(&self.inner.shared);
        let work = move |transaction: &mut Transaction<'_>| {
            let stays = shared.staying.has(bucket);
            let mut step = Aligning { transaction, bucket, collection, bridge, stays, unconfirmed: Vec::new() };
            let outcome = step.take()?;
            Ok::<_, StoreError>((outcome, step.unconfirmed))
        };
        let (step, unconfirmed) = self.inner.writer.submit(Room::Freed, work).await?;
        self.note_unconfirmed(unconfirmed);
        Ok(step)
    }

    /// How many changes of a bucket the bridge is not known to have, at most [`WAITING_COUNTED_MAX`].
    pub fn waiting_to_be_sent(&self, bucket: BucketId) -> Result<u64, StoreError> {
        let has = self.bridge().has.get(&bucket).copied().unwrap_or_default();
        let head = self.shared().head(bucket);
        let mut waiting = 0;
        for row in self.shared().feed_rows(bucket, has, head) {
            waiting += u64::from(row?.1.is_some());
            if waiting == WAITING_COUNTED_MAX {
                break;
            }
        }
        Ok(waiting)
    }

    /// Whether anything of a bucket is here.
    pub fn holds_any_of(&self, bucket: BucketId) -> Result<bool, StoreError> {
        let rows = &self.shared().engine;
        Ok(rows.scan_prefix(&keys::records_of(bucket)).next().transpose()?.is_some())
    }

    /// Records that left without a tombstone and may still be found by the search index, at most [`ROWS_MAX`].
    pub fn left(&self) -> Result<Vec<(Kind, RecordId)>, StoreError> {
        let rows = self.shared().engine.scan_prefix(&[keys::LEFT]).take(ROWS_MAX);
        rows.map(|row| {
            let row = row?.0;
            let mut key = KeyReader::new(&row);
            let left = key.kind().and_then(|kind| Some((kind, key.id()?)));
            left.ok_or(StoreError::DamagedRow { what: "record that left" })
        })
        .collect()
    }

    /// Notes that the search index no longer finds them.
    pub async fn forget_left(&self, left: Vec<(Kind, RecordId)>) -> Result<(), StoreError> {
        let work = move |transaction: &mut Transaction<'_>| {
            for (kind, id) in left {
                transaction.rows.remove(keys::left(kind, id));
            }
            Ok(())
        };
        self.inner.writer.submit(Room::Freed, work).await
    }

    fn bridge(&self) -> MutexGuard<'_, Bridge> {
        self.shared().bridge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Aligning<'t, 'g> {
    transaction: &'t mut Transaction<'g>,
    bucket: BucketId,
    collection: RecordId,
    /// Which it is, and up to where it has the bucket.
    bridge: Option<(NodeId, Seq)>,
    /// Whether somebody is exporting it.
    stays: bool,
    unconfirmed: Vec<BlobHash>,
}

impl Aligning<'_, '_> {
    fn take(&mut self) -> Result<Step, StoreError> {
        let Some(place) = self.transaction.rows.get(&keys::unaligned(self.collection))? else { return Ok(Step::Done) };
        match level(&self.transaction.rows, self.bucket)? {
            Level::None if self.stays => Ok(Step::Waiting),
            Level::None => self.evict_some(place),
            Level::Records | Level::Content => self.settle_some(place),
        }
    }

    fn settle_some(&mut self, place: Vec<u8>) -> Result<Step, StoreError> {
        let prefix = keys::records_of_kind(self.bucket, Blob::KIND);
        let rows = self.rows_after(place, &prefix)?;
        for (_, row) in &rows {
            if let Some(blob) = tables::blob_held_by_bucket(&row.record) {
                demand::settle(&mut self.transaction.rows, blob)?;
            }
        }
        let unaligned = keys::unaligned(self.collection);
        if let Some((last, _)) = rows.into_iter().next_back() {
            self.transaction.rows.put(unaligned, last);
            return Ok(Step::More(Vec::new()));
        }
        self.transaction.rows.remove(unaligned);
        Ok(Step::Done)
    }

    fn evict_some(&mut self, place: Vec<u8>) -> Result<Step, StoreError> {
        // Let in after a tombstone has gone, it would bring back what was deleted. A delete stays for as long as there may be what it deletes.
        if self.bridge.is_some() && self.forget_set_aside(|version| !version.is_tombstone())? {
            return Ok(Step::More(Vec::new()));
        }
        let prefix = keys::records_of(self.bucket);
        let rows = self.rows_after(place, &prefix)?;
        let unaligned = keys::unaligned(self.collection);
        let Some((last, _)) = rows.last() else {
            // Rows that were written while this went on are met in another round.
            if self.transaction.rows.any_with_prefix(&prefix)?.is_some() {
                self.transaction.rows.put(unaligned, Vec::new());
                return Ok(Step::Waiting);
            }
            if self.bridge.is_some() && self.forget_set_aside(|_| true)? {
                return Ok(Step::More(Vec::new()));
            }
            self.transaction.rows.remove(unaligned);
            return Ok(Step::Done);
        };
        self.transaction.rows.put(unaligned, last.clone());
        let mut given_up = Vec::new();
        for (_, row) in rows {
            if !self.may_go(&row)? {
                continue;
            }
            // Also what the last record names whose blob record went before it.
            given_up.extend(blobs_named(&row.record));
            tables::remove(&mut self.transaction.rows, row)?;
        }
        Ok(Step::More(given_up))
    }

    /// Whether the bridge has the record, and the content that it makes part of the bucket.
    fn may_go(&mut self, row: &RecordRow) -> Result<bool, StoreError> {
        let Some((bridge, upto)) = self.bridge else { return Ok(false) };
        if row.seq > upto {
            return Ok(false);
        }
        // Cursors pass what is held back; nobody has it.
        if self.transaction.rows.contains(&keys::held_back(row.record.key))? {
            return Ok(false);
        }
        // An erasure stays until this disk has forgotten what it erases, and has said so.
        if self.transaction.rows.contains(&keys::pending_erasure(row.record.key))? {
            return Ok(false);
        }
        let Some(blob) = tables::blob_held_by_bucket(&row.record) else { return Ok(true) };
        let rows = &self.transaction.rows;
        let content_of = tables::content_of(rows, blob)?;
        if !rows.contains(&keys::held(blob))?
            || content_of.iter().all(|bucket| *bucket != self.bucket)
            || content_of.len() > 1
        {
            return Ok(true);
        }
        let known = rows.get(&keys::usage(blob))?.map(|value| UseRow::decode(&value)).transpose()?;
        let confirmed = known.is_some_and(|row| row.held_by == Some(bridge));
        if !confirmed {
            self.unconfirmed.push(blob);
        }
        Ok(confirmed)
    }

    /// Forgets some of what was set aside of the bucket, and says whether there was any. Whoever sent it has it, and sends it again when it
    /// is asked.
    fn forget_set_aside(&mut self, goes: impl Fn(&Record) -> bool) -> Result<bool, StoreError> {
        let prefix = keys::quarantine_of(self.bucket);
        let mut from = prefix.clone();
        loop {
            let aside = self.transaction.rows.stored_after(from.clone(), &prefix, ROWS_AT_ONCE)?;
            let Some((last, _)) = aside.last() else { return Ok(false) };
            from.clone_from(last);
            let mut any = false;
            for (key, value) in aside {
                let version = Quarantined::decode(self.bucket, &value)?.record;
                if !goes(&version) {
                    continue;
                }
                any = true;
                quarantine::forget(&mut self.transaction.rows, key, &value)?;
                // Nothing of it is left to be held back.
                if self.transaction.read(version.key)?.is_none()
                    && !quarantine::is_aside(&self.transaction.rows, version.key)?
                {
                    self.transaction.rows.remove(keys::held_back(version.key));
                }
            }
            if any {
                return Ok(true);
            }
        }
    }

    /// The next rows of table `r`, with their keys.
    fn rows_after(&self, place: Vec<u8>, prefix: &[u8]) -> Result<Vec<(Vec<u8>, RecordRow)>, StoreError> {
        let from = if place.starts_with(prefix) { place } else { prefix.to_vec() };
        let rows = self.transaction.rows.stored_after(from, prefix, ROWS_AT_ONCE)?;
        rows.into_iter().map(|(key, value)| RecordRow::decode(self.bucket, &value).map(|row| (key, row))).collect()
    }
}
