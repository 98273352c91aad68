//! Carries out the disk requests of a session.

use std::sync::Arc;

use crate::chunk::basis::BASIS_BYTES_MAX;
use crate::chunk::{ChunkHash, patch};
use crate::id::NodeId;
use crate::lineage::known_of;
use crate::session::{Begun, DiskDone, DiskRequest, WriteFailure};
use crate::store::{BlobStore, Peer, RecordStore, WriteBlobError};

pub(crate) type StoreError = Box<dyn std::error::Error + Send + Sync>;

/// Carries out one request; `None` where there is nothing to answer.
pub(crate) async fn carry_out<R: RecordStore, B: BlobStore>(
    request: DiskRequest,
    peer: NodeId,
    records: Arc<R>,
    blobs: Arc<B>,
) -> Result<Option<DiskDone>, StoreError> {
    let done = match request {
        DiskRequest::Meet { peer, standing, remembered } => {
            if records.recall(peer.node, remembered).await? {
                records.meet(peer, standing).await?;
                DiskDone::Met
            } else {
                DiskDone::SetBack
            }
        }
        DiskRequest::CaughtUp { with, standing, has } => {
            records.caught_up(with, standing, Some(has)).await?;
            DiskDone::CaughtUp
        }
        DiskRequest::Heads => DiskDone::Heads(records.heads().await?),
        DiskRequest::Cursor(peer, bucket) => {
            let cursor = records.cursor(peer.node, bucket).await?;
            // Looked up afterwards: whatever has moved the cursor by then shows in it.
            let known = known_of(&records.remembered(peer.node).await?, peer.epoch);
            DiskDone::Cursor { bucket, cursor, known }
        }
        DiskRequest::Page { bucket, after, reader, budget_bytes } => {
            let page = records.page(bucket, after, reader, budget_bytes).await?;
            // Whatever the page shows was there by then, and whatever it leaves out was told.
            let moment = records.moment().await?;
            let known = if reader == Peer::NOBODY {
                None
            } else {
                Some(known_of(&records.remembered(reader.node).await?, reader.epoch))
            };
            DiskDone::Page { bucket, page, moment, known }
        }
        DiskRequest::Apply { from, bucket, records: received, next, told } => {
            match records.apply_told(from, bucket, received, next, told).await? {
                Some(applied) => DiskDone::Applied(bucket, applied),
                None => DiskDone::Overtaken,
            }
        }
        DiskRequest::Urgent => DiskDone::Urgent(blobs.urgent(peer).await?),
        DiskRequest::Wanted { after, limit } => DiskDone::Wanted(blobs.wanted(peer, after, limit).await?),
        DiskRequest::Manifest(blob) => DiskDone::Manifest(blob, blobs.manifest(peer, blob).await?.map(Arc::new)),
        DiskRequest::Read { manifest, index, lane } => {
            let bytes = blobs.read(&manifest, index).await?;
            DiskDone::Read { blob: manifest.blob(), index, lane, bytes }
        }
        DiskRequest::ReadPatch { manifest, index, basis, lane } => {
            let (blob, bytes) = (manifest.blob(), blobs.read(&manifest, index).await?);
            let prefix = if bytes.is_some() { joined(&*blobs, Some(peer), &basis).await? } else { None };
            let patch = prefix.zip(bytes.as_ref()).and_then(|(prefix, bytes)| patch::make(&prefix, bytes));
            match patch {
                Some(patch) => DiskDone::ReadPatch { blob, index, lane, patch: patch.into() },
                None => DiskDone::Read { blob, index, lane, bytes },
            }
        }
        DiskRequest::Begin(manifest) => {
            let begun = match written(blobs.begin(&manifest).await)? {
                Ok(have) => Ok(Begun { bases: blobs.bases(peer, &manifest, &have).await?, have }),
                Err(failure) => Err(failure),
            };
            DiskDone::Began(manifest.blob(), begun)
        }
        DiskRequest::Claim(manifest, claim) => {
            DiskDone::Claimed(manifest.blob(), written(blobs.claim(&manifest, claim).await)?)
        }
        DiskRequest::Write { manifest, index, bytes } => {
            DiskDone::Wrote(manifest.blob(), index, written(blobs.write(&manifest, index, bytes).await)?)
        }
        DiskRequest::WritePatched { manifest, index, basis, patch } => {
            let prefix = joined(&*blobs, None, &basis).await?;
            let made = match prefix.zip(manifest.chunk(index)) {
                Some((prefix, chunk)) => patch::apply(&prefix, &patch, chunk).map_err(|_| WriteFailure::Mismatch),
                None => Err(WriteFailure::NoBasis),
            };
            let wrote = match made {
                Ok(bytes) => written(blobs.write(&manifest, index, bytes.into()).await)?,
                Err(failure) => Err(failure),
            };
            DiskDone::Wrote(manifest.blob(), index, wrote)
        }
        DiskRequest::Sync(manifest) => DiskDone::Synced(manifest.blob(), written(blobs.sync(&manifest).await)?),
        DiskRequest::Finish(manifest) => DiskDone::Finished(manifest.blob(), written(blobs.finish(&manifest).await)?),
        DiskRequest::Release(blob) => {
            blobs.release(blob).await;
            return Ok(None);
        }
    };
    Ok(Some(done))
}

/// The bytes of chunks that are known here, one after the other; `None` if one is not, or they pass the limit.
async fn joined<B: BlobStore>(
    blobs: &B,
    reader: Option<NodeId>,
    chunks: &[ChunkHash],
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut joined = Vec::new();
    for chunk in chunks {
        let Some(bytes) = blobs.known_chunk(reader, *chunk).await? else { return Ok(None) };
        if joined.len() + bytes.len() > BASIS_BYTES_MAX as usize {
            return Ok(None);
        }
        joined.extend_from_slice(&bytes);
    }
    Ok(Some(joined))
}

/// Tells what the session can act on from what ends it.
fn written<T, E: std::error::Error + Send + Sync + 'static>(
    result: Result<T, WriteBlobError<E>>,
) -> Result<Result<T, WriteFailure>, StoreError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(WriteBlobError::Mismatch) => Ok(Err(WriteFailure::Mismatch)),
        Err(WriteBlobError::Busy) => Ok(Err(WriteFailure::Busy)),
        Err(WriteBlobError::Gone) => Ok(Err(WriteFailure::Gone)),
        Err(WriteBlobError::Full) => Ok(Err(WriteFailure::Full)),
        Err(WriteBlobError::Store(error)) => Err(error.into()),
    }
}
