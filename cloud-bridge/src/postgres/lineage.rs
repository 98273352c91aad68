//! What is remembered of nodes, so that one that was set back to an older copy of itself, or runs twice, learns of it in its next
//! session (`alexandria_sync::lineage`, docs/adr/0016-copied-cards.md).
//!
//! It is written in the transaction of the page that told it, under a lock of the node's row: of two copies that have sessions at
//! two processes at once, one is refused.

use alexandria_sync::id::NodeId;
use alexandria_sync::lineage::{Remembered, Told, from_bytes, remember, to_bytes};
use alexandria_sync::store::Peer;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{RecordStoreError, Records};

impl Records {
    /// See [`alexandria_sync::store::RecordStore::remembered`].
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away or holds something else.
    pub async fn remembered(&self, of: NodeId) -> Result<Vec<Remembered>, RecordStoreError> {
        let moments: Option<Vec<u8>> = sqlx::query_scalar("SELECT moments FROM remembered WHERE node = $1")
            .bind(Uuid::from_bytes(*of.as_bytes()))
            .fetch_optional(self.pool())
            .await?;
        moments.map_or(Ok(Vec::new()), |moments| read(of, &moments))
    }
}

/// Remembers what a page told; whether the page may be taken.
pub(super) async fn note(tx: &mut PgConnection, from: Peer, told: &Told) -> Result<bool, RecordStoreError> {
    if *told == Told::Nothing {
        return Ok(true);
    }
    let node = Uuid::from_bytes(*from.node.as_bytes());
    let moments = if let Some(moments) = lock(tx, node).await? {
        moments
    } else {
        sqlx::query("INSERT INTO remembered (node, moments) VALUES ($1, '') ON CONFLICT DO NOTHING")
            .bind(node)
            .execute(&mut *tx)
            .await?;
        lock(tx, node).await?.unwrap_or_default()
    };
    let mut remembered = read(from.node, &moments)?;
    if !remember(&mut remembered, from.epoch, told) {
        return Ok(false);
    }
    sqlx::query("UPDATE remembered SET moments = $2 WHERE node = $1")
        .bind(node)
        .bind(to_bytes(&remembered))
        .execute(tx)
        .await?;
    Ok(true)
}

async fn lock(tx: &mut PgConnection, node: Uuid) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar("SELECT moments FROM remembered WHERE node = $1 FOR UPDATE").bind(node).fetch_optional(tx).await
}

fn read(of: NodeId, moments: &[u8]) -> Result<Vec<Remembered>, RecordStoreError> {
    from_bytes(moments).ok_or_else(|| RecordStoreError::Malformed { table: "remembered", value: of.to_string() })
}
