//! Worlds with leases: nodes stay away for longer than theirs, tombstones are forgotten, and what may be missing for that
//! reason is told from what is lost.

use std::collections::BTreeSet;

use super::World;
use crate::id::NodeId;
use crate::record::{Record, RecordKey};
use crate::session::Input;
use crate::sim::absence::Lease;
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
        let is_bridge = self.replicas[peer].is_bridge();
        if !is_bridge {
            return ![node, peer].iter().any(|&end| self.replicas[end].records.reads_anew());
        }
        let here = &self.replicas[node];
        here.records.sweep_some(|bucket| here.selection.wants(bucket))
    }

    /// A replica that begins to read all anew ends its other sessions.
    pub(super) fn end_others_if_reading_anew(&mut self, replica: usize, with: NodeId) {
        if !self.replicas[replica].records.reads_anew() {
            return;
        }
        self.figures.read_anew += 1;
        let others = self.replicas[replica].conversations.keys().copied();
        let others: Vec<usize> = others.filter(|&peer| self.replicas[peer].node != with).collect();
        for peer in others {
            self.tell(replica, peer, Input::Stop(CloseReason::GoingAway, "all is read anew".into()));
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

    /// Records that are held back somewhere.
    pub(in crate::sim) fn held_back(&self) -> BTreeSet<RecordKey> {
        self.replicas.iter().flat_map(|here| here.records.held_back()).collect()
    }

    /// Whether a record may rightly not be there: somebody has deleted it, and that may be forgotten.
    pub(in crate::sim) fn may_be_forgotten(&self, key: RecordKey, held: Option<&Record>) -> bool {
        let is_deletion = |record: &Record| record.key == key && record.is_tombstone();
        let written = || self.replicas.iter().flat_map(|here| &here.written);
        self.has_leases() && held.is_none() && written().any(|written| is_deletion(&written.record))
    }
}
