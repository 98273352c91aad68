//! One replica of a world: its stores, its clock, its conversations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Sabotage;
use super::blobs::{BlobsCopy, SimBlobs};
use super::metered::MeteredLink;
use super::ops::LocalOp;
use super::plan::{DiskPace, Resident};
use super::records::{RecordsCopy, SimRecords};
use super::seeded::Seeded;
use super::world::Receipts;
use crate::chunk::BlobHash;
use crate::driver::disk::StoreError;
use crate::hlc::{ClockQuality, DRIFT_BOUND_MS};
use crate::id::{Epoch, NodeId, Seq};
use crate::record::{Record, RecordKey};
use crate::session::{DiskDone, DiskRequest, Scope, Selection, Session};

/// True time at the start of every world: 2026-06-01, in milliseconds since 1970.
pub(super) const WORLD_BEGINS_UNIX_MS: u64 = 1_780_272_000_000;

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

    /// Right within this, where it is right.
    pub(super) const RIGHT_WITHIN_MS: u64 = 2_000;

    pub(super) fn random(rng: &mut Seeded) -> Self {
        const HOUR_MS: u64 = 3_600_000;
        match rng.below(11) {
            0..=4 => {
                let offset_ms = rng.below(2 * Self::RIGHT_WITHIN_MS) as i64 - Self::RIGHT_WITHIN_MS as i64;
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
            9 => {
                // Just within the bound, and just past it, and a year ahead: all of them sure of themselves.
                let near_ms = DRIFT_BOUND_MS + rng.below(8_000) - 4_000;
                let offset_ms = if rng.chance(50) { near_ms } else { rng.between(HOUR_MS, 366 * 24 * HOUR_MS) } as i64;
                Self::Set { offset_ms, drift_ppm: 0, quality: ClockQuality::Trusted }
            }
            _ => Self::Unset,
        }
    }

    /// Shows `unix_ms` now, as told by someone trusted, and goes on from there.
    pub(super) fn told(unix_ms: u64, world_ms: u64, skipped_ms: u64) -> Self {
        let offset_ms = unix_ms as i64 - (WORLD_BEGINS_UNIX_MS + skipped_ms + world_ms) as i64;
        Self::Set { offset_ms, drift_ppm: 0, quality: ClockQuality::Trusted }
    }

    /// Whether it is right, and sure of it.
    pub(super) fn is_right(self) -> bool {
        matches!(self, Self::Set { offset_ms, drift_ppm: 0, quality: ClockQuality::Trusted }
            if offset_ms.unsigned_abs() <= Self::RIGHT_WITHIN_MS)
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
    /// Chunks asked of the peer and not answered, of blobs that were not given up since.
    pub(super) asked: BTreeSet<(BlobHash, u32)>,
    /// Carried out, and not heard of.
    pub(super) answers: BTreeMap<u64, DiskDone>,
    pub(super) quiet: bool,
    pub(super) timer_us: Option<u64>,
    /// The life of the replica that it is held in.
    pub(super) epoch: Epoch,
    /// It was opened to read all anew.
    pub(super) reads_anew: bool,
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
#[derive(Clone, Debug)]
pub(super) struct OldCopy {
    pub(super) at_us: u64,
    pub(super) records: RecordsCopy,
    pub(super) blobs: BlobsCopy,
    selection: Selection,
    evicted: BTreeSet<RecordKey>,
    receipts: Receipts,
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
    /// Which replica it dials.
    pub(super) dials: Option<usize>,
    /// Whether it ever reaches that one.
    pub(super) has_way: bool,
    /// Whether sticks are carried between it and that one.
    pub(super) by_carrier: bool,
    /// Whether it is a node that has neighbours.
    pub(super) on_lan: bool,
    /// Other nodes that it dials.
    pub(super) neighbours: Vec<usize>,
    pub(super) takes_time: bool,
    /// Its clock has been right all the time, and how far off it was at most, in milliseconds.
    pub(super) clock_is_right: bool,
    pub(super) clock_off_ms: u64,
    pub(super) disk_pace: DiskPace,
    /// Somebody looks through what was set aside at this time.
    pub(super) replay_us: Option<u64>,
    /// What was erased is seen to some time from now.
    pub(super) forgets: bool,
    /// Nothing is let through its links before this.
    pub(super) hole_until_us: u64,
    /// It is away until then.
    pub(super) away_until_us: u64,
    /// Since when it is no longer welcome.
    pub(super) revoked_us: Option<u64>,
    pub(super) conversations: BTreeMap<usize, Conversation>,
    pub(super) local: BTreeMap<u64, LocalOp>,
    pub(super) copy: Option<OldCopy>,
    pub(super) written: Vec<Written>,
    pub(super) imported: Vec<(BlobHash, u64)>,
    pub(super) deleted: BTreeSet<RecordKey>,
    pub(super) epochs: u64,
    /// What its readers have said last, as an exporter of bundles.
    pub(super) receipts: Receipts,
    /// Sticks go between it and the bridge in vain, because of a clock.
    pub(super) is_cut_off: bool,
    /// What it keeps of what is in scope.
    pub(super) selection: Selection,
    /// The bridge has what is not kept here up to this row.
    pub(super) held_upto: Option<Seq>,
    /// What has left, and not come back since.
    pub(super) evicted: BTreeSet<RecordKey>,
    /// It is to use no more than this for content.
    pub(super) room_wanted: Option<u64>,
    /// The bridge's life, as far as it is known.
    pub(super) bridge_epoch: Option<Epoch>,
    /// Content that no record named when it was last looked at.
    pub(super) unreferenced: BTreeSet<BlobHash>,
    /// Content that ever rotted here.
    pub(super) rotted: BTreeSet<BlobHash>,
    /// It is not there until the card of this one is copied for it.
    pub(super) copy_of: Option<usize>,
    /// The life in which its card was put back or copied, and which does not know of it.
    pub(super) unnoticed: Option<Epoch>,
    /// Its link to the one it dials, if that has a budget.
    pub(super) metered: Option<MeteredLink>,
}

impl Replica {
    pub(super) fn new(resident: &Resident, sabotage: Option<Sabotage>) -> Self {
        let node = resident.node;
        // The bridge passes everything on.
        let sabotage =
            sabotage.filter(|sabotage| *sabotage != Sabotage::NodesPassNothingOn || resident.dials.is_some());
        let records = Arc::new(SimRecords::new(node, Epoch(1), sabotage));
        let blobs = Arc::new(SimBlobs::new(Arc::clone(&records), sabotage));
        if resident.dials.is_some() {
            blobs.receive_together();
        }
        Self {
            node,
            records,
            blobs,
            wall: resident.wall,
            old: resident.old,
            up: resident.copy_of.is_none(),
            life: 0,
            scope: Scope { site: node, collections: resident.collections.clone() },
            dials: resident.dials,
            has_way: resident.has_way,
            by_carrier: resident.by_carrier,
            on_lan: resident.on_lan,
            neighbours: resident.neighbours.clone(),
            takes_time: resident.takes_time,
            clock_is_right: resident.wall.is_right(),
            clock_off_ms: Wall::RIGHT_WITHIN_MS,
            disk_pace: resident.disk,
            replay_us: None,
            forgets: false,
            hole_until_us: 0,
            away_until_us: 0,
            // Nobody misses one that is not there.
            revoked_us: resident.copy_of.map(|_| 0),
            conversations: BTreeMap::new(),
            local: BTreeMap::new(),
            copy: None,
            written: Vec::new(),
            imported: Vec::new(),
            deleted: BTreeSet::new(),
            epochs: 1,
            receipts: Receipts::new(),
            is_cut_off: false,
            selection: Selection::default(),
            held_upto: None,
            evicted: BTreeSet::new(),
            room_wanted: None,
            bridge_epoch: None,
            unreferenced: BTreeSet::new(),
            rotted: BTreeSet::new(),
            copy_of: resident.copy_of,
            unnoticed: None,
            metered: resident.link.as_ref().map(MeteredLink::new),
        }
    }

    /// Whether it is the one that others dial.
    pub(super) fn is_bridge(&self) -> bool {
        self.dials.is_none()
    }

    /// Everybody that it dials.
    pub(super) fn dialled(&self) -> impl Iterator<Item = usize> + '_ {
        self.dials.filter(|_| self.has_way).into_iter().chain(self.neighbours.iter().copied())
    }

    /// The time on its wall, which it shows to its store.
    pub(super) fn look_at_clock(&self, world_ms: u64, skipped_ms: u64) -> (u64, ClockQuality) {
        let (unix_ms, quality) = self.wall.read(world_ms, skipped_ms);
        self.records.set_clock(unix_ms, quality);
        // That of the bridge's database is looked after.
        self.records.set_store_time(WORLD_BEGINS_UNIX_MS + world_ms);
        (unix_ms, quality)
    }

    /// Carries out a request as the driver does. The stores answer at once.
    pub(super) fn carry_out(&self, request: DiskRequest, peer: NodeId) -> Result<Option<DiskDone>, StoreError> {
        super::try_carry_out(request, peer, &self.records, &self.blobs)
    }

    pub(super) fn take_copy(&mut self, at_us: u64) {
        self.copy = Some(self.image(at_us));
    }

    /// What is on its card.
    pub(super) fn image(&self, at_us: u64) -> OldCopy {
        let (selection, evicted) = (self.selection.clone(), self.evicted.clone());
        let (records, blobs, receipts) = (self.records.copy(), self.blobs.copy(), self.receipts.clone());
        OldCopy { at_us, records, blobs, selection, evicted, receipts }
    }

    /// Goes on with another image on its card, as nobody is told.
    pub(super) fn put_back(&mut self, image: OldCopy) {
        let OldCopy { at_us, records, blobs, selection, evicted, receipts } = image;
        (self.selection, self.evicted, self.receipts) = (selection, evicted, receipts);
        self.records.put_back(records);
        self.blobs.restore(blobs);
        self.lose_since(at_us);
    }

    /// Goes back to the copy that was taken last, if any, in the life `epoch` if there is one that nobody else has.
    pub(super) fn go_back(&mut self, epoch: Option<Epoch>) -> bool {
        let Some(OldCopy { at_us, records, blobs, selection, evicted, .. }) = self.copy.take() else { return false };
        (self.selection, self.evicted) = (selection, evicted);
        self.epochs += 1;
        self.records.restore(records, epoch.unwrap_or(Epoch(self.epochs)));
        self.blobs.restore(blobs);
        self.lose_since(at_us);
        true
    }

    /// What people were told to be kept since a moment may be lost.
    fn lose_since(&mut self, at_us: u64) {
        for written in self.written.iter_mut().filter(|written| written.at_us > at_us) {
            written.kept = false;
        }
        self.imported.retain(|&(_, imported_us)| imported_us <= at_us);
        self.deleted.clear();
    }
}
