//! The record store as replication sees it: feeds, cursors, and what is received.

use std::sync::Arc;

use alexandria_sync::id::{BucketId, Epoch, NodeId, Seq};
use alexandria_sync::merge::{self, Admission};
use alexandria_sync::record::Record;
use alexandria_sync::store::{Applied, BucketHead, Cursor, Page, Peer, RecordStore};

use super::error::StoreError;
use super::keys;
use super::records::{ROWS_MAX, Records, blocking};
use super::row::{Quarantined, SetAside, decode_cursor, encode_cursor};
use super::writer::{Room, Transaction};

/// Feed rows that one page looks at, at most: rows that the reader sent itself cost reading, too.
const PAGE_ROWS_EXAMINED_MAX: usize = 10_000;
/// What a record costs in a page besides its encoding, in bytes.
const RECORD_FRAMING_BYTES: usize = 4;
/// Quarantined records that one operation of the writer tries again, at most.
const REPLAYED_AT_ONCE_MAX: usize = 256;

impl RecordStore for Records {
    type Error = StoreError;

    fn epoch(&self) -> Epoch {
        self.identity().epoch
    }

    async fn heads(&self) -> Result<Vec<BucketHead>, StoreError> {
        Ok(self.heads_now())
    }

    async fn page(&self, bucket: BucketId, after: Seq, reader: Peer, budget_bytes: u32) -> Result<Page, StoreError> {
        let head = self.shared().head(bucket);
        let records = self.clone();
        let page = blocking(move || read_page(&records, bucket, after, head, reader, budget_bytes as usize)).await?;
        self.shared().seen_is_durable().await?;
        Ok(page)
    }

    async fn cursor(&self, node: NodeId, bucket: BucketId) -> Result<Option<Cursor>, StoreError> {
        let value = self.shared().engine.get(&keys::cursor(node, bucket))?;
        self.shared().seen_is_durable().await?;
        value.map(|value| decode_cursor(&value)).transpose()
    }

    async fn apply(
        &self,
        from: Peer,
        bucket: BucketId,
        records: Vec<Record>,
        next: Seq,
    ) -> Result<Applied, StoreError> {
        self.apply_as_selected(None, from, bucket, records, next).await
    }
}

impl Records {
    /// [`RecordStore::apply`], unless something else was selected since `version`.
    pub(crate) async fn apply_as_selected(
        &self,
        version: Option<u64>,
        from: Peer,
        bucket: BucketId,
        records: Vec<Record>,
        next: Seq,
    ) -> Result<Applied, StoreError> {
        let shared = Arc::clone(&self.inner.shared);
        let work = move |transaction: &mut Transaction<'_>| {
            // Decided by the writer: no choice comes between this look and the page.
            if version.is_some_and(|version| version != *shared.selection.borrow()) {
                return Err(StoreError::SelectionChanged);
            }
            let mut applied = Applied::default();
            for record in records {
                match receive(transaction, from, record)? {
                    Received::Applied => applied.applied += 1,
                    Received::Superseded => applied.superseded += 1,
                    Received::SetAside(quarantined) => {
                        let record = &quarantined.record;
                        transaction.rows.put(keys::quarantine(record.key, record.digest()), quarantined.encode());
                        applied.quarantined += 1;
                    }
                }
            }
            let cursor = Cursor { epoch: from.epoch, seq: next };
            transaction.rows.put(keys::cursor(from.node, bucket), encode_cursor(cursor));
            Ok(applied)
        };
        self.inner.writer.submit(Room::Needed, work).await
    }

    /// The records set aside, at most [`ROWS_MAX`].
    pub fn quarantined(&self) -> Result<Vec<Quarantined>, StoreError> {
        let rows = self.shared().engine.scan_prefix(&[keys::QUARANTINE]).take(ROWS_MAX);
        rows.map(|row| row.map_err(StoreError::from).and_then(|(key, value)| read_quarantined(&key, &value))).collect()
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
}

fn read_page(
    records: &Records,
    bucket: BucketId,
    after: Seq,
    head: Seq,
    reader: Peer,
    budget_bytes: usize,
) -> Result<Page, StoreError> {
    let mut page = Page { records: Vec::new(), next: after, more: false };
    let mut size_bytes = 0;
    for (examined, row) in records.shared().feed_rows(bucket, after, head).enumerate() {
        let (seq, row) = row?;
        let row = row.filter(|row| row.arrived_from != Some(reader));
        if let Some(row) = row {
            size_bytes += row.record.encode().len() + RECORD_FRAMING_BYTES;
            if !page.records.is_empty() && size_bytes > budget_bytes {
                page.more = true;
                return Ok(page);
            }
            page.records.push(row.record);
        }
        page.next = seq;
        if examined + 1 == PAGE_ROWS_EXAMINED_MAX {
            page.more = seq < head;
            return Ok(page);
        }
    }
    // All rows up to the head were seen, also those that have moved on.
    page.next = after.max(head);
    Ok(page)
}

enum Received {
    Applied,
    Superseded,
    SetAside(Quarantined),
}

fn receive(transaction: &mut Transaction<'_>, from: Peer, record: Record) -> Result<Received, StoreError> {
    let held = transaction.read(record.key)?.map(|row| row.record);
    let clock = transaction.time().receiver();
    let set_aside = |record: Record, reason: SetAside| {
        Ok(Received::SetAside(Quarantined { record, from, received_unix_ms: clock.unix_ms, reason }))
    };
    match merge::admit(held, record.clone(), clock) {
        Admission::Quarantine(reason) => set_aside(record, reason.into()),
        Admission::Superseded { .. } => {
            transaction.time().observe(record.newest_stamp());
            Ok(Received::Superseded)
        }
        // Each half was within the limits; the two together could not be read back here, nor sent on.
        Admission::Apply { record: merged, .. } if merged.check_size().is_err() => {
            set_aside(record, SetAside::TooLarge)
        }
        Admission::Apply { record: merged, equals_received } => {
            transaction.time().observe(record.newest_stamp());
            transaction.put(merged, equals_received.then_some(from))?;
            Ok(Received::Applied)
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
        transaction.rows.remove(key);
    }
    Ok((applied, last))
}

fn read_quarantined(key: &[u8], value: &[u8]) -> Result<Quarantined, StoreError> {
    let bucket = keys::record_of(key).ok_or(StoreError::DamagedRow { what: "quarantined record" })?.bucket;
    Quarantined::decode(bucket, value)
}
