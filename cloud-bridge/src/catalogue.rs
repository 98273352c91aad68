//! The library as the `/v1` API sees it: records over PostgreSQL, content over S3.
//!
//! - [`list`]: finding records.
//! - [`opens`]: counting how often something was opened.
//!
//! What a request means is decided in `alexandria_api`; here it becomes edits of records and reads of content. An edit
//! holds the record's row, so a version that was compared is still the version that is replaced.

mod content;
mod list;
mod opens;

use std::sync::Arc;

use alexandria_api::catalogue::{
    BlobInfo, Catalogue, CatalogueError, ChangePage, Edit, Link, ListQuery, Listing, NewRecord, PutBlob, Sort, Stored,
    Upload, Version,
};
use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Blob, Collection, Typed};
use alexandria_sync::hlc::Stamp;
use alexandria_sync::id::{BucketId, RecordId, Seq};
use alexandria_sync::record::{Kind, Record, RecordKey};
use alexandria_sync::store::{Cursor, Page};
use tokio_util::sync::CancellationToken;

pub use self::content::StoredContent;
use self::opens::Opens;
use crate::content::Content;
use crate::postgres::{self, EditError, Held, RecordStoreError, Records, now_unix_ms};

/// How often a wait for changes looks for what another process wrote.
const POLL_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);
/// Bytes of one page of changes, at most.
const CHANGES_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// Default collections that may have been deleted for good before one is kept.
const DEFAULT_COLLECTIONS_MAX: u8 = 32;
/// What the default collection is called until somebody names it.
const DEFAULT_COLLECTION_TITLE: &str = "Library";

/// The library of the fleet.
#[derive(Clone)]
pub struct Library {
    records: Records,
    content: Content,
    opens: Arc<Opens>,
    closing: CancellationToken,
}

impl Library {
    /// A library over both stores. `closing` ends every wait.
    pub fn new(records: Records, content: Content, closing: CancellationToken) -> Self {
        let opens = Arc::new(Opens::default());
        Self { records, content, opens, closing }
    }

    /// Writes down the openings that were counted since the last call.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away; the openings are kept for the next call.
    pub async fn flush_opens(&self) -> Result<(), RecordStoreError> {
        self.opens.flush(&self.records).await
    }

    /// The records of blobs that are not in the bucket yet.
    fn missing_blobs(&self, bucket: BucketId, blobs: &[BlobInfo], held: &Held) -> Vec<Record> {
        let mut missing = Vec::new();
        for info in blobs {
            let id = Blob::record_id(info.hash);
            if !held.contains_key(&(Blob::KIND, id)) {
                let blob =
                    Blob { hash: Some(info.hash), size_bytes: info.size_bytes, media_type: info.media_type.clone() };
                missing.push(blob.to_record(bucket, id, self.stamp_above(Stamp::default())));
            }
        }
        missing.sort_by_key(|record| record.key);
        missing.dedup_by_key(|record| record.key);
        missing
    }

    fn stamp_above(&self, seen: Stamp) -> Stamp {
        self.records.identity().stamp_above(seen)
    }

    async fn change(
        &self,
        key: RecordKey,
        seen: Version,
        blobs: &[BlobInfo],
        change: impl Fn(&Record, Stamp) -> Option<Record> + Send + Sync,
    ) -> Result<Record, CatalogueError> {
        let mut keys = vec![(key.kind, key.id)];
        keys.extend(blob_keys(blobs));
        let decided = self.records.edit(key.bucket, &keys, |held| {
            let Some(record) = held.get(&(key.kind, key.id)).filter(|record| !record.is_tombstone()) else {
                return Err(CatalogueError::Missing);
            };
            if Version::of(record) != seen {
                return Err(CatalogueError::Stale);
            }
            let Some(after) = change(record, self.stamp_above(record.newest_stamp())) else {
                return Ok(postgres::Edit { records: Vec::new(), answer: record.clone() });
            };
            let mut records = self.missing_blobs(key.bucket, blobs, held);
            records.push(after.clone());
            Ok(postgres::Edit { records, answer: after })
        });
        decided.await.map_err(from_edit)
    }
}

impl Catalogue for Library {
    type Content = StoredContent;

    async fn get(&self, kind: Kind, id: RecordId) -> Result<Option<Stored>, CatalogueError> {
        list::get(&self.records, kind, id).await.map_err(CatalogueError::store)
    }

    async fn list(&self, query: ListQuery) -> Result<Listing, CatalogueError> {
        list::list(&self.records, &query).await.map_err(CatalogueError::store)
    }

    async fn create(&self, new: NewRecord) -> Result<Stored, CatalogueError> {
        if let BucketId::Collection(collection) = new.bucket
            && self.get(Collection::KIND, collection).await?.is_none()
        {
            return Err(CatalogueError::UnknownBucket(new.bucket));
        }
        let id = RecordId::mint(now_unix_ms(), rand::random());
        let key = RecordKey { bucket: new.bucket, kind: new.kind, id };
        let keys: Vec<_> = blob_keys(&new.blobs).collect();
        let created = self.records.edit(new.bucket, &keys, |held| {
            let stamp = self.stamp_above(Stamp::default());
            let record = Record::new(key, new.fields.iter().cloned(), stamp).ok_or(CatalogueError::Missing)?;
            let mut records = self.missing_blobs(new.bucket, &new.blobs, held);
            records.push(record.clone());
            Ok(postgres::Edit { records, answer: record })
        });
        Ok(Stored { record: created.await.map_err(from_edit)?, popularity: 0 })
    }

    async fn edit(&self, key: RecordKey, seen: Version, edit: Edit) -> Result<Stored, CatalogueError> {
        let record = self
            .change(key, seen, &edit.blobs, |record, stamp| {
                (!edit.fields.is_empty()).then(|| record.edited(edit.fields.iter().cloned(), stamp)).flatten()
            })
            .await?;
        let popularity = list::popularity(&self.records, key.id).await.map_err(CatalogueError::store)?;
        Ok(Stored { record, popularity })
    }

    async fn delete(&self, key: RecordKey, seen: Version) -> Result<(), CatalogueError> {
        self.change(key, seen, &[], |record, stamp| Some(record.deleted(stamp))).await.map(|_| ())
    }

    async fn set_link(&self, link: Link, linked: bool) -> Result<(), CatalogueError> {
        let (id, fields) = link.to_fields(linked);
        let key = RecordKey { bucket: link.bucket, kind: link.relation.kind(), id };
        let keys = [(key.kind, id)];
        let set = self.records.edit(link.bucket, &keys, |held| {
            let after = match held.get(&(key.kind, id)) {
                None if !linked => None,
                None => Record::new(key, fields.iter().cloned(), self.stamp_above(Stamp::default())),
                Some(record) if list::is_linked(record) == linked => None,
                Some(record) => record.edited(fields.iter().cloned(), self.stamp_above(record.newest_stamp())),
            };
            Ok::<_, CatalogueError>(postgres::Edit { records: after.into_iter().collect(), answer: () })
        });
        set.await.map_err(from_edit)
    }

    async fn default_collection(&self) -> Result<RecordId, CatalogueError> {
        let bridge = self.records.identity().node_id();
        for number in 0..DEFAULT_COLLECTIONS_MAX {
            let id = RecordId::derived(&[b"default collection", bridge.as_bytes(), &[number]]);
            let keys = [(Collection::KIND, id)];
            let made = self.records.edit(BucketId::Catalogue, &keys, |held| {
                if let Some(record) = held.get(&(Collection::KIND, id)) {
                    return Ok(postgres::Edit { records: Vec::new(), answer: !record.is_tombstone() });
                }
                let collection = Collection { title: DEFAULT_COLLECTION_TITLE.into(), ..Collection::default() };
                let record = collection.to_record(BucketId::Catalogue, id, self.stamp_above(Stamp::default()));
                Ok::<_, CatalogueError>(postgres::Edit { records: vec![record], answer: true })
            });
            if made.await.map_err(from_edit)? {
                return Ok(id);
            }
        }
        Err(CatalogueError::Missing)
    }

    async fn note_open(&self, media: RecordId) -> Result<(), CatalogueError> {
        self.opens.note(media);
        Ok(())
    }

    async fn changes(
        &self,
        bucket: BucketId,
        since: Option<Cursor>,
        limit: usize,
    ) -> Result<ChangePage, CatalogueError> {
        let epoch = self.records.identity().epoch();
        let head = self.known_head(bucket).await?;
        let after = match since {
            None => Seq(0),
            Some(cursor) if cursor.epoch == epoch && cursor.seq <= head => cursor.seq,
            Some(_) => return Err(CatalogueError::CursorExpired),
        };
        let page: Page =
            self.records.page(bucket, after, None, (limit, CHANGES_BYTES_MAX)).await.map_err(CatalogueError::store)?;
        Ok(ChangePage { next: Cursor { epoch, seq: page.next }, page })
    }

    async fn wait_for_change(&self, bucket: BucketId, since: Cursor) -> Result<(), CatalogueError> {
        let mut changes = self.records.changes();
        loop {
            changes.mark_unchanged();
            if since.epoch != self.records.identity().epoch() {
                return Err(CatalogueError::CursorExpired);
            }
            if self.known_head(bucket).await? > since.seq {
                return Ok(());
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = self.closing.cancelled() => return Err(CatalogueError::Closing),
            }
        }
    }

    async fn open_blob(&self, hash: BlobHash) -> Result<Option<StoredContent>, CatalogueError> {
        let stored = self.content.stored(hash).await.map_err(CatalogueError::store)?;
        Ok(stored.map(|stored| StoredContent::new(self.content.clone(), stored)))
    }

    async fn list_blobs(
        &self,
        after: Option<BlobHash>,
        sort: Sort,
        limit: usize,
    ) -> Result<Vec<BlobInfo>, CatalogueError> {
        let stored = self.content.list(after, sort == Sort::Descending, limit).await;
        Ok(stored.map_err(CatalogueError::store)?.into_iter().map(content::info_of).collect())
    }

    async fn put_blob(&self, upload: Upload) -> Result<PutBlob, CatalogueError> {
        content::put(&self.content, upload).await
    }

    async fn delete_blob(&self, hash: BlobHash) -> Result<bool, CatalogueError> {
        self.content.remove(hash).await.map_err(CatalogueError::store)?.ok_or(CatalogueError::InUse)
    }
}

impl Library {
    /// Where a bucket's feed ends. A collection that is here has a bucket even before anything is in it.
    async fn known_head(&self, bucket: BucketId) -> Result<Seq, CatalogueError> {
        if let Some(head) = self.records.head(bucket).await.map_err(CatalogueError::store)? {
            return Ok(head);
        }
        match bucket {
            BucketId::Catalogue => Ok(Seq(0)),
            BucketId::Collection(id) if self.get(Collection::KIND, id).await?.is_some() => Ok(Seq(0)),
            BucketId::Collection(_) | BucketId::Site(_) => Err(CatalogueError::UnknownBucket(bucket)),
        }
    }
}

fn blob_keys(blobs: &[BlobInfo]) -> impl Iterator<Item = (Kind, RecordId)> {
    blobs.iter().map(|info| (Blob::KIND, Blob::record_id(info.hash)))
}

fn from_edit(error: EditError<CatalogueError>) -> CatalogueError {
    match error {
        EditError::Refused(error) => error,
        EditError::Store(RecordStoreError::TooLarge(error)) => CatalogueError::TooLarge(error),
        EditError::Store(RecordStoreError::Contention(_)) => CatalogueError::Busy { retry_after_s: 1 },
        EditError::Store(error) => CatalogueError::store(error),
    }
}
