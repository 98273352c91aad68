//! What the records mean: the kinds that this version knows, and their fields.
//!
//! Each kind is one table: `number rule name: type`. The number and the rule make the field's tag on the wire, so
//! a number is never used again and a rule never changes (golden files in `tests/golden` hold them). A field
//! that a record does not carry reads as its default; what a newer version added is kept in the record and not shown.

mod kind_table;

pub mod annotation;
pub mod association;
pub mod author;
pub mod blob;
pub mod category;
pub mod collection;
pub mod counter;
pub mod erasure;
pub mod media;
pub mod revocation;
pub mod user;

pub use annotation::{Annotation, Label};
pub use association::{AuthorCategory, MediaAuthor, MediaCategory};
pub use author::Author;
pub use blob::Blob;
pub use category::Category;
pub use collection::Collection;
pub use counter::OpenCount;
pub use erasure::{Erasure, ErasureReceipt};
pub use media::{Chapter, FileRole, Media, MediaFile, MediaKind};
pub use revocation::Revocation;
pub use user::{Role, User};

use crate::hlc::Stamp;
use crate::id::RecordId;
use crate::record::{FieldTag, Kind, Record, RecordKey, Value};

/// Characters in a title or a name, at most.
pub const NAME_CHARS_MAX: usize = 500;
/// Characters in a description, at most.
pub const DESCRIPTION_CHARS_MAX: usize = 20_000;
/// Entries in a list field (languages, chapters, files), at most.
pub const LIST_ENTRIES_MAX: usize = 1_000;

/// The kinds that this version knows, with their names.
const KINDS: [(Kind, &str); 14] = [
    (Author::KIND, Author::NAME),
    (Media::KIND, Media::NAME),
    (Category::KIND, Category::NAME),
    (Collection::KIND, Collection::NAME),
    (Blob::KIND, Blob::NAME),
    (User::KIND, User::NAME),
    (MediaAuthor::KIND, MediaAuthor::NAME),
    (MediaCategory::KIND, MediaCategory::NAME),
    (AuthorCategory::KIND, AuthorCategory::NAME),
    (Annotation::KIND, Annotation::NAME),
    (OpenCount::KIND, OpenCount::NAME),
    (Erasure::KIND, Erasure::NAME),
    (ErasureReceipt::KIND, ErasureReceipt::NAME),
    (Revocation::KIND, Revocation::NAME),
];

/// The name of a kind; its number if this version does not know it.
pub fn kind_name(kind: Kind) -> String {
    let known = KINDS.iter().find(|(known, _)| *known == kind);
    known.map_or_else(|| kind.0.to_string(), |(_, name)| (*name).to_owned())
}

/// The kind with this name, or this number; `None` if it is neither.
pub fn kind_named(text: &str) -> Option<Kind> {
    let known = KINDS.iter().find(|(_, name)| *name == text);
    known.map(|(kind, _)| *kind).or_else(|| text.parse().ok().map(Kind))
}

/// Says only that the record is there: written where no field differs from its default. Number 0 of every kind.
const PRESENCE: FieldTag = FieldTag::lww(0);

/// A field whose value is not allowed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct InvalidField {
    /// The field's name, as in JSON.
    pub field: &'static str,
    /// What is wrong with it, after "`field` ".
    pub problem: String,
}

/// A kind of record with typed fields.
pub trait Typed: Default + Clone + PartialEq + Send + Sync + 'static {
    /// Its number on the wire.
    const KIND: Kind;
    /// Its name in paths, events and tables: `media`, `author`.
    const NAME: &'static str;

    /// Reads the fields of a record; what is missing or of a newer form reads as the default.
    fn from_record(record: &Record) -> Option<Self>;

    /// The fields in which `self` differs from `before`: what an edit writes.
    fn changes_since(&self, before: &Self) -> Vec<(FieldTag, Value)>;

    /// Refuses values that no record of this kind may have.
    ///
    /// # Errors
    ///
    /// The first field that is wrong.
    fn validate(&self) -> Result<(), InvalidField>;

    /// A new record that says this. All fields equal to the default are left out, but at least one is written.
    fn to_record(&self, bucket: crate::id::BucketId, id: RecordId, stamp: Stamp) -> Record {
        let mut fields = self.changes_since(&Self::default());
        if fields.is_empty() {
            fields.push((PRESENCE, Value::encode(&())));
        }
        Record::new(RecordKey { bucket, kind: Self::KIND, id }, fields, stamp).expect("at least one field was put in")
    }
}

/// Refuses an empty or overlong name.
fn check_name(field: &'static str, text: &str) -> Result<(), InvalidField> {
    if text.trim().is_empty() {
        return Err(InvalidField { field, problem: "must not be empty".into() });
    }
    check_chars(field, text, NAME_CHARS_MAX)
}

/// Refuses an overlong text, or one with control characters that no title or description needs.
fn check_chars(field: &'static str, text: &str, chars_max: usize) -> Result<(), InvalidField> {
    let chars = text.chars().count();
    if chars > chars_max {
        return Err(InvalidField {
            field,
            problem: format!("has {chars} characters; at most {chars_max} are allowed"),
        });
    }
    if text.contains('\0') {
        return Err(InvalidField { field, problem: "must not contain the character U+0000".into() });
    }
    Ok(())
}

/// Refuses a list with too many entries.
fn check_entries<T>(field: &'static str, list: &[T]) -> Result<(), InvalidField> {
    if list.len() > LIST_ENTRIES_MAX {
        let problem = format!("has {} entries; at most {LIST_ENTRIES_MAX} are allowed", list.len());
        return Err(InvalidField { field, problem });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name_and_an_unknown_one_by_its_number() {
        for (kind, name) in KINDS {
            assert_eq!((kind_name(kind).as_str(), kind_named(name)), (name, Some(kind)));
        }
        assert_eq!((kind_name(Kind(700)).as_str(), kind_named("700")), ("700", Some(Kind(700))));
        assert_eq!(kind_named("shelf"), None);
    }
}
