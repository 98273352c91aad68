//! Uploads and imports: a stream of bytes becomes a blob. Memory stays flat however long the stream is.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use alexandria_sync::chunk::{BlobHash, Chunker, Chunking, Manifest, ManifestError};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::room::{NoRoom, Reservation};
use super::{BlobError, Blobs, Need, blocking, failed};
use crate::store::disk;

/// Bytes that are read before they are hashed and written.
const BUFFER_BYTES: usize = 1024 * 1024;
/// Room that is set aside at a time for a stream of unknown length, in bytes.
const ROOM_STEP_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes after which what was written is synced, so that the last sync of a large file does not stall everyone.
const SYNC_STEP_BYTES: u64 = 32 * 1024 * 1024;

/// Why a stream did not become a blob. Nothing of it was kept.
#[derive(Debug, thiserror::Error)]
pub enum PutBlobError {
    /// No room within the quota or on the disk.
    #[error(transparent)]
    Full(#[from] NoRoom),
    /// The stream broke: the client's fault, or the file's.
    #[error("read the content")]
    Read(#[source] io::Error),
    /// The store's own fault, or a blob larger than any manifest.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// A blob that was put in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PutBlob {
    /// Its name.
    pub hash: BlobHash,
    /// Its size.
    pub size_bytes: u64,
    /// Whether it was here already.
    pub existed: bool,
}

impl Blobs {
    /// Stores a stream as a blob, durably. `size_bytes` is what the stream says about its length, if it does: without
    /// room for that much nothing is read.
    ///
    /// Until a record refers to it, it is kept for as long as [`Blobs::sweep`] is given as grace.
    pub async fn put_stream(
        &self,
        chunking: Chunking,
        size_bytes: Option<u64>,
        mut stream: impl AsyncRead + Unpin + Send,
    ) -> Result<PutBlob, PutBlobError> {
        let blobs = self.clone();
        self.make_room(size_bytes.unwrap_or(ROOM_STEP_BYTES), Need::Pressing).await?;
        let mut incoming = blocking::<_, PutBlobError>(move || Incoming::start(&blobs, chunking, size_bytes)).await?;
        loop {
            let mut buffer = Vec::with_capacity(BUFFER_BYTES);
            while buffer.len() < BUFFER_BYTES
                && (&mut stream)
                    .take((BUFFER_BYTES - buffer.len()) as u64)
                    .read_buf(&mut buffer)
                    .await
                    .map_err(PutBlobError::Read)?
                    > 0
            {}
            if buffer.is_empty() {
                break;
            }
            if incoming.reservation.unwritten_bytes() < buffer.len() as u64 {
                // It is longer than it said, or said nothing.
                self.make_room(ROOM_STEP_BYTES, Need::Pressing).await?;
            }
            incoming = blocking::<_, PutBlobError>(move || incoming.write(&buffer)).await?;
        }
        let (temp, manifest) = blocking::<_, PutBlobError>(move || incoming.seal()).await?;
        let (hash, size_bytes) = (manifest.blob(), manifest.size_bytes());
        let existed = self.keep_if_held(hash).await?;
        if !existed {
            self.publish(temp.path.clone(), manifest).await?;
        }
        Ok(PutBlob { hash, size_bytes, existed })
    }

    /// Whether a blob is here already; if so, it is not swept away before its grace is over again.
    async fn keep_if_held(&self, hash: BlobHash) -> Result<bool, BlobError> {
        let _not_removed_meanwhile = self.inner.publishing.read().await;
        self.count_anew(hash).await?;
        let there = self.inner.layout.blob(hash).exists();
        Ok(there && self.held(hash)?.is_some())
    }
}

/// Cuts and hashes what is read, in steady memory.
pub(super) fn cut(from: &mut impl Read, chunking: Chunking) -> Result<Manifest, CutError> {
    let mut chunker = Chunker::new(chunking);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(chunker.finish()?),
            Ok(read) => chunker.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CutError::Read(error)),
        }
    }
}

/// Why content could not be cut.
pub(super) enum CutError {
    Read(io::Error),
    Manifest(ManifestError),
}

impl From<ManifestError> for CutError {
    fn from(error: ManifestError) -> Self {
        Self::Manifest(error)
    }
}

/// A stream on its way into a file.
struct Incoming {
    temp: Temp,
    file: File,
    chunker: Chunker,
    reservation: Reservation,
    unsynced_bytes: u64,
}

impl Incoming {
    fn start(blobs: &Blobs, chunking: Chunking, size_bytes: Option<u64>) -> Result<Self, PutBlobError> {
        let reservation = blobs.inner.room.reserve(size_bytes.unwrap_or(ROOM_STEP_BYTES))?;
        let temp = Temp::new(&blobs.inner.layout.incoming);
        let file = File::create_new(&temp.path).map_err(failed("make", &temp.path))?;
        Ok(Self { temp, file, chunker: Chunker::new(chunking), reservation, unsynced_bytes: 0 })
    }

    fn write(mut self, bytes: &[u8]) -> Result<Self, PutBlobError> {
        let len = bytes.len() as u64;
        if self.reservation.unwritten_bytes() < len {
            self.reservation.extend(ROOM_STEP_BYTES.max(len))?;
        }
        self.chunker.update(bytes);
        match self.file.write_all(bytes) {
            // Someone else was quicker to fill the disk.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(NoRoom.into()),
            written => written.map_err(failed("write", &self.temp.path))?,
        }
        self.reservation.written(len);
        self.unsynced_bytes += len;
        if self.unsynced_bytes >= SYNC_STEP_BYTES {
            self.file.sync_data().map_err(failed("sync", &self.temp.path))?;
            self.unsynced_bytes = 0;
        }
        Ok(self)
    }

    fn seal(self) -> Result<(Temp, Manifest), PutBlobError> {
        self.file.sync_all().map_err(failed("sync", &self.temp.path))?;
        Ok((self.temp, self.chunker.finish().map_err(BlobError::from)?))
    }
}

/// A file that is removed unless it was renamed.
struct Temp {
    path: PathBuf,
}

impl Temp {
    fn new(folder: &Path) -> Self {
        // The folder is emptied at each start and only this process writes there.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        Self { path: folder.join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string()) }
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // If this fails, the next start removes it.
        let _ = disk::remove_if_there(&self.path);
    }
}
