//! Content that was erased: out of S3, and out of everything that would serve it, unless something else names it.
//!
//! Twice: once at once, and once more after every call to S3 that was under way has ended, since one may have completed
//! the object in between. Only then is the bridge done with it.
//!
//! Whoever makes a blob whole that was erased before says so ([`Content::note_whole_again`]): a removal that is under way is
//! waited for, and a blob that a session brought is looked at once more.

use alexandria_sync::chunk::{BlobHash, Manifest};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Content, ContentError, blob_key, staging_prefix};

/// Blobs seen to in one go, at most.
const BITE: i64 = 100;
/// How long a call to S3 may be under way, in seconds: longer than its timeout and all its tries.
const CALLS_END_WITHIN_S: f64 = 300.0;

/// That a record of its bucket names what a row of `blob` speaks of.
macro_rules! is_named {
    () => {
        "(EXISTS (SELECT FROM author WHERE bucket_no = blob.bucket_no AND portrait = blob.hash) \
            OR EXISTS (SELECT FROM collection WHERE bucket_no = blob.bucket_no AND cover = blob.hash) \
            OR EXISTS (SELECT FROM annotation WHERE bucket_no = blob.bucket_no AND annotation.blob = blob.hash) \
            OR EXISTS (SELECT FROM media WHERE bucket_no = blob.bucket_no AND (cover = blob.hash \
                OR files @> jsonb_build_array(jsonb_build_object('blob', encode(blob.hash, 'hex'))))))"
    };
}
pub(super) use is_named;

/// That a row of `blob` says of content that its bucket has: no erasure of the bucket lists the blob, or a record there
/// names it all the same (`alexandria_sync::erase::content`).
macro_rules! is_content {
    () => {
        concat!(
            "(NOT EXISTS (SELECT FROM erased_blob \
                WHERE erased_blob.hash = blob.hash AND erased_blob.bucket_no = blob.bucket_no) OR ",
            $crate::content::erase::is_named!(),
            ")"
        )
    };
}
pub(super) use is_content;

/// Who made a blob whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Maker {
    /// A session: it may have begun before the blob was erased.
    Session,
    /// An operator, who wants it from now on.
    Operator,
}

impl Content {
    /// Removes what erasures list and nothing names. Returns how many blobs were seen to.
    ///
    /// # Errors
    ///
    /// If PostgreSQL or S3 is away; it is taken up again.
    pub async fn purge_erased(&self) -> Result<u64, ContentError> {
        let mut seen_to = 0;
        loop {
            let due: Vec<Vec<u8>> = sqlx::query_scalar(
                "SELECT DISTINCT hash FROM erased_blob WHERE settled_at IS NULL \
                    AND (removed_at IS NULL OR removed_at < now() - $1 * interval '1 second') LIMIT $2",
            )
            .bind(CALLS_END_WITHIN_S)
            .bind(BITE)
            .fetch_all(self.pool())
            .await?;
            let mut failure = None;
            for hash in &due {
                let Ok(bytes) = hash.as_slice().try_into() else { continue };
                match self.purge_one(BlobHash::from_bytes(bytes)).await {
                    Ok(()) => seen_to += 1,
                    // One that S3 does not let go keeps no other there.
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
            if (due.len() as i64) < BITE {
                return Ok(seen_to);
            }
        }
    }

    async fn purge_one(&self, blob: BlobHash) -> Result<(), ContentError> {
        let hash = blob.as_bytes().as_slice();
        let mut tx = self.pool().begin().await?;
        // Whoever takes the blob in holds these rows, in this order, until it is done, or waits here.
        sqlx::query("SELECT FROM blob_upload WHERE hash = $1 FOR UPDATE").bind(hash).execute(&mut *tx).await?;
        let erasures: Vec<Uuid> = sqlx::query_scalar(
            "SELECT erasure FROM erased_blob WHERE hash = $1 AND settled_at IS NULL \
             ORDER BY bucket_no, erasure FOR UPDATE",
        )
        .bind(hash)
        .fetch_all(&mut *tx)
        .await?;
        let is_kept: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM author WHERE portrait = $1) OR EXISTS (SELECT FROM collection WHERE cover = $1) \
                OR EXISTS (SELECT FROM annotation WHERE blob = $1) \
                OR EXISTS (SELECT FROM media WHERE cover = $1 OR files @> $2::text::jsonb) \
                OR EXISTS (SELECT FROM blob WHERE hash = $1 AND NOT EXISTS (SELECT FROM erased_blob \
                    WHERE erased_blob.hash = blob.hash AND erased_blob.bucket_no = blob.bucket_no))",
        )
        .bind(hash)
        .bind(serde_json::json!([{ "blob": blob }]).to_string())
        .fetch_one(&mut *tx)
        .await?;
        // What is ordered from here on is for the next time.
        let settle = if is_kept {
            // Of a record that came in while the blob was removed it may have been noted that the blob is here.
            mark_unless_stored(&mut tx, blob).await?;
            "UPDATE erased_blob SET settled_at = now() WHERE hash = $1 AND erasure = ANY ($2) AND settled_at IS NULL"
        } else {
            for rows in [
                "DELETE FROM blob_upload WHERE hash = $1",
                "DELETE FROM stored_blob WHERE hash = $1",
                "DELETE FROM removed_blob WHERE hash = $1",
                "DELETE FROM damaged_blob WHERE hash = $1",
                "UPDATE blob SET stored = false WHERE hash = $1",
            ] {
                sqlx::query(rows).bind(hash).execute(&mut *tx).await?;
            }
            self.objects().erase_under(&staging_prefix(blob)).await?;
            self.objects().erase_under(&blob_key(blob)).await?;
            "UPDATE erased_blob SET settled_at = CASE WHEN removed_at IS NULL THEN NULL ELSE now() END, \
                removed_at = coalesce(removed_at, now()) WHERE hash = $1 AND erasure = ANY ($2) AND settled_at IS NULL"
        };
        sqlx::query(settle).bind(hash).bind(erasures).execute(&mut *tx).await?;
        tx.commit().await?;
        if !is_kept {
            // A session that was receiving it starts over, and finds that nobody wants it.
            self.forget(blob);
            tracing::warn!(blob.hash = %blob, "removed content that was erased");
        }
        Ok(())
    }

    /// To be called before the rows of a blob are written, whose object is whole.
    ///
    /// # Errors
    ///
    /// [`ContentError::UploadGone`] if a removal took the object away meanwhile.
    pub(super) async fn note_whole_again(
        &self,
        tx: &mut PgConnection,
        manifest: &Manifest,
        maker: Maker,
    ) -> Result<(), ContentError> {
        let blob = manifest.blob();
        let statement = match maker {
            Maker::Session => "UPDATE erased_blob SET removed_at = NULL, settled_at = NULL WHERE hash = $1",
            Maker::Operator => {
                "UPDATE erased_blob SET removed_at = coalesce(removed_at, now()), settled_at = now() WHERE hash = $1"
            }
        };
        let erased = sqlx::query(statement).bind(blob.as_bytes().as_slice()).execute(tx).await?;
        if erased.rows_affected() > 0
            && self.objects().size_bytes(&blob_key(blob)).await? != Some(manifest.size_bytes())
        {
            return Err(ContentError::UploadGone(blob));
        }
        Ok(())
    }
}

/// Has a blob wanted again that is not here, whatever was noted of it: its row in `stored_blob` may have gone while a record
/// came in that names it.
pub(super) async fn mark_unless_stored(tx: &mut PgConnection, blob: BlobHash) -> Result<(), sqlx::Error> {
    let marked = sqlx::query(
        "UPDATE blob SET stored = false WHERE hash = $1 AND stored \
            AND NOT EXISTS (SELECT FROM stored_blob WHERE stored_blob.hash = $1)",
    );
    marked.bind(blob.as_bytes().as_slice()).execute(tx).await.map(drop)
}
