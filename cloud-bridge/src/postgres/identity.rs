//! Which replica the bridge is: one node id for all its processes, one epoch for each life of the database, and stamps
//! that no two processes share.
//!
//! - The **epoch** belongs to one copy of the data. When PostgreSQL was restored from a backup or a standby took over,
//!   rows that peers have seen may be gone; the copy (cluster, timeline, database) differs then, and a new epoch begins
//!   by itself. It is the time at which it began, so that two restores of one backup never share one.
//! - Each process takes an **incarnation** of its own, so stamps never collide although every process has its own
//!   clock. What a person changes still beats what they saw: an edit holds the row, and is stamped above it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use alexandria_sync::hlc::{Clock, ClockQuality, HlcTime, Stamp};
use alexandria_sync::id::{Epoch, Incarnation, NodeId};
use sqlx::PgPool;
use uuid::Uuid;

use super::{RecordStoreError, now_unix_ms};

/// Names the copy of the data: PostgreSQL's cluster, its timeline, and the database.
const COPY: &str = "SELECT (SELECT system_identifier::text FROM pg_control_system()) || '/' \
    || left(pg_walfile_name(pg_current_wal_lsn()), 8) || '/' || oid::text FROM pg_database WHERE datname = current_database()";
/// The same where the server keeps those functions to itself: a restore into another database still shows.
const COPY_WITHOUT_CLUSTER: &str = "SELECT '-/-/' || oid::text FROM pg_database WHERE datname = current_database()";

/// What such a server answers: no right to call them, no such function, not supported. Anything else may be over in a moment, and
/// another answer would begin an epoch that nothing calls for.
const KEPT_TO_ITSELF: [&str; 3] = ["42501", "42883", "0A000"];

/// The bridge as one replica, seen from one of its processes.
#[derive(Debug)]
pub struct Identity {
    node_id: NodeId,
    incarnation: Incarnation,
    epoch: AtomicU64,
    clock: Mutex<Clock>,
}

impl Identity {
    /// Reads who the bridge is, or decides it if the database is new.
    pub(super) async fn open(pool: &PgPool) -> Result<Self, RecordStoreError> {
        let now_ms = now_unix_ms();
        let copy = copy(pool).await?;
        sqlx::query("INSERT INTO bridge (node_id, epoch, copy) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(Uuid::from_bytes(rand::random()))
            .bind(now_ms as i64)
            .bind(&copy)
            .execute(pool)
            .await?;
        // Never below the time in seconds: a restored backup must not hand out an incarnation a second time.
        let (node_id, epoch, incarnation): (Uuid, i64, i64) = sqlx::query_as(
            "UPDATE bridge SET incarnation = greatest(incarnation + 1, $1), \
                epoch = CASE WHEN copy = $2 THEN epoch ELSE greatest(epoch + 1, $3) END, copy = $2 \
             RETURNING node_id, epoch, incarnation",
        )
        .bind((now_ms / 1000) as i64)
        .bind(&copy)
        .bind(now_ms as i64)
        .fetch_one(pool)
        .await?;
        let node_id = NodeId::from_bytes(node_id.into_bytes());
        let incarnation = Incarnation(incarnation as u32);
        let clock = Clock::new(node_id, incarnation, ClockQuality::Trusted, HlcTime::default());
        Ok(Self { node_id, incarnation, epoch: AtomicU64::new(epoch as u64), clock: Mutex::new(clock) })
    }

    /// The bridge's name among replicas.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The life of this process.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The epoch of the feeds, as last looked at.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed))
    }

    /// Looks whether the database is still the same copy; call it before each session.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn refresh_epoch(&self, pool: &PgPool) -> Result<Epoch, RecordStoreError> {
        let copy = copy(pool).await?;
        let known: Option<i64> =
            sqlx::query_scalar("SELECT epoch FROM bridge WHERE copy = $1").bind(&copy).fetch_optional(pool).await?;
        let epoch = match known {
            Some(epoch) => epoch,
            None => begin_epoch(pool, &copy).await?,
        };
        let before = self.epoch.swap(epoch as u64, Ordering::Relaxed);
        if before != epoch as u64 {
            tracing::warn!(epoch, "the database is another copy of the data: a new epoch begins");
        }
        Ok(Epoch(epoch as u64))
    }

    /// A stamp for an edit of something last written at `seen`.
    pub fn stamp_above(&self, seen: Stamp) -> Stamp {
        let mut clock = self.clock.lock().expect("no holder of this lock panics");
        clock.observe(seen);
        clock.stamp(now_unix_ms())
    }
}

/// Another copy of the data: its epoch, begun here or by another process.
async fn begin_epoch(pool: &PgPool, copy: &str) -> Result<i64, sqlx::Error> {
    sqlx::query("UPDATE bridge SET epoch = greatest(epoch + 1, $1), copy = $2 WHERE copy <> $2")
        .bind(now_unix_ms() as i64)
        .bind(copy)
        .execute(pool)
        .await?;
    sqlx::query_scalar("SELECT epoch FROM bridge").fetch_one(pool).await
}

async fn copy(pool: &PgPool) -> Result<String, sqlx::Error> {
    match sqlx::query_scalar(COPY).fetch_one(pool).await {
        Err(sqlx::Error::Database(error))
            if error.code().is_some_and(|code| KEPT_TO_ITSELF.contains(&code.as_ref())) =>
        {
            sqlx::query_scalar(COPY_WITHOUT_CLUSTER).fetch_one(pool).await
        }
        answer => answer,
    }
}
