//! Comes to a connection with the bridge: over the transport that does best on this network, or else over the other one.
//!
//! Not here: which one that is (`transport_choice`), and what is done with the connection (`dial`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alexandria_sync::identity::{PeerIdentity, PeerRole};
use alexandria_sync::quic::{self, MTU_MAX, Mtu, TransportConfig};
use alexandria_sync::session::Progress;
use alexandria_sync::tcp::{self, TcpConfig};
use alexandria_sync::tls::ClientTls;
use alexandria_sync::transport::{AnyLink, ConnectError, Transport, WireBytes};
use tokio::sync::watch;
use tokio::time::Instant;

use super::ReplicationConfig;
use super::membership::{Membership, MembershipError};
use super::network::Network;
use super::network_memory::NetworkMemory;
use super::transport_choice::{Experiences, FoundMtu, GoodputMeter, Why, choose};
use crate::store::time::BUILD_UNIX_MS;

/// How long the first transport has to answer when there is another one to try.
const PATIENCE: Duration = Duration::from_secs(10);
/// A session that breaks off sooner than this, having moved next to nothing, tells against its transport.
const EARLY: Duration = Duration::from_mins(2);
/// After this long the size of datagrams that the way carries was found.
const MTU_FOUND_AFTER: Duration = Duration::from_secs(10);
/// A session that is to show how a transport does is ended after this long.
pub(super) const PROBE_TIME: Duration = Duration::from_mins(10);

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoConnection {
    #[error("the bridge's address {0} is not known to the name service")]
    Unresolved(String),
    #[error("look up the bridge's address")]
    Lookup(#[source] std::io::Error),
    #[error("there is no way to the bridge")]
    NoRoute(#[source] std::io::Error),
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error("the identity is not usable")]
    Identity(#[from] rustls::Error),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{first}; {then}")]
    Neither { first: Box<ConnectError>, then: Box<ConnectError> },
}

/// Connects, and learns from it.
pub(super) struct Connector {
    data_dir: PathBuf,
    config: ReplicationConfig,
    patience: Duration,
    known: Mutex<Known>,
}

struct Known {
    networks: NetworkMemory,
    /// What the certificate of this membership needs, with the sessions that it can resume.
    tls: Option<(Membership, ClientTls)>,
}

/// A connection, and how it came about.
pub(super) struct Connected {
    pub(super) link: AnyLink,
    pub(super) why: Why,
    pub(super) way: Way,
    /// Lives as long as its connection.
    _dialer: Option<quic::Dialer>,
}

/// What a session has to be judged by in the end.
pub(super) struct Way {
    network: Network,
    transport: Transport,
    since: Instant,
    /// Over QUIC: the size of datagrams right now.
    path_mtu: Option<Box<dyn Fn() -> u16 + Send + Sync>>,
    /// What it began with.
    mtu: Mtu,
}

impl Connector {
    pub(super) fn new(data_dir: &Path, config: &ReplicationConfig) -> Self {
        let known = Known { networks: NetworkMemory::load(data_dir), tls: None };
        Self { data_dir: data_dir.to_owned(), config: config.clone(), patience: PATIENCE, known: known.into() }
    }

    /// Whether datagrams to the bridge would leave this machine: so that a missing network costs nothing.
    pub(super) async fn check_route(&self, membership: &Membership) -> Result<(), NoConnection> {
        let to = resolve(self.address(membership, Transport::Quic)).await?;
        let from: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let routed = std::net::UdpSocket::bind(from).and_then(|socket| socket.connect(to));
        routed.map_err(NoConnection::NoRoute)
    }

    /// Connects with the bridge of this membership, within `limits`. What is known of the path's size of datagrams is
    /// filled in; it is tried out only where bytes are not spared.
    pub(super) async fn connect(
        &self,
        membership: &Membership,
        limits: &TransportConfig,
        now_unix_ms: u64,
    ) -> Result<Connected, NoConnection> {
        let mut attempt = Attempt {
            quic: self.address(membership, Transport::Quic),
            tcp: self.address(membership, Transport::Tcp),
            tls: self.tls(membership)?,
            expected: PeerIdentity { role: PeerRole::Bridge, id: membership.bridge },
            limits: limits.clone(),
        };
        let network = Network::towards(resolve(attempt.quic).await?, attempt.quic);
        let known = self.known().networks.of(&network, now_unix_ms);
        let choice = choose(self.config.transport, &known, now_unix_ms);
        attempt.limits.mtu = known.mtu(!limits.is_sparing, now_unix_ms);
        let mtu = attempt.limits.mtu;
        let patience = choice.then.map(|_| self.patience);
        let connected = |(link, dialer): (AnyLink, Option<quic::Dialer>), why: Why| {
            let transport = link.transport();
            self.learn(&network, now_unix_ms, |known| {
                let experience = known.of(transport);
                experience.tried_unix_ms = Some(now_unix_ms);
                experience.is_unreachable = false;
                if why == Why::FellBack {
                    let other = known.of(transport.other());
                    other.tried_unix_ms = Some(now_unix_ms);
                    other.is_unreachable = true;
                }
            });
            let path_mtu = link.path_mtu();
            let way = Way { network: network.clone(), transport, since: Instant::now(), path_mtu, mtu };
            Connected { link, why, way, _dialer: dialer }
        };
        let first = match attempt.over(choice.first, patience).await {
            Ok(link) => return Ok(connected(link, choice.why)),
            Err(error) => error,
        };
        let is_of_the_network = is_of_the_network(&first);
        let is_probe = choice.why == Why::Probe;
        if !is_of_the_network && (is_probe || something_else_answers(&first)) {
            self.learn(&network, now_unix_ms, |known| known.of(choice.first).has_failed(now_unix_ms));
        }
        let Some(then) = choice.then.filter(|_| is_of_the_network || is_probe) else { return Err(first) };
        tracing::info!(error = &first as &dyn std::error::Error, "{} does not connect; trying {then}", choice.first);
        match (attempt.over(then, None).await, first) {
            (Ok(link), _) => Ok(connected(link, Why::FellBack)),
            (Err(NoConnection::Connect(then)), NoConnection::Connect(first)) => {
                Err(NoConnection::Neither { first: first.into(), then: then.into() })
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Where the bridge takes sessions over a transport: HOST:PORT.
    pub(super) fn address<'a>(&'a self, membership: &'a Membership, over: Transport) -> &'a str {
        let quic = self.config.bridge.as_ref().unwrap_or(&membership.address);
        match over {
            Transport::Quic => quic,
            Transport::Tcp => {
                let set = self.config.bridge_tcp.as_ref().or(self.config.bridge.as_ref());
                set.or(membership.tcp_address.as_ref()).unwrap_or(quic)
            }
        }
    }

    /// Learns from a session that has ended.
    pub(super) fn note_end(&self, way: &Way, goodput: Option<u64>, is_broken: bool, now_unix_ms: u64) {
        let broke_off_early = is_broken && goodput.is_none() && way.since.elapsed() < EARLY;
        self.learn(&way.network, now_unix_ms, |known| {
            known.of(way.transport).learn(goodput, broke_off_early);
            if let Some(bytes) = way.found_mtu() {
                known.mtu = Some(FoundMtu { bytes, unix_ms: now_unix_ms });
            }
        });
    }

    fn learn(&self, network: &Network, now_unix_ms: u64, change: impl FnOnce(&mut Experiences)) {
        self.known().networks.learn(network, now_unix_ms, change);
    }

    fn tls(&self, membership: &Membership) -> Result<ClientTls, NoConnection> {
        let mut known = self.known();
        if let Some((of, tls)) = &known.tls
            && of == membership
        {
            return Ok(tls.clone());
        }
        let tls = ClientTls::new(&membership.identity(&self.data_dir)?, BUILD_UNIX_MS / 1000)?;
        known.tls = Some((membership.clone(), tls.clone()));
        Ok(tls)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way {
    /// What the session has found out of the size of datagrams, if anything.
    fn found_mtu(&self) -> Option<u16> {
        let now = self.path_mtu.as_ref()?();
        let is_found = self.mtu.is_probed && (now >= MTU_MAX || self.since.elapsed() > MTU_FOUND_AFTER);
        // What was known got lost on the way.
        let is_less = self.mtu.known.is_some_and(|known| now < known);
        (is_found || is_less).then_some(now)
    }
}

/// What it takes to dial the bridge, over either transport.
struct Attempt<'a> {
    quic: &'a str,
    tcp: &'a str,
    tls: ClientTls,
    expected: PeerIdentity,
    limits: TransportConfig,
}

impl Attempt<'_> {
    async fn over(
        &self,
        transport: Transport,
        patience: Option<Duration>,
    ) -> Result<(AnyLink, Option<quic::Dialer>), NoConnection> {
        let patience = patience.unwrap_or(Duration::MAX);
        match transport {
            Transport::Quic => {
                let address = resolve(self.quic).await?;
                let dialer = quic::Dialer::new(address, &self.limits).map_err(ConnectError::from)?;
                let dialled = dialer.connect(address, &self.tls, self.expected);
                let dialled = tokio::time::timeout(patience, dialled).await;
                let link = dialled.unwrap_or(Err(quic::ConnectError::TimedOut)).map_err(ConnectError::from)?;
                Ok((AnyLink::Quic(link), Some(dialer)))
            }
            Transport::Tcp => {
                let address = resolve(self.tcp).await?;
                let dialer = tcp::Dialer::new(&TcpConfig::default());
                let dialled = dialer.connect(address, &self.tls, self.expected);
                let dialled = tokio::time::timeout(patience, dialled).await;
                let link = dialled.unwrap_or(Err(tcp::ConnectError::TimedOut)).map_err(ConnectError::from)?;
                Ok((AnyLink::Tcp(link), None))
            }
        }
    }
}

fn is_of_the_network(error: &NoConnection) -> bool {
    matches!(error, NoConnection::Connect(error) if error.is_of_the_network())
}

/// Whether the other end may not be the bridge at all: a portal, say, or a proxy that breaks TLS.
fn something_else_answers(error: &NoConnection) -> bool {
    let NoConnection::Connect(error) = error else { return false };
    matches!(
        error,
        ConnectError::Quic(quic::ConnectError::Handshake(_))
            | ConnectError::Tcp(tcp::ConnectError::Handshake(_) | tcp::ConnectError::OtherProtocol)
    )
}

async fn resolve(address: &str) -> Result<SocketAddr, NoConnection> {
    let mut found = tokio::net::lookup_host(address).await.map_err(NoConnection::Lookup)?;
    found.next().ok_or_else(|| NoConnection::Unresolved(address.to_owned()))
}

/// Measures what a session carries, until its progress is told no more.
pub(super) async fn measure(
    progress: watch::Receiver<Progress>,
    wire_bytes: impl Fn() -> WireBytes + Send,
) -> Option<u64> {
    let started = Instant::now();
    let mut meter = GoodputMeter::default();
    let mut due = tokio::time::interval(GoodputMeter::EVERY);
    while progress.has_changed().is_ok() {
        due.tick().await;
        let content_bytes = {
            let progress = progress.borrow();
            progress.bytes_received + progress.bytes_sent
        };
        meter.note(started.elapsed(), content_bytes, wire_bytes());
    }
    meter.goodput()
}

#[cfg(test)]
mod tests;
