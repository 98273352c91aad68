//! The steps of the plan are taken, faults end, and clocks are set right.

use super::{Happening, NOTICE_US, REPLAY_US, REVOCATION_US, World, ops};
use crate::record::Record;
use crate::session::Input;
use crate::sim::Sabotage;
use crate::sim::link::Direction;
use crate::sim::ops::{LocalOp, Wish};
use crate::sim::plan::{Deed, DiskPace};
use crate::sim::records::BUILD_DATE_UNIX_MS;
use crate::sim::replica::Wall;
use crate::sim::seeded::Seeded;
use crate::wire::CloseReason;

impl World<'_> {
    pub(super) fn take_step(&mut self, number: usize) {
        self.steps_left -= 1;
        let step = &self.plan.steps[number];
        self.rng = Seeded::new(step.chance);
        self.renew_sessions();
        self.take_deed(step.replica, step.deed);
        self.check_running();
    }

    fn take_deed(&mut self, replica: usize, deed: Deed) {
        let up = self.replicas[replica].up;
        match deed {
            Deed::Person(wish) if up => self.ask_local(replica, wish),
            Deed::CutLink => self.cut_one(replica),
            Deed::Flap { times } => self.flap(replica, times),
            Deed::BlackHole { for_us } => self.swallow(replica, for_us),
            Deed::Silence { for_us } => self.silence(for_us),
            Deed::PowerCut if up => self.crash(replica),
            Deed::TakeCopy if up => {
                let at_us = self.now_us;
                self.replicas[replica].take_copy(at_us);
            }
            // A bridge that is older than a lease would bring back what it has forgotten to delete.
            Deed::GoBack if self.has_leases() && self.replicas[replica].is_bridge() => {}
            Deed::GoBack if up && self.replicas[replica].copy.is_some() => {
                self.crash(replica);
                self.figures.restores += 1;
                self.look_at_clock(replica);
                let epoch = self.fresh_epoch(replica);
                self.replicas[replica].go_back(epoch);
                if self.replicas[replica].is_bridge() {
                    self.bridge_goes_back();
                } else {
                    self.node_goes_back(replica);
                }
            }
            Deed::PutBack if up && self.replicas[replica].copy.is_some() => self.put_back(replica),
            Deed::StartCopy if !up => self.start_copy(replica),
            Deed::Away { for_us, others_us } => {
                self.go_away(replica, for_us);
                self.silence(others_us);
            }
            Deed::SetClock(wall) => {
                self.replicas[replica].wall = wall;
                self.replicas[replica].clock_is_right &= wall.is_right();
            }
            Deed::ContentRoom(bytes) => self.replicas[replica].blobs.set_quota(bytes),
            Deed::DiskFull => self.fill_disk(replica),
            Deed::DiskRoom => self.make_room(replica),
            Deed::SetDiskPace(pace) => self.replicas[replica].disk_pace = pace,
            Deed::Rot => self.rot(replica),
            Deed::Scrub if up => self.scrub(replica),
            Deed::WantNow(content) => {
                let (manifest, _) = ops::content(content);
                self.replicas[replica].blobs.want_now(manifest.blob());
                self.tell_all(replica, || Input::WantsChanged);
            }
            Deed::EndSession => {
                let peers: Vec<usize> = self.replicas[replica].conversations.keys().copied().collect();
                if let Some(&peer) = self.rng.pick(&peers) {
                    self.tell(replica, peer, Input::Stop(CloseReason::GoingAway, "restart".into()));
                }
            }
            // Who has a way only through it would be cut off with it.
            Deed::Revoke if self.replicas.iter().any(|here| !here.has_way) => {}
            Deed::Revoke => {
                self.figures.revoked += 1;
                let now_us = self.now_us;
                self.replicas[replica].revoked_us.get_or_insert(now_us);
                let after = self.rng.below(REVOCATION_US);
                self.schedule(after, Happening::LookForRevoked { replica });
            }
            Deed::Erase(number) if up => self.erase(replica, number),
            Deed::Carry(carried) if up => self.set_out(replica, carried),
            Deed::WantRoom(bytes) if up => self.want_room(replica, bytes),
            Deed::Sweep if up => self.sweep(replica),
            Deed::Choose { keeps } if up => self.choose(replica, keeps),
            Deed::Choose { .. }
            | Deed::WantRoom(_)
            | Deed::Sweep
            | Deed::Carry(_)
            | Deed::Erase(_)
            | Deed::Person(_)
            | Deed::PowerCut
            | Deed::TakeCopy
            | Deed::GoBack
            | Deed::PutBack
            | Deed::StartCopy
            | Deed::Scrub => {}
        }
    }

    fn ask_local(&mut self, replica: usize, wish: Wish) {
        self.serial += 1;
        let number = self.serial;
        let rng = self.rng.fork();
        self.replicas[replica].local.insert(number, LocalOp { wish, rng });
        let life = self.replicas[replica].life;
        let after = self.rng.between(100, 40_000);
        self.schedule(after, Happening::Local { replica, life, op: number });
    }

    /// Its sessions are ended, if it has any: with the bridge, and with neighbours whose operator knows it, too.
    pub(super) fn end_revoked(&mut self, node: usize) {
        if self.sabotage != Some(Sabotage::RevokedAreLetIn) {
            // It may have ended its own side already.
            let has_session = |peer: &usize| self.replicas[*peer].conversations.contains_key(&node);
            let peers: Vec<usize> = (0..self.replicas.len()).filter(has_session).collect();
            for peer in peers {
                self.tell(peer, node, Input::Stop(CloseReason::NotWelcome, "revoked".into()));
            }
        }
    }

    /// Ends all faults but wrong clocks: links are good, disks are quick and have room, and damage is looked for.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.unwritten_serial = self.serial;
        self.silent_until_us = 0;
        self.heal_links();
        self.all_sticks_arrive();
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            // What has stopped for want of something must go on by itself, in the session in which it stopped.
            if self.rng.chance(50) {
                self.mend(id);
            } else {
                self.cut(id);
            }
        }
        for replica in 0..self.replicas.len() {
            self.replicas[replica].hole_until_us = 0;
            self.replicas[replica].away_until_us = 0;
            self.replicas[replica].room_wanted = None;
            self.replicas[replica].disk_pace = DiskPace::Quick;
            self.make_room(replica);
            self.scrub(replica);
            // Whoever waits for a link that is long gone tries at once.
            self.dial_all(replica, NOTICE_US);
        }
    }

    /// Sets all clocks to a time that is past every stamp and all that will be stamped after it, and lets in what was set aside.
    pub(super) fn set_clocks_right(&mut self) {
        let records = self.replicas.iter().map(|replica| &replica.records);
        let stamps_ms = |record: Record| record.newest_stamp().time.unix_ms();
        let latest_ms = records.map(|records| {
            let held = records.all().into_iter().chain(records.quarantined());
            held.map(stamps_ms).max().unwrap_or_default().max(records.latest_ms())
        });
        let latest_ms = latest_ms.max().unwrap_or_default();
        self.skipped_ms += latest_ms.saturating_sub(BUILD_DATE_UNIX_MS);
        for replica in 0..self.replicas.len() {
            self.replicas[replica].wall = Wall::RIGHT;
            self.replay(replica);
        }
    }

    /// What was set aside is tried again, and looked at later if something is left that only has to wait.
    pub(super) fn replay(&mut self, replica: usize) {
        self.look_at_clock(replica);
        let here = &mut self.replicas[replica];
        here.replay_us = None;
        if here.up {
            let mut buckets = here.records.replay_quarantine();
            self.forget_later(replica);
            buckets.sort_unstable();
            buckets.dedup();
            if !buckets.is_empty() {
                self.note_written();
            }
            for bucket in buckets {
                self.tell_all(replica, || Input::LocalChange(bucket));
                self.tell_all(replica, || Input::WantsChanged);
            }
        }
        self.replay_later(replica);
    }

    pub(super) fn replay_later(&mut self, replica: usize) {
        let here = &self.replicas[replica];
        let Some(wait_ms) = here.records.quarantine_waits_ms() else { return };
        // Replicas look every half minute; looks that can change nothing are left out.
        let after = (wait_ms * 1000).max(REPLAY_US);
        let at_us = self.now_us + after;
        if here.replay_us.is_none_or(|earlier_us| at_us < earlier_us) {
            self.replicas[replica].replay_us = Some(at_us);
            self.schedule(after, Happening::Replay { replica });
        }
    }

    /// Whether every node that may talks to its bridge and its neighbours, all ends say that they are quiet, and nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        let connected = self.replicas.iter().enumerate().all(|(node, here)| {
            let welcome = |at: &usize| self.replicas[*at].revoked_us.is_none();
            here.dialled().filter(|peer| welcome(&node) && welcome(peer)).all(|peer| {
                here.conversations.get(&peer).is_some_and(|conversation| {
                    self.connections
                        .get(&conversation.connection)
                        .is_some_and(|connection| connection.ways.iter().all(Direction::is_idle))
                }) && self.replicas[peer].conversations.contains_key(&node)
            })
        });
        connected
            && self.replicas.iter().all(|here| here.up || !here.by_carrier)
            && self.replicas.iter().filter(|here| here.revoked_us.is_none()).all(|here| {
                here.conversations.iter().filter(|(peer, _)| self.replicas[**peer].revoked_us.is_none()).all(
                    |(_, conversation)| {
                        conversation.quiet && conversation.disk.is_empty() && conversation.answers.is_empty()
                    },
                )
            })
    }
}
