//! Content as the API reads it: streamed from its file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use alexandria_api::catalogue::{BlobInfo, CatalogueError, Content};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

/// Bytes read from the disk at a time.
const READ_BYTES: u64 = 128 * 1024;

/// A blob opened for reading. The open file keeps the bytes, even if the blob is removed meanwhile.
pub struct FileContent {
    info: BlobInfo,
    file: Arc<File>,
}

impl FileContent {
    pub(super) fn new(info: BlobInfo, file: File) -> Self {
        Self { info, file: Arc::new(file) }
    }
}

impl Content for FileContent {
    fn info(&self) -> &BlobInfo {
        &self.info
    }

    fn read(&self, range: Range<u64>) -> BoxStream<'static, Result<Bytes, CatalogueError>> {
        let file = Arc::clone(&self.file);
        stream::try_unfold(range, move |range| {
            let file = Arc::clone(&file);
            async move {
                if range.is_empty() {
                    return Ok(None);
                }
                let end = range.end.min(range.start + READ_BYTES);
                let read = tokio::task::spawn_blocking(move || read_at(&file, range.start..end));
                let bytes = read.await.map_err(CatalogueError::store)?.map_err(CatalogueError::store)?;
                Ok(Some((bytes, end..range.end)))
            }
        })
        .boxed()
    }
}

fn read_at(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}
