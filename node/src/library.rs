//! The library: records, content and search as one, and the rules that are the library's own.
//!
//! - [`catalogue`]: the library as the `/v1` API and the pages see it.
//! - [`acquire`]: how a file becomes a medium with its authors, its cover and its content.
//! - [`nearby`]: the nodes on the local network: what they hold, and which of all fetches the rest.
//! - [`outlook`]: what is still to come, and why it waits.
//! - [`erase`]: the right to be forgotten.
//! - [`builtin`]: the small library that an empty node offers.
//! - [`selection`]: which collections of a fleet are kept here.
//!
//! What always holds: what a record names is wanted content of its bucket, written in the same commit.
//!
//! Not here: HTTP, the jobs that run in the background, and which peers are spoken to.

pub mod acquire;
pub mod builtin;
pub mod catalogue;
pub mod erase;
pub mod nearby;
pub mod outlook;
pub mod selection;

mod content;
mod lists;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alexandria_sync::domain::{Collection, Typed};
use alexandria_sync::id::{BucketId, RecordId};
use alexandria_sync::quarantine::QuarantineLimits;
use alexandria_sync::record::RecordKey;
use rand::Rng;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use self::selection::SelectionConfig;
use crate::search::{Indexed, Search, SearchError};
use crate::store::{Change, ChangeError, Condition, OpenError, Store, StoreError};

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
    /// Readers that may wait for content on its way here.
    pub readers_waiting_max: usize,
    /// How long one waits for the next bytes, in seconds.
    pub reader_wait_s: u64,
    /// Received records that are kept set aside, at most; a session that would bring more is ended.
    pub quarantine_records_max: u64,
    /// Bytes of them, at most.
    pub quarantine_bytes_max: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        let store = crate::store::Config::new("");
        Self {
            cache_bytes: store.cache_bytes,
            content_bytes_max: store.content_bytes_max,
            min_free_bytes: store.min_free_bytes,
            readers_waiting_max: 64,
            reader_wait_s: 60,
            quarantine_records_max: store.quarantine.records_max,
            quarantine_bytes_max: store.quarantine.bytes_max,
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
    /// One for each reader that may wait for content.
    readers: Arc<Semaphore>,
    reader_wait: Duration,
    nearby: nearby::Nearby,
    /// What replication tells of the link.
    prospects: outlook::Prospects,
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
            quarantine: QuarantineLimits {
                records_max: config.quarantine_records_max,
                bytes_max: config.quarantine_bytes_max,
            },
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
            readers: Arc::new(Semaphore::new(config.readers_waiting_max)),
            reader_wait: Duration::from_secs(config.reader_wait_s),
            nearby: nearby::Nearby::default(),
            prospects: outlook::Prospects::default(),
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

    /// Rows of the store that the search index does not know yet.
    pub fn search_behind_rows(&self) -> u64 {
        let committed = self.inner.search.committed();
        let indexed = committed.borrow();
        let heads = self.inner.store.records.heads_now();
        let behind = heads.iter().map(|head| head.head.0.saturating_sub(indexed.row(head.bucket).0));
        behind.fold(0, u64::saturating_add)
    }

    /// The nodes on the local network.
    pub fn nearby(&self) -> &nearby::Nearby {
        &self.inner.nearby
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
        if let Some(id) = self.collection_with(|_, collection| collection.title == title)? {
            return Ok(id);
        }
        let id = self.mint();
        let collection = Collection { title: title.to_owned(), ..Collection::default() };
        let create = Change::create(BucketId::Catalogue, id, collection);
        self.inner.store.records.change_one(create).await?;
        Ok(id)
    }

    /// The collection with this title or this id, if there is one.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub fn find_collection(&self, name: &str) -> Result<Option<RecordId>, StoreError> {
        let asked = name.parse::<RecordId>().ok();
        self.collection_with(|id, collection| collection.title == name || Some(id) == asked)
    }

    /// The first collection that readers see and that is `chosen`.
    fn collection_with(&self, chosen: impl Fn(RecordId, &Collection) -> bool) -> Result<Option<RecordId>, StoreError> {
        let mut listing = crate::store::Listing::of(Collection::KIND, crate::store::records::ROWS_MAX);
        loop {
            let page = self.inner.store.records.list(&listing)?;
            let found = page.entries.iter().find_map(|entry| {
                let record = &entry.stored.record;
                let collection = Collection::from_record(record).filter(|collection| !collection.disabled)?;
                chosen(record.key.id, &collection).then_some(record.key.id)
            });
            match (found, page.next) {
                (None, Some(next)) => listing.after = Some(next),
                (found, _) => return Ok(found),
            }
        }
    }
}

const OWN_COLLECTION_TITLE: &str = "Library";
