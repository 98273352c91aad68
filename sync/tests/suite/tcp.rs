//! What only the TCP transport promises: how connections are bound to a session, and how a path that is gone is noticed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use alexandria_sync::driver::Link;
use alexandria_sync::identity::{Authority, BRIDGE_SERVER_NAME, Identity, PeerRole};
use alexandria_sync::tcp::segment::{HEADER_BYTES, Segment, SegmentHeader, SessionToken, TOKEN_BYTES};
use alexandria_sync::tcp::{ConnectError, Dialer, Listener, TcpConfig, TcpLink};
use alexandria_sync::tls::ALPN_TCP;
use alexandria_sync::wire::Lane;
use bytes::Bytes;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fleet::{authority, bridge_identity, client_tls, identity, node_id, server_tls, signed, within_deadline};

/// Short enough to wait for.
const SOON: Duration = Duration::from_millis(300);

fn listen(authority: &Authority, config: &TcpConfig) -> Listener {
    let identity = identity(authority, PeerRole::Bridge, 2);
    Listener::bind(([127, 0, 0, 1], 0).into(), &server_tls(&identity), config).expect("loopback has a free port")
}

async fn dial(address: SocketAddr, identity: &Identity, config: &TcpConfig) -> TcpLink {
    let dialled = Dialer::new(config).connect(address, &client_tls(identity), bridge_identity(2)).await;
    dialled.expect("it dials")
}

async fn accepted(listener: &Listener) -> Result<TcpLink, ConnectError> {
    within_deadline(listener.accept()).await.expect("it listens").answer()
}

/// A node that speaks segments by hand.
struct NodeByHand {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// One connection of it.
struct ByHand {
    stream: TlsStream<TcpStream>,
}

impl NodeByHand {
    fn new(address: SocketAddr, authority: &Authority, number: u8) -> Self {
        let (certificate, key) = signed(authority, PeerRole::Node, number);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![ALPN_TCP.to_vec()];
        Self { address, tls: Arc::new(config) }
    }

    async fn connect(&self) -> ByHand {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(BRIDGE_SERVER_NAME).unwrap();
        ByHand { stream: TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await.unwrap() }
    }
}

impl ByHand {
    async fn say(&mut self, segment: &Segment) {
        self.stream.write_all(&segment.encode()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn hear(&mut self) -> std::io::Result<Segment> {
        let mut header = [0; HEADER_BYTES];
        self.stream.read_exact(&mut header).await?;
        let header = SegmentHeader::decode(header).unwrap();
        let mut body = vec![0; header.body_len];
        self.stream.read_exact(&mut body).await?;
        Ok(header.decode_body(body.into()).unwrap())
    }

    /// Begins a session and takes its token.
    async fn begin(&mut self) -> SessionToken {
        self.say(&Segment::Begin).await;
        match within_deadline(self.hear()).await.unwrap() {
            Segment::Session(token) => token,
            other => panic!("{other:?} is no token"),
        }
    }
}

#[tokio::test]
async fn lanes_opened_by_either_end_carry_bytes_both_ways() {
    let authority = authority();
    let config = TcpConfig::default();
    let listener = listen(&authority, &config);
    let node = dial(listener.local_addr(), &identity(&authority, PeerRole::Node, 1), &config).await;
    let bridge = accepted(&listener).await.unwrap();
    let ((_, _control), (_, _control_there)) = (node.accept().await.unwrap(), bridge.accept().await.unwrap());
    for lane in Lane::all().filter(|lane| *lane != Lane::Control) {
        // The bridge opens every second lane first, which the node must dial for it.
        let (first, second) = if lane.number() % 2 == 0 { (&node, &bridge) } else { (&bridge, &node) };
        for (from, to) in [(first, second), (second, first)] {
            let mut writer = within_deadline(from.open(lane)).await.unwrap();
            let bytes = vec![lane.number(); 100_000];
            let written = async {
                writer.write_all(&bytes).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let read = async {
                let (opened, mut reader) = to.accept().await.unwrap();
                let mut read = Vec::new();
                reader.read_to_end(&mut read).await.unwrap();
                (opened, read)
            };
            let ((), (opened, read)) = within_deadline(async { tokio::join!(written, read) }).await;
            assert_eq!(opened, lane);
            assert_eq!(read, bytes);
        }
        assert!(node.open(lane).await.is_err(), "a lane is opened once");
    }
}

/// Knowing the token is not enough without the certificate, nor the certificate without the token.
#[tokio::test]
async fn only_the_token_with_the_certificate_of_the_session_joins_it() {
    let authority = authority();
    let listener = listen(&authority, &TcpConfig::default());
    let node = NodeByHand::new(listener.local_addr(), &authority, 1);
    let mut control = node.connect().await;
    let token = control.begin().await;
    let link = accepted(&listener).await.unwrap();
    assert_eq!(link.peer().id, node_id(1));
    let (_, _control) = link.accept().await.unwrap();

    let mut guessing = node.connect().await;
    guessing.say(&Segment::Join(SessionToken::from_bytes([0; TOKEN_BYTES]), Lane::Records)).await;
    assert!(matches!(accepted(&listener).await, Err(ConnectError::UnknownSession)));
    assert!(within_deadline(guessing.hear()).await.is_err(), "it is cut off");

    // Another node of the fleet that has come by the token.
    let mut other = NodeByHand::new(listener.local_addr(), &authority, 3).connect().await;
    other.say(&Segment::Join(token, Lane::Records)).await;
    assert!(matches!(accepted(&listener).await, Err(ConnectError::MayNotJoin)));

    // A lane that is open, and a first word that is none.
    node.connect().await.say(&Segment::Join(token, Lane::Control)).await;
    assert!(matches!(accepted(&listener).await, Err(ConnectError::MayNotJoin)));
    node.connect().await.say(&Segment::KeepAlive).await;
    assert!(matches!(accepted(&listener).await, Err(ConnectError::FirstWord)));

    // All of that did the session no harm.
    let mut right = node.connect().await;
    right.say(&Segment::Join(token, Lane::Records)).await;
    right.say(&Segment::Data(Bytes::from_static(b"x"))).await;
    let (lane, mut reader) = within_deadline(link.accept()).await.unwrap();
    assert_eq!((lane, within_deadline(reader.read_u8()).await.unwrap()), (Lane::Records, b'x'));

    drop(link);
    assert!(within_deadline(control.hear()).await.is_err(), "the session is over");
    node.connect().await.say(&Segment::Join(token, Lane::Content(0))).await;
    assert!(matches!(accepted(&listener).await, Err(ConnectError::UnknownSession)));
}

#[tokio::test]
async fn a_peer_that_is_refused_hears_why() {
    let authority = authority();
    let config = TcpConfig::default();
    let listener = listen(&authority, &config);
    let node = dial(listener.local_addr(), &identity(&authority, PeerRole::Node, 1), &config).await;
    accepted(&listener).await.unwrap().refuse("not welcome");
    let (_, _control) = within_deadline(node.accept()).await.unwrap();
    let error = within_deadline(node.accept()).await.unwrap_err().to_string();
    assert!(error.contains("not welcome"), "{error}");
}

/// A node that knocks and says nothing gives its place up.
#[tokio::test]
async fn a_connection_without_a_purpose_is_dropped() {
    let authority = authority();
    let listener = listen(&authority, &TcpConfig { handshake_timeout: SOON, ..TcpConfig::default() });
    let _mute = NodeByHand::new(listener.local_addr(), &authority, 1).connect().await;
    assert!(matches!(accepted(&listener).await, Err(ConnectError::TimedOut)));
    let _rude = TcpStream::connect(listener.local_addr()).await.unwrap();
    assert!(matches!(accepted(&listener).await, Err(ConnectError::TimedOut)));
}

/// The peer's machine is gone without a word: the session ends. A quiet peer that is there keeps it.
#[tokio::test]
async fn silence_ends_a_session_and_quiet_does_not() {
    let authority = authority();
    let config = TcpConfig { idle_timeout: SOON * 3, keep_alive: SOON, ..TcpConfig::default() };
    let listener = listen(&authority, &config);
    let node = dial(listener.local_addr(), &identity(&authority, PeerRole::Node, 1), &config).await;
    let bridge = accepted(&listener).await.unwrap();
    assert!(tokio::time::timeout(config.idle_timeout * 3, bridge.closed()).await.is_err(), "quiet is not silence");
    drop((node, bridge));

    // By hand, nothing keeps it alive.
    let mut silent = NodeByHand::new(listener.local_addr(), &authority, 1).connect().await;
    silent.begin().await;
    let bridge = accepted(&listener).await.unwrap();
    within_deadline(bridge.closed()).await;
    let (_, _control) = bridge.accept().await.unwrap();
    let error = bridge.accept().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
}

/// A peer that keeps its connections and takes nothing holds nothing up for good.
#[tokio::test]
async fn a_peer_that_takes_nothing_is_given_up() {
    let authority = authority();
    // It says nothing either, but that is not what it is given up for.
    let config = TcpConfig { stall_timeout: SOON, idle_timeout: Duration::MAX, ..TcpConfig::default() };
    let listener = listen(&authority, &config);
    let mut stalled = NodeByHand::new(listener.local_addr(), &authority, 1).connect().await;
    stalled.begin().await;
    let bridge = accepted(&listener).await.unwrap();
    let mut control = bridge.open(Lane::Control).await.unwrap();
    let bytes = vec![0; 65_536];
    let endless = async { while control.write_all(&bytes).await.is_ok() {} };
    within_deadline(endless).await;
    let (_, _reader) = bridge.accept().await.unwrap();
    let error = bridge.accept().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
}

/// One connection of several breaks in the middle: the session is over at both ends, and not half of it.
#[tokio::test]
async fn when_one_connection_breaks_the_session_ends() {
    let authority = authority();
    let config = TcpConfig { idle_timeout: Duration::MAX, ..TcpConfig::default() };
    let listener = listen(&authority, &config);
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (through, behind) = (relay.local_addr().unwrap(), listener.local_addr());
    let relayed = tokio::spawn(async move {
        let mut relays = Vec::new();
        for _ in 0..2 {
            let (mut near, _) = relay.accept().await.unwrap();
            let mut far = TcpStream::connect(behind).await.unwrap();
            relays.push(tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await }));
        }
        relays
    });
    let node = dial(through, &identity(&authority, PeerRole::Node, 1), &config).await;
    let bridge = accepted(&listener).await.unwrap();
    let mut lane = within_deadline(node.open(Lane::Content(0))).await.unwrap();
    lane.write_all(b"x").await.unwrap();
    let (_, _control) = bridge.accept().await.unwrap();
    let (opened, mut reader) = within_deadline(bridge.accept()).await.unwrap();
    assert_eq!((opened, within_deadline(reader.read_u8()).await.unwrap()), (Lane::Content(0), b'x'));
    // The second connection goes; the first stays.
    relayed.await.unwrap()[1].abort();
    within_deadline(async { tokio::join!(node.closed(), bridge.closed()) }).await;
}
