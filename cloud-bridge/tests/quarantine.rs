//! What is set aside: bounded for each sender, shown, let in, thrown away.

use alexandria_cloud_bridge::metrics::Metrics;
use alexandria_cloud_bridge::postgres::quarantine::ReleaseError;
use alexandria_cloud_bridge::postgres::{Config, RecordStoreError, Records};
use alexandria_sync::domain::{Media, Typed};
use alexandria_sync::hlc::DRIFT_BOUND_MS;
use alexandria_sync::id::{BucketId, RecordId, Seq};
use alexandria_sync::quarantine::{QuarantineId, QuarantineUse, Release, Released};
use alexandria_sync::record::{FieldTag, Record, Value};

use crate::fixture::{Database, a_collection, media, new_id, peer, stamp};

/// Ahead of any trusted clock for longer than a test takes.
const AHEAD_MS: i64 = DRIFT_BOUND_MS as i64 + 3_600_000;

fn ahead(bucket: BucketId, node: u8, title: &str) -> Record {
    media(bucket, new_id(), title, stamp(node, AHEAD_MS))
}

async fn small(database: &Database) -> Records {
    let config = Config { quarantine_records_max: 2, ..database.config() };
    Records::open(database.pool(), &config, true, Metrics::new()).await.unwrap()
}

/// Invariant 9 for the quarantine: one wrong clock fills its own share, and nothing of it is dropped without a word.
#[tokio::test]
async fn a_full_quarantine_refuses_pages_of_its_sender_only_and_keeps_their_cursor() {
    let Some(database) = Database::new().await else { return };
    let records = small(&database).await;
    let bucket = a_collection();
    let (first, second, third) = (ahead(bucket, 1, "1"), ahead(bucket, 1, "2"), ahead(bucket, 1, "3"));
    records.apply(peer(1), bucket, vec![first.clone(), second, first.clone()], Seq(3)).await.unwrap();

    let fine = media(bucket, new_id(), "fine", stamp(1, 0));
    let refused = records.apply(peer(1), bucket, vec![fine.clone(), third.clone()], Seq(5)).await;
    assert!(matches!(refused, Err(RecordStoreError::QuarantineFull { node, .. }) if node == peer(1).node));
    let cursor = records.cursor(peer(1).node, bucket).await.unwrap().unwrap();
    assert_eq!(cursor.seq, Seq(3), "the page comes again");
    let stored: i64 = database.value("SELECT count(*) FROM record").await;
    assert_eq!(stored, 0, "nothing of the page was applied");

    records.apply(peer(2), bucket, vec![ahead(bucket, 2, "of another node")], Seq(1)).await.unwrap();
    records.apply(peer(1), bucket, vec![fine, first.clone()], Seq(4)).await.unwrap();
    assert!(records.drop_quarantined(QuarantineId::of(&first)).await.unwrap());
    records.apply(peer(1), bucket, vec![third], Seq(5)).await.unwrap();
    assert_eq!(records.quarantine_use().await.unwrap().records, 3);
}

#[tokio::test]
async fn an_operator_sees_who_wrote_what_is_set_aside_and_how_far_ahead_it_is() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    for number in 0..5 {
        let sender = peer(1 + number % 2);
        let record = ahead(bucket, 7, &number.to_string());
        records.apply(sender, bucket, vec![record], Seq(u64::from(number) + 1)).await.unwrap();
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = records.quarantined(after, None, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page);
    }
    assert_eq!(seen.len(), 5);
    for shown in &seen {
        assert_eq!((shown.bucket, shown.kind.as_str(), shown.deleted), (bucket, Media::NAME, false));
        assert_eq!(shown.written_by, peer(7).node);
        assert!(shown.ahead_ms > DRIFT_BOUND_MS && shown.ahead_ms <= AHEAD_MS as u64, "{shown:?}");
        assert!(shown.reason.contains("ahead"), "{shown:?}");
    }
    let of_one = records.quarantined(None, Some(peer(1).node), 100).await.unwrap();
    assert_eq!(of_one.len(), 3);
    assert!(of_one.iter().all(|shown| shown.received_from == peer(1).node));
}

#[tokio::test]
async fn one_record_is_let_in_when_the_clock_allows_it_or_as_an_edit_of_now() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let here = media(bucket, new_id(), "here", stamp(1, 0));
    let theirs = media(bucket, here.key.id, "theirs", stamp(2, AHEAD_MS));
    let new = ahead(bucket, 2, "new");
    let deletion = new.deleted(stamp(2, AHEAD_MS + 1));
    let sent = vec![here.clone(), theirs.clone(), new.clone(), deletion.clone()];
    records.apply(peer(2), bucket, sent, Seq(4)).await.unwrap();

    let refused = records.release_quarantined(QuarantineId::of(&theirs), Release::AsItIs).await;
    assert!(matches!(refused, Err(ReleaseError::Stays { .. })), "{refused:?}");
    for record in [&theirs, &new, &deletion] {
        let released = records.release_quarantined(QuarantineId::of(record), Release::AsNewEdit).await.unwrap();
        assert_eq!(released, Released::Applied);
    }
    let page = records.page(bucket, Seq(0), None, (10, u32::MAX)).await.unwrap();
    let find = |id| page.records.iter().find(|record| record.key.id == id).unwrap();
    assert_eq!(Media::from_record(find(here.key.id)).unwrap().title, "theirs");
    assert!(find(here.key.id).newest_stamp().time < theirs.newest_stamp().time);
    assert!(find(new.key.id).is_tombstone());
    assert_eq!(records.quarantine_use().await.unwrap(), QuarantineUse::default());
    let gone = records.release_quarantined(QuarantineId::of(&new), Release::AsItIs).await;
    assert!(matches!(gone, Err(ReleaseError::NotFound(_))));
}

/// What does not fit beside what is held is always due. However much of it there is, others get their turn.
#[tokio::test]
async fn what_stays_set_aside_keeps_nothing_else_from_its_replay() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let wide = |tags: std::ops::Range<u32>, text: u32, after_ms| {
        let key = media(bucket, RecordId::from_bytes([9; 16]), "", stamp(1, 0)).key;
        let fields = tags.map(|number| (FieldTag::lww(number), Value::encode(&text)));
        Record::new(key, fields, stamp(1, after_ms)).unwrap()
    };
    let held = wide(1000..1200, 0, -60_000);
    records.apply(peer(1), bucket, vec![held], Seq(1)).await.unwrap();
    let stays: Vec<Record> = (0..501).map(|text| wide(2000..2200, text, -50_000)).collect();
    let late = ahead(bucket, 2, "time catches up");
    records.apply(peer(1), bucket, stays, Seq(2)).await.unwrap();
    records.apply(peer(2), bucket, vec![late], Seq(1)).await.unwrap();
    assert_eq!(records.quarantine_use().await.unwrap().records, 502);

    let config = Config { drift_bound_ms: 2 * AHEAD_MS as u64, ..database.config() };
    let later = Records::open(database.pool(), &config, true, Metrics::new()).await.unwrap();
    let released = later.replay_quarantine().await.unwrap() + later.replay_quarantine().await.unwrap();
    assert_eq!(released, 1);
    assert_eq!(records.quarantine_use().await.unwrap().records, 501, "and nothing is dropped");
}

/// Its sender was told that it is here, and may have given it up since.
#[tokio::test]
async fn what_was_set_aside_and_comes_again_is_not_taken_for_its_senders_own() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let ahead = ahead(bucket, 1, "ahead");
    let [again, fine] = [ahead.key.id, new_id()].map(|id| media(bucket, id, "fine", stamp(1, 0)));
    records.apply(peer(1), bucket, vec![ahead, fine], Seq(2)).await.unwrap();
    records.apply(peer(1), bucket, vec![again.clone()], Seq(3)).await.unwrap();
    let page = records.page(bucket, Seq(0), Some(peer(1)), (100, u32::MAX)).await.unwrap();
    assert_eq!(page.records, [again]);
}
