//! The local face of the record store: read, list, change, watch.
//!
//! Reads answer at once from the engine and may show a change a moment before it is durable; what is told to peers
//! waits (see `replication`). Changes go through the writer and return when they are durable.

use std::ops::Bound;
use std::sync::Arc;

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::hlc::ClockQuality;
use alexandria_sync::id::{BucketId, RecordId, Seq};
use alexandria_sync::quarantine::QuarantineUse;
use alexandria_sync::record::{Kind, Record, RecordKey};
use alexandria_sync::store::BucketHead;
use tokio::sync::broadcast;

use super::change::Change;
use super::compact::Space;
use super::engine::{Direction, end_of_prefix};
use super::error::{ChangeError, StoreError};
use super::keys::{self, KeyReader};
use super::meta::Identity;
use super::row::{RecordRow, Totals, decode_feed, decode_number};
use super::tables::{self, FROM_LEFT, FROM_RIGHT};
use super::writer::{Room, Shared, Writer};

/// Rows that one call returns, at most.
pub const ROWS_MAX: usize = 1000;

/// A version of a record, as an entity tag: equal for equal content on every replica.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Version([u8; 16]);

impl Version {
    /// The version of `record`.
    pub fn of(record: &Record) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&record.digest()[..16]);
        Self(bytes)
    }

    /// The version with exactly these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A stored record.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// What it says.
    pub record: Record,
    /// Its row in the feed of its bucket.
    pub seq: Seq,
}

impl Stored {
    /// Its version, to be given back with an edit.
    pub fn version(&self) -> Version {
        Version::of(&self.record)
    }
}

impl From<RecordRow> for Stored {
    fn from(row: RecordRow) -> Self {
        Self { record: row.record, seq: row.seq }
    }
}

/// From which end of a link to look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// From the first: from the medium to its authors.
    Left,
    /// From the second: from the author to their media.
    Right,
}

/// Figures about the record store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordStats {
    /// Records of each kind.
    pub kinds: Vec<(Kind, Totals)>,
    /// What is set aside.
    pub quarantined: QuarantineUse,
    /// What it takes on the disk.
    pub space: Space,
    /// Operations that wait to be written.
    pub queued: usize,
}

/// The records of one node. Clones are handles on the same store.
#[derive(Clone)]
pub struct Records {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    // Dropped in this order: the writer ends before the engine closes.
    pub(super) writer: Writer,
    pub(super) shared: Arc<Shared>,
}

impl Records {
    pub(super) fn start(shared: Shared, last_commit: u64) -> std::io::Result<Self> {
        let shared = Arc::new(shared);
        let writer = Writer::start(Arc::clone(&shared), last_commit)?;
        Ok(Self { inner: Arc::new(Inner { writer, shared }) })
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// Whose store this is, and in which life.
    pub fn identity(&self) -> Identity {
        self.shared().identity()
    }

    /// Now, as well as it is known here, in milliseconds since 1970.
    pub fn now_unix_ms(&self) -> u64 {
        self.shared().time().now_unix_ms()
    }

    /// How good that is.
    pub fn clock_quality(&self) -> ClockQuality {
        self.shared().time().quality()
    }

    /// Takes over a time that was signed by the bridge or given by the operator. Then call
    /// [`Self::replay_quarantine`].
    pub fn set_trusted_time(&self, unix_ms: u64) {
        self.shared().time().set_trusted(unix_ms);
    }

    /// The record with this key, deleted or not.
    pub fn get(&self, key: RecordKey) -> Result<Option<Stored>, StoreError> {
        let value = self.shared().engine.get(&keys::record(key))?;
        value.map(|value| RecordRow::decode(key.bucket, &value).map(Stored::from)).transpose()
    }

    /// The record with this id in whichever bucket has it; a deleted one only if none is alive.
    pub fn find(&self, kind: Kind, id: RecordId) -> Result<Option<Stored>, StoreError> {
        let mut deleted = None;
        for row in self.shared().engine.scan_prefix(&keys::ids(kind, id)) {
            let (row, _) = row?;
            let key = tables::record_of_id_row(&row).ok_or(StoreError::DamagedRow { what: "id row" })?;
            match self.get(key)? {
                Some(stored) if !stored.record.is_tombstone() => return Ok(Some(stored)),
                stored => deleted = deleted.or(stored),
            }
        }
        Ok(deleted)
    }

    /// Makes all of `changes`, or none, and returns the records as they then are, in order.
    pub async fn change(&self, changes: Vec<Change>) -> Result<Vec<Stored>, ChangeError> {
        let room = if changes.iter().all(Change::is_delete) { Room::Freed } else { Room::Needed };
        let work = |transaction: &mut super::writer::Transaction<'_>| {
            changes.into_iter().map(|change| change.make(transaction)).collect()
        };
        self.inner.writer.submit(room, work).await
    }

    /// Makes one change.
    pub async fn change_one(&self, change: Change) -> Result<Stored, ChangeError> {
        let key = change.key();
        self.change(vec![change]).await?.pop().ok_or(ChangeError::NotFound(key))
    }

    /// How often something was opened, at all sites that this one hears of.
    pub fn popularity(&self, id: RecordId) -> Result<u64, StoreError> {
        self.shared().engine.get(&keys::count(id))?.map_or(Ok(0), |value| decode_number(&value))
    }

    /// What is linked to `end` by links of `kind` that stand, in id order after `after`.
    pub fn links(
        &self,
        kind: Kind,
        side: Side,
        end: RecordId,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Vec<RecordId>, StoreError> {
        let side = match side {
            Side::Left => FROM_LEFT,
            Side::Right => FROM_RIGHT,
        };
        let prefix = keys::links(kind, side, end);
        let from = match after {
            // Past all rows of `after`, in whatever bucket they are.
            Some(after) => match end_of_prefix(&[prefix.as_slice(), after.as_bytes()].concat()) {
                Bound::Excluded(next) => Bound::Included(next),
                other => other,
            },
            None => Bound::Included(prefix.clone()),
        };
        let mut linked: Vec<RecordId> = Vec::new();
        for row in self.shared().engine.scan(from, end_of_prefix(&prefix), Direction::Ascending) {
            let (row, _) = row?;
            let other = row.get(prefix.len()..).and_then(|rest| rest.first_chunk().copied());
            let other = other.map(RecordId::from_bytes).ok_or(StoreError::DamagedRow { what: "link" })?;
            if linked.last() == Some(&other) {
                continue;
            }
            if linked.len() == limit.min(ROWS_MAX) {
                break;
            }
            linked.push(other);
        }
        Ok(linked)
    }

    /// The records that name a blob, at most [`ROWS_MAX`].
    pub fn references(&self, blob: BlobHash) -> Result<Vec<RecordKey>, StoreError> {
        let mut references = Vec::new();
        for row in self.shared().engine.scan_prefix(&keys::references(blob)).take(ROWS_MAX) {
            references.push(keys::reference_of(&row?.0).ok_or(StoreError::DamagedRow { what: "blob reference" })?);
        }
        Ok(references)
    }

    /// Every bucket with its durable head.
    pub fn heads_now(&self) -> Vec<BucketHead> {
        self.shared().heads().into_iter().map(|(bucket, head)| BucketHead { bucket, head }).collect()
    }

    /// The latest state of what changed in `bucket` after `after`, in order of change; only what is durable.
    pub async fn changes_since(&self, bucket: BucketId, after: Seq, limit: usize) -> Result<Vec<Stored>, StoreError> {
        let head = self.shared().head(bucket);
        let records = self.clone();
        let changed = blocking(move || {
            let mut changed = Vec::new();
            for row in records.shared().feed_rows(bucket, after, head) {
                if changed.len() == limit.min(ROWS_MAX) {
                    break;
                }
                changed.extend(row?.1.map(Stored::from));
            }
            Ok(changed)
        });
        let changed = changed.await?;
        self.shared().seen_is_durable().await?;
        Ok(changed)
    }

    /// Hears of every bucket whose durable head moves. Who lags too far behind asks for all heads again.
    pub fn subscribe(&self) -> broadcast::Receiver<BucketHead> {
        self.shared().changes()
    }

    /// Figures for the operator.
    pub fn stats(&self) -> Result<RecordStats, StoreError> {
        let engine = &self.shared().engine;
        let mut kinds = Vec::new();
        for row in engine.scan_prefix(&[keys::TOTALS]) {
            let (key, value) = row?;
            let kind = KeyReader::new(&key).kind().ok_or(StoreError::DamagedRow { what: "total" })?;
            kinds.push((kind, Totals::decode(&value)?));
        }
        Ok(RecordStats {
            kinds,
            quarantined: self.quarantine_use()?,
            space: self.space()?,
            queued: self.inner.writer.queued(),
        })
    }

    /// Why nothing can be written any more, if so: a failed write or damage found while reading.
    pub fn read_only(&self) -> Option<String> {
        let damaged = || self.shared().engine.is_damaged().then(|| "damage was found".to_owned());
        self.shared().failed().map(|reason| reason.to_string()).or_else(damaged)
    }
}

impl Shared {
    /// The feed of `bucket` after `after` and up to `until`: each row's place, and the record whose present place it
    /// is. `None` where a record moves on while this runs: it comes again at its new place.
    pub(super) fn feed_rows(
        &self,
        bucket: BucketId,
        after: Seq,
        until: Seq,
    ) -> impl Iterator<Item = Result<(Seq, Option<RecordRow>), StoreError>> + '_ {
        let from = Bound::Excluded(keys::feed(bucket, after));
        let until = Bound::Included(keys::feed(bucket, until));
        self.engine.scan(from, until, Direction::Ascending).map(move |row| {
            let (key, value) = row?;
            let (kind, id) = decode_feed(&value)?;
            let seq = key.last_chunk().map(|bytes| Seq(u64::from_be_bytes(*bytes)));
            let seq = seq.ok_or(StoreError::DamagedRow { what: "feed row" })?;
            let stored = self.engine.get(&keys::record(RecordKey { bucket, kind, id }))?;
            let row = stored.map(|value| RecordRow::decode(bucket, &value)).transpose()?;
            Ok((seq, row.filter(|row| row.seq == seq)))
        })
    }
}

/// Runs what reads many rows away from the threads that serve connections.
pub(super) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    // Fails only if `read` panicked or the runtime is being shut down.
    tokio::task::spawn_blocking(read).await.unwrap_or(Err(StoreError::Closed))
}
