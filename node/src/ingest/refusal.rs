//! Why a file is not taken, in words for the librarian who wanted it.

use std::{error::Error, io, path::PathBuf};

/// One file that was not taken.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct InspectError {
    pub path: PathBuf,
    /// Already part of this error's own text, so it is not repeated as its source.
    pub reason: Refusal,
}

/// What is wrong with a file. `format` and `what` are noun phrases such as "an EPUB book".
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The disk or the permissions; trying again may help.
    #[error("it cannot be read: {0}")]
    Io(#[source] io::Error),
    #[error("it is not a file")]
    NotAFile,
    #[error("it is empty")]
    Empty,
    /// A sound file, perhaps, of a type that is not served here.
    #[error("it is {what}, which the library does not take")]
    Unsupported { what: &'static str },
    #[error("its name ends in .{extension}, but it is {actual}")]
    Mislabelled { extension: String, actual: &'static str },
    #[error("it is {format} that was cut short: {missing}")]
    Truncated { format: &'static str, missing: &'static str },
    #[error("it is {format} without {part}")]
    Incomplete { format: &'static str, part: &'static str },
    #[error("it is damaged: {format} that cannot be read ({source})")]
    Damaged { format: &'static str, source: Box<dyn Error + Send + Sync> },
    #[error("its picture of {width_px} x {height_px} pixels is larger than any screen or memory here")]
    PictureTooLarge { width_px: u64, height_px: u64 },
    #[error("it holds {entries} entries; at most {entries_max} are unpacked")]
    TooManyEntries { entries: u64, entries_max: u64 },
    #[error("it unpacks to more than {unpacked_bytes_max} bytes, which no honest file of its size does")]
    Bomb { unpacked_bytes_max: u64 },
    #[error("its entry {entry:?} points outside of the archive")]
    UnsafeEntryName { entry: String },
    #[error("its {document} defines XML entities of its own, a known way to exhaust a reader")]
    EntityDeclarations { document: &'static str },
    #[error("its {part} is larger than {bytes_max} bytes")]
    PartTooLarge { part: &'static str, bytes_max: u64 },
    #[error("it is locked by a password or by copy protection")]
    Locked,
    /// A bug in a parser; the file is worth keeping for whoever mends it.
    #[error("reading it as {format} failed")]
    ParserFailed { format: &'static str },
}

impl Refusal {
    pub(super) fn damaged(format: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Damaged { format, source: source.into() }
    }
}
