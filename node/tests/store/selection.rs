//! Promises about collections that are kept or not, and a model beside them.

use std::collections::{BTreeMap, BTreeSet};

use alexandria_node::store::align::Step;
use alexandria_node::store::{Change, Config, Level, Pinned, Store, StoreError};
use alexandria_sync::chunk::{BlobHash, Chunking};
use alexandria_sync::domain::{Annotation, Blob, Collection, FileRole, Media, MediaFile, Typed};
use alexandria_sync::id::{BucketId, NodeId, RecordId, Seq};
use alexandria_sync::record::RecordKey;
use alexandria_sync::session::Chosen;
use alexandria_sync::store::{BlobStore, Peer, RecordStore};
use alexandria_sync::wire::Class;
use proptest::prelude::*;
use tempfile::TempDir;

use super::samples::{config, folder, id, media, media_record, noise, open, peer, shelf, stamp};

fn shelf_id() -> RecordId {
    let BucketId::Collection(id) = shelf() else { unreachable!("a shelf is a collection") };
    id
}

fn bridge() -> Peer {
    peer(9, 1)
}

async fn write(store: &Store, number: u64) {
    store.records.change_one(Change::put(shelf(), id(number), media(&number.to_string()))).await.unwrap();
}

fn head(store: &Store) -> Seq {
    store.records.heads_now().iter().find(|head| head.bucket == shelf()).map(|head| head.head).unwrap_or_default()
}

fn confirm_all(store: &Store) {
    store.records.note_held_by_bridge(bridge().node, shelf(), head(store));
}

/// Takes steps until nothing more can be done.
async fn align(store: &Store) -> Step {
    loop {
        match store.records.align(shelf_id()).await.unwrap() {
            Step::More(given_up) => {
                for blob in given_up {
                    store.blobs.discard_unreferenced(blob).await.unwrap();
                }
            }
            step => return step,
        }
    }
}

async fn titles(store: &Store) -> Vec<String> {
    let rows = store.records.changes_since(shelf(), Seq(0), 1000).await.unwrap();
    rows.iter().filter_map(|row| Media::from_record(&row.record)).map(|media| media.title).collect()
}

async fn put_content(store: &Store, seed: u64, len: usize) -> BlobHash {
    store.blobs.put_stream(Chunking::Fixed, Some(len as u64), noise(len, seed).as_slice()).await.unwrap().hash
}

async fn name_content(store: &Store, hash: BlobHash) {
    let record = Blob { hash: Some(hash), size_bytes: 1, media_type: "video/mp4".into() };
    store.records.change_one(Change::put(shelf(), Blob::record_id(hash), record)).await.unwrap();
}

#[tokio::test]
async fn a_collection_that_is_removed_goes_as_far_as_the_bridge_has_it_and_leaves_no_tombstone() {
    let dir = folder();
    let store = open(&dir);
    for number in 0..300 {
        write(&store, number).await;
    }
    let received = vec![media_record(1000, "from the bridge", stamp(1_700_000_000_000, 9))];
    store.records.apply(bridge(), shelf(), received, Seq(7)).await.unwrap();
    store.records.choose(shelf_id(), Level::None).await.unwrap();
    assert_eq!(align(&store).await, Step::Waiting, "the bridge has said nothing");
    assert_eq!(titles(&store).await.len(), 301);
    assert_eq!(store.records.waiting_to_be_sent(shelf()).unwrap(), 301);

    confirm_all(&store);
    let before = head(&store);
    write(&store, 500).await;
    assert_eq!(align(&store).await, Step::Waiting);
    assert_eq!(titles(&store).await, ["500"], "an edit that was not sent stays");
    assert_eq!(store.records.waiting_to_be_sent(shelf()).unwrap(), 1);
    assert!(store.records.find(Media::KIND, id(1)).unwrap().is_none(), "not even a tombstone");
    assert_eq!(head(&store), Seq(before.0 + 1), "rows are numbered on");
    assert!(store.records.verify().await.unwrap().is_sound());

    confirm_all(&store);
    assert_eq!(align(&store).await, Step::Done);
    assert!(titles(&store).await.is_empty() && store.records.unaligned().unwrap().is_empty());
    assert_eq!(store.records.stats().unwrap().kinds.iter().map(|(_, totals)| totals.live).sum::<u64>(), 0);
    let left = store.records.left().unwrap();
    assert!(left.contains(&(Media::KIND, id(500))) && left.len() == 302, "search hears of each: {}", left.len());
    store.records.forget_left(left).await.unwrap();
    assert!(store.records.left().unwrap().is_empty());
    assert!(store.records.verify().await.unwrap().is_sound());
}

/// A neighbour whose clock is ahead has edited what is then deleted here. The tombstone leaves with the collection: nothing would bury the edit later.
#[tokio::test]
async fn what_is_set_aside_goes_with_its_collection_whoever_sent_it() {
    const AHEAD_MS: u64 = 1_900_000_000_000;
    let dir = folder();
    let store = open(&dir);
    store.records.set_trusted_time(AHEAD_MS - 3_600_000);
    for (number, from) in [(1, peer(5, 1)), (2, bridge())] {
        write(&store, number).await;
        let ahead = media_record(number, "set aside", stamp(AHEAD_MS, 5));
        // One that is not here yet, too.
        let unknown = media_record(number + 10, "set aside", stamp(AHEAD_MS, 5));
        assert_eq!(store.records.apply(from, shelf(), vec![ahead, unknown], Seq(1)).await.unwrap().quarantined, 2);
        let key = RecordKey { bucket: shelf(), kind: Media::KIND, id: id(number) };
        store.records.change_one(Change::delete(key, None)).await.unwrap();
    }
    store.records.choose(shelf_id(), Level::None).await.unwrap();
    confirm_all(&store);
    assert_eq!(align(&store).await, Step::Done);
    assert_eq!(store.records.quarantine_use().unwrap().records, 0);
    store.records.set_trusted_time(AHEAD_MS);
    store.records.replay_quarantine().await.unwrap();
    assert!(titles(&store).await.is_empty());
    assert!(store.records.verify().await.unwrap().is_sound());
}

#[tokio::test]
async fn a_delete_that_is_set_aside_stays_for_as_long_as_what_it_deletes() {
    const AHEAD_MS: u64 = 1_900_000_000_000;
    let dir = folder();
    let store = open(&dir);
    store.records.set_trusted_time(AHEAD_MS - 3_600_000);
    confirm_all(&store);
    write(&store, 1).await;
    let delete = media_record(1, "1", stamp(1_700_000_000_000, 5)).deleted(stamp(AHEAD_MS, 5));
    assert_eq!(store.records.apply(bridge(), shelf(), vec![delete], Seq(1)).await.unwrap().quarantined, 1);
    store.records.choose(shelf_id(), Level::None).await.unwrap();
    assert_eq!(align(&store).await, Step::Waiting, "an edit that was not sent stays");
    store.records.set_trusted_time(AHEAD_MS);
    store.records.replay_quarantine().await.unwrap();
    assert!(titles(&store).await.is_empty(), "it was deleted");
    confirm_all(&store);
    assert_eq!(align(&store).await, Step::Done);
}

#[tokio::test]
async fn what_another_bridge_has_does_not_count() {
    let dir = folder();
    let store = open(&dir);
    write(&store, 1).await;
    confirm_all(&store);
    store.records.choose(shelf_id(), Level::None).await.unwrap();
    store.records.set_bridge(Some(NodeId::from_bytes([77; 16])));
    assert_eq!(align(&store).await, Step::Waiting);
    assert_eq!(titles(&store).await, ["1"]);
}

#[tokio::test]
async fn a_collection_taken_up_again_is_read_from_its_beginning_and_old_sessions_write_nothing() {
    let dir = folder();
    let store = open(&dir);
    let record = || vec![media_record(1, "one", stamp(1_700_000_000_000, 9))];
    store.records.apply(bridge(), shelf(), record(), Seq(50)).await.unwrap();
    let before = store.records.selected().await.unwrap();
    assert_eq!(before.selection.collections, Chosen::default());
    let old_session = store.records.as_selected(before.version);
    old_session.apply(bridge(), shelf(), record(), Seq(51)).await.unwrap();

    store.records.choose(shelf_id(), Level::None).await.unwrap();
    let without = store.records.selected().await.unwrap();
    assert_eq!(without.selection.collections, Chosen::AllBut([shelf_id()].into()));
    confirm_all(&store);
    assert_eq!(align(&store).await, Step::Done);
    store.records.choose(shelf_id(), Level::Content).await.unwrap();
    // A page that was on its way the whole time would skip all that was evicted.
    let late = old_session.apply(bridge(), shelf(), record(), Seq(60)).await;
    assert!(matches!(late, Err(StoreError::SelectionChanged)), "{late:?}");
    assert_eq!(store.records.cursor(bridge().node, shelf()).await.unwrap(), None);
    assert!(titles(&store).await.is_empty());

    let again = store.records.selected().await.unwrap();
    assert_eq!(again.selection.collections, Chosen::default());
    assert_eq!(again.selection.returning, BTreeSet::from([shelf_id()]));
    drop((old_session, store));
    let store = open(&dir);
    let again = store.records.selected().await.unwrap();
    assert!(again.selection.returning.contains(&shelf_id()), "until it was read to its end");
    store.records.has_returned(again.version + 1, shelf()).await.unwrap();
    assert!(store.records.keeping(shelf_id()).unwrap().returning, "an older session says nothing");
    store.records.has_returned(again.version, shelf()).await.unwrap();
    assert!(!store.records.keeping(shelf_id()).unwrap().returning);
}

#[tokio::test]
async fn content_leaves_with_its_collection_once_the_bridge_holds_it_and_nothing_else_names_it() {
    let dir = folder();
    let store = open(&dir);
    let (mine, shared) = (put_content(&store, 1, 1000).await, put_content(&store, 2, 1000).await);
    name_content(&store, mine).await;
    name_content(&store, shared).await;
    let record = Blob { hash: Some(shared), size_bytes: 1, media_type: "video/mp4".into() };
    let elsewhere = Change::put(BucketId::Catalogue, Blob::record_id(shared), record);
    store.records.change_one(elsewhere).await.unwrap();
    store.records.choose(shelf_id(), Level::None).await.unwrap();
    confirm_all(&store);
    assert_eq!(align(&store).await, Step::Waiting, "the records went, the content was not uploaded");
    assert_eq!(store.records.take_unconfirmed(), [mine]);
    store.blobs.note_checked(bridge().node, vec![(mine, false)]).await.unwrap();
    assert_eq!(align(&store).await, Step::Waiting);
    assert!(store.blobs.held(mine).unwrap().is_some());
    store.blobs.note_checked(bridge().node, vec![(mine, true)]).await.unwrap();
    assert_eq!(align(&store).await, Step::Done);
    assert!(store.blobs.held(mine).unwrap().is_none() && store.blobs.open_blob(mine).await.unwrap().is_none());
    assert!(store.blobs.held(shared).unwrap().is_some(), "the catalogue names it");
}

#[tokio::test]
async fn content_of_a_collection_kept_by_its_records_comes_when_it_is_opened_or_pinned() {
    let dir = folder();
    let store = open(&dir);
    let hash = BlobHash::of(b"far");
    name_content(&store, hash).await;
    let file = MediaFile {
        blob: hash,
        media_type: "video/mp4".into(),
        name: "a.mp4".into(),
        size_bytes: 1,
        role: FileRole::Main,
    };
    let film = Media { title: "Film".into(), files: vec![file], ..Media::default() };
    store.records.change_one(Change::put(shelf(), id(1), film)).await.unwrap();
    let session = store.blobs.session();
    let listed = async || session.wanted(bridge().node, None, 10).await.unwrap();
    let wanted = async || listed().await.iter().map(|wanted| wanted.blob).collect::<Vec<_>>();
    assert_eq!(wanted().await, [hash]);
    store.records.choose(shelf_id(), Level::Records).await.unwrap();
    assert_eq!(align(&store).await, Step::Done);
    assert!(wanted().await.is_empty());
    let stats = store.blobs.stats().unwrap();
    assert_eq!((stats.wanted, stats.on_demand, stats.evicted), (0, 1, 0));
    store.blobs.want_now(hash, None);
    let urgent = session.urgent(bridge().node).await.unwrap();
    assert_eq!(urgent.iter().map(|wanted| wanted.blob).collect::<Vec<_>>(), [hash]);

    for pin in [Pinned::Media(id(1)), Pinned::Collection(shelf_id())] {
        assert!(store.records.pin(pin).await.unwrap() && !store.records.pin(pin).await.unwrap());
        align(&store).await;
        assert_eq!(wanted().await, [hash], "{pin:?}");
        assert!(store.blobs.is_pinned(hash).unwrap());
        assert_eq!(listed().await[0].class, Class::Pinned);
        assert!(store.records.unpin(pin).await.unwrap() && !store.records.unpin(pin).await.unwrap());
        align(&store).await;
        assert!(wanted().await.is_empty(), "{pin:?}");
    }
    store.records.choose(shelf_id(), Level::Content).await.unwrap();
    align(&store).await;
    assert_eq!(wanted().await, [hash]);
}

#[tokio::test]
async fn the_default_is_for_collections_that_nobody_chose_and_were_not_made_here() {
    let dir = folder();
    let nothing = Config { default_level: Level::None, ..config(&dir) };
    let foreign = RecordId::from_bytes([0xf0; 16]);
    {
        let store = open(&dir);
        let record = media("x").to_record(BucketId::Collection(foreign), id(1), stamp(1_700_000_000_000, 9));
        store.records.apply(bridge(), BucketId::Collection(foreign), vec![record], Seq(3)).await.unwrap();
    }
    let store = Store::open(&nothing).unwrap();
    assert_eq!(store.records.unaligned().unwrap(), [foreign], "it is to go now");
    let mine = Collection { title: "Mine".into(), ..Collection::default() };
    store.records.change_one(Change::create(BucketId::Catalogue, id(5), mine)).await.unwrap();
    assert_eq!(store.records.keeping(id(5)).unwrap().level, Level::Content);
    assert_eq!(store.records.keeping(foreign).unwrap().level, Level::None);
    let selected = store.records.selected().await.unwrap();
    assert_eq!(selected.selection.collections, Chosen::Only([id(5)].into()));
    drop(store);
    // Back to everything: what was evicted meanwhile is read again.
    let store = open(&dir);
    let selected = store.records.selected().await.unwrap();
    assert_eq!(selected.selection.collections, Chosen::default());
    assert_eq!(selected.selection.returning, BTreeSet::from([foreign]));
    assert_eq!(store.records.cursor(bridge().node, BucketId::Collection(foreign)).await.unwrap(), None);
}

/// Invariant 7: the bridge waits for this node's receipt, so its erasure is not forgotten before that is written.
#[tokio::test]
async fn an_erasure_stays_until_its_receipt_is_written() {
    let dir = folder();
    let store = open(&dir);
    write(&store, 1).await;
    let erasures = store.records.erase(Media::KIND, id(1)).await.unwrap();
    store.records.choose(shelf_id(), Level::None).await.unwrap();
    confirm_all(&store);
    assert_eq!(align(&store).await, Step::Waiting);
    assert!(store.records.get(erasures[0]).unwrap().is_some());
    store.records.finish_erasures(erasures).await.unwrap();
    // The receipt is in this node's own site, which stays.
    assert_eq!(align(&store).await, Step::Done);
    assert!(store.records.verify().await.unwrap().is_sound());
}

#[tokio::test]
async fn a_collection_that_is_being_exported_leaves_only_afterwards() {
    let dir = folder();
    let store = open(&dir);
    write(&store, 1).await;
    let export = store.records.let_stay([shelf()]);
    store.records.choose(shelf_id(), Level::None).await.unwrap();
    confirm_all(&store);
    assert_eq!(align(&store).await, Step::Waiting);
    assert_eq!(titles(&store).await, ["1"]);
    let mut occasions = store.records.alignment_changes();
    occasions.borrow_and_update();
    drop(export);
    assert!(occasions.has_changed().unwrap(), "it is tried again at once");
    assert_eq!(align(&store).await, Step::Done);
    assert!(titles(&store).await.is_empty());
}

#[tokio::test]
async fn a_reader_reads_on_though_the_collection_leaves() {
    let dir = folder();
    let store = open(&dir);
    let hash = put_content(&store, 1, 1000).await;
    name_content(&store, hash).await;
    let mut follower = store.blobs.follow(hash);
    follower.durable_from(0).await.unwrap().unwrap();
    store.blobs.note_checked(bridge().node, vec![(hash, true)]).await.unwrap();
    store.records.choose(shelf_id(), Level::None).await.unwrap();
    confirm_all(&store);
    assert_eq!(align(&store).await, Step::Done);
    assert_eq!(store.blobs.held(hash).unwrap(), None);
    let rest = follower.durable_from(600).await.unwrap().unwrap();
    assert_eq!((rest.bytes, rest.file.metadata().unwrap().len()), (600..1000, 1000));
}

/// The picture analysis writes about content that the bridge has long had.
#[tokio::test]
async fn content_leaves_with_the_last_record_that_names_it() {
    let dir = folder();
    let store = open(&dir);
    let hash = put_content(&store, 1, 1000).await;
    name_content(&store, hash).await;
    confirm_all(&store);
    store.blobs.note_checked(bridge().node, vec![(hash, true)]).await.unwrap();
    let note = Annotation { media: id(1), blob: Some(hash), ..Annotation::default() };
    store.records.change_one(Change::put(shelf(), Annotation::record_id(id(1), hash), note)).await.unwrap();
    store.records.choose(shelf_id(), Level::None).await.unwrap();
    assert_eq!(align(&store).await, Step::Waiting, "the annotation was not sent yet");
    assert!(store.blobs.held(hash).unwrap().is_some());
    confirm_all(&store);
    assert_eq!(align(&store).await, Step::Done);
    assert_eq!(store.blobs.held(hash).unwrap(), None);
}

/// Whatever was chosen for content: once it is erased it is nowhere, and nobody asks for it.
#[tokio::test]
async fn erasing_takes_also_what_is_pinned_or_comes_on_demand() {
    let dir = folder();
    let store = open(&dir);
    let (pinned, absent) = (put_content(&store, 1, 1000).await, BlobHash::of(b"elsewhere"));
    for (number, hash) in [(1, pinned), (2, absent)] {
        name_content(&store, hash).await;
        let medium = Media { cover: Some(hash), ..media("x") };
        store.records.change_one(Change::put(shelf(), id(number), medium)).await.unwrap();
    }
    store.records.choose(shelf_id(), Level::Records).await.unwrap();
    align(&store).await;
    store.records.pin(Pinned::Media(id(1))).await.unwrap();
    store.blobs.want_now(absent, None);
    assert_eq!(store.blobs.stats().unwrap().on_demand, 1);
    for number in [1, 2] {
        store.records.erase(Media::KIND, id(number)).await.unwrap();
    }
    let _reader = store.blobs.open_blob(pinned).await.unwrap();
    for hash in [pinned, absent] {
        assert!(store.blobs.purge(hash).await.unwrap());
        assert_eq!(store.blobs.held(hash).unwrap(), None);
    }
    let stats = store.blobs.stats().unwrap();
    assert_eq!((stats.held, stats.wanted, stats.on_demand), (0, 0, 0));
    let session = store.blobs.session();
    assert!(session.urgent(bridge().node).await.unwrap().is_empty());
    // The pin is on an id, and brings nothing back.
    align(&store).await;
    assert!(session.wanted(bridge().node, None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_backup_carries_what_was_chosen_and_what_is_to_be_erased() {
    let (dir, to) = (folder(), folder());
    let store = open(&dir);
    write(&store, 1).await;
    store.records.choose(shelf_id(), Level::None).await.unwrap();
    store.records.choose(shelf_id(), Level::Records).await.unwrap();
    store.records.pin(Pinned::Media(id(1))).await.unwrap();
    write(&store, 2).await;
    let erasures = store.records.erase(Media::KIND, id(2)).await.unwrap();
    let file = dir.path().join("backup");
    alexandria_node::store::backup::export(&store.records, &file).unwrap();
    let config = config(&to);
    alexandria_node::store::backup::import(&file, &config.data_dir, config.cache_bytes).unwrap();
    let restored = Store::open(&config).unwrap();
    let keeping = restored.records.keeping(shelf_id()).unwrap();
    assert_eq!((keeping.level, keeping.chosen, keeping.returning), (Level::Records, true, true));
    assert_eq!(restored.records.pins().unwrap(), [Pinned::Media(id(1))]);
    assert_eq!(restored.records.pending_erasures().unwrap(), erasures, "its receipt is still to be given");
}

#[derive(Clone, Debug)]
enum Op {
    Write(u8),
    Receive(u8),
    /// The bridge has read this much of the feed, in hundredths.
    Confirm(u8),
    Choose(Level),
    Align,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let level = prop_oneof![2 => Just(Level::None), 1 => Just(Level::Records), 1 => Just(Level::Content)];
    prop_oneof![
        4 => (0u8..8).prop_map(Op::Write),
        2 => (0u8..8).prop_map(Op::Receive),
        2 => (0u8..=100).prop_map(Op::Confirm),
        2 => level.prop_map(Op::Choose),
        4 => Just(Op::Align),
        1 => Just(Op::Reopen),
    ]
}

/// What the store should hold of the shelf: rows by number, and what is known.
#[derive(Default)]
struct Model {
    rows: BTreeMap<Seq, RecordKey>,
    head: Seq,
    confirmed: Seq,
    cursor: Option<Seq>,
    level: Level,
}

impl Model {
    fn put(&mut self, key: RecordKey) {
        self.rows.retain(|_, held| *held != key);
        self.head = self.head.next();
        self.rows.insert(self.head, key);
    }
}

async fn run(dir: &TempDir, ops: Vec<Op>) {
    let mut store = open(dir);
    let mut model = Model { level: Level::Content, ..Model::default() };
    let mut received = 0u64;
    for op in ops {
        match op {
            Op::Write(number) => {
                let before = head(&store);
                let title = media(&format!("edit {}", before.0));
                store.records.change_one(Change::put(shelf(), id(number.into()), title)).await.unwrap();
                model.put(RecordKey { bucket: shelf(), kind: Media::KIND, id: id(number.into()) });
            }
            Op::Receive(number) => {
                received += 1;
                let record = media_record(100 + u64::from(number), "received", stamp(1_800_000_000_000 + received, 9));
                let key = record.key;
                let version = store.records.selected().await.unwrap().version;
                let session = store.records.as_selected(version);
                session.apply(bridge(), shelf(), vec![record], Seq(received)).await.unwrap();
                model.put(key);
                model.cursor = Some(Seq(received));
            }
            Op::Confirm(hundredths) => {
                let upto = Seq(model.head.0 * u64::from(hundredths) / 100);
                store.records.note_held_by_bridge(bridge().node, shelf(), upto);
                model.confirmed = upto;
            }
            Op::Choose(level) => {
                store.records.choose(shelf_id(), level).await.unwrap();
                if model.level == Level::None && level != Level::None {
                    model.cursor = None;
                }
                model.level = level;
            }
            Op::Align => {
                let step = align(&store).await;
                if model.level == Level::None {
                    let confirmed = model.confirmed;
                    model.rows.retain(|seq, _| *seq > confirmed);
                    assert_eq!(step == Step::Done, model.rows.is_empty());
                }
            }
            Op::Reopen => {
                drop(store);
                store = open(dir);
                // What the bridge has is heard again in the next session.
                model.confirmed = Seq(0);
            }
        }
        let feed = store.records.changes_since(shelf(), Seq(0), 1000).await.unwrap();
        let feed: Vec<_> = feed.into_iter().map(|row| (row.seq, row.record.key)).collect();
        assert_eq!(feed, model.rows.clone().into_iter().collect::<Vec<_>>());
        assert_eq!(head(&store), model.head);
        let cursor = store.records.cursor(bridge().node, shelf()).await.unwrap();
        assert_eq!(cursor.map(|cursor| cursor.seq), model.cursor);
        assert!(store.records.stats().unwrap().kinds.iter().all(|(_, totals)| totals.deleted == 0));
    }
    assert!(store.records.verify().await.unwrap().is_sound());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("ALEXANDRIA_STORE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    /// An edit that the bridge does not have is never evicted, and nothing else stays; over restarts.
    #[test]
    fn what_is_evicted_is_what_the_bridge_has(ops in prop::collection::vec(op(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(run(&folder(), ops));
    }
}
