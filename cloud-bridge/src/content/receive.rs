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
const IDLE_MAX: Duration = Duration::from_secs(600);

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
    pub(super) fn assembly(&self) -> MutexGuard<'_, Assembly> {
        self.assembly.lock().expect("no holder of this lock panics")
    }
}

/// A part that is in S3.
struct UploadedPart {
    part: u32,
    etag: String,
    value: [u8; 32],
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
        let is_over_limit = {
            let mut assembly = receiving.assembly();
            assembly.put(start, bytes);
            assembly.pending_bytes() > PENDING_BYTES_MAX
        };
        if is_over_limit {
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
        self.make_durable(manifest, &receiving, &mut upload).await
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
            sqlx::query(
                "UPDATE blob_upload SET lease_until = now() + $3 * interval '1 second' \
                 WHERE owner = $1 AND hash = ANY ($2)",
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

    /// Takes the lease and reads how far the blob has come; `None` while another process has it.
    async fn claim(&self, manifest: &Manifest) -> Result<Option<Receiving>, ContentError> {
        let blob = manifest.blob();
        let encoding = manifest.to_bytes();
        let row: Option<(i64, Vec<u8>, Option<String>, bool)> = sqlx::query_as(
            "INSERT INTO blob_upload (hash, manifest, claim, owner, lease_until) \
             VALUES ($1, $2, 1, $3, now() + $4 * interval '1 second') \
             ON CONFLICT (hash) DO UPDATE SET claim = blob_upload.claim + 1, owner = excluded.owner, \
                lease_until = excluded.lease_until, updated_at = now() WHERE blob_upload.lease_until < now() \
             RETURNING claim, manifest, upload_id, completing",
        )
        .bind(blob.as_bytes().as_slice())
        .bind(&encoding)
        .bind(self.shared.owner)
        .bind(self.lease().as_secs_f64())
        .fetch_optional(self.pool())
        .await?;
        let Some((claim, known_manifest, upload_id, completing)) = row else { return Ok(None) };
        // From here on the sweep leaves the object alone, should it have been removed by hand before.
        sqlx::query("DELETE FROM removed_blob WHERE hash = $1")
            .bind(blob.as_bytes().as_slice())
            .execute(self.pool())
            .await?;
        let mut assembly = Assembly::new(Parts::of(manifest.size_bytes()));
        let mut upload = UploadState { upload_id, completing };
        if known_manifest == encoding {
            self.load_progress(blob, &mut assembly).await?;
        } else {
            // Another peer cut the blob differently, and one of the two may be wrong: nothing is mixed.
            self.discard_progress(blob, claim, &mut upload).await?;
            sqlx::query("UPDATE blob_upload SET manifest = $3 WHERE hash = $1 AND claim = $2")
                .bind(blob.as_bytes().as_slice())
                .bind(claim)
                .bind(encoding)
                .execute(self.pool())
                .await?;
        }
        Ok(Some(Receiving {
            claim,
            assembly: Mutex::new(assembly),
            last_written: Mutex::new(Instant::now()),
            upload: tokio::sync::Mutex::new(upload),
        }))
    }

    async fn load_progress(&self, blob: BlobHash, assembly: &mut Assembly) -> Result<(), ContentError> {
        let staged: Vec<(i64, i64, String)> =
            sqlx::query_as("SELECT start_byte, end_byte, object_key FROM blob_upload_staged WHERE hash = $1")
                .bind(blob.as_bytes().as_slice())
                .fetch_all(self.pool())
                .await?;
        for (start, end, key) in staged {
            assembly.found_staged(start as u64, end as u64, key);
        }
        let parts: Vec<i32> = sqlx::query_scalar("SELECT part FROM blob_upload_part WHERE hash = $1")
            .bind(blob.as_bytes().as_slice())
            .fetch_all(self.pool())
            .await?;
        for part in parts {
            assembly.part_uploaded(part as u32);
        }
        Ok(())
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

    async fn note_progress(
        &self,
        blob: BlobHash,
        claim: i64,
        upload: &UploadState,
        parts: Parts,
        uploaded: &[UploadedPart],
        staged: &[(u64, u64, String)],
    ) -> Result<(), ContentError> {
        let mut tx = self.pool().begin().await?;
        let fenced = sqlx::query(
            "UPDATE blob_upload SET upload_id = $3, updated_at = now(), lease_until = now() + $4 * interval '1 second' \
             WHERE hash = $1 AND claim = $2",
        )
        .bind(blob.as_bytes().as_slice())
        .bind(claim)
        .bind(&upload.upload_id)
        .bind(self.lease().as_secs_f64())
        .execute(&mut *tx)
        .await?;
        if fenced.rows_affected() == 0 {
            return Err(ContentError::NotClaimed(blob));
        }
        for part in uploaded {
            sqlx::query("INSERT INTO blob_upload_part (hash, part, etag, chaining_value) VALUES ($1, $2, $3, $4)")
                .bind(blob.as_bytes().as_slice())
                .bind(part.part as i32)
                .bind(&part.etag)
                .bind(part.value.as_slice())
                .execute(&mut *tx)
                .await?;
            let (start, end) = parts.range(part.part);
            sqlx::query("DELETE FROM blob_upload_staged WHERE hash = $1 AND start_byte >= $2 AND end_byte <= $3")
                .bind(blob.as_bytes().as_slice())
                .bind(start as i64)
                .bind(end as i64)
                .execute(&mut *tx)
                .await?;
        }
        for (start, end, key) in staged {
            sqlx::query(
                "INSERT INTO blob_upload_staged (hash, start_byte, end_byte, object_key) VALUES ($1, $2, $3, $4)",
            )
            .bind(blob.as_bytes().as_slice())
            .bind(*start as i64)
            .bind(*end as i64)
            .bind(key)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Throws away everything of a blob whose bytes turned out not to be it.
    pub(super) async fn discard_mismatch(
        &self,
        blob: BlobHash,
        claim: i64,
        upload: &mut UploadState,
    ) -> Result<(), WriteError> {
        self.shared.metrics.blobs_mismatched.inc();
        tracing::warn!(blob.hash = %blob, "content does not match its name; all of it is discarded");
        self.forget(blob);
        self.discard_progress(blob, claim, upload).await.map_err(WriteBlobError::Store)?;
        sqlx::query("DELETE FROM blob_upload WHERE hash = $1 AND claim = $2")
            .bind(blob.as_bytes().as_slice())
            .bind(claim)
            .execute(self.pool())
            .await
            .map_err(|error| WriteBlobError::Store(error.into()))?;
        Ok(())
    }

    /// Forgets how far a blob has come: the rows first, so that nobody relies on objects that are about to go.
    pub(super) async fn discard_progress(
        &self,
        blob: BlobHash,
        claim: i64,
        upload: &mut UploadState,
    ) -> Result<(), ContentError> {
        let mut tx = self.pool().begin().await?;
        let fenced = sqlx::query(
            "UPDATE blob_upload SET upload_id = NULL, completing = false, updated_at = now() \
             WHERE hash = $1 AND claim = $2",
        )
        .bind(blob.as_bytes().as_slice())
        .bind(claim)
        .execute(&mut *tx)
        .await?;
        if fenced.rows_affected() == 0 {
            return Err(ContentError::NotClaimed(blob));
        }
        sqlx::query("DELETE FROM blob_upload_part WHERE hash = $1")
            .bind(blob.as_bytes().as_slice())
            .execute(&mut *tx)
            .await?;
        let keys: Vec<String> =
            sqlx::query_scalar("DELETE FROM blob_upload_staged WHERE hash = $1 RETURNING object_key")
                .bind(blob.as_bytes().as_slice())
                .fetch_all(&mut *tx)
                .await?;
        tx.commit().await?;
        upload.completing = false;
        if let Some(upload_id) = upload.upload_id.take() {
            self.objects().abort_upload(&blob_key(blob), &upload_id).await?;
        }
        self.objects().delete(&keys).await?;
        Ok(())
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
