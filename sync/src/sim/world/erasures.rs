//! What happens to what people want to be forgotten: it is erased, disks forget it, receipts are given, and the judge looks
//! for it everywhere (invariant 7).

use std::collections::BTreeSet;

use super::{Happening, World};
use crate::chunk::BlobHash;
use crate::domain::Erasure;
use crate::domain::Typed as _;
use crate::erase;
use crate::id::{BucketId, NodeId};
use crate::record::RecordKey;
use crate::session::Input;
use crate::sim::ops;
use crate::sim::replica::{Replica, Written};
use crate::sim::secrets::Secret;

/// Secrets of a world.
pub(in crate::sim) const SECRETS: u8 = 3;
/// A replica writes its files anew within this after it has heard of an erasure.
const FORGET_US: u64 = 20_000_000;

/// One of the world's secrets. They are where every node reads.
pub(in crate::sim) fn secret(number: u8) -> Secret {
    Secret { bucket: BucketId::Collection(ops::collections()[0]), number }
}

impl World<'_> {
    /// Somebody asks for a secret to be forgotten, if it is known here.
    pub(super) fn erase(&mut self, replica: usize, number: u8) {
        self.look_at_clock(replica);
        let records = &self.replicas[replica].records;
        let key = secret(number).key();
        if records.get(key).is_none_or(|record| record.is_tombstone()) {
            return;
        }
        self.figures.erased += 1;
        let orders = records.erase(key);
        let tombstone = records.get(key);
        let at_us = self.now_us;
        for record in orders.into_iter().chain(tombstone) {
            self.replicas[replica].written.push(Written { record, at_us, kept: true });
        }
        self.tell_all(replica, || Input::LocalChange(key.bucket));
        self.forget_later(replica);
    }

    /// Sees to what an erasure has left on the disk, some time from now, if there is anything to see to.
    pub(super) fn forget_later(&mut self, replica: usize) {
        let here = &mut self.replicas[replica];
        if self.plan.has_secrets && !here.forgets && here.records.has_pending_erasures() {
            here.forgets = true;
            let after = self.rng.between(100_000, FORGET_US);
            self.schedule(after, Happening::Forget { replica });
        }
    }

    pub(super) fn forget(&mut self, replica: usize) {
        self.replicas[replica].forgets = false;
        if !self.replicas[replica].up {
            return;
        }
        self.look_at_clock(replica);
        let here = &self.replicas[replica];
        let before: BTreeSet<_> = here.blobs.whole_blobs().into_iter().collect();
        let has_room = !here.records.is_full();
        let is_purged = has_room && here.blobs.purge_erased();
        let gone = before.into_iter().filter(|blob| here.blobs.whole(*blob).is_none());
        let named = |blob| {
            let records = here.records.all();
            let media = records.into_iter().filter(|record| record.key.kind != crate::domain::Blob::KIND);
            media.into_iter().find(|record| erase::blobs_named(record).contains(&blob))
        };
        let fault = gone.into_iter().find_map(|blob| named(blob).map(|record| (blob, record.key)));
        let receipts = if is_purged { here.records.settle_erasures() } else { Vec::new() };
        let site = BucketId::Site(here.node);
        if let Some((blob, key)) = fault {
            self.violate(16, &format!("replica {replica} removed {blob} as erased, which {key:?} names"));
        }
        let at_us = self.now_us;
        if !receipts.is_empty() {
            self.note_written();
        }
        for record in receipts {
            self.figures.receipts += 1;
            self.replicas[replica].written.push(Written { record, at_us, kept: true });
            self.tell_all(replica, || Input::LocalChange(site));
        }
        self.forget_later(replica);
    }

    /// Whether every disk has forgotten what it was asked to forget.
    pub(super) fn all_is_forgotten(&self) -> bool {
        let mut welcome = self.replicas.iter().filter(|here| here.revoked_us.is_none());
        !self.plan.has_secrets || welcome.all(|here| !here.records.has_pending_erasures())
    }

    /// Whether what is held of a record follows from an erasure, which nobody wrote by hand.
    pub(in crate::sim) fn may_be_erased(&self, key: RecordKey) -> bool {
        let kinds = [crate::domain::Blob::KIND, crate::domain::Annotation::KIND];
        self.plan.has_secrets && kinds.contains(&key.kind) && key.bucket == secret(0).bucket
    }

    /// Content of which a replica may hold that it was erased, or that it was not: where an erasure is set aside, of all
    /// secrets.
    pub(in crate::sim) fn forgotten(&self, here: &Replica) -> BTreeSet<BlobHash> {
        if !self.plan.has_secrets {
            return BTreeSet::new();
        }
        let set_aside = here.records.quarantined();
        let all = here.records.all();
        let orders = all.iter().filter_map(erase::Order::read).flat_map(|order| order.blobs);
        let of_secrets = (0..SECRETS).map(secret).flat_map(Secret::blobs);
        let unknown = of_secrets.filter(|_| set_aside.iter().any(|record| record.key.kind == Erasure::KIND));
        orders.chain(unknown).collect()
    }

    /// Once all is quiet: every order has its receipts, and nothing is left of what was erased.
    pub(in crate::sim) fn check_erased(&mut self) {
        if !self.plan.has_secrets {
            return;
        }
        let mut faults = Vec::new();
        // Content of a version that went with a restore is named by nobody any more: no erasure can find it.
        let written = self.replicas.iter().filter(|here| here.revoked_us.is_none()).flat_map(|here| &here.written);
        let media = written.filter(|written| written.kept && written.record.key.kind != crate::domain::Blob::KIND);
        let known: BTreeSet<BlobHash> = media.flat_map(|written| erase::blobs_named(&written.record)).collect();
        let welcome = || self.replicas.iter().enumerate().filter(|(_, here)| here.revoked_us.is_none());
        let Some((_, bridge)) = welcome().find(|(_, here)| here.is_bridge()) else { return };
        let all = bridge.records.all();
        let orders: Vec<_> = all.iter().filter(|record| record.key.kind == Erasure::KIND).collect();
        let receipts: BTreeSet<(BucketId, _, NodeId)> = all.iter().filter_map(erase::acknowledged).collect();
        for (at, here) in welcome().filter(|(_, here)| here.is_bridge() || here.scope.contains(secret(0).bucket)) {
            let gives_receipts = here.has_way || here.by_carrier;
            for order in orders.iter().filter(|_| gives_receipts) {
                if !receipts.contains(&(order.key.bucket, order.key.id, here.node)) {
                    faults.push(format!("replica {at} never gave a receipt for {:?}", order.key));
                }
            }
            let erased = orders.iter().filter_map(|record| erase::Order::read(record)).map(|order| order.target);
            let erased: BTreeSet<RecordKey> = erased.collect();
            for secret in (0..SECRETS).map(secret).filter(|secret| erased.contains(&secret.key())) {
                if let Some(left) = secret.known_left_in(&here.records, &here.blobs, &known) {
                    faults.push(format!("replica {at}: {left}"));
                }
            }
        }
        for fault in faults {
            self.violate(7, &fault);
        }
    }
}
