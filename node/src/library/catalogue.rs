//! The library as the `/v1` API sees it.

use std::collections::HashMap;
use std::io;

use alexandria_api::catalogue::{
    BlobInfo, Catalogue, CatalogueError, ChangePage, Edit, Kept, Link, ListQuery, Listing, NewRecord, PutBlob, Sort,
    Stored, Upload, UploadError, Version, Whereabouts,
};
use alexandria_sync::chunk::{BlobHash, Chunking};
use alexandria_sync::domain::{Blob, Collection, OpenCount, Typed};
use alexandria_sync::id::{BucketId, RecordId, Seq};
use alexandria_sync::outlook::Outlook;
use alexandria_sync::record::{Kind, RecordKey};
use alexandria_sync::store::{Cursor, Page};
use futures::{StreamExt, TryStreamExt};
use tokio_util::io::StreamReader;

use super::Library;
use super::content::FileContent;
use super::lists::store_error;
use crate::store::blobs::BlobError;
use crate::store::blobs::incoming::PutBlobError;
use crate::store::{self, Change, ChangeError, Level};

/// How long a client should wait before it tries a write again that met too many others, in seconds.
const RETRY_AFTER_S: u32 = 1;
/// The media type of content that nobody has named one for.
const UNKNOWN_MEDIA_TYPE: &str = "application/octet-stream";

impl Catalogue for Library {
    type Content = FileContent;

    async fn get(&self, kind: Kind, id: RecordId) -> Result<Option<Stored>, CatalogueError> {
        match self.store().records.find(kind, id).map_err(store_error)? {
            Some(found) if !found.record.is_tombstone() => self.with_popularity(found.record).map(Some),
            _ => Ok(None),
        }
    }

    async fn list(&self, query: ListQuery) -> Result<Listing, CatalogueError> {
        let library = self.clone();
        blocking(move || library.list_now(&query)).await
    }

    async fn create(&self, new: NewRecord) -> Result<Stored, CatalogueError> {
        self.check_bucket(new.bucket)?;
        let key = RecordKey { bucket: new.bucket, kind: new.kind, id: self.mint() };
        let mut changes = vec![Change::create_fields(key, new.fields)];
        changes.extend(new.blobs.iter().map(|blob| want(new.bucket, blob)));
        self.commit(changes).await
    }

    async fn edit(&self, key: RecordKey, seen: Version, edit: Edit) -> Result<Stored, CatalogueError> {
        let mut changes = vec![Change::edit_fields(key, to_store_version(seen), edit.fields)];
        changes.extend(edit.blobs.iter().map(|blob| want(key.bucket, blob)));
        self.commit(changes).await
    }

    async fn delete(&self, key: RecordKey, seen: Version) -> Result<(), CatalogueError> {
        let change = Change::delete(key, Some(to_store_version(seen)));
        self.store().records.change_one(change).await.map_err(change_error)?;
        Ok(())
    }

    async fn set_link(&self, link: Link, linked: bool) -> Result<(), CatalogueError> {
        let (id, fields) = link.to_fields(linked);
        let key = RecordKey { bucket: link.bucket, kind: link.relation.kind(), id };
        if !linked && self.store().records.get(key).map_err(store_error)?.is_none() {
            return Ok(());
        }
        self.store().records.change_one(Change::put_fields(key, fields)).await.map_err(change_error)?;
        Ok(())
    }

    async fn default_collection(&self) -> Result<RecordId, CatalogueError> {
        self.own_collection().await.map_err(change_error)
    }

    async fn kept(&self, collection: RecordId) -> Result<Kept, CatalogueError> {
        let keeping = self.store().records.keeping(collection).map_err(store_error)?;
        Ok(match keeping.level {
            Level::Content => Kept::Whole,
            Level::Records => Kept::Records,
            Level::None => Kept::Nothing,
        })
    }

    async fn note_open(&self, media: RecordId) -> Result<(), CatalogueError> {
        let identity = self.store().records.identity();
        let id = OpenCount::record_id(media, identity.node, identity.incarnation);
        let change = Change::update(BucketId::Site(identity.node), id, move |counter: &mut OpenCount| {
            counter.media = media;
            counter.count += 1;
            Ok(())
        });
        self.store().records.change_one(change).await.map_err(change_error)?;
        Ok(())
    }

    async fn changes(
        &self,
        bucket: BucketId,
        since: Option<Cursor>,
        limit: usize,
    ) -> Result<ChangePage, CatalogueError> {
        self.check_bucket(bucket)?;
        let records = &self.store().records;
        let epoch = records.identity().epoch;
        let after = match since {
            None => Seq::default(),
            Some(cursor) if cursor.epoch == epoch && cursor.seq <= self.head(bucket) => cursor.seq,
            Some(_) => return Err(CatalogueError::CursorExpired),
        };
        let head = self.head(bucket);
        let changed = records.changes_since(bucket, after, limit).await.map_err(store_error)?;
        // With fewer rows than asked for, everything up to the head was seen, also where a row has moved on.
        let seen = changed.last().map_or(after, |stored| stored.seq);
        let next = if changed.len() < limit { seen.max(head) } else { seen };
        let more = next < self.head(bucket);
        let page = Page { records: changed.into_iter().map(|stored| stored.record).collect(), next, more };
        Ok(ChangePage { next: Cursor { epoch, seq: page.next }, page })
    }

    async fn wait_for_change(&self, bucket: BucketId, since: Cursor) -> Result<(), CatalogueError> {
        let mut heads = self.store().records.subscribe();
        loop {
            if self.head(bucket) > since.seq {
                return Ok(());
            }
            tokio::select! {
                () = self.closed() => return Err(CatalogueError::Closing),
                heard = heads.recv() => if matches!(heard, Err(tokio::sync::broadcast::error::RecvError::Closed)) {
                    return Err(CatalogueError::Closing);
                },
            }
        }
    }

    async fn open_blob(&self, hash: BlobHash) -> Result<Option<FileContent>, CatalogueError> {
        let Some(opened) = self.store().blobs.open_blob(hash).await.map_err(blob_error)? else { return Ok(None) };
        let info = BlobInfo { hash, size_bytes: opened.size_bytes, media_type: self.media_type(hash)? };
        let (file, reading) = opened.into_parts();
        Ok(Some(FileContent::new(info, file.into_std().await, reading)))
    }

    async fn fetch_blob(&self, hash: BlobHash) -> Result<Option<FileContent>, CatalogueError> {
        match self.open_blob(hash).await? {
            Some(content) => Ok(Some(content)),
            None => self.arriving(hash),
        }
    }

    async fn whereabouts(&self, blobs: &[BlobHash]) -> Result<HashMap<BlobHash, Whereabouts>, CatalogueError> {
        let mut whereabouts = HashMap::new();
        for blob in blobs {
            let here = self.store().blobs.held(*blob).map_err(store_error)?.is_some();
            whereabouts.insert(*blob, Whereabouts { here, nearby: Vec::new() });
        }
        let away: Vec<BlobHash> = blobs.iter().copied().filter(|blob| !whereabouts[blob].here).collect();
        for (blob, nearby) in self.nearby().holders(&away).await {
            whereabouts.insert(blob, Whereabouts { here: false, nearby });
        }
        Ok(whereabouts)
    }

    async fn outlook(&self) -> Result<Option<Outlook>, CatalogueError> {
        let library = self.clone();
        blocking(move || library.prospects().map_err(store_error)).await
    }

    async fn list_blobs(
        &self,
        after: Option<BlobHash>,
        sort: Sort,
        limit: usize,
    ) -> Result<Vec<BlobInfo>, CatalogueError> {
        let direction = match sort {
            Sort::Ascending => store::Direction::Ascending,
            Sort::Descending => store::Direction::Descending,
        };
        let held = self.store().blobs.held_blobs(after, direction, limit).map_err(store_error)?;
        held.into_iter()
            .map(|held| {
                let media_type = self.media_type(held.hash)?;
                Ok(BlobInfo { hash: held.hash, size_bytes: held.size_bytes, media_type })
            })
            .collect()
    }

    async fn put_blob(&self, upload: Upload) -> Result<PutBlob, CatalogueError> {
        let chunking = Chunking::for_media_type(&upload.media_type);
        let expected = upload.expected;
        // The body's own error is carried through the reader and taken out again below.
        let body = upload.body.map_err(io::Error::other);
        let put = self.store().blobs.put_stream(chunking, upload.size_bytes, StreamReader::new(body.boxed()));
        let put = put.await.map_err(put_error)?;
        if let Some(expected) = expected
            && expected != put.hash
        {
            if !put.existed {
                self.store().blobs.discard_unreferenced(put.hash).await.map_err(blob_error)?;
            }
            return Err(CatalogueError::HashMismatch { actual: put.hash });
        }
        if !put.existed || self.may_be_called(put.hash, &upload.media_type)? {
            self.store().blobs.set_media_type(put.hash, &upload.media_type).await.map_err(store_error)?;
        }
        let info = BlobInfo { hash: put.hash, size_bytes: put.size_bytes, media_type: self.media_type(put.hash)? };
        Ok(PutBlob { info, created: !put.existed })
    }

    async fn delete_blob(&self, hash: BlobHash) -> Result<bool, CatalogueError> {
        if self.store().blobs.held(hash).map_err(store_error)?.is_none() {
            return Ok(false);
        }
        if self.store().blobs.discard_unreferenced(hash).await.map_err(blob_error)? {
            Ok(true)
        } else {
            Err(CatalogueError::InUse)
        }
    }
}

impl Library {
    async fn commit(&self, changes: Vec<Change>) -> Result<Stored, CatalogueError> {
        let stored = self.store().records.change(changes).await.map_err(change_error)?;
        let first = stored.into_iter().next().ok_or(CatalogueError::Missing)?;
        self.with_popularity(first.record)
    }

    /// Refuses the bucket of a collection that is not here.
    fn check_bucket(&self, bucket: BucketId) -> Result<(), CatalogueError> {
        let here = match bucket {
            BucketId::Catalogue => true,
            BucketId::Site(node) => node == self.store().records.identity().node,
            BucketId::Collection(id) => {
                let key = RecordKey { bucket: BucketId::Catalogue, kind: Collection::KIND, id };
                let stored = self.store().records.get(key).map_err(store_error)?;
                stored.is_some_and(|stored| !stored.record.is_tombstone()) && self.keeps(id).map_err(store_error)?
            }
        };
        if here { Ok(()) } else { Err(CatalogueError::UnknownBucket(bucket)) }
    }

    fn head(&self, bucket: BucketId) -> Seq {
        let heads = self.store().records.heads_now();
        heads.into_iter().find(|head| head.bucket == bucket).map(|head| head.head).unwrap_or_default()
    }

    /// Whether content that is here already may be called `media_type` from now on: while nobody has named it, or no record
    /// refers to it.
    fn may_be_called(&self, hash: BlobHash, media_type: &str) -> Result<bool, CatalogueError> {
        if media_type == UNKNOWN_MEDIA_TYPE {
            return Ok(false);
        }
        let is_unnamed = self.media_type(hash)? == UNKNOWN_MEDIA_TYPE;
        Ok(is_unnamed || self.store().records.references(hash).map_err(store_error)?.is_empty())
    }

    /// What the records say that content is, or what it was uploaded as.
    pub(super) fn media_type(&self, hash: BlobHash) -> Result<String, CatalogueError> {
        if let Some(media_type) = self.store().blobs.media_type(hash).map_err(store_error)? {
            return Ok(media_type);
        }
        for key in self.store().records.references(hash).map_err(store_error)? {
            if key.kind == Blob::KIND
                && let Some(stored) = self.store().records.get(key).map_err(store_error)?
                && let Some(blob) = Blob::from_record(&stored.record)
                && !blob.media_type.is_empty()
            {
                return Ok(blob.media_type);
            }
        }
        Ok(UNKNOWN_MEDIA_TYPE.to_owned())
    }
}

/// Writes the record that makes a blob wanted in a bucket.
fn want(bucket: BucketId, blob: &BlobInfo) -> Change {
    let record = Blob { hash: Some(blob.hash), size_bytes: blob.size_bytes, media_type: blob.media_type.clone() };
    Change::put(bucket, Blob::record_id(blob.hash), record)
}

fn to_store_version(version: Version) -> store::Version {
    store::Version::from_bytes(*version.as_bytes())
}

fn change_error(error: ChangeError) -> CatalogueError {
    match error {
        ChangeError::NotFound(_) | ChangeError::Deleted(_) => CatalogueError::Missing,
        ChangeError::Conflict { .. } => CatalogueError::Stale,
        ChangeError::TooLarge(error) => CatalogueError::TooLarge(error),
        ChangeError::Store(error) => store_error(error),
        ChangeError::Exists(_) => CatalogueError::Busy { retry_after_s: RETRY_AFTER_S },
        ChangeError::Invalid(_) => CatalogueError::store(error),
    }
}

fn blob_error(error: BlobError) -> CatalogueError {
    match error {
        BlobError::Store(error) => store_error(error),
        BlobError::Closed => CatalogueError::Closing,
        error => CatalogueError::store(error),
    }
}

fn put_error(error: PutBlobError) -> CatalogueError {
    match error {
        PutBlobError::Full(_) => CatalogueError::Full,
        PutBlobError::Blob(error) => blob_error(error),
        PutBlobError::Read(error) => {
            let upload = error.get_ref().and_then(|error| error.downcast_ref::<UploadError>()).cloned();
            CatalogueError::Upload(upload.unwrap_or(UploadError::Interrupted))
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CatalogueError> + Send + 'static,
) -> Result<T, CatalogueError> {
    // Fails only if the work panicked or the runtime is being shut down.
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(CatalogueError::Closing))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use alexandria_api::catalogue::Content;
    use bytes::Bytes;
    use futures::stream;

    use super::*;
    use crate::library::StoreConfig;
    use crate::library::outlook::LinkState;
    use crate::library::selection::SelectionConfig;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn open(dir: &tempfile::TempDir) -> Library {
        let config = StoreConfig { min_free_bytes: 0, ..StoreConfig::default() };
        Library::open(dir.path(), &config, &SelectionConfig::default()).unwrap().0
    }

    fn record(hash: BlobHash, media_type: &str) -> Change {
        let blob = Blob { hash: Some(hash), size_bytes: 9, media_type: media_type.into() };
        Change::put(BucketId::Catalogue, Blob::record_id(hash), blob)
    }

    /// What a `HEAD` or a page that is opened does must order nothing over a link that somebody pays for.
    #[tokio::test]
    async fn looking_whether_content_is_here_orders_none_of_it_and_reading_does() {
        let dir = tempfile::tempdir().unwrap();
        let library = open(&dir);
        let hash = BlobHash::of(b"elsewhere");
        library.store().records.change_one(record(hash, "video/mp4")).await.unwrap();
        library.tell_link(Some(LinkState { connected: true, ..LinkState::default() }));
        let mut wants = library.store().blobs.urgent_changes();
        wants.mark_unchanged();
        assert!(library.open_blob(hash).await.unwrap().is_none());
        let content = library.fetch_blob(hash).await.unwrap().expect("a record names it");
        assert!(!wants.has_changed().unwrap());
        tokio::select! {
            read = content.ready(0..9) => panic!("nothing can come: {read:?}"),
            wanted = tokio::time::timeout(DEADLINE, wants.changed()) => wanted.expect("it is asked for").unwrap(),
        }
        library.close();
    }

    async fn media_type_after(library: &Library, media_type: &str) -> String {
        let body = stream::iter([Ok(Bytes::from_static(b"the bytes"))]).boxed();
        let upload = Upload { media_type: media_type.into(), expected: None, size_bytes: None, body };
        library.put_blob(upload).await.unwrap().info.media_type
    }

    #[tokio::test]
    async fn content_may_be_named_better_until_a_record_refers_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let library = open(&dir);
        for (stated, kept) in [
            (UNKNOWN_MEDIA_TYPE, UNKNOWN_MEDIA_TYPE),
            ("text/plain", "text/plain"),
            ("text/vtt", "text/vtt"),
            (UNKNOWN_MEDIA_TYPE, "text/vtt"),
        ] {
            assert_eq!(media_type_after(&library, stated).await, kept, "{stated}");
        }
        library.store().records.change_one(record(BlobHash::of(b"the bytes"), "text/vtt")).await.unwrap();
        assert_eq!(media_type_after(&library, "text/html").await, "text/vtt");
        library.close();
    }
}
