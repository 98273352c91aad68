//! Received records that were set aside: kept within limits, tried again, listed, let in or thrown away by a person.
//!
//! How much is kept stands in one row of `m`, written with each row of `q`, so that a full quarantine is noticed before
//! anything is written (`alexandria_sync::quarantine` says what happens then).

use std::ops::Bound;

use alexandria_sync::quarantine::{QuarantineId, QuarantineLimits, QuarantineUse, Release, Released};
use alexandria_sync::record::{Body, Record, RecordKey};
use alexandria_sync::store::Applied;

use super::change::Change;
use super::engine::{Direction, end_of_prefix};
use super::error::{ChangeError, StoreError};
use super::keys;
use super::overlay::Overlay;
use super::records::{ROWS_MAX, Records};
use super::replication::{Received, receive};
use super::row::{Quarantined, SetAside, decode_use, encode_use};
use super::writer::{Room, Transaction};

/// Quarantined records that one operation of the writer tries again, at most.
const REPLAYED_AT_ONCE_MAX: usize = 256;

/// Why a record stays set aside.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// There is none of this name.
    #[error("no record {0} is set aside here")]
    NotFound(QuarantineId),
    /// The clock here still refuses it.
    #[error("it stays set aside: {0}")]
    Refused(SetAside),
    /// It cannot be made as a new edit: the record was deleted for good, or would be too large.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl From<StoreError> for ReleaseError {
    fn from(error: StoreError) -> Self {
        Self::Change(error.into())
    }
}

/// Some of what is set aside.
#[derive(Clone, Debug, PartialEq)]
pub struct QuarantinePage {
    /// In the order of their keys.
    pub entries: Vec<Quarantined>,
    /// The place after them, if more may follow.
    pub next: Option<QuarantinePlace>,
}

/// A place in the list of what is set aside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QuarantinePlace(Vec<u8>);

impl Records {
    /// The records set aside after a place, at most `limit` and [`ROWS_MAX`].
    pub fn quarantined(&self, after: Option<QuarantinePlace>, limit: usize) -> Result<QuarantinePage, StoreError> {
        let from = after.map_or(vec![keys::QUARANTINE], |place| place.0);
        let limit = limit.min(ROWS_MAX);
        let rows =
            self.shared().engine.scan(Bound::Excluded(from), end_of_prefix(&[keys::QUARANTINE]), Direction::Ascending);
        let mut page = QuarantinePage { entries: Vec::new(), next: None };
        for row in rows.take(limit) {
            let (key, value) = row?;
            page.entries.push(read_quarantined(&key, &value)?);
            if page.entries.len() == limit {
                page.next = Some(QuarantinePlace(key));
            }
        }
        Ok(page)
    }

    /// How much is set aside.
    pub fn quarantine_use(&self) -> Result<QuarantineUse, StoreError> {
        usage(&Overlay::new(&self.shared().engine))
    }

    /// Tries every quarantined record again, as the clock now is. What is still refused stays set aside.
    pub async fn replay_quarantine(&self) -> Result<Applied, StoreError> {
        let mut total = Applied::default();
        let mut after = vec![keys::QUARANTINE];
        loop {
            let from = std::mem::take(&mut after);
            let work = move |transaction: &mut Transaction<'_>| replay_some(transaction, from);
            let (applied, last) = self.inner.writer.submit::<_, StoreError>(Room::Needed, work).await?;
            total.applied += applied.applied;
            total.superseded += applied.superseded;
            total.quarantined += applied.quarantined;
            match last {
                Some(last) => after = last,
                None => return Ok(total),
            }
        }
    }

    /// Lets one record in.
    ///
    /// # Errors
    ///
    /// [`ReleaseError`]; it stays set aside then.
    pub async fn release_quarantined(&self, id: QuarantineId, how: Release) -> Result<Released, ReleaseError> {
        let key = self.find_quarantined(id)?.ok_or(ReleaseError::NotFound(id))?;
        let work = move |transaction: &mut Transaction<'_>| {
            let value = transaction.rows.get(&key).map_err(StoreError::from)?.ok_or(ReleaseError::NotFound(id))?;
            let Quarantined { record, from, .. } = read_quarantined(&key, &value)?;
            let released = match how {
                Release::AsItIs => match receive(transaction, from, record)? {
                    Received::Applied => Released::Applied,
                    Received::Superseded => Released::Superseded,
                    Received::SetAside(still) => return Err(ReleaseError::Refused(still.reason)),
                },
                Release::AsNewEdit => edit_anew(transaction, record)?,
            };
            forget(&mut transaction.rows, key, &value)?;
            Ok(released)
        };
        self.inner.writer.submit(Room::Needed, work).await
    }

    /// Throws one record away; `None` if there is none of this name.
    pub async fn drop_quarantined(&self, id: QuarantineId) -> Result<Option<Quarantined>, StoreError> {
        let Some(key) = self.find_quarantined(id)? else { return Ok(None) };
        let work = move |transaction: &mut Transaction<'_>| {
            let Some(value) = transaction.rows.get(&key)? else { return Ok(None) };
            let dropped = read_quarantined(&key, &value)?;
            forget(&mut transaction.rows, key, &value)?;
            Ok::<_, StoreError>(Some(dropped))
        };
        self.inner.writer.submit(Room::Freed, work).await
    }

    /// The row of a record that is set aside. Its name stands at the end of its key, so all are looked at: they are few.
    fn find_quarantined(&self, id: QuarantineId) -> Result<Option<Vec<u8>>, StoreError> {
        for row in self.shared().engine.scan_prefix(&[keys::QUARANTINE]) {
            let (key, _) = row?;
            if key.ends_with(id.as_bytes()) {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }
}

/// Sets a record aside, unless the limits are met or it is there already.
pub(super) fn set_aside(
    rows: &mut Overlay<'_>,
    quarantined: &Quarantined,
    limits: QuarantineLimits,
) -> Result<(), StoreError> {
    let record = &quarantined.record;
    let key = keys::quarantine(record.key, record.digest());
    if rows.contains(&key)? {
        return Ok(());
    }
    let kept = usage(rows)?.with(encoded_bytes(record));
    limits.check(kept)?;
    keep(rows, key, quarantined.encode(), kept);
    Ok(())
}

/// Puts a row of a copy back, whatever the limits are now.
pub(super) fn restore(rows: &mut Overlay<'_>, key: Vec<u8>, value: Vec<u8>, record: &Record) -> Result<(), StoreError> {
    if !rows.contains(&key)? {
        let kept = usage(rows)?.with(encoded_bytes(record));
        keep(rows, key, value, kept);
    }
    Ok(())
}

fn keep(rows: &mut Overlay<'_>, key: Vec<u8>, value: Vec<u8>, kept: QuarantineUse) {
    rows.put(key, value);
    rows.put(keys::quarantine_use(), encode_use(kept));
}

/// Removes a row that holds `value`.
pub(super) fn forget(rows: &mut Overlay<'_>, key: Vec<u8>, value: &[u8]) -> Result<(), StoreError> {
    let record = read_quarantined(&key, value)?.record;
    let kept = usage(rows)?.without(encoded_bytes(&record));
    rows.put(keys::quarantine_use(), encode_use(kept));
    rows.remove(key);
    Ok(())
}

/// Whether a version of a record is set aside: it could be let in later.
pub(super) fn is_aside(rows: &Overlay<'_>, of: RecordKey) -> Result<bool, StoreError> {
    // Asked of each record that comes in; mostly there is nothing to look through.
    if usage(rows)?.records == 0 {
        return Ok(false);
    }
    Ok(rows.any_with_prefix(&keys::quarantine_of_record(of))?.is_some())
}

/// Whether a delete of a record is set aside.
pub(super) fn is_delete_aside(rows: &Overlay<'_>, of: RecordKey) -> Result<bool, StoreError> {
    for (_, value) in rows.with_prefix(&keys::quarantine_of_record(of))? {
        if Quarantined::decode(of.bucket, &value)?.record.is_tombstone() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the rows of `q` add up to. Counted where nobody has counted them yet.
fn usage(rows: &Overlay<'_>) -> Result<QuarantineUse, StoreError> {
    if let Some(value) = rows.get(&keys::quarantine_use())? {
        return decode_use(&value);
    }
    let mut kept = QuarantineUse::default();
    for row in rows.engine().scan_prefix(&[keys::QUARANTINE]) {
        let (key, value) = row?;
        kept = kept.with(encoded_bytes(&read_quarantined(&key, &value)?.record));
    }
    Ok(kept)
}

fn encoded_bytes(record: &Record) -> u64 {
    record.encode().len() as u64
}

/// Makes what a record says an edit of now.
fn edit_anew(transaction: &mut Transaction<'_>, record: Record) -> Result<Released, ReleaseError> {
    let key = record.key;
    let before = transaction.read(key)?.map(|row| row.record);
    match record.body {
        Body::Live(fields) => {
            let fields = fields.into_iter().map(|(tag, field)| (tag, field.value)).collect();
            let after = Change::put_fields(key, fields).make(transaction)?.record;
            Ok(if before == Some(after) { Released::Superseded } else { Released::Applied })
        }
        Body::Tombstone(_) if before.as_ref().is_some_and(Record::is_tombstone) => Ok(Released::Superseded),
        Body::Tombstone(_) => {
            let stamp = {
                let mut time = transaction.time();
                if let Some(before) = &before {
                    time.observe(before.newest_stamp());
                }
                time.stamp()
            };
            transaction.put(record.deleted(stamp), None)?;
            Ok(Released::Applied)
        }
    }
}

/// Tries the rows after `from`; returns where to go on, if more may follow.
fn replay_some(transaction: &mut Transaction<'_>, from: Vec<u8>) -> Result<(Applied, Option<Vec<u8>>), StoreError> {
    let mut applied = Applied::default();
    let rows = transaction.rows.stored_after(from, &[keys::QUARANTINE], REPLAYED_AT_ONCE_MAX)?;
    let last = if rows.len() == REPLAYED_AT_ONCE_MAX { rows.last().map(|(key, _)| key.clone()) } else { None };
    for (key, value) in rows {
        let quarantined = read_quarantined(&key, &value)?;
        match receive(transaction, quarantined.from, quarantined.record)? {
            Received::Applied => applied.applied += 1,
            Received::Superseded => applied.superseded += 1,
            Received::SetAside(_) => {
                applied.quarantined += 1;
                continue;
            }
        }
        forget(&mut transaction.rows, key, &value)?;
    }
    Ok((applied, last))
}

fn read_quarantined(key: &[u8], value: &[u8]) -> Result<Quarantined, StoreError> {
    let bucket = keys::record_of(key).ok_or(StoreError::DamagedRow { what: "quarantined record" })?.bucket;
    Quarantined::decode(bucket, value)
}
