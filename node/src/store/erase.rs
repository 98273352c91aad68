//! The right to be forgotten, on the node's disk. What follows from an erasure is decided in `alexandria_sync::erase`;
//! here it is written, in the same commit as the erasure, whoever brought it.
//!
//! Out of sight at once is not gone: the tree's files, its dump and the content lie on the disk still. A row of table `x`
//! stands for each erasure until `jobs::erase` has seen to them; [`Records::finish_erasures`] then writes the receipts.
//! A crash anywhere leaves the row, and the work is done again.

use std::collections::BTreeSet;

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Annotation, Blob, Erasure, Media, Typed};
use alexandria_sync::erase::{self, Order};
use alexandria_sync::id::{BucketId, RecordId};
use alexandria_sync::merge::merge;
use alexandria_sync::record::{Kind, Record, RecordKey};

use super::engine::Row;
use super::error::StoreError;
use super::keys::{self, KeyReader};
use super::overlay::Overlay;
use super::quarantine;
use super::records::{ROWS_MAX, Records};
use super::row::Quarantined;
use super::tables::{self, FROM_LEFT};
use super::writer::{Room, Transaction, check_room_for_copy};

/// Why a record was not erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// Nobody here has ever heard of it.
    #[error("there is no record {0} here, not even a deleted one")]
    NotFound(RecordId),
    /// Content goes with the record that names it; erasures stay.
    #[error("a record of this kind cannot be erased: erase the record that it belongs to")]
    NotErasable,
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Records {
    /// Erases a record here and wherever its bucket goes. Returns what orders it, one or more for each bucket that has
    /// the record; all of it is out of sight, here, when this returns.
    pub async fn erase(&self, kind: Kind, id: RecordId) -> Result<Vec<RecordKey>, EraseError> {
        if !erase::is_erasable(kind) {
            return Err(EraseError::NotErasable);
        }
        let work = move |transaction: &mut Transaction<'_>| {
            let mut ordered = Vec::new();
            for (row, _) in transaction.rows.with_prefix(&keys::ids(kind, id)).map_err(StoreError::from)? {
                let target = tables::record_of_id_row(&row).ok_or(StoreError::DamagedRow { what: "id row" })?;
                let versions = versions_about(&transaction.rows, target)?;
                if versions.is_empty() {
                    // Ordered before, and nothing has come since.
                    let known = ordered_before(&transaction.rows, target)?;
                    if !known.is_empty() {
                        ordered.extend(known);
                        continue;
                    }
                }
                let mut blobs = unnamed_by(&transaction.rows, target)?;
                blobs.extend(versions.iter().flat_map(erase::blobs_named));
                let stamp = transaction.time().stamp();
                for order in Order::records(target, &blobs, stamp) {
                    ordered.push(order.key);
                    transaction.put(order, None)?;
                }
            }
            if ordered.is_empty() { Err(EraseError::NotFound(id)) } else { Ok(ordered) }
        };
        self.inner.writer.submit(Room::Freed, work).await
    }

    /// Erasures that are out of sight and perhaps still on the disk, at most [`ROWS_MAX`].
    pub fn pending_erasures(&self) -> Result<Vec<RecordKey>, StoreError> {
        let rows = self.shared().engine.scan_prefix(&[keys::PENDING_ERASURE]).take(ROWS_MAX);
        rows.map(|row| keys::erasure_of_pending(&row?.0).ok_or(StoreError::DamagedRow { what: "pending erasure" }))
            .collect()
    }

    /// The blobs that an erasure lists.
    pub fn erased_blobs(&self, erasure: RecordKey) -> Result<BTreeSet<BlobHash>, StoreError> {
        let stored = self.get(erasure)?;
        Ok(stored.and_then(|stored| Order::read(&stored.record)).map(|order| order.blobs).unwrap_or_default())
    }

    /// Whether a live record of the bucket, other than its blob record, names a blob.
    pub fn is_named(&self, bucket: BucketId, blob: BlobHash) -> Result<bool, StoreError> {
        tables::is_named_in(&Overlay::new(&self.shared().engine), bucket, blob)
    }

    /// Writes the tree's files anew, so that they hold nothing that was replaced or removed. Takes a while; readers wait
    /// for a part of it, writers for all.
    pub async fn rewrite(&self) -> Result<(), StoreError> {
        self.inner.writer.rewrite().await
    }

    /// Whether there is room to write the tree's files anew.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] if there is not.
    pub fn check_room_to_rewrite(&self) -> Result<(), StoreError> {
        check_room_for_copy(self.shared())
    }

    /// Gives the receipts for erasures of which nothing is left on this disk.
    pub async fn finish_erasures(&self, erasures: Vec<RecordKey>) -> Result<(), StoreError> {
        let identity = self.identity();
        let work = move |transaction: &mut Transaction<'_>| {
            for erasure in erasures {
                let stamp = transaction.time().stamp();
                let receipt = erase::receipt(erasure, identity.node, identity.incarnation, stamp);
                put_joined(transaction, receipt)?;
                transaction.rows.remove(keys::pending_erasure(erasure));
            }
            Ok::<_, StoreError>(())
        };
        self.inner.writer.submit(Room::Freed, work).await
    }
}

/// What is to be stored instead of a version that an erasure has overtaken.
pub(super) fn overtaken(rows: &Overlay<'_>, record: &Record) -> Result<Option<Record>, StoreError> {
    let Some(subject) = erase::subject(record) else { return Ok(None) };
    for key in ordered_before(rows, subject)? {
        let order = tables::read(rows, key)?.and_then(|row| Order::read(&row.record));
        if let Some(tombstone) = order.and_then(|order| erase::overtaken(record, &order)) {
            return Ok(Some(tombstone));
        }
    }
    Ok(None)
}

/// The erasures of a record.
fn ordered_before(rows: &Overlay<'_>, target: RecordKey) -> Result<Vec<RecordKey>, StoreError> {
    let erasure_of = |row: &[u8]| {
        let id = row.last_chunk().copied().map(RecordId::from_bytes);
        let id = id.ok_or(StoreError::DamagedRow { what: "erasure row" })?;
        Ok(RecordKey { bucket: target.bucket, kind: Erasure::KIND, id })
    };
    rows.with_prefix(&keys::erasures_of(target))?.iter().map(|(row, _)| erasure_of(row)).collect()
}

/// Writes all that follows from an erasure that was just stored.
pub(super) fn carry_out(transaction: &mut Transaction<'_>, erasure: &Record) -> Result<(), StoreError> {
    let Some(order) = Order::read(erasure) else { return Ok(()) };
    let versions = versions_about(&transaction.rows, order.target)?;
    let mut earlier = BTreeSet::new();
    for tombstone in order.tombstones(&versions) {
        let key = tombstone.key;
        put_joined(transaction, tombstone)?;
        for blob in unnamed_by(&transaction.rows, key)? {
            transaction.rows.remove(keys::unnamed(key, blob));
            earlier.insert(blob);
        }
    }
    forget_aside(&mut transaction.rows, order.target)?;
    let bucket = order.target.bucket;
    let blobs = order.blobs_of(&versions, earlier);
    for &blob in &blobs {
        if tables::is_named_in(&transaction.rows, bucket, blob)? {
            continue;
        }
        let key = RecordKey { bucket, kind: Blob::KIND, id: Blob::record_id(blob) };
        let held = transaction.read(key)?.map(|row| row.record);
        if let Some(emptied) = held.and_then(|held| erase::emptied(&held, order.stamp)) {
            transaction.put(emptied, None)?;
        }
    }
    for amendment in order.amendments(&blobs) {
        if transaction.read(amendment.key)?.is_none() {
            transaction.put(amendment, None)?;
        }
    }
    transaction.rows.put(keys::pending_erasure(erasure.key), Vec::new());
    Ok(())
}

/// Stores what a record and the version here come to, if that differs from what is here.
fn put_joined(transaction: &mut Transaction<'_>, record: Record) -> Result<(), StoreError> {
    let held = transaction.read(record.key)?.map(|row| row.record);
    let joined = match &held {
        Some(held) => merge(held.clone(), record),
        None => record,
    };
    if held.as_ref() == Some(&joined) { Ok(()) } else { transaction.put(joined, None) }
}

/// The versions of a record that are here or set aside, and those of what is about it.
fn versions_about(rows: &Overlay<'_>, target: RecordKey) -> Result<Vec<Record>, StoreError> {
    let mut keys_about = vec![target];
    if target.kind == Media::KIND {
        for (row, _) in rows.with_prefix(&keys::links(Annotation::KIND, FROM_LEFT, target.id))? {
            let mut key = KeyReader::new(&row);
            let _ = (key.kind(), key.take::<1>(), key.id());
            let (id, bucket) = key.id().zip(key.bucket()).ok_or(StoreError::DamagedRow { what: "link" })?;
            if bucket == target.bucket {
                keys_about.push(RecordKey { bucket, kind: Annotation::KIND, id });
            }
        }
    }
    let mut versions = Vec::new();
    for key in keys_about {
        versions.extend(tables::read(rows, key)?.map(|row| row.record).filter(|record| !record.is_tombstone()));
    }
    versions.extend(aside_about(rows, target)?.into_iter().map(|(_, quarantined)| quarantined.record));
    Ok(versions)
}

/// The blobs that a record named once and does not any more.
fn unnamed_by(rows: &Overlay<'_>, record: RecordKey) -> Result<BTreeSet<BlobHash>, StoreError> {
    let blob_of = |row: &[u8]| row.last_chunk().copied().map(BlobHash::from_bytes);
    let rows = rows.with_prefix(&keys::unnamed_by(record))?;
    rows.iter().map(|(row, _)| blob_of(row).ok_or(StoreError::DamagedRow { what: "unnamed blob" })).collect()
}

/// The rows of versions that are set aside and are of the record, or about it.
fn aside_about(rows: &Overlay<'_>, target: RecordKey) -> Result<Vec<(Row, Quarantined)>, StoreError> {
    let mut about = Vec::new();
    for (key, value) in rows.with_prefix(&keys::quarantine_of(target.bucket))? {
        let quarantined = Quarantined::decode(target.bucket, &value)?;
        let version = &quarantined.record;
        if version.key == target || erase::subject(version) == Some(target) {
            about.push(((key, value), quarantined));
        }
    }
    Ok(about)
}

/// Removes what is set aside of a record and of what is about it, but for deletes: the bucket still needs their stamps.
fn forget_aside(rows: &mut Overlay<'_>, target: RecordKey) -> Result<(), StoreError> {
    for ((key, value), quarantined) in aside_about(rows, target)? {
        if !quarantined.record.is_tombstone() {
            quarantine::forget(rows, key, &value)?;
        }
    }
    Ok(())
}
