//! Processes that are killed with -9 while they write, and what is there afterwards.
//!
//! Each test starts its own binary again as the victim: the same test, told by an environment variable which folder to
//! write to. `ALEXANDRIA_KILLS` sets how often it is killed.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alexandria_node::store::{Change, Condition, Config, Store};
use alexandria_sync::chunk::{Chunker, Chunking, Manifest};
use alexandria_sync::domain::{Blob, InvalidField, Media, Typed};
use alexandria_sync::store::{BlobStore, WriteBlobError};
use tokio::task::JoinSet;

use super::samples::{folder, id, media, noise, shelf};

const VICTIM_DIR: &str = "ALEXANDRIA_TEST_VICTIM_DIR";
const KILLS: u64 = 5;
const WRITERS: u64 = 8;

fn kills() -> u64 {
    std::env::var("ALEXANDRIA_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS)
}

/// Fresh for each run, and printed.
fn seed() -> u64 {
    let seed = std::env::var("ALEXANDRIA_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
    let seed = seed.unwrap_or_else(now);
    println!("ALEXANDRIA_SEED={seed}");
    seed
}

fn random(seed: u64, draw: u64, below: u64) -> u64 {
    u64::from_be_bytes(noise(8, seed ^ draw.wrapping_mul(0x9e37_79b9_7f4a_7c15)).try_into().unwrap()) % below
}

fn victim_dir() -> Option<PathBuf> {
    std::env::var_os(VICTIM_DIR).map(PathBuf::from)
}

fn victim(test: &str, dir: &std::path::Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("store::crash::{test}"), "--nocapture"])
        .env(VICTIM_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// One line in one write, so that a kill never leaves half of it.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

fn config(dir: PathBuf) -> Config {
    Config { cache_bytes: 4 << 20, min_free_bytes: 1 << 20, ..Config::new(dir) }
}

/// Invariant 2, as far as kill -9 can tell.
#[test]
fn every_acknowledged_write_survives_kill_9() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Some(dir) = victim_dir() {
        runtime.block_on(write_until_killed(dir));
        return;
    }
    let (dir, seed) = (folder(), seed());
    let data = dir.path().join("data");
    let mut acknowledged: Vec<(u64, u64)> = Vec::new();
    for kill in 0..kills() {
        let (mut child, output) = victim("every_acknowledged_write_survives_kill_9", &data);
        let reader = std::thread::spawn(move || {
            let acknowledgements = output.lines().map_while(Result::ok).filter_map(|line| {
                let (id, count) = line.strip_prefix("ack ")?.split_once(' ')?;
                Some((id.parse().ok()?, count.parse().ok()?))
            });
            acknowledgements.collect::<Vec<(u64, u64)>>()
        });
        // tidy-allow(sleep): not a wait for something, but the random moment of the kill
        std::thread::sleep(Duration::from_millis(150 + random(seed, kill, 600)));
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(reader.join().unwrap());
        let store = Store::open(&config(data.clone())).unwrap();
        assert_eq!(store.condition, Condition::Healthy, "after kill {kill}");
        for &(number, count) in &acknowledged {
            let stored = store.records.find(Media::KIND, id(number)).unwrap().expect("an acknowledged record is there");
            let pages = Media::from_record(&stored.record).unwrap().pages.unwrap_or_default();
            assert!(u64::from(pages) >= count, "record {number}: {pages} after {count} was acknowledged");
        }
        assert!(runtime.block_on(store.records.verify()).unwrap().is_sound());
    }
    assert!(acknowledged.len() as u64 > kills(), "the victims did write: {}", acknowledged.len());
    println!("{} writes were acknowledged", acknowledged.len());
}

/// Each writer creates records of its own and edits the ones before.
async fn write_until_killed(dir: PathBuf) {
    let store = Store::open(&config(dir)).unwrap();
    // Above whatever earlier victims wrote.
    let next = Arc::new(AtomicU64::new(store.records.heads_now().iter().map(|head| head.head.0).sum::<u64>() + 1));
    let mut writers: JoinSet<()> = JoinSet::new();
    for _ in 0..WRITERS {
        let (store, next) = (store.clone(), Arc::clone(&next));
        writers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst) * 1000;
                let long = "x".repeat((number % 7) as usize * 900);
                let medium = Media { description: long, ..media("t") };
                store.records.change_one(Change::create(shelf(), id(number), medium)).await.unwrap();
                say(&format!("ack {number} 0"));
                for count in 1..4u32 {
                    let edit = move |media: &mut Media| {
                        media.pages = Some(count);
                        Ok::<_, InvalidField>(())
                    };
                    store.records.change_one(Change::edit(shelf(), id(number), None, edit)).await.unwrap();
                    say(&format!("ack {number} {count}"));
                }
            }
        });
    }
    writers.join_all().await;
}

const BLOB_CHUNKS: usize = 24;

fn blob() -> (Vec<u8>, Manifest) {
    let bytes = noise(BLOB_CHUNKS << 20, 5);
    let mut chunker = Chunker::new(Chunking::Fixed);
    chunker.update(&bytes);
    let manifest = chunker.finish().unwrap();
    (bytes, manifest)
}

/// Invariants 11 and 12.
#[test]
fn a_blob_goes_on_where_the_last_sync_was_after_kill_9() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Some(dir) = victim_dir() {
        runtime.block_on(receive_until_killed(dir));
        return;
    }
    let (dir, seed) = (folder(), seed());
    let data = dir.path().join("data");
    let (bytes, manifest) = blob();
    let mut synced = 0;
    for kill in 0..kills() {
        let (mut child, output) = victim("a_blob_goes_on_where_the_last_sync_was_after_kill_9", &data);
        // Killed somewhere after so many lines, a moment later.
        let after_lines = random(seed, kill * 2, 6);
        let mut lines =
            output.lines().map_while(Result::ok).filter_map(|line| line.strip_prefix("synced ")?.parse().ok());
        for _ in 0..after_lines {
            synced = lines.next().unwrap_or(synced);
        }
        // tidy-allow(sleep): not a wait for something, but the random moment of the kill
        std::thread::sleep(Duration::from_millis(random(seed, kill * 2 + 1, 60)));
        child.kill().unwrap();
        synced = lines.last().unwrap_or(synced);
        child.wait().unwrap();
        runtime.block_on(async {
            let store = Store::open(&config(data.clone())).unwrap();
            let session = store.blobs.session();
            let have = session.begin(&manifest).await.unwrap();
            assert!(have.count() >= synced, "{} chunks after {synced} were synced", have.count());
            if store.blobs.held(manifest.blob()).unwrap().is_none() {
                let partial = std::fs::read(data.join(format!("partial/{}.data", manifest.blob()))).unwrap();
                for index in (0..BLOB_CHUNKS as u32).filter(|&index| have.contains(index)) {
                    let start = (index as usize) << 20;
                    assert!(manifest.verifies(index, &partial[start..start + (1 << 20)]), "chunk {index}");
                }
            }
        });
    }
    runtime.block_on(async {
        let store = Store::open(&config(data)).unwrap();
        let session = store.blobs.session();
        receive(&session, &bytes, &manifest, |_| {}).await.unwrap();
        let path = store.blobs.path(manifest.blob()).unwrap().expect("it is whole");
        assert!(std::fs::read(path).unwrap() == bytes);
    });
}

async fn receive(
    session: &impl BlobStore<Error = alexandria_node::store::blobs::BlobError>,
    bytes: &[u8],
    manifest: &Manifest,
    synced: impl Fn(u32),
) -> Result<(), WriteBlobError<alexandria_node::store::blobs::BlobError>> {
    let have = session.begin(manifest).await?;
    let mut count = have.count();
    let missing: Vec<u32> = have.missing().collect();
    for some in missing.chunks(2) {
        for &index in some {
            let start = (index as usize) << 20;
            session.write(manifest, index, bytes[start..start + (1 << 20)].to_vec().into()).await?;
        }
        session.sync(manifest).await?;
        count += some.len() as u32;
        synced(count);
    }
    session.finish(manifest).await
}

async fn receive_until_killed(dir: PathBuf) {
    let store = Store::open(&config(dir)).unwrap();
    let (bytes, manifest) = blob();
    let record = Blob { hash: Some(manifest.blob()), size_bytes: bytes.len() as u64, media_type: "video/mp4".into() };
    store.records.change_one(Change::put(shelf(), Blob::record_id(manifest.blob()), record)).await.unwrap();
    let session = store.blobs.session();
    receive(&session, &bytes, &manifest, |count| say(&format!("synced {count}"))).await.unwrap();
}
