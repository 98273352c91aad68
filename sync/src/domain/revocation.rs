//! That a node was shut out of the fleet, told to all others.

use super::InvalidField;
use super::kind_table::kind_table;
use crate::hlc::Stamp;
use crate::id::{BucketId, NodeId, RecordId};
use crate::record::{FieldTag, Record, RecordKey};

kind_table! {
    /// A node is no longer welcome anywhere. Lives in the catalogue, under an id that follows from the node's; counts only as its bridge wrote it.
    Revocation = 22 "revocation" {
        /// The node.
        1 lww node: NodeId,
    }
}

/// The field that counts.
const NODE: FieldTag = FieldTag::lww(1);

impl Revocation {
    /// Where the revocation of a node is, if there is one.
    pub fn key(node: NodeId) -> RecordKey {
        let id = RecordId::derived(&[b"revocation", node.as_bytes()]);
        RecordKey { bucket: BucketId::Catalogue, kind: <Self as super::Typed>::KIND, id }
    }

    /// The record that `bridge` writes.
    pub fn of(node: NodeId, stamp: Stamp) -> Record {
        super::Typed::to_record(&Self { node }, BucketId::Catalogue, Self::key(node).id, stamp)
    }

    /// Whether a record says, in the words of `bridge`, that `node` is revoked.
    pub fn counts(record: &Record, node: NodeId, bridge: NodeId) -> bool {
        let named = record.fields().and_then(|fields| fields.get(&NODE));
        let is_of_bridge = named.is_some_and(|field| field.stamp.node == bridge);
        let says = <Self as super::Typed>::from_record(record).is_some_and(|revocation| revocation.node == node);
        record.key == Self::key(node) && is_of_bridge && says
    }

    fn check(&self) -> Result<(), InvalidField> {
        if self.node == NodeId::default() {
            return Err(InvalidField { field: "node", problem: "must be given".into() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlc::HlcTime;

    #[test]
    fn only_the_bridges_word_about_this_node_counts() {
        let (node, other, bridge) =
            (NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]), NodeId::from_bytes([9; 16]));
        let stamp = |by, unix_ms| Stamp { time: HlcTime::from_unix_ms(unix_ms), node: by, ..Stamp::default() };
        let revocation = Revocation::of(node, stamp(bridge, 1));
        assert!(Revocation::counts(&revocation, node, bridge));
        assert!(!Revocation::counts(&revocation, other, bridge));
        assert!(!Revocation::counts(&Revocation::of(node, stamp(other, 2)), node, bridge), "anybody could say so");
        let elsewhere = RecordKey { bucket: BucketId::Site(other), ..revocation.key };
        assert!(!Revocation::counts(&Record { key: elsewhere, ..revocation.clone() }, node, bridge));
        assert!(!Revocation::counts(&revocation.deleted(stamp(other, 3)), node, bridge));
    }
}
