//! What a replicator tells and decides, without a bridge.

use alexandria_sync::chunk::BlobHash;
use tempfile::TempDir;

use super::*;
use crate::library::StoreConfig;
use crate::library::selection::SelectionConfig;

const DEADLINE: Duration = Duration::from_mins(1);

/// A node of no fleet, and what it has for replication.
fn replicator() -> (TempDir, Replicator) {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { min_free_bytes: 0, ..StoreConfig::default() };
    let (library, _) = Library::open(&dir.path().join("data"), &config, &SelectionConfig::default()).unwrap();
    (dir, Replicator::new(library, ReplicationConfig::default()))
}

#[tokio::test]
async fn where_it_cannot_be_read_which_fleet_the_node_is_in_status_and_sync_say_so_and_what_to_do() {
    let (_dir, replicator) = replicator();
    let file = replicator.inner.library.data_dir().join("fleet.json");
    assert!(replicator.status().is_none());
    let mut states = replicator.inner.state.subscribe();
    let running = tokio::spawn({
        let replicator = replicator.clone();
        async move { replicator.run().await }
    });
    for damaged in [&b"{\"bridge\":"[..], b"\xff\xfe"] {
        std::fs::write(&file, damaged).unwrap();
        replicator.joined();
        let told = states.wait_for(|state| state.last_error.is_some());
        tokio::time::timeout(DEADLINE, told).await.expect("it is told").unwrap();
        let status = replicator.status().expect("it may be in a fleet");
        let error = status.last_error.expect("it is told");
        assert_eq!(error, format!("{} is damaged; enrol again", file.display()));
        assert_eq!(status.wait, Some(Wait::NoLink { error: error.clone() }));
        let (progress, _) = mpsc::channel(1);
        assert_eq!(replicator.sync_once(progress).await, SyncEnd::Failed(error));
    }
    std::fs::remove_file(&file).unwrap();
    assert!(replicator.status().is_none(), "it is in no fleet");
    replicator.inner.library.close();
    running.await.unwrap();
}

#[tokio::test]
async fn there_is_room_again_once_content_arrives() {
    let (_dir, replicator) = replicator();
    let store = replicator.inner.library.store().clone();
    let following = Following::begin(store, NodeId::from_bytes([2; 16])).await.unwrap();
    let ((events, heard), (progress, progressed)) = (mpsc::channel(1), watch::channel(Progress::default()));
    let (short, _) = watch::channel(None);
    tokio::spawn(replicator.clone().listen(heard, progressed, short, following));
    let mut states = replicator.inner.state.subscribe();
    let arrived = Event::BlobReceived { blob: BlobHash::of(b"film"), size_bytes: 4 };
    for (event, wait) in [(Event::ContentBlocked, Some(Wait::NoRoom)), (arrived, None)] {
        events.send(event).await.unwrap();
        let told = states.wait_for(|state| state.wait == wait);
        tokio::time::timeout(DEADLINE, told).await.expect("it is told").unwrap();
    }
    drop(progress);
}

/// Collections were chosen meanwhile, which says nothing of the bridge.
#[tokio::test]
async fn a_sync_goes_on_after_a_session_that_was_outdated_and_tells_why_the_next_attempt_failed() {
    let (_dir, replicator) = replicator();
    let (progress, _shown) = mpsc::channel(64);
    let syncing = tokio::spawn({
        let replicator = replicator.clone();
        async move { replicator.until_quiet(progress).await }
    });
    let mut wakes = replicator.inner.wake.subscribe();
    let mut woken = async |times| {
        let woken = wakes.wait_for(|now| *now == times);
        tokio::time::timeout(DEADLINE, woken).await.expect("it dials").unwrap();
    };
    woken(1).await;
    replicator.inner.state.send_modify(|state| state.outdated += 1);
    woken(2).await;
    replicator.inner.state.send_modify(|state| {
        state.attempts += 1;
        state.last_error = Some("there is no way to the bridge".to_owned());
    });
    let ended = tokio::time::timeout(DEADLINE, syncing).await.expect("it does not wait any longer").unwrap();
    assert_eq!(ended, SyncEnd::Failed("there is no way to the bridge".to_owned()));
}
