//! A catalogue in memory, for tests and for the example server: the whole contract of the port, and nothing durable.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use alexandria_api::catalogue::{
    BlobInfo, Catalogue, CatalogueError, ChangePage, Content, Edit, Link, LinkedTo, ListQuery, Listing, NewRecord,
    PutBlob, Relation, Sort, Stored, Upload, Version, Whereabouts,
};
use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{
    Author, AuthorCategory, Blob, Category, Collection, Media, MediaAuthor, MediaCategory, Typed,
};
use alexandria_sync::hlc::{Clock, ClockQuality, HlcTime, Stamp};
use alexandria_sync::id::{BucketId, Epoch, Incarnation, NodeId, RecordId, Seq};
use alexandria_sync::outlook::Outlook;
use alexandria_sync::record::{Kind, Record, RecordKey};
use alexandria_sync::store::{Cursor, Page};
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;

/// Bytes of one piece of a blob that is read.
const READ_BYTES: usize = 1000;
/// The one life that a catalogue in memory has.
const EPOCH: Epoch = Epoch(7);

/// The catalogue. Clones share what they hold.
#[derive(Clone)]
pub(crate) struct MemoryCatalogue {
    shelves: Arc<Mutex<Shelves>>,
    /// Told at each write, so that waiters look again.
    written: Arc<watch::Sender<()>>,
    /// What is still to come, as a test says.
    pub(crate) outlook: Arc<Mutex<Option<Outlook>>>,
    /// What is not here, and which nodes nearby hold it, as a test says.
    pub(crate) nearby: Arc<Mutex<HashMap<BlobHash, Vec<String>>>>,
}

struct Shelves {
    clock: Clock,
    minted: u64,
    records: BTreeMap<RecordKey, Record>,
    /// For each bucket: the last row, and the row of each record.
    feeds: HashMap<BucketId, (Seq, BTreeMap<Seq, RecordKey>)>,
    opens: HashMap<RecordId, u64>,
    blobs: BTreeMap<BlobHash, (BlobInfo, Bytes)>,
    default_collection: Option<RecordId>,
}

impl Default for MemoryCatalogue {
    fn default() -> Self {
        let shelves = Shelves {
            clock: Clock::new(NodeId::from_bytes([1; 16]), Incarnation(1), ClockQuality::Estimated, HlcTime::default()),
            minted: 0,
            records: BTreeMap::new(),
            feeds: HashMap::new(),
            opens: HashMap::new(),
            blobs: BTreeMap::new(),
            default_collection: None,
        };
        Self {
            shelves: Arc::new(Mutex::new(shelves)),
            written: Arc::new(watch::channel(()).0),
            outlook: Arc::default(),
            nearby: Arc::default(),
        }
    }
}

/// A blob in memory.
pub(crate) struct MemoryContent(BlobInfo, Bytes);

impl Content for MemoryContent {
    fn info(&self) -> &BlobInfo {
        &self.0
    }

    fn read(&self, range: Range<u64>) -> BoxStream<'static, Result<Bytes, CatalogueError>> {
        let bytes = self.1.slice(range.start as usize..range.end as usize);
        let pieces: Vec<_> = bytes.chunks(READ_BYTES).map(|piece| Ok(bytes.slice_ref(piece))).collect();
        stream::iter(pieces).boxed()
    }
}

impl MemoryCatalogue {
    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().expect("no test panics while it holds the lock")
    }

    fn told<T>(&self, change: impl FnOnce(&mut Shelves) -> Result<T, CatalogueError>) -> Result<T, CatalogueError> {
        let done = change(&mut self.shelves())?;
        self.written.send_replace(());
        Ok(done)
    }
}

impl Catalogue for MemoryCatalogue {
    type Content = MemoryContent;

    async fn get(&self, kind: Kind, id: RecordId) -> Result<Option<Stored>, CatalogueError> {
        Ok(self.shelves().live(kind).find(|stored| stored.record.key.id == id))
    }

    async fn list(&self, query: ListQuery) -> Result<Listing, CatalogueError> {
        Ok(self.shelves().list(&query))
    }

    async fn create(&self, new: NewRecord) -> Result<Stored, CatalogueError> {
        self.told(|shelves| {
            shelves.check_bucket(new.bucket)?;
            let key = RecordKey { bucket: new.bucket, kind: new.kind, id: shelves.mint() };
            let record = Record::new(key, new.fields, shelves.stamp()).expect("the API never creates without fields");
            record.check_size()?;
            shelves.want(new.bucket, new.blobs);
            shelves.put(record.clone());
            Ok(Stored { record, popularity: 0 })
        })
    }

    async fn edit(&self, key: RecordKey, seen: Version, edit: Edit) -> Result<Stored, CatalogueError> {
        // Lets others in between reading and writing, as a store that waits for a disk does.
        tokio::task::yield_now().await;
        self.told(|shelves| {
            let held = shelves.at_version(key, seen)?;
            if edit.fields.is_empty() {
                return Ok(shelves.stored(held));
            }
            let record = held.edited(edit.fields, shelves.stamp()).ok_or(CatalogueError::Missing)?;
            record.check_size()?;
            shelves.want(key.bucket, edit.blobs);
            shelves.put(record.clone());
            Ok(shelves.stored(record))
        })
    }

    async fn delete(&self, key: RecordKey, seen: Version) -> Result<(), CatalogueError> {
        self.told(|shelves| {
            let held = shelves.at_version(key, seen)?;
            let stamp = shelves.stamp();
            shelves.put(held.deleted(stamp));
            Ok(())
        })
    }

    async fn set_link(&self, link: Link, linked: bool) -> Result<(), CatalogueError> {
        self.told(|shelves| {
            let (id, fields) = link.to_fields(linked);
            let key = RecordKey { bucket: link.bucket, kind: link.relation.kind(), id };
            if linked == shelves.records.get(&key).is_some_and(stands) {
                return Ok(());
            }
            let stamp = shelves.stamp();
            let record = match shelves.records.get(&key) {
                Some(held) => held.edited(fields, stamp),
                None => Record::new(key, fields, stamp),
            };
            shelves.put(record.ok_or(CatalogueError::Missing)?);
            Ok(())
        })
    }

    async fn default_collection(&self) -> Result<RecordId, CatalogueError> {
        self.told(|shelves| {
            if let Some(id) = shelves.default_collection {
                return Ok(id);
            }
            let id = shelves.mint();
            let collection = Collection { title: "Library".to_owned(), ..Collection::default() };
            let stamp = shelves.stamp();
            shelves.put(collection.to_record(BucketId::Catalogue, id, stamp));
            shelves.default_collection = Some(id);
            Ok(id)
        })
    }

    async fn note_open(&self, media: RecordId) -> Result<(), CatalogueError> {
        *self.shelves().opens.entry(media).or_default() += 1;
        Ok(())
    }

    async fn changes(
        &self,
        bucket: BucketId,
        since: Option<Cursor>,
        limit: usize,
    ) -> Result<ChangePage, CatalogueError> {
        let shelves = self.shelves();
        shelves.check_bucket(bucket)?;
        let (head, rows) = shelves.feeds.get(&bucket).cloned().unwrap_or_default();
        let since = since.unwrap_or(Cursor { epoch: EPOCH, seq: Seq(0) });
        if since.epoch != EPOCH || since.seq > head {
            return Err(CatalogueError::CursorExpired);
        }
        let mut found = rows.range(since.seq.next()..).peekable();
        let taken: Vec<_> = found.by_ref().take(limit).collect();
        let next = taken.last().map_or(since.seq, |(seq, _)| **seq);
        let records = taken.iter().map(|(_, key)| shelves.records[*key].clone()).collect();
        let page = Page { records, next, more: found.peek().is_some() };
        Ok(ChangePage { page, next: Cursor { epoch: EPOCH, seq: next } })
    }

    async fn wait_for_change(&self, bucket: BucketId, since: Cursor) -> Result<(), CatalogueError> {
        let mut written = self.written.subscribe();
        loop {
            if self.shelves().feeds.get(&bucket).is_some_and(|(head, _)| *head > since.seq) {
                return Ok(());
            }
            written.changed().await.map_err(|_| CatalogueError::Closing)?;
        }
    }

    async fn open_blob(&self, hash: BlobHash) -> Result<Option<MemoryContent>, CatalogueError> {
        Ok(self.shelves().blobs.get(&hash).map(|(info, bytes)| MemoryContent(info.clone(), bytes.clone())))
    }

    async fn whereabouts(&self, blobs: &[BlobHash]) -> Result<HashMap<BlobHash, Whereabouts>, CatalogueError> {
        let nearby = self.nearby.lock().expect("no test panics while it holds the lock");
        let shelves = self.shelves();
        let found = |hash: BlobHash| match nearby.get(&hash) {
            Some(names) => Whereabouts { here: false, nearby: names.clone() },
            None => Whereabouts { here: shelves.blobs.contains_key(&hash), nearby: Vec::new() },
        };
        Ok(blobs.iter().map(|hash| (*hash, found(*hash))).collect())
    }

    async fn outlook(&self) -> Result<Option<Outlook>, CatalogueError> {
        Ok(self.outlook.lock().expect("no test panics while it holds the lock").clone())
    }

    async fn list_blobs(
        &self,
        after: Option<BlobHash>,
        sort: Sort,
        limit: usize,
    ) -> Result<Vec<BlobInfo>, CatalogueError> {
        let shelves = self.shelves();
        let infos = shelves.blobs.values().map(|(info, _)| info.clone());
        Ok(match sort {
            Sort::Ascending => infos.filter(|info| after.is_none_or(|after| info.hash > after)).take(limit).collect(),
            Sort::Descending => {
                infos.rev().filter(|info| after.is_none_or(|after| info.hash < after)).take(limit).collect()
            }
        })
    }

    async fn put_blob(&self, mut upload: Upload) -> Result<PutBlob, CatalogueError> {
        let mut bytes = BytesMut::new();
        while let Some(piece) = upload.body.next().await {
            bytes.extend_from_slice(&piece?);
        }
        let hash = BlobHash::of(&bytes);
        if upload.expected.is_some_and(|expected| expected != hash) {
            return Err(CatalogueError::HashMismatch { actual: hash });
        }
        let info = BlobInfo { hash, size_bytes: bytes.len() as u64, media_type: upload.media_type };
        let mut shelves = self.shelves();
        let created = !shelves.blobs.contains_key(&hash);
        let (info, _) = shelves.blobs.entry(hash).or_insert_with(|| (info, bytes.freeze()));
        Ok(PutBlob { info: info.clone(), created })
    }

    async fn delete_blob(&self, hash: BlobHash) -> Result<bool, CatalogueError> {
        let mut shelves = self.shelves();
        if shelves.names(hash) {
            return Err(CatalogueError::InUse);
        }
        Ok(shelves.blobs.remove(&hash).is_some())
    }
}

impl Shelves {
    fn mint(&mut self) -> RecordId {
        self.minted += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.minted.to_be_bytes());
        RecordId::mint(unix_ms(), random)
    }

    fn stamp(&mut self) -> Stamp {
        self.clock.stamp(unix_ms())
    }

    fn stored(&self, record: Record) -> Stored {
        let popularity = self.opens.get(&record.key.id).copied().unwrap_or(0);
        Stored { record, popularity }
    }

    fn live(&self, kind: Kind) -> impl Iterator<Item = Stored> {
        let records = self.records.values().filter(move |record| record.key.kind == kind && !record.is_tombstone());
        records.map(|record| self.stored(record.clone()))
    }

    fn check_bucket(&self, bucket: BucketId) -> Result<(), CatalogueError> {
        match bucket {
            BucketId::Catalogue => Ok(()),
            BucketId::Collection(id) if self.live(Collection::KIND).any(|found| found.record.key.id == id) => Ok(()),
            other => Err(CatalogueError::UnknownBucket(other)),
        }
    }

    fn at_version(&self, key: RecordKey, seen: Version) -> Result<Record, CatalogueError> {
        let held = self.records.get(&key).filter(|record| !record.is_tombstone()).ok_or(CatalogueError::Missing)?;
        if Version::of(held) == seen { Ok(held.clone()) } else { Err(CatalogueError::Stale) }
    }

    fn put(&mut self, record: Record) {
        let key = record.key;
        let (head, rows) = self.feeds.entry(key.bucket).or_default();
        *head = head.next();
        rows.retain(|_, row| *row != key);
        rows.insert(*head, key);
        self.records.insert(key, record);
    }

    fn want(&mut self, bucket: BucketId, blobs: Vec<BlobInfo>) {
        for BlobInfo { hash, size_bytes, media_type } in blobs {
            let id = Blob::record_id(hash);
            if !self.records.contains_key(&RecordKey { bucket, kind: Blob::KIND, id }) {
                let stamp = self.stamp();
                self.put(Blob { hash: Some(hash), size_bytes, media_type }.to_record(bucket, id, stamp));
            }
        }
    }

    /// Whether a live record names the content; its own record in a bucket does not count.
    fn names(&self, hash: BlobHash) -> bool {
        self.records.values().any(|record| {
            let pictured = Author::from_record(record).and_then(|author| author.portrait);
            let covered = Collection::from_record(record).and_then(|collection| collection.cover);
            let medium = Media::from_record(record).unwrap_or_default();
            [pictured, covered, medium.cover].contains(&Some(hash)) || medium.files.iter().any(|file| file.blob == hash)
        })
    }

    fn list(&self, query: &ListQuery) -> Listing {
        let mut found: Vec<_> = self.live(query.kind).filter(|stored| self.matches(&stored.record, query)).collect();
        found.sort_by_key(|stored| stored.place(query.order_by));
        if query.sort == Sort::Descending {
            found.reverse();
        }
        found.retain(|stored| {
            let place = stored.place(query.order_by);
            query.after.is_none_or(|after| match query.sort {
                Sort::Ascending => place > after,
                Sort::Descending => place < after,
            })
        });
        let more = found.len() > query.page_size;
        found.truncate(query.page_size);
        Listing { items: found, more }
    }

    fn matches(&self, record: &Record, query: &ListQuery) -> bool {
        let (text, disabled) = described(record);
        let words_found = query
            .text
            .as_ref()
            .is_none_or(|words| words.to_lowercase().split_whitespace().all(|word| text.to_lowercase().contains(word)));
        words_found
            && (query.show_disabled || !disabled)
            && query.bucket.is_none_or(|bucket| bucket == record.key.bucket)
            && query.linked_to.is_none_or(|linked_to| self.linked(record.key.id, query.kind, linked_to))
    }

    fn linked(&self, id: RecordId, kind: Kind, LinkedTo { relation, id: other }: LinkedTo) -> bool {
        let (left, right) = if relation.ends().0 == kind { (id, other) } else { (other, id) };
        let (link, _) = Link { relation, bucket: BucketId::Catalogue, left, right }.to_fields(true);
        self.records
            .values()
            .any(|record| record.key.kind == relation.kind() && record.key.id == link && stands(record))
    }
}

/// The text that a search looks at, and whether the record is hidden.
fn described(record: &Record) -> (String, bool) {
    let author = Author::from_record(record).map(|it| (format!("{} {}", it.name, it.description), it.disabled));
    let category = || Category::from_record(record).map(|it| (format!("{} {}", it.name, it.description), it.disabled));
    let collection =
        || Collection::from_record(record).map(|it| (format!("{} {}", it.title, it.description), it.disabled));
    let media = || {
        let media = Media::from_record(record)?;
        Some((format!("{} {} {}", media.title, media.description, media.languages.join(" ")), media.disabled))
    };
    author.or_else(category).or_else(collection).or_else(media).unwrap_or_default()
}

/// Whether a link's record says that it stands.
fn stands(record: &Record) -> bool {
    [
        (Relation::MediaAuthor, MediaAuthor::from_record(record).is_some_and(|link| link.linked)),
        (Relation::MediaCategory, MediaCategory::from_record(record).is_some_and(|link| link.linked)),
        (Relation::AuthorCategory, AuthorCategory::from_record(record).is_some_and(|link| link.linked)),
    ]
    .iter()
    .any(|(relation, stands)| relation.kind() == record.key.kind && *stands)
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
