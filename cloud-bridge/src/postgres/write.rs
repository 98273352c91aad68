//! Writing: the one transaction through which every change goes, whether a peer sent it or an operator made it.
//!
//! Its order is what keeps feeds whole and writers apart:
//! 1. lock the bucket against erasures (`erase`), then the versions held, in the order of their keys;
//! 2. decide (merge, or edit);
//! 3. the cursor, the typed tables, the quarantine, the outbox;
//! 4. lock the bucket's sequencer, number the rows, write them; the same once more for what follows from an erasure;
//!    commit.
//!
//! Two writers that both bring a record which neither finds here meet in step 4: the second sees that it lost and
//! starts over, now with a version to merge with.

use std::collections::{BTreeMap, BTreeSet};

use alexandria_sync::domain::{Erasure, Typed};
use alexandria_sync::erase::{Order, overtaken};
use alexandria_sync::id::{BucketId, NodeId, RecordId, Seq};
use alexandria_sync::lineage::Told;
use alexandria_sync::merge::{Admission, QuarantineReason, admit, admit_unjudged};
use alexandria_sync::record::{Kind, Record};
use alexandria_sync::store::{Applied, Peer};
use sqlx::PgConnection;
use uuid::Uuid;

use super::buckets::bucket_no;
use super::intake::are_many;
use super::words::Words;
use super::{RecordStoreError, Records, erase, lineage, quarantine, tables};
use crate::events::outbox;

/// Tries of one transaction against other writers, at most.
const ATTEMPTS_MAX: u32 = 8;
/// Changes that go over in one statement, at most.
const CHANGES_AT_ONCE: usize = 2_000;
/// PostgreSQL's codes for a transaction that another one was in the way of.
const SERIALIZATION_FAILURE: &str = "40001";
const DEADLOCK_DETECTED: &str = "40P01";

/// The versions of some records that are held here, locked until the transaction ends.
pub type Held = BTreeMap<(Kind, RecordId), Record>;

/// What an operator's edit decided.
#[derive(Debug, Default)]
pub struct Edit<T> {
    /// The new versions to store.
    pub records: Vec<Record>,
    /// What to tell the caller.
    pub answer: T,
}

/// Why an edit was not made.
#[derive(Debug, thiserror::Error)]
pub enum EditError<E> {
    /// It was decided against.
    #[error(transparent)]
    Refused(E),
    /// The store could not do it.
    #[error(transparent)]
    Store(RecordStoreError),
}

impl<E, S: Into<RecordStoreError>> From<S> for EditError<E> {
    fn from(error: S) -> Self {
        Self::Store(error.into())
    }
}

/// What a page says besides its records.
pub(super) struct Page {
    /// Where the feed has then been read to.
    next: Seq,
    told: Told,
}

/// How changes are written.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// Whether the outbox tells of them.
    pub(super) announced: bool,
    /// When they can be searched.
    pub(super) words: Words,
}

/// One record that is about to be stored.
pub(crate) struct Change {
    /// The version held before, if any.
    pub(crate) before: Option<Record>,
    /// The version to hold.
    pub(crate) after: Record,
    /// Who sent exactly this version, if anyone did.
    arrived: Option<Peer>,
}

impl Change {
    /// A change that follows from others.
    pub(super) fn made_here(before: Option<Record>, after: Record) -> Self {
        Self { before, after, arrived: None }
    }

    /// The node that sent exactly this version, if one did.
    pub(crate) fn arrived_from(&self) -> Option<NodeId> {
        self.arrived.map(|peer| peer.node)
    }
}

impl Records {
    /// See [`alexandria_sync::store::RecordStore::apply`].
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away, or the page is not what it says.
    pub async fn apply(
        &self,
        from: Peer,
        bucket: BucketId,
        records: Vec<Record>,
        next: Seq,
    ) -> Result<Applied, RecordStoreError> {
        let applied = self.apply_told(from, bucket, records, next, Told::Nothing).await?;
        Ok(applied.unwrap_or_default())
    }

    /// See [`alexandria_sync::store::RecordStore::apply_told`].
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away, or the page is not what it says.
    pub async fn apply_told(
        &self,
        from: Peer,
        bucket: BucketId,
        records: Vec<Record>,
        next: Seq,
        told: Told,
    ) -> Result<Option<Applied>, RecordStoreError> {
        let _taken_in = self.shared.intake.begin(records.len());
        let page = Page { next, told };
        let applied = self.receive(from, bucket, &records, Some(&page)).await.inspect_err(|error| {
            if let RecordStoreError::QuarantineFull { .. } = error {
                self.metrics().quarantine_full.inc();
            }
        })?;
        let Some(applied) = applied else { return Ok(None) };
        self.metrics().records_applied.inc_by(applied.applied.into());
        self.metrics().records_superseded.inc_by(applied.superseded.into());
        self.metrics().records_quarantined.inc_by(applied.quarantined.into());
        Ok(Some(applied))
    }

    /// Merges what a peer sent, in a page or again after it was set aside; `None` if the page may not be taken.
    pub(super) async fn receive(
        &self,
        from: Peer,
        bucket: BucketId,
        records: &[Record],
        page: Option<&Page>,
    ) -> Result<Option<Applied>, RecordStoreError> {
        if let Some(foreign) = records.iter().find(|record| record.key.bucket != bucket) {
            return Err(RecordStoreError::ForeignRecord { expected: bucket, found: foreign.key.bucket });
        }
        // Nothing is to be kept of a bucket that nobody has written to, but for what the page tells of its sender.
        if records.is_empty() && bucket_no(self.pool(), bucket).await?.is_none() {
            let mut tx = self.pool().begin().await?;
            if let Some(page) = page
                && !lineage::note(&mut tx, from, &page.told).await?
            {
                return Ok(None);
            }
            tx.commit().await?;
            return Ok(Some(Applied::default()));
        }
        let bucket_no = self.bucket_no(bucket, Some(from.node)).await?;
        for _ in 0..ATTEMPTS_MAX {
            match self.receive_once(from, (bucket, bucket_no), records, page).await {
                Err(error) if is_collision(&error) => {}
                outcome => return outcome,
            }
        }
        Err(RecordStoreError::Contention(ATTEMPTS_MAX))
    }

    async fn receive_once(
        &self,
        from: Peer,
        (bucket, bucket_no): (BucketId, i32),
        records: &[Record],
        page: Option<&Page>,
    ) -> Result<Option<Applied>, RecordStoreError> {
        let mut tx = self.pool().begin().await?;
        if let Some(page) = page
            && !lineage::note(&mut tx, from, &page.told).await?
        {
            return Ok(None);
        }
        erase::lock(&mut tx, bucket_no, records.iter().map(|record| record.key.kind)).await?;
        let keys = records.iter().map(|record| (record.key.kind, record.key.id));
        let held = lock_held(&mut tx, (bucket, bucket_no), keys).await?;
        let orders = erase::orders_for(&mut tx, (bucket, bucket_no), records).await?;
        let aside = quarantine::aside_of(&mut tx, bucket_no, records).await?;
        let decided = self.decide(from, (&held, &aside), records, &orders);
        let limits = self.shared.quarantine_limits;
        quarantine::set_aside(&mut tx, bucket_no, from.node, &decided.quarantined, limits).await?;
        if let Some(page) = page {
            move_cursor(&mut tx, from, bucket_no, page.next).await?;
        }
        let words = if are_many(records.len()) { Words::Later } else { Words::Now };
        self.store_and_erase(&mut tx, (bucket, bucket_no), &decided.changes, words).await?;
        tx.commit().await?;
        if !decided.changes.is_empty() {
            self.rang_records();
            self.ring_events();
        }
        Ok(Some(decided.applied))
    }

    /// Stores changes, and does what follows from the erasures among them.
    async fn store_and_erase(
        &self,
        tx: &mut PgConnection,
        bucket: (BucketId, i32),
        changes: &[Change],
        words: Words,
    ) -> Result<(), RecordStoreError> {
        let announced = self.shared.announced;
        store(tx, bucket, changes, Manner { announced, words }).await?;
        let after = changes.iter().map(|change| &change.after);
        let erasures: Vec<Record> = after.filter(|record| record.key.kind == Erasure::KIND).cloned().collect();
        if !erasures.is_empty() {
            erase::carry_out(tx, bucket, erasures, announced).await?;
            // Content that nothing names any more is seen to at once.
            self.shared.erased.notify_one();
        }
        Ok(())
    }

    fn decide(
        &self,
        from: Peer,
        (held, aside): (&Held, &BTreeSet<(Kind, RecordId)>),
        records: &[Record],
        orders: &[Order],
    ) -> Decided {
        let clock = self.clock();
        let mut decided = Decided::default();
        // A peer may send one record twice in a page; the later version meets the earlier one here.
        let mut changed: BTreeMap<(Kind, RecordId), usize> = BTreeMap::new();
        for received in records {
            // Of what was erased nothing is kept, not even set aside.
            let overtaken = orders.iter().find_map(|order| overtaken(received, order));
            let record = overtaken.as_ref().unwrap_or(received);
            let key = (record.key.kind, record.key.id);
            let before = held.get(&key);
            let present = changed.get(&key).map(|&at| &decided.changes[at].after).or(before);
            let admission = match &overtaken {
                Some(tombstone) => admit_unjudged(present.cloned(), tombstone.clone()),
                None => admit(present.cloned(), received.clone(), clock),
            };
            match admission {
                Admission::Apply { record: after, equals_received } => {
                    decided.applied.applied += 1;
                    // Who sent it may have given it up since, and was told that it is here when it was set aside.
                    let is_as_sent = equals_received && overtaken.is_none() && !aside.contains(&key);
                    let arrived = is_as_sent.then_some(from);
                    let change = Change { before: before.cloned(), after, arrived };
                    if let Some(&at) = changed.get(&key) {
                        decided.changes[at] = change;
                    } else {
                        changed.insert(key, decided.changes.len());
                        decided.changes.push(change);
                    }
                }
                Admission::Superseded { .. } | Admission::Buried => decided.applied.superseded += 1,
                Admission::Quarantine(reason) => {
                    decided.applied.quarantined += 1;
                    decided.quarantined.push((record.clone(), reason));
                }
            }
        }
        decided
    }

    /// Changes records of one bucket by hand: `decide` gets those of `keys` that are held, locked, and says what to
    /// store. It may be asked again if another writer was faster.
    ///
    /// # Errors
    ///
    /// What `decide` refused with, or the store's own trouble; nothing was changed then.
    pub async fn edit<T, E>(
        &self,
        bucket: BucketId,
        keys: &[(Kind, RecordId)],
        mut decide: impl FnMut(&Held) -> Result<Edit<T>, E> + Send,
    ) -> Result<T, EditError<E>> {
        let bucket_no = self.bucket_no(bucket, None).await?;
        for _ in 0..ATTEMPTS_MAX {
            let mut tx = self.pool().begin().await?;
            erase::lock(&mut tx, bucket_no, keys.iter().map(|(kind, _)| *kind)).await?;
            let held = match lock_held(&mut tx, (bucket, bucket_no), keys.iter().copied()).await {
                Err(error) if is_collision(&error) => continue,
                held => held?,
            };
            let edit = decide(&held).map_err(EditError::Refused)?;
            if edit.records.is_empty() {
                return Ok(edit.answer);
            }
            let orders = erase::orders_for(&mut tx, (bucket, bucket_no), &edit.records).await?;
            let mut changes = Vec::with_capacity(edit.records.len());
            for after in edit.records {
                let after = orders.iter().find_map(|order| overtaken(&after, order)).unwrap_or(after);
                after.check_size()?;
                let before = held.get(&(after.key.kind, after.key.id)).cloned();
                changes.push(Change { before, after, arrived: None });
            }
            match self.store_and_erase(&mut tx, (bucket, bucket_no), &changes, Words::Now).await {
                Err(error) if is_collision(&error) => continue,
                stored => stored?,
            }
            tx.commit().await?;
            self.rang_records();
            self.ring_events();
            return Ok(edit.answer);
        }
        Err(RecordStoreError::Contention(ATTEMPTS_MAX).into())
    }
}

#[derive(Default)]
struct Decided {
    changes: Vec<Change>,
    quarantined: Vec<(Record, QuarantineReason)>,
    applied: Applied,
}

pub(super) async fn lock_held(
    tx: &mut PgConnection,
    (bucket, bucket_no): (BucketId, i32),
    keys: impl Iterator<Item = (Kind, RecordId)>,
) -> Result<Held, RecordStoreError> {
    let (kinds, ids): (Vec<i32>, Vec<Uuid>) = keys.map(|(kind, id)| (i32::from(kind.0), uuid(id))).unzip();
    let rows: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT record.encoding FROM record \
         JOIN unnest($2::integer[], $3::uuid[]) AS key (kind, id) ON record.kind = key.kind AND record.id = key.id \
         WHERE record.bucket_no = $1 ORDER BY record.kind, record.id FOR UPDATE OF record",
    )
    .bind(bucket_no)
    .bind(kinds)
    .bind(ids)
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|encoding| {
            let record =
                Record::decode(bucket, &encoding).map_err(|source| RecordStoreError::Damaged { bucket, source })?;
            Ok(((record.key.kind, record.key.id), record))
        })
        .collect()
}

/// Moves the cursor forward; a session that lags behind another one of the same peer does not move it back.
async fn move_cursor(tx: &mut PgConnection, from: Peer, bucket_no: i32, next: Seq) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO cursor (node, bucket_no, epoch, seq) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (node, bucket_no) DO UPDATE SET epoch = excluded.epoch, \
            seq = CASE WHEN cursor.epoch = excluded.epoch THEN greatest(cursor.seq, excluded.seq) ELSE excluded.seq END",
    )
    .bind(Uuid::from_bytes(*from.node.as_bytes()))
    .bind(bucket_no)
    .bind(from.epoch.0 as i64)
    .bind(next.0 as i64)
    .execute(tx)
    .await?;
    Ok(())
}

/// Steps 3 and 4 for what is to be stored.
pub(super) async fn store(
    tx: &mut PgConnection,
    (bucket, bucket_no): (BucketId, i32),
    changes: &[Change],
    manner: Manner,
) -> Result<(), RecordStoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut later = changes.chunks(CHANGES_AT_ONCE);
    let mut next = later.next().map(|changes| Prepared::of(bucket, changes, manner));
    while let Some(prepared) = next.take() {
        // PostgreSQL is busy with these while the next are made ready.
        let written = prepared.write(tx, bucket_no);
        let made = async { later.next().map(|changes| Prepared::of(bucket, changes, manner)) };
        let (written, made) = futures::join!(written, made);
        written?;
        next = made;
    }
    tables::count_openings(tx, changes).await?;
    erase::note_unnamed(tx, bucket_no, changes).await?;
    let head: i64 = sqlx::query_scalar("UPDATE bucket SET head = head + $2 WHERE no = $1 RETURNING head")
        .bind(bucket_no)
        .bind(changes.len() as i64)
        .fetch_one(&mut *tx)
        .await?;
    let first = head - changes.len() as i64 + 1;
    let mut numbered = first..;
    for changes in changes.chunks(CHANGES_AT_ONCE) {
        let (mut new, mut old) = (Rows::default(), Rows::default());
        for (change, seq) in changes.iter().zip(&mut numbered) {
            if change.before.is_some() { old.push(seq, change) } else { new.push(seq, change) }
        }
        new.insert(tx, bucket_no).await?;
        old.update(tx, bucket_no).await?;
    }
    Ok(())
}

/// What is written of some changes besides their records.
struct Prepared {
    rows: tables::Projection,
    words: Words,
    events: Option<outbox::Rows>,
}

impl Prepared {
    fn of(bucket: BucketId, changes: &[Change], Manner { announced, words }: Manner) -> Self {
        let shown: Vec<_> = changes.iter().map(|change| tables::typed_json(&change.after)).collect();
        let rows = tables::Projection::of(changes, &shown);
        Self { rows, words, events: announced.then(|| outbox::Rows::of_changes(bucket, changes, shown)) }
    }

    async fn write(self, tx: &mut PgConnection, bucket_no: i32) -> Result<(), sqlx::Error> {
        self.rows.write(tx, bucket_no, self.words).await?;
        match self.events {
            Some(events) => events.insert(tx).await,
            None => Ok(()),
        }
    }
}

/// Rows of the feed, column by column, as PostgreSQL takes many at once.
#[derive(Default)]
struct Rows {
    kinds: Vec<i32>,
    ids: Vec<Uuid>,
    seqs: Vec<i64>,
    arrived_from: Vec<Option<Uuid>>,
    arrived_epoch: Vec<Option<i64>>,
    deleted: Vec<bool>,
    newest_stamps_ms: Vec<i64>,
    encodings: Vec<Vec<u8>>,
}

impl Rows {
    fn push(&mut self, seq: i64, change: &Change) {
        let record = &change.after;
        self.kinds.push(record.key.kind.0.into());
        self.ids.push(uuid(record.key.id));
        self.seqs.push(seq);
        self.arrived_from.push(change.arrived.map(|peer| Uuid::from_bytes(*peer.node.as_bytes())));
        self.arrived_epoch.push(change.arrived.map(|peer| peer.epoch.0 as i64));
        self.deleted.push(record.is_tombstone());
        self.newest_stamps_ms.push(record.newest_stamp().time.unix_ms() as i64);
        self.encodings.push(record.encode());
    }

    async fn insert(self, tx: &mut PgConnection, bucket_no: i32) -> Result<(), sqlx::Error> {
        let statement = "INSERT INTO record (bucket_no, kind, id, seq, arrived_from, arrived_epoch, deleted, \
                newest_stamp_ms, encoding) \
             SELECT $1, * FROM unnest($2::integer[], $3::uuid[], $4::bigint[], $5::uuid[], $6::bigint[], \
                $7::boolean[], $8::bigint[], $9::bytea[]) \
             ON CONFLICT (bucket_no, kind, id) DO NOTHING";
        self.run(tx, bucket_no, statement).await
    }

    async fn update(self, tx: &mut PgConnection, bucket_no: i32) -> Result<(), sqlx::Error> {
        let statement = "UPDATE record SET seq = new.seq, arrived_from = new.arrived_from, \
                arrived_epoch = new.arrived_epoch, deleted = new.deleted, newest_stamp_ms = new.newest_stamp_ms, \
                encoding = new.encoding \
             FROM unnest($2::integer[], $3::uuid[], $4::bigint[], $5::uuid[], $6::bigint[], $7::boolean[], \
                $8::bigint[], $9::bytea[]) \
                AS new (kind, id, seq, arrived_from, arrived_epoch, deleted, newest_stamp_ms, encoding) \
             WHERE record.bucket_no = $1 AND record.kind = new.kind AND record.id = new.id";
        self.run(tx, bucket_no, statement).await
    }

    async fn run(self, tx: &mut PgConnection, bucket_no: i32, statement: &'static str) -> Result<(), sqlx::Error> {
        let expected = self.ids.len() as u64;
        if expected == 0 {
            return Ok(());
        }
        let done = sqlx::query(statement)
            .bind(bucket_no)
            .bind(self.kinds)
            .bind(self.ids)
            .bind(self.seqs)
            .bind(self.arrived_from)
            .bind(self.arrived_epoch)
            .bind(self.deleted)
            .bind(self.newest_stamps_ms)
            .bind(self.encodings)
            .execute(tx)
            .await?;
        if done.rows_affected() == expected { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
    }
}

/// Whether another writer was in the way, so that the same transaction may well succeed now.
fn is_collision(error: &RecordStoreError) -> bool {
    match error {
        // `Rows::run`: a row that was not there a moment ago is there now.
        RecordStoreError::Database(sqlx::Error::RowNotFound) => true,
        RecordStoreError::Database(sqlx::Error::Database(error)) => {
            matches!(error.code().as_deref(), Some(SERIALIZATION_FAILURE | DEADLOCK_DETECTED))
        }
        _ => false,
    }
}

fn uuid(id: RecordId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}
