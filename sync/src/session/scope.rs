//! Which buckets a session may touch, in either direction.

use std::collections::BTreeSet;

use crate::id::{BucketId, NodeId, RecordId};

/// The collections of a [`Scope`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Collections {
    /// Every one.
    All,
    /// These.
    Only(BTreeSet<RecordId>),
}

/// What moves between a node and the bridge: the catalogue, some collections, and the node's own site. Between two nodes:
/// [`Scope::between_nodes`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scope {
    /// The node at one end of the session; [`NodeId::default`], which is nobody, where no site moves.
    pub site: NodeId,
    /// The collections that it may have.
    pub collections: Collections,
}

impl Scope {
    /// What moves between two nodes of a fleet: the catalogue and all collections, and nobody's site.
    pub fn between_nodes() -> Self {
        Self { site: NodeId::default(), collections: Collections::All }
    }

    /// Whether the bucket may move.
    pub fn contains(&self, bucket: BucketId) -> bool {
        match bucket {
            BucketId::Catalogue => true,
            BucketId::Collection(id) => match &self.collections {
                Collections::All => true,
                Collections::Only(ids) => ids.contains(&id),
            },
            BucketId::Site(node) => node == self.site && node != NodeId::default(),
        }
    }
}
