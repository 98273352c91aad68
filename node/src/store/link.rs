//! What was used of the link's budgets, in a small file beside the records: a restore or a rebuild of the records must not
//! take back what was counted.

use std::io;
use std::path::{Path, PathBuf};

use alexandria_sync::budget::Spent;

use super::disk;

/// Name of the file.
const SPENT_FILE: &str = "link-spent";

/// Why the count of the link's bytes cannot be read or kept. Without it a link with a budget is not used.
#[derive(Debug, thiserror::Error)]
pub enum LinkCountError {
    /// The disk.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{} is damaged; remove it to count the link's bytes from zero", .0.display())]
    Damaged(PathBuf),
    /// The node is shutting down.
    #[error("the count of the link's bytes was not kept: the node stops")]
    Closed,
}

/// What was counted so far.
///
/// # Errors
///
/// [`LinkCountError`].
pub fn spent(data_dir: &Path) -> Result<Spent, LinkCountError> {
    let path = data_dir.join(SPENT_FILE);
    match std::fs::read(&path) {
        Ok(bytes) => minicbor::decode(&bytes).map_err(|_| LinkCountError::Damaged(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Spent::default()),
        Err(source) => Err(LinkCountError::Io { action: "read", path, source }),
    }
}

/// Keeps a count durably. Blocks.
///
/// # Errors
///
/// [`LinkCountError::Io`].
pub fn keep_spent(data_dir: &Path, spent: &Spent) -> Result<(), LinkCountError> {
    let path = data_dir.join(SPENT_FILE);
    let bytes = minicbor::to_vec(spent).expect("encoding to memory cannot fail");
    disk::write_durably(&path, &bytes).map_err(|source| LinkCountError::Io { action: "write", path, source })
}
