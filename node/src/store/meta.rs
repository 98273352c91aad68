//! What the store knows about itself: whose it is, which life it is in, and the latest time it has handed out.
//!
//! The node's id also stands in a small text file beside the store, so that a node whose store was lost is still the
//! same node to its fleet.

use std::fs;
use std::path::Path;

use alexandria_sync::hlc::HlcTime;
use alexandria_sync::id::{Epoch, Incarnation, NodeId};
use rand::Rng;

use super::disk;
use super::engine::{Engine, EngineError};
use super::error::{OpenError, StoreError};
use super::keys;
use super::row::decode_number;

/// The layout described in `keys`. Older ones are migrated, newer ones refused.
pub(crate) const SCHEMA: u32 = 1;

/// Lives after a restore are this far apart at most; random, so that two restores of one backup differ.
const INCARNATION_STEP_MAX: u32 = 1 << 24;

/// Name of the file that holds the node's id.
const NODE_FILE: &str = "node-id";

/// Whose store this is, and in which life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// The life of its data, for stamps and counters.
    pub incarnation: Incarnation,
    /// The life of its feeds.
    pub epoch: Epoch,
}

impl Identity {
    /// A node that never was.
    pub(crate) fn first() -> Self {
        let mut rng = rand::rng();
        Self { node: NodeId::from_bytes(rng.random()), incarnation: Incarnation(1), epoch: random_epoch() }
    }

    /// The same node after its data was restored from a copy or rebuilt from what was left.
    pub(crate) fn next_life(self) -> Self {
        let step = rand::rng().random_range(1..=INCARNATION_STEP_MAX);
        let incarnation = Incarnation(self.incarnation.0.saturating_add(step));
        Self { node: self.node, incarnation, epoch: random_epoch() }
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        let mut value = SCHEMA.to_be_bytes().to_vec();
        value.extend(self.node.as_bytes());
        value.extend(self.incarnation.0.to_be_bytes());
        value.extend(self.epoch.0.to_be_bytes());
        value
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, OpenError> {
        let damaged = || StoreError::DamagedRow { what: "identity" };
        let (schema, rest) = value.split_first_chunk().ok_or_else(damaged)?;
        let schema = u32::from_be_bytes(*schema);
        if schema > SCHEMA {
            return Err(OpenError::TooNew { found: schema, supported: SCHEMA });
        }
        let (node, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let (incarnation, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let epoch: &[u8; 8] = rest.try_into().map_err(|_| damaged())?;
        Ok(Self {
            node: NodeId::from_bytes(*node),
            incarnation: Incarnation(u32::from_be_bytes(*incarnation)),
            epoch: Epoch(u64::from_be_bytes(*epoch)),
        })
    }
}

/// Not zero, and small enough for any database's signed integers.
fn random_epoch() -> Epoch {
    Epoch(rand::rng().random_range(1..=i64::MAX as u64))
}

pub(crate) fn identity_key() -> Vec<u8> {
    keys::key(keys::META, &[b"identity"])
}

pub(crate) fn hlc_key() -> Vec<u8> {
    keys::key(keys::META, &[b"hlc"])
}

/// Reads who this store is; `None` in a new one.
pub(crate) fn identity(engine: &Engine) -> Result<Option<Identity>, OpenError> {
    engine.get(&identity_key())?.map(|value| Identity::decode(&value)).transpose()
}

/// The latest time that was persisted.
pub(crate) fn hlc(engine: &Engine) -> Result<HlcTime, StoreError> {
    match engine.get(&hlc_key())? {
        Some(value) => Ok(HlcTime::from_bits(decode_number(&value)?)),
        None => Ok(HlcTime::default()),
    }
}

/// Writes who this store is, durably.
pub(crate) fn write_identity(engine: &Engine, identity: Identity) -> Result<(), EngineError> {
    engine.apply([(identity_key(), Some(identity.encode()))])?;
    engine.flush()
}

/// The node id in the file beside the store, if there is a good one.
pub(crate) fn node_file(data_dir: &Path) -> Option<NodeId> {
    fs::read_to_string(data_dir.join(NODE_FILE)).ok()?.trim().parse().ok()
}

/// Keeps the node id in the file beside the store.
pub(crate) fn write_node_file(data_dir: &Path, node: NodeId) -> Result<(), OpenError> {
    if node_file(data_dir) == Some(node) {
        return Ok(());
    }
    let path = data_dir.join(NODE_FILE);
    disk::write_durably(&path, format!("{node}\n").as_bytes()).map_err(|source| OpenError::Io {
        action: "write",
        path,
        source,
    })
}
