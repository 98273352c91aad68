//! Categories: what something is about.

use super::kind_table::kind_table;
use super::{DESCRIPTION_CHARS_MAX, InvalidField, check_chars, check_name};
use crate::id::RecordId;

kind_table! {
    /// A subject, perhaps inside a wider one.
    Category = 3 "category" {
        /// Its name.
        1 lww name: String,
        /// A few sentences.
        2 lww description: String,
        /// The wider subject. May name a category that has not arrived yet.
        3 lww parent: Option<RecordId>,
        /// Hidden from readers, and restorable: the soft delete.
        4 lww disabled: bool,
    }
}

impl Category {
    fn check(&self) -> Result<(), InvalidField> {
        check_name("name", &self.name)?;
        check_chars("description", &self.description, DESCRIPTION_CHARS_MAX)
    }
}
