//! The record of a blob in a bucket: who holds the bucket wants the content.

use super::kind_table::kind_table;
use super::{InvalidField, NAME_CHARS_MAX, check_chars};
use crate::chunk::BlobHash;
use crate::id::RecordId;

kind_table! {
    /// Content that the media of this bucket refer to.
    Blob = 5 "blob" {
        /// Its name.
        1 lww hash: Option<BlobHash>,
        /// Its size in bytes.
        2 lww size_bytes: u64,
        /// Its media type (RFC 6838).
        3 lww media_type: String,
    }
}

impl Blob {
    /// The id of the record of `hash` in any bucket.
    pub fn record_id(hash: BlobHash) -> RecordId {
        RecordId::derived(&[b"blob", hash.as_bytes()])
    }

    fn check(&self) -> Result<(), InvalidField> {
        if self.hash.is_none() {
            return Err(InvalidField { field: "hash", problem: "must be given".into() });
        }
        check_chars("media_type", &self.media_type, NAME_CHARS_MAX)
    }
}
