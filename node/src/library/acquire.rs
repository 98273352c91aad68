//! How a file becomes a medium: its content, its cover, its authors, in one commit.
//!
//! A file that a collection already holds, by its hash, is left alone, so that taking in a folder again adds nothing.
//! Authors are known by their names: two nodes that take in works of one author write the same record.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use alexandria_sync::chunk::{BlobHash, Chunking};
use alexandria_sync::domain::{
    Author, Blob, Chapter, FileRole, LIST_ENTRIES_MAX, Media, MediaAuthor, MediaFile, MediaKind, NAME_CHARS_MAX, Typed,
};
use alexandria_sync::id::{BucketId, RecordId};
use alexandria_sync::record::RecordKey;

use super::Library;
use crate::ingest::{self, ChapterStart, Inspection};
use crate::store::blobs::incoming::PutBlobError;
use crate::store::{Change, ChangeError, StoreError};

/// How often an author may have been deleted for good and met again under an id that all nodes derive.
const AUTHOR_LIVES_MAX: u8 = 100;
/// Authors of one file that are taken over.
const AUTHORS_MAX: usize = 50;
/// Bytes hashed at a time.
const HASH_BUFFER_BYTES: usize = 1024 * 1024;

/// A picture that stands for a medium.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The encoded picture.
    pub bytes: Vec<u8>,
    /// Its media type.
    pub media_type: &'static str,
}

/// What became of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Acquired {
    /// It is a new medium.
    New {
        /// Which.
        media: RecordId,
        /// Its title.
        title: String,
    },
    /// The collection holds it already.
    Present(Held),
}

/// How a collection holds a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Held {
    /// Readers see a medium with it.
    Shown,
    /// Its media were deleted, and can be restored.
    Hidden,
}

/// Why a file did not become a medium. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// The file cannot be read.
    #[error("cannot be read: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its content could not be kept.
    #[error(transparent)]
    Content(#[from] PutBlobError),
    /// Its record could not be written.
    #[error(transparent)]
    Record(#[from] ChangeError),
}

impl From<StoreError> for AcquireError {
    fn from(error: StoreError) -> Self {
        Self::Record(error.into())
    }
}

/// What is being taken in just now: collection and content.
#[derive(Debug, Default)]
pub(super) struct InProgress(Arc<Mutex<HashSet<(RecordId, BlobHash)>>>);

/// Holds one entry of [`InProgress`] until it is dropped.
struct Claim {
    all: Arc<Mutex<HashSet<(RecordId, BlobHash)>>>,
    claimed: (RecordId, BlobHash),
}

impl InProgress {
    fn claim(&self, collection: RecordId, hash: BlobHash) -> Option<Claim> {
        let claimed = (collection, hash);
        let new = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(claimed);
        new.then(|| Claim { all: Arc::clone(&self.0), claimed })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.claimed);
    }
}

impl Library {
    /// How the collection holds this file, if it does.
    ///
    /// # Errors
    ///
    /// [`AcquireError::Read`], or the store's own.
    pub async fn holds_file(&self, path: &Path, collection: RecordId) -> Result<Option<Held>, AcquireError> {
        let hash = hash_file(path).await?;
        Ok(self.holds(hash, collection)?)
    }

    /// Takes a file that was inspected into a collection, durably.
    ///
    /// # Errors
    ///
    /// [`AcquireError`].
    pub async fn acquire(
        &self,
        path: &Path,
        inspection: Inspection,
        cover: Option<Picture>,
        collection: RecordId,
    ) -> Result<Acquired, AcquireError> {
        let hash = hash_file(path).await?;
        let Some(_claim) = self.inner.acquiring.claim(collection, hash) else {
            return Ok(Acquired::Present(Held::Shown));
        };
        if let Some(held) = self.holds(hash, collection)? {
            return Ok(Acquired::Present(held));
        }
        let read = |source| AcquireError::Read { path: path.to_owned(), source };
        let file = tokio::fs::File::open(path).await.map_err(read)?;
        let blobs = &self.store().blobs;
        let chunking = Chunking::for_media_type(inspection.mime);
        let content = blobs.put_stream(chunking, Some(inspection.size_bytes), file).await?;
        let bucket = BucketId::Collection(collection);
        let mut changes = vec![wanted(bucket, content.hash, content.size_bytes, inspection.mime)];
        let cover = match cover {
            Some(cover) => {
                let put = blobs.put_stream(Chunking::Fixed, Some(cover.bytes.len() as u64), &cover.bytes[..]).await?;
                changes.push(wanted(bucket, put.hash, put.size_bytes, cover.media_type));
                Some(put.hash)
            }
            None => None,
        };
        let id = self.mint();
        for name in author_names(&inspection) {
            let author = self.author_named(&name, &mut changes)?;
            let (link, value) = MediaAuthor::between(id, author);
            changes.push(Change::create(bucket, link, value));
        }
        let main = MediaFile {
            blob: content.hash,
            media_type: inspection.mime.to_owned(),
            name: file_name(path),
            size_bytes: content.size_bytes,
            role: FileRole::Main,
        };
        let media = describe(inspection, main, cover);
        let title = media.title.clone();
        changes.push(Change::create(bucket, id, media));
        self.store().records.change(changes).await?;
        Ok(Acquired::New { media: id, title })
    }

    fn holds(&self, hash: BlobHash, collection: RecordId) -> Result<Option<Held>, StoreError> {
        let bucket = BucketId::Collection(collection);
        let records = &self.store().records;
        let mut held = None;
        for key in records.references(hash)?.into_iter().filter(|key| key.kind == Media::KIND && key.bucket == bucket) {
            let media = records.get(key)?.and_then(|stored| Media::from_record(&stored.record));
            if media.is_none_or(|media| !media.disabled) {
                return Ok(Some(Held::Shown));
            }
            held = Some(Held::Hidden);
        }
        Ok(held)
    }

    /// The author of this name; the change that makes one is added if there is none.
    fn author_named(&self, name: &str, changes: &mut Vec<Change>) -> Result<RecordId, StoreError> {
        let known_by = name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        let mut id = RecordId::derived(&[b"author", known_by.as_bytes()]);
        let mut life = 0;
        loop {
            let key = RecordKey { bucket: BucketId::Catalogue, kind: Author::KIND, id };
            match self.store().records.get(key)? {
                Some(stored) if !stored.record.is_tombstone() => return Ok(id),
                None => break,
                Some(_) if life == AUTHOR_LIVES_MAX => {
                    id = self.mint();
                    break;
                }
                // Deleted for good: the id is spent, and whoever meets the name again takes the same next one.
                Some(_) => {
                    life += 1;
                    id = RecordId::derived(&[b"author", known_by.as_bytes(), &[life]]);
                }
            }
        }
        let name = name.to_owned();
        changes.push(Change::update(BucketId::Catalogue, id, move |author: &mut Author| {
            if author.name.is_empty() {
                author.name = name;
            }
            Ok(())
        }));
        Ok(id)
    }
}

fn wanted(bucket: BucketId, hash: BlobHash, size_bytes: u64, media_type: &str) -> Change {
    let blob = Blob { hash: Some(hash), size_bytes, media_type: media_type.to_owned() };
    Change::put(bucket, Blob::record_id(hash), blob)
}

fn author_names(inspection: &Inspection) -> Vec<String> {
    let mut seen = HashSet::new();
    let names = inspection.authors.iter().filter(|name| !name.trim().is_empty() && seen.insert(name.to_lowercase()));
    names.take(AUTHORS_MAX).map(|name| shortened(name, NAME_CHARS_MAX)).collect()
}

fn describe(inspection: Inspection, main: MediaFile, cover: Option<BlobHash>) -> Media {
    let chapters = inspection.chapters.into_iter().take(LIST_ENTRIES_MAX).map(|chapter| {
        let title = shortened(&chapter.title, NAME_CHARS_MAX);
        match chapter.start {
            ChapterStart::Ms(start_ms) => Chapter { title, start_ms: Some(start_ms), ..Chapter::default() },
            ChapterStart::Page(page) => Chapter { title, page: Some(page), ..Chapter::default() },
            ChapterStart::Href(href) => Chapter { title, href: Some(href), ..Chapter::default() },
        }
    });
    Media {
        title: shortened(&inspection.title, NAME_CHARS_MAX),
        media_kind: match inspection.media_kind {
            ingest::MediaKind::Book => MediaKind::Book,
            ingest::MediaKind::Doc => MediaKind::Doc,
            ingest::MediaKind::Podcast => MediaKind::Podcast,
            ingest::MediaKind::Video => MediaKind::Video,
            ingest::MediaKind::Image => MediaKind::Image,
        },
        description: shortened(
            &inspection.description.unwrap_or_default(),
            alexandria_sync::domain::DESCRIPTION_CHARS_MAX,
        ),
        languages: inspection.languages,
        publisher: inspection.publisher.map(|publisher| shortened(&publisher, NAME_CHARS_MAX)),
        published: inspection.published,
        duration_ms: inspection.duration_ms,
        pages: inspection.pages,
        chapters: chapters.collect(),
        files: vec![main],
        cover,
        disabled: false,
    }
}

fn shortened(text: &str, chars_max: usize) -> String {
    text.chars().filter(|&character| character != '\0').take(chars_max).collect()
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if name.is_empty() { "file".to_owned() } else { shortened(&name, NAME_CHARS_MAX) }
}

async fn hash_file(path: &Path) -> Result<BlobHash, AcquireError> {
    let read = |source| AcquireError::Read { path: path.to_owned(), source };
    let owned = path.to_owned();
    let hashed = tokio::task::spawn_blocking(move || {
        let mut file = File::open(owned)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; HASH_BUFFER_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(BlobHash::from(hasher.finalize())),
                read => hasher.update(&buffer[..read]),
            };
        }
    });
    hashed.await.map_err(|error| read(io::Error::other(error)))?.map_err(read)
}
