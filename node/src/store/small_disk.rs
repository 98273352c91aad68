//! A disk that is soon full, for the tests.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Its size: less than what is kept free for deletes when records are written anew.
const SIZE_MB: u64 = 60;

/// A small file system of its own, in memory.
pub(crate) struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// Mounts it; `None`, and a line that says so, where that is not allowed.
    pub(crate) fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = ["-t", "tmpfs", "-o", &format!("size={SIZE_MB}m"), "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(dir.path()).output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self { dir });
        }
        eprintln!("SKIPPED: mounting a small disk needs root");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes up all but `free_bytes`.
    pub(crate) fn fill(&self, free_bytes: u64) {
        let taken = super::free_bytes(self.path()).saturating_sub(free_bytes);
        fs::write(self.path().join("filling"), vec![1; taken as usize]).unwrap();
    }

    pub(crate) fn empty(&self) {
        fs::remove_file(self.path().join("filling")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what a test has open goes when it is closed.
        let _ = Command::new("umount").arg("--lazy").arg(self.dir.path()).status();
    }
}
