//! The last receipt of each peer, in `DATA/bundle-receipts/NODE.receipt`, as it came.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use alexandria_sync::bundle::{OpenError, Receipt, Receiver};
use alexandria_sync::id::NodeId;

use super::{BundleError, failed};
use crate::library::Library;
use crate::store::{remove_if_there, write_durably};

/// Peers of whom a receipt is kept, at most; the one that was heard of the longest ago is forgotten first.
const PEERS_MAX: usize = 1000;
const FOLDER: &str = "bundle-receipts";

/// The last receipt of `node`; `None` if there is none for the present life of this library.
pub(super) fn last(library: &Library, receiver: &Receiver<'_>, node: NodeId) -> Result<Option<Receipt>, BundleError> {
    let path = path(library, node);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed("read", &path))?,
    };
    // Who signed it was checked when it came; certificates may have expired since.
    match Receipt::read(&Receiver { identity: None, unsigned: true, ..*receiver }, bytes.as_slice()) {
        Ok(receipt) => Ok(Some(receipt)),
        Err(OpenError::ReceiptForAnotherLife) => Ok(None),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a receipt that was kept cannot be read");
            Ok(None)
        }
    }
}

/// Keeps the receipt of a peer, durably.
pub(super) fn keep(library: &Library, node: NodeId, bytes: &[u8]) -> Result<(), BundleError> {
    let path = path(library, node);
    let folder = library.data_dir().join(FOLDER);
    fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
    write_durably(&path, bytes).map_err(failed("write", &path))?;
    forget_oldest(&folder).map_err(failed("look through", &folder))
}

fn forget_oldest(folder: &Path) -> io::Result<()> {
    let mut kept: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        kept.push((entry.metadata()?.modified().unwrap_or(SystemTime::UNIX_EPOCH), entry.path()));
    }
    kept.sort();
    for (_, path) in kept.iter().take(kept.len().saturating_sub(PEERS_MAX)) {
        remove_if_there(path)?;
    }
    Ok(())
}

fn path(library: &Library, node: NodeId) -> PathBuf {
    library.data_dir().join(FOLDER).join(format!("{node}.receipt"))
}
