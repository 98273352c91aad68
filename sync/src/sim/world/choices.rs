//! What happens when a node no longer keeps a collection, or keeps it again: what the bridge has leaves it, comes back whole, and
//! the judge looks at every record that goes (invariant 16).

use std::collections::BTreeSet;

use super::World;
use crate::chunk::BlobHash;
use crate::domain::{Blob, Typed as _};
use crate::id::{BucketId, RecordId, Seq};
use crate::record::{Record, RecordKey};
use crate::session::{Chosen, Input};
use crate::sim::checks::contains;
use crate::sim::{Sabotage, ops};
use crate::store::RecordStore as _;
use crate::wire::CloseReason;

/// The collection that is kept or not.
fn collection() -> RecordId {
    ops::collections()[1]
}

fn bucket() -> BucketId {
    BucketId::Collection(collection())
}

impl World<'_> {
    /// The operator of a node chooses. Its session with the bridge ends for that.
    pub(super) fn choose(&mut self, replica: usize, keeps: bool) {
        let here = &self.replicas[replica];
        let Some(bridge) = here.dials.filter(|_| here.has_way && here.scope.contains(bucket())) else { return };
        if here.selection.wants(bucket()) == keeps {
            return;
        }
        // Nothing of it is written after the choice.
        self.tell(replica, bridge, Input::Stop(CloseReason::GoingAway, "another choice".into()));
        self.figures.choices += 1;
        let here = &mut self.replicas[replica];
        here.held_upto = None;
        if keeps {
            here.selection.collections = Chosen::default();
            here.selection.returning.insert(collection());
            here.records.forget_cursors(bucket());
        } else {
            here.selection.collections = Chosen::AllBut([collection()].into());
            here.selection.returning.clear();
            here.records.forget_aside_in(bucket());
        }
    }

    /// The bridge has a bucket that is not kept here up to a row.
    pub(super) fn note_held(&mut self, replica: usize, held: BucketId, upto: Seq) {
        if held == bucket() {
            self.replicas[replica].held_upto = Some(upto);
            self.align(replica);
            self.ask_about_leaving(replica);
        }
    }

    /// A bucket that was to come back has been read to its end.
    pub(super) fn note_returned(&mut self, replica: usize, returned: BucketId) {
        if returned == bucket() {
            let here = &mut self.replicas[replica];
            here.selection.returning.clear();
            // What a clock that was set back keeps out is set aside, like anybody's; and what the bridge has set aside of what was written
            // here is not what comes back.
            let (records, written) = (std::sync::Arc::clone(&here.records), &here.written);
            here.evicted.retain(|key| {
                let held = records.get(*key);
                let versions = written.iter().map(|written| &written.record).filter(|version| version.key == *key);
                held.is_none() || versions.into_iter().any(|version| !contains(held.as_ref(), version))
            });
        }
    }

    /// Removes what the bridge has: a record that makes a blob content only once it is known to have that, too.
    pub(super) fn align(&mut self, replica: usize) {
        let here = &self.replicas[replica];
        let (Some(upto), Some(epoch)) = (here.held_upto, here.bridge_epoch) else { return };
        if here.selection.wants(bucket()) {
            return;
        }
        let upto = if self.sabotage == Some(Sabotage::EvictionGoesTooFar) { Seq(u64::MAX) } else { upto };
        let unconfirmed = here.blobs.unconfirmed(epoch);
        let pending = here.records.pending_erasures();
        // Cursors pass what is held back; nobody has it.
        let held_back = here.records.held_back();
        let stays = |record: &Record| {
            blob_of(record).is_some_and(|blob| unconfirmed.contains(&blob))
                || pending.contains(&record.key)
                || held_back.contains(&record.key)
        };
        for record in here.records.evict_upto(bucket(), upto, stays) {
            self.figures.left += 1;
            self.judge_leaving(replica, &record);
            let here = &mut self.replicas[replica];
            here.deleted.remove(&record.key);
            here.evicted.insert(record.key);
        }
        self.replicas[replica].records.forget_aside_in(bucket());
    }

    fn ask_about_leaving(&mut self, replica: usize) {
        let here = &self.replicas[replica];
        let (Some(bridge), Some(epoch)) = (here.dials, here.bridge_epoch) else { return };
        let unconfirmed = here.blobs.unconfirmed(epoch);
        let leaving = here.records.feed(bucket()).into_iter().filter_map(|(_, record)| blob_of(&record));
        let asked: Vec<BlobHash> = leaving.filter(|blob| unconfirmed.contains(blob)).collect();
        if !asked.is_empty() {
            self.schedule(0, super::Happening::Ask { replica, peer: bridge, blobs: asked });
        }
    }

    /// The bridge goes back to a backup: what nodes gave up since may be lost with it, and is missed by nobody.
    pub(super) fn bridge_goes_back(&mut self) {
        for replica in 0..self.replicas.len() {
            let evicted = self.replicas[replica].evicted.clone();
            self.lose_with_the_bridge(replica, |key| evicted.contains(&key));
        }
    }

    /// A node goes back to when it had given up what the bridge held then, and has lost since.
    pub(super) fn node_goes_back(&mut self, replica: usize) {
        let here = &self.replicas[replica];
        let Some(bridge) = here.dials.map(|bridge| &self.replicas[bridge]) else { return };
        let set_aside = bridge.records.quarantined();
        let is_lost = |version: &&Record| {
            let held = bridge.records.get(version.key);
            here.evicted.contains(&version.key) && !contains(held.as_ref(), version) && !set_aside.contains(version)
        };
        let written = here.written.iter().map(|written| &written.record);
        let lost: BTreeSet<RecordKey> = written.filter(is_lost).map(|version| version.key).collect();
        self.lose_with_the_bridge(replica, |key| lost.contains(&key));
    }

    fn lose_with_the_bridge(&mut self, replica: usize, is_lost: impl Fn(RecordKey) -> bool) {
        for written in self.replicas[replica].written.iter_mut().filter(|written| is_lost(written.record.key)) {
            written.kept = false;
        }
    }

    /// What leaves must be at the bridge, or set aside there, as far as the node can know.
    fn judge_leaving(&mut self, replica: usize, record: &Record) {
        let here = &self.replicas[replica];
        let Some(bridge) = here.dials.map(|bridge| &self.replicas[bridge]) else { return };
        let held = bridge.records.get(record.key);
        let is_there = contains(held.as_ref(), record)
            || bridge.records.quarantined().contains(record)
            || self.may_be_forgotten(record, held.as_ref());
        let knows_no_better = here.bridge_epoch != Some(bridge.records.epoch());
        if !is_there && !knows_no_better {
            self.violate(16, &format!("node {replica} gave up {:?}, which its bridge does not hold", record.key));
        } else if !is_there {
            self.lose_with_the_bridge(replica, |key| key == record.key);
        }
        if let Some(blob) = blob_of(record).filter(|blob| self.replicas[replica].blobs.whole(*blob).is_some()) {
            self.judge_eviction(replica, blob);
        }
    }
}

fn blob_of(record: &Record) -> Option<BlobHash> {
    Blob::from_record(record).and_then(|blob| blob.hash)
}
