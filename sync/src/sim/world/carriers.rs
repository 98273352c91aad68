//! What is carried: somebody exports a bundle onto a stick, walks for hours or weeks, loses some of it or not, and imports it
//! elsewhere; the receipt goes home, or is lost. A node that never meets a link lives by this alone.
//!
//! Bundles here are not signed; `suite/bundles` sees to that.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use futures::FutureExt as _;

use super::{Happening, World};
use crate::absence::may_give;
use crate::bundle::{self, Ending, Export, ImportError, Issuer, OpenError, Reader, Receipt, Receiver};
use crate::chunk::BlobHash;
use crate::hlc::{ClockQuality, DRIFT_BOUND_MS};
use crate::id::{BucketId, NodeId, Seq};
use crate::identity::PeerRole;
use crate::merge::ReceiverClock;
use crate::session::{Input, Scope, Selection};
use crate::sim::Sabotage;
use crate::sim::plan::{Carried, Damage};
use crate::store::{BucketHead, Peer, RecordStore as _};
use crate::wire::Hello;

/// Small, so that small worlds have many segments.
const SEGMENT_BYTES: usize = 2_000;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Where nobody is at home the carrier comes again after this.
const COME_AGAIN_US: u64 = 20_000_000;
/// In the end sticks go on being carried at once, one way, until they bring nothing, at most so often.
const TRIES_MAX: usize = 3;

/// A stick on its way.
#[derive(Debug)]
pub(super) struct Stick {
    from: usize,
    to: usize,
    what: OnStick,
    /// When the receipt is to be home, if ever.
    back_us: Option<u64>,
    damage: Damage,
}

#[derive(Debug)]
enum OnStick {
    Bundle { bytes: Vec<u8>, records: u64 },
    Receipt(Vec<u8>),
}

/// What came of an import.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Taken {
    /// It changed something.
    News,
    Nothing,
    /// A clock, or an absence, stands in the way.
    RefusedForTheTime,
    /// It was made for another than the one that is here now.
    RefusedForItsReader,
    /// The power went, the disk is full, or nothing of it could be read.
    Lost,
}

impl World<'_> {
    /// Somebody sets out with a stick.
    pub(super) fn set_out(&mut self, from: usize, carried: Carried) {
        let Carried { to, for_us, back_us, damage, good_for_days } = carried;
        let is_revoked = [from, to].iter().any(|&end| self.replicas[end].revoked_us.is_some());
        if from == to || is_revoked || self.replicas[from].records.reads_anew() {
            return;
        }
        // What it gives would not be noted: nobody knows when (docs/adr/0013-long-absence.md, the gap that stays).
        if self.replicas[from].records.is_fresh() && self.look_at_clock(from).1 == ClockQuality::Untrusted {
            return;
        }
        self.note_who_passes_for_new(from, None);
        self.figures.bundles += 1;
        let (bytes, records) = self.export(from, to, good_for_days);
        let what = OnStick::Bundle { bytes, records };
        self.carry(for_us, Stick { from, to, what, back_us, damage });
    }

    fn carry(&mut self, for_us: u64, stick: Stick) {
        self.serial += 1;
        let number = self.serial;
        self.sticks.insert(number, stick);
        self.schedule(for_us, Happening::StickArrives { stick: number });
    }

    /// The last who are still on their way arrive.
    pub(super) fn all_sticks_arrive(&mut self) {
        self.heap.retain(|_, happening| !matches!(happening, Happening::StickArrives { .. }));
        let numbers: Vec<u64> = self.sticks.keys().copied().collect();
        for stick in numbers {
            // Power cuts are over, too.
            if let Some(Stick { damage, .. }) = self.sticks.get_mut(&stick).filter(|s| s.damage == Damage::PowerCut) {
                *damage = Damage::None;
            }
            let after = self.rng.below(COME_AGAIN_US);
            self.schedule(after, Happening::StickArrives { stick });
        }
    }

    pub(super) fn stick_arrives(&mut self, number: u64) {
        let Some(stick) = self.sticks.get(&number) else { return };
        if !self.replicas[stick.to].up || !self.replicas[stick.from].up {
            self.schedule(COME_AGAIN_US, Happening::StickArrives { stick: number });
            return;
        }
        let Some(Stick { from, to, what, back_us, damage }) = self.sticks.remove(&number) else { return };
        if [from, to].iter().any(|&end| self.replicas[end].revoked_us.is_some()) {
            return;
        }
        match what {
            OnStick::Bundle { bytes, records } => {
                self.import(from, to, (&bytes, records), damage);
                let Some(back_us) = back_us.filter(|_| self.replicas[to].up) else { return };
                let what = OnStick::Receipt(self.receipt(from, to));
                // Nobody walks for weeks once faults are over.
                let back_us = if self.healed { back_us.min(COME_AGAIN_US) } else { back_us };
                self.carry(back_us, Stick { from: to, to: from, what, back_us: None, damage: Damage::None });
            }
            OnStick::Receipt(bytes) => self.take_receipt(to, from, &bytes),
        }
    }

    fn hello(&self, replica: usize, peer: usize) -> Hello {
        let (unix_ms, clock_quality) = self.look_at_clock(replica);
        self.hello_at(replica, peer, true, unix_ms, clock_quality)
    }

    /// What may be carried from one to the other.
    fn scope_of_stick(&self, from: usize, to: usize) -> Scope {
        match [from, to].map(|end| &self.replicas[end]) {
            [bridge, node] | [node, bridge] if bridge.is_bridge() => node.scope.clone(),
            [_, to] => Scope { collections: to.scope.collections.clone(), ..Scope::between_nodes() },
        }
    }

    fn export(&mut self, from: usize, to: usize, good_for_days: u64) -> (Vec<u8>, u64) {
        let hello = self.hello(from, to);
        let scope = self.scope_of_stick(from, to);
        let here = &self.replicas[from];
        let heads = now(here.records.heads()).expect("heads need no room");
        let buckets: Vec<BucketHead> = heads.into_iter().filter(|head| scope.contains(head.bucket)).collect();
        let reader = here.receipts.get(&to).map(|receipt| Reader {
            node: self.replicas[to].node,
            life: Some(receipt.reader()),
            receipt: Some(receipt.clone()),
        });
        let what = Export {
            hello: &hello,
            validity_ms: good_for_days * DAY_MS,
            signer: None,
            buckets: &buckets,
            reader: reader.as_ref(),
            content: true,
            max_bytes: None,
            segment_bytes: SEGMENT_BYTES,
        };
        let mut progress = |_| ControlFlow::Continue(());
        let written = now(bundle::export(what, &*here.records, &*here.blobs, Vec::new(), &mut progress));
        let (bytes, exported) = written.expect("a stick has room");
        if self.sabotage == Some(Sabotage::ReceiptsAreMadeUp) {
            let issuer = Issuer { hello: self.hello(to, from), role: PeerRole::Node, vouched: false };
            let cursors = buckets.iter().map(|head| (head.bucket, head.head)).collect();
            let exporter = Peer { node: hello.node, epoch: hello.epoch };
            let receipt = Receipt { issuer, exporter, cursors, lacks: [].into(), lacks_more: false };
            self.replicas[from].receipts.insert(to, receipt);
        }
        if self.replicas[from].blobs.take_damage_found() {
            self.tell_all(from, || Input::WantsChanged);
        }
        (bytes, exported.records)
    }

    fn receiver_clock(&self, replica: usize) -> ReceiverClock {
        let (unix_ms, quality) = self.look_at_clock(replica);
        ReceiverClock { unix_ms, quality, drift_bound_ms: DRIFT_BOUND_MS }
    }

    fn import(&mut self, from: usize, to: usize, (whole, records): (&[u8], u64), damage: Damage) -> Taken {
        if self.replicas[to].records.reads_anew() {
            self.figures.refused_bundles += 1;
            return Taken::RefusedForTheTime;
        }
        let mut bytes = whole.to_vec();
        let mut stops_after = u64::MAX;
        match damage {
            Damage::None => {}
            Damage::Cut => bytes.truncate(self.rng.below(whole.len() as u64) as usize),
            Damage::Changed => {
                let at = self.rng.below(whole.len() as u64) as usize;
                bytes[at] ^= 1 << self.rng.below(8);
            }
            Damage::PowerCut => stops_after = self.rng.below(whole.len() as u64),
        }
        let clock = self.receiver_clock(to);
        let (here, exporter) = (&self.replicas[to], self.replicas[from].node);
        let before = here.blobs.whole_blobs();
        let accepts = accepts(self.scope_of_stick(from, to), here.node, here.is_bridge(), exporter);
        let receiver = Receiver {
            local: Peer { node: here.node, epoch: here.records.epoch() },
            clock,
            identity: None,
            unsigned: true,
            accepts: &accepts,
            selection: &here.selection,
            standing: here.records.standing(true).unwrap_or_default(),
        };
        // No bundle can read all anew.
        if bundle::issuer(&receiver, &*bytes).is_ok_and(|issuer| self.has_lapsed(to, from, &issuer)) {
            self.figures.refused_bundles += 1;
            return Taken::RefusedForTheTime;
        }
        let mut progress = |progress: bundle::Progress| {
            if progress.bytes > stops_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let imported = now(bundle::import(&receiver, &*bytes, &*here.records, &*here.blobs, &mut progress));
        let taken = match imported {
            Ok(imported) => {
                let applied = imported.applied;
                let sum = u64::from(applied.applied) + u64::from(applied.superseded) + u64::from(applied.quarantined);
                self.figures.carried += sum;
                self.figures.quarantined += u64::from(applied.quarantined);
                let is_whole = imported.ending == Ending::Whole && !imported.full;
                if is_whole && imported.refused.is_empty() && sum != records {
                    self.violate(8, &format!("of {records} records in a bundle {sum} are accounted for"));
                }
                if is_whole && bytes != whole {
                    self.violate(0, "a bundle was changed on its way, and nobody noticed");
                }
                self.figures.damaged += u64::from(imported.ending != Ending::Whole);
                if applied.applied > 0 || imported.blobs > 0 { Taken::News } else { Taken::Nothing }
            }
            Err(ImportError::Open(
                OpenError::Expired { .. } | OpenError::FromTheFuture { .. } | OpenError::Lapsed { .. },
            )) => {
                self.figures.refused_bundles += 1;
                Taken::RefusedForTheTime
            }
            Err(ImportError::Open(OpenError::ForAnotherLife | OpenError::ForAnother { .. })) => {
                self.figures.refused_bundles += 1;
                Taken::RefusedForItsReader
            }
            Err(ImportError::SetBack) => {
                self.begin_new_life(to);
                Taken::RefusedForItsReader
            }
            Err(ImportError::Open(error)) => {
                if damage == Damage::None {
                    self.violate(0, &format!("an honest bundle was refused: {error}"));
                }
                Taken::Lost
            }
            Err(ImportError::Store(_)) => {
                self.figures.store_failures += 1;
                Taken::Lost
            }
            Err(ImportError::Stopped) => {
                self.crash(to);
                return Taken::Lost;
            }
            Err(error @ ImportError::Io(_)) => {
                self.violate(0, &format!("memory cannot be read: {error}"));
                Taken::Lost
            }
        };
        self.tell_of_import(to, &before);
        taken
    }

    /// Whether a bundle of the bridge would begin to read all anew.
    fn has_lapsed(&self, node: usize, exporter: usize, issuer: &Issuer) -> bool {
        let theirs = issuer.hello.standing.unwrap_or_default();
        self.replicas[exporter].is_bridge()
            && self.replicas[node].records.standing(true).is_some_and(|mine| !may_give(mine, theirs))
    }

    /// Sessions hear of what has come by another way, as they do of what people write.
    fn tell_of_import(&mut self, to: usize, before: &[BlobHash]) {
        self.note_written();
        let heads = now(self.replicas[to].records.heads()).expect("heads need no room");
        for bucket in heads.into_iter().map(|head| head.bucket) {
            self.tell_all(to, || Input::LocalChange(bucket));
        }
        self.tell_all(to, || Input::WantsChanged);
        for blob in self.replicas[to].blobs.whole_blobs() {
            if !before.contains(&blob) {
                self.tell_all(to, || Input::BlobCompleted(blob));
            }
        }
        self.replay_later(to);
        self.forget_later(to);
        self.check_running();
    }

    /// What `to` says that it has of `from`'s feeds.
    fn receipt(&self, from: usize, to: usize) -> Vec<u8> {
        let here = &self.replicas[to];
        let exporter = Peer { node: self.replicas[from].node, epoch: self.replicas[from].records.epoch() };
        let receipt = now(Receipt::gather(self.hello(to, from), exporter, &*here.records, &*here.blobs));
        let receipt = receipt.expect("reading needs no room");
        receipt.write(None, Vec::new()).expect("memory takes it")
    }

    fn take_receipt(&mut self, exporter: usize, reader: usize, bytes: &[u8]) {
        let clock = self.receiver_clock(exporter);
        let here = &self.replicas[exporter];
        let receiver = Receiver {
            local: Peer { node: here.node, epoch: here.records.epoch() },
            clock,
            identity: None,
            unsigned: true,
            accepts: &|_, _| true,
            selection: &Selection::default(),
            standing: here.records.standing(true).unwrap_or_default(),
        };
        let Ok(receipt) = Receipt::read(&receiver, bytes) else { return };
        let Hello { node, remembered, .. } = receipt.issuer.hello.clone();
        if !now(here.records.recall(node, remembered)).expect("it needs no room") {
            return self.begin_new_life(exporter);
        }
        self.figures.receipts_home += 1;
        let kept = self.replicas[exporter].receipts.get(&reader);
        if kept.is_none_or(|kept| receipt.is_no_older_than(kept)) {
            self.replicas[exporter].receipts.insert(reader, receipt);
        }
    }

    /// Sticks go both ways between those who have nothing else, for as long as they bring something. Whether they do not.
    pub(super) fn sticks_bring_nothing(&mut self) -> bool {
        let mut brings_nothing = true;
        for node in 0..self.replicas.len() {
            let here = &self.replicas[node];
            let Some(bridge) = here.dials.filter(|_| here.by_carrier) else { continue };
            if [node, bridge].iter().any(|&end| self.replicas[end].revoked_us.is_some() || !self.replicas[end].up) {
                continue;
            }
            self.replicas[node].is_cut_off = false;
            for (from, to) in [(node, bridge), (bridge, node)] {
                brings_nothing &= !self.go_once(from, to);
            }
        }
        brings_nothing
    }

    /// How far a reader has said that it is, and what content it lacks up to there.
    fn said(&self, exporter: usize, reader: usize) -> Option<(BTreeMap<BucketId, Seq>, BTreeSet<BlobHash>)> {
        let receipt = self.replicas[exporter].receipts.get(&reader)?;
        Some((receipt.cursors.clone(), receipt.lacks.clone()))
    }

    /// One stick, at once, with its receipt. Whether it has brought anything.
    fn go_once(&mut self, from: usize, to: usize) -> bool {
        for _ in 0..TRIES_MAX {
            self.figures.bundles += 1;
            let (bytes, records) = self.export(from, to, 1);
            match self.import(from, to, (&bytes, records), Damage::None) {
                // The next one is for anyone.
                Taken::RefusedForItsReader => {
                    self.replicas[from].receipts.remove(&to);
                }
                Taken::RefusedForTheTime => {
                    let node = if self.replicas[from].is_bridge() { to } else { from };
                    self.replicas[node].is_cut_off = true;
                    return false;
                }
                taken => {
                    let said = self.said(from, to);
                    if self.sabotage != Some(Sabotage::ReceiptsAreMadeUp) {
                        let receipt = self.receipt(from, to);
                        self.take_receipt(from, to, &receipt);
                    }
                    // What the receipt asks for now, the next one brings.
                    return taken == Taken::News || self.said(from, to) != said;
                }
            }
        }
        false
    }
}

/// A replica takes what is in scope; a site only from its bridge, or, at the bridge, from the node whose it is.
fn accepts(scope: Scope, here: NodeId, is_bridge: bool, exporter: NodeId) -> impl Fn(&Issuer, BucketId) -> bool + Sync {
    move |issuer, bucket| {
        let is_mine = |site| if is_bridge { site == exporter } else { site == here };
        let is_for_here = !matches!(bucket, BucketId::Site(site) if !is_mine(site));
        issuer.hello.node == exporter && is_for_here && scope.contains(bucket)
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the stores in memory never wait")
}

/// What every exporter keeps of its readers.
pub(in crate::sim) type Receipts = BTreeMap<usize, Receipt>;
