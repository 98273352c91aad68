//! What nobody came back for: unfinished uploads, orphans in S3, and objects that were removed by hand. Each call takes
//! a bounded bite; the rest is for the next one.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use alexandria_sync::chunk::BlobHash;

use super::erase::mark_unless_stored;
use super::objects::OpenUpload;
use super::receive::UploadState;
use super::serve::hash_of;
use super::{Content, ContentError, blob_key};

/// Rows taken in one sweep, at most.
const BITE: i64 = 100;

/// Up to where S3 was looked through for orphans; the next sweep goes on there, and then from the beginning again.
#[derive(Clone, Debug, Default)]
pub(super) struct SweptTo {
    upload: Option<OpenUpload>,
    staged: Option<String>,
}

impl Content {
    /// Removes what is abandoned.
    ///
    /// # Errors
    ///
    /// If PostgreSQL or S3 is away; the next sweep goes on.
    pub async fn sweep(&self) -> Result<(), ContentError> {
        let abandoned_after = Duration::from_secs(u64::from(self.shared.config.abandoned_after_hours) * 3600);
        self.sweep_uploads(abandoned_after).await?;
        self.sweep_orphans(abandoned_after).await?;
        self.sweep_removed().await?;
        self.sweep_damaged().await
    }

    /// Unfinished blobs without progress.
    async fn sweep_uploads(&self, abandoned_after: Duration) -> Result<(), ContentError> {
        let stale: Vec<(Vec<u8>, i64, Option<String>)> = sqlx::query_as(
            "UPDATE blob_upload SET claim = claim + 1, owner = $1, lease_until = now() + interval '5 minutes' \
             WHERE hash IN (SELECT hash FROM blob_upload \
                WHERE updated_at < now() - $2 * interval '1 second' AND lease_until < now() LIMIT $3 \
                FOR UPDATE SKIP LOCKED) \
             RETURNING hash, claim, upload_id",
        )
        .bind(self.shared.owner)
        .bind(abandoned_after.as_secs_f64())
        .bind(BITE)
        .fetch_all(self.pool())
        .await?;
        for (hash, claim, upload_id) in stale {
            let Ok(bytes) = hash.clone().try_into() else { continue };
            let mut upload = UploadState { upload_id, completing: false };
            self.discard_progress(BlobHash::from_bytes(bytes), claim, &mut upload).await?;
            sqlx::query("DELETE FROM blob_upload WHERE hash = $1 AND claim = $2")
                .bind(hash)
                .bind(claim)
                .execute(self.pool())
                .await?;
            self.shared.metrics.uploads_abandoned.inc();
        }
        Ok(())
    }

    /// Uploads and staging objects that no row names: left by a process that died between S3 and PostgreSQL.
    async fn sweep_orphans(&self, abandoned_after: Duration) -> Result<(), ContentError> {
        let SweptTo { upload, staged } = self.swept_to().clone();
        let keys_max = self.shared.config.sweep_keys_max.max(1);
        let (uploads, more) = self.objects().uploads_older_than(abandoned_after, (upload, keys_max)).await?;
        let ids: Vec<&str> = uploads.iter().map(|upload| upload.upload_id.as_str()).collect();
        let known: Vec<String> = sqlx::query_scalar("SELECT upload_id FROM blob_upload WHERE upload_id = ANY ($1)")
            .bind(ids)
            .fetch_all(self.pool())
            .await?;
        for upload in uploads.iter().filter(|upload| !known.contains(&upload.upload_id)).take(BITE as usize) {
            self.objects().abort_upload(&upload.key, &upload.upload_id).await?;
            self.shared.metrics.uploads_abandoned.inc();
        }
        self.swept_to().upload = more;
        let (mut keys, more) = self.objects().older_than("staging/", abandoned_after, (staged, keys_max)).await?;
        let known: Vec<String> =
            sqlx::query_scalar("SELECT object_key FROM blob_upload_staged WHERE object_key = ANY ($1)")
                .bind(&keys)
                .fetch_all(self.pool())
                .await?;
        keys.retain(|key| !known.contains(key));
        self.objects().delete(&keys).await?;
        self.swept_to().staged = more;
        Ok(())
    }

    fn swept_to(&self) -> MutexGuard<'_, SweptTo> {
        self.shared.swept_to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Objects that an operator removed, once nobody can still be reading them.
    async fn sweep_removed(&self) -> Result<(), ContentError> {
        for _ in 0..BITE {
            let mut tx = self.pool().begin().await?;
            // The row stays locked until the object is gone: whoever takes the blob in again removes the row first.
            let hash: Option<Vec<u8>> = sqlx::query_scalar(
                "SELECT hash FROM removed_blob WHERE NOT object_deleted \
                    AND removed_at < now() - $1 * interval '1 minute' LIMIT 1 FOR UPDATE SKIP LOCKED",
            )
            .bind(f64::from(self.shared.config.removal_grace_minutes))
            .fetch_optional(&mut *tx)
            .await?;
            let Some(hash) = hash else { return Ok(()) };
            if let Some(blob) = hash_of(hash.clone()) {
                self.objects().delete(&[blob_key(blob)]).await?;
                mark_unless_stored(&mut tx, blob).await?;
            }
            sqlx::query("UPDATE removed_blob SET object_deleted = true WHERE hash = $1")
                .bind(hash)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
        }
        Ok(())
    }
}
