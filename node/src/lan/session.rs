//! One session with another node: what it may touch, what it hears, and when it ends.

use std::sync::Arc;
use std::time::Duration;

use alexandria_sync::driver::{self, HOST_INPUTS_MAX, HostInput, Reports, RunError};
use alexandria_sync::id::NodeId;
use alexandria_sync::session::{self, Closed, Event, Progress, Scope, Session};
use alexandria_sync::transport::AnyLink;
use alexandria_sync::wire::{CloseReason, Hello, PROTOCOL_MAX, PROTOCOL_MIN, feature};
use tokio::sync::{mpsc, oneshot, watch};

use crate::library::Library;
use crate::library::nearby::Nearby;
use crate::replication::{Companions, relay};
use crate::store::Store;

/// Events that may wait for the host; the session waits when they are more.
const EVENTS_MAX: usize = 64;

/// What the other node does not have is asked for again after this, should its word that it has it now be lost among too many
/// others: here asking costs nothing.
const ABSENT_RETRY_MS: u64 = 15_000;

/// A session is begun anew after this: how the two stand is told at its beginning.
const SESSION_TIME: Duration = Duration::from_hours(24);

/// How a session is told things, and what it is busy with.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) host: mpsc::Sender<HostInput>,
    pub(super) progress: watch::Receiver<Progress>,
}

/// A session that has not begun.
pub(super) struct Prepared {
    pub(super) handle: Handle,
    inputs: mpsc::Receiver<HostInput>,
    progress: watch::Sender<Progress>,
}

impl Default for Prepared {
    fn default() -> Self {
        let (host, inputs) = mpsc::channel(HOST_INPUTS_MAX);
        let (progress, progressed) = watch::channel(Progress::default());
        Self { handle: Handle { host, progress: progressed }, inputs, progress }
    }
}

impl Prepared {
    /// Runs it until it ends. Returns whether the peer has introduced itself.
    pub(super) async fn run(self, library: &Library, name: String, peer: NodeId, link: AnyLink) -> bool {
        let store = library.store();
        let selected = match store.records.selected().await {
            Ok(selected) => selected,
            Err(error) => {
                tracing::error!(%error, "no session with another node: what is kept here cannot be read");
                return false;
            }
        };
        if selected.selection.all_anew {
            tracing::debug!("no session with another node before all was read anew from the bridge");
            return false;
        }
        // After what is selected: a new life that has begun since then ends the session.
        let here = store.records.identity();
        let remembered = match store.records.remembered_of(peer).await {
            Ok(remembered) => remembered,
            Err(error) => {
                tracing::error!(%error, "no session with another node: what is remembered of it cannot be read");
                return false;
            }
        };
        let hello = Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            node: here.node,
            incarnation: here.incarnation,
            epoch: here.epoch,
            unix_ms: store.records.now_unix_ms(),
            clock_quality: store.records.clock_quality(),
            software: concat!("alexandria ", env!("CARGO_PKG_VERSION")).to_owned(),
            features: feature::OWN_ROWS | feature::PATCHES,
            name: Some(name),
            remembered,
            standing: Some(selected.nearby),
        };
        let config = session::Config { absent_retry_ms: ABSENT_RETRY_MS, ..session::Config::default() };
        let session = Session::new(config, hello, peer, Scope::between_nodes(), 0).selecting(selected.selection);
        let (events, heard) = mpsc::channel(EVENTS_MAX);
        let reports = Reports { events, progress: self.progress };
        let mut companions = Companions::default();
        companions.spawn(relay(store.clone(), self.handle.host.clone()));
        let (hearing, all_heard) = oneshot::channel();
        let listening = listen(heard, peer, library.nearby().clone());
        companions.spawn(async move {
            // Nobody waits for it if the session is given up.
            let _ = hearing.send(listening.await);
        });
        companions.spawn(end_when_chosen(store.clone(), selected.version, self.handle.host.clone()));
        let records = Arc::new(store.records.as_selected(selected.version));
        let blobs = Arc::new(store.blobs.session());
        let running = Box::pin(driver::run(session, peer, records, blobs, link, self.inputs, reports));
        let ended = companions.beside(running).await;
        let met = all_heard.await.unwrap_or(false);
        tell(&ended);
        met
    }
}

/// Ends the session once something else is chosen to be kept here, which the next one pulls, or after a day.
async fn end_when_chosen(store: Store, version: u64, session: mpsc::Sender<HostInput>) {
    let mut choices = store.records.selection_changes();
    // Fails only if the store is gone, or the time is over.
    let _ = tokio::time::timeout(SESSION_TIME, choices.wait_for(|now| *now != version)).await;
    let why = "a new session tells how this node stands now".to_owned();
    // A session that is gone needs no stopping.
    let _ = session.send(HostInput::Stop(CloseReason::GoingAway, why)).await;
}

/// Hears what the session tells until it is over. Whether the peer has introduced itself.
async fn listen(mut heard: mpsc::Receiver<Event>, peer: NodeId, nearby: Nearby) -> bool {
    let mut met = false;
    while let Some(event) = heard.recv().await {
        match event {
            // Its time is not taken over: only the bridge's is vouched for.
            Event::PeerHello(hello) => {
                met = true;
                nearby.is_called(peer, hello.name.as_deref().unwrap_or_default());
                tracing::info!(software = hello.software, "met another node");
            }
            Event::Applied(bucket, applied) => {
                tracing::debug!(%bucket, applied.applied, applied.superseded, applied.quarantined, "merged a page");
            }
            Event::BlobReceived { blob, size_bytes } => {
                tracing::debug!(blob.hash = %blob, size_bytes, "content has arrived");
            }
            Event::ContentBlocked => tracing::warn!("no room for more content; records go on"),
            Event::BlobChecked { blob, held_by_peer } => nearby.answered(peer, blob, held_by_peer),
            Event::PeerFetches { blobs, begun } => nearby.fetches(peer, &blobs, begun),
            // What a neighbour holds is no reason to give anything up here, and what it gave back may not be all:
            // the bridge has the word on both.
            Event::HeldByPeer { .. } | Event::Returned(_) | Event::CreditShort(_) | Event::Quiet => {}
        }
    }
    met
}

fn tell(ended: &Result<Closed, RunError>) {
    match ended {
        Ok(Closed { reason: CloseReason::Done | CloseReason::GoingAway, text, by_peer }) => {
            tracing::info!(text, by_peer, "a session with another node ended");
        }
        Ok(Closed { reason, text, by_peer }) => {
            tracing::warn!(?reason, text, by_peer, "a session with another node was broken off");
        }
        Err(RunError::Link(error)) => tracing::info!(%error, "the connection to another node ended"),
        Err(RunError::Store(error)) => {
            tracing::error!(%error, "a session with another node ended: the store failed");
        }
    }
}
