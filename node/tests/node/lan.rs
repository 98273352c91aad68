//! Nodes of one fleet that meet on the loopback, with no bridge anywhere.

use std::net::SocketAddr;
use std::time::Duration;

use alexandria_api::catalogue::{Catalogue, Content, Whereabouts};
use alexandria_node::config::Config;
use alexandria_node::lan::{Lan, LanConfig, StaticPeer};
use alexandria_node::library::Library;
use alexandria_node::library::selection::SelectionConfig;
use alexandria_node::local::messages::LanStatus;
use alexandria_node::replication::membership::Membership;
use alexandria_node::replication::{ReplicationConfig, Replicator};
use alexandria_node::store::{Change, Level};
use alexandria_sync::chunk::{BlobHash, Chunking};
use alexandria_sync::domain::{Author, Blob, Revocation, Typed};
use alexandria_sync::hlc::{HlcTime, Stamp};
use alexandria_sync::id::{BucketId, Epoch, NodeId, RecordId, Seq};
use alexandria_sync::identity::{Authority, Identity, PeerIdentity, PeerRole, SigningRequest};
use alexandria_sync::quic::{self, TransportConfig};
use alexandria_sync::store::{Peer, RecordStore as _};
use alexandria_sync::tls::ClientTls;
use futures::TryStreamExt;
use tempfile::TempDir;

use super::replication::Bridge;
use crate::store::samples::{folder, noise};

const DEADLINE: Duration = Duration::from_mins(1);
const BRIDGE: NodeId = NodeId::from_bytes([0xb7; 16]);
const MB: usize = 1_000_000;

/// A node that meets others, once it is let into a fleet.
struct Place {
    library: Library,
    node: NodeId,
    dir: TempDir,
}

impl Place {
    fn open() -> Self {
        Self::keeping(Level::Content)
    }

    /// One that keeps so much of each collection.
    fn keeping(level: Level) -> Self {
        let dir = folder();
        let data_dir = dir.path().join("data");
        let config = Config::default();
        let selection = SelectionConfig { default: level, ..config.selection };
        let library = Library::open(&data_dir, &config.store, &selection).expect("the library opens").0;
        let node = library.store().records.identity().node;
        Self { library, node, dir }
    }

    /// Two of them, the one that dials first.
    fn two() -> (Self, Self) {
        let (one, other) = (Self::open(), Self::open());
        if one.node < other.node { (one, other) } else { (other, one) }
    }

    fn enrol(&self, fleet: &Authority) {
        let (certificate_pem, key) = certified(fleet, self.node);
        let data_dir = self.dir.path().join("data");
        std::fs::write(data_dir.join("fleet-key.pem"), key).expect("the folder is writable");
        let authority_pem = fleet.certificate_pem().to_owned();
        // Nobody listens there.
        let address = "127.0.0.1:9".to_owned();
        let membership =
            Membership { certificate_pem, authority_pem, bridge: BRIDGE, enrolment: None, address, tcp_address: None };
        membership.save(&data_dir).expect("the folder is writable");
    }

    fn meet(&self, peers: Vec<StaticPeer>, denied: Vec<NodeId>) -> Lan {
        self.meet_as(LanConfig { peers, denied, ..LanConfig::default() })
    }

    fn meet_as(&self, config: LanConfig) -> Lan {
        let config = LanConfig { enabled: Some(true), ..config };
        let lan = Lan::new(self.library.clone(), config, loopback(), &format!("node {}", self.node));
        let running = lan.clone();
        tokio::spawn(async move { running.run().await });
        lan
    }

    /// Takes in noise, named by a record of this bucket.
    async fn import(&self, bucket: BucketId, seed: u64, size_bytes: usize) -> BlobHash {
        let bytes = noise(size_bytes, seed);
        let put =
            self.library.store().blobs.put_stream(Chunking::Fixed, None, &bytes[..]).await.expect("there is room");
        let hash = put.hash;
        let blob = Blob { hash: Some(hash), size_bytes: size_bytes as u64, media_type: "video/mp4".into() };
        let change = Change::create(bucket, Blob::record_id(hash), blob);
        self.library.store().records.change_one(change).await.expect("it is new");
        hash
    }

    async fn write_author(&self, bucket: BucketId, name: &str) -> RecordId {
        let id = RecordId::derived(&[name.as_bytes()]);
        let author = Author { name: name.into(), ..Author::default() };
        self.library.store().records.change_one(Change::create(bucket, id, author)).await.expect("it is new");
        id
    }

    fn has_author(&self, id: RecordId) -> bool {
        self.library.store().records.find(Author::KIND, id).expect("the store reads").is_some()
    }

    async fn wait_for_author(&self, id: RecordId) {
        let mut heads = self.library.store().records.subscribe();
        let arrives = async {
            while !self.has_author(id) {
                let _ = heads.recv().await;
            }
        };
        tokio::time::timeout(DEADLINE, arrives).await.expect("the author arrives");
    }

    async fn wait_for_blob(&self, hash: BlobHash) {
        let mut arrivals = self.library.store().blobs.arrivals();
        let arrives = async {
            while self.library.store().blobs.held(hash).expect("the store reads").is_none() {
                let _ = arrivals.recv().await;
            }
        };
        tokio::time::timeout(DEADLINE, arrives).await.expect("the content arrives");
    }
}

fn now_unix_ms() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as u64
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn certified(authority: &Authority, id: NodeId) -> (String, String) {
    let named = PeerIdentity { role: PeerRole::Node, id };
    let request = SigningRequest::make(named).expect("the system gives randomness");
    let now_unix_s = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let certificate = authority.sign(&request.request_pem, named, [7; 16], now_unix_s, 365);
    (certificate.expect("it is valid"), request.key_pem.clone())
}

fn fleet() -> Authority {
    Authority::make("test fleet", std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs())
        .expect("the system gives randomness")
}

/// What a node says of the others, once it is as it should be.
async fn wait_status(lan: &Lan, what: &str, holds: impl Fn(&LanStatus) -> bool) -> LanStatus {
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let waited = async {
        loop {
            look.tick().await;
            if let Some(status) = lan.status().filter(&holds) {
                return status;
            }
        }
    };
    let waited = tokio::time::timeout(DEADLINE, waited).await;
    waited.unwrap_or_else(|_| panic!("{what}: {:?}", lan.status()))
}

async fn listening(lan: &Lan) -> SocketAddr {
    let status = wait_status(lan, "it listens", |status| status.listening.is_some()).await;
    status.listening.expect("it was waited for").parse().expect("an address")
}

fn connected(status: &LanStatus) -> usize {
    status.peers.iter().filter(|peer| peer.connected).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_takes_in_can_be_read_at_the_other_with_no_bridge_and_no_site_moves() {
    let fleet = fleet();
    let (one, two) = Place::two();
    one.enrol(&fleet);
    two.enrol(&fleet);
    let before = one.import(BucketId::Catalogue, 1, 3 * MB).await;
    let private = one.import(BucketId::Site(one.node), 2, MB).await;
    let secret = one.write_author(BucketId::Site(one.node), "a reader").await;

    let at_two = two.meet(Vec::new(), Vec::new());
    let address = listening(&at_two).await.to_string();
    let at_one = one.meet(vec![StaticPeer { node: two.node, address }], Vec::new());
    two.wait_for_blob(before).await;

    // What comes later comes by itself, both ways, and is read while it comes.
    let author = two.write_author(BucketId::Catalogue, "Wangari").await;
    one.wait_for_author(author).await;
    let film = one.import(BucketId::Catalogue, 3, 8 * MB).await;
    let seen = one.write_author(BucketId::Catalogue, "comes after the film").await;
    two.wait_for_author(seen).await;
    two.library.tell_link(Some(alexandria_node::library::outlook::LinkState::default()));
    let content = two.library.fetch_blob(film).await.expect("it can be read").expect("a record names it");
    let read = content.read(0..8 * MB as u64).try_fold(Vec::new(), async |mut all, piece| {
        all.extend_from_slice(&piece);
        Ok(all)
    });
    let read = tokio::time::timeout(DEADLINE, read).await.expect("it comes").expect("it can be read");
    assert!(read == noise(8 * MB, 3), "byte for byte");

    let status = wait_status(&at_one, "all was sent", |status| {
        status.peers.iter().map(|peer| peer.bytes_sent).sum::<u64>() >= 11 * MB as u64
    })
    .await;
    assert_eq!((connected(&status), status.refused), (1, 0), "{status:?}");
    assert_eq!(connected(&at_two.status().expect("it runs")), 1, "two nodes hold one session");
    assert!(!two.has_author(secret), "a site is nobody else's");
    assert!(two.library.store().blobs.held(private).expect("the store reads").is_none());
    one.library.close();
    two.library.close();
}

/// Somebody may know the hash of a site's content: they do not get it all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_of_a_site_is_not_given_to_who_asks_for_it_by_its_hash() {
    let fleet = fleet();
    let (one, two) = Place::two();
    one.enrol(&fleet);
    two.enrol(&fleet);
    let private = two.import(BucketId::Site(two.node), 2, MB).await;
    let public = two.import(BucketId::Catalogue, 3, MB).await;
    // A record of its own makes the other want it.
    let blob = Blob { hash: Some(private), size_bytes: MB as u64, media_type: "video/mp4".into() };
    let change = Change::create(BucketId::Catalogue, Blob::record_id(private), blob);
    one.library.store().records.change_one(change).await.expect("it is new");
    let at_two = two.meet(Vec::new(), Vec::new());
    // The record would make it public when it arrived there: this node only asks.
    let address = listening(&at_two).await;
    let (certificate, key) = certified(&fleet, one.node);
    let identity = Identity::from_pem(&certificate, &key, fleet.certificate_pem()).expect("it was just made");
    let asked = asking::asked_for(&identity, two.node, address, &[private, public]).await;
    assert_eq!(asked, [false, true]);
    two.library.close();
    one.library.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_the_denied_and_who_is_to_be_dialled_are_refused_and_counted_and_nobody_else_is_disturbed() {
    let (ours, foreign) = (fleet(), fleet());
    let (one, two) = Place::two();
    one.enrol(&ours);
    two.enrol(&ours);
    let denied = NodeId::from_bytes([1; 16]);
    let larger = NodeId::from_bytes([0xff; 16]);
    let at_two = two.meet(Vec::new(), vec![denied]);
    let address = listening(&at_two).await;
    let at_one = one.meet(vec![StaticPeer { node: two.node, address: address.to_string() }], Vec::new());
    wait_status(&at_one, "they meet", |status| connected(status) == 1).await;

    let attempts = [
        (&foreign, NodeId::from_bytes([2; 16]), "a node of another fleet"),
        (&ours, denied, "a node that the operator denied"),
        (&ours, larger, "a node that is to be dialled"),
        (&ours, two.node, "somebody with this node's own id"),
    ];
    for (number, (authority, id, what)) in attempts.into_iter().enumerate() {
        let (certificate, key) = certified(authority, id);
        // It believes in this fleet: the node at the other end decides.
        let identity = Identity::from_pem(&certificate, &key, ours.certificate_pem()).expect("it was just made");
        let tls = ClientTls::for_peer(&identity, 0, two.node).expect("the identity is good");
        let dialer = quic::Dialer::new(address, &TransportConfig::default()).expect("a socket can be had");
        let expected = PeerIdentity { role: PeerRole::Node, id: two.node };
        if let Ok(link) = dialer.connect(address, &tls, expected).await {
            let ended = tokio::time::timeout(DEADLINE, alexandria_sync::driver::Link::closed(&link)).await;
            ended.unwrap_or_else(|_| panic!("{what} is let in"));
        }
        wait_status(&at_two, what, |status| status.refused == number as u64 + 1).await;
    }
    let author = two.write_author(BucketId::Catalogue, "after all that").await;
    one.wait_for_author(author).await;
    assert_eq!(connected(&at_two.status().expect("it runs")), 1);
    one.library.close();
    two.library.close();
}

/// With no bridge in reach of either: a third node may have brought the word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_the_bridge_has_revoked_is_shut_out_by_its_neighbours_once_they_hear_of_it() {
    let fleet = fleet();
    let (one, two) = Place::two();
    one.enrol(&fleet);
    two.enrol(&fleet);
    let at_two = two.meet(Vec::new(), Vec::new());
    let address = listening(&at_two).await.to_string();
    let at_one = one.meet(vec![StaticPeer { node: two.node, address }], Vec::new());
    wait_status(&at_one, "they meet", |status| connected(status) == 1).await;

    let hears = async |place: &Place, revoked: NodeId, from: NodeId, seq: u64| {
        let stamp = Stamp { time: HlcTime::from_unix_ms(now_unix_ms()), node: from, ..Stamp::default() };
        let told = Revocation::of(revoked, stamp);
        let teller = Peer { node: NodeId::from_bytes([3; 16]), epoch: Epoch(1) };
        place
            .library
            .store()
            .records
            .apply(teller, BucketId::Catalogue, vec![told], Seq(seq))
            .await
            .expect("it is let in");
    };
    // What anybody but the bridge says of it does not count.
    hears(&two, one.node, NodeId::from_bytes([3; 16]), 1).await;
    let author = two.write_author(BucketId::Catalogue, "before").await;
    one.wait_for_author(author).await;
    assert_eq!(connected(&at_two.status().expect("it runs")), 1);

    hears(&two, one.node, BRIDGE, 2).await;
    wait_status(&at_two, "the session ends", |status| connected(status) == 0).await;
    let author = two.write_author(BucketId::Catalogue, "after").await;
    // It has heard of it, too, and dials all the same.
    wait_status(&at_two, "it is refused", |status| status.refused > 0).await;
    assert!(!one.has_author(author));
    one.library.close();
    two.library.close();
}

#[tokio::test]
async fn content_that_only_a_neighbour_holds_is_told_to_be_there_by_the_neighbours_name() {
    let fleet = fleet();
    let (keeper, reader) = (Place::open(), Place::keeping(Level::Records));
    for place in [&keeper, &reader] {
        place.enrol(&fleet);
    }
    let bucket = BucketId::Collection(RecordId::derived(&[b"talks"]));
    let content = keeper.import(bucket, 5, MB).await;
    let author = keeper.write_author(BucketId::Catalogue, "Speaker").await;
    let (dials, listens) = if keeper.node < reader.node { (&keeper, &reader) } else { (&reader, &keeper) };
    let listener = listens.meet(Vec::new(), Vec::new());
    let address = listening(&listener).await.to_string();
    dials.meet(vec![StaticPeer { node: listens.node, address }], Vec::new());
    reader.wait_for_author(author).await;
    let found = reader.library.whereabouts(&[content]).await.expect("the store reads").remove(&content);
    assert_eq!(found, Some(Whereabouts { here: false, nearby: vec![format!("node {}", keeper.node)] }));
    let here = keeper.library.whereabouts(&[content]).await.expect("the store reads").remove(&content);
    assert_eq!(here, Some(Whereabouts { here: true, nearby: Vec::new() }));
    keeper.library.close();
    reader.library.close();
}

/// Each of them could bring all of it. One goes when both have brought something.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_neighbours_bring_one_blob_together_and_when_one_goes_the_other_brings_the_rest_and_nothing_again() {
    const SIZE: u64 = 80 * MB as u64;
    let fleet = fleet();
    // The one with the largest id is dialled by the others, and is the one that reads: only when somebody waits for it.
    let mut places = [(); 3].map(|()| Place::keeping(Level::Records));
    places.sort_by_key(|place| place.node);
    let [one, two, reader] = places;
    let film = BlobHash::of(&noise(SIZE as usize, 5));
    let bucket = BucketId::Collection(RecordId::derived(&[b"films"]));
    for place in [&one, &two, &reader] {
        place.enrol(&fleet);
    }
    let mut marks = Vec::new();
    for (keeper, name) in [(&one, "one"), (&two, "two")] {
        assert_eq!(keeper.import(bucket, 5, SIZE as usize).await, film);
        marks.push(keeper.write_author(BucketId::Catalogue, name).await);
        // After the film.
        marks.push(keeper.write_author(bucket, &format!("{name}, of the films")).await);
    }
    let at_reader = reader.meet(Vec::new(), Vec::new());
    let address = listening(&at_reader).await.to_string();
    for keeper in [&one, &two] {
        keeper.meet(vec![StaticPeer { node: reader.node, address: address.clone() }], Vec::new());
    }
    for mark in marks {
        reader.wait_for_author(mark).await;
    }
    let received = |status: &LanStatus, from: &Place| {
        let peer = status.peers.iter().find(|peer| peer.node == from.node);
        peer.map_or(0, |peer| peer.bytes_received)
    };
    assert_eq!(received(&at_reader.status().expect("it runs"), &one), 0, "nobody waits for it");

    reader.library.store().blobs.want_now(film, None);
    let half_way = |status: &LanStatus| [&one, &two].iter().all(|keeper| received(status, keeper) > 4 * MB as u64);
    let status = wait_status(&at_reader, "both bring something", half_way).await;
    let by_one = received(&status, &one);
    one.library.close();
    reader.wait_for_blob(film).await;
    let told = |status: &LanStatus| status.peers.iter().all(|peer| peer.bytes_to_receive == 0);
    let by_two = received(&wait_status(&at_reader, "the rest is told", told).await, &two);
    println!("{by_one} bytes by the first before it went, {by_two} by the second, of {SIZE}");
    assert!(by_two <= SIZE - by_one, "what the first had brought came again: {by_one} and {by_two} of {SIZE}");
    assert!(read_whole(&reader, film).await == noise(SIZE as usize, 5), "byte for byte");
    two.library.close();
    reader.library.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_sessions_are_open_than_the_operator_allows_whoever_dials() {
    let fleet = fleet();
    let mut places = [(); 3].map(|()| Place::open());
    places.sort_by_key(|place| place.node);
    let [dialler, one, other] = places;
    let mut peers = Vec::new();
    for place in [&one, &other] {
        place.enrol(&fleet);
        let address = listening(&place.meet(Vec::new(), Vec::new())).await.to_string();
        peers.push(StaticPeer { node: place.node, address });
    }
    dialler.enrol(&fleet);
    let lan = dialler.meet_as(LanConfig { peers, sessions_max: 1, ..LanConfig::default() });
    let meets = |status: &LanStatus, place: &Place| {
        assert!(connected(status) <= 1, "{status:?}");
        status.peers.iter().any(|peer| peer.connected && peer.node == place.node)
    };
    wait_status(&lan, "it meets one", |status| meets(status, &one) || meets(status, &other)).await;
    let (first, second) = if meets(&lan.status().expect("it runs"), &one) { (one, other) } else { (other, one) };
    first.library.close();
    wait_status(&lan, "the other one has its turn", |status| meets(status, &second)).await;
    dialler.library.close();
    second.library.close();
}

async fn read_whole(place: &Place, blob: BlobHash) -> Vec<u8> {
    let path = place.library.store().blobs.path(blob).expect("the store reads").expect("it is here");
    tokio::fs::read(path).await.expect("it can be read")
}

/// Two nodes that want the same: their link to the bridge, which is one and the same in most places, carries it once.
#[test]
fn what_no_neighbour_holds_crosses_the_link_once_and_what_one_holds_does_not() {
    const BLOBS: u64 = 10;
    let bridge = Bridge::start();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be had");
    runtime.block_on(async {
        let (one, two) = Place::two();
        let replicators = [&one, &two].map(|place| {
            bridge.enrol(&place.dir.path().join("data"), place.node);
            let config = ReplicationConfig { retry_max_s: 1, ..ReplicationConfig::default() };
            Replicator::new(place.library.clone(), config)
        });
        let held_before = two.import(BucketId::Catalogue, 100, 5 * MB).await;
        let at_two = two.meet(Vec::new(), Vec::new());
        let address = listening(&at_two).await.to_string();
        let peers = vec![StaticPeer { node: two.node, address }];
        let at_one = one.meet(peers, Vec::new());
        wait_status(&at_one, "they meet", |status| connected(status) == 1).await;
        let blobs: Vec<BlobHash> = (0..BLOBS).map(|number| bridge.import(number, MB)).collect();
        for replicator in replicators {
            tokio::spawn(async move { replicator.run().await });
        }
        for place in [&one, &two] {
            for &blob in blobs.iter().chain([&held_before]) {
                place.wait_for_blob(blob).await;
            }
        }
        let crossed = bridge.crossed();
        one.library.close();
        two.library.close();
        // Ten down, and five up at most.
        let once = (BLOBS as usize * MB + 5 * MB) as u64;
        println!("{crossed} bytes crossed; once is {once}");
        assert!(crossed < once * 11 / 10, "{crossed} bytes crossed; once is {once}");
    });
    drop(runtime);
}

/// A session in which only questions are asked.
mod asking {
    use super::*;
    use alexandria_sync::driver::Link;
    use alexandria_sync::hlc::ClockQuality;
    use alexandria_sync::id::{Epoch, Incarnation};
    use alexandria_sync::wire::{FRAME_HEADER_BYTES, FrameHeader, Hello, Lane, Message, PROTOCOL_MAX, PROTOCOL_MIN};
    use tokio::io::{AsyncRead, AsyncReadExt};
    use tokio::sync::mpsc;
    use tokio::task::JoinSet;

    /// Which of the blobs `node` gives.
    pub(super) async fn asked_for(
        identity: &Identity,
        node: NodeId,
        address: SocketAddr,
        blobs: &[BlobHash],
    ) -> Vec<bool> {
        let tls = ClientTls::for_peer(identity, 0, node).expect("the identity is good");
        let dialer = quic::Dialer::new(address, &TransportConfig::default()).expect("a socket can be had");
        let expected = PeerIdentity { role: PeerRole::Node, id: node };
        let link = dialer.connect(address, &tls, expected).await.expect("it is let in");
        let mut control = link.open(Lane::Control).await.expect("the connection is open");
        let hello = Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            node: identity.named().id,
            incarnation: Incarnation(1),
            epoch: Epoch(1),
            unix_ms: 0,
            clock_quality: ClockQuality::Untrusted,
            software: "test".into(),
            features: 0,
            name: None,
            remembered: Vec::new(),
            standing: None,
        };
        control.write_all(&Message::Hello(hello).to_frame()).await.expect("the connection is open");
        for &blob in blobs {
            control.write_all(&Message::ManifestAsk { blob }.to_frame()).await.expect("the connection is open");
        }
        let mut answers: Vec<Option<bool>> = vec![None; blobs.len()];
        let (sender, mut told) = mpsc::channel(16);
        let reading = async {
            let mut readers = JoinSet::new();
            while answers.contains(&None) {
                tokio::select! {
                    accepted = link.accept() => {
                        let (_, reader) = accepted.expect("the connection is open");
                        readers.spawn(read_manifests(reader, sender.clone()));
                    }
                    Some((blob, is_given)) = told.recv() => {
                        if let Some(at) = blobs.iter().position(|asked| *asked == blob) {
                            answers[at] = Some(is_given);
                        }
                    }
                }
            }
        };
        tokio::time::timeout(DEADLINE, reading).await.expect("it answers");
        answers.into_iter().flatten().collect()
    }

    async fn read_manifests(mut reader: impl AsyncRead + Unpin, told: mpsc::Sender<(BlobHash, bool)>) {
        let mut head = [0; FRAME_HEADER_BYTES];
        while reader.read_exact(&mut head).await.is_ok() {
            let head = FrameHeader::decode(head).expect("a frame");
            let mut body = vec![0; head.body_len];
            reader.read_exact(&mut body).await.expect("a frame");
            if let Ok(Some(Message::Manifest { blob, manifest })) = head.decode_body(body.into()) {
                told.send((blob, manifest.is_some())).await.expect("somebody waits for it");
            }
        }
    }
}
