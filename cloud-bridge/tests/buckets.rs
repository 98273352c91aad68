//! How many buckets there may be, and who may make them.

use alexandria_cloud_bridge::postgres::{Config, Edit, Records};
use alexandria_sync::id::{BucketId, Seq};
use alexandria_sync::store::{Peer, RecordStore};

use crate::fixture::{Database, a_collection, media, new_id, peer, stamp};

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
