//! Leases in the store in memory: what `absence` decides, each step in one batch.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Sabotage;
use super::records::{Change, Inner, SimRecords};
use crate::absence::{
    Mark, Marks, Standing, Unconfirmed, Verdict, has_come, in_step_once_met, is_forgettable, is_set_aside,
};
use crate::domain::{Erasure, ErasureReceipt, Typed};
use crate::id::{BucketId, Incarnation, NodeId, Seq};
use crate::merge::Admission;
use crate::record::{Record, RecordKey};
use crate::store::{BucketHead, Peer};

/// The life of a store that was never restored.
pub(super) const FIRST_LIFE: Incarnation = Incarnation(1);

/// Records that one step of the sweep looks at.
const SWEPT_AT_ONCE: usize = 40;

/// A replica of a fleet with leases.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// Its bridge; `None` for the bridge itself.
    pub bridge: Option<NodeId>,
    /// How long a lease is, in milliseconds.
    pub lease_ms: u64,
    /// Whether it keeps all collections.
    pub keeps_all: bool,
}

/// Whether there are leases, and the clock of the bridge's store.
#[derive(Debug, Default)]
pub(super) struct Leased {
    lease: Mutex<Option<Lease>>,
    store_ms: AtomicU64,
}

impl Leased {
    pub(super) fn get(&self) -> Option<Lease> {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is durable of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Absence {
    times: Option<Times>,
    state: Option<State>,
    pub(super) confirmed: BTreeSet<RecordKey>,
    pub(super) held_back: BTreeSet<RecordKey>,
    sent: BTreeMap<BucketId, Seq>,
    marks: BTreeMap<BucketId, Marks>,
    met: bool,
    /// Something was given away before that.
    given: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    in_step_ms: u64,
    in_step_nearby_ms: u64,
    collected_ms: u64,
    /// Whether all was read of one who is in step.
    is_caught_up: bool,
}

impl Times {
    /// Those of one that has what it made, or what one other gave, as of this time.
    fn as_of(at_ms: u64) -> Self {
        Self { in_step_ms: at_ms, in_step_nearby_ms: at_ms, ..Self::default() }
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// What is confirmed is so as of this time or later.
    Reading {
        since_ms: u64,
    },
    Sweeping {
        bridge: Peer,
        in_step_ms: u64,
        place: Option<RecordKey>,
    },
}

impl State {
    /// Nothing was read yet.
    const READING: Self = Self::Reading { since_ms: u64::MAX };
}

impl Absence {
    /// In a new life, reading all anew begins again.
    pub(super) fn begin_again(&self) -> Option<Self> {
        let again = Self { state: Some(State::READING), confirmed: BTreeSet::new(), ..self.clone() };
        self.reads_anew().then_some(again)
    }

    pub(super) fn reads_anew(&self) -> bool {
        self.state.is_some()
    }

    /// Nothing is known of when what is here lived.
    pub(super) fn out_of_step(&self) -> Self {
        let collected_ms = self.times.unwrap_or_default().collected_ms;
        Self { times: Some(Times { collected_ms, ..Times::default() }), ..self.clone() }
    }
}

impl SimRecords {
    /// From now on there are leases.
    pub fn take_lease(&self, lease: Lease) {
        *self.leased.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease);
    }

    /// What the clock of the bridge's store shows.
    pub fn set_store_time(&self, unix_ms: u64) {
        self.leased.store_ms.store(unix_ms, Ordering::Relaxed);
    }

    /// How this replica stands, for its bridge or for other nodes; `None` where there are no leases.
    pub fn standing(&self, to_bridge: bool) -> Option<Standing> {
        let lease = self.leased.get()?;
        let inner = self.lock();
        let absence = &inner.tables.absence;
        let times = absence.times.unwrap_or_default();
        let collected_ms = if inner.sabotage == Some(Sabotage::TombstonesGoTooEarly) { 0 } else { times.collected_ms };
        let in_step_ms = match lease.bridge {
            None => self.leased.store_ms.load(Ordering::Relaxed),
            Some(_) if inner.is_fresh() => Standing::FRESH.in_step_ms,
            Some(_) if inner.sabotage == Some(Sabotage::WhoWasAwayGivesAll) => Standing::FRESH.in_step_ms,
            Some(_) if to_bridge => times.in_step_ms,
            Some(_) => times.in_step_nearby_ms,
        };
        let has_read_all = lease.bridge.is_none() || times.is_caught_up || in_step_ms == Standing::FRESH.in_step_ms;
        let keeps_all = lease.keeps_all && has_read_all && !absence.reads_anew();
        Some(Standing { in_step_ms, collected_ms, keeps_all })
    }

    /// Whether it would tell its bridge that nothing came from anybody yet, and that nothing was given to anybody.
    pub(in crate::sim) fn is_fresh(&self) -> bool {
        self.leased.get().is_some_and(|lease| lease.bridge.is_some()) && self.lock().is_fresh()
    }

    /// Whether everything is being read anew.
    pub fn reads_anew(&self) -> bool {
        self.lock().tables.absence.reads_anew()
    }

    /// Records that are held back.
    pub fn held_back(&self) -> BTreeSet<RecordKey> {
        self.lock().tables.absence.held_back.clone()
    }

    /// Whether any record is held back.
    pub(in crate::sim) fn holds_back(&self) -> bool {
        !self.lock().tables.absence.held_back.is_empty()
    }

    /// Takes a step of the sweep, if one is due, and says whether nothing is left to be swept. Of buckets that are not read nothing
    /// is known.
    pub(in crate::sim) fn sweep_some(&self, is_read: impl Fn(BucketId) -> bool) -> bool {
        let mut inner = self.lock();
        let mut absence = inner.tables.absence.clone();
        let Some(State::Sweeping { bridge, in_step_ms, place }) = absence.state else { return true };
        let after = |key: &RecordKey| place.is_none_or(|place| *key > place);
        let keys: Vec<RecordKey> = inner.tables.records.keys().copied().filter(after).take(SWEPT_AT_ONCE).collect();
        let mut changes = Vec::new();
        for &key in &keys {
            if absence.confirmed.remove(&key) || [Erasure::KIND, ErasureReceipt::KIND].contains(&key.kind) {
                continue;
            }
            let row = &inner.tables.records[&key];
            let sent = absence.sent.get(&key.bucket).copied().unwrap_or_default();
            let came_from_bridge = row.origin == Some(bridge);
            let bridge_had_it = came_from_bridge || row.seq <= sent;
            let is_held_back = absence.held_back.contains(&key);
            let is_set_aside = is_set_aside(&row.record, in_step_ms);
            let unconfirmed = Unconfirmed { bridge_had_it, is_held_back, is_read: is_read(key.bucket), is_set_aside };
            match unconfirmed.verdict() {
                Verdict::Forget => {
                    let is_aside = inner.tables.quarantine.iter().any(|aside| aside.key == key);
                    match (is_aside, row.record.is_tombstone()) {
                        // It meets what may be let in later.
                        (true, true) => continue,
                        (true, false) => drop(absence.held_back.insert(key)),
                        (false, _) => {}
                    }
                    changes.push(Change::Forget(key));
                }
                Verdict::HoldBack => {
                    changes.push(Change::Withhold);
                    absence.held_back.insert(key);
                }
            }
        }
        let is_done = keys.len() < SWEPT_AT_ONCE;
        absence.state = Some(State::Sweeping { bridge, in_step_ms, place: keys.last().copied().or(place) });
        if is_done {
            let collected_ms = absence.times.unwrap_or_default().collected_ms;
            absence.times = Some(Times { collected_ms, is_caught_up: true, ..Times::as_of(in_step_ms) });
            (absence.state, absence.confirmed, absence.sent) = (None, BTreeSet::new(), BTreeMap::new());
        }
        changes.push(Change::Absence(Box::new(absence)));
        inner.commit(changes);
        is_done
    }

    /// Forgets tombstones that may be forgotten, and says how many.
    pub fn collect_tombstones(&self) -> usize {
        let Some(lease) = self.leased.get() else { return 0 };
        let now_ms = self.leased.store_ms.load(Ordering::Relaxed);
        let mut inner = self.lock();
        let mut absence = inner.tables.absence.clone();
        if absence.reads_anew() || inner.full {
            return 0;
        }
        let heads: Vec<BucketHead> = inner.heads();
        let collected_ms = match lease.bridge {
            None if inner.sabotage == Some(Sabotage::TombstonesGoTooEarly) => now_ms,
            None => now_ms.saturating_sub(lease.lease_ms),
            Some(_) => absence.times.unwrap_or_default().collected_ms,
        };
        let until: BTreeMap<BucketId, Seq> = if lease.bridge.is_none() {
            for head in &heads {
                absence.marks.entry(head.bucket).or_default().note(Mark { at_ms: now_ms, head: head.head });
            }
            absence.marks.iter().map(|(&bucket, marks)| (bucket, marks.head_at(collected_ms))).collect()
        } else {
            let had = |marks: &Marks| {
                let until: Vec<&Mark> = marks.kept().iter().filter(|mark| mark.at_ms <= collected_ms).collect();
                until.len().checked_sub(2).map_or(Seq::default(), |at| until[at].head)
            };
            absence.marks.iter().map(|(&bucket, marks)| (bucket, had(marks))).collect()
        };
        let is_old = |key: &RecordKey, seq: Seq| until.get(&key.bucket).is_some_and(|&until| seq <= until);
        let erased = inner.erased();
        let old: Vec<Change> = inner
            .tables
            .records
            .iter()
            .filter(|(key, row)| is_forgettable(&row.record) && is_old(key, row.seq))
            .filter(|(_, row)| lease.bridge.is_none() || has_come(&row.record, collected_ms))
            .filter(|(key, _)| !inner.tables.quarantine.iter().any(|aside| aside.key == **key))
            .filter(|(key, _)| !absence.held_back.contains(key) && !erased.contains(key))
            .map(|(&key, _)| Change::Forget(key))
            .collect();
        let count = old.len();
        if lease.bridge.is_none() && !old.is_empty() {
            let mut times = absence.times.unwrap_or_default();
            times.collected_ms = times.collected_ms.max(collected_ms);
            absence.times = Some(times);
        }
        // First it is durable how far, then they go.
        inner.commit(vec![Change::Absence(Box::new(absence))]);
        inner.commit(old);
        count
    }

    /// Whether it has met nobody, and gave nothing away.
    pub(super) fn knows_nobody(&self) -> bool {
        self.is_fresh() && !self.lock().tables.absence.given
    }

    pub(super) fn note_given_away(&self, at_ms: Option<u64>) {
        if self.leased.get().is_none_or(|lease| lease.bridge.is_none()) {
            return;
        }
        let mut inner = self.lock();
        if !inner.is_fresh() {
            return;
        }
        let absence = Absence { times: at_ms.map(Times::as_of), given: true, ..inner.tables.absence.clone() };
        inner.commit(vec![Change::Absence(Box::new(absence))]);
    }

    pub(super) fn note_standing(&self, peer: Peer, theirs: Standing) {
        let Some(Lease { bridge: Some(bridge), .. }) = self.leased.get() else { return };
        let mut inner = self.lock();
        let mut absence = inner.tables.absence.clone();
        let is_bridge = peer.node == bridge;
        let mut now = absence.times.unwrap_or_default();
        if inner.is_fresh() {
            let in_step_ms = if theirs.in_step_ms == Standing::FRESH.in_step_ms { 0 } else { theirs.in_step_ms };
            now = Times::as_of(in_step_ms);
        } else if theirs.in_step_ms >= now.collected_ms {
            for in_step_ms in [&mut now.in_step_ms, &mut now.in_step_nearby_ms] {
                *in_step_ms = in_step_once_met(*in_step_ms, now.is_caught_up, theirs, is_bridge);
            }
        }
        absence.met = true;
        let in_step_ms = if is_bridge { now.in_step_ms } else { now.in_step_nearby_ms };
        let lapsed = in_step_ms < theirs.collected_ms;
        if is_bridge || !lapsed {
            now.collected_ms = now.collected_ms.max(theirs.collected_ms);
        }
        absence.times = Some(now);
        let mut changes = Vec::new();
        let begins = match absence.state {
            None => lapsed && inner.sabotage != Some(Sabotage::WhoWasAwayGivesAll),
            // What was confirmed may have been deleted since, and that forgotten.
            Some(State::Reading { since_ms }) => since_ms < theirs.collected_ms,
            Some(State::Sweeping { .. }) => false,
        };
        if is_bridge && begins {
            absence.state = Some(State::READING);
            absence.sent.clear();
            absence.confirmed.clear();
            changes.push(Change::ForgetAllCursors);
        }
        if is_bridge && let Some(State::Reading { since_ms }) = &mut absence.state {
            *since_ms = theirs.in_step_ms.min(*since_ms);
        }
        changes.push(Change::Absence(Box::new(absence)));
        inner.commit(changes);
    }

    pub(super) fn note_caught_up(&self, with: Peer, theirs: Standing, has: Option<&[BucketHead]>) {
        let Some(Lease { bridge: Some(bridge), .. }) = self.leased.get() else { return };
        let mut inner = self.lock();
        let mut absence = inner.tables.absence.clone();
        let is_bridge = with.node == bridge;
        if absence.reads_anew() {
            if let Some(has) = has.filter(|_| is_bridge && matches!(absence.state, Some(State::Reading { .. }))) {
                absence.sent = has.iter().map(|head| (head.bucket, head.head)).collect();
                let in_step_ms = theirs.in_step_ms;
                absence.state = Some(State::Sweeping { bridge: with, in_step_ms, place: None });
                let aside = inner.tables.quarantine.iter().map(|record| record.key);
                let known = |key: &RecordKey| absence.confirmed.contains(key) || inner.tables.records.contains_key(key);
                let unknown: Vec<RecordKey> = aside.filter(|key| !known(key)).collect();
                absence.held_back.extend(unknown);
                inner.commit(vec![Change::Absence(Box::new(absence))]);
            }
            return;
        }
        if is_bridge {
            for head in has.unwrap_or_default().iter().filter(|head| head.head > Seq::default()) {
                let marks = absence.marks.entry(head.bucket).or_default();
                marks.note(Mark { at_ms: theirs.in_step_ms, head: head.head });
            }
        }
        let counts = (is_bridge || theirs.keeps_all) && theirs.in_step_ms != Standing::FRESH.in_step_ms;
        if counts && !inner.tables.quarantine.iter().any(Record::is_tombstone) {
            let mut now = absence.times.unwrap_or_default();
            // Of one to whom nothing may be given from here it does not tell what was deleted.
            if now.in_step_nearby_ms >= theirs.collected_ms {
                now.in_step_nearby_ms = now.in_step_nearby_ms.max(theirs.in_step_ms);
                now.is_caught_up = true;
            }
            if is_bridge {
                now.in_step_ms = now.in_step_ms.max(theirs.in_step_ms);
            }
            absence.times = Some(now);
        }
        inner.commit(vec![Change::Absence(Box::new(absence))]);
    }
}

impl Inner {
    /// Whether nothing came from anybody yet, and nothing was given to anybody. Who was restored does not know what it gave
    /// in its other life, though nothing had come when the copy was made.
    fn is_fresh(&self) -> bool {
        let absence = &self.tables.absence;
        absence.times.is_none() && !absence.met && self.tables.incarnation == FIRST_LIFE
    }

    /// Whether a page of a peer may be taken, and what follows for its records.
    pub(super) fn take_page(
        &self,
        lease: Option<Lease>,
        from: NodeId,
        records: &[Record],
        changes: &mut Vec<Change>,
    ) -> bool {
        let absence = &self.tables.absence;
        let is_bridge = lease.and_then(|lease| lease.bridge) == Some(from);
        match absence.state {
            None => {}
            Some(State::Reading { .. }) if is_bridge => {
                changes.extend(records.iter().map(|record| Change::Confirm(record.key)));
            }
            Some(_) => return false,
        }
        true
    }

    /// Whether a delete that the bridge sends while all is read anew is set aside here, where its record lives: from then on it is not known here
    /// what the bridge had deleted.
    pub(super) fn deletes_unseen(&self, set_aside: &Record, held: Option<&Record>) -> bool {
        self.tables.absence.reads_anew() && set_aside.is_tombstone() && held.is_some_and(|held| !held.is_tombstone())
    }

    /// Another replica has a version of a record: it lives elsewhere, so the two are joined as ever, and what is more in the one here goes
    /// on from here. Cursors have passed its row while it was held back, so it gets a new one. A delete that is set aside tells of nothing that
    /// lives.
    pub(super) fn hold_back_no_longer(
        &self,
        received: &Record,
        held: Option<&Record>,
        (admission, from): (&Admission, Option<Peer>),
        changes: &mut Vec<Change>,
    ) {
        let key = received.key;
        if !self.tables.absence.held_back.contains(&key) {
            return;
        }
        if received.is_tombstone() && matches!(admission, Admission::Quarantine(_)) {
            return;
        }
        // Whoever sends it may not have had the delete yet that is set aside here.
        let deletes = |aside: &Record| aside.key == key && aside.is_tombstone();
        if self.tables.quarantine.iter().any(deletes) {
            return;
        }
        changes.push(Change::NoLongerHeldBack(key));
        let equals_received = match admission {
            Admission::Superseded { equals_received } => *equals_received,
            // What is set aside is joined later.
            Admission::Buried | Admission::Quarantine(_) => false,
            Admission::Apply { .. } => return,
        };
        if let Some(held) = held {
            let (bytes, origin) = (held.encode().into(), from.filter(|_| equals_received));
            changes.push(Change::Put { bucket: key.bucket, bytes, origin });
        }
    }
}
