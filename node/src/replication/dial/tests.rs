//! What a replicator tells and decides, without a bridge.

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
