//! Leases: which tombstones the bridge forgets, when, and what it tells of it.

use std::time::Duration;

use alexandria_cloud_bridge::postgres::Records;
use alexandria_sync::absence::may_give;
use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Erasure, Media, Typed};
use alexandria_sync::hlc::DRIFT_BOUND_MS;
use alexandria_sync::id::{BucketId, Seq};
use alexandria_sync::record::{Record, RecordKey};

use crate::fixture::{Database, a_collection, media, new_id, peer, stamp};

const LEASE: Duration = Duration::from_hours(180 * 24);

async fn receive(records: &Records, bucket: BucketId, sent: Vec<Record>) {
    records.apply(peer(1), bucket, sent, Seq(rand::random::<u32>().into())).await.unwrap();
}

/// A medium that was here and was deleted; returns its key.
async fn deleted(records: &Records, bucket: BucketId) -> RecordKey {
    let medium = media(bucket, new_id(), "deleted", stamp(1, -5_000));
    let tombstone = medium.deleted(stamp(1, -4_000));
    receive(records, bucket, vec![medium]).await;
    let key = tombstone.key;
    receive(records, bucket, vec![tombstone]).await;
    key
}

async fn keys(records: &Records, bucket: BucketId) -> Vec<RecordKey> {
    let page = records.page(bucket, Seq(0), None, (1000, u32::MAX)).await.unwrap();
    page.records.into_iter().map(|record| record.key).collect()
}

/// As if all that has happened so far had happened long ago.
async fn days_pass(database: &Database, days: u32) {
    let statement = format!("UPDATE feed_mark SET at = at - interval '{days} days'");
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&database.pool()).await.unwrap();
}

async fn add_node(database: &Database, tells_standing: bool, last_session_days_ago: u32) {
    let statement = format!(
        "INSERT INTO node (id, name, site, key_fingerprint, certificate_pem, certificate_fingerprint, iot_state, \
            last_session_at, tells_standing) \
         VALUES (gen_random_uuid(), 'a', 'b', '', '', '', 'registered', \
            now() - interval '{last_session_days_ago} days', {tells_standing})"
    );
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&database.pool()).await.unwrap();
}

#[tokio::test]
async fn a_tombstone_goes_after_a_lease_and_every_hello_tells_so_before() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let live = media(bucket, new_id(), "stays", stamp(1, -5_000));
    receive(&records, bucket, vec![live.clone()]).await;
    let old = deleted(&records, bucket).await;
    let before = records.standing().await.unwrap();
    assert_eq!(before.collected_ms, 0);
    assert_eq!(records.collect_tombstones(LEASE).await.unwrap(), 0, "it has just come");
    days_pass(&database, 179).await;
    assert_eq!(records.collect_tombstones(LEASE).await.unwrap(), 0, "a node may have been away since");
    assert_eq!(records.standing().await.unwrap().collected_ms, 0, "nobody has to read anew for nothing");
    days_pass(&database, 10).await;
    let young = deleted(&records, bucket).await;

    let head = records.head(bucket).await.unwrap();
    assert_eq!(records.collect_tombstones(LEASE).await.unwrap(), 1);
    assert_eq!(keys(&records, bucket).await, [live.key, young]);
    assert!(!keys(&records, bucket).await.contains(&old));
    assert_eq!(records.head(bucket).await.unwrap(), head, "feeds are numbered on");
    let now = records.standing().await.unwrap();
    let lease_ms = LEASE.as_millis() as u64;
    assert!(now.collected_ms > 0 && now.collected_ms < now.in_step_ms - lease_ms, "{now:?}");
    let away = |days: u64| alexandria_sync::absence::Standing {
        in_step_ms: now.in_step_ms - days * 24 * 3600 * 1000,
        ..Default::default()
    };
    assert!(may_give(away(179), now), "its lease lives");
    assert!(!may_give(away(190), now), "it may hold what was deleted");
    assert_eq!(records.collect_tombstones(LEASE).await.unwrap(), 0);
}

#[tokio::test]
async fn while_an_old_node_has_a_lease_nothing_is_forgotten() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let old = deleted(&records, bucket).await;
    records.collect_tombstones(LEASE).await.unwrap();
    days_pass(&database, 200).await;
    add_node(&database, true, 1).await;
    add_node(&database, false, 100).await;
    assert_eq!(records.collect_tombstones(LEASE).await.unwrap(), 0);
    assert_eq!(keys(&records, bucket).await, [old]);
    sqlx::query("UPDATE node SET last_session_at = now() - interval '181 days' WHERE NOT tells_standing")
        .execute(&database.pool())
        .await
        .unwrap();
    assert_eq!(records.collect_tombstones(LEASE).await.unwrap(), 1);
}

#[tokio::test]
async fn tombstones_that_are_still_needed_stay() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let (plain, erased) = (deleted(&records, bucket).await, deleted(&records, bucket).await);
    records.erase(Media::KIND, erased.id).await.unwrap();
    // A version comes from a clock that is far ahead, then the deletion.
    let aside = new_id();
    let ahead = media(bucket, aside, "aside", stamp(1, DRIFT_BOUND_MS as i64 + 3_600_000));
    let tombstone = ahead.deleted(stamp(1, -4_000));
    receive(&records, bucket, vec![ahead]).await;
    receive(&records, bucket, vec![tombstone.clone()]).await;
    records.collect_tombstones(LEASE).await.unwrap();
    days_pass(&database, 200).await;
    assert_eq!(records.collect_tombstones(LEASE).await.unwrap(), 1);
    let left = keys(&records, bucket).await;
    assert!(!left.contains(&plain) && left.contains(&erased) && left.contains(&tombstone.key));
    assert!(left.iter().any(|key| key.kind == Erasure::KIND));
}

/// The right to be forgotten does not end with the tombstone.
#[tokio::test]
async fn what_was_deleted_and_forgotten_can_still_be_erased() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let cover = BlobHash::of(b"a cover");
    let medium = Media { title: "gone".into(), cover: Some(cover), ..Media::default() };
    let medium = medium.to_record(bucket, new_id(), stamp(1, -5_000));
    receive(&records, bucket, vec![medium.clone()]).await;
    receive(&records, bucket, vec![medium.deleted(stamp(1, -4_000))]).await;
    records.collect_tombstones(LEASE).await.unwrap();
    days_pass(&database, 200).await;
    assert_eq!(records.collect_tombstones(LEASE).await.unwrap(), 1);
    records.erase(Media::KIND, medium.key.id).await.unwrap();
    let page = records.page(bucket, Seq(0), None, (1000, u32::MAX)).await.unwrap();
    let erasure = page.records.iter().find_map(Erasure::from_record).unwrap();
    assert_eq!(erasure.blobs, [cover]);
}
