//! A small fleet: an authority, a bridge and nodes with certificates, stores in memory, and sessions over real QUIC.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use alexandria_sync::chunk::{BlobHash, Chunker, Chunking};
use alexandria_sync::domain::{Author, Blob, Typed};
use alexandria_sync::driver::{HOST_INPUTS_MAX, HostInput, Link, Reports, RunError, run};
use alexandria_sync::hlc::ClockQuality;
use alexandria_sync::id::{BucketId, Epoch, NodeId, RecordId};
use alexandria_sync::quic::{
    Authority, ConnectError, Dialer, Identity, Listener, PeerIdentity, PeerRole, QuicLink, SigningRequest,
    TransportConfig,
};
use alexandria_sync::record::RecordKey;
use alexandria_sync::session::{Closed, Collections, Config, Event, Progress, Scope, Selection, Session};
use alexandria_sync::sim::{Seeded, SimBlobs, SimRecords};
use alexandria_sync::store::RecordStore as _;
use alexandria_sync::wire::{Hello, PROTOCOL_MAX, PROTOCOL_MIN, feature};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// 2026-01-01, in seconds since 1970: when certificates are made.
pub(crate) const NOW_UNIX_S: u64 = 1_767_225_600;
/// Nothing here takes longer, unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

pub(crate) fn node_id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

pub(crate) fn authority() -> Authority {
    Authority::make("test fleet", NOW_UNIX_S).expect("the system gives randomness")
}

pub(crate) fn identity(authority: &Authority, role: PeerRole, number: u8) -> Identity {
    identity_trusting(authority, authority, role, number)
}

/// An identity that `signer` vouches for and that believes in `trusted`.
pub(crate) fn identity_trusting(signer: &Authority, trusted: &Authority, role: PeerRole, number: u8) -> Identity {
    let named = PeerIdentity { role, id: node_id(number) };
    let request = SigningRequest::make(named).expect("the system gives randomness");
    let certificate =
        signer.sign(&request.request_pem, named, [number; 16], NOW_UNIX_S, 18 * 365).expect("it is valid");
    Identity::from_pem(&certificate, &request.key_pem, trusted.certificate_pem()).expect("it was just made")
}

pub(crate) fn bridge_identity(number: u8) -> PeerIdentity {
    PeerIdentity { role: PeerRole::Bridge, id: node_id(number) }
}

/// A listening bridge.
pub(crate) fn listen(identity: &Identity) -> (Listener, SocketAddr) {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), identity, &TransportConfig::default())
        .expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// Both ends of a connection, with what keeps it alive.
pub(crate) struct Connected {
    pub(crate) dialer: Dialer,
    pub(crate) listener: Listener,
    pub(crate) node: QuicLink,
    pub(crate) bridge: QuicLink,
}

/// Connects node 1 with bridge 2.
pub(crate) async fn connect() -> Connected {
    let authority = authority();
    let (listener, address) = listen(&identity(&authority, PeerRole::Bridge, 2));
    let dialer = Dialer::new(address, &TransportConfig::default()).expect("a socket can be had");
    let (node, bridge) = dial(&dialer, &listener, &identity(&authority, PeerRole::Node, 1), bridge_identity(2)).await;
    Connected { dialer, listener, node: node.expect("it dials"), bridge: bridge.expect("it answers") }
}

/// What each end makes of one attempt.
pub(crate) async fn dial(
    dialer: &Dialer,
    listener: &Listener,
    identity: &Identity,
    expected: PeerIdentity,
) -> (Result<QuicLink, ConnectError>, Result<QuicLink, ConnectError>) {
    let address = listener.local_addr().expect("it is bound");
    let dialled = dialer.connect(address, identity, expected, NOW_UNIX_S);
    let answered = async { listener.accept().await?.answer().await };
    tokio::time::timeout(DEADLINE, async { tokio::join!(dialled, answered) }).await.expect("both ends come to an end")
}

/// A replica with its stores.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) id: NodeId,
    pub(crate) records: Arc<SimRecords>,
    pub(crate) blobs: Arc<SimBlobs>,
}

impl Site {
    pub(crate) fn new(number: u8) -> Self {
        let id = node_id(number);
        let records = Arc::new(SimRecords::new(id, Epoch(1), None));
        records.set_clock(NOW_UNIX_S * 1000, ClockQuality::Trusted);
        let blobs = Arc::new(SimBlobs::new(Arc::clone(&records), None));
        Self { id, records, blobs }
    }

    /// Writes authors into the catalogue.
    pub(crate) fn write_authors(&self, count: u64) {
        for number in 0..count {
            let id = RecordId::derived(&[self.id.as_bytes(), &number.to_be_bytes()]);
            let author = Author { name: format!("author {number}"), ..Author::default() };
            let key = RecordKey { bucket: BucketId::Catalogue, kind: Author::KIND, id };
            self.records.write(key, |_, stamp| Some(author.to_record(key.bucket, id, stamp)));
        }
    }

    /// Imports noise of this size, with the record that makes others want it.
    pub(crate) fn import(&self, seed: u64, size_bytes: usize) -> BlobHash {
        let bytes = Seeded::new(seed).noise(size_bytes);
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

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            node: self.id,
            incarnation: self.records.incarnation(),
            epoch: self.records.epoch(),
            unix_ms: NOW_UNIX_S * 1000,
            clock_quality: ClockQuality::Trusted,
            software: "test".into(),
            features: feature::OWN_ROWS,
        }
    }

    /// Runs a session with `peer` over `link`; node 1 is the site of every scope.
    pub(crate) fn run<L: Link>(&self, peer: NodeId, link: L, config: Config) -> Running {
        self.run_selecting(peer, link, config, (self.hello(), Selection::default()))
    }

    /// The same, pulling only what is selected, after this hello.
    pub(crate) fn run_selecting<L: Link>(
        &self,
        peer: NodeId,
        link: L,
        config: Config,
        (hello, selection): (Hello, Selection),
    ) -> Running {
        let scope = Scope { site: node_id(1), collections: Collections::All };
        self.blobs.permit(peer, scope.clone());
        let session = Session::new(config, hello, peer, scope, 0).selecting(selection);
        let (host, host_inputs) = mpsc::channel(HOST_INPUTS_MAX);
        let (events_sender, events) = mpsc::channel(64);
        let (progress_sender, progress) = watch::channel(Progress::default());
        let reports = Reports { events: events_sender, progress: progress_sender };
        let (records, blobs) = (Arc::clone(&self.records), Arc::clone(&self.blobs));
        let task = tokio::spawn(run(session, peer, records, blobs, link, host_inputs, reports));
        Running { host, events, progress, task }
    }
}

/// A session under way.
pub(crate) struct Running {
    pub(crate) host: mpsc::Sender<HostInput>,
    pub(crate) events: mpsc::Receiver<Event>,
    #[expect(dead_code, reason = "its receiver must live as long as the session")]
    progress: watch::Receiver<Progress>,
    pub(crate) task: JoinHandle<Result<Closed, RunError>>,
}

impl Running {
    /// Waits until both ends hold the same.
    pub(crate) async fn wait_quiet(&mut self) {
        let quiet = async {
            while let Some(event) = self.events.recv().await {
                if matches!(event, Event::Quiet) {
                    return;
                }
            }
            panic!("the session ended before it was quiet");
        };
        tokio::time::timeout(DEADLINE, quiet).await.expect("it is quiet within the deadline");
    }

    /// Waits until the session is over.
    pub(crate) async fn wait_end(mut self) -> Result<Closed, RunError> {
        // The host must read events, or the session waits.
        let ended = async {
            loop {
                tokio::select! {
                    result = &mut self.task => return result.expect("it does not panic"),
                    Some(_) = self.events.recv() => {}
                }
            }
        };
        tokio::time::timeout(DEADLINE, ended).await.expect("it ends within the deadline")
    }
}
