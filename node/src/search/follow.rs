//! Keeps the index up with the feeds of the store.

use std::sync::Arc;
use std::time::Duration;

use alexandria_sync::id::{Epoch, NodeId};
use alexandria_sync::store::{Peer, RecordStore};
use futures::{Stream, StreamExt};

use super::{Indexed, Search, SearchError};

/// Rows are indexed in pages of this many bytes.
const PAGE_BYTES: u32 = 1024 * 1024;
/// Changes are gathered for this long before a commit, which costs a flush.
const GATHER: Duration = Duration::from_millis(200);
/// Pages between commits while catching up.
const PAGES_PER_COMMIT: usize = 16;

/// The index reads every row, whoever it came from.
const NOBODY: Peer = Peer { node: NodeId::from_bytes([0; 16]), epoch: Epoch(0) };

/// Why following stopped. What was committed stays good; the rest is indexed at the next start.
#[derive(Debug, thiserror::Error)]
pub enum FollowError<E> {
    /// The index failed.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// The store failed.
    #[error("read the feeds for the search index")]
    Store(#[source] E),
    /// The thread that indexes was lost.
    #[error("the indexing thread ended early")]
    Thread(#[from] tokio::task::JoinError),
}

/// Indexes what is not in the index yet, then again for each of `changes`; ends when they do.
///
/// # Errors
///
/// [`FollowError`].
pub async fn follow<R: RecordStore>(
    store: &R,
    search: &Arc<Search>,
    mut indexed: Indexed,
    mut changes: impl Stream<Item = ()> + Unpin,
) -> Result<(), FollowError<R::Error>> {
    loop {
        catch_up(store, search, &mut indexed).await?;
        if changes.next().await.is_none() {
            return Ok(());
        }
        tokio::time::sleep(GATHER).await;
    }
}

async fn catch_up<R: RecordStore>(
    store: &R,
    search: &Arc<Search>,
    indexed: &mut Indexed,
) -> Result<(), FollowError<R::Error>> {
    let mut uncommitted = 0;
    for head in store.heads().await.map_err(FollowError::Store)? {
        let mut at = indexed.row(head.bucket);
        while at < head.head {
            let page = store.page(head.bucket, at, NOBODY, PAGE_BYTES).await.map_err(FollowError::Store)?;
            if page.next <= at {
                break;
            }
            at = page.next;
            let writer = Arc::clone(search);
            tokio::task::spawn_blocking(move || writer.update(&page.records)).await??;
            indexed.set_row(head.bucket, at);
            uncommitted += 1;
            if uncommitted == PAGES_PER_COMMIT {
                commit(search, indexed).await?;
                uncommitted = 0;
            }
        }
    }
    if uncommitted > 0 {
        commit(search, indexed).await?;
    }
    Ok(())
}

async fn commit<E>(search: &Arc<Search>, indexed: &Indexed) -> Result<(), FollowError<E>> {
    let (writer, indexed) = (Arc::clone(search), indexed.clone());
    tokio::task::spawn_blocking(move || writer.commit(&indexed)).await??;
    Ok(())
}
