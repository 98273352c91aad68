//! The whole bridge in one process: its servers, and a session with a replica that plays the node.

use std::path::Path;
use std::sync::Arc;

use alexandria_cloud_bridge::bridge::{self, Running};
use alexandria_cloud_bridge::config::Config;
use alexandria_cloud_bridge::content::Content;
use alexandria_cloud_bridge::content::intake::Intake;
use alexandria_cloud_bridge::fleet::listener::Answer;
use alexandria_cloud_bridge::postgres::Records;
use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Blob, Media, Typed};
use alexandria_sync::driver::{self, HOST_INPUTS_MAX, HostInput, Reports};
use alexandria_sync::hlc::ClockQuality;
use alexandria_sync::id::{BucketId, NodeId, Seq};
use alexandria_sync::identity::{BRIDGE_SERVER_NAME, Identity, PeerIdentity, PeerRole, SigningRequest};
use alexandria_sync::quic::{Dialer, TransportConfig};
use alexandria_sync::session::{self, Collections, Progress, Scope, Session};
use alexandria_sync::tls::ClientTls;
use alexandria_sync::wire::{CloseReason, Hello, PROTOCOL_MAX, PROTOCOL_MIN};
use bytes::Bytes;
use futures::StreamExt;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::fixture::{Aws, Database, media, noise, peer, request, stamp, wait_for};

const TOKEN: &str = "a token of operators";

struct Bridge {
    running: Option<Running>,
    stop: CancellationToken,
    database: Database,
    bucket: String,
    aws: Aws,
    folder: tempfile::TempDir,
}

impl Bridge {
    async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    async fn start_with(settings: &[&str]) -> Option<Self> {
        let (database, aws) = (Database::new().await?, Aws::shared()?);
        let bucket = aws.bucket().await;
        let folder = tempfile::tempdir().unwrap();
        // What AWS's own tools would find in the environment is given as a profile: threads share the environment.
        let config = configuration(&database, &aws, &bucket, folder.path(), settings);
        let stop = CancellationToken::new();
        let running = bridge::start(config, stop.clone()).await.unwrap();
        Some(Self { running: Some(running), stop, database, bucket, aws, folder })
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let headers = format!("authorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = request(&self.running().http.to_string(), method, path, &headers, &body).await;
        (status, serde_json::from_str(&answer).unwrap_or(Value::String(answer)))
    }

    /// One request to the enrolment server, over TLS, trusting what the token's fingerprint names.
    async fn enrol(&self, token: &str, node: NodeId, csr: &SigningRequest) -> (u16, String) {
        let fingerprint = token.split_once('.').unwrap().1;
        let ca_pem: String = self.database.value("SELECT certificate_pem FROM fleet_authority").await;
        let authority = CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, &authority);
        assert_eq!(hex::encode(digest), fingerprint, "the token names the authority");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.running().enrolment).await.unwrap();
        let name = ServerName::try_from(BRIDGE_SERVER_NAME).unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let shown = stream.get_ref().1.peer_certificates().unwrap();
        assert_eq!(shown.last(), Some(&authority), "a node that knows nobody can check the fingerprint");
        let body = json!({ "token": token, "csr_pem": csr.request_pem, "node_id": node, "name": "Ship" }).to_string();
        let head = format!(
            "POST /v1/enrol HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The server may end the connection without a farewell; what counts is the answer.
        let _ = stream.read_to_end(&mut answer).await;
        crate::fixture::parse_answer(&answer)
    }

    async fn end(mut self) {
        self.stop.cancel();
        self.running.take().unwrap().end().await;
    }
}

fn configuration(database: &Database, aws: &Aws, bucket: &str, folder: &Path, more: &[&str]) -> Config {
    let mut settings = vec![
        format!("postgres.url={}", database.url()),
        format!("http.operator_token={TOKEN}"),
        "http.listen=127.0.0.1:0".into(),
        "enrolment.listen=127.0.0.1:0".into(),
        "quic.listen=127.0.0.1:0".into(),
        "tcp.listen=127.0.0.1:0".into(),
        format!("fleet.ca_key_file={}", folder.join("ca.key").display()),
        format!("aws.endpoint={}", aws.url()),
        "aws.region=us-east-1".into(),
        "aws.access_key_id=test".into(),
        "aws.secret_access_key=test".into(),
        format!("content.bucket={bucket}"),
        "content.path_style=true".into(),
        "iot.enabled=true".into(),
    ];
    settings.extend(more.iter().map(|setting| (*setting).to_owned()));
    let config = Config::load(None, std::iter::empty(), &settings).unwrap();
    config.check_for_serving().unwrap();
    config
}

/// A replica at a site: another database and another S3 bucket, run by the same code as the bridge.
struct Node {
    records: Records,
    content: Content,
    database: Database,
    identity: Identity,
    answer: Answer,
}

impl Node {
    async fn enrolled(bridge: &Bridge) -> Self {
        let database = Database::new().await.unwrap();
        let records = database.records().await;
        let bucket = bridge.aws.bucket().await;
        let content = bridge.aws.content(&records, &bucket).await;
        let id = records.identity().node_id();
        let csr = SigningRequest::make(PeerIdentity { role: PeerRole::Node, id }).unwrap();
        let (status, made) = bridge.ask("POST", "/fleet/tokens", &json!({ "site": "Harbour" })).await;
        assert_eq!(status, 201, "{made}");
        let (status, answer) = bridge.enrol(made["token"].as_str().unwrap(), id, &csr).await;
        assert_eq!(status, 200, "{answer}");
        let answer: Answer = serde_json::from_str(&answer).unwrap();
        let identity = Identity::from_pem(&answer.certificate_pem, &csr.key_pem, &answer.ca_pem).unwrap();
        Self { records, content, database, identity, answer }
    }

    fn id(&self) -> NodeId {
        self.records.identity().node_id()
    }

    /// Opens a session that runs until `stop` is used, or dropped.
    async fn session(
        &self,
        bridge: &Bridge,
    ) -> Result<(mpsc::Sender<HostInput>, tokio::task::JoinHandle<Option<CloseReason>>), String> {
        let address = bridge.running().quic;
        assert_eq!(self.answer.quic_address, format!(":{}", address.port()));
        assert_eq!(self.answer.tcp_address, bridge.running().tcp.map(|tcp| format!(":{}", tcp.port())));
        let dialer = Dialer::new(address, &TransportConfig::default()).unwrap();
        let expected = PeerIdentity { role: PeerRole::Bridge, id: self.answer.bridge_id };
        let tls = ClientTls::new(&self.identity, 0).unwrap();
        let link = dialer.connect(address, &tls, expected).await.map_err(|error| error.to_string())?;
        let own = self.records.identity();
        let hello = Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            node: own.node_id(),
            incarnation: own.incarnation(),
            epoch: own.epoch(),
            unix_ms: crate::fixture::now_ms(),
            clock_quality: ClockQuality::Trusted,
            software: "a test".into(),
            features: 0,
            name: None,
            remembered: self.records.remembered(self.answer.bridge_id).await.unwrap(),
            standing: None,
        };
        let scope = Scope { site: own.node_id(), collections: Collections::All };
        let session = Session::new(session::Config::default(), hello, self.answer.bridge_id, scope, 0);
        let (host, inputs) = mpsc::channel(HOST_INPUTS_MAX);
        let (events, mut heard) = mpsc::channel(16);
        let (progress, _) = watch::channel(Progress::default());
        tokio::spawn(async move { while heard.recv().await.is_some() {} });
        let (records, content) = (self.records.for_node(self.id()), self.content.clone());
        let peer = self.answer.bridge_id;
        let running = tokio::spawn(async move {
            // Kept until the end, or its socket would go.
            let _dialer = dialer;
            let reports = Reports { events, progress };
            let ended = driver::run(session, peer, Arc::new(records), Arc::new(content), link, inputs, reports).await;
            ended.ok().map(|closed| closed.reason)
        });
        Ok((host, running))
    }

    /// A medium with a file, made here.
    async fn import(&self, bucket: BucketId, title: &str, bytes: Vec<u8>) -> BlobHash {
        let size_bytes = bytes.len() as u64;
        let body = futures::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from(bytes))]).boxed();
        let intake = Intake { media_type: "application/pdf".into(), expected: None, size_bytes: None, body };
        let (stored, _) = self.content.take_in(intake).await.unwrap();
        let blob = Blob { hash: Some(stored.hash), size_bytes, media_type: "application/pdf".into() };
        let medium = Media { title: title.into(), cover: Some(stored.hash), ..Media::default() };
        let records = vec![
            medium.to_record(bucket, crate::fixture::new_id(), stamp(7, 0)),
            blob.to_record(bucket, Blob::record_id(stored.hash), stamp(7, 0)),
        ];
        // As another node of the site would bring it.
        self.records.apply(peer(7), bucket, records, Seq(rand::random::<u32>().into())).await.unwrap();
        stored.hash
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_but_health_wants_the_operators_token() {
    let Some(bridge) = Bridge::start().await else { return };
    let address = bridge.running().http.to_string();
    for path in ["/healthz", "/readyz"] {
        let (status, answer) = request(&address, "GET", path, "", "").await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
    let bad = "authorization: Bearer wrong\r\n";
    for path in ["/metrics", "/fleet/nodes", "/v1/media", "/openapi.json", "/nowhere"] {
        for headers in ["", bad] {
            let (status, _) = request(&address, "GET", path, headers, "").await;
            assert_eq!(status, 401, "{path}");
        }
        let (status, _) = bridge.ask("GET", path, &Value::Null).await;
        assert_eq!(status, if path == "/nowhere" { 404 } else { 200 }, "{path}");
    }
    let (status, _) = bridge.ask("POST", "/fleet/tokens", &json!({ "site": "" })).await;
    assert_eq!(status, 400);
    let (status, _) = bridge.ask("POST", "/fleet/nodes/nonsense/revoke", &Value::Null).await;
    assert_eq!(status, 400);
    bridge.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_enrols_and_replicates_both_ways() {
    let Some(bridge) = Bridge::start().await else { return };
    let node = Node::enrolled(&bridge).await;
    let bytes = noise(9 * 1024 * 1024, 20);
    let (_, collection) = bridge.ask("POST", "/v1/collections", &json!({ "title": "Cloud" })).await;
    let bucket: BucketId =
        format!("collection/{}", collection["id"].as_str().unwrap_or_else(|| panic!("{collection}"))).parse().unwrap();
    let blob = node.import(bucket, "From the ship", bytes.clone()).await;
    let (host, running) = node.session(&bridge).await.unwrap();

    wait_for("the medium at the bridge", || async {
        let count: i64 = bridge.database.value("SELECT count(*) FROM media WHERE title = 'From the ship'").await;
        (count == 1).then_some(())
    })
    .await;
    wait_for("the content at the bridge", || async {
        (bridge.database.value::<i64>("SELECT count(*) FROM stored_blob").await == 1).then_some(())
    })
    .await;
    let key = format!("blobs/{blob}");
    let object = bridge.aws.s3().await.get_object().bucket(&bridge.bucket).key(key).send().await.unwrap();
    assert!(object.body.collect().await.unwrap().to_vec() == bytes, "byte for byte");

    // While the session runs: what is made in the cloud reaches the node.
    let medium = json!({ "title": "From the cloud", "collection": collection["id"] });
    let (status, made) = bridge.ask("POST", "/v1/media", &medium).await;
    assert_eq!(status, 201, "{made}");
    wait_for("the cloud's medium at the node", || async {
        let count: i64 = node.database.value("SELECT count(*) FROM media WHERE title = 'From the cloud'").await;
        (count == 1).then_some(())
    })
    .await;

    // AWS IoT has heard of it.
    wait_for("AWS IoT", || async {
        let (_, nodes) = bridge.ask("GET", "/fleet/nodes", &Value::Null).await;
        (nodes["nodes"][0]["iot_state"] == "registered").then_some(())
    })
    .await;
    let (_, metrics) = bridge.ask("GET", "/metrics", &Value::Null).await;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("alexandria_bridge_nodes_enrolled_total 1"), "{metrics}");
    assert!(metrics.contains("alexandria_bridge_blobs_stored_total 1"), "{metrics}");

    drop(host);
    running.await.unwrap();
    assert!(bridge.folder.path().join("ca.key").exists());
    bridge.end().await;
}

/// Invariant 17: a revoked node gets nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revoked_node_loses_its_session_and_gets_no_other() {
    let Some(bridge) = Bridge::start().await else { return };
    let node = Node::enrolled(&bridge).await;
    let (_host, running) = node.session(&bridge).await.unwrap();
    wait_for("the session", || async {
        let (_, metrics) = bridge.ask("GET", "/metrics", &Value::Null).await;
        metrics.as_str().unwrap().contains("alexandria_bridge_sessions_open 1").then_some(())
    })
    .await;
    let (status, _) = bridge.ask("POST", &format!("/fleet/nodes/{}/revoke", node.id()), &Value::Null).await;
    assert_eq!(status, 204);
    let reason = tokio::time::timeout(crate::fixture::DEADLINE, running).await.unwrap().unwrap();
    assert_eq!(reason, Some(CloseReason::NotWelcome));

    let bucket = BucketId::Catalogue;
    node.import(bucket, "Too late", vec![1]).await;
    if let Ok((_host, running)) = node.session(&bridge).await {
        tokio::time::timeout(crate::fixture::DEADLINE, running).await.unwrap().unwrap();
    }
    let arrived: i64 = bridge.database.value("SELECT count(*) FROM media").await;
    assert_eq!(arrived, 0);
    let (_, metrics) = bridge.ask("GET", "/metrics", &Value::Null).await;
    assert!(metrics.as_str().unwrap().contains("connections_refused_total{reason=\"Revoked\"} 1"), "{metrics}");
    bridge.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_finds_no_slot_is_told_to_come_again_and_gets_one_once_it_is_free() {
    let Some(bridge) = Bridge::start_with(&["quic.sessions_max=1"]).await else { return };
    let (first, second) = (Node::enrolled(&bridge).await, Node::enrolled(&bridge).await);
    let (host, running) = first.session(&bridge).await.unwrap();
    let metric = async |line: &str| {
        wait_for(line, || async {
            let (_, metrics) = bridge.ask("GET", "/metrics", &Value::Null).await;
            metrics.as_str().unwrap().contains(line).then_some(())
        })
        .await;
    };
    metric("alexandria_bridge_sessions_open 1").await;
    if let Ok((_host, refused)) = second.session(&bridge).await {
        let reason = tokio::time::timeout(crate::fixture::DEADLINE, refused).await.unwrap().unwrap();
        assert_eq!(reason, None, "no session began");
    }
    metric("connections_refused_total{reason=\"Overload\"} 1").await;
    host.send(HostInput::Stop(CloseReason::GoingAway, String::new())).await.unwrap();
    tokio::time::timeout(crate::fixture::DEADLINE, running).await.unwrap().unwrap();
    metric("alexandria_bridge_sessions_open 0").await;
    second.import(BucketId::Catalogue, "In time", vec![1]).await;
    wait_for("a slot", || async {
        let (_host, _running) = second.session(&bridge).await.ok()?;
        wait_for("the medium", || async {
            let arrived: i64 = bridge.database.value("SELECT count(*) FROM media").await;
            (arrived == 1).then_some(())
        })
        .await;
        Some(())
    })
    .await;
    bridge.end().await;
}

/// A certificate of another fleet opens nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_foreign_certificate_is_refused() {
    let (Some(bridge), Some(other)) = (Bridge::start().await, Bridge::start().await) else { return };
    let stranger = Node::enrolled(&other).await;
    let dialer = Dialer::new(bridge.running().quic, &TransportConfig::default()).unwrap();
    let expected = PeerIdentity { role: PeerRole::Bridge, id: stranger.answer.bridge_id };
    let tls = ClientTls::new(&stranger.identity, 0).unwrap();
    assert!(dialer.connect(bridge.running().quic, &tls, expected).await.is_err());
    let made: String = {
        let (_, made) = bridge.ask("POST", "/fleet/tokens", &json!({ "site": "Harbour" })).await;
        made["token"].as_str().unwrap().to_owned()
    };
    let wrong = format!("{}.{}", "0".repeat(64), made.split_once('.').unwrap().1);
    let csr = SigningRequest::make(PeerIdentity { role: PeerRole::Node, id: stranger.id() }).unwrap();
    let (status, answer) = bridge.enrol(&wrong, stranger.id(), &csr).await;
    assert_eq!(status, 403, "{answer}");
    let (_, metrics) = bridge.ask("GET", "/metrics", &Value::Null).await;
    assert!(metrics.as_str().unwrap().contains("enrolments_refused_total{reason=\"WrongToken\"} 1"), "{metrics}");
    other.end().await;
    bridge.end().await;
}

/// What a wrong clock wrote is seen and handled by the operator.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_operator_handles_what_is_set_aside() {
    let Some(bridge) = Bridge::start().await else { return };
    let records = bridge.database.records().await;
    let bucket = BucketId::Catalogue;
    let ahead = |title| media(bucket, crate::fixture::new_id(), title, stamp(3, 100 * 86_400_000));
    let sent = vec![ahead("in a hundred days"), ahead("never mind")];
    records.apply(peer(3), bucket, sent.clone(), Seq(2)).await.unwrap();

    let (status, shown) = bridge.ask("GET", "/v1/fleet/quarantine?page_size=1", &Value::Null).await;
    assert_eq!((status, &shown["kept"]["records"], shown["records"].as_array().unwrap().len()), (200, &json!(2), 1));
    let (_, rest) = bridge
        .ask("GET", &format!("/v1/fleet/quarantine?after={}", shown["next"].as_str().unwrap()), &json!(null))
        .await;
    assert_eq!(rest["records"].as_array().unwrap().len(), 1);
    assert_eq!(rest["records"][0]["written_by"], peer(3).node.to_string());

    let [first, second] = [&sent[0], &sent[1]].map(|record| {
        let id = alexandria_sync::quarantine::QuarantineId::of(record);
        format!("/v1/fleet/quarantine/{id}")
    });
    let (status, problem) = bridge.ask("POST", &format!("{first}/replay"), &json!({})).await;
    assert_eq!((status, &problem["type"]), (409, &json!("urn:alexandria:problem:stays-set-aside")), "{problem}");
    let (status, done) = bridge.ask("POST", &format!("{first}/replay"), &json!({ "as_new_edit": true })).await;
    assert_eq!((status, done), (200, json!({ "applied": true })));
    assert_eq!(bridge.ask("DELETE", &second, &Value::Null).await.0, 204);
    assert_eq!(bridge.ask("DELETE", &second, &Value::Null).await.0, 404);
    assert_eq!(bridge.ask("DELETE", "/v1/fleet/quarantine/nonsense", &Value::Null).await.0, 400);
    let (_, listed) = bridge.ask("GET", "/v1/media", &Value::Null).await;
    assert_eq!(listed["items"][0]["title"], "in a hundred days", "{listed}");
    let (_, metrics) = bridge.ask("GET", "/metrics", &Value::Null).await;
    assert!(metrics.as_str().unwrap().contains("alexandria_bridge_quarantine_records 0"), "{metrics}");
    bridge.end().await;
}
