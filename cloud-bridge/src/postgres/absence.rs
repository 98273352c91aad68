//! Forgets tombstones that nobody needs any more (`alexandria_sync::absence`, docs/adr/0013-long-absence.md).
//!
//! Now and then it is noted how far each feed has come (`feed_mark`), by the clock of the database, which is the same for all
//! processes of the bridge. What had arrived longer ago than a lease, and a little more against clocks that are set, goes. First
//! that is made durable, and told in every hello from then on (`bridge.collected_at`); then rows are deleted, some at a time.
//!
//! What stays: tombstones of what an erasure names, which it would make again; those of which a version is set aside; those with
//! ids that will be used again; and what
//! deleted records named, so that they can still be erased.

use std::time::Duration;

use alexandria_sync::absence::Standing;

use super::{RecordStoreError, Records};

/// A feed is marked so many times within a lease.
const MARKS_A_LEASE: u32 = 100;
/// Tombstones that are deleted in one transaction, at most.
const AT_ONCE: i64 = 500;
/// How often it is looked for some, at least and at most.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_hours(6);

/// Whether a tombstone of table `record` may go (see `is_forgettable` of `alexandria_sync::absence`, too).
const IS_NOT_NEEDED: &str = "get_byte(uuid_send(record.id), 6) >> 4 = 7 \
    AND NOT EXISTS (SELECT FROM quarantine AS aside WHERE aside.bucket_no = record.bucket_no \
        AND aside.kind = record.kind AND aside.id = record.id) \
    AND NOT EXISTS (SELECT FROM erasure WHERE erasure.bucket_no = record.bucket_no \
        AND erasure.record = record.id AND erasure.kind = record.kind)";

/// How often [`Records::collect_tombstones`] is to be called.
pub fn collect_interval(lease: Duration) -> Duration {
    (lease / MARKS_A_LEASE).clamp(INTERVAL_MIN, INTERVAL_MAX)
}

impl Records {
    /// How the bridge stands now. To be looked up before the feeds are.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn standing(&self) -> Result<Standing, RecordStoreError> {
        let (now_ms, collected_ms): (i64, i64) = sqlx::query_as(
            "SELECT (extract(epoch FROM now()) * 1000)::bigint, (extract(epoch FROM collected_at) * 1000)::bigint FROM bridge",
        )
        .fetch_one(self.pool())
        .await?;
        Ok(Standing { in_step_ms: now_ms as u64, collected_ms: collected_ms as u64, keeps_all: true })
    }

    /// Marks the feeds, and forgets tombstones that are older than a lease. Says how many.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away. What was forgotten by then is.
    pub async fn collect_tombstones(&self, lease: Duration) -> Result<u64, RecordStoreError> {
        // Against clocks of database servers that take each other's place.
        let margin = lease / MARKS_A_LEASE;
        self.mark_feeds(margin).await?;
        self.decide_how_far(lease, margin).await?;
        let mut total = 0;
        loop {
            let forgotten = self.forget_some(margin).await?;
            total += forgotten;
            if forgotten < AT_ONCE as u64 {
                break;
            }
        }
        sqlx::query(
            "DELETE FROM feed_mark AS mark USING bridge WHERE EXISTS (SELECT FROM feed_mark AS later \
                WHERE later.bucket_no = mark.bucket_no AND later.at > mark.at \
                    AND later.at <= bridge.collected_at - make_interval(secs => $1))",
        )
        .bind(margin.as_secs_f64())
        .execute(self.pool())
        .await?;
        self.metrics().tombstones_collected.inc_by(total);
        Ok(total)
    }

    /// Notes how far the feeds have come that have grown since they were marked last.
    async fn mark_feeds(&self, every: Duration) -> Result<(), RecordStoreError> {
        // The clock is read after the heads are: rows that they count had arrived by then.
        sqlx::query(
            "INSERT INTO feed_mark (bucket_no, at, head) \
             SELECT no, clock_timestamp(), head FROM bucket LEFT JOIN LATERAL ( \
                SELECT mark.head AS marked, mark.at FROM feed_mark AS mark WHERE mark.bucket_no = bucket.no \
                ORDER BY mark.at DESC LIMIT 1) AS last ON true \
             WHERE head > coalesce(marked, 0) AND coalesce(last.at < now() - make_interval(secs => $1), true) \
             ON CONFLICT DO NOTHING",
        )
        .bind(every.as_secs_f64())
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Moves on up to which deletes may be forgotten, if there are any to forget; not while a node has a lease that could not
    /// read all anew if it stayed away.
    async fn decide_how_far(&self, lease: Duration, margin: Duration) -> Result<(), RecordStoreError> {
        let decided = sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE bridge SET collected_at = greatest(collected_at, due.at + make_interval(secs => $2)) FROM ( \
                SELECT max(mark.at) AS at FROM ( \
                    SELECT horizon.bucket_no, (SELECT max(seq) FROM record WHERE record.bucket_no = horizon.bucket_no \
                        AND deleted AND seq <= horizon.head AND {IS_NOT_NEEDED}) AS seq \
                    FROM (SELECT bucket_no, max(head) AS head FROM feed_mark \
                        WHERE at <= now() - make_interval(secs => $1 + $2) GROUP BY bucket_no) AS horizon \
                ) AS last CROSS JOIN LATERAL ( \
                    SELECT min(at) AS at FROM feed_mark WHERE bucket_no = last.bucket_no AND head >= last.seq \
                ) AS mark WHERE last.seq IS NOT NULL \
             ) AS due \
             WHERE due.at IS NOT NULL AND due.at + make_interval(secs => $2) > collected_at \
                AND NOT EXISTS (SELECT FROM node WHERE revoked_at IS NULL AND NOT tells_standing \
                    AND greatest(last_session_at, in_step_at) > now() - make_interval(secs => $1))",
        )))
        .bind(lease.as_secs_f64())
        .bind(margin.as_secs_f64())
        .execute(self.pool())
        .await?;
        if decided.rows_affected() > 0 {
            tracing::info!("tombstones older than a lease are being forgotten");
        }
        Ok(())
    }

    async fn forget_some(&self, margin: Duration) -> Result<u64, RecordStoreError> {
        let forgotten = sqlx::query(sqlx::AssertSqlSafe(format!(
            "DELETE FROM record USING ( \
                SELECT bucket_no, kind, id FROM record JOIN ( \
                    SELECT mark.bucket_no AS marked_no, max(mark.head) AS marked FROM feed_mark AS mark, bridge \
                    WHERE mark.at <= bridge.collected_at - make_interval(secs => $1) GROUP BY mark.bucket_no \
                ) AS horizon ON bucket_no = marked_no AND seq <= marked \
                WHERE deleted AND {IS_NOT_NEEDED} LIMIT $2 FOR UPDATE OF record SKIP LOCKED \
             ) AS old WHERE record.bucket_no = old.bucket_no AND record.kind = old.kind AND record.id = old.id",
        )))
        .bind(margin.as_secs_f64())
        .bind(AT_ONCE)
        .execute(self.pool())
        .await?;
        Ok(forgotten.rows_affected())
    }
}
