//! Worlds with leases: nodes stay away for longer than theirs, tombstones are forgotten, and what may be missing for that
//! reason is told from what is lost.

use std::collections::BTreeSet;

use super::World;
use crate::id::NodeId;
use crate::record::{Record, RecordKey};
use crate::session::Input;
use crate::sim::absence::Lease;
use crate::sim::replica::{Conversation, Replica};
use crate::store::RecordStore as _;
use crate::wire::CloseReason;

/// Sessions are begun anew after this.
const SESSION_US: u64 = 24 * 3600 * 1_000_000;

impl World<'_> {
    pub(super) fn give_leases(&self) {
        let Some(lease_ms) = self.plan.lease_ms else { return };
        for here in &self.replicas {
            let bridge = here.dials.map(|bridge| self.replicas[bridge].node);
            let keeps_all = here.scope.collections == crate::session::Collections::All;
            here.records.take_lease(Lease { bridge, lease_ms, keeps_all });
        }
    }

    pub(in crate::sim) fn has_leases(&self) -> bool {
        self.plan.lease_ms.is_some()
    }

    /// A node is away for a time; people go on there.
    pub(super) fn go_away(&mut self, replica: usize, for_us: u64) {
        let here = &mut self.replicas[replica];
        here.away_until_us = here.away_until_us.max(self.now_us + for_us);
        let peers: Vec<u64> = here.conversations.values().map(|conversation| conversation.connection).collect();
        for connection in peers {
            self.cut(connection);
        }
    }

    /// What hosts do between sessions. Whether the two may open one now.
    pub(super) fn prepare_session(&mut self, node: usize, peer: usize) -> bool {
        if !self.has_leases() {
            return true;
        }
        for replica in [node, peer] {
            self.look_at_clock(replica);
            self.figures.tombstones_forgotten += self.replicas[replica].records.collect_tombstones() as u64;
        }
        if self.healed {
            self.end_sessions_of_lapsed();
        }
        let is_bridge = self.replicas[peer].is_bridge();
        if !is_bridge {
            return ![node, peer].iter().any(|&end| self.replicas[end].records.reads_anew());
        }
        let here = &self.replicas[node];
        here.records.sweep_some(|bucket| here.selection.wants(bucket))
    }

    /// A replica that begins to read all anew ends its other sessions, and the one with the bridge if that was opened for something else: the next one
    /// reads all anew.
    pub(super) fn end_others_if_reading_anew(&mut self, replica: usize, with: NodeId) {
        if !self.replicas[replica].records.reads_anew() {
            return;
        }
        self.figures.read_anew += 1;
        let ends = |(&peer, conversation): (&usize, &Conversation)| {
            (self.replicas[peer].node != with || !conversation.reads_anew).then_some(peer)
        };
        let ended: Vec<usize> = self.replicas[replica].conversations.iter().filter_map(ends).collect();
        for peer in ended {
            self.tell(replica, peer, Input::Stop(CloseReason::GoingAway, "all is read anew".into()));
        }
    }

    /// Whose lease ran out in the middle of a session with the bridge learns of it in the next one, which begins within a day.
    fn end_sessions_of_lapsed(&mut self) {
        for node in 0..self.replicas.len() {
            let here = &self.replicas[node];
            let Some(bridge) = here.dials.filter(|bridge| here.conversations.contains_key(bridge)) else { continue };
            let standings = (here.records.standing(true), self.replicas[bridge].records.standing(false));
            if let (Some(mine), Some(theirs)) = standings
                && mine.in_step_ms < theirs.collected_ms
                && !here.records.reads_anew()
            {
                self.tell(node, bridge, Input::Stop(CloseReason::GoingAway, "a day is over".into()));
            }
        }
    }

    /// Sessions that are a day old are begun anew.
    pub(super) fn renew_sessions(&mut self) {
        if !self.has_leases() || self.now_us < self.renewed_us + SESSION_US {
            return;
        }
        self.renewed_us = self.now_us;
        for replica in 0..self.replicas.len() {
            let peers: Vec<usize> = self.replicas[replica].conversations.keys().copied().collect();
            for peer in peers {
                self.tell(replica, peer, Input::Stop(CloseReason::GoingAway, "a day is over".into()));
            }
        }
    }

    /// A card from before its node's first meeting gives what it holds as a new node does, in a bundle or to one who never knew it: nobody
    /// can tell, and what was deleted and forgotten since may come back (docs/adr/0013-long-absence.md, the gap that stays). Whoever knew
    /// it tells it in a session.
    pub(super) fn note_who_passes_for_new(&mut self, node: usize, in_session_with: Option<usize>) {
        let here = &self.replicas[node];
        let epoch = here.records.epoch();
        let remembers = |peer: &Replica| peer.records.remembers(here.node).iter().any(|of| of.epoch == epoch);
        let is_told = in_session_with.is_some_and(|peer| remembers(&self.replicas[peer]));
        if here.unnoticed == Some(epoch) && here.records.is_fresh() && !is_told {
            self.passed_for_new.extend(here.records.all().into_iter().map(|record| record.key));
        }
    }

    /// Records that are held back somewhere.
    pub(in crate::sim) fn held_back(&self) -> BTreeSet<RecordKey> {
        self.replicas.iter().flat_map(|here| here.records.held_back()).collect()
    }

    /// Whether a version may rightly not be there: somebody has deleted the record, and that may be forgotten. Of a delete that was forgotten, an earlier one
    /// may have come since; and a card that passed for a new node may have brought an older version.
    pub(in crate::sim) fn may_be_forgotten(&self, version: &Record, held: Option<&Record>) -> bool {
        let is_deletion = |record: &Record| record.key == version.key && record.is_tombstone();
        let is_deleted =
            || self.replicas.iter().flat_map(|here| &here.written).any(|written| is_deletion(&written.record));
        let is_as_good_as_gone = held.is_none_or(|held| held.is_tombstone() && version.is_tombstone())
            || self.passed_for_new.contains(&version.key);
        self.has_leases() && is_as_good_as_gone && is_deleted()
    }
}
