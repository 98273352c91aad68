//! A record store in memory that crashes: a log of batches is what is durable, tables are what it says.
//!
//! A batch holds all changes of one step (a local write, a page with its cursor) and counts only if it is sealed: a torn one
//! at the end of the log is cut off on recovery. [`Sabotage`] breaks one promise at a time, to see its check fail.

mod evict;
mod lineage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::absence::{Absence, FIRST_LIFE, Leased};
use super::seeded::Seeded;
use super::{Sabotage, erase};
use crate::absence::Standing;
use crate::hlc::{Clock, ClockQuality, DRIFT_BOUND_MS, HlcTime, Stamp};
use crate::id::{BucketId, Epoch, Incarnation, NodeId, Seq};
use crate::lineage::{Lineage, Moment, Remembered, Told, remember};
use crate::merge::{Admission, ReceiverClock, admit, admit_unjudged};
use crate::record::{Body, FieldTag, Record, RecordKey};
use crate::store::{Applied, BucketHead, Cursor, Page, Peer, RecordStore};

/// No clock starts before this: 2026-01-01, in milliseconds since 1970.
pub const BUILD_DATE_UNIX_MS: u64 = 1_767_225_600_000;
/// Fields of this number and up are unknown to an old replica.
pub const UNKNOWN_FIELDS_FROM: u32 = 900;

/// There is no room on the disk. Nothing was changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the disk is full")]
pub struct Full;

/// Records in memory.
#[derive(Debug)]
pub struct SimRecords {
    inner: Mutex<Inner>,
    pub(super) leased: Leased,
}

/// What was durable at one moment; a card that was copied.
#[derive(Clone, Debug)]
pub struct RecordsCopy(Vec<Batch>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) node: NodeId,
    pub(super) log: Vec<Batch>,
    pub(super) tables: Tables,
    pub(super) clock: Clock,
    pub(super) now: ReceiverClock,
    pub(super) sabotage: Option<Sabotage>,
    /// Batches at the end of the log that only look durable; none unless sabotaged.
    pub(super) unsynced: usize,
    /// There is room for deletes only.
    pub(super) full: bool,
    /// The present opening of a store that keeps a lineage, and the lives that have begun in it.
    start: Option<u64>,
    lives: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    pub(super) sealed: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Life(Incarnation, Epoch),
    Lineage(Box<Lineage>),
    Remember(NodeId, Vec<Remembered>),
    /// Peers will pass over rows that they were not given.
    Withhold,
    Put {
        bucket: BucketId,
        bytes: Arc<[u8]>,
        origin: Option<Peer>,
    },
    Cursor(NodeId, BucketId, Cursor),
    Evict(BucketId),
    EvictRows(Vec<RecordKey>),
    /// A version that was set aside is forgotten.
    ForgetVersion(Box<Record>),
    ForgetCursors(BucketId),
    Quarantine {
        bucket: BucketId,
        bytes: Arc<[u8]>,
    },
    EmptyQuarantine,
    /// Versions of a record, and of what is about it, are no longer kept aside.
    ForgetAside(RecordKey),
    PendingErasure(RecordKey),
    SettledErasures,
    Clock(HlcTime),
    /// How long absences stand now.
    Absence(Box<Absence>),
    /// The bridge has this record, or it was made here, while all is read anew.
    Confirm(RecordKey),
    HoldBack(RecordKey),
    NoLongerHeldBack(RecordKey),
    ForgetAllCursors,
    /// A record leaves without a tombstone.
    Forget(RecordKey),
    /// All that was before, written anew.
    Whole(Box<Tables>),
}

impl Change {
    pub(super) fn contains(&self, wanted: &[u8]) -> bool {
        let has = |bytes: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
        match self {
            Self::Put { bytes, .. } | Self::Quarantine { bytes, .. } => has(bytes),
            Self::Whole(tables) => {
                let held = tables.records.values().map(|row| &row.record);
                held.chain(&tables.quarantine).any(|record| has(&record.encode()))
            }
            _ => false,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    pub(super) incarnation: Incarnation,
    epoch: Epoch,
    pub(super) records: BTreeMap<RecordKey, Row>,
    feeds: BTreeMap<BucketId, BTreeMap<Seq, RecordKey>>,
    heads: BTreeMap<BucketId, Seq>,
    cursors: BTreeMap<(NodeId, BucketId), Cursor>,
    pub(super) quarantine: Vec<Record>,
    pub(super) former: erase::Former,
    pub(super) pending_erasures: BTreeSet<RecordKey>,
    pub(super) absence: Absence,
    lineage: Option<Lineage>,
    remembered: BTreeMap<NodeId, Vec<Remembered>>,
    /// How often rows were held back.
    withheld: u64,
    clock: HlcTime,
    keep_old_rows: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) record: Record,
    pub(super) seq: Seq,
    pub(super) origin: Option<Peer>,
}

impl Tables {
    fn recover(log: &[Batch], sabotage: Option<Sabotage>) -> Self {
        let mut tables = Self { keep_old_rows: sabotage == Some(Sabotage::OldFeedRowsStay), ..Self::default() };
        for batch in log.iter().filter(|batch| batch.sealed || sabotage == Some(Sabotage::TornBatchesCount)) {
            for change in &batch.changes {
                tables.change(change.clone());
            }
        }
        tables
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Life(incarnation, epoch) => (self.incarnation, self.epoch) = (incarnation, epoch),
            Change::Lineage(lineage) => self.lineage = Some(*lineage),
            Change::Withhold => self.withheld += 1,
            Change::Remember(node, remembered) => {
                self.remembered.insert(node, remembered);
            }
            Change::Put { bucket, bytes, origin } => {
                let record = Record::decode(bucket, &bytes).expect("the log holds what was encoded");
                let head = self.heads.entry(bucket).or_default();
                *head = head.next();
                let seq = *head;
                let feed = self.feeds.entry(bucket).or_default();
                feed.insert(seq, record.key);
                let before = self.records.get(&record.key);
                erase::note_unnamed(&mut self.former, before.map(|row| &row.record), &record);
                if let Some(before) = self.records.insert(record.key, Row { record, seq, origin })
                    && !self.keep_old_rows
                {
                    feed.remove(&before.seq);
                }
            }
            Change::Cursor(node, bucket, cursor) => {
                self.cursors.insert((node, bucket), cursor);
            }
            Change::Evict(bucket) => self.evict(bucket),
            Change::EvictRows(keys) => self.evict_rows(&keys),
            Change::ForgetVersion(version) => self.forget_version(&version),
            Change::ForgetCursors(bucket) => self.forget_cursors(bucket),
            Change::Quarantine { bucket, bytes } => {
                let record = Record::decode(bucket, &bytes).expect("the log holds what was encoded");
                self.quarantine.push(record);
            }
            Change::EmptyQuarantine => self.quarantine.clear(),
            // A tombstone says nothing but its stamp, which the bucket still needs.
            Change::ForgetAside(target) => {
                self.quarantine.retain(|version| version.is_tombstone() || !erase::is_about(version, target));
            }
            Change::PendingErasure(erasure) => {
                self.pending_erasures.insert(erasure);
            }
            Change::SettledErasures => self.pending_erasures.clear(),
            Change::Clock(last) => self.clock = last,
            Change::Absence(absence) => self.absence = *absence,
            Change::Confirm(key) => {
                self.absence.confirmed.insert(key);
            }
            Change::HoldBack(key) => {
                self.absence.held_back.insert(key);
            }
            Change::NoLongerHeldBack(key) => {
                self.absence.held_back.remove(&key);
            }
            Change::ForgetAllCursors => self.cursors.clear(),
            Change::Forget(key) => {
                if let Some(row) = self.records.remove(&key)
                    && let Some(feed) = self.feeds.get_mut(&key.bucket)
                {
                    feed.remove(&row.seq);
                }
            }
            Change::Whole(tables) => *self = Self { keep_old_rows: self.keep_old_rows, ..*tables },
        }
    }
}

impl SimRecords {
    /// An empty store of `node`.
    pub fn new(node: NodeId, epoch: Epoch, sabotage: Option<Sabotage>) -> Self {
        let life = Batch { changes: vec![Change::Life(FIRST_LIFE, epoch)], sealed: true };
        Self { inner: Mutex::new(Inner::recover(node, vec![life], sabotage)), leased: Leased::default() }
    }

    /// The latest time that was stamped or seen, in milliseconds since 1970; a write for which there was no room has one, too.
    pub(super) fn latest_ms(&self) -> u64 {
        self.lock().clock.last().unix_ms()
    }

    /// Sets the clock by which records are stamped and judged.
    pub fn set_clock(&self, unix_ms: u64, quality: ClockQuality) {
        let mut inner = self.lock();
        inner.now = ReceiverClock { unix_ms, quality, drift_bound_ms: DRIFT_BOUND_MS };
        inner.clock.set_quality(quality);
    }

    /// Fills the disk up, but for what deletes need, or makes room again.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Whether there is room for deletes only.
    pub fn is_full(&self) -> bool {
        self.lock().full
    }

    /// As [`Self::try_write`], on a disk that has room.
    pub fn write(&self, key: RecordKey, edit: impl FnOnce(Option<&Record>, Stamp) -> Option<Record>) -> Option<Record> {
        self.try_write(key, edit).expect("the disk was not filled up")
    }

    /// Writes what `edit` makes of the record held and a new stamp; durable, and returned, unless it makes nothing.
    ///
    /// # Errors
    ///
    /// [`Full`] if there is no room, and it is not a delete.
    pub fn try_write(
        &self,
        key: RecordKey,
        edit: impl FnOnce(Option<&Record>, Stamp) -> Option<Record>,
    ) -> Result<Option<Record>, Full> {
        let mut inner = self.lock();
        let now = inner.now.unix_ms;
        let stamp = inner.clock.stamp(now);
        let held = inner.tables.records.get(&key).map(|row| &row.record);
        let is_new = held.is_none();
        let Some(record) = edit(held, stamp) else { return Ok(None) };
        if inner.full && (!record.is_tombstone() || inner.sabotage == Some(Sabotage::FullDiskRefusesDeletes)) {
            return Err(Full);
        }
        let bytes = record.encode().into();
        let mut changes =
            vec![Change::Put { bucket: key.bucket, bytes, origin: None }, Change::Clock(inner.clock.last())];
        if is_new && inner.tables.absence.reads_anew() {
            changes.push(Change::Confirm(key));
        }
        inner.commit(changes);
        Ok(Some(record))
    }

    /// Everything held, tombstones too, in order of keys.
    pub fn all(&self) -> Vec<Record> {
        self.lock().tables.records.values().map(|row| row.record.clone()).collect()
    }

    /// Looks at everything held, in order of keys.
    pub fn for_each(&self, mut look: impl FnMut(&Record)) {
        for row in self.lock().tables.records.values() {
            look(&row.record);
        }
    }

    /// One record.
    pub fn get(&self, key: RecordKey) -> Option<Record> {
        self.lock().tables.records.get(&key).map(|row| row.record.clone())
    }

    /// Which life of the store's data this is.
    pub fn incarnation(&self) -> Incarnation {
        self.lock().tables.incarnation
    }

    /// Records set aside, with buckets in their keys.
    pub fn quarantined(&self) -> Vec<Record> {
        self.lock().tables.quarantine.clone()
    }

    /// The rows of one bucket's feed: number, record.
    pub fn feed(&self, bucket: BucketId) -> Vec<(Seq, Record)> {
        let inner = self.lock();
        let Some(feed) = inner.tables.feeds.get(&bucket) else { return Vec::new() };
        feed.iter().map(|(&seq, key)| (seq, inner.tables.records[key].record.clone())).collect()
    }

    /// The last row of one bucket's feed.
    pub(super) fn head(&self, bucket: BucketId) -> Seq {
        self.lock().tables.heads.get(&bucket).copied().unwrap_or_default()
    }

    /// Every cursor into the feeds of peers.
    pub fn cursors(&self) -> Vec<(NodeId, BucketId, Cursor)> {
        self.lock().tables.cursors.iter().map(|(&(node, bucket), &cursor)| (node, bucket, cursor)).collect()
    }

    /// What is wrong between records and feeds (invariant 5), if anything.
    pub fn feed_fault(&self) -> Option<String> {
        let inner = self.lock();
        let rows: usize = inner.tables.feeds.values().map(BTreeMap::len).sum();
        if rows != inner.tables.records.len() {
            return Some(format!("{rows} feed rows for {} records", inner.tables.records.len()));
        }
        inner.tables.records.iter().find_map(|(key, row)| {
            let named = inner.tables.feeds.get(&key.bucket).and_then(|feed| feed.get(&row.seq));
            (named != Some(key)).then(|| format!("row {} of {} does not name {key:?}", row.seq.0, key.bucket))
        })
    }

    /// How long what was set aside has to wait until some of it is admitted, in milliseconds, as far as only the time
    /// stands in the way.
    pub fn quarantine_waits_ms(&self) -> Option<u64> {
        let inner = self.lock();
        let bound_ms = inner.now.unix_ms + inner.now.drift_bound_ms;
        let stamps = inner.tables.quarantine.iter().map(|record| record.newest_stamp().time.unix_ms());
        stamps.min().map(|earliest_ms| earliest_ms.saturating_sub(bound_ms))
    }

    /// Merges what was set aside and may now be admitted. Returns the buckets that changed.
    pub fn replay_quarantine(&self) -> Vec<BucketId> {
        let mut inner = self.lock();
        if inner.full || inner.sabotage == Some(Sabotage::QuarantineIsForgotten) {
            return Vec::new();
        }
        let waiting = inner.tables.quarantine.clone();
        let mut changes = vec![Change::EmptyQuarantine];
        let before = inner.tables.heads.clone();
        inner.admit_all(waiting, None, &mut changes);
        inner.commit(changes);
        let grown = |(bucket, head): (&BucketId, &Seq)| (before.get(bucket) != Some(head)).then_some(*bucket);
        inner.tables.heads.iter().filter_map(grown).collect()
    }

    /// What is durable now.
    pub fn copy(&self) -> RecordsCopy {
        RecordsCopy(self.lock().log.clone())
    }

    /// Goes back to `copy`, as a new life with new feeds.
    pub fn restore(&self, copy: RecordsCopy, epoch: Epoch) {
        let mut inner = self.lock();
        let (now, full, start) = (inner.now, inner.full, inner.start);
        *inner = Inner::recover(inner.node, copy.0, inner.sabotage);
        (inner.now, inner.full, inner.start) = (now, full, start);
        let incarnation = Incarnation(inner.tables.incarnation.0 + epoch.0 as u32);
        let changes = inner.new_life(incarnation, epoch);
        inner.commit(changes);
        inner.unsynced = 0;
        inner.clock = inner.fresh_clock();
    }

    /// Batches that were written.
    pub(super) fn batches(&self) -> usize {
        self.lock().log.len()
    }

    /// Power goes while the last batch is being written: only its beginning is on the disk. Follow with [`Self::crash`].
    pub fn tear_last_batch(&self, rng: &mut Seeded) {
        if let Some(batch) = self.lock().log.last_mut() {
            batch.changes.truncate(rng.below(batch.changes.len() as u64) as usize);
            batch.sealed = false;
        }
    }

    /// Loses power and comes back with what is durable.
    pub fn crash(&self, rng: &mut Seeded) {
        let mut inner = self.lock();
        let lost = rng.below(inner.unsynced as u64 + 1) as usize;
        let mut log = std::mem::take(&mut inner.log);
        log.truncate(log.len() - lost);
        let (now, full) = (inner.now, inner.full);
        *inner = Inner::recover(inner.node, log, inner.sabotage);
        (inner.now, inner.full) = (now, full);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn recover(node: NodeId, mut log: Vec<Batch>, sabotage: Option<Sabotage>) -> Self {
        let tables = Tables::recover(&log, sabotage);
        log.retain(|batch| batch.sealed || sabotage == Some(Sabotage::TornBatchesCount));
        let now = ReceiverClock {
            unix_ms: BUILD_DATE_UNIX_MS,
            quality: ClockQuality::Untrusted,
            drift_bound_ms: DRIFT_BOUND_MS,
        };
        let clock = Clock::new(node, tables.incarnation, now.quality, tables.clock);
        let mut inner =
            Self { node, log, tables, clock, now, sabotage, unsynced: 0, full: false, start: None, lives: 0 };
        inner.clock = inner.fresh_clock();
        inner
    }

    fn fresh_clock(&self) -> Clock {
        let floor = self.tables.clock.max(HlcTime::from_unix_ms(BUILD_DATE_UNIX_MS));
        Clock::new(self.node, self.stamping(), self.now.quality, floor)
    }

    pub(super) fn heads(&self) -> Vec<BucketHead> {
        self.tables.heads.iter().map(|(&bucket, &head)| BucketHead { bucket, head }).collect()
    }

    pub(super) fn commit(&mut self, changes: Vec<Change>) {
        for change in &changes {
            self.tables.change(change.clone());
        }
        let mut batches = vec![changes];
        if self.sabotage == Some(Sabotage::CursorBeforePage) {
            let (cursors, rest) =
                batches.remove(0).into_iter().partition(|change| matches!(change, Change::Cursor(..)));
            batches = vec![cursors, rest];
        }
        for changes in batches.into_iter().filter(|changes| !changes.is_empty()) {
            self.log.push(Batch { changes, sealed: true });
        }
        self.unsynced = match self.sabotage {
            // The cursor was made durable, the page was not.
            Some(Sabotage::CursorBeforePage) => 1,
            Some(Sabotage::AckBeforeDurable) => self.unsynced + 1,
            _ => 0,
        };
    }

    pub(super) fn admit_all(
        &mut self,
        received: Vec<Record>,
        from: Option<Peer>,
        changes: &mut Vec<Change>,
    ) -> Applied {
        let mut applied = Applied::default();
        let mut joined = erase::Joined::default();
        let lives_elsewhere = from.is_some();
        for record in received {
            // What an erasure has made of it is not what the sender has.
            let overtaken = self.overtaken(&record, &joined);
            let is_overtaken = overtaken.is_some();
            let from = from.filter(|_| !is_overtaken);
            let record = overtaken.unwrap_or(record);
            let key = record.key;
            let stamp = record.newest_stamp();
            let held =
                joined.records.get(&key).or_else(|| self.tables.records.get(&key).map(|row| &row.record)).cloned();
            let admission = if is_overtaken {
                admit_unjudged(held.clone(), record.clone())
            } else {
                self.sabotaged(held.clone(), record.clone())
            };
            if lives_elsewhere {
                self.hold_back_no_longer(&record, held.as_ref(), (&admission, from), changes);
            }
            if matches!(admission, Admission::Apply { .. } | Admission::Superseded { .. }) {
                self.clock.observe(stamp);
            }
            match admission {
                Admission::Apply { record, equals_received } => {
                    applied.applied += 1;
                    // Who sent it may have given it up since, and was told that it is here when it was set aside.
                    let was_set_aside = self.tables.quarantine.iter().any(|version| version.key == key);
                    let origin = from.filter(|_| equals_received && !was_set_aside);
                    let bytes = record.encode().into();
                    joined.insert(held.as_ref(), record.clone());
                    changes.push(Change::Put { bucket: key.bucket, bytes, origin });
                    // A delete may go to anybody.
                    if record.is_tombstone() {
                        changes.push(Change::NoLongerHeldBack(key));
                    }
                    self.carry_out_erasure(record, &mut joined, changes);
                }
                Admission::Superseded { .. } | Admission::Buried => applied.superseded += 1,
                Admission::Quarantine(_) if self.sabotage == Some(Sabotage::QuarantinedIsDropped) => {}
                Admission::Quarantine(_) => {
                    applied.quarantined += 1;
                    if lives_elsewhere && self.deletes_unseen(&record, held.as_ref()) {
                        changes.extend([Change::Withhold, Change::HoldBack(key)]);
                    }
                    changes.push(Change::Quarantine { bucket: key.bucket, bytes: record.encode().into() });
                }
            }
        }
        changes.push(Change::Clock(self.clock.last()));
        applied
    }

    /// What `merge::admit` says, or what a store would do that broke a promise.
    fn sabotaged(&self, held: Option<Record>, mut received: Record) -> Admission {
        match self.sabotage {
            Some(Sabotage::BoundIsIgnored) => {
                admit(held, received, ReceiverClock { quality: ClockQuality::Untrusted, ..self.now })
            }
            Some(Sabotage::LastArrivalWins) if held.as_ref() != Some(&received) => {
                Admission::Apply { record: received, equals_received: true }
            }
            Some(Sabotage::TombstonesAreForgotten) if held.as_ref().is_some_and(Record::is_tombstone) => {
                admit(None, received, self.now)
            }
            Some(Sabotage::UnknownFieldsAreDropped) => {
                if let Body::Live(fields) = &mut received.body
                    && fields.len() > 1
                {
                    fields.retain(|tag, _| *tag < FieldTag::lww(UNKNOWN_FIELDS_FROM));
                }
                admit(held, received, self.now)
            }
            _ => admit(held, received, self.now),
        }
    }
}

impl RecordStore for SimRecords {
    type Error = Full;

    fn epoch(&self) -> Epoch {
        self.lock().tables.epoch
    }

    async fn heads(&self) -> Result<Vec<BucketHead>, Full> {
        Ok(self.lock().heads())
    }

    async fn page(&self, bucket: BucketId, after: Seq, reader: Peer, budget_bytes: u32) -> Result<Page, Full> {
        let inner = self.lock();
        if inner.full && inner.sabotage == Some(Sabotage::FullDiskRefusesReads) {
            return Err(Full);
        }
        let mut page = Page { records: Vec::new(), next: after, more: false };
        let Some(feed) = inner.tables.feeds.get(&bucket) else { return Ok(page) };
        let mut bytes = 0;
        for (&seq, key) in feed.range(after.next()..) {
            let row = &inner.tables.records[key];
            let is_kept_back = inner.sabotage == Some(Sabotage::NodesPassNothingOn) && row.origin.is_some()
                || inner.tables.absence.held_back.contains(key);
            if is_kept_back {
                page.next = seq;
                continue;
            }
            if row.origin != Some(reader) || inner.sabotage == Some(Sabotage::EverythingIsEchoed) {
                bytes += row.record.encode().len();
                if bytes > budget_bytes as usize && !page.records.is_empty() {
                    page.more = true;
                    return Ok(page);
                }
                page.records.push(row.record.clone());
            }
            page.next = seq;
        }
        Ok(page)
    }

    async fn cursor(&self, node: NodeId, bucket: BucketId) -> Result<Option<Cursor>, Full> {
        Ok(self.lock().tables.cursors.get(&(node, bucket)).copied())
    }

    async fn apply(&self, from: Peer, bucket: BucketId, records: Vec<Record>, next: Seq) -> Result<Applied, Full> {
        let applied = self.apply_told(from, bucket, records, next, Told::Nothing).await?;
        Ok(applied.expect("nothing was told that could be refused"))
    }

    async fn apply_told(
        &self,
        from: Peer,
        bucket: BucketId,
        records: Vec<Record>,
        next: Seq,
        told: Told,
    ) -> Result<Option<Applied>, Full> {
        let mut inner = self.lock();
        if inner.full {
            return Err(Full);
        }
        let mut changes = Vec::new();
        if told != Told::Nothing {
            let mut remembered = inner.tables.remembered.get(&from.node).cloned().unwrap_or_default();
            if !remember(&mut remembered, from.epoch, &told) && inner.sabotage != Some(Sabotage::CopiesAreMixed) {
                return Ok(None);
            }
            changes.push(Change::Remember(from.node, remembered));
        }
        if !inner.take_page(self.leased.get(), from.node, &records, &mut changes) {
            return Err(Full);
        }
        changes.push(Change::Cursor(from.node, bucket, Cursor { epoch: from.epoch, seq: next }));
        let applied = inner.admit_all(records, Some(from), &mut changes);
        inner.commit(changes);
        Ok(Some(applied))
    }

    async fn moment(&self) -> Result<Option<Moment>, Full> {
        let inner = self.lock();
        Ok(inner.tables.lineage.as_ref().and_then(|lineage| lineage.moment(inner.rows())))
    }

    async fn remembered(&self, of: NodeId) -> Result<Vec<Remembered>, Full> {
        Ok(self.remembers(of))
    }

    async fn recall(&self, by: NodeId, remembered: Vec<Remembered>) -> Result<bool, Full> {
        let knows_nobody = self.knows_nobody();
        Ok(self.lock().recall(by, &remembered, knows_nobody))
    }

    async fn meet(&self, peer: Peer, standing: Standing) -> Result<(), Full> {
        self.note_standing(peer, standing);
        Ok(())
    }

    async fn note_given(&self, at_ms: Option<u64>) -> Result<(), Full> {
        self.note_given_away(at_ms);
        Ok(())
    }

    async fn caught_up(&self, with: Peer, standing: Standing, has: Option<Vec<BucketHead>>) -> Result<(), Full> {
        self.note_caught_up(with, standing, has.as_deref());
        Ok(())
    }
}
