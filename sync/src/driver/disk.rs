//! Carries out the disk requests of a session.

use std::sync::Arc;

use crate::id::NodeId;
use crate::session::{DiskDone, DiskRequest, WriteFailure};
use crate::store::{BlobStore, RecordStore, WriteBlobError};

pub(crate) type StoreError = Box<dyn std::error::Error + Send + Sync>;

/// Carries out one request; `None` where there is nothing to answer.
pub(crate) async fn carry_out<R: RecordStore, B: BlobStore>(
    request: DiskRequest,
    peer: NodeId,
    records: Arc<R>,
    blobs: Arc<B>,
) -> Result<Option<DiskDone>, StoreError> {
    let done = match request {
        DiskRequest::Meet(peer, standing) => {
            records.meet(peer, standing).await?;
            DiskDone::Met
        }
        DiskRequest::CaughtUp { with, standing, has } => {
            records.caught_up(with, standing, has).await?;
            DiskDone::CaughtUp
        }
        DiskRequest::Heads => DiskDone::Heads(records.heads().await?),
        DiskRequest::Cursor(peer, bucket) => DiskDone::Cursor(bucket, records.cursor(peer.node, bucket).await?),
        DiskRequest::Page { bucket, after, reader, budget_bytes } => {
            DiskDone::Page(bucket, records.page(bucket, after, reader, budget_bytes).await?)
        }
        DiskRequest::Apply { from, bucket, records: received, next } => {
            DiskDone::Applied(bucket, records.apply(from, bucket, received, next).await?)
        }
        DiskRequest::Urgent => DiskDone::Urgent(blobs.urgent(peer).await?),
        DiskRequest::Wanted { after, limit } => DiskDone::Wanted(blobs.wanted(peer, after, limit).await?),
        DiskRequest::Manifest(blob) => DiskDone::Manifest(blob, blobs.manifest(peer, blob).await?.map(Arc::new)),
        DiskRequest::Read { manifest, index, lane } => {
            let bytes = blobs.read(&manifest, index).await?;
            DiskDone::Read { blob: manifest.blob(), index, lane, bytes }
        }
        DiskRequest::Begin(manifest) => DiskDone::Began(manifest.blob(), written(blobs.begin(&manifest).await)?),
        DiskRequest::Write { manifest, index, bytes } => {
            DiskDone::Wrote(manifest.blob(), index, written(blobs.write(&manifest, index, bytes).await)?)
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

/// Tells what the session can act on from what ends it.
fn written<T, E: std::error::Error + Send + Sync + 'static>(
    result: Result<T, WriteBlobError<E>>,
) -> Result<Result<T, WriteFailure>, StoreError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(WriteBlobError::Mismatch) => Ok(Err(WriteFailure::Mismatch)),
        Err(WriteBlobError::Busy) => Ok(Err(WriteFailure::Busy)),
        Err(WriteBlobError::Full) => Ok(Err(WriteFailure::Full)),
        Err(WriteBlobError::Store(error)) => Err(error.into()),
    }
}
