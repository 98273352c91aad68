//! Promises of the blob store.

use std::io;
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Poll};
use std::time::Duration;

use alexandria_node::store::blobs::BlobError;
use alexandria_node::store::blobs::incoming::PutBlobError;
use alexandria_node::store::blobs::scrub::Outcome;
use alexandria_node::store::{Blobs, Change, Config, Direction, Store};
use alexandria_sync::chunk::{Bases, BlobHash, ChunkHash, Chunker, Chunking, Have, Manifest, patch};
use alexandria_sync::domain::{Blob, Typed};
use alexandria_sync::id::NodeId;
use alexandria_sync::record::RecordKey;
use alexandria_sync::store::{BlobStore, Wanted, WriteBlobError};
use alexandria_sync::wire::Class;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::samples::{config, folder, noise, open, shelf};

const MIB: usize = 1 << 20;
const PEER: NodeId = NodeId::from_bytes([1; 16]);

fn manifest(chunking: Chunking, bytes: &[u8]) -> Manifest {
    let mut chunker = Chunker::new(chunking);
    chunker.update(bytes);
    chunker.finish().unwrap()
}

async fn name_in_a_bucket(store: &Store, hash: BlobHash, size_bytes: usize) {
    let record = Blob { hash: Some(hash), size_bytes: size_bytes as u64, media_type: "video/mp4".into() };
    store.records.change_one(Change::put(shelf(), Blob::record_id(hash), record)).await.unwrap();
}

/// The names of what is wanted, the first of it.
async fn wanted(session: &impl BlobStore<Error = BlobError>, peer: NodeId) -> Vec<BlobHash> {
    session.wanted(peer, None, 10).await.unwrap().into_iter().map(|wanted| wanted.blob).collect()
}

async fn send(session: &impl BlobStore<Error = BlobError>, manifest: &Manifest, bytes: &[u8]) -> u32 {
    let have = session.begin(manifest).await.unwrap();
    let mut sent = 0;
    for index in have.missing() {
        let start = manifest.offset(index).unwrap() as usize;
        let len = manifest.chunk(index).unwrap().len as usize;
        session.write(manifest, index, bytes[start..start + len].to_vec().into()).await.unwrap();
        sent += 1;
    }
    session.sync(manifest).await.unwrap();
    sent
}

async fn read_all(blobs: &Blobs, hash: BlobHash) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    blobs.open_blob(hash).await.unwrap()?.file.read_to_end(&mut bytes).await.unwrap();
    Some(bytes)
}

#[tokio::test]
async fn what_was_put_in_is_read_back_whole_and_in_ranges_also_after_a_restart() {
    let dir = folder();
    let bytes = noise(3 * MIB + 17, 1);
    let store = open(&dir);
    let put = store.blobs.put_stream(Chunking::Fixed, Some(bytes.len() as u64), bytes.as_slice()).await.unwrap();
    assert_eq!((put.hash, put.existed), (BlobHash::of(&bytes), false));
    assert!(store.blobs.put_stream(Chunking::Fixed, None, bytes.as_slice()).await.unwrap().existed);
    drop(store);
    let store = open(&dir);
    assert_eq!(read_all(&store.blobs, put.hash).await.as_deref(), Some(bytes.as_slice()));
    let mut range = Vec::new();
    let opened = store.blobs.open_blob(put.hash).await.unwrap().unwrap();
    opened.range(MIB as u64 - 3, 9).await.unwrap().read_to_end(&mut range).await.unwrap();
    assert_eq!(range, bytes[MIB - 3..MIB + 6]);
    let session = store.blobs.session();
    assert_eq!(session.manifest(PEER, put.hash).await.unwrap(), Some(manifest(Chunking::Fixed, &bytes)));
    assert_eq!(store.blobs.stats().unwrap().held_bytes, bytes.len() as u64);
    assert_eq!(std::fs::read_dir(dir.path().join("data/incoming")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_blob_that_a_record_names_is_wanted_until_it_arrives() {
    let dir = folder();
    let store = open(&dir);
    let bytes = noise(2 * MIB, 1);
    let manifest = manifest(Chunking::Fixed, &bytes);
    let hash = manifest.blob();
    store.blobs.want_now(hash, Some(MIB as u64));
    store.blobs.want_now(hash, None);
    let session = store.blobs.session();
    assert!(session.urgent(PEER).await.unwrap().is_empty(), "no record names it");
    name_in_a_bucket(&store, hash, bytes.len()).await;
    let size_bytes = bytes.len() as u64;
    let wanted = Wanted { blob: hash, class: Class::Background, size_bytes, from_bytes: 0 };
    assert_eq!(session.wanted(PEER, None, 10).await.unwrap(), [wanted]);
    assert!(session.wanted(PEER, Some(hash), 10).await.unwrap().is_empty());
    let waited_for = Wanted { class: Class::Reader, from_bytes: MIB as u64, ..wanted };
    assert_eq!(session.urgent(PEER).await.unwrap(), [waited_for]);
    let mut arrivals = store.blobs.arrivals();
    send(&session, &manifest, &bytes).await;
    assert_eq!(read_all(&store.blobs, hash).await, None, "not before it is finished");
    session.finish(&manifest).await.unwrap();
    session.finish(&manifest).await.unwrap();
    assert_eq!(arrivals.recv().await.unwrap(), hash);
    assert!(session.wanted(PEER, None, 10).await.unwrap().is_empty());
    assert!(session.urgent(PEER).await.unwrap().is_empty());
    assert!(session.begin(&manifest).await.unwrap().is_complete());
    assert_eq!(read_all(&store.blobs, hash).await.unwrap(), bytes);
    assert_eq!(std::fs::read_dir(dir.path().join("data/partial")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_has_arrived_is_read_in_order_and_the_last_chunk_only_once_the_whole_is_proved() {
    let dir = folder();
    let store = open(&dir);
    let bytes = noise(3 * MIB, 9);
    let manifest = manifest(Chunking::Fixed, &bytes);
    let hash = manifest.blob();
    name_in_a_bucket(&store, hash, bytes.len()).await;
    let mut follower = store.blobs.follow(hash);
    assert!(follower.durable_from(0).await.unwrap().is_none());
    let session = store.blobs.session();
    session.begin(&manifest).await.unwrap();
    let mib = MIB as u64;
    // What is durable after each chunk, in an order in which no sender sends them.
    for (index, durable) in [
        (1usize, [None, Some(2 * mib), None]),
        (0, [Some(2 * mib), Some(2 * mib), None]),
        (2, [Some(2 * mib), Some(2 * mib), None]),
    ] {
        let chunk = bytes[index * MIB..(index + 1) * MIB].to_vec().into();
        session.write(&manifest, index as u32, chunk).await.unwrap();
        session.sync(&manifest).await.unwrap();
        follower.changed().await.unwrap();
        for (start, end) in (0..).step_by(MIB).zip(durable) {
            let there = follower.durable_from(start).await.unwrap();
            assert_eq!(there.map(|there| there.bytes), end.map(|end| start..end), "from {start} after chunk {index}");
        }
    }
    session.finish(&manifest).await.unwrap();
    follower.changed().await.unwrap();
    let whole = follower.durable_from(5).await.unwrap().unwrap();
    assert_eq!(whole.bytes, 5..3 * mib);
    let mut read = vec![0; bytes.len() - 5];
    std::os::unix::fs::FileExt::read_exact_at(&*whole.file, &mut read, 5).unwrap();
    assert_eq!(read, bytes[5..]);
}

#[tokio::test]
async fn a_chunk_that_is_not_what_its_hash_says_is_refused() {
    let dir = folder();
    let store = open(&dir);
    let manifest = manifest(Chunking::Fixed, &noise(MIB, 1));
    let session = store.blobs.session();
    session.begin(&manifest).await.unwrap();
    let written = session.write(&manifest, 0, noise(MIB, 2).into()).await;
    assert!(matches!(written, Err(WriteBlobError::Mismatch)));
    assert!(session.begin(&manifest).await.unwrap().count() == 0);
}

#[tokio::test]
async fn a_manifest_that_lies_costs_what_was_received_and_publishes_nothing() {
    let dir = folder();
    let store = open(&dir);
    let bytes = noise(2 * MIB, 1);
    let honest = manifest(Chunking::Fixed, &bytes);
    let claimed = BlobHash::of(b"something else");
    let lie = Manifest::new(claimed, Chunking::Fixed, honest.chunks().to_vec()).unwrap();
    let session = store.blobs.session();
    send(&session, &lie, &bytes).await;
    assert!(matches!(session.finish(&lie).await, Err(WriteBlobError::Mismatch)));
    assert_eq!(store.blobs.held(claimed).unwrap(), None);
    assert_eq!(session.begin(&lie).await.unwrap().count(), 0);
}

#[tokio::test]
async fn a_new_version_of_a_text_costs_its_difference() {
    let dir = folder();
    let store = open(&dir);
    let old = noise(6 * MIB, 1);
    store.blobs.put_stream(Chunking::ContentDefined, None, old.as_slice()).await.unwrap();
    let mut new = old.clone();
    new.insert(3 * MIB, b'!');
    let manifest = manifest(Chunking::ContentDefined, &new);
    let session = store.blobs.session();
    let sent = send(&session, &manifest, &new).await;
    assert!((1..=3).contains(&sent), "{sent} of {} chunks", manifest.chunks().len());
    session.finish(&manifest).await.unwrap();
    assert_eq!(read_all(&store.blobs, manifest.blob()).await.unwrap(), new);
}

/// The changed chunk of a new version is named with what it was in the old one, which is handed to who may have it, once it is
/// whole here and as long as it is sound.
#[tokio::test]
async fn a_changed_chunk_is_told_from_what_it_was() {
    let dir = folder();
    let store = open(&dir);
    let old = noise(6 * MIB, 1);
    let mut new = old.clone();
    new.insert(3 * MIB, b'!');
    let (old_manifest, new_manifest) =
        (manifest(Chunking::ContentDefined, &old), manifest(Chunking::ContentDefined, &new));
    let session = store.blobs.session();
    let (none, first) = (Have::none(new_manifest.chunks().len() as u32), old_manifest.chunks()[0].hash);
    assert_eq!(session.bases(PEER, &new_manifest, &none).await.unwrap(), Bases::new());
    assert_eq!(session.known_chunk(None, first).await.unwrap(), None, "nothing is here");

    store.blobs.put_stream(Chunking::ContentDefined, None, old.as_slice()).await.unwrap();
    name_in_a_bucket(&store, old_manifest.blob(), old.len()).await;
    store.blobs.set_permission(std::sync::Arc::new(|node, _| node == PEER));
    let have = session.begin(&new_manifest).await.unwrap();
    let stranger = NodeId::from_bytes([2; 16]);
    assert_eq!(session.bases(stranger, &new_manifest, &have).await.unwrap(), Bases::new());
    let bases = session.bases(PEER, &new_manifest, &have).await.unwrap();
    assert_eq!(bases.keys().copied().collect::<Vec<_>>(), have.missing().collect::<Vec<_>>());
    for (index, basis) in bases {
        let mut joined = Vec::new();
        for chunk in basis {
            assert!(!new_manifest.chunks().iter().any(|shared| shared.hash == chunk), "it is one that has changed");
            let bytes = session.known_chunk(Some(PEER), chunk).await.unwrap().expect("it is held");
            assert_eq!(ChunkHash::of(&bytes), chunk);
            assert_eq!(session.known_chunk(None, chunk).await.unwrap(), Some(bytes.clone()));
            assert_eq!(session.known_chunk(Some(stranger), chunk).await.unwrap(), None);
            joined.extend_from_slice(&bytes);
        }
        let start = new_manifest.offset(index).unwrap() as usize;
        let changed = &new[start..start + new_manifest.chunk(index).unwrap().len as usize];
        let patch = patch::make(&joined, changed).expect("most of it is in the basis");
        assert!(patch.len() < 1000, "{} bytes", patch.len());
    }

    let path = store.blobs.path(old_manifest.blob()).unwrap().unwrap();
    std::fs::write(&path, vec![0; old.len()]).unwrap();
    assert_eq!(session.known_chunk(None, first).await.unwrap(), None, "damaged bytes are nobody's chunk");
}

#[tokio::test]
async fn content_past_the_quota_is_refused_and_leaves_nothing_behind() {
    let dir = folder();
    let config = Config { content_bytes_max: Some(3 * MIB as u64), ..config(&dir) };
    let store = Store::open(&config).unwrap();
    let bytes = noise(2 * MIB, 1);
    store.blobs.put_stream(Chunking::Fixed, Some(bytes.len() as u64), bytes.as_slice()).await.unwrap();
    let more = noise(2 * MIB, 2);
    let put = store.blobs.put_stream(Chunking::Fixed, Some(more.len() as u64), more.as_slice()).await;
    assert!(matches!(put, Err(PutBlobError::Full(_))));
    let session = store.blobs.session();
    assert!(matches!(session.begin(&manifest(Chunking::Fixed, &more)).await, Err(WriteBlobError::Full)));
    let small = noise(MIB, 3);
    store.blobs.put_stream(Chunking::Fixed, Some(small.len() as u64), small.as_slice()).await.unwrap();
}

#[tokio::test]
async fn a_broken_upload_leaves_nothing_behind() {
    struct Breaks;
    impl AsyncRead for Breaks {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }
    let dir = folder();
    let store = open(&dir);
    let bytes = noise(MIB, 1);
    let put = store.blobs.put_stream(Chunking::Fixed, None, bytes.as_slice().chain(Breaks)).await;
    assert!(matches!(put, Err(PutBlobError::Read(_))));
    assert_eq!(std::fs::read_dir(dir.path().join("data/incoming")).unwrap().count(), 0);
    assert_eq!(store.blobs.stats().unwrap().held, 0);
}

#[tokio::test]
async fn damage_is_found_and_only_the_bad_chunks_are_fetched_again() {
    let dir = folder();
    let store = open(&dir);
    let bytes = noise(4 * MIB, 1);
    let manifest = manifest(Chunking::Fixed, &bytes);
    let hash = manifest.blob();
    name_in_a_bucket(&store, hash, bytes.len()).await;
    store.blobs.put_stream(Chunking::Fixed, None, bytes.as_slice()).await.unwrap();
    assert_eq!(store.blobs.verify(false, |_| {}).await.unwrap().found, []);
    let path = store.blobs.path(hash).unwrap().unwrap();
    let mut damaged = bytes.clone();
    damaged[2 * MIB + 5] ^= 1;
    std::fs::write(&path, &damaged).unwrap();

    let looked = store.blobs.verify(false, |_| {}).await.unwrap();
    assert_eq!(looked.found.iter().map(|found| found.outcome).collect::<Vec<_>>(), [Outcome::Damaged]);
    assert!(store.blobs.held(hash).unwrap().is_some(), "looking changes nothing");
    store.blobs.verify(true, |_| {}).await.unwrap();
    let session = store.blobs.session();
    assert_eq!(read_all(&store.blobs, hash).await, None);
    assert_eq!(wanted(&session, PEER).await, [hash]);
    assert_eq!(send(&session, &manifest, &bytes).await, 1);
    session.finish(&manifest).await.unwrap();
    assert_eq!(read_all(&store.blobs, hash).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_damaged_chunk_is_handed_to_nobody() {
    let dir = folder();
    let store = open(&dir);
    let bytes = noise(2 * MIB, 1);
    let manifest = manifest(Chunking::Fixed, &bytes);
    store.blobs.put_stream(Chunking::Fixed, None, bytes.as_slice()).await.unwrap();
    let session = store.blobs.session();
    assert!(session.read(&manifest, 1).await.unwrap().is_some());
    let mut damaged = bytes.clone();
    damaged[MIB] ^= 1;
    std::fs::write(store.blobs.path(manifest.blob()).unwrap().unwrap(), &damaged).unwrap();
    assert_eq!(session.read(&manifest, 1).await.unwrap(), None);
    assert_eq!(session.manifest(PEER, manifest.blob()).await.unwrap(), None);
}

#[tokio::test]
async fn verify_finds_lost_files_lost_manifests_and_files_that_the_records_forgot() {
    let dir = folder();
    let store = open(&dir);
    let mut hashes = Vec::new();
    for seed in 0..3 {
        let bytes = noise(MIB, seed);
        hashes.push(store.blobs.put_stream(Chunking::Fixed, None, bytes.as_slice()).await.unwrap().hash);
    }
    let path = |hash| store.blobs.path(hash).unwrap().unwrap();
    std::fs::remove_file(path(hashes[0])).unwrap();
    std::fs::write(path(hashes[1]).with_extension("manifest"), b"nonsense").unwrap();
    let stray = noise(MIB, 9);
    let stray_hash = BlobHash::of(&stray);
    let name = stray_hash.to_string();
    let folder = dir.path().join("data/blobs").join(&name[..2]).join(&name[2..4]);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(&name), stray).unwrap();
    let mut outcomes: Vec<_> =
        store.blobs.verify(true, |_| {}).await.unwrap().found.iter().map(|found| (found.hash, found.outcome)).collect();
    outcomes.sort_unstable_by_key(|(hash, _)| *hash);
    let mut expected =
        [(hashes[0], Outcome::Missing), (hashes[1], Outcome::ManifestDamaged), (stray_hash, Outcome::Unregistered)];
    expected.sort_unstable_by_key(|(hash, _)| *hash);
    assert_eq!(outcomes, expected);
    assert_eq!(store.blobs.verify(false, |_| {}).await.unwrap().found, []);
    assert_eq!(store.blobs.stats().unwrap().held, 3);
}

#[tokio::test]
async fn held_blobs_are_listed_both_ways_and_one_is_discarded_only_while_nothing_names_it() {
    let dir = folder();
    let store = open(&dir);
    let mut hashes = Vec::new();
    for seed in 0..5 {
        let bytes = noise(1000, seed);
        hashes.push(store.blobs.put_stream(Chunking::Fixed, None, bytes.as_slice()).await.unwrap().hash);
    }
    hashes.sort_unstable();
    for direction in [Direction::Ascending, Direction::Descending] {
        let (mut listed, mut after) = (Vec::new(), None);
        while let Some(held) = store.blobs.held_blobs(after, direction, 1).unwrap().pop() {
            after = Some(held.hash);
            listed.push(held.hash);
        }
        assert_eq!(listed, hashes);
        hashes.reverse();
    }
    store.blobs.set_media_type(hashes[0], "text/plain").await.unwrap();
    assert_eq!(store.blobs.media_type(hashes[0]).unwrap().as_deref(), Some("text/plain"));
    name_in_a_bucket(&store, hashes[1], 1000).await;
    assert!(store.blobs.discard_unreferenced(hashes[0]).await.unwrap());
    assert!(!store.blobs.discard_unreferenced(hashes[1]).await.unwrap());
    assert_eq!(read_all(&store.blobs, hashes[0]).await, None);
    assert_eq!(store.blobs.media_type(hashes[0]).unwrap(), None);
    assert!(read_all(&store.blobs, hashes[1]).await.is_some());
}

/// Invariant 16.
#[tokio::test]
async fn a_sweep_removes_what_nothing_has_referred_to_for_the_grace_and_nothing_else() {
    let dir = folder();
    let store = open(&dir);
    let put = |seed| {
        let blobs = store.blobs.clone();
        async move { blobs.put_stream(Chunking::Fixed, None, noise(MIB, seed).as_slice()).await.unwrap().hash }
    };
    let (named, unnamed) = (put(1).await, put(2).await);
    name_in_a_bucket(&store, named, MIB).await;
    let long = Duration::from_hours(1);
    assert_eq!(store.blobs.sweep(long).await.unwrap().blobs, 0);
    assert_eq!(store.blobs.sweep(long).await.unwrap().blobs, 0, "the grace is not over");
    put(2).await;
    let swept = store.blobs.sweep(Duration::ZERO).await.unwrap();
    assert_eq!((swept.blobs, swept.size_bytes), (1, MIB as u64));
    assert_eq!(read_all(&store.blobs, unnamed).await, None);
    assert!(read_all(&store.blobs, named).await.is_some());
    let key = RecordKey { bucket: shelf(), kind: Blob::KIND, id: Blob::record_id(named) };
    store.records.change_one(Change::delete(key, None)).await.unwrap();
    assert_eq!(store.blobs.sweep(Duration::ZERO).await.unwrap().blobs, 1);
    assert!(store.blobs.session().wanted(PEER, None, 10).await.unwrap().is_empty());
    assert_eq!(put(2).await, unnamed, "it can come back");
    assert!(read_all(&store.blobs, unnamed).await.is_some());
}

#[tokio::test]
async fn peers_get_only_what_is_in_buckets_that_they_may_have() {
    let dir = folder();
    let store = open(&dir);
    let bytes = noise(MIB, 1);
    let hash = store.blobs.put_stream(Chunking::Fixed, None, bytes.as_slice()).await.unwrap().hash;
    let missing = BlobHash::of(b"elsewhere");
    name_in_a_bucket(&store, hash, MIB).await;
    name_in_a_bucket(&store, missing, 9).await;
    store.blobs.set_permission(std::sync::Arc::new(|node, bucket| node == PEER && bucket == shelf()));
    let session = store.blobs.session();
    assert!(session.manifest(PEER, hash).await.unwrap().is_some());
    assert_eq!(wanted(&session, PEER).await, [missing]);
    let stranger = NodeId::from_bytes([2; 16]);
    assert_eq!(session.manifest(stranger, hash).await.unwrap(), None);
    assert!(session.wanted(stranger, None, 10).await.unwrap().is_empty());
}

const STREAMED_BYTES: u64 = 192 << 20;
const STREAMING_BYTES_MAX: u64 = 48 << 20;
const VICTIM_DIR: &str = "ALEXANDRIA_TEST_VICTIM_DIR";

/// Measured in a process of its own, where no other test takes memory.
#[test]
fn memory_stays_flat_while_a_long_stream_comes_in() {
    let Some(dir) = std::env::var_os(VICTIM_DIR) else {
        let dir = folder();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::blobs::memory_stays_flat_while_a_long_stream_comes_in"])
            .env(VICTIM_DIR, dir.path().join("data"))
            .status();
        assert!(status.unwrap().success());
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let config = Config { cache_bytes: 1 << 20, min_free_bytes: 1 << 20, ..Config::new(dir) };
        let store = Store::open(&config).unwrap();
        let before = peak_bytes();
        let stream = tokio::io::repeat(7).take(STREAMED_BYTES);
        let put = store.blobs.put_stream(Chunking::Fixed, None, stream).await.unwrap();
        assert_eq!(put.size_bytes, STREAMED_BYTES);
        let grown = peak_bytes() - before;
        assert!(grown < STREAMING_BYTES_MAX, "{grown} bytes for a stream of {STREAMED_BYTES}");
    });
}

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Covers are often alike: four files of one import may bring the same picture at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_content_from_many_at_once_is_taken_from_each() {
    let folder = folder();
    let store = open(&folder);
    for round in 0..10 {
        let bytes = noise(2000, round);
        let puts = (0..8).map(|_| {
            let (blobs, bytes) = (store.blobs.clone(), bytes.clone());
            tokio::spawn(async move { blobs.put_stream(Chunking::Fixed, None, bytes.as_slice()).await })
        });
        for put in puts.collect::<Vec<_>>() {
            let put = put.await.unwrap().unwrap();
            assert_eq!(put.hash, BlobHash::of(&bytes));
        }
        assert_eq!(read_all(&store.blobs, BlobHash::of(&bytes)).await, Some(bytes));
    }
}
