//! Opening the tree: as it is, or rewritten because it was damaged or has grown far past what it holds.
//!
//! A damaged tree is renamed, never deleted. What can still be read of it, over the newest dump if there is one, goes into
//! a new tree: records, cursors, quarantined records; everything else follows from those. The new tree is a new life (epoch and incarnation): feeds
//! are numbered anew, and stamps of writes that may have been lost are not given out twice.
//!
//! A rewrite is made beside the tree and takes its place by renames; each step can be interrupted:
//! `records.rewriting` (not complete, removed at the next start), `records.rewritten` (complete), then `records` ->
//! `records.old`, `records.rewritten` -> `records`, and `records.old` is removed.

use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alexandria_sync::hlc::HlcTime;
use alexandria_sync::id::BucketId;
use alexandria_sync::merge::merge;

use super::compact::{Space, copy_rows};
use super::engine::{self, Direction, Engine, EngineError, Row, end_of_prefix};
use super::error::{OpenError, StoreError};
use super::guard;
use super::keys;
use super::meta::{self, Identity};
use super::overlay::Overlay;
use super::row::{Quarantined, RecordRow, decode_number};
use super::{absence, backup, demand, disk, io as on, quarantine, selection, tables};

/// Where a tree is written anew.
pub(crate) const REWRITING: &str = "records.rewriting";
/// How long the engine may take over one row of a damaged tree.
const SALVAGE_STALLED_AFTER: Duration = Duration::from_mins(1);
/// What the note beside a damaged tree says while it is read.
const SALVAGING: &[u8] = b"salvaging";
/// What was chosen, and what follows from that and from nothing else.
pub(crate) const CHOSEN: [u8; 5] = [keys::CHOICE, keys::PIN, keys::RETURNING, keys::UNALIGNED, keys::ON_DEMAND];
/// Rows of one batch while a tree is written anew.
const ROWS_AT_ONCE: usize = 500;

/// How the tree was found when it was opened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Condition {
    /// As it was left.
    Healthy,
    /// It was damaged. The node serves what could be read and receives the rest again from its peers.
    Rebuilt {
        /// Records that could be read.
        records_kept: u64,
        /// Whether some part of it could not.
        incomplete: bool,
        /// What was found.
        detail: String,
        /// Where the damaged tree now lies.
        set_aside: PathBuf,
    },
}

/// Opens the tree of a data folder, rewriting it first if need be.
pub(crate) fn open_tree(data_dir: &Path, cache_bytes: u64) -> Result<(Engine, Condition), OpenError> {
    let dir = data_dir.join("records");
    finish_rewrite(data_dir).map_err(on("finish the rewrite of", &dir))?;
    let note = engine::rebuild_note(&dir);
    let opened = if note.exists() {
        Err(EngineError::Damaged { detail: "damage was found when it was last used".into() })
    } else {
        open_checked(&dir, data_dir, cache_bytes)
    };
    let detail = match opened {
        Ok(engine) if Space::of(&engine)?.is_bloated() => {
            drop_and_rewrite(engine, data_dir, cache_bytes)?;
            return Ok((Engine::open(&dir, cache_bytes)?, Condition::Healthy));
        }
        Ok(engine) => return Ok((engine, Condition::Healthy)),
        Err(EngineError::Damaged { detail }) => detail,
        Err(error) => return Err(error.into()),
    };
    rebuild(data_dir, cache_bytes, detail)
}

/// Opens the tree and reads what every start needs, so that damage there is met now and not in the middle of work.
fn open_checked(dir: &Path, data_dir: &Path, cache_bytes: u64) -> Result<Engine, EngineError> {
    let engine = Engine::open(dir, cache_bytes)?;
    let identity = engine.get(&meta::identity_key())?;
    let holds_rows = engine.scan(Bound::Unbounded, Bound::Unbounded, Direction::Ascending).next().transpose()?;
    match identity {
        Some(value) if matches!(Identity::decode(&value), Err(OpenError::Store(_))) => {
            Err(EngineError::Damaged { detail: "it does not know whose it is".into() })
        }
        None if holds_rows.is_some() => Err(EngineError::Damaged { detail: "it does not know whose it is".into() }),
        _ => {
            for table in [keys::HEAD, keys::TOTALS] {
                engine.scan_prefix(&[table]).try_for_each(|row| row.map(drop))?;
            }
            guard::check_commit(&engine, data_dir)?;
            Ok(engine)
        }
    }
}

fn rebuild(data_dir: &Path, cache_bytes: u64, detail: String) -> Result<(Engine, Condition), OpenError> {
    let dir = data_dir.join("records");
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let set_aside = data_dir.join(format!("records.damaged-{unix_ms}"));
    tracing::error!(
        %detail, set_aside = %set_aside.display(),
        "the record store is damaged: rebuilding it from what can be read"
    );
    let rewriting = data_dir.join(REWRITING);
    remove_dir(&rewriting).map_err(on("remove", &rewriting))?;
    let rebuilt = Engine::open(&rewriting, cache_bytes)?;
    let mut salvage = Salvage::default();
    let dump = data_dir.join(backup::DUMP);
    if dump.exists() {
        match backup::read_rows(&dump, |key, value| salvage.restore(&rebuilt, key, value)) {
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "the newest dump cannot be used"),
        }
    }
    let note = engine::rebuild_note(&dir);
    // A tree that made this process die is not read again.
    let deadly = fs::read(&note).is_ok_and(|text| text == SALVAGING);
    if dir.exists() && !deadly {
        disk::write_durably(&note, SALVAGING).map_err(on("write", &note))?;
        salvage.read_what_can_be_read(&dir, cache_bytes, &rebuilt)?;
    }
    let durable = guard::noted_commit(data_dir).map_or(0, |noted| noted.commit);
    salvage.incomplete |= deadly || salvage.commit < durable;
    salvage.flush(&rebuilt)?;
    if salvage.incomplete {
        let mut overlay = Overlay::new(&rebuilt);
        absence::no_longer_fresh(&mut overlay)?;
        overlay.keep();
        rebuilt.apply(overlay.into_rows())?;
    }
    let identity =
        salvage.identity.or_else(|| meta::node_file(data_dir).map(|node| Identity { node, ..Identity::first() }));
    let identity = identity.unwrap_or_else(Identity::first).next_life();
    rebuilt.apply([(meta::hlc_key(), Some(salvage.hlc.to_bits().to_be_bytes().to_vec()))])?;
    meta::write_identity(&rebuilt, identity)?;
    drop(rebuilt);
    let into_place = || {
        // Complete first: a crash after this costs the damaged tree at worst, not what was read of it.
        disk::rename_durably(&rewriting, &data_dir.join("records.rewritten"))?;
        if dir.exists() {
            disk::rename_durably(&dir, &set_aside)?;
        }
        guard::forget_commit(data_dir)?;
        finish_rewrite(data_dir)?;
        disk::remove_if_there(&note)
    };
    into_place().map_err(on("rebuild", &dir))?;
    let condition =
        Condition::Rebuilt { records_kept: salvage.records, incomplete: salvage.incomplete, detail, set_aside };
    Ok((Engine::open(&dir, cache_bytes)?, condition))
}

/// What could be read of a damaged tree, and of a dump.
#[derive(Default)]
struct Salvage {
    identity: Option<Identity>,
    hlc: HlcTime,
    /// The last batch that the damaged tree knows of.
    commit: u64,
    records: u64,
    incomplete: bool,
    rows: Vec<Row>,
}

impl Salvage {
    /// Reads a damaged tree in a thread of its own: the engine may hang on what it finds.
    fn read_what_can_be_read(&mut self, dir: &Path, cache_bytes: u64, rebuilt: &Engine) -> Result<(), StoreError> {
        let (found, rows) = mpsc::sync_channel(ROWS_AT_ONCE);
        let dir = dir.to_owned();
        std::thread::spawn(move || {
            // Fails only when nobody waits for more.
            let _ = read_damaged(&dir, cache_bytes, &found);
        });
        loop {
            match rows.recv_timeout(SALVAGE_STALLED_AFTER) {
                Ok(Found::Row((key, value))) => self.restore(rebuilt, key, value)?,
                Ok(Found::Gap) => self.incomplete = true,
                Ok(Found::End) => return Ok(()),
                Err(_) => {
                    self.incomplete = true;
                    return Ok(());
                }
            }
        }
    }

    fn restore(&mut self, rebuilt: &Engine, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        if key == meta::identity_key() {
            self.identity = Identity::decode(&value).ok().or(self.identity);
        } else if key == meta::hlc_key() {
            self.hlc = self.hlc.max(decode_number(&value).map(HlcTime::from_bits).unwrap_or_default());
        } else if key == guard::commit_key() {
            self.commit = decode_number(&value).unwrap_or_default();
        } else {
            self.rows.push((key, value));
        }
        if self.rows.len() >= ROWS_AT_ONCE { self.flush(rebuilt) } else { Ok(()) }
    }

    fn flush(&mut self, rebuilt: &Engine) -> Result<(), StoreError> {
        let mut overlay = Overlay::new(rebuilt);
        for (key, value) in std::mem::take(&mut self.rows) {
            match restore_row(&mut overlay, &key, value)? {
                Restored::Record { newest, first } => {
                    self.records += u64::from(first);
                    self.hlc = self.hlc.max(newest);
                }
                Restored::Other => {}
                Restored::Unreadable => self.incomplete = true,
            }
            overlay.keep();
        }
        rebuilt.apply(overlay.into_rows())?;
        Ok(rebuilt.flush()?)
    }
}

/// What reading a damaged tree comes across.
enum Found {
    Row(Row),
    /// Something that cannot be read.
    Gap,
    End,
}

/// The tables that are worth keeping. What is held comes before the records, so that none of it is taken for wanted.
const SALVAGED: [u8; 9] = [
    keys::REMEMBERED,
    keys::HELD_BACK,
    keys::HELD,
    keys::MEDIA_TYPE,
    keys::RECORD,
    keys::CURSOR,
    keys::QUARANTINE,
    keys::UNNAMED,
    keys::PENDING_ERASURE,
];

/// Sends all rows of a damaged tree that are worth keeping.
fn read_damaged(dir: &Path, cache_bytes: u64, found: &mpsc::SyncSender<Found>) -> Result<(), mpsc::SendError<Found>> {
    let Ok(damaged) = Engine::open(dir, cache_bytes) else {
        found.send(Found::Gap)?;
        return found.send(Found::End);
    };
    for key in [meta::identity_key(), meta::hlc_key(), guard::commit_key(), absence::times_key(), absence::state_key()]
    {
        if let Ok(Some(value)) = damaged.get(&key) {
            found.send(Found::Row((key, value)))?;
        }
    }
    for table in CHOSEN.into_iter().chain(SALVAGED) {
        let mut last = vec![table];
        let mut gap = false;
        for row in damaged.scan_prefix(&[table]) {
            let Ok(row) = row else {
                gap = true;
                break;
            };
            last.clone_from(&row.0);
            found.send(Found::Row(row))?;
        }
        if gap {
            found.send(Found::Gap)?;
            // From the other end, down to the other side of the damage.
            let back = damaged.scan(Bound::Excluded(last), end_of_prefix(&[table]), Direction::Descending);
            for row in back.map_while(Result::ok) {
                found.send(Found::Row(row))?;
            }
        }
    }
    // Closed before the end is told, because the folder is then renamed.
    drop(damaged);
    found.send(Found::End)
}

/// What became of a row that was put into a new tree.
pub(crate) enum Restored {
    /// A record.
    Record {
        /// The time of its newest stamp.
        newest: HlcTime,
        /// Whether it was not there before.
        first: bool,
    },
    Other,
    /// The row does not hold what it should.
    Unreadable,
}

/// Puts one row of what is known into a new tree, with all rows that follow from it.
pub(crate) fn restore_row(rows: &mut Overlay<'_>, key: &[u8], value: Vec<u8>) -> Result<Restored, StoreError> {
    match key.first() {
        Some(&keys::RECORD) => {
            let row = keys::record_of(key).and_then(|of| RecordRow::decode(of.bucket, &value).ok());
            let Some(row) = row else { return Ok(Restored::Unreadable) };
            let newest = row.record.newest_stamp().time;
            let held = tables::read(rows, row.record.key)?.map(|held| held.record);
            let first = held.is_none();
            match held {
                Some(held) if held == row.record => {}
                Some(held) => drop(tables::put(rows, merge(held, row.record), None)?),
                None => drop(tables::put(rows, row.record, row.arrived_from)?),
            }
            Ok(Restored::Record { newest, first })
        }
        Some(&keys::QUARANTINE) => {
            let quarantined = keys::record_of(key).and_then(|of| Quarantined::decode(of.bucket, &value).ok());
            let Some(quarantined) = quarantined else { return Ok(Restored::Unreadable) };
            quarantine::restore(rows, key.to_vec(), value, &quarantined.record)?;
            Ok(Restored::Other)
        }
        Some(&keys::CHOICE) => {
            // Records of it may come from an older dump.
            rows.put(keys::unaligned(selection::collection_of(key)?), Vec::new());
            rows.put(key.to_vec(), value);
            Ok(Restored::Other)
        }
        Some(&keys::RETURNING) => {
            // How far it was read means nothing for what is here now: it is read from the beginning.
            selection::take_up(rows, selection::collection_of(key)?)?;
            Ok(Restored::Other)
        }
        Some(&keys::PIN) => {
            let Some(pinned) = keys::pin_of(key) else { return Ok(Restored::Unreadable) };
            rows.put(key.to_vec(), value);
            // Records may have come from an older dump, without the pin.
            selection::follow_pin(rows, pinned)?;
            Ok(Restored::Other)
        }
        Some(&keys::HELD) => {
            let Some(blob) = keys::blob_of(key) else { return Ok(Restored::Unreadable) };
            rows.put(key.to_vec(), value);
            // An older dump does not tell what is held: its records made it wanted.
            demand::settle(rows, blob)?;
            Ok(Restored::Other)
        }
        Some(&keys::META) if absence::restore(rows, key, &value)? => Ok(Restored::Other),
        Some(&keys::CURSOR) if is_returning(rows, key)? || absence::is_reading_anew(rows)? => Ok(Restored::Other),
        Some(
            &(keys::CURSOR
            | keys::REMEMBERED
            | keys::MEDIA_TYPE
            | keys::UNNAMED
            | keys::PENDING_ERASURE
            | keys::UNALIGNED
            | keys::HELD_BACK
            | keys::ON_DEMAND),
        ) => {
            rows.put(key.to_vec(), value);
            Ok(Restored::Other)
        }
        _ => Ok(Restored::Unreadable),
    }
}

/// Whether a row of table `c` is about a collection that is read again from its beginning.
fn is_returning(rows: &Overlay<'_>, cursor: &[u8]) -> Result<bool, StoreError> {
    let bucket = cursor.last_chunk::<{ BucketId::LEN_BYTES }>().and_then(|bytes| BucketId::from_bytes(bytes));
    match bucket {
        Some(BucketId::Collection(id)) => Ok(rows.contains(&keys::returning(id))?),
        _ => Ok(false),
    }
}

/// Copies a healthy tree row by row; it stays in the same life.
fn drop_and_rewrite(old: Engine, data_dir: &Path, cache_bytes: u64) -> Result<(), OpenError> {
    copy_rows(&old, data_dir, cache_bytes, || true)?;
    drop(old);
    put_copy_in_place(data_dir).map_err(on("rewrite", data_dir))
}

/// Writes the tree that is in use anew, so that its files hold nothing that was replaced or removed. Only for the one who
/// writes, between two batches; readers wait only while the files are exchanged.
pub(crate) fn rewrite_in_use(engine: &Engine, data_dir: &Path) -> Result<(), EngineError> {
    copy_rows(engine, data_dir, engine.cache_bytes(), || true)?;
    engine.reopen(|| put_copy_in_place(data_dir))
}

pub(crate) fn put_copy_in_place(data_dir: &Path) -> io::Result<()> {
    disk::rename_durably(&data_dir.join(REWRITING), &data_dir.join("records.rewritten"))?;
    finish_rewrite(data_dir)
}

/// Carries out what is left of a rewrite, from whichever step it was interrupted at.
pub(crate) fn finish_rewrite(data_dir: &Path) -> io::Result<()> {
    let [records, old, rewriting, rewritten] =
        ["records", "records.old", REWRITING, "records.rewritten"].map(|name| data_dir.join(name));
    remove_dir(&rewriting)?;
    if rewritten.exists() {
        if records.exists() {
            remove_dir(&old)?;
            disk::rename_durably(&records, &old)?;
        }
        disk::rename_durably(&rewritten, &records)?;
    }
    if records.exists() {
        remove_dir(&old)?;
    }
    Ok(())
}

pub(crate) fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
