//! How many buckets there may be, who may make them, and how much of one is read for a page.

use alexandria_cloud_bridge::postgres::{Config, Edit, Records};
use alexandria_sync::id::{BucketId, Seq};
use alexandria_sync::record::{FieldTag, Kind, Record, RecordKey, Value};
use alexandria_sync::store::{Peer, RecordStore};

use crate::fixture::{Database, Outage, a_collection, media, new_id, peer, stamp};

/// Buckets that a session takes, as the protocol has it.
const OFFERED_MAX: usize = 100_000;

async fn bring(records: &Records, from: Peer, bucket: BucketId) -> Result<(), String> {
    let sent = vec![media(bucket, new_id(), "x", stamp(1, 0))];
    let applied = records.apply(from, bucket, sent, Seq(rand::random::<u32>().into())).await;
    applied.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn an_empty_page_makes_no_bucket_and_moves_the_cursor_of_one_that_is_there() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    records.apply(peer(1), bucket, Vec::new(), Seq(7)).await.unwrap();
    assert_eq!(records.heads(None).await.unwrap(), []);
    assert_eq!(records.cursor(peer(1).node, bucket).await.unwrap(), None);
    bring(&records, peer(2), bucket).await.unwrap();
    records.apply(peer(1), bucket, Vec::new(), Seq(7)).await.unwrap();
    assert_eq!(records.cursor(peer(1).node, bucket).await.unwrap().map(|cursor| cursor.seq), Some(Seq(7)));
}

#[tokio::test]
async fn a_node_makes_so_many_buckets_and_all_that_are_there_go_on() {
    let Some(database) = Database::new().await else { return };
    let records = database.records_of(&Config { node_buckets_max: 2, buckets_max: 4, ..database.config() }).await;
    let [first, second, third, of_two, last, one_more] = std::array::from_fn(|_| a_collection());
    for bucket in [BucketId::Catalogue, BucketId::Site(peer(1).node), first, second] {
        bring(&records, peer(1), bucket).await.unwrap();
    }
    let refused = bring(&records, peer(1), third).await.unwrap_err();
    for named in [peer(1).node.to_string(), third.to_string(), "postgres.node_buckets_max".into()] {
        assert!(refused.contains(&named), "{refused}");
    }
    for bucket in [of_two, last] {
        bring(&records, peer(2), bucket).await.unwrap();
    }
    let refused = bring(&records, peer(3), one_more).await.unwrap_err();
    for named in [peer(3).node.to_string(), one_more.to_string(), "postgres.buckets_max".into()] {
        assert!(refused.contains(&named), "{refused}");
    }
    let made_here = media(one_more, new_id(), "x", stamp(1, 0));
    let edit = |_: &_| Ok::<_, std::convert::Infallible>(Edit { records: vec![made_here.clone()], answer: () });
    assert!(records.edit(one_more, &[(made_here.key.kind, made_here.key.id)], edit).await.is_err(), "nor here");

    for bucket in [first, second, of_two, last, BucketId::Catalogue] {
        bring(&records, peer(1), bucket).await.unwrap();
    }
    bring(&records, peer(3), BucketId::Site(peer(3).node)).await.unwrap();
    assert_eq!(records.heads(None).await.unwrap().len(), 7);
}

/// A database that was filled before there was a limit does not shut anybody out.
#[tokio::test]
async fn nobody_is_offered_more_buckets_than_a_session_takes() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let (oldest, site) = (a_collection(), BucketId::Site(peer(1).node));
    bring(&records, peer(1), oldest).await.unwrap();
    let many = "INSERT INTO bucket (name) SELECT 'collection/' || gen_random_uuid() FROM generate_series(1, 100010)";
    sqlx::raw_sql(many).execute(&database.pool()).await.unwrap();
    bring(&records, peer(1), site).await.unwrap();
    let heads = records.for_node(peer(1).node).heads().await.unwrap();
    assert_eq!(heads.len(), OFFERED_MAX);
    assert!(heads.iter().any(|head| head.bucket == oldest) && heads.iter().any(|head| head.bucket == site));
    assert!(heads.is_sorted_by_key(|head| head.bucket.to_string()));
}

/// A node on a slow line asks for little at a time, of records that are large.
#[tokio::test]
async fn a_page_takes_no_more_from_the_database_than_it_holds() {
    let Some(database) = Database::new().await else { return };
    let relay = Outage::before(&database.address()).await;
    let config = Config { url: database.url_by(&relay.address), connections_max: 1, ..database.config() };
    let records = database.records_of(&config).await;
    let bucket = a_collection();
    let large = |number| {
        let key = RecordKey { bucket, kind: Kind(60_000), id: new_id() };
        Record::new(key, [(FieldTag::lww(3), Value::encode(&"x".repeat(100_000)))], stamp(1, number)).unwrap()
    };
    let sent: Vec<Record> = (0..200).map(large).collect();
    records.apply(peer(1), bucket, sent.clone(), Seq(200)).await.unwrap();

    let before = relay.answered_bytes();
    let page = records.page(bucket, Seq(0), Some(peer(2)), (2_000, 250_000)).await.unwrap();
    assert_eq!((page.records.len(), page.next, page.more), (2, Seq(2), true));
    // The only connection is free again once all that it was to bring has come.
    records.head(bucket).await.unwrap();
    let moved = relay.answered_bytes() - before;
    assert!(moved < 500_000, "{moved} bytes were moved for a page of 250,000");

    // However little is asked for, each record comes, and comes once.
    for budget_bytes in [1, 100_000, 250_000, 20_000_000, u32::MAX] {
        let (mut read, mut after) = (Vec::new(), Seq(0));
        loop {
            let page = records.page(bucket, after, Some(peer(2)), (2_000, budget_bytes)).await.unwrap();
            after = page.next;
            read.extend(page.records);
            if !page.more {
                break;
            }
        }
        assert_eq!((read.len(), after), (200, Seq(200)), "by {budget_bytes} bytes");
        assert!(read == sent, "by {budget_bytes} bytes");
    }
}
