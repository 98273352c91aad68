//! What happens when room is made: content that nothing names is swept, content that the bridge holds makes way, and the
//! judge looks at every blob that goes (invariant 16).

use std::collections::BTreeSet;

use super::World;
use crate::chunk::BlobHash;
use crate::domain::{Blob, Erasure, Typed as _};
use crate::id::Epoch;
use crate::session::Input;
use crate::store::RecordStore as _;

impl World<'_> {
    /// A node is to use no more than this for content. It asks its bridge what that holds, and gives up what it may.
    pub(super) fn want_room(&mut self, replica: usize, bytes: u64) {
        let here = &mut self.replicas[replica];
        if here.is_bridge() {
            return;
        }
        here.room_wanted = Some(bytes);
        self.give_up(replica);
        let here = &self.replicas[replica];
        let (Some(bridge), Some(epoch)) = (here.dials, here.bridge_epoch) else { return };
        let unconfirmed = here.blobs.unconfirmed(epoch);
        if !unconfirmed.is_empty() && here.conversations.contains_key(&bridge) {
            self.tell(replica, bridge, Input::CheckBlobs(unconfirmed));
        }
    }

    /// The bridge has introduced itself, in this life of it.
    pub(super) fn note_bridge(&mut self, replica: usize, epoch: Epoch) {
        self.replicas[replica].bridge_epoch = Some(epoch);
    }

    /// The bridge has said whether it holds a blob.
    pub(super) fn note_checked(&mut self, replica: usize, blob: BlobHash, is_held: bool) {
        let here = &self.replicas[replica];
        let Some(epoch) = here.bridge_epoch else { return };
        here.blobs.note_checked(blob, is_held, epoch);
        self.give_up(replica);
        self.align(replica);
    }

    fn give_up(&mut self, replica: usize) {
        let here = &self.replicas[replica];
        let (Some(bytes), Some(epoch)) = (here.room_wanted, here.bridge_epoch) else { return };
        for blob in here.blobs.give_up(bytes, epoch) {
            self.figures.evicted += 1;
            self.judge_eviction(replica, blob);
            self.replicas[replica].imported.retain(|(imported, _)| *imported != blob);
        }
    }

    /// What a record here names may go only if the bridge has it, as far as the node can know: not if the bridge has gone back to an
    /// older life since, rotted, or heard that the content is no more.
    pub(super) fn judge_eviction(&mut self, replica: usize, blob: BlobHash) {
        let here = &self.replicas[replica];
        let Some(bridge) = here.dials.map(|bridge| &self.replicas[bridge]) else { return };
        let is_there = bridge.blobs.whole(blob).is_some();
        let knows_no_better = here.bridge_epoch != Some(bridge.records.epoch());
        let is_no_more = !bridge.blobs.content().contains(&blob) && {
            let of_blob = |key: crate::record::RecordKey| key.kind == Blob::KIND && key.id == Blob::record_id(blob);
            bridge.records.all().iter().any(|record| of_blob(record.key) || record.key.kind == Erasure::KIND)
        };
        if !is_there && !knows_no_better && !is_no_more && !bridge.rotted.contains(&blob) {
            self.violate(16, &format!("node {replica} gave up {blob}, which its bridge does not hold"));
        }
    }

    /// Removes what no record has named at two looks, one of them now.
    pub(super) fn sweep(&mut self, replica: usize) {
        let marked = std::mem::take(&mut self.replicas[replica].unreferenced);
        let gone = self.replicas[replica].blobs.sweep(&marked);
        let named: BTreeSet<BlobHash> = self.replicas[replica].blobs.named();
        for blob in gone {
            self.figures.swept += 1;
            if named.contains(&blob) {
                self.violate(16, &format!("replica {replica} swept {blob}, which a record names"));
            }
            self.replicas[replica].imported.retain(|(imported, _)| *imported != blob);
        }
        self.replicas[replica].unreferenced = self.replicas[replica].blobs.unreferenced();
    }
}
