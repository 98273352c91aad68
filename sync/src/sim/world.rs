//! The events of a world, in the order of virtual time, from its first to its last check.
//!
//! What the events do is told in `world/`; what must hold, in `checks`. A world ends in two parts: first all faults but wrong
//! clocks end, and it must come to rest; then clocks are set right, and it must hold everything that anybody wrote.

mod absence;
mod budgets;
mod cards;
mod carriers;
mod choices;
mod disks;
mod erasures;
mod links;
mod room;
mod sessions;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use self::carriers::Receipts;
use self::carriers::Stick;
pub(super) use self::erasures::{SECRETS, secret};
use super::link::{Direction, Packet, Quality};
use super::ops;
use super::plan::Plan;
use super::replica::{Conversation, Replica};
use super::seeded::Seeded;
use super::{Figures, Outcome, Sabotage, Violation};
use crate::chunk::BlobHash;
use crate::hlc::DRIFT_BOUND_MS;
use crate::record::RecordKey;
use crate::session::{Input, Scope};
use crate::wire::Lane;

/// Content that was absent everywhere it was asked for is asked for again after this.
pub(super) const ABSENT_RETRY_MS: u64 = 20_000;
/// Coming to rest takes no more events than this; months before it may take any number.
const EVENTS_MAX: u64 = 4_000_000;
/// More than this at one moment is something that turns in a circle.
const EVENTS_AT_ONCE_MAX: u64 = 100_000;
/// Sticks that go both ways bring everything within so many rounds.
const ROUNDS_MAX: u32 = 50;
/// Times in which an end may go on without noticing that the link is gone.
pub(super) const NOTICE_US: u64 = 8_000_000;
/// A connection through which nothing comes for this long is given up by its ends, as the transport does it.
pub(super) const IDLE_US: u64 = 30_000_000;
/// A node whose session has ended dials again within this.
pub(super) const REDIAL_US: u64 = 10_000_000;
/// A replica that lost power is back within this.
pub(super) const RESTART_US: u64 = 20_000_000;
/// A quick disk answers within this.
pub(super) const QUICK_DISK_US: u64 = 30_000;
/// The bridge ends the sessions of revoked nodes within this.
const REVOCATION_US: u64 = 5_000_000;
/// What was set aside is tried again this often.
const REPLAY_US: u64 = 30_000_000;

/// What one end may have to send again, in bytes.
const RESEND_BYTES: u64 = 16_384;
const RESEND_WINDOW_MS: u64 = 2_000;
/// What may wait to be applied, in bytes.
const BACKLOG_BYTES_MAX: usize = 4_096;

#[derive(Debug)]
enum Happening {
    Step(usize),
    WireFree { connection: u64, way: usize },
    Drained { connection: u64, way: usize, lane: Lane },
    Arrive { connection: u64, way: usize, packet: Packet },
    Disk { replica: usize, peer: usize, connection: u64, request: u64 },
    Answer { replica: usize, peer: usize, connection: u64, request: u64 },
    Local { replica: usize, life: u32, op: u64 },
    Timer { replica: usize, peer: usize, connection: u64 },
    NoticeCut { replica: usize, peer: usize, connection: u64 },
    Cut { connection: u64 },
    Flap { replica: usize, times: u64 },
    LookForRevoked { replica: usize },
    LookAtLink { node: usize },
    LinkCountKept { node: usize, connection: u64 },
    LetLinkGo { node: usize, connection: u64 },
    DayPasses,
    PowerFails { replica: usize },
    Forget { replica: usize },
    Ask { replica: usize, peer: usize, blobs: Vec<BlobHash> },
    StickArrives { stick: u64 },
    Replay { replica: usize },
    Connect { node: usize, to: usize, life: u32 },
    Restart { replica: usize },
    Nothing,
}

/// A link that carries a session: way 0 from the one that dialled, way 1 back.
#[derive(Debug)]
struct Connection {
    ends: [usize; 2],
    quality: [Quality; 2],
    ways: [Direction; 2],
    /// Chunks handed to the link on each way, with their lengths.
    chunks: [BTreeMap<(BlobHash, u32), u64>; 2],
}

/// Whoever meets over sticks only may have what neighbours may have; what is for anyone is what the exporter itself may read.
fn permit_strangers(replicas: &[Replica]) {
    for (at, here) in replicas.iter().enumerate() {
        here.blobs.permit(here.node, Scope::between_nodes());
        for there in replicas.iter().enumerate().filter(|(there, _)| *there != at).map(|(_, there)| there) {
            if !here.is_bridge() && !there.is_bridge() {
                here.blobs.permit(there.node, Scope::between_nodes());
            }
        }
    }
}

/// One world.
pub(super) struct World<'p> {
    plan: &'p Plan,
    sabotage: Option<Sabotage>,
    pub(super) rng: Seeded,
    pub(super) now_us: u64,
    serial: u64,
    heap: BTreeMap<(u64, u64), Happening>,
    pub(super) replicas: Vec<Replica>,
    connections: BTreeMap<u64, Connection>,
    sticks: BTreeMap<u64, Stick>,
    steps_left: usize,
    /// Faults are over, but for wrong clocks.
    pub(super) healed: bool,
    /// Connections with larger numbers were made after that, and nothing has been written since they were.
    unwritten_serial: u64,
    /// Nobody has a link before this.
    silent_until_us: u64,
    skipped_ms: u64,
    /// When sessions were begun anew last, where there are leases.
    renewed_us: u64,
    /// Openings of stores that keep a lineage.
    starts: u64,
    /// Days that passed after faults were over.
    days_passed: u64,
    /// Events since the time last went on.
    events_at_once: u64,
    /// Records of cards from before their nodes' first meeting that were given as those of new nodes.
    pub(super) passed_for_new: BTreeSet<RecordKey>,
    pub(super) violations: Vec<Violation>,
    pub(super) figures: Figures,
    trace: blake3::Hasher,
}

impl<'p> World<'p> {
    pub(super) fn new(plan: &'p Plan, sabotage: Option<Sabotage>) -> Self {
        let replicas: Vec<Replica> = plan.residents.iter().map(|resident| Replica::new(resident, sabotage)).collect();
        for node in &replicas {
            let Some(bridge) = node.dials.and_then(|at| replicas.get(at)) else { continue };
            bridge.blobs.permit(node.node, node.scope.clone());
            node.blobs.permit(bridge.node, node.scope.clone());
            for neighbour in node.neighbours.iter().map(|&at| &replicas[at]) {
                neighbour.blobs.permit(node.node, Scope::between_nodes());
                node.blobs.permit(neighbour.node, Scope::between_nodes());
            }
        }
        if plan.has_carriers {
            permit_strangers(&replicas);
        }
        let mut world = Self {
            plan,
            sabotage,
            rng: Seeded::new(plan.seed),
            now_us: 0,
            serial: 0,
            heap: BTreeMap::new(),
            replicas,
            connections: BTreeMap::new(),
            sticks: BTreeMap::new(),
            steps_left: plan.steps.len(),
            healed: false,
            unwritten_serial: u64::MAX,
            silent_until_us: 0,
            skipped_ms: 0,
            renewed_us: 0,
            starts: 0,
            days_passed: 0,
            events_at_once: 0,
            passed_for_new: BTreeSet::new(),
            violations: Vec::new(),
            figures: Figures { worlds: 1, ..Figures::default() },
            trace: blake3::Hasher::new(),
        };
        world.give_leases();
        world.give_lineages();
        for (number, step) in plan.steps.iter().enumerate() {
            world.schedule(step.at_us, Happening::Step(number));
        }
        for node in 0..world.replicas.len() {
            world.dial_all(node, 3_000_000);
        }
        world
    }

    /// From the first event to the last check.
    pub(super) fn live(mut self) -> Outcome {
        while self.violations.is_empty() && (self.steps_left > 0 || self.under_way()) && self.step() {}
        self.figures.replica_ms += self.now_us / 1000 * self.replicas.len() as u64;
        if self.violations.is_empty() {
            self.heal();
            self.come_to_rest();
            self.lift_budgets();
        }
        if self.violations.is_empty() && self.replicas.iter().any(|here| here.is_bridge() && here.clock_is_right) {
            self.wait_for_the_bound();
            self.check_drift();
        }
        // Where replicas differ, the rest tells why.
        if self.violations.iter().all(|violation| violation.invariant == 1) {
            self.set_clocks_right();
            self.come_to_rest();
            self.check_end();
        }
        self.figures.virtual_ms = self.now_us / 1000;
        let wires = self.connections.values().map(Connection::figures).collect::<Vec<_>>();
        for wire in wires {
            self.figures.add(&wire);
        }
        Outcome { violations: self.violations, trace: *self.trace.finalize().as_bytes(), figures: self.figures }
    }

    /// Runs until nothing is to be done, and nothing is missing, which takes a bounded time (invariant 18).
    fn come_to_rest(&mut self) {
        let allowed_us = self.rest_allowed_us();
        let (began_us, events_before) = (self.now_us, self.figures.events);
        let violations_before = self.violations.len();
        let mut records_judged = false;
        let mut rounds = 0;
        let mut is_next_day = !self.plan.has_cards;
        while self.violations.len() == violations_before {
            if self.is_quiet() {
                if !std::mem::replace(&mut is_next_day, true) {
                    self.end_all_sessions();
                    continue;
                }
                if !self.sticks_bring_nothing() {
                    rounds += 1;
                    if rounds > ROUNDS_MAX {
                        self.violate(18, "sticks bring something again and again");
                    }
                    continue;
                }
                if !records_judged {
                    self.check_quiet_records();
                    records_judged = true;
                }
                if self.all_is_forgotten() && self.blobs_missing().is_none() {
                    break;
                }
            }
            let taken_us = self.now_us - began_us;
            if taken_us > allowed_us || !self.step() || self.figures.events > events_before + EVENTS_MAX {
                let missing = self.blobs_missing().unwrap_or_default();
                let (taken, allowed) = (taken_us / 1000, allowed_us / 1000);
                self.violate(
                    18,
                    &format!("not at rest {taken} ms after faults ended; {allowed} are allowed; {missing}"),
                );
            }
        }
        // Budgets that stay make it last for the days that they take, and no longer.
        if self.plan.budgets_stay {
            return;
        }
        let taken_us = self.now_us - began_us;
        // The last event may have been far away: what came to rest by that came too late.
        if taken_us > allowed_us && self.violations.len() == violations_before {
            let (taken, allowed) = (taken_us / 1000, allowed_us / 1000);
            self.violate(18, &format!("at rest only {taken} ms after faults ended; {allowed} are allowed"));
        }
        let share = taken_us * 1000 / allowed_us;
        self.figures.slowest_rest_per_mille = self.figures.slowest_rest_per_mille.max(share);
    }

    /// As long as a stamp may be ahead, and until what that brings has come to rest.
    fn wait_for_the_bound(&mut self) {
        let until_us = self.now_us + DRIFT_BOUND_MS * 1000 + 2 * REPLAY_US + 60_000_000;
        self.schedule(until_us - self.now_us, Happening::Nothing);
        while self.violations.is_empty() && self.now_us < until_us && self.step() {}
        self.come_to_rest();
    }

    /// Whether somebody is down or has asked for something that is not carried out.
    fn under_way(&self) -> bool {
        let is_there = |replica: &&Replica| replica.copy_of.is_none();
        self.replicas.iter().filter(is_there).any(|replica| !replica.up || !replica.local.is_empty())
    }

    pub(super) fn violate(&mut self, invariant: u8, text: &str) {
        let text = format!("at {} ms: {text}", self.now_us / 1000);
        self.violations.push(Violation { invariant, seed: self.plan.seed, text });
    }

    /// What the clock of someone who is never wrong shows.
    pub(super) fn true_unix_ms(&self) -> u64 {
        super::replica::WORLD_BEGINS_UNIX_MS + self.skipped_ms + self.now_us / 1000
    }

    /// Something was written that the other end of a session does not know: that one may be told that all is quiet before it
    /// hears of this.
    fn note_written(&mut self) {
        if self.healed {
            self.unwritten_serial = self.serial;
        }
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
        self.events_at_once = if at_us == self.now_us { self.events_at_once + 1 } else { 0 };
        self.now_us = at_us;
        self.figures.events += 1;
        if self.events_at_once == EVENTS_AT_ONCE_MAX {
            self.violate(18, &format!("something goes round without end; now it is {happening:?}"));
        }
        self.trace.update(&at_us.to_be_bytes());
        match happening {
            Happening::Step(number) => self.take_step(number),
            Happening::WireFree { connection, way } => {
                if let Some(connection) = self.connections.get_mut(&connection) {
                    connection.ways[way].sending = false;
                }
                self.send_packets(connection, way);
            }
            Happening::Drained { connection, way, lane } => {
                self.tell_end(connection, way, Input::LaneDrained(lane));
            }
            Happening::Arrive { connection, way, packet } => self.arrive(connection, way, packet),
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
            Happening::Timer { replica, peer, connection } => self.timer(replica, peer, connection),
            Happening::NoticeCut { replica, peer, connection } => {
                if self.conversation(replica, peer, connection).is_some() {
                    self.end_conversation(replica, peer);
                }
            }
            Happening::Cut { connection } => self.cut(connection),
            Happening::Flap { replica, times } => self.flap(replica, times),
            Happening::LookForRevoked { replica } => self.end_revoked(replica),
            Happening::LookAtLink { node } => self.look_at_link(node),
            Happening::LinkCountKept { node, connection } => self.give_word(node, connection),
            Happening::LetLinkGo { node, connection } => self.let_link_go(node, connection),
            Happening::DayPasses => self.day_passes(),
            Happening::PowerFails { replica } => {
                if self.replicas[replica].up {
                    self.crash(replica);
                }
            }
            Happening::Forget { replica } => self.forget(replica),
            Happening::Ask { replica, peer, blobs } => self.tell(replica, peer, Input::CheckBlobs(blobs)),
            Happening::StickArrives { stick } => self.stick_arrives(stick),
            Happening::Replay { replica } => {
                // One that was called off by an earlier one does nothing, or both would go on for ever.
                if self.replicas[replica].replay_us == Some(at_us) {
                    self.replay(replica);
                }
            }
            Happening::Connect { node, to, life } => {
                if self.replicas[node].life == life {
                    self.connect(node, to);
                }
            }
            Happening::Restart { replica } => self.restart(replica),
            Happening::Nothing => {}
        }
        true
    }

    fn timer(&mut self, replica: usize, peer: usize, connection: u64) {
        let now_us = self.now_us;
        let due = self.conversation(replica, peer, connection).is_some_and(|conversation| {
            let due = conversation.timer_us == Some(now_us);
            if due {
                conversation.timer_us = None;
            }
            due
        });
        if due && self.sabotage != Some(Sabotage::TimersAreLost) {
            self.tell(replica, peer, Input::Timer);
        }
    }

    fn conversation(&mut self, replica: usize, peer: usize, connection: u64) -> Option<&mut Conversation> {
        self.replicas[replica].conversations.get_mut(&peer).filter(|conversation| conversation.connection == connection)
    }
}
