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

use crate::jobs::verify;
use crate::library::Library;
use crate::local::{BackupLine, RestoreLine, VerifyLine};
use crate::store::backup::{export, import, replace};
use crate::store::disk;

/// Where a backup is read to.
const STAGE_DIR: &str = "restoring";
/// Says that all of it was read, and where what is in use is to be kept.
const READY_FILE: &str = "ready";
/// Lies in the data folder until all content in it was looked at after a restore.
const CONTENT_SOUGHT_FILE: &str = "content-to-find";
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
        // A clock that was set back may name one that is there.
        let mut names = (now..).map(|time| data_dir.join(format!("{RECORDS_DIR}.before-restore-{time}")));
        let kept_aside = names.find(|name| !name.exists()).context("name what is kept aside")?;
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
/// If the folders cannot be renamed or are in use; it is tried again at the next start.
pub(super) fn put_in_place(data_dir: &Path) -> anyhow::Result<bool> {
    let stage = data_dir.join(STAGE_DIR);
    let Ok(kept_aside) = std::fs::read_to_string(stage.join(READY_FILE)) else { return Ok(false) };
    let staged = stage.join(RECORDS_DIR);
    // It left last, if it did before a power cut.
    if staged.exists() {
        replace(data_dir, &staged, Path::new(&kept_aside)).context("put the restored records in place")?;
    }
    disk::write_durably(&data_dir.join(CONTENT_SOUGHT_FILE), b"").context("note that content is to be found again")?;
    remove(&stage).context("clear what the restore left")?;
    Ok(true)
}

/// Finds content again that lies in the folder of restored records, unless that was done. What is broken off is begun again by the
/// next life of the node.
pub(super) async fn seek_content(library: Library) {
    let sought = library.data_dir().join(CONTENT_SOUGHT_FILE);
    if !sought.exists() {
        return;
    }
    let (lines, mut told) = mpsc::channel(1);
    let check = verify::run(library.clone(), true, lines);
    let watch = async {
        let mut is_done = false;
        while let Some(line) = told.recv().await {
            is_done = matches!(line, VerifyLine::Done { .. });
        }
        is_done
    };
    let ((), is_done) = tokio::join!(check, watch);
    if is_done && let Err(error) = disk::remove_if_there(&sought) {
        tracing::warn!(%error, "content is looked for once more at the next start");
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use alexandria_sync::domain::{Media, Typed};
    use alexandria_sync::id::{BucketId, RecordId};
    use alexandria_sync::record::RecordKey;

    use super::*;
    use crate::store::{Change, Condition, Config, Store, backup};

    const CACHE_BYTES: u64 = 4 << 20;

    fn open(data: &Path) -> Store {
        Store::open(&Config { cache_bytes: CACHE_BYTES, min_free_bytes: 0, ..Config::new(data) }).unwrap()
    }

    fn id(number: u8) -> RecordId {
        RecordId::from_bytes([number; 16])
    }

    fn shelf() -> BucketId {
        BucketId::Collection(id(0xc0))
    }

    fn title(store: &Store, number: u8) -> Option<String> {
        let stored = store.records.find(Media::KIND, id(number)).unwrap()?;
        Media::from_record(&stored.record).map(|media| media.title)
    }

    async fn put(store: &Store, number: u8, title: &str) {
        let media = Media { title: title.into(), ..Media::default() };
        store.records.change_one(Change::put(shelf(), id(number), media)).await.unwrap();
    }

    /// A data folder in which one medium was deleted, one edited and one made since its backup, and a dump was written since, as
    /// upkeep does; and the backup.
    async fn changed_since_its_backup(dir: &Path) -> (PathBuf, PathBuf) {
        let (data, file) = (dir.join("data"), dir.join("backup"));
        let store = open(&data);
        put(&store, 1, "deleted later").await;
        put(&store, 2, "edited later").await;
        export(&store.records, &file).unwrap();
        let key = RecordKey { bucket: shelf(), kind: Media::KIND, id: id(1) };
        store.records.change_one(Change::delete(key, None)).await.unwrap();
        put(&store, 2, "edited").await;
        put(&store, 3, "made later").await;
        backup::dump(&store.records).unwrap();
        (data, file)
    }

    async fn staged(file: &Path, data: &Path) -> PathBuf {
        match stage(file.to_owned(), data.to_owned(), CACHE_BYTES).await.unwrap() {
            RestoreLine::Done { kept_aside, .. } => kept_aside,
            RestoreLine::Failed { reason } => panic!("{reason}"),
        }
    }

    fn is_as_it_was_backed_up(data: &Path, case: &str) {
        for start in 0..2 {
            let store = open(data);
            assert_eq!(store.condition, Condition::Healthy, "{case}, start {start}");
            let titles = [1, 2, 3].map(|number| title(&store, number));
            let backed_up = [Some("deleted later".to_owned()), Some("edited later".to_owned()), None];
            assert_eq!(titles, backed_up, "{case}, start {start}");
        }
        let left = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let damaged: Vec<String> = left.filter(|name| name.starts_with("records.damaged-")).collect();
        assert!(damaged.is_empty(), "{case}: {damaged:?}");
    }

    #[tokio::test]
    async fn a_restore_undoes_what_came_after_the_backup_wherever_it_was_cut_off() {
        for steps_done in 0..=4 {
            let case = format!("cut off after {steps_done} steps");
            let dir = tempfile::tempdir().unwrap();
            let (data, file) = changed_since_its_backup(dir.path()).await;
            let kept_aside = staged(&file, &data).await;
            let records = data.join("records");
            let steps: [&dyn Fn(); 4] = [
                &|| fs::rename(&records, &kept_aside).unwrap(),
                &|| fs::remove_file(data.join("records.commit")).unwrap(),
                &|| fs::rename(data.join("records.dump"), kept_aside.join("records.dump")).unwrap(),
                &|| fs::rename(data.join("restoring/records"), &records).unwrap(),
            ];
            steps.iter().take(steps_done).for_each(|step| step());

            assert!(put_in_place(&data).unwrap(), "{case}");
            is_as_it_was_backed_up(&data, &case);
            assert!(!put_in_place(&data).unwrap(), "{case}: it is done once");
            let kept = ["db", "records.dump"].map(|name| kept_aside.join(name).exists());
            assert_eq!(kept, [true; 2], "{case}: what was there before is kept");
        }
    }

    /// Damage that was found in the old records, or a rewrite of them that was cut off, says nothing of the restored ones.
    #[tokio::test]
    async fn a_restore_in_the_place_of_a_damaged_or_half_rewritten_store_is_healthy() {
        for (case, before) in [
            ("damage was found", (|data| fs::write(data.join("records.rebuild"), b"").unwrap()) as fn(&Path)),
            ("a rewrite was complete", |data| {
                fs::rename(data.join("records"), data.join("records.rewritten")).unwrap();
            }),
            ("a rewrite was under way", |data| fs::create_dir(data.join("records.rewriting")).unwrap()),
            ("only the dump was left", |data| fs::remove_dir_all(data.join("records")).unwrap()),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (data, file) = changed_since_its_backup(dir.path()).await;
            before(&data);
            let kept_aside = staged(&file, &data).await;
            assert!(put_in_place(&data).unwrap(), "{case}");
            is_as_it_was_backed_up(&data, case);
            assert!(kept_aside.join("records.dump").exists(), "{case}");
        }
    }

    #[tokio::test]
    async fn records_that_are_in_use_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (data, file) = changed_since_its_backup(dir.path()).await;
        let user = open(&data);
        let kept_aside = staged(&file, &data).await;
        assert!(put_in_place(&data).is_err());
        assert!(!kept_aside.exists() && data.join("records.dump").exists() && data.join("records.commit").exists());
        drop(user);
        assert!(put_in_place(&data).unwrap());
        is_as_it_was_backed_up(&data, "once nobody uses them");
    }
}
