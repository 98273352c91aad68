//! One blob on its way in, and the sessions that receive it: one file, one reservation of room, however many they are.
//!
//! The first session opens the files; whoever comes meanwhile waits for it, and whoever comes later with the same manifest joins. Who
//! brings which chunk is divided in memory ([`Shares`]) under a lock of its own, so that no claim waits for the disk. What one session
//! syncs is what all have written. Who finds that everything was written finishes the blob, one at a time; with the blob published, or
//! found to be something else and discarded, nothing more is written to its files, whoever still has a share.
//!
//! The last session that leaves closes the files. What is durable stays for the next time.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use alexandria_sync::chunk::{BlobHash, Chunking, Claim, Have, Lot, Manifest, Shares};
use alexandria_sync::store::WriteBlobError;
use tokio::sync::MutexGuard;

use super::{WriteError, read_chunk};
use crate::store::blobs::layout::Layout;
use crate::store::blobs::room::Reservation;
use crate::store::blobs::{BlobError, Blobs, blocking, failed, locked, read_manifest};
use crate::store::disk;

/// Manifests of blobs to copy from that are kept while one blob is begun.
const SOURCES_KEPT_MAX: usize = 8;

/// Blobs that sessions are receiving.
pub(in crate::store::blobs) type Arriving = HashMap<BlobHash, Seats>;

/// The sessions at one blob.
pub(in crate::store::blobs) struct Seats {
    taken: usize,
    slot: Arc<Slot>,
}

/// Where the files of a blob are opened, once for all.
#[derive(Default)]
pub(super) struct Slot {
    opened: tokio::sync::Mutex<Option<Arc<Making>>>,
}

/// A session's seat at a blob, given back when it is dropped.
pub(super) struct Place {
    blobs: Blobs,
    hash: BlobHash,
    slot: Arc<Slot>,
}

impl Blobs {
    /// Takes a seat at a blob.
    pub(super) fn place(&self, hash: BlobHash) -> Place {
        let mut arriving = locked(&self.inner.arriving);
        let seats = arriving.entry(hash).or_insert_with(|| Seats { taken: 0, slot: Arc::default() });
        seats.taken += 1;
        Place { blobs: self.clone(), hash, slot: Arc::clone(&seats.slot) }
    }

    /// How many sessions receive a blob, or are about to.
    pub(super) fn sessions_receiving(&self, hash: BlobHash) -> usize {
        locked(&self.inner.arriving).get(&hash).map_or(0, |seats| seats.taken)
    }
}

impl Place {
    /// The files, if they are open. Held while they are opened.
    pub(super) async fn opened(&self) -> MutexGuard<'_, Option<Arc<Making>>> {
        self.slot.opened.lock().await
    }

    /// Whoever comes from now on opens the files anew.
    fn close(&self) {
        let mut arriving = locked(&self.blobs.inner.arriving);
        if arriving.get(&self.hash).is_some_and(|seats| Arc::ptr_eq(&seats.slot, &self.slot)) {
            arriving.remove(&self.hash);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut arriving = locked(&self.blobs.inner.arriving);
        if let Some(seats) = arriving.get_mut(&self.hash).filter(|seats| Arc::ptr_eq(&seats.slot, &self.slot)) {
            seats.taken -= 1;
            if seats.taken == 0 {
                arriving.remove(&self.hash);
            }
        }
    }
}

/// One session's share in a blob. Dropped, it frees what it has claimed and not brought.
pub(super) struct Share {
    place: Place,
    making: Arc<Making>,
    holder: u64,
}

impl Share {
    pub(super) fn new(place: Place, making: Arc<Making>) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let holder = NUMBER.fetch_add(1, Ordering::Relaxed);
        locked(&making.division).shares.join(holder);
        Self { place, making, holder }
    }

    pub(super) fn making(&self) -> &Making {
        &self.making
    }

    /// Which chunks are durable.
    pub(super) fn durable(&self) -> Have {
        locked(&self.making.division).shares.durable().clone()
    }

    pub(super) fn claim(&self, claim: &Claim) -> Result<Lot, WriteError> {
        let mut division = locked(&self.making.division);
        match division.end {
            None => Ok(division.shares.claim(self.holder, &self.making.manifest, claim)),
            Some(End::Published) => Ok(Lot::Complete),
            Some(End::Discarded) => Err(WriteBlobError::Gone),
        }
    }

    /// Checks the whole and publishes it, once, whoever else tries.
    pub(super) async fn finish(&self) -> Result<(), WriteError> {
        let making = Arc::clone(&self.making);
        let _one_at_a_time = making.finishing.lock().await;
        let checking = Arc::clone(&making);
        let checked = blocking(move || checking.check()).await;
        let end = match &checked {
            Ok(Checked::Whole) => {
                let data = making.layout.partial_data(self.place.hash);
                self.place.blobs.publish(data, making.manifest.clone()).await?;
                End::Published
            }
            // The files may be those of a blob that was published and not noted: the next session finds out.
            Ok(Checked::NoData) | Err(WriteBlobError::Mismatch) => End::Discarded,
            Ok(Checked::Published) => return Ok(()),
            Err(_) => return checked.map(|_| ()),
        };
        let ending = Arc::clone(&making);
        blocking::<_, WriteError>(move || Ok(ending.end(end)?)).await?;
        self.place.close();
        match checked {
            Ok(Checked::NoData) => Err(WriteBlobError::Gone),
            checked => checked.map(|_| ()),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut division = locked(&self.making.division);
        let is_freed = division.shares.leave(self.holder);
        let are_others = division.shares.holders() > 0;
        drop(division);
        if is_freed && are_others {
            // The others may bring it.
            self.place.blobs.note_wants_changed();
        }
    }
}

/// A blob on its way.
pub(super) struct Making {
    layout: Layout,
    manifest: Manifest,
    /// `None` once it has ended. Locked before `division`.
    files: Mutex<Option<Files>>,
    division: Mutex<Division>,
    /// Held by who finishes it.
    finishing: tokio::sync::Mutex<()>,
}

struct Files {
    data: File,
    /// What is durable.
    have: Have,
    /// What was written since.
    unsynced: Vec<u32>,
    reservation: Reservation,
}

struct Division {
    shares: Shares<u64>,
    end: Option<End>,
}

/// How it has ended.
#[derive(Clone, Copy, Debug)]
enum End {
    Published,
    Discarded,
}

/// What was found when it was to be finished.
enum Checked {
    Whole,
    /// Somebody else has finished it.
    Published,
    NoData,
}

impl Making {
    /// Opens the files, as another session or a crash has left them, and copies what other blobs here hold.
    pub(super) fn open(blobs: &Blobs, manifest: Manifest) -> Result<Self, WriteError> {
        let layout = blobs.inner.layout.clone();
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
        let mut files = Files { data, have, unsynced: Vec::new(), reservation };
        if manifest.chunking() == Chunking::ContentDefined {
            files.copy_known(blobs, &manifest)?;
        }
        let division = Division { shares: Shares::new(files.have.clone()), end: None };
        let (files, division) = (Mutex::new(Some(files)), Mutex::new(division));
        Ok(Self { layout, manifest, files, division, finishing: tokio::sync::Mutex::default() })
    }

    /// Whether a session that brings this manifest may join.
    pub(super) fn is_open(&self, manifest: &Manifest) -> bool {
        self.manifest == *manifest && locked(&self.division).end.is_none()
    }

    pub(super) fn write(&self, index: u32, bytes: &[u8]) -> Result<(), WriteError> {
        if !self.manifest.verifies(index, bytes) {
            return Err(WriteBlobError::Mismatch);
        }
        let mut files = locked(&self.files);
        let Some(files) = files.as_mut() else { return self.ended() };
        if locked(&self.division).shares.is_written(index) {
            return Ok(());
        }
        match files.put(&self.manifest, index, bytes) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(WriteBlobError::Full),
            put => put.map_err(failed("write", &self.layout.partial_data(self.manifest.blob())))?,
        }
        locked(&self.division).shares.written(index);
        Ok(())
    }

    /// Makes durable what all have written.
    pub(super) fn sync(&self) -> Result<(), WriteError> {
        let mut files = locked(&self.files);
        let Some(files) = files.as_mut() else { return self.ended() };
        let unsynced = files.unsynced.clone();
        let synced = files.sync(&self.layout, self.manifest.blob());
        let shares = &mut locked(&self.division).shares;
        if synced.is_ok() {
            shares.synced(unsynced);
        } else {
            shares.lost(unsynced);
        }
        Ok(synced?)
    }

    /// Makes it durable and hashes the whole.
    fn check(&self) -> Result<Checked, WriteError> {
        self.sync()?;
        let is_complete = match locked(&self.files).as_ref() {
            Some(files) => files.have.is_complete(),
            None => return self.ended().map(|()| Checked::Published),
        };
        if !is_complete {
            return Err(WriteBlobError::Gone);
        }
        let path = self.layout.partial_data(self.manifest.blob());
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Checked::NoData),
            opened => opened.map_err(failed("open", &path))?,
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&mut file).map_err(failed("read", &path))?;
        let is_whole = BlobHash::from(hasher.finalize()) == self.manifest.blob();
        if is_whole { Ok(Checked::Whole) } else { Err(WriteBlobError::Mismatch) }
    }

    /// Closes the files and removes what is left of them.
    fn end(&self, end: End) -> Result<(), BlobError> {
        let mut files = locked(&self.files);
        *files = None;
        locked(&self.division).end = Some(end);
        self.layout.remove_partial(self.manifest.blob()).map_err(failed("clear", &self.layout.partial))
    }

    /// What became of something that is no longer written to.
    fn ended(&self) -> Result<(), WriteError> {
        match locked(&self.division).end {
            Some(End::Published) => Ok(()),
            Some(End::Discarded) | None => Err(WriteBlobError::Gone),
        }
    }
}

impl Files {
    /// Copies chunks that other blobs here hold.
    fn copy_known(&mut self, blobs: &Blobs, manifest: &Manifest) -> Result<(), WriteError> {
        let missing: Vec<u32> = self.have.missing().collect();
        let mut sources: HashMap<BlobHash, Option<Manifest>> = HashMap::new();
        let layout = &blobs.inner.layout;
        for index in missing {
            let Some(chunk) = manifest.chunk(index) else { continue };
            let Some(place) = blobs.with_chunk_index(|known| known.find(chunk.hash))? else { continue };
            if sources.len() >= SOURCES_KEPT_MAX && !sources.contains_key(&place.blob) {
                sources.clear();
            }
            let source =
                sources.entry(place.blob).or_insert_with(|| read_manifest(&layout.manifest(place.blob), place.blob));
            let Some(offset) = source.as_ref().and_then(|source| source.offset(place.index)) else { continue };
            let path = layout.blob(place.blob);
            // It may have been removed since it was indexed; then the peer sends it.
            let Ok(Some(bytes)) = read_chunk(&path, offset, chunk.len) else { continue };
            if manifest.verifies(index, &bytes) {
                let path = layout.partial_data(manifest.blob());
                self.put(manifest, index, &bytes).map_err(failed("write", &path))?;
            }
        }
        Ok(self.sync(layout, manifest.blob())?)
    }

    fn put(&mut self, manifest: &Manifest, index: u32, bytes: &[u8]) -> io::Result<()> {
        let offset = manifest.offset(index).ok_or(io::ErrorKind::InvalidInput)?;
        self.data.write_all_at(bytes, offset)?;
        self.reservation.written(bytes.len() as u64);
        self.unsynced.push(index);
        Ok(())
    }

    fn sync(&mut self, layout: &Layout, hash: BlobHash) -> Result<(), BlobError> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
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
}
