//! Files beside the tree that tell what the engine does not: whether it lost writes without a word, and room for
//! deletes on a full disk (docs/adr/0001-record-store.md, guards 5 and 8).
//!
//! `records.commit` holds the number of a commit that was durable, and whether the store was closed after it. Each batch
//! writes its number into the tree; a tree that is below the file has lost something.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::disk;
use super::engine::{Engine, EngineError};
use super::error::StoreError;
use super::keys;
use super::row::decode_number;

/// Real blocks that are given up when the disk is full, so that deletes can still be written.
const BALLAST_BYTES: u64 = 16 * 1024 * 1024;
/// Room below which the ballast is given up, in bytes.
pub(crate) const BALLAST_DROPPED_BELOW_BYTES: u64 = 8 * 1024 * 1024;
/// Room above which it is written again, in bytes.
const BALLAST_WRITTEN_ABOVE_BYTES: u64 = 128 * 1024 * 1024;

/// What `records.commit` says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Noted {
    pub(crate) commit: u64,
    /// Whether the store was closed after that commit.
    pub(crate) closed: bool,
}

pub(crate) fn commit_key() -> Vec<u8> {
    keys::key(keys::META, &[b"commit"])
}

/// The number of the last batch in the tree.
pub(crate) fn commit_in(engine: &Engine) -> Result<u64, StoreError> {
    engine.get(&commit_key())?.map_or(Ok(0), |value| decode_number(&value))
}

fn note_path(data_dir: &Path) -> PathBuf {
    data_dir.join("records.commit")
}

/// Writes the number of a durable commit beside the tree.
pub(crate) fn note_commit(data_dir: &Path, noted: Noted) -> io::Result<()> {
    let text = format!("{} {}\n", noted.commit, if noted.closed { "closed" } else { "open" });
    disk::write_durably(&note_path(data_dir), text.as_bytes())
}

/// Reads what was noted; `None` if nothing was, or nothing that can be read.
pub(crate) fn noted_commit(data_dir: &Path) -> Option<Noted> {
    let text = fs::read_to_string(note_path(data_dir)).ok()?;
    let (commit, state) = text.trim().split_once(' ')?;
    Some(Noted { commit: commit.parse().ok()?, closed: state == "closed" })
}

/// Forgets the note: the tree is about to be another one.
pub(crate) fn forget_commit(data_dir: &Path) -> io::Result<()> {
    disk::remove_if_there(&note_path(data_dir))
}

/// Whether the tree holds all that was noted as durable.
pub(crate) fn check_commit(engine: &Engine, data_dir: &Path) -> Result<(), EngineError> {
    let Some(noted) = noted_commit(data_dir) else { return Ok(()) };
    let commit = match commit_in(engine) {
        Ok(commit) => commit,
        Err(error) => return Err(EngineError::Damaged { detail: error.to_string() }),
    };
    if commit < noted.commit {
        let detail = format!("it ends at commit {commit}, and commit {} was durable", noted.commit);
        return Err(EngineError::Damaged { detail });
    }
    Ok(())
}

fn ballast_path(data_dir: &Path) -> PathBuf {
    data_dir.join("ballast")
}

/// Writes the ballast if it is not there and there is room for it.
pub(crate) fn keep_ballast(data_dir: &Path) -> io::Result<()> {
    let path = ballast_path(data_dir);
    let there = fs::metadata(&path).is_ok_and(|ballast| ballast.len() == BALLAST_BYTES);
    if there || disk::free_bytes(data_dir)? < BALLAST_WRITTEN_ABOVE_BYTES {
        return Ok(());
    }
    let mut file = File::create(&path)?;
    // Not zeros: some file systems would store none of it.
    let block: Vec<u8> = (0..64 * 1024u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for _ in 0..BALLAST_BYTES / block.len() as u64 {
        file.write_all(&block)?;
    }
    file.sync_all()
}

/// Gives the ballast's room to deletes.
pub(crate) fn drop_ballast(data_dir: &Path) -> io::Result<()> {
    disk::remove_if_there(&ballast_path(data_dir))
}
