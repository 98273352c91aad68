//! What happens to disks: requests and wishes are carried out, and the power goes.

use super::{Happening, NOTICE_US, RESTART_US, World};
use crate::id::{NodeId, Seq};
use crate::session::{DiskDone, DiskRequest, Input};
use crate::sim::ops::{self, LocalOp, Wish};
use crate::sim::records::Full;
use crate::sim::replica::Written;
use crate::store::RecordStore as _;
use crate::wire::Lane;

impl World<'_> {
    pub(super) fn look_at_clock(&self, replica: usize) -> (u64, crate::hlc::ClockQuality) {
        self.replicas[replica].look_at_clock(self.now_us / 1000, self.skipped_ms)
    }

    pub(super) fn finish_request(&mut self, replica: usize, peer: usize, connection: u64, number: u64) {
        let Some(conversation) = self.conversation(replica, peer, connection) else { return };
        let Some(request) = conversation.disk.remove(&number) else { return };
        let node_there = self.replicas[peer].node;
        let done = match self.carry_out(replica, request, node_there) {
            Ok(Some(done)) => done,
            Ok(None) => return,
            Err(Full) => return self.store_failed(replica, peer),
        };
        let Some(conversation) = self.conversation(replica, peer, connection) else { return };
        conversation.answers.insert(number, done);
        // What the disk said may already be out of date when it is heard.
        let late = self.rng.chance(40);
        let after = self.rng.below(if late { 20_000 } else { 1 });
        self.schedule(after, Happening::Answer { replica, peer, connection, request: number });
    }

    pub(super) fn hear_answer(&mut self, replica: usize, peer: usize, connection: u64, number: u64) {
        let Some(conversation) = self.conversation(replica, peer, connection) else { return };
        let Some(done) = conversation.answers.remove(&number) else { return };
        self.tell(replica, peer, Input::Disk(done));
        // There may be room for records again.
        let Some(way) = self.connections.get(&connection).map(|connection| connection.way_of(peer)) else { return };
        self.read_lane(connection, way, Lane::Records);
    }

    /// Carries out one request, and tells the other conversations of the replica what came of it. Only what needs room may
    /// fail for want of it (invariant 19).
    pub(super) fn carry_out(
        &mut self,
        replica: usize,
        request: DiskRequest,
        peer: NodeId,
    ) -> Result<Option<DiskDone>, Full> {
        self.look_at_clock(replica);
        let (received, head) = match &request {
            DiskRequest::Apply { bucket, records, .. } => (records.len(), self.replicas[replica].records.head(*bucket)),
            _ => (0, Seq::default()),
        };
        let needs_room = matches!(request, DiskRequest::Apply { .. });
        let Ok(done) = self.replicas[replica].carry_out(request, peer) else {
            if !needs_room {
                self.violate(19, &format!("replica {replica} cannot read, for its disk is full"));
            }
            return Err(Full);
        };
        if self.replicas[replica].blobs.take_damage_found() {
            self.tell_all(replica, || Input::WantsChanged);
        }
        let Some(done) = done else { return Ok(None) };
        self.forget_later(replica);
        match &done {
            DiskDone::SetBack => self.begin_new_life(replica),
            DiskDone::Met | DiskDone::CaughtUp => self.end_others_if_reading_anew(replica, peer),
            DiskDone::Applied(bucket, applied) => {
                let sum = applied.applied + applied.superseded + applied.quarantined;
                if sum as usize != received {
                    self.violate(8, &format!("of {received} records received in {bucket}, {sum} are accounted for"));
                }
                self.figures.received += u64::from(sum);
                self.figures.quarantined += u64::from(applied.quarantined);
                if applied.quarantined > 0 {
                    self.replay_later(replica);
                }
                let rows = self.replicas[replica].records.head(*bucket).0 - head.0;
                // More than what came: what follows from an erasure, by what was known here.
                if rows > u64::from(applied.applied) {
                    self.note_written();
                }
                if rows > 0 {
                    // Also what was held back and is no longer, though nothing of it was new here.
                    let bucket = *bucket;
                    self.tell_all(replica, || Input::LocalChange(bucket));
                }
                if applied.applied > 0 {
                    // What the records refer to may be wanted from any peer.
                    self.tell_all(replica, || Input::WantsChanged);
                }
            }
            DiskDone::Finished(blob, Ok(())) => {
                let blob = *blob;
                self.tell_all(replica, || Input::BlobCompleted(blob));
            }
            _ => {}
        }
        Ok(Some(done))
    }

    pub(super) fn carry_out_local(&mut self, replica: usize, op: LocalOp, told: bool, cut_short: bool) {
        self.look_at_clock(replica);
        let wish = op.wish;
        let done = ops::carry_out(&self.replicas[replica], op, cut_short);
        if done.refused {
            self.figures.refused += 1;
            if wish == Wish::Delete {
                self.violate(19, &format!("replica {replica} does not delete, for its disk is full"));
            }
        }
        let at_us = self.now_us;
        for record in done.records {
            self.figures.writes += 1;
            let bucket = record.key.bucket;
            self.replicas[replica].written.push(Written { record, at_us, kept: told });
            self.tell_all(replica, || Input::LocalChange(bucket));
        }
        if let Some(blob) = done.blob {
            // What may be erased some day is not missed.
            if told && !matches!(wish, Wish::Secret { .. }) {
                self.replicas[replica].imported.push((blob, at_us));
            }
            self.tell_all(replica, || Input::BlobCompleted(blob));
        }
    }

    pub(super) fn crash(&mut self, replica: usize) {
        self.figures.crashes += 1;
        // What was on its way to the disk may have reached it; nobody was told.
        let links: Vec<u64> =
            self.replicas[replica].conversations.values().map(|conversation| conversation.connection).collect();
        for link in links {
            self.check_lost(link);
        }
        self.lose_link_count(replica);
        let conversations = std::mem::take(&mut self.replicas[replica].conversations);
        let mut torn = None;
        for (peer, conversation) in conversations {
            self.forget_connection(conversation.connection);
            let after = self.rng.below(NOTICE_US);
            let notice = Happening::NoticeCut { replica: peer, peer: replica, connection: conversation.connection };
            self.schedule(after, notice);
            let node_there = self.replicas[peer].node;
            let is_outdated = conversation.epoch != self.replicas[replica].records.epoch();
            for request in conversation.disk.into_values() {
                if is_outdated && matches!(request, DiskRequest::Apply { .. }) {
                    continue;
                }
                if self.rng.chance(50) {
                    // Whether there was room for it does not matter any more.
                    let _ = self.carry_out(replica, request, node_there);
                } else if matches!(request, DiskRequest::Apply { .. }) {
                    torn = Some((request, node_there));
                }
            }
        }
        for op in std::mem::take(&mut self.replicas[replica].local).into_values() {
            if self.rng.chance(50) {
                let cut_short = self.rng.chance(50);
                self.carry_out_local(replica, op, false, cut_short);
            }
        }
        let mut rng = self.rng.fork();
        if let Some((request, peer)) = torn {
            // The last write before the dark: only its beginning reaches the disk. What is refused writes nothing.
            let before = self.replicas[replica].records.batches();
            let is_done = self.carry_out(replica, request, peer).is_ok();
            if is_done && self.replicas[replica].records.batches() > before {
                self.replicas[replica].records.tear_last_batch(&mut rng);
            }
        }
        let here = &mut self.replicas[replica];
        here.up = false;
        here.life += 1;
        here.unreferenced.clear();
        here.held_upto = None;
        here.records.crash(&mut rng);
        here.blobs.crash(&mut rng);
        self.open_store(replica);
        self.check_after_crash(replica);
        let after = self.rng.between(100_000, RESTART_US);
        self.schedule(after, Happening::Restart { replica });
    }

    pub(super) fn restart(&mut self, replica: usize) {
        self.replicas[replica].up = true;
        self.replay_later(replica);
        self.forget_later(replica);
        self.dial_all(replica, 3_000_000);
    }

    /// There is no more room, whatever is under way.
    pub(super) fn fill_disk(&mut self, replica: usize) {
        self.figures.full += 1;
        self.replicas[replica].records.set_full(true);
        self.replicas[replica].blobs.set_full(true);
    }

    /// There is room, and nobody tells the sessions: a disk does not.
    pub(super) fn make_room(&mut self, replica: usize) {
        let here = &self.replicas[replica];
        here.records.set_full(false);
        here.blobs.set_full(false);
        here.blobs.set_quota(u64::MAX);
    }

    /// A blob rots. If nobody else has it, then it is lost, and nobody is to blame.
    pub(super) fn rot(&mut self, replica: usize) {
        let mut rng = self.rng.fork();
        let here = &mut self.replicas[replica];
        if let Some(blob) = here.blobs.rot(&mut rng) {
            here.imported.retain(|(imported, _)| *imported != blob);
            here.rotted.insert(blob);
            self.figures.rotten += 1;
        }
    }

    /// Looks for damage, and wants again what is damaged.
    pub(super) fn scrub(&mut self, replica: usize) {
        self.figures.scrubbed += self.replicas[replica].blobs.scrub() as u64;
        if self.replicas[replica].blobs.take_damage_found() {
            self.tell_all(replica, || Input::WantsChanged);
        }
    }
}
