//! Dialling and listening, with limits that suit bad links.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, VarInt};
use rustls_pki_types::CertificateDer;
use socket2::SockRef;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::congestion::CongestionConfig;
use super::link::QuicLink;
use crate::identity::{BRIDGE_SERVER_NAME, IdentityError, PeerIdentity, PeerRole};
use crate::tls::{self, ClientTls, ServerTls};
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
    /// Handshakes under way at once, at most. Once half of them are, only those go on of peers that have shown where they are.
    pub incoming_max: usize,
    /// How much may be in flight.
    pub congestion: CongestionConfig,
    /// What the system is asked to hold of datagrams that nobody has read yet, in bytes. A machine that is busy for a moment loses what does
    /// not fit. Linux gives no more than `net.core.rmem_max`.
    pub receive_buffer_bytes: usize,
    /// What is known of the path's size of packets.
    pub mtu: Mtu,
    /// Every byte costs: for a node, whose bridge then tries no sizes either, and gives no session tickets.
    pub is_sparing: bool,
}

/// How large the datagrams of a connection are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mtu {
    /// What the path has carried before, in bytes of UDP payload. If it no longer does, that is noticed by what is lost.
    pub known: Option<u16>,
    /// Whether larger ones are tried now and then. It costs a few datagrams for each connection.
    pub is_probed: bool,
}

/// What every path of the internet carries, in bytes of UDP payload (RFC 9000, section 14).
pub const MTU_MIN: u16 = 1200;
/// The largest that is tried: what Ethernet carries, with the headers of either version of IP.
pub const MTU_MAX: u16 = 1452;

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            lane_window_bytes: 1_250_000,
            send_window_bytes: 8 * 1_250_000,
            idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(8),
            incoming_max: 1024,
            congestion: CongestionConfig::default(),
            receive_buffer_bytes: 4 * 1024 * 1024,
            mtu: Mtu { known: None, is_probed: true },
            is_sparing: false,
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
            .initial_mtu(self.mtu.known.unwrap_or(MTU_MIN))
            .mtu_discovery_config((self.mtu.is_probed && !self.is_sparing).then(|| {
                let mut probing = quinn::MtuDiscoveryConfig::default();
                probing.upper_bound(MTU_MAX);
                probing
            }))
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
    /// Nobody answered in the time that there was.
    #[error("no answer in time")]
    TimedOut,
    /// The peer's certificate is signed by the authority but names nobody that may be here.
    #[error("the peer is not who it should be")]
    Peer(#[from] IdentityError),
    /// The endpoint was closed.
    #[error("the endpoint is closed")]
    Closed,
}

impl ConnectError {
    /// Whether the network is at fault, as far as can be told: another transport may do.
    pub fn is_of_the_network(&self) -> bool {
        matches!(self, Self::Socket(_) | Self::TimedOut | Self::Handshake(quinn::ConnectionError::TimedOut))
    }
}

/// Dials the bridge.
#[derive(Debug)]
pub struct Dialer {
    endpoint: quinn::Endpoint,
    transport: Arc<quinn::TransportConfig>,
    is_sparing: bool,
}

impl Dialer {
    /// A dialler from any local address of the family of `like`. Must be made inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Socket`] if no UDP socket can be had.
    pub fn new(like: SocketAddr, config: &TransportConfig) -> Result<Self, ConnectError> {
        let local: SocketAddr = if like.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let mut endpoint = quinn::EndpointConfig::default();
        endpoint.cid_generator(|| Box::new(NoConnectionIds));
        if config.is_sparing {
            // The other end does not try what this one says it does not take.
            endpoint.max_udp_payload_size(MTU_MIN).map_err(io::Error::other)?;
        }
        let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("no tokio runtime"))?;
        let endpoint = quinn::Endpoint::new(endpoint, None, bind_socket(local, config)?, runtime)?;
        Ok(Self { endpoint, transport: config.to_quinn(), is_sparing: config.is_sparing })
    }

    /// Connects to the bridge `expected` at `address`.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; it is safe to try again.
    pub async fn connect(
        &self,
        address: SocketAddr,
        tls: &ClientTls,
        expected: PeerIdentity,
    ) -> Result<QuicLink, ConnectError> {
        let tls = if self.is_sparing { &tls.quic_sparing } else { &tls.quic };
        let quic =
            QuicClientConfig::try_from(Arc::clone(tls)).map_err(|error| rustls::Error::General(error.to_string()))?;
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

/// A dialler has one connection and knows it by the bridge's address: it needs no names for it, which would cross the
/// link in each packet, and seven spare ones with each connection.
struct NoConnectionIds;

impl quinn::ConnectionIdGenerator for NoConnectionIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        quinn::ConnectionId::new(&[])
    }

    fn cid_len(&self) -> usize {
        0
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Takes connections of nodes.
#[derive(Debug)]
pub struct Listener {
    endpoint: quinn::Endpoint,
    handshakes_max: usize,
    handshakes: Arc<Semaphore>,
}

const CODE_NOT_WELCOME: VarInt = VarInt::from_u32(1);

impl Listener {
    /// Listens on `address`. Must be made inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the identity or the address is not usable.
    pub fn bind(address: SocketAddr, tls: &ServerTls, config: &TransportConfig) -> Result<Self, ConnectError> {
        let quic = QuicServerConfig::try_from(Arc::clone(&tls.quic))
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(quic));
        server.transport_config(config.to_quinn()).max_incoming(config.incoming_max);
        let socket = bind_socket(address, config)?;
        let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("no tokio runtime"))?;
        let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(server), socket, runtime)?;
        let handshakes = Arc::new(Semaphore::new(config.incoming_max));
        Ok(Self { endpoint, handshakes_max: config.incoming_max, handshakes })
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
    /// nobody. One packet from a made-up address takes a place among the handshakes for as long as a connection may be idle: so
    /// once half of the places are taken, peers have to show first that they receive what is sent to them (RFC 9000, section 8.1.2), which
    /// takes a round trip and no place. Who finds none is not answered, and knocks again by itself.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Closed`] once the listener was closed.
    pub async fn accept(&self) -> Result<Knock, ConnectError> {
        loop {
            let incoming = self.endpoint.accept().await.ok_or(ConnectError::Closed)?;
            let is_pressed = self.handshakes.available_permits() <= self.handshakes_max / 2;
            if is_pressed && !incoming.remote_address_validated() {
                // It fails for those that have shown where they are.
                let _ = incoming.retry();
                continue;
            }
            match Arc::clone(&self.handshakes).try_acquire_owned() {
                Ok(place) => return Ok(Knock { incoming, place }),
                Err(_) => incoming.ignore(),
            }
        }
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
    /// Among the handshakes.
    place: OwnedSemaphorePermit,
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
        drop(self.place);
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

fn bind_socket(address: SocketAddr, config: &TransportConfig) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    let options = SockRef::from(&socket);
    if let Err(error) = options.set_recv_buffer_size(config.receive_buffer_bytes) {
        tracing::debug!(%error, "the system's usual receive buffer stays");
    }
    tracing::debug!(bytes = options.recv_buffer_size().ok(), %address, "the receive buffer of UDP");
    Ok(socket)
}

fn peer_of(connection: &quinn::Connection) -> Result<PeerIdentity, IdentityError> {
    let identity = connection.peer_identity().ok_or(IdentityError::NoName)?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| IdentityError::Unreadable)?;
    tls::peer_of(Some(&chain))
}
