//! The right to be forgotten, in PostgreSQL. What follows from an erasure is decided in `alexandria_sync::erase`; here it
//! is written, in the transaction that brings the erasure, whoever sent it.
//!
//! - The rows of the erased record, of what is about it, and of versions that were set aside, hold nothing of it when the
//!   transaction ends. Events that were not published yet say only that it was erased.
//! - Its content goes from S3 right after (`content::erase`).
//! - Erasures have their bucket to themselves ([`lock`]), so that nothing about an erased record slips in beside them.
//!
//! Who has to tell that it is done, and who has, is in [`obligations`].
//!
//! What PostgreSQL keeps of replaced rows until it vacuums, its WAL and its backups, is in docs/adr/0012-erase.md.

pub mod obligations;

use std::collections::{BTreeMap, BTreeSet};

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Annotation, Blob, Erasure, Media, Typed, kind_name};
use alexandria_sync::erase::{self, Order};
use alexandria_sync::hlc::Stamp;
use alexandria_sync::id::{BucketId, RecordId};
use alexandria_sync::merge::merge;
use alexandria_sync::record::{Kind, Record, RecordKey};
use futures::TryStreamExt;
use sqlx::PgConnection;
use uuid::Uuid;

use super::words::Words;
use super::write::{self, Change, Edit, EditError};
use super::{RecordStoreError, Records};
use crate::events::outbox;

/// Says what the advisory locks of buckets are for, among all that a database may have.
const LOCK_CLASS: i32 = 0x0a1e_0001;

/// Why a record was not erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The fleet has never heard of it.
    #[error("there is no record {0} here, not even a deleted one")]
    NotFound(RecordId),
    /// Content goes with the record that names it; erasures stay.
    #[error("a record of this kind cannot be erased: erase the record that it belongs to")]
    NotErasable,
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] RecordStoreError),
}

impl From<sqlx::Error> for EraseError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Records {
    /// Erases a record here and wherever its bucket goes; returns what orders it.
    ///
    /// # Errors
    ///
    /// [`EraseError`].
    pub async fn erase(&self, kind: Kind, id: RecordId) -> Result<Vec<RecordKey>, EraseError> {
        if !erase::is_erasable(kind) {
            return Err(EraseError::NotErasable);
        }
        let names: Vec<String> = sqlx::query_scalar(
            // Of a record whose tombstone was forgotten it may still be known what it named.
            // In each bucket by its key: they are fewer than the records.
            "SELECT bucket.name FROM bucket WHERE \
                (SELECT true FROM record WHERE bucket_no = bucket.no AND kind = $1 AND id = $2 LIMIT 1) \
                OR (SELECT true FROM unnamed_blob WHERE bucket_no = bucket.no AND kind = $1 AND id = $2 LIMIT 1) \
             ORDER BY bucket.name",
        )
        .bind(i32::from(kind.0))
        .bind(uuid(id))
        .fetch_all(self.pool())
        .await?;
        let mut ordered = Vec::new();
        for name in names {
            let bucket: BucketId =
                name.parse().map_err(|_| RecordStoreError::Malformed { table: "bucket", value: name })?;
            let target = RecordKey { bucket, kind, id };
            let bucket_no = self.bucket_no(bucket, None).await?;
            let mut connection = self.pool().acquire().await?;
            let versions = versions_about(&mut connection, bucket_no, target).await?;
            if versions.is_empty() {
                // Ordered before, and nothing has come since.
                let known: Vec<Uuid> =
                    sqlx::query_scalar("SELECT id FROM erasure WHERE bucket_no = $1 AND kind = $2 AND record = $3")
                        .bind(bucket_no)
                        .bind(i64::from(kind.0))
                        .bind(uuid(id))
                        .fetch_all(&mut *connection)
                        .await?;
                let key_of = |id| RecordKey { bucket, kind: Erasure::KIND, id: record_id(id) };
                if !known.is_empty() {
                    ordered.extend(known.into_iter().map(key_of));
                    continue;
                }
            }
            let earlier = unnamed_by(&mut connection, bucket_no, target).await?;
            drop(connection);
            let blobs: BTreeSet<BlobHash> = versions.iter().flat_map(erase::blobs_named).chain(earlier).collect();
            let stamp = self.identity().stamp_above(Stamp::default());
            let orders = Order::records(target, &blobs, stamp);
            let keys: Vec<_> = orders.iter().map(|order| (order.key.kind, order.key.id)).collect();
            ordered.extend(orders.iter().map(|order| order.key));
            let written = self.edit(bucket, &keys, |held| {
                let new = orders.iter().filter(|order| !held.contains_key(&(order.key.kind, order.key.id)));
                Ok::<_, EraseError>(Edit { records: new.cloned().collect(), answer: () })
            });
            match written.await {
                Ok(()) => {}
                Err(EditError::Refused(error)) => return Err(error),
                Err(EditError::Store(error)) => return Err(error.into()),
            }
        }
        if ordered.is_empty() { Err(EraseError::NotFound(id)) } else { Ok(ordered) }
    }
}

/// Keeps erasures of a bucket and all other writes to it apart until the transaction ends. First of all locks.
pub(super) async fn lock(
    tx: &mut PgConnection,
    bucket_no: i32,
    mut kinds: impl Iterator<Item = Kind>,
) -> Result<(), sqlx::Error> {
    let statement = if kinds.any(|kind| kind == Erasure::KIND) {
        "SELECT pg_advisory_xact_lock($1, $2)"
    } else {
        "SELECT pg_advisory_xact_lock_shared($1, $2)"
    };
    sqlx::query(statement).bind(LOCK_CLASS).bind(bucket_no).execute(tx).await?;
    Ok(())
}

/// The erasures that may overtake some of `records`: those of their subjects.
pub(super) async fn orders_for(
    tx: &mut PgConnection,
    (bucket, bucket_no): (BucketId, i32),
    records: &[Record],
) -> Result<Vec<Order>, RecordStoreError> {
    let subjects: Vec<Uuid> = records.iter().filter_map(erase::subject).map(|subject| uuid(subject.id)).collect();
    if subjects.is_empty() {
        return Ok(Vec::new());
    }
    let encodings: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT record.encoding FROM erasure \
         JOIN record ON record.bucket_no = erasure.bucket_no AND record.kind = $3 AND record.id = erasure.id \
         WHERE erasure.bucket_no = $1 AND erasure.record = ANY ($2)",
    )
    .bind(bucket_no)
    .bind(subjects)
    .bind(i32::from(Erasure::KIND.0))
    .fetch_all(tx)
    .await?;
    let orders = decode_all(bucket, encodings)?;
    Ok(orders.iter().filter_map(Order::read).collect())
}

/// Keeps what records no longer name.
pub(super) async fn note_unnamed(tx: &mut PgConnection, bucket_no: i32, changes: &[Change]) -> Result<(), sqlx::Error> {
    let (mut kinds, mut ids, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
    for change in changes {
        for blob in erase::unnamed(change.before.as_ref(), &change.after) {
            kinds.push(i32::from(change.after.key.kind.0));
            ids.push(uuid(change.after.key.id));
            hashes.push(blob.as_bytes().to_vec());
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO unnamed_blob (bucket_no, kind, id, hash) \
         SELECT $1, * FROM unnest($2::integer[], $3::uuid[], $4::bytea[]) ON CONFLICT DO NOTHING",
    )
    .bind(bucket_no)
    .bind(kinds)
    .bind(ids)
    .bind(hashes)
    .execute(tx)
    .await?;
    Ok(())
}

/// The blobs that a record named once and does not any more.
async fn unnamed_by(
    connection: &mut PgConnection,
    bucket_no: i32,
    key: RecordKey,
) -> Result<Vec<BlobHash>, sqlx::Error> {
    let hashes: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT hash FROM unnamed_blob WHERE bucket_no = $1 AND kind = $2 AND id = $3")
            .bind(bucket_no)
            .bind(i32::from(key.kind.0))
            .bind(uuid(key.id))
            .fetch_all(connection)
            .await?;
    Ok(blob_hashes(hashes))
}

/// The same of many records that are erased; it is no longer kept.
async fn take_unnamed_by(
    tx: &mut PgConnection,
    bucket_no: i32,
    erased: &[Record],
) -> Result<Vec<BlobHash>, sqlx::Error> {
    let (kinds, ids): (Vec<i32>, Vec<Uuid>) =
        erased.iter().map(|record| (i32::from(record.key.kind.0), uuid(record.key.id))).unzip();
    let hashes: Vec<Vec<u8>> = sqlx::query_scalar(
        "DELETE FROM unnamed_blob USING unnest($2::integer[], $3::uuid[]) AS erased (kind, id) \
         WHERE unnamed_blob.bucket_no = $1 AND unnamed_blob.kind = erased.kind AND unnamed_blob.id = erased.id \
         RETURNING unnamed_blob.hash",
    )
    .bind(bucket_no)
    .bind(kinds)
    .bind(ids)
    .fetch_all(tx)
    .await?;
    Ok(blob_hashes(hashes))
}

fn blob_hashes(hashes: Vec<Vec<u8>>) -> Vec<BlobHash> {
    hashes.into_iter().filter_map(|hash| Some(BlobHash::from_bytes(hash.try_into().ok()?))).collect()
}

/// Writes all that follows from erasures that were just stored.
pub(super) async fn carry_out(
    tx: &mut PgConnection,
    (bucket, bucket_no): (BucketId, i32),
    mut erasures: Vec<Record>,
    announced: bool,
) -> Result<(), RecordStoreError> {
    while let Some(erasure) = erasures.pop() {
        let Some(order) = Order::read(&erasure) else { continue };
        let versions = versions_about(tx, bucket_no, order.target).await?;
        let tombstones = order.tombstones(&versions);
        forget_aside(tx, bucket_no, &versions).await?;
        store_joined(tx, (bucket, bucket_no), tombstones.clone(), announced).await?;
        forget_events(tx, bucket, &tombstones).await?;
        let earlier = take_unnamed_by(tx, bucket_no, &tombstones).await?;
        let blobs = order.blobs_of(&versions, earlier);
        let unnamed =
            not_named(tx, bucket_no, &blobs).await?.into_iter().map(|blob| (Blob::KIND, Blob::record_id(blob)));
        let held = write::lock_held(tx, (bucket, bucket_no), unnamed).await?;
        let mut derived: Vec<Record> = held.values().filter_map(|held| erase::emptied(held, order.stamp)).collect();
        let amendments = order.amendments(&blobs);
        let keys = amendments.iter().map(|amendment| (amendment.key.kind, amendment.key.id));
        let held = write::lock_held(tx, (bucket, bucket_no), keys).await?;
        let new = amendments.into_iter().filter(|new| !held.contains_key(&(new.key.kind, new.key.id)));
        for amendment in new {
            derived.push(amendment.clone());
            erasures.push(amendment);
        }
        store_joined(tx, (bucket, bucket_no), derived, announced).await?;
        sqlx::query(
            "INSERT INTO erased_blob (hash, bucket_no, erasure) SELECT hash, $2, $3 FROM unnest($1::bytea[]) AS hash \
             ON CONFLICT DO NOTHING",
        )
        .bind(order.blobs.iter().map(|blob| blob.as_bytes().to_vec()).collect::<Vec<_>>())
        .bind(bucket_no)
        .bind(uuid(erasure.key.id))
        .execute(&mut *tx)
        .await?;
        let Order { target, stamp, .. } = order;
        tracing::warn!(
            kind = kind_name(target.kind), record.id = %target.id, %bucket, erasure.id = %erasure.key.id,
            ordered_by = %stamp.node, "erased a record"
        );
    }
    Ok(())
}

/// Stores what some records and the versions held come to, where that differs from what is held.
async fn store_joined(
    tx: &mut PgConnection,
    bucket: (BucketId, i32),
    records: Vec<Record>,
    announced: bool,
) -> Result<(), RecordStoreError> {
    let keys = records.iter().map(|record| (record.key.kind, record.key.id));
    let held = write::lock_held(tx, bucket, keys).await?;
    let mut changes = BTreeMap::new();
    for record in records {
        let before = held.get(&(record.key.kind, record.key.id)).cloned();
        let after = before.clone().map_or_else(|| record.clone(), |before| merge(before, record.clone()));
        if before.as_ref() != Some(&after) {
            changes.insert(after.key, Change::made_here(before, after));
        }
    }
    let changes: Vec<Change> = changes.into_values().collect();
    write::store(tx, bucket, &changes, write::Manner { announced, words: Words::Now }).await
}

/// The versions of a record that are held or set aside, and those of what is about it.
async fn versions_about(
    tx: &mut PgConnection,
    bucket_no: i32,
    target: RecordKey,
) -> Result<Vec<Record>, RecordStoreError> {
    // Read one by one: what is set aside may be far more than what is about the record.
    let mut encodings = sqlx::query_scalar::<_, Vec<u8>>(
        "SELECT encoding FROM record WHERE bucket_no = $1 AND kind = $2 AND id = $3 AND NOT deleted \
         UNION ALL SELECT encoding FROM record WHERE bucket_no = $1 AND kind = $4 AND $2 = $5 AND id IN ( \
            SELECT id FROM annotation WHERE annotation.bucket_no = $1 AND annotation.media = $3) \
         UNION ALL SELECT encoding FROM quarantine WHERE bucket_no = $1 AND (kind = $2 AND id = $3 OR kind = $4 AND $2 = $5)",
    )
    .bind(bucket_no)
    .bind(i32::from(target.kind.0))
    .bind(uuid(target.id))
    .bind(i32::from(Annotation::KIND.0))
    .bind(i32::from(Media::KIND.0))
    .fetch(tx);
    let mut versions = Vec::new();
    while let Some(encoding) = encodings.try_next().await? {
        let version = decode(target.bucket, &encoding)?;
        if is_about(&version, target) {
            versions.push(version);
        }
    }
    Ok(versions)
}

/// Whether a version is of the record, or of something about it.
fn is_about(version: &Record, target: RecordKey) -> bool {
    version.key == target || erase::subject(version) == Some(target)
}

/// Removes those of some versions that are set aside, but for deletes: the bucket still needs their stamps.
async fn forget_aside(tx: &mut PgConnection, bucket_no: i32, versions: &[Record]) -> Result<(), sqlx::Error> {
    let live = versions.iter().filter(|version| !version.is_tombstone());
    let digests: Vec<Vec<u8>> = live.map(|version| version.digest().to_vec()).collect();
    sqlx::query("DELETE FROM quarantine WHERE bucket_no = $1 AND digest = ANY ($2)")
        .bind(bucket_no)
        .bind(digests)
        .execute(tx)
        .await?;
    Ok(())
}

/// Takes what erased records said out of the events that tell of them, whether they wait or were refused.
async fn forget_events(tx: &mut PgConnection, bucket: BucketId, erased: &[Record]) -> Result<(), sqlx::Error> {
    let subject = |key: RecordKey| format!("{}/{}", kind_name(key.kind), key.id);
    let (subjects, data): (Vec<String>, Vec<String>) = erased
        .iter()
        .map(|record| (subject(record.key), outbox::erased_data(record.key.id, bucket).to_string()))
        .unzip();
    for statement in [
        "UPDATE outbox SET data = erased.data::json FROM unnest($1::text[], $2::text[]) AS erased (subject, data) \
         WHERE outbox.subject = erased.subject",
        "UPDATE outbox_refused SET data = erased.data::json FROM unnest($1::text[], $2::text[]) AS erased (subject, data) \
         WHERE outbox_refused.subject = erased.subject",
    ] {
        sqlx::query(statement).bind(&subjects).bind(&data).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Of some blobs those that no live record of the bucket, other than their blob record, names.
async fn not_named(
    tx: &mut PgConnection,
    bucket_no: i32,
    blobs: &BTreeSet<BlobHash>,
) -> Result<Vec<BlobHash>, sqlx::Error> {
    if blobs.is_empty() {
        return Ok(Vec::new());
    }
    let (hashes, files): (Vec<Vec<u8>>, Vec<String>) =
        blobs.iter().map(|blob| (blob.as_bytes().to_vec(), serde_json::json!([{ "blob": blob }]).to_string())).unzip();
    let hashes: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT looked_for.hash FROM unnest($2::bytea[], $3::text[]) AS looked_for (hash, file) WHERE NOT ( \
            EXISTS (SELECT FROM author WHERE bucket_no = $1 AND portrait = looked_for.hash) \
            OR EXISTS (SELECT FROM collection WHERE bucket_no = $1 AND cover = looked_for.hash) \
            OR EXISTS (SELECT FROM annotation WHERE bucket_no = $1 AND blob = looked_for.hash) \
            OR EXISTS (SELECT FROM media WHERE bucket_no = $1 AND (cover = looked_for.hash OR files @> looked_for.file::jsonb)))",
    )
    .bind(bucket_no)
    .bind(hashes)
    .bind(files)
    .fetch_all(tx)
    .await?;
    Ok(blob_hashes(hashes))
}

fn decode_all(bucket: BucketId, encodings: Vec<Vec<u8>>) -> Result<Vec<Record>, RecordStoreError> {
    encodings.into_iter().map(|encoding| decode(bucket, &encoding)).collect()
}

fn decode(bucket: BucketId, encoding: &[u8]) -> Result<Record, RecordStoreError> {
    Record::decode(bucket, encoding).map_err(|source| RecordStoreError::Damaged { bucket, source })
}

fn uuid(id: RecordId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

fn record_id(id: Uuid) -> RecordId {
    RecordId::from_bytes(id.into_bytes())
}
