//! Backup and restore of the records. Content is named by its hash and comes again from wherever it is.
//!
//! ```text
//! backup = magic(8) zstd(row* end) hash(32)
//! row    = key length u32, value length u32, key, value      rows of what was chosen, of `A`, `c`, `q`, `o`, `x`, `r`, `R` and meta
//! end    = 0 u32, 0 u32
//! ```
//! The hash is BLAKE3 over all before it, so that half a backup is never restored.
//!
//! A backup is taken while the node works. Cursors are read before records: whatever a cursor says was read is among
//! the records that follow.
//!
//! A restored store is a new life, with a new epoch and a new incarnation. Where it takes the place of other
//! records ([`replace`]), nothing that speaks of those stays beside it: it would be taken for them, with writes lost.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use alexandria_sync::hlc::HlcTime;

use super::engine::{Engine, EngineError, Row};
use super::error::{OpenError, StoreError};
use super::meta::{self, Identity};
use super::overlay::Overlay;
use super::rebuild::{CHOSEN, Restored, restore_row};
use super::records::Records;
use super::{FolderLock, absence, disk, engine, guard, keys, rebuild};

const MAGIC: &[u8; 8] = b"ALEXBK\x00\x01";
/// Name of the backup that a node keeps of itself.
pub(crate) const DUMP: &str = "records.dump";
const HASH_BYTES: u64 = 32;
const ZSTD_LEVEL: i32 = 3;
/// Bytes of one key or value, at most: more than any row has.
const PART_BYTES_MAX: u32 = 1024 * 1024;
/// How often a backup is begun anew because collections were chosen meanwhile, at most.
const ATTEMPTS_MAX: usize = 3;
/// How long to wait for what is left of the node that ran before in this process, when a backup is put in place.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Rows of one batch of a restore.
const ROWS_AT_ONCE: usize = 500;

/// Why a backup could not be made or restored. The store is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be read or written.
    #[error("backup file {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a backup, or not all of it, or not as it was written.
    #[error("{} is not a whole backup: {problem}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A restore starts in an empty folder, so that it never overwrites a library.
    #[error("{} holds records already: restore into a new data folder", .0.display())]
    NotEmpty(PathBuf),
    /// Collections were chosen again and again while it was written. Try again.
    #[error("collections were added or removed while the backup was written; try again")]
    Unsettled,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The new data folder cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<EngineError> for BackupError {
    fn from(error: EngineError) -> Self {
        Self::Store(error.into())
    }
}

/// What a backup or a restore carried over.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BackupSummary {
    /// Records, with tombstones.
    pub records: u64,
    /// Bytes of the file.
    pub size_bytes: u64,
}

/// Writes all records of a running store to `path`, whole or not at all. Blocks.
pub fn export(records: &Records, path: &Path) -> Result<BackupSummary, BackupError> {
    let on = |source| BackupError::Io { path: path.to_owned(), source };
    let partial = partial_path(path);
    let choices = records.selection_changes();
    for _ in 0..ATTEMPTS_MAX {
        let before = *choices.borrow();
        let summary = write(records, path, &partial)?;
        // Cursors and records that were read on two sides of a choice may not belong together.
        if *choices.borrow() == before {
            disk::rename_durably(&partial, path).map_err(on)?;
            return Ok(summary);
        }
    }
    Err(BackupError::Unsettled)
}

/// Where a backup is written before it is whole.
fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    path.with_file_name(name)
}

fn write(records: &Records, path: &Path, partial: &Path) -> Result<BackupSummary, BackupError> {
    let on = |source| BackupError::Io { path: path.to_owned(), source };
    let file = File::create(partial).map_err(on)?;
    let mut out = Hashing { inner: BufWriter::new(file), hasher: blake3::Hasher::new() };
    out.write_all(MAGIC).map_err(on)?;
    let mut rows = zstd::Encoder::new(out, ZSTD_LEVEL).map_err(on)?;
    let engine = &records.shared().engine;
    let mut summary = BackupSummary::default();
    write_row(&mut rows, &meta::identity_key(), &records.identity().encode()).map_err(on)?;
    // Read before the records: the node knows no less than they say.
    for key in [absence::times_key(), absence::state_key()] {
        if let Some(value) = engine.get(&key)? {
            write_row(&mut rows, &key, &value).map_err(on)?;
        }
    }
    // What is remembered of peers comes last: of nothing that is in here less is remembered.
    let others = [
        keys::HELD_BACK,
        keys::CURSOR,
        keys::QUARANTINE,
        keys::UNNAMED,
        keys::PENDING_ERASURE,
        keys::RECORD,
        keys::REMEMBERED,
    ];
    for table in CHOSEN.into_iter().chain(others) {
        for row in engine.scan_prefix(&[table]) {
            let (key, value) = row?;
            write_row(&mut rows, &key, &value).map_err(on)?;
            summary.records += u64::from(table == keys::RECORD);
        }
    }
    // Last, so that it is no earlier than any stamp in here.
    let hlc = records.shared().time().last();
    write_row(&mut rows, &meta::hlc_key(), &hlc.to_bits().to_be_bytes()).map_err(on)?;
    write_row(&mut rows, &[], &[]).map_err(on)?;
    let out = rows.finish().map_err(on)?;
    let hash = *out.hasher.finalize().as_bytes();
    let mut file = out.inner;
    file.write_all(&hash).map_err(on)?;
    let file = file.into_inner().map_err(|error| on(error.into_error()))?;
    file.sync_all().map_err(on)?;
    summary.size_bytes = file.metadata().map_err(on)?.len();
    Ok(summary)
}

/// Writes a backup into the data folder itself. If the tree is ever damaged, what can be read of it is joined with the
/// newest dump; so call it when the node is idle, and not too rarely. One at a time. Blocks.
pub fn dump(records: &Records) -> Result<BackupSummary, BackupError> {
    let _turn = records.shared().dumping.lock().unwrap_or_else(PoisonError::into_inner);
    export(records, &dump_path(&records.shared().dir))
}

/// Takes out of the dump what has left the records, and what a dump left that was cut off. Blocks.
pub fn dump_anew(records: &Records) -> Result<(), BackupError> {
    let _turn = records.shared().dumping.lock().unwrap_or_else(PoisonError::into_inner);
    let path = dump_path(&records.shared().dir);
    if path.exists() {
        return export(records, &path).map(|_| ());
    }
    let partial = partial_path(&path);
    match std::fs::remove_file(&partial) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(BackupError::Io { path: partial, source }),
        _ => Ok(()),
    }
}

/// Where [`dump`] writes.
pub fn dump_path(data_dir: &Path) -> PathBuf {
    data_dir.join(DUMP)
}

/// Makes the records of a new data folder from a backup. Blocks. Content that may already lie in the folder is found
/// again by `verify`.
pub fn import(path: &Path, data_dir: &Path, cache_bytes: u64) -> Result<BackupSummary, BackupError> {
    let folder = |action| move |source| OpenError::Io { action, path: data_dir.to_owned(), source };
    let size_bytes = check_whole(path)?;
    disk::create_dir_durably(data_dir).map_err(folder("make the folder"))?;
    let _lock = FolderLock::take(data_dir)?;
    if data_dir.join("records").exists() || data_dir.join("records.rewritten").exists() {
        return Err(BackupError::NotEmpty(data_dir.to_owned()));
    }
    let rewriting = data_dir.join("records.rewriting");
    match std::fs::remove_dir_all(&rewriting) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(folder("clear")(error).into()),
        _ => {}
    }
    let engine = Engine::open(&rewriting, cache_bytes)?;
    let records = fill(&engine, Rows::open(path, size_bytes)?)?;
    drop(engine);
    disk::rename_durably(&rewriting, &data_dir.join("records")).map_err(folder("restore into"))?;
    Ok(BackupSummary { records, size_bytes })
}

/// Puts the records in the folder `restored` in the place of those of a data folder, which nobody may be using. Those are kept
/// in the folder `kept_aside`, with their dump. Blocks.
///
/// Each step is passed over if it was done before a power cut, so this is called again for as long as `restored` is there. The old
/// tree leaves first, and only then what speaks of it: no tree that is opened lacks the note of what was durable in it.
pub fn replace(data_dir: &Path, restored: &Path, kept_aside: &Path) -> Result<(), BackupError> {
    let _lock = lock_soon(data_dir)?;
    let replaced = put_in_place(data_dir, restored, kept_aside);
    replaced
        .map_err(|source| OpenError::Io { action: "replace the records in", path: data_dir.to_owned(), source }.into())
}

/// Takes a data folder that is about to be let go of.
fn lock_soon(data_dir: &Path) -> Result<FolderLock, OpenError> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match FolderLock::take(data_dir) {
            Err(OpenError::InUse(_)) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            taken => return taken,
        }
    }
}

fn put_in_place(data_dir: &Path, restored: &Path, kept_aside: &Path) -> io::Result<()> {
    let records = data_dir.join("records");
    // A rewrite that was cut off is of the old records.
    rebuild::finish_rewrite(data_dir)?;
    if records.exists() {
        if kept_aside.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk::rename_durably(&records, kept_aside)?;
    }
    guard::forget_commit(data_dir)?;
    disk::remove_if_there(&engine::rebuild_note(&records))?;
    let dump = dump_path(data_dir);
    if dump.exists() {
        disk::create_dir_durably(kept_aside)?;
        disk::rename_durably(&dump, &kept_aside.join(DUMP))?;
    }
    // Gone for good before there is a tree that they could be taken to speak of.
    disk::sync_parent(&records)?;
    disk::rename_durably(restored, &records)
}

/// Reads all rows of a backup, after checking that it is whole.
pub(crate) fn read_rows(
    path: &Path,
    mut take: impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), StoreError>,
) -> Result<(), BackupError> {
    let mut rows = Rows::open(path, check_whole(path)?)?;
    while let Some((key, value)) = rows.next_row()? {
        take(key, value)?;
    }
    Ok(())
}

fn fill(engine: &Engine, mut rows: Rows<'_>) -> Result<u64, BackupError> {
    let path = rows.path;
    let mut records = 0;
    let mut identity = None;
    let mut hlc = HlcTime::default();
    let mut overlay = Overlay::new(engine);
    let mut pending = 0;
    while let Some((key, value)) = rows.next_row()? {
        if key == meta::identity_key() {
            identity = Some(Identity::decode(&value)?);
            continue;
        }
        if key == meta::hlc_key() {
            hlc = hlc.max(HlcTime::from_bits(super::row::decode_number(&value)?));
            continue;
        }
        match restore_row(&mut overlay, &key, value)? {
            Restored::Record { newest, .. } => {
                records += 1;
                hlc = hlc.max(newest);
            }
            Restored::Other => {}
            Restored::Unreadable => {
                return Err(BackupError::Damaged { path: path.to_owned(), problem: "a row cannot be read" });
            }
        }
        overlay.keep();
        pending += 1;
        if pending == ROWS_AT_ONCE {
            engine.apply(std::mem::replace(&mut overlay, Overlay::new(engine)).into_rows())?;
            pending = 0;
        }
    }
    absence::no_longer_fresh(&mut overlay)?;
    overlay.keep();
    engine.apply(overlay.into_rows())?;
    engine.apply([(meta::hlc_key(), Some(hlc.to_bits().to_be_bytes().to_vec()))])?;
    let identity = identity.ok_or(BackupError::Damaged { path: path.to_owned(), problem: "it names no node" })?;
    // Who it is comes last: a tree without it is not taken for a store.
    meta::write_identity(engine, identity.next_life())?;
    Ok(records)
}

/// Checks the hash of the whole file, and returns its size.
fn check_whole(path: &Path) -> Result<u64, BackupError> {
    let on = |source| BackupError::Io { path: path.to_owned(), source };
    let damaged = |problem| BackupError::Damaged { path: path.to_owned(), problem };
    let mut file = File::open(path).map_err(on)?;
    let size_bytes = file.metadata().map_err(on)?.len();
    if size_bytes < MAGIC.len() as u64 + HASH_BYTES {
        return Err(damaged("it is too short"));
    }
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic).map_err(on)?;
    if &magic != MAGIC {
        return Err(damaged("it does not start like one"));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&magic);
    let hashed_bytes = size_bytes - HASH_BYTES - MAGIC.len() as u64;
    hasher.update_reader(Read::by_ref(&mut file).take(hashed_bytes)).map_err(on)?;
    let mut hash = [0; HASH_BYTES as usize];
    file.read_exact(&mut hash).map_err(on)?;
    if hasher.finalize() != blake3::Hash::from(hash) {
        return Err(damaged("its end is missing or a part of it has changed"));
    }
    Ok(size_bytes)
}

fn write_row(out: &mut impl Write, key: &[u8], value: &[u8]) -> io::Result<()> {
    out.write_all(&(key.len() as u32).to_be_bytes())?;
    out.write_all(&(value.len() as u32).to_be_bytes())?;
    out.write_all(key)?;
    out.write_all(value)
}

struct Rows<'p> {
    from: zstd::Decoder<'static, io::Take<BufReader<File>>>,
    path: &'p Path,
}

impl<'p> Rows<'p> {
    fn open(path: &'p Path, size_bytes: u64) -> Result<Self, BackupError> {
        let on = |source| BackupError::Io { path: path.to_owned(), source };
        let mut file = BufReader::new(File::open(path).map_err(on)?).take(size_bytes - HASH_BYTES);
        file.read_exact(&mut [0; MAGIC.len()]).map_err(on)?;
        Ok(Self { from: zstd::Decoder::with_buffer(file).map_err(on)?, path })
    }

    fn next_row(&mut self) -> Result<Option<Row>, BackupError> {
        let mut lengths = [[0; 4]; 2];
        for length in &mut lengths {
            self.fill(length)?;
        }
        let [key_bytes, value_bytes] = lengths.map(u32::from_be_bytes);
        if key_bytes == 0 {
            return Ok(None);
        }
        if key_bytes > PART_BYTES_MAX || value_bytes > PART_BYTES_MAX {
            return Err(BackupError::Damaged { path: self.path.to_owned(), problem: "a row is too long" });
        }
        let (mut key, mut value) = (vec![0; key_bytes as usize], vec![0; value_bytes as usize]);
        self.fill(&mut key)?;
        self.fill(&mut value)?;
        Ok(Some((key, value)))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        self.from.read_exact(buffer).map_err(|source| BackupError::Io { path: self.path.to_owned(), source })
    }
}

/// Hashes what is written through it.
struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
