//! The keys of all rows: one table for each first byte, numbers big-endian so that they sort.
//!
//! | table | key after the first byte | value |
//! |---|---|---|
//! | `r` record | bucket 17, kind 2, id 16 | seq 8, who it came from, encoding (see `row`) |
//! | `i` id index | kind 2, id 16, bucket 17 | 1 if deleted, 0 if not |
//! | `f` feed | bucket 17, seq 8 | kind 2, id 16 |
//! | `d` head of a feed | bucket 17 | seq 8 |
//! | `c` cursor | peer 16, bucket 17 | epoch 8, seq 8 |
//! | `R` what is remembered of a peer | peer 16 | see `alexandria_sync::lineage` |
//! | `q` quarantine | bucket 17, kind 2, id 16, digest 16 | see `row` |
//! | `t` by time of change | kind 2, time 8, id 16, bucket 17 | |
//! | `p` by popularity | kind 2, count 8, id 16, bucket 17 | |
//! | `n` popularity | id 16 | count 8 |
//! | `k` totals of a kind | kind 2 | live 8, deleted 8, bytes 8 |
//! | `l` links | kind 2, side 1, end 16, other end 16, bucket 17 | |
//! | `b` who refers to a blob | hash 32, kind 2, bucket 17, id 16 | |
//! | `h` blobs held | hash 32 | see `row` |
//! | `w` blobs wanted | hash 32 | size 8, where the record says it |
//! | `e` erasures of a record | kind 2, id 16, bucket 17, erasure 16 | |
//! | `g` erasures of a blob | hash 32, bucket 17, erasure 16 | |
//! | `o` blobs that a record no longer names | kind 2, id 16, bucket 17, hash 32 | |
//! | `x` erasures not yet gone from the disk | bucket 17, erasure 16 | |
//! | `O` blobs on demand | hash 32 | see `demand` |
//! | `U` use of blobs held | hash 32 | see `usage` |
//! | `G` files of blobs to be removed | hash 32 | |
//! | `S` what was chosen for a collection | id 16 | see `selection` |
//! | `P` pins | 1 for a collection, 2 for a medium; id 16 | |
//! | `V` collections that are returning | id 16 | |
//! | `E` collections to be brought in line | id 16 | the key of table `r` that was reached |
//! | `L` records that left, to be taken out of the search index | kind 2, id 16 | |
//! | `A` records held back after a long absence | bucket 17, kind 2, id 16 | |
//! | `K` records confirmed while all is read anew | bucket 17, kind 2, id 16 | |
//! | `Z` how far the bridge had a feed then | bucket 17 | seq 8 |
//! | `M` when the bridge had how much of a feed | bucket 17 | see `absence::collect` |
//! | `m` meta | name | see `meta` |
//!
//! `r`, `c`, `R`, `q`, `h`, `y`, `o`, `x`, `S`, `P`, `V`, `O`, `A` and `m` are what is known; all others follow
//! from them and are made anew by `rebuild`, or in time.

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Erasure, Typed};
use alexandria_sync::id::{BucketId, NodeId, RecordId, Seq};
use alexandria_sync::record::{Kind, RecordKey};

use super::selection::Pinned;

pub(crate) const RECORD: u8 = b'r';
pub(crate) const ID: u8 = b'i';
pub(crate) const FEED: u8 = b'f';
pub(crate) const HEAD: u8 = b'd';
pub(crate) const CURSOR: u8 = b'c';
pub(crate) const REMEMBERED: u8 = b'R';
pub(crate) const QUARANTINE: u8 = b'q';
pub(crate) const UPDATED: u8 = b't';
pub(crate) const POPULAR: u8 = b'p';
pub(crate) const COUNT: u8 = b'n';
pub(crate) const TOTALS: u8 = b'k';
pub(crate) const LINK: u8 = b'l';
pub(crate) const REFERENCE: u8 = b'b';
pub(crate) const HELD: u8 = b'h';
pub(crate) const WANTED: u8 = b'w';
pub(crate) const MEDIA_TYPE: u8 = b'y';
pub(crate) const ERASED: u8 = b'e';
pub(crate) const ERASED_BLOB: u8 = b'g';
pub(crate) const UNNAMED: u8 = b'o';
pub(crate) const PENDING_ERASURE: u8 = b'x';
pub(crate) const ON_DEMAND: u8 = b'O';
pub(crate) const USAGE: u8 = b'U';
pub(crate) const GOING: u8 = b'G';
pub(crate) const CHOICE: u8 = b'S';
pub(crate) const PIN: u8 = b'P';
pub(crate) const RETURNING: u8 = b'V';
pub(crate) const UNALIGNED: u8 = b'E';
pub(crate) const LEFT: u8 = b'L';
pub(crate) const HELD_BACK: u8 = b'A';
pub(crate) const CONFIRMED: u8 = b'K';
pub(crate) const SENT: u8 = b'Z';
pub(crate) const MARKS: u8 = b'M';
pub(crate) const META: u8 = b'm';

const PINNED_COLLECTION: u8 = 1;
const PINNED_MEDIA: u8 = 2;

/// Joins a table and the parts of a key.
pub(crate) fn key(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(table);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

pub(crate) fn record(of: RecordKey) -> Vec<u8> {
    of_record(RECORD, of)
}

/// All records of a bucket.
pub(crate) fn records_of(bucket: BucketId) -> Vec<u8> {
    key(RECORD, &[&bucket.to_bytes()])
}

pub(crate) fn records_of_kind(bucket: BucketId, kind: Kind) -> Vec<u8> {
    key(RECORD, &[&bucket.to_bytes(), &kind.0.to_be_bytes()])
}

pub(crate) fn id(of: RecordKey) -> Vec<u8> {
    key(ID, &[&of.kind.0.to_be_bytes(), of.id.as_bytes(), &of.bucket.to_bytes()])
}

pub(crate) fn ids(kind: Kind, id: RecordId) -> Vec<u8> {
    key(ID, &[&kind.0.to_be_bytes(), id.as_bytes()])
}

pub(crate) fn feed(bucket: BucketId, seq: Seq) -> Vec<u8> {
    key(FEED, &[&bucket.to_bytes(), &seq.0.to_be_bytes()])
}

pub(crate) fn head(bucket: BucketId) -> Vec<u8> {
    key(HEAD, &[&bucket.to_bytes()])
}

pub(crate) fn cursors_into(peer: NodeId) -> Vec<u8> {
    key(CURSOR, &[peer.as_bytes()])
}

pub(crate) fn cursor(peer: NodeId, bucket: BucketId) -> Vec<u8> {
    key(CURSOR, &[peer.as_bytes(), &bucket.to_bytes()])
}

pub(crate) fn remembered(of: NodeId) -> Vec<u8> {
    key(REMEMBERED, &[of.as_bytes()])
}

pub(crate) fn quarantine(of: RecordKey, digest: [u8; 32]) -> Vec<u8> {
    key(QUARANTINE, &[&of.bucket.to_bytes(), &of.kind.0.to_be_bytes(), of.id.as_bytes(), &digest[..16]])
}

/// All versions of a record that are set aside.
pub(crate) fn quarantine_of_record(of: RecordKey) -> Vec<u8> {
    of_record(QUARANTINE, of)
}

pub(crate) fn quarantine_of(bucket: BucketId) -> Vec<u8> {
    key(QUARANTINE, &[&bucket.to_bytes()])
}

fn of_record(table: u8, of: RecordKey) -> Vec<u8> {
    key(table, &[&of.bucket.to_bytes(), &of.kind.0.to_be_bytes(), of.id.as_bytes()])
}

pub(crate) fn held_back(of: RecordKey) -> Vec<u8> {
    of_record(HELD_BACK, of)
}

pub(crate) fn confirmed(of: RecordKey) -> Vec<u8> {
    of_record(CONFIRMED, of)
}

pub(crate) fn sent(bucket: BucketId) -> Vec<u8> {
    key(SENT, &[&bucket.to_bytes()])
}

pub(crate) fn marks(bucket: BucketId) -> Vec<u8> {
    key(MARKS, &[&bucket.to_bytes()])
}

/// The row of `m` that says how much is set aside.
pub(crate) fn quarantine_use() -> Vec<u8> {
    key(META, &[b"quarantine"])
}

/// A row of an index that sorts by a number: `t` and `p`.
pub(crate) fn ranked(table: u8, rank: u64, of: RecordKey) -> Vec<u8> {
    let (kind, bucket) = (of.kind.0.to_be_bytes(), of.bucket.to_bytes());
    key(table, &[&kind, &rank.to_be_bytes(), of.id.as_bytes(), &bucket])
}

pub(crate) fn count(of: RecordId) -> Vec<u8> {
    key(COUNT, &[of.as_bytes()])
}

pub(crate) fn totals(kind: Kind) -> Vec<u8> {
    key(TOTALS, &[&kind.0.to_be_bytes()])
}

pub(crate) fn links(kind: Kind, side: u8, end: RecordId) -> Vec<u8> {
    key(LINK, &[&kind.0.to_be_bytes(), &[side], end.as_bytes()])
}

pub(crate) fn link(kind: Kind, side: u8, end: RecordId, other: RecordId, bucket: BucketId) -> Vec<u8> {
    key(LINK, &[&kind.0.to_be_bytes(), &[side], end.as_bytes(), other.as_bytes(), &bucket.to_bytes()])
}

pub(crate) fn references(blob: BlobHash) -> Vec<u8> {
    key(REFERENCE, &[blob.as_bytes()])
}

pub(crate) fn references_of_kind(blob: BlobHash, kind: Kind) -> Vec<u8> {
    key(REFERENCE, &[blob.as_bytes(), &kind.0.to_be_bytes()])
}

pub(crate) fn reference(blob: BlobHash, by: RecordKey) -> Vec<u8> {
    let (kind, bucket) = (by.kind.0.to_be_bytes(), by.bucket.to_bytes());
    key(REFERENCE, &[blob.as_bytes(), &kind, &bucket, by.id.as_bytes()])
}

pub(crate) fn held(blob: BlobHash) -> Vec<u8> {
    key(HELD, &[blob.as_bytes()])
}

pub(crate) fn wanted(blob: BlobHash) -> Vec<u8> {
    key(WANTED, &[blob.as_bytes()])
}

pub(crate) fn media_type(blob: BlobHash) -> Vec<u8> {
    key(MEDIA_TYPE, &[blob.as_bytes()])
}

pub(crate) fn on_demand(blob: BlobHash) -> Vec<u8> {
    key(ON_DEMAND, &[blob.as_bytes()])
}

pub(crate) fn usage(blob: BlobHash) -> Vec<u8> {
    key(USAGE, &[blob.as_bytes()])
}

pub(crate) fn going(blob: BlobHash) -> Vec<u8> {
    key(GOING, &[blob.as_bytes()])
}

pub(crate) fn choice(collection: RecordId) -> Vec<u8> {
    key(CHOICE, &[collection.as_bytes()])
}

pub(crate) fn returning(collection: RecordId) -> Vec<u8> {
    key(RETURNING, &[collection.as_bytes()])
}

pub(crate) fn unaligned(collection: RecordId) -> Vec<u8> {
    key(UNALIGNED, &[collection.as_bytes()])
}

pub(crate) fn left(kind: Kind, id: RecordId) -> Vec<u8> {
    key(LEFT, &[&kind.0.to_be_bytes(), id.as_bytes()])
}

pub(crate) fn pin(pinned: Pinned) -> Vec<u8> {
    match pinned {
        Pinned::Collection(id) => key(PIN, &[&[PINNED_COLLECTION], id.as_bytes()]),
        Pinned::Media(id) => key(PIN, &[&[PINNED_MEDIA], id.as_bytes()]),
    }
}

pub(crate) fn pin_of(row: &[u8]) -> Option<Pinned> {
    let mut key = KeyReader::new(row);
    match key.take()? {
        [PINNED_COLLECTION] => key.id().map(Pinned::Collection),
        [PINNED_MEDIA] => key.id().map(Pinned::Media),
        _ => None,
    }
}

pub(crate) fn erasures_of(target: RecordKey) -> Vec<u8> {
    key(ERASED, &[&target.kind.0.to_be_bytes(), target.id.as_bytes(), &target.bucket.to_bytes()])
}

pub(crate) fn erased(target: RecordKey, erasure: RecordId) -> Vec<u8> {
    [erasures_of(target).as_slice(), erasure.as_bytes()].concat()
}

/// All erasures that list a blob.
pub(crate) fn erasures_of_blob(blob: BlobHash) -> Vec<u8> {
    key(ERASED_BLOB, &[blob.as_bytes()])
}

pub(crate) fn erasures_of_blob_in(blob: BlobHash, bucket: BucketId) -> Vec<u8> {
    key(ERASED_BLOB, &[blob.as_bytes(), &bucket.to_bytes()])
}

pub(crate) fn erased_blob(blob: BlobHash, bucket: BucketId, erasure: RecordId) -> Vec<u8> {
    key(ERASED_BLOB, &[blob.as_bytes(), &bucket.to_bytes(), erasure.as_bytes()])
}

pub(crate) fn unnamed_by(record: RecordKey) -> Vec<u8> {
    key(UNNAMED, &[&record.kind.0.to_be_bytes(), record.id.as_bytes(), &record.bucket.to_bytes()])
}

pub(crate) fn unnamed(record: RecordKey, blob: BlobHash) -> Vec<u8> {
    [unnamed_by(record).as_slice(), blob.as_bytes()].concat()
}

pub(crate) fn pending_erasure(erasure: RecordKey) -> Vec<u8> {
    key(PENDING_ERASURE, &[&erasure.bucket.to_bytes(), erasure.id.as_bytes()])
}

/// The erasure that a row of `x` is about.
pub(crate) fn erasure_of_pending(row: &[u8]) -> Option<RecordKey> {
    let mut row = KeyReader::new(row);
    Some(RecordKey { bucket: row.bucket()?, kind: Erasure::KIND, id: row.id()? })
}

/// Reads a key from left to right; `None` as soon as something is missing or not what it should be.
pub(crate) struct KeyReader<'k>(&'k [u8]);

impl<'k> KeyReader<'k> {
    /// Starts after the table.
    pub(crate) fn new(key: &'k [u8]) -> Self {
        Self(key.get(1..).unwrap_or_default())
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn bucket(&mut self) -> Option<BucketId> {
        BucketId::from_bytes(&self.take::<{ BucketId::LEN_BYTES }>()?)
    }

    pub(crate) fn kind(&mut self) -> Option<Kind> {
        self.take().map(|bytes| Kind(u16::from_be_bytes(bytes)))
    }

    pub(crate) fn id(&mut self) -> Option<RecordId> {
        self.take().map(RecordId::from_bytes)
    }

    pub(crate) fn blob(&mut self) -> Option<BlobHash> {
        self.take().map(BlobHash::from_bytes)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

/// The record that a row of `r`, `q`, `A` or `K` is about.
pub(crate) fn record_of(key: &[u8]) -> Option<RecordKey> {
    let mut key = KeyReader::new(key);
    Some(RecordKey { bucket: key.bucket()?, kind: key.kind()?, id: key.id()? })
}

/// The record that a row of `b` says refers to a blob.
pub(crate) fn reference_of(row: &[u8]) -> Option<RecordKey> {
    let mut key = KeyReader::new(row);
    key.blob()?;
    let kind = key.kind()?;
    Some(RecordKey { kind, bucket: key.bucket()?, id: key.id()? })
}

/// The blob that a row of `b`, `h`, `w`, `O`, `U` or `G` is about.
pub(crate) fn blob_of(key: &[u8]) -> Option<BlobHash> {
    KeyReader::new(key).blob()
}
