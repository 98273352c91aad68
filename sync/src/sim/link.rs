//! A connection in virtual time: each lane an ordered byte stream, lanes of a higher class first, packets that are late when
//! they are lost, and a cut that loses all that is on its way.
//!
//! It moves bytes and knows nothing of frames' meaning; the world tells it the time and schedules what it returns.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::seeded::Seeded;
use crate::wire::message::CONTENT_LANES;
use crate::wire::{FRAME_HEADER_BYTES, FrameHeader, Lane};

/// Bytes in a packet, at most.
const PACKET_BYTES: usize = 1200;
/// Lanes in each direction.
pub(super) const LANES: usize = CONTENT_LANES as usize + 2;

/// How good a link is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quality {
    /// Bytes a second, each way.
    pub(super) rate: u64,
    /// One way, in microseconds.
    pub(super) latency_us: u64,
    /// Packets in a thousand that have to be sent twice.
    pub(super) loss_per_mille: u64,
    /// Bytes of a lane that may be on their way or unread.
    pub(super) lane_window: usize,
}

/// One way of a connection.
#[derive(Debug)]
pub(super) struct Direction {
    quality: Quality,
    lanes: [LaneState; LANES],
    pub(super) sending: bool,
    /// The content lane whose turn it is.
    turn: usize,
}

#[derive(Debug, Default)]
struct LaneState {
    queue: VecDeque<Bytes>,
    /// On the way, or arrived and not read.
    unread: usize,
    last_arrival_us: u64,
    arrived: BytesMut,
    /// Arrived and not looked at.
    fresh: usize,
}

/// A packet that has just been put on the wire.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) lane: Lane,
    pub(super) bytes: Bytes,
    /// When the wire is free again.
    pub(super) free_us: u64,
    pub(super) arrives_us: u64,
    /// Whether a frame ended with it.
    pub(super) drained: bool,
}

impl Direction {
    pub(super) fn new(quality: Quality) -> Self {
        Self { quality, lanes: std::array::from_fn(|_| LaneState::default()), sending: false, turn: 0 }
    }

    pub(super) fn queue(&mut self, lane: Lane, frame: Bytes) {
        self.lanes[usize::from(lane.number())].queue.push_back(frame);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lanes.iter().all(|lane| lane.queue.is_empty() && lane.unread == 0)
    }

    /// Puts the next packet on the wire, if there is one that may go.
    pub(super) fn send(&mut self, now_us: u64, rng: &mut Seeded) -> Option<Sent> {
        let first_content = LANES - usize::from(CONTENT_LANES);
        let content =
            (0..usize::from(CONTENT_LANES)).map(|n| first_content + (self.turn + n) % usize::from(CONTENT_LANES));
        let order: Vec<usize> = (0..first_content).chain(content).collect();
        let window = self.quality.lane_window;
        let number = order.into_iter().find(|&n| !self.lanes[n].queue.is_empty() && self.lanes[n].unread < window)?;
        if number >= first_content {
            self.turn = number - first_content + 1;
        }
        let lane = &mut self.lanes[number];
        let frame = lane.queue.front_mut()?;
        let bytes = frame.split_to(frame.len().min(PACKET_BYTES).min(window - lane.unread));
        let drained = frame.is_empty();
        if drained {
            lane.queue.pop_front();
        }
        lane.unread += bytes.len();
        let air_us = bytes.len() as u64 * 1_000_000 / self.quality.rate;
        let mut free_us = now_us + air_us;
        let mut arrives_us = free_us + self.quality.latency_us;
        if rng.below(1000) < self.quality.loss_per_mille {
            free_us += air_us;
            arrives_us += air_us + 2 * self.quality.latency_us;
        }
        lane.last_arrival_us = lane.last_arrival_us.max(arrives_us);
        Some(Sent { lane: Lane::from_number(number as u8)?, bytes, free_us, arrives_us: lane.last_arrival_us, drained })
    }

    pub(super) fn arrive(&mut self, lane: Lane, bytes: &[u8]) {
        let lane = &mut self.lanes[usize::from(lane.number())];
        lane.arrived.extend_from_slice(bytes);
        lane.fresh += bytes.len();
    }

    /// Takes the next whole frame of the lane, as its head and its body.
    ///
    /// # Errors
    ///
    /// What is wrong with its head.
    pub(super) fn take_frame(
        &mut self,
        lane: Lane,
    ) -> Result<Option<(FrameHeader, Bytes)>, crate::wire::DecodeFrameError> {
        let lane = &mut self.lanes[usize::from(lane.number())];
        // What is being read takes no room in the window, however large its frame is.
        lane.unread -= std::mem::take(&mut lane.fresh);
        let Some(&head) = lane.arrived.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let head = FrameHeader::decode(head)?;
        if lane.arrived.len() < FRAME_HEADER_BYTES + head.body_len {
            return Ok(None);
        }
        lane.arrived.advance(FRAME_HEADER_BYTES);
        Ok(Some((head, lane.arrived.split_to(head.body_len).freeze())))
    }
}
