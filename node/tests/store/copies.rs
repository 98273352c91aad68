//! Data folders that were set back to an older copy, or of which two are open.

use std::fs;
use std::path::Path;

use alexandria_node::store::absence::ReadingAnew;
use alexandria_node::store::{Change, Store};
use alexandria_sync::absence::Standing;
use alexandria_sync::id::Seq;
use alexandria_sync::lineage::{Moment, Remembered, Told};
use alexandria_sync::store::{Applied, RecordStore};
use tempfile::TempDir;

use super::samples::{config, folder, id, media, media_record, open, peer, shelf, stamp};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn copy_of(dir: &TempDir) -> TempDir {
    let other = folder();
    copy(&config(dir).data_dir, &config(&other).data_dir);
    other
}

async fn written(store: &Store, number: u64) {
    store.records.change_one(Change::create(shelf(), id(number), media("one"))).await.unwrap();
}

async fn moment(store: &Store) -> Moment {
    store.records.moment().await.unwrap().expect("something was written")
}

fn of_now(store: &Store, moment: Moment) -> Remembered {
    Remembered { epoch: store.records.identity().epoch, moment }
}

/// A copy of a folder, and what a peer remembers of a record that was written in the folder after it was made.
async fn image_and_what_it_lacks(dir: &TempDir) -> (TempDir, Remembered) {
    let image = copy_of(dir);
    let store = open(dir);
    written(&store, 2).await;
    (image, of_now(&store, moment(&store).await))
}

#[tokio::test]
async fn a_store_that_was_set_back_begins_a_new_life_once_a_peer_remembers_what_it_has_forgotten() {
    let dir = folder();
    let store = open(&dir);
    assert_eq!(store.records.moment().await.unwrap(), None);
    written(&store, 1).await;
    store.records.apply(peer(1, 1), shelf(), vec![], Seq(7)).await.unwrap();
    let before = of_now(&store, moment(&store).await);
    drop(store);
    let image = copy_of(&dir);
    let store = open(&dir);
    written(&store, 2).await;
    let lost = of_now(&store, moment(&store).await);
    assert!(store.records.recall(peer(1, 1).node, vec![before, lost]).await.unwrap(), "it is where it was");
    drop(store);

    let store = open(&image);
    let old = store.records.identity();
    // As many rows as were lost, and more.
    for number in 3..6 {
        written(&store, number).await;
    }
    assert!(store.records.recall(peer(1, 1).node, vec![before]).await.unwrap(), "that is part of its past");
    assert!(!store.records.recall(peer(1, 1).node, vec![lost]).await.unwrap());
    let new = store.records.identity();
    assert!(new.node == old.node && new.epoch != old.epoch && new.incarnation > old.incarnation);
    assert_eq!(store.records.cursor(peer(1, 1).node, shelf()).await.unwrap(), None, "all is read anew");
    assert!(store.records.recall(peer(1, 1).node, vec![before, lost]).await.unwrap(), "of the old life");
    let told = store.records.set_back().unwrap().map(|set_back| (set_back.noticed_by, set_back.times));
    assert_eq!(told, Some((peer(1, 1).node, 1)));
    let now = of_now(&store, moment(&store).await);
    drop(store);
    let store = open(&image);
    assert_eq!(store.records.identity(), new);
    assert!(store.records.recall(peer(1, 1).node, vec![now]).await.unwrap());
}

/// All that a peer has of it is on the card; that it has met the peer is not.
#[tokio::test]
async fn who_is_known_and_knows_nobody_was_set_back_to_before_its_first_meeting() {
    let dir = folder();
    let store = open(&dir);
    written(&store, 1).await;
    drop(store);
    let image = copy_of(&dir);
    let store = open(&dir);
    let had = of_now(&store, moment(&store).await);
    store.records.meet(peer(9, 1), Standing { in_step_ms: 1, ..Standing::default() }).await.unwrap();
    assert!(store.records.recall(peer(9, 1).node, vec![had]).await.unwrap(), "it knows whom it has met");
    drop(store);
    let store = open(&image);
    assert!(!store.records.recall(peer(9, 1).node, vec![had]).await.unwrap());
    assert!(store.records.recall(peer(9, 1).node, vec![had]).await.unwrap(), "of the old life");
}

/// It passes for new where nobody knew it: a neighbour's standing says nothing of what it had given away in its other life.
#[tokio::test]
async fn who_was_set_back_to_before_it_met_the_bridge_keeps_no_standing_from_a_neighbour() {
    let (bridge, neighbour) = (peer(9, 1), peer(5, 1));
    let theirs = Standing { in_step_ms: 9000, collected_ms: 5000, keeps_all: true };
    for has_met_the_bridge in [false, true] {
        let dir = folder();
        let store = open(&dir);
        store.records.set_bridge(Some(bridge.node));
        written(&store, 1).await;
        if has_met_the_bridge {
            store.records.apply(bridge, shelf(), vec![], Seq(7)).await.unwrap();
        }
        drop(store);
        let (image, lost) = image_and_what_it_lacks(&dir).await;

        let store = open(&image);
        store.records.set_bridge(Some(bridge.node));
        store.records.meet(neighbour, theirs).await.unwrap();
        store.records.caught_up(neighbour, theirs, None).await.unwrap();
        let before = store.records.selected().await.unwrap().to_bridge;
        assert!(!store.records.recall(bridge.node, vec![lost]).await.unwrap());
        let after = store.records.selected().await.unwrap().to_bridge;
        if has_met_the_bridge {
            assert_eq!(after, before);
        } else {
            assert_eq!(before.in_step_ms, 9000);
            assert_eq!((after.in_step_ms, after.collected_ms, after.keeps_all), (0, before.collected_ms, false));
        }
    }
}

/// What it exported without knowing the time came to somebody who shows it now.
#[tokio::test]
async fn who_gave_something_away_at_a_time_that_it_does_not_know_was_not_set_back() {
    let dir = folder();
    let store = open(&dir);
    written(&store, 1).await;
    store.records.note_given(None).await.unwrap();
    let had = of_now(&store, moment(&store).await);
    drop(store);
    let store = open(&dir);
    assert!(store.records.recall(peer(9, 1).node, vec![had]).await.unwrap());
    let selected = store.records.selected().await.unwrap();
    assert_eq!(selected.to_bridge, Standing::FRESH, "it could take no bundle otherwise");
}

#[tokio::test]
async fn two_copies_never_give_the_same_stamp() {
    let dir = folder();
    drop(open(&dir));
    let other = copy_of(&dir);
    let mut incarnations = Vec::new();
    for dir in [&dir, &other] {
        let store = open(dir);
        let stored = store.records.change_one(Change::create(shelf(), id(1), media("one"))).await.unwrap();
        incarnations.push(stored.record.newest_stamp().incarnation);
    }
    assert_ne!(incarnations[0], incarnations[1]);
}

#[tokio::test]
async fn what_a_neighbour_makes_up_brings_no_new_life_and_the_bridge_is_believed() {
    let dir = folder();
    let store = open(&dir);
    written(&store, 1).await;
    let real = moment(&store).await;
    let made_up = of_now(&store, Moment { rows: real.rows + 1, ..real });
    let (neighbour, bridge) = (peer(5, 1).node, peer(9, 1).node);
    store.records.note_held_by_bridge(bridge, shelf(), Seq(0));
    assert!(store.records.recall(neighbour, vec![made_up]).await.unwrap());
    assert!(!store.records.recall(bridge, vec![made_up]).await.unwrap());
}

#[tokio::test]
async fn what_a_page_told_is_remembered_with_it_and_the_pages_of_another_copy_are_not_taken() {
    let dir = folder();
    let store = open(&dir);
    let from = peer(5, 1);
    let moment = |rows| Moment { start: 3, rows, seal: [1; 16] };
    let page = |number| vec![media_record(number, "theirs", stamp(1_790_000_000_000, 5))];
    let told = |known: Vec<Moment>, rows| Told::InSession { known, now: moment(rows) };
    let taken = store.records.apply_told(from, shelf(), page(1), Seq(1), told(vec![], 1)).await.unwrap();
    assert_eq!(taken, Some(Applied { applied: 1, ..Applied::default() }));
    let refused = store.records.apply_told(from, shelf(), page(2), Seq(2), told(vec![], 2)).await.unwrap();
    assert_eq!(refused, None);
    drop(store);
    let store = open(&dir);
    let remembered = store.records.remembered(from.node).await.unwrap();
    assert_eq!(remembered, [Remembered { epoch: from.epoch, moment: moment(1) }]);
    let cursor = store.records.cursor(from.node, shelf()).await.unwrap();
    assert_eq!(cursor.map(|cursor| cursor.seq), Some(Seq(1)));
}

/// What the image held may have been given since, and deleted by others who have forgotten it.
#[tokio::test]
async fn a_card_from_before_its_node_met_anybody_brings_nothing_back() {
    let dir = folder();
    let store = open(&dir);
    written(&store, 1).await;
    drop(store);
    let (image, lost) = image_and_what_it_lacks(&dir).await;

    let store = open(&image);
    let bridge = peer(1, 1);
    store.records.set_bridge(Some(bridge.node));
    assert!(!store.records.recall(bridge.node, vec![lost]).await.unwrap());
    let standing = Standing { in_step_ms: 9000, collected_ms: 5000, keeps_all: true };
    store.records.meet(bridge, standing).await.unwrap();
    assert_eq!(store.records.reading_anew().unwrap(), Some(ReadingAnew::Reading));
}
