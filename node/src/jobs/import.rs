//! Takes files and folders into the library: walks, inspects, makes covers, and hands each file to `library::acquire`.
//!
//! One broken file is named with its reason and the rest goes on. Memory stays flat: files stream, and only a few are
//! looked at side by side.

use std::path::PathBuf;
use std::sync::Arc;

use alexandria_ml::Analyser;
use alexandria_sync::id::RecordId;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::ingest::{self, Inspection};
use crate::library::Library;
use crate::library::acquire::{AcquireError, Acquired, Held, Picture};
use crate::local::ImportLine;
use crate::local::messages::ImportSummary;
use crate::store::ChangeError;

/// How files are taken in.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImportConfig {
    /// Files looked at side by side.
    pub files_at_once: usize,
    /// The longer edge of covers, in pixels.
    pub cover_edge_px: u32,
    /// A picture file larger than this gets no cover of its own, in bytes.
    pub picture_bytes_max: u64,
}

impl Default for ImportConfig {
    fn default() -> Self {
        Self { files_at_once: 4, cover_edge_px: 640, picture_bytes_max: 64 * 1024 * 1024 }
    }
}

/// Takes files in.
#[derive(Clone)]
pub struct Importer {
    library: Library,
    analyser: Arc<Analyser>,
    config: ImportConfig,
}

/// Lines that may wait for whoever watches the import; when it is full, the import waits.
pub const LINES_WAITING_MAX: usize = 64;

/// What became of one file.
enum Outcome {
    Line(ImportLine),
    /// The library takes nothing more: the import ends.
    Stop(String),
}

impl Importer {
    /// An importer into `library`, whose covers `analyser` makes.
    pub fn new(library: Library, analyser: Arc<Analyser>, config: ImportConfig) -> Self {
        Self { library, analyser, config }
    }

    /// Takes in `paths` and everything below them. The last line sent is `Done` or `Failed`. Stops when nobody listens
    /// any more; what is in by then stays.
    pub async fn run(&self, paths: Vec<PathBuf>, collection: Option<String>, lines: mpsc::Sender<ImportLine>) {
        let last = match self.import(paths, collection, &lines).await {
            Ok(summary) => ImportLine::Done(summary),
            Err(reason) => ImportLine::Failed { reason },
        };
        let _ = lines.send(last).await;
    }

    async fn import(
        &self,
        paths: Vec<PathBuf>,
        collection: Option<String>,
        lines: &mpsc::Sender<ImportLine>,
    ) -> Result<ImportSummary, String> {
        const NOBODY_LISTENS: &str = "nobody waits for it any more";
        let collection = self.collection(collection).await.map_err(|error| error.to_string())?;
        if !self.library.keeps(collection).map_err(|error| error.to_string())? {
            return Err("the collection is not kept on this node; `alexandria collections add` takes it up".into());
        }
        let walked = tokio::task::spawn_blocking(move || ingest::walk(&paths, &ingest::Limits::default()));
        let found = walked.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let mut summary = ImportSummary::default();
        let bytes = found.files.iter().map(|path| file_bytes(path)).sum();
        let line = ImportLine::Found { files: found.files.len() as u64, bytes };
        lines.send(line).await.map_err(|_| NOBODY_LISTENS)?;
        for skipped in found.skipped {
            summary.refused += 1;
            let line = ImportLine::Refused { path: skipped.path.clone(), reason: skipped.reason.to_string() };
            lines.send(line).await.map_err(|_| NOBODY_LISTENS)?;
        }
        let mut files = found.files.into_iter();
        let mut running = JoinSet::new();
        loop {
            while running.len() < self.config.files_at_once.max(1)
                && let Some(path) = files.next()
            {
                let importer = self.clone();
                running.spawn(async move { importer.import_file(path, collection).await });
            }
            let Some(outcome) = running.join_next().await else { return Ok(summary) };
            match outcome.map_err(|error| error.to_string())? {
                Outcome::Line(line) => {
                    count(&mut summary, &line);
                    lines.send(line).await.map_err(|_| NOBODY_LISTENS)?;
                }
                Outcome::Stop(reason) => return Err(reason),
            }
        }
    }

    async fn collection(&self, title: Option<String>) -> Result<RecordId, ChangeError> {
        match title {
            Some(title) => self.library.collection_titled(&title).await,
            None => self.library.own_collection().await,
        }
    }

    async fn import_file(&self, path: PathBuf, collection: RecordId) -> Outcome {
        let bytes = file_bytes(&path);
        match self.library.holds_file(&path, collection).await {
            Ok(None) => {}
            Ok(Some(held)) => return Outcome::Line(present(path, bytes, held)),
            Err(error) => return refuse(path, error),
        }
        let inspected = {
            let importer = self.clone();
            let path = path.clone();
            tokio::task::spawn_blocking(move || {
                let mut inspection = ingest::inspect(&path, &ingest::Limits::default())?;
                let cover = importer.cover(&path, &mut inspection);
                Ok::<_, ingest::InspectError>((inspection, cover))
            })
        };
        let (inspection, cover) = match inspected.await {
            Ok(Ok(inspected)) => inspected,
            Ok(Err(error)) => {
                return Outcome::Line(ImportLine::Refused { path, reason: error.reason.to_string() });
            }
            Err(error) => return Outcome::Line(ImportLine::Refused { path, reason: error.to_string() }),
        };
        match self.library.acquire(&path, inspection, cover, collection).await {
            Ok(Acquired::New { media, title }) => Outcome::Line(ImportLine::Imported { path, bytes, media, title }),
            Ok(Acquired::Present(held)) => Outcome::Line(present(path, bytes, held)),
            Err(error) => refuse(path, error),
        }
    }

    /// A cover of a size that suits a phone: from the file's own, or from the picture that the file is. Without one the
    /// file is taken all the same.
    fn cover(&self, path: &std::path::Path, inspection: &mut Inspection) -> Option<Picture> {
        let bytes = match inspection.cover.take() {
            Some(cover) => cover.bytes,
            None if inspection.media_kind == ingest::MediaKind::Image
                && inspection.size_bytes <= self.config.picture_bytes_max =>
            {
                std::fs::read(path).ok()?
            }
            None => return None,
        };
        match self.analyser.thumbnail(&bytes, self.config.cover_edge_px) {
            Ok(jpeg) => Some(Picture { bytes: jpeg.bytes, media_type: "image/jpeg" }),
            Err(error) => {
                tracing::info!(path = %path.display(), %error, "no cover could be made");
                None
            }
        }
    }
}

fn refuse(path: PathBuf, error: AcquireError) -> Outcome {
    match error {
        AcquireError::Read { .. } => Outcome::Line(ImportLine::Refused { path, reason: error.to_string() }),
        AcquireError::Record(ChangeError::Invalid(error)) => {
            Outcome::Line(ImportLine::Refused { path, reason: error.to_string() })
        }
        // The store is full, broken or closed: no other file will fare better.
        AcquireError::Content(_) | AcquireError::Record(_) => {
            Outcome::Stop(format!("{}: {:#}", path.display(), anyhow::Error::from(error)))
        }
    }
}

fn present(path: PathBuf, bytes: u64, held: Held) -> ImportLine {
    ImportLine::Present { path, bytes, hidden: held == Held::Hidden }
}

fn count(summary: &mut ImportSummary, line: &ImportLine) {
    match line {
        ImportLine::Imported { bytes, .. } => {
            summary.imported += 1;
            summary.bytes += bytes;
        }
        ImportLine::Present { hidden, .. } => {
            summary.present += 1;
            summary.hidden += u64::from(*hidden);
        }
        ImportLine::Refused { .. } => summary.refused += 1,
        ImportLine::Found { .. } | ImportLine::Done(_) | ImportLine::Failed { .. } => {}
    }
}

fn file_bytes(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use alexandria_sync::domain::{Author, Media, Typed};
    use alexandria_sync::id::{BucketId, Seq};
    use alexandria_sync::record::{Kind, RecordKey};
    use alexandria_sync::store::RecordStore;

    use super::*;
    use crate::library::StoreConfig;
    use crate::library::selection::SelectionConfig;
    use crate::store::Change;

    struct World {
        importer: Importer,
        dir: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let data = dir.path().join("data");
            let config = StoreConfig { min_free_bytes: 0, ..StoreConfig::default() };
            let (library, _) = Library::open(&data, &config, &SelectionConfig::default()).unwrap();
            let analyser = Arc::new(Analyser::new(alexandria_ml::Config::default()).unwrap());
            Self { importer: Importer::new(library, analyser, ImportConfig::default()), dir }
        }

        /// Imports a page of one author.
        async fn import(&self, title: &str) -> ImportSummary {
            let page = self.dir.path().join(format!("{title}.html"));
            let html = format!(
                "<html><head><title>{title}</title><meta name=author content='Jane Roe'></head><body><p>{title}</p></body></html>"
            );
            std::fs::write(&page, html).unwrap();
            let (lines, mut told) = mpsc::channel(LINES_WAITING_MAX);
            let watch = async {
                let mut done = None;
                while let Some(line) = told.recv().await {
                    if let ImportLine::Done(summary) = line {
                        done = Some(summary);
                    }
                }
                done.expect("it is done")
            };
            tokio::join!(self.importer.run(vec![page], Some("Shelf".into()), lines), watch).1
        }

        async fn live(&self, kind: Kind) -> Vec<RecordKey> {
            let records = &self.importer.library.store().records;
            let mut live = Vec::new();
            for head in records.heads().await.unwrap() {
                for row in records.changes_since(head.bucket, Seq(0), 100).await.unwrap() {
                    if row.record.key.kind == kind && !row.record.is_tombstone() {
                        live.push(row.record.key);
                    }
                }
            }
            live
        }
    }

    #[tokio::test]
    async fn an_author_who_was_deleted_for_good_comes_again_once_however_many_files_follow() {
        let world = World::new();
        world.import("one").await;
        let author = world.live(Author::KIND).await[0];
        assert_eq!(author.bucket, BucketId::Catalogue);
        world.importer.library.store().records.change_one(Change::delete(author, None)).await.unwrap();
        for title in ["two", "three", "four"] {
            assert_eq!(world.import(title).await.imported, 1);
        }
        assert_eq!(world.live(Author::KIND).await.len(), 1);
    }

    #[tokio::test]
    async fn a_file_whose_medium_was_hidden_is_there_and_said_to_be_hidden() {
        let world = World::new();
        let first = world.import("one").await;
        assert_eq!((first.imported, first.present, first.hidden), (1, 0, 0));
        let again = world.import("one").await;
        assert_eq!((again.imported, again.present, again.hidden), (0, 1, 0));
        let media = world.live(Media::KIND).await[0];
        let hide = Change::update(media.bucket, media.id, |media: &mut Media| {
            media.disabled = true;
            Ok(())
        });
        world.importer.library.store().records.change_one(hide).await.unwrap();
        let hidden = world.import("one").await;
        assert_eq!((hidden.imported, hidden.present, hidden.hidden), (0, 1, 1));
    }
}
