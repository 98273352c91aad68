//! Single promises of the record store.

use std::time::Duration;

use alexandria_node::store::{Change, ChangeError, Condition, OpenError, Quarantined, Store, backup};
use alexandria_sync::domain::{InvalidField, Media, OpenCount, Typed};
use alexandria_sync::hlc::HlcTime;
use alexandria_sync::id::{NodeId, Seq};
use alexandria_sync::merge::STAMP_UNIX_MS_MAX;
use alexandria_sync::record::RecordKey;
use alexandria_sync::store::{Applied, Cursor, RecordStore};

use super::samples::{config, folder, id, media, media_record, open, peer, shelf, stamp};

const YEAR_2026: u64 = 1_790_000_000_000;

#[tokio::test]
async fn a_second_process_is_told_that_the_folder_is_in_use() {
    let dir = folder();
    let _store = open(&dir);
    assert!(matches!(Store::open(&config(&dir)), Err(OpenError::InUse(_))));
}

#[tokio::test]
async fn a_change_against_an_older_version_is_refused_and_nothing_of_its_group_is_kept() {
    let dir = folder();
    let store = open(&dir);
    let first = store.records.change_one(Change::create(shelf(), id(1), media("one"))).await.unwrap();
    let stale = first.version();
    let edit = |media: &mut Media| {
        media.title = "two".into();
        Ok::<_, InvalidField>(())
    };
    let second = store.records.change_one(Change::edit(shelf(), id(1), Some(stale), edit)).await.unwrap();
    assert!(second.record.newest_stamp() > first.record.newest_stamp());
    let changes =
        vec![Change::create(shelf(), id(2), media("another")), Change::edit(shelf(), id(1), Some(stale), edit)];
    let refused = store.records.change(changes).await;
    assert!(matches!(refused, Err(ChangeError::Conflict { current, .. }) if current == second.version()));
    assert_eq!(store.records.find(Media::KIND, id(2)).unwrap(), None);
    assert_eq!(store.records.heads_now()[0].head, Seq(2));
}

#[tokio::test]
async fn an_invalid_field_is_named() {
    let dir = folder();
    let refused = open(&dir).records.change_one(Change::create(shelf(), id(1), media(" "))).await;
    assert!(matches!(refused, Err(ChangeError::Invalid(InvalidField { field: "title", .. }))));
}

#[tokio::test]
async fn a_deleted_record_stays_deleted_and_its_id_is_not_used_again() {
    let dir = folder();
    let store = open(&dir);
    let stored = store.records.change_one(Change::create(shelf(), id(1), media("one"))).await.unwrap();
    let key = stored.record.key;
    store.records.change_one(Change::delete(key, None)).await.unwrap();
    let again = store.records.change_one(Change::create(shelf(), id(1), media("one"))).await;
    assert!(matches!(again, Err(ChangeError::Deleted(_))));
    let from = peer(1, 1);
    let older = media_record(1, "older", stamp(YEAR_2026, 1));
    let applied = store.records.apply(from, shelf(), vec![older], Seq(1)).await.unwrap();
    assert_eq!(applied, Applied { applied: 0, superseded: 1, quarantined: 0 });
    assert!(store.records.get(key).unwrap().unwrap().record.is_tombstone());
}

#[tokio::test]
async fn a_local_edit_never_lowers_a_field_whose_largest_number_wins() {
    let dir = folder();
    let store = open(&dir);
    let count = |count| Change::put(shelf(), id(9), OpenCount { media: id(1), count });
    store.records.change_one(count(7)).await.unwrap();
    let stored = store.records.change_one(count(3)).await.unwrap();
    assert_eq!(OpenCount::from_record(&stored.record).unwrap().count, 7);
    assert_eq!(store.records.popularity(id(1)).unwrap(), 7);
}

/// Invariant 4, and what a bridge relies on not to get its own records back.
#[tokio::test]
async fn a_page_leaves_out_what_came_unchanged_from_its_reader_in_this_epoch() {
    let dir = folder();
    let store = open(&dir);
    let from = peer(1, 5);
    let page = vec![media_record(1, "theirs", stamp(YEAR_2026, 1)), media_record(2, "theirs", stamp(YEAR_2026, 1))];
    store.records.apply(from, shelf(), page, Seq(9)).await.unwrap();
    assert_eq!(
        store.records.cursor(from.node, shelf()).await.unwrap(),
        Some(Cursor { epoch: from.epoch, seq: Seq(9) })
    );
    let edit = |media: &mut Media| {
        media.description = "ours".into();
        Ok::<_, InvalidField>(())
    };
    store.records.change_one(Change::edit(shelf(), id(2), None, edit)).await.unwrap();
    let read = |reader| store.records.page(shelf(), Seq(0), reader, 1 << 20);
    let back = read(from).await.unwrap();
    assert_eq!(back.records.iter().map(|record| record.key.id).collect::<Vec<_>>(), [id(2)]);
    assert_eq!((back.next, back.more), (Seq(3), false));
    assert_eq!(read(peer(1, 6)).await.unwrap().records.len(), 2, "an older epoch's rows are lost to the reader");
    assert_eq!(read(peer(2, 5)).await.unwrap().records.len(), 2);
}

#[tokio::test]
async fn a_page_holds_at_least_one_record_and_no_more_than_fit() {
    let dir = folder();
    let store = open(&dir);
    for number in 0..10 {
        store.records.change_one(Change::create(shelf(), id(number), media("x"))).await.unwrap();
    }
    let (mut after, mut seen) = (Seq(0), Vec::new());
    loop {
        let page = store.records.page(shelf(), after, peer(1, 1), 10).await.unwrap();
        assert_eq!(page.records.len(), 1);
        seen.push(page.records[0].key.id);
        after = page.next;
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, (0..10).map(id).collect::<Vec<_>>());
}

fn set_aside(store: &Store) -> Vec<Quarantined> {
    store.records.quarantined(None, 100).unwrap().entries
}

/// Invariant 8.
#[tokio::test]
async fn what_a_trusted_clock_refuses_is_kept_and_let_in_when_the_clock_is_right() {
    let dir = folder();
    let store = open(&dir);
    store.records.set_trusted_time(YEAR_2026);
    let ahead = media_record(1, "ahead", stamp(YEAR_2026 + 3_600_000, 1));
    let never = media_record(2, "never", stamp(STAMP_UNIX_MS_MAX, 1));
    let fine = media_record(3, "fine", stamp(YEAR_2026, 1));
    let page = vec![ahead.clone(), never, fine.clone(), fine];
    let applied = store.records.apply(peer(1, 1), shelf(), page, Seq(4)).await.unwrap();
    assert_eq!(applied, Applied { applied: 1, superseded: 1, quarantined: 2 });
    drop(store);
    let store = open(&dir);
    assert_eq!(set_aside(&store).len(), 2);
    store.records.set_trusted_time(YEAR_2026 + 3_600_000);
    let replayed = store.records.replay_quarantine().await.unwrap();
    assert_eq!(replayed, Applied { applied: 1, superseded: 0, quarantined: 1 });
    assert_eq!(store.records.get(ahead.key).unwrap().unwrap().record, ahead);
    assert_eq!(set_aside(&store).len(), 1);
}

#[tokio::test]
async fn stamps_never_go_back_over_a_restart() {
    let dir = folder();
    let future = stamp(YEAR_2026 + 40 * 365 * 86_400_000, 1);
    let store = open(&dir);
    let page = vec![media_record(1, "from the future", future)];
    store.records.apply(peer(1, 1), shelf(), page, Seq(1)).await.unwrap();
    drop(store);
    let store = open(&dir);
    let stored = store.records.change_one(Change::create(shelf(), id(2), media("now"))).await.unwrap();
    assert!(stored.record.newest_stamp().time > HlcTime::from_unix_ms(future.time.unix_ms()));
}

#[tokio::test]
async fn a_subscriber_hears_of_a_change_once_it_is_durable() {
    let dir = folder();
    let store = open(&dir);
    let mut changes = store.records.subscribe();
    store.records.change_one(Change::create(shelf(), id(1), media("one"))).await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(10), changes.recv()).await.unwrap().unwrap();
    assert_eq!((heard.bucket, heard.head), (shelf(), Seq(1)));
}

#[tokio::test]
async fn a_record_of_many_pages_reads_back_and_its_next_version_too() {
    let dir = folder();
    let store = open(&dir);
    let long = |letter: char| Media { description: letter.to_string().repeat(19_000), ..media("long") };
    let key = RecordKey { bucket: shelf(), kind: Media::KIND, id: id(1) };
    for description in [long('a'), long('b'), media("short"), long('c')] {
        store.records.change_one(Change::put(shelf(), id(1), description.clone())).await.unwrap();
        let read = store.records.get(key).unwrap().unwrap();
        assert_eq!(Media::from_record(&read.record).unwrap(), description);
    }
    drop(store);
    assert!(open(&dir).records.verify().await.unwrap().is_sound());
}

#[tokio::test]
async fn a_restored_backup_holds_every_record_in_a_new_life_of_the_same_node() {
    let (dir, other) = (folder(), folder());
    let store = open(&dir);
    for number in 0..700 {
        let change = Change::create(shelf(), id(number), media(&format!("medium {number}")));
        store.records.change_one(change).await.unwrap();
    }
    store.records.apply(peer(1, 5), shelf(), vec![], Seq(77)).await.unwrap();
    let file = other.path().join("backup");
    let summary = backup::export(&store.records, &file).unwrap();
    assert_eq!(summary.records, 700);

    let into = config(&other);
    let mut half = std::fs::read(&file).unwrap();
    half.truncate(half.len() - 1);
    let half_file = other.path().join("half");
    std::fs::write(&half_file, half).unwrap();
    assert!(matches!(backup::import(&half_file, &into.data_dir, 1 << 20), Err(backup::BackupError::Damaged { .. })));
    assert_eq!(backup::import(&file, &into.data_dir, 1 << 20).unwrap().records, 700);
    assert!(matches!(backup::import(&file, &into.data_dir, 1 << 20), Err(backup::BackupError::NotEmpty(_))));

    let restored = Store::open(&into).unwrap();
    assert_eq!(restored.condition, Condition::Healthy);
    let (old, new) = (store.records.identity(), restored.records.identity());
    assert_eq!(old.node, new.node);
    assert!(new.incarnation > old.incarnation && new.epoch != old.epoch);
    assert_eq!(
        restored.records.cursor(NodeId::from_bytes([1; 16]), shelf()).await.unwrap().map(|cursor| cursor.seq),
        Some(Seq(77))
    );
    for number in 0..700 {
        let find = |store: &Store| store.records.find(Media::KIND, id(number)).unwrap().unwrap().record;
        assert_eq!(find(&restored), find(&store));
    }
    assert!(restored.records.verify().await.unwrap().is_sound());
}
