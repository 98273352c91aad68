//! How this node stands, as it is kept.

use super::super::error::StoreError;
use super::super::row::decode_number;

/// The times of this node, by the clock of the bridge's store.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Times {
    /// In step with the bridge.
    pub(super) in_step_ms: u64,
    /// In step but for the node's own site.
    pub(super) in_step_nearby_ms: u64,
    /// Deletes that the bridge had by then may be unknown here.
    pub(super) collected_ms: u64,
    /// Whether all was read once of one who is in step. Before that, what is here was made here, or given by others, and lives as of these times;
    /// what the bridge held then need not be here.
    pub(super) is_caught_up: bool,
}

impl Times {
    /// Those of a node that has read nothing of anybody.
    pub(super) fn as_of(at_ms: u64) -> Self {
        Self { in_step_ms: at_ms, in_step_nearby_ms: at_ms, ..Self::default() }
    }

    pub(super) fn encode(self) -> Vec<u8> {
        let times = [self.in_step_ms, self.in_step_nearby_ms, self.collected_ms].into_iter().flat_map(u64::to_be_bytes);
        // Earlier versions did not tell it apart, and read the times alone.
        times.chain((!self.is_caught_up).then_some(0)).collect()
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let number = |at: usize| value.get(at..at + 8).ok_or(StoreError::DamagedRow { what: "standing" });
        Ok(Self {
            in_step_ms: decode_number(number(0)?)?,
            in_step_nearby_ms: decode_number(number(8)?)?,
            collected_ms: decode_number(number(16)?)?,
            is_caught_up: value.len() == 24,
        })
    }

    /// Those of a node that holds no more than two copies of its data do together.
    pub(super) fn of_both(self, other: Self) -> Self {
        Self {
            in_step_ms: self.in_step_ms.min(other.in_step_ms),
            in_step_nearby_ms: self.in_step_nearby_ms.min(other.in_step_nearby_ms),
            collected_ms: self.collected_ms.max(other.collected_ms),
            is_caught_up: self.is_caught_up && other.is_caught_up,
        }
    }
}
