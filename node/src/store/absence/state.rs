//! Where reading all anew has come to, as it is kept.

use alexandria_sync::id::{Epoch, NodeId};
use alexandria_sync::store::Peer;

/// Where reading all anew has come to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// What is confirmed is so as of `since_ms` or later, by the clock of the bridge's store; `u64::MAX` while nothing is.
    Reading {
        bridge: NodeId,
        since_ms: u64,
    },
    Sweeping {
        bridge: Peer,
        in_step_ms: u64,
        place: Vec<u8>,
    },
    /// Nothing that is confirmed counts: that is forgotten before reading begins.
    Clearing {
        bridge: NodeId,
    },
}

impl State {
    pub(super) fn beginning(bridge: NodeId) -> Self {
        Self::Reading { bridge, since_ms: u64::MAX }
    }

    pub(super) fn bridge(&self) -> NodeId {
        match self {
            Self::Reading { bridge, .. }
            | Self::Clearing { bridge }
            | Self::Sweeping { bridge: Peer { node: bridge, .. }, .. } => *bridge,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Reading { bridge, since_ms } => {
                [&[0], bridge.as_bytes().as_slice(), &since_ms.to_be_bytes()].concat()
            }
            Self::Clearing { bridge } => [&[2], bridge.as_bytes().as_slice()].concat(),
            Self::Sweeping { bridge, in_step_ms, place } => {
                let numbers = [bridge.epoch.0, *in_step_ms].map(u64::to_be_bytes).concat();
                [&[1], bridge.node.as_bytes().as_slice(), &numbers, place].concat()
            }
        }
    }

    pub(super) fn read(value: &[u8]) -> Option<Self> {
        let (tag, rest) = value.split_first()?;
        let (bridge, rest) = rest.split_first_chunk()?;
        let bridge = NodeId::from_bytes(*bridge);
        match tag {
            // Earlier versions did not keep the time: as of none.
            0 if rest.is_empty() => Some(Self::Reading { bridge, since_ms: 0 }),
            0 => Some(Self::Reading { bridge, since_ms: u64::from_be_bytes(rest.try_into().ok()?) }),
            1 => {
                let (epoch, rest) = rest.split_first_chunk()?;
                let (in_step_ms, place) = rest.split_first_chunk()?;
                let bridge = Peer { node: bridge, epoch: Epoch(u64::from_be_bytes(*epoch)) };
                Some(Self::Sweeping { bridge, in_step_ms: u64::from_be_bytes(*in_step_ms), place: place.to_vec() })
            }
            2 => Some(Self::Clearing { bridge }),
            _ => None,
        }
    }
}
