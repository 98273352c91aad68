//! What was set aside because its stamp lies too far ahead: kept within limits, replayed once time has caught up,
//! listed, let in or thrown away by an operator.
//!
//! Nothing here ever touches a record or the clock. A version is kept once, however often it is sent. The limits are
//! those of one sender, so that one wrong clock fills its own share and keeps no other node's records out.

use std::collections::BTreeSet;

use alexandria_sync::domain::kind_name;
use alexandria_sync::hlc::Stamp;
use alexandria_sync::id::{BucketId, Epoch, NodeId, RecordId};
use alexandria_sync::merge::{QuarantineReason, merge};
use alexandria_sync::quarantine::{QuarantineId, QuarantineLimits, QuarantineUse, Release, Released};
use alexandria_sync::record::encoding::RecordTooLarge;
use alexandria_sync::record::{Body, Kind, Record};
use alexandria_sync::store::Peer;
use serde::Serialize;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::write::{Edit, EditError, Held};
use super::{RecordStoreError, Records, now_unix_ms, rfc3339};

/// Records replayed in one go, at most.
const REPLAY_BATCH: i64 = 500;
/// A record that stays set aside although time has caught up is tried again after this, in minutes.
const RETRY_AFTER_MINUTES: f64 = 10.0;
/// Records of one page of the list, at most.
pub const PAGE_SIZE_MAX: i64 = 1_000;

/// A record that is set aside.
#[derive(Clone, Debug, Serialize)]
pub struct Quarantined {
    /// Its name.
    pub id: QuarantineId,
    /// Where it belongs.
    pub bucket: BucketId,
    /// Its kind, by name where this version knows one.
    pub kind: String,
    /// Which record it is a version of.
    pub record: RecordId,
    /// Whether it says that the record was deleted.
    pub deleted: bool,
    /// Who wrote it.
    pub written_by: NodeId,
    /// When, by the writer's clock, in milliseconds since 1970.
    pub written_unix_ms: u64,
    /// How far that is ahead of the clock here now, in milliseconds.
    pub ahead_ms: u64,
    /// Who brought it.
    pub received_from: NodeId,
    /// Since when it is set aside (RFC 3339).
    pub received_at: String,
    /// Why.
    pub reason: String,
}

/// Why a record stays set aside.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// There is none of this name.
    #[error("no record {0} is set aside here")]
    NotFound(QuarantineId),
    /// Time has not caught up with it, or it does not fit beside what is held.
    #[error("it stays set aside: its newest stamp is {ahead_ms} ms ahead of the clock here{}", no_room(*ahead_ms))]
    Stays {
        /// By how much.
        ahead_ms: u64,
    },
    /// What is held and what it says do not fit one record.
    #[error(transparent)]
    TooLarge(RecordTooLarge),
    /// The record was deleted for good, so it can have no new version.
    #[error("record {0} was deleted for good; all that can be done is to drop this version")]
    Deleted(RecordId),
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] RecordStoreError),
}

/// Why a record stays set aside that is not ahead.
fn no_room(ahead_ms: u64) -> &'static str {
    if ahead_ms == 0 { ", but what is held and what it says do not fit one record" } else { "" }
}

impl From<sqlx::Error> for ReleaseError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Sets records of one sender aside, unless that would pass its limits.
pub(super) async fn set_aside(
    tx: &mut PgConnection,
    bucket_no: i32,
    from: NodeId,
    records: &[(Record, QuarantineReason)],
    limits: QuarantineLimits,
) -> Result<(), RecordStoreError> {
    let from_node = Uuid::from_bytes(*from.as_bytes());
    let mut added = 0;
    for (record, reason) in records {
        let inserted = sqlx::query(
            "INSERT INTO quarantine (digest, bucket_no, kind, id, from_node, newest_stamp_ms, reason, encoding) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        )
        .bind(record.digest().as_slice())
        .bind(bucket_no)
        .bind(i32::from(record.key.kind.0))
        .bind(Uuid::from_bytes(*record.key.id.as_bytes()))
        .bind(from_node)
        .bind(record.newest_stamp().time.unix_ms() as i64)
        .bind(reason.to_string())
        .bind(record.encode())
        .execute(&mut *tx)
        .await?;
        added += inserted.rows_affected();
    }
    if added > 0 {
        let kept: (i64, i64) = sqlx::query_as(
            "SELECT count(*), coalesce(sum(octet_length(encoding)), 0)::bigint FROM quarantine WHERE from_node = $1",
        )
        .bind(from_node)
        .fetch_one(tx)
        .await?;
        let kept = QuarantineUse { records: kept.0 as u64, bytes: kept.1 as u64 };
        limits.check(kept).map_err(|full| RecordStoreError::QuarantineFull { node: from, full })?;
    }
    Ok(())
}

/// Of some records those of which a version is set aside.
pub(super) async fn aside_of(
    tx: &mut PgConnection,
    bucket_no: i32,
    records: &[Record],
) -> Result<BTreeSet<(Kind, RecordId)>, sqlx::Error> {
    let (kinds, ids): (Vec<i32>, Vec<Uuid>) = records
        .iter()
        .map(|record| (i32::from(record.key.kind.0), Uuid::from_bytes(*record.key.id.as_bytes())))
        .unzip();
    let found: Vec<(i32, Uuid)> = sqlx::query_as(
        "SELECT kind, id FROM unnest($2::integer[], $3::uuid[]) AS received (kind, id) \
         WHERE EXISTS (SELECT FROM quarantine WHERE quarantine.bucket_no = $1 AND quarantine.kind = received.kind \
            AND quarantine.id = received.id)",
    )
    .bind(bucket_no)
    .bind(kinds)
    .bind(ids)
    .fetch_all(tx)
    .await?;
    let key = |(kind, id): (i32, Uuid)| Some((Kind(kind.try_into().ok()?), RecordId::from_bytes(id.into_bytes())));
    Ok(found.into_iter().filter_map(key).collect())
}

/// A row of the quarantine.
struct Kept {
    digest: Vec<u8>,
    from: NodeId,
    record: Record,
}

impl Records {
    /// The records set aside after one, by name; those of one sender if it is given.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away or holds a damaged record.
    pub async fn quarantined(
        &self,
        after: Option<QuarantineId>,
        from: Option<NodeId>,
        limit: i64,
    ) -> Result<Vec<Quarantined>, RecordStoreError> {
        let received_at = rfc3339("received_at");
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT digest, bucket.name, from_node, encoding, reason, {received_at} AS received_at \
             FROM quarantine JOIN bucket ON bucket.no = quarantine.bucket_no \
             WHERE ($1::bytea IS NULL OR digest > $1) AND ($2::uuid IS NULL OR from_node = $2) \
             ORDER BY digest LIMIT $3",
        )))
        .bind(after.map(last_with))
        .bind(from.map(|node| Uuid::from_bytes(*node.as_bytes())))
        .bind(limit.min(PAGE_SIZE_MAX))
        .fetch_all(self.pool())
        .await?;
        let now_ms = now_unix_ms();
        rows.iter()
            .map(|row| {
                let record = read_record(row.try_get("name")?, row.try_get("encoding")?)?;
                let stamp = record.newest_stamp();
                Ok(Quarantined {
                    id: QuarantineId::of(&record),
                    bucket: record.key.bucket,
                    kind: kind_name(record.key.kind),
                    record: record.key.id,
                    deleted: record.is_tombstone(),
                    written_by: stamp.node,
                    written_unix_ms: stamp.time.unix_ms(),
                    ahead_ms: stamp.time.unix_ms().saturating_sub(now_ms),
                    received_from: NodeId::from_bytes(row.try_get::<Uuid, _>("from_node")?.into_bytes()),
                    received_at: row.try_get("received_at")?,
                    reason: row.try_get("reason")?,
                })
            })
            .collect()
    }

    /// How much is set aside, of all senders.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn quarantine_use(&self) -> Result<QuarantineUse, RecordStoreError> {
        let kept: (i64, i64) =
            sqlx::query_as("SELECT count(*), coalesce(sum(octet_length(encoding)), 0)::bigint FROM quarantine")
                .fetch_one(self.pool())
                .await?;
        Ok(QuarantineUse { records: kept.0 as u64, bytes: kept.1 as u64 })
    }

    /// Lets in what time has caught up with. Returns how many records left the quarantine. What stays all the same (it
    /// does not fit beside what is held, say) waits behind the others for its next try.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away or holds a damaged record; what was not replayed stays.
    pub async fn replay_quarantine(&self) -> Result<u64, RecordStoreError> {
        let due: Vec<(Vec<u8>, String, Uuid, Vec<u8>)> = sqlx::query_as(
            "SELECT quarantine.digest, bucket.name, quarantine.from_node, quarantine.encoding \
             FROM quarantine JOIN bucket ON bucket.no = quarantine.bucket_no \
             WHERE newest_stamp_ms <= $1 AND tried_at < now() - $3 * interval '1 minute' \
             ORDER BY tried_at, newest_stamp_ms LIMIT $2",
        )
        .bind((now_unix_ms() + self.shared.drift_bound_ms) as i64)
        .bind(REPLAY_BATCH)
        .bind(RETRY_AFTER_MINUTES)
        .fetch_all(self.pool())
        .await?;
        let (mut replayed, mut failure) = (0, None);
        for (digest, bucket, from, encoding) in due {
            let tried = match read_record(bucket, &encoding) {
                Ok(record) => {
                    let row = Kept { digest: digest.clone(), from: NodeId::from_bytes(from.into_bytes()), record };
                    self.try_again(&row).await
                }
                Err(error) => Err(error),
            };
            match tried {
                Ok(Some(_)) => replayed += 1,
                Ok(None) => self.put_off(&digest).await?,
                // One that cannot be read or stored keeps no other out.
                Err(error) => {
                    self.put_off(&digest).await?;
                    failure = Some(error);
                }
            }
        }
        self.note_quarantine().await?;
        failure.map_or(Ok(replayed), Err)
    }

    /// Lets one record in.
    ///
    /// # Errors
    ///
    /// [`ReleaseError`]; it stays set aside then.
    pub async fn release_quarantined(&self, id: QuarantineId, how: Release) -> Result<Released, ReleaseError> {
        let row = self.find_quarantined(id).await?.ok_or(ReleaseError::NotFound(id))?;
        let released = match how {
            Release::AsItIs => {
                let ahead_ms = row.record.newest_stamp().time.unix_ms().saturating_sub(now_unix_ms());
                self.try_again(&row).await?.ok_or(ReleaseError::Stays { ahead_ms })?
            }
            // Should this end between the two, it is let in a second time, which changes nothing.
            Release::AsNewEdit => {
                let released = self.edit_anew(&row.record).await?;
                self.forget(&row.digest).await?;
                released
            }
        };
        self.note_quarantine().await?;
        Ok(released)
    }

    /// Throws one record away; whether there was one of this name.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn drop_quarantined(&self, id: QuarantineId) -> Result<bool, RecordStoreError> {
        let Some(row) = self.find_quarantined(id).await? else { return Ok(false) };
        let key = row.record.key;
        self.forget(&row.digest).await?;
        self.note_quarantine().await?;
        tracing::warn!(
            quarantine.id = %id, bucket = %key.bucket, kind = kind_name(key.kind), record.id = %key.id,
            written_by = %row.record.newest_stamp().node, "threw away a record that was set aside"
        );
        Ok(true)
    }

    async fn find_quarantined(&self, id: QuarantineId) -> Result<Option<Kept>, RecordStoreError> {
        let row: Option<(Vec<u8>, String, Uuid, Vec<u8>)> = sqlx::query_as(
            "SELECT digest, bucket.name, from_node, encoding \
             FROM quarantine JOIN bucket ON bucket.no = quarantine.bucket_no WHERE digest >= $1 AND digest <= $2 LIMIT 1",
        )
        .bind(id.as_bytes().as_slice())
        .bind(last_with(id))
        .fetch_optional(self.pool())
        .await?;
        row.map(|(digest, bucket, from, encoding)| {
            Ok(Kept { digest, from: NodeId::from_bytes(from.into_bytes()), record: read_record(bucket, &encoding)? })
        })
        .transpose()
    }

    /// Merges a record that was set aside, if the clock now allows it; `None` if it stays.
    async fn try_again(&self, row: &Kept) -> Result<Option<Released>, RecordStoreError> {
        // No epoch: the sender's feed has moved on, so it gets the record back like everyone.
        let from = Peer { node: row.from, epoch: Epoch(0) };
        let applied = self.receive(from, row.record.key.bucket, std::slice::from_ref(&row.record), None).await?;
        let applied = applied.unwrap_or_default();
        if applied.quarantined > 0 {
            return Ok(None);
        }
        self.forget(&row.digest).await?;
        Ok(Some(if applied.applied > 0 { Released::Applied } else { Released::Superseded }))
    }

    /// Makes what a record says an edit of now.
    async fn edit_anew(&self, record: &Record) -> Result<Released, ReleaseError> {
        let key = record.key;
        let keys = [(key.kind, key.id)];
        let edited = self.edit(key.bucket, &keys, |held: &Held| {
            let before = held.get(&(key.kind, key.id));
            let seen = before.map_or(Stamp::default(), Record::newest_stamp);
            let stamp = || self.identity().stamp_above(seen);
            let after = match (&record.body, before) {
                (Body::Tombstone(_), Some(before)) if before.is_tombstone() => None,
                (Body::Live(_), Some(before)) if before.is_tombstone() => return Err(ReleaseError::Deleted(key.id)),
                (Body::Tombstone(_), _) => Some(record.deleted(stamp())),
                (Body::Live(fields), before) => {
                    let says = fields.iter().map(|(tag, field)| (*tag, field.value.clone()));
                    match before {
                        None => Record::new(key, says, stamp()),
                        Some(before) => {
                            let held = before.fields();
                            let differs = says.filter(|(tag, value)| {
                                held.and_then(|held| held.get(tag)).is_none_or(|field| field.value != *value)
                            });
                            let changes: Vec<_> = differs.collect();
                            let edited = if changes.is_empty() { None } else { before.edited(changes, stamp()) };
                            edited.map(|edited| merge(before.clone(), edited)).filter(|edited| edited != before)
                        }
                    }
                }
            };
            let answer = if after.is_some() { Some(Released::Applied) } else { None };
            Ok(Edit { records: after.into_iter().collect(), answer })
        });
        match edited.await {
            Ok(released) => Ok(released.unwrap_or(Released::Superseded)),
            Err(EditError::Refused(error)) => Err(error),
            Err(EditError::Store(RecordStoreError::TooLarge(error))) => Err(ReleaseError::TooLarge(error)),
            Err(EditError::Store(error)) => Err(error.into()),
        }
    }

    /// Notes that a record was tried in vain.
    async fn put_off(&self, digest: &[u8]) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE quarantine SET tried_at = now() WHERE digest = $1")
            .bind(digest)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    async fn forget(&self, digest: &[u8]) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM quarantine WHERE digest = $1").bind(digest).execute(self.pool()).await?;
        Ok(())
    }

    /// Shows in the metrics how much is set aside.
    async fn note_quarantine(&self) -> Result<(), RecordStoreError> {
        let kept = self.quarantine_use().await?;
        self.metrics().quarantine_records.set(kept.records as i64);
        self.metrics().quarantine_bytes.set(kept.bytes as i64);
        Ok(())
    }
}

fn read_record(bucket: String, encoding: &[u8]) -> Result<Record, RecordStoreError> {
    let bucket = bucket.parse().map_err(|_| RecordStoreError::Malformed { table: "bucket", value: bucket })?;
    Record::decode(bucket, encoding).map_err(|source| RecordStoreError::Damaged { bucket, source })
}

/// The last digest that starts like this name.
fn last_with(id: QuarantineId) -> Vec<u8> {
    [id.as_bytes().as_slice(), &[0xff; 16]].concat()
}
