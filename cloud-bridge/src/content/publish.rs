//! The last step of a blob: the object is completed in S3, then one transaction writes its row, its manifest and its
//! event. Whoever sees any of the three can read the object.

use alexandria_sync::chunk::{Chunking, Manifest};
use alexandria_sync::store::WriteBlobError;
use blake3::hazmat::ChainingValue;
use sqlx::PgConnection;

use super::damage::forget_damage;
use super::erase::Maker;
use super::receive::{Receiving, UploadState};
use super::{Content, ContentError, blob_key};
use crate::events::outbox;

impl Content {
    /// Publishes a blob whose parts are all in S3, after checking its hash.
    pub(super) async fn publish_blob(
        &self,
        manifest: &Manifest,
        receiving: &Receiving,
        upload: &mut UploadState,
    ) -> Result<(), WriteBlobError<ContentError>> {
        let blob = manifest.blob();
        let parts = receiving.assembly().parts();
        let mut tags = Vec::new();
        if parts.count() > 1 {
            let (etags, values) = self.uploaded_parts(manifest).await.map_err(WriteBlobError::Store)?;
            if values.len() != parts.count() as usize || parts.root(&values) != blob {
                self.discard_mismatch(blob, receiving.claim, upload).await?;
                return Err(WriteBlobError::Mismatch);
            }
            tags = etags;
        }
        match self.complete(manifest, receiving.claim, upload, &tags).await {
            Err(error) if error.is_lost_progress() => {
                self.discard_progress(blob, receiving.claim, upload).await.map_err(WriteBlobError::Store)?;
                self.forget(blob);
                Err(WriteBlobError::Store(ContentError::UploadGone(blob)))
            }
            outcome => outcome.map_err(WriteBlobError::Store),
        }
    }

    async fn uploaded_parts(&self, manifest: &Manifest) -> Result<(Vec<String>, Vec<ChainingValue>), ContentError> {
        let rows: Vec<(String, Vec<u8>)> =
            sqlx::query_as("SELECT etag, chaining_value FROM blob_upload_part WHERE hash = $1 ORDER BY part")
                .bind(manifest.blob().as_bytes().as_slice())
                .fetch_all(self.pool())
                .await?;
        // A value of a wrong length can only fail the check of the hash.
        Ok(rows.into_iter().map(|(etag, value)| (etag, ChainingValue::try_from(value).unwrap_or_default())).unzip())
    }

    async fn complete(
        &self,
        manifest: &Manifest,
        claim: i64,
        upload: &mut UploadState,
        tags: &[String],
    ) -> Result<(), ContentError> {
        let blob = manifest.blob();
        if !tags.is_empty() && !upload.completing {
            // Noted before the call: whoever finds the upload gone then knows that the object may be whole.
            self.note_completing(manifest, claim).await?;
            upload.completing = true;
        }
        if let Some(upload_id) = upload.upload_id.as_deref().filter(|_| !tags.is_empty()) {
            match self.objects().complete_upload(&blob_key(blob), upload_id, tags).await {
                Err(error) if error.is_missing() => {
                    // Completed by an earlier life, or gone.
                    if self.objects().size_bytes(&blob_key(blob)).await? != Some(manifest.size_bytes()) {
                        return Err(error.into());
                    }
                }
                outcome => outcome?,
            }
        }
        let media_type = self.media_type(blob).await?;
        let mut tx = self.pool().begin().await?;
        let fenced = sqlx::query("DELETE FROM blob_upload WHERE hash = $1 AND claim = $2")
            .bind(blob.as_bytes().as_slice())
            .bind(claim)
            .execute(&mut *tx)
            .await?;
        if fenced.rows_affected() == 0 {
            return Err(ContentError::NotClaimed(blob));
        }
        self.note_whole_again(&mut tx, manifest, Maker::Session).await?;
        self.note_stored(&mut tx, manifest, &media_type).await?;
        tx.commit().await?;
        self.ring_completed(blob);
        Ok(())
    }

    async fn note_completing(&self, manifest: &Manifest, claim: i64) -> Result<(), ContentError> {
        let fenced = sqlx::query("UPDATE blob_upload SET completing = true WHERE hash = $1 AND claim = $2")
            .bind(manifest.blob().as_bytes().as_slice())
            .bind(claim)
            .execute(self.pool())
            .await?;
        if fenced.rows_affected() == 0 {
            return Err(ContentError::NotClaimed(manifest.blob()));
        }
        Ok(())
    }

    /// Writes the rows and the event of a blob that is whole in S3; `false` if they were there already.
    pub(super) async fn note_stored(
        &self,
        tx: &mut PgConnection,
        manifest: &Manifest,
        media_type: &str,
    ) -> Result<bool, ContentError> {
        let blob = manifest.blob();
        let hash = blob.as_bytes().as_slice();
        let inserted = sqlx::query(
            "INSERT INTO stored_blob (hash, size_bytes, media_type) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(hash)
        .bind(manifest.size_bytes() as i64)
        .bind(media_type)
        .execute(&mut *tx)
        .await?;
        if inserted.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("INSERT INTO manifest (blob, encoding) VALUES ($1, $2)")
            .bind(hash)
            .bind(manifest.to_bytes())
            .execute(&mut *tx)
            .await?;
        note_chunk_places(tx, manifest).await?;
        sqlx::query("DELETE FROM removed_blob WHERE hash = $1").bind(hash).execute(&mut *tx).await?;
        forget_damage(tx, blob).await?;
        sqlx::query("UPDATE blob SET stored = true WHERE hash = $1").bind(hash).execute(&mut *tx).await?;
        if self.shared.records.is_announced() {
            outbox::announce_blob(tx, blob, manifest.size_bytes(), media_type, &blob_key(blob)).await?;
        }
        self.shared.metrics.blobs_stored.inc();
        self.shared.metrics.blob_bytes_stored.inc_by(manifest.size_bytes());
        Ok(true)
    }
}

/// Remembers where the chunks of a blob that changes by parts lie, for its next version: in the latest blob, which is the
/// last to be removed, and in which what lies together stays together.
async fn note_chunk_places(tx: &mut PgConnection, manifest: &Manifest) -> Result<(), sqlx::Error> {
    if manifest.chunking() != Chunking::ContentDefined {
        return Ok(());
    }
    let mut places: Vec<(Vec<u8>, i64, i32)> = (0u32..)
        .zip(manifest.chunks())
        .filter_map(|(index, chunk)| {
            Some((chunk.hash.as_bytes().to_vec(), manifest.offset(index)? as i64, chunk.len as i32))
        })
        .collect();
    // In one order everywhere, so that two writers never wait for each other in a circle.
    places.sort_unstable();
    places.dedup_by(|next, first| next.0 == first.0);
    let mut columns: (Vec<Vec<u8>>, Vec<i64>, Vec<i32>) = Default::default();
    for (chunk, offset, len) in places {
        columns.0.push(chunk);
        columns.1.push(offset);
        columns.2.push(len);
    }
    sqlx::query(
        "INSERT INTO chunk_place (chunk, blob, offset_bytes, len) \
         SELECT chunk, $1, offset_bytes, len FROM unnest($2::bytea[], $3::bigint[], $4::integer[]) \
            AS place (chunk, offset_bytes, len) \
         ON CONFLICT (chunk) DO UPDATE SET blob = excluded.blob, offset_bytes = excluded.offset_bytes",
    )
    .bind(manifest.blob().as_bytes().as_slice())
    .bind(columns.0)
    .bind(columns.1)
    .bind(columns.2)
    .execute(tx)
    .await?;
    Ok(())
}
