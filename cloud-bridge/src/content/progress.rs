//! How far a blob has come, in PostgreSQL: its claim, its parts, and what is staged.
//!
//! Every write names its claim. Whoever has lost it changes nothing.

use alexandria_sync::chunk::{BlobHash, Manifest};
use alexandria_sync::store::WriteBlobError;

use super::assembly::Assembly;
use super::parts::Parts;
use super::receive::{Receiving, UploadState, UploadedPart};
use super::{Content, ContentError, blob_key};

impl Content {
    /// Takes the lease and reads how far the blob has come; `None` while another process has it.
    pub(super) async fn claim(&self, manifest: &Manifest) -> Result<Option<Receiving>, ContentError> {
        let blob = manifest.blob();
        let encoding = manifest.to_bytes();
        let row: Option<(i64, Vec<u8>, Option<String>, bool)> = sqlx::query_as(
            "INSERT INTO blob_upload (hash, manifest, claim, owner, lease_until) \
             VALUES ($1, $2, 1, $3, now() + $4 * interval '1 second') \
             ON CONFLICT (hash) DO UPDATE SET claim = blob_upload.claim + 1, owner = excluded.owner, \
                lease_until = excluded.lease_until WHERE blob_upload.lease_until < now() \
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
        Ok(Some(Receiving::new(claim, assembly, upload)))
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

    pub(super) async fn note_progress(
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
    ) -> Result<(), WriteBlobError<ContentError>> {
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
