//! The way between the command line and the node of the same data folder: HTTP over a Unix socket that only the
//! folder's owner may open. Long work answers with a stream of JSON lines, its progress and then its result.
//!
//! - [`messages`], [`bundles`]: what is asked and answered.
//! - [`client`]: the command line's side.
//! - The node's side is `node::local`, which knows the jobs.

pub mod bundles;
pub mod client;
pub mod held_back;
pub mod messages;
pub mod selection;

use std::path::{Path, PathBuf};

pub use client::{Client, ClientError, Lines};
pub use messages::{
    BackupLine, BackupRequest, DropRequest, EnrollRequest, Enrolled, EraseAnswer, EraseRequest, ImportLine,
    ImportRequest, QuarantineLine, ReplayAnswer, ReplayRequest, RestoreLine, RestoreRequest, SetAsideRecord, Status,
    SyncLine, TokenAnswer, VerifyLine, VerifyRequest,
};

/// Unix socket paths hold about this many bytes (108 on Linux, 104 elsewhere, with the end mark).
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// Where the node of this data folder listens for its command line. In the folder itself, or, if that path is too
/// long for a socket, in the system's temporary folder under a name that follows from it.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    let inside = data_dir.join("alexandria.sock");
    if inside.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return inside;
    }
    let name = blake3::hash(data_dir.as_os_str().as_encoded_bytes()).to_hex();
    std::env::temp_dir().join(format!("alexandria-{}.sock", &name[..24]))
}
