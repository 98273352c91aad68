//! The invariants of docs/ARCHITECTURE.md, as far as a world can see them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::link::Quality;
use super::records::UNKNOWN_FIELDS_FROM;
use super::replica::{Replica, Written};
use super::world::{ABSENT_RETRY_MS, IDLE_US, NOTICE_US, QUICK_DISK_US, REDIAL_US, RESTART_US, World};
use crate::domain::{Blob, Typed};
use crate::hlc::DRIFT_BOUND_MS;
use crate::hlc::Stamp;
use crate::id::BucketId;
use crate::merge::merge;
use crate::record::{Body, FieldTag, MergeRule, Record, RecordKey, Value};
use crate::store::{Cursor, RecordStore};

/// Chunks, with the manifest and the check of the whole, of a blob in these worlds, at most.
const CHUNKS_MAX: u64 = 18;
/// What chunks have on the average, or less, in bytes.
const CHUNK_BYTES_USUAL: u64 = 1_000;
/// Buckets that a session reads in these worlds, at most.
const BUCKETS_MAX: u64 = 8;

/// Whether `held` says all that `version` says.
pub(super) fn contains(held: Option<&Record>, version: &Record) -> bool {
    held.is_some_and(|held| merge(held.clone(), version.clone()) == *held)
}

impl World<'_> {
    /// What must hold of one replica that has just lost power, by what is on its disk.
    pub(super) fn check_after_crash(&mut self, replica: usize) {
        let here = &self.replicas[replica];
        let mut faults: Vec<(u8, String)> = Vec::new();
        let is_here = |written: &&Written| written.kept && !here.evicted.contains(&written.record.key);
        for written in here.written.iter().filter(is_here) {
            let held = here.records.get(written.record.key);
            if !contains(held.as_ref(), &written.record) && !self.may_be_forgotten(&written.record, held.as_ref()) {
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
        self.check_cursors(replica, false);
        self.check_running();
    }

    /// What must hold of every replica at any time.
    pub(super) fn check_running(&mut self) {
        let mut faults: Vec<(u8, String)> = Vec::new();
        for (at, here) in self.replicas.iter_mut().enumerate() {
            if let Some(fault) = here.records.feed_fault() {
                faults.push((5, format!("replica {at}: {fault}")));
            }
            let node = (!here.is_bridge()).then_some(here.node);
            let (records, deleted) = (Arc::clone(&here.records), &mut here.deleted);
            let (passed_for_new, came_back) = (&self.passed_for_new, &mut self.figures.passed_for_new);
            records.for_each(|record| {
                if let (BucketId::Site(site), Some(node)) = (record.key.bucket, node)
                    && site != node
                {
                    faults.push((0, format!("replica {at} holds {:?} of another site", record.key)));
                }
                if record.is_tombstone() {
                    deleted.insert(record.key);
                } else if deleted.contains(&record.key) && passed_for_new.contains(&record.key) {
                    *came_back = 1;
                } else if deleted.contains(&record.key) {
                    faults.push((6, format!("replica {at} had deleted {:?} and shows it again", record.key)));
                }
            });
        }
        for (invariant, fault) in faults {
            self.violate(invariant, &fault);
        }
    }

    /// No row below a cursor is unseen (invariant 4), but of one whose card was put back or copied, and who was not met since. What is written
    /// where nobody comes from is read from sticks only: of that its reader and its writer never meet.
    fn check_cursors(&mut self, replica: usize, all_have_met: bool) {
        let here = &self.replicas[replica];
        let counts = |peer: &Replica, bucket: BucketId| {
            // What one wrote, its copy was not given, for it came from the same life.
            let knows = |end: &Replica| end.unnoticed != Some(end.records.epoch());
            let are_let_in = peer.revoked_us.is_none() && here.revoked_us.is_none();
            knows(peer) && knows(here) || all_have_met && are_let_in && !self.is_apart(bucket)
        };
        for (node, bucket, cursor) in here.records.cursors().into_iter().filter(|of| here.selection.wants(of.1)) {
            let is_read = |peer: &&Replica| peer.node == node && peer.records.epoch() == cursor.epoch;
            let read: Vec<&Replica> = self.replicas.iter().filter(is_read).collect();
            if !read.iter().all(|peer| counts(peer, bucket)) {
                continue;
            }
            // Of two copies, one is read in this life.
            let faults: Vec<String> =
                read.iter().map_while(|peer| self.unseen_row(replica, peer, bucket, cursor)).collect();
            if faults.len() == read.len()
                && let Some(fault) = faults.into_iter().next()
            {
                return self.violate(4, &fault);
            }
        }
    }

    /// A row of a peer's feed that a replica has passed and does not have.
    fn unseen_row(&self, replica: usize, peer: &Replica, bucket: BucketId, cursor: Cursor) -> Option<String> {
        let here = &self.replicas[replica];
        let set_aside = here.records.quarantined();
        let held_back = peer.records.held_back();
        for (seq, row) in peer.records.feed(bucket).into_iter().filter(|(_, row)| !held_back.contains(&row.key)) {
            let seen = contains(here.records.get(row.key).as_ref(), &row) || set_aside.contains(&row);
            let may_be_forgotten = || {
                let held = here.records.get(row.key);
                row.is_tombstone() && self.has_leases() && held.is_none() || self.may_be_forgotten(&row, held.as_ref())
            };
            if seq <= cursor.seq && !seen && !may_be_forgotten() {
                let (seq, cursor) = (seq.0, cursor.seq.0);
                return Some(format!("replica {replica} is at row {cursor} of {bucket} and never saw row {seq}"));
            }
        }
        None
    }

    /// Equal buckets mean equal state once the network is quiet (invariant 1), but for what was set aside at one end.
    pub(super) fn check_quiet_records(&mut self) {
        let mut faults = Vec::new();
        for (at, node) in self.replicas.iter().enumerate().filter(|(_, node)| node.revoked_us.is_none()) {
            let Some(bridge) = node.dials.map(|bridge| &self.replicas[bridge]).filter(|_| !node.is_cut_off) else {
                continue;
            };
            let sets_aside = |end: &&Replica| !end.records.quarantined().is_empty();
            // What one that never reaches the bridge holds may be set aside at a neighbour.
            let is_on_the_way = |end: &&Replica| !node.has_way && !end.is_bridge();
            if [node, bridge].iter().any(sets_aside)
                || self.replicas.iter().filter(is_on_the_way).any(|end| sets_aside(&end))
            {
                continue;
            }
            let theirs = by_bucket(&self.to_be_equal(bridge));
            let here = by_bucket(&self.to_be_equal(node));
            let buckets: BTreeSet<BucketId> = theirs.keys().chain(here.keys()).copied().collect();
            for bucket in buckets.into_iter().filter(|&bucket| self.keeps(at, bucket) && self.keeps(0, bucket)) {
                let (mine, theirs) = (here.get(&bucket), theirs.get(&bucket));
                if mine != theirs {
                    let count = |records: Option<&Vec<Record>>| records.map_or(0, Vec::len);
                    let not_alike =
                        not_alike(mine, theirs).map_or_else(String::new, |key| format!("; {key:?} is not alike"));
                    let (mine, theirs) = (count(mine), count(theirs));
                    faults.push(format!(
                        "{bucket}: {mine} records at node {at}, {theirs} others at the bridge{not_alike}"
                    ));
                }
            }
        }
        for fault in faults {
            self.violate(1, &fault);
        }
    }

    /// What two replicas are to hold alike: where tombstones are forgotten, only what lives and is not held back, and did not come back with a card that
    /// passed for a new node: who has not forgotten its delete keeps to that.
    fn to_be_equal(&self, here: &Replica) -> Vec<Record> {
        let mut records = here.records.all();
        if self.has_leases() {
            let held_back = here.records.held_back();
            let is_known = |key: &RecordKey| held_back.contains(key) || self.passed_for_new.contains(key);
            records.retain(|record| !record.is_tombstone() && !is_known(&record.key));
        }
        records
    }

    /// Whether the replica is to hold the bucket in the end, with all that is in it.
    fn keeps(&self, at: usize, bucket: BucketId) -> bool {
        let here = &self.replicas[at];
        match bucket {
            BucketId::Site(_) if here.is_bridge() => !self.is_apart(bucket),
            _ => here.is_bridge() || here.scope.contains(bucket) && here.selection.wants(bucket),
        }
    }

    /// The site of a node that never reaches the bridge stays there; a stick may take something of it to the bridge all the same, and
    /// nothing that is written there comes back.
    fn is_apart(&self, bucket: BucketId) -> bool {
        let apart = |node: &Replica| bucket == BucketId::Site(node.node) && !node.has_way && !node.by_carrier;
        self.replicas.iter().any(apart)
    }

    /// Content that is sound somewhere and not everywhere where it is wanted.
    pub(super) fn blobs_missing(&self) -> Option<String> {
        let mut holders: BTreeMap<RecordKey, bool> = BTreeMap::new();
        let counts = |here: &Replica| here.revoked_us.is_none() && !here.is_cut_off;
        let welcome = || self.replicas.iter().enumerate().filter(|(_, replica)| counts(replica));
        let mut wanted = Vec::new();
        // A delete that only some have let in ends the way to the content.
        let mut undecided: BTreeSet<RecordKey> = self.held_back();
        for (at, here) in welcome() {
            undecided.extend(here.records.quarantined().into_iter().map(|record| record.key));
            let forgotten = self.forgotten(here);
            here.records.for_each(|record| {
                if record.key.kind != Blob::KIND {
                    return;
                }
                if record.is_tombstone() {
                    undecided.insert(record.key);
                }
                let Some(blob) = Blob::from_record(record).and_then(|blob| blob.hash) else { return };
                if forgotten.contains(&blob) {
                    undecided.insert(record.key);
                }
                let may_give = here.is_bridge() || here.scope.contains(record.key.bucket);
                let holds = here.blobs.is_sound(blob);
                let is_kept = here.selection.wants(record.key.bucket) && !here.blobs.is_on_demand(blob);
                *holders.entry(record.key).or_default() |= holds && may_give;
                // What rots after all faults ended is not looked for.
                if !holds && here.blobs.whole(blob).is_none() && is_kept {
                    wanted.push((at, record.key, blob));
                }
            });
        }
        let is_to_be_had = |key: &RecordKey| holders.get(key) == Some(&true) && !undecided.contains(key);
        let missing = wanted.into_iter().find(|(_, key, _)| is_to_be_had(key));
        missing.map(|(at, _, blob)| format!("replica {at} never got {blob}"))
    }

    /// How long it may take until everything is at rest, in microseconds (invariant 18): until all have noticed that links were cut
    /// and dialled again, and then what is missing at the rate of a link, with a round trip and the disks' time for each piece, one after the other.
    pub(super) fn rest_allowed_us(&self) -> u64 {
        let quality = Quality::GOOD;
        let trip_us = 2 * quality.latency_us + 4 * QUICK_DISK_US;
        let (mut bytes, mut pieces) = (0, 0);
        for here in &self.replicas {
            for record in here.records.all().into_iter().chain(here.records.quarantined()) {
                // Whoever does not hold it gets it by way of the bridge; who holds an older version sends that first.
                let copies = self.replicas.len() as u64;
                bytes += copies * record.encode().len() as u64;
                if let Some(blob) = Blob::from_record(&record)
                    && let Some(hash) = blob.hash
                    && here.blobs.whole(hash).is_none()
                {
                    bytes += 2 * blob.size_bytes;
                    pieces += 2 * CHUNKS_MAX.max(blob.size_bytes / CHUNK_BYTES_USUAL);
                }
            }
            pieces += BUCKETS_MAX;
        }
        let retry_us = 2 * ABSENT_RETRY_MS * 1000;
        // Who was away reads all in a session of its own, and looks through its records between two.
        // The same goes for who has begun a new life.
        let again = if self.has_leases() || self.has_cards() { 20 } else { 1 };
        let dial_us = IDLE_US + NOTICE_US + RESTART_US + again * REDIAL_US;
        let days_us = self.days_allowed_us(bytes);
        days_us + dial_us + retry_us + pieces * trip_us + 2 * bytes * 1_000_000 / quality.rate
    }

    /// One bad clock never delays another replica's edit beyond the bound (invariant 9): among replicas whose clocks were right all the
    /// time, on a bridge that is one of them, no stamp is further ahead than the bound, and every edit shows once the bound is over.
    pub(super) fn check_drift(&mut self) {
        let now_ms = self.true_unix_ms();
        let off_ms = self.replicas.iter().filter(|here| here.clock_is_right).map(|here| here.clock_off_ms).max();
        let latest_ms = now_ms + DRIFT_BOUND_MS + off_ms.unwrap_or_default() + 1;
        let mut faults = Vec::new();
        // A node that never reaches the bridge is at the mercy of its neighbours' clocks.
        let right = |at: &usize| {
            let here = &self.replicas[*at];
            here.clock_is_right && here.revoked_us.is_none() && here.has_way
        };
        let writers = (0..self.replicas.len()).filter(right).flat_map(|at| &self.replicas[at].written);
        let held_back = self.held_back();
        let edits: Vec<&Written> = writers.filter(|written| written.kept).collect();
        for at in (0..self.replicas.len()).filter(right) {
            let here = &self.replicas[at];
            for record in here.records.all() {
                let ahead_ms = record.newest_stamp().time.unix_ms().saturating_sub(latest_ms);
                if ahead_ms > 0 {
                    faults.push(format!("replica {at} shows {:?}, {ahead_ms} ms past the bound", record.key));
                }
            }
            let keeps = |bucket| here.scope.contains(bucket) && here.selection.wants(bucket);
            for edit in edits.iter().filter(|edit| here.is_bridge() || keeps(edit.record.key.bucket)) {
                let held = here.records.get(edit.record.key);
                let is_away =
                    held_back.contains(&edit.record.key) || self.may_be_forgotten(&edit.record, held.as_ref());
                if !shows(held.as_ref(), &edit.record) && !is_away {
                    faults.push(format!("replica {at} does not show an edit of {:?}", edit.record.key));
                }
            }
        }
        for fault in faults {
            self.violate(9, &fault);
        }
    }

    /// Two writes bear different stamps, else one of them is lost wherever they meet (invariant 2).
    fn check_stamps(&mut self) {
        let mut seen: BTreeMap<Stamp, (RecordKey, BTreeMap<FieldTag, Value>)> = BTreeMap::new();
        let mut fault = None;
        for record in self.replicas.iter().flat_map(|here| &here.written).map(|written| &written.record) {
            let stamp = record.newest_stamp();
            let Body::Live(fields) = &record.body else { continue };
            let fields = fields.iter().filter(|(_, field)| field.stamp == stamp);
            let values: BTreeMap<FieldTag, Value> = fields.map(|(tag, field)| (*tag, field.value.clone())).collect();
            let (key, before) = seen.entry(stamp).or_insert_with(|| (record.key, values.clone()));
            let agrees = |(tag, value)| before.get(tag).is_none_or(|before| before == value);
            if *key != record.key || !values.iter().all(agrees) {
                fault = Some(format!("two writes, of {:?} and {key:?}, bear one stamp", record.key));
            }
        }
        if let Some(fault) = fault {
            self.violate(2, &fault);
        }
    }

    /// What must hold once everything is quiet, by what people wrote.
    pub(super) fn check_end(&mut self) {
        let mut versions: BTreeMap<RecordKey, Vec<(Record, bool)>> = BTreeMap::new();
        for replica in &self.replicas {
            // What a revoked node wrote may have come through, or not.
            let counts = replica.revoked_us.is_none();
            for Written { record, kept, .. } in &replica.written {
                let comes_through = !(replica.is_bridge() && self.is_apart(record.key.bucket));
                versions.entry(record.key).or_default().push((record.clone(), *kept && counts && comes_through));
            }
        }
        let mut faults: Vec<(u8, String)> = Vec::new();
        let held_back = self.held_back();
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
                let held = replica.records.get(*key);
                if !self.keeps(at, key.bucket)
                    || replica.revoked_us.is_some()
                    || held_back.contains(key)
                    || kept.as_ref().is_some_and(|kept| self.may_be_forgotten(kept, held.as_ref()))
                {
                    continue;
                }
                if let Some(kept) = &kept {
                    if !keeps_unknown(held.as_ref(), kept) {
                        faults.push((10, format!("replica {at} has lost unknown fields of {key:?}")));
                    }
                    if !contains(held.as_ref(), kept) {
                        faults.push((2, format!("replica {at} does not show an acknowledged write of {key:?}")));
                    }
                }
                if held.is_some_and(|held| !contains(all.as_ref(), &held)) && !self.may_be_erased(*key) {
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
            self.check_cursors(replica, true);
        }
        self.check_stamps();
        self.check_erased();
        self.check_running();
    }
}

/// Whether the writes that `edit` made still stand, or gave way to later ones.
fn shows(held: Option<&Record>, edit: &Record) -> bool {
    let Some(held) = held else { return false };
    let (Body::Live(held), Body::Live(fields)) = (&held.body, &edit.body) else { return held.is_tombstone() };
    let stamp = edit.newest_stamp();
    let written = fields.iter().filter(|(_, field)| field.stamp == stamp);
    written.into_iter().all(|(tag, field)| match tag.rule() {
        MergeRule::Lww => held.get(tag).is_some_and(|held| held.stamp >= field.stamp),
        MergeRule::Max => held.contains_key(tag),
    })
}

fn by_bucket(records: &[Record]) -> BTreeMap<BucketId, Vec<Record>> {
    let mut buckets: BTreeMap<BucketId, Vec<Record>> = BTreeMap::new();
    for record in records {
        buckets.entry(record.key.bucket).or_default().push(record.clone());
    }
    buckets
}

/// A record that one has, and the other has not, or not so.
fn not_alike(mine: Option<&Vec<Record>>, theirs: Option<&Vec<Record>>) -> Option<RecordKey> {
    let [mine, theirs] = [mine, theirs].map(|records| records.map_or(&[][..], Vec::as_slice));
    let only =
        |here: &[Record], there: &[Record]| here.iter().find(|record| !there.contains(record)).map(|record| record.key);
    only(mine, theirs).or_else(|| only(theirs, mine))
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
