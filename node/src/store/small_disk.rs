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

/// Whether this is a process in which nothing but `test` runs; if not, it has run in one, and was well. What sled has of threads is
/// shared by all stores of a process, and a full disk may take it from the others.
pub(crate) fn is_alone(test: &str) -> bool {
    const ALONE: &str = "ALEXANDRIA_TEST_ALONE";
    if std::env::var_os(ALONE).is_some_and(|alone| alone == test) {
        return true;
    }
    let itself = std::env::current_exe().expect("a test has a file");
    let ended = std::process::Command::new(itself).args(["--exact", test, "--nocapture"]).env(ALONE, test).status();
    assert!(ended.is_ok_and(|ended| ended.success()), "{test} fails in a process of its own");
    false
}
