//! What the changed chunks of a new version can be told from: chunks that other blobs in S3 hold.
//!
//! What is read is verified. Content that is gone, or damaged, is taken for unknown: then a chunk goes, or comes, whole.

use std::collections::BTreeMap;

use alexandria_sync::chunk::basis::{self, OLDER_BLOBS_MAX};
use alexandria_sync::chunk::{Bases, BlobHash, CHUNK_BYTES_MAX, ChunkHash, ChunkPlace, Chunking, Have, Manifest};
use alexandria_sync::id::{BucketId, NodeId};
use alexandria_sync::store::BlobStore as _;
use bytes::Bytes;

use super::erase::is_content;
use super::known::LOOKUP_CHUNKS;
use super::serve::hash_of;
use super::{Content, ContentError, blob_key};

impl Content {
    /// See [`alexandria_sync::store::BlobStore::bases`].
    pub(super) async fn bases_of(&self, peer: NodeId, manifest: &Manifest, have: &Have) -> Result<Bases, ContentError> {
        // Of one that is all new, or all here, nothing can be told.
        if manifest.chunking() != Chunking::ContentDefined || have.count() == 0 || have.is_complete() {
            return Ok(Bases::new());
        }
        let mut lie: Vec<(ChunkHash, BlobHash, u64)> = Vec::new();
        for chunks in basis::neighbours(manifest, have).chunks(LOOKUP_CHUNKS) {
            let hashes: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.as_bytes().as_slice()).collect();
            let rows: Vec<(Vec<u8>, Vec<u8>, i64)> =
                sqlx::query_as("SELECT chunk, blob, offset_bytes FROM chunk_place WHERE chunk = ANY ($1)")
                    .bind(hashes)
                    .fetch_all(self.pool())
                    .await?;
            lie.extend(rows.into_iter().filter_map(|(chunk, blob, offset)| {
                let chunk = ChunkHash::from_bytes(chunk.try_into().ok()?);
                Some((chunk, hash_of(blob)?, u64::try_from(offset).ok()?))
            }));
        }
        let mut blobs: Vec<BlobHash> = lie.iter().map(|(_, blob, _)| *blob).collect();
        blobs.sort_unstable();
        blobs.dedup();
        let mut older = BTreeMap::new();
        for blob in blobs.into_iter().take(OLDER_BLOBS_MAX) {
            if let Some(manifest) = self.manifest(peer, blob).await? {
                older.insert(blob, manifest);
            }
        }
        let place = |(chunk, blob, offset): (ChunkHash, BlobHash, u64)| {
            Some((chunk, ChunkPlace { blob, index: older.get(&blob)?.chunk_at(offset) }))
        };
        let places = lie.into_iter().filter_map(place).collect();
        Ok(basis::bases(manifest, have, &places, &older))
    }

    /// See [`alexandria_sync::store::BlobStore::known_chunk`].
    pub(super) async fn chunk_of_any(
        &self,
        reader: Option<NodeId>,
        chunk: ChunkHash,
    ) -> Result<Option<Bytes>, ContentError> {
        let place: Option<(Vec<u8>, i64, i32)> = sqlx::query_as(concat!(
            "SELECT chunk_place.blob, offset_bytes, len FROM chunk_place WHERE chunk = $1 AND ($2::text IS NULL OR EXISTS ( \
                SELECT FROM blob JOIN bucket ON bucket.no = blob.bucket_no \
                WHERE blob.hash = chunk_place.blob AND (bucket.name NOT LIKE 'site/%' OR bucket.name = $2) AND ",
            is_content!(),
            "))",
        ))
        .bind(chunk.as_bytes().as_slice())
        .bind(reader.map(|reader| BucketId::Site(reader).to_string()))
        .fetch_optional(self.pool())
        .await?;
        let place = place.and_then(|(blob, offset, len)| {
            let len = u64::try_from(len).ok().filter(|&len| len <= CHUNK_BYTES_MAX.into())?;
            Some((hash_of(blob)?, u64::try_from(offset).ok()?, len))
        });
        let Some((blob, offset, len)) = place else { return Ok(None) };
        match self.objects().read(&blob_key(blob), offset, len).await {
            Ok(bytes) => Ok(bytes.filter(|bytes| ChunkHash::of(bytes) == chunk)),
            Err(error) if error.is_too_short() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
