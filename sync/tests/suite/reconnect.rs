//! What a reconnect costs, and what does not cost one: sessions that resume at any process of the bridge, paths whose size
//! is known, addresses that change under way.

use std::net::SocketAddr;

use alexandria_sync::driver::Link;
use alexandria_sync::identity::PeerRole;
use alexandria_sync::quic::{Dialer, Listener, MTU_MAX, MTU_MIN, Mtu, QuicLink, TransportConfig};
use alexandria_sync::session::Config;
use alexandria_sync::tcp::{self, TcpConfig};
use alexandria_sync::tickets::TicketSecret;
use alexandria_sync::tls::{ClientTls, ServerTls};
use alexandria_sync::wire::{FRAME_HEADER_BYTES, FrameHeader, Lane, Message, Offered};
use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::fleet::{Site, authority, bridge_identity, client_tls, identity, node_id, server_tls, within_deadline};

/// What a reconnect may cost until the first PULL has left, both ways. 3,600 of it is what QUIC pads.
const RECONNECT_BYTES_MAX: u64 = 4_050;

/// On a link on which every byte costs.
fn sparing() -> TransportConfig {
    TransportConfig { is_sparing: true, ..TransportConfig::default() }
}

/// On a path that has carried datagrams of this size before.
fn known(bytes: u16) -> TransportConfig {
    TransportConfig { mtu: Mtu { known: Some(bytes), is_probed: false }, ..TransportConfig::default() }
}

fn listen(tls: &ServerTls) -> (Listener, SocketAddr) {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), tls, &TransportConfig::default()).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Both ends of a connection of a node with a process of the bridge.
async fn connect(dialer: &Dialer, tls: &ClientTls, (listener, address): &(Listener, SocketAddr)) -> [QuicLink; 2] {
    let dialled = dialer.connect(*address, tls, bridge_identity(2));
    let answered = async { listener.accept().await?.answer().await };
    let (dialled, answered) = within_deadline(async { tokio::join!(dialled, answered) }).await;
    [dialled.unwrap(), answered.unwrap()]
}

/// What crosses until the bridge has the node's first PULL, in bytes of UDP payload: sent and received by the node.
async fn bytes_until_pull(limits: &TransportConfig, tls: &ClientTls, bridge: &(Listener, SocketAddr)) -> (u64, u64) {
    let dialer = Dialer::new(bridge.1, limits).unwrap();
    let [node_link, bridge_link] = connect(&dialer, tls, bridge).await;
    let wire_bytes = node_link.wire_bytes();
    let (node, site) = (Site::new(1), Site::new(2));
    site.write_authors(1);
    let at_node = node.run(site.id, node_link, Config::default());
    let pulled = async {
        let mut writer = bridge_link.open(Lane::Control).await.unwrap();
        let offered = Offered { bucket: alexandria_sync::id::BucketId::Catalogue, head: alexandria_sync::id::Seq(1) };
        for message in [Message::Hello(site.hello()), Message::Offer(vec![offered])] {
            writer.write_all(&message.to_frame()).await.unwrap();
        }
        let (_, mut reader) = bridge_link.accept().await.unwrap();
        loop {
            let mut head = [0; FRAME_HEADER_BYTES];
            reader.read_exact(&mut head).await.unwrap();
            let head = FrameHeader::decode(head).unwrap();
            let mut body = vec![0; head.body_len];
            reader.read_exact(&mut body).await.unwrap();
            if let Some(Message::Pull { .. }) = head.decode_body(body.into()).unwrap() {
                return wire_bytes();
            }
        }
    };
    let crossed = within_deadline(pulled).await;
    bridge_link.close();
    let _ = at_node.wait_end().await;
    (crossed.sent, crossed.received)
}

#[tokio::test]
async fn a_reconnect_costs_four_kilobytes_until_the_first_pull() {
    let authority = authority();
    let node = client_tls(&identity(&authority, PeerRole::Node, 1));
    let bridge = listen(&server_tls(&identity(&authority, PeerRole::Bridge, 2)));
    let rows = [
        ("every byte costs", sparing()),
        ("as before: sizes of datagrams are tried out, a ticket is given", TransportConfig::default()),
        ("the size of datagrams is known, the session is resumed", known(MTU_MAX)),
    ];
    println!("bytes until the first PULL, sent + received by the node:");
    let mut totals = Vec::new();
    for (what, limits) in rows {
        let (sent, received) = bytes_until_pull(&limits, &node, &bridge).await;
        println!("  {sent} + {received} = {}  {what}", sent + received);
        totals.push(sent + received);
    }
    assert!(totals[0] <= RECONNECT_BYTES_MAX, "{totals:?}");
    assert!(totals[2] < totals[1], "{totals:?}");
}

/// Connects over TCP, opens a lane of its own for the session, and tells whether the session was resumed.
async fn resumes(tls: &ClientTls, number: u8, bridge: &tcp::Listener) -> bool {
    let dialer = tcp::Dialer::new(&TcpConfig::default());
    let dialled = within_deadline(dialer.connect(bridge.local_addr(), tls, bridge_identity(2))).await.unwrap();
    let answered = within_deadline(bridge.accept()).await.unwrap().answer().unwrap();
    // Whom a ticket names does not come from the node.
    assert_eq!((dialled.peer(), answered.peer().id), (bridge_identity(2), node_id(number)));
    let mut lane = within_deadline(dialled.open(Lane::Records)).await.unwrap();
    lane.write_all(b"x").await.unwrap();
    let (_, _control) = answered.accept().await.unwrap();
    let (opened, _reader) = within_deadline(answered.accept()).await.unwrap();
    assert_eq!(opened, Lane::Records, "a lane whose connection was resumed joins its session");
    assert_eq!(dialled.is_resumed(), answered.is_resumed());
    dialled.is_resumed()
}

#[tokio::test]
async fn a_session_resumes_at_any_process_that_shares_the_secret_and_for_the_same_node() {
    let authority = authority();
    let bridge = || identity(&authority, PeerRole::Bridge, 2);
    let listen = |tls: &ServerTls| {
        tcp::Listener::bind(([127, 0, 0, 1], 0).into(), tls, &TcpConfig::default()).expect("loopback has a free port")
    };
    // Two processes of one bridge, each with a certificate of its own, and one that has another secret.
    let (first, second) = (listen(&server_tls(&bridge())), listen(&server_tls(&bridge())));
    let stranger = listen(&ServerTls::new(&bridge(), &TicketSecret::derived_from(b"another")).unwrap());
    for number in [1, 3] {
        let node = identity(&authority, PeerRole::Node, number);
        let tls = client_tls(&node);
        assert!(!resumes(&tls, number, &first).await);
        assert!(resumes(&tls, number, &second).await);
        assert!(resumes(&tls, number, &first).await);
        assert!(!resumes(&tls, number, &stranger).await, "its tickets are none of ours");
        assert!(!resumes(&client_tls(&node), number, &first).await, "what was never met is not resumed");
    }
}

#[tokio::test]
async fn what_a_path_carries_is_found_once_and_then_known() {
    let authority = authority();
    let tls = client_tls(&identity(&authority, PeerRole::Node, 1));
    let bridge = listen(&server_tls(&identity(&authority, PeerRole::Bridge, 2)));
    let found = transfer(&tls, &bridge, &TransportConfig::default()).await;
    assert!(found > MTU_MIN, "{found}");
    assert_eq!(transfer(&tls, &bridge, &sparing()).await, MTU_MIN);
    assert_eq!(transfer(&tls, &bridge, &known(found)).await, found);
}

/// Sends something to the bridge, and tells what the path was found to carry.
async fn transfer(tls: &ClientTls, bridge: &(Listener, SocketAddr), limits: &TransportConfig) -> u16 {
    let dialer = Dialer::new(bridge.1, limits).unwrap();
    let [node_link, bridge_link] = connect(&dialer, tls, bridge).await;
    let path_mtu = node_link.path_mtu();
    let (node, site) = (Site::new(1), Site::new(2));
    node.import(1, 1_000_000);
    let mut at_node = node.run(site.id, node_link, Config::default());
    let mut at_bridge = site.run(node.id, bridge_link, Config::default());
    at_node.wait_quiet().await;
    at_bridge.wait_quiet().await;
    path_mtu()
}

/// The router in between forgets its mapping, or the node moves to another network, in the middle of a blob: the same
/// session goes on from the new address.
#[tokio::test]
async fn a_change_of_address_under_way_does_not_cost_the_transfer() {
    let authority = authority();
    let tls = client_tls(&identity(&authority, PeerRole::Node, 1));
    let bridge = listen(&server_tls(&identity(&authority, PeerRole::Bridge, 2)));
    for upwards in [true, false] {
        let nat = Nat::start(bridge.1).await;
        let dialer = Dialer::new(nat.address, &TransportConfig::default()).unwrap();
        let through = (&bridge.0, nat.address);
        let dialled = dialer.connect(through.1, &tls, bridge_identity(2));
        let answered = async { through.0.accept().await?.answer().await };
        let (dialled, answered) = within_deadline(async { tokio::join!(dialled, answered) }).await;
        let (node, site) = (Site::new(1), Site::new(2));
        let (from, to) = if upwards { (&node, &site) } else { (&site, &node) };
        let blob = from.import(1, 4_000_000);
        let mut at_node = node.run(site.id, dialled.unwrap(), Config::default());
        let mut at_bridge = site.run(node.id, answered.unwrap(), Config::default());
        let half_way = async {
            while from.blobs.bytes_read() < 2_000_000 {
                tokio::task::yield_now().await;
            }
        };
        within_deadline(half_way).await;
        assert!(to.blobs.whole(blob).is_none(), "the change came too late to test anything");
        nat.rebind();
        at_node.wait_quiet().await;
        at_bridge.wait_quiet().await;
        assert!(to.blobs.whole(blob).is_some());
        assert_eq!(from.blobs.bytes_read(), 4_000_000, "nothing was asked for twice");
    }
}

/// A router that translates addresses, for one client.
struct Nat {
    address: SocketAddr,
    rebound: watch::Sender<u64>,
    _relay: tokio::task::JoinSet<()>,
}

impl Nat {
    async fn start(server: SocketAddr) -> Self {
        let inside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = inside.local_addr().unwrap();
        let (rebound, heard) = watch::channel(0);
        let mut relay = tokio::task::JoinSet::new();
        relay.spawn(translate(inside, server, heard));
        Self { address, rebound, _relay: relay }
    }

    /// From now on the client appears to be elsewhere, and nothing reaches it at its old address.
    fn rebind(&self) {
        self.rebound.send_modify(|times| *times += 1);
    }
}

async fn translate(inside: UdpSocket, server: SocketAddr, mut rebound: watch::Receiver<u64>) {
    let outside_of = async || {
        let outside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        outside.connect(server).await.unwrap();
        outside
    };
    let (mut outside, mut client) = (outside_of().await, None);
    let (mut up, mut down) = (vec![0; 2048], vec![0; 2048]);
    loop {
        tokio::select! {
            changed = rebound.changed() => match changed {
                Ok(()) => outside = outside_of().await,
                Err(_) => return,
            },
            Ok((count, from)) = inside.recv_from(&mut up) => {
                client = Some(from);
                let _ = outside.send(&up[..count]).await;
            }
            Ok(count) = outside.recv(&mut down) => if let Some(client) = client {
                let _ = inside.send_to(&down[..count], client).await;
            },
        }
    }
}
