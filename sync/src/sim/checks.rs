//! The invariants of docs/ARCHITECTURE.md, as far as a world can see them.

use std::collections::{BTreeMap, BTreeSet};

use super::records::UNKNOWN_FIELDS_FROM;
use super::world::{BRIDGE, World};
use crate::domain::{Blob, Typed};
use crate::id::BucketId;
use crate::merge::merge;
use crate::record::{Body, FieldTag, Record, RecordKey};
use crate::store::RecordStore;

/// Whether `held` says all that `version` says.
fn contains(held: Option<&Record>, version: &Record) -> bool {
    held.is_some_and(|held| merge(held.clone(), version.clone()) == *held)
}

impl World {
    /// What must hold of one replica that has just lost power, by what is on its disk.
    pub(super) fn check_after_crash(&mut self, replica: usize) {
        let here = &self.replicas[replica];
        let mut faults: Vec<(u8, String)> = Vec::new();
        for written in here.written.iter().filter(|written| written.kept) {
            if !contains(here.records.get(written.record.key).as_ref(), &written.record) {
                faults.push((2, format!("replica {replica} lost an acknowledged write of {:?}", written.record.key)));
            }
        }
        for (blob, _) in &here.imported {
            if here.blobs.whole(*blob).is_none() {
                faults.push((2, format!("replica {replica} lost the imported blob {blob}")));
            }
        }
        if let Some(fault) = here.blobs.unverified() {
            faults.push((11, format!("replica {replica}: {fault}")));
        }
        for (invariant, fault) in faults {
            self.violate(invariant, &fault);
        }
        self.check_cursors(replica);
        self.check_running();
    }

    /// What must hold of every replica at any time.
    pub(super) fn check_running(&mut self) {
        let mut faults: Vec<(u8, String)> = Vec::new();
        for (at, here) in self.replicas.iter_mut().enumerate() {
            if let Some(fault) = here.records.feed_fault() {
                faults.push((5, format!("replica {at}: {fault}")));
            }
            let (tombstones, live): (Vec<Record>, Vec<Record>) =
                here.records.all().into_iter().partition(Record::is_tombstone);
            if let Some(back) = live.iter().find(|record| here.deleted.contains(&record.key)) {
                faults.push((6, format!("replica {at} had deleted {:?} and shows it again", back.key)));
            }
            here.deleted.extend(tombstones.into_iter().map(|record| record.key));
        }
        for (invariant, fault) in faults {
            self.violate(invariant, &fault);
        }
    }

    /// No row below a cursor is unseen (invariant 4).
    fn check_cursors(&mut self, replica: usize) {
        let here = &self.replicas[replica];
        let set_aside = here.records.quarantined();
        let mut fault = None;
        for (node, bucket, cursor) in here.records.cursors() {
            let Some(peer) = self.replicas.iter().find(|peer| peer.node == node) else { continue };
            if peer.records.epoch() != cursor.epoch {
                continue;
            }
            for (seq, row) in peer.records.feed(bucket) {
                let seen = contains(here.records.get(row.key).as_ref(), &row) || set_aside.contains(&row);
                if seq <= cursor.seq && !seen {
                    let (seq, cursor) = (seq.0, cursor.seq.0);
                    fault = Some(format!("replica {replica} is at row {cursor} of {bucket} and never saw row {seq}"));
                }
            }
        }
        if let Some(fault) = fault {
            self.violate(4, &fault);
        }
    }

    /// Equal buckets mean equal state once the network is quiet (invariant 1).
    pub(super) fn check_quiet_records(&mut self) {
        let mut faults = Vec::new();
        let bridge = by_bucket(&self.replicas[BRIDGE].records.all());
        for (at, node) in self.replicas.iter().enumerate().skip(1) {
            let here = by_bucket(&node.records.all());
            let buckets: BTreeSet<BucketId> = bridge.keys().chain(here.keys()).copied().collect();
            for bucket in buckets.into_iter().filter(|&bucket| node.scope.contains(bucket)) {
                let (mine, theirs) = (here.get(&bucket), bridge.get(&bucket));
                if mine != theirs {
                    let count = |records: Option<&Vec<Record>>| records.map_or(0, Vec::len);
                    let (mine, theirs) = (count(mine), count(theirs));
                    faults.push(format!("{bucket}: {mine} records at node {at}, {theirs} others at the bridge"));
                }
            }
        }
        for fault in faults {
            self.violate(1, &fault);
        }
    }

    /// Content that is somewhere and not everywhere where it is wanted.
    pub(super) fn blobs_missing(&self) -> Option<String> {
        for (at, here) in self.replicas.iter().enumerate() {
            for record in here.records.all() {
                let Some(blob) = Blob::from_record(&record).and_then(|blob| blob.hash) else { continue };
                let bucket = record.key.bucket;
                let somewhere = self.replicas.iter().enumerate().any(|(other, replica)| {
                    replica.blobs.whole(blob).is_some()
                        && (other == BRIDGE || replica.scope.contains(bucket))
                        && replica.records.get(record.key).is_some()
                });
                if somewhere && here.blobs.whole(blob).is_none() {
                    return Some(format!("replica {at} never got {blob}"));
                }
            }
        }
        None
    }

    /// What must hold once everything is quiet, by what people wrote.
    pub(super) fn check_end(&mut self) {
        let mut versions: BTreeMap<RecordKey, Vec<(Record, bool)>> = BTreeMap::new();
        for written in self.replicas.iter().flat_map(|replica| &replica.written) {
            versions.entry(written.record.key).or_default().push((written.record.clone(), written.kept));
        }
        let mut faults: Vec<(u8, String)> = Vec::new();
        for (key, versions) in &versions {
            let all = join(versions.iter().map(|(record, _)| record));
            let mut shuffled: Vec<&Record> =
                versions.iter().chain(versions.iter().take(2)).map(|(record, _)| record).collect();
            for at in (1..shuffled.len()).rev() {
                shuffled.swap(at, self.rng.below(at as u64 + 1) as usize);
            }
            if join(shuffled.into_iter()) != all {
                faults.push((3, format!("the versions of {key:?} join differently in another order")));
            }
            let kept = join(versions.iter().filter(|(_, kept)| *kept).map(|(record, _)| record));
            for (at, replica) in self.replicas.iter().enumerate() {
                if at != BRIDGE && !replica.scope.contains(key.bucket) {
                    continue;
                }
                let held = replica.records.get(*key);
                if let Some(kept) = &kept {
                    if !keeps_unknown(held.as_ref(), kept) {
                        faults.push((10, format!("replica {at} has lost unknown fields of {key:?}")));
                    }
                    if !contains(held.as_ref(), kept) {
                        faults.push((2, format!("replica {at} does not show an acknowledged write of {key:?}")));
                    }
                }
                if held.is_some_and(|held| !contains(all.as_ref(), &held)) {
                    faults.push((3, format!("replica {at} shows a version of {key:?} that nobody wrote")));
                }
            }
        }
        for (at, replica) in self.replicas.iter().enumerate() {
            if let Some(fault) = replica.blobs.unverified() {
                faults.push((11, format!("replica {at}: {fault}")));
            }
        }
        for (invariant, fault) in faults {
            self.violate(invariant, &fault);
        }
        for replica in 0..self.replicas.len() {
            self.check_cursors(replica);
        }
        self.check_running();
    }
}

fn by_bucket(records: &[Record]) -> BTreeMap<BucketId, Vec<Record>> {
    let mut buckets: BTreeMap<BucketId, Vec<Record>> = BTreeMap::new();
    for record in records {
        buckets.entry(record.key.bucket).or_default().push(record.clone());
    }
    buckets
}

fn join<'a>(mut versions: impl Iterator<Item = &'a Record>) -> Option<Record> {
    let first = versions.next()?.clone();
    Some(versions.fold(first, |joined, version| merge(joined, version.clone())))
}

/// Whether every field of `kept` that an old replica does not know is still there.
fn keeps_unknown(held: Option<&Record>, kept: &Record) -> bool {
    let Some(held) = held else { return true };
    match (&held.body, &kept.body) {
        (Body::Live(held), Body::Live(kept)) => {
            kept.keys().filter(|tag| **tag >= FieldTag::lww(UNKNOWN_FIELDS_FROM)).all(|tag| held.contains_key(tag))
        }
        _ => true,
    }
}
