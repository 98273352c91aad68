//! Reads content while it arrives: what is durable of a blob that a session is receiving.
//!
//! A [`Follower`] looks at the files of the partial blob, as the next session would after a crash, and only at chunks
//! whose bits say that they are verified and durable (invariant 11). The peer's manifest is not proved before the whole
//! is, so the last chunk is handed out only once the blob is whole: nobody gets all of something that is not what its
//! name says.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use alexandria_sync::chunk::{BlobHash, Have, Manifest};
use tokio::sync::watch;

use super::{BlobError, Blobs, ReadingBlob, blocking, failed, read_manifest};

/// Bytes of a blob that may be read now.
#[derive(Clone, Debug)]
pub struct Durable {
    /// The file that holds them, at their own places.
    pub file: Arc<File>,
    /// Which ones.
    pub bytes: Range<u64>,
}

/// Follows one blob that is not whole here. Clones follow the same one.
#[derive(Clone)]
pub struct Follower {
    blobs: Blobs,
    hash: BlobHash,
    /// Changes whenever something of any blob has become durable.
    progress: watch::Receiver<u64>,
    opened: Option<Opened>,
    /// The whole, once it is here: read on from, whatever becomes of the blob.
    whole: Option<(Arc<File>, u64)>,
    /// What has come does not make way before it was read.
    _reading: Arc<ReadingBlob>,
}

#[derive(Clone)]
struct Opened {
    file: Arc<File>,
    manifest: Arc<Manifest>,
}

impl Blobs {
    /// Follows a blob, whether anything of it is here or not.
    pub fn follow(&self, hash: BlobHash) -> Follower {
        let progress = self.inner.progress.subscribe();
        Follower {
            blobs: self.clone(),
            hash,
            progress,
            opened: None,
            whole: None,
            _reading: Arc::new(self.reading(hash)),
        }
    }

    /// Something has become durable, or came to its end.
    pub(super) fn note_progress(&self) {
        self.inner.progress.send_modify(|times| *times += 1);
    }
}

impl Follower {
    /// Which blob.
    pub fn hash(&self) -> BlobHash {
        self.hash
    }

    /// The bytes from `start` on that may be read now, in one piece; `None` if that one is still to come.
    ///
    /// # Errors
    ///
    /// [`BlobError`] if the disk fails, or what was followed turned out to be something else.
    pub async fn durable_from(&mut self, start: u64) -> Result<Option<Durable>, BlobError> {
        self.progress.borrow_and_update();
        let mut looking = self.clone();
        let looked = blocking(move || {
            let durable = looking.look(start)?;
            Ok::<_, BlobError>((durable, looking.opened, looking.whole))
        });
        let (durable, opened, whole) = looked.await?;
        (self.opened, self.whole) = (opened, whole);
        Ok(durable)
    }

    /// Waits until more may be there than at the last look.
    ///
    /// # Errors
    ///
    /// [`BlobError::Closed`] if nothing will ever come.
    pub async fn changed(&mut self) -> Result<(), BlobError> {
        self.progress.changed().await.map_err(|_| BlobError::Closed)
    }

    fn look(&mut self, start: u64) -> Result<Option<Durable>, BlobError> {
        if let Some((file, size_bytes)) = &self.whole {
            return Ok(Some(Durable { file: Arc::clone(file), bytes: start.min(*size_bytes)..*size_bytes }));
        }
        if let Some(held) = self.blobs.held(self.hash)? {
            let path = self.blobs.inner.layout.blob(self.hash);
            let proved = read_manifest(&self.blobs.inner.layout.manifest(self.hash), self.hash);
            if self.opened.as_ref().is_some_and(|opened| proved.is_some_and(|proved| proved != *opened.manifest)) {
                // What was read of it so far may have been of something else.
                return Err(BlobError::NotBegun(self.hash));
            }
            let file = Arc::new(File::open(&path).map_err(failed("open", &path))?);
            self.blobs.note_use(self.hash);
            self.whole = Some((Arc::clone(&file), held.size_bytes));
            return Ok(Some(Durable { file, bytes: start.min(held.size_bytes)..held.size_bytes }));
        }
        let Some(opened) = self.open()? else { return Ok(None) };
        let (chunks, path) = (opened.manifest.chunks().len() as u32, self.blobs.inner.layout.partial_have(self.hash));
        let bits = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed("read", &path))?,
        };
        let Some(have) = Have::from_bytes(chunks, &bits) else { return Ok(None) };
        let end = end_of_piece(&opened.manifest, &have, start);
        Ok((end > start).then(|| Durable { file: Arc::clone(&opened.file), bytes: start..end }))
    }

    /// The file and the manifest of the partial blob, once there are any. It begins anew if the manifest is another.
    fn open(&mut self) -> Result<Option<Opened>, BlobError> {
        let layout = &self.blobs.inner.layout;
        let (data, manifest) = (layout.partial_data(self.hash), layout.partial_manifest(self.hash));
        let Some(manifest) = read_manifest(&manifest, self.hash) else { return Ok(None) };
        match &self.opened {
            Some(opened) if *opened.manifest == manifest => {}
            // What was read of it so far was of something else.
            Some(_) => return Err(BlobError::NotBegun(self.hash)),
            None => {
                let file = match File::open(&data) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    other => other.map_err(failed("open", &data))?,
                };
                self.opened = Some(Opened { file: Arc::new(file), manifest: Arc::new(manifest) });
            }
        }
        Ok(self.opened.clone())
    }
}

/// Where the durable chunks from `start` on end, without the last chunk of the blob; `start` if there are none.
fn end_of_piece(manifest: &Manifest, have: &Have, start: u64) -> u64 {
    if start >= manifest.size_bytes() {
        return start;
    }
    let last = manifest.chunks().len() as u32 - 1;
    let first = manifest.chunk_at(start);
    let missing = (first..last).find(|index| !have.contains(*index)).unwrap_or(last);
    manifest.offset(missing).unwrap_or(start).max(start)
}

#[cfg(test)]
mod tests {
    use alexandria_sync::chunk::{Chunk, ChunkHash, Chunking};

    use super::*;

    #[test]
    fn a_piece_ends_at_the_first_gap_and_before_the_last_chunk() {
        let chunks = vec![Chunk { len: 10, hash: ChunkHash::of(b"x") }; 5];
        let manifest = Manifest::new(BlobHash::of(b"x"), Chunking::Fixed, chunks).unwrap();
        let mut have = Have::none(5);
        for index in [0, 1, 3, 4] {
            have.insert(index);
        }
        let ends = |starts: [u64; 6]| starts.map(|start| end_of_piece(&manifest, &have, start));
        assert_eq!(ends([0, 15, 20, 30, 45, 50]), [20, 20, 20, 40, 45, 50]);
    }
}
