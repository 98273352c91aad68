//! The transports as one: what node and bridge deal with, whatever carries the session.

use std::fmt;
use std::io;
use std::iter::Sum;
use std::net::{IpAddr, SocketAddr};

use tokio_util::either::Either;

use crate::driver::Link;
use crate::identity::PeerIdentity;
use crate::quic::{self, QuicLink};
use crate::tcp::{self, TcpLink};
use crate::wire::Lane;

/// What carries a session.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Transport {
    /// QUIC, over UDP: what is used wherever it goes through.
    Quic,
    /// TLS, over TCP.
    Tcp,
}

impl Transport {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Quic => Self::Tcp,
            Self::Tcp => Self::Quic,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "QUIC",
            Self::Tcp => "TCP",
        })
    }
}

/// What a connection has sent and received. What the system sends again over TCP is not seen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WireBytes {
    /// Bytes sent: over QUIC the payload of UDP datagrams, over TCP what the sockets took.
    pub sent: u64,
    /// Bytes received, of the same.
    pub received: u64,
    /// Bytes of the headers below that, both ways: over QUIC IP and UDP, over TCP IP and TCP for as many segments as there were at least,
    /// acknowledgements among them.
    pub headers: u64,
}

impl WireBytes {
    /// All that a provider counts, both ways.
    pub fn all(self) -> u64 {
        self.sent + self.received + self.headers
    }
}

/// Bytes of an IP header to a peer at this address (RFC 791, RFC 8200).
pub(crate) fn ip_header_bytes(peer: IpAddr) -> u64 {
    // A dual-stack socket shows IPv4 as mapped addresses.
    if peer.to_canonical().is_ipv4() { 20 } else { 40 }
}

impl Sum for WireBytes {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            sent: sum.sent + one.sent,
            received: sum.received + one.received,
            headers: sum.headers + one.headers,
        })
    }
}

/// Why no connection came about, over either transport.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Over QUIC.
    #[error("over QUIC: {0}")]
    Quic(#[source] quic::ConnectError),
    /// Over TCP.
    #[error("over TCP: {0}")]
    Tcp(#[source] tcp::ConnectError),
}

impl From<quic::ConnectError> for ConnectError {
    fn from(error: quic::ConnectError) -> Self {
        Self::Quic(error)
    }
}

impl From<tcp::ConnectError> for ConnectError {
    fn from(error: tcp::ConnectError) -> Self {
        Self::Tcp(error)
    }
}

impl ConnectError {
    /// Whether the network is at fault, as far as can be told: the other transport may do.
    pub fn is_of_the_network(&self) -> bool {
        match self {
            Self::Quic(error) => error.is_of_the_network(),
            Self::Tcp(error) => error.is_of_the_network(),
        }
    }
}

/// A connection to an authenticated peer, over either transport.
#[derive(Debug)]
pub enum AnyLink {
    /// Over QUIC.
    Quic(QuicLink),
    /// Over TCP.
    Tcp(TcpLink),
}

impl AnyLink {
    /// What carries it.
    pub fn transport(&self) -> Transport {
        match self {
            Self::Quic(_) => Transport::Quic,
            Self::Tcp(_) => Transport::Tcp,
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> PeerIdentity {
        match self {
            Self::Quic(link) => link.peer(),
            Self::Tcp(link) => link.peer(),
        }
    }

    /// A handle that tells what went over the wire, for as long as the connection lives and after.
    pub fn wire_bytes(&self) -> Box<dyn Fn() -> WireBytes + Send + Sync> {
        match self {
            Self::Quic(link) => Box::new(link.wire_bytes()),
            Self::Tcp(link) => Box::new(link.wire_bytes()),
        }
    }

    /// A handle that tells how large the path lets datagrams be, in bytes of UDP payload. None over TCP: there the system
    /// finds out and remembers.
    pub fn path_mtu(&self) -> Option<Box<dyn Fn() -> u16 + Send + Sync>> {
        match self {
            Self::Quic(link) => Some(Box::new(link.path_mtu())),
            Self::Tcp(_) => None,
        }
    }

    /// Ends the connection: the peer is not welcome, and is told why.
    pub fn refuse(&self, why: &str) {
        match self {
            Self::Quic(link) => link.refuse(why),
            Self::Tcp(link) => link.refuse(why),
        }
    }
}

impl Link for AnyLink {
    type Writer = Either<<QuicLink as Link>::Writer, <TcpLink as Link>::Writer>;
    type Reader = Either<<QuicLink as Link>::Reader, <TcpLink as Link>::Reader>;

    async fn open(&self, lane: Lane) -> io::Result<Self::Writer> {
        match self {
            Self::Quic(link) => link.open(lane).await.map(Either::Left),
            Self::Tcp(link) => link.open(lane).await.map(Either::Right),
        }
    }

    async fn accept(&self) -> io::Result<(Lane, Self::Reader)> {
        match self {
            Self::Quic(link) => link.accept().await.map(|(lane, reader)| (lane, Either::Left(reader))),
            Self::Tcp(link) => link.accept().await.map(|(lane, reader)| (lane, Either::Right(reader))),
        }
    }

    async fn closed(&self) {
        match self {
            Self::Quic(link) => link.closed().await,
            Self::Tcp(link) => link.closed().await,
        }
    }

    fn close(&self) {
        match self {
            Self::Quic(link) => link.close(),
            Self::Tcp(link) => link.close(),
        }
    }
}

/// Takes connections of nodes: over QUIC, and over TCP unless that is turned off.
#[derive(Debug)]
pub struct Listener {
    quic: quic::Listener,
    tcp: Option<tcp::Listener>,
}

impl Listener {
    /// Both as one.
    pub fn new(quic: quic::Listener, tcp: Option<tcp::Listener>) -> Self {
        Self { quic, tcp }
    }

    /// Waits for the next peer that knocks.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] once the listener was closed.
    pub async fn accept(&self) -> Result<Knock, ConnectError> {
        let over_tcp = async {
            match &self.tcp {
                Some(tcp) => tcp.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            knock = self.quic.accept() => Ok(Knock::Quic(Box::new(knock?))),
            knock = over_tcp => Ok(Knock::Tcp(knock?)),
        }
    }

    /// Stops listening, tells every peer, and waits until they know.
    pub async fn close(&self) {
        if let Some(tcp) = &self.tcp {
            tcp.close();
        }
        self.quic.close().await;
    }
}

/// A peer that asks to be let in.
pub enum Knock {
    /// Over QUIC.
    Quic(Box<quic::Knock>),
    /// Over TCP.
    Tcp(tcp::Knock),
}

impl Knock {
    /// Where it knocks from.
    pub fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(knock) => knock.remote_address(),
            Self::Tcp(knock) => knock.remote_address(),
        }
    }

    /// Goes through the handshake.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the peer's certificate is missing, foreign or names no node.
    pub async fn answer(self) -> Result<AnyLink, ConnectError> {
        match self {
            Self::Quic(knock) => Ok(AnyLink::Quic(knock.answer().await?)),
            Self::Tcp(knock) => Ok(AnyLink::Tcp(knock.answer()?)),
        }
    }
}
