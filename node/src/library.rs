//! The library: records, content and search as one, and the rules that are the library's own.
//!
//! - [`catalogue`]: the library as the `/v1` API and the pages see it.
//! - [`acquire`]: how a file becomes a medium with its authors, its cover and its content.
//! - [`builtin`]: the small library that an empty node offers.
//! - [`selection`]: which collections of a fleet are kept here.
//!
//! What always holds: what a record names is wanted content of its bucket, written in the same commit.
//!
//! Not here: HTTP, the jobs that run in the background, and which peers are spoken to.

pub mod acquire;
pub mod builtin;
pub mod catalogue;
pub mod selection;

mod content;
mod lists;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use alexandria_sync::domain::{Collection, Typed};
use alexandria_sync::id::{BucketId, RecordId};
use alexandria_sync::record::RecordKey;
use rand::Rng;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::selection::SelectionConfig;
use crate::search::{Indexed, Search, SearchError};
use crate::store::{Change, ChangeError, Condition, OpenError, Store};

/// Records and content.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Memory for pages of the record store, in bytes.
    pub cache_bytes: u64,
    /// What content may take up at most, in bytes; what the disk has if not given.
    pub content_bytes_max: Option<u64>,
    /// Room that content leaves free on the disk, in bytes.
    pub min_free_bytes: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        let store = crate::store::Config::new("");
        Self {
            cache_bytes: store.cache_bytes,
            content_bytes_max: store.content_bytes_max,
            min_free_bytes: store.min_free_bytes,
        }
    }
}

/// Why a library could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenLibraryError {
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Not even a new search index could be made.
    #[error("open the search index")]
    Search(#[from] SearchError),
}

/// A node's library. Clones are handles on the same one.
#[derive(Clone)]
pub struct Library {
    inner: Arc<Inner>,
}

struct Inner {
    data_dir: PathBuf,
    store: Store,
    search: Arc<Search>,
    /// Files on their way into a collection, so that the same one is not taken twice at once.
    acquiring: acquire::InProgress,
    /// Set once, when the node shuts down: waits end.
    closing: watch::Sender<bool>,
}

impl Library {
    /// Opens the library of a data folder, or makes a new one. Blocks.
    ///
    /// Tells how far the search index goes, for `search::follow`.
    ///
    /// # Errors
    ///
    /// [`OpenLibraryError`].
    pub fn open(
        data_dir: &Path,
        config: &StoreConfig,
        selection: &SelectionConfig,
    ) -> Result<(Self, Indexed), OpenLibraryError> {
        let store = Store::open(&crate::store::Config {
            data_dir: data_dir.to_owned(),
            cache_bytes: config.cache_bytes,
            content_bytes_max: config.content_bytes_max,
            min_free_bytes: config.min_free_bytes,
            default_level: selection.default,
            evict_rest_s: selection.evict_rest_s,
        })?;
        if let Condition::Rebuilt { records_kept, detail, set_aside, .. } = &store.condition {
            let set_aside = set_aside.display();
            tracing::error!(records_kept, %detail, %set_aside, "the record store was damaged and has been rebuilt");
        }
        let (search, indexed) = Search::open(&data_dir.join("search"), store.records.identity().epoch)?;
        let inner = Inner {
            data_dir: data_dir.to_owned(),
            store,
            search: Arc::new(search),
            acquiring: acquire::InProgress::default(),
            closing: watch::Sender::new(false),
        };
        Ok((Self { inner: Arc::new(inner) }, indexed))
    }

    /// Its records and content.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Its search index.
    pub fn search(&self) -> &Arc<Search> {
        &self.inner.search
    }

    /// The folder that it lies in.
    pub fn data_dir(&self) -> &Path {
        &self.inner.data_dir
    }

    /// Ends every wait for changes.
    pub fn close(&self) {
        self.inner.closing.send_replace(true);
    }

    /// Resolves once [`Self::close`] was called.
    pub async fn closed(&self) {
        let mut closing = self.inner.closing.subscribe();
        // Fails only if the library is gone, which is closed enough.
        let _ = closing.wait_for(|closing| *closing).await;
    }

    /// Mints an id.
    fn mint(&self) -> RecordId {
        RecordId::mint(self.inner.store.records.now_unix_ms(), rand::rng().random())
    }

    /// The collection that this node adds to when nobody names one. Made on first use; its id follows from the node's, so
    /// that two first uses at once make one.
    ///
    /// # Errors
    ///
    /// [`ChangeError`] if it cannot be made.
    pub async fn own_collection(&self) -> Result<RecordId, ChangeError> {
        let id = RecordId::derived(&[b"own collection", self.inner.store.records.identity().node.as_bytes()]);
        let key = RecordKey { bucket: BucketId::Catalogue, kind: Collection::KIND, id };
        if let Some(stored) = self.inner.store.records.get(key)?
            && !stored.record.is_tombstone()
        {
            return Ok(id);
        }
        let collection = Collection { title: OWN_COLLECTION_TITLE.into(), ..Collection::default() };
        match self.inner.store.records.change_one(Change::create(BucketId::Catalogue, id, collection)).await {
            Ok(_) | Err(ChangeError::Exists(_)) => Ok(id),
            // Somebody deleted it for good: its id is spent, the next one takes over.
            Err(ChangeError::Deleted(_)) => self.collection_titled(OWN_COLLECTION_TITLE).await,
            Err(error) => Err(error),
        }
    }

    /// The collection with this title, made if there is none.
    ///
    /// # Errors
    ///
    /// [`ChangeError`] if it cannot be made.
    pub async fn collection_titled(&self, title: &str) -> Result<RecordId, ChangeError> {
        let records = &self.inner.store.records;
        let mut listing = crate::store::Listing::of(Collection::KIND, crate::store::records::ROWS_MAX);
        loop {
            let page = records.list(&listing)?;
            let titled = page.entries.iter().find(|entry| {
                Collection::from_record(&entry.stored.record)
                    .is_some_and(|collection| !collection.disabled && collection.title == title)
            });
            if let Some(entry) = titled {
                return Ok(entry.stored.record.key.id);
            }
            match page.next {
                Some(next) => listing.after = Some(next),
                None => break,
            }
        }
        let id = self.mint();
        let collection = Collection { title: title.to_owned(), ..Collection::default() };
        records.change_one(Change::create(BucketId::Catalogue, id, collection)).await?;
        Ok(id)
    }
}

const OWN_COLLECTION_TITLE: &str = "Library";
