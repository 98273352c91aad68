//! Collections that go and come back, in whole sessions between two real stores: a node, and one that plays its bridge.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use alexandria_node::store::align::Step;
use alexandria_node::store::{Change, Level, Store};
use alexandria_sync::chunk::{BlobHash, Chunking};
use alexandria_sync::domain::{Blob, Media, Typed};
use alexandria_sync::driver::{self, HOST_INPUTS_MAX, HostInput, Link, Reports};
use alexandria_sync::hlc::ClockQuality;
use alexandria_sync::id::{BucketId, NodeId, RecordId, Seq};
use alexandria_sync::record::Record;
use alexandria_sync::session::{self, Collections, Event, Progress, Scope, Selection, Session};
use alexandria_sync::wire::{CloseReason, Hello, Lane, PROTOCOL_MAX, PROTOCOL_MIN, feature};
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio::sync::{Mutex, mpsc, watch};

use super::samples::{folder, id, media, noise, open, shelf};

const DEADLINE: Duration = Duration::from_mins(2);

/// One end of a connection in memory.
struct MemoryLink {
    lanes_out: mpsc::UnboundedSender<(Lane, DuplexStream)>,
    lanes_in: Mutex<mpsc::UnboundedReceiver<(Lane, DuplexStream)>>,
    /// Dropped or set by whoever closes.
    closed: watch::Sender<bool>,
    peer_closed: watch::Receiver<bool>,
}

fn connection() -> (MemoryLink, MemoryLink) {
    let ((to_one, for_one), (to_other, for_other)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let ((one_closed, one_watch), (other_closed, other_watch)) = (watch::channel(false), watch::channel(false));
    let end = |lanes_out, lanes_in, closed, peer_closed| MemoryLink {
        lanes_out,
        lanes_in: Mutex::new(lanes_in),
        closed,
        peer_closed,
    };
    (end(to_other, for_one, one_closed, other_watch), end(to_one, for_other, other_closed, one_watch))
}

impl Link for MemoryLink {
    type Writer = DuplexStream;
    type Reader = DuplexStream;

    async fn open(&self, lane: Lane) -> io::Result<DuplexStream> {
        let (near, far) = tokio::io::duplex(256 * 1024);
        self.lanes_out.send((lane, far)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(near)
    }

    async fn accept(&self) -> io::Result<(Lane, DuplexStream)> {
        self.lanes_in.lock().await.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    async fn closed(&self) {
        let _ = self.peer_closed.clone().wait_for(|closed| *closed).await;
    }

    fn close(&self) {
        self.closed.send_replace(true);
    }
}

async fn hello(store: &Store, peer: NodeId) -> Hello {
    let identity = store.records.identity();
    Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        node: identity.node,
        incarnation: identity.incarnation,
        epoch: identity.epoch,
        unix_ms: store.records.now_unix_ms(),
        clock_quality: ClockQuality::Trusted,
        software: "test".into(),
        features: feature::OWN_ROWS,
        name: None,
        remembered: store.records.remembered_of(peer).await.unwrap(),
        standing: None,
    }
}

struct World {
    node: Store,
    bridge: Store,
    _folders: [TempDir; 2],
}

impl World {
    fn new() -> Self {
        let folders = [folder(), folder()];
        let (node, bridge) = (open(&folders[0]), open(&folders[1]));
        Self { node, bridge, _folders: folders }
    }

    fn bridge_id(&self) -> NodeId {
        self.bridge.records.identity().node
    }

    /// A session until both are quiet, in which the node takes note of all that it hears, as its host does.
    async fn meet(&self) {
        let (near, far) = connection();
        let node_id = self.node.records.identity().node;
        let scope = Scope { site: node_id, collections: Collections::All };
        let selected = self.node.records.selected().await.unwrap();
        let session = async |store: &Store, peer, selection: Selection| {
            let hello = hello(store, peer).await;
            Session::new(session::Config::default(), hello, peer, scope.clone(), 0).selecting(selection)
        };
        let (at_bridge, bridge_inputs) = mpsc::channel(HOST_INPUTS_MAX);
        let (bridge_events, mut unheard) = mpsc::channel(64);
        let reports = Reports { events: bridge_events, progress: watch::channel(Progress::default()).0 };
        let of_bridge = driver::run(
            session(&self.bridge, node_id, Selection::default()).await,
            node_id,
            Arc::new(self.bridge.records.clone()),
            Arc::new(self.bridge.blobs.session()),
            far,
            bridge_inputs,
            reports,
        );
        let of_bridge = tokio::spawn(of_bridge);
        tokio::spawn(async move { while unheard.recv().await.is_some() {} });

        let (host, inputs) = mpsc::channel(HOST_INPUTS_MAX);
        let (events, mut heard) = mpsc::channel(64);
        let reports = Reports { events, progress: watch::channel(Progress::default()).0 };
        let of_node = driver::run(
            session(&self.node, self.bridge_id(), selected.selection.clone()).await,
            self.bridge_id(),
            Arc::new(self.node.records.as_selected(selected.version)),
            Arc::new(self.node.blobs.session()),
            near,
            inputs,
            reports,
        );
        let of_node = tokio::spawn(of_node);
        let until_quiet = async {
            let unconfirmed = self.node.records.take_unconfirmed();
            if !unconfirmed.is_empty() {
                host.send(HostInput::CheckBlobs(unconfirmed)).await.unwrap();
            }
            while let Some(event) = heard.recv().await {
                let bridge = self.bridge_id();
                match event {
                    Event::Quiet => return,
                    Event::HeldByPeer { bucket, upto } => {
                        self.node.records.note_held_by_bridge(bridge, bucket, upto);
                    }
                    Event::Returned(bucket) => {
                        self.node.records.has_returned(selected.version, bucket).await.unwrap();
                    }
                    Event::BlobChecked { blob, held_by_peer } => {
                        self.node.blobs.note_checked(bridge, vec![(blob, held_by_peer)]).await.unwrap();
                    }
                    _ => {}
                }
            }
            panic!("the session ended before it was quiet");
        };
        tokio::time::timeout(DEADLINE, until_quiet).await.expect("it is quiet within the deadline");
        host.send(HostInput::Stop(CloseReason::GoingAway, String::new())).await.unwrap();
        of_node.await.unwrap().unwrap();
        drop(at_bridge);
        of_bridge.await.unwrap().unwrap();
    }

    async fn align(&self) -> Step {
        let BucketId::Collection(shelf) = shelf() else { unreachable!("a shelf is a collection") };
        loop {
            match self.node.records.align(shelf).await.unwrap() {
                Step::More(given_up) => {
                    for blob in given_up {
                        self.node.blobs.discard_unreferenced(blob).await.unwrap();
                    }
                }
                step => return step,
            }
        }
    }

    async fn choose(&self, level: Level) {
        let BucketId::Collection(shelf) = shelf() else { unreachable!("a shelf is a collection") };
        self.node.records.choose(shelf, level).await.unwrap();
    }
}

async fn write(store: &Store, numbers: std::ops::Range<u64>) {
    for number in numbers {
        store.records.change_one(Change::put(shelf(), id(number), media(&number.to_string()))).await.unwrap();
    }
}

async fn put_content(store: &Store, seed: u64) -> BlobHash {
    let bytes = noise(300_000, seed);
    let hash = store.blobs.put_stream(Chunking::Fixed, None, bytes.as_slice()).await.unwrap().hash;
    let record = Blob { hash: Some(hash), size_bytes: 300_000, media_type: "video/mp4".into() };
    store.records.change_one(Change::put(shelf(), Blob::record_id(hash), record)).await.unwrap();
    hash
}

async fn records(store: &Store) -> Vec<(RecordId, Record)> {
    let rows = store.records.changes_since(shelf(), Seq(0), 1000).await.unwrap();
    let mut records: Vec<_> = rows.into_iter().map(|row| (row.record.key.id, row.record)).collect();
    records.sort_by_key(|(id, _)| *id);
    records
}

#[tokio::test]
async fn a_collection_leaves_a_real_node_and_comes_back_with_everything_in_it() {
    let world = World::new();
    let World { node, bridge, .. } = &world;
    write(node, 0..300).await;
    write(bridge, 1000..1100).await;
    let (from_node, from_bridge) = (put_content(node, 1).await, put_content(bridge, 2).await);
    // Deleted for good here: also that comes back, as a tombstone.
    let gone = alexandria_sync::record::RecordKey { bucket: shelf(), kind: Media::KIND, id: id(7) };
    node.records.change_one(Change::delete(gone, None)).await.unwrap();
    world.meet().await;
    let whole = records(bridge).await;
    assert_eq!(records(node).await, whole);
    assert_eq!(whole.len(), 402);

    world.choose(Level::None).await;
    world.meet().await;
    assert_eq!(world.align().await, Step::Waiting, "nobody has said that it holds the content");
    // Not pulled meanwhile.
    write(bridge, 1100..1110).await;
    world.meet().await;
    assert_eq!(world.align().await, Step::Done);
    assert!(records(node).await.is_empty());
    assert!(node.blobs.held(from_node).unwrap().is_none() && node.blobs.held(from_bridge).unwrap().is_none());
    assert_eq!(records(bridge).await.len(), 412, "eviction is no delete");
    assert!(bridge.blobs.held(from_node).unwrap().is_some());

    world.choose(Level::Content).await;
    world.meet().await;
    assert_eq!(records(node).await, records(bridge).await);
    assert!(node.blobs.held(from_node).unwrap().is_some() && node.blobs.held(from_bridge).unwrap().is_some());
    assert!(node.records.get(gone).unwrap().unwrap().record.is_tombstone());
    let BucketId::Collection(shelf) = shelf() else { unreachable!("a shelf is a collection") };
    assert!(!node.records.keeping(shelf).unwrap().returning);
    for store in [node, bridge] {
        assert!(store.records.verify().await.unwrap().is_sound());
    }
}

/// Added again before it was all gone, and cut in between: nothing is skipped.
#[tokio::test]
async fn a_change_of_mind_in_the_middle_loses_nothing() {
    let world = World::new();
    let World { node, bridge, .. } = &world;
    write(node, 0..600).await;
    write(bridge, 1000..1200).await;
    world.meet().await;
    world.choose(Level::None).await;
    world.meet().await;
    let BucketId::Collection(shelf_id) = shelf() else { unreachable!("a shelf is a collection") };
    assert!(matches!(node.records.align(shelf_id).await.unwrap(), Step::More(_)), "one step of several");
    write(node, 2000..2001).await;
    world.choose(Level::Records).await;
    world.meet().await;
    assert_eq!(world.align().await, Step::Done);
    assert_eq!(records(node).await, records(bridge).await);
    assert_eq!(records(node).await.len(), 801);
    assert!(node.records.verify().await.unwrap().is_sound());
}
