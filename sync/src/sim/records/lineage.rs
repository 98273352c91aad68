//! The lineage of a store in memory: openings, what peers remember, and the new life of one that was set back.

use super::super::Sabotage;
use super::{Change, Inner, SimRecords};
use crate::hlc::Clock;
use crate::id::{Epoch, Incarnation, NodeId};
use crate::lineage::{Lineage, Remembered, Verdict};

/// Epochs that begin within one start.
const LIVES_BITS: u32 = 16;

impl SimRecords {
    /// The store was opened, in a start that no other has. From now on it keeps a lineage.
    pub fn open(&self, start: u64) {
        self.lock().open(start);
    }

    /// What is remembered of a peer.
    pub fn remembers(&self, of: NodeId) -> Vec<Remembered> {
        self.lock().tables.remembered.get(&of).cloned().unwrap_or_default()
    }

    /// Goes on from `copy`, as whoever writes an image onto a card makes a store go on: nobody is told. Then [`Self::open`].
    pub fn put_back(&self, copy: super::RecordsCopy) {
        let mut inner = self.lock();
        let (now, full) = (inner.now, inner.full);
        *inner = Inner::recover(inner.node, copy.0, inner.sabotage);
        (inner.now, inner.full) = (now, full);
        inner.unsynced = 0;
    }
}

impl Inner {
    fn open(&mut self, start: u64) {
        let epoch = self.tables.epoch;
        let mut lineage = self.tables.lineage.clone().filter(|lineage| lineage.epoch() == epoch);
        match &mut lineage {
            Some(lineage) => lineage.begin(start, self.rows()),
            none => *none = Some(Lineage::new(epoch, self.secret(epoch), start)),
        }
        self.start = Some(start);
        self.commit(lineage.map(|lineage| Change::Lineage(Box::new(lineage))).into_iter().collect());
        self.unsynced = 0;
        self.clock = self.fresh_clock();
    }

    pub(super) fn rows(&self) -> u64 {
        self.tables.withheld + self.tables.heads.values().map(|head| head.0).sum::<u64>()
    }

    /// The changes with which another life begins.
    pub(super) fn new_life(&self, incarnation: Incarnation, epoch: Epoch) -> Vec<Change> {
        let mut changes = vec![Change::Life(incarnation, epoch)];
        if let Some(start) = self.start {
            changes.push(Change::Lineage(Box::new(Lineage::new(epoch, self.secret(epoch), start))));
        }
        if let Some(again) = self.tables.absence.begin_again() {
            changes.extend([Change::ForgetAllCursors, Change::Absence(Box::new(again))]);
        }
        changes
    }

    /// The incarnation that stamps are given in: nobody else's, whatever was copied.
    pub(super) fn stamping(&self) -> Incarnation {
        match self.start {
            Some(start) if self.sabotage != Some(Sabotage::CopiesStampAlike) => Incarnation(start as u32),
            _ => self.tables.incarnation,
        }
    }

    /// Whether what a peer remembers is part of this store's past; else a new life begins. Who is known, and knows nobody, was set back to
    /// before its first meeting.
    pub(super) fn recall(&mut self, by: NodeId, remembered: &[Remembered], knows_nobody: bool) -> bool {
        let (Some(lineage), Some(start)) = (&self.tables.lineage, self.start) else { return true };
        let is_past = |of: &Remembered| lineage.judge(of.moment, self.rows()) == Verdict::Past;
        let mine: Vec<&Remembered> = remembered.iter().filter(|of| of.epoch == lineage.epoch()).collect();
        let is_as_it_was = mine.is_empty() || !knows_nobody && mine.iter().all(|of| is_past(of));
        if is_as_it_was || self.sabotage == Some(Sabotage::CopiesGoOn) {
            return true;
        }
        self.lives += 1;
        let epoch = Epoch(start << LIVES_BITS | self.lives);
        let mut changes = self.new_life(Incarnation(epoch.0 as u32), epoch);
        // Known to one of whom nothing was read: how it stands was told to one that passed for new.
        if !self.tables.cursors.keys().any(|(node, _)| *node == by) {
            let absence = self.tables.absence.begin_again().unwrap_or_else(|| self.tables.absence.clone());
            changes.push(Change::Absence(Box::new(absence.out_of_step())));
        }
        // Of what peers had from here, and this store has lost, nothing was sent back: all is read from the beginning.
        changes.push(Change::ForgetAllCursors);
        self.commit(changes);
        self.clock = Clock::new(self.node, self.stamping(), self.clock.quality(), self.clock.last());
        false
    }

    fn secret(&self, epoch: Epoch) -> [u8; 32] {
        *blake3::Hasher::new().update(self.node.as_bytes()).update(&epoch.0.to_be_bytes()).finalize().as_bytes()
    }
}
