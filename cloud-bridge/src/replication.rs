//! Sessions with nodes: who is let in, what a session may touch, and when it ends.
//!
//! The transport has checked that a node's certificate is from this fleet; here the fleet is asked whether the node is
//! still welcome. A session then pulls and serves the catalogue, all collections and the node's own site. It hears of
//! every feed that grows and of every blob that becomes whole, whichever session or process brought it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alexandria_sync::absence::Standing;
use alexandria_sync::driver::{self, HOST_INPUTS_MAX, HostInput, Reports};
use alexandria_sync::hlc::ClockQuality;
use alexandria_sync::id::NodeId;
use alexandria_sync::lineage::Remembered;
use alexandria_sync::session::{self, Collections, Event, Progress, Scope, Session};
use alexandria_sync::store::RecordStore;
use alexandria_sync::tcp;
use alexandria_sync::transport::{AnyLink, ConnectError, Knock, Listener};
use alexandria_sync::wire::{CloseReason, Hello, PROTOCOL_MAX, PROTOCOL_MIN, feature};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::Instrument;

use crate::config::QuicConfig;
use crate::content::Content;
use crate::fleet::Fleet;
use crate::metrics::{Metrics, Refusal};
use crate::postgres::{RecordStoreError, Records, STATEMENT_PATIENCE, in_time, may_access, now_unix_ms};

/// Events of a session that may wait to be read.
const EVENTS_MAX: usize = 64;
/// Nodes that took each other's places without a session in between, at most.
const REPLACED_IN_A_ROW_MAX: usize = 16;
/// How long it may take to hand over what belongs to a site, unless PostgreSQL is gone without a word.
const HANDOVER_MAX: Duration = Duration::from_mins(5);
/// How often running sessions are compared with the revoked nodes.
pub(crate) const REVOCATION_INTERVAL: Duration = Duration::from_secs(5);
/// How long running sessions may take to end at shutdown.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(15);

/// Accepts sessions.
#[derive(Clone)]
pub struct Replication {
    shared: Arc<Shared>,
}

struct Shared {
    records: Records,
    content: Content,
    fleet: Fleet,
    metrics: Metrics,
    config: QuicConfig,
    slots: Arc<Semaphore>,
    /// Where each running session hears that it is to end. A node has one, and for a moment others that are just ending.
    running: Mutex<BTreeMap<(NodeId, SessionNumber), mpsc::Sender<HostInput>>>,
}

type SessionNumber = u64;

impl Replication {
    /// Sessions over these stores.
    pub fn new(records: Records, content: Content, fleet: Fleet, config: QuicConfig, metrics: Metrics) -> Self {
        let slots = Arc::new(Semaphore::new(config.sessions_max));
        let running = Mutex::default();
        Self { shared: Arc::new(Shared { records, content, fleet, metrics, config, slots, running }) }
    }

    /// Accepts sessions until told to stop, then lets those that run end in good order.
    pub async fn serve(self, listener: Listener, stop: CancellationToken) {
        let sessions = TaskTracker::new();
        // Beside accepting, which does not wait for PostgreSQL.
        let _revocations = AbortOnDropHandle::new(tokio::spawn(self.clone().end_revoked_again_and_again()));
        loop {
            tokio::select! {
                knock = listener.accept() => {
                    let Ok(knock) = knock else { break };
                    let (replication, stop) = (self.clone(), stop.clone());
                    sessions.spawn(async move { Box::pin(replication.let_in(knock, stop)).await });
                }
                () = stop.cancelled() => break,
            }
        }
        sessions.close();
        if tokio::time::timeout(SHUTDOWN_PATIENCE, sessions.wait()).await.is_err() {
            tracing::warn!("sessions were still running at the end of the shutdown and are cut off");
        }
        listener.close().await;
    }

    /// How many go through their handshake at once is the listener's business; a session's slot is for those of the fleet.
    async fn let_in(&self, knock: Knock, stop: CancellationToken) {
        let address = knock.remote_address();
        let metrics = &self.shared.metrics;
        let link = match knock.answer().await {
            Ok(link) => link,
            Err(error) => {
                if let Some(reason) = refusal(&error) {
                    metrics.refused_connection(reason);
                }
                tracing::warn!(%address, error = &error as &dyn std::error::Error, "a connection was refused");
                return;
            }
        };
        let Ok(slot) = Arc::clone(&self.shared.slots).try_acquire_owned() else {
            metrics.refused_connection(Refusal::Overload);
            link.refuse("come again later");
            return;
        };
        let node = link.peer().id;
        let admitted = match self.shared.fleet.admit(node).await {
            Ok(Ok(admitted)) => admitted,
            Ok(Err(reason)) => {
                metrics.refused_connection(reason);
                tracing::warn!(node.id = %node, %address, ?reason, "a node was refused");
                link.refuse("not welcome");
                return;
            }
            Err(error) => {
                tracing::warn!(node.id = %node, error = &error as &dyn std::error::Error, "no node can be let in");
                link.refuse("come again later");
                return;
            }
        };
        if admitted.is_heir {
            let handed_over = hand_over_site(&self.shared.records, &self.shared.fleet, node);
            if let Err(error) = in_time(HANDOVER_MAX, handed_over).await {
                tracing::warn!(node.id = %node, error = &error as &dyn std::error::Error, "a site could not be handed over");
                link.refuse("come again later");
                return;
            }
        }
        let over = link.transport();
        let span = tracing::info_span!("session", peer.id = %node, peer.address = %address, transport = %over);
        Box::pin(self.run(link, node, admitted.standing_unless_told, stop).instrument(span)).await;
        drop(slot);
    }

    async fn run(&self, link: AnyLink, node: NodeId, standing_unless_told: Standing, stop: CancellationToken) {
        let shared = &self.shared;
        let looked_up = async {
            // Before the feeds are looked at: whatever had arrived by then is in them.
            let standing = shared.records.present().await?;
            Ok::<_, RecordStoreError>((standing, shared.records.remembered(node).await?))
        };
        let (standing, remembered) = match in_time(STATEMENT_PATIENCE, looked_up).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a session could not begin");
                return;
            }
        };
        let (host, inputs) = mpsc::channel(HOST_INPUTS_MAX);
        let (events, heard) = mpsc::channel(EVENTS_MAX);
        let (progress, _) = watch::channel(Progress::default());
        let number = rand::random();
        self.end_earlier(node);
        shared.running().insert((node, number), host.clone());
        shared.metrics.sessions_open.inc();
        let helpers = [
            tokio::spawn(self.clone().tell(node, host, stop)),
            tokio::spawn(self.clone().hear(node, standing, heard).in_current_span()),
        ];

        let scope = Scope { site: node, collections: Collections::All };
        let config = session::Config {
            window_bytes_max: shared.config.session_window_bytes,
            standing_unless_told,
            ..Default::default()
        };
        let hello = hello(&shared.records, standing, feature::OWN_ROWS | feature::PATCHES, remembered);
        let session = Session::new(config, hello, node, scope, 0);
        let records = Arc::new(shared.records.for_node(node));
        let content = Arc::new(shared.content.clone());
        let ended = driver::run(session, node, records, content, link, inputs, Reports { events, progress }).await;

        shared.running().remove(&(node, number));
        shared.metrics.sessions_open.dec();
        for helper in helpers {
            helper.abort();
        }
        match ended {
            Ok(closed) => {
                shared.metrics.sessions_completed.inc();
                tracing::info!(reason = ?closed.reason, text = closed.text, by_peer = closed.by_peer, "a session ended");
            }
            Err(error) => {
                shared.metrics.sessions_failed.inc();
                tracing::warn!(error = &error as &dyn std::error::Error, "a session broke off");
            }
        }
    }

    /// Hears what a session tells, and keeps how the node stands.
    async fn hear(self, node: NodeId, standing: Standing, mut events: mpsc::Receiver<Event>) {
        let fleet = &self.shared.fleet;
        while let Some(event) = events.recv().await {
            let noted = match event {
                Event::PeerHello(hello) => {
                    tracing::info!(software = hello.software, epoch = hello.epoch.0, "a session began");
                    fleet.note_standing(node, hello.standing).await
                }
                Event::Quiet => {
                    tracing::debug!("both ends hold the same");
                    fleet.note_in_step(node, standing.in_step_ms).await
                }
                event => {
                    tell(&event);
                    Ok(())
                }
            };
            if let Err(error) = noted {
                tracing::warn!(error = &error as &dyn std::error::Error, "how a node stands could not be noted");
            }
        }
    }

    /// Tells a session what happens elsewhere, until it no longer listens.
    async fn tell(self, node: NodeId, host: mpsc::Sender<HostInput>, stop: CancellationToken) {
        let mut grown = self.shared.records.grown();
        let mut completed = self.shared.content.completed();
        let mut wanted_again = self.shared.content.wanted_again();
        loop {
            let inputs = tokio::select! {
                bucket = grown.recv() => match bucket {
                    Ok(bucket) if may_access(node, bucket) => vec![HostInput::LocalChange(bucket)],
                    Ok(_) => continue,
                    Err(RecvError::Lagged(_)) => match self.shared.records.for_node(node).heads().await {
                        Ok(heads) => heads.into_iter().map(|head| HostInput::LocalChange(head.bucket)).collect(),
                        Err(_) => continue,
                    },
                    Err(RecvError::Closed) => return,
                },
                blob = completed.recv() => match blob {
                    Ok(blob) => vec![HostInput::BlobCompleted(blob)],
                    // The peer asks again after a while for what it was not told of.
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                },
                Ok(()) = wanted_again.changed() => vec![HostInput::MoreWanted],
                () = stop.cancelled() => {
                    let _ = host.send(HostInput::Stop(CloseReason::GoingAway, "the bridge stops".into())).await;
                    // The session ends when it has told its peer; letting go of `host` now would say it again.
                    host.closed().await;
                    return;
                }
            };
            for input in inputs {
                if host.send(input).await.is_err() {
                    return;
                }
            }
        }
    }

    /// A node has one session. One that is still open here is that of an earlier life, or of a path that is gone; what
    /// it is receiving is wanted by the new one.
    fn end_earlier(&self, node: NodeId) {
        for (_, stop) in self.shared.running().range((node, SessionNumber::MIN)..=(node, SessionNumber::MAX)) {
            // One that is too full to hear of it ends by itself, later.
            let _ = stop.try_send(HostInput::Stop(CloseReason::GoingAway, "a newer session is open".into()));
        }
    }

    async fn end_revoked_again_and_again(self) {
        let mut due = tokio::time::interval(REVOCATION_INTERVAL);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            if tokio::time::timeout(STATEMENT_PATIENCE, self.end_revoked()).await.is_err() {
                tracing::warn!("revocations could not be read in time");
            }
        }
    }

    async fn end_revoked(&self) {
        let nodes: Vec<NodeId> = self.shared.running().keys().map(|(node, _)| *node).collect();
        if nodes.is_empty() {
            return;
        }
        let revoked = match self.shared.fleet.revoked_among(&nodes).await {
            Ok(revoked) => revoked,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "revocations cannot be read");
                return;
            }
        };
        for ((node, _), stop) in self.shared.running().iter().filter(|((node, _), _)| revoked.contains(node)) {
            tracing::info!(node.id = %node, "the session of a revoked node is ended");
            // A full queue is tried again at the next look.
            let _ = stop.try_send(HostInput::Stop(CloseReason::NotWelcome, "the node was revoked".into()));
        }
    }
}

impl Shared {
    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<(NodeId, SessionNumber), mpsc::Sender<HostInput>>> {
        self.running.lock().expect("no holder of this lock panics")
    }
}

/// Who the bridge is, how it stands, and what it remembers of whom it speaks to.
pub(crate) fn hello(records: &Records, standing: Standing, features: u64, remembered: Vec<Remembered>) -> Hello {
    let identity = records.identity();
    Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        node: identity.node_id(),
        incarnation: identity.incarnation(),
        epoch: identity.epoch(),
        unix_ms: now_unix_ms(),
        clock_quality: ClockQuality::Trusted,
        software: concat!("alexandria-bridge/", env!("CARGO_PKG_VERSION")).into(),
        features,
        name: None,
        remembered,
        standing: Some(standing),
    }
}

/// A node that replaces another gets all that belongs to its site before anything is exchanged with it.
pub(crate) async fn hand_over_site(records: &Records, fleet: &Fleet, node: NodeId) -> Result<(), RecordStoreError> {
    // One that was itself to replace another may have been replaced before it ever came.
    let (mut steps, mut to) = (Vec::new(), node);
    while steps.len() < REPLACED_IN_A_ROW_MAX
        && let Some(from) = fleet.to_be_handed_over(to).await?
    {
        steps.push((from, to));
        to = from;
    }
    for (from, to) in steps.into_iter().rev() {
        let handed_over = records.hand_over_site(from, to).await?;
        fleet.note_handed_over(to).await?;
        tracing::info!(node.id = %to, replaced.id = %from, records = handed_over, "a site was handed over");
    }
    Ok(())
}

/// What a handshake that failed is counted as; nothing if the network took it.
fn refusal(error: &ConnectError) -> Option<Refusal> {
    use tcp::ConnectError as OverTcp;
    match error {
        error if error.is_of_the_network() => None,
        ConnectError::Tcp(
            OverTcp::OtherProtocol | OverTcp::FirstWord | OverTcp::UnknownSession | OverTcp::MayNotJoin,
        ) => Some(Refusal::Malformed),
        // A certificate that is missing, of another authority or without a name fails the handshake.
        _ => Some(Refusal::ForeignCertificate),
    }
}

fn tell(event: &Event) {
    match event {
        Event::BlobReceived { blob, size_bytes } => tracing::info!(blob.hash = %blob, size_bytes, "a blob arrived"),
        Event::ContentBlocked => tracing::warn!("there is no room for content"),
        Event::Applied(bucket, applied) => tracing::debug!(%bucket, ?applied, "a page was merged"),
        // Heard above, or told only to who has a budget, or pulls less than all.
        Event::PeerHello(_)
        | Event::Quiet
        | Event::CreditShort(_)
        | Event::HeldByPeer { .. }
        | Event::Returned(_)
        | Event::BlobChecked { .. }
        | Event::PeerFetches { .. } => {}
    }
}
