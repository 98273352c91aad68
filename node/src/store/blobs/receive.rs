//! Blobs that come from peers chunk by chunk, and survive cuts, restarts and power failures.
//!
//! Three files for each: `.data` (as long as the blob from the start), `.manifest`, and `.have`, a bitmap. A bit is
//! set only after its chunk was verified, written and synced (invariant 11): the data, fsync, then the bitmap by temp,
//! fsync and rename. What came since the last sync is received again after a crash (invariant 12).
//!
//! Sessions that bring the same manifest receive a blob together ([`together`]): each writes what it has claimed. The manifest that a peer
//! sent is not trusted: at the end the whole file is hashed, and only then it is a blob.

pub(super) mod together;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use alexandria_sync::chunk::{Bases, BlobHash, ChunkHash, ChunkIndex, Chunking, Claim, Have, Lot, Manifest};
use alexandria_sync::id::NodeId;
use alexandria_sync::store::{BlobStore, Wanted, WriteBlobError};
use bytes::Bytes;

use self::together::{Making, Share};
use super::{BlobError, Blobs, CHUNK_INDEX_ENTRIES_MAX, blocking, failed, locked, read_manifest};
use crate::store::disk;
use crate::store::engine::Direction;
use crate::store::row::HeldRow;

/// Blobs that one session receives at a time, at most; each holds one open file, however many sessions receive it.
const RECEIVED_AT_ONCE_MAX: usize = 64;
/// Whole blobs read to fill the chunk index at a time.
const INDEXED_AT_ONCE: usize = 256;

type WriteError = WriteBlobError<BlobError>;

impl From<BlobError> for WriteError {
    fn from(error: BlobError) -> Self {
        Self::Store(error)
    }
}

/// The blob store as one session with one peer uses it. Dropping it releases what it was receiving.
pub struct BlobSession {
    blobs: Blobs,
    receiving: Mutex<HashMap<BlobHash, Arc<Share>>>,
}

impl BlobSession {
    pub(super) fn new(blobs: Blobs) -> Self {
        Self { blobs, receiving: Mutex::default() }
    }

    /// Whether this session is receiving the blob.
    pub(crate) fn receives(&self, hash: BlobHash) -> bool {
        locked(&self.receiving).contains_key(&hash)
    }

    /// Whether another session is receiving the blob.
    pub(crate) fn comes_from_elsewhere(&self, hash: BlobHash) -> bool {
        self.blobs.sessions_receiving(hash) > usize::from(self.receives(hash))
    }

    fn receiving(&self, hash: BlobHash) -> Option<Arc<Share>> {
        locked(&self.receiving).get(&hash).cloned()
    }

    /// The blob on its way; `None` if it is whole here, so that nothing is left to do.
    fn begun(&self, hash: BlobHash) -> Result<Option<Arc<Share>>, WriteError> {
        if let Some(receiving) = self.receiving(hash) {
            return Ok(Some(receiving));
        }
        match self.blobs.held(hash).map_err(BlobError::from)? {
            Some(_) => Ok(None),
            None => Err(BlobError::NotBegun(hash).into()),
        }
    }

    fn give_up(&self, hash: BlobHash) {
        drop(locked(&self.receiving).remove(&hash));
    }
}

impl BlobStore for BlobSession {
    type Error = BlobError;

    async fn urgent(&self, peer: NodeId) -> Result<Vec<Wanted>, BlobError> {
        let blobs = self.blobs.clone();
        blocking(move || Ok::<_, BlobError>(blobs.urgent_of(peer)?)).await
    }

    async fn wanted(&self, peer: NodeId, after: Option<BlobHash>, limit: usize) -> Result<Vec<Wanted>, BlobError> {
        let blobs = self.blobs.clone();
        blocking(move || Ok::<_, BlobError>(blobs.wanted_after(peer, after, limit)?)).await
    }

    async fn manifest(&self, reader: NodeId, blob: BlobHash) -> Result<Option<Manifest>, BlobError> {
        let blobs = self.blobs.clone();
        let manifest = blocking(move || {
            let Some(held) = blobs.held(blob)? else { return Ok(None) };
            if !blobs.may(reader, blob)? {
                return Ok(None);
            }
            Ok::<_, BlobError>(Some(blobs.manifest_of(held)?))
        });
        match manifest.await? {
            Some(None) => {
                // Its file is gone or is something else.
                self.blobs.set_aside(blob, None).await?;
                Ok(None)
            }
            Some(manifest) => Ok(manifest),
            None => Ok(None),
        }
    }

    async fn read(&self, manifest: &Manifest, index: u32) -> Result<Option<Bytes>, BlobError> {
        let hash = manifest.blob();
        let (Some(chunk), Some(offset)) = (manifest.chunk(index), manifest.offset(index)) else { return Ok(None) };
        let path = self.blobs.inner.layout.blob(hash);
        let bytes = blocking(move || read_chunk(&path, offset, chunk.len).map_err(failed("read", &path))).await?;
        match bytes {
            Some(bytes) if manifest.verifies(index, &bytes) => Ok(Some(bytes.into())),
            // A damaged blob is found by the first who reads it, and handed to nobody.
            _ => {
                if self.blobs.held(hash)?.is_some() {
                    self.blobs.examine_and_repair(hash).await?;
                }
                Ok(None)
            }
        }
    }

    async fn begin(&self, manifest: &Manifest) -> Result<Have, WriteError> {
        let hash = manifest.blob();
        if let Some(share) = self.receiving(hash) {
            return Ok(share.durable());
        }
        if self.blobs.held(hash).map_err(BlobError::from)?.is_some() {
            return Ok(all(manifest.chunks().len()));
        }
        if locked(&self.receiving).len() >= RECEIVED_AT_ONCE_MAX {
            return Err(WriteBlobError::Busy);
        }
        // Whoever comes while another session opens the files waits for it.
        let place = self.blobs.place(hash);
        let mut opened = place.opened().await;
        let making = match &*opened {
            Some(making) if making.is_open(manifest) => Arc::clone(making),
            Some(_) => return Err(WriteBlobError::Busy),
            None => {
                let Some(making) = self.open(manifest).await? else { return Ok(all(manifest.chunks().len())) };
                Arc::clone(opened.insert(making))
            }
        };
        drop(opened);
        let share = Share::new(place, making);
        let have = share.durable();
        locked(&self.receiving).insert(hash, Arc::new(share));
        self.blobs.note_progress();
        Ok(have)
    }

    async fn claim(&self, manifest: &Manifest, claim: Claim) -> Result<Lot, WriteError> {
        match self.begun(manifest.blob())? {
            Some(share) => share.claim(&claim),
            None => Ok(Lot::Complete),
        }
    }

    async fn bases(&self, peer: NodeId, manifest: &Manifest, have: &Have) -> Result<Bases, BlobError> {
        let (blobs, manifest, have) = (self.blobs.clone(), manifest.clone(), have.clone());
        blocking(move || blobs.bases_of(peer, &manifest, &have)).await
    }

    async fn known_chunk(&self, reader: Option<NodeId>, chunk: ChunkHash) -> Result<Option<Bytes>, BlobError> {
        let blobs = self.blobs.clone();
        let bytes = blocking(move || blobs.known_chunk(reader, chunk)).await?;
        Ok(bytes.map(Bytes::from))
    }

    async fn write(&self, manifest: &Manifest, index: u32, bytes: Bytes) -> Result<(), WriteError> {
        let Some(share) = self.begun(manifest.blob())? else { return Ok(()) };
        let written = blocking(move || share.making().write(index, &bytes)).await;
        if matches!(written, Err(WriteBlobError::Full)) {
            self.blobs.note_no_room(manifest.blob());
        }
        written
    }

    async fn sync(&self, manifest: &Manifest) -> Result<(), WriteError> {
        let Some(share) = self.begun(manifest.blob())? else { return Ok(()) };
        let synced = blocking(move || share.making().sync()).await;
        self.blobs.note_progress();
        synced
    }

    async fn finish(&self, manifest: &Manifest) -> Result<(), WriteError> {
        let hash = manifest.blob();
        let Some(share) = self.begun(hash)? else { return Ok(()) };
        let finished = share.finish().await;
        if matches!(finished, Ok(()) | Err(WriteBlobError::Mismatch)) {
            self.give_up(hash);
        }
        self.blobs.note_progress();
        finished
    }

    async fn release(&self, blob: BlobHash) {
        self.give_up(blob);
        // It came by another way, and nobody else will clear what had come by this one.
        if matches!(self.blobs.held(blob), Ok(Some(_))) {
            let blobs = self.blobs.clone();
            let cleared = blocking(move || blobs.remove_partial_unless_received(blob)).await;
            if let Err(error) = cleared {
                tracing::warn!(blob.hash = %blob, %error, "what had come of a blob is not cleared");
            }
        }
    }
}

impl BlobSession {
    /// Opens the files of a blob; `None` if it is whole after all.
    async fn open(&self, manifest: &Manifest) -> Result<Option<Arc<Making>>, WriteError> {
        let (blobs, hash) = (&self.blobs, manifest.blob());
        if blobs.held(hash).map_err(BlobError::from)?.is_some() {
            return Ok(None);
        }
        // Asked for before it was erased: it is not wanted any more, so it is not asked for again.
        if blobs.is_erased(hash).map_err(BlobError::from)? {
            return Err(WriteBlobError::Busy);
        }
        if blobs.adopt(hash, manifest.chunking()).await? {
            return Ok(None);
        }
        let open = || {
            let (blobs, manifest) = (blobs.clone(), manifest.clone());
            blocking(move || Making::open(&blobs, manifest))
        };
        let making = match open().await {
            Err(WriteBlobError::Full) if blobs.make_room_for(manifest).await? => open().await,
            opened => opened,
        };
        if matches!(making, Err(WriteBlobError::Full)) {
            blobs.note_no_room(hash);
        }
        Ok(Some(Arc::new(making?)))
    }
}

impl Blobs {
    /// Registers a blob whose file was published before a crash and whose row was not written.
    async fn adopt(&self, hash: BlobHash, chunking: Chunking) -> Result<bool, BlobError> {
        let _not_removed_meanwhile = self.inner.publishing.read().await;
        let path = self.inner.layout.blob(hash);
        let blobs = self.clone();
        let found = blocking(move || {
            if !path.exists() {
                return Ok(None);
            }
            let held = super::HeldBlob { hash, size_bytes: 0, chunking };
            // Whatever its manifest says, only its own bytes count here.
            disk::remove_if_there(&blobs.inner.layout.manifest(hash)).map_err(failed("adopt", &path))?;
            blobs.manifest_of(held)
        });
        let Some(manifest) = found.await? else { return Ok(false) };
        self.register(hash, HeldRow { size_bytes: manifest.size_bytes(), chunking }).await?;
        Ok(true)
    }

    /// Asks the chunk index, which is filled when it is first needed.
    pub(super) fn with_chunk_index<T>(&self, ask: impl FnOnce(&ChunkIndex) -> T) -> Result<T, BlobError> {
        let mut chunks = locked(&self.inner.chunks);
        if let Some(index) = chunks.as_ref() {
            return Ok(ask(index));
        }
        let mut index = ChunkIndex::new(CHUNK_INDEX_ENTRIES_MAX);
        let mut entries = 0;
        let mut after = None;
        loop {
            let held = self.held_blobs(after, Direction::Ascending, INDEXED_AT_ONCE)?;
            let Some(last) = held.last() else { break };
            after = Some(last.hash);
            for blob in held.iter().filter(|blob| blob.chunking == Chunking::ContentDefined) {
                if entries >= CHUNK_INDEX_ENTRIES_MAX {
                    break;
                }
                if let Some(manifest) = read_manifest(&self.inner.layout.manifest(blob.hash), blob.hash) {
                    entries += manifest.chunks().len();
                    index.add(&manifest);
                }
            }
        }
        Ok(ask(chunks.insert(index)))
    }
}

/// Every chunk of a blob that is whole.
pub(super) fn all(chunks: usize) -> Have {
    let mut have = Have::none(chunks as u32);
    for index in 0..chunks as u32 {
        have.insert(index);
    }
    have
}

/// Reads one chunk; `None` if the file is gone or too short.
pub(super) fn read_chunk(path: &std::path::Path, offset: u64, len: u32) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = vec![0; len as usize];
    match file.read_exact_at(&mut bytes, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        other => other.map(|()| Some(bytes)),
    }
}
