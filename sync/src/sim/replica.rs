//! One replica of a world: its stores, its clock, its conversations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Sabotage;
use super::blobs::{BlobsCopy, SimBlobs};
use super::ops::LocalOp;
use super::records::{RecordsCopy, SimRecords};
use super::seeded::Seeded;
use crate::chunk::BlobHash;
use crate::hlc::ClockQuality;
use crate::id::{Epoch, NodeId};
use crate::record::{Record, RecordKey};
use crate::session::{DiskDone, DiskRequest, Scope, Session};

/// True time at the start of every world: 2026-06-01, in milliseconds since 1970.
const WORLD_BEGINS_UNIX_MS: u64 = 1_780_272_000_000;

/// A clock on the wall.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wall {
    /// Right but for an offset.
    Set { offset_ms: i64, drift_ppm: i64, quality: ClockQuality },
    /// Never set: counts from 1970.
    Unset,
}

impl Wall {
    pub(super) const RIGHT: Self = Self::Set { offset_ms: 0, drift_ppm: 0, quality: ClockQuality::Trusted };

    pub(super) fn random(rng: &mut Seeded) -> Self {
        const HOUR_MS: u64 = 3_600_000;
        match rng.below(10) {
            0..=4 => {
                let offset_ms = rng.below(4000) as i64 - 2000;
                Self::Set { offset_ms, drift_ppm: 0, quality: ClockQuality::Trusted }
            }
            5..=6 => {
                let drift_ppm = rng.below(40_000) as i64 - 20_000;
                Self::Set { offset_ms: rng.below(60_000) as i64, drift_ppm, quality: ClockQuality::Estimated }
            }
            7 => {
                // Behind, and sure of itself: everyone else seems to be ahead.
                let offset_ms = -(rng.between(HOUR_MS / 10, HOUR_MS) as i64);
                Self::Set { offset_ms, drift_ppm: 0, quality: ClockQuality::Trusted }
            }
            8 => {
                let far = rng.chance(30);
                let offset_ms = rng.between(HOUR_MS / 10, if far { 600_000 * HOUR_MS } else { HOUR_MS }) as i64;
                Self::Set { offset_ms, drift_ppm: 0, quality: ClockQuality::Estimated }
            }
            _ => Self::Unset,
        }
    }

    fn read(self, world_ms: u64, skipped_ms: u64) -> (u64, ClockQuality) {
        match self {
            Self::Unset => (world_ms, ClockQuality::Untrusted),
            Self::Set { offset_ms, drift_ppm, quality } => {
                let drift_ms = world_ms as i64 * drift_ppm / 1_000_000;
                let now = (WORLD_BEGINS_UNIX_MS + skipped_ms + world_ms).saturating_add_signed(offset_ms + drift_ms);
                (now, quality)
            }
        }
    }
}

/// A session under way.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) connection: u64,
    pub(super) session: Session,
    pub(super) disk: BTreeMap<u64, DiskRequest>,
    /// Carried out, and not heard of.
    pub(super) answers: BTreeMap<u64, DiskDone>,
    pub(super) quiet: bool,
    pub(super) timer_us: Option<u64>,
}

/// Something that a person wrote, and what they were told.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) record: Record,
    pub(super) at_us: u64,
    /// They were told that it is kept, and no older copy was restored since.
    pub(super) kept: bool,
}

/// What was durable at one moment.
#[derive(Debug)]
pub(super) struct OldCopy {
    pub(super) at_us: u64,
    pub(super) records: RecordsCopy,
    pub(super) blobs: BlobsCopy,
}

#[derive(Debug)]
pub(super) struct Replica {
    pub(super) node: NodeId,
    pub(super) records: Arc<SimRecords>,
    pub(super) blobs: Arc<SimBlobs>,
    pub(super) wall: Wall,
    /// It runs a version that knows less.
    pub(super) old: bool,
    pub(super) up: bool,
    /// Counts restarts, so that what was under way before one is told from what is after.
    pub(super) life: u32,
    pub(super) scope: Scope,
    pub(super) conversations: BTreeMap<usize, Conversation>,
    pub(super) local: BTreeMap<u64, LocalOp>,
    pub(super) copy: Option<OldCopy>,
    pub(super) written: Vec<Written>,
    pub(super) imported: Vec<(BlobHash, u64)>,
    pub(super) deleted: BTreeSet<RecordKey>,
    pub(super) epochs: u64,
}

impl Replica {
    pub(super) fn new(node: NodeId, scope: Scope, old: bool, wall: Wall, sabotage: Option<Sabotage>) -> Self {
        let records = Arc::new(SimRecords::new(node, Epoch(1), sabotage));
        let blobs = Arc::new(SimBlobs::new(Arc::clone(&records), sabotage));
        Self {
            node,
            records,
            blobs,
            wall,
            old,
            up: true,
            life: 0,
            scope,
            conversations: BTreeMap::new(),
            local: BTreeMap::new(),
            copy: None,
            written: Vec::new(),
            imported: Vec::new(),
            deleted: BTreeSet::new(),
            epochs: 1,
        }
    }

    /// The time on its wall, which it shows to its store.
    pub(super) fn look_at_clock(&self, world_ms: u64, skipped_ms: u64) -> (u64, ClockQuality) {
        let (unix_ms, quality) = self.wall.read(world_ms, skipped_ms);
        self.records.set_clock(unix_ms, quality);
        (unix_ms, quality)
    }

    /// Carries out a request as the driver does. The stores answer at once.
    pub(super) fn carry_out(&self, request: DiskRequest, peer: NodeId) -> Option<DiskDone> {
        super::carry_out(request, peer, &self.records, &self.blobs)
    }

    pub(super) fn take_copy(&mut self, at_us: u64) {
        self.copy = Some(OldCopy { at_us, records: self.records.copy(), blobs: self.blobs.copy() });
    }

    /// Goes back to the copy that was taken last, if any.
    pub(super) fn go_back(&mut self) -> bool {
        let Some(OldCopy { at_us, records, blobs }) = self.copy.take() else { return false };
        self.epochs += 1;
        self.records.restore(records, Epoch(self.epochs));
        self.blobs.restore(blobs);
        for written in self.written.iter_mut().filter(|written| written.at_us > at_us) {
            written.kept = false;
        }
        self.imported.retain(|&(_, imported_us)| imported_us <= at_us);
        self.deleted.clear();
        true
    }
}
