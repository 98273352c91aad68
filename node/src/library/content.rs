//! Content as the API reads it: streamed from its file, also while it arrives.
//!
//! What is on its way is handed out in order as it becomes durable. A reader who waits makes it the first thing that is
//! asked for, from the byte on that the reader needs. Waiting is bounded in time ([`Library::arriving`]), and where it is
//! known that nothing can come now, the reader is told why at once.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alexandria_api::catalogue::{BlobInfo, CatalogueError, Content};
use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Blob, Typed};
use alexandria_sync::outlook::Wait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::OwnedSemaphorePermit;

use super::Library;
use super::lists::store_error;
use super::outlook::LinkState;
use crate::store::blobs::ReadingBlob;
use crate::store::blobs::follow::{Durable, Follower};

/// Bytes read from the disk at a time.
const READ_BYTES: u64 = 128 * 1024;
/// How long a reader waits for a session to be opened.
const SESSION_WAIT: Duration = Duration::from_secs(10);
/// How long a reader waits for a node nearby, whatever keeps the bridge from giving.
const NEARBY_WAIT: Duration = Duration::from_secs(5);
/// When to come again if nobody knows better, in seconds.
const RETRY_AFTER_S: u32 = 30;

/// A blob opened for reading. It does not make way meanwhile; if it is removed all the same, the open file keeps the bytes.
pub struct FileContent {
    info: BlobInfo,
    source: Source,
}

#[derive(Clone)]
enum Source {
    Whole { file: Arc<File>, _reading: Arc<ReadingBlob> },
    Arriving(Arriving),
}

/// A blob that is not whole here, and a reader of it.
#[derive(Clone)]
struct Arriving {
    library: Library,
    follower: Follower,
    /// How long the reader waits for the next bytes.
    patience: Duration,
    _slot: Arc<OwnedSemaphorePermit>,
}

impl FileContent {
    pub(super) fn new(info: BlobInfo, file: File, reading: ReadingBlob) -> Self {
        Self { info, source: Source::Whole { file: Arc::new(file), _reading: Arc::new(reading) } }
    }
}

impl Content for FileContent {
    fn info(&self) -> &BlobInfo {
        &self.info
    }

    fn is_whole(&self) -> bool {
        matches!(self.source, Source::Whole { .. })
    }

    async fn ready(&self, range: Range<u64>) -> Result<(), CatalogueError> {
        let Source::Arriving(arriving) = &self.source else { return Ok(()) };
        let there = arriving.clone().durable_from(range.start).await?.bytes;
        // An answer that must break off in the middle is worse than one that says why.
        let refusal = if there.end < range.end { arriving.refusal_now() } else { None };
        refusal.map_or(Ok(()), Err)
    }

    fn read(&self, range: Range<u64>) -> BoxStream<'static, Result<Bytes, CatalogueError>> {
        stream::try_unfold((self.source.clone(), range), move |(mut source, range)| async move {
            if range.is_empty() {
                return Ok(None);
            }
            let (file, there) = match &mut source {
                Source::Whole { file, .. } => (Arc::clone(file), range.end),
                Source::Arriving(arriving) => {
                    let Durable { file, bytes } = arriving.durable_from(range.start).await?;
                    (file, bytes.end)
                }
            };
            let end = range.end.min(there).min(range.start + READ_BYTES);
            let start = range.start;
            let read = tokio::task::spawn_blocking(move || read_at(&file, start..end));
            let bytes = read.await.map_err(CatalogueError::store)?.map_err(CatalogueError::store)?;
            Ok(Some((bytes, (source, end..range.end))))
        })
        .boxed()
    }
}

fn read_at(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

impl Library {
    /// Content that is not here and that a record names, to be read as it arrives; `None` if none does, or if there is no
    /// fleet that it could come from.
    ///
    /// # Errors
    ///
    /// [`CatalogueError::Busy`] if as many readers wait as may.
    pub(super) fn arriving(&self, hash: BlobHash) -> Result<Option<FileContent>, CatalogueError> {
        if self.link().borrow().is_none() {
            return Ok(None);
        }
        let Some(blob) = self.described(hash)? else { return Ok(None) };
        let slot = Arc::clone(&self.inner.readers).try_acquire_owned();
        let slot = slot.map_err(|_| CatalogueError::Busy { retry_after_s: RETRY_AFTER_S })?;
        let info = BlobInfo { hash, size_bytes: blob.size_bytes, media_type: self.media_type(hash)? };
        let arriving = Arriving {
            library: self.clone(),
            follower: self.store().blobs.follow(hash),
            patience: self.inner.reader_wait,
            _slot: Arc::new(slot),
        };
        Ok(Some(FileContent { info, source: Source::Arriving(arriving) }))
    }

    /// What a record says of a blob; `None` if none names it with its size.
    fn described(&self, hash: BlobHash) -> Result<Option<Blob>, CatalogueError> {
        for key in self.store().records.references(hash).map_err(store_error)? {
            if key.kind == Blob::KIND
                && let Some(stored) = self.store().records.get(key).map_err(store_error)?
                && let Some(blob) = Blob::from_record(&stored.record)
                && blob.size_bytes > 0
            {
                return Ok(Some(blob));
            }
        }
        Ok(None)
    }
}

impl Arriving {
    /// Waits until the byte at `start` may be read, and tells what may be read from there on.
    async fn durable_from(&mut self, start: u64) -> Result<Durable, CatalogueError> {
        let began = Instant::now();
        let mut link = self.library.link();
        let mut is_asked_for = false;
        loop {
            let durable = self.follower.durable_from(start).await.map_err(CatalogueError::store)?;
            match durable {
                Some(Durable { bytes, .. }) if bytes.is_empty() => {
                    return Err(late("it is shorter than its record says"));
                }
                Some(durable) => return Ok(durable),
                None if !is_asked_for => {
                    self.library.store().blobs.want_now(self.follower.hash(), Some(start));
                    is_asked_for = true;
                }
                None => {}
            }
            let state = link.borrow_and_update().clone();
            let limit = match &state {
                Some(state) if state.connected => self.patience,
                _ => SESSION_WAIT.min(self.patience),
            };
            let may_be_nearby = self.library.is_anybody_nearby() && began.elapsed() < NEARBY_WAIT;
            if !may_be_nearby && let Some(refusal) = state.as_ref().and_then(|state| self.refusal(state)) {
                return Err(refusal);
            }
            let Some(left) = limit.checked_sub(began.elapsed()) else {
                return Err(too_late(state));
            };
            let left = if may_be_nearby { left.min(NEARBY_WAIT.saturating_sub(began.elapsed())) } else { left };
            tokio::select! {
                () = self.library.closed() => return Err(CatalogueError::Closing),
                changed = self.follower.changed() => changed.map_err(|_| CatalogueError::Closing)?,
                changed = link.changed() => changed.map_err(|_| CatalogueError::Closing)?,
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    /// The same as of now, whoever may be nearby aside.
    fn refusal_now(&self) -> Option<CatalogueError> {
        let link = self.library.link();
        let state = link.borrow().clone();
        let state = state.filter(|_| !self.library.is_anybody_nearby())?;
        self.refusal(&state)
    }

    /// Why nothing comes now, if that is known.
    fn refusal(&self, state: &LinkState) -> Option<CatalogueError> {
        if self.library.store().blobs.lacks_room_for(self.follower.hash()) {
            return Some(CatalogueError::NotHereYet { why: Wait::NoRoom.to_string(), retry_after_s: RETRY_AFTER_S });
        }
        let wait = state.wait.as_ref()?;
        let retry_after_s = match wait {
            // There may be room for what a reader opens: other content makes way. An attempt to dial may be under way.
            Wait::NoRoom | Wait::NoLink { .. } => return None,
            Wait::Refused { .. } if state.connected => return None,
            _ => match wait.until() {
                Some(until) => {
                    let now_unix_ms = self.library.store().records.now_unix_ms();
                    let wait_s = until.until_unix_ms.saturating_sub(now_unix_ms).div_ceil(1000);
                    u32::try_from(wait_s).unwrap_or(u32::MAX)
                }
                None => RETRY_AFTER_S,
            },
        };
        Some(CatalogueError::NotHereYet { why: wait.to_string(), retry_after_s })
    }
}

fn too_late(state: Option<LinkState>) -> CatalogueError {
    let Some(state) = state else { return CatalogueError::Missing };
    if state.connected {
        return late("it is asked for, and takes longer than you can be kept waiting");
    }
    let next_s = state.next_attempt.map(|at| at.saturating_duration_since(Instant::now()).as_secs() + 1);
    let retry_after_s = next_s.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(RETRY_AFTER_S);
    let why = state.wait.map_or_else(|| "no session with the bridge is open".to_owned(), |wait| wait.to_string());
    CatalogueError::NotHereYet { why, retry_after_s }
}

fn late(why: &str) -> CatalogueError {
    CatalogueError::NotHereYet { why: why.to_owned(), retry_after_s: RETRY_AFTER_S }
}
