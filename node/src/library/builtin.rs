//! The small library that an empty node offers, so that there is something to read. It comes with the binary.

use std::io;
use std::path::Path;

use alexandria_sync::domain::{Media, Typed};

use super::Library;
use crate::store::{ChangeError, Listing};

/// Name of the file that says that the small library was offered: once deleted, it does not come back.
const OFFERED_FILE: &str = "builtin-offered";

/// The title of the collection that it makes.
pub const COLLECTION_TITLE: &str = "Welcome to Alexandria";

impl Library {
    /// Whether the small library is to be put in: the node has no media and was never offered it.
    ///
    /// # Errors
    ///
    /// [`ChangeError`] if the store cannot be read.
    pub fn wants_builtin(&self) -> Result<bool, ChangeError> {
        let offered = self.data_dir().join(OFFERED_FILE).exists();
        Ok(!offered && self.store().records.list(&Listing::of(Media::KIND, 1))?.entries.is_empty())
    }

    /// Notes that the small library was put in.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if the note cannot be written.
    pub fn note_builtin_offered(&self) -> io::Result<()> {
        std::fs::write(self.data_dir().join(OFFERED_FILE), "")
    }
}

/// Writes the files of the small library below `dir`, to be taken in like any others.
///
/// # Errors
///
/// [`io::Error`] if one cannot be written.
pub fn unpack(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    for file in crate::builtin::FILES {
        std::fs::write(dir.join(file.name), file.bytes)?;
    }
    Ok(())
}
