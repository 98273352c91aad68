//! Which buckets a session may touch ([`Scope`]), and which of them one end asks for ([`Selection`]).
//!
//! The two are kept apart: a scope is permission and both ends hold each other to it; a selection is what one end wants,
//! and the other end never hears of it.

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

/// The collections of a [`Selection`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Chosen {
    /// These.
    Only(BTreeSet<RecordId>),
    /// Every one but these.
    AllBut(BTreeSet<RecordId>),
}

impl Default for Chosen {
    /// Every one.
    fn default() -> Self {
        Self::AllBut(BTreeSet::new())
    }
}

/// What this end pulls of what is in scope. What it does not pull it still offers: edits made here reach the peer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Selection {
    /// The collections that are pulled.
    pub collections: Chosen,
    /// Those of them that were evicted here and not read to their end since: the peer is to send everything, also what
    /// came from here.
    pub returning: BTreeSet<RecordId>,
    /// Everything is read anew after a long absence (`absence`): of all buckets the peer is to send everything.
    pub all_anew: bool,
    /// Records are held back here: the peer is asked also for what came from here, if it can send that. What is held back may have
    /// reached it by way of a bundle, and is one of its own for it.
    pub holds_back: bool,
}

impl Selection {
    /// Whether the catalogue and all collections are kept here, and are here.
    pub fn is_all(&self) -> bool {
        let all = matches!(&self.collections, Chosen::AllBut(ids) if ids.is_empty());
        all && self.returning.is_empty() && !self.all_anew
    }

    /// Whether the bucket is wanted here.
    pub fn wants(&self, bucket: BucketId) -> bool {
        match bucket {
            BucketId::Collection(id) => match &self.collections {
                Chosen::Only(ids) => ids.contains(&id),
                Chosen::AllBut(ids) => !ids.contains(&id),
            },
            BucketId::Catalogue | BucketId::Site(_) => true,
        }
    }

    /// Whether rows that came from here have to be sent back, because they are not here any more or are unconfirmed.
    pub(crate) fn is_returning(&self, bucket: BucketId) -> bool {
        self.all_anew || matches!(bucket, BucketId::Collection(id) if self.returning.contains(&id))
    }

    /// Whether rows that came from here are asked for of a peer that can send them (`gives_back`).
    pub(super) fn asks_for_own(&self, bucket: BucketId, gives_back: bool) -> bool {
        self.is_returning(bucket) || self.holds_back && gives_back
    }

    /// Notes that a bucket was read to its end, and says whether that was news.
    pub(super) fn has_returned(&mut self, bucket: BucketId) -> bool {
        matches!(bucket, BucketId::Collection(id) if self.returning.remove(&id))
    }
}
