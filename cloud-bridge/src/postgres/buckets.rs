//! Which buckets there are, and how many there may be.
//!
//! A bucket has a row from its first record on, and is never deleted: whoever could make them without limit could shut everybody out, for a
//! session takes so many and no more. The limits hold for collections that are made; those that are there go on.

use alexandria_sync::id::{BucketId, NodeId};
use sqlx::PgPool;
use uuid::Uuid;

use super::{RecordStoreError, Records};

/// Buckets that a session may be offered: a peer that is offered more ends it (`alexandria_sync::session`).
pub(super) const OFFERED_MAX: i64 = 100_000;
/// What [`super::Config::buckets_max`] may be at most: a session is offered the catalogue and a site as well, and processes that make
/// buckets at the same moment do not count each other's.
pub(crate) const BUCKETS_MAX_MAX: u32 = 99_000;

/// Why a bucket was not made.
#[derive(Clone, Copy, Debug, thiserror::Error, Eq, PartialEq)]
pub enum BucketsFull {
    /// There are as many as there may be.
    #[error("there are {0} collections, and no more may be made (postgres.buckets_max)")]
    InAll(u32),
    /// There are as many of one node.
    #[error("{0} collections were brought first by this node, and it may bring no more (postgres.node_buckets_max)")]
    OfNode(u32),
}

/// How many collections there may be for another to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct BucketLimits {
    pub(super) buckets_max: u32,
    pub(super) node_buckets_max: u32,
}

impl Records {
    /// The bucket's number. A new bucket gets its row at once, outside of any transaction, so that nobody waits for it.
    pub(super) async fn bucket_no(&self, bucket: BucketId, from: Option<NodeId>) -> Result<i32, RecordStoreError> {
        loop {
            if let Some(no) = bucket_no(self.pool(), bucket).await? {
                return Ok(no);
            }
            let first_from = match bucket {
                BucketId::Collection(_) => {
                    self.check_limits(bucket, from).await?;
                    from.map(uuid)
                }
                // There is one for each node, and one for all.
                BucketId::Catalogue | BucketId::Site(_) => None,
            };
            sqlx::query("INSERT INTO bucket (name, first_from) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(bucket.to_string())
                .bind(first_from)
                .execute(self.pool())
                .await?;
        }
    }

    async fn check_limits(&self, bucket: BucketId, from: Option<NodeId>) -> Result<(), RecordStoreError> {
        let BucketLimits { buckets_max, node_buckets_max } = self.shared.bucket_limits;
        let (in_all, of_node): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM bucket WHERE name NOT LIKE 'site/%' AND name <> 'catalogue'), \
                (SELECT count(*) FROM bucket WHERE first_from = $1)",
        )
        .bind(from.map(uuid))
        .fetch_one(self.pool())
        .await?;
        let full = if from.is_some() && of_node >= node_buckets_max.into() {
            BucketsFull::OfNode(node_buckets_max)
        } else if in_all >= buckets_max.into() {
            BucketsFull::InAll(buckets_max)
        } else {
            return Ok(());
        };
        self.metrics().buckets_full.inc();
        Err(RecordStoreError::BucketsFull { bucket, node: from.unwrap_or(self.identity().node_id()), full })
    }
}

/// The bucket's number, if it has a row.
pub(super) async fn bucket_no(pool: &PgPool, bucket: BucketId) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar("SELECT no FROM bucket WHERE name = $1").bind(bucket.to_string()).fetch_optional(pool).await
}

fn uuid(node: NodeId) -> Uuid {
    Uuid::from_bytes(*node.as_bytes())
}
