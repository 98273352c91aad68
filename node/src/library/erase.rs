//! The right to be forgotten: erasing is ordered here, and what is left of it on the disk is seen to, step by step, before
//! a receipt is given (invariant 7; docs/adr/0012-erase.md tells what each step is for).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Blob, Typed};
use alexandria_sync::id::RecordId;
use alexandria_sync::record::{Kind, RecordKey};

use super::Library;
use crate::search::SearchError;
use crate::store::backup::{self, BackupError};
use crate::store::blobs::BlobError;
use crate::store::{Change, ChangeError, EraseError, StoreError};

/// How long the search index may take to catch up.
const INDEXED_WITHIN: Duration = Duration::from_mins(2);
/// Folders of records that were set aside in the data folder, by how their names begin. What was good in them lives on
/// in the records that took their place.
const SET_ASIDE: [&str; 2] = ["records.damaged-", "records.before-restore-"];
/// A backup that is about to be put in place of the records.
const STAGED: &str = "restoring";

/// Why something erased may still be on the disk. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// A session is receiving content that was erased.
    #[error("content {0} is being received just now")]
    BeingReceived(BlobHash),
    /// The search index has not caught up.
    #[error("the search index lags behind")]
    IndexBehind,
    /// A restore waits for the next start.
    #[error("a backup waits to be put in place")]
    Restoring,
    /// The disk refused.
    #[error("remove {}", path.display())]
    Io {
        /// What could not be removed.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The record store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The content store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The search index failed.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// The copy of the records could not be written anew.
    #[error(transparent)]
    Dump(#[from] BackupError),
    /// A blob record could not be filled again.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Closing(#[from] tokio::task::JoinError),
}

impl Library {
    /// Erases a record, here and wherever it goes. Out of sight here when this returns.
    ///
    /// # Errors
    ///
    /// [`EraseError`].
    pub async fn erase(&self, kind: Kind, id: RecordId) -> Result<Vec<RecordKey>, EraseError> {
        self.inner.store.records.erase(kind, id).await
    }

    /// Sees to it that nothing of what was erased is left in the data folder, and gives the receipts. Returns how many.
    ///
    /// # Errors
    ///
    /// [`ForgetError`]; no receipt was given then.
    pub async fn forget_erased(&self) -> Result<usize, ForgetError> {
        let records = &self.inner.store.records;
        let pending = records.pending_erasures()?;
        if pending.is_empty() {
            return Ok(0);
        }
        self.indexed_so_far().await?;
        for &erasure in &pending {
            for blob in records.erased_blobs(erasure)? {
                self.keep_what_others_name(erasure, blob).await?;
                if !self.inner.store.blobs.purge(blob).await? {
                    return Err(ForgetError::BeingReceived(blob));
                }
            }
        }
        let library = self.clone();
        tokio::task::spawn_blocking(move || {
            remove_copies(&library.inner.data_dir)?;
            // Before anything is written that would be written again at the next try.
            library.inner.store.records.check_room_to_rewrite()?;
            library.inner.search.forget_deleted()?;
            backup::dump_anew(&library.inner.store.records)?;
            Ok::<_, ForgetError>(())
        })
        .await??;
        // Last: the steps before it write, too.
        records.rewrite().await?;
        let count = pending.len();
        records.finish_erasures(pending).await?;
        Ok(count)
    }

    /// Waits until the search index knows everything that is durable now.
    async fn indexed_so_far(&self) -> Result<(), ForgetError> {
        let heads = self.inner.store.records.heads_now();
        let mut committed = self.inner.search.committed();
        let caught_up = committed.wait_for(|indexed| heads.iter().all(|head| indexed.row(head.bucket) >= head.head));
        match tokio::time::timeout(INDEXED_WITHIN, caught_up).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ForgetError::IndexBehind),
        }
    }

    /// Content that somebody named elsewhere while it was erased here stays content of the bucket.
    async fn keep_what_others_name(&self, erasure: RecordKey, hash: BlobHash) -> Result<(), ForgetError> {
        let store = &self.inner.store;
        let id = Blob::record_id(hash);
        let key = RecordKey { bucket: erasure.bucket, kind: Blob::KIND, id };
        let record = store.records.get(key)?;
        let is_empty =
            record.and_then(|stored| Blob::from_record(&stored.record)).is_some_and(|blob| blob.hash.is_none());
        if let Some(held) = store.blobs.held(hash)?
            && is_empty
            && store.records.is_named(erasure.bucket, hash)?
        {
            let media_type = store.blobs.media_type(hash)?.unwrap_or_default();
            let blob = Blob { hash: Some(hash), size_bytes: held.size_bytes, media_type };
            store.records.change_one(Change::put(erasure.bucket, id, blob)).await?;
        }
        Ok(())
    }
}

/// Removes trees that were set aside. Blocks.
fn remove_copies(data_dir: &Path) -> Result<(), ForgetError> {
    if data_dir.join(STAGED).exists() {
        return Err(ForgetError::Restoring);
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ForgetError::Io { path, source }
    };
    for entry in std::fs::read_dir(data_dir).map_err(failed(data_dir))? {
        let path = entry.map_err(failed(data_dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if SET_ASIDE.iter().any(|prefix| name.starts_with(prefix)) {
            tracing::warn!(path = %path.display(), "removing records that were set aside: something in them was erased");
            std::fs::remove_dir_all(&path).map_err(failed(&path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use alexandria_sync::domain::Media;
    use alexandria_sync::id::BucketId;
    use futures::stream;

    use super::*;
    use crate::library::StoreConfig;
    use crate::library::selection::SelectionConfig;
    use crate::search::follow;
    use crate::store::small_disk::{SmallDisk, is_alone};

    #[tokio::test]
    async fn where_there_is_no_room_to_forget_nothing_is_written_for_it() {
        if !is_alone("library::erase::tests::where_there_is_no_room_to_forget_nothing_is_written_for_it") {
            return;
        }
        let Some(disk) = SmallDisk::mount() else { return };
        let config = StoreConfig { min_free_bytes: 0, ..StoreConfig::default() };
        let data = disk.path().join("data");
        let (library, indexed) = Library::open(&data, &config, &SelectionConfig::default()).unwrap();
        let records = &library.store().records;
        let (shelf, id) = (BucketId::Collection(RecordId::from_bytes([1; 16])), RecordId::from_bytes([2; 16]));
        let media = Media { title: "to be erased".into(), ..Media::default() };
        records.change_one(Change::create(shelf, id, media)).await.unwrap();
        backup::dump(records).unwrap();
        library.erase(Media::KIND, id).await.unwrap();
        let waits = (Duration::from_millis(1), Duration::from_millis(1));
        follow::follow(records, library.search(), indexed, stream::empty(), waits).await;

        let dump = || std::fs::metadata(backup::dump_path(&data)).unwrap().ino();
        let before = dump();
        let outcome = library.forget_erased().await;
        assert!(matches!(outcome, Err(ForgetError::Store(StoreError::Full))), "{outcome:?}");
        assert_eq!(dump(), before, "the dump is not written anew");
        assert_eq!(records.pending_erasures().unwrap().len(), 1, "it is still owed");
    }
}
