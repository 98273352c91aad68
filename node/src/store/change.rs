//! Local changes: what a person or a job here writes, stamped by the clock of the store.
//!
//! A change is decided against the version that is there when it is written, by the one writer, so that two changes
//! never overwrite each other unseen.

use alexandria_sync::domain::{InvalidField, Typed};
use alexandria_sync::hlc::Stamp;
use alexandria_sync::id::{BucketId, RecordId};
use alexandria_sync::merge::merge;
use alexandria_sync::record::{FieldTag, Record, RecordKey, Value};

use super::error::ChangeError;
use super::records::{Stored, Version};
use super::selection;
use super::writer::Transaction;

/// One change of one record.
pub struct Change {
    key: RecordKey,
    expected: Expected,
    edit: Edit,
}

/// What must be there for a change to be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Expected {
    Absent,
    Present,
    Version(Version),
    Either,
}

/// Makes the new version; `None` if nothing would differ.
type Write = Box<dyn FnOnce(Option<&Record>, &mut dyn FnMut() -> Stamp) -> Result<Option<Record>, InvalidField> + Send>;

enum Edit {
    Write(Write),
    Delete,
}

impl Change {
    /// Creates a record that says `value`; it must not be there.
    pub fn create<T: Typed>(bucket: BucketId, id: RecordId, value: T) -> Self {
        Self::writing(bucket, id, Expected::Absent, move |typed| {
            *typed = value;
            Ok(())
        })
    }

    /// Makes a record say `value`, whether it was there or not. Writes only the fields that differ.
    pub fn put<T: Typed>(bucket: BucketId, id: RecordId, value: T) -> Self {
        Self::writing(bucket, id, Expected::Either, move |typed| {
            *typed = value;
            Ok(())
        })
    }

    /// Edits a record, or the default if there is none: a counter, a position.
    pub fn update<T: Typed>(
        bucket: BucketId,
        id: RecordId,
        edit: impl FnOnce(&mut T) -> Result<(), InvalidField> + Send + 'static,
    ) -> Self {
        Self::writing(bucket, id, Expected::Either, edit)
    }

    /// Edits a record that is there, in this version if one is given. Writes only the fields that differ.
    pub fn edit<T: Typed>(
        bucket: BucketId,
        id: RecordId,
        version: Option<Version>,
        edit: impl FnOnce(&mut T) -> Result<(), InvalidField> + Send + 'static,
    ) -> Self {
        Self::writing(bucket, id, version.map_or(Expected::Present, Expected::Version), edit)
    }

    /// Creates a record from fields that were checked already; it must not be there.
    pub fn create_fields(key: RecordKey, fields: Vec<(FieldTag, Value)>) -> Self {
        Self { key, expected: Expected::Absent, edit: Edit::Write(write_fields(key, fields)) }
    }

    /// Writes fields that were checked already, in this version of the record.
    pub fn edit_fields(key: RecordKey, version: Version, fields: Vec<(FieldTag, Value)>) -> Self {
        Self { key, expected: Expected::Version(version), edit: Edit::Write(write_fields(key, fields)) }
    }

    /// Writes fields that were checked already, whether the record is there or not. Writes only those that differ.
    pub fn put_fields(key: RecordKey, fields: Vec<(FieldTag, Value)>) -> Self {
        Self { key, expected: Expected::Either, edit: Edit::Write(write_fields(key, fields)) }
    }

    /// Deletes a record for good. Deleting what was deleted already changes nothing.
    pub fn delete(key: RecordKey, version: Option<Version>) -> Self {
        Self { key, expected: version.map_or(Expected::Present, Expected::Version), edit: Edit::Delete }
    }

    fn writing<T: Typed>(
        bucket: BucketId,
        id: RecordId,
        expected: Expected,
        edit: impl FnOnce(&mut T) -> Result<(), InvalidField> + Send + 'static,
    ) -> Self {
        let write: Write = Box::new(move |held, stamp| {
            let before = held.and_then(T::from_record).unwrap_or_default();
            let mut after = before.clone();
            edit(&mut after)?;
            after.validate()?;
            let Some(held) = held else { return Ok(Some(after.to_record(bucket, id, stamp()))) };
            Ok(joined(held, after.changes_since(&before), stamp))
        });
        Self { key: RecordKey { bucket, kind: T::KIND, id }, expected, edit: Edit::Write(write) }
    }

    /// Which record it changes.
    pub fn key(&self) -> RecordKey {
        self.key
    }

    pub(super) fn is_delete(&self) -> bool {
        matches!(self.edit, Edit::Delete)
    }

    pub(super) fn make(self, transaction: &mut Transaction<'_>) -> Result<Stored, ChangeError> {
        let key = self.key;
        let held = transaction.read(key)?;
        if let Some(row) = &held
            && row.record.is_tombstone()
        {
            return if self.is_delete() { Ok(row.clone().into()) } else { Err(ChangeError::Deleted(key)) };
        }
        match (&held, self.expected) {
            (Some(_), Expected::Absent) => return Err(ChangeError::Exists(key)),
            (None, Expected::Present | Expected::Version(_)) => return Err(ChangeError::NotFound(key)),
            (Some(row), Expected::Version(expected)) => {
                let current = Version::of(&row.record);
                if current != expected {
                    return Err(ChangeError::Conflict { key, current });
                }
            }
            _ => {}
        }
        let mut stamp = || {
            let mut time = transaction.time();
            if let Some(row) = &held {
                time.observe(row.record.newest_stamp());
            }
            time.stamp()
        };
        let after = match self.edit {
            Edit::Write(write) => write(held.as_ref().map(|row| &row.record), &mut stamp)?,
            Edit::Delete => held.as_ref().map(|row| row.record.deleted(stamp())),
        };
        if let Some(after) = after {
            after.check_size()?;
            if held.is_none() {
                selection::keep_what_is_made_here(&mut transaction.rows, key)?;
            }
            transaction.put(after, None)?;
        }
        transaction.read(key)?.map(Stored::from).ok_or(ChangeError::NotFound(key))
    }
}

/// A record with some fields written anew; `None` if that changes nothing. Joined rather than replaced, so that a field
/// whose largest number wins never shrinks here alone.
fn joined(held: &Record, changes: Vec<(FieldTag, Value)>, stamp: &mut dyn FnMut() -> Stamp) -> Option<Record> {
    if changes.is_empty() {
        return None;
    }
    let edited = held.edited(changes, stamp()).map(|edited| merge(held.clone(), edited));
    edited.filter(|edited| edited != held)
}

/// Writes those of `fields` that differ from what is there.
fn write_fields(key: RecordKey, fields: Vec<(FieldTag, Value)>) -> Write {
    Box::new(move |held, stamp| {
        let Some(held) = held else { return Ok(Record::new(key, fields, stamp())) };
        let differs = |(tag, value): &(FieldTag, Value)| {
            held.fields().and_then(|fields| fields.get(tag)).is_none_or(|field| field.value != *value)
        };
        let changes: Vec<_> = fields.into_iter().filter(differs).collect();
        Ok(joined(held, changes, stamp))
    })
}
