//! The events of a world, in the order of virtual time, from its first to its last check.
//!
//! What the events do is told in `world/`; what must hold, in `checks`.

mod chance;
mod disks;
mod links;
mod sessions;

use std::collections::BTreeMap;

use super::link::{Direction, Quality};
use super::ops;
use super::replica::{Conversation, Replica, Wall};
use super::seeded::Seeded;
use super::{Figures, Outcome, Sabotage, Violation};
use crate::chunk::BlobHash;
use crate::id::NodeId;
use crate::session::{Collections, Input, Scope};
use crate::wire::Lane;

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
    Answer { replica: usize, peer: usize, connection: u64, request: u64 },
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
            Happening::Answer { replica, peer, connection, request } => {
                self.hear_answer(replica, peer, connection, request);
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
}
