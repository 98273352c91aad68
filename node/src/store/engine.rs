//! The storage engine: ordered rows in one sled tree. The only file that names sled (docs/adr/0001-record-store.md).
//!
//! What the rest of the store may rely on:
//! - [`Engine::apply`] writes all rows of a batch or none, also across a crash.
//! - After [`Engine::flush`] everything applied so far survives a power cut. sled 0.34 only calls `sync_file_range`,
//!   which empties no disk cache, so its log is synced here once more.
//! - Damage never panics out: sled asserts on some damaged pages, and each of its calls is caught here. From then on
//!   the engine is [`EngineError::Damaged`] for writes; what can still be read is read.
//!
//! - It never stands still for ever, as far as is known: see [`Engine::settle`]; `stall` looks after the rest.
//! - Memory stays bounded while rows churn: sled collects its garbage at the pace of its flusher, hence
//!   [`FLUSHER_PACE_MS`].
//!
//! Rows lie in blocks (`blocks`), each of which is a row of the tree. Values too long for that are cut into pieces, rows of their own of
//! at most [`PIECE_BYTES`]: sled would move a larger page into a side file, which it does not sync before the log that points at it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{RwLock, RwLockReadGuard};

use super::blocks::{Block, Held, INLINE_BYTES_MAX, LAST, Malformed};
use super::stall;

/// Longest value in one row. Sixteen of them and their keys fit well into a quarter of a sled segment (128 KiB).
const PIECE_BYTES: usize = 4096;
/// First byte of the rows that hold pieces: before every table, so that no scan of one meets them.
const PIECE_TABLE: u8 = 0;
/// The first key that is not of a piece.
const FIRST: &[u8] = &[PIECE_TABLE + 1];
/// How often a value in pieces is read anew because it was replaced meanwhile, at most.
const READS_MAX: usize = 100;

/// What is found where a row of the tree is no block.
const UNKNOWN_FORM: &str = "a row has an unknown form";
/// The name of the file in which sled keeps its settings.
const SETTINGS_FILE: &str = "conf";
/// How often sled's own flusher runs, in milliseconds. With its default of 500 the churn of a million records took
/// 1.9 GB, without it more (docs/adr/0001-record-store.md).
const FLUSHER_PACE_MS: u64 = 50;
/// How long to wait for this process's own last handle on the same folder to let go of its lock.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How long to wait for a moment without readers before the files are exchanged.
const READERS_PATIENCE: Duration = Duration::from_secs(10);

/// Why the engine could not do it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Someone else has the folder open.
    #[error("the record store at {} is open in another process", .0.display())]
    Locked(PathBuf),
    /// The files do not hold what was written. Writing has stopped; the store can be rebuilt.
    #[error("the record store is damaged: {detail}")]
    Damaged {
        /// What the engine found.
        detail: String,
    },
    /// Readers kept it busy, so that its files could not be exchanged. Nothing was changed; worth another try.
    #[error("the record store is too busy to be written anew")]
    Busy,
    /// The disk or the file system refused.
    #[error("record store: {0}")]
    Io(#[from] io::Error),
}

/// One row: its key and its value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// An open tree of ordered rows.
pub(crate) struct Engine {
    /// `None` once another tree was to take its place and did not.
    files: RwLock<Option<Files>>,
    dir: PathBuf,
    cache_bytes: u64,
    damaged: AtomicBool,
    /// Whether something was applied since it last settled.
    unsettled: AtomicBool,
}

/// The tree's open files.
struct Files {
    db: sled::Db,
    log: File,
}

impl Files {
    /// Opens the files in `dir`, past what an interrupted sled leaves there.
    fn open(dir: &Path, cache_bytes: u64) -> Result<Self, EngineError> {
        // sled would take a half-written snapshot for a whole one and refuse to open.
        remove_snapshots(dir, |name| name.ends_with(".generating"))?;
        match Self::open_once(dir, cache_bytes) {
            // The log says the same as a snapshot, and may be good when the snapshot is not.
            Err(EngineError::Damaged { .. }) if remove_snapshots(dir, |_| true)? => Self::open_once(dir, cache_bytes),
            opened => opened,
        }
        .or_else(|error| match error {
            // The settings are always the same; sled writes them again.
            EngineError::Damaged { .. } if dir.join(SETTINGS_FILE).exists() => {
                fs::rename(dir.join(SETTINGS_FILE), dir.join(SETTINGS_FILE).with_extension("damaged"))?;
                Self::open_once(dir, cache_bytes)
            }
            error => Err(error),
        })
    }

    fn open_once(dir: &Path, cache_bytes: u64) -> Result<Self, EngineError> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms(Some(FLUSHER_PACE_MS));
        let deadline = Instant::now() + LOCK_WAIT;
        let db = loop {
            match caught(|| config.open()) {
                Err(EngineError::Locked(_)) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(EngineError::Locked(_)) => return Err(EngineError::Locked(dir.to_owned())),
                other => break other?,
            }
        };
        let log = File::open(dir.join("db"))?;
        Ok(Self { db, log })
    }
}

impl Engine {
    /// Opens or creates the store in `dir`.
    pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, EngineError> {
        let created = !dir.exists();
        fs::create_dir_all(dir)?;
        let files = Files::open(dir, cache_bytes)?;
        if created {
            File::open(dir)?.sync_all()?;
            if let Some(parent) = dir.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        let files = RwLock::new(Some(files));
        Ok(Self {
            files,
            dir: dir.to_owned(),
            cache_bytes,
            damaged: AtomicBool::new(false),
            unsettled: AtomicBool::new(false),
        })
    }

    /// Closes the tree, lets `exchange` put another one in its place, which must hold the same rows, and opens that.
    /// Readers wait meanwhile. Only for the one who writes, between two batches.
    ///
    /// If it fails with [`EngineError::Busy`] nothing was touched; otherwise the engine stays closed.
    pub(crate) fn reopen(&self, exchange: impl FnOnce() -> io::Result<()>) -> Result<(), EngineError> {
        let mut files = self.files.try_write_for(READERS_PATIENCE).ok_or(EngineError::Busy)?;
        // Its threads end, and let go of its files, before those are moved.
        drop(files.take());
        exchange()?;
        *files = Some(Files::open(&self.dir, self.cache_bytes)?);
        Ok(())
    }

    /// The memory for its pages, in bytes.
    pub(crate) fn cache_bytes(&self) -> u64 {
        self.cache_bytes
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        for _ in 0..READS_MAX {
            match self.held(key)? {
                None => return Ok(None),
                Some(Held::Here(value)) => return Ok(Some(value)),
                Some(Held::InPieces(count, hash)) => {
                    // Not whole if the row is being replaced just now: then it says something else by now.
                    if let Some(value) = self.joined(key, count, hash)? {
                        return Ok(Some(value));
                    }
                }
            }
        }
        Err(self.found_damage("a piece of a value is missing"))
    }

    /// Whether `key` has a value.
    pub(crate) fn contains(&self, key: &[u8]) -> Result<bool, EngineError> {
        Ok(self.held(key)?.is_some())
    }

    /// The rows between two bounds, in key order or against it. Sees batches whole or not at all row by row, but is
    /// no snapshot: rows written during the scan may appear.
    pub(crate) fn scan(&self, from: Bound<Vec<u8>>, to: Bound<Vec<u8>>, direction: Direction) -> Scan<'_> {
        // Held while the scan lives, so that no other tree takes the place of the one that it reads.
        let files = self.files.read_recursive();
        let is_over = files.is_none() || is_empty(&from, &to);
        Scan { engine: self, from, to, direction, read: None, is_over, rows: VecDeque::new(), _files: files }
    }

    /// The rows whose keys start with `prefix`, in key order.
    pub(crate) fn scan_prefix(&self, prefix: &[u8]) -> Scan<'_> {
        self.scan(Bound::Included(prefix.to_vec()), end_of_prefix(prefix), Direction::Ascending)
    }

    /// Writes (`Some`) and removes (`None`) rows, all or none. Visible at once, durable after [`Self::flush`].
    pub(crate) fn apply(&self, rows: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>) -> Result<(), EngineError> {
        if self.damaged.load(Ordering::Acquire) {
            return Err(EngineError::Damaged { detail: "it is read-only since damage was found".into() });
        }
        let mut batch = sled::Batch::default();
        let mut rows = rows.into_iter().collect::<BTreeMap<_, _>>().into_iter().peekable();
        while let Some((first, _)) = rows.peek() {
            let (fence, mut block) = match self.block_of(first)? {
                Some((fence, stored)) => {
                    let block = Block::decode(&fence, &stored).ok_or_else(|| self.found_damage(UNKNOWN_FORM))?;
                    (fence.to_vec(), block)
                }
                None => (LAST.to_vec(), Block::default()),
            };
            let mut changed = None;
            while let Some((key, value)) = rows.next_if(|(key, _)| *key <= fence) {
                let before = match value {
                    None => block.rows.remove(&key),
                    Some(value) => {
                        let held = put_value(&mut batch, &key, value);
                        let kept = pieces(&held);
                        let before = block.rows.insert(key.clone(), held);
                        drop_pieces(&mut batch, &key, before.as_ref(), kept);
                        changed = Some(key);
                        continue;
                    }
                };
                if before.is_some() {
                    drop_pieces(&mut batch, &key, before.as_ref(), 0);
                    changed = Some(key);
                }
            }
            let Some(changed) = changed else { continue };
            if block.rows.is_empty() {
                batch.remove(fence);
                continue;
            }
            for (fence, block) in block.cut(fence, &changed) {
                batch.insert(fence, block.encode());
            }
        }
        if self.unsettled.load(Ordering::Acquire) {
            self.settle()?;
        }
        let _watched = stall::watched();
        self.unsettled.store(true, Ordering::Release);
        self.guarded(|db| db.apply_batch(batch))
    }

    /// Makes everything applied so far durable.
    pub(crate) fn flush(&self) -> Result<(), EngineError> {
        self.settle()?;
        let _watched = stall::watched();
        let files = self.files.read_recursive();
        Ok(files.as_ref().ok_or_else(closed)?.log.sync_data()?)
    }

    /// Waits until sled has written what was applied, and until its threads have taken up what follows from that.
    ///
    /// sled 0.34 gives back the end of its log on the same seven threads that write it. A batch that needs a new segment waits
    /// for that, and holds meanwhile what those threads wait for: if all of them are busy with batches before it, every store of the
    /// process stands still for ever. So no batch begins before the one before it has settled.
    fn settle(&self) -> Result<(), EngineError> {
        let _watched = stall::watched();
        self.unsettled.store(false, Ordering::Release);
        self.guarded(|db| {
            db.flush()?;
            // Goes through the threads' queue, behind all that waits there.
            futures::executor::block_on(db.flush_async()).map(drop)
        })
    }

    /// What its files take on disk, in bytes.
    pub(crate) fn size_on_disk_bytes(&self) -> Result<u64, EngineError> {
        let _not_exchanged_meanwhile = self.files.read_recursive();
        Ok(walk_size_bytes(&self.dir)?)
    }

    /// Whether damage was found since it was opened.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    /// The block that `key` belongs into, with its fence.
    fn block_of(&self, key: &[u8]) -> Result<Option<(sled::IVec, sled::IVec)>, EngineError> {
        self.guarded(|db| db.range(key..).next().transpose())
    }

    fn held(&self, key: &[u8]) -> Result<Option<Held>, EngineError> {
        let Some((fence, stored)) = self.block_of(key)? else { return Ok(None) };
        Block::find(&fence, &stored, key).map_err(|Malformed| self.found_damage(UNKNOWN_FORM))
    }

    /// A value that lies in pieces; `None` if these are not all of one value.
    fn joined(&self, key: &[u8], count: u16, hash: Option<[u8; 8]>) -> Result<Option<Vec<u8>>, EngineError> {
        let mut value = Vec::new();
        for number in 0..count {
            let Some(piece) = self.guarded(|db| db.get(piece_key(key, number)))? else { return Ok(None) };
            value.extend_from_slice(&piece);
        }
        Ok(hash.is_none_or(|hash| hash == hash_of(&value)).then_some(value))
    }

    /// Calls sled. A thread that scans may call again, whoever waits for the files.
    fn guarded<T>(&self, call: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, EngineError> {
        let files = self.files.read_recursive();
        let db = &files.as_ref().ok_or_else(closed)?.db;
        caught(|| call(db)).inspect_err(|error| {
            if matches!(error, EngineError::Damaged { .. }) {
                self.note_damage();
            }
        })
    }

    fn found_damage(&self, detail: &str) -> EngineError {
        self.note_damage();
        EngineError::Damaged { detail: detail.into() }
    }

    /// Stops writing, and leaves a note beside the folder, so that the store is rebuilt when it is next opened.
    pub(crate) fn note_damage(&self) {
        if !self.damaged.swap(true, Ordering::AcqRel) {
            // Without the note the damage is met again, which is no worse.
            let _ = File::create(rebuild_note(&self.dir));
        }
    }
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Direction {
    /// Smallest first.
    #[default]
    Ascending,
    /// Largest first.
    Descending,
}

/// Rows of a scan. Ends after the first error.
///
/// Each block is looked up anew: an iterator of sled reads from a page that it remembers, and a block that was cut meanwhile may
/// have left some of its rows in a page before.
pub(crate) struct Scan<'e> {
    engine: &'e Engine,
    /// What is still to be told lies between these.
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    direction: Direction,
    /// The fence of the block that was read last.
    read: Option<Vec<u8>>,
    /// No further block holds anything that is to be told.
    is_over: bool,
    /// Rows of the block that was read last.
    rows: VecDeque<(Vec<u8>, Held)>,
    _files: RwLockReadGuard<'e, Option<Files>>,
}

impl Scan<'_> {
    /// Reads the next block; `false` after the last.
    fn read_block(&mut self) -> Result<bool, EngineError> {
        if self.is_over {
            return Ok(false);
        }
        let block = match self.direction {
            Direction::Ascending => self.block_after()?,
            Direction::Descending => self.block_before()?,
        };
        let Some((fence, stored)) = block else {
            self.is_over = true;
            return Ok(false);
        };
        self.is_over = match self.direction {
            Direction::Ascending => key_of(&self.to).is_some_and(|to| *fence >= *to),
            Direction::Descending => key_of(&self.from).is_some_and(|from| *fence < *from),
        };
        let block = Block::decode(&fence, &stored).ok_or_else(|| self.engine.found_damage(UNKNOWN_FORM))?;
        self.rows.extend(block.rows);
        self.read = Some(fence.to_vec());
        Ok(true)
    }

    fn block_after(&self) -> Result<Option<(sled::IVec, sled::IVec)>, EngineError> {
        let lower = match &self.read {
            Some(fence) => Bound::Excluded(fence.as_slice()),
            None => Bound::Included(key_of(&self.from).unwrap_or_default().max(FIRST)),
        };
        self.engine.guarded(|db| db.range::<&[u8], _>((lower, Bound::Unbounded)).next().transpose())
    }

    fn block_before(&self) -> Result<Option<(sled::IVec, sled::IVec)>, EngineError> {
        let upper = if let Some(fence) = &self.read {
            Bound::Excluded(fence.as_slice())
        } else {
            // The last row lies in the block that its key belongs into.
            if let Some(to) = key_of(&self.to)
                && let Some(block) = self.engine.block_of(to.max(FIRST))?
            {
                return Ok(Some(block));
            }
            Bound::Unbounded
        };
        if upper == Bound::Excluded(FIRST) {
            return Ok(None);
        }
        self.engine.guarded(|db| db.range::<&[u8], _>((Bound::Included(FIRST), upper)).next_back().transpose())
    }

    fn next_row(&mut self) -> Result<Option<Row>, EngineError> {
        loop {
            let row = match self.direction {
                Direction::Ascending => self.rows.pop_front(),
                Direction::Descending => self.rows.pop_back(),
            };
            let Some((key, held)) = row else {
                if self.read_block()? {
                    continue;
                }
                return Ok(None);
            };
            if !is_between(&key, &self.from, &self.to) {
                continue;
            }
            // A block may have been cut meanwhile: what it was cut from told of these rows already.
            match self.direction {
                Direction::Ascending => self.from = Bound::Excluded(key.clone()),
                Direction::Descending => self.to = Bound::Excluded(key.clone()),
            }
            let value = match held {
                Held::Here(value) => Some(value),
                Held::InPieces(..) => self.engine.get(&key)?,
            };
            // Removed meanwhile, if it is not there.
            if let Some(value) = value {
                return Ok(Some((key, value)));
            }
        }
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Row, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.next_row();
        if row.is_err() {
            self.is_over = true;
            self.rows.clear();
        }
        row.transpose()
    }
}

/// The file beside the store in `dir` that says that damage was found in it.
pub(crate) fn rebuild_note(dir: &Path) -> PathBuf {
    dir.with_extension("rebuild")
}

/// Removes those of sled's snapshots that `which` names; says whether there were any.
fn remove_snapshots(dir: &Path, which: impl Fn(&str) -> bool) -> io::Result<bool> {
    let mut removed = false;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && which(&name) {
            fs::remove_file(entry.path())?;
            removed = true;
        }
    }
    Ok(removed)
}

/// The upper bound of all keys that start with `prefix`.
pub(crate) fn end_of_prefix(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}

/// What the block of a row holds of its value; what it does not hold goes into pieces.
fn put_value(batch: &mut sled::Batch, key: &[u8], value: Vec<u8>) -> Held {
    if value.len() <= INLINE_BYTES_MAX {
        return Held::Here(value);
    }
    for (number, piece) in (0u16..).zip(value.chunks(PIECE_BYTES)) {
        batch.insert(piece_key(key, number), piece);
    }
    Held::InPieces(value.len().div_ceil(PIECE_BYTES) as u16, Some(hash_of(&value)))
}

/// Removes the pieces of the value that `key` had, from number `kept` on.
fn drop_pieces(batch: &mut sled::Batch, key: &[u8], before: Option<&Held>, kept: u16) {
    for number in kept..before.map_or(0, pieces) {
        batch.remove(piece_key(key, number));
    }
}

/// How many pieces a value has.
fn pieces(held: &Held) -> u16 {
    match held {
        Held::Here(_) => 0,
        Held::InPieces(count, _) => *count,
    }
}

fn hash_of(value: &[u8]) -> [u8; 8] {
    let mut hash = [0; 8];
    blake3::Hasher::new().update(value).finalize_xof().fill(&mut hash);
    hash
}

fn piece_key(key: &[u8], number: u16) -> Vec<u8> {
    [&[PIECE_TABLE], key, &number.to_be_bytes()].concat()
}

/// What is said of a tree whose place another one was to take.
fn closed() -> EngineError {
    EngineError::Damaged { detail: "it was closed to be written anew, and could not be opened again".into() }
}

/// The key that a bound names.
fn key_of(bound: &Bound<Vec<u8>>) -> Option<&[u8]> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(key),
        Bound::Unbounded => None,
    }
}

fn is_between(key: &[u8], from: &Bound<Vec<u8>>, to: &Bound<Vec<u8>>) -> bool {
    let after = match from {
        Bound::Included(from) => key >= from.as_slice(),
        Bound::Excluded(from) => key > from.as_slice(),
        Bound::Unbounded => true,
    };
    let before = match to {
        Bound::Included(to) => key <= to.as_slice(),
        Bound::Excluded(to) => key < to.as_slice(),
        Bound::Unbounded => true,
    };
    after && before
}

/// sled panics on a range that ends before it starts.
fn is_empty(from: &Bound<Vec<u8>>, to: &Bound<Vec<u8>>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
    }
}

/// Runs a call into sled and turns each way in which it can fail into an error.
fn caught<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, EngineError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) if error.to_string().contains("could not acquire lock") => {
            Err(EngineError::Locked(PathBuf::new()))
        }
        // Files that are shorter than their log says read as an early end.
        Ok(Err(sled::Error::Io(error))) if error.kind() != io::ErrorKind::UnexpectedEof => Err(EngineError::Io(error)),
        Ok(Err(error)) => Err(EngineError::Damaged { detail: error.to_string() }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it cannot be read");
            Err(EngineError::Damaged { detail: text.chars().take(300).collect() })
        }
    }
}

fn walk_size_bytes(dir: &Path) -> io::Result<u64> {
    let mut size_bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_bytes += walk_size_bytes(&entry.path())?,
            Ok(metadata) => size_bytes += metadata.len(),
            // The engine removes old files while it runs.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(size_bytes)
}

#[cfg(test)]
mod tests;
