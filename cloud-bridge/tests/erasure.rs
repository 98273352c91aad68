//! The right to be forgotten, in PostgreSQL, the outbox and S3 (invariant 7).

use alexandria_cloud_bridge::content::Content;
use alexandria_cloud_bridge::content::intake::Intake;
use alexandria_cloud_bridge::postgres::Records;
use alexandria_cloud_bridge::postgres::erase::EraseError;
use alexandria_sync::chunk::{BlobHash, Chunker, Chunking};
use alexandria_sync::domain::{Annotation, Blob, Media, Typed};
use alexandria_sync::erase;
use alexandria_sync::hlc::DRIFT_BOUND_MS;
use alexandria_sync::id::{BucketId, Incarnation, NodeId, RecordId, Seq};
use alexandria_sync::record::{Record, RecordKey};
use alexandria_sync::store::BlobStore;
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use bytes::Bytes;
use futures::StreamExt;
use sqlx::Row;
use uuid::Uuid;

use crate::fixture::{Aws, Database, a_collection, media, new_id, noise, peer, stamp, wait_for};

const SECRET: &str = "Zanzibarine";

fn medium(bucket: BucketId, cover: Option<BlobHash>) -> Record {
    let media = Media { title: SECRET.into(), description: format!("{SECRET} lives here"), cover, ..Media::default() };
    media.to_record(bucket, new_id(), stamp(1, -5_000))
}

fn note(of: &Record, model: &str) -> Record {
    let annotation = Annotation { media: of.key.id, model: model.into(), ..Annotation::default() };
    annotation.to_record(of.key.bucket, new_id(), stamp(1, -4_000))
}

fn blob(bucket: BucketId, hash: BlobHash, after_ms: i64) -> Record {
    let blob = Blob { hash: Some(hash), size_bytes: 9, media_type: "image/png".into() };
    blob.to_record(bucket, Blob::record_id(hash), stamp(1, after_ms))
}

async fn receive(records: &Records, bucket: BucketId, sent: Vec<Record>) {
    records.apply(peer(1), bucket, sent, Seq(rand::random::<u32>().into())).await.unwrap();
}

async fn held(records: &Records, key: RecordKey) -> Record {
    let page = records.page(key.bucket, Seq(0), None, (1000, u32::MAX)).await.unwrap();
    page.records.into_iter().find(|record| record.key == key).unwrap_or_else(|| panic!("no {key:?}"))
}

/// The tables in which a text stands, whatever the column.
async fn tables_with(database: &Database, text: &str) -> Vec<String> {
    let pool = database.pool();
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public'")
            .fetch_all(&pool)
            .await
            .unwrap();
    let hex = hex::encode(text.as_bytes());
    let mut found = Vec::new();
    for table in tables {
        let statement = format!("SELECT row::text AS text FROM {table} AS row");
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement)).fetch_all(&pool).await.unwrap();
        let has = |row: &sqlx::postgres::PgRow| {
            let row: String = row.get("text");
            let row = row.to_lowercase();
            row.contains(&text.to_lowercase()) || row.contains(&hex)
        };
        if rows.iter().any(has) {
            found.push(table);
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_is_erased_stands_in_no_table_and_what_comes_late_is_not_let_in() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let target = medium(bucket, None);
    let ahead = media(bucket, target.key.id, SECRET, stamp(1, DRIFT_BOUND_MS as i64 + 3_600_000));
    let other = media(bucket, new_id(), "stays", stamp(1, -5_000));
    receive(&records, bucket, vec![target.clone(), note(&target, SECRET), ahead.clone(), other.clone()]).await;
    sqlx::query(
        "INSERT INTO outbox_refused (event_id, type, subject, reason, data) \
         SELECT event_id, type, subject, 'a test', data FROM outbox",
    )
    .execute(&database.pool())
    .await
    .unwrap();
    let everywhere = ["annotation", "media", "outbox", "outbox_refused", "quarantine", "record"];
    assert_eq!(tables_with(&database, SECRET).await, everywhere, "the test sees what is there");

    let ordered = records.erase(Media::KIND, target.key.id).await.unwrap();
    assert_eq!(ordered.len(), 1);
    assert_eq!(tables_with(&database, SECRET).await, [""; 0]);
    assert!(held(&records, target.key).await.is_tombstone());
    assert_eq!(held(&records, other.key).await, other);
    let told: i64 = database
        .value("SELECT count(*) FROM outbox WHERE type = 'MEDIA_DELETED' AND data::jsonb @> '{\"erased\": true}'")
        .await;
    assert_eq!(told, 1, "who listens learns that it was erased");

    let late = note(&target, SECRET);
    let of_a_wrong_clock = Annotation::from_record(&note(&target, SECRET)).unwrap();
    let of_a_wrong_clock = of_a_wrong_clock.to_record(bucket, new_id(), stamp(1, DRIFT_BOUND_MS as i64 + 3_600_000));
    let sent = vec![target.clone(), ahead, late.clone(), of_a_wrong_clock.clone()];
    receive(&records, bucket, sent).await;
    assert!(held(&records, late.key).await.is_tombstone());
    assert!(held(&records, of_a_wrong_clock.key).await.is_tombstone());
    assert_eq!(tables_with(&database, SECRET).await, [""; 0]);

    assert_eq!(records.erase(Media::KIND, target.key.id).await.unwrap(), ordered);
    assert!(matches!(records.erase(Media::KIND, new_id()).await, Err(EraseError::NotFound(_))));
    assert!(matches!(records.erase(Blob::KIND, new_id()).await, Err(EraseError::NotErasable)));
}

/// A page that had looked for erasures when one came, and stores what it brought only after, leaves nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_erasure_waits_for_pages_that_are_being_stored_and_finds_what_they_brought() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let target = medium(bucket, None);
    receive(&records, bucket, vec![target.clone()]).await;
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ \
            BEGIN PERFORM pg_sleep(1); RETURN NEW; END $$; \
        CREATE TRIGGER slow BEFORE INSERT ON annotation FOR EACH ROW EXECUTE FUNCTION slow()";
    sqlx::raw_sql(slow).execute(&database.pool()).await.unwrap();
    let (late, brought) = (database.records().await, note(&target, SECRET));
    let sent = vec![brought.clone()];
    let page = tokio::spawn(async move { receive(&late, bucket, sent).await });
    wait_for("the page to be in the middle of it", || async {
        let asleep =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
        let asleep: i64 = database.value(asleep).await;
        (asleep > 0).then_some(())
    })
    .await;
    records.erase(Media::KIND, target.key.id).await.unwrap();
    page.await.unwrap();
    assert!(held(&records, brought.key).await.is_tombstone());
    assert_eq!(tables_with(&database, SECRET).await, [""; 0]);
}

async fn wanted_by(content: &Content) -> Vec<BlobHash> {
    content.wanted(peer(1).node, None, 100).await.unwrap().iter().map(|wanted| wanted.blob).collect()
}

/// Removals of content are final five minutes after: goes there.
async fn let_five_minutes_pass(database: &Database) {
    let statement = "UPDATE erased_blob SET removed_at = removed_at - interval '6 minutes'";
    sqlx::query(statement).execute(&database.pool()).await.unwrap();
}

async fn is_done(records: &Records, erasure: RecordKey) -> bool {
    records.erasure(erasure.id).await.unwrap()[0].bridge_done
}

async fn upload(content: &Content, bytes: Vec<u8>) -> BlobHash {
    let body = futures::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from(bytes))]).boxed();
    let intake = Intake { media_type: "image/png".into(), expected: None, size_bytes: None, body };
    content.take_in(intake).await.unwrap().0.hash
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erased_content_leaves_s3_unless_another_record_shows_it() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let records = database.records().await;
    let s3_bucket = aws.bucket().await;
    let content = aws.content(&records, &s3_bucket).await;
    let bucket = a_collection();
    let [own, shared, missing] = [1, 2, 3].map(|seed| noise(70_000, seed));
    let own = upload(&content, own).await;
    let shared = upload(&content, shared).await;
    let missing = BlobHash::of(&missing);
    let targets = [own, shared, missing].map(|cover| medium(bucket, Some(cover)));
    let other = Media { title: "stays".into(), cover: Some(shared), ..Media::default() };
    let mut sent = vec![other.to_record(bucket, new_id(), stamp(1, 0))];
    sent.extend(targets.clone());
    sent.extend([own, shared, missing].map(|hash| blob(bucket, hash, -5_000)));
    receive(&records, bucket, sent).await;
    let wanted = || async { wanted_by(&content).await };
    assert_eq!(wanted().await, [missing]);

    for target in &targets {
        records.erase(Media::KIND, target.key.id).await.unwrap();
    }
    assert_eq!(wanted().await, [], "nobody asks for it any more");
    content.purge_erased().await.unwrap();
    assert_eq!(content.stored(own).await.unwrap(), None);
    assert!(content.stored(shared).await.unwrap().is_some());
    let listed = aws.s3().await.list_objects_v2().bucket(&s3_bucket).send().await.unwrap();
    let objects: Vec<&str> = listed.contents().iter().filter_map(|object| object.key()).collect();
    assert_eq!(objects, [format!("blobs/{shared}")]);
    let places: i64 = database.value("SELECT count(*) FROM manifest").await;
    assert_eq!(places, 1);

    // A blob record that comes from somebody who had not heard of it makes nobody want it, and gives it to nobody.
    receive(&records, bucket, vec![blob(bucket, own, 60_000)]).await;
    assert_eq!(wanted().await, []);
    // Whoever shows the same content again has it taken in.
    let again = Media { title: "again".into(), cover: Some(own), ..Media::default() };
    receive(&records, bucket, vec![again.to_record(bucket, new_id(), stamp(1, 0))]).await;
    assert_eq!(wanted().await, [own]);
}

/// A cover that an edit replaced is content of the record all the same.
#[tokio::test]
async fn content_that_an_edit_took_away_is_erased_too() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let records = database.records().await;
    let content = aws.content(&records, &aws.bucket().await).await;
    let (former, present) = (upload(&content, noise(50_000, 6)).await, upload(&content, noise(50_000, 7)).await);
    let bucket = a_collection();
    let target = medium(bucket, Some(former));
    let before = Media::from_record(&target).unwrap();
    let after = Media { cover: Some(present), ..before.clone() };
    let edited = target.edited(after.changes_since(&before), stamp(1, 0)).unwrap();
    receive(&records, bucket, vec![target.clone()]).await;
    receive(&records, bucket, vec![edited]).await;
    records.erase(Media::KIND, target.key.id).await.unwrap();
    content.purge_erased().await.unwrap();
    assert_eq!((content.stored(former).await.unwrap(), content.stored(present).await.unwrap()), (None, None));
}

/// What a process left in S3 that died, what a versioned bucket keeps, and what a session brings that began before.
#[tokio::test]
async fn nothing_in_s3_has_bytes_of_it_when_the_bridge_says_that_it_is_done() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let records = database.records().await;
    let s3_bucket = aws.bucket().await;
    let s3 = aws.s3().await;
    let versioning = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    let call = s3.put_bucket_versioning().bucket(&s3_bucket).versioning_configuration(versioning);
    call.send().await.unwrap();
    let content = aws.content(&records, &s3_bucket).await;
    let bytes = noise(70_000, 4);
    let own = upload(&content, bytes.clone()).await;
    let key = format!("blobs/{own}");
    let put = |key: String| s3.put_object().bucket(&s3_bucket).key(key).body(bytes.clone().into()).send();
    put(key.clone()).await.unwrap();
    put(format!("staging/{own}/0")).await.unwrap();
    s3.create_multipart_upload().bucket(&s3_bucket).key(&key).send().await.unwrap();
    let bucket = a_collection();
    let target = medium(bucket, Some(own));
    receive(&records, bucket, vec![target.clone(), blob(bucket, own, -5_000)]).await;
    assert!(content.manifest(peer(2).node, own).await.unwrap().is_some());

    let erasure = records.erase(Media::KIND, target.key.id).await.unwrap()[0];
    receive(&records, bucket, vec![blob(bucket, own, 60_000)]).await;
    assert_eq!(
        content.manifest(peer(2).node, own).await.unwrap(),
        None,
        "it is given to nobody even before it is gone"
    );
    for _ in 0..2 {
        content.purge_erased().await.unwrap();
    }
    let left = async || {
        let versions = s3.list_object_versions().bucket(&s3_bucket).send().await.unwrap();
        let uploads = s3.list_multipart_uploads().bucket(&s3_bucket).send().await.unwrap();
        versions.versions().len() + versions.delete_markers().len() + uploads.uploads().len()
    };
    assert_eq!(left().await, 0);
    assert!(!is_done(&records, erasure).await, "a call to S3 may be under way");

    // A session that had begun before brings it whole.
    let mut chunker = Chunker::new(Chunking::Fixed);
    chunker.update(&bytes);
    let manifest = chunker.finish().unwrap();
    content.begin(&manifest).await.unwrap();
    content.write(&manifest, 0, Bytes::from(bytes.clone())).await.unwrap();
    let_five_minutes_pass(&database).await;
    content.purge_erased().await.unwrap();
    assert!(is_done(&records, erasure).await);
    let late = aws.content(&records, &s3_bucket).await;
    late.begin(&manifest).await.unwrap();
    late.write(&manifest, 0, Bytes::from(bytes)).await.unwrap();
    late.finish(&manifest).await.unwrap();
    assert!(!is_done(&records, erasure).await, "it is looked at once more");
    for _ in 0..2 {
        content.purge_erased().await.unwrap();
        let_five_minutes_pass(&database).await;
    }
    assert_eq!((left().await, content.stored(own).await.unwrap()), (0, None));
    assert!(is_done(&records, erasure).await);
}

/// Whoever uploads the same content by hand after the erasure wants it, though no record names it yet.
#[tokio::test]
async fn what_an_operator_takes_in_again_stays() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let records = database.records().await;
    let content = aws.content(&records, &aws.bucket().await).await;
    let own = upload(&content, noise(70_000, 5)).await;
    let bucket = a_collection();
    let target = medium(bucket, Some(own));
    receive(&records, bucket, vec![target.clone(), blob(bucket, own, -5_000)]).await;
    let erasure = records.erase(Media::KIND, target.key.id).await.unwrap()[0];
    content.purge_erased().await.unwrap();

    upload(&content, noise(70_000, 5)).await;
    let_five_minutes_pass(&database).await;
    content.purge_erased().await.unwrap();
    assert!(content.stored(own).await.unwrap().is_some());
    assert!(is_done(&records, erasure).await);
}

async fn enrolled(database: &Database, number: u8, since: &str) -> NodeId {
    sqlx::query(
        "INSERT INTO node (id, name, site, key_fingerprint, certificate_pem, certificate_fingerprint, iot_state, \
            enrolled_at) VALUES ($1, $2, 'Harbour', '', '', '', 'registered', now() + $3::interval)",
    )
    .bind(Uuid::from_bytes([number; 16]))
    .bind(format!("node {number}"))
    .bind(since)
    .execute(&database.pool())
    .await
    .unwrap();
    NodeId::from_bytes([number; 16])
}

#[tokio::test]
async fn the_bridge_shows_which_nodes_still_owe_a_receipt() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let target = medium(bucket, None);
    receive(&records, bucket, vec![target.clone()]).await;
    let (one, two) = (enrolled(&database, 1, "-1 day").await, enrolled(&database, 2, "-1 day").await);
    enrolled(&database, 3, "-1 day").await;
    sqlx::query("UPDATE node SET revoked_at = now() WHERE name = 'node 3'").execute(&database.pool()).await.unwrap();
    enrolled(&database, 4, "1 day").await;
    let erasure = records.erase(Media::KIND, target.key.id).await.unwrap()[0];

    let shown = |id: RecordId| {
        let records = records.clone();
        async move {
            let shown = records.erasure(id).await.unwrap().remove(0);
            (shown.receipts, shown.owing)
        }
    };
    assert_eq!(shown(erasure.id).await, (0, 2), "a revoked node and one that came later owe nothing");
    let give = |node: NodeId, site: NodeId| {
        let mut receipt = erase::receipt(erasure, node, Incarnation(1), stamp(node.as_bytes()[0], 0));
        receipt.key.bucket = BucketId::Site(site);
        receipt
    };
    let receipts = give(one, one);
    records.apply(peer(1), receipts.key.bucket, vec![receipts], Seq(1)).await.unwrap();
    assert_eq!(shown(erasure.id).await, (1, 1));
    let owed = records.obligations(erasure.id, None, 10).await.unwrap();
    let owed: Vec<_> = owed.iter().map(|node| (node.node, node.receipt_at.is_some())).collect();
    assert_eq!(owed, [(one, true), (two, false)]);
    let all = records.erasures(None, 10).await.unwrap();
    assert_eq!((all.len(), all[0].kind.as_str(), all[0].record, all[0].bridge_done), (1, "media", target.key.id, true));

    // What belongs to one site is owed by that node alone.
    let site = BucketId::Site(two);
    let private = medium(site, None);
    records.apply(peer(2), site, vec![private.clone()], Seq(1)).await.unwrap();
    let erasure = records.erase(Media::KIND, private.key.id).await.unwrap()[0];
    assert_eq!(shown(erasure.id).await, (0, 1));
}

/// A topic that is away for a day leaves many events; each look through all of them takes its time, and the bucket is closed meanwhile.
#[tokio::test]
async fn however_much_is_about_a_record_its_events_are_looked_for_once() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let of = medium(bucket, None);
    let mut sent = vec![of.clone()];
    sent.extend((0..60).map(|number| note(&of, &format!("{SECRET} {number}"))));
    receive(&records, bucket, sent).await;
    let counted = "CREATE SEQUENCE looks; CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ \
         BEGIN PERFORM nextval('looks'); RETURN NULL; END $$; \
         CREATE TRIGGER look AFTER UPDATE ON outbox FOR EACH STATEMENT EXECUTE FUNCTION look(); \
         CREATE TRIGGER look AFTER DELETE ON unnamed_blob FOR EACH STATEMENT EXECUTE FUNCTION look()";
    sqlx::raw_sql(counted).execute(&database.pool()).await.unwrap();
    records.erase(Media::KIND, of.key.id).await.unwrap();
    assert_eq!(tables_with(&database, SECRET).await, Vec::<String>::new());
    let looks: i64 = database.value("SELECT last_value FROM looks").await;
    assert!(looks <= 4, "{looks} statements");
    let by_subject: i64 = database
        .value("SELECT count(*) FROM pg_indexes WHERE tablename IN ('outbox', 'outbox_refused') AND indexdef LIKE '%(subject)%'")
        .await;
    assert_eq!(by_subject, 2);
}
