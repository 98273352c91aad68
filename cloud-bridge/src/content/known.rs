//! What of a new version is known already: chunks that other blobs in S3 hold are copied from there, so that they need not
//! come over the link.
//!
//! Chunks that lie one after the other in both blobs are read in one request, for a request costs more than its bytes. What
//! is read is verified as if a peer had sent it.

use std::collections::HashMap;

use alexandria_sync::chunk::{BlobHash, Chunking, Manifest};
use alexandria_sync::store::WriteBlobError;
use futures::{StreamExt, stream};

use super::receive::Receiving;
use super::serve::hash_of;
use super::{Content, ContentError, blob_key};

/// Chunks that are looked up at a time.
pub(super) const LOOKUP_CHUNKS: usize = 4096;
/// Bytes that one request reads, at most (but for one chunk).
const RUN_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Requests under way at once.
const RUNS_IN_FLIGHT: usize = 2;

/// Where a chunk lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    blob: BlobHash,
    offset: u64,
}

/// Chunks that lie one after the other in another blob.
#[derive(Debug, Eq, PartialEq)]
struct Run {
    blob: BlobHash,
    offset: u64,
    len: u64,
    /// Their indexes in the new blob, in order.
    chunks: Vec<u32>,
}

impl Content {
    /// Copies the chunks of a new version that other blobs hold, and makes them durable.
    pub(super) async fn copy_known_chunks(
        &self,
        manifest: &Manifest,
        receiving: &Receiving,
    ) -> Result<(), ContentError> {
        if manifest.chunking() != Chunking::ContentDefined {
            return Ok(());
        }
        let missing: Vec<u32> = receiving.assembly().durable(manifest).missing().collect();
        let mut is_copied = false;
        for missing in missing.chunks(LOOKUP_CHUNKS) {
            let places = self.places(manifest, missing).await?;
            let runs = runs(manifest, missing, &places, RUN_BYTES_MAX);
            let mut copies = stream::iter(runs)
                .map(async |run| {
                    let read = self.objects().read(&blob_key(run.blob), run.offset, run.len).await;
                    (run, read)
                })
                .buffered(RUNS_IN_FLIGHT);
            while let Some((run, read)) = copies.next().await {
                // The other blob is gone: the peer sends what it held.
                let Some(mut bytes) = read? else { continue };
                for index in run.chunks {
                    let Some(chunk) = manifest.chunk(index) else { continue };
                    match self.write_chunk(manifest, index, bytes.split_to(chunk.len as usize)).await {
                        Ok(()) => is_copied = true,
                        // Damaged: the peer sends it.
                        Err(WriteBlobError::Mismatch) => {}
                        Err(WriteBlobError::Store(error)) => return Err(error),
                        Err(_) => return Ok(()),
                    }
                }
            }
        }
        if !is_copied {
            return Ok(());
        }
        match self.sync_blob(manifest).await {
            Err(WriteBlobError::Store(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Where those of the chunks lie that other blobs hold.
    async fn places(&self, manifest: &Manifest, chunks: &[u32]) -> Result<HashMap<u32, Place>, ContentError> {
        let hashes: Vec<Vec<u8>> =
            chunks.iter().filter_map(|index| Some(manifest.chunk(*index)?.hash.as_bytes().to_vec())).collect();
        let rows: Vec<(i64, Vec<u8>, i64)> = sqlx::query_as(
            "SELECT wanted.place, chunk_place.blob, chunk_place.offset_bytes \
             FROM unnest($1::bytea[]) WITH ORDINALITY AS wanted (chunk, place) \
             JOIN chunk_place ON chunk_place.chunk = wanted.chunk",
        )
        .bind(hashes)
        .fetch_all(self.pool())
        .await?;
        let place = |(place, blob, offset): (i64, Vec<u8>, i64)| {
            let index = chunks.get(usize::try_from(place - 1).ok()?)?;
            Some((*index, Place { blob: hash_of(blob)?, offset: u64::try_from(offset).ok()? }))
        };
        Ok(rows.into_iter().filter_map(place).collect())
    }
}

/// Joins the chunks that lie together in both blobs, up to `bytes_max` in one run.
fn runs(manifest: &Manifest, chunks: &[u32], places: &HashMap<u32, Place>, bytes_max: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for &index in chunks {
        let (Some(place), Some(chunk)) = (places.get(&index), manifest.chunk(index)) else { continue };
        let len = u64::from(chunk.len);
        match runs.last_mut() {
            Some(run)
                if run.blob == place.blob
                    && run.offset + run.len == place.offset
                    && run.chunks.last().is_some_and(|last| last + 1 == index)
                    && run.len + len <= bytes_max =>
            {
                run.len += len;
                run.chunks.push(index);
            }
            _ => runs.push(Run { blob: place.blob, offset: place.offset, len, chunks: vec![index] }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use alexandria_sync::chunk::{Chunk, ChunkHash};

    use super::*;

    #[test]
    fn chunks_that_lie_together_are_read_together_up_to_the_limit() {
        let chunk = |number: u8| Chunk { len: 10, hash: ChunkHash::of(&[number]) };
        let manifest =
            Manifest::new(BlobHash::of(b"new"), Chunking::ContentDefined, (0..8).map(chunk).collect()).unwrap();
        let (old, older) = (BlobHash::of(b"old"), BlobHash::of(b"older"));
        // 0, 1, 2 lie together, 3 is new, 4 and 5 lie apart, 6 and 7 together but 7 is here.
        let places = [(0, old, 0), (1, old, 10), (2, old, 20), (4, old, 40), (5, older, 50), (6, older, 60)];
        let places = places.into_iter().map(|(index, blob, offset)| (index, Place { blob, offset })).collect();
        let found = runs(&manifest, &[0, 1, 2, 3, 4, 5, 6], &places, 20);
        let run =
            |blob, offset, chunks: &[u32]| Run { blob, offset, len: 10 * chunks.len() as u64, chunks: chunks.to_vec() };
        assert_eq!(found, [run(old, 0, &[0, 1]), run(old, 20, &[2]), run(old, 40, &[4]), run(older, 50, &[5, 6])]);
    }
}
