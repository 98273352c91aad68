//! Authors: who made something.

use super::kind_table::kind_table;
use super::{DESCRIPTION_CHARS_MAX, InvalidField, check_chars, check_name};
use crate::chunk::BlobHash;

kind_table! {
    /// A person or a body that made media.
    Author = 1 "author" {
        /// The name as it is shown.
        1 lww name: String,
        /// The name as it is sorted, if that differs: "Achebe, Chinua".
        2 lww sort_name: Option<String>,
        /// A few sentences.
        3 lww description: String,
        /// A picture.
        4 lww portrait: Option<BlobHash>,
        /// Hidden from readers, and restorable: the soft delete.
        5 lww disabled: bool,
    }
}

impl Author {
    fn check(&self) -> Result<(), InvalidField> {
        check_name("name", &self.name)?;
        if let Some(sort_name) = &self.sort_name {
            check_name("sort_name", sort_name)?;
        }
        check_chars("description", &self.description, DESCRIPTION_CHARS_MAX)
    }
}
