//! For how long blobs have been named by nothing, across starts: a node that is switched off each evening has to sweep, too.
//!
//! Time is counted while the node runs, by its monotonic clock, so that a wall clock that jumps removes nothing early. What is
//! counted is kept in a small file after each sweep; what a crash takes of it is counted once more.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use alexandria_sync::chunk::BlobHash;

use crate::store::disk;

/// Blobs that are remembered, at most; more are found when these are gone.
const MARKED_MAX: usize = 100_000;

/// What was seen to be named by nothing.
pub(super) struct Marks {
    file: PathBuf,
    marks: HashMap<BlobHash, Mark>,
}

struct Mark {
    /// How long it was so in earlier lives of the node.
    before: Duration,
    since: Instant,
}

impl Marks {
    /// What an earlier life has left in `file`; nothing if the file is not there or not what was written.
    pub(super) fn load(file: PathBuf) -> Self {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let since = Instant::now();
        let mark = |(hash, seconds)| (hash, Mark { before: Duration::from_secs(seconds), since });
        let marks = decode(&text).unwrap_or_default().into_iter().take(MARKED_MAX).map(mark).collect();
        Self { file, marks }
    }

    /// Notes that a blob is named by nothing, and says whether it has been so for all of `grace`.
    pub(super) fn note(&mut self, hash: BlobHash, grace: Duration) -> bool {
        match self.marks.get(&hash) {
            Some(mark) => mark.before + mark.since.elapsed() >= grace,
            None if self.marks.len() < MARKED_MAX => {
                self.marks.insert(hash, Mark { before: Duration::ZERO, since: Instant::now() });
                grace.is_zero()
            }
            None => false,
        }
    }

    pub(super) fn is_marked(&self, hash: BlobHash) -> bool {
        self.marks.contains_key(&hash)
    }

    /// Takes a mark away, until a crash at the latest: for what is gone, or is seen to be named.
    pub(super) fn remove(&mut self, hash: BlobHash) {
        self.marks.remove(&hash);
    }

    /// Takes a mark away for good: for what somebody has put in, who will name it.
    ///
    /// # Errors
    ///
    /// If the file cannot be removed: after a crash the blob might be swept away early.
    pub(super) fn remove_durably(&mut self, hash: BlobHash) -> io::Result<()> {
        if self.marks.remove(&hash).is_some() && self.file.exists() {
            disk::remove_if_there(&self.file)?;
            disk::sync_parent(&self.file)?;
        }
        Ok(())
    }

    /// Keeps what was counted so far.
    ///
    /// # Errors
    ///
    /// If the disk refuses: it is counted anew after the next start.
    pub(super) fn save(&self) -> io::Result<()> {
        if self.marks.is_empty() {
            return disk::remove_if_there(&self.file);
        }
        let counted = |mark: &Mark| (mark.before + mark.since.elapsed()).as_secs();
        disk::write_durably(&self.file, encode(self.marks.iter().map(|(hash, mark)| (*hash, counted(mark)))).as_bytes())
    }
}

/// A line for each blob, after the hash of them all.
fn encode(marks: impl Iterator<Item = (BlobHash, u64)>) -> String {
    let mut lines = String::new();
    for (hash, seconds) in marks {
        // Writing into a string does not fail.
        let _ = writeln!(lines, "{hash} {seconds}");
    }
    format!("{}\n{lines}", blake3::hash(lines.as_bytes()))
}

fn decode(text: &str) -> Option<Vec<(BlobHash, u64)>> {
    let (hash, lines) = text.split_once('\n')?;
    if blake3::hash(lines.as_bytes()).to_string() != hash {
        return None;
    }
    let mark = |line: &str| {
        let (hash, seconds) = line.split_once(' ')?;
        Some((hash.parse().ok()?, seconds.parse().ok()?))
    };
    lines.lines().map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_not_believed() {
        let hash = BlobHash::from_bytes([7; 32]);
        let whole = encode([(hash, 3600)].into_iter());
        assert_eq!(decode(&whole), Some(vec![(hash, 3600)]));
        assert_eq!(decode(&whole.replace("3600", "7200")), None);
        assert_eq!(decode(&whole[..whole.len() - 2]), None);
        assert_eq!(decode(""), None);
    }

    #[test]
    fn time_is_counted_across_lives_until_somebody_puts_the_blob_in() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("marks");
        let hash = BlobHash::from_bytes([7; 32]);
        let hour = Duration::from_hours(1);
        std::fs::write(&file, encode([(hash, 3599)].into_iter())).unwrap();
        let mut marks = Marks::load(file.clone());
        assert!(!marks.note(hash, hour));
        assert!(marks.note(hash, Duration::from_secs(3599)));
        marks.save().unwrap();
        assert!(Marks::load(file.clone()).note(hash, Duration::from_secs(3599)));
        marks.remove_durably(hash).unwrap();
        assert!(!Marks::load(file).note(hash, Duration::from_secs(1)), "it is counted anew");
    }
}
