//! Bundles: what is carried from the bridge to a node without any link, and what comes home.
//!
//! The node is played by stores like the bridge's, as in `serving`; what a node does with its files is tested there.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use alexandria_cloud_bridge::bundle::{BundleError, Bundles, ExportOptions, Surveyed, Taken};
use alexandria_cloud_bridge::content::Content;
use alexandria_cloud_bridge::content::intake::Intake;
use alexandria_cloud_bridge::fleet::Fleet;
use alexandria_cloud_bridge::fleet::enrolment::Request;
use alexandria_cloud_bridge::metrics::Metrics;
use alexandria_cloud_bridge::postgres::{Records, is_migrated};
use alexandria_sync::absence::Standing;
use alexandria_sync::bundle::report::{BundleContents, BundleExported, BundleImported};
use alexandria_sync::bundle::{self, Export, Imported, Issuer, OpenError, Reader, Receipt, Receiver, SEGMENT_BYTES};
use alexandria_sync::chunk::{BlobHash, Chunker, Chunking};
use alexandria_sync::domain::{Blob, Collection, Media, Typed, User};
use alexandria_sync::hlc::ClockQuality;
use alexandria_sync::id::{BucketId, NodeId, RecordId, Seq};
use alexandria_sync::identity::{Identity, PeerIdentity, PeerRole, SigningRequest};
use alexandria_sync::session::Selection;
use alexandria_sync::store::{BlobStore, BucketHead, Peer, RecordStore};
use alexandria_sync::wire::{Hello, PROTOCOL_MAX, PROTOCOL_MIN};
use bytes::Bytes;
use futures::StreamExt;

use crate::fixture::{Aws, Database, a_collection, new_id, noise, now_ms, peer, stamp};

const MIB: usize = 1024 * 1024;
const HOUR_MS: u64 = 60 * 60 * 1000;

/// The bridge, as an operator's command opens it, and a stick.
struct Bridge {
    bundles: Bundles,
    records: Records,
    content: Content,
    fleet: Fleet,
    database: Database,
    aws: Aws,
    bucket: String,
    stick: tempfile::TempDir,
}

impl Bridge {
    async fn open() -> Option<Self> {
        let (database, aws) = (Database::new().await?, Aws::shared()?);
        let bucket = aws.bucket().await;
        let stick = tempfile::tempdir().unwrap();
        let records = database.records().await;
        let content = aws.content(&records, &bucket).await;
        let fleet = Fleet::open(database.pool(), crate::fleet::config(stick.path()), Metrics::new()).await.unwrap();
        let bundles = Bundles::new(records.clone(), content.clone(), fleet.clone()).unwrap();
        Some(Self { bundles, records, content, fleet, database, aws, bucket, stick })
    }

    fn peer(&self) -> Peer {
        Peer { node: self.records.identity().node_id(), epoch: self.records.identity().epoch() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.stick.path().join(name)
    }

    async fn export_with(&self, options: ExportOptions) -> Result<(Vec<u8>, BundleExported), BundleError> {
        let options = ExportOptions { file: self.file("out.bundle"), ..options };
        let exported = self.bundles.export(&options, &mut |_| ControlFlow::Continue(())).await?;
        assert!(!self.file("out.bundle.partial").exists());
        Ok((fs::read(&options.file).unwrap(), exported))
    }

    async fn export(&self, reader: Option<NodeId>) -> (Vec<u8>, BundleExported) {
        self.export_with(ExportOptions { reader, ..ExportOptions::default() }).await.unwrap()
    }

    fn written(&self, bytes: &[u8]) -> PathBuf {
        let file = self.file("in.bundle");
        fs::write(&file, bytes).unwrap();
        file
    }

    async fn survey(&self, bytes: &[u8]) -> Result<BundleContents, BundleError> {
        match self.bundles.survey(&self.written(bytes)).await? {
            Surveyed::Bundle(contents) => Ok(contents),
            Surveyed::Receipt(contents) => panic!("{contents:?}"),
        }
    }

    async fn import(&self, bytes: &[u8]) -> Result<BundleImported, BundleError> {
        import_with(&self.bundles, &self.written(bytes)).await
    }

    async fn take_receipt(&self, bytes: &[u8]) {
        let file = self.written(bytes);
        let taken = self.bundles.import(&file, None, &mut |_| ControlFlow::Continue(())).await.unwrap();
        assert!(matches!(taken, Taken::Receipt(contents) if !contents.outdated));
    }

    async fn object(&self, blob: BlobHash) -> Option<Vec<u8>> {
        let get = self.aws.s3().await.get_object().bucket(&self.bucket).key(format!("blobs/{blob}"));
        Some(get.send().await.ok()?.body.collect().await.unwrap().to_vec())
    }

    /// Whatever an import could change.
    async fn state(&self) -> String {
        self.database
            .value(
                "SELECT concat_ws(' ', (SELECT count(*) FROM record), (SELECT count(*) FROM cursor), \
                    (SELECT count(*) FROM quarantine), (SELECT count(*) FROM outbox), (SELECT count(*) FROM stored_blob), \
                    (SELECT count(*) FROM blob_upload), (SELECT count(*) FROM bundle_receipt), \
                    (SELECT string_agg(in_step_at::text, ',') FROM node))",
            )
            .await
    }
}

async fn import_with(bundles: &Bundles, file: &Path) -> Result<BundleImported, BundleError> {
    match bundles.import(file, None, &mut |_| ControlFlow::Continue(())).await? {
        Taken::Bundle(imported) => Ok(imported),
        Taken::Receipt(contents) => panic!("{contents:?}"),
    }
}

/// A replica on stores of its own.
struct Node {
    records: Records,
    content: Content,
    identity: Identity,
    database: Database,
}

impl Node {
    async fn enrolled(bridge: &Bridge) -> Self {
        Self::enrolled_with(bridge, bridge.fleet.create_token("Harbour", None).await.unwrap()).await
    }

    async fn enrolled_with(bridge: &Bridge, token: String) -> Self {
        let database = Database::new().await.unwrap();
        let records = database.records().await;
        let content = bridge.aws.content(&records, &bridge.aws.bucket().await).await;
        let id = records.identity().node_id();
        let csr = SigningRequest::make(PeerIdentity { role: PeerRole::Node, id }).unwrap();
        let request = Request { token, csr_pem: csr.request_pem.clone(), node_id: id, name: "Ship".into() };
        let enrolled = bridge.fleet.enrol(&request).await.unwrap();
        let authority_pem = bridge.fleet.authority().certificate_pem();
        let identity = Identity::from_pem(&enrolled.certificate_pem, &csr.key_pem, authority_pem).unwrap();
        Self { records, content, identity, database }
    }

    fn id(&self) -> NodeId {
        self.records.identity().node_id()
    }

    fn peer(&self) -> Peer {
        Peer { node: self.id(), epoch: self.records.identity().epoch() }
    }

    fn hello(&self, unix_ms: u64) -> Hello {
        let own = self.records.identity();
        Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            node: own.node_id(),
            incarnation: own.incarnation(),
            epoch: own.epoch(),
            unix_ms,
            clock_quality: ClockQuality::Trusted,
            software: "a test".into(),
            features: 0,
            name: None,
            remembered: Vec::new(),
            standing: Some(Standing { in_step_ms: unix_ms - 1000, ..Standing::default() }),
        }
    }

    async fn export(&self, reader: Option<&Reader>) -> Vec<u8> {
        self.export_as(Some(&self.identity), now_ms(), reader).await
    }

    /// Made at some time by the clock here, and good for an hour.
    async fn export_as(&self, signer: Option<&Identity>, unix_ms: u64, reader: Option<&Reader>) -> Vec<u8> {
        let hello = self.hello(unix_ms);
        let store = self.records.for_node(self.id());
        let buckets = store.heads().await.unwrap();
        let what = Export {
            hello: &hello,
            validity_ms: HOUR_MS,
            signer,
            buckets: &buckets,
            reader,
            content: true,
            max_bytes: None,
            segment_bytes: SEGMENT_BYTES,
        };
        bundle::export(what, &store, &self.content, Vec::new(), &mut |_| ControlFlow::Continue(())).await.unwrap().0
    }

    fn receiver<'r>(
        &'r self,
        accepts: &'r (dyn Fn(&Issuer, BucketId) -> bool + Sync),
        selection: &'r Selection,
    ) -> Receiver<'r> {
        Receiver {
            local: self.peer(),
            clock: self.records.clock(),
            identity: Some(&self.identity),
            unsigned: false,
            accepts,
            selection,
            standing: Standing::default(),
        }
    }

    /// Takes in a bundle as a node does; returns that and the receipt.
    async fn import(&self, bytes: &[u8]) -> (Imported, Vec<u8>) {
        let accepts = |issuer: &Issuer, bucket: BucketId| match bucket {
            BucketId::Catalogue | BucketId::Collection(_) => true,
            BucketId::Site(site) => site == self.id() && issuer.vouched && issuer.role == PeerRole::Bridge,
        };
        let selection = Selection::default();
        let receiver = self.receiver(&accepts, &selection);
        let store = self.records.for_node(self.id());
        let mut progress = |_| ControlFlow::Continue(());
        let imported = bundle::import(&receiver, bytes, &store, &self.content, &mut progress).await.unwrap();
        let receipt = Receipt::gather(self.hello(now_ms()), imported.issuer.peer(), &store, &self.content).await;
        (imported, receipt.unwrap().write(Some(&self.identity), Vec::new()).unwrap())
    }
}

/// A medium with a file, written at `content`'s replica.
async fn add(
    records: &Records,
    content: &Content,
    bucket: BucketId,
    title: &str,
    bytes: &[u8],
) -> (RecordId, BlobHash) {
    let body = futures::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from(bytes.to_vec()))]).boxed();
    let intake = Intake { media_type: "video/mp4".into(), expected: None, size_bytes: None, body };
    let (stored, _) = content.take_in(intake).await.unwrap();
    let blob = Blob { hash: Some(stored.hash), size_bytes: bytes.len() as u64, media_type: "video/mp4".into() };
    let medium = Media { title: title.into(), cover: Some(stored.hash), ..Media::default() };
    let id = new_id();
    let made = vec![
        medium.to_record(bucket, id, stamp(7, -5_000)),
        blob.to_record(bucket, Blob::record_id(stored.hash), stamp(7, -5_000)),
    ];
    // As another replica would bring it.
    records.apply(peer(7), bucket, made, Seq(rand::random::<u32>().into())).await.unwrap();
    (id, stored.hash)
}

async fn add_user(records: &Records, site: NodeId, name: &str) {
    let bucket = BucketId::Site(site);
    let user = User { name: name.into(), ..User::default() }.to_record(bucket, new_id(), stamp(7, -5_000));
    records.apply(peer(7), bucket, vec![user], Seq(rand::random::<u32>().into())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_brings_a_node_what_a_session_would_and_the_next_one_only_what_is_new() {
    let Some(bridge) = Bridge::open().await else { return };
    let (node, other) = (Node::enrolled(&bridge).await, Node::enrolled(&bridge).await);
    let shelf = new_id();
    let collection = Collection { title: "School".into(), ..Collection::default() };
    let collection = collection.to_record(BucketId::Catalogue, shelf, stamp(7, -6_000));
    bridge.records.apply(peer(7), BucketId::Catalogue, vec![collection], Seq(1)).await.unwrap();
    let bytes = noise(3 * MIB + 7, 30);
    let (_, blob) = add(&bridge.records, &bridge.content, BucketId::Collection(shelf), "From the cloud", &bytes).await;
    add_user(&bridge.records, node.id(), "ours").await;
    add_user(&bridge.records, other.id(), "theirs").await;

    let (first, exported) = bridge.export(Some(node.id())).await;
    assert_eq!((exported.blobs, exported.goes_on, exported.signed), (1, false, true));
    let (imported, receipt) = node.import(&first).await;
    assert!(imported.refused.is_empty() && imported.blobs == 1, "{imported:?}");
    assert_eq!((imported.issuer.role, imported.issuer.peer()), (PeerRole::Bridge, bridge.peer()));
    assert!(imported.issuer.hello.standing.unwrap().keeps_all, "nothing of what a session brings is missing");
    let users: String = node.database.value("SELECT string_agg(name, ',') FROM library_user").await;
    assert_eq!(users, "ours", "a site goes to its node and to no other");
    assert_eq!(node.content.stored(blob).await.unwrap().unwrap().size_bytes, bytes.len() as u64);

    bridge.take_receipt(&receipt).await;
    add(&bridge.records, &bridge.content, BucketId::Collection(shelf), "Another", b"new").await;
    let (second, exported) = bridge.export(Some(node.id())).await;
    assert_eq!((exported.records, exported.blobs, exported.goes_on), (2, 1, true));
    assert!(second.len() < first.len() / 20, "{} of {} bytes", second.len(), first.len());
    node.import(&second).await;
    let titles: String = node.database.value("SELECT string_agg(title, ',' ORDER BY title) FROM media").await;
    assert_eq!(titles, "Another,From the cloud");

    // For anyone: no site, and no word that it is all.
    let (anyone, _) = bridge.export(None).await;
    let (imported, _) = other.import(&anyone).await;
    assert!(imported.refused.is_empty() && !imported.issuer.hello.standing.unwrap().keeps_all);
    let users: i64 = other.database.value("SELECT count(*) FROM library_user").await;
    assert_eq!((users, imported.blobs), (0, 2));
    // Some of it.
    let options = |collections: &[&str], max_bytes, records_only| ExportOptions {
        collections: collections.iter().map(|&name| name.to_owned()).collect(),
        reader: Some(other.id()),
        max_bytes,
        records_only,
        ..ExportOptions::default()
    };
    let unknown = bridge.export_with(options(&["Shool"], None, false)).await.unwrap_err();
    assert!(matches!(&unknown, BundleError::UnknownCollection(name) if name == "Shool"), "{unknown}");
    let (bytes, exported) = bridge.export_with(options(&["School"], Some(2_000_000), false)).await.unwrap();
    assert!(bytes.len() < 2_000_000 && (exported.blobs, exported.blobs_left_out) == (1, 1), "{exported:?}");
    assert!(exported.to_string().contains("1 files did not fit"), "{exported}");
    let (_, exported) = bridge.export_with(options(&[], None, true)).await.unwrap();
    assert_eq!((exported.blobs, exported.blobs_left_out), (0, 0));
    add(&bridge.records, &bridge.content, a_collection(), "Elsewhere", b"elsewhere").await;
    for (collections, blobs) in [(&["School"][..], 2), (&[], 3)] {
        let (bytes, exported) = bridge.export_with(options(collections, None, false)).await.unwrap();
        let has_it = bytes.windows(9).any(|window| window == b"Elsewhere");
        assert_eq!((exported.blobs, has_it), (blobs, collections.is_empty()), "{collections:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_sends_home_is_looked_at_merged_stored_and_announced_once() {
    let Some(bridge) = Bridge::open().await else { return };
    let node = Node::enrolled(&bridge).await;
    let bucket = a_collection();
    let bytes = noise(9 * MIB + 1, 31);
    let (medium, blob) = add(&node.records, &node.content, bucket, "From the ship", &bytes).await;
    add_user(&node.records, node.id(), "sailor").await;
    let carried = node.export(None).await;

    let before = bridge.state().await;
    let contents = bridge.survey(&carried).await.unwrap();
    let counted: Vec<(&str, u64)> = contents.kinds.iter().map(|kind| (kind.kind.as_str(), kind.new)).collect();
    assert_eq!((contents.is_sound(), contents.blobs_new), (true, 1));
    assert!(counted.contains(&("media", 1)) && counted.contains(&("user", 1)), "{counted:?}");
    assert_eq!(bridge.state().await, before, "a look changes nothing");

    let imported = bridge.import(&carried).await.unwrap();
    assert!(imported.is_complete(), "{imported:?}");
    assert_eq!((imported.applied, imported.blobs, imported.blob_bytes), (3, 1, bytes.len() as u64));
    assert!(bridge.object(blob).await.unwrap() == bytes, "byte for byte");
    let title: String = bridge.database.value("SELECT title FROM media").await;
    assert_eq!(title, "From the ship");
    let events = "SELECT string_agg(type || ' ' || subject, ',' ORDER BY type) FROM outbox WHERE kind <> 'user'";
    let announced: String = bridge.database.value(events).await;
    assert!(announced.contains(&format!("MEDIA_CREATED media/{medium}")), "{announced}");
    assert!(announced.contains(&format!("BLOB_UPLOADED blob/{blob}")), "{announced}");
    let heard: bool =
        bridge.database.value("SELECT tells_standing AND in_step_at > now() - interval '1 minute' FROM node").await;
    assert!(heard, "its lease is renewed");

    let contents = bridge.survey(&carried).await.unwrap();
    let known: Vec<u64> = contents.kinds.iter().map(|kind| kind.known).collect();
    assert_eq!((known, contents.blobs_known, contents.blobs_new), (vec![1, 1, 1], 1, 0), "{contents}");

    // The receipt: the node's next bundle has nothing in it.
    let receipt = fs::read(imported.receipt.clone().unwrap()).unwrap();
    let (accepts, selection) = (|_: &Issuer, _: BucketId| true, Selection::default());
    let receipt = Receipt::read(&node.receiver(&accepts, &selection), receipt.as_slice()).unwrap();
    assert_eq!((receipt.reader(), receipt.lacks.len()), (bridge.peer(), 0));
    let reader = Reader { node: receipt.reader().node, life: Some(receipt.reader()), receipt: Some(receipt) };
    let next = node.export(Some(&reader)).await;
    assert!(next.len() < 5000, "{} bytes", next.len());
    assert_eq!(bridge.import(&next).await.unwrap().applied, 0);

    let after = bridge.state().await;
    let again = bridge.import(&carried).await.unwrap();
    assert_eq!((again.applied, again.known, again.blobs), (0, 3, 0));
    assert_eq!(bridge.state().await, after, "once more the same changes nothing, and is not announced again");
    // What the bridge sends next has nothing of this: the node has written it.
    let (back, exported) = bridge.export(Some(node.id())).await;
    assert_eq!((exported.records, exported.blobs), (0, 0));
    assert!(node.import(&back).await.0.refused.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_no_part_in_the_fleet_gives_and_gets_nothing() {
    let (Some(bridge), Some(elsewhere)) = (Bridge::open().await, Bridge::open().await) else { return };
    let (node, revoked) = (Node::enrolled(&bridge).await, Node::enrolled(&bridge).await);
    let stranger = Node::enrolled(&elsewhere).await;
    let bucket = a_collection();
    for of in [&node, &revoked, &stranger] {
        add(&of.records, &of.content, bucket, "Not taken", b"content").await;
    }
    bridge.fleet.revoke(revoked.id()).await.unwrap();
    let forgotten = Node::enrolled(&bridge).await;
    let delete = sqlx::query("DELETE FROM node WHERE id = $1").bind(uuid::Uuid::from_bytes(*forgotten.id().as_bytes()));
    delete.execute(&bridge.database.pool()).await.unwrap();
    let (own, _) = bridge.export(None).await;
    let before = bridge.state().await;

    let now = now_ms();
    let another = Reader { node: stranger.id(), life: Some(stranger.peer()), receipt: None };
    let cases = [
        ("of this fleet", stranger.export(None).await),
        ("was revoked", revoked.export(None).await),
        ("nodes list", forgotten.export(None).await),
        ("nobody has signed it", node.export_as(None, now, None).await),
        ("made it itself", own),
        ("expired on", node.export_as(Some(&node.identity), now - 2 * HOUR_MS, None).await),
        ("in the future", node.export_as(Some(&node.identity), now + HOUR_MS, None).await),
        ("made for", node.export(Some(&another)).await),
        ("has signed it", node.export_as(Some(&revoked.identity), now, None).await),
        ("neither a bundle nor a receipt", b"a text of no use".to_vec()),
    ];
    for (why, carried) in cases {
        let looked = bridge.survey(&carried).await.unwrap_err();
        let refused = bridge.import(&carried).await.unwrap_err();
        for error in [looked, refused] {
            let said = format!("{:#}", anyhow::Error::from(error));
            assert!(said.contains(why), "{why}: {said}");
        }
        assert_eq!(bridge.state().await, before, "{why}");
    }
    for (id, is_revoked) in [(revoked.id(), true), (stranger.id(), false)] {
        let options = ExportOptions { reader: Some(id), ..ExportOptions::default() };
        match bridge.export_with(options).await.unwrap_err() {
            BundleError::Revoked(node) => assert!(is_revoked && node == id),
            BundleError::UnknownNode(node) => assert!(!is_revoked && node == id),
            other => panic!("{other}"),
        }
    }
    // A receipt of one that was revoked.
    let (_, receipt) = revoked.import(&fs::read(bridge.file("out.bundle")).unwrap()).await;
    assert!(matches!(bridge.import(&receipt).await, Err(BundleError::Revoked(_))));
    assert_eq!(bridge.state().await, before);
}

/// A node may write its own site, and says nothing for others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_gives_nothing_for_the_site_of_another() {
    let Some(bridge) = Bridge::open().await else { return };
    let (node, other) = (Node::enrolled(&bridge).await, Node::enrolled(&bridge).await);
    add_user(&node.records, other.id(), "an intruder").await;
    let store = node.records.for_node(other.id());
    let buckets: Vec<BucketHead> = store.heads().await.unwrap();
    let hello = node.hello(now_ms());
    let what = Export {
        hello: &hello,
        validity_ms: HOUR_MS,
        signer: Some(&node.identity),
        buckets: &buckets,
        reader: None,
        content: true,
        max_bytes: None,
        segment_bytes: SEGMENT_BYTES,
    };
    let mut progress = |_| ControlFlow::Continue(());
    let carried = bundle::export(what, &store, &node.content, Vec::new(), &mut progress).await.unwrap().0;
    let imported = bridge.import(&carried).await.unwrap();
    assert_eq!((imported.applied, imported.refused.len()), (0, 1));
    assert_eq!(imported.refused[0].bucket, BucketId::Site(other.id()));
    assert_eq!(bridge.database.value::<i64>("SELECT count(*) FROM record").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_file_that_was_cut_off_or_changed_all_before_counts_and_the_next_goes_on() {
    let Some(bridge) = Bridge::open().await else { return };
    let node = Node::enrolled(&bridge).await;
    let bucket = a_collection();
    let bytes = noise(21 * MIB, 32);
    let (_, blob) = add(&node.records, &node.content, bucket, "A long film", &bytes).await;
    let whole = node.export(None).await;

    let cut = bridge.import(&whole[..14 * MIB]).await.unwrap();
    assert!(!cut.is_complete() && cut.fault.as_ref().is_some_and(|fault| fault.contains("cut off")), "{cut:?}");
    assert_eq!((cut.applied, cut.blobs, cut.blobs_incomplete), (2, 0, 1));
    let mut changed = whole.clone();
    changed[18 * MIB] ^= 1;
    let damaged = bridge.import(&changed).await.unwrap();
    assert!(damaged.fault.as_ref().is_some_and(|fault| fault.contains("damaged after byte")), "{damaged:?}");
    // The receipt says what is lacking, and the head of the next one alone carries it.
    let receipt = fs::read(damaged.receipt.clone().unwrap()).unwrap();
    let (accepts, selection) = (|_: &Issuer, _: BucketId| true, Selection::default());
    let receipt = Receipt::read(&node.receiver(&accepts, &selection), receipt.as_slice()).unwrap();
    assert_eq!(receipt.lacks.iter().copied().collect::<Vec<_>>(), [blob]);

    let mut chunker = Chunker::new(Chunking::Fixed);
    chunker.update(&bytes);
    let manifest = chunker.finish().unwrap();
    let have = bridge.content.begin(&manifest).await.unwrap();
    assert!((12..=17).contains(&have.count()), "of 21 chunks {} are durable", have.count());
    bridge.content.release(blob).await;

    let reader = Reader { node: receipt.reader().node, life: Some(receipt.reader()), receipt: Some(receipt) };
    let next = node.export(Some(&reader)).await;
    let imported = bridge.import(&next).await.unwrap();
    assert!(imported.is_complete() && imported.blobs == 1, "{imported:?}");
    assert!(bridge.object(blob).await.unwrap() == bytes, "byte for byte");
    let left: i64 = bridge.database.value("SELECT count(*) FROM blob_upload").await;
    assert_eq!(left, 0);
}

/// A process dies in the middle of what a bundle brings, too: a session's, or an earlier import's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_was_receiving_when_it_died_is_taken_in_once_its_claim_has_run_out() {
    let Some(bridge) = Bridge::open().await else { return };
    let node = Node::enrolled(&bridge).await;
    let bytes = noise(3 * MIB, 33);
    let (_, blob) = add(&node.records, &node.content, a_collection(), "A film", &bytes).await;
    let mut chunker = Chunker::new(Chunking::Fixed);
    chunker.update(&bytes);
    let manifest = chunker.finish().unwrap();
    let records = bridge.database.records().await;
    let dead = bridge.aws.content(&records, &bridge.bucket).await;
    dead.begin(&manifest).await.unwrap();
    drop(dead);
    let imported = bridge.import(&node.export(None).await).await.unwrap();
    assert!(imported.is_complete() && imported.blobs == 1, "{imported:?}");
    assert!(bridge.object(blob).await.unwrap() == bytes);

    // While it lives, its claim holds.
    let bytes = noise(2 * MIB, 34);
    let (_, blob) = add(&node.records, &node.content, a_collection(), "Another", &bytes).await;
    let mut chunker = Chunker::new(Chunking::Fixed);
    chunker.update(&bytes);
    let alive = bridge.aws.content(&records, &bridge.bucket).await;
    alive.begin(&chunker.finish().unwrap()).await.unwrap();
    let renewing = {
        let alive = alive.clone();
        tokio::spawn(async move {
            let mut due = tokio::time::interval(alive.lease_renewal_interval());
            loop {
                due.tick().await;
                alive.renew_leases().await.unwrap();
            }
        })
    };
    let imported = bridge.import(&node.export(None).await).await.unwrap();
    renewing.abort();
    assert_eq!((imported.blobs, imported.blobs_busy, imported.is_complete()), (0, 1, false));
    assert!(bridge.object(blob).await.is_none());
}

/// Processes of the bridge on one database and S3 bucket, sessions or commands, are one replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_file_may_be_taken_in_by_two_processes_at_once() {
    let Some(bridge) = Bridge::open().await else { return };
    let node = Node::enrolled(&bridge).await;
    let bucket = a_collection();
    let mut films = Vec::new();
    for number in 0..5 {
        let bytes = noise(MIB + number, 40 + number as u64);
        films.push((add(&node.records, &node.content, bucket, &format!("{number}"), &bytes).await.1, bytes));
    }
    let file = bridge.written(&node.export(None).await);
    let records = bridge.database.records().await;
    let content = bridge.aws.content(&records, &bridge.bucket).await;
    let second = Bundles::new(records, content, bridge.fleet.clone()).unwrap();
    let (one, two) = tokio::join!(import_with(&bridge.bundles, &file), import_with(&second, &file));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.applied + two.applied, 10, "each record was new to one of them");
    assert_eq!(one.known + two.known, 10);
    assert_eq!((one.blobs_incomplete, two.blobs_incomplete), (0, 0));
    // Whoever found one taken says so; once more brings what is left.
    bridge.import(&fs::read(&file).unwrap()).await.unwrap();
    for (blob, bytes) in films {
        assert!(bridge.object(blob).await.unwrap() == bytes);
    }
    let events: i64 = bridge.database.value("SELECT count(*) FROM outbox WHERE type = 'BLOB_UPLOADED'").await;
    assert_eq!(events, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_erased_is_in_no_bundle() {
    let Some(bridge) = Bridge::open().await else { return };
    let node = Node::enrolled(&bridge).await;
    let bucket = a_collection();
    let secret = b"nobody but you should read this".as_slice();
    let (medium, blob) = add(&bridge.records, &bridge.content, bucket, "Zanzibarine", secret).await;
    let (before, _) = bridge.export(Some(node.id())).await;
    let contains = |bundle: &[u8], text: &[u8]| bundle.windows(text.len()).any(|window| window == text);
    assert!(contains(&before, secret) && contains(&before, b"Zanzibarine"), "it would be seen");
    node.import(&before).await;
    bridge.records.erase(Media::KIND, medium).await.unwrap();
    let (after, exported) = bridge.export(Some(node.id())).await;
    assert!(!contains(&after, secret) && !contains(&after, b"Zanzibarine"));
    assert_eq!(exported.blobs, 0);
    node.import(&after).await;
    assert_eq!(node.database.value::<i64>("SELECT count(*) FROM media").await, 0);
    assert!(node.content.manifest(bridge.peer().node, blob).await.unwrap().is_none());
}

/// A node that was restored has forgotten: what its receipt says counts no more, and what it sent before may be lost there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_said_in_another_life_counts_no_more() {
    let Some(bridge) = Bridge::open().await else { return };
    let mut node = Node::enrolled(&bridge).await;
    let bucket = a_collection();
    add(&bridge.records, &bridge.content, bucket, "From the cloud", b"content").await;
    add(&node.records, &node.content, bucket, "From the ship", b"other content").await;
    bridge.import(&node.export(None).await).await.unwrap();
    let (first, exported) = bridge.export(Some(node.id())).await;
    assert_eq!(exported.records, 2, "what it sent itself is left out");
    let (_, receipt) = node.import(&first).await;
    bridge.take_receipt(&receipt).await;
    assert_eq!(bridge.export(Some(node.id())).await.1.records, 0);

    // The other copy of its data that it now lives on.
    sqlx::query("UPDATE bridge SET copy = 'another'").execute(&node.database.pool()).await.unwrap();
    node.records = node.database.records().await;
    let imported = bridge.import(&node.export(None).await).await.unwrap();
    assert!(imported.is_complete(), "{imported:?}");
    let (second, exported) = bridge.export(Some(node.id())).await;
    assert!(!exported.goes_on && exported.records >= 2, "{exported:?}");
    let (imported, _) = node.import(&second).await;
    assert!(imported.refused.is_empty());

    // A receipt that is late.
    let file = bridge.written(&receipt);
    let taken = bridge.bundles.import(&file, None, &mut |_| ControlFlow::Continue(())).await.unwrap();
    assert!(matches!(taken, Taken::Receipt(contents) if contents.outdated));

    // Restored once more, and known from a session this time.
    let (_, receipt) = node.import(&bridge.export(Some(node.id())).await.0).await;
    bridge.take_receipt(&receipt).await;
    assert!(bridge.export(Some(node.id())).await.1.goes_on);
    sqlx::query("UPDATE bridge SET copy = 'a third'").execute(&node.database.pool()).await.unwrap();
    node.records = node.database.records().await;
    bridge.fleet.admit(node.id()).await.unwrap().unwrap();
    for head in bridge.records.heads(Some(node.id())).await.unwrap() {
        bridge.records.apply(node.peer(), head.bucket, Vec::new(), Seq(1)).await.unwrap();
    }
    let (third, exported) = bridge.export(Some(node.id())).await;
    assert!(!exported.goes_on && exported.records >= 2, "{exported:?}");
    assert!(node.import(&third).await.0.refused.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_replaces_another_gets_what_belongs_to_its_site_on_the_stick() {
    let Some(bridge) = Bridge::open().await else { return };
    let old = Node::enrolled(&bridge).await;
    add_user(&bridge.records, old.id(), "keeper").await;
    let token = bridge.fleet.create_replacement_token("Harbour", None, old.id()).await.unwrap();
    let new = Node::enrolled_with(&bridge, token).await;
    new.import(&bridge.export(Some(new.id())).await.0).await;
    assert_eq!(new.database.value::<String>("SELECT string_agg(name, ',') FROM library_user").await, "keeper");
}

/// Writing onto a stick takes long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_revoked_while_its_bundle_is_written_gets_none() {
    let Some(bridge) = Bridge::open().await else { return };
    let node = Node::enrolled(&bridge).await;
    let bucket = a_collection();
    for number in 0..100 {
        add(&bridge.records, &bridge.content, bucket, "A page", format!("{number}").as_bytes()).await;
    }
    let options = ExportOptions { file: bridge.file("out"), reader: Some(node.id()), ..ExportOptions::default() };
    let pool = bridge.database.pool();
    let mut slowly = |_| {
        let moment = async {
            bridge.fleet.revoke(node.id()).await.unwrap();
            sqlx::query("SELECT pg_sleep(0.2)").execute(&pool).await.unwrap();
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(moment));
        ControlFlow::Continue(())
    };
    let written = bridge.bundles.export(&options, &mut slowly).await;
    assert!(matches!(written, Err(BundleError::Revoked(revoked)) if revoked == node.id()), "{written:?}");
    assert!(!bridge.file("out").exists() && !bridge.file("out.partial").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_an_earlier_version_is_told_from_one_of_this() {
    let Some(bridge) = Bridge::open().await else { return };
    let pool = bridge.database.pool();
    assert!(is_migrated(&pool).await.unwrap());
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version >= 8").execute(&pool).await.unwrap();
    assert!(!is_migrated(&pool).await.unwrap());
    sqlx::query("DROP TABLE _sqlx_migrations").execute(&pool).await.unwrap();
    assert!(!is_migrated(&pool).await.unwrap());
}

#[test]
fn an_unsigned_one_is_refused_in_the_words_of_the_bridge() {
    let said = BundleError::from(OpenError::Unsigned).to_string();
    assert!(!said.contains("--unsigned"), "{said}");
}
