//! Counters that only grow, one record for each life of each node, so that two nodes never write the same one and a
//! restored card never counts twice.

use super::InvalidField;
use super::kind_table::kind_table;
use crate::id::{Incarnation, NodeId, RecordId};

kind_table! {
    /// How often one medium was opened at one node in one of its lives. Their sum is its popularity.
    OpenCount = 11 "open_count" {
        /// What was opened.
        1 lww media: RecordId,
        /// How often.
        2 max count: u64,
    }
}

impl OpenCount {
    /// The id of the counter that `node` keeps for `media` in its life `incarnation`.
    pub fn record_id(media: RecordId, node: NodeId, incarnation: Incarnation) -> RecordId {
        RecordId::derived(&[b"open", media.as_bytes(), node.as_bytes(), &incarnation.0.to_be_bytes()])
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "every kind has a check; here no value is wrong")]
    fn check(&self) -> Result<(), InvalidField> {
        Ok(())
    }
}
