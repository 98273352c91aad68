//! Content in files: one whole, verified file for each blob, its manifest beside it.
//!
//! - `held`: lists, media types, removal by hand.
//! - [`room`]: how much content may come in.
//! - [`incoming`]: uploads and imports, whose hash is known at the end.
//! - [`receive`]: blobs that come chunk by chunk from peers, across restarts. [`BlobSession`] implements the port.
//! - `known`: what changed chunks can be told from.
//! - `readers`: who reads what, and what they wait for.
//! - [`follow`]: reads what is arriving.
//! - [`scrub`]: finds damage and makes it wanted again.
//! - [`sweep`]: removes what nothing refers to.
//! - [`evict`]: gives up what can be had again, to make room.
//!
//! What always holds:
//! - A blob is here if and only if its row in table `h` is. The row is written after its file is durable, and removed
//!   before its file is.
//! - Publishing and removing never run side by side, so that a blob that comes back is not removed by an old decision.

pub mod evict;
pub mod follow;
mod held;
pub mod incoming;
mod known;
mod layout;
mod marks;
mod readers;
pub mod receive;
pub mod room;
pub mod scrub;
pub mod sweep;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alexandria_sync::chunk::{BlobHash, ChunkIndex, Chunking, Manifest, ManifestError};
use alexandria_sync::id::{BucketId, NodeId};
use alexandria_sync::outlook::Amount;
use alexandria_sync::store::Wanted;
use alexandria_sync::wire::Class;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt};
use tokio::sync::{RwLock, broadcast, watch};

use super::engine::{Direction, end_of_prefix};
use super::error::{OpenError, StoreError};
use super::in_use::Readers;
use super::overlay::Overlay;
use super::records::{ROWS_MAX, Records};
use super::row::HeldRow;
use super::writer::{self, Transaction};
use super::{Config, demand, disk, io as on, keys, tables};
pub use evict::Need;
use evict::Uses;
pub use held::MEDIA_TYPE_BYTES_MAX;
pub use incoming::{PutBlob, PutBlobError};
use layout::Layout;
use marks::Marks;
pub use readers::ReadingBlob;
pub use receive::BlobSession;
use receive::together::Arriving;
use room::Room;

/// Blobs that readers may wait for at a time; the oldest is forgotten first.
pub const URGENT_MAX: usize = 1024;
/// Arrived blobs that a subscriber may lag behind.
const ARRIVALS_BUFFERED_MAX: usize = 256;
/// Chunks that can be copied instead of received, at most (about 120 bytes of memory each).
const CHUNK_INDEX_ENTRIES_MAX: usize = 100_000;
/// A manifest file, at most: `CHUNKS_MAX` chunks of 40 bytes, and room.
const MANIFEST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why content could not be read or stored.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The disk or the file system refused.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The record store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The content is larger than a manifest can describe.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A chunk of a blob came that this session has not begun, or that misses chunks.
    #[error("blob {0} was not begun, or is not complete")]
    NotBegun(BlobHash),
    /// The node is shutting down.
    #[error("the blob store is closed")]
    Closed,
}

/// Says what was tried on which path, for an I/O error.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |source| BlobError::Io { action, path, source }
}

/// Where in the data folder it is kept for how long content has been named by nothing.
const UNREFERENCED_FILE: &str = "unreferenced";
/// Locks on the files of whole blobs: blobs whose hashes differ in so many ways are published side by side.
const FILE_LOCKS: usize = 16;

/// Whether a node may have, and give, what belongs to a bucket.
pub type Permission = Arc<dyn Fn(NodeId, BucketId) -> bool + Send + Sync>;

/// A blob that is whole here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeldBlob {
    /// Its name.
    pub hash: BlobHash,
    /// Its size.
    pub size_bytes: u64,
    /// How its manifest is cut.
    pub chunking: Chunking,
}

/// A blob opened for reading. It stays readable if it is removed meanwhile.
#[derive(Debug)]
pub struct OpenBlob {
    /// Its size.
    pub size_bytes: u64,
    /// Its file, at the start.
    pub file: tokio::fs::File,
    reading: ReadingBlob,
}

impl OpenBlob {
    /// Its file, and what keeps it from making way while somebody reads.
    pub fn into_parts(self) -> (tokio::fs::File, ReadingBlob) {
        (self.file, self.reading)
    }

    /// Its bytes from `start` on, `len` of them.
    pub async fn range(mut self, start: u64, len: u64) -> io::Result<impl AsyncRead + Unpin + Send + 'static> {
        self.file.seek(io::SeekFrom::Start(start)).await?;
        Ok(self.file.take(len))
    }
}

/// Figures about content.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BlobStats {
    /// Whole blobs.
    pub held: u64,
    /// Their bytes.
    pub held_bytes: u64,
    /// Blobs that records name and that are to come.
    pub wanted: u64,
    /// Blobs that records name and that come when somebody opens them.
    pub on_demand: u64,
    /// Those of them that were here, and went to make room.
    pub evicted: u64,
}

/// Content that is not here yet, by class.
pub type Waiting = BTreeMap<Class, Amount>;

/// The content of one node. Clones are handles on the same store.
#[derive(Clone)]
pub struct Blobs {
    inner: Arc<Inner>,
}

struct Inner {
    records: Records,
    layout: Layout,
    room: Arc<Room>,
    /// What was opened or came within this time is not given up for what nobody waits for, in seconds.
    rest_s: u64,
    uses: Mutex<Uses>,
    /// Who reads which blob.
    readers: Readers<BlobHash>,
    /// Held by who makes room.
    evicting: tokio::sync::Mutex<()>,
    /// Which blobs sessions are receiving.
    arriving: Mutex<Arriving>,
    /// What readers wait for, and from which byte on, oldest first.
    urgent: Mutex<VecDeque<(BlobHash, u64)>>,
    /// Those of them for which there was no room when they were last tried.
    no_room: Mutex<HashSet<BlobHash>>,
    /// Made when it is first needed.
    chunks: Mutex<Option<ChunkIndex>>,
    /// Read by who publishes, written by who removes.
    publishing: RwLock<()>,
    /// Held by who writes files of a whole blob, so that nobody else writes the same ones at the same time.
    files: [Mutex<()>; FILE_LOCKS],
    /// For how long blobs and partial blobs have been named by nothing.
    unreferenced: Mutex<Marks>,
    permission: Mutex<Option<Permission>>,
    arrivals: broadcast::Sender<BlobHash>,
    wants: watch::Sender<u64>,
    /// Counts what became durable of blobs that are arriving.
    progress: watch::Sender<u64>,
}

impl Blobs {
    pub(super) fn open(config: &Config, records: Records) -> Result<Self, OpenError> {
        let layout = Layout::new(&config.data_dir);
        layout.create().map_err(on("make folders in", &config.data_dir))?;
        let mut held_bytes = 0;
        for row in records.shared().engine.scan_prefix(&[keys::HELD]) {
            let (_, value) = row.map_err(StoreError::from)?;
            held_bytes += HeldRow::decode(&value)?.size_bytes;
        }
        let room = Room::new(&config.data_dir, config.content_bytes_max, config.min_free_bytes, held_bytes);
        let inner = Inner {
            records,
            layout,
            room: Arc::new(room),
            rest_s: config.evict_rest_s,
            uses: Mutex::default(),
            readers: Readers::default(),
            evicting: tokio::sync::Mutex::default(),
            arriving: Mutex::default(),
            urgent: Mutex::default(),
            no_room: Mutex::default(),
            chunks: Mutex::default(),
            publishing: RwLock::default(),
            files: Default::default(),
            unreferenced: Mutex::new(Marks::load(config.data_dir.join(UNREFERENCED_FILE))),
            permission: Mutex::default(),
            arrivals: broadcast::Sender::new(ARRIVALS_BUFFERED_MAX),
            wants: watch::Sender::new(0),
            progress: watch::Sender::new(0),
        };
        let blobs = Self { inner: Arc::new(inner) };
        blobs.finish_going().map_err(|error| match error {
            BlobError::Store(error) => OpenError::Store(error),
            error => on("clear files in", &config.data_dir)(io::Error::other(error)),
        })?;
        Ok(blobs)
    }

    /// Restricts what peers may have and give to buckets that `permission` names. Without it every peer may all.
    pub fn set_permission(&self, permission: Permission) {
        *locked(&self.inner.permission) = Some(permission);
    }

    /// The blob, if it is whole here.
    pub fn held(&self, hash: BlobHash) -> Result<Option<HeldBlob>, StoreError> {
        let row = self.inner.records.shared().engine.get(&keys::held(hash))?;
        let row = row.map(|value| HeldRow::decode(&value)).transpose()?;
        Ok(row.map(|row| HeldBlob { hash, size_bytes: row.size_bytes, chunking: row.chunking }))
    }

    /// Opens a blob for reading; `None` if it is not here.
    pub async fn open_blob(&self, hash: BlobHash) -> Result<Option<OpenBlob>, BlobError> {
        let reading = self.reading(hash);
        let Some(held) = self.held(hash)? else { return Ok(None) };
        let path = self.inner.layout.blob(hash);
        match tokio::fs::File::open(&path).await {
            Ok(file) => {
                self.note_use(hash);
                Ok(Some(OpenBlob { size_bytes: held.size_bytes, file, reading }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.lose(hash).await?;
                Ok(None)
            }
            Err(error) => Err(failed("open", &path)(error)),
        }
    }

    /// Where the file of a blob lies, for tools that read files themselves; `None` if it is not here. Nobody writes it.
    pub fn path(&self, hash: BlobHash) -> Result<Option<PathBuf>, StoreError> {
        Ok(self.held(hash)?.map(|_| self.inner.layout.blob(hash)))
    }

    /// Hears of every blob that becomes whole here.
    pub fn arrivals(&self) -> broadcast::Receiver<BlobHash> {
        self.inner.arrivals.subscribe()
    }

    /// A handle for one session with a peer. What it is receiving is released when it is dropped.
    pub fn session(&self) -> BlobSession {
        BlobSession::new(self.clone())
    }

    /// Figures for the operator. Reads two tables through.
    pub fn stats(&self) -> Result<BlobStats, StoreError> {
        let engine = &self.inner.records.shared().engine;
        let mut stats = BlobStats { held_bytes: self.inner.room.held_bytes(), ..BlobStats::default() };
        for (table, count) in [(keys::HELD, &mut stats.held), (keys::WANTED, &mut stats.wanted)] {
            for row in engine.scan_prefix(&[table]) {
                row?;
                *count += 1;
            }
        }
        for row in engine.scan_prefix(&[keys::ON_DEMAND]) {
            stats.on_demand += 1;
            stats.evicted += u64::from(demand::says_evicted(&row?.1));
        }
        Ok(stats)
    }

    /// What records name and is not here, by class. Reads a table through.
    pub fn waiting(&self) -> Result<Waiting, StoreError> {
        let mut waiting = Waiting::new();
        let urgent: HashSet<BlobHash> = locked(&self.inner.urgent).iter().map(|(blob, _)| *blob).collect();
        for row in self.inner.records.shared().engine.scan_prefix(&[keys::WANTED]) {
            let (key, value) = row?;
            let size_bytes = tables::wanted_size(&value);
            let blob = keys::blob_of(&key).ok_or(StoreError::DamagedRow { what: "wanted row" })?;
            let class = match blob {
                blob if urgent.contains(&blob) => Class::Reader,
                blob if self.is_pinned(blob)? => Class::Pinned,
                _ => Class::by_size(size_bytes),
            };
            let amount = waiting.entry(class).or_default();
            amount.blobs += 1;
            amount.bytes += size_bytes;
        }
        Ok(waiting)
    }

    fn wanted_after(&self, peer: NodeId, after: Option<BlobHash>, limit: usize) -> Result<Vec<Wanted>, StoreError> {
        let from = after.map_or(Bound::Included(vec![keys::WANTED]), |after| Bound::Excluded(keys::wanted(after)));
        let engine = &self.inner.records.shared().engine;
        let mut wanted = Vec::new();
        for row in engine.scan(from, end_of_prefix(&[keys::WANTED]), Direction::Ascending) {
            if wanted.len() >= limit.min(ROWS_MAX) {
                break;
            }
            let (key, value) = row?;
            let blob = keys::blob_of(&key).ok_or(StoreError::DamagedRow { what: "wanted row" })?;
            if self.may(peer, blob)? {
                let size_bytes = tables::wanted_size(&value);
                let class = if self.is_pinned(blob)? { Class::Pinned } else { Class::by_size(size_bytes) };
                wanted.push(Wanted { blob, class, size_bytes, from_bytes: 0 });
            }
        }
        Ok(wanted)
    }

    fn is_referenced(&self, hash: BlobHash) -> Result<bool, StoreError> {
        tables::is_kept(&Overlay::new(&self.inner.records.shared().engine), hash)
    }

    /// Whether the content was erased, and nothing names it any more.
    fn is_erased(&self, hash: BlobHash) -> Result<bool, StoreError> {
        let engine = &self.inner.records.shared().engine;
        let listed = engine.scan_prefix(&keys::erasures_of_blob(hash)).next().transpose()?.is_some();
        Ok(listed && !self.is_referenced(hash)?)
    }

    /// Whether a peer may have or give a blob: one of the buckets that name it allows it.
    fn may(&self, peer: NodeId, blob: BlobHash) -> Result<bool, StoreError> {
        let permission = locked(&self.inner.permission).clone();
        let Some(permission) = permission else { return Ok(true) };
        let references = self.inner.records.references(blob)?;
        Ok(references.iter().any(|reference| permission(peer, reference.bucket)))
    }

    /// The manifest of a whole blob, made again if its file was lost. Blocks.
    fn manifest_of(&self, held: HeldBlob) -> Result<Option<Manifest>, BlobError> {
        let path = self.inner.layout.manifest(held.hash);
        if let Some(manifest) = read_manifest(&path, held.hash) {
            return Ok(Some(manifest));
        }
        let blob = self.inner.layout.blob(held.hash);
        let mut file = match File::open(&blob) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed("open", &blob))?,
        };
        let manifest = incoming::cut(&mut file, held.chunking).map_err(|error| match error {
            incoming::CutError::Read(source) => failed("read", &blob)(source),
            incoming::CutError::Manifest(error) => error.into(),
        })?;
        if manifest.blob() != held.hash {
            return Ok(None);
        }
        let _nobody_else_writes_it = self.files_of(held.hash);
        disk::write_durably(&path, &manifest.to_bytes()).map_err(failed("write", &path))?;
        Ok(Some(manifest))
    }

    /// Puts a durable, verified file in its place and makes it known.
    async fn publish(&self, from: PathBuf, manifest: Manifest) -> Result<(), BlobError> {
        let _not_removed_meanwhile = self.inner.publishing.read().await;
        let hash = manifest.blob();
        let row = HeldRow { size_bytes: manifest.size_bytes(), chunking: manifest.chunking() };
        let (blob, manifest_path) = (self.inner.layout.blob(hash), self.inner.layout.manifest(hash));
        let blobs = self.clone();
        let manifest = blocking::<_, BlobError>(move || {
            let _nobody_else_writes_it = blobs.files_of(hash);
            if let Some(folder) = blob.parent() {
                disk::create_dir_durably(folder).map_err(failed("make", folder))?;
            }
            disk::write_durably(&manifest_path, &manifest.to_bytes()).map_err(failed("write", &manifest_path))?;
            disk::rename_durably(&from, &blob).map_err(failed("publish", &blob))?;
            Ok(manifest)
        })
        .await?;
        self.register(hash, row).await?;
        self.count_anew(hash).await?;
        self.no_longer_urgent(hash);
        if manifest.chunking() == Chunking::ContentDefined
            && let Some(index) = locked(&self.inner.chunks).as_mut()
        {
            index.add(&manifest);
        }
        // Nobody may be listening.
        let _ = self.inner.arrivals.send(hash);
        Ok(())
    }

    /// To be called for what was put in: until it is named it is not swept away before its grace is over.
    async fn count_anew(&self, hash: BlobHash) -> Result<(), BlobError> {
        if !locked(&self.inner.unreferenced).is_marked(hash) {
            return Ok(());
        }
        let blobs = self.clone();
        blocking(move || {
            let forgotten = locked(&blobs.inner.unreferenced).remove_durably(hash);
            forgotten.map_err(failed("clear", Path::new(UNREFERENCED_FILE)))
        })
        .await
    }

    /// To be held while files of a whole blob are written.
    fn files_of(&self, hash: BlobHash) -> MutexGuard<'_, ()> {
        locked(&self.inner.files[usize::from(hash.as_bytes()[0]) % FILE_LOCKS])
    }

    async fn register(&self, hash: BlobHash, row: HeldRow) -> Result<(), StoreError> {
        let rows = (row, self.arrived_now());
        let work = move |transaction: &mut Transaction<'_>| evict::register_in(transaction, hash, rows);
        // It is a few bytes, and without it the room that the file takes is never found again.
        if self.inner.records.inner.writer.submit(writer::Room::Freed, work).await? {
            self.inner.room.add_held(row.size_bytes);
        }
        Ok(())
    }

    /// Takes back that a blob is here, so that it is wanted again.
    async fn lose(&self, hash: BlobHash) -> Result<(), StoreError> {
        let work = move |transaction: &mut Transaction<'_>| {
            let held = transaction.rows.get(&keys::held(hash))?;
            transaction.rows.remove(keys::held(hash));
            transaction.rows.remove(keys::usage(hash));
            demand::settle(&mut transaction.rows, hash)?;
            Ok::<_, StoreError>(held)
        };
        let held = self.inner.records.inner.writer.submit(writer::Room::Freed, work).await?;
        if let Some(row) = held.and_then(|value| HeldRow::decode(&value).ok()) {
            self.inner.room.remove_held(row.size_bytes);
        }
        Ok(())
    }
}

/// Reads a manifest file; `None` if it is missing or not the manifest of `blob`.
fn read_manifest(path: &Path, blob: BlobHash) -> Option<Manifest> {
    if fs::metadata(path).ok()?.len() > MANIFEST_BYTES_MAX {
        return None;
    }
    Manifest::from_bytes(&fs::read(path).ok()?).ok().filter(|manifest| manifest.blob() == blob)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs file work away from the threads that serve connections.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<BlobError> + Send + 'static,
{
    // Fails only if `work` panicked or the runtime is being shut down.
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(BlobError::Closed.into()))
}
