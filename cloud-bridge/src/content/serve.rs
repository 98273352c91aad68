//! Reading blobs, and what is wanted: the blob store as sessions see it.

use std::ops::Range;
use std::time::Duration;

use alexandria_sync::chunk::{Bases, BlobHash, ChunkHash, Have, Manifest};
use alexandria_sync::id::{BucketId, NodeId};
use alexandria_sync::store::{BlobStore, Wanted, WriteBlobError};
use alexandria_sync::wire::Class;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryFutureExt, stream};

use super::damage::forget_damage;
use super::erase::{is_content, is_named};
use super::objects::ObjectError;
use super::{Content, ContentError, blob_key};
use crate::postgres::{STORE_PATIENCE, in_time};

/// What goes to S3 before a call is done takes no longer, unless PostgreSQL is gone without a word: all that may wait of one blob, with
/// every try.
const WRITE_PATIENCE: Duration = Duration::from_mins(15);
/// The same where chunks that are known already are copied first. What was copied by then stays.
const BEGIN_PATIENCE: Duration = Duration::from_hours(1);
/// What content is if no record says.
const UNKNOWN_MEDIA_TYPE: &str = "application/octet-stream";

/// What is known about a blob that is whole in S3.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredBlob {
    /// Its name.
    pub hash: BlobHash,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its media type.
    pub media_type: String,
}

impl BlobStore for Content {
    type Error = ContentError;

    async fn urgent(&self, _peer: NodeId) -> Result<Vec<Wanted>, ContentError> {
        // Readers are at nodes; nobody waits at the bridge.
        Ok(Vec::new())
    }

    async fn wanted(&self, peer: NodeId, after: Option<BlobHash>, limit: usize) -> Result<Vec<Wanted>, ContentError> {
        let rows = sqlx::query_as::<_, (Vec<u8>, i64)>(concat!(
            "SELECT blob.hash, coalesce(max(blob.size_bytes), 0) FROM blob \
             JOIN bucket ON bucket.no = blob.bucket_no AND (bucket.name NOT LIKE 'site/%' OR bucket.name = $1) \
             WHERE NOT blob.stored AND blob.hash IS NOT NULL AND ($2::bytea IS NULL OR blob.hash > $2) \
                AND NOT EXISTS (SELECT FROM stored_blob WHERE stored_blob.hash = blob.hash) \
                AND (NOT EXISTS (SELECT FROM removed_blob WHERE removed_blob.hash = blob.hash \
                        AND removed_blob.removed_at >= blob.updated_at) OR ",
            is_named!(),
            ") AND ",
            is_content!(),
            " GROUP BY blob.hash ORDER BY blob.hash LIMIT $3",
        ))
        .bind(BucketId::Site(peer).to_string())
        .bind(after.map(|hash| hash.as_bytes().to_vec()))
        .bind(limit as i64)
        .fetch_all(self.pool())
        .map_err(ContentError::from);
        let rows = in_time(STORE_PATIENCE, rows).await?;
        let wanted = rows.into_iter().filter_map(|(hash, size)| Some((hash_of(hash)?, size.unsigned_abs())));
        Ok(wanted
            .map(|(blob, size_bytes)| Wanted { blob, class: Class::by_size(size_bytes), size_bytes, from_bytes: 0 })
            .collect())
    }

    async fn manifest(&self, reader: NodeId, blob: BlobHash) -> Result<Option<Manifest>, ContentError> {
        let encoding = sqlx::query_scalar::<_, Vec<u8>>(concat!(
            "SELECT encoding FROM manifest WHERE blob = $1 AND EXISTS ( \
                SELECT FROM blob JOIN bucket ON bucket.no = blob.bucket_no \
                WHERE blob.hash = $1 AND (bucket.name NOT LIKE 'site/%' OR bucket.name = $2) AND ",
            is_content!(),
            ")",
        ))
        .bind(blob.as_bytes().as_slice())
        .bind(BucketId::Site(reader).to_string())
        .fetch_optional(self.pool())
        .map_err(ContentError::from);
        match in_time(STORE_PATIENCE, encoding).await?.map(|encoding| Manifest::from_bytes(&encoding)).transpose() {
            Ok(manifest) => Ok(manifest),
            Err(cause) => {
                self.note_damage(blob, None, &format!("its manifest: {cause}")).await;
                Ok(None)
            }
        }
    }

    /// A chunk that S3 has lost or holds damaged is not here: that is no reason to end a session which carries others.
    async fn read(&self, manifest: &Manifest, index: u32) -> Result<Option<Bytes>, ContentError> {
        let (Some(offset), Some(chunk)) = (manifest.offset(index), manifest.chunk(index)) else { return Ok(None) };
        let blob = manifest.blob();
        match self.objects().read(&blob_key(blob), offset, chunk.len.into()).await {
            Ok(Some(bytes)) if manifest.verifies(index, &bytes) => return Ok(Some(bytes)),
            Ok(Some(_)) => {
                self.note_damage(blob, Some(index), &format!("chunk {index}: its bytes have another hash")).await;
            }
            Ok(None) => self.note_damage(blob, None, "its object: there is none").await,
            Err(error) if error.is_too_short() => {
                self.note_damage(blob, None, &format!("chunk {index}: the object is too short")).await;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(None)
    }

    async fn begin(&self, manifest: &Manifest) -> Result<Have, WriteBlobError<ContentError>> {
        write_in_time(BEGIN_PATIENCE, self.begin_blob(manifest)).await
    }

    async fn bases(&self, peer: NodeId, manifest: &Manifest, have: &Have) -> Result<Bases, ContentError> {
        in_time(STORE_PATIENCE, self.bases_of(peer, manifest, have)).await
    }

    async fn known_chunk(&self, reader: Option<NodeId>, chunk: ChunkHash) -> Result<Option<Bytes>, ContentError> {
        in_time(STORE_PATIENCE, self.chunk_of_any(reader, chunk)).await
    }

    async fn write(&self, manifest: &Manifest, index: u32, bytes: Bytes) -> Result<(), WriteBlobError<ContentError>> {
        write_in_time(WRITE_PATIENCE, self.write_chunk(manifest, index, bytes)).await
    }

    async fn sync(&self, manifest: &Manifest) -> Result<(), WriteBlobError<ContentError>> {
        write_in_time(WRITE_PATIENCE, self.sync_blob(manifest)).await
    }

    async fn finish(&self, manifest: &Manifest) -> Result<(), WriteBlobError<ContentError>> {
        write_in_time(WRITE_PATIENCE, self.finish_blob(manifest)).await
    }

    async fn release(&self, blob: BlobHash) {
        let _ = tokio::time::timeout(STORE_PATIENCE, self.release_blob(blob)).await;
    }
}

impl Content {
    /// What is known of a blob; `None` unless it is whole in S3.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn stored(&self, hash: BlobHash) -> Result<Option<StoredBlob>, ContentError> {
        let row: Option<(i64, String)> =
            sqlx::query_as("SELECT size_bytes, media_type FROM stored_blob WHERE hash = $1")
                .bind(hash.as_bytes().as_slice())
                .fetch_optional(self.pool())
                .await?;
        Ok(row.map(|(size_bytes, media_type)| StoredBlob { hash, size_bytes: size_bytes as u64, media_type }))
    }

    /// At most `limit` blobs by hash, after (or, descending, before) a place.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn list(
        &self,
        after: Option<BlobHash>,
        descending: bool,
        limit: usize,
    ) -> Result<Vec<StoredBlob>, ContentError> {
        let statement = if descending {
            "SELECT hash, size_bytes, media_type FROM stored_blob WHERE $1::bytea IS NULL OR hash < $1 \
             ORDER BY hash DESC LIMIT $2"
        } else {
            "SELECT hash, size_bytes, media_type FROM stored_blob WHERE $1::bytea IS NULL OR hash > $1 \
             ORDER BY hash LIMIT $2"
        };
        let rows: Vec<(Vec<u8>, i64, String)> = sqlx::query_as(statement)
            .bind(after.map(|hash| hash.as_bytes().to_vec()))
            .bind(limit as i64)
            .fetch_all(self.pool())
            .await?;
        Ok(rows
            .into_iter()
            .filter_map(|(hash, size_bytes, media_type)| {
                Some(StoredBlob { hash: hash_of(hash)?, size_bytes: size_bytes as u64, media_type })
            })
            .collect())
    }

    /// Streams bytes of a blob that is whole. What S3 has lost of them is noted, and ends the stream with an error.
    pub fn stream(&self, hash: BlobHash, range: Range<u64>) -> BoxStream<'static, Result<Bytes, ContentError>> {
        let reading = Reading { content: self.clone(), hash, left: range, body: None };
        stream::try_unfold(reading, Reading::next).boxed()
    }

    /// Takes a blob out of the store, unless a record shows it; `None` if one does, else whether it was here.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn remove(&self, hash: BlobHash) -> Result<Option<bool>, ContentError> {
        let bytes = hash.as_bytes().as_slice();
        let mut tx = self.pool().begin().await?;
        let is_shown: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM author WHERE portrait = $1) OR EXISTS (SELECT FROM collection WHERE cover = $1) \
                OR EXISTS (SELECT FROM media WHERE cover = $1 OR files @> $2::text::jsonb)",
        )
        .bind(bytes)
        .bind(serde_json::json!([{ "blob": hash }]).to_string())
        .fetch_one(&mut *tx)
        .await?;
        if is_shown {
            return Ok(None);
        }
        let removed = sqlx::query("DELETE FROM stored_blob WHERE hash = $1").bind(bytes).execute(&mut *tx).await?;
        if removed.rows_affected() == 0 {
            return Ok(Some(false));
        }
        sqlx::query(
            "INSERT INTO removed_blob (hash) VALUES ($1) \
             ON CONFLICT (hash) DO UPDATE SET removed_at = now(), object_deleted = false",
        )
        .bind(bytes)
        .execute(&mut *tx)
        .await?;
        sqlx::query("UPDATE blob SET stored = false WHERE hash = $1").bind(bytes).execute(&mut *tx).await?;
        forget_damage(&mut tx, hash).await?;
        tx.commit().await?;
        Ok(Some(true))
    }

    pub(super) async fn is_stored(&self, hash: BlobHash) -> Result<bool, ContentError> {
        Ok(self.stored(hash).await?.is_some())
    }

    /// What the records say that a blob is.
    pub(super) async fn media_type(&self, hash: BlobHash) -> Result<String, ContentError> {
        let media_type: Option<String> =
            sqlx::query_scalar("SELECT media_type FROM blob WHERE hash = $1 AND media_type <> '' LIMIT 1")
                .bind(hash.as_bytes().as_slice())
                .fetch_optional(self.pool())
                .await?;
        // It becomes a header of the object: only what may stand in one.
        let fits = |text: &String| text.len() <= 255 && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        Ok(media_type.filter(fits).unwrap_or_else(|| UNKNOWN_MEDIA_TYPE.into()))
    }
}

/// [`in_time`], of a write.
fn write_in_time<T: Send>(
    max: Duration,
    call: impl Future<Output = Result<T, WriteBlobError<ContentError>>> + Send,
) -> impl Future<Output = Result<T, WriteBlobError<ContentError>>> + Send {
    // What the call itself says is none of this one's.
    let ended = in_time(max, async { Ok::<_, ContentError>(call.await) });
    async { ended.await.unwrap_or_else(|late| Err(WriteBlobError::Store(late))) }
}

/// A download under way.
struct Reading {
    content: Content,
    hash: BlobHash,
    /// The bytes that are still to come.
    left: Range<u64>,
    /// Where they come from, once it is open.
    body: Option<ByteStream>,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, ContentError> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let key = blob_key(self.hash);
        let mut body = match self.body.take() {
            Some(body) => body,
            None => match self.content.objects().open(&key, self.left.start, self.left.end - self.left.start).await {
                Ok(Some(body)) => body,
                Ok(None) => return Err(self.lost("its object: there is none").await),
                Err(error) if error.is_too_short() => return Err(self.lost("its object: it is too short").await),
                Err(error) => return Err(error.into()),
            },
        };
        match body.try_next().await {
            Ok(Some(bytes)) => {
                self.left.start += bytes.len() as u64;
                Ok(Some((bytes, Self { body: Some(body), ..self })))
            }
            Ok(None) => Err(self.lost("its object: it is too short").await),
            Err(error) => Err(ObjectError::broken_off(&key, error).into()),
        }
    }

    async fn lost(&self, what: &str) -> ContentError {
        self.content.note_damage(self.hash, None, what).await;
        ContentError::Incomplete(self.hash)
    }
}

/// A hash as PostgreSQL holds it. What a peer called a hash is 32 bytes, or its record would not have been read.
pub(super) fn hash_of(bytes: Vec<u8>) -> Option<BlobHash> {
    Some(BlobHash::from_bytes(bytes.try_into().ok()?))
}
