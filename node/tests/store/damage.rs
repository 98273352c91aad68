//! Files that are broken while the node is away: it opens what can be read, says so, and never panics.
//!
//! Each damaged folder is opened by a process of its own, with a deadline: an engine that aborts or hangs would take the
//! test down with it otherwise.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use alexandria_node::store::verify::RecordsReport;
use alexandria_node::store::{Change, Condition, Config, Level, Pinned, Store, backup};
use alexandria_sync::chunk::{BlobHash, Chunking};
use alexandria_sync::domain::{Blob, Media, Typed};
use alexandria_sync::id::{BucketId, NodeId};
use alexandria_sync::store::BlobStore;

use super::samples::{config, folder, id, media, noise, open, shelf};

const VICTIM_DIR: &str = "ALEXANDRIA_TEST_VICTIM_DIR";
const RECORDS: u64 = 400;
const DEADLINE: Duration = Duration::from_mins(2);

#[derive(Clone, Copy, Debug)]
enum Damage {
    Flipped { seed: u64 },
    CutToHalf,
    Emptied,
    Gone,
    LastBytesGone,
    SettingsFlipped,
    SnapshotHalfWritten,
    SnapshotsFlipped,
}

/// A closed store, once as it was filled and once more after it was reopened (sled then has a snapshot).
fn filled(reopened: bool) -> tempfile::TempDir {
    let dir = folder();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = open(&dir);
    runtime.block_on(async {
        for batch in 0..RECORDS / 50 {
            let changes = (0..50).map(|at| {
                let number = batch * 50 + at;
                Change::create(shelf(), id(number), Media { description: "x".repeat(at as usize * 9), ..media("t") })
            });
            store.records.change(changes.collect()).await.unwrap();
        }
    });
    drop(store);
    if reopened {
        drop(open(&dir));
    }
    dir
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn snapshots(records: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(records).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap.")).collect()
}

fn flip(path: &Path, seed: u64, places: usize) {
    let mut bytes = fs::read(path).unwrap();
    // sled's file is sparse: only places that hold something can be damaged.
    let written: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] != 0).collect();
    for place in noise(places * 8, seed).chunks(8) {
        let at = written[u64::from_be_bytes(place.try_into().unwrap()) as usize % written.len()];
        bytes[at] ^= 0x55;
    }
    fs::write(path, bytes).unwrap();
}

fn break_it(records: &Path, damage: Damage) {
    let db = records.join("db");
    let len = fs::metadata(&db).unwrap().len();
    let cut = |to: u64| fs::File::options().write(true).open(&db).unwrap().set_len(to).unwrap();
    match damage {
        Damage::Flipped { seed } => flip(&db, seed, 16),
        Damage::CutToHalf => cut(len / 2),
        Damage::Emptied => cut(0),
        Damage::Gone => fs::remove_file(&db).unwrap(),
        Damage::LastBytesGone => cut(len - 1000),
        Damage::SettingsFlipped => flip(&records.join("conf"), 3, 4),
        Damage::SnapshotHalfWritten => fs::write(records.join("snap.00000000000FFFFF.generating"), b"half").unwrap(),
        Damage::SnapshotsFlipped => snapshots(records).iter().for_each(|path| flip(path, 1, 4)),
    }
}

#[tokio::test]
async fn a_lost_store_comes_back_from_the_newest_dump_in_a_new_life() {
    let dir = folder();
    let store = open(&dir);
    for number in 0..20 {
        store.records.change_one(Change::create(shelf(), id(number), media("t"))).await.unwrap();
    }
    let before = store.records.identity();
    backup::dump(&store.records).unwrap();
    drop(store);
    break_it(&config(&dir).data_dir.join("records"), Damage::Emptied);
    let store = open(&dir);
    assert!(matches!(store.condition, Condition::Rebuilt { records_kept: 20, incomplete: true, .. }));
    let after = store.records.identity();
    assert!(after.node == before.node && after.epoch != before.epoch && after.incarnation > before.incarnation);
    assert!((0..20).all(|number| store.records.find(Media::KIND, id(number)).unwrap().is_some()));
    drop(store);
    assert_eq!(open(&dir).condition, Condition::Healthy);
}

/// What was chosen, what is to be erased, and what is here are known again, from the tree and from an older dump.
#[tokio::test]
async fn a_rebuilt_store_keeps_what_was_chosen_and_owes_the_same_receipts() {
    let dir = folder();
    let store = open(&dir);
    let BucketId::Collection(shelf_id) = shelf() else { unreachable!("a shelf is a collection") };
    let put = async |number| {
        let bytes = noise(1000, number);
        let hash = store.blobs.put_stream(Chunking::Fixed, Some(1000), bytes.as_slice()).await.unwrap().hash;
        let named = Blob { hash: Some(hash), size_bytes: 1000, media_type: "video/mp4".into() };
        store.records.change_one(Change::put(shelf(), Blob::record_id(hash), named)).await.unwrap();
        hash
    };
    put(1).await;
    let absent = BlobHash::of(b"elsewhere");
    let named = Blob { hash: Some(absent), size_bytes: 9, media_type: "video/mp4".into() };
    store.records.change_one(Change::put(shelf(), Blob::record_id(absent), named)).await.unwrap();
    let medium = Media { cover: Some(absent), ..media("pinned") };
    store.records.change_one(Change::create(shelf(), id(1), medium)).await.unwrap();
    store.records.choose(shelf_id, Level::Records).await.unwrap();
    backup::dump(&store.records).unwrap();
    put(2).await;
    store.records.pin(Pinned::Media(id(1))).await.unwrap();
    store.records.change_one(Change::create(shelf(), id(2), media("to be erased"))).await.unwrap();
    let owed = store.records.erase(Media::KIND, id(2)).await.unwrap();
    drop(store);
    fs::write(config(&dir).data_dir.join("records.rebuild"), b"").unwrap();
    let store = open(&dir);
    assert!(matches!(store.condition, Condition::Rebuilt { incomplete: false, .. }), "{:?}", store.condition);
    let keeping = store.records.keeping(shelf_id).unwrap();
    assert_eq!((keeping.level, keeping.chosen), (Level::Records, true));
    assert_eq!(store.records.pending_erasures().unwrap(), owed);
    let stats = store.blobs.stats().unwrap();
    assert_eq!(
        (stats.held, stats.wanted, stats.on_demand),
        (2, 1, 0),
        "the pinned one is to come, the others are here"
    );
    let wanted = store.blobs.session().wanted(id_of_peer(), None, 10).await.unwrap();
    assert_eq!(wanted.iter().map(|wanted| wanted.blob).collect::<Vec<_>>(), [absent]);
}

fn id_of_peer() -> NodeId {
    NodeId::from_bytes([9; 16])
}

#[test]
fn a_damaged_store_opens_says_so_and_takes_writes_again() {
    if let Some(dir) = std::env::var_os(VICTIM_DIR) {
        open_damaged(PathBuf::from(dir));
        return;
    }
    let flips = std::env::var("ALEXANDRIA_FLIPS").ok().and_then(|flips| flips.parse().ok()).unwrap_or(5);
    for reopened in [false, true] {
        let sound = filled(reopened);
        let damages = (0..flips).map(|seed| Damage::Flipped { seed }).chain([
            Damage::CutToHalf,
            Damage::Emptied,
            Damage::Gone,
            Damage::LastBytesGone,
            Damage::SettingsFlipped,
            Damage::SnapshotHalfWritten,
            Damage::SnapshotsFlipped,
        ]);
        for damage in damages {
            let dir = folder();
            let data = dir.path().join("data");
            copy(&config(&sound).data_dir, &data);
            break_it(&data.join("records"), damage);
            let outcome = run_victim(&data);
            println!("reopened={reopened} {damage:?}: {outcome}");
        }
    }
}

fn run_victim(data: &Path) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::damage::a_damaged_store_opens_says_so_and_takes_writes_again", "--nocapture"])
        .env(VICTIM_DIR, data)
        .stdout(Stdio::piped())
        // The panics that were caught, with their backtraces.
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if started.elapsed() > DEADLINE => {
                child.kill().unwrap();
                panic!("opening a damaged store hangs");
            }
            // tidy-allow(sleep): between two looks, up to the deadline above
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(status.success(), "the process that opened it ended with {status}:\n{output}");
    output.lines().find_map(|line| line.strip_prefix("outcome: ")).expect("it says what it found").to_owned()
}

/// What a node does: open, look, and if something is found later, start again.
fn open_damaged(data: PathBuf) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config { cache_bytes: 4 << 20, min_free_bytes: 1 << 20, ..Config::new(data) };
    let mut starts = 0;
    let (store, condition) = loop {
        starts += 1;
        assert!(starts < 4, "it does not settle");
        let store = Store::open(&config).expect("it opens");
        let verified = runtime.block_on(store.records.verify());
        if verified.as_ref().is_ok_and(RecordsReport::is_sound) {
            let condition = store.condition.clone();
            break (store, condition);
        }
        assert!(store.records.read_only().is_some(), "what is not sound is not written to: {verified:?}");
    };
    let there = (0..RECORDS).filter(|&number| {
        let found = store.records.find(Media::KIND, id(number)).expect("a rebuilt store reads");
        found.is_some_and(|stored| Media::from_record(&stored.record).is_some())
    });
    let there = there.count() as u64;
    if starts == 1 && condition == Condition::Healthy {
        assert_eq!(there, RECORDS, "records are missing and nobody said so");
    }
    runtime
        .block_on(store.records.change_one(Change::create(shelf(), id(9999), media("new"))))
        .expect("it takes writes");
    let condition = match condition {
        Condition::Healthy => "healthy".to_owned(),
        Condition::Rebuilt { records_kept, incomplete, detail, .. } => {
            format!("rebuilt, {records_kept} kept, incomplete={incomplete}: {detail}")
        }
    };
    println!("\noutcome: {there} of {RECORDS} there after {starts} starts, {condition}");
}
