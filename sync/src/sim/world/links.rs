//! What happens to links: they come up, carry packets, and are cut.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ABSENT_RETRY_MS, BACKLOG_BYTES_MAX, Connection, Happening, IDLE_US, NOTICE_US, RESEND_BYTES, RESEND_WINDOW_MS,
    World,
};
use crate::budget::Word;
use crate::chunk::BlobHash;
use crate::hlc::ClockQuality;
use crate::session::{Config, DiskRequest, Input, Scope, Selection, Session};
use crate::sim::link::{Direction, Packet, Quality};
use crate::sim::replica::Conversation;
use crate::sim::{Figures, Sabotage};
use crate::store::RecordStore as _;
use crate::wire::{Hello, Lane, PROTOCOL_MAX, PROTOCOL_MIN, feature};

impl World<'_> {
    /// Dials everybody that the node dials, each within some time.
    pub(super) fn dial_all(&mut self, node: usize, within_us: u64) {
        let life = self.replicas[node].life;
        let dialled: Vec<usize> = self.replicas[node].dialled().collect();
        if dialled.is_empty() {
            // Chance goes on as if there were somebody.
            self.rng.below(within_us);
        }
        for to in dialled {
            let after = self.rng.below(within_us);
            self.schedule(after, Happening::Connect { node, to, life });
        }
    }

    pub(super) fn connect(&mut self, node: usize, bridge: usize) {
        if !self.replicas[node].up || self.replicas[node].conversations.contains_key(&bridge) {
            return;
        }
        let is_away = self.now_us < self.silent_until_us
            || self.now_us < self.replicas[node].away_until_us
            || self.now_us < self.replicas[bridge].away_until_us
            || self.now_us < self.replicas[node].hole_until_us
            || self.now_us < self.replicas[bridge].hole_until_us;
        let is_revoked = [node, bridge].iter().any(|&end| self.replicas[end].revoked_us.is_some());
        let is_refused = is_revoked && self.sabotage != Some(Sabotage::RevokedAreLetIn);
        let held_us = self.held_for_us(node, bridge);
        if held_us.is_none() && (!self.replicas[bridge].up || is_away || is_refused) {
            self.note_failed_dial(node, bridge);
        }
        if held_us.is_some() || !self.replicas[bridge].up || is_away || is_refused {
            let longest = if is_refused { 60_000_000 } else { 5_000_000 };
            let away_until_us = self.replicas[node].away_until_us.max(self.replicas[bridge].away_until_us);
            let until_us = self.silent_until_us.max(away_until_us);
            let after = self.rng.between(500_000, longest).max(until_us.saturating_sub(self.now_us));
            let after = after.max(held_us.unwrap_or_default());
            let life = self.replicas[node].life;
            self.schedule(after, Happening::Connect { node, to: bridge, life });
            return;
        }
        if !self.prepare_session(node, bridge) {
            let after = self.rng.between(500_000, 5_000_000);
            let life = self.replicas[node].life;
            self.schedule(after, Happening::Connect { node, to: bridge, life });
            return;
        }
        self.note_who_passes_for_new(node, Some(bridge));
        self.note_who_passes_for_new(bridge, Some(node));
        // The bridge takes the newer connection for the live one.
        if self.replicas[bridge].conversations.contains_key(&node) {
            self.end_conversation(bridge, node);
        }
        let old: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.ends == [node, bridge])
            .map(|(&id, _)| id)
            .collect();
        for id in old {
            self.forget_connection(id);
        }
        self.serial += 1;
        let id = self.serial;
        let quality = if self.healed { [Quality::GOOD; 2] } else { Quality::random(&mut self.rng) };
        let control_last = self.sabotage == Some(Sabotage::ControlGoesLast);
        let connection = Connection {
            ends: [node, bridge],
            quality,
            ways: quality.map(|quality| Direction::new(quality, control_last)),
            chunks: Default::default(),
        };
        self.connections.insert(id, connection);
        self.fit_windows(id);
        self.figures.sessions += 1;
        for (replica, peer) in [(node, bridge), (bridge, node)] {
            let credit = if replica == node { self.open_link(node, peer, id) } else { None };
            let session = self.new_session(replica, peer, self.scope_between(node, bridge), credit);
            let conversation = Conversation {
                connection: id,
                session,
                disk: BTreeMap::new(),
                asked: BTreeSet::new(),
                answers: BTreeMap::new(),
                quiet: false,
                timer_us: None,
                epoch: self.replicas[replica].records.epoch(),
                reads_anew: self.replicas[replica].records.reads_anew(),
            };
            self.replicas[replica].conversations.insert(peer, conversation);
            self.drain(replica, peer);
        }
    }

    fn scope_between(&self, node: usize, peer: usize) -> Scope {
        if self.replicas[peer].is_bridge() || self.sabotage == Some(Sabotage::SitesCrossTheLan) {
            self.replicas[node].scope.clone()
        } else {
            Scope::between_nodes()
        }
    }

    fn new_session(&mut self, replica: usize, peer: usize, scope: Scope, credit: Option<Word>) -> Session {
        let (unix_ms, clock_quality) = self.look_at_clock(replica);
        let to_bridge = self.replicas[replica].is_bridge() || self.replicas[peer].is_bridge();
        let hello = self.hello_at(replica, peer, to_bridge, unix_ms, clock_quality);
        let config = Config { credit, ..self.session_config() };
        Session::new(config, hello, self.replicas[peer].node, scope, self.now_us / 1000)
            .selecting(self.selection_towards(replica, peer))
    }

    /// What it reads of the peer: a choice is about what comes from the bridge.
    fn selection_towards(&self, replica: usize, peer: usize) -> Selection {
        let here = &self.replicas[replica];
        let chosen = if self.replicas[peer].is_bridge() { here.selection.clone() } else { Selection::default() };
        Selection { all_anew: here.records.reads_anew(), holds_back: here.records.holds_back(), ..chosen }
    }

    pub(super) fn hello_at(
        &self,
        replica: usize,
        peer: usize,
        to_bridge: bool,
        unix_ms: u64,
        clock_quality: ClockQuality,
    ) -> Hello {
        let here = &self.replicas[replica];
        Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            node: here.node,
            incarnation: here.records.incarnation(),
            epoch: here.records.epoch(),
            unix_ms,
            clock_quality,
            software: "simulator".into(),
            features: (if here.old { 0 } else { feature::PATCHES })
                | (if self.has_leases() || self.plan.has_choices { feature::OWN_ROWS } else { 0 }),
            name: None,
            remembered: here.records.remembers(self.replicas[peer].node),
            standing: here.records.standing(to_bridge),
        }
    }

    pub(super) fn session_config(&self) -> Config {
        let widened = if self.sabotage == Some(Sabotage::WindowIsIgnored) { 100 } else { 1 };
        Config {
            page_bytes: 4096,
            resend_bytes: RESEND_BYTES * widened,
            resend_window_ms: RESEND_WINDOW_MS,
            window_bytes_max: 512 * 1024 * widened,
            sync_after_ms: 1_000 * widened,
            blobs_in_flight_max: 4,
            absent_retry_ms: ABSENT_RETRY_MS,
            backlog_bytes_max: BACKLOG_BYTES_MAX,
            ..Config::default()
        }
    }

    /// Takes a connection away, after its bytes were counted.
    pub(super) fn forget_connection(&mut self, id: u64) {
        if let Some(connection) = self.connections.remove(&id) {
            self.figures.add(&connection.figures());
        }
    }

    /// Cuts a link of the replica.
    pub(super) fn cut_one(&mut self, replica: usize) {
        let ids: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.ends.contains(&replica))
            .map(|(&id, _)| id)
            .collect();
        if let Some(&id) = self.rng.pick(&ids) {
            self.cut(id);
        }
    }

    pub(super) fn cut(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        self.figures.cuts += 1;
        let [node, bridge] = connection.ends;
        self.check_lost(id);
        self.forget_connection(id);
        for (replica, peer) in [(node, bridge), (bridge, node)] {
            let after = self.rng.below(NOTICE_US);
            self.schedule(after, Happening::NoticeCut { replica, peer, connection: id });
        }
    }

    /// The link is good from now on; one that swallows what it is given is cut.
    pub(super) fn mend(&mut self, id: u64) {
        let now_us = self.now_us;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.ways.iter().any(|way| way.is_swallowing(now_us)) {
            return self.cut(id);
        }
        for (way, quality) in connection.ways.iter_mut().zip(&mut connection.quality) {
            *quality = Quality { lane_window: quality.lane_window, price: quality.price, ..Quality::GOOD };
            way.mend(*quality);
        }
    }

    /// The link comes and goes: as soon as it is there it is cut again.
    pub(super) fn flap(&mut self, replica: usize, times: u64) {
        self.cut_one(replica);
        if times > 1 && !self.healed {
            let after = self.rng.between(100_000, 6_000_000);
            self.schedule(after, Happening::Flap { replica, times: times - 1 });
        }
    }

    /// Nobody has a link for a time.
    pub(super) fn silence(&mut self, for_us: u64) {
        self.silent_until_us = self.silent_until_us.max(self.now_us + for_us);
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            self.cut(id);
        }
    }

    /// Nothing gets through the links of the replica for a time, and nobody is told. Who hears nothing for too long gives up.
    pub(super) fn swallow(&mut self, replica: usize, for_us: u64) {
        self.figures.holes += 1;
        let until_us = self.now_us + for_us;
        self.replicas[replica].hole_until_us = until_us;
        let ids: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.ends.contains(&replica))
            .map(|(&id, _)| id)
            .collect();
        for id in ids {
            if for_us > IDLE_US {
                let after = self.rng.between(IDLE_US, IDLE_US + NOTICE_US);
                self.schedule(after, Happening::Cut { connection: id });
            }
            let now_us = self.now_us;
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            for way in &mut connection.ways {
                way.swallow_until(until_us, now_us);
            }
        }
    }

    /// What a cut of this link now would have to bring again (invariant 12), at either end.
    pub(super) fn check_lost(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        let [node, bridge] = connection.ends;
        let mut faults = Vec::new();
        for (way, sender, receiver) in [(0, node, bridge), (1, bridge, node)] {
            let Quality { rate, latency_us, .. } = connection.quality[way];
            // Packets that were late arrive together: the rate as it is measured may be that much above the real one.
            let burst = rate * 3 * latency_us / 1_000_000;
            let bound = RESEND_BYTES.max((rate + burst) * RESEND_WINDOW_MS / 1000);
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
        if connection.ways[way].sending {
            return;
        }
        let Some(sent) = connection.ways[way].send(self.now_us, &mut self.rng) else { return };
        connection.ways[way].sending = true;
        connection.ways[1 - way].acknowledge();
        self.note_crossed(id);
        let now_us = self.now_us;
        if sent.drained {
            let lane = sent.packet.lane;
            self.schedule(sent.free_us - now_us, Happening::Drained { connection: id, way, lane });
        }
        self.schedule(sent.free_us - now_us, Happening::WireFree { connection: id, way });
        if let Some(again_us) = sent.arrives_again_us {
            let packet = sent.packet.clone();
            self.schedule(again_us - now_us, Happening::Arrive { connection: id, way, packet });
        }
        self.schedule(sent.arrives_us - now_us, Happening::Arrive { connection: id, way, packet: sent.packet });
        if let Some((waited, allowed)) = sent.waited_too_long_us {
            let (waited, allowed) = (waited / 1000, allowed / 1000);
            self.violate(14, &format!("a frame of class 0 waited {waited} ms to be sent; {allowed} are allowed"));
        }
    }

    /// Tells the sender of a way.
    pub(super) fn tell_end(&mut self, id: u64, way: usize, input: Input) {
        let Some(ends) = self.connections.get(&id).map(|connection| connection.ends) else { return };
        let (replica, peer) = (ends[way], ends[1 - way]);
        if self.conversation(replica, peer, id).is_some() {
            self.tell(replica, peer, input);
        }
    }

    pub(super) fn arrive(&mut self, id: u64, way: usize, packet: Packet) {
        let lane = packet.lane;
        self.trace.update(&[way as u8, lane.number()]).update(&packet.bytes);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.ways[way].arrive(packet);
        self.note_crossed(id);
        self.read_lane(id, way, lane);
    }

    /// Reads what has arrived on a lane, as far as the session takes it.
    pub(super) fn read_lane(&mut self, id: u64, way: usize, lane: Lane) {
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let (peer, replica) = (connection.ends[way], connection.ends[1 - way]);
            let listener = self.replicas[replica].conversations.get(&peer);
            let Some(listener) = listener.filter(|conversation| conversation.connection == id) else { return };
            if !listener.session.accepts(lane) && self.sabotage != Some(Sabotage::LanesAreNeverHeldBack) {
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
                Ok(Some(message)) => {
                    self.note_answered(replica, peer, &message);
                    self.tell(replica, peer, Input::Message(lane, message));
                }
                Ok(None) => {}
                Err(error) => {
                    self.violate(0, &format!("a frame does not read back: {error}"));
                    return;
                }
            }
        }
    }
}

impl Connection {
    /// No more than this of each lane of one way may be on its way or unread.
    pub(super) fn limit_window(&mut self, way: usize, bytes: usize) {
        self.quality[way].lane_window = self.quality[way].lane_window.min(bytes);
        self.ways[way].limit_window(bytes);
    }

    /// What it has carried, and what that has cost.
    pub(super) fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for (way, quality) in self.ways.iter().zip(self.quality) {
            figures.wire_bytes += way.wire.bytes;
            figures.cost += way.wire.bytes * quality.price / 1000;
            figures.packets_lost += way.wire.packets_lost;
            figures.packets_late += way.wire.packets_late;
            figures.packets_twice += way.wire.packets_twice;
        }
        figures
    }
}
