//! Receives content: asks for manifests of wanted blobs, then for their missing chunks, makes them durable, and ends each
//! blob with a check of the whole.
//!
//! The window (`window`) bounds what was asked for and is not durable yet, over all blobs together. Blobs that a reader
//! waits for go before the rest; then the order is that of hashes, so that two sessions do the same.

mod blob;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use self::blob::{Receiving, Stage};
use self::window::Window;
use super::provide::ASKS_MAX;
use super::{Config, DiskDone, DiskRequest, Event, Held, Outbox, Progress, Violation, WriteFailure};
use crate::chunk::{BlobHash, Have, Manifest};
use crate::wire::Message;

/// Wanted blobs listed at a time.
const WANTED_BATCH: usize = 64;
/// Blobs that are not to be had just now and that are remembered, at most; past it the first are asked for again early.
const PUT_OFF_MAX: usize = 16_384;
/// Chunks asked for and not answered, at most: half of what a peer lets wait, for blobs cut into very small chunks.
const CHUNK_ASKS_MAX: usize = ASKS_MAX / 2;

#[derive(Debug)]
pub(super) struct Fetcher {
    config: Config,
    listing: Listing,
    queue: VecDeque<Wish>,
    /// Not to be had just now.
    put_off: BTreeMap<BlobHash, PutOff>,
    /// Given up, with the disk requests still under way: released, and asked for again, only once they are done.
    leaving: BTreeMap<BlobHash, usize>,
    /// Chunks asked for of blobs given up since: their answers may still come in.
    abandoned: BTreeSet<(BlobHash, u32)>,
    /// In order of asking; urgent ones in front.
    receiving: Vec<Receiving>,
    window: Window,
    /// No room here, and when to see whether there is again: a disk does not tell.
    full_until_ms: Option<u64>,
    bytes_received: u64,
    now_ms: u64,
}

/// When a blob is asked for again.
#[derive(Clone, Copy, Debug)]
struct PutOff {
    retry_at_ms: u64,
    /// The peer has it, and someone else is just receiving it here: it is still waited for.
    busy: bool,
}

#[derive(Clone, Copy, Debug)]
struct Wish {
    blob: BlobHash,
    urgent: bool,
}

/// Where listing what is wanted stands.
#[derive(Debug, Default)]
struct Listing {
    /// The lists may have changed since they were read.
    changed: bool,
    urgent_asked: bool,
    asked: bool,
    after: Option<BlobHash>,
    exhausted: bool,
}

impl Fetcher {
    pub(super) fn new(config: Config, now_ms: u64) -> Self {
        Self {
            window: Window::new(&config, now_ms),
            config,
            listing: Listing::default(),
            queue: VecDeque::new(),
            put_off: BTreeMap::new(),
            leaving: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            receiving: Vec::new(),
            full_until_ms: None,
            bytes_received: 0,
            now_ms,
        }
    }

    pub(super) fn wants_changed(&mut self) {
        self.listing.changed = true;
        self.full_until_ms = None;
    }

    pub(super) fn take_urgent(&mut self, blobs: &[BlobHash]) {
        self.listing.urgent_asked = false;
        for &blob in blobs.iter().rev() {
            if let Some(at) = self.receiving.iter().position(|receiving| receiving.blob == blob) {
                let mut receiving = self.receiving.remove(at);
                receiving.urgent = true;
                self.receiving.insert(0, receiving);
            } else if !self.put_off.contains_key(&blob) {
                self.queue.retain(|wish| wish.blob != blob);
                self.queue.push_front(Wish { blob, urgent: true });
            }
        }
    }

    pub(super) fn take_wanted(&mut self, blobs: &[BlobHash]) {
        self.listing.asked = false;
        self.listing.after = blobs.last().copied().or(self.listing.after);
        self.listing.exhausted = blobs.len() < WANTED_BATCH;
        for &blob in blobs {
            let known = self.put_off.contains_key(&blob)
                || self.receiving.iter().any(|receiving| receiving.blob == blob)
                || self.queue.iter().any(|wish| wish.blob == blob);
            if !known {
                self.queue.push_back(Wish { blob, urgent: false });
            }
        }
    }

    /// The peer now has a blob that it did not have.
    pub(super) fn take_have(&mut self, blob: BlobHash) {
        if !self.leaving.contains_key(&blob) && self.put_off.remove(&blob).is_some() {
            self.queue.push_back(Wish { blob, urgent: false });
        }
    }

    /// The blob became whole here through someone else: nothing more is asked for it.
    pub(super) fn completed_elsewhere(&mut self, blob: BlobHash) {
        self.queue.retain(|wish| wish.blob != blob);
        self.put_off.remove(&blob);
    }

    pub(super) fn take_manifest(
        &mut self,
        blob: BlobHash,
        manifest: Option<Vec<u8>>,
        now_ms: u64,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let Some(at) = self.position(blob, |stage| matches!(stage, Stage::ManifestAsked)) else {
            return Err(Violation::new(format!("a manifest of {blob}, which was not asked for")));
        };
        let Some(bytes) = manifest else {
            self.receiving.remove(at);
            self.put_off(blob, self.until_retry(None, now_ms));
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
        result: Result<Have, WriteFailure>,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let failure = result.as_ref().err().copied();
        let Some(at) = self.position(blob, |stage| matches!(stage, Stage::Beginning(_))) else {
            return self.settle_leaving(blob, failure, out);
        };
        match result {
            Ok(have) => {
                self.receiving[at].began(have);
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
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let at = self.position(blob, Stage::is_fetching);
        let expected = at.and_then(|at| Some((at, self.receiving[at].expected(index)?)));
        let Some((at, len)) = expected else {
            if self.abandoned.remove(&(blob, index)) {
                return Ok(());
            }
            return Err(Violation::new(format!("chunk {index} of {blob}, which was not asked for")));
        };
        if bytes.is_empty() {
            self.receiving[at].refused(index);
            self.window.forget((len, 0));
            self.give_up(at, 0, self.until_retry(None, now_ms), out);
            return Ok(());
        }
        if bytes.len() as u64 != len {
            return Err(Violation::new(format!("chunk {index} of {blob} has {} bytes, not {len}", bytes.len())));
        }
        let Some(manifest) = self.receiving[at].arrived(index) else { return Ok(()) };
        self.bytes_received += len;
        self.window.arrived(len, now_ms);
        out.disk(DiskRequest::Write { manifest, index, bytes });
        Ok(())
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
        let before = self.put_off.len();
        self.put_off.retain(|_, put_off| now_ms < put_off.retry_at_ms);
        if self.put_off.len() < before {
            self.listing.changed = true;
        }
        if self.full_until_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.wants_changed();
        }
    }

    /// Lists, asks, makes durable and ends, as far as the limits allow.
    pub(super) fn pump(&mut self, now_ms: u64, out: &mut Outbox) {
        self.now_ms = now_ms;
        self.list(out);
        self.ask_manifests(out);
        self.ask_chunks(out);
        self.sync_and_finish(now_ms, out);
    }

    fn list(&mut self, out: &mut Outbox) {
        if self.listing.urgent_asked || self.listing.asked || !self.queue.is_empty() || self.is_full() {
            return;
        }
        if self.listing.changed {
            self.listing = Listing { urgent_asked: true, asked: true, ..Listing::default() };
            out.disk(DiskRequest::Urgent);
        } else if self.listing.exhausted {
            return;
        } else {
            self.listing.asked = true;
        }
        out.disk(DiskRequest::Wanted { after: self.listing.after, limit: WANTED_BATCH });
    }

    fn ask_manifests(&mut self, out: &mut Outbox) {
        while !self.is_full() && self.receiving.len() < self.config.blobs_in_flight_max {
            let Some(Wish { blob, urgent }) = self.queue.pop_front() else { return };
            if self.leaving.contains_key(&blob) || self.receiving.iter().any(|receiving| receiving.blob == blob) {
                continue;
            }
            let receiving = Receiving::asked(blob, urgent);
            if urgent {
                self.receiving.insert(0, receiving);
            } else {
                self.receiving.push(receiving);
            }
            out.control(Message::ManifestAsk { blob });
        }
    }

    fn ask_chunks(&mut self, out: &mut Outbox) {
        let mut asks = self.abandoned.len() + self.receiving.iter().map(Receiving::asks).sum::<usize>();
        for receiving in &mut self.receiving {
            while let Some((index, len)) = receiving.next_missing() {
                // An answer to the ask that was abandoned could not be told from the new one's.
                if self.abandoned.contains(&(receiving.blob, index)) {
                    break;
                }
                if asks >= CHUNK_ASKS_MAX || !self.window.admits(len) {
                    return;
                }
                asks += 1;
                self.window.asked(len);
                receiving.ask(index, len);
                let (blob, urgent) = (receiving.blob, receiving.urgent);
                out.control(Message::ChunkAsk { blob, index, urgent });
            }
        }
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
        let retry = self.put_off.values().map(|put_off| put_off.retry_at_ms).min();
        // A sync that is due and not started waits for the disk, not for the time: a timer would only spin.
        let sync = self.window.next_sync().filter(|&at_ms| at_ms > self.now_ms);
        [sync, retry, self.full_until_ms].into_iter().flatten().min()
    }

    /// Whether nothing is wanted that the peer may have.
    pub(super) fn is_idle(&self) -> bool {
        let listed =
            !self.listing.changed && !self.listing.asked && !self.listing.urgent_asked && self.listing.exhausted;
        let put_off = self.put_off.values().all(|put_off| !put_off.busy);
        self.receiving.is_empty()
            && self.leaving.is_empty()
            && (self.is_full() || listed && put_off && self.queue.is_empty())
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
            + self.queue.len() * size_of::<Wish>()
            + self.put_off.len() * size_of::<(BlobHash, PutOff)>()
            + self.abandoned.len() * size_of::<(BlobHash, u32)>()
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
            self.receiving.retain(|receiving| receiving.blob != *blob || receiving.is_begun());
        }
    }

    fn position(&self, blob: BlobHash, stage: impl Fn(&Stage) -> bool) -> Option<usize> {
        self.receiving.iter().position(|receiving| receiving.blob == blob && stage(&receiving.stage))
    }

    /// A disk request of the blob at `at` has failed.
    fn fail(&mut self, at: usize, failure: WriteFailure, out: &mut Outbox) -> Result<(), Violation> {
        let blob = self.receiving[at].blob;
        if failure == WriteFailure::Mismatch {
            return Err(Violation::new(format!("content of {blob} does not match its hash")));
        }
        self.note_full(failure, out);
        self.give_up(at, 1, self.until_retry(Some(failure), self.now_ms), out);
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
    fn give_up(&mut self, at: usize, done: usize, until: PutOff, out: &mut Outbox) {
        let receiving = self.receiving.remove(at);
        let blob = receiving.blob;
        self.window.forget(receiving.bytes_not_durable());
        self.abandoned.extend(receiving.indices_on_the_way().map(|index| (blob, index)));
        match receiving.disk_requests().saturating_sub(done) {
            // A begin that failed has claimed nothing: the claim may be another session's.
            0 if !receiving.is_begun() => {}
            0 => out.disk(DiskRequest::Release(blob)),
            under_way => {
                self.leaving.insert(blob, under_way);
            }
        }
        self.put_off(blob, until);
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

    /// How long a blob is left alone that the peer did not have, or that could not be written here.
    fn until_retry(&self, failure: Option<WriteFailure>, now_ms: u64) -> PutOff {
        let busy = failure == Some(WriteFailure::Busy);
        let wait_ms = if busy { self.config.busy_retry_ms } else { self.config.absent_retry_ms };
        PutOff { retry_at_ms: now_ms + wait_ms, busy }
    }

    fn put_off(&mut self, blob: BlobHash, until: PutOff) {
        if self.put_off.len() == PUT_OFF_MAX
            && let Some(next) = self.put_off.iter().min_by_key(|(_, until)| until.retry_at_ms).map(|(blob, _)| *blob)
        {
            self.put_off.remove(&next);
        }
        self.put_off.insert(blob, until);
    }
}
