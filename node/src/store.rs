//! The node's store: records in an ordered tree, content in files. Implements the two ports of `alexandria_sync::store`.
//!
//! ```text
//! DATA/lock                     held while a process uses the folder
//! DATA/link-spent               what was used of the link's budgets (`link`)
//! DATA/node-id                  who this node is, even when its records are lost
//! DATA/records/                 the tree (`engine`; its rows are described in `keys`)
//! DATA/records.commit           the number of a commit that was durable (`guard`)
//! DATA/records.dump             the newest backup that this node made of itself, if it did
//! DATA/ballast                  room for deletes on a full disk (`guard`)
//! DATA/records.damaged-TIME/    a tree that was set aside when it was rebuilt
//! DATA/records.before-restore-TIME/  the same when a backup was restored, and its dump
//! DATA/blobs/ab/cd/HASH         content, whole and verified; HASH.manifest beside it
//! DATA/partial/HASH.data        content that is arriving, with .manifest and .have
//! DATA/incoming/                uploads and imports before their hash is known
//! DATA/damaged/                 content that no longer matched its hash
//! ```
//!
//! Read in this order: [`records`] and [`change`] (what callers do), `writer` (group commit), `tables` and `keys`
//! (what a change writes), [`replication`], [`lineage`], [`quarantine`], [`erase`], [`absence`], [`blobs`]; [`selection`], [`align`] and `demand` (what
//! of a fleet's library is kept here); then [`backup`], [`rebuild`] and [`compact`].
//!
//! What always holds:
//! - A call that returns `Ok` has made its effect durable.
//! - Nothing is told to a peer before it is durable.
//! - No damage on disk makes anything here panic: a damaged tree is set aside and rebuilt from what can be read,
//!   a damaged blob is set aside and wanted again.
//!
//! Not here: what a library is (`library`), search, and which peers are spoken to.

pub mod absence;
pub mod align;
pub mod backup;
pub mod blobs;
mod blocks;
pub mod change;
pub mod compact;
mod demand;
pub(crate) mod disk;
mod engine;
pub mod erase;
pub mod error;
mod guard;
pub mod in_use;
mod keys;
pub mod lineage;
pub mod link;
pub mod listing;
mod meta;
mod overlay;
pub mod quarantine;
pub mod rebuild;
pub mod records;
pub mod replication;
mod row;
pub mod selection;
#[cfg(test)]
pub(crate) mod small_disk;
mod stall;
mod tables;
pub mod time;
mod usage;
pub mod verify;
mod writer;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use alexandria_sync::quarantine::QuarantineLimits;

pub use blobs::{BlobSession, Blobs};
pub use change::Change;
pub use compact::Space;
pub(crate) use disk::{remove_if_there, rename_durably, write_durably};
pub use engine::{Direction, EngineError};
pub use erase::EraseError;
pub use error::{ChangeError, OpenError, StoreError};
pub use listing::{Listed, ListedPage, Listing, Order, Place};
pub use meta::Identity;
pub use quarantine::{QuarantinePage, QuarantinePlace, ReleaseError};
pub use rebuild::Condition;
pub use records::{RecordStats, Records, Side, Stored, Version};
pub use row::{Quarantined, SetAside, Totals};
pub use selection::{ChooseError, Keeping, Level, Pinned};

use guard::Noted;
use writer::Shared;

/// Where the store lies, and what it may use.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data folder.
    pub data_dir: PathBuf,
    /// Memory for pages of the tree, in bytes.
    pub cache_bytes: u64,
    /// What content may take up at most, in bytes; `None` for what the disk has.
    pub content_bytes_max: Option<u64>,
    /// Room that content leaves free on the disk, in bytes.
    pub min_free_bytes: u64,
    /// How many received records are kept set aside.
    pub quarantine: QuarantineLimits,
    /// How much is kept of collections that nothing was chosen for.
    pub default_level: Level,
    /// Content that was opened, or came, within this time is not given up for content that nobody waits for, in seconds.
    pub evict_rest_s: u64,
}

impl Config {
    /// The defaults, for a small machine with a large card.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            cache_bytes: 32 * 1024 * 1024,
            content_bytes_max: None,
            min_free_bytes: 256 * 1024 * 1024,
            quarantine: QuarantineLimits::default(),
            default_level: Level::Content,
            evict_rest_s: 7 * 24 * 60 * 60,
        }
    }
}

/// An open data folder. Clones are handles on it; it closes when the last one is dropped.
#[derive(Clone)]
pub struct Store {
    /// The records.
    pub records: Records,
    /// The content.
    pub blobs: Blobs,
    /// How the tree was found.
    pub condition: Condition,
    /// Whether it was not closed the last time: then [`Records::verify`] is due, in the background.
    pub unclean_stop: bool,
}

impl Store {
    /// Opens a data folder, or makes a new one. Blocks while a damaged or bloated tree is rewritten.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        disk::create_dir_durably(&config.data_dir).map_err(io("make the folder", &config.data_dir))?;
        let lock = FolderLock::take(&config.data_dir)?;
        let (engine, condition) = rebuild::open_tree(&config.data_dir, config.cache_bytes)?;
        let identity = if let Some(identity) = meta::identity(&engine)? {
            identity
        } else {
            let fresh = Identity::first();
            // A node that lost all its records is still the same node, in a new life.
            let identity = match meta::node_file(&config.data_dir) {
                Some(node) => Identity { node, ..fresh }.next_life(),
                None => fresh,
            };
            meta::write_identity(&engine, identity)?;
            identity
        };
        meta::write_node_file(&config.data_dir, identity.node)?;
        let unclean_stop = guard::noted_commit(&config.data_dir).is_some_and(|noted| !noted.closed);
        let commit = guard::commit_in(&engine)?;
        guard::note_commit(&config.data_dir, Noted { commit, closed: false })
            .and_then(|()| guard::keep_ballast(&config.data_dir))
            .map_err(io("write beside the records in", &config.data_dir))?;
        selection::adopt_default(&engine, config.default_level)?;
        let persisted = meta::hlc(&engine)?;
        let shared = Shared::new(engine, identity, persisted, config.data_dir.clone(), config.quarantine, lock)?;
        let records = Records::start(shared, commit).map_err(io("start the writer of", &config.data_dir))?;
        let blobs = Blobs::open(config, records.clone())?;
        Ok(Self { records, blobs, condition, unclean_stop })
    }
}

/// Bytes that may still be written to the file system of `path`; 0 if nobody can tell.
pub fn free_bytes(path: &Path) -> u64 {
    disk::free_bytes(path).unwrap_or_default()
}

/// The right of this process to a data folder.
pub(crate) struct FolderLock(File);

impl FolderLock {
    fn take(data_dir: &Path) -> Result<Self, OpenError> {
        let path = data_dir.join("lock");
        let file = File::create(&path).map_err(io("make", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(data_dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(OpenError::Io { action: "lock", path, source }),
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is just being started from this one may still share it.
        let _ = self.0.unlock();
    }
}

/// Says what was tried on which path, for an I/O error.
fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}
