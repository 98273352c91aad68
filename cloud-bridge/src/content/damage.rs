//! Content that S3 has lost or holds damaged: noted where it is found, and sent again by nodes once an operator says so.
//!
//! Not by itself: a bucket of the wrong name looks the same, and what comes again costs the links of the nodes.

use alexandria_sync::chunk::{BlobHash, Manifest};
use alexandria_sync::store::BlobStore;
use futures::TryFutureExt;
use sqlx::PgConnection;
use tokio::sync::watch;

use super::serve::hash_of;
use super::{Content, ContentError, blob_key};
use crate::postgres::{STATEMENT_PATIENCE, in_time, rfc3339};

/// Damaged blobs in one page of the list, at most.
pub const PAGE_SIZE_MAX: i64 = 1000;
/// Rows of `blob` that one sweep marks as wanted, at most.
const MARKED_MAX: i64 = 1000;

/// A blob that could not be given.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Damaged {
    /// Which.
    pub blob: BlobHash,
    /// What was found.
    pub what: String,
    /// When it was found first (RFC 3339).
    pub found_at: String,
    /// Since when nodes are asked to send it again.
    pub wanted_since: Option<String>,
}

/// What came of a repair.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// It can be given: S3 has it as it was.
    Sound,
    /// It is asked for from every node that begins a session, and from those in one.
    Wanted,
}

impl Content {
    /// Notes that a blob cannot be given, or only without one of its chunks.
    pub(super) async fn note_damage(&self, blob: BlobHash, chunk: Option<u32>, what: &str) {
        self.shared.metrics.blob_reads_damaged.inc();
        tracing::error!(blob.hash = %blob, damaged = what, "content cannot be given: it is lost or damaged in S3");
        let noted = sqlx::query(
            "INSERT INTO damaged_blob (hash, chunk, what) SELECT hash, $2, $3 FROM stored_blob WHERE hash = $1 \
             ON CONFLICT DO NOTHING",
        )
        .bind(blob.as_bytes().as_slice())
        .bind(chunk.map(|chunk| chunk as i32))
        .bind(what)
        .execute(self.pool())
        .map_err(ContentError::from);
        if let Err(error) = in_time(STATEMENT_PATIENCE, noted).await {
            // It is found again by the next who asks for it.
            tracing::warn!(error = &error as &dyn std::error::Error, blob.hash = %blob, "damage could not be noted");
        }
    }

    /// At most `limit` damaged blobs by hash, after a place.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn damaged(&self, after: Option<BlobHash>, limit: i64) -> Result<Vec<Damaged>, ContentError> {
        let (found, wanted) = (rfc3339("found_at"), rfc3339("wanted_since"));
        let rows: Vec<(Vec<u8>, String, String, Option<String>)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT hash, what, {found}, {wanted} FROM damaged_blob WHERE $1::bytea IS NULL OR hash > $1 \
             ORDER BY hash LIMIT $2"
        )))
        .bind(after.map(|hash| hash.as_bytes().to_vec()))
        .bind(limit.clamp(1, PAGE_SIZE_MAX))
        .fetch_all(self.pool())
        .await?;
        let shown = rows.into_iter().filter_map(|(hash, what, found_at, wanted_since)| {
            Some(Damaged { blob: hash_of(hash)?, what, found_at, wanted_since })
        });
        Ok(shown.collect())
    }

    /// Looks at a damaged blob once more; if it still cannot be given, it is wanted from nodes again. `None` if no damage of it is
    /// known.
    ///
    /// # Errors
    ///
    /// If PostgreSQL or S3 is away: nothing has changed.
    pub async fn repair(&self, blob: BlobHash) -> Result<Option<Repair>, ContentError> {
        let hash = blob.as_bytes().as_slice();
        let noted: Option<(Option<i32>, bool)> =
            sqlx::query_as("SELECT chunk, wanted_since IS NOT NULL FROM damaged_blob WHERE hash = $1")
                .bind(hash)
                .fetch_optional(self.pool())
                .await?;
        let Some((chunk, is_wanted)) = noted else { return Ok(None) };
        if !is_wanted && self.is_sound(blob, chunk.map(|chunk| chunk as u32)).await? {
            sqlx::query("DELETE FROM damaged_blob WHERE hash = $1").bind(hash).execute(self.pool()).await?;
            return Ok(Some(Repair::Sound));
        }
        let mut tx = self.pool().begin().await?;
        // Another who was told to repair it may have done so, and it may have come whole since.
        let marked =
            sqlx::query("UPDATE damaged_blob SET wanted_since = now() WHERE hash = $1 AND wanted_since IS NULL")
                .bind(hash)
                .execute(&mut *tx)
                .await?;
        if marked.rows_affected() > 0 {
            sqlx::query("DELETE FROM stored_blob WHERE hash = $1").bind(hash).execute(&mut *tx).await?;
            sqlx::query("UPDATE blob SET stored = false WHERE hash = $1").bind(hash).execute(&mut *tx).await?;
            // Before the commit, after which another process may put a sound one in its place.
            self.objects().delete(&[blob_key(blob)]).await?;
        }
        tx.commit().await?;
        self.shared.wanted_again.send_replace(());
        Ok(Some(Repair::Wanted))
    }

    /// Whether the manifest, the object's size, and the chunk that could not be given are as they must be.
    async fn is_sound(&self, blob: BlobHash, chunk: Option<u32>) -> Result<bool, ContentError> {
        let encoding: Option<Vec<u8>> = sqlx::query_scalar("SELECT encoding FROM manifest WHERE blob = $1")
            .bind(blob.as_bytes().as_slice())
            .fetch_optional(self.pool())
            .await?;
        let Some(Ok(manifest)) = encoding.map(|encoding| Manifest::from_bytes(&encoding)) else { return Ok(false) };
        if self.objects().size_bytes(&blob_key(blob)).await? != Some(manifest.size_bytes()) {
            return Ok(false);
        }
        match chunk {
            Some(chunk) => Ok(self.read(&manifest, chunk).await?.is_some()),
            None => Ok(true),
        }
    }

    /// Hears when blobs that were whole are wanted again.
    pub fn wanted_again(&self) -> watch::Receiver<()> {
        self.shared.wanted_again.subscribe()
    }

    /// Forgets what no record names any more, marks what a record that came in meanwhile has as stored, and tells sessions of
    /// what another process has repaired.
    pub(super) async fn sweep_damaged(&self) -> Result<(), ContentError> {
        sqlx::query(
            "DELETE FROM damaged_blob WHERE wanted_since IS NOT NULL \
                AND NOT EXISTS (SELECT FROM blob WHERE blob.hash = damaged_blob.hash)",
        )
        .execute(self.pool())
        .await?;
        sqlx::query(
            "UPDATE blob SET stored = false WHERE stored AND (bucket_no, id) IN ( \
                SELECT bucket_no, id FROM blob JOIN damaged_blob USING (hash) \
                WHERE stored AND wanted_since IS NOT NULL \
                    AND NOT EXISTS (SELECT FROM stored_blob WHERE stored_blob.hash = blob.hash) LIMIT $1)",
        )
        .bind(MARKED_MAX)
        .execute(self.pool())
        .await?;
        let is_any: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM damaged_blob WHERE wanted_since IS NOT NULL)")
                .fetch_one(self.pool())
                .await?;
        if is_any {
            self.shared.wanted_again.send_replace(());
        }
        Ok(())
    }
}

/// To be called in the transaction in which a blob becomes whole, or is no longer to be here.
pub(super) async fn forget_damage(tx: &mut PgConnection, blob: BlobHash) -> Result<(), sqlx::Error> {
    let forgotten = sqlx::query("DELETE FROM damaged_blob WHERE hash = $1").bind(blob.as_bytes().as_slice());
    forgotten.execute(tx).await.map(drop)
}
