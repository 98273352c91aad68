//! A node and a bridge that speak over real QUIC: what the operator's policy lets cross, as the bridge's end counts it, and
//! content that is read while it comes.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alexandria_api::catalogue::{Catalogue, CatalogueError, Content};
use alexandria_node::config::Config;
use alexandria_node::library::Library;
use alexandria_node::library::outlook::LinkState;
use alexandria_node::replication::Replicator;
use alexandria_node::replication::membership::Membership;
use alexandria_sync::chunk::{BlobHash, Chunker, Chunking};
use alexandria_sync::domain::{Author, Blob, Typed};
use alexandria_sync::driver::{HOST_INPUTS_MAX, HostInput, Reports, run};
use alexandria_sync::hlc::ClockQuality;
use alexandria_sync::id::{BucketId, Epoch, NodeId, RecordId};
use alexandria_sync::identity::{Authority, Identity, PeerIdentity, PeerRole, SigningRequest};
use alexandria_sync::outlook::Wait;
use alexandria_sync::quic::{Listener, TransportConfig};
use alexandria_sync::record::RecordKey;
use alexandria_sync::session::{self, Collections, Progress, Scope, Session};
use alexandria_sync::sim::{SimBlobs, SimRecords};
use alexandria_sync::store::RecordStore as _;
use alexandria_sync::tickets::TicketSecret;
use alexandria_sync::tls::ServerTls;
use alexandria_sync::wire::{Hello, PROTOCOL_MAX, PROTOCOL_MIN};
use futures::TryStreamExt;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use crate::store::samples::{folder, noise};

const DEADLINE: Duration = Duration::from_mins(2);
const BRIDGE: NodeId = NodeId::from_bytes([0xb7; 16]);
const MB: usize = 1_000_000;

/// What has crossed the wire of one connection, both ways, in bytes.
type CrossedBytes = Box<dyn Fn() -> u64 + Send>;

/// A bridge with its stores in memory. It outlives the nodes' lives, in a runtime of its own.
pub(super) struct Bridge {
    id: NodeId,
    authority: Authority,
    address: String,
    records: Arc<SimRecords>,
    blobs: Arc<SimBlobs>,
    /// What has crossed, both ways, in all sessions so far.
    crossed: Arc<Mutex<Vec<CrossedBytes>>>,
    connections: Arc<AtomicUsize>,
    /// Tells running sessions that there are new records.
    hosts: Arc<Mutex<Vec<mpsc::Sender<HostInput>>>>,
    runtime: Runtime,
}

impl Bridge {
    pub(super) fn start() -> Self {
        Self::start_as(BRIDGE)
    }

    fn start_as(id: NodeId) -> Self {
        let runtime = Runtime::new().expect("threads can be had");
        let now_unix_ms = now_unix_ms();
        let authority = Authority::make("test fleet", now_unix_ms / 1000).expect("the system gives randomness");
        let (certificate, key) = certified(&authority, PeerRole::Bridge, id);
        let identity = Identity::from_pem(&certificate, &key, authority.certificate_pem()).expect("it was just made");
        let guard = runtime.enter();
        let tls = ServerTls::new(&identity, &TicketSecret::derived_from(key.as_bytes())).expect("the identity is good");
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), &tls, &TransportConfig::default());
        drop(guard);
        let listener = listener.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let records = Arc::new(SimRecords::new(id, Epoch(1), None));
        records.set_clock(now_unix_ms, ClockQuality::Trusted);
        let blobs = Arc::new(SimBlobs::new(Arc::clone(&records), None));
        let bridge = Self {
            id,
            authority,
            address,
            records,
            blobs,
            crossed: Arc::default(),
            connections: Arc::default(),
            hosts: Arc::default(),
            runtime,
        };
        bridge.listen(listener);
        bridge
    }

    fn listen(&self, listener: Listener) {
        let (records, blobs) = (Arc::clone(&self.records), Arc::clone(&self.blobs));
        let (crossed, hosts) = (Arc::clone(&self.crossed), Arc::clone(&self.hosts));
        let (id, connections) = (self.id, Arc::clone(&self.connections));
        self.runtime.spawn(async move {
            while let Ok(knock) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let Ok(link) = knock.answer().await else { continue };
                let node = link.peer().id;
                let wire = link.wire_bytes();
                crossed.lock().unwrap().push(Box::new(move || wire().sent + wire().received));
                let scope = Scope { site: node, collections: Collections::All };
                blobs.permit(node, scope.clone());
                let hello = Hello {
                    protocol_min: PROTOCOL_MIN,
                    protocol_max: PROTOCOL_MAX,
                    node: id,
                    incarnation: records.incarnation(),
                    epoch: records.epoch(),
                    unix_ms: now_unix_ms(),
                    clock_quality: ClockQuality::Trusted,
                    software: "test".into(),
                    features: 0,
                    name: None,
                    remembered: records.remembers(node),
                    standing: None,
                };
                let session = Session::new(session::Config::default(), hello, node, scope, 0);
                let (host, inputs) = mpsc::channel(HOST_INPUTS_MAX);
                hosts.lock().unwrap().push(host);
                let (events, mut heard) = mpsc::channel(64);
                let (progress, _) = watch::channel(Progress::default());
                let (records, blobs) = (Arc::clone(&records), Arc::clone(&blobs));
                tokio::spawn(async move { while heard.recv().await.is_some() {} });
                tokio::spawn(run(session, node, records, blobs, link, inputs, Reports { events, progress }));
            }
        });
    }

    pub(super) fn crossed(&self) -> u64 {
        self.crossed.lock().unwrap().iter().map(|crossed| crossed()).sum()
    }

    /// Holds noise of this size, with the record that makes nodes want it.
    pub(super) fn import(&self, seed: u64, size_bytes: usize) -> BlobHash {
        let bytes = noise(size_bytes, seed);
        let mut chunker = Chunker::new(Chunking::Fixed);
        chunker.update(&bytes);
        let manifest = chunker.finish().expect("it is small");
        let hash = manifest.blob();
        self.blobs.import(manifest, bytes.into());
        let blob = Blob { hash: Some(hash), size_bytes: size_bytes as u64, media_type: "video/mp4".into() };
        let key = RecordKey { bucket: BucketId::Catalogue, kind: Blob::KIND, id: Blob::record_id(hash) };
        self.records.write(key, |_, stamp| Some(blob.to_record(key.bucket, key.id, stamp)));
        hash
    }

    fn write_author(&self, name: &str) -> RecordId {
        let id = RecordId::derived(&[name.as_bytes()]);
        let author = Author { name: name.into(), ..Author::default() };
        let key = RecordKey { bucket: BucketId::Catalogue, kind: Author::KIND, id };
        self.records.write(key, |_, stamp| Some(author.to_record(key.bucket, id, stamp)));
        for host in &*self.hosts.lock().unwrap() {
            // Sessions that are over hear nothing.
            let _ = host.try_send(HostInput::LocalChange(BucketId::Catalogue));
        }
        id
    }

    /// Lets the node of this folder into the fleet.
    pub(super) fn enrol(&self, data_dir: &Path, node: NodeId) {
        let (certificate_pem, key) = certified(&self.authority, PeerRole::Node, node);
        std::fs::write(data_dir.join("fleet-key.pem"), key).expect("the folder is writable");
        let authority_pem = self.authority.certificate_pem().to_owned();
        let address = self.address.clone();
        let membership =
            Membership { certificate_pem, authority_pem, bridge: self.id, enrolment: None, address, tcp_address: None };
        membership.save(data_dir).expect("the folder is writable");
    }
}

fn certified(authority: &Authority, role: PeerRole, id: NodeId) -> (String, String) {
    let named = PeerIdentity { role, id };
    let request = SigningRequest::make(named).expect("the system gives randomness");
    let certificate = authority.sign(&request.request_pem, named, [7; 16], now_unix_ms() / 1000, 365);
    (certificate.expect("it is valid"), request.key_pem.clone())
}

fn now_unix_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// An offset from UTC where it is noon now, so that no day ends while a test runs.
fn noon_here() -> String {
    let hours = 12 - (now_unix_ms() / 3_600_000 % 24) as i64;
    format!("{}{:02}:00", if hours < 0 { '-' } else { '+' }, hours.abs())
}

/// One life of a node, from its start to a kill.
struct Life {
    library: Library,
    replicator: Replicator,
    runtime: Runtime,
}

impl Life {
    /// Starts on the folder, under `[replication.link]` as given.
    fn start(dir: &TempDir, bridge: &Bridge, link: &str) -> Self {
        let file = dir.path().join("config.toml");
        let text =
            format!("[replication]\nretry_max_s = 1\n[replication.link]\nutc_offset = '{}'\n{link}", noon_here());
        std::fs::write(&file, text).expect("the folder is writable");
        let config = Config::load(Some(&file), [], []).expect("the configuration is sound");
        let runtime = Runtime::new().expect("threads can be had");
        let data_dir = dir.path().join("data");
        let library = {
            let _inside = runtime.enter();
            Library::open(&data_dir, &config.store, &config.selection).expect("the library opens").0
        };
        bridge.enrol(&data_dir, library.store().records.identity().node);
        let replicator = Replicator::new(library.clone(), config.replication);
        let running = replicator.clone();
        runtime.spawn(async move { running.run().await });
        Self { library, replicator, runtime }
    }

    fn wait(&self, what: &str, holds: impl FnMut(&Option<LinkState>) -> bool) {
        let mut link = self.library.link();
        let waited =
            self.runtime.block_on(async { tokio::time::timeout(DEADLINE, link.wait_for(holds)).await.is_ok() });
        assert!(waited, "{what}: {:?}", self.library.link().borrow());
    }

    fn wait_for_author(&self, id: RecordId) {
        let mut heads = self.library.store().records.subscribe();
        let arrives = async {
            while self.library.store().records.find(Author::KIND, id).expect("the store reads").is_none() {
                let _ = heads.recv().await;
            }
        };
        let waited = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, arrives).await.is_ok() });
        assert!(waited, "the author arrives: {:?}", self.library.link().borrow());
    }

    /// Nothing gets to run any more: what was not on disk is lost.
    fn kill(self) {
        self.runtime.shutdown_timeout(Duration::from_secs(20));
        drop((self.replicator, self.library));
    }
}

fn waits(state: Option<&LinkState>, holds: impl Fn(&Wait) -> bool) -> bool {
    state.and_then(|state| state.wait.as_ref()).is_some_and(holds)
}

#[test]
fn a_days_budget_holds_on_the_wire_over_kills_and_records_go_on_within_the_reserve() {
    const BUDGET: u64 = 8_000_000;
    const LINK: &str = "bytes_a_day = 8_000_000\nreserve_percent = 40";
    let (dir, bridge) = (folder(), Bridge::start());
    let blobs: Vec<BlobHash> = (0..12).map(|number| bridge.import(number, MB)).collect();
    let first = Life::start(&dir, &bridge, LINK);
    first.wait("something comes", |state| {
        state.as_ref().is_some_and(|state| state.budget.is_some()) && bridge.crossed() > MB as u64
    });
    first.kill();

    let second = Life::start(&dir, &bridge, LINK);
    second.wait("content stops", |state| waits(state.as_ref(), |wait| matches!(wait, Wait::ContentUsedUp { .. })));
    let for_content = bridge.crossed();
    assert!(for_content <= BUDGET * 60 / 100, "{for_content} crossed: the reserve is left");
    let missing = blobs.iter().find(|blob| second.library.store().blobs.held(**blob).unwrap().is_none());
    let content = second.runtime.block_on(second.library.fetch_blob(*missing.expect("not all has come")));
    let content = content.unwrap().expect("a record names it");
    match second.runtime.block_on(content.ready(0..MB as u64)) {
        Err(CatalogueError::NotHereYet { why, retry_after_s }) => {
            assert!(why.contains("used up until") && retry_after_s > 60, "{why}, {retry_after_s}");
        }
        other => panic!("{other:?}"),
    }
    drop(content);
    second.wait_for_author(bridge.write_author("within the reserve"));
    second.kill();

    let third = Life::start(&dir, &bridge, LINK);
    third.wait_for_author(bridge.write_author("after another kill"));
    third.kill();
    let mut lives = 3;
    // Each life may count too much, so there comes one that may not even begin.
    loop {
        let life = Life::start(&dir, &bridge, LINK);
        life.wait("it may or may not begin", |state| {
            state.as_ref().is_some_and(|state| state.connected || state.wait.is_some())
        });
        let is_over = waits(life.library.link().borrow().as_ref(), |wait| matches!(wait, Wait::UsedUp { .. }));
        life.kill();
        lives += 1;
        if is_over {
            break;
        }
        assert!(lives < 40, "counting goes on from life to life");
    }
    println!("{} bytes of {BUDGET} crossed in {lives} lives, {for_content} before content stopped", bridge.crossed());
    assert!(bridge.crossed() <= BUDGET, "{} crossed", bridge.crossed());
}

#[test]
fn content_is_read_while_it_comes_from_where_the_reader_is() {
    let (dir, bridge) = (folder(), Bridge::start());
    let bytes = noise(12 * MB, 1);
    let blob = bridge.import(1, 12 * MB);
    let life = Life::start(&dir, &bridge, "rate_bytes_per_s = 1_500_000");
    life.wait_for_author(bridge.write_author("comes after the record of the blob"));
    let library = life.library.clone();
    life.runtime.block_on(async {
        let content = library.fetch_blob(blob).await.unwrap().expect("a record names it");
        assert!(!content.is_whole() && content.info().size_bytes == 12 * MB as u64);
        let (start, end) = (9 * MB as u64, 9 * MB as u64 + 500_000);
        let read = async {
            content.ready(start..end).await?;
            content
                .read(start..end)
                .try_fold(Vec::new(), async |mut all, piece| {
                    all.extend_from_slice(&piece);
                    Ok(all)
                })
                .await
        };
        let part = tokio::time::timeout(DEADLINE, read).await.expect("it comes").unwrap();
        assert!(part == bytes[start as usize..end as usize], "byte for byte");
        assert!(library.store().blobs.held(blob).unwrap().is_none(), "it came before the whole was there");
        let rest = content.read(0..12 * MB as u64).try_fold(Vec::new(), async |mut all, piece| {
            all.extend_from_slice(&piece);
            Ok(all)
        });
        let whole = tokio::time::timeout(DEADLINE, rest).await.expect("it comes").unwrap();
        assert!(whole == bytes, "byte for byte");
        assert!(library.store().blobs.held(blob).unwrap().is_some(), "the end comes once the whole is proved");
    });
    life.kill();
}

/// The usual state of a node that is smaller than its library.
#[test]
fn what_a_reader_opens_comes_within_the_quota_though_there_is_no_room_for_what_nobody_waits_for() {
    let (dir, bridge) = (folder(), Bridge::start());
    let first = bridge.import(1, 1_500_000);
    let life = Life::start(&dir, &bridge, "[store]\ncontent_bytes_max = 2_000_000");
    let blobs = life.library.store().blobs.clone();
    let mut arrivals = blobs.arrivals();
    life.runtime.block_on(async {
        if blobs.held(first).unwrap().is_none() {
            tokio::time::timeout(DEADLINE, arrivals.recv()).await.expect("it comes").unwrap();
        }
    });
    let second = bridge.import(2, 1_500_000);
    life.wait_for_author(bridge.write_author("comes after the record of the second"));
    life.wait("there is no room", |state| waits(state.as_ref(), |wait| *wait == Wait::NoRoom));
    assert!(blobs.held(first).unwrap().is_some(), "it came just now");

    let library = life.library.clone();
    life.runtime.block_on(async {
        let open = async |blob| library.fetch_blob(blob).await.unwrap().expect("a record names it");
        let opened = open(second).await;
        tokio::time::timeout(DEADLINE, opened.ready(1_400_000..1_500_000)).await.expect("it is tried").unwrap();
        assert!(blobs.held(first).unwrap().is_none() && blobs.stats().unwrap().held_bytes <= 2_000_000);
        // Another reader cannot have the place of what this one is reading.
        let refused = open(first).await.ready(0..1_500_000).await;
        assert!(
            matches!(&refused, Err(CatalogueError::NotHereYet { why, .. }) if why.contains("no room")),
            "{refused:?}"
        );
        drop(opened);
        tokio::time::timeout(DEADLINE, open(first).await.ready(1_400_000..1_500_000))
            .await
            .expect("it is tried")
            .unwrap();
        assert!(blobs.held(second).unwrap().is_none());
    });
    life.kill();
}

#[test]
fn outside_its_hours_a_link_is_not_dialled_and_a_reader_is_told_until_when() {
    let (dir, bridge) = (folder(), Bridge::start());
    // It is noon there.
    let life = Life::start(&dir, &bridge, "hours = ['22:00-06:00']");
    life.wait("it waits", |state| waits(state.as_ref(), |wait| matches!(wait, Wait::OutsideHours(_))));
    let wait = life.library.link().borrow().clone().and_then(|state| state.wait).expect("it waits");
    assert!(wait.to_string().contains("until") && wait.to_string().ends_with("22:00"), "{wait}");
    life.library.store().blobs.want_now(BlobHash::of(b"a reader waits"), None);
    assert_eq!(bridge.connections.load(Ordering::SeqCst), 0);
    life.kill();
}

#[test]
fn a_node_that_joins_another_fleet_ends_its_session_with_the_old_one_and_begins_one_with_the_new() {
    let dir = folder();
    let (old, new) = (Bridge::start(), Bridge::start_as(NodeId::from_bytes([0xb8; 16])));
    let life = Life::start(&dir, &old, "");
    life.wait_for_author(old.write_author("of the old fleet"));
    let author = new.write_author("of the new fleet");
    new.enrol(&dir.path().join("data"), life.library.store().records.identity().node);
    life.replicator.joined();
    life.wait_for_author(author);
    assert_eq!(life.replicator.status().expect("it is in a fleet").address, new.address);
    life.kill();
}
