//! What is held: lists of whole blobs, and the media types that they were uploaded as.

use std::ops::Bound;

use alexandria_sync::chunk::BlobHash;

use super::{Blobs, HeldBlob};
use crate::store::engine::{Direction, end_of_prefix};
use crate::store::error::StoreError;
use crate::store::keys;
use crate::store::records::ROWS_MAX;
use crate::store::row::HeldRow;
use crate::store::writer::{Room, Transaction};

/// Bytes of the name of a media type, at most.
pub const MEDIA_TYPE_BYTES_MAX: usize = 255;

impl Blobs {
    /// The next whole blobs past `after`, by hash in this direction, at most `limit` and [`ROWS_MAX`].
    pub fn held_blobs(
        &self,
        after: Option<BlobHash>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<HeldBlob>, StoreError> {
        let (mut from, mut to) = (Bound::Included(vec![keys::HELD]), end_of_prefix(&[keys::HELD]));
        match (after, direction) {
            (Some(after), Direction::Ascending) => from = Bound::Excluded(keys::held(after)),
            (Some(after), Direction::Descending) => to = Bound::Excluded(keys::held(after)),
            (None, _) => {}
        }
        let rows = self.inner.records.shared().engine.scan(from, to, direction);
        rows.take(limit.min(ROWS_MAX))
            .map(|row| {
                let (key, value) = row?;
                let hash = keys::blob_of(&key).ok_or(StoreError::DamagedRow { what: "blob row" })?;
                let row = HeldRow::decode(&value)?;
                Ok(HeldBlob { hash, size_bytes: row.size_bytes, chunking: row.chunking })
            })
            .collect()
    }

    /// Whether so much more content may come in now.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.inner.room.reserve(bytes).is_ok()
    }

    /// What a blob was uploaded as, where that was noted.
    pub fn media_type(&self, hash: BlobHash) -> Result<Option<String>, StoreError> {
        let value = self.inner.records.shared().engine.get(&keys::media_type(hash))?;
        let text = value.map(String::from_utf8).transpose();
        text.map_err(|_| StoreError::DamagedRow { what: "media type" })
    }

    /// Keeps what a blob was uploaded as, durably, cut to [`MEDIA_TYPE_BYTES_MAX`].
    pub async fn set_media_type(&self, hash: BlobHash, media_type: &str) -> Result<(), StoreError> {
        let end = media_type.floor_char_boundary(MEDIA_TYPE_BYTES_MAX);
        let value = media_type.as_bytes()[..end].to_vec();
        let work = move |transaction: &mut Transaction<'_>| {
            transaction.rows.put(keys::media_type(hash), value);
            Ok::<_, StoreError>(())
        };
        self.inner.records.inner.writer.submit(Room::Needed, work).await
    }
}
