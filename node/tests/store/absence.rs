//! Long absence in a real store, with the bridge played by hand: each step is made durable and the store opened anew, as after
//! a crash.

use alexandria_node::store::absence::held_back::Release;
use alexandria_node::store::absence::{ReadingAnew, Swept};
use alexandria_node::store::{Change, Store, StoreError, backup};
use alexandria_sync::absence::Standing;
use alexandria_sync::domain::{Media, Typed};
use alexandria_sync::id::{BucketId, RecordId, Seq};
use alexandria_sync::record::{Record, RecordKey};
use alexandria_sync::store::{BucketHead, Peer, RecordStore};
use tempfile::TempDir;

use super::samples::{config, folder, id, media, media_record, open, peer, shelf, stamp};

fn bridge() -> Peer {
    peer(9, 1)
}

fn key(number: u64) -> RecordKey {
    RecordKey { bucket: shelf(), kind: Media::KIND, id: id(number) }
}

/// Times of the bridge's store, after all stamps of these tests but one.
fn at(ms: u64) -> u64 {
    1_900_000_000_000 + ms
}

fn standing(in_step_ms: u64, collected_ms: u64) -> Standing {
    Standing {
        in_step_ms: at(in_step_ms),
        collected_ms: if collected_ms == 0 { 0 } else { at(collected_ms) },
        keeps_all: true,
    }
}

/// As after a crash.
fn again(store: Store, dir: &TempDir) -> Store {
    drop(store);
    let store = open(dir);
    store.records.set_bridge(Some(bridge().node));
    store
}

fn title(store: &Store, number: u64) -> Option<String> {
    let stored = store.records.get(key(number)).unwrap()?;
    Media::from_record(&stored.record).map(|media| media.title)
}

async fn write(store: &Store, number: u64, title: &str) -> Seq {
    store.records.change_one(Change::put(shelf(), id(number), media(title))).await.unwrap().seq
}

fn of_bridge(number: u64) -> Record {
    media_record(number, &format!("{number} of the bridge"), stamp(1_800_000_000_000, 9))
}

async fn give(store: &Store, numbers: impl Iterator<Item = u64>, next: u64) -> Result<(), StoreError> {
    let page = numbers.map(of_bridge).collect();
    store.records.apply(bridge(), shelf(), page, Seq(next)).await.map(drop)
}

/// What the bridge would be sent.
async fn sent(store: &Store) -> Vec<RecordId> {
    let page = store.records.page(shelf(), Seq(0), bridge(), 1 << 20).await.unwrap();
    page.records.into_iter().map(|record| record.key.id).collect()
}

/// A node that was in step at 1000 with the ten records of the bridge, and has since written, of which the bridge got record 20.
async fn away(dir: &TempDir) -> (Store, Seq) {
    let store = open(dir);
    store.records.set_bridge(Some(bridge().node));
    store.records.meet(bridge(), standing(1000, 0)).await.unwrap();
    give(&store, 1..=10, 10).await.unwrap();
    store.records.caught_up(bridge(), standing(1000, 0), Some(Vec::new())).await.unwrap();
    assert_eq!(store.records.in_step_ms().unwrap(), Some(at(1000)));
    let had = write(&store, 20, "sent").await;
    write(&store, 21, "not sent").await;
    write(&store, 3, "edited where it lives").await;
    write(&store, 4, "edited where it was deleted").await;
    (store, had)
}

/// It comes back when records 4 to 10, and 20, were deleted and forgotten.
async fn come_back(store: Store, dir: &TempDir, had: Seq) -> Store {
    store.records.meet(bridge(), standing(9000, 5000)).await.unwrap();
    let store = again(store, dir);
    assert_eq!(store.records.reading_anew().unwrap(), Some(ReadingAnew::Reading));
    assert_eq!(store.records.cursor(bridge().node, shelf()).await.unwrap(), None, "it reads from the beginning");
    assert!(store.records.selected().await.unwrap().selection.all_anew);
    let other = store.records.apply(peer(5, 1), shelf(), vec![of_bridge(50)], Seq(1)).await;
    assert!(matches!(other, Err(StoreError::ReadsAnew)), "{other:?}");
    give(&store, 1..=2, 11).await.unwrap();
    let store = again(store, dir);
    give(&store, 3..=3, 12).await.unwrap();
    write(&store, 30, "made meanwhile").await;
    assert_eq!(title(&store, 7).as_deref(), Some("7 of the bridge"), "readers notice nothing");
    let has = vec![BucketHead { bucket: shelf(), head: had }];
    store.records.caught_up(bridge(), standing(9000, 5000), Some(has)).await.unwrap();
    // A person edits what is about to go.
    write(&store, 8, "edited at the last moment").await;
    let mut store = again(store, dir);
    while store.records.sweep_some().await.unwrap() != Swept::Done {
        store = again(store, dir);
    }
    store
}

#[tokio::test]
async fn who_was_away_for_longer_than_its_lease_loses_nothing_and_brings_nothing_back() {
    let dir = folder();
    let (store, had) = away(&dir).await;
    let store = come_back(store, &dir, had).await;
    assert_eq!(store.records.reading_anew().unwrap(), None);
    assert_eq!(store.records.in_step_ms().unwrap(), Some(at(9000)));
    for gone in [5, 6, 7, 9, 10, 20] {
        assert!(store.records.get(key(gone)).unwrap().is_none(), "record {gone} was deleted elsewhere");
    }
    assert_eq!(title(&store, 3).as_deref(), Some("edited where it lives"));
    for (number, said) in [(21, "not sent"), (4, "edited where it was deleted"), (8, "edited at the last moment")] {
        assert_eq!(title(&store, number).as_deref(), Some(said), "kept for readers here");
    }
    assert_eq!(sent(&store).await, [id(3), id(30)]);
    let (held_back, _) = store.records.held_back(None).unwrap();
    assert_eq!(held_back.iter().map(|held| held.record.key.id).collect::<Vec<_>>(), [id(4), id(8), id(21)]);
    assert!(store.records.selected().await.unwrap().selection.holds_back, "peers are asked for what came from here");

    assert_eq!(store.records.release_held_back(Some(id(21)), Release::Send).await.unwrap(), 1);
    assert_eq!(store.records.release_held_back(None, Release::Drop).await.unwrap(), 2);
    let store = again(store, &dir);
    assert_eq!(sent(&store).await, [id(3), id(30), id(21)]);
    assert!(store.records.get(key(4)).unwrap().is_none() && store.records.held_back_count().unwrap() == 0);
    assert!(!store.records.selected().await.unwrap().selection.holds_back);
    assert!(store.records.verify().await.unwrap().is_sound());
}

/// Half way through reading, or with records held back: a copy knows it, too, and begins to read again.
#[tokio::test]
async fn a_backup_of_who_was_away_holds_back_the_same() {
    let dir = folder();
    let (store, _) = away(&dir).await;
    let file = dir.path().join("while-reading");
    store.records.meet(bridge(), standing(9000, 5000)).await.unwrap();
    give(&store, 1..=2, 11).await.unwrap();
    backup::export(&store.records, &file).unwrap();
    let restored_dir = folder();
    backup::import(&file, &config(&restored_dir).data_dir, 4 << 20).unwrap();
    let restored = open(&restored_dir);
    assert_eq!(restored.records.reading_anew().unwrap(), Some(ReadingAnew::Reading));
    assert_eq!(restored.records.cursor(bridge().node, shelf()).await.unwrap(), None);

    let dir = folder();
    let (store, had) = away(&dir).await;
    let store = come_back(store, &dir, had).await;
    let file = dir.path().join("afterwards");
    backup::export(&store.records, &file).unwrap();
    let restored_dir = folder();
    backup::import(&file, &config(&restored_dir).data_dir, 4 << 20).unwrap();
    let restored = open(&restored_dir);
    assert_eq!(restored.records.held_back_count().unwrap(), 3);
    assert_eq!(restored.records.in_step_ms().unwrap(), Some(at(9000)));
}

/// Cursors pass what is held back, so that it looks as if it had been sent.
#[tokio::test]
async fn what_is_held_back_stays_through_a_second_absence() {
    let dir = folder();
    let (store, had) = away(&dir).await;
    let store = come_back(store, &dir, had).await;
    let head = store.records.heads_now().into_iter().find(|head| head.bucket == shelf()).unwrap();
    let page = store.records.page(shelf(), Seq(0), bridge(), 1 << 20).await.unwrap();
    assert_eq!(page.next, head.head);
    store.records.meet(bridge(), standing(20_000, 15_000)).await.unwrap();
    give(&store, 1..=3, 30).await.unwrap();
    store.records.caught_up(bridge(), standing(20_000, 15_000), Some(vec![head])).await.unwrap();
    while store.records.sweep_some().await.unwrap() != Swept::Done {}
    let (held_back, _) = store.records.held_back(None).unwrap();
    assert_eq!(held_back.iter().map(|held| held.record.key.id).collect::<Vec<_>>(), [id(4), id(8), id(21)]);
    assert!(store.records.get(key(30)).unwrap().is_none(), "that was sent, and deleted since");
}

#[tokio::test]
async fn a_record_that_somebody_else_has_is_held_back_no_more() {
    let dir = folder();
    let (store, had) = away(&dir).await;
    let store = come_back(store, &dir, had).await;
    let passed = store.records.page(shelf(), Seq(0), bridge(), 1 << 20).await.unwrap().next;
    give(&store, 4..=4, 20).await.unwrap();
    assert_eq!(store.records.held_back_count().unwrap(), 2);
    assert_eq!(title(&store, 4).as_deref(), Some("edited where it was deleted"), "joined as ever");
    let page = store.records.page(shelf(), passed, bridge(), 1 << 20).await.unwrap();
    let read: Vec<RecordId> = page.records.iter().map(|record| record.key.id).collect();
    assert_eq!(read, [id(4)], "who has passed it hears of it");
}

/// It comes on an old stick, and everybody else has forgotten it: nothing tells that the record lives.
#[tokio::test]
async fn what_is_held_back_waits_for_a_delete_that_is_set_aside() {
    let dir = folder();
    let (store, had) = away(&dir).await;
    let store = come_back(store, &dir, had).await;
    store.records.set_trusted_time(at(0));
    let delete = of_bridge(4).deleted(stamp(at(3_600_000), 5));
    let applied = store.records.apply(peer(5, 1), shelf(), vec![delete], Seq(1)).await.unwrap();
    assert_eq!(applied.quarantined, 1);
    assert_eq!(store.records.held_back_count().unwrap(), 3);
    assert!(!sent(&store).await.contains(&id(4)), "it was deleted elsewhere");
    store.records.apply(peer(6, 1), shelf(), vec![of_bridge(4)], Seq(1)).await.unwrap();
    assert_eq!(store.records.held_back_count().unwrap(), 3, "who sends it may not have had the delete yet");
    let store = again(store, &dir);
    store.records.set_trusted_time(at(3_600_000));
    store.records.replay_quarantine().await.unwrap();
    assert!(store.records.get(key(4)).unwrap().is_some_and(|held| held.record.is_tombstone()));
    assert_eq!(store.records.held_back_count().unwrap(), 2);
    assert!(sent(&store).await.contains(&id(4)), "a delete goes where all deletes go");
}

/// It leaves out what came from here, and does not tell what the bridge had of that.
#[tokio::test]
async fn a_bundle_does_not_end_reading_all_anew() {
    let dir = folder();
    let (store, _) = away(&dir).await;
    store.records.meet(bridge(), standing(9000, 5000)).await.unwrap();
    store.records.caught_up(bridge(), standing(9000, 5000), None).await.unwrap();
    assert_eq!(store.records.reading_anew().unwrap(), Some(ReadingAnew::Reading));
    assert!(store.records.get(key(5)).unwrap().is_some());
}

/// Its clock was ahead: the bridge has the record, and gives it to nobody before its time.
#[tokio::test]
async fn what_the_bridge_sets_aside_is_held_back_though_it_was_sent() {
    let dir = folder();
    let (store, _) = away(&dir).await;
    let ahead = media_record(22, "ahead", stamp(2_100_000_000_000, 1));
    store.records.apply(peer(5, 1), shelf(), vec![ahead], Seq(1)).await.unwrap();
    let had = store.records.heads_now().into_iter().find(|head| head.bucket == shelf()).unwrap();
    store.records.meet(bridge(), standing(9000, 5000)).await.unwrap();
    store.records.caught_up(bridge(), standing(9000, 5000), Some(vec![had])).await.unwrap();
    while store.records.sweep_some().await.unwrap() != Swept::Done {}
    let (held_back, _) = store.records.held_back(None).unwrap();
    assert_eq!(held_back.iter().map(|held| held.record.key.id).collect::<Vec<_>>(), [id(22)]);
    assert!(store.records.get(key(20)).unwrap().is_none(), "that was deleted");
}

/// The bridge's clock is ahead. In step afterwards, the node would bring the record back once the bridge has forgotten its delete.
#[tokio::test]
async fn a_delete_that_is_set_aside_while_all_is_read_anew_holds_its_record_back() {
    let dir = folder();
    let (store, had) = away(&dir).await;
    store.records.set_trusted_time(at(0));
    store.records.meet(bridge(), standing(9000, 5000)).await.unwrap();
    give(&store, 1..=3, 11).await.unwrap();
    let deletes = [2, 60].map(|number| of_bridge(number).deleted(stamp(at(3_600_000), 9)));
    let applied = store.records.apply(bridge(), shelf(), deletes.into(), Seq(12)).await.unwrap();
    assert_eq!(applied.quarantined, 2);
    let has = vec![BucketHead { bucket: shelf(), head: had }];
    store.records.caught_up(bridge(), standing(9000, 5000), Some(has)).await.unwrap();
    while store.records.sweep_some().await.unwrap() != Swept::Done {}
    let store = again(store, &dir);
    assert_eq!(store.records.in_step_ms().unwrap(), Some(at(9000)));
    assert_eq!(title(&store, 2).as_deref(), Some("2 of the bridge"), "kept for readers here");
    let page = store.records.page(shelf(), Seq(0), peer(5, 1), 1 << 20).await.unwrap();
    let given: Vec<RecordId> = page.records.iter().map(|record| record.key.id).collect();
    assert!(given.contains(&id(1)) && !given.contains(&id(2)), "nobody gets it: {given:?}");
    store.records.set_trusted_time(at(3_600_000));
    store.records.replay_quarantine().await.unwrap();
    assert!(store.records.get(key(2)).unwrap().is_some_and(|held| held.record.is_tombstone()));
    let page = store.records.page(shelf(), Seq(0), peer(5, 1), 1 << 20).await.unwrap();
    assert!(page.records.iter().any(|record| record.key.id == id(2)), "a delete goes where all deletes go");
}

/// What was confirmed before may have been deleted since, and that forgotten.
#[tokio::test]
async fn reading_all_anew_begins_again_if_it_takes_longer_than_a_lease() {
    let dir = folder();
    let (store, _) = away(&dir).await;
    store.records.meet(bridge(), standing(9000, 5000)).await.unwrap();
    store.records.meet(bridge(), standing(9000, 5000)).await.unwrap();
    give(&store, 1..=600, 600).await.unwrap();
    store.records.meet(bridge(), standing(12_000, 8000)).await.unwrap();
    assert!(store.records.cursor(bridge().node, shelf()).await.unwrap().is_some(), "within a lease it goes on");
    store.records.meet(bridge(), standing(20_000, 16_000)).await.unwrap();
    assert_eq!(store.records.cursor(bridge().node, shelf()).await.unwrap(), None);
    let mut store = again(store, &dir);
    assert!(matches!(give(&store, 1..=1, 1).await, Err(StoreError::ReadsAnew)), "no session before it is cleared");
    while store.records.sweep_some().await.unwrap() != Swept::Done {
        store = again(store, &dir);
    }
    assert_eq!(store.records.reading_anew().unwrap(), Some(ReadingAnew::Reading));
    store.records.meet(bridge(), standing(21_000, 16_000)).await.unwrap();
    give(&store, 1..=2, 700).await.unwrap();
    store.records.caught_up(bridge(), standing(21_000, 16_000), Some(Vec::new())).await.unwrap();
    while store.records.sweep_some().await.unwrap() != Swept::Done {}
    assert!(store.records.get(key(500)).unwrap().is_none(), "it was deleted after it was read");
    assert!(store.records.get(key(2)).unwrap().is_some());
}

#[tokio::test]
async fn what_a_node_made_before_it_joined_an_old_fleet_is_sent_as_ever() {
    let dir = folder();
    let store = open(&dir);
    store.records.set_bridge(Some(bridge().node));
    write(&store, 1, "made before").await;
    store.records.meet(bridge(), standing(9000, 5000)).await.unwrap();
    assert_eq!(store.records.reading_anew().unwrap(), None);
    assert_eq!(sent(&store).await, [id(1)]);
}

/// The copy does not tell what was given after it was made, and has been deleted since.
#[tokio::test]
async fn a_backup_from_before_a_node_met_anybody_brings_nothing_back() {
    let dir = folder();
    let store = open(&dir);
    write(&store, 1, "given later, and deleted").await;
    let file = dir.path().join("before");
    backup::export(&store.records, &file).unwrap();
    let restored_dir = folder();
    backup::import(&file, &config(&restored_dir).data_dir, 4 << 20).unwrap();
    let restored = open(&restored_dir);
    restored.records.set_bridge(Some(bridge().node));
    restored.records.meet(bridge(), standing(9000, 5000)).await.unwrap();
    assert_eq!(restored.records.reading_anew().unwrap(), Some(ReadingAnew::Reading));
    assert_eq!(title(&restored, 1).as_deref(), Some("given later, and deleted"), "readers notice nothing");
}

#[tokio::test]
async fn a_tombstone_goes_once_the_bridge_has_had_it_for_a_lease() {
    let dir = folder();
    let (store, _) = away(&dir).await;
    for number in [1, 2, 21] {
        store.records.change_one(Change::delete(key(number), None)).await.unwrap();
    }
    let head = store.records.heads_now().into_iter().find(|head| head.bucket == shelf()).unwrap();
    let tombstone = |store: &Store, number| store.records.get(key(number)).unwrap().is_some();
    // Had at the hello at 2000 or soon after, so before 3000.
    store.records.caught_up(bridge(), standing(2000, 0), Some(vec![head])).await.unwrap();
    write(&store, 40, "more").await;
    store.records.change_one(Change::delete(key(40), None)).await.unwrap();
    let more = BucketHead { bucket: shelf(), head: Seq(head.head.0 + 1) };
    store.records.caught_up(bridge(), standing(3000, 0), Some(vec![more])).await.unwrap();
    store.records.meet(bridge(), standing(9000, 2500)).await.unwrap();
    assert_eq!(store.records.collect_tombstones().await.unwrap(), 0);
    store.records.meet(bridge(), standing(9100, 3000)).await.unwrap();
    assert_eq!(store.records.collect_tombstones().await.unwrap(), 3);
    assert!(!tombstone(&store, 1) && !tombstone(&store, 2) && !tombstone(&store, 21));
    assert!(tombstone(&store, 40), "the bridge does not have it yet");
    assert!(store.records.get(key(3)).unwrap().is_some());
    assert!(store.records.verify().await.unwrap().is_sound());
    let store = again(store, &dir);
    assert_eq!(store.records.collect_tombstones().await.unwrap(), 0);
    assert_eq!(title(&store, 5).as_deref(), Some("5 of the bridge"));
}

/// The clock here was ahead: the bridge has set the delete aside, and would give the record back.
#[tokio::test]
async fn a_tombstone_stays_while_its_time_has_not_come_at_the_bridge() {
    let dir = folder();
    let (store, _) = away(&dir).await;
    store.records.change_one(Change::delete(key(1), None)).await.unwrap();
    store.records.set_trusted_time(at(7_200_000));
    store.records.change_one(Change::delete(key(2), None)).await.unwrap();
    let head = store.records.heads_now().into_iter().find(|head| head.bucket == shelf()).unwrap();
    store.records.caught_up(bridge(), standing(2000, 0), Some(vec![head])).await.unwrap();
    write(&store, 40, "more").await;
    let more = BucketHead { bucket: shelf(), head: Seq(head.head.0 + 1) };
    store.records.caught_up(bridge(), standing(3000, 0), Some(vec![more])).await.unwrap();
    store.records.meet(bridge(), standing(9100, 3000)).await.unwrap();
    assert_eq!(store.records.collect_tombstones().await.unwrap(), 1);
    assert!(store.records.get(key(1)).unwrap().is_none());
    assert!(store.records.get(key(2)).unwrap().is_some_and(|held| held.record.is_tombstone()));
}

/// An erasure makes the tombstone again wherever it is read; so it stays.
#[tokio::test]
async fn the_tombstone_of_what_was_erased_stays() {
    let dir = folder();
    let (store, _) = away(&dir).await;
    store.records.erase(Media::KIND, id(1)).await.unwrap();
    let head = |store: &Store| {
        let heads: Vec<BucketHead> = store.records.heads_now();
        heads.into_iter().filter(|head| matches!(head.bucket, BucketId::Collection(_))).collect::<Vec<_>>()
    };
    store.records.caught_up(bridge(), standing(2000, 0), Some(head(&store))).await.unwrap();
    write(&store, 40, "more").await;
    store.records.caught_up(bridge(), standing(3000, 0), Some(head(&store))).await.unwrap();
    store.records.meet(bridge(), standing(9000, 3000)).await.unwrap();
    assert_eq!(store.records.collect_tombstones().await.unwrap(), 0);
    assert!(store.records.get(key(1)).unwrap().is_some_and(|held| held.record.is_tombstone()));
}

/// A neighbour whose clock is ahead has edited two records that others deleted, one of them here, too.
async fn sweeps_what_has_a_version_aside(dir: &TempDir) -> Store {
    let (store, _) = away(dir).await;
    store.records.set_trusted_time(at(0));
    let ahead = |number| media_record(number, "let in later", stamp(at(3_600_000), 5));
    let applied = store.records.apply(peer(5, 1), shelf(), vec![ahead(5), ahead(6)], Seq(1)).await.unwrap();
    assert_eq!(applied.quarantined, 2);
    store.records.change_one(Change::delete(key(5), None)).await.unwrap();
    let had = store.records.heads_now().into_iter().find(|head| head.bucket == shelf()).unwrap();
    store.records.meet(bridge(), standing(9000, 5000)).await.unwrap();
    store.records.caught_up(bridge(), standing(9000, 5000), Some(vec![had])).await.unwrap();
    while store.records.sweep_some().await.unwrap() != Swept::Done {}
    let store = again(store, dir);
    store.records.set_trusted_time(at(3_600_000));
    store
}

/// It buries what is let in later, as it did before all was read anew.
#[tokio::test]
async fn a_tombstone_stays_through_the_sweep_while_a_version_of_its_record_is_set_aside() {
    let dir = folder();
    let store = sweeps_what_has_a_version_aside(&dir).await;
    assert!(store.records.get(key(5)).unwrap().is_some_and(|held| held.record.is_tombstone()));
    store.records.replay_quarantine().await.unwrap();
    assert!(store.records.get(key(5)).unwrap().is_some_and(|held| held.record.is_tombstone()));
}

#[tokio::test]
async fn what_is_let_in_of_a_record_that_was_swept_is_held_back() {
    let dir = folder();
    let store = sweeps_what_has_a_version_aside(&dir).await;
    assert!(store.records.get(key(6)).unwrap().is_none(), "it was deleted elsewhere");
    store.records.replay_quarantine().await.unwrap();
    assert_eq!(title(&store, 6).as_deref(), Some("let in later"));
    let (held_back, _) = store.records.held_back(None).unwrap();
    assert_eq!(held_back.iter().map(|held| held.record.key.id).collect::<Vec<_>>(), [id(6)]);
    assert!(!sent(&store).await.contains(&id(6)), "nobody gets it");
    assert!(store.records.verify().await.unwrap().is_sound());
}

async fn standings(store: &Store) -> [Standing; 2] {
    let selected = store.records.selected().await.unwrap();
    [selected.to_bridge, selected.nearby]
}

/// A node that has met nobody, with a record that it gave away at 1000.
async fn given_away(dir: &TempDir) -> Store {
    let store = open(dir);
    store.records.set_bridge(Some(bridge().node));
    write(&store, 1, "given away").await;
    assert_eq!(standings(&store).await, [Standing::FRESH; 2]);
    store.records.note_given(Some(at(1000))).await.unwrap();
    again(store, dir)
}

#[tokio::test]
async fn who_has_given_something_away_is_fresh_no_longer() {
    let dir = folder();
    let store = given_away(&dir).await;
    let given = Standing { keeps_all: false, ..standing(1000, 0) };
    assert_eq!(standings(&store).await, [given; 2]);
    assert_eq!(store.records.in_step_ms().unwrap(), None, "it never was");
    store.records.note_given(Some(at(2000))).await.unwrap();
    assert_eq!(standings(&store).await, [given; 2], "some was given before");
}

#[tokio::test]
async fn within_a_lease_of_what_it_gave_away_first_a_node_gives_and_takes_as_ever() {
    let dir = folder();
    let store = given_away(&dir).await;
    store.records.meet(bridge(), standing(3000, 500)).await.unwrap();
    assert_eq!(store.records.reading_anew().unwrap(), None);
    give(&store, 2..=3, 2).await.unwrap();
    assert_eq!(sent(&store).await, [id(1)]);
    store.records.caught_up(bridge(), standing(3000, 500), Some(Vec::new())).await.unwrap();
    assert_eq!(standings(&store).await, [standing(3000, 500); 2]);
    assert_eq!(store.records.in_step_ms().unwrap(), Some(at(3000)));
}

/// Others may have deleted since what it gave away.
#[tokio::test]
async fn a_lease_after_what_it_gave_away_first_a_node_reads_all_anew() {
    let dir = folder();
    let store = given_away(&dir).await;
    store.records.meet(bridge(), standing(9000, 5000)).await.unwrap();
    assert_eq!(store.records.reading_anew().unwrap(), Some(ReadingAnew::Reading));
}

#[tokio::test]
async fn nobody_is_in_step_as_of_later_than_the_bridge() {
    let dir = folder();
    let store = open(&dir);
    store.records.set_bridge(Some(bridge().node));
    store.records.note_given(Some(at(20_000))).await.unwrap();
    store.records.meet(bridge(), standing(9000, 5000)).await.unwrap();
    assert_eq!(standings(&store).await[0].in_step_ms, at(9000), "its clock was ahead");
}

/// What it has of others it has in part: it knows nothing of deletes.
#[tokio::test]
async fn before_a_node_has_read_all_once_it_is_in_step_as_of_the_earliest_it_met_and_renews_nobody() {
    let dir = folder();
    let store = open(&dir);
    store.records.set_bridge(Some(bridge().node));
    store.records.meet(bridge(), standing(3000, 500)).await.unwrap();
    assert_eq!(standings(&store).await, [Standing { keeps_all: false, ..standing(3000, 500) }; 2]);
    store.records.meet(peer(5, 1), standing(400, 0)).await.unwrap();
    assert_eq!(standings(&store).await[1].in_step_ms, at(3000), "that one may give it nothing");
    store.records.meet(peer(5, 1), standing(1000, 0)).await.unwrap();
    let store = again(store, &dir);
    assert_eq!(standings(&store).await, [Standing { keeps_all: false, ..standing(1000, 500) }; 2]);
    // Who has forgotten what was deleted since then does not tell it.
    store.records.caught_up(peer(5, 1), standing(3000, 2000), None).await.unwrap();
    assert_eq!(standings(&store).await[1].in_step_ms, at(1000));
    store.records.caught_up(peer(5, 1), standing(2000, 500), None).await.unwrap();
    assert_eq!(standings(&store).await, [standing(1000, 500), standing(2000, 500)]);
    store.records.meet(peer(6, 1), standing(700, 0)).await.unwrap();
    assert_eq!(standings(&store).await[1].in_step_ms, at(2000), "it knows what was deleted until then");
}
