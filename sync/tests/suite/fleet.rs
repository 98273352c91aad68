//! A small fleet: an authority, a bridge and nodes with certificates, stores in memory, and sessions over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use alexandria_sync::chunk::{BlobHash, Chunker, Chunking};
use alexandria_sync::domain::{Author, Blob, Typed};
use alexandria_sync::driver::{HOST_INPUTS_MAX, HostInput, Link, Reports, RunError, run};
use alexandria_sync::hlc::ClockQuality;
use alexandria_sync::id::{BucketId, Epoch, NodeId, RecordId};
use alexandria_sync::identity::{Authority, Identity, PeerIdentity, PeerRole, SigningRequest};
use alexandria_sync::quic::{self, TransportConfig};
use alexandria_sync::record::RecordKey;
use alexandria_sync::session::{Closed, Collections, Config, Event, Progress, Scope, Selection, Session};
use alexandria_sync::sim::{Seeded, SimBlobs, SimRecords};
use alexandria_sync::store::RecordStore as _;
use alexandria_sync::tcp::{self, TcpConfig};
use alexandria_sync::tickets::TicketSecret;
use alexandria_sync::tls::{ClientTls, ServerTls};
use alexandria_sync::transport::{AnyLink, ConnectError, Listener, Transport};
use alexandria_sync::wire::{Hello, PROTOCOL_MAX, PROTOCOL_MIN};
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
    let (certificate, key) = signed(signer, role, number);
    Identity::from_pem(&certificate, &key, trusted.certificate_pem()).expect("it was just made")
}

/// A new certificate and its key, in PEM.
pub(crate) fn signed(signer: &Authority, role: PeerRole, number: u8) -> (String, String) {
    let named = PeerIdentity { role, id: node_id(number) };
    let request = SigningRequest::make(named).expect("the system gives randomness");
    let certificate =
        signer.sign(&request.request_pem, named, [number; 16], NOW_UNIX_S, 18 * 365).expect("it is valid");
    (certificate, request.key_pem)
}

pub(crate) fn bridge_identity(number: u8) -> PeerIdentity {
    PeerIdentity { role: PeerRole::Bridge, id: node_id(number) }
}

pub(crate) fn client_tls(identity: &Identity) -> ClientTls {
    ClientTls::new(identity, NOW_UNIX_S).expect("it was just made")
}

/// As every process of the bridge has it.
pub(crate) fn server_tls(identity: &Identity) -> ServerTls {
    ServerTls::new(identity, &TicketSecret::derived_from(b"shared")).expect("it was just made")
}

/// A listening bridge: over QUIC, and over TCP.
pub(crate) struct Bridge {
    pub(crate) listener: Listener,
    pub(crate) quic: SocketAddr,
    pub(crate) tcp: SocketAddr,
}

impl Bridge {
    pub(crate) fn listen(identity: &Identity) -> Self {
        Self::listen_with(identity, &TcpConfig::default())
    }

    pub(crate) fn listen_with(identity: &Identity, tcp: &TcpConfig) -> Self {
        Self::listen_as(&server_tls(identity), tcp)
    }

    pub(crate) fn listen_as(tls: &ServerTls, tcp: &TcpConfig) -> Self {
        let any_port = ([127, 0, 0, 1], 0).into();
        let quic = quic::Listener::bind(any_port, tls, &TransportConfig::default());
        let quic = quic.expect("loopback has a free port");
        let tcp = tcp::Listener::bind(any_port, tls, tcp).expect("loopback has a free port");
        let addresses = (quic.local_addr().expect("it is bound"), tcp.local_addr());
        Self { listener: Listener::new(quic, Some(tcp)), quic: addresses.0, tcp: addresses.1 }
    }

    /// What each end makes of one attempt.
    pub(crate) async fn dialled(
        &self,
        over: Transport,
        identity: &Identity,
        expected: PeerIdentity,
    ) -> (Result<AnyLink, ConnectError>, Result<AnyLink, ConnectError>) {
        self.dialled_as(over, &client_tls(identity), expected).await
    }

    pub(crate) async fn dialled_as(
        &self,
        over: Transport,
        tls: &ClientTls,
        expected: PeerIdentity,
    ) -> (Result<AnyLink, ConnectError>, Result<AnyLink, ConnectError>) {
        let dialled = async {
            match over {
                Transport::Quic => {
                    let dialer = quic::Dialer::new(self.quic, &TransportConfig::default())?;
                    dialer.connect(self.quic, tls, expected).await.map(AnyLink::Quic).map_err(ConnectError::from)
                }
                Transport::Tcp => {
                    let dialer = tcp::Dialer::new(&TcpConfig::default());
                    dialer.connect(self.tcp, tls, expected).await.map(AnyLink::Tcp).map_err(ConnectError::from)
                }
            }
        };
        let answered = async { self.listener.accept().await?.answer().await };
        within_deadline(async { tokio::join!(dialled, answered) }).await
    }
}

/// Waits for what must come to an end.
pub(crate) async fn within_deadline<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("it comes to an end")
}

/// Both ends of a connection, with what keeps it alive.
pub(crate) struct Connected {
    pub(crate) bridge_listener: Bridge,
    pub(crate) node: AnyLink,
    pub(crate) bridge: AnyLink,
}

/// Connects node 1 with bridge 2.
pub(crate) async fn connect(over: Transport) -> Connected {
    let authority = authority();
    let bridge_listener = Bridge::listen(&identity(&authority, PeerRole::Bridge, 2));
    let node = identity(&authority, PeerRole::Node, 1);
    let (node, bridge) = bridge_listener.dialled(over, &node, bridge_identity(2)).await;
    Connected { bridge_listener, node: node.expect("it dials"), bridge: bridge.expect("it answers") }
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
            features: 0,
            name: None,
            remembered: Vec::new(),
            standing: None,
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
        self.start(scope, peer, link, config, (hello, selection))
    }

    /// The same in another scope.
    pub(crate) fn run_in<L: Link>(&self, scope: Scope, peer: NodeId, link: L, config: Config) -> Running {
        self.start(scope, peer, link, config, (self.hello(), Selection::default()))
    }

    fn start<L: Link>(
        &self,
        scope: Scope,
        peer: NodeId,
        link: L,
        config: Config,
        (hello, selection): (Hello, Selection),
    ) -> Running {
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
    pub(crate) progress: watch::Receiver<Progress>,
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
