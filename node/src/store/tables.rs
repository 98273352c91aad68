//! What one change of a record writes: its row, its feed row, and every index that follows from it.
//!
//! All writes of records go through [`put`], so that the feed and the records stay a bijection (invariant 5) and no
//! index can lag behind.

use std::collections::BTreeSet;

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{
    Author, AuthorCategory, Blob, Category, Collection, Media, MediaAuthor, MediaCategory, OpenCount, Typed,
};
use alexandria_sync::erase::{self, Order, blobs_named};
use alexandria_sync::id::{BucketId, RecordId, Seq};
use alexandria_sync::record::{Kind, Record, RecordKey};
use alexandria_sync::store::Peer;

use super::error::StoreError;
use super::overlay::Overlay;
use super::row::{RecordRow, Totals, decode_number, encode_feed};
use super::selection::{Level, Pinned, level};
use super::{absence, demand, keys, usage};

/// The kinds that are listed by popularity, and found by search.
const POPULAR_KINDS: [Kind; 4] = [Author::KIND, Media::KIND, Category::KIND, Collection::KIND];

/// Side of a link that is read from the first of its two ends.
pub(crate) const FROM_LEFT: u8 = 0;
/// Side of a link that is read from the second of its two ends.
pub(crate) const FROM_RIGHT: u8 = 1;

/// The row of a record.
pub(crate) fn read(rows: &Overlay<'_>, key: RecordKey) -> Result<Option<RecordRow>, StoreError> {
    rows.get(&keys::record(key))?.map(|value| RecordRow::decode(key.bucket, &value)).transpose()
}

/// Stores a version of a record at the end of its bucket's feed, and says where.
pub(crate) fn put(rows: &mut Overlay<'_>, record: Record, arrived_from: Option<Peer>) -> Result<Seq, StoreError> {
    let key = record.key;
    let before = read(rows, key)?;
    let seq = head(rows, key)?.next();
    if let Some(before) = &before {
        rows.remove(keys::feed(key.bucket, before.seq));
    }
    rows.put(keys::feed(key.bucket, seq), encode_feed(&record));
    rows.put(keys::head(key.bucket), seq.0.to_be_bytes().to_vec());
    rows.put(keys::id(key), vec![u8::from(record.is_tombstone())]);

    if before.is_none() && arrived_from.is_none() && absence::is_reading_anew(rows)? {
        // Made here just now: nobody else can have deleted it.
        absence::confirm(rows, key);
    }
    let before = before.map(|row| row.record);
    let popularity = popularity(rows, key.id)?;
    let stale = before.as_ref().map_or_else(BTreeSet::new, |before| index_rows(before, popularity));
    let fresh = index_rows(&record, popularity);
    stale.difference(&fresh).for_each(|row| rows.remove(row.clone()));
    fresh.difference(&stale).for_each(|row| rows.put(row.clone(), Vec::new()));

    for blob in erase::unnamed(before.as_ref(), &record) {
        rows.put(keys::unnamed(key, blob), Vec::new());
    }
    if let Some(blob) = blob_held_by_bucket(&record)
        && before.as_ref().and_then(blob_held_by_bucket) != Some(blob)
    {
        usage::forget_holder(rows, blob)?;
    }
    count_totals(rows, before.as_ref(), Some(&record))?;
    count_opened(rows, before.as_ref(), Some(&record))?;
    let row = RecordRow { seq, arrived_from, record };
    rows.put(keys::record(key), row.encode());
    settle_blobs(rows, before.iter().chain([&row.record]))?;
    if let BucketId::Collection(id) = key.bucket
        && level(rows, key.bucket)? == Level::None
    {
        // An edit made here of a collection that is not kept: it goes again once it was sent.
        rows.put(keys::unaligned(id), Vec::new());
    }
    Ok(seq)
}

/// Takes a record out as if it had never been here, with every row that follows from it. No tombstone stays.
pub(crate) fn remove(rows: &mut Overlay<'_>, row: RecordRow) -> Result<(), StoreError> {
    let RecordRow { seq, record, .. } = row;
    let key = record.key;
    rows.remove(keys::record(key));
    rows.remove(keys::feed(key.bucket, seq));
    rows.remove(keys::id(key));
    for row in index_rows(&record, popularity(rows, key.id)?) {
        rows.remove(row);
    }
    for (row, _) in rows.with_prefix(&keys::unnamed_by(key))? {
        rows.remove(row);
    }
    if POPULAR_KINDS.contains(&key.kind) && !record.is_tombstone() {
        rows.put(keys::left(key.kind, key.id), Vec::new());
    }
    count_totals(rows, Some(&record), None)?;
    count_opened(rows, Some(&record), None)?;
    settle_blobs(rows, [&record])
}

/// Takes a tombstone out. What the record named once stays, for when it is erased.
pub(crate) fn forget_tombstone(rows: &mut Overlay<'_>, row: &RecordRow) -> Result<(), StoreError> {
    let key = row.record.key;
    rows.remove(keys::record(key));
    rows.remove(keys::feed(key.bucket, row.seq));
    rows.remove(keys::id(key));
    count_totals(rows, Some(&row.record), None)
}

/// Says anew of the blobs that versions of a record concern whether they are wanted.
fn settle_blobs<'r>(rows: &mut Overlay<'_>, versions: impl IntoIterator<Item = &'r Record>) -> Result<(), StoreError> {
    let mut blobs = BTreeSet::new();
    for record in versions {
        let key = record.key;
        let pinned = key.kind == Media::KIND && rows.contains(&keys::pin(Pinned::Media(key.id)))?;
        for blob in blobs_concerned(record) {
            if key.kind == Blob::KIND || pinned || rows.any_with_prefix(&keys::erasures_of_blob(blob))?.is_some() {
                blobs.insert(blob);
            }
        }
    }
    blobs.into_iter().try_for_each(|blob| demand::settle(rows, blob))
}

/// The blobs of which a change of this record may decide whether they are wanted.
fn blobs_concerned(record: &Record) -> Vec<BlobHash> {
    match Order::read(record) {
        Some(order) => order.blobs.into_iter().collect(),
        None => blobs_named(record),
    }
}

/// The size of a blob, as a record says that names it.
pub(crate) fn size_in_record(rows: &Overlay<'_>, blob: BlobHash) -> Result<Option<u64>, StoreError> {
    let Some(row) = rows.any_with_prefix(&keys::references_of_kind(blob, Blob::KIND))? else { return Ok(None) };
    let named = read(rows, reference_of_row(&row)?)?.and_then(|row| Blob::from_record(&row.record));
    Ok(named.map(|blob| blob.size_bytes).filter(|size| *size > 0))
}

/// The size in a row of table `w`; 0 if nobody knows.
pub(crate) fn wanted_size(value: &[u8]) -> u64 {
    value.try_into().map_or(0, u64::from_be_bytes)
}

/// The buckets that a blob is content of (`alexandria_sync::erase::content`): a blob record there names it, and no erasure
/// that lists it stands against that.
pub(crate) fn content_of(rows: &Overlay<'_>, blob: BlobHash) -> Result<Vec<BucketId>, StoreError> {
    let erasures = rows.any_with_prefix(&keys::erasures_of_blob(blob))?.is_some();
    let mut buckets = Vec::new();
    for (row, _) in rows.with_prefix(&keys::references_of_kind(blob, Blob::KIND))? {
        let bucket = reference_of_row(&row)?.bucket;
        let erased = erasures && rows.any_with_prefix(&keys::erasures_of_blob_in(blob, bucket))?.is_some();
        if !erased || is_named_in(rows, bucket, blob)? {
            buckets.push(bucket);
        }
    }
    Ok(buckets)
}

/// Whether a blob has to be kept: it is content of a bucket, or a record shows it.
pub(crate) fn is_kept(rows: &Overlay<'_>, blob: BlobHash) -> Result<bool, StoreError> {
    if rows.any_with_prefix(&keys::erasures_of_blob(blob))?.is_none() {
        return Ok(rows.any_with_prefix(&keys::references(blob))?.is_some());
    }
    for (row, _) in rows.with_prefix(&keys::references(blob))? {
        if reference_of_row(&row)?.kind != Blob::KIND {
            return Ok(true);
        }
    }
    Ok(!content_of(rows, blob)?.is_empty())
}

/// Whether a live record of the bucket, other than its blob record, names a blob.
pub(crate) fn is_named_in(rows: &Overlay<'_>, bucket: BucketId, blob: BlobHash) -> Result<bool, StoreError> {
    for (row, _) in rows.with_prefix(&keys::references(blob))? {
        let by = reference_of_row(&row)?;
        if by.bucket == bucket && by.kind != Blob::KIND {
            return Ok(true);
        }
    }
    Ok(false)
}

fn reference_of_row(row: &[u8]) -> Result<RecordKey, StoreError> {
    keys::reference_of(row).ok_or(StoreError::DamagedRow { what: "blob reference" })
}

fn head(rows: &Overlay<'_>, key: RecordKey) -> Result<Seq, StoreError> {
    let head = rows.get(&keys::head(key.bucket))?;
    head.map_or(Ok(Seq(0)), |value| decode_number(&value).map(Seq))
}

fn popularity(rows: &Overlay<'_>, id: RecordId) -> Result<u64, StoreError> {
    rows.get(&keys::count(id))?.map_or(Ok(0), |value| decode_number(&value))
}

/// The rows of `t`, `p`, `l`, `b`, `e` and `g` that follow from a version of a record. A tombstone has none.
fn index_rows(record: &Record, popularity: u64) -> BTreeSet<Vec<u8>> {
    let key = record.key;
    let mut rows = BTreeSet::new();
    if record.is_tombstone() {
        return rows;
    }
    rows.insert(keys::ranked(keys::UPDATED, record.newest_stamp().time.to_bits(), key));
    if POPULAR_KINDS.contains(&key.kind) {
        rows.insert(keys::ranked(keys::POPULAR, popularity, key));
    }
    if let Some((left, right)) = linked_ends(record) {
        rows.insert(keys::link(key.kind, FROM_LEFT, left, right, key.bucket));
        rows.insert(keys::link(key.kind, FROM_RIGHT, right, left, key.bucket));
    }
    if let Some(subject) = erase::subject(record) {
        rows.insert(keys::link(key.kind, FROM_LEFT, subject.id, key.id, key.bucket));
    }
    rows.extend(blobs_named(record).into_iter().map(|blob| keys::reference(blob, key)));
    if let Some(order) = Order::read(record) {
        rows.insert(keys::erased(order.target, key.id));
        rows.extend(order.blobs.iter().map(|blob| keys::erased_blob(*blob, key.bucket, key.id)));
    }
    rows
}

/// The two ends of a link that stands.
fn linked_ends(record: &Record) -> Option<(RecordId, RecordId)> {
    let (linked, left, right) = match record.key.kind {
        MediaAuthor::KIND => MediaAuthor::from_record(record).map(|link| (link.linked, link.media, link.author))?,
        MediaCategory::KIND => {
            MediaCategory::from_record(record).map(|link| (link.linked, link.media, link.category))?
        }
        AuthorCategory::KIND => {
            AuthorCategory::from_record(record).map(|link| (link.linked, link.author, link.category))?
        }
        _ => return None,
    };
    linked.then_some((left, right))
}

/// The blob that a bucket is to hold because of this record.
pub(crate) fn blob_held_by_bucket(record: &Record) -> Option<BlobHash> {
    Blob::from_record(record)?.hash
}

fn count_totals(rows: &mut Overlay<'_>, before: Option<&Record>, after: Option<&Record>) -> Result<(), StoreError> {
    let Some(kind) = before.or(after).map(|record| record.key.kind) else { return Ok(()) };
    let key = keys::totals(kind);
    let mut totals = rows.get(&key)?.map_or(Ok(Totals::default()), |value| Totals::decode(&value))?;
    if let Some(before) = before {
        let counted = if before.is_tombstone() { &mut totals.deleted } else { &mut totals.live };
        *counted = counted.saturating_sub(1);
        totals.size_bytes = totals.size_bytes.saturating_sub(before.encode().len() as u64);
    }
    if let Some(after) = after {
        let counted = if after.is_tombstone() { &mut totals.deleted } else { &mut totals.live };
        *counted += 1;
        totals.size_bytes += after.encode().len() as u64;
    }
    rows.put(key, totals.encode());
    Ok(())
}

/// Adds what a counter grew by to the popularity of what it counts, and moves that in the order by popularity.
fn count_opened(rows: &mut Overlay<'_>, before: Option<&Record>, after: Option<&Record>) -> Result<(), StoreError> {
    if before.or(after).is_none_or(|record| record.key.kind != OpenCount::KIND) {
        return Ok(());
    }
    let counted = |record: &Record| OpenCount::from_record(record).map(|open| (open.media, open.count));
    let (before, after) = (before.and_then(counted), after.and_then(counted));
    for id in [before, after].into_iter().flatten().map(|(id, _)| id).collect::<BTreeSet<_>>() {
        let of = |side: Option<(RecordId, u64)>| side.filter(|(of, _)| *of == id).map_or(0, |(_, count)| count);
        let old = popularity(rows, id)?;
        let new = old.saturating_sub(of(before)).saturating_add(of(after));
        if new == old {
            continue;
        }
        rows.put(keys::count(id), new.to_be_bytes().to_vec());
        for kind in POPULAR_KINDS {
            for (row, deleted) in rows.with_prefix(&keys::ids(kind, id))? {
                let Some(key) = record_of_id_row(&row).filter(|_| deleted != [1]) else { continue };
                rows.remove(keys::ranked(keys::POPULAR, old, key));
                rows.put(keys::ranked(keys::POPULAR, new, key), Vec::new());
            }
        }
    }
    Ok(())
}

/// The record that a row of table `i` is about.
pub(crate) fn record_of_id_row(row: &[u8]) -> Option<RecordKey> {
    let mut key = keys::KeyReader::new(row);
    let (kind, id) = (key.kind()?, key.id()?);
    Some(RecordKey { bucket: key.bucket()?, kind, id })
}
