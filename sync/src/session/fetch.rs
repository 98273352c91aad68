//! Receives content: asks for manifests of wanted blobs, then for their missing chunks, makes them durable, and ends each
//! blob with a check of the whole.
//!
//! The window (`window`) bounds what was asked for and is not durable yet, over all blobs together. What is wanted
//! (`wishes`) is begun and asked for class by class: each has a few blobs under way if it wants any, and their chunks take
//! turns (`schedule`, `asks`). The link's budget bounds what is asked for at all (`credit`). Where several sessions receive one blob, each
//! asks for what it has claimed of it (`blob/claims`).

mod asks;
mod blob;
mod window;
mod wishes;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use self::blob::{Receiving, Stage};
use self::window::Window;
use self::wishes::{Why, Wishes};
use super::credit::Credit;
use super::schedule::Turns;
use super::{Begun, Config, DiskDone, DiskRequest, Event, Held, Outbox, Progress, Violation, WriteFailure};
use crate::budget::wire_cost;
use crate::chunk::{BlobHash, Lot, Manifest};
use crate::store::Wanted;
use crate::wire::{Class, Message};

/// Blobs of each class that are under way before another class has all the others, if it wants as many.
const BLOBS_OF_EACH_CLASS: usize = 4;
/// Blobs that readers wait for may be so many more than the limit on all blobs.
pub const READER_BLOBS_BEYOND: usize = 8;
/// What a manifest takes for each of so many bytes of its blob, which is how content-defined chunks come out.
const MANIFEST_BYTES_PER_CHUNK: u64 = 40;
const CHUNK_BYTES_USUAL: u64 = 256 * 1024;
/// What a manifest is taken to have if nobody knows the size of its blob, in bytes.
const MANIFEST_BYTES_UNKNOWN: u64 = 64 * 1024;

#[derive(Debug)]
pub(super) struct Fetcher {
    config: Config,
    wishes: Wishes,
    /// Given up, with the disk requests still under way: released, and asked for again, only once they are done.
    leaving: BTreeMap<BlobHash, usize>,
    /// Chunks asked for of blobs given up since, with their lengths: their answers may still come in.
    abandoned: BTreeMap<(BlobHash, u32), u64>,
    /// In order of asking.
    receiving: Vec<Receiving>,
    turns: Turns,
    window: Window,
    /// Whether the peer answers with patches.
    patches: bool,
    /// No room here, and when to see whether there is again: a disk does not tell.
    full_until_ms: Option<u64>,
    bytes_received: u64,
    now_ms: u64,
}

impl Fetcher {
    pub(super) fn new(config: Config, now_ms: u64) -> Self {
        Self {
            window: Window::new(&config, now_ms),
            config,
            wishes: Wishes::default(),
            leaving: BTreeMap::new(),
            abandoned: BTreeMap::new(),
            receiving: Vec::new(),
            turns: Turns::default(),
            patches: false,
            full_until_ms: None,
            bytes_received: 0,
            now_ms,
        }
    }

    /// The peer has said hello, and whether it answers with patches.
    pub(super) fn open(&mut self, patches: bool) {
        self.patches = patches;
        self.wants_changed();
    }

    pub(super) fn wants_changed(&mut self) {
        self.more_wanted();
        self.full_until_ms = None;
    }

    pub(super) fn more_wanted(&mut self) {
        self.wishes.changed();
        self.receiving.iter_mut().for_each(Receiving::look_again);
    }

    pub(super) fn take_urgent(&mut self, blobs: &[Wanted]) {
        for wanted in blobs {
            let known = self.receiving.iter_mut().find(|receiving| receiving.blob() == wanted.blob);
            if let Some(receiving) = known {
                receiving.read_from(wanted.from_bytes);
            }
        }
        let (receiving, leaving) = (&self.receiving, &self.leaving);
        let is_known = |blob| leaving.contains_key(&blob) || receiving.iter().any(|receiving| receiving.blob() == blob);
        self.wishes.take_urgent(blobs, is_known);
    }

    pub(super) fn take_wanted(&mut self, blobs: &[Wanted]) {
        let receiving = &self.receiving;
        self.wishes.take_wanted(blobs, |blob| receiving.iter().any(|receiving| receiving.blob() == blob));
    }

    /// The peer now has a blob that it did not have. Its word may overtake the one that it had not.
    pub(super) fn take_have(&mut self, blob: BlobHash) {
        if let Some(at) = self.position(blob, |stage| matches!(stage, Stage::ManifestAsked)) {
            self.receiving[at].told_since = true;
        } else if !self.leaving.contains_key(&blob) {
            self.wishes.take_have(blob);
        }
    }

    /// The blob became whole here through someone else: nothing more is asked for it.
    pub(super) fn completed_elsewhere(&mut self, blob: BlobHash, out: &mut Outbox) {
        self.wishes.remove(blob);
        if let Some(at) = self.position(blob, Stage::is_fetching) {
            self.leave(at, 0, out);
        }
    }

    pub(super) fn take_manifest(
        &mut self,
        blob: BlobHash,
        manifest: Option<Vec<u8>>,
        now_ms: u64,
        credit: &mut Credit,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let Some(at) = self.position(blob, |stage| matches!(stage, Stage::ManifestAsked)) else {
            return Err(Violation::new(format!("a manifest of {blob}, which was not asked for")));
        };
        credit.cross(self.receiving[at].manifest_cost);
        let Some(bytes) = manifest else {
            let Receiving { wanted, told_since, .. } = self.receiving.remove(at);
            self.put_off(wanted, None, now_ms);
            if told_since {
                self.wishes.take_have(blob);
            }
            return Ok(());
        };
        let manifest =
            Manifest::from_bytes(&bytes).map_err(|error| Violation::new(format!("manifest of {blob}: {error}")))?;
        if manifest.blob() != blob {
            return Err(Violation::new(format!("a manifest of {} for {blob}", manifest.blob())));
        }
        let manifest = Arc::new(manifest);
        self.receiving[at].stage = Stage::Beginning(Arc::clone(&manifest));
        out.disk(DiskRequest::Begin(manifest));
        Ok(())
    }

    pub(super) fn take_began(
        &mut self,
        blob: BlobHash,
        result: Result<Begun, WriteFailure>,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let failure = result.as_ref().err().copied();
        let Some(at) = self.position(blob, |stage| matches!(stage, Stage::Beginning(_))) else {
            return self.settle_leaving(blob, failure, out);
        };
        match result {
            Ok(mut begun) => {
                if !self.patches {
                    begun.bases.clear();
                }
                self.receiving[at].began(begun);
                Ok(())
            }
            Err(failure) => self.fail(at, failure, out),
        }
    }

    pub(super) fn take_claimed(
        &mut self,
        blob: BlobHash,
        result: Result<Lot, WriteFailure>,
        now_ms: u64,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let Some(at) = self.position(blob, Stage::is_fetching) else {
            return self.settle_leaving(blob, result.err(), out);
        };
        match result {
            Ok(lot) => {
                if !self.receiving[at].claimed(&lot, now_ms + self.config.busy_retry_ms) {
                    self.give_up(at, 0, Some(WriteFailure::Gone), now_ms, out);
                }
                Ok(())
            }
            Err(failure) => self.fail(at, failure, out),
        }
    }

    pub(super) fn take_chunk(
        &mut self,
        blob: BlobHash,
        index: u32,
        bytes: Bytes,
        now_ms: u64,
        credit: &mut Credit,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let Some((at, len)) = self.answered(blob, index, credit)? else { return Ok(()) };
        if bytes.is_empty() {
            self.receiving[at].refused(index);
            self.window.forget((len, 0));
            self.give_up(at, 0, None, now_ms, out);
            return Ok(());
        }
        if bytes.len() as u64 != len {
            return Err(Violation::new(format!("chunk {index} of {blob} has {} bytes, not {len}", bytes.len())));
        }
        let Some(manifest) = self.receiving[at].arrived(index) else { return Ok(()) };
        self.bytes_received += len;
        self.window.arrived(len, len, now_ms);
        out.disk(DiskRequest::Write { manifest, index, bytes });
        Ok(())
    }

    /// The same as a patch of chunks that were named.
    pub(super) fn take_patch(
        &mut self,
        blob: BlobHash,
        index: u32,
        patch: Bytes,
        now_ms: u64,
        credit: &mut Credit,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let Some((at, len)) = self.answered(blob, index, credit)? else { return Ok(()) };
        let Some(basis) = self.receiving[at].basis(index).cloned() else {
            return Err(Violation::new(format!("a patch of chunk {index} of {blob}, which was asked for whole")));
        };
        if patch.len() as u64 >= len {
            return Err(Violation::new(format!("a patch of {} bytes for a chunk of {len}", patch.len())));
        }
        let Some(manifest) = self.receiving[at].arrived(index) else { return Ok(()) };
        self.bytes_received += len;
        self.window.arrived(len, patch.len() as u64, now_ms);
        out.disk(DiskRequest::WritePatched { manifest, index, basis, patch });
        Ok(())
    }

    /// Where a chunk belongs that has come, and its length; `None` if it is not needed any more.
    fn answered(&mut self, blob: BlobHash, index: u32, credit: &mut Credit) -> Result<Option<(usize, u64)>, Violation> {
        let at = self.position(blob, Stage::is_fetching);
        let expected = at.and_then(|at| Some((at, self.receiving[at].expected(index)?)));
        let len = match expected {
            Some((_, len)) => len,
            None => self
                .abandoned
                .remove(&(blob, index))
                .ok_or_else(|| Violation::new(format!("chunk {index} of {blob}, which was not asked for")))?,
        };
        credit.cross(wire_cost(len));
        Ok(expected)
    }

    pub(super) fn take_wrote(
        &mut self,
        blob: BlobHash,
        index: u32,
        result: Result<(), WriteFailure>,
        now_ms: u64,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let Some(at) = self.position(blob, Stage::is_fetching) else {
            return self.settle_leaving(blob, result.err(), out);
        };
        match result {
            Ok(()) => {
                self.receiving[at].wrote(index);
                self.window.wrote(now_ms);
            }
            Err(WriteFailure::NoBasis) => {
                let len = self.receiving[at].needs_whole(index);
                self.window.forget((0, len));
            }
            Err(failure) => return self.fail(at, failure, out),
        }
        Ok(())
    }

    pub(super) fn take_synced(
        &mut self,
        blob: BlobHash,
        result: Result<(), WriteFailure>,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let Some(at) = self.position(blob, Stage::is_fetching) else {
            return self.settle_leaving(blob, result.err(), out);
        };
        match result {
            Ok(()) => {
                let durable = self.receiving[at].synced();
                self.window.durable(durable);
            }
            Err(failure) => return self.fail(at, failure, out),
        }
        Ok(())
    }

    pub(super) fn take_finished(
        &mut self,
        blob: BlobHash,
        result: Result<(), WriteFailure>,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let Some(at) = self.position(blob, |stage| matches!(stage, Stage::Finishing(_))) else {
            return self.settle_leaving(blob, result.err(), out);
        };
        match result {
            Ok(()) => {
                let size_bytes = self.receiving.remove(at).size_bytes();
                out.event(Event::BlobReceived { blob, size_bytes });
            }
            Err(failure) => return self.fail(at, failure, out),
        }
        Ok(())
    }

    pub(super) fn timer(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.wishes.timer(now_ms);
        for receiving in &mut self.receiving {
            if receiving.looks_again_at_ms().is_some_and(|at_ms| at_ms <= now_ms) {
                receiving.look_again();
            }
        }
        if self.full_until_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.wants_changed();
        }
    }

    /// Lists, asks, makes durable and ends, as far as the limits allow.
    pub(super) fn pump(&mut self, now_ms: u64, credit: &mut Credit, out: &mut Outbox) {
        self.now_ms = now_ms;
        if !self.is_full() {
            self.wishes.list(out);
            self.make_way(out);
            self.ask_manifests(credit, out);
        }
        self.ask_chunks(credit, out);
        self.sync_and_finish(now_ms, out);
    }

    /// What only waits for others makes way for what can be begun.
    fn make_way(&mut self, out: &mut Outbox) {
        while self.wishes.has_some()
            && self.next_to_begin().is_none()
            && let Some(at) = self.receiving.iter().position(Receiving::waits_for_others)
        {
            self.give_up(at, 0, Some(WriteFailure::Busy), self.now_ms, out);
        }
    }

    fn ask_manifests(&mut self, credit: &mut Credit, out: &mut Outbox) {
        while let Some(wanted) = self.next_to_begin() {
            let blob = wanted.blob;
            let is_known = self.leaving.contains_key(&blob) || self.receiving.iter().any(|known| known.blob() == blob);
            let cost = manifest_cost(wanted.size_bytes);
            if !is_known && !credit.admit(cost) {
                return;
            }
            self.wishes.pop(wanted.class);
            if !is_known {
                self.receiving.push(Receiving::asked(wanted, cost));
                out.control(Message::ManifestAsk { blob });
            }
        }
    }

    /// The next blob to begin: of a class with few under way if there is one, else of the most urgent.
    fn next_to_begin(&self) -> Option<Wanted> {
        let all = self.receiving.len();
        let under_way = |class| self.receiving.iter().filter(|receiving| receiving.wanted.class == class).count();
        let has_room = |class: Class| {
            let beyond = if class.is_urgent() { READER_BLOBS_BEYOND } else { 0 };
            all < self.config.blobs_in_flight_max + beyond
        };
        let waiting = || Class::CONTENT.into_iter().filter(|class| has_room(*class));
        let few = waiting().filter(|class| under_way(*class) < BLOBS_OF_EACH_CLASS);
        few.chain(waiting()).find_map(|class| self.wishes.front(class))
    }

    fn sync_and_finish(&mut self, now_ms: u64, out: &mut Outbox) {
        let due = self.window.sync_due(now_ms);
        for receiving in &mut self.receiving {
            if let Some(manifest) = receiving.start_finish() {
                out.disk(DiskRequest::Finish(manifest));
            } else if let Some(manifest) = receiving.start_sync(due) {
                out.disk(DiskRequest::Sync(manifest));
            }
        }
        // A blob whose last sync is still under way starts its next one when that ends; until then a sync stays due.
        if due && !self.receiving.iter().any(Receiving::has_written) {
            self.window.sync_started();
        }
    }

    pub(super) fn next_timeout(&self) -> Option<u64> {
        let retry = self.wishes.next_timeout();
        // A sync that is due and not started waits for the disk, not for the time: a timer would only spin.
        let sync = self.window.next_sync().filter(|&at_ms| at_ms > self.now_ms);
        let looks_again = self.receiving.iter().filter_map(Receiving::looks_again_at_ms).min();
        [sync, retry, self.full_until_ms, looks_again].into_iter().flatten().min()
    }

    /// Whether nothing is wanted that the peer may have.
    pub(super) fn is_idle(&self) -> bool {
        self.receiving.is_empty() && self.leaving.is_empty() && (self.is_full() || self.wishes.is_idle())
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            blobs_receiving: self.receiving.len() as u32,
            bytes_to_receive: self.receiving.iter().map(Receiving::bytes_missing).sum(),
            receive_rate: self.window.rate(self.now_ms),
            bytes_received: self.bytes_received,
            ..Progress::default()
        }
    }

    pub(super) fn held(&self) -> Held {
        let manifests = self.receiving.iter().filter_map(Receiving::manifest);
        let list_bytes = manifests.map(|manifest| size_of_val(manifest.chunks())).sum::<usize>()
            + self.receiving.len() * size_of::<Receiving>()
            + self.receiving.iter().map(|receiving| receiving.bases_bytes() + receiving.claims_bytes()).sum::<usize>()
            + self.wishes.held_bytes()
            + self.abandoned.len() * size_of::<((BlobHash, u32), u64)>()
            + self.leaving.len() * size_of::<(BlobHash, usize)>();
        Held { content_bytes: self.window.not_durable() as usize, list_bytes, ..Held::default() }
    }

    /// What to do about blobs that were begun when the session ends.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = DiskRequest> + '_ {
        let begun = self.receiving.iter().filter_map(Receiving::manifest).flat_map(|manifest| {
            let blob = manifest.blob();
            [DiskRequest::Sync(Arc::clone(manifest)), DiskRequest::Release(blob)]
        });
        begun.chain(self.leaving.keys().map(|&blob| DiskRequest::Release(blob)))
    }

    /// Takes note of a request that ended after the session did: what was not claimed must not be released.
    pub(super) fn settle(&mut self, done: &DiskDone) {
        if let DiskDone::Began(blob, Err(_)) = done {
            self.receiving.retain(|receiving| receiving.blob() != *blob || receiving.is_begun());
        }
    }

    fn position(&self, blob: BlobHash, stage: impl Fn(&Stage) -> bool) -> Option<usize> {
        self.receiving.iter().position(|receiving| receiving.blob() == blob && stage(&receiving.stage))
    }

    /// A disk request of the blob at `at` has failed.
    fn fail(&mut self, at: usize, failure: WriteFailure, out: &mut Outbox) -> Result<(), Violation> {
        let blob = self.receiving[at].blob();
        if failure == WriteFailure::Mismatch {
            return Err(Violation::new(format!("content of {blob} does not match its hash")));
        }
        self.note_full(failure, out);
        self.give_up(at, 1, Some(failure), self.now_ms, out);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.full_until_ms.is_some()
    }

    fn note_full(&mut self, failure: WriteFailure, out: &mut Outbox) {
        if failure == WriteFailure::Full && !self.is_full() {
            self.full_until_ms = Some(self.now_ms + self.config.absent_retry_ms);
            out.event(Event::ContentBlocked);
        }
    }

    /// Stops receiving a blob for now, when `done` of its disk requests have just ended. What is durable stays for the
    /// next time.
    fn give_up(&mut self, at: usize, done: usize, why: Option<WriteFailure>, now_ms: u64, out: &mut Outbox) {
        let wanted = self.leave(at, done, out);
        self.put_off(wanted, why, now_ms);
    }

    /// Ends this session's share in a blob. Tells what was wanted.
    fn leave(&mut self, at: usize, done: usize, out: &mut Outbox) -> Wanted {
        let receiving = self.receiving.remove(at);
        let blob = receiving.blob();
        self.window.forget(receiving.bytes_not_durable());
        self.abandoned.extend(receiving.on_the_way().map(|(index, len)| ((blob, index), len)));
        match receiving.disk_requests().saturating_sub(done) {
            // A begin that failed has claimed nothing: the claim may be another session's.
            0 if !receiving.is_begun() => {}
            0 => out.disk(DiskRequest::Release(blob)),
            under_way => {
                self.leaving.insert(blob, under_way);
            }
        }
        receiving.wanted
    }

    /// A disk request of a blob that was given up is done: after the last one the claim is released.
    fn settle_leaving(
        &mut self,
        blob: BlobHash,
        failure: Option<WriteFailure>,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        match failure {
            Some(WriteFailure::Mismatch) => {
                return Err(Violation::new(format!("content of {blob} does not match its hash")));
            }
            Some(failure) => self.note_full(failure, out),
            None => {}
        }
        if let Some(under_way) = self.leaving.get_mut(&blob) {
            *under_way -= 1;
            if *under_way == 0 {
                self.leaving.remove(&blob);
                out.disk(DiskRequest::Release(blob));
            }
        }
        Ok(())
    }

    /// Leaves a blob alone for a while that the peer did not have, or that could not be written here.
    fn put_off(&mut self, wanted: Wanted, why: Option<WriteFailure>, now_ms: u64) {
        let (why, wait_ms) = match why {
            Some(WriteFailure::Busy | WriteFailure::Gone) => (Why::Busy, self.config.busy_retry_ms),
            Some(WriteFailure::Full) => (Why::NoRoom, self.config.absent_retry_ms),
            _ => (Why::Absent, self.config.absent_retry_ms),
        };
        self.wishes.put_off(wanted, now_ms + wait_ms, why);
    }
}

/// What the manifest of a blob may take on the wire.
fn manifest_cost(size_bytes: u64) -> u64 {
    let chunks = size_bytes / CHUNK_BYTES_USUAL + 1;
    wire_cost(if size_bytes == 0 { MANIFEST_BYTES_UNKNOWN } else { chunks * MANIFEST_BYTES_PER_CHUNK })
}
