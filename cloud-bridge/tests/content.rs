//! The blob store on S3: resume, verification, and what is left behind.

use alexandria_cloud_bridge::content::damage::Repair;
use alexandria_cloud_bridge::content::intake::Intake;
use alexandria_cloud_bridge::content::{Config, Content};
use alexandria_cloud_bridge::postgres::Records;
use alexandria_sync::chunk::{Bases, BlobHash, Chunk, ChunkHash, Chunker, Chunking, Manifest, patch};
use alexandria_sync::domain::{Author, Blob, Typed};
use alexandria_sync::id::{BucketId, Seq};
use alexandria_sync::store::{BlobStore, Wanted, WriteBlobError};
use alexandria_sync::wire::Class;
use bytes::Bytes;
use futures::StreamExt;

use crate::fixture::{Aws, Database, Outage, new_id, noise, peer, stamp, wait_for};

const MIB: usize = 1024 * 1024;

fn manifest(bytes: &[u8], chunking: Chunking) -> Manifest {
    let mut chunker = Chunker::new(chunking);
    chunker.update(bytes);
    chunker.finish().unwrap()
}

fn chunk(manifest: &Manifest, bytes: &[u8], index: u32) -> Bytes {
    let start = manifest.offset(index).unwrap() as usize;
    Bytes::copy_from_slice(&bytes[start..start + manifest.chunk(index).unwrap().len as usize])
}

async fn write_all(content: &Content, manifest: &Manifest, bytes: &[u8], indices: impl IntoIterator<Item = u32>) {
    for index in indices {
        content.write(manifest, index, chunk(manifest, bytes, index)).await.unwrap();
    }
}

/// A blob of that many bytes, whole in S3, and a record of the catalogue that says what it is.
async fn stored(content: &Content, records: &Records, len: usize, seed: u64) -> (Vec<u8>, Manifest) {
    let bytes = noise(len, seed);
    let manifest = manifest(&bytes, Chunking::Fixed);
    content.begin(&manifest).await.unwrap();
    write_all(content, &manifest, &bytes, 0..manifest.chunks().len() as u32).await;
    content.finish(&manifest).await.unwrap();
    let blob = Blob { hash: Some(manifest.blob()), ..Blob::default() };
    let record = blob.to_record(BucketId::Catalogue, Blob::record_id(manifest.blob()), stamp(1, -3_600_000));
    records.apply(peer(1), BucketId::Catalogue, vec![record], Seq(1)).await.unwrap();
    (bytes, manifest)
}

async fn object(aws: &Aws, bucket: &str, key: &str) -> Option<Vec<u8>> {
    let answer = aws.s3().await.get_object().bucket(bucket).key(key).send().await.ok()?;
    Some(answer.body.collect().await.unwrap().to_vec())
}

async fn assert_nothing_left(aws: &Aws, bucket: &str, database: &Database) {
    let s3 = aws.s3().await;
    let uploads = s3.list_multipart_uploads().bucket(bucket).send().await.unwrap();
    assert!(uploads.uploads().is_empty(), "unfinished uploads: {uploads:?}");
    let staged = s3.list_objects_v2().bucket(bucket).prefix("staging/").send().await.unwrap();
    assert!(staged.contents().is_empty(), "staging: {:?}", staged.contents());
    let rows: i64 = database.value("SELECT count(*) FROM blob_upload").await;
    assert_eq!(rows, 0);
}

/// A process dies in the middle of a blob; another one takes up from what `sync` had returned for, part or no part.
#[tokio::test]
async fn a_blob_is_taken_up_where_the_last_sync_left_it() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let bucket = aws.bucket().await;
    let records = database.records().await;
    let bytes = noise(21 * MIB + 12_345, 1);
    let manifest = manifest(&bytes, Chunking::Fixed);
    let blob = manifest.blob();

    let first = aws.content(&records, &bucket).await;
    assert_eq!(first.begin(&manifest).await.unwrap().count(), 0);
    // One part is full, two are not, and one chunk comes out of order.
    write_all(&first, &manifest, &bytes, (0..11).chain([18])).await;
    first.sync(&manifest).await.unwrap();
    write_all(&first, &manifest, &bytes, [11, 12]).await;
    drop(first);

    let second = aws.content(&records, &bucket).await;
    assert!(matches!(second.begin(&manifest).await, Err(WriteBlobError::Busy)), "the lease still runs");
    let have = wait_for("the lease to run out", || async { second.begin(&manifest).await.ok() }).await;
    let missing: Vec<u32> = have.missing().collect();
    assert_eq!(missing, (11..18).chain(19..22).collect::<Vec<_>>(), "exactly what was not made durable");
    write_all(&second, &manifest, &bytes, missing).await;
    second.finish(&manifest).await.unwrap();

    assert!(object(&aws, &bucket, &format!("blobs/{blob}")).await.unwrap() == bytes, "byte for byte");
    assert_nothing_left(&aws, &bucket, &database).await;
    let events: i64 = database.value("SELECT count(*) FROM outbox WHERE type = 'BLOB_UPLOADED'").await;
    assert_eq!(events, 1);
    let chunk_18 = second.read(&manifest, 18).await.unwrap().unwrap();
    assert_eq!(chunk_18, chunk(&manifest, &bytes, 18));
    second.finish(&manifest).await.unwrap();
    assert!(second.begin(&manifest).await.unwrap().is_complete());
}

/// What was noted of a part is not what S3 has: a server lost it, or called it something else.
#[tokio::test]
async fn an_upload_that_s3_refuses_to_complete_starts_over() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let bucket = aws.bucket().await;
    let bytes = noise(17 * MIB, 33);
    let manifest = manifest(&bytes, Chunking::Fixed);
    let content = aws.content(&database.records().await, &bucket).await;
    content.begin(&manifest).await.unwrap();
    write_all(&content, &manifest, &bytes, 0..17).await;
    content.sync(&manifest).await.unwrap();
    let lost = sqlx::query("UPDATE blob_upload_part SET etag = '\"00000000000000000000000000000000\"' WHERE part = 0");
    assert_eq!(lost.execute(&database.pool()).await.unwrap().rows_affected(), 1);
    assert!(matches!(content.finish(&manifest).await, Err(WriteBlobError::Store(_))));

    let have = wait_for("the lease to run out", || async { content.begin(&manifest).await.ok() }).await;
    assert_eq!(have.count(), 0, "all of it comes again");
    write_all(&content, &manifest, &bytes, 0..17).await;
    content.finish(&manifest).await.unwrap();
    assert!(object(&aws, &bucket, &format!("blobs/{}", manifest.blob())).await.unwrap() == bytes);
    assert_nothing_left(&aws, &bucket, &database).await;
}

/// The last two steps are apart in time: S3 has the object, PostgreSQL does not know yet.
#[tokio::test]
async fn a_death_between_s3_and_the_row_loses_nothing() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let bucket = aws.bucket().await;
    let records = database.records().await;
    let bytes = noise(17 * MIB, 2);
    let manifest = manifest(&bytes, Chunking::Fixed);
    // The row is refused once the object is complete.
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'died here'; END $$; \
         CREATE TRIGGER refuse BEFORE INSERT ON stored_blob FOR EACH ROW EXECUTE FUNCTION refuse()";
    sqlx::raw_sql(refuse).execute(&database.pool()).await.unwrap();
    let first = aws.content(&records, &bucket).await;
    first.begin(&manifest).await.unwrap();
    write_all(&first, &manifest, &bytes, 0..17).await;
    assert!(matches!(first.finish(&manifest).await, Err(WriteBlobError::Store(_))));
    drop(first);
    sqlx::raw_sql("DROP TRIGGER refuse ON stored_blob").execute(&database.pool()).await.unwrap();

    let second = aws.content(&records, &bucket).await;
    let have = wait_for("the lease to run out", || async { second.begin(&manifest).await.ok() }).await;
    assert!(have.is_complete(), "nothing is sent again");
    second.finish(&manifest).await.unwrap();
    assert!(object(&aws, &bucket, &format!("blobs/{}", manifest.blob())).await.unwrap() == bytes);
    assert_nothing_left(&aws, &bucket, &database).await;
}

#[tokio::test]
async fn two_sessions_never_receive_one_blob() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let bucket = aws.bucket().await;
    let records = database.records().await;
    let bytes = noise(3 * MIB, 3);
    let manifest = manifest(&bytes, Chunking::Fixed);
    let (one, two) = (aws.content(&records, &bucket).await, aws.content(&records, &bucket).await);
    one.begin(&manifest).await.unwrap();
    assert!(matches!(one.begin(&manifest).await, Err(WriteBlobError::Busy)), "in one process");
    assert!(matches!(two.begin(&manifest).await, Err(WriteBlobError::Busy)), "in two");
    write_all(&one, &manifest, &bytes, [0]).await;
    one.sync(&manifest).await.unwrap();
    one.release(manifest.blob()).await;
    assert_eq!(two.begin(&manifest).await.unwrap().count(), 1, "what was durable is passed on");
    // The first one wakes up and goes on as if nothing had happened: it is fenced off.
    assert!(matches!(one.sync(&manifest).await, Err(WriteBlobError::Store(_))));
    write_all(&two, &manifest, &bytes, [1, 2]).await;
    two.finish(&manifest).await.unwrap();
}

/// A lease that ran out is taken over; the late owner cannot write any more.
#[tokio::test]
async fn a_late_owner_is_fenced_off() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let bucket = aws.bucket().await;
    let records = database.records().await;
    let bytes = noise(2 * MIB, 4);
    let manifest = manifest(&bytes, Chunking::Fixed);
    let (late, next) = (aws.content(&records, &bucket).await, aws.content(&records, &bucket).await);
    late.begin(&manifest).await.unwrap();
    write_all(&late, &manifest, &bytes, [0]).await;
    wait_for("the lease to run out", || async { next.begin(&manifest).await.ok() }).await;
    assert!(matches!(late.sync(&manifest).await, Err(WriteBlobError::Store(_))));
    write_all(&next, &manifest, &bytes, [0, 1]).await;
    next.finish(&manifest).await.unwrap();
    assert!(object(&aws, &bucket, &format!("blobs/{}", manifest.blob())).await.unwrap() == bytes);
}

/// Whoever erases a blob holds its row while S3 is asked.
#[tokio::test]
async fn a_blob_that_is_held_up_costs_no_other_its_lease() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let bucket = aws.bucket().await;
    let records = database.records().await;
    let content = aws.content(&records, &bucket).await;
    let manifests = [6, 7].map(|seed| manifest(&noise(MIB, seed), Chunking::Fixed));
    for manifest in &manifests {
        content.begin(manifest).await.unwrap();
    }
    let [held_up, other] = manifests.map(|manifest| manifest.blob().as_bytes().to_vec());
    let pool = records.pool();
    sqlx::query("UPDATE blob_upload SET lease_until = now()").execute(pool).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM blob_upload WHERE hash = $1 FOR UPDATE").bind(held_up).execute(&mut *tx).await.unwrap();
    tokio::time::timeout(crate::fixture::DEADLINE / 4, content.renew_leases())
        .await
        .expect("it waits for none")
        .unwrap();
    let is_renewed = sqlx::query_scalar("SELECT lease_until > now() FROM blob_upload WHERE hash = $1").bind(other);
    assert!(is_renewed.fetch_one(pool).await.unwrap_or(false));
    tx.rollback().await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_not_the_blob_are_discarded_whole() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let bucket = aws.bucket().await;
    let records = database.records().await;
    let content = aws.content(&records, &bucket).await;
    for len in [100, 9 * MIB] {
        let bytes = noise(len, 5);
        let chunks: Vec<Chunk> =
            bytes.chunks(MIB).map(|chunk| Chunk { len: chunk.len() as u32, hash: ChunkHash::of(chunk) }).collect();
        // Every chunk is right, the whole is another blob.
        let liar = Manifest::new(BlobHash::of(b"something else"), Chunking::Fixed, chunks).unwrap();
        content.begin(&liar).await.unwrap();
        assert!(matches!(content.write(&liar, 0, Bytes::from_static(b"no")).await, Err(WriteBlobError::Mismatch)));
        write_all(&content, &liar, &bytes, 0..liar.chunks().len() as u32).await;
        assert!(matches!(content.finish(&liar).await, Err(WriteBlobError::Mismatch)));
        assert!(object(&aws, &bucket, &format!("blobs/{}", liar.blob())).await.is_none());
        assert_nothing_left(&aws, &bucket, &database).await;
        assert_eq!(content.begin(&liar).await.unwrap().count(), 0, "and it may be tried again");
        content.release(liar.blob()).await;
        sqlx::query("DELETE FROM blob_upload").execute(&database.pool()).await.unwrap();
    }
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let bucket = aws.bucket().await;
    let content = aws.content(&database.records().await, &bucket).await;
    let manifest = manifest(&[], Chunking::Fixed);
    content.begin(&manifest).await.unwrap();
    content.finish(&manifest).await.unwrap();
    assert_eq!(object(&aws, &bucket, &format!("blobs/{}", manifest.blob())).await.unwrap(), b"");
}

/// S3 goes away in the middle; what was made durable before is still there, and the rest is sent again later.
#[tokio::test]
async fn an_outage_of_s3_ends_the_session_and_loses_nothing() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let bucket = aws.bucket().await;
    let relay = Outage::before(&aws.address).await;
    let records = database.records().await;
    let content = Aws::at(&relay.address).content(&records, &bucket).await;
    let bytes = noise(10 * MIB, 6);
    let manifest = manifest(&bytes, Chunking::Fixed);
    content.begin(&manifest).await.unwrap();
    write_all(&content, &manifest, &bytes, 0..4).await;
    content.sync(&manifest).await.unwrap();
    relay.away();
    write_all(&content, &manifest, &bytes, 4..10).await;
    assert!(matches!(content.sync(&manifest).await, Err(WriteBlobError::Store(_))));
    content.release(manifest.blob()).await;
    relay.over();
    let have = content.begin(&manifest).await.unwrap();
    assert_eq!(have.missing().collect::<Vec<_>>(), (4..10).collect::<Vec<_>>());
    write_all(&content, &manifest, &bytes, 4..10).await;
    content.finish(&manifest).await.unwrap();
    assert!(object(&aws, &bucket, &format!("blobs/{}", manifest.blob())).await.unwrap() == bytes);
}

/// A new version of a text costs its difference, also when the version before the last is gone.
#[tokio::test]
async fn chunks_that_an_older_blob_holds_are_not_asked_for() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let bucket = aws.bucket().await;
    let content = aws.content(&database.records().await, &bucket).await;
    let mut bytes = noise(5 * MIB, 7);
    for version in 0..3 {
        let manifest = manifest(&bytes, Chunking::ContentDefined);
        let have = content.begin(&manifest).await.unwrap();
        let missing: Vec<u32> = have.missing().collect();
        if version > 0 {
            assert!(missing.len() <= 3, "{} of {} chunks are asked for", missing.len(), manifest.chunks().len());
        }
        write_all(&content, &manifest, &bytes, missing).await;
        content.finish(&manifest).await.unwrap();
        assert!(object(&aws, &bucket, &format!("blobs/{}", manifest.blob())).await.unwrap() == bytes);
        if version == 1 {
            let removed =
                sqlx::query("DELETE FROM stored_blob WHERE hash <> $1").bind(manifest.blob().as_bytes().as_slice());
            removed.execute(&database.pool()).await.unwrap();
        }
        bytes.insert(2_000_000, b'!');
    }
}

/// What the changed chunk was in the old version is named, and handed to who may have it.
#[tokio::test]
async fn a_changed_chunk_is_told_from_what_it_was() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let s3_bucket = aws.bucket().await;
    let records = database.records().await;
    let content = aws.content(&records, &s3_bucket).await;
    let old = noise(5 * MIB, 8);
    let old_manifest = manifest(&old, Chunking::ContentDefined);
    let (blob, first) = (old_manifest.blob(), old_manifest.chunks()[0].hash);
    assert_eq!(content.known_chunk(None, first).await.unwrap(), None, "nothing is here");
    let bucket = BucketId::Site(peer(1).node);
    let named = Blob { hash: Some(blob), size_bytes: old.len() as u64, media_type: "text/plain".into() };
    let record = named.to_record(bucket, Blob::record_id(blob), stamp(1, 0));
    records.apply(peer(1), bucket, vec![record], Seq(1)).await.unwrap();
    let have = content.begin(&old_manifest).await.unwrap();
    assert_eq!(content.bases(peer(1).node, &old_manifest, &have).await.unwrap(), Bases::new());
    write_all(&content, &old_manifest, &old, have.missing()).await;
    content.finish(&old_manifest).await.unwrap();

    let mut new = old.clone();
    new.insert(2_000_000, b'!');
    let new_manifest = manifest(&new, Chunking::ContentDefined);
    let have = content.begin(&new_manifest).await.unwrap();
    assert_eq!(content.bases(peer(2).node, &new_manifest, &have).await.unwrap(), Bases::new(), "it is of another site");
    let bases = content.bases(peer(1).node, &new_manifest, &have).await.unwrap();
    assert_eq!(bases.keys().copied().collect::<Vec<_>>(), have.missing().collect::<Vec<_>>());
    for (index, basis) in bases {
        let mut joined = Vec::new();
        for known in basis {
            let bytes = content.known_chunk(Some(peer(1).node), known).await.unwrap().expect("it is held");
            assert_eq!(ChunkHash::of(&bytes), known);
            assert_eq!(content.known_chunk(Some(peer(2).node), known).await.unwrap(), None, "it is of another site");
            joined.extend_from_slice(&bytes);
        }
        let patch = patch::make(&joined, &chunk(&new_manifest, &new, index)).expect("most of it is in the basis");
        assert!(patch.len() < 1000, "{} bytes", patch.len());
    }

    aws.s3().await.put_object().bucket(&s3_bucket).key(format!("blobs/{blob}")).send().await.unwrap();
    assert_eq!(content.known_chunk(None, first).await.unwrap(), None, "a damaged object is nobody's chunk");
}

#[tokio::test]
async fn what_records_name_is_wanted_until_it_is_here() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let s3_bucket = aws.bucket().await;
    let records = database.records().await;
    let content = aws.content(&records, &s3_bucket).await;
    let node = peer(1).node;
    let mut manifests = Vec::new();
    for (number, bucket) in
        [BucketId::Catalogue, BucketId::Site(node), BucketId::Site(peer(2).node)].into_iter().enumerate()
    {
        let manifest = manifest(&noise(1000, 100 + number as u64), Chunking::Fixed);
        let blob = Blob { hash: Some(manifest.blob()), size_bytes: 1000, media_type: "image/png".into() };
        let record = blob.to_record(bucket, Blob::record_id(manifest.blob()), stamp(1, 0));
        records.apply(peer(1), bucket, vec![record], Seq(1)).await.unwrap();
        manifests.push(manifest);
    }
    let mut expected: Vec<Wanted> = manifests[..2]
        .iter()
        .map(|manifest| Wanted { blob: manifest.blob(), class: Class::Pinned, size_bytes: 1000, from_bytes: 0 })
        .collect();
    expected.sort_by_key(|wanted| wanted.blob);
    assert_eq!(content.wanted(node, None, 10).await.unwrap(), expected, "not that of another site");
    assert_eq!(content.wanted(node, Some(expected[0].blob), 10).await.unwrap(), expected[1..]);

    let manifest = &manifests[0];
    content.begin(manifest).await.unwrap();
    content.write(manifest, 0, Bytes::from(noise(1000, 100))).await.unwrap();
    content.finish(manifest).await.unwrap();
    expected.retain(|wanted| wanted.blob != manifest.blob());
    assert_eq!(content.wanted(node, None, 10).await.unwrap(), expected);
    assert_eq!(content.manifest(node, manifest.blob()).await.unwrap().as_ref(), Some(manifest));
    assert_eq!(content.stored(manifest.blob()).await.unwrap().unwrap().media_type, "image/png");
    assert_eq!(content.manifest(node, manifests[1].blob()).await.unwrap(), None);
}

#[tokio::test]
async fn content_from_an_operator_is_named_by_what_it_is() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let bucket = aws.bucket().await;
    let content = aws.content(&database.records().await, &bucket).await;
    for len in [10, 20 * MIB] {
        let bytes = noise(len, 8);
        let intake = |expected, broken: bool| {
            let mut pieces: Vec<Result<Bytes, &'static str>> =
                bytes.chunks(300_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            if broken {
                pieces.push(Err("cut"));
            }
            let body = futures::stream::iter(pieces).boxed();
            Intake { media_type: "video/mp4".into(), expected, size_bytes: None, body }
        };
        assert!(content.take_in(intake(None, true)).await.is_err());
        assert!(content.take_in(intake(Some(BlobHash::of(b"other")), false)).await.is_err());
        assert_nothing_left(&aws, &bucket, &database).await;
        let (stored, is_new) = content.take_in(intake(Some(BlobHash::of(&bytes)), false)).await.unwrap();
        assert!(is_new && stored.hash == BlobHash::of(&bytes));
        assert!(object(&aws, &bucket, &format!("blobs/{}", stored.hash)).await.unwrap() == bytes);
        assert!(!content.take_in(intake(None, false)).await.unwrap().1, "it is here already");
        assert_nothing_left(&aws, &bucket, &database).await;
        let middle: Vec<Bytes> = content.stream(stored.hash, 3..9).map(|bytes| bytes.unwrap()).collect().await;
        assert_eq!(middle.concat(), bytes[3..9]);
    }
}

#[tokio::test]
async fn what_nobody_comes_back_for_is_removed() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let bucket = aws.bucket().await;
    let content = aws.content(&database.records().await, &bucket).await;
    let bytes = noise(10 * MIB, 9);
    let manifest = manifest(&bytes, Chunking::Fixed);
    content.begin(&manifest).await.unwrap();
    write_all(&content, &manifest, &bytes, 0..9).await;
    content.sync(&manifest).await.unwrap();
    content.release(manifest.blob()).await;
    content.sweep().await.unwrap();
    assert_eq!(content.begin(&manifest).await.unwrap().count(), 9, "it is not old enough");
    content.release(manifest.blob()).await;
    sqlx::query("UPDATE blob_upload SET updated_at = now() - interval '30 days'")
        .execute(&database.pool())
        .await
        .unwrap();
    content.sweep().await.unwrap();
    assert_nothing_left(&aws, &bucket, &database).await;
}

/// S3 lists so many keys at a time; here those of uploads that live come first.
#[tokio::test]
async fn what_nobody_comes_back_for_is_found_behind_whatever_is_still_needed() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let bucket = aws.bucket().await;
    let config = Config { bucket: bucket.clone(), abandoned_after_hours: 0, sweep_keys_max: 10, ..Config::default() };
    let content = aws.content_of(&database.records().await, config).await;
    let s3 = aws.s3().await;
    let put = async |key: String| s3.put_object().bucket(&bucket).key(key).body(vec![1].into()).send().await.unwrap();
    for number in 0..10 {
        put(format!("staging/a-{number}")).await;
    }
    let live = "INSERT INTO blob_upload (hash, manifest, claim, owner, lease_until) VALUES ('x', '', 1, gen_random_uuid(), 'infinity'); \
         INSERT INTO blob_upload_staged (hash, start_byte, end_byte, object_key) \
            SELECT 'x', at, at + 1, 'staging/a-' || at FROM generate_series(0, 9) AS at";
    sqlx::raw_sql(live).execute(&database.pool()).await.unwrap();
    put("staging/b".into()).await;
    for _ in 0..2 {
        content.sweep().await.unwrap();
    }
    assert!(object(&aws, &bucket, "staging/b").await.is_none());
    assert!(object(&aws, &bucket, "staging/a-9").await.is_some());
    // And from the beginning again.
    put("staging/a".into()).await;
    content.sweep().await.unwrap();
    assert!(object(&aws, &bucket, "staging/a").await.is_none());
}

/// What S3 has lost or holds damaged is not here, as far as a session is concerned: it goes on with the rest.
#[tokio::test]
async fn content_that_s3_lost_or_damaged_is_not_here_and_no_failure() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let bucket = aws.bucket().await;
    let records = database.records().await;
    let content = aws.content(&records, &bucket).await;
    let (bytes, manifest) = stored(&content, &records, 3 * MIB, 30).await;
    let hash = manifest.blob();
    let read = async || {
        let mut here = Vec::new();
        for index in 0..3 {
            here.push(content.read(&manifest, index).await.unwrap().is_some());
        }
        here
    };
    assert_eq!(read().await, [true, true, true]);

    let key = format!("blobs/{hash}");
    let s3 = aws.s3().await;
    let put = |bytes: Vec<u8>| s3.put_object().bucket(&bucket).key(&key).body(bytes.into()).send();
    let mut damaged = bytes.clone();
    damaged[MIB + 5] ^= 1;
    put(damaged).await.unwrap();
    assert_eq!(read().await, [true, false, true]);
    put(bytes[..MIB + 9].to_vec()).await.unwrap();
    assert_eq!(read().await, [true, false, false]);
    s3.delete_object().bucket(&bucket).key(&key).send().await.unwrap();
    assert_eq!(read().await, [false, false, false]);

    assert!(content.manifest(peer(1).node, hash).await.unwrap().is_some());
    sqlx::query("UPDATE manifest SET encoding = 'nonsense'").execute(&database.pool()).await.unwrap();
    assert_eq!(content.manifest(peer(1).node, hash).await.unwrap(), None);
}

/// What was lost comes again from whoever has it, once an operator says so; what was not is left alone.
#[tokio::test]
async fn damaged_content_is_listed_and_wanted_again_when_an_operator_says_so() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let bucket = aws.bucket().await;
    let records = database.records().await;
    let content = aws.content(&records, &bucket).await;
    let (bytes, manifest) = stored(&content, &records, 3 * MIB, 31).await;
    let hash = manifest.blob();
    assert!(content.damaged(None, 10).await.unwrap().is_empty());
    assert_eq!(content.repair(hash).await.unwrap(), None, "nothing is known of it");

    let key = format!("blobs/{hash}");
    let s3 = aws.s3().await;
    let put = |bytes: Vec<u8>| s3.put_object().bucket(&bucket).key(&key).body(bytes.into()).send();
    let mut damaged = bytes.clone();
    damaged[MIB + 5] ^= 1;
    put(damaged.clone()).await.unwrap();
    assert_eq!(content.read(&manifest, 1).await.unwrap(), None);
    let shown = content.damaged(None, 10).await.unwrap();
    assert_eq!((shown[0].blob, shown[0].wanted_since.is_some()), (hash, false));
    assert!(shown[0].what.contains("chunk 1"), "{shown:?}");
    assert!(content.wanted(peer(1).node, None, 10).await.unwrap().is_empty(), "not by itself");
    put(bytes.clone()).await.unwrap();
    assert_eq!(content.repair(hash).await.unwrap(), Some(Repair::Sound));
    assert!(content.damaged(None, 10).await.unwrap().is_empty());

    put(damaged).await.unwrap();
    assert_eq!(content.read(&manifest, 1).await.unwrap(), None);
    let told = content.wanted_again();
    assert_eq!(content.repair(hash).await.unwrap(), Some(Repair::Wanted));
    assert!(told.has_changed().unwrap(), "those that are connected hear of it");
    assert_eq!(content.wanted(peer(1).node, None, 10).await.unwrap()[0].blob, hash);
    assert_eq!(content.manifest(peer(1).node, hash).await.unwrap(), None, "it is not here");
    assert!(content.damaged(None, 10).await.unwrap()[0].wanted_since.is_some());
    assert_eq!(content.repair(hash).await.unwrap(), Some(Repair::Wanted), "again changes nothing");
    // As a record leaves it that came in while it was repaired.
    let as_stored =
        "UPDATE blob SET stored = true; INSERT INTO damaged_blob (hash, what, wanted_since) VALUES ('x', '', now())";
    sqlx::raw_sql(as_stored).execute(&database.pool()).await.unwrap();
    content.sweep().await.unwrap();
    assert_eq!(
        database.value::<i64>("SELECT count(*) FROM damaged_blob").await,
        1,
        "what no record names is forgotten"
    );
    assert_eq!(content.wanted(peer(1).node, None, 10).await.unwrap()[0].blob, hash);

    assert_eq!(content.begin(&manifest).await.unwrap().count(), 0, "all of it comes again");
    write_all(&content, &manifest, &bytes, 0..3).await;
    content.finish(&manifest).await.unwrap();
    assert!(object(&aws, &bucket, &key).await.unwrap() == bytes, "byte for byte");
    assert!(content.damaged(None, 10).await.unwrap().is_empty());
    assert!(content.wanted(peer(1).node, None, 10).await.unwrap().is_empty());
    assert_nothing_left(&aws, &bucket, &database).await;
}

/// A record that was written before the removal, or says nothing new, shows the content all the same.
#[tokio::test]
async fn content_that_an_operator_removed_is_wanted_once_a_record_shows_it() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let bucket = aws.bucket().await;
    let records = database.records().await;
    let config = Config { bucket: bucket.clone(), removal_grace_minutes: 0, ..Config::default() };
    let content = aws.content_of(&records, config).await;
    let (_, manifest) = stored(&content, &records, 1000, 32).await;
    let hash = manifest.blob();
    let wanted = async || content.wanted(peer(1).node, None, 10).await.unwrap().len();

    assert_eq!(content.remove(hash).await.unwrap(), Some(true));
    assert_eq!(wanted().await, 0, "nothing shows it");
    let author = Author { name: "Ana".into(), portrait: Some(hash), ..Author::default() };
    let author = author.to_record(BucketId::Catalogue, new_id(), stamp(1, -3_600_000));
    records.apply(peer(1), BucketId::Catalogue, vec![author], Seq(2)).await.unwrap();
    assert_eq!(wanted().await, 1);

    // As it is left where the record came in while the content was removed.
    sqlx::query("UPDATE blob SET stored = true").execute(&database.pool()).await.unwrap();
    assert_eq!(wanted().await, 0);
    content.sweep().await.unwrap();
    assert!(object(&aws, &bucket, &format!("blobs/{hash}")).await.is_none());
    assert_eq!(wanted().await, 1);
}
