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

/// The wait after a failure; it doubles with each that follows, and is this again once one try went well.
pub const RETRY_FIRST: Duration = Duration::from_secs(5);
/// The longest wait between two tries.
pub const RETRY_LONGEST: Duration = Duration::from_mins(5);
/// What is told of a failure, in characters at most.
const TROUBLE_CHARS_MAX: usize = 500;

/// Why a try was given up. What was committed stays good; the next try goes on from there.
#[derive(Debug, thiserror::Error)]
enum FollowError<E> {
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
/// A failure ends nothing: after a wait, from `retry_first` up to `retry_longest`, it begins again from the last commit. What
/// failed is told by [`Search::trouble`] until it has caught up.
pub async fn follow<R: RecordStore>(
    store: &R,
    search: &Arc<Search>,
    indexed: Indexed,
    mut changes: impl Stream<Item = ()> + Unpin,
    (retry_first, retry_longest): (Duration, Duration),
) {
    let mut indexed = Some(indexed);
    let mut wait = retry_first;
    loop {
        let Err(error) = catch_up_from(store, search, &mut indexed).await else {
            wait = retry_first;
            search.note_trouble(None);
            tokio::select! {
                change = changes.next() => match change {
                    Some(()) => tokio::time::sleep(GATHER).await,
                    None => return,
                },
                () = search.failed() => indexed = None,
            }
            continue;
        };
        let error = format!("{:#}", anyhow::Error::from(error));
        tracing::warn!(%error, retry_s = wait.as_secs(), "search does not follow the library; it is tried again");
        search.note_trouble(Some(error.chars().take(TROUBLE_CHARS_MAX).collect()));
        // What was written since the last commit may be lost, in part.
        indexed = None;
        let ended = async { while changes.next().await.is_some() {} };
        if tokio::time::timeout(wait, ended).await.is_ok() {
            return;
        }
        wait = (wait * 2).min(retry_longest);
    }
}

/// Catches up from where it is known to be, or from the last commit.
async fn catch_up_from<R: RecordStore>(
    store: &R,
    search: &Arc<Search>,
    known: &mut Option<Indexed>,
) -> Result<(), FollowError<R::Error>> {
    let indexed = if let Some(indexed) = known {
        indexed
    } else {
        let writer = Arc::clone(search);
        known.insert(tokio::task::spawn_blocking(move || writer.begin_again()).await??)
    };
    catch_up(store, search, indexed).await
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

#[cfg(test)]
mod tests {
    use std::fs;

    use alexandria_sync::domain::{Media, Typed};
    use alexandria_sync::id::{BucketId, RecordId};
    use futures::stream;

    use super::*;
    use crate::library::selection::SelectionConfig;
    use crate::library::{Library, StoreConfig};
    use crate::store::Change;

    /// Nothing that is waited for takes longer, unless it never comes.
    const DEADLINE: Duration = Duration::from_secs(30);
    const SOON: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(100));

    fn id(number: u8) -> RecordId {
        RecordId::from_bytes([number; 16])
    }

    async fn put(library: &Library, number: u8, title: &str) {
        let media = Media { title: title.into(), ..Media::default() };
        let change = Change::put(BucketId::Collection(id(0xc0)), id(number), media);
        library.store().records.change_one(change).await.unwrap();
    }

    async fn is_found(library: &Library, number: u8, word: &str) {
        let mut committed = library.search().committed();
        let found =
            committed.wait_for(|_| library.search().find(Media::KIND, word, None, None).unwrap() == [id(number)]);
        let found = tokio::time::timeout(DEADLINE, found).await.map(|found| found.is_ok());
        assert_eq!(found, Ok(true), "{word} is found");
    }

    async fn has_trouble(library: &Library, expected: bool) {
        let mut trouble = library.search().trouble();
        let told = tokio::time::timeout(DEADLINE, trouble.wait_for(|trouble| trouble.is_some() == expected)).await;
        assert!(told.is_ok_and(|told| told.is_ok()), "it tells whether it follows: {expected}");
    }

    /// The folder of the index cannot be written to for a while, as on a full disk; root may write where others may not, so it
    /// is not there at all.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn search_goes_on_once_its_disk_works_again_and_what_was_erased_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig { min_free_bytes: 0, ..StoreConfig::default() };
        let (library, indexed) = Library::open(dir.path(), &config, &SelectionConfig::default()).unwrap();
        let following = tokio::spawn({
            let library = library.clone();
            async move {
                let heads = library.store().records.subscribe();
                let changes = stream::unfold(heads, async |mut heads| heads.recv().await.ok().map(|_| ((), heads)));
                let changes = changes.take_until(Box::pin(library.closed())).boxed();
                follow(&library.store().records, library.search(), indexed, changes, SOON).await;
            }
        });
        put(&library, 1, "first").await;
        is_found(&library, 1, "first").await;
        assert_eq!(library.search_behind_rows(), 0);

        let (search, away) = (dir.path().join("search"), dir.path().join("away"));
        fs::rename(&search, &away).unwrap();
        put(&library, 2, "second").await;
        has_trouble(&library, true).await;
        assert!(library.search_behind_rows() > 0);
        library.erase(Media::KIND, id(1)).await.unwrap();
        fs::rename(&away, &search).unwrap();

        is_found(&library, 2, "second").await;
        has_trouble(&library, false).await;

        // A failure that who follows has not met himself is seen to without a change, too.
        let second = library.store().records.find(Media::KIND, id(2)).unwrap().map(|stored| stored.record);
        let forget = || library.search().forget(&[(Media::KIND, id(2))], |_, _| second.clone());
        let mut committed = library.search().committed();
        committed.borrow_and_update();
        fs::rename(&search, &away).unwrap();
        assert!(forget().is_err(), "the folder is not there");
        fs::rename(&away, &search).unwrap();
        assert_eq!(tokio::time::timeout(DEADLINE, committed.changed()).await.map(|told| told.is_ok()), Ok(true));
        forget().unwrap();
        has_trouble(&library, false).await;

        assert_eq!(
            (library.search_behind_rows(), library.search().find(Media::KIND, "first", None, None).unwrap()),
            (0, vec![])
        );
        assert_eq!(library.forget_erased().await.unwrap(), 1);
        library.close();
        assert!(tokio::time::timeout(DEADLINE, following).await.is_ok_and(|ended| ended.is_ok()), "it ends");
    }
}
