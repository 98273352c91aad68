//! Looks whether the tree is what its tables say: the engine can lose rows without a word.

use std::collections::BTreeMap;

use alexandria_sync::id::Seq;
use alexandria_sync::record::{Kind, RecordKey};

use super::engine::Engine;
use super::error::StoreError;
use super::keys::{self, KeyReader};
use super::records::{Records, blocking};
use super::row::{RecordRow, Totals, decode_feed};
use super::writer::{Room, Transaction};

/// Rows that are looked at in one operation of the writer.
const ROWS_AT_ONCE: usize = 500;

/// What a verification of the records found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RecordsReport {
    /// Records that were read.
    pub records: u64,
    /// Records without a feed row, feed rows without a record, and rows that cannot be read.
    pub mismatches: u64,
    /// Kinds whose count is not the number of their records.
    pub wrong_totals: u64,
}

impl RecordsReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.mismatches == 0 && self.wrong_totals == 0
    }
}

impl Records {
    /// Reads all records and all feeds (invariant 5). If they do not fit together, the store stops writing and is rebuilt
    /// when it is next opened.
    ///
    /// It works between writes, a few hundred rows at a time, so that nothing moves under it.
    pub async fn verify(&self) -> Result<RecordsReport, StoreError> {
        let mut report = RecordsReport::default();
        let mut after = Some(vec![keys::RECORD]);
        while let Some(from) = after.take() {
            let step = move |transaction: &mut Transaction<'_>| check_records(transaction, from);
            let (step, last) = self.inner.writer.submit::<_, StoreError>(Room::Freed, step).await?;
            report.records += step.records;
            report.mismatches += step.mismatches;
            after = last;
        }
        let mut after = Some(vec![keys::FEED]);
        while let Some(from) = after.take() {
            let step = move |transaction: &mut Transaction<'_>| check_feed(transaction, from);
            let (mismatches, last) = self.inner.writer.submit::<_, StoreError>(Room::Freed, step).await?;
            report.mismatches += mismatches;
            after = last;
        }
        report.wrong_totals = self.wrong_totals().await?;
        if !report.is_sound() {
            self.shared().engine.note_damage();
            tracing::error!(?report, "the record store does not hold what it should; it is rebuilt at the next start");
        }
        Ok(report)
    }

    /// Counts beside the writer first; what seems wrong because of a write in between is counted again between writes.
    async fn wrong_totals(&self) -> Result<u64, StoreError> {
        let records = self.clone();
        if blocking(move || count_wrong_totals(&records.shared().engine)).await? == 0 {
            return Ok(0);
        }
        let count = |transaction: &mut Transaction<'_>| count_wrong_totals(transaction.rows.engine());
        self.inner.writer.submit(Room::Freed, count).await
    }
}

fn count_wrong_totals(engine: &Engine) -> Result<u64, StoreError> {
    let mut counted: BTreeMap<Kind, (u64, u64)> = BTreeMap::new();
    for row in engine.scan_prefix(&[keys::ID]) {
        let (key, deleted) = row?;
        let kind = KeyReader::new(&key).kind().ok_or(StoreError::DamagedRow { what: "id row" })?;
        let (live, tombstones) = counted.entry(kind).or_default();
        *(if deleted == [1] { tombstones } else { live }) += 1;
    }
    let mut wrong = 0;
    for row in engine.scan_prefix(&[keys::TOTALS]) {
        let (key, value) = row?;
        let kind = KeyReader::new(&key).kind().ok_or(StoreError::DamagedRow { what: "total" })?;
        let totals = Totals::decode(&value)?;
        wrong += u64::from(counted.remove(&kind).unwrap_or_default() != (totals.live, totals.deleted));
    }
    Ok(wrong + counted.len() as u64)
}

type Step<T> = Result<(T, Option<Vec<u8>>), StoreError>;

fn check_records(transaction: &mut Transaction<'_>, from: Vec<u8>) -> Step<RecordsReport> {
    let mut report = RecordsReport::default();
    let rows = transaction.rows.stored_after(from, &[keys::RECORD], ROWS_AT_ONCE)?;
    for (key, value) in &rows {
        let row = keys::record_of(key).and_then(|of| RecordRow::decode(of.bucket, value).ok());
        let Some(row) = row else {
            report.mismatches += 1;
            continue;
        };
        let feed = transaction.rows.get(&keys::feed(row.record.key.bucket, row.seq))?;
        let feed = feed.and_then(|value| decode_feed(&value).ok());
        let known = transaction.rows.contains(&keys::id(row.record.key))?;
        report.records += 1;
        report.mismatches += u64::from(!known || feed != Some((row.record.key.kind, row.record.key.id)));
    }
    Ok((report, rows.last().map(|(key, _)| key.clone())))
}

fn check_feed(transaction: &mut Transaction<'_>, from: Vec<u8>) -> Step<u64> {
    let mut mismatches = 0;
    let rows = transaction.rows.stored_after(from, &[keys::FEED], ROWS_AT_ONCE)?;
    for (key, value) in &rows {
        let mut at = KeyReader::new(key);
        let place = at.bucket().zip(at.number().map(Seq)).zip(decode_feed(value).ok());
        let seq = match place {
            Some(((bucket, _), (kind, id))) => transaction.read(RecordKey { bucket, kind, id })?.map(|row| row.seq),
            None => None,
        };
        mismatches += u64::from(seq.is_none() || seq != place.map(|((_, seq), _)| seq));
    }
    Ok((mismatches, rows.last().map(|(key, _)| key.clone())))
}
