//! Takes a bundle in: pages through `apply`, content through `begin`, `write`, `sync` and `finish`, as a session does.
//!
//! Each segment is applied when its seal was checked. Whatever ends the work, what came before stays, and another
//! import of the same file goes on from there.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::format::{self, Content};
use super::opened::{Opened, message};
use super::segment::Frame;
use super::survey::{Places, decode_records, known};
use super::{BucketRefusal, Ending, Issuer, OnProgress, OpenError, Progress, Receiver, StoreError};
use crate::chunk::{BlobHash, Have, Manifest};
use crate::id::{BucketId, Seq};
use crate::lineage::{Moment, Told};
use crate::store::{Applied, BlobStore, RecordStore, WriteBlobError};
use crate::wire::Message;

/// What was taken of a bundle.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Imported {
    /// Who made it, and when.
    pub issuer: Issuer,
    /// What became of its records.
    pub applied: Applied,
    /// Buckets of which nothing was taken, and why.
    pub refused: BTreeMap<BucketId, BucketRefusal>,
    /// Blobs that have become whole here.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Blobs that nothing here wants, because they are here or no record here names them.
    pub blobs_not_wanted: u64,
    /// Blobs that somebody else was receiving; import it again.
    pub blobs_busy: u64,
    /// Blobs of which not all is in the bundle.
    pub blobs_incomplete: u64,
    /// Whether there was no room for all content. What is whole is kept.
    pub full: bool,
    /// How far it could be read.
    pub ending: Ending,
}

/// Why an import stopped. What was taken by then stays.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The bundle is not taken; nothing was changed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file cannot be read on.
    #[error("read the bundle")]
    Io(#[from] std::io::Error),
    /// A store failed.
    #[error("a store failed")]
    Store(#[source] StoreError),
    /// Whoever hears of progress has ended it.
    #[error("it was stopped")]
    Stopped,
    /// Its exporter has read what is not here: this store was set back to an older copy, or there are two of it. Nothing was
    /// taken; a new life has begun, and it can be imported now unless it was made for the old one.
    #[error("its exporter knows what this library has forgotten: a new life has begun here; try again")]
    SetBack,
}

/// Takes in a bundle.
///
/// # Errors
///
/// [`ImportError`]. A bundle that is cut off or damaged later is no error: all before that is taken.
pub async fn import<R: RecordStore, B: BlobStore>(
    receiver: &Receiver<'_>,
    input: impl Read,
    records: &R,
    blobs: &B,
    progress: &mut OnProgress<'_>,
) -> Result<Imported, ImportError> {
    let mut opened = Opened::open(receiver, input)?;
    let places = Places::look_up(receiver, &opened, records).await.map_err(ImportError::Store)?;
    let (maker, standing) = (opened.issuer.peer(), opened.issuer.hello.standing.unwrap_or_default());
    let remembered = opened.issuer.hello.remembered.clone();
    if !records.recall(maker.node, remembered).await.map_err(|error| ImportError::Store(error.into()))? {
        return Err(ImportError::SetBack);
    }
    // Before anything of it is read: what its maker has forgotten is unknown here from now on, too.
    records.meet(maker, standing).await.map_err(|error| ImportError::Store(error.into()))?;
    let mut importer = Importer {
        records,
        blobs,
        cursors: places.cursors,
        taking: Taking::Nothing,
        content_bytes: 0,
        imported: Imported {
            issuer: opened.issuer.clone(),
            applied: Applied::default(),
            refused: places.refused,
            blobs: 0,
            blob_bytes: 0,
            blobs_not_wanted: 0,
            blobs_busy: 0,
            blobs_incomplete: 0,
            full: false,
            ending: Ending::Whole,
        },
    };
    let taken = importer.take_all(&mut opened, progress).await;
    // Whatever ended it: what has come of a blob is kept for the next time.
    let left = importer.leave_blob().await;
    importer.imported.ending = taken?;
    left?;
    // Of one that keeps all and carries all, nothing is missing here now.
    if importer.imported.ending == Ending::Whole && importer.imported.refused.is_empty() && standing.keeps_all {
        let caught_up = records.caught_up(maker, standing, None).await;
        caught_up.map_err(|error| ImportError::Store(error.into()))?;
    }
    Ok(importer.imported)
}

struct Importer<'i, R, B> {
    records: &'i R,
    blobs: &'i B,
    /// The last row that pages have come to.
    cursors: BTreeMap<BucketId, Seq>,
    taking: Taking,
    content_bytes: u64,
    imported: Imported,
}

/// The blob whose chunks come.
enum Taking {
    Nothing,
    Skipping(BlobHash),
    Blob(Box<Receiving>),
}

struct Receiving {
    manifest: Manifest,
    /// What is here, durable or written.
    have: Have,
}

/// Why no more is taken of a bundle.
enum Stop {
    /// Its exporter broke the rules.
    Broken(String),
    /// No room.
    Full,
    Error(ImportError),
}

impl From<ImportError> for Stop {
    fn from(error: ImportError) -> Self {
        Self::Error(error)
    }
}

impl<R: RecordStore, B: BlobStore> Importer<'_, R, B> {
    async fn take_all<I: Read>(
        &mut self,
        opened: &mut Opened<I>,
        progress: &mut OnProgress<'_>,
    ) -> Result<Ending, ImportError> {
        loop {
            let frames = match opened.next_segment()? {
                Ok(frames) => frames,
                Err(ending) => return Ok(ending),
            };
            for frame in &frames {
                match self.take(frame).await {
                    Ok(()) => {}
                    Err(Stop::Broken(problem)) => return Ok(opened.broken(problem)),
                    Err(Stop::Full) => {
                        self.imported.full = true;
                        return Ok(Ending::Whole);
                    }
                    Err(Stop::Error(error)) => return Err(error),
                }
            }
            self.sync_blob().await?;
            let Applied { applied, superseded, quarantined } = self.imported.applied;
            let records = u64::from(applied) + u64::from(superseded) + u64::from(quarantined);
            let now = Progress { records, bytes: opened.read_bytes(), content_bytes: self.content_bytes };
            if progress(now) == ControlFlow::Break(()) {
                return Err(ImportError::Stopped);
            }
        }
    }

    async fn take(&mut self, frame: &Frame) -> Result<(), Stop> {
        if frame.head.frame_type() == format::CONTENT {
            let content: Content = minicbor::decode(&frame.body).map_err(|error| Stop::Broken(error.to_string()))?;
            let bytes = content.blobs.iter().map(|entry| entry.size_bytes);
            self.content_bytes = bytes.fold(self.content_bytes, u64::saturating_add);
            return Ok(());
        }
        match message(frame).map_err(|error| Stop::Broken(error.to_string()))? {
            Some(Message::Page { bucket, next, more, records, moment }) => {
                self.take_page(bucket, (next, more), &records, moment).await
            }
            Some(Message::Manifest { blob, manifest: Some(bytes) }) => self.take_manifest(blob, &bytes).await,
            Some(Message::Chunk { blob, index, bytes }) => self.take_chunk(blob, index, bytes).await,
            Some(_) => Err(Stop::Broken("a frame in the wrong place".into())),
            None => Ok(()),
        }
    }

    async fn take_page(
        &mut self,
        bucket: BucketId,
        (next, more): (Seq, bool),
        records: &[Vec<u8>],
        moment: Option<Moment>,
    ) -> Result<(), Stop> {
        if self.imported.refused.contains_key(&bucket) {
            return Ok(());
        }
        let Some(at) = self.cursors.get_mut(&bucket) else {
            return Err(Stop::Broken(format!("a page of {bucket}, which its head does not name")));
        };
        if next < *at || next == *at && (more || !records.is_empty()) {
            return Err(Stop::Broken(format!("a page of {bucket} that does not move on from row {}", at.0)));
        }
        let records = decode_records(bucket, records).map_err(Stop::Broken)?;
        *at = next;
        // A session, or another bundle, may have come further.
        let known = known(self.records, &self.imported.issuer, bucket).await.map_err(ImportError::Store)?;
        let from = self.imported.issuer.peer();
        let told = moment.map_or(Told::Nothing, Told::Carried);
        let applied = self.records.apply_told(from, bucket, records, next.max(known), told).await;
        let applied = applied.map_err(|error| ImportError::Store(error.into()))?.unwrap_or_default();
        let total = &mut self.imported.applied;
        total.applied = total.applied.saturating_add(applied.applied);
        total.superseded = total.superseded.saturating_add(applied.superseded);
        total.quarantined = total.quarantined.saturating_add(applied.quarantined);
        Ok(())
    }

    async fn take_manifest(&mut self, blob: BlobHash, bytes: &[u8]) -> Result<(), Stop> {
        self.leave_blob().await?;
        let manifest = Manifest::from_bytes(bytes).map_err(|error| Stop::Broken(error.to_string()))?;
        if manifest.blob() != blob {
            return Err(Stop::Broken(format!("the manifest of {blob} is that of another blob")));
        }
        self.taking = Taking::Skipping(blob);
        if !self.is_wanted(blob).await? {
            self.imported.blobs_not_wanted += 1;
            return Ok(());
        }
        match self.blobs.begin(&manifest).await {
            Ok(have) => {
                self.taking = Taking::Blob(Box::new(Receiving { manifest, have }));
                self.finish_if_complete().await
            }
            Err(WriteBlobError::Busy) => {
                self.imported.blobs_busy += 1;
                Ok(())
            }
            Err(error) => Err(stop(blob, error)),
        }
    }

    async fn take_chunk(&mut self, blob: BlobHash, index: u32, bytes: Bytes) -> Result<(), Stop> {
        let receiving = match &mut self.taking {
            Taking::Skipping(skipped) if *skipped == blob => return Ok(()),
            Taking::Blob(receiving) if receiving.manifest.blob() == blob => receiving,
            _ => return Err(Stop::Broken(format!("a chunk of {blob}, whose manifest did not come before it"))),
        };
        if receiving.have.contains(index) {
            return Ok(());
        }
        match self.blobs.write(&receiving.manifest, index, bytes).await {
            Ok(()) => drop(receiving.have.insert(index)),
            Err(WriteBlobError::Gone) => return self.skip_gone(blob).await,
            Err(error) => return Err(stop(blob, error)),
        }
        self.finish_if_complete().await
    }

    async fn finish_if_complete(&mut self) -> Result<(), Stop> {
        let Taking::Blob(receiving) = &self.taking else { return Ok(()) };
        if !receiving.have.is_complete() {
            return Ok(());
        }
        let manifest = receiving.manifest.clone();
        let blob = manifest.blob();
        self.taking = Taking::Skipping(blob);
        let finished = async {
            self.blobs.sync(&manifest).await?;
            self.blobs.finish(&manifest).await
        };
        match finished.await {
            Ok(()) => {}
            Err(WriteBlobError::Gone) => return self.skip_gone(blob).await,
            Err(error) => {
                self.blobs.release(blob).await;
                return Err(stop(blob, error));
            }
        }
        self.imported.blobs += 1;
        self.imported.blob_bytes += manifest.size_bytes();
        Ok(())
    }

    /// A session that received the blob as well has lost what was here of it.
    async fn skip_gone(&mut self, blob: BlobHash) -> Result<(), Stop> {
        self.taking = Taking::Skipping(blob);
        self.imported.blobs_busy += 1;
        self.blobs.release(blob).await;
        Ok(())
    }

    async fn sync_blob(&mut self) -> Result<(), ImportError> {
        let Taking::Blob(receiving) = &self.taking else { return Ok(()) };
        match self.blobs.sync(&receiving.manifest).await {
            // What is gone is noticed with the next chunk.
            Ok(()) | Err(WriteBlobError::Gone) => Ok(()),
            Err(error) => Err(ImportError::Store(error.into())),
        }
    }

    /// Lets go of a blob of which not all has come.
    async fn leave_blob(&mut self) -> Result<(), ImportError> {
        let synced = self.sync_blob().await;
        if let Taking::Blob(receiving) = std::mem::replace(&mut self.taking, Taking::Nothing) {
            self.imported.blobs_incomplete += 1;
            self.blobs.release(receiving.manifest.blob()).await;
        }
        synced
    }

    /// Whether records here name the blob, in buckets that the exporter may fill, and it is not here.
    async fn is_wanted(&self, blob: BlobHash) -> Result<bool, ImportError> {
        let next = self.blobs.wanted(self.imported.issuer.hello.node, before(blob), 1).await;
        let next = next.map_err(|error| ImportError::Store(error.into()))?;
        Ok(next.first().is_some_and(|wanted| wanted.blob == blob))
    }
}

/// The hash just below; `None` below the first.
fn before(blob: BlobHash) -> Option<BlobHash> {
    let mut bytes = *blob.as_bytes();
    for byte in bytes.iter_mut().rev() {
        let (less, borrowed) = byte.overflowing_sub(1);
        *byte = less;
        if !borrowed {
            return Some(BlobHash::from_bytes(bytes));
        }
    }
    None
}

fn stop<E: std::error::Error + Send + Sync + 'static>(blob: BlobHash, error: WriteBlobError<E>) -> Stop {
    match error {
        WriteBlobError::Mismatch => Stop::Broken(format!("the content of {blob} does not match its hash")),
        WriteBlobError::Full => Stop::Full,
        WriteBlobError::Busy | WriteBlobError::Gone | WriteBlobError::Store(_) => {
            Stop::Error(ImportError::Store(error.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_before_another_is_the_next_below() {
        let hash = |first, last| {
            let mut bytes = [0; 32];
            (bytes[0], bytes[31]) = (first, last);
            BlobHash::from_bytes(bytes)
        };
        assert_eq!(before(hash(1, 7)), Some(hash(1, 6)));
        assert!(before(hash(1, 0)).is_some_and(|below| below < hash(1, 0) && below > hash(0, 255)));
        assert_eq!(before(hash(0, 0)), None);
    }
}
