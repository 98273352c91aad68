//! The one thread that writes: group commit.
//!
//! It takes what is queued, runs each operation over an overlay in which it sees those before it, writes one atomic
//! batch, flushes, and only then acknowledges them all. An operation that fails leaves nothing behind and does not
//! disturb the others of its group.
//!
//! Invariants:
//! - At most [`QUEUED_OPERATIONS_MAX`] operations wait; those who come later wait to be queued.
//! - Once a write has failed nobody can say what is on disk, so nothing more is written in this process.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use alexandria_sync::domain::{Erasure, Typed};
use alexandria_sync::hlc::HlcTime;
use alexandria_sync::id::{BucketId, Seq};
use alexandria_sync::lineage::Lineage;
use alexandria_sync::quarantine::QuarantineLimits;
use alexandria_sync::record::{Record, RecordKey};
use alexandria_sync::store::{BucketHead, Peer};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::align::Bridge;
use super::compact::{self, Copy, Noting};
use super::engine::{Engine, EngineError};
use super::error::{OpenError, StoreError};
use super::guard::{self, Noted};
use super::in_use::Readers;
use super::keys::{self, KeyReader};
use super::meta::{self, Identity};
use super::overlay::Overlay;
use super::row::{RecordRow, decode_number};
use super::time::Time;
use super::{FolderLock, disk, erase, lineage, rebuild, tables};

/// Operations that wait for the writer, at most.
const QUEUED_OPERATIONS_MAX: usize = 1024;
/// Operations in one commit, at most.
/// A batch stops all readers while it is applied, so it stays small.
const GROUP_OPERATIONS_MAX: usize = 500;
/// Bytes of rows after which a commit takes in no further operation.
const GROUP_BYTES_MAX: usize = 1024 * 1024;
/// Changed heads that a subscriber may lag behind before it has to ask for all heads.
const CHANGES_BUFFERED_MAX: usize = 1024;

/// How often the number of the last commit is noted beside the tree.
const NOTE_EVERY: Duration = Duration::from_mins(3);
/// Room on the disk that only deletes may use, so that a full disk can be emptied (invariant 19).
pub(crate) const DELETE_RESERVE_BYTES: u64 = 32 * 1024 * 1024;

/// What the writer and all readers share.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(super) identity: RwLock<Identity>,
    pub(super) lineage: RwLock<Lineage>,
    /// How often rows were held back.
    pub(super) withheld: AtomicU64,
    pub(crate) time: Mutex<Time>,
    /// The durable heads.
    heads: RwLock<BTreeMap<BucketId, Seq>>,
    /// The last group that readers may see some of.
    visible_group: AtomicU64,
    commits: watch::Sender<Commits>,
    changes: broadcast::Sender<BucketHead>,
    /// Counts choices of what is kept here.
    pub(crate) selection: watch::Sender<u64>,
    /// Counts occasions to bring rows and content in line with what was chosen.
    pub(crate) alignment: watch::Sender<u64>,
    /// Counts blobs that came up for the bridge to be asked about.
    pub(crate) unconfirmed: watch::Sender<u64>,
    pub(crate) bridge: Mutex<Bridge>,
    /// What is written while the tree is copied.
    pub(crate) noting: Noting,
    /// Buckets that are not evicted meanwhile.
    pub(crate) staying: Readers<BucketId>,
    /// Held by whoever writes the dump.
    pub(crate) dumping: Mutex<()>,
    pub(crate) dir: PathBuf,
    pub(crate) quarantine_limits: QuarantineLimits,
    /// Dropped last, once the engine is closed.
    _lock: FolderLock,
}

/// How far the writer has come.
#[derive(Clone, Debug, Default)]
struct Commits {
    durable_group: u64,
    failed: Option<Arc<str>>,
}

impl Shared {
    pub(crate) fn new(
        engine: Engine,
        identity: Identity,
        persisted: HlcTime,
        dir: PathBuf,
        quarantine_limits: QuarantineLimits,
        lock: FolderLock,
    ) -> Result<Self, OpenError> {
        let mut heads = BTreeMap::new();
        for row in engine.scan_prefix(&[keys::HEAD]) {
            let (key, value) = row?;
            let bucket = KeyReader::new(&key).bucket();
            let bucket = bucket.ok_or(StoreError::DamagedRow { what: "head" })?;
            heads.insert(bucket, Seq(decode_number(&value)?));
        }
        let withheld = lineage::withheld(&engine)?;
        let (lineage, stamping) = lineage::begin(&engine, identity, rows(&heads).saturating_add(withheld))?;
        let time = Time::new(identity.node, stamping, persisted);
        Ok(Self {
            engine,
            identity: RwLock::new(identity),
            lineage: RwLock::new(lineage),
            withheld: AtomicU64::new(withheld),
            time: Mutex::new(time),
            heads: RwLock::new(heads),
            visible_group: AtomicU64::new(0),
            commits: watch::Sender::new(Commits::default()),
            changes: broadcast::Sender::new(CHANGES_BUFFERED_MAX),
            selection: watch::Sender::new(0),
            alignment: watch::Sender::new(0),
            unconfirmed: watch::Sender::new(0),
            bridge: Mutex::default(),
            noting: Noting::default(),
            staying: Readers::default(),
            dumping: Mutex::default(),
            dir,
            quarantine_limits,
            _lock: lock,
        })
    }

    pub(crate) fn time(&self) -> MutexGuard<'_, Time> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn identity(&self) -> Identity {
        *self.identity.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lineage(&self) -> RwLockReadGuard<'_, Lineage> {
        self.lineage.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows that were ever numbered, in all feeds, durably, and how often some were held back.
    pub(crate) fn rows(&self) -> u64 {
        let numbered = rows(&self.heads.read().unwrap_or_else(PoisonError::into_inner));
        numbered.saturating_add(self.withheld.load(Ordering::SeqCst))
    }

    pub(crate) fn heads(&self) -> BTreeMap<BucketId, Seq> {
        self.heads.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn head(&self, bucket: BucketId) -> Seq {
        self.heads.read().unwrap_or_else(PoisonError::into_inner).get(&bucket).copied().unwrap_or_default()
    }

    pub(crate) fn changes(&self) -> broadcast::Receiver<BucketHead> {
        self.changes.subscribe()
    }

    /// Waits until everything that a reader can have seen so far is durable. What was read from the feed may be told
    /// to a peer only after this: a row that a crash takes back would be numbered again.
    pub(crate) async fn seen_is_durable(&self) -> Result<(), StoreError> {
        let seen = self.visible_group.load(Ordering::SeqCst);
        let mut commits = self.commits.subscribe();
        let reached = commits.wait_for(|commits| commits.durable_group >= seen || commits.failed.is_some()).await;
        let reached = reached.map_err(|_| StoreError::Closed)?;
        match &reached.failed {
            Some(reason) if reached.durable_group < seen => Err(StoreError::ReadOnly { reason: Arc::clone(reason) }),
            _ => Ok(()),
        }
    }

    /// Why nothing is written any more, if so.
    pub(crate) fn failed(&self) -> Option<Arc<str>> {
        self.commits.borrow().failed.clone()
    }
}

fn rows(heads: &BTreeMap<BucketId, Seq>) -> u64 {
    heads.values().map(|head| head.0).fold(0, u64::saturating_add)
}

/// Whether an operation needs room on the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Room {
    Needed,
    /// A delete, or something that makes a delete possible.
    Freed,
}

/// What an operation works on: the rows as earlier operations left them, and the clock.
pub(crate) struct Transaction<'g> {
    pub(crate) rows: Overlay<'g>,
    pub(crate) time: &'g Mutex<Time>,
    heads: BTreeMap<BucketId, Seq>,
}

impl Transaction<'_> {
    pub(crate) fn time(&self) -> MutexGuard<'_, Time> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self, key: RecordKey) -> Result<Option<RecordRow>, StoreError> {
        tables::read(&self.rows, key)
    }

    /// Stores a version of a record, or what an erasure has made of it, and does what follows from an erasure.
    pub(crate) fn put(&mut self, record: Record, arrived_from: Option<Peer>) -> Result<(), StoreError> {
        let (record, arrived_from) = match erase::overtaken(&self.rows, &record)? {
            Some(tombstone) => (tombstone, None),
            None => (record, arrived_from),
        };
        let bucket = record.key.bucket;
        let erasure = (record.key.kind == Erasure::KIND).then(|| record.clone());
        let seq = tables::put(&mut self.rows, record, arrived_from)?;
        self.heads.insert(bucket, seq);
        match erasure {
            Some(erasure) => erase::carry_out(self, &erasure),
            None => Ok(()),
        }
    }
}

/// Answers whoever waits for an operation, once its group is durable or has failed.
type Acknowledge = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// An operation: says whether to keep what it wrote, and how to answer.
type Work = Box<dyn FnOnce(Result<&mut Transaction<'_>, StoreError>) -> (bool, Acknowledge) + Send>;

struct Job {
    room: Room,
    work: Work,
}

/// What the writer is asked for.
enum Request {
    Job(Job),
    /// Do this with the tree as a whole.
    Whole(Whole, oneshot::Sender<Result<(), StoreError>>),
}

/// What can be done with the tree as a whole, between two groups.
enum Whole {
    /// Write it anew.
    Rewrite,
    /// Note what is written from now on.
    BeginCopy,
    /// Put a copy in its place.
    FinishCopy(Copy),
}

/// The writer's thread and its queue.
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(shared: Arc<Shared>, last_commit: u64) -> std::io::Result<Self> {
        let (queue, requests) = mpsc::channel(QUEUED_OPERATIONS_MAX);
        let writer = std::thread::Builder::new().name("store-writer".into());
        let thread = writer.spawn(move || run(&shared, requests, last_commit))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Runs `work` in one of the next groups and returns once its writes are durable.
    pub(crate) async fn submit<T, E>(
        &self,
        room: Room,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let queue = self.queue.as_ref().ok_or(StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |transaction| {
            let outcome = transaction.map_err(E::from).and_then(work);
            let keep = outcome.is_ok();
            let acknowledge = move |durable: Result<(), StoreError>| {
                let outcome = durable.map_err(E::from).and(outcome);
                // Whoever asked may have gone away; the write stands all the same.
                let _ = answer.send(outcome);
            };
            (keep, Box::new(acknowledge) as Acknowledge)
        });
        queue.send(Request::Job(Job { room, work })).await.map_err(|_| StoreError::Closed)?;
        // The answer is dropped unsent only if the operation panicked or the writer is gone.
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Writes the tree anew, so that its files hold nothing that was replaced or removed.
    pub(crate) async fn rewrite(&self) -> Result<(), StoreError> {
        self.with_whole(Whole::Rewrite).await
    }

    /// Notes what is written from now on, for a copy that is about to be made.
    pub(crate) async fn begin_copy(&self) -> Result<(), StoreError> {
        self.with_whole(Whole::BeginCopy).await
    }

    /// Puts a copy in the tree's place.
    pub(crate) async fn finish_copy(&self, copy: Copy) -> Result<(), StoreError> {
        self.with_whole(Whole::FinishCopy(copy)).await
    }

    async fn with_whole(&self, what: Whole) -> Result<(), StoreError> {
        let queue = self.queue.as_ref().ok_or(StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        queue.send(Request::Whole(what, answer)).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// How many operations wait.
    pub(crate) fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.max_capacity() - queue.capacity())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic in the thread was reported by the panic hook; nothing is left to do about it here.
            let _ = thread.join();
        }
    }
}

/// What the writer remembers from group to group.
struct Progress {
    commit: u64,
    persisted_hlc: HlcTime,
    noted: Instant,
}

fn run(shared: &Shared, mut requests: mpsc::Receiver<Request>, commit: u64) {
    let mut progress = Progress { commit, persisted_hlc: shared.time().last(), noted: Instant::now() };
    while let Some(request) = requests.blocking_recv() {
        let whole = match request {
            Request::Job(first) => commit_group(shared, first, &mut requests, &mut progress),
            Request::Whole(what, answer) => Some((what, answer)),
        };
        if let Some((what, answer)) = whole {
            let done = match what {
                Whole::Rewrite => rewrite_tree(shared),
                Whole::BeginCopy if shared.noting.begin() => Ok(()),
                Whole::BeginCopy => Err(EngineError::Busy.into()),
                Whole::FinishCopy(copy) => finish_copy(shared, copy),
            };
            // Whoever asked may have gone away.
            let _ = answer.send(done);
        }
        if progress.noted.elapsed() >= NOTE_EVERY {
            note(shared, &mut progress, false);
        }
    }
    if shared.failed().is_none() {
        note(shared, &mut progress, true);
    }
}

fn note(shared: &Shared, progress: &mut Progress, closed: bool) {
    progress.noted = Instant::now();
    if let Err(error) = guard::note_commit(&shared.dir, Noted { commit: progress.commit, closed }) {
        tracing::warn!(%error, "the number of the last commit could not be noted");
    }
}

fn rewrite_tree(shared: &Shared) -> Result<(), StoreError> {
    if let Some(reason) = shared.failed() {
        return Err(StoreError::ReadOnly { reason });
    }
    if shared.noting.abandon() {
        // Its thread is about to notice; both would write to the same place.
        return Err(EngineError::Busy.into());
    }
    check_room_for_copy(shared)?;
    tell_rewritten(rebuild::rewrite_in_use(&shared.engine, &shared.dir))
}

/// Whether there is room for a copy of the tree: it is no larger than what it is made of. What is kept for deletes is not
/// touched for it.
pub(crate) fn check_room_for_copy(shared: &Shared) -> Result<(), StoreError> {
    let needed_bytes = shared.engine.size_on_disk_bytes()? + 2 * DELETE_RESERVE_BYTES;
    if disk::free_bytes(&shared.dir).unwrap_or(u64::MAX) < needed_bytes { Err(StoreError::Full) } else { Ok(()) }
}

fn finish_copy(shared: &Shared, copy: Copy) -> Result<(), StoreError> {
    match shared.failed() {
        Some(reason) => Err(StoreError::ReadOnly { reason }),
        None => tell_rewritten(compact::finish(copy)),
    }
}

fn tell_rewritten(outcome: Result<(), EngineError>) -> Result<(), StoreError> {
    match outcome {
        Ok(()) => Ok(()),
        Err(error @ EngineError::Busy) => Err(error.into()),
        Err(error) => {
            tracing::error!(%error, "the record store could not be written anew; the next start sees to it");
            Err(error.into())
        }
    }
}

/// Commits one group; returns a request about the whole tree that it met on the way.
fn commit_group(
    shared: &Shared,
    first: Job,
    requests: &mut mpsc::Receiver<Request>,
    progress: &mut Progress,
) -> Option<(Whole, oneshot::Sender<Result<(), StoreError>>)> {
    let free_bytes = disk::free_bytes(&shared.dir).unwrap_or(u64::MAX);
    let full = free_bytes < DELETE_RESERVE_BYTES;
    if free_bytes < guard::BALLAST_DROPPED_BELOW_BYTES
        && let Err(error) = guard::drop_ballast(&shared.dir)
    {
        tracing::warn!(%error, "the ballast could not be given up");
    }
    let failed = shared.failed();
    let mut transaction =
        Transaction { rows: Overlay::new(&shared.engine), time: &shared.time, heads: BTreeMap::new() };
    let mut heads = BTreeMap::new();
    let mut waiting = Vec::new();
    let mut next = Some(first);
    let mut whole = None;
    while let Some(job) = next {
        let refusal = match &failed {
            Some(reason) => Some(StoreError::ReadOnly { reason: Arc::clone(reason) }),
            None if full && job.room == Room::Needed => Some(StoreError::Full),
            None => None,
        };
        let ran = catch_unwind(AssertUnwindSafe(|| match refusal {
            Some(refusal) => (job.work)(Err(refusal)),
            None => (job.work)(Ok(&mut transaction)),
        }));
        let keep = match ran {
            Ok((keep, acknowledge)) => {
                waiting.push(acknowledge);
                keep
            }
            Err(_) => false,
        };
        if keep {
            transaction.rows.keep();
            heads.append(&mut transaction.heads);
        } else {
            transaction.rows.take_back();
            transaction.heads.clear();
        }
        if waiting.len() >= GROUP_OPERATIONS_MAX || transaction.rows.size_bytes() >= GROUP_BYTES_MAX {
            break;
        }
        next = match requests.try_recv() {
            Ok(Request::Job(job)) => Some(job),
            Ok(Request::Whole(what, answer)) => {
                whole = Some((what, answer));
                None
            }
            Err(_) => None,
        };
    }
    let hlc = shared.time().last();
    let nothing_to_write = transaction.rows.is_empty() && hlc <= progress.persisted_hlc;
    let outcome = if nothing_to_write || failed.is_some() {
        Ok(())
    } else {
        transaction.rows.put(meta::hlc_key(), hlc.to_bits().to_be_bytes().to_vec());
        transaction.rows.put(guard::commit_key(), (progress.commit + 1).to_be_bytes().to_vec());
        transaction.rows.keep();
        write_group(shared, transaction.rows, heads)
    };
    if outcome.is_ok() && !nothing_to_write && failed.is_none() {
        progress.commit += 1;
        progress.persisted_hlc = hlc;
    }
    for acknowledge in waiting {
        acknowledge(outcome.clone());
    }
    whole
}

fn write_group(shared: &Shared, rows: Overlay<'_>, heads: BTreeMap<BucketId, Seq>) -> Result<(), StoreError> {
    let rows = rows.into_rows();
    shared.noting.note(rows.keys());
    // Raised before anything can be seen, so that a reader that saw something of this group waits for it.
    let group = shared.visible_group.fetch_add(1, Ordering::SeqCst) + 1;
    let written: Result<(), EngineError> = shared.engine.apply(rows).and_then(|()| shared.engine.flush());
    if let Err(error) = written {
        let reason: Arc<str> = error.to_string().into();
        tracing::error!(%error, "the record store is read-only: a write failed");
        shared.commits.send_modify(|commits| commits.failed = Some(reason));
        return Err(error.into());
    }
    shared.heads.write().unwrap_or_else(PoisonError::into_inner).extend(&heads);
    shared.commits.send_modify(|commits| commits.durable_group = group);
    for (bucket, head) in heads {
        // Nobody may be listening.
        let _ = shared.changes.send(BucketHead { bucket, head });
    }
    Ok(())
}
