//! Sessions over real sockets on the loopback: the same promises over QUIC and over TCP.

use std::collections::BTreeMap;
use std::time::Duration;

use alexandria_sync::driver::{HostInput, Link, RunError};
use alexandria_sync::identity::{Identity, IdentityError, PeerRole};
use alexandria_sync::quic::TransportConfig;
use alexandria_sync::session::{Config, Event};
use alexandria_sync::transport::{ConnectError, Transport};
use alexandria_sync::wire::{CloseReason, FRAME_HEADER_BYTES, FrameHeader, Lane, Message};
use alexandria_sync::{quic, tcp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::fleet::{
    Bridge, Connected, DEADLINE, Site, authority, bridge_identity, client_tls, connect, identity, node_id, server_tls,
    within_deadline,
};

const TRANSPORTS: [Transport; 2] = [Transport::Quic, Transport::Tcp];

#[tokio::test]
async fn records_and_blobs_replicate_both_ways_until_both_ends_are_quiet() {
    for over in TRANSPORTS {
        replicate_both_ways(over).await;
    }
}

async fn replicate_both_ways(over: Transport) {
    let Connected { node: node_link, bridge: bridge_link, bridge_listener: _listener } = connect(over).await;
    let wire_bytes = (node_link.wire_bytes(), bridge_link.wire_bytes());
    let (node, bridge) = (Site::new(1), Site::new(2));
    node.write_authors(300);
    bridge.write_authors(200);
    let from_node = node.import(1, 3_000_000);
    let from_bridge = bridge.import(2, 2_500_000);

    let mut at_node = node.run(bridge.id, node_link, Config::default());
    let mut at_bridge = bridge.run(node.id, bridge_link, Config::default());
    at_node.wait_quiet().await;
    at_bridge.wait_quiet().await;

    // Whoever waits for the end sees that rows go out.
    for (end, rows) in [(&mut at_node, 301), (&mut at_bridge, 201)] {
        within_deadline(end.progress.wait_for(|progress| progress.rows_sent >= rows)).await.expect("it goes on");
    }
    assert_eq!(node.records.all().len(), 502);
    assert_eq!(node.records.all(), bridge.records.all());
    assert_eq!(bridge.blobs.whole(from_node), node.blobs.whole(from_node));
    assert!(node.blobs.whole(from_bridge).is_some());

    // What comes later moves on by itself, and is told again.
    let later = bridge.import(3, 10);
    at_bridge.host.send(HostInput::LocalChange(alexandria_sync::id::BucketId::Catalogue)).await.unwrap();
    at_node.wait_quiet().await;
    assert!(node.blobs.whole(later).is_some());

    // All of it was counted; over TCP what is sent again is not seen, so it is not much more than the content.
    let (at_node, at_bridge) = (wire_bytes.0(), wire_bytes.1());
    assert!(at_node.sent >= 3_000_000 && at_node.received >= 2_500_000, "{over}: {at_node:?}");
    assert!(at_bridge.received <= at_node.sent && at_node.received <= at_bridge.sent, "{at_node:?} {at_bridge:?}");
    if over == Transport::Tcp {
        assert!(at_node.sent < 3_300_000 && at_node.received < 2_800_000, "{at_node:?}");
    }
    // With headers: IPv4's 20 bytes and UDP's 8, or TCP's 32, for each packet of at most 1,500 bytes.
    let header_bytes = if over == Transport::Quic { 28 } else { 52 };
    for end in [at_node, at_bridge] {
        let packets = (end.sent + end.received) / (1_500 - header_bytes);
        assert!(end.headers >= packets * header_bytes && end.headers.is_multiple_of(header_bytes), "{over}: {end:?}");
        assert_eq!(end.all(), end.sent + end.received + end.headers);
    }
}

/// The rows that a peer sent are not sent back to it.
#[tokio::test]
async fn nothing_is_echoed_to_whoever_sent_it() {
    let Connected { node: node_link, bridge: bridge_link, bridge_listener: _listener } = connect(Transport::Quic).await;
    let (node, bridge) = (Site::new(1), Site::new(2));
    node.write_authors(100);
    let mut at_node = node.run(bridge.id, node_link, Config::default());
    let at_bridge = bridge.run(node.id, bridge_link, Config::default());
    let mut heard = 0;
    loop {
        match tokio::time::timeout(DEADLINE, at_node.events.recv()).await.expect("it goes on").expect("it lives") {
            Event::Quiet => break,
            Event::Applied(_, applied) => heard += applied.applied + applied.superseded,
            _ => {}
        }
    }
    // The host of the bridge would tell it that its feed has grown by what the node sent.
    at_bridge.host.send(HostInput::LocalChange(alexandria_sync::id::BucketId::Catalogue)).await.unwrap();
    while let Ok(Some(event)) = tokio::time::timeout(DEADLINE, at_node.events.recv()).await {
        if let Event::Applied(_, applied) = event {
            heard += applied.applied + applied.superseded;
            break;
        }
    }
    assert_eq!(heard, 0);
    assert_eq!(bridge.records.all().len(), 100);
}

#[tokio::test]
async fn who_is_not_of_the_fleet_is_refused_by_either_end() {
    let (ours, foreign) = (authority(), authority());
    let bridge = Bridge::listen(&identity(&ours, PeerRole::Bridge, 2));
    for over in TRANSPORTS {
        // A node of another fleet: it refuses our bridge, and our bridge never gets a peer.
        let stranger = identity(&foreign, PeerRole::Node, 1);
        let (dialled, answered) = bridge.dialled(over, &stranger, bridge_identity(2)).await;
        assert!(dialled.is_err() && answered.is_err(), "{over}");

        // Another bridge of ours than the one that the node is enrolled with.
        let node = identity(&ours, PeerRole::Node, 1);
        let (dialled, _) = bridge.dialled(over, &node, bridge_identity(3)).await;
        assert!(
            matches!(
                dialled,
                Err(ConnectError::Quic(quic::ConnectError::Peer(IdentityError::Unexpected))
                    | ConnectError::Tcp(tcp::ConnectError::Peer(IdentityError::Unexpected)))
            ),
            "{over}"
        );

        // A bridge that dials like a node.
        let other_bridge = identity(&ours, PeerRole::Bridge, 3);
        let (_, answered) = bridge.dialled(over, &other_bridge, bridge_identity(2)).await;
        assert!(answered.is_err(), "{over}");

        // A node that poses as a bridge, with its node certificate.
        let posing = Bridge::listen(&identity(&ours, PeerRole::Node, 4));
        let (dialled, _) = posing.dialled(over, &node, bridge_identity(4)).await;
        assert!(dialled.is_err(), "{over}");

        // And the right one is let in.
        let (dialled, answered) = bridge.dialled(over, &node, bridge_identity(2)).await;
        assert_eq!(dialled.unwrap().peer(), bridge_identity(2));
        assert_eq!(answered.unwrap().peer().id, node_id(1));
    }
}

/// A foreign client that trusts our bridge is refused by the bridge itself, not only by its own judgement.
#[tokio::test]
async fn a_client_with_a_foreign_certificate_is_refused_by_the_bridge() {
    let (ours, foreign) = (authority(), authority());
    let bridge = Bridge::listen(&identity(&ours, PeerRole::Bridge, 2));
    let foreign_node = crate::fleet::identity_trusting(&foreign, &ours, PeerRole::Node, 1);
    for over in TRANSPORTS {
        let (_, answered) = bridge.dialled(over, &foreign_node, bridge_identity(2)).await;
        assert!(answered.is_err(), "{over}");
    }
}

/// The first packet of each of so many connections, which are dialled to somebody who never answers.
async fn first_packets(count: usize, node: &Identity) -> Vec<Vec<u8>> {
    let silent = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    let to = silent.local_addr().unwrap();
    let mut dialling = JoinSet::new();
    for _ in 0..count {
        let dialer = quic::Dialer::new(to, &TransportConfig::default()).unwrap();
        let tls = client_tls(node);
        dialling.spawn(async move { drop(dialer.connect(to, &tls, bridge_identity(2)).await) });
    }
    let mut packets = BTreeMap::new();
    while packets.len() < count {
        let mut packet = vec![0; 1500];
        let (bytes, _) = silent.recv_from(&mut packet).await.unwrap();
        packet.truncate(bytes);
        // The connection's id (RFC 9000, section 17.2): after flags, version and its length.
        let id = packet[6..6 + usize::from(packet[5])].to_vec();
        packets.entry(id).or_insert(packet);
    }
    packets.into_values().collect()
}

/// One packet from a made-up address would else take a place for half a minute: some dozens a second, and nobody is let in.
#[tokio::test]
async fn who_has_not_shown_where_it_is_takes_half_of_the_handshakes_at_most() {
    const PLACES: usize = 16;
    let authority = authority();
    let tls = server_tls(&identity(&authority, PeerRole::Bridge, 2));
    let config = TransportConfig { incoming_max: PLACES, ..TransportConfig::default() };
    let listener = quic::Listener::bind(([127, 0, 0, 1], 0).into(), &tls, &config).unwrap();
    let address = listener.local_addr().unwrap();
    let node = identity(&authority, PeerRole::Node, 1);
    let flood = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    for packet in within_deadline(first_packets(4 * PLACES, &node)).await {
        flood.send_to(&packet, address).await.unwrap();
    }
    let dialer = quic::Dialer::new(address, &TransportConfig::default()).unwrap();
    let tls = client_tls(&node);
    let dialled = dialer.connect(address, &tls, bridge_identity(2));
    let (mut knocks, mut answering) = (0, JoinSet::new());
    let let_in = async {
        loop {
            tokio::select! {
                knock = listener.accept() => {
                    knocks += 1;
                    answering.spawn(knock.unwrap().answer());
                }
                Some(answered) = answering.join_next() => {
                    if let Ok(link) = answered.unwrap() {
                        break link;
                    }
                }
            }
        }
    };
    let (dialled, link) = within_deadline(async { tokio::join!(dialled, let_in) }).await;
    assert_eq!((dialled.unwrap().peer(), link.peer().id), (bridge_identity(2), node_id(1)));
    assert_eq!(knocks, PLACES / 2 + 1, "of those that never answer half of the places, and the one that does");
}

/// Invariant 12 over a real connection: the receiver loses power in the middle of a blob.
#[tokio::test]
async fn after_a_cut_in_the_middle_of_a_blob_only_the_window_is_sent_again() {
    for over in TRANSPORTS {
        cut_in_the_middle_of_a_blob(over).await;
    }
}

async fn cut_in_the_middle_of_a_blob(over: Transport) {
    const SIZE_BYTES: usize = 12_000_000;
    let config = Config { window_bytes_max: 4_000_000, ..Config::default() };
    let (node, bridge) = (Site::new(1), Site::new(2));
    let blob = bridge.import(7, SIZE_BYTES);

    let first = connect(over).await;
    let at_node = node.run(bridge.id, first.node, config.clone());
    let at_bridge = bridge.run(node.id, first.bridge, config.clone());
    let half_way = async {
        while bridge.blobs.bytes_read() < SIZE_BYTES as u64 / 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, half_way).await.expect("it gets half way");
    at_node.task.abort();
    let _ = at_node.task.await;
    node.blobs.crash(&mut alexandria_sync::sim::Seeded::new(1));
    assert!(node.blobs.whole(blob).is_none(), "the cut came too late to test anything");
    assert!(at_bridge.task.await.is_ok());

    let second = connect(over).await;
    let mut at_node = node.run(bridge.id, second.node, config.clone());
    let _at_bridge = bridge.run(node.id, second.bridge, config);
    at_node.wait_quiet().await;
    assert!(node.blobs.whole(blob).is_some());
    let again = bridge.blobs.bytes_read() - SIZE_BYTES as u64;
    assert!(again <= 4_000_000, "{over}: {again} bytes were sent again");
}

/// A disk tells nobody that there is room again.
#[tokio::test]
async fn content_for_which_there_was_no_room_comes_once_there_is_without_being_asked_for() {
    let Connected { node: node_link, bridge: bridge_link, bridge_listener: _listener } = connect(Transport::Quic).await;
    let (node, bridge) = (Site::new(1), Site::new(2));
    let blob = bridge.import(9, 100_000);
    node.blobs.set_quota(10);
    let config = Config { absent_retry_ms: 50, ..Config::default() };
    let mut at_node = node.run(bridge.id, node_link, config.clone());
    let _at_bridge = bridge.run(node.id, bridge_link, config);
    let blocked = async { while !matches!(at_node.events.recv().await, Some(Event::ContentBlocked)) {} };
    tokio::time::timeout(DEADLINE, blocked).await.expect("it is told");

    node.blobs.set_quota(u64::MAX);
    let received = async { while !matches!(at_node.events.recv().await, Some(Event::BlobReceived { .. })) {} };
    tokio::time::timeout(DEADLINE, received).await.expect("it comes");
    assert!(node.blobs.whole(blob).is_some());
}

/// Nobody who opens something has to wait for the time at which all that did not fit is tried again.
#[tokio::test]
async fn content_for_which_there_was_no_room_is_tried_again_when_a_reader_asks_for_it() {
    let Connected { node: node_link, bridge: bridge_link, bridge_listener: _listener } = connect(Transport::Quic).await;
    let (node, bridge) = (Site::new(1), Site::new(2));
    let (blob, other) = (bridge.import(9, 100_000), bridge.import(10, 100_000));
    node.blobs.set_quota(10);
    let mut at_node = node.run(bridge.id, node_link, Config::default());
    let _at_bridge = bridge.run(node.id, bridge_link, Config::default());
    let blocked = async { while !matches!(at_node.events.recv().await, Some(Event::ContentBlocked)) {} };
    tokio::time::timeout(DEADLINE, blocked).await.expect("it is told");

    node.blobs.set_quota(u64::MAX);
    node.blobs.want_now(blob);
    at_node.host.send(HostInput::WantsChanged).await.unwrap();
    let received = async { while !matches!(at_node.events.recv().await, Some(Event::BlobReceived { .. })) {} };
    tokio::time::timeout(DEADLINE, received).await.expect("it comes");
    assert!(node.blobs.whole(blob).is_some() && node.blobs.whole(other).is_none());
}

#[tokio::test]
async fn both_ends_learn_why_a_session_was_closed() {
    for over in TRANSPORTS {
        let Connected { node: node_link, bridge: bridge_link, bridge_listener: _listener } = connect(over).await;
        let (node, bridge) = (Site::new(1), Site::new(2));
        let mut at_node = node.run(bridge.id, node_link, Config::default());
        let at_bridge = bridge.run(node.id, bridge_link, Config::default());
        at_node.wait_quiet().await;
        at_bridge.host.send(HostInput::Stop(CloseReason::NotWelcome, String::new())).await.unwrap();
        let (here, there) = tokio::join!(at_bridge.wait_end(), at_node.wait_end());
        let (here, there) = (here.unwrap(), there.unwrap());
        assert_eq!((here.reason, here.by_peer), (CloseReason::NotWelcome, false));
        assert_eq!((there.reason, there.by_peer), (CloseReason::NotWelcome, true));
    }
}

/// Sends raw bytes on a lane, and reads the bridge's control lane until it closes.
async fn answer_to(over: Transport, lane: Lane, bytes: &[u8]) -> (CloseReason, CloseReason) {
    let connected = connect(over).await;
    let bridge = Site::new(2);
    let at_bridge = bridge.run(node_id(1), connected.bridge, Config::default());
    let mut writer = connected.node.open(lane).await.unwrap();
    writer.write_all(bytes).await.unwrap();
    let told = async {
        let mut reader = loop {
            // Over TCP a lane opens both ways.
            let (accepted, reader) = connected.node.accept().await.unwrap();
            if accepted == Lane::Control {
                break reader;
            }
        };
        loop {
            let mut head = [0; FRAME_HEADER_BYTES];
            reader.read_exact(&mut head).await.unwrap();
            let head = FrameHeader::decode(head).unwrap();
            let mut body = vec![0; head.body_len];
            reader.read_exact(&mut body).await.unwrap();
            if let Some(Message::Close { reason, .. }) = head.decode_body(body.into()).unwrap() {
                connected.node.close();
                return reason;
            }
        }
    };
    let (told, ended) = tokio::join!(tokio::time::timeout(DEADLINE, told), at_bridge.wait_end());
    (told.expect("it is told why"), ended.expect("a refused peer is no failure").reason)
}

#[tokio::test]
async fn broken_frames_close_the_session_with_their_reason() {
    let violation = (CloseReason::Violation, CloseReason::Violation);
    let not_understood = (CloseReason::NotUnderstood, CloseReason::NotUnderstood);
    for over in TRANSPORTS {
        // A page of 4 GiB, a type that must be understood, a hello that is none, a control message on a content lane.
        assert_eq!(answer_to(over, Lane::Records, &[0xff, 0xff, 0xff, 0xff, 4, 0]).await, violation);
        assert_eq!(answer_to(over, Lane::Control, &[0, 0, 0, 0, 99, 0]).await, not_understood);
        assert_eq!(answer_to(over, Lane::Control, &[0, 0, 0, 1, 1, 0, 0x05]).await, violation);
        let quiet = Message::Quiet { dealt_with: 1 }.to_frame();
        assert_eq!(answer_to(over, Lane::Content(3), &quiet).await, violation);
    }
}

#[tokio::test]
async fn a_shutdown_leaves_nothing_hanging() {
    for over in TRANSPORTS {
        shut_down(over).await;
    }
}

async fn shut_down(over: Transport) {
    let connected = connect(over).await;
    let (node, bridge) = (Site::new(1), Site::new(2));
    let mut at_node = node.run(bridge.id, connected.node, Config::default());
    let at_bridge = bridge.run(node.id, connected.bridge, Config::default());
    at_node.wait_quiet().await;

    // The host of the bridge goes away: a clean end at both.
    drop(at_bridge.host);
    let ended = tokio::time::timeout(Duration::from_secs(10), at_bridge.task).await.expect("it does not hang");
    assert_eq!(ended.unwrap().unwrap().reason, CloseReason::GoingAway);
    assert_eq!(at_node.wait_end().await.unwrap().reason, CloseReason::GoingAway);
    tokio::time::timeout(Duration::from_secs(10), connected.bridge_listener.listener.close())
        .await
        .expect("no connection is left");

    // The endpoint goes away under two running sessions: both end.
    let connected = connect(over).await;
    let mut at_node = node.run(bridge.id, connected.node, Config::default());
    let at_bridge = bridge.run(node.id, connected.bridge, Config::default());
    at_node.wait_quiet().await;
    tokio::time::timeout(Duration::from_secs(10), connected.bridge_listener.listener.close())
        .await
        .expect("no connection is left");
    assert!(matches!(at_bridge.wait_end().await, Err(RunError::Link(_))));
    assert!(matches!(at_node.wait_end().await, Err(RunError::Link(_))));
}
