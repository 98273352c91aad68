//! What is set aside: bounded, shown, let in, thrown away.

use alexandria_node::store::{Change, Config, Quarantined, ReleaseError, Store, StoreError, backup};
use alexandria_sync::domain::{Media, Typed};
use alexandria_sync::id::Seq;
use alexandria_sync::quarantine::{QuarantineId, QuarantineLimits, QuarantineUse, Release, Released};
use alexandria_sync::record::Record;
use alexandria_sync::store::{Applied, RecordStore};

use super::samples::{config, folder, id, media, media_record, open, peer, shelf, stamp};

const NOW: u64 = 1_800_000_000_000;
const HOUR_MS: u64 = 3_600_000;

fn set_aside(store: &Store) -> Vec<Quarantined> {
    store.records.quarantined(None, 100).unwrap().entries
}

fn ahead(number: u64) -> Record {
    media_record(number, &format!("from the future {number}"), stamp(NOW + HOUR_MS, 1))
}

async fn receive(store: &Store, records: Vec<Record>, next: u64) -> Result<Applied, StoreError> {
    store.records.apply(peer(1, 1), shelf(), records, Seq(next)).await
}

async fn cursor(store: &Store) -> Option<Seq> {
    store.records.cursor(peer(1, 1).node, shelf()).await.unwrap().map(|cursor| cursor.seq)
}

/// Nothing is dropped without a word: the page that would not fit is refused whole, and comes again.
#[tokio::test]
async fn a_full_quarantine_refuses_the_page_and_keeps_its_cursor_and_a_replay_makes_room() {
    let dir = folder();
    let limits = QuarantineLimits { records_max: 2, bytes_max: 1 << 20 };
    let store = Store::open(&Config { quarantine: limits, ..config(&dir) }).unwrap();
    store.records.set_trusted_time(NOW);
    receive(&store, vec![ahead(1), ahead(2), ahead(1)], 3).await.unwrap();
    assert_eq!(set_aside(&store).len(), 2, "the same version is set aside once");

    let fine = media_record(9, "fine", stamp(NOW, 1));
    let refused = receive(&store, vec![fine.clone(), ahead(3)], 5).await;
    assert!(matches!(refused, Err(StoreError::QuarantineFull(_))), "{refused:?}");
    assert_eq!(store.records.get(fine.key).unwrap(), None, "nothing of the page was applied");
    assert_eq!(cursor(&store).await, Some(Seq(3)));
    receive(&store, vec![fine.clone(), ahead(2)], 4).await.unwrap();
    assert!(store.records.get(fine.key).unwrap().is_some(), "what needs no room goes on");

    store.records.set_trusted_time(NOW + HOUR_MS);
    let replayed = store.records.replay_quarantine().await.unwrap();
    assert_eq!(replayed, Applied { applied: 2, superseded: 0, quarantined: 0 });
    assert_eq!(store.records.quarantine_use().unwrap(), QuarantineUse::default());
    store.records.set_trusted_time(NOW);
    receive(&store, vec![ahead(3)], 6).await.unwrap();
    assert_eq!(set_aside(&store).len(), 1);
}

#[tokio::test]
async fn bytes_are_limited_too() {
    let dir = folder();
    let limits = QuarantineLimits { records_max: 100, bytes_max: 300 };
    let store = Store::open(&Config { quarantine: limits, ..config(&dir) }).unwrap();
    store.records.set_trusted_time(NOW);
    let large = media_record(1, &"x".repeat(400), stamp(NOW + HOUR_MS, 1));
    assert!(matches!(receive(&store, vec![large], 1).await, Err(StoreError::QuarantineFull(_))));
    assert_eq!(set_aside(&store), []);
}

#[tokio::test]
async fn one_record_is_let_in_when_the_clock_allows_it_or_as_an_edit_of_now() {
    let dir = folder();
    let store = open(&dir);
    store.records.set_trusted_time(NOW);
    store.records.change_one(Change::create(shelf(), id(1), media("here"))).await.unwrap();
    receive(&store, vec![ahead(1), ahead(2)], 2).await.unwrap();
    let (first, second) = (QuarantineId::of(&ahead(1)), QuarantineId::of(&ahead(2)));

    let refused = store.records.release_quarantined(first, Release::AsItIs).await;
    assert!(matches!(refused, Err(ReleaseError::Refused(_))), "{refused:?}");
    assert_eq!(set_aside(&store).len(), 2);

    let released = store.records.release_quarantined(first, Release::AsNewEdit).await.unwrap();
    assert_eq!(released, Released::Applied);
    let stored = store.records.get(ahead(1).key).unwrap().unwrap().record;
    assert_eq!(Media::from_record(&stored), Media::from_record(&ahead(1)));
    assert!(stored.newest_stamp().time.unix_ms() < NOW + HOUR_MS, "it is stamped by the clock here");

    store.records.set_trusted_time(NOW + HOUR_MS);
    assert_eq!(store.records.release_quarantined(second, Release::AsItIs).await.unwrap(), Released::Applied);
    assert_eq!(store.records.get(ahead(2).key).unwrap().unwrap().record, ahead(2));
    assert_eq!(set_aside(&store), []);
    let gone = store.records.release_quarantined(second, Release::AsItIs).await;
    assert!(matches!(gone, Err(ReleaseError::NotFound(name)) if name == second));
}

#[tokio::test]
async fn a_deletion_that_was_set_aside_can_be_made_now_and_nothing_brings_back_what_was_deleted() {
    let dir = folder();
    let store = open(&dir);
    store.records.set_trusted_time(NOW);
    let stored = store.records.change_one(Change::create(shelf(), id(1), media("here"))).await.unwrap().record;
    let deletion = stored.deleted(stamp(NOW + HOUR_MS, 1));
    receive(&store, vec![deletion.clone(), ahead(1)], 2).await.unwrap();
    store.records.release_quarantined(QuarantineId::of(&deletion), Release::AsNewEdit).await.unwrap();
    assert!(store.records.get(stored.key).unwrap().unwrap().record.is_tombstone());
    let refused = store.records.release_quarantined(QuarantineId::of(&ahead(1)), Release::AsNewEdit).await;
    assert!(matches!(refused, Err(ReleaseError::Change(_))), "{refused:?}");
    let dropped = store.records.drop_quarantined(QuarantineId::of(&ahead(1))).await.unwrap();
    assert_eq!(dropped.unwrap().record, ahead(1));
    assert_eq!(store.records.quarantine_use().unwrap(), QuarantineUse::default());
    assert_eq!(store.records.drop_quarantined(QuarantineId::of(&ahead(1))).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_set_aside_is_listed_in_pages_and_survives_a_restart_and_a_backup() {
    let dir = folder();
    let store = open(&dir);
    store.records.set_trusted_time(NOW);
    receive(&store, (1..=5).map(ahead).collect(), 5).await.unwrap();
    let kept = store.records.quarantine_use().unwrap();
    assert_eq!(kept.records, 5);
    let file = dir.path().join("backup");
    backup::export(&store.records, &file).unwrap();
    drop(store);
    let elsewhere = Config::new(dir.path().join("elsewhere"));
    backup::import(&file, &elsewhere.data_dir, 4 << 20).unwrap();
    for store in [open(&dir), Store::open(&elsewhere).unwrap()] {
        assert_eq!(store.records.quarantine_use().unwrap(), kept);
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let page = store.records.quarantined(after, 2).unwrap();
            seen.extend(page.entries.into_iter().map(|quarantined| quarantined.record));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, (1..=5).map(ahead).collect::<Vec<_>>());
    }
}

/// Its sender was told that it is here, and may have given it up since.
#[tokio::test]
async fn what_was_set_aside_and_comes_again_is_not_taken_for_its_senders_own() {
    let dir = folder();
    let store = open(&dir);
    store.records.set_trusted_time(NOW);
    let fine = |number| media_record(number, "fine", stamp(NOW, 1));
    receive(&store, vec![ahead(1), fine(2)], 2).await.unwrap();
    receive(&store, vec![fine(1)], 3).await.unwrap();
    let page = store.records.page(shelf(), Seq(0), peer(1, 1), 1 << 20).await.unwrap();
    assert_eq!(page.records, [fine(1)]);
}
