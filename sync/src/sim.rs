//! A world in one thread: replicas with stores that crash, clocks that lie, links that cut, all in virtual time and all
//! from one seed.
//!
//! A [`Plan`] says what a small world consists of and what befalls it; [`live`] lets it live through that, heals it, waits
//! until it is at rest, and tells which invariants of docs/ARCHITECTURE.md were broken. [`sweep`] does so for many seeds, and
//! [`shrink`] leaves steps out of a failing world for as long as it fails. The same seed gives the same trace.
//!
//! The sessions and the code that carries out their disk requests are the real ones; frames cross the links as bytes. The
//! stores ([`SimRecords`], [`SimBlobs`]) also serve tests over real transports.
//!
//! Not here: real sockets and disks, whose own tests live with them.

pub mod absence;
pub mod blobs;
pub mod records;
pub mod secrets;
pub mod seeded;

mod checks;
mod erase;
mod figures;
mod link;
mod metered;
mod ops;
mod plan;
mod replica;
mod sectors;
mod shrink;
mod sweep;
mod world;

pub use blobs::SimBlobs;
pub use figures::Figures;
pub use plan::{Addition, Plan, Step};
pub use records::SimRecords;
pub use seeded::Seeded;
pub use shrink::{Shrunk, shrink};
pub use sweep::{Sweep, judge, sweep};

use std::sync::Arc;

use futures::FutureExt;

use crate::driver;
use crate::driver::disk::StoreError;
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
    /// Stamps from the future are let in by everyone (invariant 9).
    BoundIsIgnored,
    /// What was set aside is never tried again (invariant 2).
    QuarantineIsForgotten,
    /// A damaged blob is handed to whoever asks; the peer is shown garbage (invariant 11).
    RotIsHandedOut,
    /// Far more is asked for than may be lost (invariant 12).
    WindowIsIgnored,
    /// The transport sends class 0 after everything else (invariant 14).
    ControlGoesLast,
    /// Records are read from the link however many wait to be applied (invariant 15).
    LanesAreNeverHeldBack,
    /// The bridge does not ask whether a node is still welcome (invariant 17).
    RevokedAreLetIn,
    /// No timer ever goes off (invariant 18).
    TimersAreLost,
    /// A full disk has no room for deletes (invariant 19).
    FullDiskRefusesDeletes,
    /// A full disk cannot be read (invariant 19).
    FullDiskRefusesReads,
    /// Chance comes from outside the seed (invariant 20).
    UnseededChance,
    /// A node keeps to itself what it has heard from others (invariants 1 and 2, where one has a way only through another).
    NodesPassNothingOn,
    /// What belongs to a site is given to its neighbours.
    SitesCrossTheLan,
    /// The bridge forgets tombstones at once, and tells nobody (invariant 6).
    TombstonesGoTooEarly,
    /// Who was away for longer than its lease goes on as if nothing were (invariants 1 and 6).
    WhoWasAwayGivesAll,
    /// A receipt is given while the log still remembers (invariant 7).
    ReceiptsComeFirst,
    /// Content that was erased stays (invariant 7).
    ErasedContentStays,
    /// A collection that is not kept leaves, whatever of it the bridge has (invariant 16).
    EvictionGoesTooFar,
    /// Content makes way without a word from the bridge (invariant 16).
    EvictionAsksNobody,
    /// What no record named once is removed, whatever names it since (invariant 16).
    SweepLooksOnce,
    /// What was put on a stick is taken for read (invariant 1, where nothing else goes).
    ReceiptsAreMadeUp,
    /// Nobody tells a session how far it may go, or ends it (invariant 13).
    BudgetIsNotHeld,
    /// What a link has carried is written down only when its session ends (invariant 13).
    UseIsKeptInMemory,
    /// A store that was set back, or runs twice, goes on as if nothing were (invariants 1 and 2).
    CopiesGoOn,
    /// Pages of two stores in one life are taken as they come (invariant 1).
    CopiesAreMixed,
    /// Copies of one store stamp in the same incarnation (invariant 2).
    CopiesStampAlike,
    /// What one session brings of a blob is asked of other peers, too.
    ChunksAreClaimedTwice,
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

/// Carries out a session's disk request on stores that answer at once and have room.
pub fn carry_out(
    request: DiskRequest,
    peer: NodeId,
    records: &Arc<SimRecords>,
    blobs: &Arc<SimBlobs>,
) -> Option<DiskDone> {
    try_carry_out(request, peer, records, blobs).expect("the stores in memory do not fail while there is room")
}

/// The same on stores that may be full.
fn try_carry_out(
    request: DiskRequest,
    peer: NodeId,
    records: &Arc<SimRecords>,
    blobs: &Arc<SimBlobs>,
) -> Result<Option<DiskDone>, StoreError> {
    driver::disk::carry_out(request, peer, Arc::clone(records), Arc::new(blobs.of_session(peer)))
        .now_or_never()
        .expect("the stores in memory never wait")
}

/// Lives through the world of `seed`.
pub fn run(seed: u64, sabotage: Option<Sabotage>) -> Outcome {
    live(&Plan::of(seed), sabotage)
}

/// Lives through a world.
pub fn live(plan: &Plan, sabotage: Option<Sabotage>) -> Outcome {
    world::World::new(plan, sabotage).live()
}
