//! The right to be forgotten, on the disk of a node.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use alexandria_node::config::Config;
use alexandria_node::local::messages::EraseRequest;
use alexandria_node::local::{Client, ClientError, socket_path};
use alexandria_node::node::{Face, Node};
use alexandria_node::store::{Change, EraseError, Store, backup};
use alexandria_sync::chunk::{BlobHash, Chunking};
use alexandria_sync::domain::{Annotation, Blob, Erasure, FileRole, Media, MediaFile, Typed};
use alexandria_sync::erase;
use alexandria_sync::id::{BucketId, RecordId, Seq};
use alexandria_sync::quarantine::QuarantineUse;
use alexandria_sync::record::{Record, RecordKey};
use alexandria_sync::store::{BlobStore, RecordStore};

use super::samples::{config, folder, id, media, noise, open, peer, shelf, stamp};

/// A text that stands in everything that a record to be erased says, in this or another case.
const SECRET: &str = "Zanzibarine";
/// Nothing that a test waits for takes longer, unless it never comes.
const DEADLINE: Duration = Duration::from_mins(2);

fn key<T: Typed>(id: RecordId) -> RecordKey {
    RecordKey { bucket: shelf(), kind: T::KIND, id }
}

async fn put_blob(store: &Store, bytes: &[u8]) -> BlobHash {
    let put = store.blobs.put_stream(Chunking::Fixed, Some(bytes.len() as u64), bytes).await.unwrap();
    let blob = Blob { hash: Some(put.hash), size_bytes: put.size_bytes, media_type: "image/png".into() };
    store.records.change_one(Change::put(shelf(), Blob::record_id(put.hash), blob)).await.unwrap();
    put.hash
}

fn media_file(blob: BlobHash, name: &str) -> MediaFile {
    MediaFile { blob, media_type: "image/png".into(), name: name.into(), size_bytes: 1, role: FileRole::Main }
}

/// A medium with a file, a cover and an annotation; returns the two blobs.
async fn medium(store: &Store, number: u64, file: &[u8], cover: &[u8]) -> [BlobHash; 2] {
    let (file, cover) = (put_blob(store, file).await, put_blob(store, cover).await);
    let files = vec![media_file(file, &format!("{SECRET}.png"))];
    // Long enough to be cut into pieces by the engine.
    let description = format!("{SECRET} lives here. ").repeat(800);
    let medium = Media { title: SECRET.into(), description, files, cover: Some(cover), ..Media::default() };
    store.records.change_one(Change::create(shelf(), id(number), medium)).await.unwrap();
    let note = Annotation { media: id(number), blob: Some(cover), model: SECRET.into(), ..Annotation::default() };
    let change = Change::create(shelf(), Annotation::record_id(id(number), cover), note);
    store.records.change_one(change).await.unwrap();
    [file, cover]
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

/// The files in which any of these stand, in whatever case.
fn files_with(dir: &Path, wanted: &[&[u8]]) -> BTreeSet<PathBuf> {
    let has = |bytes: &[u8]| {
        let lower = bytes.to_ascii_lowercase();
        wanted.iter().any(|wanted| {
            let wanted = wanted.to_ascii_lowercase();
            memchr::memmem::find(&lower, &wanted).is_some()
        })
    };
    files_below(dir).into_iter().filter(|path| std::fs::read(path).is_ok_and(|bytes| has(&bytes))).collect()
}

/// Starts a node, has it erase medium 1, and waits until nothing is owed. The erasure.
async fn erase_first(data: &Path, wanted: &[&[u8]]) -> RecordId {
    let node = Node::start(Config { data: data.to_owned(), ..Config::default() }, Face::LocalOnly).await.unwrap();
    let client = Client::new(socket_path(&std::path::absolute(data).unwrap()));
    let ordered = client.erase(&EraseRequest { kind: "media".into(), id: id(1) }).await.unwrap();
    assert_eq!(ordered.erasures.len(), 1);
    let start = Instant::now();
    while client.status().await.unwrap().erasures_pending > 0 {
        assert!(start.elapsed() < DEADLINE, "it is never gone: {:?}", files_with(data, wanted));
        // tidy-allow(sleep): this is the wait for a condition with a deadline.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    node.stop().await.unwrap();
    ordered.erasures[0].id
}

/// Invariant 7, on a real disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erased_bytes_are_in_no_file_of_the_data_folder_once_the_receipt_is_given() {
    let dir = folder();
    let data = config(&dir).data_dir;
    let (file, cover, shared) = (noise(300_000, 1), noise(50_000, 2), noise(40_000, 3));
    let store = open(&dir);
    let [file_hash, cover_hash] = medium(&store, 1, &file, &cover).await;
    let shared_hash = put_blob(&store, &shared).await;
    let edit = move |media: &mut Media| {
        media.files.push(media_file(shared_hash, "shared.png"));
        Ok(())
    };
    store.records.change_one(Change::edit(shelf(), id(1), None, edit)).await.unwrap();
    let other = Media { cover: Some(shared_hash), ..media("stays") };
    store.records.change_one(Change::create(shelf(), id(2), other)).await.unwrap();
    // A version that is set aside, a dump, and a tree that was set aside long ago.
    let now = store.records.now_unix_ms();
    store.records.set_trusted_time(now);
    let ahead = media(&format!("{SECRET} ahead")).to_record(shelf(), id(1), stamp(now + 86_400_000, 1));
    store.records.apply(peer(1, 1), shelf(), vec![ahead], Seq(1)).await.unwrap();
    backup::dump(&store.records).unwrap();
    drop(store);
    std::fs::create_dir(data.join("records.damaged-1")).unwrap();
    std::fs::write(data.join("records.damaged-1/db"), SECRET).unwrap();

    let wanted: [&[u8]; 5] =
        [SECRET.as_bytes(), &file[1000..1032], &file[290_000..290_032], &cover[..32], &cover[49_000..49_032]];
    let before = files_with(&data, &wanted);
    assert!(before.len() >= 3, "the test sees what is there: {before:?}");

    let ordered = erase_first(&data, &wanted).await;
    assert_eq!(files_with(&data, &wanted), BTreeSet::new());

    let store = open(&dir);
    for hash in [file_hash, cover_hash] {
        assert_eq!(store.blobs.held(hash).unwrap(), None);
    }
    assert!(store.blobs.held(shared_hash).unwrap().is_some(), "another record names it");
    assert!(store.records.verify().await.unwrap().is_sound());
    let node_id = store.records.identity().node;
    let receipts = store.records.changes_since(BucketId::Site(node_id), Seq(0), 10).await.unwrap();
    let acknowledged: Vec<_> = receipts.iter().filter_map(|stored| erase::acknowledged(&stored.record)).collect();
    assert_eq!(acknowledged, [(shelf(), ordered, node_id)]);
}

/// The node was killed in the middle of its first dump.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_was_cut_off_goes_with_what_was_erased() {
    let dir = folder();
    let data = config(&dir).data_dir;
    let store = open(&dir);
    medium(&store, 1, &noise(1000, 1), &noise(1000, 2)).await;
    drop(store);
    std::fs::write(data.join("records.dump.partial"), SECRET).unwrap();
    erase_first(&data, &[SECRET.as_bytes()]).await;
    assert_eq!(files_with(&data, &[SECRET.as_bytes()]), BTreeSet::new());
}

/// That of upkeep may have read what is erased just now: the other one waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dumps_at_the_same_time_leave_a_whole_one() {
    let dir = folder();
    let store = open(&dir);
    medium(&store, 1, &noise(1000, 1), &noise(1000, 2)).await;
    for number in 2..400 {
        store
            .records
            .change_one(Change::create(shelf(), id(number), media(&format!("medium {number}"))))
            .await
            .unwrap();
    }
    for round in 0..20 {
        let dumps: Vec<_> = (0..4)
            .map(|_| {
                let records = store.records.clone();
                tokio::task::spawn_blocking(move || backup::dump(&records))
            })
            .collect();
        for dump in dumps {
            dump.await.unwrap().unwrap();
        }
        let copy = folder();
        backup::import(&backup::dump_path(&config(&dir).data_dir), copy.path(), 4 << 20)
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
}

/// What anybody asks for and nobody has is refused in words, and nothing changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_erased_is_refused() {
    let dir = folder();
    let data = config(&dir).data_dir;
    let node = Node::start(Config { data: data.clone(), ..Config::default() }, Face::LocalOnly).await.unwrap();
    let client = Client::new(socket_path(&std::path::absolute(&data).unwrap()));
    for (kind, id) in [("shelf", id(1)), ("media", id(1)), ("blob", id(1)), ("erasure", id(1))] {
        let refused = client.erase(&EraseRequest { kind: kind.into(), id }).await;
        assert!(matches!(refused, Err(ClientError::Refused(_))), "{kind}: {refused:?}");
    }
    node.stop().await.unwrap();
}

#[tokio::test]
async fn an_erasure_that_arrives_takes_everything_with_it_and_what_comes_late_is_not_shown() {
    let dir = folder();
    let store = open(&dir);
    let [file, cover] = medium(&store, 1, &noise(100, 1), &noise(100, 2)).await;
    let target = key::<Media>(id(1));
    let now = store.records.now_unix_ms();
    let order = erase::Order::records(target, &[cover].into(), stamp(now + 1000, 4)).remove(0);
    store.records.apply(peer(1, 1), shelf(), vec![order.clone()], Seq(1)).await.unwrap();

    let record = |key| store.records.get(key).unwrap().unwrap().record;
    assert_eq!(record(target), record(target).deleted(order.newest_stamp()));
    let note = key::<Annotation>(Annotation::record_id(id(1), cover));
    assert!(record(note).is_tombstone());
    for hash in [file, cover] {
        assert_eq!(Blob::from_record(&record(key::<Blob>(Blob::record_id(hash)))).unwrap().hash, None);
        assert!(store.blobs.purge(hash).await.unwrap());
        assert_eq!(store.blobs.held(hash).unwrap(), None);
    }
    // The file was not listed: a further erasure says so to everyone.
    let orders = store.records.pending_erasures().unwrap();
    let listed: BTreeSet<BlobHash> =
        orders.iter().flat_map(|erasure| store.records.erased_blobs(*erasure).unwrap()).collect();
    assert_eq!((orders.len(), listed), (2, [file, cover].into()));

    let late_note = Annotation { media: id(1), model: SECRET.into(), ..Annotation::default() };
    let late_note = late_note.to_record(shelf(), id(77), stamp(now + 5000, 3));
    let late_blob = Blob { hash: Some(file), size_bytes: 100, ..Blob::default() };
    let late_blob = late_blob.to_record(shelf(), Blob::record_id(file), stamp(now + 5000, 3));
    // A wrong clock keeps nothing of it here either, not even set aside.
    store.records.set_trusted_time(now);
    let early_note = Annotation { media: id(1), model: SECRET.into(), ..Annotation::default() };
    let early_note = early_note.to_record(shelf(), id(78), stamp(now + 86_400_000, 3));
    let late: Vec<Record> = vec![late_note.clone(), late_blob, early_note.clone()];
    store.records.apply(peer(1, 1), shelf(), late, Seq(3)).await.unwrap();
    for note in [late_note.key, early_note.key] {
        assert!(record(note).is_tombstone());
    }
    // Nor does one that is set back: the stamp of an erasure that is held here was judged when it came.
    store.records.set_trusted_time(now - 86_400_000);
    let last_note = Annotation { media: id(1), model: SECRET.into(), ..Annotation::default() };
    let last_note = last_note.to_record(shelf(), id(79), stamp(now - 86_400_000, 3));
    store.records.apply(peer(1, 1), shelf(), vec![last_note.clone()], Seq(4)).await.unwrap();
    assert!(record(last_note.key).is_tombstone());
    store.records.set_trusted_time(now);
    assert_eq!(store.records.quarantine_use().unwrap(), QuarantineUse::default());
    let wanted = store.blobs.session().wanted(peer(1, 1).node, None, 10).await.unwrap();
    assert_eq!(wanted, [], "nothing but its blob record names it");

    // Whoever takes the same content in again, for something else, has it.
    let again = Media { cover: Some(file), ..media("another") };
    store.records.change_one(Change::create(shelf(), id(5), again)).await.unwrap();
    let wanted = store.blobs.session().wanted(peer(1, 1).node, None, 10).await.unwrap();
    assert_eq!(wanted.iter().map(|wanted| wanted.blob).collect::<Vec<_>>(), [file]);
}

#[tokio::test]
async fn erasing_twice_orders_once_more_and_unknown_records_cannot_be_erased() {
    let dir = folder();
    let store = open(&dir);
    store.records.change_one(Change::create(shelf(), id(1), media("one"))).await.unwrap();
    let first = store.records.erase(Media::KIND, id(1)).await.unwrap();
    assert_eq!(store.records.erase(Media::KIND, id(1)).await.unwrap(), first, "nothing new is to be erased");
    let unknown = store.records.erase(Media::KIND, id(2)).await;
    assert!(matches!(unknown, Err(EraseError::NotFound(_))));
    let not_erasable = store.records.erase(Erasure::KIND, first[0].id).await;
    assert!(matches!(not_erasable, Err(EraseError::NotErasable)));
}

/// The tree is written anew under the feet of readers and writers, and nobody notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tree_that_is_written_anew_loses_nothing_while_others_read_and_write() {
    let dir = folder();
    let store = open(&dir);
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, done) = (store.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut written = 0;
            while !done.load(Ordering::SeqCst) {
                let title = format!("medium {written}");
                store.records.change_one(Change::create(shelf(), id(written), media(&title))).await.unwrap();
                written += 1;
            }
            written
        })
    };
    let reader = {
        let (store, done) = (store.clone(), Arc::clone(&done));
        tokio::task::spawn_blocking(move || {
            while !done.load(Ordering::SeqCst) {
                let mut listing = alexandria_node::store::Listing::of(Media::KIND, 100);
                loop {
                    let page = store.records.list(&listing).unwrap();
                    let Some(next) = page.next else { break };
                    listing.after = Some(next);
                }
            }
        })
    };
    for _ in 0..8 {
        store.records.rewrite().await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let written = writer.await.unwrap();
    reader.await.unwrap();
    assert!(store.records.verify().await.unwrap().is_sound());
    drop(store);
    let store = open(&dir);
    for number in 0..written {
        assert!(store.records.find(Media::KIND, id(number)).unwrap().is_some(), "medium {number} of {written}");
    }
}
