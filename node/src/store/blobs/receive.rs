//! Blobs that come from peers chunk by chunk, and survive cuts, restarts and power failures.
//!
//! Three files for each: `.data` (as long as the blob from the start), `.manifest`, and `.have`, a bitmap. A bit is
//! set only after its chunk was verified, written and synced (invariant 11): the data, fsync, then the bitmap by temp,
//! fsync and rename. What came since the last sync is received again after a crash (invariant 12).
//!
//! A blob is received by one session at a time. The manifest that a peer sent is not trusted: at the end the whole
//! file is hashed, and only then it is a blob.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use alexandria_sync::chunk::{Bases, BlobHash, ChunkHash, ChunkIndex, Chunking, Have, Manifest};
use alexandria_sync::id::NodeId;
use alexandria_sync::store::{BlobStore, Wanted, WriteBlobError};
use bytes::Bytes;

use super::room::Reservation;
use super::{BlobError, Blobs, CHUNK_INDEX_ENTRIES_MAX, blocking, failed, locked, read_manifest};
use crate::store::disk;
use crate::store::engine::Direction;
use crate::store::row::HeldRow;

/// Blobs that one session receives at a time, at most; each holds one open file.
const RECEIVED_AT_ONCE_MAX: usize = 64;
/// Manifests of blobs to copy from that are kept while one blob is begun.
const SOURCES_KEPT_MAX: usize = 8;
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
    receiving: Mutex<HashMap<BlobHash, Arc<Mutex<Receiving>>>>,
}

impl Drop for BlobSession {
    fn drop(&mut self) {
        let received = std::mem::take(&mut *locked(&self.receiving));
        let mut claims = locked(&self.blobs.inner.claims);
        for hash in received.keys() {
            claims.remove(hash);
        }
    }
}

/// One blob on its way.
struct Receiving {
    manifest: Manifest,
    data: File,
    /// What is durable.
    have: Have,
    /// What was written since.
    unsynced: Vec<u32>,
    reservation: Reservation,
}

impl BlobSession {
    pub(super) fn new(blobs: Blobs) -> Self {
        Self { blobs, receiving: Mutex::default() }
    }

    fn receiving(&self, hash: BlobHash) -> Option<Arc<Mutex<Receiving>>> {
        locked(&self.receiving).get(&hash).cloned()
    }

    /// The blob on its way; `None` if it is whole here, so that nothing is left to do.
    fn begun(&self, hash: BlobHash) -> Result<Option<Arc<Mutex<Receiving>>>, WriteError> {
        if let Some(receiving) = self.receiving(hash) {
            return Ok(Some(receiving));
        }
        match self.blobs.held(hash).map_err(BlobError::from)? {
            Some(_) => Ok(None),
            None => Err(BlobError::NotBegun(hash).into()),
        }
    }

    fn give_up(&self, hash: BlobHash) {
        if locked(&self.receiving).remove(&hash).is_some() {
            locked(&self.blobs.inner.claims).remove(&hash);
        }
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
        if let Some(receiving) = self.receiving(hash) {
            return Ok(locked(&receiving).have.clone());
        }
        if self.blobs.held(hash).map_err(BlobError::from)?.is_some() {
            return Ok(all(manifest.chunks().len()));
        }
        // Claimed until it is in `receiving`, whatever way this function is left.
        let claim = Claim::take(&self.blobs, hash).ok_or(WriteBlobError::Busy)?;
        // Asked for before it was erased: it is not wanted any more, so it is not asked for again.
        if self.blobs.is_erased(hash).map_err(BlobError::from)? {
            return Err(WriteBlobError::Busy);
        }
        if self.blobs.adopt(hash, manifest.chunking()).await? {
            return Ok(all(manifest.chunks().len()));
        }
        if locked(&self.receiving).len() >= RECEIVED_AT_ONCE_MAX {
            return Err(WriteBlobError::Busy);
        }
        let begin = || {
            let (blobs, manifest) = (self.blobs.clone(), manifest.clone());
            blocking(move || Receiving::begin(&blobs, manifest))
        };
        let receiving = match begin().await {
            Err(WriteBlobError::Full) if self.blobs.make_room_for(manifest).await? => begin().await,
            begun => begun,
        };
        if matches!(receiving, Err(WriteBlobError::Full)) {
            self.blobs.note_no_room(hash);
        }
        let receiving = receiving?;
        let have = receiving.have.clone();
        locked(&self.receiving).insert(hash, Arc::new(Mutex::new(receiving)));
        claim.keep();
        self.blobs.note_progress();
        Ok(have)
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
        let Some(receiving) = self.begun(manifest.blob())? else { return Ok(()) };
        let path = self.blobs.inner.layout.partial_data(manifest.blob());
        let written = blocking(move || {
            let mut receiving = locked(&receiving);
            if !receiving.manifest.verifies(index, &bytes) {
                return Err(WriteBlobError::Mismatch);
            }
            if receiving.have.contains(index) || receiving.unsynced.contains(&index) {
                return Ok(());
            }
            match receiving.put(index, &bytes) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(WriteBlobError::Full),
                written => Ok(written.map_err(failed("write", &path))?),
            }
        })
        .await;
        if matches!(written, Err(WriteBlobError::Full)) {
            self.blobs.note_no_room(manifest.blob());
        }
        written
    }

    async fn sync(&self, manifest: &Manifest) -> Result<(), WriteError> {
        let Some(receiving) = self.begun(manifest.blob())? else { return Ok(()) };
        let blobs = self.blobs.clone();
        let synced = blocking(move || Ok(locked(&receiving).sync(&blobs)?)).await;
        self.blobs.note_progress();
        synced
    }

    async fn finish(&self, manifest: &Manifest) -> Result<(), WriteError> {
        let hash = manifest.blob();
        let Some(receiving) = self.begun(hash)? else { return Ok(()) };
        let blobs = self.blobs.clone();
        let manifest = blocking(move || {
            let mut receiving = locked(&receiving);
            receiving.sync(&blobs)?;
            if !receiving.have.is_complete() {
                return Err(BlobError::NotBegun(hash).into());
            }
            receiving.check_whole(&blobs)?;
            Ok::<_, WriteError>(receiving.manifest.clone())
        });
        match manifest.await {
            Ok(manifest) => {
                let layout = &self.blobs.inner.layout;
                self.blobs.publish(layout.partial_data(hash), manifest).await?;
                layout.remove_partial(hash).map_err(failed("clear", &layout.partial))?;
                self.give_up(hash);
                self.blobs.note_progress();
                Ok(())
            }
            Err(WriteBlobError::Mismatch) => {
                let layout = &self.blobs.inner.layout;
                layout.remove_partial(hash).map_err(failed("clear", &layout.partial))?;
                self.give_up(hash);
                self.blobs.note_progress();
                Err(WriteBlobError::Mismatch)
            }
            Err(error) => Err(error),
        }
    }

    async fn release(&self, blob: BlobHash) {
        self.give_up(blob);
    }
}

/// The right to receive a blob, given back when it is dropped.
struct Claim<'b> {
    blobs: &'b Blobs,
    hash: BlobHash,
    kept: bool,
}

impl<'b> Claim<'b> {
    fn take(blobs: &'b Blobs, hash: BlobHash) -> Option<Self> {
        let taken = locked(&blobs.inner.claims).insert(hash);
        // Made only if it was taken: dropping it gives the claim back.
        taken.then(|| Self { blobs, hash, kept: false })
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.kept {
            locked(&self.blobs.inner.claims).remove(&self.hash);
        }
    }
}

impl Receiving {
    fn begin(blobs: &Blobs, manifest: Manifest) -> Result<Self, WriteError> {
        let layout = &blobs.inner.layout;
        let (hash, chunks) = (manifest.blob(), manifest.chunks().len() as u32);
        let (data_path, manifest_path) = (layout.partial_data(hash), layout.partial_manifest(hash));
        let mut have = Have::none(chunks);
        if read_manifest(&manifest_path, hash).as_ref() == Some(&manifest) {
            // Without all of the data the bits mean nothing.
            let whole_length = fs::metadata(&data_path).is_ok_and(|data| data.len() == manifest.size_bytes());
            let bits = fs::read(layout.partial_have(hash)).ok().filter(|_| whole_length);
            have = bits.and_then(|bits| Have::from_bytes(chunks, &bits)).unwrap_or(have);
        } else {
            layout.remove_partial(hash).map_err(failed("clear", &layout.partial))?;
        }
        let had: u64 = (0..chunks)
            .filter(|&index| have.contains(index))
            .filter_map(|index| manifest.chunk(index))
            .map(|chunk| u64::from(chunk.len))
            .sum();
        let mut reservation = blobs.inner.room.reserve(manifest.size_bytes()).map_err(|_| WriteBlobError::Full)?;
        reservation.written(had);
        let open = || {
            let data = File::options().read(true).write(true).create(true).truncate(false).open(&data_path)?;
            data.set_len(manifest.size_bytes())?;
            data.sync_all()?;
            disk::write_durably(&manifest_path, &manifest.to_bytes())?;
            Ok(data)
        };
        let data = open().map_err(failed("begin", &data_path))?;
        let mut receiving = Self { manifest, data, have, unsynced: Vec::new(), reservation };
        if receiving.manifest.chunking() == Chunking::ContentDefined {
            receiving.copy_known(blobs)?;
        }
        Ok(receiving)
    }

    /// Copies chunks that other blobs here hold.
    fn copy_known(&mut self, blobs: &Blobs) -> Result<(), WriteError> {
        let missing: Vec<u32> = self.have.missing().collect();
        let mut sources: HashMap<BlobHash, Option<Manifest>> = HashMap::new();
        for index in missing {
            let Some(chunk) = self.manifest.chunk(index) else { continue };
            let Some(place) = blobs.with_chunk_index(|known| known.find(chunk.hash))? else { continue };
            if sources.len() >= SOURCES_KEPT_MAX && !sources.contains_key(&place.blob) {
                sources.clear();
            }
            let layout = &blobs.inner.layout;
            let source =
                sources.entry(place.blob).or_insert_with(|| read_manifest(&layout.manifest(place.blob), place.blob));
            let Some(offset) = source.as_ref().and_then(|source| source.offset(place.index)) else { continue };
            let path = layout.blob(place.blob);
            // It may have been removed since it was indexed; then the peer sends it.
            let Ok(Some(bytes)) = read_chunk(&path, offset, chunk.len) else { continue };
            if self.manifest.verifies(index, &bytes) {
                let path = layout.partial_data(self.manifest.blob());
                self.put(index, &bytes).map_err(failed("write", &path))?;
            }
        }
        Ok(self.sync(blobs)?)
    }

    fn put(&mut self, index: u32, bytes: &[u8]) -> io::Result<()> {
        let offset = self.manifest.offset(index).ok_or(io::ErrorKind::InvalidInput)?;
        self.data.write_all_at(bytes, offset)?;
        self.reservation.written(bytes.len() as u64);
        self.unsynced.push(index);
        Ok(())
    }

    fn sync(&mut self, blobs: &Blobs) -> Result<(), BlobError> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        let layout = &blobs.inner.layout;
        let hash = self.manifest.blob();
        let unsynced = std::mem::take(&mut self.unsynced);
        // After a failed sync nobody knows which of these are on the disk, so they count as not received.
        self.data.sync_data().map_err(failed("sync", &layout.partial_data(hash)))?;
        let mut have = self.have.clone();
        for index in unsynced {
            have.insert(index);
        }
        let path = layout.partial_have(hash);
        disk::write_durably(&path, have.as_bytes()).map_err(failed("write", &path))?;
        self.have = have;
        Ok(())
    }

    fn check_whole(&self, blobs: &Blobs) -> Result<(), WriteError> {
        let path = blobs.inner.layout.partial_data(self.manifest.blob());
        let mut hasher = blake3::Hasher::new();
        let mut file = File::open(&path).map_err(failed("open", &path))?;
        hasher.update_reader(&mut file).map_err(failed("read", &path))?;
        if BlobHash::from(hasher.finalize()) == self.manifest.blob() { Ok(()) } else { Err(WriteBlobError::Mismatch) }
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
