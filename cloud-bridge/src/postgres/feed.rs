//! Reading: heads, pages and cursors, and the store as one node may see it.
//!
//! Why no row is skipped: rows get their numbers under the lock of their bucket's sequencer, which is held until the
//! commit is visible. A snapshot that shows a head therefore shows every row up to it. A record that changes later
//! moves to a higher number, past the head that was read, and is met there.

use alexandria_sync::id::{BucketId, Epoch, NodeId, RecordId, Seq};
use alexandria_sync::lineage::{Remembered, Told};
use alexandria_sync::record::{Record, RecordKey};
use alexandria_sync::store::{Applied, BucketHead, Cursor, Page, Peer, RecordStore};
use futures::TryStreamExt;
use sqlx::Row;
use uuid::Uuid;

use super::buckets::OFFERED_MAX;
use super::{RecordStoreError, Records, STORE_PATIENCE, in_time, may_access};

/// Records of one page, at most, whatever their size.
pub const PAGE_RECORDS_MAX: usize = 2_000;

/// The record store as one node may see it: the catalogue, the collections, and its own site.
#[derive(Clone)]
pub struct NodeRecords {
    records: Records,
    node: NodeId,
}

impl NodeRecords {
    pub(super) fn new(records: Records, node: NodeId) -> Self {
        Self { records, node }
    }

    fn check(&self, bucket: BucketId) -> Result<(), RecordStoreError> {
        if may_access(self.node, bucket) {
            Ok(())
        } else {
            Err(RecordStoreError::Forbidden { node: self.node, bucket })
        }
    }
}

impl RecordStore for NodeRecords {
    type Error = RecordStoreError;

    fn epoch(&self) -> Epoch {
        self.records.identity().epoch()
    }

    async fn heads(&self) -> Result<Vec<BucketHead>, RecordStoreError> {
        in_time(STORE_PATIENCE, self.records.heads(Some(self.node))).await
    }

    async fn page(
        &self,
        bucket: BucketId,
        after: Seq,
        reader: Peer,
        budget_bytes: u32,
    ) -> Result<Page, RecordStoreError> {
        self.check(bucket)?;
        in_time(STORE_PATIENCE, self.records.page(bucket, after, Some(reader), (PAGE_RECORDS_MAX, budget_bytes))).await
    }

    async fn cursor(&self, node: NodeId, bucket: BucketId) -> Result<Option<Cursor>, RecordStoreError> {
        self.check(bucket)?;
        in_time(STORE_PATIENCE, self.records.cursor(node, bucket)).await
    }

    async fn apply(
        &self,
        from: Peer,
        bucket: BucketId,
        records: Vec<Record>,
        next: Seq,
    ) -> Result<Applied, RecordStoreError> {
        self.check(bucket)?;
        in_time(STORE_PATIENCE, self.records.apply(from, bucket, records, next)).await
    }

    async fn apply_told(
        &self,
        from: Peer,
        bucket: BucketId,
        records: Vec<Record>,
        next: Seq,
        told: Told,
    ) -> Result<Option<Applied>, RecordStoreError> {
        self.check(bucket)?;
        in_time(STORE_PATIENCE, self.records.apply_told(from, bucket, records, next, told)).await
    }

    async fn remembered(&self, of: NodeId) -> Result<Vec<Remembered>, RecordStoreError> {
        in_time(STORE_PATIENCE, self.records.remembered(of)).await
    }
}

impl Records {
    /// The buckets that a node may see (all of them for `None`), with their heads; no more than a session may be offered, the oldest of
    /// them.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn heads(&self, node: Option<NodeId>) -> Result<Vec<BucketHead>, RecordStoreError> {
        let own_site = node.map(|node| BucketId::Site(node).to_string());
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "(SELECT name, head FROM bucket WHERE name NOT LIKE 'site/%' ORDER BY no LIMIT $2) \
             UNION ALL SELECT name, head FROM bucket WHERE name LIKE 'site/%' AND $1::text IS NULL \
             UNION ALL SELECT name, head FROM bucket WHERE name = $1 ORDER BY name",
        )
        .bind(own_site)
        // The own site is one more.
        .bind(OFFERED_MAX - 1)
        .fetch_all(self.pool())
        .await?;
        rows.into_iter()
            .map(|(name, head)| {
                let bucket = name.parse().map_err(|_| RecordStoreError::Malformed { table: "bucket", value: name })?;
                Ok(BucketHead { bucket, head: Seq(head as u64) })
            })
            .collect()
    }

    /// See [`RecordStore::page`]. Without a reader, every row is shown; at most so many records, and so many bytes.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away or holds a damaged record.
    pub async fn page(
        &self,
        bucket: BucketId,
        after: Seq,
        reader: Option<Peer>,
        (records_max, budget_bytes): (usize, u32),
    ) -> Result<Page, RecordStoreError> {
        let head: Option<(i32, i64)> = sqlx::query_as("SELECT no, head FROM bucket WHERE name = $1")
            .bind(bucket.to_string())
            .fetch_optional(self.pool())
            .await?;
        let Some((bucket_no, head)) = head else {
            return Ok(Page { records: Vec::new(), next: after, more: false });
        };
        // A cursor past the head is from another epoch; the session notices. Here it only must not move back.
        if after.0 >= head as u64 {
            return Ok(Page { records: Vec::new(), next: after, more: false });
        }
        let mut rows = sqlx::query(
            // Up to the first one that goes past the budget.
            "SELECT seq, encoding FROM ( \
                SELECT seq, encoding, sum(octet_length(encoding)) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) \
                    - octet_length(encoding) AS bytes_before \
                FROM (SELECT seq, encoding FROM record WHERE bucket_no = $1 AND seq > $2 AND seq <= $3 \
                    AND (arrived_from IS DISTINCT FROM $4 OR arrived_epoch IS DISTINCT FROM $5 OR $4 IS NULL) \
                    ORDER BY seq LIMIT $6) AS record) AS record \
             WHERE bytes_before <= $7 ORDER BY seq",
        )
        .bind(bucket_no)
        .bind(after.0 as i64)
        .bind(head)
        .bind(reader.map(|peer| Uuid::from_bytes(*peer.node.as_bytes())))
        .bind(reader.map(|peer| peer.epoch.0 as i64))
        .bind(records_max as i64)
        .bind(i64::from(budget_bytes))
        .fetch(self.pool());

        let mut records = Vec::new();
        let mut next = after;
        let mut size_bytes = 0;
        while let Some(row) = rows.try_next().await? {
            let encoding: &[u8] = row.try_get("encoding")?;
            size_bytes += encoding.len();
            if !records.is_empty() && size_bytes > budget_bytes as usize {
                return Ok(Page { records, next, more: true });
            }
            records
                .push(Record::decode(bucket, encoding).map_err(|source| RecordStoreError::Damaged { bucket, source })?);
            next = Seq(row.try_get::<i64, _>("seq")? as u64);
        }
        // One that is larger than the budget comes alone.
        if records.len() == records_max || size_bytes > budget_bytes as usize {
            return Ok(Page { records, more: next.0 < head as u64, next });
        }
        Ok(Page { records, next: Seq(head as u64), more: false })
    }

    /// The last row of a bucket; `None` if nothing was ever written to it.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn head(&self, bucket: BucketId) -> Result<Option<Seq>, RecordStoreError> {
        let head: Option<i64> = sqlx::query_scalar("SELECT head FROM bucket WHERE name = $1")
            .bind(bucket.to_string())
            .fetch_optional(self.pool())
            .await?;
        Ok(head.map(|head| Seq(head as u64)))
    }

    /// The versions of some records that are held here, each in the place of its key.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away or holds a damaged record.
    pub async fn held_versions(&self, keys: &[RecordKey]) -> Result<Vec<Option<Record>>, RecordStoreError> {
        let buckets: Vec<String> = keys.iter().map(|key| key.bucket.to_string()).collect();
        let (kinds, ids): (Vec<i32>, Vec<Uuid>) =
            keys.iter().map(|key| (i32::from(key.kind.0), Uuid::from_bytes(*key.id.as_bytes()))).unzip();
        let found: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT key.place, record.encoding \
             FROM unnest($1::text[], $2::integer[], $3::uuid[]) WITH ORDINALITY AS key (bucket, kind, id, place) \
             JOIN bucket ON bucket.name = key.bucket \
             JOIN record ON record.bucket_no = bucket.no AND record.kind = key.kind AND record.id = key.id",
        )
        .bind(buckets)
        .bind(kinds)
        .bind(ids)
        .fetch_all(self.pool())
        .await?;
        let mut held = vec![None; keys.len()];
        for (place, encoding) in found {
            // Places count from one.
            let Some(at) = usize::try_from(place - 1).ok().filter(|at| *at < keys.len()) else { continue };
            let bucket = keys[at].bucket;
            let decoded = Record::decode(bucket, &encoding);
            held[at] = Some(decoded.map_err(|source| RecordStoreError::Damaged { bucket, source })?);
        }
        Ok(held)
    }

    /// The first collection of this title or id that readers see.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn find_collection(&self, name: &str) -> Result<Option<RecordId>, RecordStoreError> {
        let id: Option<Uuid> = sqlx::query_scalar(
            "SELECT id FROM collection WHERE (title = $1 OR id::text = $1) AND disabled IS NOT TRUE ORDER BY id LIMIT 1",
        )
        .bind(name)
        .fetch_optional(self.pool())
        .await?;
        Ok(id.map(|id| RecordId::from_bytes(id.into_bytes())))
    }

    /// See [`RecordStore::cursor`].
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn cursor(&self, node: NodeId, bucket: BucketId) -> Result<Option<Cursor>, RecordStoreError> {
        let row: Option<(i64, i64)> = sqlx::query_as(
            "SELECT cursor.epoch, cursor.seq FROM cursor JOIN bucket ON bucket.no = cursor.bucket_no \
             WHERE cursor.node = $1 AND bucket.name = $2",
        )
        .bind(Uuid::from_bytes(*node.as_bytes()))
        .bind(bucket.to_string())
        .fetch_optional(self.pool())
        .await?;
        Ok(row.map(|(epoch, seq)| Cursor { epoch: Epoch(epoch as u64), seq: Seq(seq as u64) }))
    }
}
