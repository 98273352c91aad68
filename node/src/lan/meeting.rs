//! Meets the other nodes: listens and dials, keeps one session with each, and tells who is there.
//!
//! Nothing happens before the node has joined a fleet. When it joins another one, or its certificate is a new one,
//! everything is begun anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alexandria_sync::domain::Revocation;
use alexandria_sync::driver::HostInput;
use alexandria_sync::id::{BucketId, NodeId};
use alexandria_sync::identity::{Identity, PeerIdentity, PeerRole};
use alexandria_sync::quic::{self, TransportConfig};
use alexandria_sync::tcp::{self, TcpConfig};
use alexandria_sync::tls::{ClientTls, ServerTls};
use alexandria_sync::transport::{AnyLink, ConnectError, Knock, Listener};
use alexandria_sync::wire::CloseReason;
use alexandria_sync::wire::message::NAME_CHARS_MAX;
use futures::FutureExt;
use rand::Rng;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use super::LanConfig;
use super::announce::{Announcement, Heard};
use super::peers::{Peers, Place};
use super::session::{Handle, Prepared};
use crate::library::Library;
use crate::local::messages::{LanPeerStatus, LanStatus};
use crate::replication::membership::{Membership, MembershipError};
use crate::store::time::BUILD_UNIX_MS;

/// How often it is looked whether somebody is to be dialled.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether the node has joined a fleet, or has another certificate.
const MEMBERSHIP_EVERY: Duration = Duration::from_secs(5);
/// How long an address may take to answer over one transport: it is near, or not there.
const DIAL_PATIENCE: Duration = Duration::from_secs(5);
/// Handshakes of others under way at once, at most.
const INCOMING_MAX: usize = 64;
/// Addresses of who was refused that are remembered, so that each is logged once.
const REFUSED_LOGGED_MAX: usize = 256;
/// How long sessions may take to end when the node shuts down.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);

/// Why no other node can be met.
#[derive(Debug, thiserror::Error)]
enum MeetError {
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error("the certificate is not usable")]
    Tls(#[from] rustls::Error),
    #[error("listen for other nodes on {address}")]
    Listen { address: SocketAddr, source: ConnectError },
}

/// Why a node that was dialled was not met.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("the certificate is not usable")]
    Tls(#[from] rustls::Error),
    #[error("look up {address}")]
    Lookup { address: String, source: std::io::Error },
    #[error("{0} leads nowhere")]
    NoAddress(String),
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// The meetings with other nodes. Clones are handles on the same ones.
#[derive(Clone)]
pub struct Lan {
    inner: Arc<Inner>,
}

struct Inner {
    library: Library,
    config: LanConfig,
    /// Where to listen, if at all.
    address: Option<SocketAddr>,
    /// What people call this node.
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    listening: Option<SocketAddr>,
    last_error: Option<String>,
    peers: Option<Peers>,
    /// Whose word it is who was revoked.
    bridge: Option<NodeId>,
    sessions: BTreeMap<NodeId, Running>,
    /// Connections that were not let in.
    refused: u64,
    refused_logged: BTreeSet<IpAddr>,
    /// Sessions begun so far.
    begun: u64,
}

impl State {
    fn has_room_for(&self, node: NodeId, sessions_max: usize) -> bool {
        self.sessions.len() < sessions_max || self.sessions.contains_key(&node)
    }
}

/// A session that is open.
struct Running {
    number: u64,
    address: SocketAddr,
    transport: alexandria_sync::transport::Transport,
    handle: Handle,
}

/// What is needed to dial.
struct Dialler {
    identity: Identity,
}

impl Lan {
    /// Meets nobody until [`Self::run`], for a library that is served at `served_at` by the machine that people call `name`.
    pub fn new(library: Library, config: LanConfig, served_at: SocketAddr, name: &str) -> Self {
        let address = config.address(served_at);
        let name = config.name.as_deref().unwrap_or(name).chars().take(NAME_CHARS_MAX).collect();
        Self { inner: Arc::new(Inner { library, config, address, name, state: Mutex::default() }) }
    }

    /// Who is there; `None` if nobody is looked for.
    pub fn status(&self) -> Option<LanStatus> {
        self.inner.address?;
        let state = self.state();
        let mut peers: BTreeMap<NodeId, LanPeerStatus> = BTreeMap::new();
        for (node, address) in state.peers.iter().flat_map(Peers::list) {
            peers.insert(node, LanPeerStatus { node, address, ..LanPeerStatus::default() });
        }
        for (&node, running) in &state.sessions {
            let progress = *running.handle.progress.borrow();
            let status = LanPeerStatus {
                node,
                address: running.address.to_string(),
                connected: true,
                transport: Some(running.transport.to_string()),
                rows_behind: progress.rows_behind,
                bytes_to_receive: progress.bytes_to_receive,
                bytes_received: progress.bytes_received,
                bytes_sent: progress.bytes_sent,
            };
            peers.insert(node, status);
        }
        Some(LanStatus {
            listening: state.listening.map(|address| address.to_string()),
            last_error: state.last_error.clone(),
            refused: state.refused,
            peers: peers.into_values().collect(),
        })
    }

    /// Meets whoever is there until the library closes.
    pub async fn run(&self) {
        let Some(address) = self.inner.address else { return };
        loop {
            let met = match Membership::load(self.inner.library.data_dir()) {
                Ok(Some(membership)) => self.meet(&membership, address).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error.into()),
            };
            let error = met.err().map(|error| format!("{:#}", anyhow::Error::from(error)));
            {
                let mut state = self.state();
                if state.last_error != error {
                    if let Some(error) = &error {
                        tracing::warn!(%error, "no other node can be met; it will be tried again");
                    }
                    state.last_error = error;
                }
            }
            tokio::select! {
                () = self.inner.library.closed() => return,
                () = tokio::time::sleep(MEMBERSHIP_EVERY) => {}
            }
        }
    }

    /// Meets the nodes of this fleet until the library closes or the membership is another one.
    async fn meet(&self, membership: &Membership, address: SocketAddr) -> Result<(), MeetError> {
        let library = &self.inner.library;
        let identity = membership.identity(library.data_dir())?;
        let (here, fleet) = (library.store().records.identity().node, identity.fleet_tag());
        let tls = ServerTls::for_peers(&identity, BUILD_UNIX_MS / 1000)?;
        let (listener, quic_at, tcp_port) =
            listen(address, &tls).map_err(|source| MeetError::Listen { address, source })?;
        // Before anybody comes in: a site's content is for its own node and the bridge.
        let bridge = membership.bridge;
        library.store().blobs.set_permission(Arc::new(move |peer, bucket| match bucket {
            BucketId::Site(_) => peer == bridge,
            BucketId::Catalogue | BucketId::Collection(_) => true,
        }));
        {
            let mut state = self.state();
            state.peers = Some(Peers::new(here, &self.inner.config.peers, &self.inner.config.denied, Instant::now()));
            state.bridge = Some(bridge);
            state.listening = Some(quic_at);
            state.last_error = None;
        }
        let announcement = self.announce(here, fleet, quic_at, tcp_port);
        tracing::info!(address = %quic_at, tcp_port, announced = announcement.is_some(), "listening for other nodes");
        let dialler = Arc::new(Dialler { identity });
        let mut tasks = JoinSet::new();
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut membership_due = tokio::time::interval(MEMBERSHIP_EVERY);
        loop {
            tokio::select! {
                () = library.closed() => break,
                knock = listener.accept() => {
                    let Ok(knock) = knock else { break };
                    if tasks.len() < INCOMING_MAX + 2 * self.inner.config.sessions_max {
                        let lan = self.clone();
                        tasks.spawn(async move { lan.let_in(knock).await });
                    }
                }
                heard = hear(announcement.as_ref()) => self.note(heard),
                _ = look.tick() => {
                    for (node, place) in self.due() {
                        let (lan, dialler) = (self.clone(), Arc::clone(&dialler));
                        tasks.spawn(async move { lan.dial(node, place, &dialler).await });
                    }
                }
                _ = membership_due.tick() => {
                    let now = Membership::load(library.data_dir());
                    if now.is_ok_and(|now| now.as_ref() != Some(membership)) {
                        break;
                    }
                    self.end_revoked();
                }
                Some(_) = tasks.join_next() => {}
            }
        }
        self.end_all();
        if let Some(announcement) = announcement {
            announcement.close().await;
        }
        let _ = tokio::time::timeout(SHUTDOWN_PATIENCE, async { while tasks.join_next().await.is_some() {} }).await;
        tasks.shutdown().await;
        listener.close().await;
        let mut state = self.state();
        (state.listening, state.peers) = (None, None);
        state.sessions.clear();
        Ok(())
    }

    fn announce(
        &self,
        here: NodeId,
        fleet: [u8; 8],
        listen: SocketAddr,
        tcp_port: Option<u16>,
    ) -> Option<Announcement> {
        if !self.inner.config.announces(listen.ip()) {
            return None;
        }
        let announced = Announcement::start(here, fleet, listen, tcp_port);
        announced.inspect_err(|error| tracing::warn!(%error, "this node cannot announce itself")).ok()
    }

    fn note(&self, heard: Heard) {
        let mut state = self.state();
        let Some(peers) = &mut state.peers else { return };
        match heard {
            Heard::Hint(hint) => {
                let node = hint.node;
                if peers.hear(hint, Instant::now()) {
                    tracing::info!(peer.id = %node, "another node is announced");
                }
            }
            Heard::Gone(node) => peers.leave(node),
        }
    }

    /// Whom to dial now, as far as more sessions may be open once those who are being dialled have answered.
    fn due(&self) -> Vec<(NodeId, Place)> {
        let mut state = self.state();
        let State { peers: Some(peers), sessions, .. } = &mut *state else { return Vec::new() };
        let dialled = peers.busy().filter(|node| !sessions.contains_key(node)).count();
        let room = self.inner.config.sessions_max.saturating_sub(sessions.len() + dialled);
        peers.due(Instant::now(), room)
    }

    async fn dial(&self, node: NodeId, place: Place, dialler: &Dialler) {
        let met = contained(node, self.dial_once(node, place, dialler)).await.unwrap_or(false);
        let chance = rand::rng().random_range(0.0..1.0);
        if let Some(peers) = &mut self.state().peers {
            peers.ended(node, met, Instant::now(), chance);
        }
    }

    async fn dial_once(&self, node: NodeId, place: Place, dialler: &Dialler) -> bool {
        match dialler.dial(node, &place).await {
            // Looked up last, for it may have been told while somebody answered.
            Ok((link, _)) if self.is_revoked(node) => {
                link.refuse("not welcome");
                false
            }
            Ok((link, address)) => self.hold(link, node, address).await,
            Err(error) => {
                tracing::debug!(peer.id = %node, error = &error as &dyn std::error::Error, "a node was not reached");
                false
            }
        }
    }

    async fn let_in(&self, knock: Knock) {
        let address = knock.remote_address();
        let link = match knock.answer().await {
            Ok(link) => link,
            Err(error) => return self.refused(address, &error),
        };
        let node = link.peer().id;
        let is_revoked = self.is_revoked(node);
        let welcome = {
            let state = self.state();
            let has_room = state.has_room_for(node, self.inner.config.sessions_max);
            match &state.peers {
                Some(peers) if is_revoked || !peers.may_meet(node) => Err("not welcome"),
                Some(peers) if peers.dials(node) => Err("the other end dials"),
                Some(_) if has_room => Ok(()),
                _ => Err("come again later"),
            }
        };
        match welcome {
            Ok(()) => drop(self.hold(link, node, address).await),
            Err(why) => {
                link.refuse(why);
                self.refused(address, &format_args!("node {node}: {why}"));
            }
        }
    }

    /// Runs a session to its end, in place of an earlier one with the same node, unless too many are open by now.
    async fn hold(&self, link: AnyLink, node: NodeId, address: SocketAddr) -> bool {
        let transport = link.transport();
        let prepared = Prepared::default();
        let (number, earlier) = {
            let mut state = self.state();
            if !state.has_room_for(node, self.inner.config.sessions_max) {
                link.refuse("come again later");
                return false;
            }
            state.begun += 1;
            let number = state.begun;
            let running = Running { number, address, transport, handle: prepared.handle.clone() };
            let earlier = state.sessions.insert(node, running);
            self.inner.library.tell_nearby(state.sessions.len());
            (number, earlier)
        };
        if let Some(earlier) = earlier {
            // The newer connection is the live one.
            stop(&earlier.handle, CloseReason::GoingAway, "another connection took its place");
        }
        let span = tracing::info_span!("session", peer.id = %node, peer.address = %address, transport = %transport);
        let nearby = self.inner.library.nearby();
        let host = prepared.handle.host.clone();
        nearby.joined(node, host.clone());
        let running = prepared.run(&self.inner.library, self.inner.name.clone(), node, link).instrument(span);
        let met = contained(node, running).await.unwrap_or(false);
        nearby.left(node, &host);
        let mut state = self.state();
        if state.sessions.get(&node).is_some_and(|running| running.number == number) {
            state.sessions.remove(&node);
            self.inner.library.tell_nearby(state.sessions.len());
        }
        met
    }

    /// Whether the bridge has let all nodes know that this one is no longer welcome. A store that cannot be read shuts nobody out.
    fn is_revoked(&self, node: NodeId) -> bool {
        let Some(bridge) = self.state().bridge else { return false };
        match self.inner.library.store().records.get(Revocation::key(node)) {
            Ok(told) => told.is_some_and(|told| Revocation::counts(&told.record, node, bridge)),
            Err(error) => {
                tracing::warn!(%error, "it cannot be read who was revoked");
                false
            }
        }
    }

    fn end_revoked(&self) {
        let nodes: Vec<NodeId> = self.state().sessions.keys().copied().collect();
        for node in nodes.into_iter().filter(|node| self.is_revoked(*node)) {
            if let Some(running) = self.state().sessions.get(&node) {
                tracing::info!(peer.id = %node, "the session of a revoked node is ended");
                stop(&running.handle, CloseReason::NotWelcome, "the node was revoked");
            }
        }
    }

    fn end_all(&self) {
        for running in self.state().sessions.values() {
            stop(&running.handle, CloseReason::GoingAway, "");
        }
    }

    /// Counts who was refused, and logs each address once.
    fn refused(&self, address: SocketAddr, why: &dyn std::fmt::Display) {
        let mut state = self.state();
        state.refused += 1;
        let is_new = state.refused_logged.len() < REFUSED_LOGGED_MAX && state.refused_logged.insert(address.ip());
        drop(state);
        if is_new {
            tracing::warn!(%address, %why, "somebody on the local network was not let in; further attempts are counted");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dialler {
    /// Connects to the node, over QUIC where that goes through, else over TCP.
    async fn dial(&self, node: NodeId, place: &Place) -> Result<(AnyLink, SocketAddr), DialError> {
        let tls = ClientTls::for_peer(&self.identity, BUILD_UNIX_MS / 1000, node)?;
        let (over_udp, over_tcp) = match place {
            Place::Heard(hint) => {
                let tcp = hint.tcp_port.map(|port| {
                    let at = |address: &SocketAddr| SocketAddr::new(address.ip(), port);
                    hint.addresses.iter().map(at).collect()
                });
                (hint.addresses.clone(), tcp.unwrap_or_default())
            }
            Place::Named(name) => {
                let found = tokio::net::lookup_host(name).await;
                let found = found.map_err(|source| DialError::Lookup { address: name.clone(), source })?;
                let first: Vec<SocketAddr> = found.take(1).collect();
                (first.clone(), first)
            }
        };
        let expected = PeerIdentity { role: PeerRole::Node, id: node };
        let mut failed = None;
        for address in over_udp {
            match over_quic(address, &tls, expected).await {
                Ok(link) => return Ok((link, address)),
                Err(error) => failed = Some(error),
            }
        }
        for address in over_tcp {
            let dialled = tcp::Dialer::new(&TcpConfig::default());
            match tokio::time::timeout(DIAL_PATIENCE, dialled.connect(address, &tls, expected)).await {
                Ok(Ok(link)) => return Ok((AnyLink::Tcp(link), address)),
                Ok(Err(error)) => failed = Some(error.into()),
                Err(_) => failed = Some(tcp::ConnectError::TimedOut.into()),
            }
        }
        Err(failed.map_or_else(|| DialError::NoAddress(node.to_string()), DialError::Connect))
    }
}

async fn over_quic(address: SocketAddr, tls: &ClientTls, expected: PeerIdentity) -> Result<AnyLink, ConnectError> {
    let dialer = quic::Dialer::new(address, &TransportConfig::default())?;
    let dialled = tokio::time::timeout(DIAL_PATIENCE, dialer.connect(address, tls, expected)).await;
    Ok(AnyLink::Quic(dialled.unwrap_or(Err(quic::ConnectError::TimedOut))?))
}

/// Listens over UDP, and over TCP if that can be had.
fn listen(address: SocketAddr, tls: &ServerTls) -> Result<(Listener, SocketAddr, Option<u16>), ConnectError> {
    let config = TransportConfig { incoming_max: INCOMING_MAX, ..TransportConfig::default() };
    let quic = quic::Listener::bind(address, tls, &config)?;
    let at = quic.local_addr().map_err(quic::ConnectError::from)?;
    let config = TcpConfig { incoming_max: INCOMING_MAX, ..TcpConfig::default() };
    // The same port, so that an operator opens and names one; where it is taken, QUIC has to do.
    let tcp = tcp::Listener::bind(at, tls, &config)
        .inspect_err(|error| tracing::warn!(%error, "other nodes are not listened for over TCP"))
        .ok();
    let tcp_port = tcp.as_ref().map(|tcp| tcp.local_addr().port());
    Ok((Listener::new(quic, tcp), at, tcp_port))
}

/// Runs it to its end; `None` if it panicked, which ends nothing but itself: what was noted of it is still taken back.
async fn contained<T>(node: NodeId, work: impl Future<Output = T>) -> Option<T> {
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    ended.inspect_err(|_| tracing::error!(peer.id = %node, "a session with another node failed: this is a bug")).ok()
}

async fn hear(announcement: Option<&Announcement>) -> Heard {
    match announcement {
        Some(announcement) => announcement.next().await,
        None => std::future::pending().await,
    }
}

/// Ends a session. One that does not take it in is gone, or hangs until its connection does.
fn stop(handle: &Handle, reason: CloseReason, why: &str) {
    let _ = handle.host.try_send(HostInput::Stop(reason, why.to_owned()));
}
