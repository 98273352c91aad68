//! What callers of the store can run into, and what they can do about it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use alexandria_sync::domain::InvalidField;
use alexandria_sync::quarantine::QuarantineFull;
use alexandria_sync::record::RecordKey;
use alexandria_sync::record::encoding::RecordTooLarge;

use super::engine::EngineError;
use super::records::Version;

/// Why the record store could not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine failed; see [`EngineError`].
    #[error(transparent)]
    Engine(Arc<EngineError>),
    /// One row is not what was written; the rest of the store works. `alexandria verify --repair` rebuilds it.
    #[error("a stored {what} cannot be read")]
    DamagedRow {
        /// What the row should have held.
        what: &'static str,
    },
    /// Too little room is left on the disk to take in more. Reads and deletes still work.
    #[error("no room left on the disk for records")]
    Full,
    /// No more may be set aside; nothing of the page was applied.
    #[error(transparent)]
    QuarantineFull(#[from] QuarantineFull),
    /// A write failed and what is on disk is uncertain; nothing more is written until the node starts anew.
    #[error("the record store is read-only since a write failed: {reason}")]
    ReadOnly {
        /// How the write failed.
        reason: Arc<str>,
    },
    /// The operator has chosen other collections since the session was opened; a new one is to be opened.
    #[error("other collections were selected since the session began")]
    SelectionChanged,
    /// All is read anew after a long absence: nothing is taken from others meanwhile, and nothing given.
    #[error("this node was away for longer than its lease, and reads all anew from the bridge first")]
    ReadsAnew,
    /// The store was closed while the call waited.
    #[error("the record store is closed")]
    Closed,
}

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> Self {
        Self::Engine(Arc::new(error))
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process serves this folder.
    #[error("the data folder {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// It was written by a newer version, which alone may open it.
    #[error("the data folder has schema {found}; this version reads up to {supported}: use the newer version again")]
    TooNew {
        /// The schema found.
        found: u32,
        /// The newest that this version knows.
        supported: u32,
    },
    /// The record store failed.
    #[error("open the record store")]
    Store(#[from] StoreError),
    /// The folder cannot be used.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl From<EngineError> for OpenError {
    fn from(error: EngineError) -> Self {
        Self::Store(error.into())
    }
}

/// Why a local change was not made. Nothing of it was stored, nor of what was to change with it.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such record.
    #[error("there is no record {}", .0.id)]
    NotFound(RecordKey),
    /// It was deleted for good; its id is never used again.
    #[error("record {} was deleted", .0.id)]
    Deleted(RecordKey),
    /// It is there already.
    #[error("record {} exists already", .0.id)]
    Exists(RecordKey),
    /// Someone changed it since the caller read it.
    #[error("record {} has changed since it was read", key.id)]
    Conflict {
        /// Which record.
        key: RecordKey,
        /// The version that it has now.
        current: Version,
    },
    /// A field may not have this value.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// It would not fit into what peers accept.
    #[error(transparent)]
    TooLarge(#[from] RecordTooLarge),
    /// The store's own fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<EngineError> for ChangeError {
    fn from(error: EngineError) -> Self {
        Self::Store(error.into())
    }
}
