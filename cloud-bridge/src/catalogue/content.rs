//! Content between the API and the store.

use std::ops::Range;

use alexandria_api::catalogue::{self, BlobInfo, CatalogueError, PutBlob, Upload};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::content::Content;
use crate::content::intake::{Intake, IntakeError};
use crate::content::serve::StoredBlob;

/// A blob opened for reading. Removing it takes effect in S3 only after a while, so it stays readable.
pub struct StoredContent {
    content: Content,
    info: BlobInfo,
}

impl StoredContent {
    pub(super) fn new(content: Content, stored: StoredBlob) -> Self {
        Self { content, info: info_of(stored) }
    }
}

impl catalogue::Content for StoredContent {
    fn info(&self) -> &BlobInfo {
        &self.info
    }

    fn read(&self, range: Range<u64>) -> BoxStream<'static, Result<Bytes, CatalogueError>> {
        self.content.stream(self.info.hash, range).map(|bytes| bytes.map_err(CatalogueError::store)).boxed()
    }
}

pub(super) fn info_of(stored: StoredBlob) -> BlobInfo {
    BlobInfo { hash: stored.hash, size_bytes: stored.size_bytes, media_type: stored.media_type }
}

pub(super) async fn put(content: &Content, upload: Upload) -> Result<PutBlob, CatalogueError> {
    let Upload { media_type, expected, size_bytes, body } = upload;
    match content.take_in(Intake { media_type, expected, size_bytes, body }).await {
        Ok((stored, created)) => Ok(PutBlob { info: info_of(stored), created }),
        Err(IntakeError::Body(error)) => Err(CatalogueError::Upload(error)),
        Err(IntakeError::HashMismatch { actual }) => Err(CatalogueError::HashMismatch { actual }),
        Err(IntakeError::TooLarge { limit_bytes }) => {
            Err(CatalogueError::Upload(catalogue::UploadError::TooLarge { limit_bytes }))
        }
        Err(IntakeError::Store(error)) => Err(CatalogueError::store(error)),
    }
}
