//! The record store as replication sees it: feeds, cursors, and what is received.

use std::sync::Arc;

use alexandria_sync::absence::Standing;
use alexandria_sync::id::{BucketId, Epoch, NodeId, Seq};
use alexandria_sync::lineage::{Moment, Remembered, Told};
use alexandria_sync::merge::{self, Admission};
use alexandria_sync::record::Record;
use alexandria_sync::store::{Applied, BucketHead, Cursor, Page, Peer, RecordStore};

use super::absence::{self, held_back};
use super::erase;
use super::error::StoreError;
use super::keys;
use super::lineage;
use super::quarantine;
use super::records::{Records, blocking};
use super::row::{Quarantined, SetAside, decode_cursor, encode_cursor};
use super::writer::{Room, Transaction};

/// Feed rows that one page looks at, at most: rows that the reader sent itself cost reading, too.
const PAGE_ROWS_EXAMINED_MAX: usize = 10_000;
/// What a record costs in a page besides its encoding, in bytes.
const RECORD_FRAMING_BYTES: usize = 4;

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
        let applied = self.apply_as_selected(None, from, bucket, records, next, Told::Nothing).await?;
        Ok(applied.unwrap_or_default())
    }

    async fn apply_told(
        &self,
        from: Peer,
        bucket: BucketId,
        records: Vec<Record>,
        next: Seq,
        told: Told,
    ) -> Result<Option<Applied>, StoreError> {
        self.apply_as_selected(None, from, bucket, records, next, told).await
    }

    async fn moment(&self) -> Result<Option<Moment>, StoreError> {
        self.moment_now().await
    }

    async fn remembered(&self, of: NodeId) -> Result<Vec<Remembered>, StoreError> {
        self.remembered_of(of).await
    }

    async fn recall(&self, by: NodeId, remembered: Vec<Remembered>) -> Result<bool, StoreError> {
        self.recall_by(by, remembered).await
    }

    async fn meet(&self, peer: Peer, standing: Standing) -> Result<(), StoreError> {
        self.note_standing(peer, standing).await
    }

    async fn note_given(&self, at_ms: Option<u64>) -> Result<(), StoreError> {
        self.note_given_away(at_ms).await
    }

    async fn caught_up(&self, with: Peer, standing: Standing, has: Option<Vec<BucketHead>>) -> Result<(), StoreError> {
        self.note_caught_up(with, standing, has).await
    }
}

impl Records {
    /// [`RecordStore::apply_told`], unless something else was selected since `version`.
    pub(crate) async fn apply_as_selected(
        &self,
        version: Option<u64>,
        from: Peer,
        bucket: BucketId,
        records: Vec<Record>,
        next: Seq,
        told: Told,
    ) -> Result<Option<Applied>, StoreError> {
        let shared = Arc::clone(&self.inner.shared);
        let limits = self.shared().quarantine_limits;
        let work = move |transaction: &mut Transaction<'_>| {
            // Decided by the writer: no choice comes between this look and the page.
            if version.is_some_and(|version| version != *shared.selection.borrow()) {
                return Err(StoreError::SelectionChanged);
            }
            if !lineage::note(&mut transaction.rows, from.node, from.epoch, &told)? {
                return Ok(None);
            }
            let confirms = absence::confirms(&transaction.rows, from.node)?;
            let mut applied = Applied::default();
            for record in records {
                if confirms {
                    absence::confirm(&mut transaction.rows, record.key);
                }
                let is_held_back = transaction.rows.contains(&keys::held_back(record.key))?;
                let theirs = is_held_back.then(|| record.clone());
                let received = receive(transaction, from, record)?;
                if let Some(theirs) = theirs {
                    held_back::no_longer(transaction, from, &theirs, &received)?;
                }
                match received {
                    Received::Applied => applied.applied += 1,
                    Received::Superseded => applied.superseded += 1,
                    Received::SetAside(quarantined) => {
                        if confirms && quarantined.record.is_tombstone() {
                            absence::hold_back_deleted(&mut transaction.rows, &shared, quarantined.record.key)?;
                        }
                        quarantine::set_aside(&mut transaction.rows, &quarantined, limits)?;
                        applied.quarantined += 1;
                    }
                }
            }
            let cursor = Cursor { epoch: from.epoch, seq: next };
            transaction.rows.put(keys::cursor(from.node, bucket), encode_cursor(cursor));
            Ok(Some(applied))
        };
        self.inner.writer.submit(Room::Needed, work).await
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
    let holds_back = records.shared().engine.scan_prefix(&[keys::HELD_BACK]).next().transpose()?.is_some();
    let mut size_bytes = 0;
    for (examined, row) in records.shared().feed_rows(bucket, after, head).enumerate() {
        let (seq, row) = row?;
        let mut row = row.filter(|row| row.arrived_from != Some(reader));
        if holds_back
            && let Some(here) = &row
            && records.shared().engine.contains(&keys::held_back(here.record.key))?
        {
            row = None;
        }
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

/// What became of a received record.
pub(super) enum Received {
    Applied,
    Superseded,
    /// It is to be set aside.
    SetAside(Quarantined),
}

/// Merges one received record, or says why it has to be set aside.
pub(super) fn receive(transaction: &mut Transaction<'_>, from: Peer, record: Record) -> Result<Received, StoreError> {
    // Of what was erased nothing is kept, not even set aside.
    let overtaken = erase::overtaken(&transaction.rows, &record)?;
    let is_overtaken = overtaken.is_some();
    let record = overtaken.unwrap_or(record);
    let held = transaction.read(record.key)?.map(|row| row.record);
    let clock = transaction.time().receiver();
    let set_aside = |record: Record, reason: SetAside| {
        Ok(Received::SetAside(Quarantined { record, from, received_unix_ms: clock.unix_ms, reason }))
    };
    let admission = if is_overtaken {
        merge::admit_unjudged(held, record.clone())
    } else {
        merge::admit(held, record.clone(), clock)
    };
    match admission {
        Admission::Quarantine(reason) => set_aside(record, reason.into()),
        Admission::Buried => Ok(Received::Superseded),
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
            // A delete may go to anybody.
            let held_back = keys::held_back(merged.key);
            if merged.is_tombstone() && transaction.rows.contains(&held_back)? {
                transaction.rows.remove(held_back);
            }
            // Who sent it may have given it up since, and was told that it is here when it was set aside.
            let was_set_aside = quarantine::is_aside(&transaction.rows, merged.key)?;
            transaction.put(merged, (equals_received && !is_overtaken && !was_set_aside).then_some(from))?;
            Ok(Received::Applied)
        }
    }
}
