//! Giving back the room of rows that were replaced or removed, which the engine never does by itself, while the store is in use.
//!
//! 1. The writer begins to note the keys of what it writes.
//! 2. All rows are copied into `records.rewriting`, at a pace that leaves half of the time to readers.
//! 3. The writer copies what it has noted, and puts the copy in the tree's place (see `rebuild` for how that survives a cut).
//!
//! Invariants:
//! - A key that is written after the copy began is copied once more by the writer itself, so the copy holds what the tree holds.
//! - Writers wait only for step 3, readers only for the exchange of the files.
//! - At most [`NOTED_KEYS_MAX`] keys are noted; a store that is written to faster is left as it is until the next time.
//! - What is erased waits for nothing here: a rewrite that was asked for ends a copy under way.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::engine::{Direction, Engine, EngineError};
use super::error::StoreError;
use super::keys;
use super::rebuild;
use super::records::{Records, blocking};
use super::row::Totals;
use super::writer::{Shared, check_room_for_copy};

/// A tree that takes more than this many times what its rows need is to be written anew (docs/adr/0001-record-store.md).
const BLOAT_RATIO_MAX: u64 = 3;
/// A smaller tree is never written anew, in bytes.
const BLOAT_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// What the rows of a record take beside its encoding, about, in bytes: its own, in its feed, by id, by time and by popularity.
const ROWS_OF_LIVE_BYTES: u64 = 230;
/// The same for a tombstone: its own, in its feed and by id.
const ROWS_OF_DELETED_BYTES: u64 = 140;
/// Rows of one batch while a tree is copied.
const ROWS_AT_ONCE: usize = 500;
/// Memory for the pages of a copy: it grows at its end only.
const COPY_CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// Keys that are noted while a copy is made, at most.
const NOTED_KEYS_MAX: usize = 100_000;
/// The longest rest between two batches of a copy.
const REST_MAX: Duration = Duration::from_millis(100);

/// What the record store takes on the disk, and what it would have to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Space {
    /// Bytes of its files.
    pub disk_bytes: u64,
    /// Bytes of its rows, about.
    pub live_bytes: u64,
}

impl Space {
    pub(crate) fn of(engine: &Engine) -> Result<Self, StoreError> {
        let mut live_bytes = 0;
        for row in engine.scan_prefix(&[keys::TOTALS]) {
            let totals = Totals::decode(&row?.1)?;
            live_bytes += totals.size_bytes + totals.live * ROWS_OF_LIVE_BYTES + totals.deleted * ROWS_OF_DELETED_BYTES;
        }
        Ok(Self { disk_bytes: engine.size_on_disk_bytes()?, live_bytes })
    }

    /// Whether it would be worth while to write the store anew.
    pub fn is_bloated(&self) -> bool {
        self.disk_bytes > self.live_bytes.saturating_mul(BLOAT_RATIO_MAX).max(BLOAT_BYTES_MIN)
    }
}

/// Keys that were written since a copy of the tree began.
#[derive(Default)]
pub(crate) struct Noting(Mutex<Option<Noted>>);

#[derive(Default)]
struct Noted {
    keys: BTreeSet<Vec<u8>>,
    /// The copy is of no more use.
    abandoned: bool,
}

impl Noting {
    /// Begins; `false` if a copy is under way already. Only for the writer, between two batches.
    pub(crate) fn begin(&self) -> bool {
        let mut noted = self.noted();
        let free = noted.is_none();
        if free {
            *noted = Some(Noted::default());
        }
        free
    }

    /// Notes what is about to be written.
    pub(crate) fn note<'k>(&self, keys: impl Iterator<Item = &'k Vec<u8>>) {
        if let Some(noted) = self.noted().as_mut().filter(|noted| !noted.abandoned) {
            noted.keys.extend(keys.cloned());
            if noted.keys.len() > NOTED_KEYS_MAX {
                noted.abandon();
            }
        }
    }

    /// Ends a copy that is under way; says whether there was one.
    pub(crate) fn abandon(&self) -> bool {
        let mut noted = self.noted();
        if let Some(noted) = noted.as_mut() {
            noted.abandon();
        }
        noted.is_some()
    }

    fn is_abandoned(&self) -> bool {
        self.noted().as_ref().is_none_or(|noted| noted.abandoned)
    }

    fn take_keys(&self) -> Option<BTreeSet<Vec<u8>>> {
        self.noted().as_mut().filter(|noted| !noted.abandoned).map(|noted| std::mem::take(&mut noted.keys))
    }

    fn end(&self) {
        *self.noted() = None;
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, Option<Noted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted {
    fn abandon(&mut self) {
        self.keys = BTreeSet::new();
        self.abandoned = true;
    }
}

/// A copy under way. Once it is dropped another one may be begun.
pub(crate) struct Copy {
    shared: Arc<Shared>,
    engine: Option<Engine>,
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Its files are closed before somebody else may remove them.
        self.engine = None;
        self.shared.noting.end();
    }
}

/// Tells the thread that copies when nobody waits for it any more.
struct StopWhenDropped(Arc<AtomicBool>);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Records {
    /// What the store takes on the disk, and what it would have to.
    pub fn space(&self) -> Result<Space, StoreError> {
        Space::of(&self.shared().engine)
    }

    /// Writes the store's files anew while it is in use, and says what it takes then.
    ///
    /// # Errors
    ///
    /// [`EngineError::Busy`] if it was written to too fast or another copy was wanted; nothing was changed, and it can be tried again.
    pub async fn compact(&self) -> Result<Space, StoreError> {
        check_room_for_copy(self.shared())?;
        self.inner.writer.begin_copy().await?;
        let mut copy = Copy { shared: Arc::clone(&self.inner.shared), engine: None };
        let stop = Arc::new(AtomicBool::new(false));
        let _stop = StopWhenDropped(Arc::clone(&stop));
        let copied = blocking(move || {
            let shared = Arc::clone(&copy.shared);
            let mut began = Instant::now();
            let go_on = || {
                std::thread::sleep(began.elapsed().min(REST_MAX));
                began = Instant::now();
                !stop.load(Ordering::Relaxed) && !shared.noting.is_abandoned()
            };
            copy.engine = Some(copy_rows(&shared.engine, &shared.dir, COPY_CACHE_BYTES, go_on)?);
            Ok(copy)
        });
        self.inner.writer.finish_copy(copied.await?).await?;
        self.space()
    }
}

/// Brings a copy up to what was written since, and puts it in the tree's place. Only for the writer, between two batches.
pub(crate) fn finish(mut copy: Copy) -> Result<(), EngineError> {
    let shared = Arc::clone(&copy.shared);
    let (Some(engine), Some(noted)) = (copy.engine.take(), shared.noting.take_keys()) else {
        return Err(EngineError::Busy);
    };
    let mut batch = Vec::new();
    for key in noted {
        let value = shared.engine.get(&key)?;
        batch.push((key, value));
        if batch.len() == ROWS_AT_ONCE {
            engine.apply(batch.drain(..))?;
        }
    }
    engine.apply(batch)?;
    engine.flush()?;
    // Closed before it is opened in its place.
    drop(engine);
    shared.engine.reopen(|| rebuild::put_copy_in_place(&shared.dir))
}

/// Fills `records.rewriting` with all rows of a tree, for as long as `go_on` says so after each batch.
pub(crate) fn copy_rows(
    old: &Engine,
    data_dir: &Path,
    cache_bytes: u64,
    mut go_on: impl FnMut() -> bool,
) -> Result<Engine, EngineError> {
    let rewriting = data_dir.join(rebuild::REWRITING);
    rebuild::remove_dir(&rewriting)?;
    let new = Engine::open(&rewriting, cache_bytes)?;
    let mut batch = Vec::new();
    // Pieces of long values lie before every table; they are cut anew.
    for row in old.scan(Bound::Included(vec![1]), Bound::Unbounded, Direction::Ascending) {
        let (key, value) = row?;
        batch.push((key, Some(value)));
        if batch.len() == ROWS_AT_ONCE {
            new.apply(batch.drain(..))?;
            if !go_on() {
                return Err(EngineError::Busy);
            }
        }
    }
    new.apply(batch)?;
    new.flush()?;
    Ok(new)
}
