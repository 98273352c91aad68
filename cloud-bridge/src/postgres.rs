//! The records of the fleet, in PostgreSQL.
//!
//! - [`identity`]: which replica the bridge is, in which epoch, and its clock.
//! - [`feed`]: reading a bucket's feed, its head, and cursors.
//! - `lineage`: what is remembered of nodes, which may have been set back.
//! - [`write`]: the one transaction through which every change goes, from peers and from here.
//! - `handover`: what belongs to a site goes to the node that replaces its own.
//! - [`tables`]: the typed tables that SQL can ask, written in that transaction.
//! - [`erase`]: the right to be forgotten.
//! - [`absence`]: tombstones that nobody needs any more.
//! - [`quarantine`]: what was set aside, and its replay.
//! - [`watcher`]: who is told that a feed has grown.
//! - `words`: what the catalogue is searched in, made later where many records come in.
//! - `buckets`: how many buckets there may be.
//! - `intake`: whether many records come in just now.
//!
//! Invariants:
//! - A bucket's sequencer is locked last, so rows become visible in the order of their numbers: whoever reads up to a
//!   row has seen every row before it.
//! - Record, typed row, event and cursor commit together or not at all.
//!
//! Not here: the merge (`alexandria_sync::merge`), publishing events (`events`), content (`content`).

pub mod absence;
mod buckets;
pub mod erase;
pub mod feed;
mod handover;
pub mod identity;
mod intake;
mod lineage;
mod migrations;
mod present;
pub mod quarantine;
mod tables;
mod watcher;
pub(crate) mod words;
mod write;

use std::sync::Arc;
use std::time::Duration;

use alexandria_sync::absence::Standing;
use alexandria_sync::hlc::{ClockQuality, DRIFT_BOUND_MS};
use alexandria_sync::id::{BucketId, NodeId};
use alexandria_sync::merge::ReceiverClock;
use alexandria_sync::quarantine::{QuarantineFull, QuarantineLimits};
use alexandria_sync::record::encoding::{DecodeRecordError, RecordTooLarge};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgPool};
use tokio::sync::{Notify, broadcast, watch};

pub(crate) use self::buckets::BUCKETS_MAX_MAX;
use self::buckets::BucketLimits;
pub use self::buckets::BucketsFull;
pub use self::feed::NodeRecords;
pub use self::identity::Identity;
use self::intake::Intake;
pub use self::migrations::{is_migrated, migrate};
pub(crate) use self::write::Change;
pub use self::write::{Edit, EditError, Held};
use crate::metrics::Metrics;
use crate::together::Together;

/// How long a request waits for a free connection, and a connection for the server.
pub(crate) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// No statement of ours runs longer; what does hangs on a lock that its owner's death will not free soon.
const STATEMENT_TIMEOUT_MS: &str = "30000";
/// Waiting for a connection and then for a statement takes no longer, unless the server is gone without a word.
pub(crate) const STATEMENT_PATIENCE: Duration = Duration::from_secs(45);
/// All that a session asks of the database at once takes no longer, with the same exception.
pub(crate) const STORE_PATIENCE: Duration = Duration::from_mins(5);
/// How long a connection that is given back may take to show that it still works.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The `[postgres]` section.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `postgres://user:password@host:port/database`; `sslmode` and the like as libpq has them.
    pub url: String,
    /// Connections of this process, at most.
    pub connections_max: u32,
    /// How far ahead of this replica's clock a stamp may be, in milliseconds, before its record is set aside.
    pub drift_bound_ms: u64,
    /// Records of one node that are kept set aside, at most; a session that would bring more is ended.
    pub quarantine_records_max: u64,
    /// Bytes of them, at most.
    pub quarantine_bytes_max: u64,
    /// No more collections are made here or taken from nodes once there are so many; those that are there go on.
    pub buckets_max: u32,
    /// The same of those that one node has brought first.
    pub node_buckets_max: u32,
    /// How long, in seconds, what came in by thousands waits at most until it is found by its words, while this process goes on taking in
    /// as many.
    pub words_yield_max_s: u64,
}

impl Default for Config {
    fn default() -> Self {
        let QuarantineLimits { records_max, bytes_max } = QuarantineLimits::default();
        Self {
            url: String::new(),
            connections_max: 20,
            drift_bound_ms: DRIFT_BOUND_MS,
            quarantine_records_max: records_max,
            quarantine_bytes_max: bytes_max,
            buckets_max: 50_000,
            node_buckets_max: 10_000,
            words_yield_max_s: 120,
        }
    }
}

/// Why the record store could not do it. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecordStoreError {
    /// PostgreSQL is away or refused; worth another try.
    #[error("PostgreSQL failed")]
    Database(#[from] sqlx::Error),
    /// A node asked for what is not its own.
    #[error("bucket {bucket} is closed to node {node}")]
    Forbidden {
        /// The node.
        node: NodeId,
        /// What it asked for.
        bucket: BucketId,
    },
    /// A page named one bucket and held records of another.
    #[error("a record of bucket {found} came in a page of {expected}")]
    ForeignRecord {
        /// The page's.
        expected: BucketId,
        /// The record's.
        found: BucketId,
    },
    /// What PostgreSQL holds is not what was put in.
    #[error("a stored record of bucket {bucket} is damaged")]
    Damaged {
        /// Where it lies.
        bucket: BucketId,
        /// How it is damaged.
        source: DecodeRecordError,
    },
    /// A row that a person must have written.
    #[error("{table} holds a malformed value: {value}")]
    Malformed {
        /// The table.
        table: &'static str,
        /// The value.
        value: String,
    },
    /// A change made here would not fit a record.
    #[error(transparent)]
    TooLarge(#[from] RecordTooLarge),
    /// Too much of one node is set aside; nothing of the page was applied, and it will come again.
    #[error("{full} (node {node})")]
    QuarantineFull {
        /// The node.
        node: NodeId,
        /// The limits.
        full: QuarantineFull,
    },
    /// A record would have made a bucket, and no more may be made; nothing of the page was applied, and it will come again.
    #[error("bucket {bucket} of node {node} is not taken: {full}")]
    BucketsFull {
        /// The bucket.
        bucket: BucketId,
        /// Who would have made it.
        node: NodeId,
        /// The limit.
        full: BucketsFull,
    },
    /// Other writers were faster, too many times in a row.
    #[error("gave up after {0} collisions with other writers")]
    Contention(u32),
    /// The server is gone without a word.
    #[error("PostgreSQL: {0}")]
    Unanswered(#[from] Unanswered),
}

/// A call that did not end in a time that is enough wherever its servers answer. What it would have changed is undone by them, or done: as after
/// a connection that broke.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs())]
pub struct Unanswered(Duration);

/// Ends a call that takes longer: nothing else notices that the other machine is gone, as long as nothing is sent to it.
pub(crate) fn in_time<T, E: From<Unanswered>>(
    max: Duration,
    call: impl Future<Output = Result<T, E>> + Send,
) -> impl Future<Output = Result<T, E>> + Send {
    // On the heap: sessions would hold what all of them need in turn.
    let call = Box::pin(call);
    async move { tokio::time::timeout(max, call).await.unwrap_or_else(|_| Err(Unanswered(max).into())) }
}

/// The record store: one for each process, shared by everything in it.
#[derive(Clone)]
pub struct Records {
    shared: Arc<Shared>,
}

struct Shared {
    pool: PgPool,
    identity: Identity,
    drift_bound_ms: u64,
    quarantine_limits: QuarantineLimits,
    bucket_limits: BucketLimits,
    /// Whether changes are written to the outbox.
    announced: bool,
    metrics: Metrics,
    intake: Intake,
    words_yield_max: Duration,
    /// Rung when an erasure was written, a moment before its commit.
    erased: Notify,
    /// Rung after each commit that wrote events.
    events_waiting: Notify,
    /// Rung after each commit that wrote records.
    records_changed: watch::Sender<u64>,
    /// Names the buckets whose feeds have grown.
    grown: broadcast::Sender<BucketId>,
    present: Together<(), Standing, RecordStoreError>,
}

/// Opens the pool. Fails only if the URL makes no sense: the server may be away now and come back.
///
/// # Errors
///
/// If the URL cannot be read.
pub fn pool(config: &Config) -> Result<PgPool, sqlx::Error> {
    let options: PgConnectOptions = config.url.parse()?;
    let options = options.application_name("alexandria-bridge").options([("statement_timeout", STATEMENT_TIMEOUT_MS)]);
    Ok(PgPoolOptions::new()
        .max_connections(config.connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // The pool looks, too, but for as long as TCP believes in the other end, and with the connection's place taken.
        .after_release(|connection, _| {
            Box::pin(async {
                let looked = tokio::time::timeout(RELEASE_TIMEOUT, connection.ping()).await;
                looked.map_err(|elapsed| sqlx::Error::Io(elapsed.into()))?.map(|()| true)
            })
        })
        .connect_lazy_with(options))
}

impl Records {
    /// Opens the store on a migrated database, and starts a new life of this process's stamps. Changes are `announced`
    /// if somebody publishes the outbox.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away or not migrated.
    pub async fn open(
        pool: PgPool,
        config: &Config,
        announced: bool,
        metrics: Metrics,
    ) -> Result<Self, RecordStoreError> {
        let identity = Identity::open(&pool).await?;
        let (records_changed, _) = watch::channel(0);
        let (grown, _) = broadcast::channel(watcher::BACKLOG_MAX);
        let shared = Shared {
            pool,
            identity,
            drift_bound_ms: config.drift_bound_ms,
            quarantine_limits: QuarantineLimits {
                records_max: config.quarantine_records_max,
                bytes_max: config.quarantine_bytes_max,
            },
            bucket_limits: BucketLimits { buckets_max: config.buckets_max, node_buckets_max: config.node_buckets_max },
            announced,
            metrics,
            intake: Intake::default(),
            words_yield_max: Duration::from_secs(config.words_yield_max_s),
            erased: Notify::new(),
            events_waiting: Notify::new(),
            records_changed,
            grown,
            present: Together::new(ACQUIRE_TIMEOUT, STATEMENT_PATIENCE),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Who the bridge is.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// The pool behind the store.
    pub fn pool(&self) -> &PgPool {
        &self.shared.pool
    }

    /// Changes after every commit of this process that wrote records.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.records_changed.subscribe()
    }

    /// Completes once this process has committed events since it last completed.
    pub async fn events_waiting(&self) {
        self.shared.events_waiting.notified().await;
    }

    /// Completes once this process has been about to commit an erasure since it last completed.
    pub async fn erased(&self) {
        self.shared.erased.notified().await;
    }

    /// To be called after a commit that wrote events.
    pub fn ring_events(&self) {
        self.shared.events_waiting.notify_one();
    }

    /// The clock that what is received is judged by.
    pub fn clock(&self) -> ReceiverClock {
        let drift_bound_ms = self.shared.drift_bound_ms;
        ReceiverClock { unix_ms: now_unix_ms(), quality: ClockQuality::Trusted, drift_bound_ms }
    }

    /// The store as one node may see it.
    pub fn for_node(&self, node: NodeId) -> NodeRecords {
        NodeRecords::new(self.clone(), node)
    }

    /// Whether many records come in just now, so that what can wait had better.
    pub(crate) fn takes_in_many(&self) -> bool {
        self.shared.intake.is_large()
    }

    /// Whether somebody publishes what is written to the outbox.
    pub(crate) fn is_announced(&self) -> bool {
        self.shared.announced
    }

    fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    fn rang_records(&self) {
        self.shared.records_changed.send_modify(|count| *count += 1);
    }
}

/// Whether a node may read and write a bucket: the catalogue, every collection, and what belongs to its own site.
pub fn may_access(node: NodeId, bucket: BucketId) -> bool {
    match bucket {
        BucketId::Catalogue | BucketId::Collection(_) => true,
        BucketId::Site(site) => site == node,
    }
}

/// What selects a time as text, to the second (RFC 3339).
pub(crate) fn rfc3339(time: &str) -> String {
    format!("to_char(({time}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
}

/// Milliseconds since 1970.
pub(crate) fn now_unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
