//! What a node keeps of its fleet: its key, which never leaves it, its certificate, the fleet's authority, and the bridge.
//!
//! One file, readable by its owner only, replaced as a whole.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use alexandria_sync::id::NodeId;
use alexandria_sync::identity::{Identity, IdentityError};
use serde::{Deserialize, Serialize};

const MEMBERSHIP_FILE: &str = "fleet.json";
/// Held by who writes it.
static SAVING: Mutex<()> = Mutex::new(());
const KEY_FILE: &str = "fleet-key.pem";
/// The port at which bridges take enrolments unless they are told otherwise.
const ENROLMENT_PORT: u16 = 8443;

/// What enrolment gave.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Membership {
    /// The certificate, in PEM.
    pub certificate_pem: String,
    /// The fleet's authority, in PEM.
    pub authority_pem: String,
    /// The bridge.
    pub bridge: NodeId,
    /// Where it takes enrolments: HOST:PORT. Absent where an earlier version has enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolment: Option<String>,
    /// Where it takes sessions over QUIC: HOST:PORT.
    pub address: String,
    /// Where it takes them over TCP, if that was told: HOST:PORT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_address: Option<String>,
}

/// Why membership could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The disk, or who may use the file.
    #[error("the node has to be able to {action} {}, and cannot", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{} is damaged; enrol again", .0.display())]
    Damaged(PathBuf),
    /// Key and certificate do not go together.
    #[error("the key and the certificate of this node do not go together; enrol again")]
    Identity(#[from] IdentityError),
}

impl Membership {
    /// The membership kept in this data folder; `None` if the node belongs to no fleet.
    ///
    /// # Errors
    ///
    /// [`MembershipError`].
    pub fn load(data_dir: &Path) -> Result<Option<Self>, MembershipError> {
        let path = data_dir.join(MEMBERSHIP_FILE);
        match read(&path)? {
            None => Ok(None),
            Some(text) => serde_json::from_str(&text).map(Some).map_err(|_| MembershipError::Damaged(path)),
        }
    }

    /// Keeps it, durably.
    ///
    /// # Errors
    ///
    /// [`MembershipError::Io`].
    pub fn save(&self, data_dir: &Path) -> Result<(), MembershipError> {
        let _turn = SAVING.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(data_dir)
    }

    /// Keeps it in place of `known`, durably; `false` if that is no longer what is kept.
    ///
    /// # Errors
    ///
    /// [`MembershipError`].
    pub(super) fn replace(&self, data_dir: &Path, known: &Self) -> Result<bool, MembershipError> {
        let _turn = SAVING.lock().unwrap_or_else(PoisonError::into_inner);
        if Self::load(data_dir)?.as_ref() != Some(known) {
            return Ok(false);
        }
        self.write(data_dir).map(|()| true)
    }

    fn write(&self, data_dir: &Path) -> Result<(), MembershipError> {
        let text = serde_json::to_string_pretty(self).expect("a struct of strings is always JSON");
        write_private(&data_dir.join(MEMBERSHIP_FILE), &text)
    }

    /// Key and certificates, ready for use.
    ///
    /// # Errors
    ///
    /// [`MembershipError`].
    pub fn identity(&self, data_dir: &Path) -> Result<Identity, MembershipError> {
        let path = data_dir.join(KEY_FILE);
        let key = read(&path)?.ok_or(MembershipError::Damaged(path))?;
        Ok(self.identity_with_key(&key)?)
    }

    /// Where to ask for another certificate: where this one came from, or where bridges take enrolments unless told otherwise.
    pub(super) fn enrolment_address(&self) -> String {
        let host = || self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        self.enrolment.clone().unwrap_or_else(|| format!("{}:{ENROLMENT_PORT}", host()))
    }

    pub(super) fn identity_with_key(&self, key_pem: &str) -> Result<Identity, IdentityError> {
        Identity::from_pem(&self.certificate_pem, key_pem, &self.authority_pem)
    }
}

/// The node's key, if it was made before: an enrolment whose answer was lost goes on with the same one.
pub(super) fn load_key(data_dir: &Path) -> Result<Option<String>, MembershipError> {
    read(&data_dir.join(KEY_FILE))
}

/// Keeps the node's key, durably, before anything is asked with it.
pub(super) fn save_key(data_dir: &Path, pem: &str) -> Result<(), MembershipError> {
    write_private(&data_dir.join(KEY_FILE), pem)
}

fn read(path: &Path) -> Result<Option<String>, MembershipError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(MembershipError::Damaged(path.to_owned())),
        Err(source) => Err(MembershipError::Io { action: "read", path: path.to_owned(), source }),
    }
}

pub(super) fn write_private(path: &Path, text: &str) -> Result<(), MembershipError> {
    let draft = path.with_extension("new");
    let write = || {
        match std::fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|source| MembershipError::Io { action: "write", path: path.to_owned(), source })
}
