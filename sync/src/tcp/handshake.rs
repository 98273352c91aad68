//! TLS at both ends of a new connection, and the check of who is at the other.
//!
//! Not here: what the connection is for (`endpoint`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::endpoint::TcpConfig;
use super::socket::{self, Counted, Counters};
use crate::identity::{BRIDGE_SERVER_NAME, IdentityError, PeerIdentity, PeerRole};
use crate::tls::{self, ALPN_TCP};

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The key or a certificate is not usable.
    #[error("the identity is not usable")]
    Tls(#[from] rustls::Error),
    /// Nobody answers there, or the socket could not be used.
    #[error("no connection")]
    Socket(#[source] io::Error),
    /// The other end does not speak TLS, or does not take or show the right certificate.
    #[error("the handshake failed")]
    Handshake(#[source] io::Error),
    /// The other end was too slow.
    #[error("no answer in time")]
    TimedOut,
    /// The other end speaks TLS, but not this protocol.
    #[error("the other end does not replicate over TCP")]
    OtherProtocol,
    /// The peer's certificate is signed by the authority but names nobody that may be here.
    #[error("the peer is not who it should be")]
    Peer(#[from] IdentityError),
    /// The peer's first word is none.
    #[error("the peer does not say what the connection is for")]
    FirstWord,
    /// A connection that would join a session, with a token that is not known here.
    #[error("a connection for a session that is not open here")]
    UnknownSession,
    /// A connection that would join a session of somebody else, or with a lane that is open.
    #[error("a connection that may not join the session it names")]
    MayNotJoin,
    /// The listener was closed.
    #[error("the listener is closed")]
    Closed,
}

impl ConnectError {
    /// Whether the network is at fault, as far as can be told: another path may do.
    pub fn is_of_the_network(&self) -> bool {
        match self {
            Self::Socket(_) | Self::TimedOut => true,
            Self::Handshake(error) => error.kind() != io::ErrorKind::InvalidData,
            _ => false,
        }
    }
}

/// A connection after its handshake.
pub(super) struct Connection {
    pub(super) stream: TlsStream<Counted>,
    pub(super) counters: Arc<Counters>,
    pub(super) known: Known,
}

/// What a handshake tells of the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) peer: PeerIdentity,
    pub(super) is_resumed: bool,
}

impl Connection {
    /// Identifies the peer's certificate: no two have the same.
    pub(super) fn certificate(&self) -> Option<blake3::Hash> {
        let (_, session) = self.stream.get_ref();
        Some(blake3::hash(session.peer_certificates()?.first()?))
    }
}

/// Connects to the bridge `expected`.
pub(super) async fn dial(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    expected: PeerIdentity,
    config: &TcpConfig,
) -> Result<Connection, ConnectError> {
    let dialled = async {
        let stream = TcpStream::connect(address).await.map_err(ConnectError::Socket)?;
        socket::prepare(&stream, config.stall_timeout).map_err(ConnectError::Socket)?;
        let counters = Arc::new(Counters::to(address.ip()));
        let name = ServerName::try_from(BRIDGE_SERVER_NAME).expect("a constant DNS name");
        let stream = TlsConnector::from(tls).connect(name, Counted::new(stream, Arc::clone(&counters))).await;
        checked(stream.map_err(ConnectError::Handshake)?.into(), counters)
    };
    let connection =
        tokio::time::timeout(config.handshake_timeout, dialled).await.map_err(|_| ConnectError::TimedOut)??;
    if connection.known.peer != expected {
        return Err(IdentityError::Unexpected.into());
    }
    Ok(connection)
}

/// Takes a connection of a node.
pub(super) async fn answer(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    config: &TcpConfig,
) -> Result<Connection, ConnectError> {
    socket::prepare(&stream, config.stall_timeout).map_err(ConnectError::Socket)?;
    let peer = stream.peer_addr().map_err(ConnectError::Socket)?;
    let counters = Arc::new(Counters::to(peer.ip()));
    let stream = acceptor.accept(Counted::new(stream, Arc::clone(&counters))).await;
    let connection = checked(stream.map_err(ConnectError::Handshake)?.into(), counters)?;
    if connection.known.peer.role != PeerRole::Node {
        return Err(IdentityError::Unexpected.into());
    }
    Ok(connection)
}

fn checked(stream: TlsStream<Counted>, counters: Arc<Counters>) -> Result<Connection, ConnectError> {
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(ALPN_TCP) {
        return Err(ConnectError::OtherProtocol);
    }
    let peer = tls::peer_of(session.peer_certificates())?;
    let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok(Connection { stream, counters, known: Known { peer, is_resumed } })
}
