//! Tells all nodes who was revoked: the bridge itself knows from its table, nodes that meet on a local network from the catalogue.

use std::convert::Infallible;

use alexandria_sync::domain::Revocation;
use alexandria_sync::hlc::Stamp;
use alexandria_sync::id::{BucketId, NodeId};
use alexandria_sync::record::Record;
use uuid::Uuid;

use super::Fleet;
use crate::postgres::{Edit, EditError, RecordStoreError, Records};

/// Nodes that are told of in one go, at most; the rest comes next time.
const AT_ONCE: i64 = 1000;

impl Fleet {
    /// Writes a record of each revoked node that has none. Says how many. Safe to run beside other processes that do the same.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away. What was told by then is.
    pub async fn tell_of_revoked(&self, records: &Records) -> Result<u64, RecordStoreError> {
        let untold: Vec<Uuid> = sqlx::query_scalar(
            "SELECT id FROM node WHERE revoked_at IS NOT NULL AND NOT revocation_told ORDER BY id LIMIT $1",
        )
        .bind(AT_ONCE)
        .fetch_all(self.pool())
        .await?;
        for id in &untold {
            let node = NodeId::from_bytes(id.into_bytes());
            let key = Revocation::key(node);
            let keys = [(key.kind, key.id)];
            let written = records.edit(BucketId::Catalogue, &keys, |held| {
                let told = held.get(&keys[0]);
                let seen = told.map_or_else(Stamp::default, Record::newest_stamp);
                let bridge = records.identity().node_id();
                let is_told = told.is_some_and(|record| Revocation::counts(record, node, bridge));
                let new = (!is_told).then(|| Revocation::of(node, records.identity().stamp_above(seen)));
                Ok::<_, Infallible>(Edit { records: new.into_iter().collect(), answer: () })
            });
            match written.await {
                Ok(()) => {}
                Err(EditError::Refused(never)) => match never {},
                Err(EditError::Store(error)) => return Err(error),
            }
            sqlx::query("UPDATE node SET revocation_told = true WHERE id = $1").bind(id).execute(self.pool()).await?;
        }
        Ok(untold.len() as u64)
    }
}
