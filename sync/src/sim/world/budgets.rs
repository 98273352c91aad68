//! What happens to links that have a budget: nodes keep to it, the judge counts with them, and in the end it is lifted.

use super::{Happening, NOTICE_US, World};
use crate::hlc::ClockQuality;
use crate::session::Input;
use crate::sim::Sabotage;
use crate::sim::metered::{LinkTime, MeteredLink};
use crate::sim::replica::Wall;
use crate::wire::CloseReason;

/// A host looks at what has crossed this long after something has.
const LOOK_US: u64 = 100_000;
/// And this long after nothing has: hours end, and days begin.
const LOOK_AT_NOTHING_US: u64 = 30_000_000;
/// A node that may not dial looks again after this at the latest.
const LOOK_AGAIN_US: u64 = 600_000_000;
/// A connection that its end has closed is dropped after this.
const LET_GO_US: u64 = 2_000_000;
/// What an attempt to connect that gets no answer takes, at most, in bytes.
const ATTEMPT_BYTES: u64 = 10_000;
/// In worlds that come to rest day by day a day passes this often, and this much of its budget is sure to be of use, in bytes.
const DAY_PASSES_US: u64 = 30_000_000;
const OF_USE_A_DAY_BYTES: u64 = 40_000;
/// On the first of these days somebody loses power, since that is when counts are lost.
const DAYS_WITH_POWER_CUTS: u64 = 3;
const DAY_MS: u64 = 24 * 3600 * 1000;

impl World<'_> {
    fn link_time(&self, node: usize) -> LinkTime {
        let (unix_ms, quality) = self.look_at_clock(node);
        LinkTime { unix_ms, is_trusted: quality == ClockQuality::Trusted, world_ms: self.now_us / 1000 }
    }

    /// Whether the count of what is used reaches the disk.
    fn keeps_count(&self, node: usize) -> bool {
        !self.replicas[node].records.is_full()
    }

    fn keeps_at_once(&self, node: usize) -> bool {
        self.keeps_count(node) && self.sabotage != Some(Sabotage::UseIsKeptInMemory)
    }

    /// How long the node may not dial, if so.
    pub(super) fn held_for_us(&mut self, node: usize, peer: usize) -> Option<u64> {
        if !self.replicas[peer].is_bridge() {
            return None;
        }
        let at = self.link_time(node);
        let keeps = self.keeps_count(node);
        let link = self.replicas[node].metered.as_mut()?;
        if link.in_use.is_some() {
            link.close(at, keeps);
        }
        if !keeps {
            // Without its count such a link is not used.
            return Some(LOOK_AT_NOTHING_US);
        }
        let longest_us = if self.healed { DAY_PASSES_US / 2 } else { LOOK_AGAIN_US };
        let held_us = link.held_for_ms(at)?.saturating_mul(1000).clamp(1_000_000, longest_us);
        self.figures.held += 1;
        Some(held_us)
    }

    /// Nobody answered.
    pub(super) fn note_failed_dial(&mut self, node: usize, peer: usize) {
        if !self.replicas[peer].is_bridge() || self.replicas[node].metered.is_none() {
            return;
        }
        let bytes = self.rng.below(ATTEMPT_BYTES);
        let at = self.link_time(node);
        let fault = self.replicas[node].metered.as_mut().and_then(|link| link.failed(bytes, at));
        self.judge_budget(node, fault);
    }

    /// The windows of the connection suit the policy.
    pub(super) fn fit_windows(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let [node, peer] = connection.ends;
        if let Some(link) = self.replicas[node].metered.as_ref().filter(|_| self.replicas[peer].is_bridge()) {
            connection.limit_window(1, link.lane_window_bytes());
        }
    }

    /// What the node's session may begin with, if its link has a budget.
    pub(super) fn open_link(&mut self, replica: usize, peer: usize, id: u64) -> Option<crate::budget::Word> {
        if !self.replicas[peer].is_bridge() {
            return None;
        }
        let at = self.link_time(replica);
        let keeps = self.keeps_at_once(replica);
        let word = self.replicas[replica].metered.as_mut()?.open(id, at, keeps);
        self.look_in(replica, LOOK_US);
        Some(word)
    }

    /// Something has crossed a link.
    pub(super) fn note_crossed(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        let node = connection.ends[0];
        let in_use = self.replicas[node].metered.as_ref().and_then(|link| link.in_use.as_ref());
        if in_use.is_none_or(|in_use| in_use.connection != id) {
            return;
        }
        // What the node has sent, and what has come to it.
        let meter = connection.ways[0].wire.bytes + connection.ways[1].wire.arrived_bytes;
        let at = self.link_time(node);
        let fault = self.replicas[node].metered.as_mut().and_then(|link| link.note_crossed(meter, at));
        self.judge_budget(node, fault);
        self.look_in(node, LOOK_US);
    }

    fn judge_budget(&mut self, node: usize, fault: Option<String>) {
        if let Some(fault) = fault {
            self.violate(13, &format!("node {node}: {fault}"));
        }
    }

    /// Somebody looks at what has crossed after this, or before.
    pub(super) fn look_in(&mut self, node: usize, after_us: u64) {
        let at_us = self.now_us + after_us;
        let Some(in_use) = self.replicas[node].metered.as_mut().and_then(|link| link.in_use.as_mut()) else { return };
        if in_use.look_us.is_none_or(|earlier_us| at_us < earlier_us) {
            in_use.look_us = Some(at_us);
            self.schedule(after_us, Happening::LookAtLink { node });
        }
    }

    /// Measures, reserves, tells.
    pub(super) fn look_at_link(&mut self, node: usize) {
        let at = self.link_time(node);
        let now_us = self.now_us;
        let Some(link) = self.replicas[node].metered.as_mut() else { return };
        let Some(in_use) = link.in_use.as_mut().filter(|in_use| in_use.look_us == Some(now_us)) else { return };
        in_use.look_us = None;
        let connection = in_use.connection;
        if link.is_keeping() {
            return;
        }
        let bridge = self.replicas[node].dials.unwrap_or_default();
        let Some(conversation) = self.conversation(node, bridge, connection) else { return };
        let short = conversation.session.progress().credit_short;
        let goes_to_disk = self.replicas[node].metered.as_mut().is_some_and(|link| link.measure(short, at));
        if goes_to_disk && !self.keeps_count(node) {
            self.tell(node, bridge, Input::Stop(CloseReason::GoingAway, "its use cannot be counted".into()));
        } else if goes_to_disk {
            let after = self.disk_takes_us(node);
            self.schedule(after, Happening::LinkCountKept { node, connection });
        } else {
            self.give_word(node, connection);
        }
    }

    /// What was reserved is on the disk: the session is told how far it may go, or ended.
    pub(super) fn give_word(&mut self, node: usize, connection: u64) {
        let at = self.link_time(node);
        let keeps = self.keeps_at_once(node);
        let Some(link) = self.replicas[node].metered.as_mut() else { return };
        if link.in_use.as_ref().is_none_or(|in_use| in_use.connection != connection) {
            return;
        }
        let Some(word) = link.kept(at, keeps) else { return };
        let bridge = self.replicas[node].dials.unwrap_or_default();
        if self.conversation(node, bridge, connection).is_none() {
            return;
        }
        match word {
            _ if self.sabotage == Some(Sabotage::BudgetIsNotHeld) => {
                let (content_bytes, records_bytes) = (u64::MAX, u64::MAX);
                self.tell(node, bridge, Input::Credit(crate::budget::Word { content_bytes, records_bytes }));
            }
            Ok(word) => {
                self.tell(node, bridge, Input::Credit(word));
                self.look_in(node, if self.healed { DAY_PASSES_US / 2 } else { LOOK_AT_NOTHING_US });
            }
            Err(_) => {
                self.figures.held += 1;
                self.tell(node, bridge, Input::Stop(CloseReason::GoingAway, "used up".into()));
            }
        }
    }

    /// A session is over: its connection is dropped soon, if it is not gone, and what was not used is given back.
    pub(super) fn leave_link(&mut self, node: usize, connection: u64) {
        let in_use = self.replicas[node].metered.as_ref().and_then(|link| link.in_use.as_ref());
        if in_use.is_none_or(|in_use| in_use.connection != connection) {
            return;
        }
        let after = if self.connections.contains_key(&connection) { LET_GO_US } else { 0 };
        self.schedule(after, Happening::LetLinkGo { node, connection });
    }

    pub(super) fn let_link_go(&mut self, node: usize, connection: u64) {
        // Its other end may not have heard yet that the session is over.
        if let Some(bridge) = self.connections.get(&connection).map(|connection| connection.ends[1]) {
            self.schedule(NOTICE_US, Happening::NoticeCut { replica: bridge, peer: node, connection });
        }
        self.forget_connection(connection);
        let at = self.link_time(node);
        let keeps = self.keeps_count(node);
        let Some(link) = self.replicas[node].metered.as_mut() else { return };
        if link.in_use.as_ref().is_some_and(|in_use| in_use.connection == connection) {
            link.close(at, keeps);
        }
    }

    /// The power goes at a node.
    pub(super) fn lose_link_count(&mut self, node: usize) {
        if self.replicas[node].metered.as_ref().is_none_or(|link| link.in_use.is_none()) {
            return;
        }
        let has_landed = self.rng.chance(50) && self.sabotage != Some(Sabotage::UseIsKeptInMemory);
        if let Some(link) = &mut self.replicas[node].metered {
            link.lose_power(has_landed);
        }
    }

    /// How long it may take until everything that is missing has come, day by day (invariant 18).
    pub(in crate::sim) fn days_allowed_us(&self, missing_bytes: u64) -> u64 {
        if self.is_metered() {
            (4 + DAYS_WITH_POWER_CUTS + missing_bytes / OF_USE_A_DAY_BYTES) * DAY_PASSES_US
        } else {
            0
        }
    }

    fn is_metered(&self) -> bool {
        self.replicas.iter().any(|node| node.metered.is_some())
    }

    /// Faults are over: budgets are lifted, or days begin to pass. A clock that was never set knows no days; one that nobody
    /// vouches for, and that was set back by more than a day, knows none until it has caught up.
    pub(super) fn heal_links(&mut self) {
        let knows_no_days = |node: usize| {
            let here = &self.replicas[node];
            let is_behind = |link: &MeteredLink| link.behind_ms(self.link_time(node)) > DAY_MS;
            here.metered.as_ref().is_some_and(|link| matches!(here.wall, Wall::Unset) || is_behind(link))
        };
        if self.plan.budgets_stay && !(0..self.replicas.len()).any(knows_no_days) {
            self.schedule(DAY_PASSES_US, Happening::DayPasses);
        } else {
            self.lift_budgets();
        }
    }

    /// It is tomorrow, as long as somebody waits for that.
    pub(super) fn day_passes(&mut self) {
        if self.is_metered() {
            self.skipped_ms += DAY_MS;
            self.days_passed += 1;
            self.schedule(DAY_PASSES_US, Happening::DayPasses);
            let metered: Vec<usize> =
                (0..self.replicas.len()).filter(|&node| self.replicas[node].metered.is_some()).collect();
            if self.days_passed <= DAYS_WITH_POWER_CUTS
                && let Some(&replica) = self.rng.pick(&metered)
            {
                let after = self.rng.below(DAY_PASSES_US / 4);
                self.schedule(after, Happening::PowerFails { replica });
            }
        }
    }

    /// The operator allows everything. A node's sessions end for that.
    pub(super) fn lift_budgets(&mut self) {
        for node in 0..self.replicas.len() {
            let Some(link) = self.replicas[node].metered.take() else { continue };
            if let Some(in_use) = link.in_use {
                self.cut(in_use.connection);
            }
            let life = self.replicas[node].life;
            for to in self.replicas[node].dialled().collect::<Vec<_>>() {
                let after = self.rng.below(1_000_000);
                self.schedule(after, Happening::Connect { node, to, life });
            }
        }
    }
}
