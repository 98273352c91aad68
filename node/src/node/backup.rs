//! Backup and restore of the records of a node. Content lies in plain files below `blobs/`, named by their hashes, which
//! any tool can copy; a restore finds what is there by itself.
//!
//! A restore first reads and checks the whole backup beside the records that are in use ([`stage`]). The next start of
//! the node puts it in their place ([`put_in_place`]), so a power cut leaves either the old records or the new ones.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tokio::sync::mpsc;

use crate::library::Library;
use crate::local::{BackupLine, RestoreLine};
use crate::store::backup::{export, import};

/// Where a backup is read to.
const STAGE_DIR: &str = "restoring";
/// Says that all of it was read, and where what is in use is to be kept.
const READY_FILE: &str = "ready";
/// What of a data folder a restore replaces. The search index follows from it.
const RECORDS_DIR: &str = "records";

/// Writes a backup; the only line sent is `Done` or `Failed`.
pub(super) async fn run(library: Library, file: PathBuf, lines: mpsc::Sender<BackupLine>) {
    let records = library.store().records.clone();
    let written = tokio::task::spawn_blocking(move || export(&records, &file)).await;
    let last = match written {
        Ok(Ok(summary)) => BackupLine::Done { records: summary.records, bytes: summary.size_bytes },
        Ok(Err(error)) => BackupLine::Failed { reason: format!("{:#}", anyhow::Error::from(error)) },
        Err(error) => BackupLine::Failed { reason: error.to_string() },
    };
    let _ = lines.send(last).await;
}

/// Reads and checks a backup, to be put in place at the next start. Nothing that is in use is touched.
///
/// # Errors
///
/// What is wrong with the backup or the disk.
pub(super) async fn stage(file: PathBuf, data_dir: PathBuf, cache_bytes: u64) -> anyhow::Result<RestoreLine> {
    tokio::task::spawn_blocking(move || {
        let dir = data_dir.join(STAGE_DIR);
        remove(&dir).context("clear what an earlier restore left")?;
        let summary = import(&file, &dir, cache_bytes)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let kept_aside = data_dir.join(format!("{RECORDS_DIR}.before-restore-{now}"));
        let ready = dir.join(READY_FILE);
        std::fs::write(&ready, kept_aside.as_os_str().as_encoded_bytes()).context("finish reading the backup")?;
        std::fs::File::open(&ready)?.sync_all()?;
        std::fs::File::open(&dir)?.sync_all()?;
        Ok(RestoreLine::Done { records: summary.records, kept_aside })
    })
    .await?
}

/// Puts a backup that was read before in the place of the records, if there is one. Tells whether it did.
///
/// # Errors
///
/// If the folders cannot be renamed; it is tried again at the next start.
pub(super) fn put_in_place(data_dir: &Path) -> anyhow::Result<bool> {
    let stage = data_dir.join(STAGE_DIR);
    let Ok(kept_aside) = std::fs::read_to_string(stage.join(READY_FILE)) else { return Ok(false) };
    let (staged, records) = (stage.join(RECORDS_DIR), data_dir.join(RECORDS_DIR));
    // Each step is skipped if it was done before a power cut.
    if staged.exists() {
        let kept_aside = PathBuf::from(kept_aside);
        if records.exists() && !kept_aside.exists() {
            std::fs::rename(&records, &kept_aside).context("keep the records aside")?;
        }
        std::fs::rename(&staged, &records).context("put the restored records in place")?;
        std::fs::File::open(data_dir)?.sync_all()?;
    }
    remove(&stage).context("clear what the restore left")?;
    Ok(true)
}

fn remove(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
