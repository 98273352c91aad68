//! The outbox and its publisher.

use std::collections::{BTreeMap, BTreeSet};

use alexandria_cloud_bridge::events::publisher::Round;
use alexandria_cloud_bridge::events::{Config, Publisher};
use alexandria_cloud_bridge::metrics::Metrics;
use alexandria_cloud_bridge::postgres::Records;
use alexandria_sync::id::{RecordId, Seq};
use serde_json::Value;

use crate::fixture::{Aws, Database, Outage, a_collection, media, new_id, peer, stamp, wait_for};

async fn publisher(records: &Records, aws: &Aws, topic_arn: &str) -> Publisher {
    let config = Config { topic_arn: Some(topic_arn.into()), ..Config::default() };
    let client = aws_sdk_sns::Client::new(&aws.sdk().await);
    Publisher::new(records.clone(), client, &config, Metrics::new()).unwrap()
}

/// Publishes until nothing is left.
async fn drain(database: &Database, publisher: &Publisher) {
    wait_for("the outbox to empty", || async {
        publisher.publish_due().await.unwrap();
        (database.value::<i64>("SELECT count(*) FROM outbox").await == 0).then_some(())
    })
    .await;
}

/// At least once, the same id every time, in the order of the changes of each record: while answers are lost, while the
/// topic is away, and with two publishers at work.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_change_is_told_at_least_once_under_one_id_and_in_order() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let (topic, queue) = aws.topic_and_queue().await;
    let relay = Outage::before(&aws.address).await;
    let records = database.records().await;
    let bucket = a_collection();
    let ids: Vec<RecordId> = (0..30).map(|_| new_id()).collect();
    let mut created = Vec::new();
    for id in &ids {
        created.push(media(bucket, *id, "first", stamp(1, 0)));
    }
    records.apply(peer(1), bucket, created.clone(), Seq(1)).await.unwrap();
    let updated = ids.iter().map(|id| media(bucket, *id, "second", stamp(1, 10))).collect();
    records.apply(peer(1), bucket, updated, Seq(2)).await.unwrap();
    let deleted = created[..10].iter().map(|record| record.deleted(stamp(2, 20))).collect();
    records.apply(peer(2), bucket, deleted, Seq(1)).await.unwrap();
    let known: Vec<sqlx::types::Uuid> =
        sqlx::query_scalar("SELECT event_id FROM outbox").fetch_all(&database.pool()).await.unwrap();
    assert_eq!(known.len(), 70);

    let first = publisher(&records, &Aws::at(&relay.address), &topic).await;
    relay.lose_answers();
    for _ in 0..3 {
        assert_eq!(first.publish_due().await.unwrap(), Round::Failed);
    }
    relay.away();
    assert_eq!(first.publish_due().await.unwrap(), Round::Failed);
    let left: i64 = database.value("SELECT count(*) FROM outbox").await;
    assert_eq!(left, 70, "nothing is forgotten before the topic has said yes");
    relay.over();
    let second = publisher(&database.records().await, &aws, &topic).await;
    tokio::join!(drain(&database, &first), drain(&database, &second));

    let mut heard = queue.take().await;
    assert!(heard.len() > 70, "what was published and not answered is published again");
    let ids_heard: BTreeSet<String> = heard.iter().map(|(body, _)| text(&body["id"])).collect();
    assert_eq!(ids_heard, known.iter().map(ToString::to_string).collect());
    // The first time that each event was heard, in order.
    let mut first_heard = BTreeSet::new();
    heard.retain(|(body, _)| first_heard.insert(text(&body["id"])));
    let mut by_subject: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (body, attributes) in &heard {
        by_subject.entry(text(&body["subject"])).or_default().push(text(&body["type"]));
        assert_eq!(body["specversion"], "1.0");
        for name in ["type", "kind", "bucket", "site", "priority", "id", "service", "dispatch_time", "traceparent"] {
            assert_eq!(attributes[name]["DataType"], "String", "{name} in {attributes}");
        }
        assert_eq!(attributes["id"]["StringValue"], body["id"]);
        assert_eq!(attributes["bucket"]["StringValue"], bucket.to_string());
    }
    assert_eq!(by_subject.len(), 30);
    for id in &created[..10] {
        let told = &by_subject[&format!("media/{}", id.key.id)];
        assert_eq!(told, &["MEDIA_CREATED", "MEDIA_UPDATED", "MEDIA_DELETED"]);
    }
}

/// While many records come in, an event waits; but no longer than was said, and not for a few records.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_give_way_to_many_records_and_never_longer_than_was_said() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let (topic, _queue) = aws.topic_and_queue().await;
    let (records, bucket, other_bucket) = (database.records().await, a_collection(), a_collection());
    let publisher = publisher(&records, &aws, &topic).await;
    let page = |bucket, count| -> Vec<_> { (0..count).map(|_| media(bucket, new_id(), "many", stamp(1, 0))).collect() };
    records.apply(peer(1), bucket, page(bucket, 10), Seq(10)).await.unwrap();
    drain(&database, &publisher).await;

    // A page that cannot get on: somebody else has the bucket's sequencer.
    let mut other = database.pool().begin().await.unwrap();
    sqlx::query("SELECT head FROM bucket FOR UPDATE").execute(&mut *other).await.unwrap();
    let large = tokio::spawn({
        let (records, page) = (records.clone(), page(bucket, 1_000));
        async move { records.apply(peer(1), bucket, page, Seq(1_010)).await }
    });
    wait_for("the page to wait", || async {
        let query = "SELECT count(*) FROM pg_stat_activity \
             WHERE datname = current_database() AND wait_event_type = 'Lock'";
        (database.value::<i64>(query).await > 0).then_some(())
    })
    .await;
    records.apply(peer(1), other_bucket, page(other_bucket, 10), Seq(10)).await.unwrap();
    assert_eq!(publisher.publish_due().await.unwrap(), Round::Idle, "what was just told waits for the page");
    sqlx::query("UPDATE outbox SET created_at = now() - interval '11 seconds'")
        .execute(&database.pool())
        .await
        .unwrap();
    assert!(matches!(publisher.publish_due().await.unwrap(), Round::Published(_)), "this has waited for long enough");
    other.rollback().await.unwrap();
    large.await.unwrap().unwrap();
    wait_for("the page's own events to be due", || async {
        matches!(publisher.publish_due().await.unwrap(), Round::Published(_)).then_some(())
    })
    .await;
}

/// An event is there if and only if its change is: what was superseded is not told.
#[tokio::test]
async fn only_what_changed_is_told() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let record = media(bucket, new_id(), "once", stamp(1, 0));
    for round in 1..=3 {
        records.apply(peer(1), bucket, vec![record.clone()], Seq(round)).await.unwrap();
    }
    let told: Vec<String> = sqlx::query_scalar("SELECT type FROM outbox").fetch_all(&database.pool()).await.unwrap();
    assert_eq!(told, ["MEDIA_CREATED"]);
    let title: String = database.value("SELECT data->'fields'->>'title' FROM outbox").await;
    assert_eq!(title, "once");
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
