//! When each blob was last opened here, and whether the bridge is known to hold it: what eviction goes by.
//!
//! The time is coarse (`GRAIN_MS`) and kept cheaply: readers only mark it in memory, and the marks of a minute are
//! written together. A blob that nobody opened counts from when it arrived.

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::id::NodeId;

use super::error::StoreError;
use super::keys;
use super::overlay::Overlay;

/// Times of use are kept in steps of this, in milliseconds: a minute.
const GRAIN_MS: u64 = 60 * 1000;

/// A row of table `U`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct UseRow {
    /// Minutes since 1970.
    pub(crate) minute: u32,
    /// The bridge that has said that it holds the blob whole.
    pub(crate) held_by: Option<NodeId>,
}

impl UseRow {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut value = self.minute.to_be_bytes().to_vec();
        if let Some(node) = self.held_by {
            value.extend(node.as_bytes());
        }
        value
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError::DamagedRow { what: "use of a blob" };
        let (minute, rest) = value.split_first_chunk().ok_or_else(damaged)?;
        let held_by = match rest {
            [] => None,
            rest => Some(NodeId::from_bytes(rest.try_into().map_err(|_| damaged())?)),
        };
        Ok(Self { minute: u32::from_be_bytes(*minute), held_by })
    }
}

/// The bridge may have removed a blob since it said that it holds it, unless records have named it all the time: a record that
/// names it only now may be news to it.
pub(crate) fn forget_holder(rows: &mut Overlay<'_>, blob: BlobHash) -> Result<(), StoreError> {
    let key = keys::usage(blob);
    let Some(row) = rows.get(&key)?.map(|value| UseRow::decode(&value)).transpose()? else { return Ok(()) };
    if row.held_by.is_some() {
        rows.put(key, UseRow { held_by: None, ..row }.encode());
    }
    Ok(())
}

/// The minute that a time lies in.
pub(crate) fn minute(unix_ms: u64) -> u32 {
    u32::try_from(unix_ms / GRAIN_MS).unwrap_or(u32::MAX)
}
