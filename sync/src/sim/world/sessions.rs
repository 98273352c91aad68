//! What happens to sessions: they hear, and what they want is carried out.

use super::{Connection, Happening, NOTICE_US, QUICK_DISK_US, REDIAL_US, REVOCATION_US, World};
use crate::hlc::ClockQuality;
use crate::session::{Closed, DiskRequest, Event, Held, Input, Output};
use crate::sim::link::LANES;
use crate::sim::plan::DiskPace;
use crate::sim::replica::Wall;
use crate::store::RecordStore as _;
use crate::wire::{CloseReason, Lane, Message};

/// A page, or a chunk, as large as they are here, in bytes.
const PAGE_HELD_BYTES: usize = 5_000;
/// Small frames that may wait: what may be asked for at a time, and what is offered, pulled and told.
const CONTROL_HELD_BYTES: usize = 16_384;
/// What a session remembers of what is wanted, asked and offered, in worlds as small as these.
const LISTS_HELD_BYTES: usize = 65_536;

impl World<'_> {
    pub(super) fn tell(&mut self, replica: usize, peer: usize, input: Input) {
        let now_ms = self.now_us / 1000;
        let Some(conversation) = self.replicas[replica].conversations.get_mut(&peer) else { return };
        conversation.session.handle(input, now_ms);
        self.drain(replica, peer);
        self.check_memory(replica, peer);
    }

    /// What a session holds, and what waits to be sent for it, stays under its caps (invariant 15).
    fn check_memory(&mut self, replica: usize, peer: usize) {
        let Some(conversation) = self.replicas[replica].conversations.get(&peer) else { return };
        let connection = self.connections.get(&conversation.connection);
        let queued_bytes =
            connection.map_or(0, |connection| connection.ways[connection.way_of(replica)].queued_bytes());
        let Held { record_bytes, content_bytes, list_bytes } = conversation.session.held();
        let config = self.session_config();
        // One more page may come in before a lane is held back, and one is read to be sent.
        let records_max = config.backlog_bytes_max + 2 * PAGE_HELD_BYTES;
        let content_max = config.window_bytes_max as usize;
        // The manifests of the largest contents, which only worlds with budgets have: those on their way in, and those handed out, twice.
        let has_films = self.plan.residents.iter().any(|here| here.link.is_some());
        let lists_max = if has_films { 3 * LISTS_HELD_BYTES } else { LISTS_HELD_BYTES };
        let queued_max = LANES * PAGE_HELD_BYTES + CONTROL_HELD_BYTES;
        let total = record_bytes + content_bytes + list_bytes + queued_bytes;
        self.figures.held_bytes_most = self.figures.held_bytes_most.max(total as u64);
        for (what, held, allowed) in [
            ("records", record_bytes, records_max),
            ("content", content_bytes, content_max),
            ("what it wants and is asked", list_bytes, lists_max),
            ("what is to be sent", queued_bytes, queued_max),
        ] {
            if held > allowed {
                self.violate(15, &format!("replica {replica} holds {held} bytes of {what}; {allowed} are allowed"));
            }
        }
    }

    pub(super) fn tell_all(&mut self, replica: usize, input: impl Fn() -> Input) {
        let peers: Vec<usize> = self.replicas[replica].conversations.keys().copied().collect();
        for peer in peers {
            self.tell(replica, peer, input());
        }
    }

    /// Carries out what the session wants.
    pub(super) fn drain(&mut self, replica: usize, peer: usize) {
        loop {
            let Some(conversation) = self.replicas[replica].conversations.get_mut(&peer) else { return };
            let id = conversation.connection;
            let Some(output) = conversation.session.poll() else { break };
            match output {
                Output::Send(lane, message) => {
                    self.note_asked(replica, peer, &message);
                    let Some(conversation) = self.replicas[replica].conversations.get_mut(&peer) else { return };
                    conversation.quiet &= matches!(message, Message::Quiet { .. });
                    self.send(id, replica, lane, &message);
                }
                Output::Disk(request) => {
                    conversation.quiet = false;
                    self.serial += 1;
                    let number = self.serial;
                    // What is divided in memory waits for no disk.
                    let is_quick = matches!(request, DiskRequest::Claim(..));
                    if let DiskRequest::Release(released) = request {
                        conversation.asked.retain(|(blob, _)| *blob != released);
                    }
                    // Of what was begun before, and given up for want of room, nothing is lost by a cut.
                    if let DiskRequest::Begin(manifest) = &request
                        && let Some(connection) = self.connections.get_mut(&id)
                    {
                        let (way, begun) = (connection.way_of(peer), manifest.blob());
                        connection.chunks[way].retain(|(blob, _), _| *blob != begun);
                    }
                    conversation.disk.insert(number, request);
                    let after = if is_quick { self.rng.between(1, 100) } else { self.disk_takes_us(replica) };
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
    pub(super) fn heap_timer(&mut self, at_us: u64, timer: Happening) {
        self.serial += 1;
        self.heap.insert((at_us, self.serial), timer);
    }

    pub(super) fn disk_takes_us(&mut self, replica: usize) -> u64 {
        let slowest = match self.replicas[replica].disk_pace {
            DiskPace::Slow => 1_000_000,
            // Cards stall now and then, for seconds.
            DiskPace::Stalling if self.rng.chance(12) => 2_000_000,
            DiskPace::Stalling | DiskPace::Quick => QUICK_DISK_US,
        };
        self.rng.between(50, slowest)
    }

    /// No chunk is asked of two peers at once.
    fn note_asked(&mut self, replica: usize, peer: usize, message: &Message) {
        let (Message::ChunkAsk { blob, index, .. } | Message::PatchAsk { blob, index, .. }) = message else { return };
        let asked = (*blob, *index);
        let conversations = &mut self.replicas[replica].conversations;
        let twice = conversations.iter().any(|(other, there)| *other != peer && there.asked.contains(&asked));
        if let Some(conversation) = conversations.get_mut(&peer) {
            conversation.asked.insert(asked);
        }
        if twice {
            self.violate(0, &format!("replica {replica} asks two peers at once for chunk {index} of {blob}"));
        }
    }

    pub(super) fn note_answered(&mut self, replica: usize, peer: usize, message: &Message) {
        if let Message::Chunk { blob, index, .. } | Message::Patch { blob, index, .. } = message
            && let Some(conversation) = self.replicas[replica].conversations.get_mut(&peer)
        {
            conversation.asked.remove(&(*blob, *index));
        }
    }

    fn send(&mut self, id: u64, from: usize, lane: Lane, message: &Message) {
        let now_us = self.now_us;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let way = connection.way_of(from);
        let to = connection.ends[1 - way];
        if let Message::Chunk { blob, index, bytes } | Message::Patch { blob, index, patch: bytes } = message {
            connection.chunks[way].insert((*blob, *index), bytes.len() as u64);
        }
        self.figures.patches += u64::from(matches!(message, Message::Patch { .. }));
        connection.ways[way].queue(lane, message.to_frame(), now_us);
        self.send_packets(id, way);
        let is_late = |since_us| now_us > since_us + REVOCATION_US;
        if self.replicas[to].revoked_us.is_some_and(is_late) && !matches!(message, Message::Close { .. }) {
            self.violate(17, &format!("node {to} is revoked and was sent something: {message:?}"));
        }
    }

    fn hear(&mut self, replica: usize, peer: usize, event: &Event) {
        match event {
            Event::Quiet => {
                if let Some(conversation) = self.replicas[replica].conversations.get_mut(&peer) {
                    conversation.quiet = true;
                    let connected = self.connections.contains_key(&conversation.connection);
                    // With nobody else to bring news, and nothing written since it began, quiet means equal at the very moment
                    // that it is told.
                    let began_after = conversation.connection > self.unwritten_serial;
                    if began_after && connected && self.replicas.len() == 2 {
                        self.check_quiet_records();
                    }
                }
            }
            Event::BlobReceived { .. } => self.figures.blobs += 1,
            Event::ContentBlocked => self.figures.full += 1,
            Event::PeerHello(hello) => {
                let is_vouched_for = self.replicas[peer].is_bridge();
                if is_vouched_for {
                    self.note_bridge(replica, hello.epoch);
                }
                if self.replicas[replica].takes_time && is_vouched_for && hello.clock_quality == ClockQuality::Trusted {
                    self.take_time(replica, peer, hello.unix_ms);
                }
            }
            Event::CreditShort(_) => self.look_in(replica, 0),
            Event::BlobChecked { blob, held_by_peer } => self.note_checked(replica, *blob, *held_by_peer),
            Event::HeldByPeer { bucket, upto } => self.note_held(replica, *bucket, *upto),
            Event::Returned(bucket) => self.note_returned(replica, *bucket),
            Event::Applied(..) | Event::PeerFetches { .. } => {}
        }
    }

    /// Takes over the time of a peer, which was told some time ago, and lets in what only a wrong clock had kept out.
    fn take_time(&mut self, replica: usize, peer: usize, unix_ms: u64) {
        let told = Wall::told(unix_ms, self.now_us / 1000, self.skipped_ms);
        let true_ms = self.true_unix_ms();
        let peer_is_right = self.replicas[peer].clock_is_right;
        let here = &mut self.replicas[replica];
        here.wall = told;
        here.clock_is_right &= peer_is_right;
        here.clock_off_ms = here.clock_off_ms.max(unix_ms.abs_diff(true_ms));
        self.replay(replica);
    }

    fn closed(&mut self, replica: usize, peer: usize, id: u64, closed: &Closed) {
        let is_revoked = self.replicas[replica].revoked_us.is_some() || self.replicas[peer].revoked_us.is_some();
        let is_expected = matches!(closed.reason, CloseReason::Done | CloseReason::GoingAway)
            || is_revoked && closed.reason == CloseReason::NotWelcome;
        if !is_expected {
            self.violate(0, &format!("an honest peer was told: {:?} {}", closed.reason, closed.text));
        }
        self.end_conversation(replica, peer);
        if closed.by_peer {
            self.forget_connection(id);
        }
    }

    /// A store has failed: the driver drops the connection, and the other end sees it fall.
    pub(super) fn store_failed(&mut self, replica: usize, peer: usize) {
        let Some(conversation) = self.replicas[replica].conversations.get(&peer) else { return };
        let connection = conversation.connection;
        self.figures.store_failures += 1;
        self.forget_connection(connection);
        let after = self.rng.below(NOTICE_US);
        self.schedule(after, Happening::NoticeCut { replica: peer, peer: replica, connection });
        self.end_conversation(replica, peer);
    }

    /// What the driver does when a connection ends: waits for the disk, keeps what was received, lets go of the rest.
    pub(super) fn end_conversation(&mut self, replica: usize, peer: usize) {
        let Some(mut conversation) = self.replicas[replica].conversations.remove(&peer) else { return };
        self.leave_link(replica, conversation.connection);
        let node_there = self.replicas[peer].node;
        for done in std::mem::take(&mut conversation.answers).into_values() {
            conversation.session.settle_after_close(&done);
        }
        let mut requests: Vec<DiskRequest> = std::mem::take(&mut conversation.disk).into_values().collect();
        // Nothing is written to a life that was over when it was read.
        if conversation.epoch != self.replicas[replica].records.epoch() {
            requests.retain(|request| !matches!(request, DiskRequest::Apply { .. }));
        }
        while !requests.is_empty() {
            let next = self.rng.below(requests.len() as u64) as usize;
            if let Ok(Some(done)) = self.carry_out(replica, requests.swap_remove(next), node_there) {
                conversation.session.settle_after_close(&done);
            }
        }
        let unfinished: Vec<DiskRequest> = conversation.session.receiving().collect();
        for request in unfinished {
            // These have no answer that the session still waits for.
            let _ = self.carry_out(replica, request, node_there);
        }
        if self.replicas[replica].dialled().any(|dialled| dialled == peer) {
            let after = self.rng.between(100_000, REDIAL_US);
            let life = self.replicas[replica].life;
            self.schedule(after, Happening::Connect { node: replica, to: peer, life });
        }
    }
}

impl Connection {
    /// The way on which an end sends.
    pub(super) fn way_of(&self, end: usize) -> usize {
        usize::from(self.ends[0] != end)
    }
}
