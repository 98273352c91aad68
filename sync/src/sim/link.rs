//! A connection in virtual time: each lane an ordered byte stream over packets that are lost in bursts, come twice and in
//! another order; lanes of a higher class first; and a cut that loses all that is on its way.
//!
//! It moves bytes and knows nothing of frames' meaning; the world tells it the time and schedules what it returns. Lost
//! packets are sent again until they arrive, as a transport does it; every byte on the wire is counted, since some pay for it.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes, BytesMut};

use super::seeded::Seeded;
use crate::wire::message::CONTENT_LANES;
use crate::wire::{FRAME_HEADER_BYTES, FrameHeader, Lane};

/// Bytes of a lane in a packet, at most.
pub(super) const PACKET_BYTES: usize = 1200;
/// What a packet costs on the wire besides them: the heads of IP, UDP and QUIC.
const PACKET_OVERHEAD_BYTES: u64 = 48;
/// What the other way carries for each packet, on the average: half an acknowledgement.
const ACK_BYTES: u64 = 24;
/// A packet is lost this many times in a row, at most.
const LOST_IN_A_ROW_MAX: u32 = 12;
/// Lanes in each direction.
pub(super) const LANES: usize = CONTENT_LANES as usize + 2;
/// Frames of class 0 may have waited this long before their link was mended.
const WAITED_BEFORE_US: u64 = 600_000_000;
/// What class 0 may wait under a full queue, in round trips.
const ROUND_TRIPS_MAX: u64 = 3;

/// How good one way of a link is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quality {
    /// Bytes a second.
    pub(super) rate: u64,
    /// One way, in microseconds.
    pub(super) latency_us: u64,
    /// Packets in a thousand that are lost in good times and in bad ones (Gilbert and Elliott).
    pub(super) loss_per_mille: [u64; 2],
    /// Packets in a thousand at which good times turn bad, and bad ones good.
    pub(super) turns_per_mille: [u64; 2],
    /// Packets in a thousand that come late, after others that were sent later.
    pub(super) late_per_mille: u64,
    /// Packets in a thousand that come twice.
    pub(super) twice_per_mille: u64,
    /// Bytes of a lane that may be on their way or unread.
    pub(super) lane_window: usize,
    /// What 1,000 bytes cost, in thousandths of a cent.
    pub(super) price: u64,
}

impl Quality {
    /// A link with nothing wrong.
    pub(super) const GOOD: Self = Self {
        rate: 400_000,
        latency_us: 5_000,
        loss_per_mille: [0, 0],
        turns_per_mille: [0, 1000],
        late_per_mille: 0,
        twice_per_mille: 0,
        lane_window: 65_536,
        price: 0,
    };

    /// Both ways of a link as it is found out there.
    pub(super) fn random(rng: &mut Seeded) -> [Self; 2] {
        let rates = [2_000, 8_000, 30_000, 100_000, 200_000];
        let rate = *rng.pick(&rates).unwrap_or(&8_000);
        // By way of a geostationary satellite, or of two: 600 ms there and back, or each way.
        let far = *rng.pick(&[300_000, 600_000]).unwrap_or(&300_000);
        let latency_us = if rng.chance(30) { far } else { rng.between(1_000, 400_000) };
        let bursty = rng.chance(30);
        let way = Self {
            rate,
            latency_us,
            loss_per_mille: if bursty { [rng.below(10), rng.between(200, 700)] } else { [rng.below(60), 0] },
            turns_per_mille: if bursty { [rng.between(2, 20), rng.between(50, 300)] } else { [0, 1000] },
            late_per_mille: if rng.chance(30) { rng.below(100) } else { 0 },
            twice_per_mille: if rng.chance(30) { rng.below(50) } else { 0 },
            lane_window: *rng.pick(&[4_096, 16_384, 65_536]).unwrap_or(&4_096),
            price: if rng.chance(30) { rng.below(500) } else { 0 },
        };
        let back = if rng.chance(30) { Self { rate: *rng.pick(&rates).unwrap_or(&8_000), ..way } } else { way };
        [way, back]
    }
}

/// One way of a connection.
#[derive(Debug)]
pub(super) struct Direction {
    quality: Quality,
    lanes: [LaneState; LANES],
    pub(super) sending: bool,
    /// The content lane whose turn it is.
    turn: usize,
    times_are_bad: bool,
    /// Class 0 goes last, which breaks a promise.
    control_last: bool,
    /// Nothing arrives before this.
    hole_until_us: u64,
    /// What was lost or swallowed has kept class 0 for this long, in all.
    control_delays_us: u64,
    /// Of that, what the packet sent last has to do with.
    last_delay_us: u64,
    /// Of that, what was over when class 0 last had nothing on its way.
    settled_delays_us: u64,
    pub(super) wire: Wire,
}

/// What a way has carried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wire {
    pub(super) bytes: u64,
    /// Of these, what has come out at the other end.
    pub(super) arrived_bytes: u64,
    pub(super) packets_lost: u64,
    pub(super) packets_late: u64,
    pub(super) packets_twice: u64,
}

#[derive(Debug, Default)]
struct LaneState {
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    /// On the way, or arrived and not read.
    unread: usize,
    sent_bytes: u64,
    /// Where the next byte to be read stands in the stream.
    expected: u64,
    /// Arrived before bytes that stand before them.
    early: BTreeMap<u64, Bytes>,
    arrived: BytesMut,
    /// Arrived and not looked at.
    fresh: usize,
}

#[derive(Debug)]
struct Queued {
    frame: Bytes,
    at_us: u64,
    /// Bytes of the lane that had to go first, and the frame's own.
    ahead: u64,
    delays_us: u64,
}

/// A piece of a lane's stream.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) lane: Lane,
    offset: u64,
    pub(super) bytes: Bytes,
}

/// A packet that has just been put on the wire.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) packet: Packet,
    /// When the wire is free again.
    pub(super) free_us: u64,
    pub(super) arrives_us: u64,
    /// And once more.
    pub(super) arrives_again_us: Option<u64>,
    /// Whether a frame ended with it.
    pub(super) drained: bool,
    /// A frame of class 0 has waited longer than it may, and how long both are (invariant 14).
    pub(super) waited_too_long_us: Option<(u64, u64)>,
}

impl Direction {
    pub(super) fn new(quality: Quality, control_last: bool) -> Self {
        Self {
            quality,
            lanes: std::array::from_fn(|_| LaneState::default()),
            sending: false,
            turn: 0,
            times_are_bad: false,
            control_last,
            hole_until_us: 0,
            control_delays_us: 0,
            last_delay_us: 0,
            settled_delays_us: 0,
            wire: Wire::default(),
        }
    }

    pub(super) fn queue(&mut self, lane: Lane, frame: Bytes, now_us: u64) {
        if self.lanes[0].queue.is_empty() && self.lanes[0].unread == 0 {
            self.settled_delays_us = self.control_delays_us - self.last_delay_us;
        }
        let delays_us = self.settled_delays_us;
        let lane = &mut self.lanes[usize::from(lane.number())];
        lane.queued_bytes += frame.len();
        let ahead = (lane.queued_bytes + lane.unread) as u64;
        lane.queue.push_back(Queued { frame, at_us: now_us, ahead, delays_us });
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lanes.iter().all(|lane| lane.queue.is_empty() && lane.unread == 0)
    }

    /// No more than this of a lane may be on its way or unread.
    pub(super) fn limit_window(&mut self, bytes: usize) {
        self.quality.lane_window = self.quality.lane_window.min(bytes);
    }

    /// Bytes that wait to be sent.
    pub(super) fn queued_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.queued_bytes).sum()
    }

    /// From now on nothing arrives before `until_us`.
    pub(super) fn swallow_until(&mut self, until_us: u64, now_us: u64) {
        self.hole_until_us = until_us;
        self.control_delays_us += until_us.saturating_sub(now_us);
    }

    /// Whether nothing arrives just now.
    pub(super) fn is_swallowing(&self, now_us: u64) -> bool {
        now_us < self.hole_until_us
    }

    /// What is sent from now on goes over a link of this quality.
    pub(super) fn mend(&mut self, quality: Quality) {
        self.quality = quality;
        // What is queued, or comes while a packet is still on its way, waits by the measure of the link as it was.
        self.control_delays_us += WAITED_BEFORE_US;
        self.last_delay_us += WAITED_BEFORE_US;
        self.times_are_bad = false;
    }

    /// What a packet of the other way costs this one.
    pub(super) fn acknowledge(&mut self) {
        self.wire.bytes += ACK_BYTES;
        self.wire.arrived_bytes += ACK_BYTES;
    }

    /// Puts the next packet on the wire, if there is one that may go.
    pub(super) fn send(&mut self, now_us: u64, rng: &mut Seeded) -> Option<Sent> {
        let number = self.next_lane()?;
        let window = self.quality.lane_window;
        let lane = &mut self.lanes[number];
        let queued = lane.queue.front_mut()?;
        let bytes = queued.frame.split_to(queued.frame.len().min(PACKET_BYTES).min(window - lane.unread));
        let drained = queued.frame.is_empty();
        let (at_us, ahead, delays_us) = (queued.at_us, queued.ahead, queued.delays_us);
        if drained {
            lane.queue.pop_front();
        }
        lane.queued_bytes -= bytes.len();
        lane.unread += bytes.len();
        let packet = Packet { lane: Lane::from_number(number as u8)?, offset: lane.sent_bytes, bytes };
        lane.sent_bytes += packet.bytes.len() as u64;

        let wire_bytes = packet.bytes.len() as u64 + PACKET_OVERHEAD_BYTES;
        let air_us = wire_bytes * 1_000_000 / self.quality.rate;
        let (free_us, arrives_us) = self.fly(now_us, air_us, wire_bytes, rng);
        let twice = rng.below(1000) < self.quality.twice_per_mille;
        let arrives_again_us = twice.then(|| arrives_us + rng.below(2 * self.quality.latency_us + 1));
        self.wire.packets_twice += u64::from(twice);
        let undisturbed_us = now_us + air_us + self.quality.latency_us;
        let mut waited_too_long_us = None;
        if number == 0 {
            let waited_us = now_us - at_us;
            let allowed_us = self.control_wait_allowed_us(ahead) + self.control_delays_us - delays_us;
            waited_too_long_us = (drained && waited_us > allowed_us).then_some((waited_us, allowed_us));
        }
        let delayed = if number == 0 { arrives_us.saturating_sub(undisturbed_us) } else { free_us - now_us - air_us };
        self.control_delays_us += delayed;
        self.last_delay_us = delayed;
        Some(Sent { packet, free_us, arrives_us, arrives_again_us, drained, waited_too_long_us })
    }

    fn next_lane(&mut self) -> Option<usize> {
        let first_content = LANES - usize::from(CONTENT_LANES);
        let content = usize::from(CONTENT_LANES);
        let content = (0..content).map(|n| first_content + (self.turn + n) % content);
        let mut order: Vec<usize> = (0..first_content).chain(content).collect();
        if self.control_last {
            order.rotate_left(1);
        }
        let window = self.quality.lane_window;
        let number = order.into_iter().find(|&n| !self.lanes[n].queue.is_empty() && self.lanes[n].unread < window)?;
        if number >= first_content {
            self.turn = number - first_content + 1;
        }
        Some(number)
    }

    /// When the wire is free again, and when a packet that goes now arrives, however often it is lost before.
    fn fly(&mut self, now_us: u64, air_us: u64, wire_bytes: u64, rng: &mut Seeded) -> (u64, u64) {
        let mut free_us = now_us + air_us;
        let mut arrives_us = free_us + self.quality.latency_us;
        self.wire.bytes += wire_bytes;
        for _ in 0..LOST_IN_A_ROW_MAX {
            let turns = self.quality.turns_per_mille[usize::from(self.times_are_bad)];
            self.times_are_bad ^= rng.below(1000) < turns;
            if rng.below(1000) >= self.quality.loss_per_mille[usize::from(self.times_are_bad)] {
                break;
            }
            self.wire.bytes += wire_bytes;
            self.wire.packets_lost += 1;
            free_us += air_us;
            arrives_us += air_us + 2 * self.quality.latency_us;
        }
        if rng.below(1000) < self.quality.late_per_mille {
            self.wire.packets_late += 1;
            arrives_us += rng.below(2 * self.quality.latency_us + 1);
        }
        if arrives_us < self.hole_until_us {
            // Sent again and again; one of the first after the hole gets through.
            self.wire.bytes += wire_bytes * 3;
            arrives_us = self.hole_until_us + rng.below(3 * self.quality.latency_us + 1);
        }
        (free_us, arrives_us)
    }

    /// How long a frame of class 0 may wait that has `ahead` bytes of its own class before it, itself included.
    fn control_wait_allowed_us(&self, ahead: u64) -> u64 {
        let round_trips = ROUND_TRIPS_MAX + ahead / self.quality.lane_window as u64;
        let packets = ahead / 16 + 2;
        // What is on the wire when the frame comes is let finish; frames may be as small as sixteen bytes.
        let bytes = ahead + packets.min(ahead) * PACKET_OVERHEAD_BYTES + 2 * PACKET_BYTES as u64;
        round_trips * 2 * self.quality.latency_us + bytes * 1_000_000 / self.quality.rate
    }

    /// Takes in a packet that may have come before, or too early.
    pub(super) fn arrive(&mut self, packet: Packet) {
        self.wire.arrived_bytes += packet.bytes.len() as u64 + PACKET_OVERHEAD_BYTES;
        let lane = &mut self.lanes[usize::from(packet.lane.number())];
        if packet.offset >= lane.expected {
            lane.early.insert(packet.offset, packet.bytes);
        }
        while let Some(bytes) = lane.early.remove(&lane.expected) {
            lane.expected += bytes.len() as u64;
            lane.fresh += bytes.len();
            lane.arrived.extend_from_slice(&bytes);
        }
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
