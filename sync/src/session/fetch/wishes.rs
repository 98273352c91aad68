//! What is wanted and not asked for yet: read from the store in lists, kept by class, and put off where it is not to be had.
//!
//! What readers wait for is listed whenever that has changed. The rest is listed in the order of hashes, a little ahead of
//! what is asked for, so that of each class something is at hand; then the order is that of hashes, so that two
//! sessions do the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::chunk::BlobHash;
use crate::session::{DiskRequest, Outbox, schedule};
use crate::store::Wanted;
use crate::wire::Class;

/// Wanted blobs listed at a time.
const WANTED_BATCH: usize = 64;
/// More are listed while fewer than this are at hand.
const LISTED_AHEAD: usize = 256;
/// Blobs that are not to be had just now and that are remembered, at most; past it the first are asked for again early.
const PUT_OFF_MAX: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Wishes {
    listing: Listing,
    /// In the order of [`Class::CONTENT`].
    queues: [VecDeque<Wanted>; Class::CONTENT.len()],
    queued: BTreeSet<BlobHash>,
    /// Not to be had just now.
    put_off: BTreeMap<BlobHash, PutOff>,
}

/// A blob that is asked for again later.
#[derive(Clone, Copy, Debug)]
struct PutOff {
    wanted: Wanted,
    retry_at_ms: u64,
    why: Why,
}

/// Why a blob is not to be had just now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Why {
    /// The peer does not have it, or it could not be written.
    Absent,
    /// The peer has it, and someone else is just receiving it here, or has spoilt it: it is still waited for.
    Busy,
    /// There was no room for it. For a reader there may be.
    NoRoom,
}

/// Where listing what is wanted stands.
#[derive(Debug, Default)]
struct Listing {
    /// Readers may wait for something else since they were listed.
    urgent_changed: bool,
    urgent_asked: bool,
    /// The other list may have changed since it was read.
    changed: bool,
    asked: bool,
    after: Option<BlobHash>,
    exhausted: bool,
}

impl Wishes {
    pub(super) fn changed(&mut self) {
        self.listing.urgent_changed = true;
        self.listing.changed = true;
    }

    /// Lists what is due.
    pub(super) fn list(&mut self, out: &mut Outbox) {
        if self.listing.urgent_changed && !self.listing.urgent_asked {
            (self.listing.urgent_changed, self.listing.urgent_asked) = (false, true);
            out.disk(DiskRequest::Urgent);
        }
        if self.listing.asked || self.queued.len() >= LISTED_AHEAD {
            return;
        }
        if self.listing.changed {
            let Listing { urgent_changed, urgent_asked, .. } = self.listing;
            self.listing = Listing { urgent_changed, urgent_asked, ..Listing::default() };
        } else if self.listing.exhausted {
            return;
        }
        self.listing.asked = true;
        out.disk(DiskRequest::Wanted { after: self.listing.after, limit: WANTED_BATCH });
    }

    /// Readers wait for these. Those that `is_known` tells are being received already.
    pub(super) fn take_urgent(&mut self, blobs: &[Wanted], is_known: impl Fn(BlobHash) -> bool) {
        self.listing.urgent_asked = false;
        for wanted in blobs.iter().rev() {
            let blob = wanted.blob;
            let put_off = self.put_off.get(&blob).map(|put_off| put_off.why);
            if is_known(blob) || put_off.is_some_and(|why| why != Why::NoRoom) {
                continue;
            }
            self.put_off.remove(&blob);
            self.forget(blob);
            self.queued.insert(blob);
            self.queues[0].push_front(Wanted { class: Class::Reader, ..*wanted });
        }
    }

    pub(super) fn take_wanted(&mut self, blobs: &[Wanted], is_known: impl Fn(BlobHash) -> bool) {
        self.listing.asked = false;
        self.listing.after = blobs.last().map(|wanted| wanted.blob).or(self.listing.after);
        self.listing.exhausted = blobs.len() < WANTED_BATCH;
        for wanted in blobs {
            if !is_known(wanted.blob) && !self.put_off.contains_key(&wanted.blob) {
                self.add(*wanted);
            }
        }
    }

    /// The peer now has a blob that it did not have.
    pub(super) fn take_have(&mut self, blob: BlobHash) {
        if let Some(put_off) = self.put_off.remove(&blob) {
            self.add(put_off.wanted);
        }
    }

    /// The blob is no longer wanted.
    pub(super) fn remove(&mut self, blob: BlobHash) {
        self.forget(blob);
        self.put_off.remove(&blob);
    }

    /// Whether there is any to begin.
    pub(super) fn has_some(&self) -> bool {
        !self.queued.is_empty()
    }

    /// The next blob of a class, to be asked for with [`Self::pop`].
    pub(super) fn front(&self, class: Class) -> Option<Wanted> {
        self.queues[schedule::place(class)?].front().copied()
    }

    pub(super) fn pop(&mut self, class: Class) {
        if let Some(place) = schedule::place(class)
            && let Some(wanted) = self.queues[place].pop_front()
        {
            self.queued.remove(&wanted.blob);
        }
    }

    pub(super) fn put_off(&mut self, wanted: Wanted, retry_at_ms: u64, why: Why) {
        if self.put_off.len() == PUT_OFF_MAX
            && let Some(next) = self.put_off.iter().min_by_key(|(_, until)| until.retry_at_ms).map(|(blob, _)| *blob)
        {
            self.put_off.remove(&next);
        }
        self.put_off.insert(wanted.blob, PutOff { wanted, retry_at_ms, why });
    }

    pub(super) fn timer(&mut self, now_ms: u64) {
        let before = self.put_off.len();
        self.put_off.retain(|_, put_off| now_ms < put_off.retry_at_ms);
        if self.put_off.len() < before {
            self.changed();
        }
    }

    pub(super) fn next_timeout(&self) -> Option<u64> {
        self.put_off.values().map(|put_off| put_off.retry_at_ms).min()
    }

    /// Whether everything that is wanted and may be had was asked for.
    pub(super) fn is_idle(&self) -> bool {
        let listing = &self.listing;
        let asking = listing.urgent_changed || listing.urgent_asked || listing.changed || listing.asked;
        !asking
            && listing.exhausted
            && self.queued.is_empty()
            && self.put_off.values().all(|put_off| put_off.why != Why::Busy)
    }

    /// What the lists take in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum::<usize>() * size_of::<Wanted>()
            + self.queued.len() * size_of::<BlobHash>()
            + self.put_off.len() * size_of::<(BlobHash, PutOff)>()
    }

    fn add(&mut self, wanted: Wanted) {
        // What is not of content goes last.
        let place = schedule::place(wanted.class).unwrap_or(Class::CONTENT.len() - 1);
        if self.queued.insert(wanted.blob) {
            self.queues[place].push_back(Wanted { class: Class::CONTENT[place], ..wanted });
        }
    }

    fn forget(&mut self, blob: BlobHash) {
        if self.queued.remove(&blob) {
            for queue in &mut self.queues {
                queue.retain(|wanted| wanted.blob != blob);
            }
        }
    }
}
