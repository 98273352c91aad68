//! What happens to sessions: they hear, and what they want is carried out.

use super::{BRIDGE, Happening, World};
use crate::session::{Closed, DiskRequest, Event, Input, Output};
use crate::wire::{CloseReason, Lane, Message};

impl World {
    pub(super) fn tell(&mut self, replica: usize, peer: usize, input: Input) {
        let now_ms = self.now_us / 1000;
        let Some(conversation) = self.replicas[replica].conversations.get_mut(&peer) else { return };
        conversation.session.handle(input, now_ms);
        self.drain(replica, peer);
    }

    pub(super) fn tell_all(&mut self, replica: usize, input: impl Fn() -> Input) {
        let peers: Vec<usize> = self.replicas[replica].conversations.keys().copied().collect();
        for peer in peers {
            self.tell(replica, peer, input());
        }
    }

    /// Carries out what the session wants.
    pub(super) fn drain(&mut self, replica: usize, peer: usize) {
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
                    conversation.disk.insert(number, request);
                    // Cards stall now and then, for seconds.
                    let slowest = if self.rng.chance(10) { 2_000_000 } else { 30_000 };
                    let after = self.rng.between(50, slowest);
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

    pub(super) fn send(&mut self, id: u64, way: usize, lane: Lane, message: &Message) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let Message::Chunk { blob, index, bytes } = message {
            connection.chunks[way].insert((*blob, *index), bytes.len() as u64);
        }
        connection.ways[way].queue(lane, message.to_frame());
        self.send_packets(id, way);
    }

    pub(super) fn hear(&mut self, replica: usize, peer: usize, event: &Event) {
        match event {
            Event::Quiet => {
                if let Some(conversation) = self.replicas[replica].conversations.get_mut(&peer) {
                    conversation.quiet = true;
                    let connected = self.connections.contains_key(&conversation.connection);
                    // With nobody else to bring news, quiet means equal at the very moment that it is told.
                    if self.healed && connected && self.replicas.len() == 2 {
                        self.check_quiet_records();
                    }
                }
            }
            Event::BlobReceived { .. } => self.figures.blobs += 1,
            Event::ContentBlocked => self.figures.full += 1,
            Event::PeerHello(_)
            | Event::Applied(..)
            | Event::HeldByPeer { .. }
            | Event::Returned(_)
            | Event::BlobChecked { .. } => {}
        }
    }

    pub(super) fn closed(&mut self, replica: usize, peer: usize, id: u64, closed: &Closed) {
        if !matches!(closed.reason, CloseReason::Done | CloseReason::GoingAway) {
            self.violate(0, &format!("an honest peer was told: {:?} {}", closed.reason, closed.text));
        }
        self.end_conversation(replica, peer);
        if closed.by_peer {
            self.connections.remove(&id);
        }
    }

    /// What the driver does when a connection ends: waits for the disk, keeps what was received, lets go of the rest.
    pub(super) fn end_conversation(&mut self, replica: usize, peer: usize) {
        let Some(mut conversation) = self.replicas[replica].conversations.remove(&peer) else { return };
        let node_there = self.replicas[peer].node;
        for done in std::mem::take(&mut conversation.answers).into_values() {
            conversation.session.settle_after_close(&done);
        }
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
}
