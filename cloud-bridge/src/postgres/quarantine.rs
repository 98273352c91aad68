//! What was set aside because its stamp lies too far ahead, and its replay once time has caught up.
//!
//! Nothing here ever touches a record or the clock. A version is kept once, however often it is sent.

use alexandria_sync::id::{BucketId, Epoch, NodeId, Seq};
use alexandria_sync::merge::QuarantineReason;
use alexandria_sync::record::Record;
use alexandria_sync::store::Peer;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{RecordStoreError, Records, now_unix_ms};

/// Records replayed in one go, at most.
const REPLAY_BATCH: i64 = 500;

pub(super) async fn set_aside(
    tx: &mut PgConnection,
    bucket_no: i32,
    from: NodeId,
    records: &[(Record, QuarantineReason)],
) -> Result<(), sqlx::Error> {
    for (record, reason) in records {
        sqlx::query(
            "INSERT INTO quarantine (digest, bucket_no, kind, id, from_node, newest_stamp_ms, reason, encoding) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        )
        .bind(record.digest().as_slice())
        .bind(bucket_no)
        .bind(i32::from(record.key.kind.0))
        .bind(Uuid::from_bytes(*record.key.id.as_bytes()))
        .bind(Uuid::from_bytes(*from.as_bytes()))
        .bind(record.newest_stamp().time.unix_ms() as i64)
        .bind(reason.to_string())
        .bind(record.encode())
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

impl Records {
    /// Lets in what time has caught up with. Returns how many records left the quarantine.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away; what was not replayed stays.
    pub async fn replay_quarantine(&self) -> Result<u64, RecordStoreError> {
        let due: Vec<(Vec<u8>, String, Uuid, Vec<u8>)> = sqlx::query_as(
            "SELECT quarantine.digest, bucket.name, quarantine.from_node, quarantine.encoding \
             FROM quarantine JOIN bucket ON bucket.no = quarantine.bucket_no \
             WHERE newest_stamp_ms <= $1 ORDER BY newest_stamp_ms LIMIT $2",
        )
        .bind((now_unix_ms() + self.shared.drift_bound_ms) as i64)
        .bind(REPLAY_BATCH)
        .fetch_all(self.pool())
        .await?;
        let mut replayed = 0;
        for (digest, bucket, from, encoding) in due {
            let bucket: BucketId =
                bucket.parse().map_err(|_| RecordStoreError::Malformed { table: "bucket", value: bucket })?;
            let record =
                Record::decode(bucket, &encoding).map_err(|source| RecordStoreError::Damaged { bucket, source })?;
            // No epoch: the sender's feed has moved on, so it gets the record back like everyone.
            let from = Peer { node: NodeId::from_bytes(from.into_bytes()), epoch: Epoch(0) };
            let applied = self.receive(from, bucket, std::slice::from_ref(&record), None::<Seq>).await?;
            if applied.quarantined == 0 {
                sqlx::query("DELETE FROM quarantine WHERE digest = $1").bind(digest).execute(self.pool()).await?;
                replayed += 1;
            }
        }
        Ok(replayed)
    }
}
