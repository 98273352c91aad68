//! The right to be forgotten: what follows from an [`Erasure`], on whichever replica.
//!
//! An erasure is an ordinary record in the bucket of what is erased, so every replica of the bucket gets it, and old ones
//! relay it. Who applies one does the following, in one step with it; a store gathers what it holds, and the decisions are
//! here:
//! 1. The record, and the annotations about it, become tombstones stamped like the erasure ([`Order::tombstones`]), also
//!    where the record was never seen. Versions of them that are set aside are removed, but for tombstones, whose stamps
//!    still count.
//! 2. Blobs that the record names, or that it named in any version that was ever here ([`unnamed`]: every store keeps
//!    what an edit or a deletion took away), are its content, too. Those that the erasure does not list come from edits
//!    made apart: a further erasure lists them ([`Order::amendments`]), the same on every replica that finds the same.
//! 3. A listed blob that no other live record of the bucket names is content of the bucket no longer, whatever its blob
//!    record says and whenever that comes ([`content`]): nobody asks for it, and it is removed where it is. Its blob record
//!    is emptied, too ([`emptied`]), for replicas that know no erasures. Whoever takes the same content in again names it
//!    again.
//! 4. An annotation that comes later becomes a tombstone at once ([`overtaken`]).
//!
//! Once nothing of all this is left in any file of its own, a node writes an [`ErasureReceipt`] into its site.
//!
//! Invariant 7: erased bytes are nowhere once all receipts are in.
//!
//! Not here: removing rows and files, and when a disk has really forgotten (the stores).

use std::collections::BTreeSet;

use crate::chunk::BlobHash;
use crate::domain::erasure::ERASED_BLOBS_MAX;
use crate::domain::{Annotation, Author, Blob, Collection, Erasure, ErasureReceipt, Media, Typed};
use crate::hlc::Stamp;
use crate::id::{BucketId, Incarnation, NodeId, RecordId};
use crate::record::{Kind, Record, RecordKey};

/// What cannot be erased by name: content goes with the records that name it, and what says that something was erased
/// is needed for ever.
const NOT_ERASABLE: [Kind; 3] = [Blob::KIND, Erasure::KIND, ErasureReceipt::KIND];

/// Whether records of this kind can be erased.
pub fn is_erasable(kind: Kind) -> bool {
    !NOT_ERASABLE.contains(&kind)
}

/// An erasure, read from its record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Order {
    /// What is erased.
    pub target: RecordKey,
    /// The blobs that it lists.
    pub blobs: BTreeSet<BlobHash>,
    /// When it was ordered, and by whom.
    pub stamp: Stamp,
}

impl Order {
    /// Reads an erasure; `None` for any other record, and for an erasure of what cannot be erased.
    pub fn read(record: &Record) -> Option<Self> {
        let erasure = Erasure::from_record(record)?;
        let kind = Kind(erasure.kind);
        is_erasable(kind).then(|| Self {
            target: RecordKey { bucket: record.key.bucket, kind, id: erasure.record },
            blobs: erasure.blobs.into_iter().take(ERASED_BLOBS_MAX).collect(),
            stamp: record.newest_stamp(),
        })
    }

    /// The records that order the erasure of `target` with these blobs: one, or more if they are very many.
    pub fn records(target: RecordKey, blobs: &BTreeSet<BlobHash>, stamp: Stamp) -> Vec<Record> {
        let all: Vec<BlobHash> = blobs.iter().copied().collect();
        let mut lists: Vec<&[BlobHash]> = all.chunks(ERASED_BLOBS_MAX).collect();
        if lists.is_empty() {
            lists.push(&[]);
        }
        let to_record = |blobs: &[BlobHash]| {
            let id = Erasure::record_id(target.kind, target.id, stamp, blobs);
            Erasure { kind: target.kind.0, record: target.id, blobs: blobs.to_vec() }.to_record(
                target.bucket,
                id,
                stamp,
            )
        };
        lists.into_iter().map(to_record).collect()
    }

    /// Tombstones of the target and of those of `versions` that are about it.
    pub fn tombstones<'r>(&self, versions: impl IntoIterator<Item = &'r Record>) -> Vec<Record> {
        let about = versions.into_iter().map(|version| version.key).filter(|key| *key != self.target);
        let keys: BTreeSet<RecordKey> = about.chain([self.target]).collect();
        keys.into_iter().map(|key| Record { key, body: crate::record::Body::Tombstone(self.stamp) }).collect()
    }

    /// Every blob that has to be looked at: those listed, those that `versions` name, and those that earlier ones named.
    pub fn blobs_of<'r>(
        &self,
        versions: impl IntoIterator<Item = &'r Record>,
        earlier: impl IntoIterator<Item = BlobHash>,
    ) -> BTreeSet<BlobHash> {
        versions.into_iter().flat_map(blobs_named).chain(earlier).chain(self.blobs.iter().copied()).collect()
    }

    /// The erasures that list what this one does not.
    pub fn amendments(&self, blobs: &BTreeSet<BlobHash>) -> Vec<Record> {
        let unlisted: BTreeSet<BlobHash> = blobs.difference(&self.blobs).copied().collect();
        if unlisted.is_empty() { Vec::new() } else { Self::records(self.target, &unlisted, self.stamp) }
    }
}

/// Every blob that a version of a record names.
pub fn blobs_named(record: &Record) -> Vec<BlobHash> {
    match record.key.kind {
        Blob::KIND => Blob::from_record(record).and_then(|blob| blob.hash).into_iter().collect(),
        Media::KIND => Media::from_record(record)
            .map_or_else(Vec::new, |media| media.files.iter().map(|file| file.blob).chain(media.cover).collect()),
        Author::KIND => Author::from_record(record).and_then(|author| author.portrait).into_iter().collect(),
        Collection::KIND => Collection::from_record(record).and_then(|shelf| shelf.cover).into_iter().collect(),
        Annotation::KIND => Annotation::from_record(record).and_then(|found| found.blob).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// The blobs that a record no longer names: to be kept with its key until it is erased. None for a blob's own record.
pub fn unnamed(before: Option<&Record>, after: &Record) -> BTreeSet<BlobHash> {
    let Some(before) = before.filter(|_| after.key.kind != Blob::KIND) else { return BTreeSet::new() };
    let still: BTreeSet<BlobHash> = blobs_named(after).into_iter().collect();
    blobs_named(before).into_iter().filter(|blob| !still.contains(blob)).collect()
}

/// The record that this one is about and falls with; `None` if it stands for itself.
pub fn subject(record: &Record) -> Option<RecordKey> {
    let annotation = Annotation::from_record(record)?;
    Some(RecordKey { bucket: record.key.bucket, kind: Media::KIND, id: annotation.media })
}

/// The content of some buckets, by their records: blobs that a blob record names, but for those that an erasure of the
/// bucket lists and nothing else there names any more.
pub fn content<'r>(records: impl IntoIterator<Item = &'r Record>) -> BTreeSet<(BucketId, BlobHash)> {
    let (mut held, mut named, mut erased) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for record in records {
        let bucket = record.key.bucket;
        let names = if record.key.kind == Blob::KIND { &mut held } else { &mut named };
        names.extend(blobs_named(record).into_iter().map(|blob| (bucket, blob)));
        erased.extend(Order::read(record).into_iter().flat_map(|order| order.blobs).map(|blob| (bucket, blob)));
    }
    held.retain(|blob| named.contains(blob) || !erased.contains(blob));
    held
}

/// A blob record without its blob, stamped like the erasure; `None` if it was written after that, or is empty already. It
/// stays a live record, so that the same content can be taken in again some day.
pub fn emptied(blob: &Record, ordered: Stamp) -> Option<Record> {
    let before = Blob::from_record(blob)?;
    before.hash?;
    // What is taken away has to be written: a field that is left out would come back.
    let emptied = blob.edited(Blob::default().changes_since(&before), ordered)?;
    (blob.newest_stamp() < ordered).then_some(emptied)
}

/// What is stored instead of a received version that an erasure of its [`subject`] has overtaken; `None` if it has not.
pub fn overtaken(received: &Record, by: &Order) -> Option<Record> {
    (subject(received) == Some(by.target)).then(|| received.deleted(by.stamp))
}

/// The receipt that `node` gives for an erasure.
pub fn receipt(erasure: RecordKey, node: NodeId, incarnation: Incarnation, stamp: Stamp) -> Record {
    let id = ErasureReceipt::record_id(erasure.bucket, erasure.id, node);
    let receipt = ErasureReceipt { erasure: erasure.id, bucket: Some(erasure.bucket), incarnation: incarnation.0 };
    receipt.to_record(BucketId::Site(node), id, stamp)
}

/// Which erasure a receipt is for, and who gives it. A receipt in another site than its giver's counts for nobody.
pub fn acknowledged(record: &Record) -> Option<(BucketId, RecordId, NodeId)> {
    let receipt = ErasureReceipt::from_record(record)?;
    let BucketId::Site(node) = record.key.bucket else { return None };
    Some((receipt.bucket?, receipt.erasure, node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{FileRole, MediaFile};
    use crate::hlc::HlcTime;
    use crate::merge::merge;

    fn stamp(unix_ms: u64) -> Stamp {
        Stamp { time: HlcTime::from_unix_ms(unix_ms), ..Stamp::default() }
    }

    fn hash(number: u8) -> BlobHash {
        BlobHash::from_bytes([number; 32])
    }

    fn medium(cover: u8, unix_ms: u64) -> Record {
        let file = MediaFile {
            blob: hash(1),
            media_type: "text/plain".into(),
            name: "private.txt".into(),
            size_bytes: 1,
            role: FileRole::Main,
        };
        let media = Media { title: "private".into(), files: vec![file], cover: Some(hash(cover)), ..Media::default() };
        media.to_record(BucketId::Catalogue, RecordId::from_bytes([7; 16]), stamp(unix_ms))
    }

    #[test]
    fn an_order_reads_back_and_what_must_stay_cannot_be_erased() {
        let target = medium(2, 1).key;
        let blobs: BTreeSet<BlobHash> = [hash(1), hash(2)].into();
        let records = Order::records(target, &blobs, stamp(5));
        assert_eq!(records.len(), 1);
        assert_eq!(Order::read(&records[0]), Some(Order { target, blobs, stamp: stamp(5) }));
        for kind in NOT_ERASABLE {
            let records = Order::records(RecordKey { kind, ..target }, &BTreeSet::new(), stamp(5));
            assert_eq!(Order::read(&records[0]), None);
        }
        assert_eq!(Order::read(&medium(2, 1)), None);
    }

    /// Two replicas that learn of the same other version write the same amendment, so that they do not outdo each other.
    #[test]
    fn an_amendment_lists_what_the_order_did_not_and_is_the_same_everywhere() {
        let order = Order::read(&Order::records(medium(2, 1).key, &[hash(1), hash(2)].into(), stamp(5))[0]).unwrap();
        let blobs = order.blobs_of([&medium(3, 2)], []);
        let amended = order.amendments(&blobs);
        assert_eq!(Order::read(&amended[0]).unwrap().blobs, [hash(3)].into());
        assert_eq!(order.amendments(&order.blobs_of([], [hash(3)])), amended);
        assert!(order.amendments(&order.blobs).is_empty());
    }

    #[test]
    fn what_an_edit_or_a_deletion_takes_away_is_told() {
        assert_eq!(unnamed(None, &medium(2, 1)), BTreeSet::new());
        assert_eq!(unnamed(Some(&medium(2, 1)), &medium(3, 2)), [hash(2)].into());
        assert_eq!(unnamed(Some(&medium(2, 1)), &medium(2, 1).deleted(stamp(3))), [hash(1), hash(2)].into());
    }

    #[test]
    fn an_emptied_blob_record_beats_what_was_written_before_and_can_be_filled_again() {
        let blob = Blob { hash: Some(hash(1)), size_bytes: 9, media_type: "text/plain".into() };
        let written = |unix_ms| blob.to_record(BucketId::Catalogue, Blob::record_id(hash(1)), stamp(unix_ms));
        let gone = emptied(&written(1), stamp(5)).unwrap();
        assert_eq!(merge(written(1), gone.clone()), gone);
        assert_eq!(Blob::from_record(&gone), Some(Blob::default()));
        assert_eq!(emptied(&gone, stamp(6)), None, "nothing is left to take");
        assert_eq!(emptied(&written(8), stamp(5)), None, "somebody wrote it after the erasure");
        let again = gone.edited(blob.changes_since(&Blob::default()), stamp(10)).unwrap();
        assert_eq!(Blob::from_record(&merge(gone, again)), Some(blob));
    }

    #[test]
    fn erased_content_is_content_again_once_something_else_names_it() {
        let blob = Blob { hash: Some(hash(1)), ..Blob::default() };
        let blob = blob.to_record(BucketId::Catalogue, Blob::record_id(hash(1)), stamp(9));
        let here = BTreeSet::from([(BucketId::Catalogue, hash(1))]);
        assert_eq!(content([&blob]), here);
        let order = Order::records(medium(2, 1).key, &[hash(1)].into(), stamp(5)).remove(0);
        assert_eq!(content([&blob, &order]), BTreeSet::new());
        let mut another = medium(2, 7);
        another.key.id = RecordId::from_bytes([9; 16]);
        assert_eq!(content([&blob, &order, &another]), here);
        another.key.bucket = BucketId::Site(NodeId::default());
        assert_eq!(content([&blob, &order, &another]), BTreeSet::new(), "another bucket's names do not count");
    }

    #[test]
    fn an_annotation_that_comes_late_is_stored_as_if_it_had_come_before() {
        let order = Order::read(&Order::records(medium(2, 1).key, &[hash(1)].into(), stamp(5))[0]).unwrap();
        let note = Annotation { media: order.target.id, blob: Some(hash(2)), ..Annotation::default() };
        let note = note.to_record(BucketId::Catalogue, RecordId::from_bytes([8; 16]), stamp(9));
        assert_eq!(overtaken(&note, &order), Some(note.deleted(stamp(5))));
        assert_eq!(overtaken(&medium(2, 1), &order), None, "its tombstone is enough");
    }

    #[test]
    fn a_receipt_counts_for_the_node_whose_site_it_is_in() {
        let erasure = Order::records(medium(2, 1).key, &BTreeSet::new(), stamp(5))[0].key;
        let node = NodeId::from_bytes([3; 16]);
        let record = receipt(erasure, node, Incarnation(1), stamp(6));
        assert_eq!(acknowledged(&record), Some((erasure.bucket, erasure.id, node)));
        let elsewhere = Record { key: RecordKey { bucket: BucketId::Catalogue, ..record.key }, ..record };
        assert_eq!(acknowledged(&elsewhere), None);
    }
}
