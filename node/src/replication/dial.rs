//! Dials the bridge, runs a session until it ends, waits, and dials again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alexandria_sync::driver::{self, HOST_INPUTS_MAX, HostInput, Reports, RunError};
use alexandria_sync::hlc::ClockQuality;
use alexandria_sync::id::NodeId;
use alexandria_sync::identity::is_to_be_renewed;
use alexandria_sync::outlook::Wait;
use alexandria_sync::session::{self, Closed, Collections, Event, Progress, Scope, Session};
use alexandria_sync::transport::Transport;
use alexandria_sync::wire::{CloseReason, Hello, PROTOCOL_MAX, PROTOCOL_MIN, feature};
use rand::Rng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::ReplicationConfig;
use super::companions::Companions;
use super::connect::{self, Connector, NoConnection};
use super::enroll;
use super::link::{Link, LinkError};
use super::membership::{Membership, MembershipError};
use super::over_the_link::OverTheLink;
use super::relay::relay;
use super::selection::Following;
use super::transport_choice::Why;
use crate::library::Library;
use crate::local::messages::ReplicationStatus;
use crate::store::StoreError;
use crate::store::absence::{ReadingAnew, Swept};

/// Events that may wait for the host; the session waits when they are more.
const EVENTS_MAX: usize = 64;

/// A session is begun anew after this: each one renews the lease.
const SESSION_TIME: Duration = Duration::from_hours(24);

/// A session that was open before a replication was asked for, and moves nothing for this long, holds what its peer
/// holds, or has not heard of it.
const QUIET_AFTER: Duration = Duration::from_secs(1);
/// The wait between two requests for another certificate.
const RENEWAL_PAUSE: Duration = Duration::from_hours(6);

/// Why one attempt did not come to a session, or the session not to its end.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Connect(#[from] NoConnection),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("the bridge ended the session: {0:?} {1}")]
    ClosedByBridge(CloseReason, String),
    #[error("the session was ended here: {0:?} {1}")]
    ClosedHere(CloseReason, String),
}

/// How a session ended.
enum End {
    /// It was done, or its time was.
    Over,
    /// The next one is to read something else.
    Outdated,
}

/// How a replication that was asked for ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SyncEnd {
    /// Both sides hold the same.
    Quiet,
    /// It did not come to that.
    Failed(String),
}

/// Replicates with the bridge of this node's fleet. Clones are handles on the same one.
#[derive(Clone)]
pub struct Replicator {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) library: Library,
    pub(super) config: ReplicationConfig,
    connector: Connector,
    pub(super) link: Arc<Link>,
    pub(super) state: watch::Sender<State>,
    /// Counts occasions to dial now.
    wake: watch::Sender<u64>,
    /// Replications under way that somebody asked for.
    asked: watch::Sender<u64>,
    /// Counts requests to end the session that is open.
    renew: watch::Sender<u64>,
    /// Counts enrolments.
    joined: watch::Sender<u64>,
    pub(super) next_attempt: Mutex<Option<Instant>>,
    /// When another certificate was last asked for.
    renewal_tried: Mutex<Option<Instant>>,
}

/// What is known about replication.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    bridge: Option<(NodeId, String)>,
    connected: bool,
    /// What carries the session, and why.
    transport: Option<(Transport, Why)>,
    progress: Progress,
    last_quiet_unix_ms: Option<u64>,
    last_error: Option<String>,
    /// Why something waits.
    pub(super) wait: Option<Wait>,
    /// Attempts that have ended, but for those that are counted next.
    attempts: u64,
    /// Sessions that ended because the next one is to read something else.
    outdated: u64,
    /// Times that both sides held the same.
    quiets: u64,
}

impl Replicator {
    /// A replicator that does nothing until [`Self::run`].
    pub fn new(library: Library, config: ReplicationConfig) -> Self {
        let inner = Inner {
            connector: Connector::new(library.data_dir(), &config),
            link: Arc::new(Link::new(&library, &config.link)),
            library,
            config,
            state: watch::Sender::new(State::default()),
            wake: watch::Sender::new(0),
            asked: watch::Sender::new(0),
            renew: watch::Sender::new(0),
            joined: watch::Sender::new(0),
            next_attempt: Mutex::default(),
            renewal_tried: Mutex::default(),
        };
        if let Ok(Some(membership)) = Membership::load(inner.library.data_dir()) {
            inner.library.store().records.set_bridge(Some(membership.bridge));
        }
        Self { inner: Arc::new(inner) }
    }

    /// How it goes; `None` if the node is in no fleet. Where it cannot be read which fleet that is, why.
    pub fn status(&self) -> Option<ReplicationStatus> {
        let state = self.inner.state.borrow().clone();
        let ((bridge, address), unreadable) = match state.bridge {
            Some(known) => (known, None),
            None => match Membership::load(self.inner.library.data_dir()) {
                Ok(membership) => membership.map(|membership| ((membership.bridge, membership.address), None))?,
                // People read this address.
                Err(error) => ((NodeId::default(), "the bridge".to_owned()), Some(with_causes(error))),
            },
        };
        let next_attempt = *self.inner.next_attempt.lock().unwrap_or_else(PoisonError::into_inner);
        let next_attempt_s = next_attempt.filter(|_| !state.connected);
        Some(ReplicationStatus {
            bridge,
            address,
            connected: state.connected,
            transport: state.transport.map(|(transport, _)| transport.to_string()),
            transport_reason: state.transport.map(|(_, why)| why.to_string()),
            last_quiet_unix_ms: state.last_quiet_unix_ms,
            next_attempt_s: next_attempt_s.map(|at| at.saturating_duration_since(Instant::now()).as_secs()),
            last_error: unreadable.or(state.last_error),
            rows_behind: state.progress.rows_behind,
            blobs_receiving: state.progress.blobs_receiving,
            bytes_to_receive: state.progress.bytes_to_receive,
            receive_rate: state.progress.receive_rate,
            bytes_received: state.progress.bytes_received,
            bytes_sent: state.progress.bytes_sent,
            bytes_to_send: state.progress.bytes_to_send,
            wait: state.wait,
            outlook: None,
        })
    }

    /// The node has joined a fleet, or has another certificate: a session that is open ends, and the bridge is dialled now;
    /// not if it is dialled only when asked.
    pub fn joined(&self) {
        self.inner.state.send_modify(|state| (state.bridge, state.last_error) = (None, None));
        self.inner.joined.send_modify(|times| *times += 1);
        self.wake();
    }

    /// Dials now instead of when the wait is over; not if it dials only when asked.
    fn wake(&self) {
        self.inner.wake.send_modify(|times| *times += 1);
    }

    /// Replicates until both sides hold the same, and tells progress on the way.
    pub async fn sync_once(&self, progress: mpsc::Sender<ReplicationStatus>) -> SyncEnd {
        match Membership::load(self.inner.library.data_dir()) {
            Ok(Some(_)) => {}
            Ok(None) => return SyncEnd::Failed("the node is not enrolled; `alexandria enroll` joins a fleet".into()),
            Err(error) => return SyncEnd::Failed(with_causes(error)),
        }
        let _asked = Asked::note(&self.inner.asked);
        let end = self.until_quiet(progress).await;
        if !self.inner.config.automatic {
            self.end_session();
        }
        end
    }

    async fn until_quiet(&self, progress: mpsc::Sender<ReplicationStatus>) -> SyncEnd {
        const TELL_EVERY: Duration = Duration::from_millis(500);
        let mut changes = self.inner.state.subscribe();
        let mut before = changes.borrow_and_update().clone();
        self.wake();
        let stall = Duration::from_secs(self.inner.config.stall_timeout_s);
        let mut moved_at = Instant::now();
        let mut moved = before.progress;
        // A session that has told of its quiet says nothing until something changes: a new one is asked.
        let mut may_be_quiet = before.connected;
        loop {
            let _ = tokio::time::timeout(TELL_EVERY, changes.changed()).await;
            let now = changes.borrow_and_update().clone();
            if now.quiets > before.quiets {
                return SyncEnd::Quiet;
            }
            let has_ended = now.attempts > before.attempts;
            if has_ended || now.outdated > before.outdated {
                if has_ended && !may_be_quiet && !now.connected {
                    return SyncEnd::Failed(now.last_error.unwrap_or_else(|| "the session ended early".into()));
                }
                // The session that was open before has ended; the next one counts.
                before = now.clone();
                may_be_quiet = false;
                self.wake();
            }
            if now.progress != moved {
                (moved, moved_at) = (now.progress, Instant::now());
            }
            if may_be_quiet && moved_at.elapsed() > QUIET_AFTER {
                self.end_session();
            }
            if let Some(wait) = &now.wait
                && now.connected
                && moved_at.elapsed() > QUIET_AFTER
            {
                return SyncEnd::Failed(wait.to_string());
            }
            if moved_at.elapsed() > stall {
                return SyncEnd::Failed(format!("no progress for {} s", stall.as_secs()));
            }
            if let Some(status) = self.status()
                && progress.send(status).await.is_err()
            {
                return SyncEnd::Failed("nobody waits for it any more".into());
            }
        }
    }

    fn end_session(&self) {
        self.inner.renew.send_modify(|times| *times += 1);
    }

    /// Dials whenever no session is open, and tells the library how the link stands, until the library closes.
    pub async fn run(&self) {
        tokio::join!(self.dial(), self.tell());
    }

    async fn dial(&self) {
        let inner = &self.inner;
        let mut wake = inner.wake.subscribe();
        let mut urgent = inner.library.store().blobs.urgent_changes();
        let mut wait = Duration::from_secs(inner.config.retry_min_s);
        loop {
            wake.borrow_and_update();
            let asked = *inner.asked.borrow() > 0;
            let membership = Membership::load(inner.library.data_dir());
            if matches!(membership, Ok(Some(_))) && (inner.config.automatic || asked) {
                let ended = self.attempt().await;
                let is_outdated = matches!(ended, Ok(End::Outdated));
                match ended {
                    Ok(_) => wait = Duration::from_secs(inner.config.retry_min_s),
                    Err(error) => {
                        let refused = matches!(error, AttemptError::ClosedByBridge(..));
                        let error = with_causes(error);
                        tracing::info!(%error, "replication will be tried again");
                        let text = error.clone();
                        let waits = if refused { Wait::Refused { text } } else { Wait::NoLink { error: text } };
                        inner.state.send_modify(|state| {
                            state.last_error = Some(error);
                            state.wait = Some(waits);
                        });
                    }
                }
                inner.state.send_modify(|state| {
                    state.connected = false;
                    state.transport = None;
                    state.progress = Progress::default();
                    *(if is_outdated { &mut state.outdated } else { &mut state.attempts }) += 1;
                });
            }
            // Between half and the whole, so that a fleet that lost its bridge does not come back all at once.
            let jittered = wait.mul_f64(rand::rng().random_range(0.5..=1.0));
            let pause = self.pause(jittered);
            if let Err(error) = membership {
                self.tell_unreadable(with_causes(error));
            }
            wait = (wait * 2).min(Duration::from_secs(inner.config.retry_max_s));
            tokio::select! {
                () = inner.library.closed() => return,
                _ = wake.changed() => wait = Duration::from_secs(inner.config.retry_min_s),
                // A reader waits for something.
                _ = urgent.changed(), if !self.is_held() => wait = self.soon().await,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// It cannot be read which fleet the node is in. Logged once.
    fn tell_unreadable(&self, error: String) {
        self.inner.state.send_modify(|state| {
            if state.last_error.as_ref() != Some(&error) {
                tracing::warn!(%error, "no replication before the node can read which fleet it is in");
            }
            state.wait = Some(Wait::NoLink { error: error.clone() });
            state.last_error = Some(error);
        });
    }

    async fn attempt(&self) -> Result<End, AttemptError> {
        let inner = &self.inner;
        let data_dir = inner.library.data_dir();
        // Before the membership is read: none that comes later is missed.
        let joined = inner.joined.subscribe();
        let Some(membership) = Membership::load(data_dir)? else { return Ok(End::Over) };
        let address = inner.connector.address(&membership, Transport::Quic).to_owned();
        inner.state.send_modify(|state| state.bridge = Some((membership.bridge, address.clone())));
        inner.connector.check_route(&membership).await?;
        self.sweep().await?;
        let link_use = inner.link.open().await?;
        let membership = self.renewed(membership).await;
        let store = inner.library.store();
        let now_unix_ms = store.records.now_unix_ms();
        let connected = match inner.connector.connect(&membership, &link_use.transport(), now_unix_ms).await {
            Ok(connected) => connected,
            Err(error) => {
                link_use.failed().await;
                return Err(error.into());
            }
        };
        let (over, why) = (connected.link.transport(), connected.why);

        let following = Following::begin(store.clone(), membership.bridge).await?;
        let node = store.records.identity();
        let hello = Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            node: node.node,
            incarnation: node.incarnation,
            epoch: node.epoch,
            unix_ms: store.records.now_unix_ms(),
            clock_quality: store.records.clock_quality(),
            software: concat!("alexandria ", env!("CARGO_PKG_VERSION")).to_owned(),
            features: feature::OWN_ROWS | feature::PATCHES,
            name: None,
            remembered: store.records.remembered_of(membership.bridge).await?,
            standing: Some(following.selected().to_bridge),
        };
        let scope = Scope { site: node.node, collections: Collections::All };
        let config = session::Config { credit: link_use.credit(), ..session::Config::default() };
        let session =
            Session::new(config, hello, membership.bridge, scope, 0).selecting(following.selected().selection.clone());
        let (host, inputs) = mpsc::channel(HOST_INPUTS_MAX);
        let (events, heard) = mpsc::channel(EVENTS_MAX);
        let (progress, progressed) = watch::channel(Progress::default());
        inner.state.send_modify(|state| {
            state.connected = true;
            state.transport = Some((over, why));
            state.last_error = None;
            state.wait = None;
        });
        tracing::info!(peer.id = %membership.bridge, %address, transport = %over, %why, "connected to the bridge");
        let mut companions = Companions::default();
        companions.spawn(relay(store.clone(), host.clone()));
        let wire = connected.link.wire_bytes();
        let measured = move || wire().all();
        let watching = link_use.watch(measured, host.clone(), self.waits());
        let measuring = tokio::spawn(connect::measure(progressed.clone(), connected.link.wire_bytes()));
        let (hearing, all_heard) = oneshot::channel::<()>();
        let listening = self.clone().listen(heard, progressed, watching.short(), following.clone());
        companions.spawn(async move {
            listening.await;
            drop(hearing);
        });
        let time = if why == Why::Probe { connect::PROBE_TIME } else { SESSION_TIME };
        companions.spawn(following.clone().ask(host.clone()));
        let nearby = inner.library.nearby().clone();
        companions.spawn(nearby.clone().look_again(store.blobs.arrivals(), host.clone()));
        let asked_to = [inner.renew.subscribe(), joined.clone()];
        companions.spawn(stop_with(inner.library.clone(), asked_to, time, following.clone(), host));
        let records = Arc::new(store.records.as_selected(following.selected().version));
        let is_asked_for = *inner.asked.borrow() > 0;
        let blobs = Arc::new(OverTheLink::new(store.blobs.session(), node.node, nearby, is_asked_for));
        let reports = Reports { events, progress };
        let running =
            Box::pin(driver::run(session, membership.bridge, records, blobs, connected.link, inputs, reports));
        let ended = companions.beside(running).await;
        // Fails once that is done.
        let _ = all_heard.await;
        drop(companions);
        watching.finish().await;
        let goodput = measuring.await.ok().flatten();
        let is_broken = matches!(ended, Err(RunError::Link(_)));
        inner.connector.note_end(&connected.way, goodput, is_broken, store.records.now_unix_ms());
        // Fails only if this replicator is gone.
        if following.is_outdated() || joined.has_changed().unwrap_or(false) {
            return Ok(End::Outdated);
        }
        match ended? {
            Closed { reason: CloseReason::Done | CloseReason::GoingAway, .. } => Ok(End::Over),
            Closed { reason, text, by_peer: true } => Err(AttemptError::ClosedByBridge(reason, text)),
            Closed { reason, text, by_peer: false } => Err(AttemptError::ClosedHere(reason, text)),
        }
    }

    /// The membership with another certificate, if this one's is in the last third of its time. Whatever comes of it, the bridge may
    /// take the one that there is.
    async fn renewed(&self, membership: Membership) -> Membership {
        let records = &self.inner.library.store().records;
        let is_due = is_to_be_renewed(&membership.certificate_pem, records.now_unix_ms() / 1000);
        if !is_due.unwrap_or(false) || !self.may_renew_now() {
            return membership;
        }
        let data_dir = self.inner.library.data_dir();
        match enroll::renew(data_dir, records.identity().node, &membership).await {
            Ok(renewed) => {
                tracing::info!("the bridge was asked for another certificate");
                renewed
            }
            Err(error) => {
                let error = with_causes(error);
                tracing::warn!(%error, "the certificate of this node is to be renewed, and was not; it is tried again");
                membership
            }
        }
    }

    /// Not at each attempt to reach the bridge.
    fn may_renew_now(&self) -> bool {
        let mut tried = self.inner.renewal_tried.lock().unwrap_or_else(PoisonError::into_inner);
        let may = tried.is_none_or(|at| at.elapsed() > RENEWAL_PAUSE);
        if may {
            *tried = Some(Instant::now());
        }
        may
    }

    /// Looks through the records once all was read anew, if that is due: no session is open now.
    async fn sweep(&self) -> Result<(), StoreError> {
        let records = &self.inner.library.store().records;
        if records.reading_anew()? != Some(ReadingAnew::Sweeping) {
            return Ok(());
        }
        let (mut left, mut kept) = (0, 0);
        while let Swept::More { forgotten, held_back } = records.sweep_some().await? {
            (left, kept) = (left + forgotten, kept + held_back);
        }
        tracing::warn!(
            deleted_elsewhere = left,
            held_back = kept,
            "all was read anew after a long absence; `alexandria heldback` shows what was not sent before"
        );
        self.inner.library.store().records.try_again();
        Ok(())
    }

    async fn listen(
        self,
        mut heard: mpsc::Receiver<Event>,
        mut progress: watch::Receiver<Progress>,
        short: watch::Sender<Option<u64>>,
        following: Following,
    ) {
        let state = &self.inner.state;
        loop {
            let event = tokio::select! {
                event = heard.recv() => match event {
                    Some(event) => event,
                    None => return,
                },
                Ok(()) = progress.changed() => {
                    let now = *progress.borrow_and_update();
                    short.send_replace(now.credit_short);
                    state.send_if_modified(|state| std::mem::replace(&mut state.progress, now) != now);
                    continue;
                }
            };
            following.hear(&event).await;
            match event {
                Event::PeerHello(hello) if hello.clock_quality == ClockQuality::Trusted => {
                    self.trust(hello.unix_ms).await;
                }
                Event::PeerHello(_)
                | Event::HeldByPeer { .. }
                | Event::Returned(_)
                | Event::BlobChecked { .. }
                | Event::PeerFetches { .. } => {}
                Event::Applied(bucket, applied) => {
                    tracing::debug!(%bucket, applied.applied, applied.superseded, applied.quarantined, "merged a page");
                }
                Event::BlobReceived { blob, size_bytes } => {
                    tracing::debug!(blob.hash = %blob, size_bytes, "content has arrived");
                    state.send_if_modified(|state| state.wait.take_if(|wait| *wait == Wait::NoRoom).is_some());
                }
                Event::ContentBlocked => {
                    tracing::warn!("no room for more content; records go on");
                    state.send_modify(|state| state.wait = Some(Wait::NoRoom));
                }
                Event::CreditShort(bytes) => {
                    short.send_replace(Some(bytes));
                }
                Event::Quiet => {
                    let now = self.inner.library.store().records.now_unix_ms();
                    state.send_modify(|state| {
                        state.quiets += 1;
                        state.last_quiet_unix_ms = Some(now);
                    });
                }
            }
        }
    }

    /// Takes over the bridge's time, and lets in what only a wrong clock had kept out.
    async fn trust(&self, unix_ms: u64) {
        let records = &self.inner.library.store().records;
        records.set_trusted_time(unix_ms);
        if let Err(error) = records.replay_quarantine().await {
            tracing::warn!(%error, "records that were set aside could not be tried again");
        }
    }
}

/// A replication that somebody waits for.
struct Asked<'a>(&'a watch::Sender<u64>);

impl<'a> Asked<'a> {
    fn note(all: &'a watch::Sender<u64>) -> Self {
        all.send_modify(|count| *count += 1);
        Self(all)
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Ends the session when the library closes, when it is asked to end, when the node joins another fleet, when its time is
/// over, or when other collections are chosen.
async fn stop_with(
    library: Library,
    [mut renew, mut joined]: [watch::Receiver<u64>; 2],
    time: Duration,
    following: Following,
    host: mpsc::Sender<HostInput>,
) {
    tokio::select! {
        () = library.closed() => {}
        _ = renew.changed() => {}
        _ = joined.changed() => {}
        () = following.outdated() => {}
        () = tokio::time::sleep(time) => {}
    }
    // A session that is gone needs no stopping.
    let _ = host.send(HostInput::Stop(CloseReason::GoingAway, String::new())).await;
}

fn with_causes(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

#[cfg(test)]
mod tests;
