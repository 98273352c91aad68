//! What operators see of erasures: what was ordered, whether the bridge is done, and which nodes owe a receipt.

use alexandria_sync::domain::kind_name;
use alexandria_sync::id::{BucketId, NodeId, RecordId};
use alexandria_sync::record::Kind;
use serde::Serialize;
use sqlx::Row;
use uuid::Uuid;

use super::{record_id, uuid};
use crate::postgres::{RecordStoreError, Records, rfc3339};

/// Erasures of one page of the list, and nodes that one of them names, at most.
pub const PAGE_SIZE_MAX: i64 = 1_000;

/// An erasure, as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct ShownErasure {
    /// Its id.
    pub id: RecordId,
    /// The bucket of what was erased.
    pub bucket: BucketId,
    /// The kind of it, by name where this version knows one.
    pub kind: String,
    /// The id of it.
    pub record: RecordId,
    /// How many blobs it lists: its content.
    pub blobs: i64,
    /// When it was ordered, by the clock of who ordered it (RFC 3339).
    pub ordered_at: String,
    /// Whether the bridge has removed its content from S3.
    pub bridge_done: bool,
    /// Nodes whose receipts are in.
    pub receipts: i64,
    /// Nodes that still owe one.
    pub owing: i64,
}

/// A node, as far as an erasure is concerned.
#[derive(Clone, Debug, Serialize)]
pub struct Obligation {
    /// Its id.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// Its site.
    pub site: String,
    /// When its last session began (RFC 3339).
    pub last_session_at: Option<String>,
    /// When it gave its receipt, by its clock (RFC 3339); absent while it owes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt_at: Option<String>,
}

/// That a node has to tell when it has erased what `shown` says. One that is enrolled later has never had it, one that was revoked
/// gets nothing any more.
const IS_OBLIGED: &str = "node.revoked_at IS NULL AND node.enrolled_at <= shown.received_at \
    AND (shown.bucket_name NOT LIKE 'site/%' OR shown.bucket_name = 'site/' || node.id)";

impl Records {
    /// So many of the erasures that the bridge has heard of, the latest first, after one of them; each in every bucket that has it.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn erasures(&self, after: Option<RecordId>, limit: i64) -> Result<Vec<ShownErasure>, RecordStoreError> {
        // What was handed over with its site is there twice under one id; a page has both.
        let which = "erasure.id IN (SELECT id FROM erasure GROUP BY id HAVING $1::uuid IS NULL OR \
                (max(received_at), id) < (SELECT max(before.received_at), $1 FROM erasure AS before WHERE before.id = $1) \
            ORDER BY max(received_at) DESC, id DESC LIMIT $2)";
        self.shown_erasures(which, after, limit.min(PAGE_SIZE_MAX)).await
    }

    /// One erasure, in each bucket that has it.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn erasure(&self, id: RecordId) -> Result<Vec<ShownErasure>, RecordStoreError> {
        self.shown_erasures("erasure.id = $1 AND $2 > 0", Some(id), PAGE_SIZE_MAX).await
    }

    async fn shown_erasures(
        &self,
        which: &'static str,
        id: Option<RecordId>,
        limit: i64,
    ) -> Result<Vec<ShownErasure>, RecordStoreError> {
        let ordered_at = rfc3339("updated_at");
        let statement = format!(
            "WITH shown AS MATERIALIZED (SELECT erasure.*, bucket.name AS bucket_name, \
                    max(received_at) OVER (PARTITION BY erasure.id) AS latest FROM erasure \
                JOIN bucket ON bucket.no = erasure.bucket_no WHERE {which}), \
             obliged AS (SELECT bucket_no, shown.id, count(*) AS obliged FROM shown JOIN node ON {IS_OBLIGED} GROUP BY 1, 2), \
             receipt AS (SELECT shown.bucket_no, shown.id, count(DISTINCT node.id) AS receipts FROM shown \
                JOIN erasure_receipt ON erasure_receipt.erasure = shown.id AND erasure_receipt.bucket = bucket_name \
                JOIN bucket AS site ON site.no = erasure_receipt.bucket_no \
                JOIN node ON 'site/' || node.id = site.name AND {IS_OBLIGED} GROUP BY 1, 2) \
             SELECT shown.id, bucket_name, kind, record, coalesce(cardinality(blobs), 0)::bigint AS blobs, \
                {ordered_at} AS ordered_at, \
                NOT EXISTS (SELECT FROM erased_blob WHERE erased_blob.bucket_no = shown.bucket_no \
                    AND erased_blob.erasure = shown.id AND settled_at IS NULL) AS bridge_done, \
                coalesce(receipts, 0) AS receipts, coalesce(obliged, 0) - coalesce(receipts, 0) AS owing \
             FROM shown LEFT JOIN obliged USING (bucket_no, id) LEFT JOIN receipt USING (bucket_no, id) \
             ORDER BY latest DESC, shown.id DESC, bucket_name"
        );
        let rows =
            sqlx::query(sqlx::AssertSqlSafe(statement)).bind(id.map(uuid)).bind(limit).fetch_all(self.pool()).await?;
        rows.iter()
            .map(|row| {
                let name: String = row.try_get("bucket_name")?;
                let bucket = name.parse().map_err(|_| RecordStoreError::Malformed { table: "bucket", value: name })?;
                let kind: Option<i64> = row.try_get("kind")?;
                let record: Option<Uuid> = row.try_get("record")?;
                Ok(ShownErasure {
                    id: record_id(row.try_get("id")?),
                    bucket,
                    kind: kind_name(Kind(kind.and_then(|kind| u16::try_from(kind).ok()).unwrap_or_default())),
                    record: record.map(record_id).unwrap_or_default(),
                    blobs: row.try_get("blobs")?,
                    ordered_at: row.try_get("ordered_at")?,
                    bridge_done: row.try_get("bridge_done")?,
                    receipts: row.try_get("receipts")?,
                    owing: row.try_get("owing")?,
                })
            })
            .collect()
    }

    /// Who has given a receipt for an erasure and who owes one, by node, after a place.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn obligations(
        &self,
        erasure: RecordId,
        after: Option<NodeId>,
        limit: i64,
    ) -> Result<Vec<Obligation>, RecordStoreError> {
        let [session, receipt] = ["node.last_session_at", "erasure_receipt.updated_at"].map(rfc3339);
        let statement = format!(
            "WITH shown AS (SELECT erasure.*, bucket.name AS bucket_name FROM erasure \
                JOIN bucket ON bucket.no = erasure.bucket_no WHERE erasure.id = $1) \
             SELECT DISTINCT ON (node.id) node.id, node.name, node.site, \
                {session} AS last_session_at, {receipt} AS receipt_at \
             FROM shown JOIN node ON {IS_OBLIGED} \
             LEFT JOIN (erasure_receipt JOIN bucket AS site ON site.no = erasure_receipt.bucket_no) \
                ON erasure_receipt.erasure = shown.id AND erasure_receipt.bucket = shown.bucket_name \
                AND site.name = 'site/' || node.id \
             WHERE $2::uuid IS NULL OR node.id > $2 \
             ORDER BY node.id, erasure_receipt.updated_at NULLS FIRST LIMIT $3"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(uuid(erasure))
            .bind(after.map(|node| Uuid::from_bytes(*node.as_bytes())))
            .bind(limit.min(PAGE_SIZE_MAX))
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Obligation {
                    node: NodeId::from_bytes(row.try_get::<Uuid, _>("id")?.into_bytes()),
                    name: row.try_get("name")?,
                    site: row.try_get("site")?,
                    last_session_at: row.try_get("last_session_at")?,
                    receipt_at: row.try_get("receipt_at")?,
                })
            })
            .collect()
    }
}
