//! Many idle nodes on one bridge: what they take while nothing happens, and how long all of them take to come back at once.
//!
//! The nodes are sessions of `alexandria_sync` in this process, each with a certificate, a socket, a driver and cursors of its
//! own, and a store that holds nothing else.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use alexandria_e2e::aws::Aws;
use alexandria_e2e::bridge::{BridgeProcess, BridgeSettings, Neighbours};
use alexandria_e2e::postgres::{Database, Postgres};
use alexandria_sync::chunk::{Bases, BlobHash, ChunkHash, Have, Manifest};
use alexandria_sync::driver::{self, HOST_INPUTS_MAX, HostInput, Reports, RunError};
use alexandria_sync::hlc::ClockQuality;
use alexandria_sync::id::{BucketId, Epoch, Incarnation, NodeId, Seq};
use alexandria_sync::identity::{Authority, Identity, PeerIdentity, PeerRole, SigningRequest};
use alexandria_sync::quic::{Dialer, QuicLink, TransportConfig};
use alexandria_sync::record::Record;
use alexandria_sync::session::{self, Closed, Collections, Event, Progress, Scope, Session};
use alexandria_sync::store::{Applied, BlobStore, BucketHead, Cursor, Page, Peer, RecordStore, Wanted, WriteBlobError};
use alexandria_sync::tls::ClientTls;
use alexandria_sync::wire::{Hello, PROTOCOL_MAX, PROTOCOL_MIN, feature};
use bytes::Bytes;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rand::Rng as _;
use tokio::sync::{mpsc, watch};

use crate::measure::{mb, processor_seconds};

const NODES: u64 = 10_000;
/// Nodes that come at a time for the first time.
const FIRST_COME_AT_ONCE: usize = 64;
/// Files that are open beside one socket for each node: those of dials that are just being given up, above all.
const OTHER_FILES: u64 = 4096;
/// Nobody waits longer than this for all to be there.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long a node waits after a dial that failed, at most; and what that becomes after several.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Idle sessions are looked at for this long.
const IDLE: Duration = Duration::from_mins(1);

/// `ALEXANDRIA_BENCH_NODES` idle nodes (10,000), then the bridge goes away, comes back, and all of them dial at once.
pub(crate) async fn idle_nodes() {
    let count = std::env::var("ALEXANDRIA_BENCH_NODES").map_or(NODES, |text| text.parse().expect("a number"));
    allow_files(count + OTHER_FILES);
    let authority = Authority::make("bench", now_unix_s()).expect("an authority can be made");
    let postgres = Postgres::shared().await;
    let database = postgres.database().await;
    let neighbours = Neighbours::on(&database, Aws::shared().await).await;
    let settings = BridgeSettings::new(neighbours)
        .environment("ALEXANDRIA_BRIDGE_FLEET_CA_KEY_PEM", authority.key_pem())
        .environment("ALEXANDRIA_BRIDGE_QUIC_SESSIONS_MAX", (count + OTHER_FILES).to_string())
        .environment("ALEXANDRIA_BRIDGE_QUIC_HANDSHAKES_MAX", (2 * count).to_string());
    let mut bridge = settings.start().await;
    let nodes = enrol(count, &authority, &database, &bridge).await;
    let before = bridge.process().resident_bytes();

    let arrived = Arc::new(AtomicU64::new(0));
    let slots = Arc::new(tokio::sync::Semaphore::new(FIRST_COME_AT_ONCE));
    let sessions: Vec<_> = nodes.iter().map(|node| Arc::clone(node).run(Some(Arc::clone(&slots)), &arrived)).collect();
    wait_for_all(&arrived, count).await;
    let used = processor_seconds(bridge.process().pid());
    tokio::time::sleep(IDLE).await;
    let idle = bridge.process().resident_bytes();
    println!(
        "{count} idle nodes: the bridge takes {} MB, {} MB of it before they came; {:.1} kB for each; {:.1} % of a core",
        mb(idle),
        mb(before),
        (idle.saturating_sub(before)) as f64 / 1e3 / count as f64,
        (processor_seconds(bridge.process().pid()) - used) / IDLE.as_secs_f64() * 100.0
    );
    end(sessions);
    bridge.stop().await;

    bridge.start_again().await;
    let parts = [("bridge", bridge.process().pid()), ("PostgreSQL", postgres.pid()), ("the nodes", std::process::id())];
    let before = parts.map(|(_, pid)| processor_seconds(pid));
    let arrived = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let sessions: Vec<_> = nodes.iter().map(|node| Arc::clone(node).run(None, &arrived)).collect();
    let half = wait_for(&arrived, count / 2, started).await;
    let most = wait_for(&arrived, count * 99 / 100, started).await;
    let all = wait_for(&arrived, count, started).await;
    println!("all dial at once: half are in step after {half:.1} s, 99 of 100 after {most:.1} s, all after {all:.1} s");
    for ((part, pid), before) in parts.into_iter().zip(before) {
        println!("processor time of {part}: {:.1} s", processor_seconds(pid) - before);
    }
    println!("peak memory of the bridge: {} MB", mb(bridge.process().resident_peak_bytes()));
    println!("load of the machine: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    end(sessions);
}

fn end(sessions: Vec<tokio::task::JoinHandle<()>>) {
    for session in sessions {
        session.abort();
    }
}

/// Each node has a socket.
fn allow_files(wanted: u64) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit can be read");
    setrlimit(Resource::RLIMIT_NOFILE, wanted.min(most), most).expect("it can be raised that far");
    assert!(most >= wanted, "{wanted} files are needed at once, {most} are allowed: see `ulimit -Hn`");
}

/// Certificates by hand, and rows that say so: enrolling itself is not what is measured.
async fn enrol(count: u64, authority: &Authority, database: &Database, bridge: &BridgeProcess) -> Vec<Arc<Node>> {
    let client = database.connect().await;
    let authority_pem: String =
        client.query_one("SELECT certificate_pem FROM fleet_authority", &[]).await.expect("it has one").get(0);
    let signer = Authority::from_pem(&authority_pem, authority.key_pem()).expect("the bridge uses this key");
    let bridge_id = client.query_one("SELECT node_id::text FROM bridge", &[]).await.expect("it has an id");
    let bridge_id: NodeId = bridge_id.get::<_, String>(0).parse().expect("it is an id");
    let statement = "INSERT INTO node (id, name, site, key_fingerprint, certificate_pem, certificate_fingerprint, iot_state) \
        VALUES ($1::text::uuid, 'bench', 'bench', sha256($2::text::bytea), $2, sha256($2::text::bytea), 'registered')";
    let statement = client.prepare(statement).await.expect("the table is there");
    // Each has something in its own site: a row that was of this node, so that it is not shown to it.
    let site = client.prepare("INSERT INTO bucket (name, head) VALUES ($1, 1)").await.expect("the table is there");
    let mut nodes = Vec::new();
    for _ in 0..count {
        let id = NodeId::from_bytes(rand::random());
        let named = PeerIdentity { role: PeerRole::Node, id };
        let request = SigningRequest::make(named).expect("a key");
        let certificate =
            signer.sign(&request.request_pem, named, rand::random(), now_unix_s(), 30).expect("a certificate");
        let identity =
            Identity::from_pem(&certificate, &request.key_pem, &authority_pem).expect("they belong together");
        client.execute(&statement, &[&id.to_string(), &certificate]).await.expect("it can be written");
        client.execute(&site, &[&BucketId::Site(id).to_string()]).await.expect("it can be written");
        nodes.push(Arc::new(Node {
            id,
            bridge: bridge_id,
            address: bridge.settings().quic,
            tls: ClientTls::new(&identity, 0).expect("it is usable"),
            store: Arc::default(),
        }));
    }
    nodes
}

async fn wait_for_all(arrived: &AtomicU64, count: u64) {
    wait_for(arrived, count, Instant::now()).await;
}

/// Seconds since `started` when so many have arrived.
async fn wait_for(arrived: &AtomicU64, count: u64, started: Instant) -> f64 {
    let mut told = Instant::now();
    while arrived.load(Ordering::Relaxed) < count {
        assert!(started.elapsed() < PATIENCE, "only {} of {count} have come", arrived.load(Ordering::Relaxed));
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            eprintln!("{} of {count} are there", arrived.load(Ordering::Relaxed));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    started.elapsed().as_secs_f64()
}

struct Node {
    id: NodeId,
    bridge: NodeId,
    address: std::net::SocketAddr,
    tls: ClientTls,
    store: Arc<CursorsOnly>,
}

impl Node {
    /// Dials until it is in, and keeps the session open. Counts itself once both ends hold the same.
    fn run(
        self: Arc<Self>,
        slots: Option<Arc<tokio::sync::Semaphore>>,
        arrived: &Arc<AtomicU64>,
    ) -> tokio::task::JoinHandle<()> {
        let arrived = Arc::clone(arrived);
        tokio::spawn(async move {
            let mut slot = match &slots {
                Some(slots) => Some(slots.acquire().await.expect("it is never closed")),
                None => None,
            };
            let mut is_new = true;
            loop {
                let (_dialer, link) = self.dial().await;
                let (events, mut heard) = mpsc::channel(16);
                let running = self.session(link, events);
                tokio::pin!(running);
                let ended = loop {
                    tokio::select! {
                        ended = &mut running => break ended,
                        Some(event) = heard.recv() => {
                            if matches!(event, Event::Quiet) && std::mem::take(&mut is_new) {
                                arrived.fetch_add(1, Ordering::Relaxed);
                                slot = None;
                            }
                        }
                    }
                };
                drop(slot.take());
                // As a node does, but soon.
                eprintln!("a session ended, and is begun again: {ended:?}");
            }
        })
    }

    async fn session(&self, link: QuicLink, events: mpsc::Sender<Event>) -> Result<Closed, RunError> {
        let (_host, inputs): (mpsc::Sender<HostInput>, _) = mpsc::channel(HOST_INPUTS_MAX);
        let (progress, _) = watch::channel(Progress::default());
        let scope = Scope { site: self.id, collections: Collections::All };
        let session = Session::new(session::Config::default(), self.hello(), self.bridge, scope, 0);
        let (records, blobs) = (Arc::clone(&self.store), Arc::clone(&self.store));
        driver::run(session, self.bridge, records, blobs, link, inputs, Reports { events, progress }).await
    }

    async fn dial(&self) -> (Dialer, QuicLink) {
        let expected = PeerIdentity { role: PeerRole::Bridge, id: self.bridge };
        let mut pause = PAUSE;
        loop {
            let dialer = Dialer::new(self.address, &TransportConfig::default()).expect("a socket can be had");
            if let Ok(link) = dialer.connect(self.address, &self.tls, expected).await {
                return (dialer, link);
            }
            let jittered = pause.mul_f64(rand::rng().random_range(0.5..=1.0));
            tokio::time::sleep(jittered).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            node: self.id,
            incarnation: Incarnation(1),
            epoch: Epoch(1),
            unix_ms: now_unix_s() * 1000,
            clock_quality: ClockQuality::Trusted,
            software: "alexandria-bench".into(),
            features: feature::OWN_ROWS | feature::PATCHES,
            name: None,
            remembered: Vec::new(),
            standing: None,
        }
    }
}

fn now_unix_s() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

/// A store that holds nothing and knows how far it has read.
#[derive(Default)]
struct CursorsOnly(Mutex<BTreeMap<(NodeId, BucketId), Cursor>>);

impl CursorsOnly {
    fn cursors(&self) -> std::sync::MutexGuard<'_, BTreeMap<(NodeId, BucketId), Cursor>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl RecordStore for CursorsOnly {
    type Error = Infallible;

    fn epoch(&self) -> Epoch {
        Epoch(1)
    }

    async fn heads(&self) -> Result<Vec<BucketHead>, Infallible> {
        Ok(Vec::new())
    }

    async fn page(&self, _: BucketId, after: Seq, _: Peer, _: u32) -> Result<Page, Infallible> {
        Ok(Page { records: Vec::new(), next: after, more: false })
    }

    async fn cursor(&self, node: NodeId, bucket: BucketId) -> Result<Option<Cursor>, Infallible> {
        Ok(self.cursors().get(&(node, bucket)).copied())
    }

    async fn apply(
        &self,
        from: Peer,
        bucket: BucketId,
        records: Vec<Record>,
        next: Seq,
    ) -> Result<Applied, Infallible> {
        self.cursors().insert((from.node, bucket), Cursor { epoch: from.epoch, seq: next });
        Ok(Applied { applied: records.len() as u32, ..Applied::default() })
    }
}

/// Nothing is wanted, and nothing is here.
impl BlobStore for CursorsOnly {
    type Error = Infallible;

    async fn urgent(&self, _: NodeId) -> Result<Vec<Wanted>, Infallible> {
        Ok(Vec::new())
    }

    async fn wanted(&self, _: NodeId, _: Option<BlobHash>, _: usize) -> Result<Vec<Wanted>, Infallible> {
        Ok(Vec::new())
    }

    async fn manifest(&self, _: NodeId, _: BlobHash) -> Result<Option<Manifest>, Infallible> {
        Ok(None)
    }

    async fn read(&self, _: &Manifest, _: u32) -> Result<Option<Bytes>, Infallible> {
        Ok(None)
    }

    async fn begin(&self, _: &Manifest) -> Result<Have, WriteBlobError<Infallible>> {
        Err(WriteBlobError::Full)
    }

    async fn bases(&self, _: NodeId, _: &Manifest, _: &Have) -> Result<Bases, Infallible> {
        Ok(Bases::default())
    }

    async fn known_chunk(&self, _: Option<NodeId>, _: ChunkHash) -> Result<Option<Bytes>, Infallible> {
        Ok(None)
    }

    async fn write(&self, _: &Manifest, _: u32, _: Bytes) -> Result<(), WriteBlobError<Infallible>> {
        Err(WriteBlobError::Full)
    }

    async fn sync(&self, _: &Manifest) -> Result<(), WriteBlobError<Infallible>> {
        Ok(())
    }

    async fn finish(&self, _: &Manifest) -> Result<(), WriteBlobError<Infallible>> {
        Err(WriteBlobError::Full)
    }

    async fn release(&self, _: BlobHash) {}
}
