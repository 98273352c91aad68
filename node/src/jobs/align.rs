//! Makes what is here follow what was chosen: evicts collections that are no longer kept, sorts the content of others into
//! wanted and on demand, and takes what left out of the search index.
//!
//! Everything is in the store's own notes, so a restart goes on where it was. Also writes now and then when content was
//! opened.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use alexandria_sync::id::RecordId;

use crate::library::Library;
use crate::store::align::Step;
use crate::store::blobs::BlobError;
use crate::store::records::ROWS_MAX;

/// Between two steps: readers come first.
const PAUSE: Duration = Duration::from_millis(5);
/// How often it is looked whether there is something to do that nobody has told of, and the uses of content are written.
const ROUND: Duration = Duration::from_mins(1);

/// Why a round was given up. The next one goes on.
#[derive(Debug, thiserror::Error)]
enum AlignError {
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Search(#[from] crate::search::SearchError),
    #[error("the indexing thread ended early")]
    Thread(#[from] tokio::task::JoinError),
}

/// Follows until the library closes.
pub async fn run(library: Library) {
    let blobs = library.store().blobs.clone();
    tokio::select! {
        () = library.closed() => {}
        () = follow(&library) => {}
    }
    if let Err(error) = blobs.keep_uses().await {
        tracing::warn!(%error, "when content was last opened could not be written");
    }
}

async fn follow(library: &Library) {
    let mut changes = library.store().records.alignment_changes();
    let mut selection = library.store().records.selection_changes();
    // Those that wait for the bridge are tried again when there is news of it, not by the clock.
    let mut waiting = BTreeSet::new();
    loop {
        changes.borrow_and_update();
        selection.borrow_and_update();
        if let Err(error) = round(library, &mut waiting).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "collections could not be brought in line");
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_ok() { waiting.clear() } else { return },
            changed = selection.changed() => if changed.is_ok() { waiting.clear() } else { return },
            () = tokio::time::sleep(ROUND) => {}
        }
    }
}

async fn round(library: &Library, waiting: &mut BTreeSet<RecordId>) -> Result<(), AlignError> {
    let store = library.store();
    store.blobs.keep_uses().await?;
    for collection in store.records.unaligned()? {
        if waiting.contains(&collection) {
            continue;
        }
        loop {
            match store.records.align(collection).await? {
                Step::More(given_up) => {
                    for blob in given_up {
                        // Kept if anything else names it.
                        store.blobs.discard_unreferenced(blob).await?;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Step::Waiting => {
                    waiting.insert(collection);
                    break;
                }
                Step::Done => break,
            }
        }
        forget_left(library).await?;
        // What is wanted has changed, and there may be room again.
        store.blobs.note_wants_changed();
    }
    forget_left(library).await
}

/// Takes records that left out of the search index, then their notes.
async fn forget_left(library: &Library) -> Result<(), AlignError> {
    let records = library.store().records.clone();
    loop {
        let left = records.left()?;
        let all = left.len() < ROWS_MAX;
        if left.is_empty() {
            return Ok(());
        }
        let (search, looked_up, gone) = (Arc::clone(library.search()), records.clone(), left.clone());
        tokio::task::spawn_blocking(move || {
            search.forget(&gone, |kind, id| match looked_up.find(kind, id) {
                Ok(found) => found.map(|stored| stored.record),
                Err(error) => {
                    tracing::warn!(%error, "a record that left could not be looked up");
                    None
                }
            })
        })
        .await??;
        records.forget_left(left).await?;
        if all {
            return Ok(());
        }
    }
}
