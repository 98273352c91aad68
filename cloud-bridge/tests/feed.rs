//! The record store: feeds, cursors, merges, and the tables that SQL can ask.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use alexandria_sync::domain::{Media, OpenCount, Typed};
use alexandria_sync::hlc::DRIFT_BOUND_MS;
use alexandria_sync::id::{BucketId, Epoch, NodeId, RecordId, Seq};
use alexandria_sync::lineage::{Moment, Remembered, Told};
use alexandria_sync::record::{FieldTag, Kind, Record, RecordKey, Value};
use alexandria_sync::store::{Peer, RecordStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::fixture::{Database, a_collection, media, new_id, peer, stamp};

const WRITERS: u8 = 8;
const PAGES_EACH: u32 = 40;

/// Invariant 4: a reader that polls while writers commit late and out of order sees the last version of every record.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_of_a_feed_ever_skips_a_row() {
    let Some(database) = Database::new().await else { return };
    // Some commits hang for a while, at the very moment when their rows are numbered and not yet visible.
    let late = "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ \
         BEGIN IF random() < 0.02 THEN PERFORM pg_sleep(random() * 0.05); END IF; RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE ON record DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION late()";
    sqlx::raw_sql(late).execute(&database.pool()).await.unwrap();
    let bucket = a_collection();
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (records, done) = (database.records().await, Arc::clone(&done));
        tokio::spawn(async move {
            let mut seen: HashMap<RecordId, Record> = HashMap::new();
            let mut after = Seq(0);
            loop {
                // Looked at first: what is committed by then has to be seen by the last poll.
                let is_last = done.load(Ordering::SeqCst);
                let page = records.page(bucket, after, None, (50, 20_000)).await.unwrap();
                assert!(page.next >= after);
                after = page.next;
                let is_empty = page.records.is_empty();
                seen.extend(page.records.into_iter().map(|record| (record.key.id, record)));
                if is_last && is_empty {
                    return seen;
                }
            }
        })
    };

    let ids: Vec<RecordId> = (0..60).map(|_| new_id()).collect();
    let mut writers = Vec::new();
    for number in 1..=WRITERS {
        let (records, ids) = (database.records().await, ids.clone());
        writers.push(tokio::spawn(async move {
            let seed = u64::from(number);
            println!("writer {number}: seed {seed}");
            let mut random = StdRng::seed_from_u64(seed);
            for page in 1..=PAGES_EACH {
                let mut received = Vec::new();
                for _ in 0..random.random_range(1..6) {
                    // Some records that everybody writes, some of one's own.
                    let shared = random.random_range(0..ids.len() * 2);
                    let id = ids.get(shared).copied().unwrap_or_else(new_id);
                    received.push(media(bucket, id, &format!("{number}/{page}"), stamp(number, 0)));
                }
                records.apply(peer(number), bucket, received, Seq(page.into())).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let seen = reader.await.unwrap();

    let all: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT encoding FROM record").fetch_all(&database.pool()).await.unwrap();
    assert!(all.len() > 60);
    for encoding in &all {
        let stored = Record::decode(bucket, encoding).unwrap();
        assert_eq!(seen.get(&stored.key.id), Some(&stored), "the reader missed the last version");
    }
    assert_eq!(seen.len(), all.len());
    let distinct: i64 = database.value("SELECT count(DISTINCT seq) FROM record").await;
    assert_eq!(distinct as usize, all.len(), "the feed and the records are a bijection");
    let cursors: i64 = database.value("SELECT min(seq) FROM cursor").await;
    assert_eq!(cursors, i64::from(PAGES_EACH));
}

/// Two writers that bring one new record at the same moment both win: their versions are merged.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_of_one_new_record_merge() {
    let Some(database) = Database::new().await else { return };
    let bucket = a_collection();
    for _ in 0..20 {
        let id = new_id();
        let key = RecordKey { bucket, kind: Media::KIND, id };
        let mut writers = Vec::new();
        for number in 1..=6u8 {
            let records = database.records().await;
            let field = (FieldTag::lww(1000 + u32::from(number)), Value::encode(&number));
            let record = Record::new(key, [field], stamp(number, 0)).unwrap();
            writers.push(tokio::spawn(async move {
                records.apply(peer(number), bucket, vec![record], Seq(1)).await.unwrap();
            }));
        }
        for writer in writers {
            writer.await.unwrap();
        }
        let records = database.records().await;
        let page = records.page(bucket, Seq(0), None, (1000, u32::MAX)).await.unwrap();
        let merged = page.records.iter().find(|record| record.key.id == id).unwrap();
        assert_eq!(merged.fields().unwrap().len(), 6, "a write was lost");
    }
}

#[tokio::test]
async fn a_peer_does_not_get_back_what_it_sent_unchanged() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let (ours, theirs) = (new_id(), new_id());
    records.apply(peer(1), bucket, vec![media(bucket, ours, "one", stamp(1, 0))], Seq(1)).await.unwrap();
    records.apply(peer(2), bucket, vec![media(bucket, theirs, "two", stamp(2, 0))], Seq(1)).await.unwrap();
    let page = records.page(bucket, Seq(0), Some(peer(1)), (100, u32::MAX)).await.unwrap();
    assert_eq!(page.records.iter().map(|record| record.key.id).collect::<Vec<_>>(), [theirs]);
    assert_eq!((page.next, page.more), (Seq(2), false), "the own row is passed over, not waited for");

    // In another epoch, the peer may have lost it.
    let restored = Peer { epoch: Epoch(2), ..peer(1) };
    let page = records.page(bucket, Seq(0), Some(restored), (100, u32::MAX)).await.unwrap();
    assert_eq!(page.records.len(), 2);
}

#[tokio::test]
async fn a_page_keeps_its_budget_and_always_moves_on() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let sent: Vec<Record> =
        (0..20).map(|number| media(bucket, new_id(), &format!("{number}"), stamp(1, number))).collect();
    let size = sent[0].encode().len() as u32;
    records.apply(peer(1), bucket, sent.clone(), Seq(20)).await.unwrap();
    let mut after = Seq(0);
    let mut read = Vec::new();
    loop {
        let page = records.page(bucket, after, Some(peer(2)), (100, size * 3)).await.unwrap();
        assert!(page.records.len() <= 3);
        after = page.next;
        read.extend(page.records);
        if !page.more {
            break;
        }
    }
    assert_eq!(read, sent, "all rows, in the order of their arrival");
    let tiny = records.page(bucket, Seq(0), Some(peer(2)), (100, 1)).await.unwrap();
    assert_eq!(tiny.records.len(), 1, "a record larger than the budget still goes out");
}

/// Invariant 8: applied + superseded + quarantined = received, and what is set aside comes back when time allows.
#[tokio::test]
async fn what_is_received_is_applied_superseded_or_quarantined() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let id = new_id();
    let new = media(bucket, id, "new", stamp(1, 0));
    let old = media(bucket, id, "old", stamp(2, -60_000));
    let ahead = media(bucket, new_id(), "from the future", stamp(3, DRIFT_BOUND_MS as i64 + 2_000));
    let sent = vec![new.clone(), old, new.clone(), ahead.clone()];
    let applied = records.apply(peer(1), bucket, sent.clone(), Seq(4)).await.unwrap();
    assert_eq!((applied.applied, applied.superseded, applied.quarantined), (1, 2, 1));
    records.apply(peer(1), bucket, sent, Seq(4)).await.unwrap();
    let set_aside: i64 = database.value("SELECT count(*) FROM quarantine").await;
    assert_eq!(set_aside, 1, "the same version is set aside once");
    let cursor = records.cursor(peer(1).node, bucket).await.unwrap().unwrap();
    assert_eq!(cursor.seq, Seq(4), "a quarantined record does not hold up the feed");

    crate::fixture::wait_for("time to catch up", || async {
        (records.replay_quarantine().await.unwrap() == 1).then_some(())
    })
    .await;
    let page = records.page(bucket, Seq(0), None, (10, u32::MAX)).await.unwrap();
    assert!(page.records.contains(&ahead));
}

#[tokio::test]
async fn sql_can_ask_what_the_records_say_and_bad_text_breaks_nothing() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let good = new_id();
    let hostile =
        Media { title: "nul \0 here".into(), duration_ms: Some(u64::MAX), pages: Some(u32::MAX), ..Media::default() };
    let sent = vec![
        media(bucket, good, "Things Fall Apart", stamp(1, 0)),
        hostile.to_record(bucket, new_id(), stamp(1, 1)),
        Record::new(
            RecordKey { bucket, kind: Kind(60_000), id: new_id() },
            [(FieldTag::lww(3), Value::encode(&"of a newer version"))],
            stamp(1, 2),
        )
        .unwrap(),
    ];
    let applied = records.apply(peer(1), bucket, sent.clone(), Seq(3)).await.unwrap();
    assert_eq!(applied.applied, 3);
    let languages: Vec<String> =
        database.value("SELECT languages FROM media WHERE title = 'Things Fall Apart' AND NOT disabled").await;
    assert_eq!(languages, ["en", "fr"]);
    let duration: i64 = database.value("SELECT duration_ms FROM media WHERE title LIKE 'nul%'").await;
    assert_eq!(duration, i64::MAX);
    let page = records.page(bucket, Seq(0), Some(peer(2)), (10, u32::MAX)).await.unwrap();
    assert_eq!(page.records, sent, "the records keep every byte");

    let deleted = sent[0].deleted(stamp(2, 10));
    records.apply(peer(2), bucket, vec![deleted], Seq(1)).await.unwrap();
    let left: i64 = database.value("SELECT count(*) FROM media").await;
    assert_eq!(left, 1);
}

#[tokio::test]
async fn a_node_sees_the_catalogue_the_collections_and_its_own_site_only() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let collection = a_collection();
    let sites = [1u8, 2].map(|number| BucketId::Site(NodeId::from_bytes([number; 16])));
    for bucket in [BucketId::Catalogue, collection, sites[0], sites[1]] {
        records.apply(peer(9), bucket, vec![media(bucket, new_id(), "x", stamp(9, 0))], Seq(1)).await.unwrap();
    }
    let mine = records.for_node(peer(1).node);
    let mut seen: Vec<BucketId> = mine.heads().await.unwrap().into_iter().map(|head| head.bucket).collect();
    seen.sort();
    assert_eq!(seen, [BucketId::Catalogue, collection, sites[0]]);
    assert!(mine.page(sites[1], Seq(0), peer(1), 1000).await.is_err());
    assert!(mine.apply(peer(1), sites[1], Vec::new(), Seq(1)).await.is_err());
}

/// Counters grow from many sides at once and none of it is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn popularity_adds_up_all_counters() {
    let Some(database) = Database::new().await else { return };
    let medium = new_id();
    let mut nodes = Vec::new();
    for number in 1..=6u8 {
        let records = database.records().await;
        nodes.push(tokio::spawn(async move {
            let node = peer(number).node;
            let bucket = BucketId::Site(node);
            let id = OpenCount::record_id(medium, node, alexandria_sync::id::Incarnation(1));
            for count in 1..=10u64 {
                let record = OpenCount { media: medium, count }.to_record(bucket, id, stamp(number, count as i64));
                records.apply(peer(number), bucket, vec![record], Seq(count)).await.unwrap();
            }
        }));
    }
    for node in nodes {
        node.await.unwrap();
    }
    let opened: String = database.value("SELECT opened::text FROM popularity").await;
    assert_eq!(opened, "60");
}

#[tokio::test]
async fn every_process_stamps_in_a_life_of_its_own_and_the_replica_stays_one() {
    let Some(database) = Database::new().await else { return };
    let (one, two) = (database.records().await, database.records().await);
    assert_eq!(one.identity().node_id(), two.identity().node_id());
    assert_eq!(one.identity().epoch(), two.identity().epoch());
    assert_ne!(one.identity().incarnation(), two.identity().incarnation());

    // The same rows in another copy of the database are another life of the feeds.
    sqlx::query("UPDATE bridge SET copy = 'elsewhere'").execute(&database.pool()).await.unwrap();
    let restored = database.records().await;
    assert!(restored.identity().epoch() > one.identity().epoch());
    assert_eq!(one.identity().refresh_epoch(&database.pool()).await.unwrap(), restored.identity().epoch());
}

/// 100,000 records in pages of 64 KiB, as a session brings them. Not a timed test; the bound only catches a blunder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_records_go_in() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let start = Instant::now();
    let mut next = 0;
    let mut page = Vec::new();
    for number in 0..100_000u64 {
        page.push(media(bucket, new_id(), &format!("Medium number {number}"), stamp(1, 0)));
        if page.len() == 400 {
            next += 400;
            records.apply(peer(1), bucket, std::mem::take(&mut page), Seq(next)).await.unwrap();
        }
    }
    println!("100,000 records applied in {:?}", start.elapsed());
    let count: i64 = database.value("SELECT count(*) FROM media").await;
    assert_eq!(count, 100_000);
    assert!(start.elapsed() < Duration::from_mins(4));
}

/// Of two copies of a node that have sessions at once, one is refused and changes nothing.
#[tokio::test]
async fn what_a_page_told_is_remembered_with_it_and_the_pages_of_another_copy_are_not_taken() {
    let Some(database) = Database::new().await else { return };
    let records = database.records().await;
    let bucket = a_collection();
    let moment = |start| Moment { start, rows: 1, seal: [start as u8; 16] };
    let told = |start| Told::InSession { known: Vec::new(), now: moment(start) };
    let page = |number| vec![media(bucket, new_id(), "theirs", stamp(1, number))];
    assert_eq!(records.remembered(peer(1).node).await.unwrap(), []);
    let copies = [1, 2].map(|start| records.apply_told(peer(1), bucket, page(start), Seq(1), told(start as u64)));
    let taken: Vec<bool> =
        futures::future::join_all(copies).await.into_iter().map(|taken| taken.unwrap().is_some()).collect();
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1, "{taken:?}");
    let start = if taken[0] { 1 } else { 2 };
    let remembered = Remembered { epoch: peer(1).epoch, moment: moment(start) };
    assert_eq!(records.remembered(peer(1).node).await.unwrap(), [remembered]);
    let rows: i64 = database.value("SELECT count(*) FROM record").await;
    assert_eq!(rows, 1);
}
