//! The node against real listeners on the loopback, and against addresses where nobody answers.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;

use alexandria_sync::id::NodeId;
use alexandria_sync::identity::{Authority, SigningRequest};
use alexandria_sync::tickets::TicketSecret;
use alexandria_sync::tls::ServerTls;
use alexandria_sync::transport::Listener;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::replication::TransportSetting;
use crate::replication::membership::save_key;

const NOW_MS: u64 = BUILD_UNIX_MS + 1000;
const DAY_MS: u64 = 25 * 60 * 60 * 1000;
const DEADLINE: Duration = Duration::from_mins(1);

/// A bridge that takes sessions over both transports, a UDP address where nothing answers, and a node that is enrolled.
struct Fleet {
    listener: Arc<Listener>,
    quic: String,
    tcp: String,
    silence: UdpSocket,
    data: TempDir,
    membership: Membership,
}

impl Fleet {
    fn new() -> Self {
        let authority = Authority::make("test fleet", BUILD_UNIX_MS / 1000).unwrap();
        let identity = |role, number| {
            let named = PeerIdentity { role, id: NodeId::from_bytes([number; 16]) };
            let request = SigningRequest::make(named).unwrap();
            let signed = authority.sign(&request.request_pem, named, [number; 16], BUILD_UNIX_MS / 1000, 365);
            (signed.unwrap(), request.key_pem)
        };
        let (certificate, key) = identity(PeerRole::Bridge, 2);
        let bridge = alexandria_sync::identity::Identity::from_pem(&certificate, &key, authority.certificate_pem());
        let tls = ServerTls::new(&bridge.unwrap(), &TicketSecret::derived_from(b"shared")).unwrap();
        let any = ([127, 0, 0, 1], 0).into();
        let quic = quic::Listener::bind(any, &tls, &TransportConfig::default()).unwrap();
        let tcp = tcp::Listener::bind(any, &tls, &TcpConfig::default()).unwrap();
        let addresses = (quic.local_addr().unwrap().to_string(), tcp.local_addr().to_string());
        let silence = UdpSocket::bind("127.0.0.1:0").unwrap();
        silence.set_nonblocking(true).unwrap();
        let (certificate_pem, key) = identity(PeerRole::Node, 1);
        let data = tempfile::tempdir().unwrap();
        save_key(data.path(), &key).unwrap();
        let membership = Membership {
            certificate_pem,
            authority_pem: authority.certificate_pem().to_owned(),
            bridge: NodeId::from_bytes([2; 16]),
            enrolment: None,
            address: silence.local_addr().unwrap().to_string(),
            tcp_address: Some(addresses.1.clone()),
        };
        let listener = Arc::new(Listener::new(quic, Some(tcp)));
        Self { listener, quic: addresses.0, tcp: addresses.1, silence, data, membership }
    }

    /// As the node is after a start, not patient.
    fn connector(&self, config: &ReplicationConfig) -> Connector {
        let mut connector = Connector::new(self.data.path(), config);
        connector.patience = Duration::from_millis(500);
        connector
    }

    async fn connect(&self, connector: &Connector, now_unix_ms: u64) -> Result<Connected, NoConnection> {
        let listener = Arc::clone(&self.listener);
        let answering = tokio::spawn(async move {
            let mut links = Vec::new();
            while let Ok(knock) = listener.accept().await {
                links.push(knock.answer().await);
            }
        });
        let limits = TransportConfig::default();
        let connected = connector.connect(&self.membership, &limits, now_unix_ms);
        let connected = tokio::time::timeout(DEADLINE, connected).await.expect("it comes to an end");
        answering.abort();
        connected
    }

    /// Why nothing came of it.
    async fn fails(&self, connector: &Connector, now_unix_ms: u64) -> String {
        self.connect(connector, now_unix_ms).await.err().expect("no bridge answers").to_string()
    }

    /// Whether anything was sent to where nothing answers, since the last time.
    fn was_tried_in_vain(&self) -> bool {
        let mut heard = false;
        loop {
            match self.silence.recv(&mut [0; 2048]) {
                Ok(_) => heard = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return heard,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[tokio::test]
async fn where_no_udp_goes_through_tcp_is_used_and_goes_first_from_then_on() {
    let fleet = Fleet::new();
    let connected = fleet.connect(&fleet.connector(&ReplicationConfig::default()), NOW_MS).await.unwrap();
    assert_eq!((connected.link.transport(), connected.why), (Transport::Tcp, Why::FellBack));
    assert!(fleet.was_tried_in_vain());

    // After a restart it is known.
    let connector = fleet.connector(&ReplicationConfig::default());
    let connected = fleet.connect(&connector, NOW_MS + 1000).await.unwrap();
    assert_eq!((connected.link.transport(), connected.why), (Transport::Tcp, Why::OtherUnreachable));
    assert!(!fleet.was_tried_in_vain(), "what gets no answer is not tried again at once");

    // A day later QUIC is tried once more.
    let later = NOW_MS + DAY_MS;
    let connected = fleet.connect(&connector, later).await.unwrap();
    assert_eq!((connected.link.transport(), connected.why), (Transport::Tcp, Why::FellBack));
    assert!(fleet.was_tried_in_vain());
}

#[tokio::test]
async fn where_udp_goes_through_quic_is_used() {
    let mut fleet = Fleet::new();
    fleet.membership.address.clone_from(&fleet.quic);
    let connector = fleet.connector(&ReplicationConfig::default());
    for _ in 0..2 {
        let connected = fleet.connect(&connector, NOW_MS).await.unwrap();
        assert_eq!((connected.link.transport(), connected.why), (Transport::Quic, Why::Usual));
    }
    // An address that was set holds for both.
    let config = ReplicationConfig { bridge: Some(fleet.tcp.clone()), ..ReplicationConfig::default() };
    let connected = fleet.connect(&fleet.connector(&config), NOW_MS).await.unwrap();
    assert_eq!(connected.link.transport(), Transport::Tcp);
}

#[tokio::test]
async fn what_is_set_is_used_and_nothing_else_is_tried() {
    let mut fleet = Fleet::new();
    fleet.membership.address.clone_from(&fleet.quic);
    let config = ReplicationConfig { transport: TransportSetting::Tcp, ..ReplicationConfig::default() };
    let connected = fleet.connect(&fleet.connector(&config), NOW_MS).await.unwrap();
    assert_eq!((connected.link.transport(), connected.why), (Transport::Tcp, Why::Set));
    let config = ReplicationConfig { transport: TransportSetting::Quic, ..ReplicationConfig::default() };
    let connected = fleet.connect(&fleet.connector(&config), NOW_MS).await.unwrap();
    assert_eq!((connected.link.transport(), connected.why), (Transport::Quic, Why::Set));
}

/// When nothing answers, the network is away: that says nothing about QUIC.
#[tokio::test]
async fn silence_everywhere_teaches_nothing() {
    let mut fleet = Fleet::new();
    let real = fleet.membership.tcp_address.replace("127.0.0.1:1".to_owned());
    let connector = fleet.connector(&ReplicationConfig::default());
    let error = fleet.fails(&connector, NOW_MS).await;
    assert!(error.contains("QUIC") && error.contains("TCP"), "{error}");
    fleet.was_tried_in_vain();
    fleet.membership.tcp_address = real;
    assert_eq!(fleet.connect(&connector, NOW_MS).await.unwrap().why, Why::FellBack);
    assert!(fleet.was_tried_in_vain(), "QUIC still goes first");
}

/// Answers over TCP as a captive portal does. Returns where.
async fn portal() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    address
}

#[tokio::test]
async fn a_daily_try_of_tcp_that_meets_something_else_goes_on_with_quic_and_is_over_for_the_day() {
    let mut fleet = Fleet::new();
    fleet.membership.address.clone_from(&fleet.quic);
    fleet.membership.tcp_address = Some(portal().await);
    let connector = fleet.connector(&ReplicationConfig::default());
    assert_eq!(fleet.connect(&connector, NOW_MS).await.unwrap().why, Why::Usual);
    let later = NOW_MS + DAY_MS;
    let connected = fleet.connect(&connector, later).await.unwrap();
    assert_eq!((connected.link.transport(), connected.why), (Transport::Quic, Why::FellBack));
    let connected = fleet.connect(&connector, later + 1000).await.unwrap();
    assert_eq!((connected.link.transport(), connected.why), (Transport::Quic, Why::Usual));
}

/// Each attempt costs a handshake, so the other transport has to wait for the third.
#[tokio::test]
async fn where_something_else_answers_over_quic_tcp_goes_first_after_three_attempts() {
    let (mut fleet, other) = (Fleet::new(), Fleet::new());
    fleet.membership.address.clone_from(&other.quic);
    let connector = fleet.connector(&ReplicationConfig::default());
    let strangers = Arc::clone(&other.listener);
    let answering = tokio::spawn(async move {
        while let Ok(knock) = strangers.accept().await {
            let _ = knock.answer().await;
        }
    });
    for attempt in 0..3 {
        let error = fleet.fails(&connector, NOW_MS + attempt).await;
        assert!(error.contains("QUIC") && !error.contains("TCP"), "{error}");
    }
    let connected = fleet.connect(&connector, NOW_MS + 3).await.unwrap();
    assert_eq!((connected.link.transport(), connected.why), (Transport::Tcp, Why::OtherBreaks));
    let connected = fleet.connect(&connector, NOW_MS + DAY_MS).await.unwrap();
    assert_eq!((connected.link.transport(), connected.why), (Transport::Tcp, Why::FellBack));
    answering.abort();
}

/// A bridge that is not ours is not ours over TCP either.
#[tokio::test]
async fn a_peer_that_is_not_the_bridge_is_no_reason_to_try_the_other_transport() {
    let mut fleet = Fleet::new();
    fleet.membership.address.clone_from(&fleet.quic);
    fleet.membership.bridge = NodeId::from_bytes([3; 16]);
    let error = fleet.connect(&fleet.connector(&ReplicationConfig::default()), NOW_MS).await.err().unwrap();
    assert!(matches!(error, NoConnection::Connect(ConnectError::Quic(quic::ConnectError::Peer(_)))), "{error}");
}
