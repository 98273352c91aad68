//! A world in one thread: replicas with stores that crash, clocks that lie, links that cut, all in virtual time and all
//! from one seed.
//!
//! [`run`] lets a small world live through random events, heals it, waits until it is quiet, and tells which invariants of
//! docs/ARCHITECTURE.md were broken. [`sweep`] does so for many seeds. The same seed gives the same trace.
//!
//! The sessions and the code that carries out their disk requests are the real ones; frames cross the links as bytes. The
//! stores ([`SimRecords`], [`SimBlobs`]) also serve tests over real transports.
//!
//! Not here: real sockets and disks, whose own tests live with them.

pub mod blobs;
pub mod records;
pub mod seeded;

mod checks;
mod erase;
mod link;
mod ops;
mod replica;
mod sweep;
mod world;

pub use blobs::SimBlobs;
pub use records::SimRecords;
pub use seeded::Seeded;
pub use sweep::{Sweep, sweep};

use std::sync::Arc;

use futures::FutureExt;

use crate::driver;
use crate::id::NodeId;
use crate::session::{DiskDone, DiskRequest};

/// A promise that the stores or the world break on purpose, to see its check fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sabotage {
    /// A page is kept as it came, whatever was there (invariants 1 and 3).
    LastArrivalWins,
    /// What was acknowledged is still in a cache (invariant 2).
    AckBeforeDurable,
    /// A batch that was torn by a power cut counts (invariant 5).
    TornBatchesCount,
    /// The cursor is durable before its page (invariant 4).
    CursorBeforePage,
    /// A record that changes keeps its old feed row (invariant 5).
    OldFeedRowsStay,
    /// A live version replaces a tombstone (invariant 6).
    TombstonesAreForgotten,
    /// What is set aside is thrown away (invariant 8).
    QuarantinedIsDropped,
    /// A replica keeps only the fields that it knows (invariant 10).
    UnknownFieldsAreDropped,
    /// Chunks are marked as had before their bytes are on the disk (invariant 11).
    BitsBeforeData,
    /// Far more is asked for than may be lost (invariant 12).
    WindowIsIgnored,
    /// Chance comes from outside the seed (invariant 20).
    UnseededChance,
    /// A record goes back to whoever sent it. Breaks no invariant; costs the link twice.
    EverythingIsEchoed,
}

/// A promise that did not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which invariant of docs/ARCHITECTURE.md; 0 for a panic or a rule of the protocol.
    pub invariant: u8,
    /// In which world.
    pub seed: u64,
    /// What was seen.
    pub text: String,
}

/// What a world went through.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Figures {
    /// Worlds.
    pub worlds: u64,
    /// Power cuts.
    pub crashes: u64,
    /// Links that broke.
    pub cuts: u64,
    /// Stores set back to an older copy.
    pub restores: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Records written by people.
    pub writes: u64,
    /// Records received and applied, superseded or quarantined.
    pub received: u64,
    /// Of those, set aside.
    pub quarantined: u64,
    /// Blobs received whole.
    pub blobs: u64,
    /// Times that a store had no room.
    pub full: u64,
    /// Events.
    pub events: u64,
    /// Virtual time, in milliseconds.
    pub virtual_ms: u64,
}

impl Figures {
    /// Adds those of another world.
    pub fn add(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.crashes += other.crashes;
        self.cuts += other.cuts;
        self.restores += other.restores;
        self.sessions += other.sessions;
        self.writes += other.writes;
        self.received += other.received;
        self.quarantined += other.quarantined;
        self.blobs += other.blobs;
        self.full += other.full;
        self.events += other.events;
        self.virtual_ms += other.virtual_ms;
    }
}

/// How a world ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was broken; empty in a good world.
    pub violations: Vec<Violation>,
    /// Hash over everything that happened.
    pub trace: [u8; 32],
    /// What it went through.
    pub figures: Figures,
}

/// Carries out a session's disk request on stores that answer at once.
pub fn carry_out(
    request: DiskRequest,
    peer: NodeId,
    records: &Arc<SimRecords>,
    blobs: &Arc<SimBlobs>,
) -> Option<DiskDone> {
    driver::disk::carry_out(request, peer, Arc::clone(records), Arc::clone(blobs))
        .now_or_never()
        .expect("the stores in memory never wait")
        .expect("the stores in memory never fail")
}

/// Lives through the world of `seed`.
pub fn run(seed: u64, sabotage: Option<Sabotage>) -> Outcome {
    world::World::new(seed, sabotage).live()
}
