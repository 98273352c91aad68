//! Bundles and the choice of collections: a node writes and takes only what it keeps.

use std::path::PathBuf;

use alexandria_node::config::Config;
use alexandria_node::jobs::bundle::Bundles;
use alexandria_node::library::Library;
use alexandria_node::local::bundles::{
    BundleExportLine, BundleExportRequest, BundleExported, BundleImportLine, BundleImported, BundleRequest,
    BundleSurvey,
};
use alexandria_node::store::{Change, Level};
use alexandria_sync::chunk::Chunking;
use alexandria_sync::domain::{Blob, Collection, Media, Typed};
use alexandria_sync::id::{BucketId, RecordId, Seq};
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

    async fn export(&self, collections: &[&str]) -> Result<(PathBuf, BundleExported), String> {
        let file = self.dir.path().join("library.bundle");
        let collections = collections.iter().map(|&name| name.to_owned()).collect();
        let request = BundleExportRequest { file: file.clone(), collections, ..BundleExportRequest::default() };
        let (lines, mut told) = mpsc::channel(1000);
        self.bundles().export(request, lines).await;
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
