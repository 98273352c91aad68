//! What chance brings, and the end of it.

use super::{BRIDGE, Happening, World};
use crate::session::Input;
use crate::sim::link::Direction;
use crate::sim::ops::{self, LocalOp};
use crate::sim::records::BUILD_DATE_UNIX_MS;
use crate::sim::replica::Wall;
use crate::wire::CloseReason;

impl World {
    pub(super) fn random_op(&mut self) {
        if self.ops_left == 0 {
            return;
        }
        self.ops_left -= 1;
        let replica = self.rng.below(self.replicas.len() as u64) as usize;
        match self.rng.below(100) {
            0..=59 => self.ask_local(replica),
            60..=71 => self.cut_any(),
            72..=79 if self.replicas[replica].up => self.crash(replica),
            80..=83 if self.replicas[replica].up => {
                let at_us = self.now_us;
                self.replicas[replica].take_copy(at_us);
            }
            84..=86 if self.replicas[replica].up && self.replicas[replica].copy.is_some() => {
                self.crash(replica);
                self.figures.restores += 1;
                self.look_at_clock(replica);
                self.replicas[replica].go_back();
            }
            87..=91 => self.replicas[replica].wall = Wall::random(&mut self.rng),
            92..=94 => {
                let quota = if self.rng.chance(50) { self.rng.below(60_000) } else { u64::MAX };
                self.replicas[replica].blobs.set_quota(quota);
                self.tell_all(replica, || Input::WantsChanged);
            }
            95..=96 => {
                let (manifest, _) = ops::content(self.rng.below(12));
                self.replicas[replica].blobs.want_now(manifest.blob());
                self.tell_all(replica, || Input::WantsChanged);
            }
            _ => {
                let peers: Vec<usize> = self.replicas[replica].conversations.keys().copied().collect();
                if let Some(&peer) = self.rng.pick(&peers) {
                    self.tell(replica, peer, Input::Stop(CloseReason::GoingAway, "restart".into()));
                }
            }
        }
        self.check_running();
        let calm = self.rng.chance(20);
        let after = self.rng.below(if calm { 20_000_000 } else { 1_500_000 });
        self.schedule(after, Happening::Op);
    }

    pub(super) fn ask_local(&mut self, replica: usize) {
        if !self.replicas[replica].up {
            return;
        }
        self.serial += 1;
        let number = self.serial;
        let rng = self.rng.fork();
        self.replicas[replica].local.insert(number, LocalOp { rng });
        let life = self.replicas[replica].life;
        let after = self.rng.between(100, 40_000);
        self.schedule(after, Happening::Local { replica, life, op: number });
    }

    pub(super) fn cut_any(&mut self) {
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        if let Some(&id) = self.rng.pick(&ids) {
            self.cut(id);
        }
    }

    /// Ends all faults: links are good, disks have room, clocks are right and past every stamp.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            self.cut(id);
        }
        let latest_ms = self
            .replicas
            .iter()
            .flat_map(|replica| replica.records.all().into_iter().chain(replica.records.quarantined()))
            .map(|record| record.newest_stamp().time.unix_ms())
            .max()
            .unwrap_or_default();
        self.skipped_ms = latest_ms.saturating_sub(BUILD_DATE_UNIX_MS);
        for replica in 0..self.replicas.len() {
            self.replicas[replica].wall = Wall::RIGHT;
            self.replicas[replica].blobs.set_quota(u64::MAX);
            self.look_at_clock(replica);
            let mut buckets = self.replicas[replica].records.replay_quarantine();
            buckets.dedup();
            for bucket in buckets {
                self.tell_all(replica, || Input::LocalChange(bucket));
            }
            self.tell_all(replica, || Input::WantsChanged);
        }
    }

    /// Whether every node talks to the bridge, both ends say that they are quiet, and nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        let connected = (1..self.replicas.len()).all(|node| {
            self.replicas[node].conversations.get(&BRIDGE).is_some_and(|conversation| {
                self.connections
                    .get(&conversation.connection)
                    .is_some_and(|connection| connection.ways.iter().all(Direction::is_idle))
            }) && self.replicas[BRIDGE].conversations.contains_key(&node)
        });
        connected
            && self.replicas.iter().flat_map(|replica| replica.conversations.values()).all(|conversation| {
                conversation.quiet && conversation.disk.is_empty() && conversation.answers.is_empty()
            })
    }
}
