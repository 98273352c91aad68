//! Makes room for content by giving up what was not opened for longest.
//!
//! Given up is only what can be had again: the bridge of this node has said that it holds the blob whole, and a bucket's
//! blob record still names it. What is pinned, open, or being exported stays. For content that nobody waits for, only what lay untouched for a
//! while is given up, so that a collection that is larger than the disk does not pass through it again and again; and what
//! was given up comes back only when somebody opens it (`demand`).
//!
//! A blob leaves in this order, so that a crash anywhere leaves nothing behind that is not found: one transaction takes
//! away its row and notes its file (table `G`); the file goes; the note goes. The notes that are left over are dealt with
//! when the store is opened.

use std::collections::{BTreeMap, HashMap};

use alexandria_sync::chunk::{BlobHash, Manifest};
use alexandria_sync::id::NodeId;

use super::{BlobError, Blobs, HeldBlob, blocking, failed, locked};
use crate::store::engine::Direction;
use crate::store::error::StoreError;
use crate::store::overlay::Overlay;
use crate::store::records::ROWS_MAX;
use crate::store::row::HeldRow;
use crate::store::usage::{self, UseRow};
use crate::store::writer::{Room, Transaction};
use crate::store::{demand, disk, keys, tables};

/// Blobs given up in one step, at most: nothing is published meanwhile.
const GIVEN_UP_AT_ONCE: usize = 16;
/// Candidates that are remembered from one look at everything that is held, at most.
const CANDIDATES_MAX: usize = 1024;
/// Uses that are remembered until they are written, at most; a blob past it counts as used when it is next opened.
const USES_MAX: usize = 4096;

/// For whom room is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// Somebody waits: a reader, an upload, or what is pinned.
    Pressing,
    /// Nobody does.
    Background,
}

/// Opened blobs whose minute of use is not written yet.
#[derive(Debug, Default)]
pub(super) struct Uses(HashMap<BlobHash, u32>);

/// What can be given up, least recently opened first.
#[derive(Debug, Default)]
struct Candidates {
    oldest: BTreeMap<(u32, BlobHash), HeldBlob>,
    /// Of all of them, also those that are not remembered.
    size_bytes: u64,
    /// Could be given up if the bridge were known to hold them.
    unconfirmed: Vec<BlobHash>,
}

impl Blobs {
    /// Gives up content until `bytes` more fit, if that can be; otherwise nothing. Says whether they fit.
    ///
    /// # Errors
    ///
    /// [`BlobError`].
    pub async fn make_room(&self, bytes: u64, need: Need) -> Result<bool, BlobError> {
        if self.inner.room.missing_bytes(bytes) == 0 {
            return Ok(true);
        }
        let _one_at_a_time = self.inner.evicting.lock().await;
        self.keep_uses().await?;
        loop {
            let missing = self.inner.room.missing_bytes(bytes);
            if missing == 0 {
                return Ok(true);
            }
            let blobs = self.clone();
            let candidates = blocking::<_, BlobError>(move || Ok(blobs.candidates(need)?)).await?;
            let enough = candidates.size_bytes >= missing;
            if !enough || candidates.oldest.is_empty() {
                // Once the bridge is known to hold these, they can go the next time.
                self.inner.records.note_unconfirmed(candidates.unconfirmed);
                return Ok(false);
            }
            let oldest: Vec<HeldBlob> = candidates.oldest.into_values().collect();
            let mut given_up = 0;
            for some in oldest.chunks(GIVEN_UP_AT_ONCE) {
                if self.inner.room.missing_bytes(bytes) == 0 {
                    return Ok(true);
                }
                given_up += self.give_up(some.to_vec(), bytes).await?;
            }
            if given_up == 0 {
                return Ok(false);
            }
        }
    }

    /// Writes when blobs were last opened. Call it now and then.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn keep_uses(&self) -> Result<(), StoreError> {
        let uses = std::mem::take(&mut locked(&self.inner.uses).0);
        if uses.is_empty() {
            return Ok(());
        }
        let work = move |transaction: &mut Transaction<'_>| {
            for (hash, minute) in uses {
                if transaction.rows.contains(&keys::held(hash))? {
                    let row = read_use(&transaction.rows, hash)?;
                    transaction.rows.put(keys::usage(hash), UseRow { minute: minute.max(row.minute), ..row }.encode());
                }
            }
            Ok::<_, StoreError>(())
        };
        self.inner.records.inner.writer.submit(Room::Freed, work).await
    }

    /// Notes that a bridge has said which blobs it holds whole, and which it does not.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn note_checked(&self, bridge: NodeId, checked: Vec<(BlobHash, bool)>) -> Result<(), StoreError> {
        let news = checked.iter().any(|(_, held_there)| *held_there);
        let work = move |transaction: &mut Transaction<'_>| {
            for (hash, held_there) in checked {
                if !transaction.rows.contains(&keys::held(hash))? {
                    continue;
                }
                let row = read_use(&transaction.rows, hash)?;
                let held_by = if held_there { Some(bridge) } else { row.held_by.filter(|by| *by != bridge) };
                transaction.rows.put(keys::usage(hash), UseRow { held_by, ..row }.encode());
            }
            Ok::<_, StoreError>(())
        };
        self.inner.records.inner.writer.submit(Room::Freed, work).await?;
        if news {
            self.inner.records.try_again();
        }
        Ok(())
    }

    /// Whether a blob belongs to a medium or a collection that is pinned (class 4).
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn is_pinned(&self, hash: BlobHash) -> Result<bool, StoreError> {
        demand::is_pinned(&Overlay::new(&self.inner.records.shared().engine), hash)
    }

    /// Makes room for a blob that comes from a peer.
    pub(super) async fn make_room_for(&self, manifest: &Manifest) -> Result<bool, BlobError> {
        let hash = manifest.blob();
        let pressing = locked(&self.inner.urgent).iter().any(|(blob, _)| *blob == hash) || self.is_pinned(hash)?;
        self.make_room(manifest.size_bytes(), if pressing { Need::Pressing } else { Need::Background }).await
    }

    /// Notes in memory that somebody opened a blob.
    pub(super) fn note_use(&self, hash: BlobHash) {
        let minute = usage::minute(self.inner.records.now_unix_ms());
        let mut uses = locked(&self.inner.uses);
        if uses.0.len() < USES_MAX || uses.0.contains_key(&hash) {
            uses.0.insert(hash, minute);
        }
    }

    /// The row of a blob that has just become whole.
    pub(super) fn arrived_now(&self) -> UseRow {
        UseRow { minute: usage::minute(self.inner.records.now_unix_ms()), held_by: None }
    }

    /// Removes files whose rows went before a crash. Blocks; for the start.
    pub(super) fn finish_going(&self) -> Result<(), BlobError> {
        let engine = &self.inner.records.shared().engine;
        loop {
            let mut gone = Vec::new();
            for row in engine.scan_prefix(&[keys::GOING]).take(ROWS_MAX) {
                let (key, _) = row.map_err(StoreError::from)?;
                let hash = keys::blob_of(&key).ok_or(StoreError::DamagedRow { what: "blob that goes" })?;
                if self.held(hash)?.is_none() {
                    self.unlink(hash)?;
                }
                gone.push((key, None));
            }
            let is_last = gone.len() < ROWS_MAX;
            if !gone.is_empty() {
                // No writer works yet on what was left over; a crash here only does it again.
                engine.apply(gone).map_err(StoreError::from)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn candidates(&self, need: Need) -> Result<Candidates, StoreError> {
        let mut found = Candidates::default();
        let Some(bridge) = self.inner.records.bridge_id() else { return Ok(found) };
        let rows = Overlay::new(&self.inner.records.shared().engine);
        let now = usage::minute(self.inner.records.now_unix_ms());
        let rest_minutes = u32::try_from(self.inner.rest_s / 60).unwrap_or(u32::MAX);
        let mut after = None;
        loop {
            let held = self.held_blobs(after, Direction::Ascending, ROWS_MAX)?;
            let Some(last) = held.last() else { return Ok(found) };
            after = Some(last.hash);
            for blob in held {
                let row = read_use(&rows, blob.hash)?;
                if need == Need::Background && now.saturating_sub(row.minute) < rest_minutes {
                    continue;
                }
                if !self.may_be_given_up(&rows, blob.hash)? {
                    continue;
                }
                if row.held_by != Some(bridge) {
                    if found.unconfirmed.len() < CANDIDATES_MAX {
                        found.unconfirmed.push(blob.hash);
                    }
                    continue;
                }
                found.size_bytes += blob.size_bytes;
                found.oldest.insert((row.minute, blob.hash), blob);
                if found.oldest.len() > CANDIDATES_MAX {
                    found.oldest.pop_last();
                }
            }
        }
    }

    /// Gives up as many of these as it takes, and says how many.
    async fn give_up(&self, blobs: Vec<HeldBlob>, until_fits_bytes: u64) -> Result<usize, BlobError> {
        let _nobody_publishes_them = self.inner.publishing.write().await;
        let mut missing = self.inner.room.missing_bytes(until_fits_bytes);
        let mut chosen = Vec::new();
        for blob in blobs {
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(blob.size_bytes);
            chosen.push(blob);
        }
        let Some(bridge) = self.inner.records.bridge_id() else { return Ok(0) };
        let deciding = self.clone();
        let work = move |transaction: &mut Transaction<'_>| {
            let mut gone = Vec::new();
            for blob in chosen {
                let rows = &mut transaction.rows;
                // Decided by the writer: it may have been pinned or opened, or its record deleted, since it was chosen.
                let confirmed = read_use(rows, blob.hash)?.held_by == Some(bridge);
                if !confirmed
                    || !rows.contains(&keys::held(blob.hash))?
                    || !deciding.may_be_given_up(rows, blob.hash)?
                {
                    continue;
                }
                rows.remove(keys::held(blob.hash));
                rows.remove(keys::usage(blob.hash));
                rows.remove(keys::media_type(blob.hash));
                demand::note_evicted(rows, blob.hash);
                demand::settle(rows, blob.hash)?;
                rows.put(keys::going(blob.hash), Vec::new());
                gone.push(blob);
            }
            Ok::<_, StoreError>(gone)
        };
        let gone = self.inner.records.inner.writer.submit(Room::Freed, work).await?;
        for blob in &gone {
            self.inner.room.remove_held(blob.size_bytes);
        }
        let (blobs, files) = (self.clone(), gone.clone());
        blocking(move || files.iter().try_for_each(|blob| blobs.unlink(blob.hash))).await?;
        let count = gone.len();
        let work = move |transaction: &mut Transaction<'_>| {
            for blob in gone {
                transaction.rows.remove(keys::going(blob.hash));
            }
            Ok::<_, StoreError>(())
        };
        self.inner.records.inner.writer.submit(Room::Freed, work).await?;
        Ok(count)
    }

    /// Whether it can be wanted again: a record makes it content of a bucket; and nothing holds it here: no pin, no reader,
    /// no export.
    fn may_be_given_up(&self, rows: &Overlay<'_>, hash: BlobHash) -> Result<bool, StoreError> {
        if self.inner.readers.has(hash) || demand::is_pinned(rows, hash)? {
            return Ok(false);
        }
        let content_of = tables::content_of(rows, hash)?;
        let staying = &self.inner.records.shared().staying;
        Ok(!content_of.is_empty() && !content_of.into_iter().any(|bucket| staying.has(bucket)))
    }

    fn unlink(&self, hash: BlobHash) -> Result<(), BlobError> {
        let layout = &self.inner.layout;
        [layout.manifest(hash), layout.blob(hash)]
            .into_iter()
            .try_for_each(|path| disk::remove_if_there(&path).map_err(failed("remove", &path)))
    }
}

/// The row of table `h` and the rest that follows when a blob is whole; whether it is new.
pub(super) fn register_in(
    transaction: &mut Transaction<'_>,
    hash: BlobHash,
    (held, used): (HeldRow, UseRow),
) -> Result<bool, StoreError> {
    let rows = &mut transaction.rows;
    let new = !rows.contains(&keys::held(hash))?;
    rows.put(keys::held(hash), held.encode());
    rows.remove(keys::going(hash));
    if new {
        rows.put(keys::usage(hash), used.encode());
    }
    demand::settle(rows, hash)?;
    Ok(new)
}

fn read_use(rows: &Overlay<'_>, hash: BlobHash) -> Result<UseRow, StoreError> {
    rows.get(&keys::usage(hash))?.map_or(Ok(UseRow::default()), |value| UseRow::decode(&value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Config, Store};

    #[tokio::test]
    async fn however_much_was_left_of_what_made_way_is_gone_after_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { min_free_bytes: 0, ..Config::new(dir.path().join("data")) };
        let store = Store::open(&config).unwrap();
        let going: Vec<BlobHash> = (0..=2 * ROWS_MAX as u64).map(|at| BlobHash::of(&at.to_be_bytes())).collect();
        let engine = &store.records.shared().engine;
        engine.apply(going.iter().map(|hash| (keys::going(*hash), Some(Vec::new())))).unwrap();
        engine.flush().unwrap();
        // The last of them has its file still.
        let last = keys::blob_of(&engine.scan_prefix(&[keys::GOING]).last().unwrap().unwrap().0).unwrap();
        let file = store.blobs.inner.layout.blob(last);
        disk::create_dir_durably(file.parent().unwrap()).unwrap();
        disk::write_durably(&file, b"what made way").unwrap();
        drop(store);

        let store = Store::open(&config).unwrap();
        assert_eq!(store.records.shared().engine.scan_prefix(&[keys::GOING]).count(), 0);
        assert!(!file.exists());
    }
}
