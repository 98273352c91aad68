//! Which file is where.

use std::io;
use std::path::{Path, PathBuf};

use alexandria_sync::chunk::BlobHash;

use crate::store::disk;

/// The folders of content, all on one file system, so that a rename publishes.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) blobs: PathBuf,
    pub(super) partial: PathBuf,
    pub(super) incoming: PathBuf,
    pub(super) damaged: PathBuf,
}

impl Layout {
    pub(super) fn new(data_dir: &Path) -> Self {
        let [blobs, partial, incoming, damaged] =
            ["blobs", "partial", "incoming", "damaged"].map(|name| data_dir.join(name));
        Self { blobs, partial, incoming, damaged }
    }

    /// Makes the folders, and empties what no process is writing any more.
    pub(super) fn create(&self) -> io::Result<()> {
        for folder in [&self.blobs, &self.partial, &self.incoming, &self.damaged] {
            disk::create_dir_durably(folder)?;
        }
        for left_over in std::fs::read_dir(&self.incoming)? {
            std::fs::remove_file(left_over?.path())?;
        }
        Ok(())
    }

    pub(super) fn blob(&self, hash: BlobHash) -> PathBuf {
        let name = hash.to_string();
        self.blobs.join(&name[..2]).join(&name[2..4]).join(name)
    }

    pub(super) fn manifest(&self, hash: BlobHash) -> PathBuf {
        self.blob(hash).with_extension("manifest")
    }

    pub(super) fn partial_data(&self, hash: BlobHash) -> PathBuf {
        self.partial.join(format!("{hash}.data"))
    }

    pub(super) fn partial_manifest(&self, hash: BlobHash) -> PathBuf {
        self.partial.join(format!("{hash}.manifest"))
    }

    pub(super) fn partial_have(&self, hash: BlobHash) -> PathBuf {
        self.partial.join(format!("{hash}.have"))
    }

    /// Removes all that there is of a partial blob: first what says that chunks are there, then the chunks.
    pub(super) fn remove_partial(&self, hash: BlobHash) -> io::Result<()> {
        for path in [self.partial_have(hash), self.partial_manifest(hash), self.partial_data(hash)] {
            disk::remove_if_there(&path)?;
        }
        Ok(())
    }
}
