//! What happens to links: they come up, carry packets, and are cut.

use std::collections::BTreeMap;

use super::{ABSENT_RETRY_MS, BRIDGE, Connection, Happening, NOTICE_US, RESEND_BYTES, RESEND_WINDOW_MS, World};
use crate::chunk::BlobHash;
use crate::session::{Config, DiskRequest, Input, Session};
use crate::sim::Sabotage;
use crate::sim::link::{Direction, Quality};
use crate::sim::replica::Conversation;
use crate::store::RecordStore as _;
use crate::wire::{Hello, Lane, PROTOCOL_MAX, PROTOCOL_MIN};

impl World {
    pub(super) fn connect(&mut self, node: usize) {
        if !self.replicas[node].up || self.replicas[node].conversations.contains_key(&BRIDGE) {
            return;
        }
        if !self.replicas[BRIDGE].up {
            let after = self.rng.between(500_000, 5_000_000);
            let life = self.replicas[node].life;
            self.schedule(after, Happening::Connect { node, life });
            return;
        }
        // The bridge takes the newer connection for the live one.
        if self.replicas[BRIDGE].conversations.contains_key(&node) {
            self.end_conversation(BRIDGE, node);
        }
        self.connections.retain(|_, connection| connection.node != node);
        self.serial += 1;
        let id = self.serial;
        let quality = self.random_quality();
        let ways = [Direction::new(quality), Direction::new(quality)];
        let connection = Connection { node, quality, ways, chunks: Default::default() };
        self.connections.insert(id, connection);
        self.figures.sessions += 1;
        for (replica, peer) in [(node, BRIDGE), (BRIDGE, node)] {
            let session = self.new_session(replica, peer, node);
            let conversation = Conversation {
                connection: id,
                session,
                disk: BTreeMap::new(),
                answers: BTreeMap::new(),
                quiet: false,
                timer_us: None,
            };
            self.replicas[replica].conversations.insert(peer, conversation);
            self.drain(replica, peer);
        }
    }

    pub(super) fn random_quality(&mut self) -> Quality {
        if self.healed {
            return Quality { rate: 400_000, latency_us: 5_000, loss_per_mille: 0, lane_window: 65_536 };
        }
        Quality {
            rate: *self.rng.pick(&[2_000, 8_000, 30_000, 100_000, 200_000]).unwrap_or(&8_000),
            latency_us: self.rng.between(1_000, 400_000),
            loss_per_mille: self.rng.below(40),
            lane_window: *self.rng.pick(&[4_096, 16_384, 65_536]).unwrap_or(&4_096),
        }
    }

    pub(super) fn new_session(&mut self, replica: usize, peer: usize, node: usize) -> Session {
        let (unix_ms, clock_quality) = self.look_at_clock(replica);
        let widened = if self.sabotage == Some(Sabotage::WindowIsIgnored) { 100 } else { 1 };
        let config = Config {
            page_bytes: 4096,
            resend_bytes: RESEND_BYTES * widened,
            resend_window_ms: RESEND_WINDOW_MS,
            window_bytes_max: 512 * 1024 * widened,
            sync_after_ms: 1_000 * widened,
            blobs_in_flight_max: 4,
            absent_retry_ms: ABSENT_RETRY_MS,
            ..Config::default()
        };
        let here = &self.replicas[replica];
        let hello = Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            node: here.node,
            incarnation: here.records.incarnation(),
            epoch: here.records.epoch(),
            unix_ms,
            clock_quality,
            software: "simulator".into(),
            features: 0,
        };
        let scope = self.replicas[node].scope.clone();
        Session::new(config, hello, self.replicas[peer].node, scope, self.now_us / 1000)
    }

    pub(super) fn cut(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        self.figures.cuts += 1;
        let node = connection.node;
        self.check_lost(id);
        self.connections.remove(&id);
        for (replica, peer) in [(node, BRIDGE), (BRIDGE, node)] {
            let after = self.rng.below(NOTICE_US);
            self.schedule(after, Happening::NoticeCut { replica, peer, connection: id });
        }
    }

    /// What a cut of this link now would have to bring again (invariant 12), at either end.
    pub(super) fn check_lost(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        let Quality { rate, latency_us, .. } = connection.quality;
        // Packets that were late arrive together: the rate as it is measured may be that much above the real one.
        let burst = rate * 3 * latency_us / 1_000_000;
        let bound = RESEND_BYTES.max((rate + burst) * RESEND_WINDOW_MS / 1000);
        let node = connection.node;
        let mut faults = Vec::new();
        for (way, receiver) in [(0, BRIDGE), (1, node)] {
            let sender = if receiver == BRIDGE { node } else { BRIDGE };
            let Some(conversation) = self.replicas[receiver].conversations.get(&sender) else { continue };
            // What was given up for want of room is not the cut's fault.
            let receiving: Vec<BlobHash> = conversation
                .session
                .receiving()
                .filter_map(|request| match request {
                    DiskRequest::Sync(manifest) => Some(manifest.blob()),
                    _ => None,
                })
                .collect();
            let blobs = &self.replicas[receiver].blobs;
            let lost: u64 = connection.chunks[way]
                .iter()
                .filter(|((blob, index), _)| receiving.contains(blob) && !blobs.has_durable(*blob, *index))
                .map(|(_, len)| len)
                .sum();
            if lost > bound {
                faults.push(format!("replica {receiver} must be sent {lost} bytes again; {bound} are allowed"));
            }
        }
        for fault in faults {
            self.violate(12, &fault);
        }
    }

    pub(super) fn send_packets(&mut self, id: u64, way: usize) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let direction = &mut connection.ways[way];
        if direction.sending {
            return;
        }
        let Some(sent) = direction.send(self.now_us, &mut self.rng) else { return };
        direction.sending = true;
        let now_us = self.now_us;
        if sent.drained {
            let lane = sent.lane;
            self.schedule(sent.free_us - now_us, Happening::Drained { connection: id, way, lane });
        }
        self.schedule(sent.free_us - now_us, Happening::WireFree { connection: id, way });
        let arrival = Happening::Arrive { connection: id, way, lane: sent.lane, bytes: sent.bytes };
        self.schedule(sent.arrives_us - now_us, arrival);
    }

    /// Tells the sender of a way.
    pub(super) fn tell_end(&mut self, id: u64, way: usize, input: Input) {
        let Some(node) = self.connections.get(&id).map(|connection| connection.node) else { return };
        let (replica, peer) = if way == 0 { (node, BRIDGE) } else { (BRIDGE, node) };
        if self.conversation(replica, peer, id).is_some() {
            self.tell(replica, peer, input);
        }
    }

    pub(super) fn arrive(&mut self, id: u64, way: usize, lane: Lane, bytes: &[u8]) {
        self.trace.update(&[way as u8, lane.number()]).update(bytes);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.ways[way].arrive(lane, bytes);
        self.read_lane(id, way, lane);
    }

    /// Reads what has arrived on a lane, as far as the session takes it.
    pub(super) fn read_lane(&mut self, id: u64, way: usize, lane: Lane) {
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let node = connection.node;
            let (replica, peer) = if way == 0 { (BRIDGE, node) } else { (node, BRIDGE) };
            let listener = self.replicas[replica].conversations.get(&peer);
            let Some(listener) = listener.filter(|conversation| conversation.connection == id) else { return };
            if !listener.session.accepts(lane) {
                return;
            }
            let frame = connection.ways[way].take_frame(lane);
            // What was read makes room in the window.
            self.send_packets(id, way);
            let decoded = match frame {
                Ok(Some((head, body))) => head.decode_body(body),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            match decoded {
                Ok(Some(message)) => self.tell(replica, peer, Input::Message(lane, message)),
                Ok(None) => {}
                Err(error) => {
                    self.violate(0, &format!("a frame does not read back: {error}"));
                    return;
                }
            }
        }
    }
}
