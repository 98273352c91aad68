//! The catalogue port of the API over PostgreSQL and S3.

use alexandria_api::catalogue::{
    BlobInfo, Catalogue, CatalogueError, Edit, Link, LinkedTo, ListQuery, NewRecord, OrderBy, Relation, Sort, Stored,
};
use alexandria_cloud_bridge::catalogue::Library;
use alexandria_sync::domain::{Author, Collection, Media, Typed};
use alexandria_sync::id::{BucketId, RecordId};
use alexandria_sync::record::{Kind, RecordKey};
use alexandria_sync::store::Cursor;
use bytes::Bytes;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::fixture::{Aws, Database};

async fn library(database: &Database, aws: &Aws) -> Library {
    let records = database.records().await;
    let bucket = aws.bucket().await;
    let content = aws.content(&records, &bucket).await;
    Library::new(records, content, CancellationToken::new())
}

fn new(bucket: BucketId, typed: &impl Typed, kind: Kind) -> NewRecord {
    NewRecord { bucket, kind, fields: changes(typed), blobs: Vec::new() }
}

fn changes<T: Typed>(typed: &T) -> Vec<(alexandria_sync::record::FieldTag, alexandria_sync::record::Value)> {
    typed.changes_since(&T::default())
}

fn everything(kind: Kind) -> ListQuery {
    ListQuery {
        kind,
        page_size: 2,
        after: None,
        text: None,
        order_by: OrderBy::Id,
        sort: Sort::Ascending,
        show_disabled: false,
        bucket: None,
        linked_to: None,
    }
}

async fn walk(library: &Library, mut query: ListQuery) -> Vec<RecordId> {
    let mut seen = Vec::new();
    loop {
        let page = library.list(query.clone()).await.unwrap();
        assert!(page.items.len() <= query.page_size);
        query.after = page.items.last().map(|item| item.place(query.order_by));
        seen.extend(page.items.iter().map(|item| item.record.key.id));
        if !page.more {
            return seen;
        }
    }
}

fn key(stored: &Stored) -> RecordKey {
    stored.record.key
}

#[tokio::test]
async fn records_are_made_changed_linked_found_and_deleted() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let library = library(&database, &aws).await;
    let collection = library.default_collection().await.unwrap();
    assert_eq!(library.default_collection().await.unwrap(), collection);
    let bucket = BucketId::Collection(collection);
    let missing = BucketId::Collection(RecordId::from_bytes([9; 16]));
    let refused = library.create(new(missing, &Media { title: "x".into(), ..Media::default() }, Media::KIND)).await;
    assert!(matches!(refused, Err(CatalogueError::UnknownBucket(_))));

    let mut media = Vec::new();
    for title in ["Une si longue lettre", "Things Fall Apart", "Petals of Blood", "Purple Hibiscus", "Half a Sun"] {
        let medium = Media { title: title.into(), languages: vec!["en-KE".into()], ..Media::default() };
        media.push(library.create(new(bucket, &medium, Media::KIND)).await.unwrap());
    }
    let author = Author { name: "Achebe".into(), ..Author::default() };
    let author = library.create(new(BucketId::Catalogue, &author, Author::KIND)).await.unwrap();
    let ids: Vec<RecordId> = media.iter().map(|stored| key(stored).id).collect();
    let mut reversed = ids.clone();
    reversed.reverse();

    assert_eq!(walk(&library, everything(Media::KIND)).await, ids);
    for order_by in [OrderBy::Id, OrderBy::Timestamp] {
        let query = ListQuery { order_by, sort: Sort::Descending, ..everything(Media::KIND) };
        assert_eq!(walk(&library, query).await, reversed);
    }
    let find = |text: &str| ListQuery { text: Some(text.into()), ..everything(Media::KIND) };
    assert_eq!(walk(&library, find("apart things")).await, [ids[1]]);
    assert_eq!(walk(&library, find("lettre purple")).await, []);
    assert_eq!(walk(&library, find("!?")).await, []);
    assert_eq!(walk(&library, find("kenya")).await, []);

    let link = Link { relation: Relation::MediaAuthor, bucket, left: ids[1], right: key(&author).id };
    library.set_link(link, false).await.unwrap();
    library.set_link(link, true).await.unwrap();
    let linked =
        |kind, id| ListQuery { linked_to: Some(LinkedTo { relation: Relation::MediaAuthor, id }), ..everything(kind) };
    assert_eq!(walk(&library, linked(Media::KIND, key(&author).id)).await, [ids[1]]);
    assert_eq!(walk(&library, linked(Author::KIND, ids[1])).await, [key(&author).id]);
    library.set_link(link, false).await.unwrap();
    assert_eq!(walk(&library, linked(Media::KIND, key(&author).id)).await, []);

    let disable = Edit { fields: changes(&Media { disabled: true, ..Media::default() }), blobs: Vec::new() };
    let edited = library.edit(key(&media[0]), media[0].version(), disable.clone()).await.unwrap();
    assert!(edited.record.newest_stamp() > media[0].record.newest_stamp());
    let stale = library.edit(key(&media[0]), media[0].version(), disable).await;
    assert!(matches!(stale, Err(CatalogueError::Stale)));
    assert_eq!(walk(&library, everything(Media::KIND)).await, ids[1..]);
    assert_eq!(walk(&library, ListQuery { show_disabled: true, ..everything(Media::KIND) }).await, ids);

    library.note_open(ids[3]).await.unwrap();
    library.note_open(ids[3]).await.unwrap();
    library.flush_opens().await.unwrap();
    library.note_open(ids[3]).await.unwrap();
    library.flush_opens().await.unwrap();
    let popular = ListQuery { order_by: OrderBy::Popularity, sort: Sort::Descending, ..everything(Media::KIND) };
    assert_eq!(walk(&library, popular).await, [ids[3], ids[4], ids[2], ids[1]]);
    assert_eq!(library.get(Media::KIND, ids[3]).await.unwrap().unwrap().popularity, 3);

    library.delete(key(&media[1]), library.get(Media::KIND, ids[1]).await.unwrap().unwrap().version()).await.unwrap();
    assert!(library.get(Media::KIND, ids[1]).await.unwrap().is_none());
    let gone = library.delete(key(&media[1]), media[1].version()).await;
    assert!(matches!(gone, Err(CatalogueError::Missing)));
}

#[tokio::test]
async fn changes_are_read_from_a_cursor_and_waited_for() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let library = library(&database, &aws).await;
    let unknown = BucketId::Collection(RecordId::from_bytes([1; 16]));
    assert!(matches!(library.changes(unknown, None, 10).await, Err(CatalogueError::UnknownBucket(_))));
    let start = library.changes(BucketId::Catalogue, None, 10).await.unwrap();
    assert!(start.page.records.is_empty());
    let waiting = tokio::spawn({
        let library = library.clone();
        async move { library.wait_for_change(BucketId::Catalogue, start.next).await }
    });
    let collection = Collection { title: "New".into(), ..Collection::default() };
    let created = library.create(new(BucketId::Catalogue, &collection, Collection::KIND)).await.unwrap();
    tokio::time::timeout(crate::fixture::DEADLINE, waiting).await.unwrap().unwrap().unwrap();
    let page = library.changes(BucketId::Catalogue, Some(start.next), 10).await.unwrap();
    assert_eq!(page.page.records.first(), Some(&created.record));
    let beyond = Cursor { seq: page.next.seq.next(), ..page.next };
    assert!(matches!(library.changes(BucketId::Catalogue, Some(beyond), 10).await, Err(CatalogueError::CursorExpired)));
    let empty = library.changes(BucketId::Collection(key(&created).id), None, 10).await.unwrap();
    assert!(empty.page.records.is_empty(), "a collection has a feed before anything is in it");
}

#[tokio::test]
async fn content_is_kept_while_a_record_shows_it() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let library = library(&database, &aws).await;
    let body = futures::stream::iter([Ok(Bytes::from_static(b"a picture"))]).boxed();
    let upload =
        alexandria_api::catalogue::Upload { media_type: "image/png".into(), expected: None, size_bytes: None, body };
    let put = library.put_blob(upload).await.unwrap();
    let info: BlobInfo = put.info.clone();
    let bucket = BucketId::Collection(library.default_collection().await.unwrap());
    let medium = Media { title: "Cover".into(), cover: Some(info.hash), ..Media::default() };
    let created = NewRecord { blobs: vec![info.clone()], ..new(bucket, &medium, Media::KIND) };
    let created = library.create(created).await.unwrap();
    let wanted: i64 = database.value("SELECT count(*) FROM blob WHERE stored").await;
    assert_eq!(wanted, 1, "whoever holds the bucket fetches it");
    assert!(matches!(library.delete_blob(info.hash).await, Err(CatalogueError::InUse)));

    let opened = library.open_blob(info.hash).await.unwrap().unwrap();
    library.delete(key(&created), created.version()).await.unwrap();
    assert!(library.delete_blob(info.hash).await.unwrap());
    assert!(!library.delete_blob(info.hash).await.unwrap());
    assert!(library.open_blob(info.hash).await.unwrap().is_none());
    let bytes: Vec<Bytes> =
        alexandria_api::catalogue::Content::read(&opened, 2..9).map(|bytes| bytes.unwrap()).collect().await;
    assert_eq!(bytes.concat(), b"picture", "who was reading goes on reading");
}
