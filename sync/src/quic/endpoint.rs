//! Dialling and listening, with limits that suit bad links.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, VarInt};
use rustls_pki_types::CertificateDer;

use super::congestion::CongestionConfig;
use super::identity::{BRIDGE_SERVER_NAME, Identity, IdentityError, PeerIdentity, PeerRole};
use super::link::QuicLink;
use super::tls;
use crate::wire::message::CONTENT_LANES;

/// The limits of a connection.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// Bytes of one lane that the peer may send ahead. Several lanes of this size carry more over a long link than one
    /// large window, and never overflow the reassembly of a stream.
    pub lane_window_bytes: u32,
    /// Bytes of all lanes that may wait to be sent or acknowledged.
    pub send_window_bytes: u64,
    /// A connection that hears nothing for this long is gone.
    pub idle_timeout: Duration,
    /// A quiet connection says something this often, so that it is known to be there.
    pub keep_alive: Duration,
    /// Handshakes under way at once, at most.
    pub incoming_max: usize,
    /// How much may be in flight.
    pub congestion: CongestionConfig,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            lane_window_bytes: 1_250_000,
            send_window_bytes: 8 * 1_250_000,
            idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(8),
            incoming_max: 1024,
            congestion: CongestionConfig::default(),
        }
    }
}

impl TransportConfig {
    /// The settings in quinn's terms.
    pub fn to_quinn(&self) -> Arc<quinn::TransportConfig> {
        let lanes = u32::from(CONTENT_LANES) + 2;
        let mut transport = quinn::TransportConfig::default();
        transport
            .max_concurrent_uni_streams(lanes.into())
            .max_concurrent_bidi_streams(0u8.into())
            .stream_receive_window(self.lane_window_bytes.into())
            .receive_window(
                VarInt::from_u64(u64::from(self.lane_window_bytes) * u64::from(lanes)).unwrap_or(VarInt::MAX),
            )
            .send_window(self.send_window_bytes)
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(IdleTimeout::try_from(self.idle_timeout).ok())
            .keep_alive_interval(Some(self.keep_alive))
            .congestion_controller_factory(Arc::new(self.congestion));
        Arc::new(transport)
    }
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The key or a certificate is not usable.
    #[error("the identity is not usable")]
    Tls(#[from] rustls::Error),
    /// The socket could not be opened or used.
    #[error("the UDP socket is not usable")]
    Socket(#[from] io::Error),
    /// The address cannot be dialled.
    #[error("cannot dial")]
    Dial(#[from] quinn::ConnectError),
    /// The handshake failed, or nobody answered.
    #[error("no connection")]
    Handshake(#[from] quinn::ConnectionError),
    /// The peer's certificate is signed by the authority but names nobody that may be here.
    #[error("the peer is not who it should be")]
    Peer(#[from] IdentityError),
    /// The endpoint was closed.
    #[error("the endpoint is closed")]
    Closed,
}

/// Dials the bridge.
#[derive(Debug)]
pub struct Dialer {
    endpoint: quinn::Endpoint,
    transport: Arc<quinn::TransportConfig>,
}

impl Dialer {
    /// A dialler from any local address of the family of `like`. Must be made inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Socket`] if no UDP socket can be had.
    pub fn new(like: SocketAddr, config: &TransportConfig) -> Result<Self, ConnectError> {
        let local: SocketAddr = if like.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        Ok(Self { endpoint: quinn::Endpoint::client(local)?, transport: config.to_quinn() })
    }

    /// Connects to the bridge `expected` at `address`, judging certificates no earlier than `floor_unix_s`.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; it is safe to try again.
    pub async fn connect(
        &self,
        address: SocketAddr,
        identity: &Identity,
        expected: PeerIdentity,
        floor_unix_s: u64,
    ) -> Result<QuicLink, ConnectError> {
        let tls = tls::client_config(identity, floor_unix_s)?;
        let quic = QuicClientConfig::try_from(tls).map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(quic));
        config.transport_config(Arc::clone(&self.transport));
        let connection = self.endpoint.connect_with(config, address, BRIDGE_SERVER_NAME)?.await?;
        let peer = peer_of(&connection)?;
        if peer != expected {
            connection.close(CODE_NOT_WELCOME, b"not the bridge of this node");
            return Err(IdentityError::Unexpected.into());
        }
        Ok(QuicLink::new(connection, peer))
    }
}

/// Takes connections of nodes.
#[derive(Debug)]
pub struct Listener {
    endpoint: quinn::Endpoint,
}

const CODE_NOT_WELCOME: VarInt = VarInt::from_u32(1);

impl Listener {
    /// Listens on `address`. Must be made inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the identity or the address is not usable.
    pub fn bind(address: SocketAddr, identity: &Identity, config: &TransportConfig) -> Result<Self, ConnectError> {
        let tls = tls::server_config(identity)?;
        let quic = QuicServerConfig::try_from(tls).map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(quic));
        server.transport_config(config.to_quinn()).max_incoming(config.incoming_max);
        let socket = UdpSocket::bind(address)?;
        let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("no tokio runtime"))?;
        let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(server), socket, runtime)?;
        Ok(Self { endpoint })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    ///
    /// [`io::Error`] from the socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Waits for the next peer that knocks. Its handshake goes on in [`Knock::answer`], so that a slow one holds up
    /// nobody.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Closed`] once the listener was closed.
    pub async fn accept(&self) -> Result<Knock, ConnectError> {
        self.endpoint.accept().await.map(|incoming| Knock { incoming }).ok_or(ConnectError::Closed)
    }

    /// Stops listening, tells every peer, and waits until they know.
    pub async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"going away");
        self.endpoint.wait_idle().await;
    }
}

/// A peer that asks to be let in.
pub struct Knock {
    incoming: quinn::Incoming,
}

impl Knock {
    /// Where it knocks from.
    pub fn remote_address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Goes through the handshake.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the peer's certificate is missing, foreign or names no node.
    pub async fn answer(self) -> Result<QuicLink, ConnectError> {
        let connection = self.incoming.await?;
        match peer_of(&connection) {
            Ok(peer) if peer.role == PeerRole::Node => Ok(QuicLink::new(connection, peer)),
            Ok(_) => {
                connection.close(CODE_NOT_WELCOME, b"only nodes may connect");
                Err(IdentityError::Unexpected.into())
            }
            Err(error) => {
                connection.close(CODE_NOT_WELCOME, b"the certificate names nobody");
                Err(error.into())
            }
        }
    }
}

fn peer_of(connection: &quinn::Connection) -> Result<PeerIdentity, IdentityError> {
    let identity = connection.peer_identity().ok_or(IdentityError::NoName)?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| IdentityError::Unreadable)?;
    PeerIdentity::of_certificate(chain.first().ok_or(IdentityError::NoName)?)
}
