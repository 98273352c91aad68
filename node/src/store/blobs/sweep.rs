//! Removes content that nothing refers to: mark, wait, look again, remove.
//!
//! The wait is what makes an upload safe whose record is not written yet (`marks`).

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use alexandria_sync::chunk::BlobHash;

use super::{BlobError, Blobs, HeldBlob, UNREFERENCED_FILE, blocking, failed, locked};
use crate::store::disk;
use crate::store::engine::Direction;
use crate::store::error::StoreError;
use crate::store::writer::{Room, Transaction};
use crate::store::{keys, tables};

/// Blobs looked at before others may work.
const STEP: usize = 256;

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Swept {
    /// Whole blobs.
    pub blobs: u64,
    /// Blobs that had been received in part.
    pub partial: u64,
    /// Bytes of whole blobs.
    pub size_bytes: u64,
}

impl Blobs {
    /// Removes blobs, whole or partial, that no record has referred to for at least `grace`. Call it now and then:
    /// the first call only sees what is unreferenced.
    pub async fn sweep(&self, grace: Duration) -> Result<Swept, BlobError> {
        let mut swept = Swept::default();
        let mut after = None;
        loop {
            let blobs = self.clone();
            let held =
                blocking(move || Ok::<_, BlobError>(blobs.held_blobs(after, Direction::Ascending, STEP)?)).await?;
            let Some(last) = held.last() else { break };
            after = Some(last.hash);
            for blob in held {
                let unreferenced = !self.is_referenced(blob.hash)?;
                if self.unreferenced_long_enough(blob.hash, unreferenced, grace) && self.remove(blob, true).await? {
                    swept.blobs += 1;
                    swept.size_bytes += blob.size_bytes;
                }
            }
        }
        for hash in self.partials().await? {
            let useless =
                !self.inner.records.shared().engine.contains(&keys::wanted(hash)).map_err(StoreError::from)?;
            let awaited = locked(&self.inner.urgent).iter().any(|(blob, _)| *blob == hash);
            let useless = useless && !awaited && self.held(hash)?.is_none();
            if self.unreferenced_long_enough(hash, useless, grace) {
                swept.partial += u64::from(self.remove_partial_unless_received(hash)?);
            }
        }
        let blobs = self.clone();
        let saved = blocking(move || {
            let saved = locked(&blobs.inner.unreferenced).save();
            saved.map_err(failed("write", Path::new(UNREFERENCED_FILE)))
        });
        if let Err(error) = saved.await {
            tracing::warn!(%error, "how long content has been named by nothing is counted anew after the next start");
        }
        Ok(swept)
    }

    /// Notes that a blob is or is not referred to, and says whether it has not been for the whole grace.
    fn unreferenced_long_enough(&self, hash: BlobHash, unreferenced: bool, grace: Duration) -> bool {
        let mut marks = locked(&self.inner.unreferenced);
        if !unreferenced {
            marks.remove(hash);
            return false;
        }
        marks.note(hash, grace)
    }

    /// Removes a blob at once if no record refers to it, and says whether it did. For content that was put in by mistake
    /// or is to be deleted: whoever is about to name the same content has to put it in again.
    pub async fn discard_unreferenced(&self, hash: BlobHash) -> Result<bool, BlobError> {
        match self.held(hash)? {
            Some(blob) => self.remove(blob, false).await,
            None => Ok(false),
        }
    }

    /// Removes all that is left of a blob that was erased, whole or in part or set aside as damaged, unless a record names
    /// it; `false` while a session is receiving it.
    pub async fn purge(&self, hash: BlobHash) -> Result<bool, BlobError> {
        if self.is_referenced(hash)? {
            return Ok(true);
        }
        if let Some(blob) = self.held(hash)? {
            self.remove(blob, false).await?;
        }
        if !self.remove_partial_unless_received(hash)? {
            return Ok(false);
        }
        self.no_longer_urgent(hash);
        let _nobody_publishes_it = self.inner.publishing.write().await;
        if self.held(hash)?.is_some() {
            return Ok(false);
        }
        let layout = self.inner.layout.clone();
        blocking(move || {
            // Also what a crash left between a row and its files.
            for path in [layout.damaged.join(hash.to_string()), layout.manifest(hash), layout.blob(hash)] {
                disk::remove_if_there(&path).map_err(failed("remove", &path))?;
            }
            Ok::<_, BlobError>(())
        })
        .await?;
        Ok(true)
    }

    async fn remove(&self, blob: HeldBlob, only_if_marked: bool) -> Result<bool, BlobError> {
        let _nobody_publishes_it = self.inner.publishing.write().await;
        // An upload of the same content may have taken the mark away since.
        if only_if_marked && !locked(&self.inner.unreferenced).is_marked(blob.hash) {
            return Ok(false);
        }
        let work = move |transaction: &mut Transaction<'_>| {
            // Decided by the writer: no record can come to refer to it between this look and the removal.
            if tables::is_kept(&transaction.rows, blob.hash)? {
                return Ok(false);
            }
            let held = transaction.rows.contains(&keys::held(blob.hash))?;
            transaction.rows.remove(keys::held(blob.hash));
            transaction.rows.remove(keys::media_type(blob.hash));
            transaction.rows.remove(keys::usage(blob.hash));
            Ok::<_, StoreError>(held)
        };
        if !self.inner.records.inner.writer.submit(Room::Freed, work).await? {
            return Ok(false);
        }
        self.inner.room.remove_held(blob.size_bytes);
        locked(&self.inner.unreferenced).remove(blob.hash);
        let layout = self.inner.layout.clone();
        blocking(move || {
            for path in [layout.manifest(blob.hash), layout.blob(blob.hash)] {
                disk::remove_if_there(&path).map_err(failed("remove", &path))?;
            }
            Ok::<_, BlobError>(())
        })
        .await?;
        Ok(true)
    }

    pub(super) fn remove_partial_unless_received(&self, hash: BlobHash) -> Result<bool, BlobError> {
        // Held while the files go, so that no session begins on them meanwhile.
        let arriving = locked(&self.inner.arriving);
        if arriving.contains_key(&hash) {
            return Ok(false);
        }
        let layout = &self.inner.layout;
        layout.remove_partial(hash).map_err(failed("clear", &layout.partial))?;
        locked(&self.inner.unreferenced).remove(hash);
        drop(arriving);
        Ok(true)
    }

    async fn partials(&self) -> Result<HashSet<BlobHash>, BlobError> {
        let folder = self.inner.layout.partial.clone();
        blocking(move || {
            let mut partials = HashSet::new();
            for entry in std::fs::read_dir(&folder).map_err(failed("list", &folder))? {
                let name = entry.map_err(failed("list", &folder))?.file_name();
                let hash: Option<BlobHash> = name.to_str().and_then(|name| name.split('.').next()?.parse().ok());
                partials.extend(hash);
            }
            Ok::<_, BlobError>(partials)
        })
        .await
    }
}
