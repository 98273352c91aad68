//! Promises about room for content: what makes way, in which order, and what never does.

use std::collections::BTreeMap;

use alexandria_node::store::blobs::incoming::PutBlobError;
use alexandria_node::store::blobs::{BlobError, BlobSession, Need};
use alexandria_node::store::{Change, Config, Pinned, Store};
use alexandria_sync::chunk::{BlobHash, Chunker, Chunking, Manifest};
use alexandria_sync::domain::{Blob, Media, Typed};
use alexandria_sync::id::{BucketId, NodeId};
use alexandria_sync::record::RecordKey;
use alexandria_sync::store::{BlobStore, WriteBlobError};
use proptest::prelude::*;
use tempfile::TempDir;

use super::samples::{config, folder, id, noise, shelf};

const BRIDGE: NodeId = NodeId::from_bytes([9; 16]);
const HOUR_MS: u64 = 3_600_000;
const START_MS: u64 = 1_900_000_000_000;
const KB: u64 = 1000;

fn with_quota(dir: &TempDir, content_bytes_max: u64) -> Config {
    Config { content_bytes_max: Some(content_bytes_max), ..config(dir) }
}

fn open(dir: &TempDir, content_bytes_max: u64) -> Store {
    let store = Store::open(&with_quota(dir, content_bytes_max)).unwrap();
    store.records.set_bridge(Some(BRIDGE));
    store
}

fn content(number: u64) -> Vec<u8> {
    noise(100 * KB as usize, number)
}

async fn put(store: &Store, number: u64) -> Result<BlobHash, PutBlobError> {
    let bytes = content(number);
    Ok(store.blobs.put_stream(Chunking::Fixed, Some(bytes.len() as u64), bytes.as_slice()).await?.hash)
}

async fn name(store: &Store, hash: BlobHash) {
    let record = Blob { hash: Some(hash), size_bytes: 100 * KB, media_type: "video/mp4".into() };
    store.records.change_one(Change::put(shelf(), Blob::record_id(hash), record)).await.unwrap();
}

/// Content of a collection that the bridge holds as well.
async fn put_known(store: &Store, number: u64) -> BlobHash {
    let hash = put(store, number).await.unwrap();
    name(store, hash).await;
    store.blobs.note_checked(BRIDGE, vec![(hash, true)]).await.unwrap();
    hash
}

fn held(store: &Store, hash: BlobHash) -> bool {
    let row = store.blobs.held(hash).unwrap().is_some();
    let file = store.blobs.path(hash).unwrap().is_some_and(|path| path.exists());
    assert_eq!(row, file, "a row for each file");
    row
}

async fn wanted(store: &Store) -> Vec<BlobHash> {
    let wanted = store.blobs.session().wanted(BRIDGE, None, 100).await.unwrap();
    wanted.into_iter().map(|wanted| wanted.blob).collect()
}

fn manifest(bytes: &[u8]) -> Manifest {
    let mut chunker = Chunker::new(Chunking::Fixed);
    chunker.update(bytes);
    chunker.finish().unwrap()
}

#[tokio::test]
async fn what_was_opened_least_recently_makes_way_and_comes_back_only_when_it_is_opened() {
    let dir = folder();
    let store = open(&dir, 350 * KB);
    let mut known = Vec::new();
    for number in 0..3 {
        store.records.set_trusted_time(START_MS + number * HOUR_MS);
        known.push(put_known(&store, number).await);
    }
    store.records.set_trusted_time(START_MS + 10 * HOUR_MS);
    store.blobs.open_blob(known[0]).await.unwrap().unwrap();
    let fourth = put(&store, 3).await.unwrap();
    assert_eq!([known[0], known[1], known[2], fourth].map(|hash| held(&store, hash)), [true, false, true, true]);
    assert!(wanted(&store).await.is_empty(), "or it would push out the next one");
    let stats = store.blobs.stats().unwrap();
    assert_eq!((stats.on_demand, stats.evicted, stats.wanted), (1, 1, 0));
    // A restart forgets neither that nor when things were opened.
    drop(store);
    let store = open(&dir, 350 * KB);
    store.records.set_trusted_time(START_MS + 11 * HOUR_MS);
    assert!(wanted(&store).await.is_empty());
    store.blobs.want_now(known[1], None);
    let session = store.blobs.session();
    let urgent = session.urgent(BRIDGE).await.unwrap();
    assert_eq!(
        urgent.iter().map(|wanted| (wanted.blob, wanted.size_bytes)).collect::<Vec<_>>(),
        [(known[1], 100 * KB)]
    );
    let manifest = manifest(&content(1));
    session.begin(&manifest).await.unwrap();
    session.write(&manifest, 0, content(1).into()).await.unwrap();
    session.finish(&manifest).await.unwrap();
    assert_eq!([known[0], known[1], known[2], fourth].map(|hash| held(&store, hash)), [true, true, false, true]);
    assert_eq!(store.blobs.stats().unwrap().evicted, 1, "it is here again, another one went");
}

#[tokio::test]
async fn what_nobody_waits_for_pushes_out_only_what_has_rested() {
    let dir = folder();
    let store = open(&dir, 150 * KB);
    store.records.set_trusted_time(START_MS);
    let known = put_known(&store, 0).await;
    let bytes = content(1);
    let manifest = manifest(&bytes);
    name(&store, manifest.blob()).await;
    let session = store.blobs.session();
    // A collection larger than the disk must not run through it.
    store.records.set_trusted_time(START_MS + 24 * HOUR_MS);
    assert!(matches!(session.begin(&manifest).await, Err(WriteBlobError::Full)));
    assert!(held(&store, known));
    store.records.set_trusted_time(START_MS + 8 * 24 * HOUR_MS);
    session.begin(&manifest).await.unwrap();
    assert!(!held(&store, known));
}

#[tokio::test]
async fn what_is_pinned_stays_however_long_ago_it_was_opened() {
    let dir = folder();
    let store = open(&dir, 250 * KB);
    store.records.set_trusted_time(START_MS);
    let pinned = put_known(&store, 0).await;
    let media = Media { title: "x".into(), cover: Some(pinned), ..Media::default() };
    store.records.change_one(Change::put(shelf(), media_of(0), media)).await.unwrap();
    store.records.set_trusted_time(START_MS + HOUR_MS);
    let other = put_known(&store, 1).await;
    store.records.pin(Pinned::Media(media_of(0))).await.unwrap();
    let third = put(&store, 2).await.unwrap();
    assert_eq!([pinned, other, third].map(|hash| held(&store, hash)), [true, false, true]);
    assert!(matches!(put(&store, 3).await, Err(PutBlobError::Full(_))), "not even for an upload");
    store.records.unpin(Pinned::Media(media_of(0))).await.unwrap();
    put(&store, 3).await.unwrap();
    assert!(!held(&store, pinned));
}

#[tokio::test]
async fn what_is_being_read_stays_until_it_was_read() {
    let dir = folder();
    let store = open(&dir, 250 * KB);
    let known = put_known(&store, 0).await;
    let followed = put_known(&store, 1).await;
    let opened = store.blobs.open_blob(known).await.unwrap().unwrap();
    let mut follower = store.blobs.follow(followed);
    assert!(matches!(put(&store, 2).await, Err(PutBlobError::Full(_))), "two readers");
    assert_eq!(follower.durable_from(0).await.unwrap().unwrap().bytes, 0..100 * KB);
    drop(opened);
    let third = put(&store, 2).await.unwrap();
    assert_eq!([known, followed, third].map(|hash| held(&store, hash)), [false, true, true]);
    assert!(matches!(put(&store, 3).await, Err(PutBlobError::Full(_))), "one reader, and what only this node has");
    drop(follower);
    put(&store, 3).await.unwrap();
    assert!(!held(&store, followed));
}

/// A stick gets all that it was promised.
#[tokio::test]
async fn what_is_being_exported_stays_until_it_was_written() {
    let dir = folder();
    let store = open(&dir, 150 * KB);
    let known = put_known(&store, 0).await;
    let (one, another) = (store.records.let_stay([shelf()]), store.records.let_stay([shelf()]));
    drop(one);
    assert!(matches!(put(&store, 1).await, Err(PutBlobError::Full(_))));
    assert!(held(&store, known));
    drop(another);
    put(&store, 1).await.unwrap();
    assert!(!held(&store, known));
}

/// A reader's click on what made way: it streams through, within the quota, and what the reader is at is not taken from
/// under them by the next one.
#[tokio::test]
async fn what_comes_for_one_reader_does_not_make_way_for_the_next() {
    let dir = folder();
    let store = open(&dir, 150 * KB);
    let first = put_known(&store, 0).await;
    let second = put_known(&store, 1).await;
    assert_eq!([first, second].map(|hash| held(&store, hash)), [false, true]);
    let mut follower = store.blobs.follow(first);
    store.blobs.want_now(first, Some(0));
    let session = store.blobs.session();
    receive(&session, 0).await.unwrap();
    session.finish(&manifest(&content(0))).await.unwrap();
    store.blobs.note_checked(BRIDGE, vec![(first, true)]).await.unwrap();
    assert_eq!([first, second].map(|hash| held(&store, hash)), [true, false], "there is room for one");
    store.blobs.want_now(second, Some(0));
    assert!(matches!(receive(&session, 1).await, Err(WriteBlobError::Full)));
    assert_eq!(follower.durable_from(50 * KB).await.unwrap().unwrap().bytes, 50 * KB..100 * KB);
    drop(follower);
    receive(&session, 1).await.unwrap();
    assert!(!held(&store, first));
}

/// The bridge may have removed it, while nothing named it there.
#[tokio::test]
async fn what_another_record_names_makes_way_only_once_the_bridge_has_said_again_that_it_holds_it() {
    let dir = folder();
    let store = open(&dir, 150 * KB);
    let hash = put_known(&store, 0).await;
    let key = RecordKey { bucket: shelf(), kind: Blob::KIND, id: Blob::record_id(hash) };
    store.records.change_one(Change::delete(key, None)).await.unwrap();
    let record = Blob { hash: Some(hash), size_bytes: 100 * KB, media_type: "video/mp4".into() };
    store.records.change_one(Change::put(BucketId::Catalogue, key.id, record)).await.unwrap();
    assert!(matches!(put(&store, 1).await, Err(PutBlobError::Full(_))), "it may be the only copy");
    assert_eq!(store.records.take_unconfirmed(), [hash], "the bridge is asked");
    store.blobs.note_checked(BRIDGE, vec![(hash, true)]).await.unwrap();
    put(&store, 1).await.unwrap();
    assert!(!held(&store, hash));
}

async fn receive(session: &BlobSession, number: u64) -> Result<(), WriteBlobError<BlobError>> {
    let bytes = content(number);
    let manifest = manifest(&bytes);
    session.begin(&manifest).await?;
    session.write(&manifest, 0, bytes.into()).await
}

#[tokio::test]
async fn nothing_makes_way_if_that_is_not_enough() {
    let dir = folder();
    let store = open(&dir, 350 * KB);
    let known = put_known(&store, 0).await;
    let only_here = put(&store, 1).await.unwrap();
    name(&store, only_here).await;
    assert!(!store.blobs.make_room(300 * KB, Need::Pressing).await.unwrap());
    assert!(held(&store, known) && held(&store, only_here));
    assert_eq!(store.records.take_unconfirmed(), [only_here], "the bridge is asked about it");
}

/// Invariant 19: content that cannot make way for new content can still be read, and deleted.
#[tokio::test]
async fn invariant_19_a_full_store_still_reads_and_deletes() {
    let dir = folder();
    let store = open(&dir, 150 * KB);
    let only_here = put(&store, 1).await.unwrap();
    name(&store, only_here).await;
    assert!(matches!(put(&store, 2).await, Err(PutBlobError::Full(_))));
    assert!(store.blobs.open_blob(only_here).await.unwrap().is_some());
    let key = RecordKey { bucket: shelf(), kind: Blob::KIND, id: Blob::record_id(only_here) };
    store.records.change_one(Change::delete(key, None)).await.unwrap();
    assert!(store.blobs.discard_unreferenced(only_here).await.unwrap());
    put(&store, 2).await.unwrap();
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8),
    Name(u8),
    Unname(u8),
    Check(u8, bool),
    Open(u8),
    Pin(u8, bool),
    PinShelf(bool),
    MakeRoom(u8, bool),
    Sweep,
    Later(u8),
    Reopen,
}

const BLOBS: u8 = 6;

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..BLOBS).prop_map(Op::Put),
        4 => (0..BLOBS).prop_map(Op::Name),
        1 => (0..BLOBS).prop_map(Op::Unname),
        4 => (0..BLOBS, prop::bool::weighted(0.8)).prop_map(|(blob, held)| Op::Check(blob, held)),
        3 => (0..BLOBS).prop_map(Op::Open),
        1 => (0..BLOBS, any::<bool>()).prop_map(|(blob, pinned)| Op::Pin(blob, pinned)),
        1 => any::<bool>().prop_map(Op::PinShelf),
        4 => (1u8..5, any::<bool>()).prop_map(|(blobs, pressing)| Op::MakeRoom(blobs, pressing)),
        1 => Just(Op::Sweep),
        3 => (1u8..100).prop_map(Op::Later),
        1 => Just(Op::Reopen),
    ]
}

/// What is known of one blob.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    held: bool,
    named: bool,
    /// Its blob record was deleted for good, and cannot be written again.
    spent: bool,
    confirmed: bool,
    hour: u64,
}

#[derive(Default)]
struct Model {
    blobs: BTreeMap<u8, Known>,
    pinned: BTreeMap<u8, bool>,
    shelf_pinned: bool,
    now_ms: u64,
}

impl Model {
    fn of(&mut self, blob: u8) -> &mut Known {
        self.blobs.entry(blob).or_default()
    }

    fn is_pinned(&self, blob: u8, known: Known) -> bool {
        known.named && (self.shelf_pinned || self.pinned.get(&blob).copied().unwrap_or_default())
    }

    /// What may make way, least recently opened first.
    fn evictable(&self, pressing: bool) -> Vec<(u64, u8)> {
        let now = self.now_ms / HOUR_MS;
        let mut evictable: Vec<(u64, u8)> = self
            .blobs
            .iter()
            .filter(|(blob, known)| {
                let rested = pressing || now - known.hour >= 7 * 24;
                known.held && known.named && known.confirmed && rested && !self.is_pinned(**blob, **known)
            })
            .map(|(blob, known)| (known.hour, *blob))
            .collect();
        evictable.sort_unstable();
        evictable
    }
}

fn media_of(blob: u8) -> alexandria_sync::id::RecordId {
    id(500 + u64::from(blob))
}

async fn run(dir: &TempDir, ops: Vec<Op>) {
    let quota = 450 * KB;
    let mut store = open(dir, quota);
    let mut model = Model { now_ms: START_MS, ..Model::default() };
    store.records.set_trusted_time(model.now_ms);
    let hashes: Vec<BlobHash> = (0..BLOBS).map(|blob| BlobHash::of(&content(blob.into()))).collect();
    let alexandria_sync::id::BucketId::Collection(shelf_id) = shelf() else { unreachable!("a shelf is a collection") };
    for op in ops {
        let before = model.blobs.clone();
        let hour = model.now_ms / HOUR_MS;
        match op.clone() {
            Op::Put(blob) => {
                let evictable = model.evictable(true);
                let there = model.of(blob).held;
                let outcome = put(&store, blob.into()).await;
                let gone: Vec<u8> = (0..BLOBS)
                    .filter(|&it| before.get(&it).is_some_and(|it| it.held) && !held(&store, hashes[usize::from(it)]))
                    .collect();
                let oldest: Vec<u8> = evictable.iter().take(gone.len()).map(|(_, blob)| *blob).collect();
                assert_same_hours(&model, &gone, &oldest);
                for &it in &gone {
                    model.of(it).held = false;
                    model.of(it).confirmed = false;
                }
                match outcome {
                    Ok(_) if gone.contains(&blob) || !there => {
                        let known = model.of(blob);
                        (known.held, known.hour, known.confirmed) = (true, hour, false);
                    }
                    Ok(hash) => {
                        // It may have made way for itself and come again: from here on both sides know the same of it.
                        store.blobs.note_checked(BRIDGE, vec![(hash, false)]).await.unwrap();
                        store.blobs.open_blob(hash).await.unwrap().unwrap();
                        let known = model.of(blob);
                        (known.hour, known.confirmed) = (hour, false);
                    }
                    Err(PutBlobError::Full(_)) => {
                        let used = before.values().filter(|it| it.held).count() as u64 * 100 * KB;
                        assert!(used + 100 * KB > quota, "there was room");
                        assert!(evictable.is_empty() && gone.is_empty(), "it could have made way");
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Op::Name(blob) if model.of(blob).spent => {}
            Op::Name(blob) => {
                let hash = hashes[usize::from(blob)];
                name(&store, hash).await;
                let media = Media { title: "x".into(), cover: Some(hash), ..Media::default() };
                store.records.change_one(Change::put(shelf(), media_of(blob), media)).await.unwrap();
                let known = model.of(blob);
                // A record that did not name it: the bridge is asked again.
                known.confirmed &= known.named;
                known.named = true;
            }
            Op::Unname(blob) if !model.of(blob).named => {}
            Op::Unname(blob) => {
                let key =
                    RecordKey { bucket: shelf(), kind: Blob::KIND, id: Blob::record_id(hashes[usize::from(blob)]) };
                let media = RecordKey { bucket: shelf(), kind: Media::KIND, id: media_of(blob) };
                store.records.change(vec![Change::delete(key, None), Change::delete(media, None)]).await.unwrap();
                let known = model.of(blob);
                (known.named, known.spent) = (false, true);
            }
            Op::Check(blob, there) => {
                store.blobs.note_checked(BRIDGE, vec![(hashes[usize::from(blob)], there)]).await.unwrap();
                let known = model.of(blob);
                known.confirmed = known.held && there;
            }
            Op::Open(blob) => {
                let opened = store.blobs.open_blob(hashes[usize::from(blob)]).await.unwrap();
                assert_eq!(opened.is_some(), model.of(blob).held);
                if opened.is_some() {
                    model.of(blob).hour = hour;
                }
            }
            Op::Pin(blob, pinned) => {
                let pin = Pinned::Media(media_of(blob));
                if pinned {
                    store.records.pin(pin).await.unwrap()
                } else {
                    store.records.unpin(pin).await.unwrap()
                };
                model.pinned.insert(blob, pinned);
            }
            Op::PinShelf(pinned) => {
                let pin = Pinned::Collection(shelf_id);
                if pinned {
                    store.records.pin(pin).await.unwrap()
                } else {
                    store.records.unpin(pin).await.unwrap()
                };
                model.shelf_pinned = pinned;
            }
            Op::MakeRoom(blobs, pressing) => {
                let evictable = model.evictable(pressing);
                let need = if pressing { Need::Pressing } else { Need::Background };
                let made = store.blobs.make_room(u64::from(blobs) * 100 * KB, need).await.unwrap();
                let used = before.values().filter(|it| it.held).count() as u64 * 100 * KB;
                let missing = (used + u64::from(blobs) * 100 * KB).saturating_sub(quota).div_ceil(100 * KB) as usize;
                assert_eq!(made, missing <= evictable.len(), "{missing} of {evictable:?}");
                let gone: Vec<u8> = (0..BLOBS)
                    .filter(|&it| before.get(&it).is_some_and(|it| it.held) && !held(&store, hashes[usize::from(it)]))
                    .collect();
                assert_eq!(gone.len(), if made { missing } else { 0 });
                let oldest: Vec<u8> = evictable.iter().take(gone.len()).map(|(_, blob)| *blob).collect();
                assert_same_hours(&model, &gone, &oldest);
                for &it in &gone {
                    model.of(it).held = false;
                    model.of(it).confirmed = false;
                }
            }
            Op::Sweep => {
                store.blobs.sweep(std::time::Duration::ZERO).await.unwrap();
                model.blobs.values_mut().filter(|it| !it.named).for_each(|it| {
                    it.held = false;
                    it.confirmed = false;
                });
            }
            Op::Later(hours) => {
                model.now_ms += u64::from(hours) * HOUR_MS;
                store.records.set_trusted_time(model.now_ms);
            }
            Op::Reopen => {
                store.blobs.keep_uses().await.unwrap();
                drop(store);
                store = open(dir, quota);
                store.records.set_trusted_time(model.now_ms);
            }
        }
        for blob in 0..BLOBS {
            let known = *model.of(blob);
            assert_eq!(held(&store, hashes[usize::from(blob)]), known.held, "blob {blob} after {op:?}");
            if before.get(&blob).is_some_and(|it| it.held && it.named && !it.confirmed) && model.of(blob).named {
                assert!(known.held, "invariant 16: it exists nowhere else");
            }
        }
    }
}

/// Which of those that were opened in the same hour goes first is left open.
fn assert_same_hours(model: &Model, gone: &[u8], oldest: &[u8]) {
    let hours = |blobs: &[u8]| {
        let mut hours: Vec<u64> = blobs.iter().map(|blob| model.blobs[blob].hour).collect();
        hours.sort_unstable();
        hours
    };
    assert_eq!(hours(gone), hours(oldest));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("ALEXANDRIA_STORE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    /// Whatever is opened, pinned, named, swept or to make way: what a record names and only this node has stays, least
    /// recently opened goes first, and pins hold.
    #[test]
    fn invariant_16_collection_never_deletes_content_that_is_reachable_and_nowhere_else(
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(run(&folder(), ops));
    }
}
