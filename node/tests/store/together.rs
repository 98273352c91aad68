//! Several sessions that receive one blob together, over one file.

use std::path::Path;

use alexandria_node::store::blobs::BlobError;
use alexandria_node::store::{BlobSession, Change, Config, Store};
use alexandria_sync::chunk::{BlobHash, Chunker, Chunking, Claim, Lot, Manifest};
use alexandria_sync::domain::Blob;
use alexandria_sync::store::{BlobStore, WriteBlobError};

use super::samples::{config, folder, noise, open, shelf};

const MIB: usize = 1 << 20;

/// A blob of so many chunks of 1 MiB.
fn blob(chunks: usize, seed: u64) -> (Manifest, Vec<u8>) {
    let bytes = noise(chunks * MIB, seed);
    let mut chunker = Chunker::new(Chunking::Fixed);
    chunker.update(&bytes);
    (chunker.finish().unwrap(), bytes)
}

async fn claim(session: &BlobSession, manifest: &Manifest, from: u32, chunks: usize) -> Lot {
    let bytes_max = (chunks * MIB) as u64;
    session.claim(manifest, Claim { from, bytes_max, returned: Vec::new() }).await.unwrap()
}

async fn write(
    session: &BlobSession,
    manifest: &Manifest,
    index: u32,
    bytes: &[u8],
) -> Result<(), WriteBlobError<BlobError>> {
    let start = index as usize * MIB;
    session.write(manifest, index, bytes[start..start + MIB].to_vec().into()).await
}

/// Brings everything that it is given to bring, and finishes the blob if nothing is left. Tells how many chunks it brought.
async fn bring(session: &BlobSession, manifest: &Manifest, bytes: &[u8]) -> usize {
    let mut brought = 0;
    loop {
        match claim(session, manifest, 0, 2).await {
            Lot::Chunks(chunks) | Lot::Shared(chunks) => {
                for index in chunks {
                    write(session, manifest, index, bytes).await.unwrap();
                    brought += 1;
                }
            }
            Lot::Complete => {
                session.finish(manifest).await.unwrap();
                return brought;
            }
            Lot::Elsewhere => return brought,
            Lot::Everything => panic!("there may be others"),
        }
    }
}

/// How many files below this folder the process has open.
fn open_files(below: &Path) -> usize {
    let below = below.canonicalize().unwrap();
    let files =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    files.filter(|file| file.starts_with(&below)).count()
}

#[tokio::test]
async fn each_session_brings_what_it_has_claimed_and_what_the_one_that_ends_had_claimed_comes_through_the_other() {
    let dir = folder();
    let store = open(&dir);
    let (manifest, bytes) = blob(8, 1);
    let partial = dir.path().join("data/partial");
    let (first, second) = (store.blobs.session(), store.blobs.session());
    assert_eq!(first.begin(&manifest).await.unwrap().count(), 0);
    assert_eq!(second.begin(&manifest).await.unwrap().count(), 0);
    assert_eq!(open_files(&partial), 1, "one for both");
    assert_eq!(claim(&first, &manifest, 6, 3).await, Lot::Shared(vec![6, 7, 0]));
    assert_eq!(claim(&second, &manifest, 6, 3).await, Lot::Shared(vec![1, 2, 3]));
    assert_eq!(claim(&first, &manifest, 0, 9).await, Lot::Shared(vec![4, 5]));
    assert_eq!(claim(&second, &manifest, 0, 9).await, Lot::Elsewhere);
    for index in [6, 7] {
        write(&first, &manifest, index, &bytes).await.unwrap();
    }
    for index in [1, 2, 3] {
        write(&second, &manifest, index, &bytes).await.unwrap();
    }
    let mut wants = store.blobs.urgent_changes();
    // What one syncs is what both have written.
    second.sync(&manifest).await.unwrap();
    drop(first);
    assert!(wants.has_changed().unwrap(), "sessions are told that there is more to bring");
    wants.borrow_and_update();
    assert_eq!(claim(&second, &manifest, 0, 9).await, Lot::Chunks(vec![0, 4, 5]), "it is alone");
    let third = store.blobs.session();
    let have = third.begin(&manifest).await.unwrap();
    assert_eq!(have.missing().collect::<Vec<_>>(), [0, 4, 5]);
    drop(second);
    assert_eq!(bring(&third, &manifest, &bytes).await, 3);
    let path = store.blobs.path(manifest.blob()).unwrap().expect("it is whole");
    assert!(std::fs::read(path).unwrap() == bytes);
    assert_eq!((open_files(&partial), std::fs::read_dir(&partial).unwrap().count()), (0, 0));
}

#[tokio::test]
async fn what_is_synced_is_kept_when_the_last_session_ends() {
    let dir = folder();
    let store = open(&dir);
    let (manifest, bytes) = blob(3, 1);
    let (first, second) = (store.blobs.session(), store.blobs.session());
    for (session, index) in [(&first, 0), (&second, 2)] {
        session.begin(&manifest).await.unwrap();
        write(session, &manifest, index, &bytes).await.unwrap();
    }
    first.sync(&manifest).await.unwrap();
    write(&second, &manifest, 1, &bytes).await.unwrap();
    drop((first, second));
    assert_eq!(open_files(&dir.path().join("data/partial")), 0);
    let next = store.blobs.session();
    assert_eq!(next.begin(&manifest).await.unwrap().missing().collect::<Vec<_>>(), [1], "it was not synced");
    assert_eq!(bring(&next, &manifest, &bytes).await, 1);
}

/// They begin, claim, write and finish side by side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_do_everything_at_the_same_time_publish_the_blob_once() {
    let dir = folder();
    let store = open(&dir);
    for seed in 0..8 {
        let (manifest, bytes) = blob(6, seed);
        let mut arrivals = store.blobs.arrivals();
        let sessions = (0..4).map(|_| {
            let (session, manifest, bytes) = (store.blobs.session(), manifest.clone(), bytes.clone());
            tokio::spawn(async move {
                session.begin(&manifest).await.unwrap();
                let brought = bring(&session, &manifest, &bytes).await;
                session.sync(&manifest).await.unwrap();
                // Each tries, as each may find that it was the last.
                (brought, session.finish(&manifest).await)
            })
        });
        let mut brought = 0;
        for session in sessions.collect::<Vec<_>>() {
            let (chunks, finished) = session.await.unwrap();
            brought += chunks;
            assert!(matches!(finished, Ok(()) | Err(WriteBlobError::Gone)), "{finished:?}");
        }
        assert_eq!(brought, 6);
        let last = store.blobs.session();
        let is_whole = last.begin(&manifest).await.unwrap().is_complete();
        assert!(is_whole, "all of it was written, and the last one to write it has finished it");
        assert_eq!(arrivals.recv().await.unwrap(), manifest.blob());
        assert!(arrivals.is_empty(), "published once");
    }
}

#[tokio::test]
async fn another_manifest_of_the_blob_does_not_join() {
    let dir = folder();
    let store = open(&dir);
    let (honest, bytes) = blob(2, 1);
    let lie = Manifest::new(honest.blob(), Chunking::Fixed, honest.chunks()[..1].to_vec()).unwrap();
    let (first, second) = (store.blobs.session(), store.blobs.session());
    first.begin(&honest).await.unwrap();
    assert!(matches!(second.begin(&lie).await, Err(WriteBlobError::Busy)));
    assert_eq!(bring(&first, &honest, &bytes).await, 2);
    assert!(second.begin(&lie).await.unwrap().is_complete());
}

#[tokio::test]
async fn a_blob_that_is_something_else_is_gone_for_the_others_too_and_can_be_begun_again() {
    let dir = folder();
    let store = open(&dir);
    let (honest, bytes) = blob(3, 1);
    let claimed = BlobHash::of(b"something else");
    let lie = Manifest::new(claimed, Chunking::Fixed, honest.chunks().to_vec()).unwrap();
    let (first, second) = (store.blobs.session(), store.blobs.session());
    for session in [&first, &second] {
        session.begin(&lie).await.unwrap();
    }
    assert_eq!(claim(&second, &lie, 0, 1).await, Lot::Shared(vec![0]));
    for index in 0..3 {
        write(&first, &lie, index, &bytes).await.unwrap();
    }
    assert!(matches!(first.finish(&lie).await, Err(WriteBlobError::Mismatch)));
    assert!(matches!(write(&second, &lie, 0, &bytes).await, Err(WriteBlobError::Gone)));
    assert!(matches!(second.sync(&lie).await, Err(WriteBlobError::Gone)));
    assert!(matches!(second.claim(&lie, Claim::default()).await, Err(WriteBlobError::Gone)));
    assert!(matches!(second.finish(&lie).await, Err(WriteBlobError::Gone)));
    // Others need not wait for it to let go.
    let third = store.blobs.session();
    assert_eq!(third.begin(&lie).await.unwrap().count(), 0);
    second.release(claimed).await;
    write(&third, &lie, 1, &bytes).await.unwrap();
    third.sync(&lie).await.unwrap();
    assert_eq!(second.begin(&lie).await.unwrap().count(), 1, "it joins who has begun anew");
}

/// However many sessions receive it, it takes its room once.
#[tokio::test]
async fn room_is_set_aside_once_for_all() {
    let dir = folder();
    let config = Config { content_bytes_max: Some(5 * MIB as u64), ..config(&dir) };
    let store = Store::open(&config).unwrap();
    let ((manifest, bytes), (other, other_bytes)) = (blob(3, 1), blob(2, 2));
    let sessions = [(); 3].map(|()| store.blobs.session());
    for session in &sessions {
        session.begin(&manifest).await.unwrap();
    }
    sessions[0].begin(&other).await.unwrap();
    assert!(matches!(sessions[1].begin(&blob(1, 3).0).await, Err(WriteBlobError::Full)));
    assert_eq!(bring(&sessions[1], &manifest, &bytes).await, 3);
    // The others have not heard of it yet, and keep nothing all the same.
    assert_eq!(bring(&sessions[0], &other, &other_bytes).await, 2);
    assert_eq!(store.blobs.stats().unwrap().held_bytes, 5 * MIB as u64);
}

#[tokio::test]
async fn what_had_come_of_a_blob_that_arrives_by_another_way_is_cleared_when_its_sessions_leave() {
    let dir = folder();
    let store = open(&dir);
    let (manifest, bytes) = blob(2, 1);
    let record = Blob { hash: Some(manifest.blob()), size_bytes: bytes.len() as u64, media_type: "video/mp4".into() };
    store.records.change_one(Change::put(shelf(), Blob::record_id(manifest.blob()), record)).await.unwrap();
    let (first, second) = (store.blobs.session(), store.blobs.session());
    for (session, index) in [(&first, 0), (&second, 1)] {
        session.begin(&manifest).await.unwrap();
        write(session, &manifest, index, &bytes).await.unwrap();
        session.sync(&manifest).await.unwrap();
    }
    store.blobs.put_stream(Chunking::Fixed, None, bytes.as_slice()).await.unwrap();
    first.release(manifest.blob()).await;
    assert!(std::fs::read_dir(dir.path().join("data/partial")).unwrap().count() > 0, "somebody may still write to it");
    second.release(manifest.blob()).await;
    assert_eq!(std::fs::read_dir(dir.path().join("data/partial")).unwrap().count(), 0);
}
