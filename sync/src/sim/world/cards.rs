//! Cards that are written with an older image of themselves, and copies that run beside their originals. Nobody is told: the two ends
//! of the next session have to notice (`lineage`).

use super::{NOTICE_US, World};
use crate::id::Epoch;
use crate::session::Input;
use crate::store::RecordStore as _;
use crate::wire::CloseReason;

/// Lives that begin within one start are numbered from here by restores.
const RESTORED: u64 = 0x8000;

impl World<'_> {
    /// Where cards are copied, nodes keep a lineage.
    pub(super) fn give_lineages(&mut self) {
        for replica in 0..self.replicas.len() {
            self.open_store(replica);
        }
    }

    pub(in crate::sim) fn has_cards(&self) -> bool {
        self.plan.has_cards
    }

    /// A store is opened.
    pub(super) fn open_store(&mut self, replica: usize) {
        if self.plan.has_cards && !self.replicas[replica].is_bridge() {
            self.starts += 1;
            self.replicas[replica].records.open(self.starts);
        }
    }

    /// A life that nobody else has, for a restore; `None` where numbers in order will do.
    pub(super) fn fresh_epoch(&mut self, replica: usize) -> Option<Epoch> {
        if !self.plan.has_cards || self.replicas[replica].is_bridge() {
            return None;
        }
        self.starts += 1;
        Some(Epoch(self.starts << 16 | RESTORED))
    }

    /// The card is taken out, written with an image, and put back.
    pub(super) fn put_back(&mut self, replica: usize) {
        self.crash(replica);
        self.figures.put_back += 1;
        let here = &mut self.replicas[replica];
        let Some(image) = here.copy.clone() else { return };
        here.put_back(image);
        self.open_store(replica);
        self.look_at_clock(replica);
        let here = &mut self.replicas[replica];
        here.unnoticed = Some(here.records.epoch());
        self.node_goes_back(replica);
    }

    /// A machine that was not there is started with a copy of a card that is in use.
    pub(super) fn start_copy(&mut self, replica: usize) {
        let Some(original) = self.replicas[replica].copy_of else { return };
        if self.replicas[original].revoked_us.is_some() {
            return;
        }
        self.figures.copies += 1;
        let from = &self.replicas[original];
        let (image, is_right, off_ms) = (from.image(self.now_us), from.clock_is_right, from.clock_off_ms);
        let here = &mut self.replicas[replica];
        here.put_back(image);
        // What a wrong clock has stamped came with the card.
        here.clock_is_right &= is_right;
        here.clock_off_ms = here.clock_off_ms.max(off_ms);
        (here.copy_of, here.revoked_us, here.up) = (None, None, true);
        self.open_store(replica);
        self.look_at_clock(replica);
        for end in [original, replica] {
            let here = &mut self.replicas[end];
            here.unnoticed = Some(here.records.epoch());
        }
        self.dial_all(replica, NOTICE_US);
    }

    /// A new life has begun: what was under way belongs to the old one.
    pub(super) fn begin_new_life(&mut self, replica: usize) {
        self.figures.new_lives += 1;
        let peers: Vec<usize> = self.replicas[replica].conversations.keys().copied().collect();
        for peer in peers {
            self.tell(replica, peer, Input::Stop(CloseReason::GoingAway, "a new life begins".into()));
        }
    }

    /// A session lasts for a day at most.
    pub(super) fn end_all_sessions(&mut self) {
        for replica in 0..self.replicas.len() {
            let peers: Vec<usize> = self.replicas[replica].conversations.keys().copied().collect();
            for peer in peers {
                self.tell(replica, peer, Input::Stop(CloseReason::GoingAway, "a day is over".into()));
            }
        }
    }
}
