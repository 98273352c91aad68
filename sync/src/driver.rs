//! The pump between a session, its stores and a real connection.
//!
//! [`run`] carries out what a [`Session`] asks for: disk requests run side by side, each lane has its own reader and
//! writer, and a lane that the session does not accept is not read, which holds the peer back through the transport.
//! When the connection ends, for whatever reason, what was received is made durable before [`run`] returns.
//!
//! Not here: dialling and redialling (the host), certificates (`quic`).

pub(crate) mod disk;
mod lanes;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::lanes::{Arrived, Lanes};
use crate::budget::Word;
use crate::chunk::BlobHash;
use crate::id::{BucketId, NodeId};
use crate::session::{Closed, DiskDone, DiskRequest, Event, Input, Output, Progress, Session};
use crate::store::{BlobStore, RecordStore};
use crate::wire::{CloseReason, DecodeFrameError, Lane};

/// How long the other end has to take notice of a close.
const CLOSE_LINGER: Duration = Duration::from_secs(2);
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Inputs from the host that may wait, a good size for the channel.
pub const HOST_INPUTS_MAX: usize = 1024;

/// Patches that are made or applied at once, by all sessions of the process: each holds a basis, a chunk, and what zstd needs.
const PATCHES_AT_ONCE: usize = 4;
static PATCHES: Semaphore = Semaphore::const_new(PATCHES_AT_ONCE);

/// A connection that carries lanes: one byte stream for each lane and direction, opened on first use.
pub trait Link: Send + Sync + 'static {
    /// Sends a lane's bytes.
    type Writer: AsyncWrite + Send + Unpin + 'static;
    /// Receives a lane's bytes.
    type Reader: AsyncRead + Send + Unpin + 'static;

    /// Opens the sending half of a lane.
    fn open(&self, lane: Lane) -> impl Future<Output = io::Result<Self::Writer>> + Send;

    /// Waits for the next lane that the peer opens.
    fn accept(&self) -> impl Future<Output = io::Result<(Lane, Self::Reader)>> + Send;

    /// Waits until the connection is gone.
    fn closed(&self) -> impl Future<Output = ()> + Send;

    /// Drops the connection.
    fn close(&self);
}

/// What the host tells a running session.
#[derive(Clone, Debug)]
pub enum HostInput {
    /// A bucket's feed here has grown.
    LocalChange(BucketId),
    /// What is wanted here has changed.
    WantsChanged,
    /// More may be wanted here, by records that came from elsewhere.
    MoreWanted,
    /// A blob has become whole here, from elsewhere.
    BlobCompleted(BlobHash),
    /// Ask the peer which of these blobs it holds whole.
    CheckBlobs(Vec<BlobHash>),
    /// Tell the peer, another node, that these are fetched over the link to the bridge, or are about to be.
    Fetching {
        /// Which.
        blobs: Vec<BlobHash>,
        /// Whether they are already.
        begun: bool,
    },
    /// What may follow what had crossed the wire a moment ago.
    Credit(Word),
    /// End the session: why, and in words.
    Stop(CloseReason, String),
}

/// What the host hears from a running session.
#[derive(Debug)]
pub struct Reports {
    /// What happened. When it is full the session waits: the host must read it.
    pub events: mpsc::Sender<Event>,
    /// What it is busy with.
    pub progress: watch::Sender<Progress>,
}

/// Why a session could not be brought to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The connection broke. Dial again: what was received is kept.
    #[error("the connection ended")]
    Link(#[source] io::Error),
    /// A store failed. Nothing was acknowledged that is not durable.
    #[error("a store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Runs a session with the peer at the other end of `link` until it is closed or breaks.
///
/// # Errors
///
/// [`RunError`] if the connection or a store fails; a session that either end closed is [`Ok`], whatever the reason.
pub async fn run<R, B, L>(
    mut session: Session,
    peer: NodeId,
    records: Arc<R>,
    blobs: Arc<B>,
    link: L,
    mut host: mpsc::Receiver<HostInput>,
    reports: Reports,
) -> Result<Closed, RunError>
where
    R: RecordStore + 'static,
    B: BlobStore + 'static,
    L: Link,
{
    let link = Arc::new(link);
    let started = Instant::now();
    let now_ms = || started.elapsed().as_millis() as u64;
    let mut lanes = Lanes::start(Arc::clone(&link));
    let mut disk: JoinSet<Result<Option<DiskDone>, disk::StoreError>> = JoinSet::new();
    let mut progress_due = tokio::time::interval(PROGRESS_EVERY);
    progress_due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Whether something has happened since progress was told.
    let mut is_news = true;
    let mut host_gone = false;
    // Why a store could not go on; the peer is told before the session ends.
    let mut store_failure: Option<disk::StoreError> = None;

    let result = 'session: loop {
        while let Some(output) = session.poll() {
            match output {
                Output::Send(lane, message) => {
                    if let Err(error) = lanes.send(lane, message.to_frame()) {
                        break 'session Err(RunError::Link(error));
                    }
                }
                Output::Disk(request) => {
                    let (records, blobs) = (Arc::clone(&records), Arc::clone(&blobs));
                    disk.spawn(async move {
                        // Given back when it is done; that none is to be had would mean that they were closed, which nobody does.
                        let _turn = if request.is_of_a_patch() { PATCHES.acquire().await.ok() } else { None };
                        disk::carry_out(request, peer, records, blobs).await
                    });
                }
                Output::Event(event) => {
                    // A host that no longer listens has no more use for events; the session goes on.
                    let _ = reports.events.send(event).await;
                }
                Output::Closed(closed) => break 'session Ok(closed),
            }
        }
        let deadline = session.next_timeout().map(|at_ms| started + Duration::from_millis(at_ms));
        let input = tokio::select! {
            biased;
            input = host.recv(), if !host_gone => match input {
                Some(HostInput::LocalChange(bucket)) => Input::LocalChange(bucket),
                Some(HostInput::WantsChanged) => Input::WantsChanged,
                Some(HostInput::MoreWanted) => Input::MoreWanted,
                Some(HostInput::BlobCompleted(blob)) => Input::BlobCompleted(blob),
                Some(HostInput::CheckBlobs(blobs)) => Input::CheckBlobs(blobs),
                Some(HostInput::Fetching { blobs, begun }) => Input::Fetching { blobs, begun },
                Some(HostInput::Credit(word)) => Input::Credit(word),
                Some(HostInput::Stop(reason, text)) => Input::Stop(reason, text),
                None => {
                    host_gone = true;
                    Input::Stop(CloseReason::GoingAway, String::new())
                }
            },
            Some(done) = disk.join_next() => match done {
                Ok(Ok(Some(done))) => Input::Disk(done),
                Ok(Ok(None)) => continue,
                Ok(Err(error)) => {
                    let text = error.to_string();
                    store_failure.get_or_insert(error);
                    Input::Stop(CloseReason::StoreFailed, text)
                }
                Err(join_error) => break Err(RunError::Store(join_error.into())),
            },
            arrived = lanes.next(session.accepts(Lane::Records)) => match *arrived {
                Arrived::Message(lane, message) => Input::Message(lane, message),
                Arrived::Drained(lane) => Input::LaneDrained(lane),
                Arrived::Bad(error) => Input::Stop(error.close_reason(), error.to_string()),
                Arrived::Broken(error) => break Err(RunError::Link(error)),
            },
            () = sleep_until(deadline) => Input::Timer,
            _ = progress_due.tick(), if is_news => {
                let progress = session.progress();
                reports.progress.send_replace(progress);
                // Rates fall by themselves; of a session that is at rest there is nothing to tell, and thousands may be.
                is_news = progress.receive_rate > 0;
                continue;
            }
        };
        is_news = true;
        session.handle(input, now_ms());
    };

    if matches!(&result, Ok(closed) if !closed.by_peer) {
        let _ = tokio::time::timeout(CLOSE_LINGER, async {
            lanes.finish_control().await;
            link.closed().await;
        })
        .await;
    }
    link.close();
    lanes.stop().await;
    // Requests under way are let finish: a write that is cut off in the middle helps nobody.
    while let Some(done) = disk.join_next().await {
        if let Ok(Ok(Some(done))) = done {
            session.settle_after_close(&done);
        }
    }
    let unfinished: Vec<DiskRequest> = session.receiving().collect();
    for request in unfinished {
        if let Err(error) = disk::carry_out(request, peer, Arc::clone(&records), Arc::clone(&blobs)).await {
            tracing::warn!(%error, "could not keep what was received of a blob");
        }
    }
    reports.progress.send_replace(Progress::default());
    match store_failure {
        Some(error) => Err(RunError::Store(error)),
        None => result,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
