//! The events of a world, in the order of virtual time.

use std::collections::{BTreeMap, BTreeSet};

use super::link::{Direction, Quality};
use super::ops::{self, LocalOp};
use super::replica::{Conversation, Replica, Wall, Written};
use super::seeded::Seeded;
use super::{Figures, Outcome, Sabotage, Violation};
use crate::chunk::BlobHash;
use crate::id::{Incarnation, NodeId};
use crate::session::{Closed, Collections, Config, DiskDone, DiskRequest, Event, Input, Output, Scope, Session};
use crate::store::RecordStore as _;
use crate::wire::{CloseReason, Hello, Lane, Message, PROTOCOL_MAX, PROTOCOL_MIN};

/// The bridge's place among the replicas; nodes follow.
pub(super) const BRIDGE: usize = 0;
/// A world that is healed is quiet within this, or never.
const HEAL_LIMIT_US: u64 = 4 * 3600 * 1_000_000;
/// Content that was absent everywhere it was asked for is asked for again after this.
const ABSENT_RETRY_MS: u64 = 20_000;
const EVENTS_MAX: u64 = 2_000_000;
/// Times in which an end may go on without noticing that the link is gone.
const NOTICE_US: u64 = 8_000_000;

/// What one end may have to send again, in bytes.
pub(super) const RESEND_BYTES: u64 = 16_384;
pub(super) const RESEND_WINDOW_MS: u64 = 2_000;

#[derive(Debug)]
enum Happening {
    Op,
    WireFree { connection: u64, way: usize },
    Drained { connection: u64, way: usize, lane: Lane },
    Arrive { connection: u64, way: usize, lane: Lane, bytes: bytes::Bytes },
    Disk { replica: usize, peer: usize, connection: u64, request: u64 },
    Local { replica: usize, life: u32, op: u64 },
    Timer { replica: usize, peer: usize, connection: u64 },
    NoticeCut { replica: usize, peer: usize, connection: u64 },
    Connect { node: usize, life: u32 },
    Restart { replica: usize },
}

/// A link that carries a session: way 0 from the node to the bridge, way 1 back.
#[derive(Debug)]
struct Connection {
    node: usize,
    quality: Quality,
    ways: [Direction; 2],
    /// Chunks handed to the link on each way, with their lengths.
    chunks: [BTreeMap<(BlobHash, u32), u64>; 2],
    /// Blobs that the receiver of a way gave up while it went on: their chunks are not the cut's fault.
    given_up: [BTreeSet<BlobHash>; 2],
}

/// One world.
pub(super) struct World {
    pub(super) seed: u64,
    sabotage: Option<Sabotage>,
    pub(super) rng: Seeded,
    pub(super) now_us: u64,
    serial: u64,
    heap: BTreeMap<(u64, u64), Happening>,
    pub(super) replicas: Vec<Replica>,
    connections: BTreeMap<u64, Connection>,
    ops_left: u64,
    /// Faults are over.
    pub(super) healed: bool,
    skipped_ms: u64,
    pub(super) violations: Vec<Violation>,
    pub(super) figures: Figures,
    trace: blake3::Hasher,
}

impl World {
    pub(super) fn new(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let mut rng = Seeded::new(seed);
        let count = 2 + rng.below(3) as usize;
        let old = rng.below(count as u64 + 2) as usize;
        let ids: Vec<NodeId> = (0..count)
            .map(|_| NodeId::from_bytes(rng.noise(16).try_into().expect("sixteen bytes were asked for")))
            .collect();
        let [one, _] = ops::collections();
        let replicas: Vec<Replica> = (0..count)
            .map(|at| {
                let only_one = at != BRIDGE && rng.chance(25);
                let collections = if only_one { Collections::Only([one].into()) } else { Collections::All };
                let scope = Scope { site: ids[at], collections };
                let wall = if at == BRIDGE && rng.chance(80) { Wall::RIGHT } else { Wall::random(&mut rng) };
                Replica::new(ids[at], scope, at == old, wall, sabotage)
            })
            .collect();
        for node in 1..count {
            let scope = replicas[node].scope.clone();
            replicas[BRIDGE].blobs.permit(ids[node], scope.clone());
            replicas[node].blobs.permit(ids[BRIDGE], scope);
        }
        let ops_left = rng.between(20, 70);
        let mut world = Self {
            seed,
            sabotage,
            rng,
            now_us: 0,
            serial: 0,
            heap: BTreeMap::new(),
            replicas,
            connections: BTreeMap::new(),
            ops_left,
            healed: false,
            skipped_ms: 0,
            violations: Vec::new(),
            figures: Figures { worlds: 1, ..Figures::default() },
            trace: blake3::Hasher::new(),
        };
        world.schedule(0, Happening::Op);
        for node in 1..count {
            let after = world.rng.below(3_000_000);
            world.schedule(after, Happening::Connect { node, life: 0 });
        }
        world
    }

    /// From the first event to the last check.
    pub(super) fn live(mut self) -> Outcome {
        while self.ops_left > 0 || self.under_way() {
            self.step();
        }
        self.heal();
        let limit_us = self.now_us + HEAL_LIMIT_US;
        let mut records_judged = false;
        loop {
            if self.is_quiet() {
                if !records_judged {
                    self.check_quiet_records();
                    records_judged = true;
                }
                if self.blobs_missing().is_none() {
                    break;
                }
            }
            if !self.step() || self.now_us > limit_us || self.figures.events > EVENTS_MAX {
                let missing = self.blobs_missing().unwrap_or_default();
                self.violate(1, &format!("never quiet after all faults ended; {missing}"));
                break;
            }
            if !self.violations.is_empty() {
                break;
            }
        }
        if records_judged || self.violations.is_empty() {
            self.check_end();
        }
        self.figures.virtual_ms = self.now_us / 1000;
        Outcome { violations: self.violations, trace: *self.trace.finalize().as_bytes(), figures: self.figures }
    }

    /// Whether somebody is down or has asked for something that is not carried out.
    fn under_way(&self) -> bool {
        self.violations.is_empty() && self.replicas.iter().any(|replica| !replica.up || !replica.local.is_empty())
    }

    pub(super) fn violate(&mut self, invariant: u8, text: &str) {
        let text = format!("at {} ms: {text}", self.now_us / 1000);
        self.violations.push(Violation { invariant, seed: self.seed, text });
        self.ops_left = 0;
    }

    fn schedule(&mut self, after_us: u64, happening: Happening) {
        self.serial += 1;
        let jitter_us = if self.sabotage == Some(Sabotage::UnseededChance) {
            use std::hash::{BuildHasher, RandomState};
            RandomState::new().hash_one(0) % 1000
        } else {
            0
        };
        self.heap.insert((self.now_us + after_us + jitter_us, self.serial), happening);
    }

    /// Lets the next event happen; false if there is none.
    fn step(&mut self) -> bool {
        let Some(((at_us, _), happening)) = self.heap.pop_first() else { return false };
        self.now_us = at_us;
        self.figures.events += 1;
        self.trace.update(&at_us.to_be_bytes());
        match happening {
            Happening::Op => self.random_op(),
            Happening::WireFree { connection, way } => {
                if let Some(connection) = self.connections.get_mut(&connection) {
                    connection.ways[way].sending = false;
                }
                self.send_packets(connection, way);
            }
            Happening::Drained { connection, way, lane } => {
                self.tell_end(connection, way, Input::LaneDrained(lane));
            }
            Happening::Arrive { connection, way, lane, bytes } => self.arrive(connection, way, lane, &bytes),
            Happening::Disk { replica, peer, connection, request } => {
                self.finish_request(replica, peer, connection, request);
            }
            Happening::Local { replica, life, op } => {
                if self.replicas[replica].life == life
                    && let Some(op) = self.replicas[replica].local.remove(&op)
                {
                    self.carry_out_local(replica, op, true, false);
                }
            }
            Happening::Timer { replica, peer, connection } => {
                let now_us = self.now_us;
                let due = self.conversation(replica, peer, connection).is_some_and(|conversation| {
                    let due = conversation.timer_us == Some(now_us);
                    if due {
                        conversation.timer_us = None;
                    }
                    due
                });
                if due {
                    self.tell(replica, peer, Input::Timer);
                }
            }
            Happening::NoticeCut { replica, peer, connection } => {
                if self.conversation(replica, peer, connection).is_some() {
                    self.end_conversation(replica, peer);
                }
            }
            Happening::Connect { node, life } => {
                if self.replicas[node].life == life {
                    self.connect(node);
                }
            }
            Happening::Restart { replica } => self.restart(replica),
        }
        true
    }

    fn conversation(&mut self, replica: usize, peer: usize, connection: u64) -> Option<&mut Conversation> {
        self.replicas[replica].conversations.get_mut(&peer).filter(|conversation| conversation.connection == connection)
    }

    // What happens to links.

    fn connect(&mut self, node: usize) {
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
        let connection = Connection { node, quality, ways, chunks: Default::default(), given_up: Default::default() };
        self.connections.insert(id, connection);
        self.figures.sessions += 1;
        for (replica, peer) in [(node, BRIDGE), (BRIDGE, node)] {
            let session = self.new_session(replica, peer, node);
            let conversation =
                Conversation { connection: id, session, disk: BTreeMap::new(), quiet: false, timer_us: None };
            self.replicas[replica].conversations.insert(peer, conversation);
            self.drain(replica, peer);
        }
    }

    fn random_quality(&mut self) -> Quality {
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

    fn new_session(&mut self, replica: usize, peer: usize, node: usize) -> Session {
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
            incarnation: if here.old { Incarnation(1) } else { here.records.incarnation() },
            epoch: here.records.epoch(),
            unix_ms,
            clock_quality,
            software: "simulator".into(),
            features: 0,
        };
        let scope = self.replicas[node].scope.clone();
        Session::new(config, hello, self.replicas[peer].node, scope, self.now_us / 1000)
    }

    fn cut(&mut self, id: u64) {
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
    fn check_lost(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        let Quality { rate, latency_us, .. } = connection.quality;
        // Packets that were late arrive together: the rate as it is measured may be that much above the real one.
        let burst = rate * 3 * latency_us / 1_000_000;
        let bound = RESEND_BYTES.max((rate + burst) * RESEND_WINDOW_MS / 1000);
        let node = connection.node;
        let mut faults = Vec::new();
        for (way, receiver) in [(0, BRIDGE), (1, node)] {
            let blobs = &self.replicas[receiver].blobs;
            let lost: u64 = connection.chunks[way]
                .iter()
                .filter(|((blob, index), _)| {
                    !connection.given_up[way].contains(blob) && !blobs.has_durable(*blob, *index)
                })
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

    fn send_packets(&mut self, id: u64, way: usize) {
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
    fn tell_end(&mut self, id: u64, way: usize, input: Input) {
        let Some(node) = self.connections.get(&id).map(|connection| connection.node) else { return };
        let (replica, peer) = if way == 0 { (node, BRIDGE) } else { (BRIDGE, node) };
        if self.conversation(replica, peer, id).is_some() {
            self.tell(replica, peer, input);
        }
    }

    fn arrive(&mut self, id: u64, way: usize, lane: Lane, bytes: &[u8]) {
        self.trace.update(&[way as u8, lane.number()]).update(bytes);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.ways[way].arrive(lane, bytes);
        self.read_lane(id, way, lane);
    }

    /// Reads what has arrived on a lane, as far as the session takes it.
    fn read_lane(&mut self, id: u64, way: usize, lane: Lane) {
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

    // What happens to sessions.

    fn tell(&mut self, replica: usize, peer: usize, input: Input) {
        let now_ms = self.now_us / 1000;
        let Some(conversation) = self.replicas[replica].conversations.get_mut(&peer) else { return };
        conversation.session.handle(input, now_ms);
        self.drain(replica, peer);
    }

    fn tell_all(&mut self, replica: usize, input: impl Fn() -> Input) {
        let peers: Vec<usize> = self.replicas[replica].conversations.keys().copied().collect();
        for peer in peers {
            self.tell(replica, peer, input());
        }
    }

    /// Carries out what the session wants.
    fn drain(&mut self, replica: usize, peer: usize) {
        let way = usize::from(replica == BRIDGE);
        loop {
            let Some(conversation) = self.replicas[replica].conversations.get_mut(&peer) else { return };
            let id = conversation.connection;
            let Some(output) = conversation.session.poll() else { break };
            match output {
                Output::Send(lane, message) => {
                    conversation.quiet &= matches!(message, Message::Quiet { .. });
                    self.send(id, way, lane, &message);
                }
                Output::Disk(request) => {
                    conversation.quiet = false;
                    self.serial += 1;
                    let number = self.serial;
                    if let DiskRequest::Release(blob) = &request
                        && let Some(connection) = self.connections.get_mut(&id)
                    {
                        connection.given_up[1 - way].insert(*blob);
                    }
                    conversation.disk.insert(number, request);
                    let after = self.rng.between(50, 30_000);
                    self.schedule(after, Happening::Disk { replica, peer, connection: id, request: number });
                }
                Output::Event(event) => self.hear(replica, peer, &event),
                Output::Closed(closed) => {
                    self.closed(replica, peer, id, &closed);
                    return;
                }
            }
        }
        let now_us = self.now_us;
        let Some(conversation) = self.replicas[replica].conversations.get_mut(&peer) else { return };
        let next_us = conversation.session.next_timeout().map(|at_ms| (at_ms * 1000).max(now_us + 1));
        if next_us != conversation.timer_us {
            conversation.timer_us = next_us;
            let connection = conversation.connection;
            if let Some(at_us) = next_us {
                self.heap_timer(at_us, Happening::Timer { replica, peer, connection });
            }
        }
    }

    /// Timers come exactly when they are due: [`Happening::Timer`] is told by its time.
    fn heap_timer(&mut self, at_us: u64, timer: Happening) {
        self.serial += 1;
        self.heap.insert((at_us, self.serial), timer);
    }

    fn send(&mut self, id: u64, way: usize, lane: Lane, message: &Message) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let Message::Chunk { blob, index, bytes } = message {
            connection.chunks[way].insert((*blob, *index), bytes.len() as u64);
        }
        connection.ways[way].queue(lane, message.to_frame());
        self.send_packets(id, way);
    }

    fn hear(&mut self, replica: usize, peer: usize, event: &Event) {
        match event {
            Event::Quiet => {
                if let Some(conversation) = self.replicas[replica].conversations.get_mut(&peer) {
                    conversation.quiet = true;
                }
            }
            Event::BlobReceived { .. } => self.figures.blobs += 1,
            Event::ContentBlocked => self.figures.full += 1,
            Event::PeerHello(_) | Event::Applied(..) => {}
        }
    }

    fn closed(&mut self, replica: usize, peer: usize, id: u64, closed: &Closed) {
        if !matches!(closed.reason, CloseReason::Done | CloseReason::GoingAway) {
            self.violate(0, &format!("an honest peer was told: {:?} {}", closed.reason, closed.text));
        }
        self.end_conversation(replica, peer);
        if closed.by_peer {
            self.connections.remove(&id);
        }
    }

    /// What the driver does when a connection ends: waits for the disk, keeps what was received, lets go of the rest.
    fn end_conversation(&mut self, replica: usize, peer: usize) {
        let Some(mut conversation) = self.replicas[replica].conversations.remove(&peer) else { return };
        let node_there = self.replicas[peer].node;
        let mut requests: Vec<DiskRequest> = std::mem::take(&mut conversation.disk).into_values().collect();
        while !requests.is_empty() {
            let next = self.rng.below(requests.len() as u64) as usize;
            if let Some(done) = self.carry_out(replica, requests.swap_remove(next), node_there) {
                conversation.session.settle_after_close(&done);
            }
        }
        let unfinished: Vec<DiskRequest> = conversation.session.receiving().collect();
        for request in unfinished {
            self.carry_out(replica, request, node_there);
        }
        if replica != BRIDGE {
            let after = self.rng.between(100_000, 10_000_000);
            let life = self.replicas[replica].life;
            self.schedule(after, Happening::Connect { node: replica, life });
        }
    }

    // What happens to disks.

    pub(super) fn look_at_clock(&self, replica: usize) -> (u64, crate::hlc::ClockQuality) {
        self.replicas[replica].look_at_clock(self.now_us / 1000, self.skipped_ms)
    }

    fn finish_request(&mut self, replica: usize, peer: usize, connection: u64, number: u64) {
        let Some(conversation) = self.conversation(replica, peer, connection) else { return };
        let Some(request) = conversation.disk.remove(&number) else { return };
        let node_there = self.replicas[peer].node;
        if let Some(done) = self.carry_out(replica, request, node_there) {
            self.tell(replica, peer, Input::Disk(done));
            // There may be room for records again.
            self.read_lane(connection, usize::from(replica != BRIDGE), Lane::Records);
        }
    }

    /// Carries out one request, and tells the other conversations of the replica what came of it.
    fn carry_out(&mut self, replica: usize, request: DiskRequest, peer: NodeId) -> Option<DiskDone> {
        self.look_at_clock(replica);
        let received = if let DiskRequest::Apply { records, .. } = &request { records.len() } else { 0 };
        let done = self.replicas[replica].carry_out(request, peer)?;
        match &done {
            DiskDone::Applied(bucket, applied) => {
                let sum = applied.applied + applied.superseded + applied.quarantined;
                if sum as usize != received {
                    self.violate(8, &format!("of {received} records received in {bucket}, {sum} are accounted for"));
                }
                self.figures.received += u64::from(sum);
                self.figures.quarantined += u64::from(applied.quarantined);
                if applied.applied > 0 {
                    let bucket = *bucket;
                    self.tell_all(replica, || Input::LocalChange(bucket));
                    // What the records refer to may be wanted from any peer.
                    self.tell_all(replica, || Input::WantsChanged);
                }
            }
            DiskDone::Finished(blob, Ok(())) => {
                let blob = *blob;
                self.tell_all(replica, || Input::BlobCompleted(blob));
            }
            _ => {}
        }
        Some(done)
    }

    fn carry_out_local(&mut self, replica: usize, op: LocalOp, told: bool, cut_short: bool) {
        self.look_at_clock(replica);
        let done = ops::carry_out(&self.replicas[replica], op, cut_short);
        let at_us = self.now_us;
        for record in done.records {
            self.figures.writes += 1;
            let bucket = record.key.bucket;
            self.replicas[replica].written.push(Written { record, at_us, kept: told });
            self.tell_all(replica, || Input::LocalChange(bucket));
        }
        if let Some(blob) = done.blob {
            if told {
                self.replicas[replica].imported.push((blob, at_us));
            }
            self.tell_all(replica, || Input::BlobCompleted(blob));
        }
    }

    fn crash(&mut self, replica: usize) {
        self.figures.crashes += 1;
        // What was on its way to the disk may have reached it; nobody was told.
        let conversations = std::mem::take(&mut self.replicas[replica].conversations);
        let mut torn = None;
        for (peer, conversation) in conversations {
            self.check_lost(conversation.connection);
            self.connections.remove(&conversation.connection);
            let after = self.rng.below(NOTICE_US);
            let notice = Happening::NoticeCut { replica: peer, peer: replica, connection: conversation.connection };
            self.schedule(after, notice);
            let node_there = self.replicas[peer].node;
            for request in conversation.disk.into_values() {
                if self.rng.chance(50) {
                    self.carry_out(replica, request, node_there);
                } else if matches!(request, DiskRequest::Apply { .. }) {
                    torn = Some((request, node_there));
                }
            }
        }
        for op in std::mem::take(&mut self.replicas[replica].local).into_values() {
            if self.rng.chance(50) {
                let cut_short = self.rng.chance(50);
                self.carry_out_local(replica, op, false, cut_short);
            }
        }
        let mut rng = self.rng.fork();
        if let Some((request, peer)) = torn {
            // The last write before the dark: only its beginning reaches the disk.
            self.carry_out(replica, request, peer);
            self.replicas[replica].records.tear_last_batch(&mut rng);
        }
        let here = &mut self.replicas[replica];
        here.up = false;
        here.life += 1;
        here.records.crash(&mut rng);
        here.blobs.crash(&mut rng);
        self.check_after_crash(replica);
        let after = self.rng.between(100_000, 20_000_000);
        self.schedule(after, Happening::Restart { replica });
    }

    fn restart(&mut self, replica: usize) {
        self.replicas[replica].up = true;
        if replica != BRIDGE {
            let after = self.rng.below(3_000_000);
            let life = self.replicas[replica].life;
            self.schedule(after, Happening::Connect { node: replica, life });
        }
    }

    // What chance brings.

    fn random_op(&mut self) {
        if self.ops_left == 0 {
            return;
        }
        self.ops_left -= 1;
        let replica = self.rng.below(self.replicas.len() as u64) as usize;
        match self.rng.below(100) {
            0..=59 => self.ask_local(replica),
            60..=71 => self.cut_any(),
            72..=79 if self.replicas[replica].up => self.crash(replica),
            80..=83 if self.replicas[replica].up => {
                let at_us = self.now_us;
                self.replicas[replica].take_copy(at_us);
            }
            84..=86 if self.replicas[replica].up && self.replicas[replica].copy.is_some() => {
                self.crash(replica);
                self.figures.restores += 1;
                self.look_at_clock(replica);
                self.replicas[replica].go_back();
            }
            87..=91 => self.replicas[replica].wall = Wall::random(&mut self.rng),
            92..=94 => {
                let quota = if self.rng.chance(50) { self.rng.below(60_000) } else { u64::MAX };
                self.replicas[replica].blobs.set_quota(quota);
                self.tell_all(replica, || Input::WantsChanged);
            }
            95..=96 => {
                let (manifest, _) = ops::content(self.rng.below(12));
                self.replicas[replica].blobs.want_now(manifest.blob());
                self.tell_all(replica, || Input::WantsChanged);
            }
            _ => {
                let peers: Vec<usize> = self.replicas[replica].conversations.keys().copied().collect();
                if let Some(&peer) = self.rng.pick(&peers) {
                    self.tell(replica, peer, Input::Stop(CloseReason::GoingAway, "restart".into()));
                }
            }
        }
        self.check_running();
        let calm = self.rng.chance(20);
        let after = self.rng.below(if calm { 20_000_000 } else { 1_500_000 });
        self.schedule(after, Happening::Op);
    }

    fn ask_local(&mut self, replica: usize) {
        if !self.replicas[replica].up {
            return;
        }
        self.serial += 1;
        let number = self.serial;
        let rng = self.rng.fork();
        self.replicas[replica].local.insert(number, LocalOp { rng });
        let life = self.replicas[replica].life;
        let after = self.rng.between(100, 40_000);
        self.schedule(after, Happening::Local { replica, life, op: number });
    }

    fn cut_any(&mut self) {
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        if let Some(&id) = self.rng.pick(&ids) {
            self.cut(id);
        }
    }

    /// Ends all faults: links are good, disks have room, clocks are right and past every stamp.
    fn heal(&mut self) {
        self.healed = true;
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            self.cut(id);
        }
        let latest_ms = self
            .replicas
            .iter()
            .flat_map(|replica| replica.records.all().into_iter().chain(replica.records.quarantined()))
            .map(|record| record.newest_stamp().time.unix_ms())
            .max()
            .unwrap_or_default();
        self.skipped_ms = latest_ms.saturating_sub(super::records::BUILD_DATE_UNIX_MS);
        for replica in 0..self.replicas.len() {
            self.replicas[replica].wall = Wall::RIGHT;
            self.replicas[replica].blobs.set_quota(u64::MAX);
            self.look_at_clock(replica);
            let mut buckets = self.replicas[replica].records.replay_quarantine();
            buckets.dedup();
            for bucket in buckets {
                self.tell_all(replica, || Input::LocalChange(bucket));
            }
            self.tell_all(replica, || Input::WantsChanged);
        }
    }

    /// Whether every node talks to the bridge, both ends say that they are quiet, and nothing is under way.
    fn is_quiet(&self) -> bool {
        let connected = (1..self.replicas.len()).all(|node| {
            self.replicas[node].conversations.get(&BRIDGE).is_some_and(|conversation| {
                self.connections
                    .get(&conversation.connection)
                    .is_some_and(|connection| connection.ways.iter().all(Direction::is_idle))
            }) && self.replicas[BRIDGE].conversations.contains_key(&node)
        });
        connected
            && self
                .replicas
                .iter()
                .flat_map(|replica| replica.conversations.values())
                .all(|conversation| conversation.quiet && conversation.disk.is_empty())
    }
}
