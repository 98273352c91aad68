//! Collections: what sites choose to hold. The media of each replicate in a bucket of its own.

use super::kind_table::kind_table;
use super::{DESCRIPTION_CHARS_MAX, InvalidField, check_chars, check_name};
use crate::chunk::BlobHash;

kind_table! {
    /// A set of media that is chosen, permitted and replicated as one.
    Collection = 4 "collection" {
        /// Its title.
        1 lww title: String,
        /// A few sentences.
        2 lww description: String,
        /// A picture.
        3 lww cover: Option<BlobHash>,
        /// Hidden from readers, and restorable: the soft delete.
        4 lww disabled: bool,
    }
}

impl Collection {
    fn check(&self) -> Result<(), InvalidField> {
        check_name("title", &self.title)?;
        check_chars("description", &self.description, DESCRIPTION_CHARS_MAX)
    }
}
