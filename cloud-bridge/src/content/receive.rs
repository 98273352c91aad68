//! Receiving blobs: what sessions write to.
//!
//! A blob is claimed (`begin`), its verified chunks are gathered (`write`), and what was gathered is made durable
//! (`sync`): full parts go into the multipart upload, the rest into staging objects, then one transaction notes both.
//! Any process can take up from there. A blob of one part has no multipart upload: it is put as it is, once its hash
//! has been checked.
//!
//! Two locks for each blob: the bookkeeping is locked for moments only, so that chunks are taken while S3 is written
//! to; `sync` and `finish` hold the other one, one at a time.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use alexandria_sync::chunk::{BlobHash, Have, Manifest};
use alexandria_sync::store::WriteBlobError;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};

use super::assembly::{Assembly, FullPart, Source};
use super::parts::Parts;
use super::{Content, ContentError, blob_key, staging_prefix};

/// Bytes of one blob in the making in memory, at most (but for the chunks of the calls that are just waiting).
pub const PENDING_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Parts of one blob on their way to S3 at once.
const PARTS_IN_FLIGHT: usize = 2;
/// Staging objects of one blob on their way to S3 at once.
const RUNS_IN_FLIGHT: usize = 4;
/// A blob that nobody wrote to for so long was forgotten by its session.
const IDLE_MAX: Duration = Duration::from_mins(10);

type WriteError = WriteBlobError<ContentError>;

/// A blob in this process.
pub(super) enum Slot {
    /// Its claim is being made.
    Claiming,
    /// It is being received.
    Open(Arc<Receiving>),
}

/// A blob that is being received here.
pub(super) struct Receiving {
    /// The number of the claim: whoever holds a higher one has taken over.
    pub(super) claim: i64,
    assembly: Mutex<Assembly>,
    last_written: Mutex<Instant>,
    /// Held while S3 is written to.
    pub(super) upload: tokio::sync::Mutex<UploadState>,
}

/// What `sync` and `finish` keep between them.
#[derive(Default)]
pub(super) struct UploadState {
    /// The multipart upload, once there is one.
    pub(super) upload_id: Option<String>,
    /// All parts are in S3 and verified; an earlier life may even have completed the upload.
    pub(super) completing: bool,
}

impl Receiving {
    pub(super) fn new(claim: i64, assembly: Assembly, upload: UploadState) -> Self {
        Self {
            claim,
            assembly: Mutex::new(assembly),
            last_written: Mutex::new(Instant::now()),
            upload: tokio::sync::Mutex::new(upload),
        }
    }

    pub(super) fn assembly(&self) -> MutexGuard<'_, Assembly> {
        self.assembly.lock().expect("no holder of this lock panics")
    }
}

/// A part that is in S3.
pub(super) struct UploadedPart {
    /// Which.
    pub(super) part: u32,
    /// S3's tag of it; empty for the only part of a small blob.
    pub(super) etag: String,
    /// Its BLAKE3 chaining value.
    pub(super) value: [u8; 32],
}

impl Content {
    /// See [`alexandria_sync::store::BlobStore::begin`].
    ///
    /// # Errors
    ///
    /// [`WriteBlobError::Busy`] while another session, here or elsewhere, receives the same blob.
    pub async fn begin_blob(&self, manifest: &Manifest) -> Result<Have, WriteError> {
        let blob = manifest.blob();
        if self.is_stored(blob).await.map_err(WriteBlobError::Store)? {
            return Ok(all(manifest));
        }
        self.reserve(blob)?;
        let claimed = match self.claim(manifest).await {
            Ok(Some(receiving)) => Ok(Arc::new(receiving)),
            Ok(None) => Err(WriteBlobError::Busy),
            Err(error) => Err(WriteBlobError::Store(error)),
        };
        let receiving = match claimed {
            Ok(receiving) => receiving,
            Err(error) => {
                self.forget(blob);
                return Err(error);
            }
        };
        self.open_blobs().insert(blob, Slot::Open(Arc::clone(&receiving)));
        if let Err(error) = self.copy_known_chunks(manifest, &receiving).await {
            // Only costs bytes on the link.
            tracing::warn!(blob.hash = %blob, error = &error as &dyn std::error::Error, "known chunks were not copied");
        }
        let have = receiving.assembly().durable(manifest);
        Ok(have)
    }

    /// See [`alexandria_sync::store::BlobStore::write`].
    ///
    /// # Errors
    ///
    /// [`WriteBlobError::Mismatch`] if the bytes are not that chunk.
    pub async fn write_chunk(&self, manifest: &Manifest, index: u32, bytes: Bytes) -> Result<(), WriteError> {
        let (Some(start), true) = (manifest.offset(index), manifest.verifies(index, &bytes)) else {
            return Err(WriteBlobError::Mismatch);
        };
        let receiving = self.receiving(manifest.blob()).map_err(WriteBlobError::Store)?;
        *receiving.last_written.lock().expect("no holder of this lock panics") = Instant::now();
        let own_bytes = {
            let mut assembly = receiving.assembly();
            assembly.put(start, bytes);
            assembly.pending_bytes()
        };
        if own_bytes > PENDING_BYTES_MAX || self.is_memory_full() {
            self.sync_blob(manifest).await?;
            receiving.assembly().forget_staged_bytes();
        }
        Ok(())
    }

    /// See [`alexandria_sync::store::BlobStore::sync`].
    ///
    /// # Errors
    ///
    /// [`WriteBlobError::Mismatch`] if a small blob is whole and does not have its hash; everything of it is discarded.
    pub async fn sync_blob(&self, manifest: &Manifest) -> Result<(), WriteError> {
        let blob = manifest.blob();
        if self.is_closed_and_stored(blob).await? {
            return Ok(());
        }
        let receiving = self.receiving(blob).map_err(WriteBlobError::Store)?;
        let mut upload = receiving.upload.lock().await;
        self.make_durable(manifest, &receiving, &mut upload).await?;
        if self.is_memory_full() {
            receiving.assembly().forget_staged_bytes();
        }
        Ok(())
    }

    /// See [`alexandria_sync::store::BlobStore::finish`].
    ///
    /// # Errors
    ///
    /// [`WriteBlobError::Mismatch`] if the whole does not have its hash; everything of it is discarded.
    pub async fn finish_blob(&self, manifest: &Manifest) -> Result<(), WriteError> {
        let blob = manifest.blob();
        if self.is_closed_and_stored(blob).await? {
            return Ok(());
        }
        let receiving = self.receiving(blob).map_err(WriteBlobError::Store)?;
        let mut upload = receiving.upload.lock().await;
        self.make_durable(manifest, &receiving, &mut upload).await?;
        if !receiving.assembly().is_uploaded() {
            return Err(WriteBlobError::Store(ContentError::Incomplete(blob)));
        }
        self.publish_blob(manifest, &receiving, &mut upload).await?;
        self.forget(blob);
        Ok(())
    }

    /// See [`alexandria_sync::store::BlobStore::release`].
    pub async fn release_blob(&self, blob: BlobHash) {
        let Some(receiving) = self.forget(blob) else { return };
        let freed = sqlx::query("UPDATE blob_upload SET lease_until = '-infinity' WHERE hash = $1 AND claim = $2")
            .bind(blob.as_bytes().as_slice())
            .bind(receiving.claim)
            .execute(self.pool())
            .await;
        if let Err(error) = freed {
            // The lease runs out by itself.
            tracing::debug!(blob.hash = %blob, error = &error as &dyn std::error::Error, "a claim was not given up");
        }
    }

    /// Renews the leases of what is being received, and lets go of what its session has forgotten.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away. Leases that run out meanwhile may be taken over.
    pub async fn renew_leases(&self) -> Result<(), ContentError> {
        let mut held = Vec::new();
        let mut idle = Vec::new();
        for (blob, slot) in self.open_blobs().iter() {
            let Slot::Open(receiving) = slot else { continue };
            let last = *receiving.last_written.lock().expect("no holder of this lock panics");
            if last.elapsed() > IDLE_MAX { idle.push(*blob) } else { held.push(blob.as_bytes().to_vec()) }
        }
        for blob in idle {
            self.release_blob(blob).await;
        }
        if !held.is_empty() {
            // What is finished or erased just now is locked meanwhile, for as long as S3 takes. It needs no lease, and the others do not wait.
            sqlx::query(
                "UPDATE blob_upload SET lease_until = now() + $3 * interval '1 second' WHERE hash IN ( \
                    SELECT hash FROM blob_upload WHERE owner = $1 AND hash = ANY ($2) FOR UPDATE SKIP LOCKED)",
            )
            .bind(self.shared.owner)
            .bind(held)
            .bind(self.lease().as_secs_f64())
            .execute(self.pool())
            .await?;
        }
        Ok(())
    }

    /// How often to call [`Self::renew_leases`].
    pub fn lease_renewal_interval(&self) -> Duration {
        self.lease() / 3
    }

    pub(super) fn open_blobs(&self) -> MutexGuard<'_, std::collections::HashMap<BlobHash, Slot>> {
        self.shared.open.lock().expect("no holder of this lock panics")
    }

    fn reserve(&self, blob: BlobHash) -> Result<(), WriteError> {
        let mut open = self.open_blobs();
        if open.contains_key(&blob) || open.len() >= self.shared.config.uploads_max {
            return Err(WriteBlobError::Busy);
        }
        open.insert(blob, Slot::Claiming);
        self.shared.metrics.uploads_open.set(open.len() as i64);
        Ok(())
    }

    pub(super) fn forget(&self, blob: BlobHash) -> Option<Arc<Receiving>> {
        let mut open = self.open_blobs();
        let slot = open.remove(&blob);
        self.shared.metrics.uploads_open.set(open.len() as i64);
        match slot {
            Some(Slot::Open(receiving)) => Some(receiving),
            _ => None,
        }
    }

    fn is_memory_full(&self) -> bool {
        let open = self.open_blobs();
        let pending = open.values().map(|slot| match slot {
            Slot::Open(receiving) => receiving.assembly().pending_bytes(),
            Slot::Claiming => 0,
        });
        pending.sum::<usize>() > self.shared.config.memory_bytes_max
    }

    fn receiving(&self, blob: BlobHash) -> Result<Arc<Receiving>, ContentError> {
        match self.open_blobs().get(&blob) {
            Some(Slot::Open(receiving)) => Ok(Arc::clone(receiving)),
            _ => Err(ContentError::NotClaimed(blob)),
        }
    }

    /// Whether a call is about a blob that was whole before it was begun, or was finished meanwhile.
    async fn is_closed_and_stored(&self, blob: BlobHash) -> Result<bool, WriteError> {
        if self.receiving(blob).is_ok() {
            return Ok(false);
        }
        self.is_stored(blob).await.map_err(WriteBlobError::Store)
    }

    /// Makes everything that was gathered durable: S3 first, then the row that says so.
    async fn make_durable(
        &self,
        manifest: &Manifest,
        receiving: &Receiving,
        upload: &mut UploadState,
    ) -> Result<(), WriteError> {
        let blob = manifest.blob();
        loop {
            let (parts, full, runs) = {
                let assembly = receiving.assembly();
                let full = assembly.full_parts(PARTS_IN_FLIGHT);
                let runs = if full.len() < PARTS_IN_FLIGHT { assembly.unstaged_runs() } else { Vec::new() };
                (assembly.parts(), full, runs)
            };
            if full.is_empty() && runs.is_empty() {
                return Ok(());
            }
            let uploaded = match self.upload_parts(manifest, parts, full, upload).await {
                Err(WriteBlobError::Store(error)) if error.is_lost_progress() => {
                    tracing::warn!(blob.hash = %blob, error = &error as &dyn std::error::Error, "a blob starts over");
                    self.discard_progress(blob, receiving.claim, upload).await.map_err(WriteBlobError::Store)?;
                    self.forget(blob);
                    return Err(WriteBlobError::Store(ContentError::UploadGone(blob)));
                }
                Err(WriteBlobError::Mismatch) => {
                    self.discard_mismatch(blob, receiving.claim, upload).await?;
                    return Err(WriteBlobError::Mismatch);
                }
                uploaded => uploaded?,
            };
            let staged = stream::iter(runs)
                .map(|run| async move {
                    let key = format!("{}{}-{}", staging_prefix(blob), receiving.claim, run.start);
                    let bytes = join(run.bytes);
                    self.objects().put(&key, bytes, "application/octet-stream").await?;
                    Ok::<_, ContentError>((run.start, run.end, key))
                })
                .buffer_unordered(RUNS_IN_FLIGHT)
                .try_collect::<Vec<_>>()
                .await
                .map_err(WriteBlobError::Store)?;
            self.note_progress(blob, receiving.claim, upload, parts, &uploaded, &staged)
                .await
                .map_err(WriteBlobError::Store)?;
            let mut unneeded = Vec::new();
            {
                let mut assembly = receiving.assembly();
                for part in &uploaded {
                    unneeded.extend(assembly.part_uploaded(part.part));
                }
                for (start, end, key) in &staged {
                    assembly.run_staged(*start, *end, key);
                }
            }
            if let Err(error) = self.objects().delete(&unneeded).await {
                // The sweep finds them.
                tracing::debug!(blob.hash = %blob, error = &error as &dyn std::error::Error, "staging was not cleared");
            }
        }
    }

    async fn upload_parts(
        &self,
        manifest: &Manifest,
        parts: Parts,
        full: Vec<FullPart>,
        upload: &mut UploadState,
    ) -> Result<Vec<UploadedPart>, WriteError> {
        if full.is_empty() {
            return Ok(Vec::new());
        }
        let key = blob_key(manifest.blob());
        let is_single = parts.count() == 1;
        if !is_single && upload.upload_id.is_none() {
            let media_type = self.media_type(manifest.blob()).await.map_err(WriteBlobError::Store)?;
            let created = self.objects().create_upload(&key, &media_type).await;
            upload.upload_id = Some(created.map_err(|error| WriteBlobError::Store(error.into()))?);
        }
        let (key, upload_id) = (&key, upload.upload_id.as_deref());
        stream::iter(full)
            .map(|full| async move {
                let bytes = self.gather(manifest.blob(), full.sources).await.map_err(WriteBlobError::Store)?;
                if is_single {
                    return self.put_single(manifest.blob(), key, bytes).await;
                }
                let upload_id = upload_id.ok_or(ContentError::UploadGone(manifest.blob()));
                let upload_id = upload_id.map_err(WriteBlobError::Store)?;
                let value = parts.chaining_value(full.part, &bytes);
                let etag = self.objects().upload_part(key, upload_id, full.part, bytes).await;
                let etag = etag.map_err(|error| WriteBlobError::Store(error.into()))?;
                Ok(UploadedPart { part: full.part, etag, value })
            })
            .buffer_unordered(PARTS_IN_FLIGHT)
            .try_collect()
            .await
    }

    /// The only part of a small blob: checked before it is put where everyone looks for it.
    async fn put_single(&self, blob: BlobHash, key: &str, bytes: Bytes) -> Result<UploadedPart, WriteError> {
        if BlobHash::of(&bytes) != blob {
            return Err(WriteBlobError::Mismatch);
        }
        let media_type = self.media_type(blob).await.map_err(WriteBlobError::Store)?;
        let put = self.objects().put(key, bytes, &media_type).await;
        put.map_err(|error| WriteBlobError::Store(error.into()))?;
        Ok(UploadedPart { part: 0, etag: String::new(), value: *blob.as_bytes() })
    }

    async fn gather(&self, blob: BlobHash, sources: Vec<Source>) -> Result<Bytes, ContentError> {
        let mut pieces = Vec::with_capacity(sources.len());
        for source in sources {
            pieces.push(match source {
                Source::Memory(bytes) => bytes,
                Source::Staged { key, offset, len } => {
                    self.objects().read(&key, offset, len).await?.ok_or(ContentError::UploadGone(blob))?
                }
            });
        }
        Ok(join(pieces))
    }
}

/// All chunks: what `begin` says of a blob that is whole.
fn all(manifest: &Manifest) -> Have {
    let chunks = manifest.chunks().len() as u32;
    let mut have = Have::none(chunks);
    for index in 0..chunks {
        have.insert(index);
    }
    have
}

fn join(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.remove(0);
    }
    let mut joined = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        joined.extend_from_slice(&piece);
    }
    joined.freeze()
}
