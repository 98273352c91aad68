//! Bundles and the choice of collections: a node writes and takes only what it keeps.

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use alexandria_node::config::Config;
use alexandria_node::jobs::bundle::{Bundles, Member};
use alexandria_node::library::Library;
use alexandria_node::local::bundles::{
    BundleExportLine, BundleExportRequest, BundleExported, BundleImportLine, BundleImported, BundleRequest,
    BundleSurvey,
};
use alexandria_node::store::{Change, Level};
use alexandria_sync::absence::Standing;
use alexandria_sync::chunk::Chunking;
use alexandria_sync::domain::{Blob, Collection, Media, Typed};
use alexandria_sync::id::{BucketId, Epoch, NodeId, RecordId, Seq};
use alexandria_sync::identity::{Authority, Identity, PeerIdentity, PeerRole, SigningRequest};
use alexandria_sync::store::{Peer, RecordStore as _};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::store::samples::{folder, id, media, noise};

/// A library without a fleet, in a folder of its own.
struct Place {
    library: Library,
    dir: TempDir,
}

impl Place {
    fn open(default: Level) -> Self {
        let dir = folder();
        let mut config = Config::default();
        config.selection.default = default;
        let opened = Library::open(&dir.path().join("data"), &config.store, &config.selection);
        Self { library: opened.expect("the library opens").0, dir }
    }

    async fn change(&self, change: Change) {
        self.library.store().records.change_one(change).await.unwrap();
    }

    /// A collection with a medium and its file.
    async fn collection(&self, number: u64, title: &str) -> RecordId {
        let collection = id(number);
        let shelf = Collection { title: title.into(), ..Collection::default() };
        self.change(Change::create(BucketId::Catalogue, collection, shelf)).await;
        let bytes = noise(10_000, number);
        let put = self.library.store().blobs.put_stream(Chunking::Fixed, None, bytes.as_slice()).await.unwrap();
        let bucket = BucketId::Collection(collection);
        let blob = Blob { hash: Some(put.hash), size_bytes: put.size_bytes, media_type: "video/mp4".into() };
        self.change(Change::put(bucket, Blob::record_id(put.hash), blob)).await;
        self.change(Change::create(bucket, id(number + 1), media(title))).await;
        collection
    }

    fn bundles(&self) -> Bundles {
        Bundles::new(self.library.clone(), None)
    }

    /// The same in a fleet, as what its certificate says.
    fn bundles_as(&self, role: PeerRole, fleet: &Authority, bridge: NodeId) -> Bundles {
        let named = PeerIdentity { role, id: self.library.store().records.identity().node };
        let request = SigningRequest::make(named).unwrap();
        let now_s = UNIX_EPOCH.elapsed().unwrap().as_secs();
        let certificate = fleet.sign(&request.request_pem, named, [1; 16], now_s, 30).unwrap();
        let identity = Identity::from_pem(&certificate, &request.key_pem, fleet.certificate_pem()).unwrap();
        Bundles::new(self.library.clone(), Some(Member { identity, bridge }))
    }

    async fn export(&self, collections: &[&str]) -> Result<(PathBuf, BundleExported), String> {
        self.export_by(self.bundles(), collections).await
    }

    async fn export_by(&self, bundles: Bundles, collections: &[&str]) -> Result<(PathBuf, BundleExported), String> {
        let file = self.dir.path().join("library.bundle");
        let collections = collections.iter().map(|&name| name.to_owned()).collect();
        let request = BundleExportRequest { file: file.clone(), collections, ..BundleExportRequest::default() };
        let (lines, mut told) = mpsc::channel(1000);
        bundles.export(request, lines).await;
        while let Some(line) = told.recv().await {
            match line {
                BundleExportLine::Progress(_) => {}
                BundleExportLine::Done(exported) => return Ok((file, exported)),
                BundleExportLine::Failed { reason } => return Err(reason),
            }
        }
        panic!("nothing was told")
    }

    fn request(&self, file: PathBuf) -> BundleRequest {
        BundleRequest { file, unsigned: true, receipt: Some(self.dir.path().join("receipt")) }
    }

    /// What a look at a bundle says, and what taking it in comes to.
    async fn import(&self, file: PathBuf) -> (BundleSurvey, BundleImported) {
        let survey = self.bundles().survey(self.request(file.clone())).await.unwrap();
        let (lines, mut told) = mpsc::channel(1000);
        self.bundles().import(self.request(file), lines).await;
        while let Some(line) = told.recv().await {
            match line {
                BundleImportLine::Progress(_) => {}
                BundleImportLine::Done(imported) => return (survey, imported),
                other => panic!("{other:?}"),
            }
        }
        panic!("nothing was told")
    }

    async fn titles(&self, collection: RecordId) -> Vec<String> {
        let bucket = BucketId::Collection(collection);
        let rows = self.library.store().records.changes_since(bucket, Seq(0), 100).await.unwrap();
        rows.iter().filter_map(|row| Media::from_record(&row.record)).map(|media| media.title).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_takes_of_a_bundle_the_collections_that_it_keeps_and_others_once_they_are_chosen() {
    let (from, to) = (Place::open(Level::Content), Place::open(Level::None));
    let (school, films) = (from.collection(10, "School").await, from.collection(20, "Films").await);
    let (file, exported) = from.export(&[]).await.unwrap();
    assert_eq!(exported.blobs, 2);
    to.library.store().records.choose(school, Level::Content).await.unwrap();
    let (survey, imported) = to.import(file.clone()).await;
    let BundleSurvey::Bundle(contents) = survey else { panic!("{survey:?}") };
    for refused in [&contents.refused, &imported.refused] {
        assert_eq!(refused.iter().map(|refused| refused.bucket).collect::<Vec<_>>(), [BucketId::Collection(films)]);
        assert!(refused[0].reason.contains("not kept"), "{}", refused[0].reason);
    }
    assert_eq!((to.titles(school).await, to.titles(films).await), (vec!["School".to_owned()], vec![]));
    assert_eq!(imported.blobs, 1);
    assert!(to.library.collections().unwrap().iter().any(|it| it.title == "Films"), "the catalogue is everybody's");

    to.library.store().records.choose(films, Level::Records).await.unwrap();
    let (_, imported) = to.import(file).await;
    assert!(imported.refused.is_empty());
    assert_eq!(to.titles(films).await, ["Films"]);
    assert_eq!(imported.blobs, 0, "of this one it keeps the records");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_that_is_not_kept_goes_into_no_bundle() {
    let from = Place::open(Level::Content);
    let (school, _films) = (from.collection(10, "School").await, from.collection(20, "Films").await);
    from.library.store().records.choose(school, Level::None).await.unwrap();
    let refused = from.export(&["School"]).await.unwrap_err();
    assert!(refused.contains("not kept on this node"), "{refused}");
    let (file, exported) = from.export(&[]).await.unwrap();
    assert_eq!(exported.blobs, 1, "half a collection helps nobody");
    let to = Place::open(Level::Content);
    to.import(file).await;
    assert!(to.titles(school).await.is_empty());
}

/// A bridge is played by a node whose certificate says that it is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bundles_of_the_bridge_renew_the_lease_and_once_it_has_run_out_change_nothing() {
    let fleet = Authority::make("fleet of the tests", UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let (town, away) = (Place::open(Level::Content), Place::open(Level::Content));
    let bridge = town.library.store().records.identity().node;
    let (bridge_bundles, node_bundles) =
        (town.bundles_as(PeerRole::Bridge, &fleet, bridge), away.bundles_as(PeerRole::Node, &fleet, bridge));
    // How the bridge stands is what it has from another, here.
    let (records, source) =
        (&town.library.store().records, Peer { node: NodeId::from_bytes([9; 16]), epoch: Epoch(1) });
    let stands = async |in_step_ms, collected_ms| {
        let standing = Standing { in_step_ms, collected_ms, keeps_all: true };
        records.meet(source, standing).await.unwrap();
        records.caught_up(source, standing, Some(Vec::new())).await.unwrap();
        records.meet(source, standing).await.unwrap();
    };
    let import = async |file: PathBuf| {
        let request = BundleRequest { file, unsigned: false, receipt: Some(away.dir.path().join("receipt")) };
        let looked = node_bundles.clone().survey(request.clone()).await;
        let (lines, mut told) = mpsc::channel(1000);
        node_bundles.clone().import(request, lines).await;
        let mut last = None;
        while let Some(line) = told.recv().await {
            last = Some(line);
        }
        (looked, last.unwrap())
    };
    let in_step = || away.library.store().records.in_step_ms().unwrap();

    let school = town.collection(10, "School").await;
    stands(1_000_000, 0).await;
    for in_step_ms in [1_000_000, 2_000_000] {
        stands(in_step_ms, 0).await;
        let (file, _) = town.export_by(bridge_bundles.clone(), &[]).await.unwrap();
        let (looked, last) = import(file).await;
        assert!(looked.is_ok() && matches!(last, BundleImportLine::Done(_)), "{looked:?} {last:?}");
        assert_eq!(in_step(), Some(in_step_ms));
    }

    // Deletes were forgotten that this node may not know of, and the bridge does.
    stands(2_600_000, 0).await;
    stands(3_000_000, 2_500_000).await;
    town.collection(20, "Films").await;
    let (file, _) = town.export_by(bridge_bundles, &[]).await.unwrap();
    let (looked, last) = import(file).await;
    let BundleImportLine::Failed { reason } = last else { panic!("{last:?}") };
    for said in [looked.unwrap_err(), reason] {
        assert!(said.contains("longer than its lease"), "{said}");
    }
    assert_eq!(away.library.store().records.reading_anew().unwrap(), None, "it could not be ended");
    assert_eq!((in_step(), away.titles(school).await), (Some(2_000_000), vec!["School".to_owned()]));
}
