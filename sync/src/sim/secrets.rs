//! What somebody will want to be forgotten: media whose every text and content says so, for tests of erasing (invariant 7).

use std::collections::BTreeSet;

use bytes::Bytes;

use super::SimBlobs;
use super::records::{Full, SimRecords};
use crate::chunk::{BlobHash, Chunk, ChunkHash, Chunking, Manifest};
use crate::domain::{Annotation, Blob, Media, Typed};
use crate::id::{BucketId, RecordId};
use crate::record::{Record, RecordKey};

/// Versions of each that people write.
pub const VERSIONS: u8 = 3;

/// A medium that may have to be forgotten.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Secret {
    /// Where it is.
    pub bucket: BucketId,
    /// Which of those there.
    pub number: u8,
}

impl Secret {
    /// The record.
    pub fn key(self) -> RecordKey {
        RecordKey { bucket: self.bucket, kind: Media::KIND, id: RecordId::from_bytes([self.number + 1; 16]) }
    }

    /// What must not be found any more once it is erased: every text and every content of it begins with this.
    pub fn text(self) -> String {
        format!("secret of medium {};", self.number)
    }

    /// A content of it.
    pub fn content(self, version: u8) -> (Manifest, Bytes) {
        let bytes = Bytes::from(format!("{} content {version}", self.text()));
        let chunk = Chunk { len: bytes.len() as u32, hash: ChunkHash::of(&bytes) };
        let manifest = Manifest::new(BlobHash::of(&bytes), Chunking::Fixed, vec![chunk]).expect("it is small");
        (manifest, bytes)
    }

    /// All contents that it may have.
    pub fn blobs(self) -> impl Iterator<Item = BlobHash> {
        (0..VERSIONS).map(move |version| self.content(version).0.blob())
    }

    /// Writes a version of it, with a new cover, unless it was deleted. What was written.
    ///
    /// # Errors
    ///
    /// [`Full`]; then nothing was.
    pub fn edit(self, records: &SimRecords, blobs: &SimBlobs, version: u8) -> Result<Vec<Record>, Full> {
        let key = self.key();
        if records.get(key).is_some_and(|record| record.is_tombstone()) {
            return Ok(Vec::new());
        }
        if records.is_full() {
            return Err(Full);
        }
        let cover = self.take_in(records, blobs, version)?;
        let medium = records.try_write(key, |held, stamp| {
            let title = format!("{} version {version}", self.text());
            let Some(held) = held else {
                let media = Media { title, cover: Some(cover.0), ..Media::default() };
                return Some(media.to_record(self.bucket, key.id, stamp));
            };
            let before = Media::from_record(held)?;
            let after = Media { title, cover: Some(cover.0), ..before.clone() };
            held.edited(after.changes_since(&before), stamp)
        })?;
        Ok(cover.1.into_iter().chain(medium).collect())
    }

    fn take_in(self, records: &SimRecords, blobs: &SimBlobs, version: u8) -> Result<(BlobHash, Option<Record>), Full> {
        let (manifest, bytes) = self.content(version);
        let (hash, size_bytes) = (manifest.blob(), manifest.size_bytes());
        blobs.import(manifest, bytes);
        let blob = Blob { hash: Some(hash), size_bytes, media_type: "text/plain".into() };
        let id = Blob::record_id(hash);
        let key = RecordKey { bucket: self.bucket, kind: Blob::KIND, id };
        let record = records.try_write(key, |held, stamp| match held {
            None => Some(blob.to_record(self.bucket, id, stamp)),
            Some(held) => held.edited(blob.changes_since(&Blob::from_record(held)?), stamp),
        })?;
        Ok((hash, record))
    }

    /// Writes what analysis found in its cover, if it has one that is not annotated. What was written.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn annotate(self, records: &SimRecords) -> Result<Option<Record>, Full> {
        let held = records.get(self.key()).and_then(|record| Media::from_record(&record));
        let Some(blob) = held.and_then(|media| media.cover) else { return Ok(None) };
        let media = self.key().id;
        let note = Annotation { media, blob: Some(blob), model: self.text(), ..Annotation::default() };
        let id = Annotation::record_id(media, blob);
        records.try_write(RecordKey { bucket: self.bucket, kind: Annotation::KIND, id }, |held, stamp| match held {
            None => Some(note.to_record(self.bucket, id, stamp)),
            Some(_) => None,
        })
    }

    /// Where in these stores something of it is left, if anywhere.
    pub fn left_in(self, records: &SimRecords, blobs: &SimBlobs) -> Option<String> {
        let known = self.blobs().collect();
        self.known_left_in(records, blobs, &known)
    }

    /// The same, as far as content is `known` to be of it.
    pub(super) fn known_left_in(
        self,
        records: &SimRecords,
        blobs: &SimBlobs,
        known: &BTreeSet<BlobHash>,
    ) -> Option<String> {
        let text = self.text();
        if records.disk_contains(text.as_bytes()) {
            return Some(format!("the log remembers the {text}"));
        }
        let blob = self.blobs().find(|blob| known.contains(blob) && blobs.has_any_of(*blob))?;
        Some(format!("content {blob} is left of the {text}"))
    }
}
