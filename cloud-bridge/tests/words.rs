//! The words that the catalogue is searched in, where they are made later than their rows.

use alexandria_cloud_bridge::postgres::Records;
use alexandria_sync::id::{BucketId, RecordId, Seq};

use crate::fixture::{Database, a_collection, media, new_id, peer, stamp};

/// Enough to be many.
const MANY: usize = 1_000;

/// The ids of media with a word in their titles.
async fn found(database: &Database, word: &str) -> Vec<RecordId> {
    let statement = "SELECT id FROM media WHERE words @@ plainto_tsquery('simple', $1) ORDER BY id";
    let ids = sqlx::query_scalar(statement).bind(word).fetch_all(&database.pool()).await.unwrap();
    ids.into_iter().map(|id: uuid::Uuid| RecordId::from_bytes(*id.as_bytes())).collect()
}

/// Many media, all with a word in their titles.
async fn send_many(records: &Records, bucket: BucketId, ids: &[RecordId], word: &str, next: u64) {
    let page = ids.iter().map(|&id| media(bucket, id, &format!("a {word}"), stamp(1, next as i64))).collect();
    records.apply(peer(1), bucket, page, Seq(next)).await.unwrap();
}

#[tokio::test]
async fn what_comes_in_by_thousands_is_found_by_its_words_a_moment_later() {
    let Some(database) = Database::new().await else { return };
    let (records, bucket) = (database.records().await, a_collection());
    let mut ids: Vec<RecordId> = (0..MANY).map(|_| new_id()).collect();
    ids.sort_unstable();
    send_many(&records, bucket, &ids, "heron", 1).await;
    assert_eq!(database.value::<i64>("SELECT count(*) FROM media WHERE title = 'a heron'").await, MANY as i64);
    assert_eq!(found(&database, "heron").await, [], "not yet");

    // Somebody changes one meanwhile, and deletes another: what they do counts.
    records.apply(peer(2), bucket, vec![media(bucket, ids[0], "an egret", stamp(2, 5))], Seq(1)).await.unwrap();
    assert_eq!(found(&database, "egret").await, ids[..1]);
    sqlx::query("DELETE FROM media WHERE title = 'a heron' AND id = $1")
        .bind(uuid::Uuid::from_bytes(*ids[1].as_bytes()))
        .execute(&database.pool())
        .await
        .unwrap();

    // Another process does it, which takes in nothing itself.
    assert_eq!(database.records().await.make_due_words().await.unwrap(), MANY as u64 - 1);
    assert_eq!(found(&database, "heron").await, ids[2..]);
    assert_eq!(found(&database, "egret").await, ids[..1]);
    assert_eq!(database.value::<i64>("SELECT count(*) FROM words_due").await, 0);
}

#[tokio::test]
async fn a_row_that_is_written_again_is_found_by_its_earlier_words_until_then() {
    let Some(database) = Database::new().await else { return };
    let (records, bucket) = (database.records().await, a_collection());
    let mut ids: Vec<RecordId> = (0..MANY).map(|_| new_id()).collect();
    ids.sort_unstable();
    for (next, word) in [(1, "heron"), (2, "stork")] {
        send_many(&records, bucket, &ids, word, next).await;
        let before = if next == 1 { 0 } else { MANY };
        assert_eq!(found(&database, "heron").await.len(), before);
        assert_eq!(found(&database, word).await, [], "not yet");
        database.records().await.make_due_words().await.unwrap();
        assert_eq!(found(&database, word).await, ids);
    }
    assert_eq!(found(&database, "heron").await, []);
}

/// As long as many come in, words that have not waited long are left for later; those that have are made.
#[tokio::test]
async fn words_wait_while_many_records_come_in_but_not_for_ever() {
    let Some(database) = Database::new().await else { return };
    let (patient, bucket) = (database.records().await, a_collection());
    let ids: Vec<RecordId> = (0..MANY).map(|_| new_id()).collect();
    send_many(&patient, bucket, &ids, "heron", 1).await;
    assert_eq!(patient.make_due_words().await.unwrap(), 0, "more may follow");
    sqlx::query("UPDATE words_due SET due_since = due_since - interval '1 hour'")
        .execute(&database.pool())
        .await
        .unwrap();
    assert_eq!(patient.make_due_words().await.unwrap(), MANY as u64);
}
