//! Reads the peer's feeds: looks up the cursor of each offered bucket, pulls from there, and applies pages in order.
//!
//! Pages of a bucket that arrive while one is being applied are applied together: a fast link makes large commits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{DiskRequest, Event, Held, Outbox, Scope, Selection, Violation};
use crate::id::{BucketId, Seq};
use crate::lineage::{Moment, Told};
use crate::record::Record;
use crate::store::{Cursor, Peer};
use crate::wire::frame::OFFER_BUCKETS_MAX;
use crate::wire::{Message, Offered};

/// Buckets pulled in one session, at most.
pub const BUCKETS_MAX: usize = 100_000;
/// Bytes of received records that may wait to be applied, before the lane is held back, unless configured otherwise.
pub const BACKLOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Cursors looked up at the same time, at most.
const LOOKUPS_MAX: usize = 64;
/// Moments told that a cursor may have been looked up before, at most; one that took longer ends the session.
const TOLD_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Puller {
    scope: Scope,
    selection: Selection,
    page_bytes: u32,
    backlog_bytes_max: usize,
    peer: Peer,
    /// What was remembered of the peer's present epoch when this session began.
    known_at_first: Vec<Moment>,
    /// What pages that were applied in this session have told since, the latest last.
    told: VecDeque<Moment>,
    /// Whether the peer can be asked for rows that came from here.
    gives_back: bool,
    offers_seen: u64,
    /// More offers are on their way: the last one was full.
    more_offers: bool,
    buckets: BTreeMap<BucketId, Pulled>,
    /// Buckets of which more is to come, or something waits to be applied.
    behind: BTreeSet<BucketId>,
    /// Buckets that were returning and have been read to their end, to be told.
    returned: Vec<BucketId>,
    /// Buckets whose cursor is to be looked up, and how many lookups are under way.
    to_look_up: VecDeque<BucketId>,
    lookups: usize,
    /// Buckets with pages to apply, in turn.
    ready: VecDeque<BucketId>,
    applying: Option<Applying>,
    backlog_bytes: usize,
    dealt_with: u64,
}

#[derive(Debug)]
struct Applying {
    bucket: BucketId,
    pages: u64,
    bytes: usize,
    moment: Option<Moment>,
}

#[derive(Debug)]
struct Pulled {
    /// Last row that the peer said it has.
    head: Seq,
    /// The row after which it may be asked at most; `None` for a bucket that came up late.
    bound: Option<Seq>,
    /// Last row received; `None` until the cursor was looked up.
    received: Option<Seq>,
    /// Last row applied.
    applied: Seq,
    /// Whether the last page said that more follow. True before the first page.
    more: bool,
    pending: Pending,
}

#[derive(Debug, Default)]
struct Pending {
    records: Vec<Record>,
    pages: u64,
    bytes: usize,
    moment: Option<Moment>,
}

impl Puller {
    pub(super) fn new(scope: Scope, page_bytes: u32, backlog_bytes_max: usize) -> Self {
        Self {
            scope,
            selection: Selection::default(),
            page_bytes,
            backlog_bytes_max,
            peer: Peer::NOBODY,
            known_at_first: Vec::new(),
            told: VecDeque::new(),
            gives_back: false,
            offers_seen: 0,
            more_offers: false,
            buckets: BTreeMap::new(),
            behind: BTreeSet::new(),
            returned: Vec::new(),
            to_look_up: VecDeque::new(),
            lookups: 0,
            ready: VecDeque::new(),
            applying: None,
            backlog_bytes: 0,
            dealt_with: 0,
        }
    }

    pub(super) fn select(&mut self, selection: Selection) {
        self.selection = selection;
    }

    pub(super) fn open(&mut self, peer: Peer, known: Vec<Moment>, gives_back: bool) {
        self.peer = peer;
        self.known_at_first = known;
        self.gives_back = gives_back;
    }

    /// Whether the bucket is read in this session. One that was evicted here and of which the peer would leave out what
    /// came from here waits for a peer that does not.
    fn reads(&self, bucket: BucketId) -> bool {
        self.scope.contains(bucket)
            && self.selection.wants(bucket)
            && (self.gives_back || !self.selection.is_returning(bucket))
    }

    pub(super) fn take_offer(&mut self, offered: &[Offered]) -> Result<(), Violation> {
        let is_late = self.offers_seen > 0 && !self.more_offers;
        self.offers_seen += 1;
        self.more_offers = offered.len() >= OFFER_BUCKETS_MAX;
        self.dealt_with += 1;
        for &Offered { bucket, head } in offered {
            if !self.reads(bucket) || self.buckets.contains_key(&bucket) {
                continue;
            }
            if self.buckets.len() == BUCKETS_MAX {
                return Err(Violation::new(format!("more than {BUCKETS_MAX} buckets offered")));
            }
            let bound = (!is_late).then_some(head);
            let (applied, pending) = (Seq::default(), Pending::default());
            let pulled = Pulled { head, bound, received: None, applied, more: true, pending };
            self.buckets.insert(bucket, pulled);
            self.behind.insert(bucket);
            self.to_look_up.push_back(bucket);
        }
        Ok(())
    }

    /// Whether the cursor is one that nobody else has moved since this session began. What the peer has told in its hello is about
    /// no other.
    #[must_use]
    pub(super) fn take_cursor(
        &mut self,
        bucket: BucketId,
        cursor: Option<Cursor>,
        known: &[Moment],
        out: &mut Outbox,
    ) -> bool {
        self.lookups -= 1;
        if !self.knows(known) {
            return false;
        }
        let Some(pulled) = self.buckets.get_mut(&bucket) else { return true };
        // A cursor of another life of the peer's store says nothing about this one.
        let after = cursor.filter(|cursor| cursor.epoch == self.peer.epoch).map_or(Seq::default(), |cursor| cursor.seq);
        // A bundle that was written after the offer may have brought more meanwhile.
        let after = pulled.bound.map_or(after, |bound| after.min(bound));
        pulled.received = Some(after);
        pulled.applied = after;
        let (epoch, page_bytes) = (self.peer.epoch, self.page_bytes);
        let own_too = self.selection.asks_for_own(bucket, self.gives_back);
        out.control(Message::Pull { bucket, after, epoch, page_bytes, own_too });
        true
    }

    /// Whether what is remembered of the peer's present epoch was so when this session began, or was told in it.
    pub(super) fn knows(&self, known: &[Moment]) -> bool {
        let applying = self.applying.as_ref().and_then(|applying| applying.moment);
        let is_of_here = |moment: &Moment| self.told.contains(moment) || applying == Some(*moment);
        *known == self.known_at_first || matches!(known, [moment] if is_of_here(moment))
    }

    pub(super) fn take_page(
        &mut self,
        bucket: BucketId,
        next: Seq,
        more: bool,
        records: &[Vec<u8>],
        moment: Option<Moment>,
    ) -> Result<(), Violation> {
        let Some(pulled) = self.buckets.get_mut(&bucket) else {
            return Err(Violation::new(format!("a page of {bucket}, which was not pulled")));
        };
        let Some(received) = pulled.received else {
            return Err(Violation::new(format!("a page of {bucket} before it was pulled")));
        };
        if next < received || next == received && (more || !records.is_empty()) {
            return Err(Violation::new(format!("a page of {bucket} that does not move on from row {}", received.0)));
        }
        for bytes in records {
            let record = Record::decode(bucket, bytes)
                .map_err(|error| Violation::new(format!("a page of {bucket} with a bad record: {error}")))?;
            pulled.pending.records.push(record);
            pulled.pending.bytes += bytes.len();
            self.backlog_bytes += bytes.len();
        }
        pulled.more = more;
        pulled.head = pulled.head.max(next);
        if next == received {
            // Nothing was new. If nothing waits before it, it is dealt with.
            if pulled.pending.pages == 0 && self.applying.as_ref().is_none_or(|applying| applying.bucket != bucket) {
                self.dealt_with += 1;
                self.read_to_the_end(bucket);
                return Ok(());
            }
        }
        self.behind.insert(bucket);
        pulled.received = Some(next);
        if pulled.pending.pages == 0 {
            self.ready.push_back(bucket);
        }
        pulled.pending.pages += 1;
        pulled.pending.moment = moment;
        Ok(())
    }

    pub(super) fn take_applied(&mut self, bucket: BucketId) {
        if let Some(applying) = self.applying.take_if(|applying| applying.bucket == bucket) {
            self.dealt_with += applying.pages;
            self.backlog_bytes -= applying.bytes;
            if let Some(moment) = applying.moment {
                if self.told.len() == TOLD_MAX {
                    self.told.pop_front();
                }
                self.told.push_back(moment);
            }
        }
        if self.buckets.get(&bucket).is_some_and(|pulled| !pulled.more && pulled.pending.pages == 0) {
            self.read_to_the_end(bucket);
        }
    }

    fn read_to_the_end(&mut self, bucket: BucketId) {
        self.behind.remove(&bucket);
        if self.selection.has_returned(bucket) {
            self.returned.push(bucket);
        }
    }

    /// Looks up cursors, and applies the pages of the next bucket, if none is being applied.
    pub(super) fn pump(&mut self, out: &mut Outbox) {
        for bucket in self.returned.drain(..) {
            out.event(Event::Returned(bucket));
        }
        while self.lookups < LOOKUPS_MAX
            && let Some(bucket) = self.to_look_up.pop_front()
        {
            self.lookups += 1;
            out.disk(DiskRequest::Cursor(self.peer, bucket));
        }
        if self.applying.is_some() {
            return;
        }
        let Some(bucket) = self.ready.pop_front() else { return };
        let Some(pulled) = self.buckets.get_mut(&bucket) else { return };
        let pending = std::mem::take(&mut pulled.pending);
        let next = pulled.received.unwrap_or_default();
        pulled.applied = next;
        let Pending { records, pages, bytes, moment } = pending;
        // Buckets take turns: a page of another may have been read from the feeds later, and applied before.
        let last = self.told.back().copied();
        let moment = moment.map(|moment| last.filter(|last| last.rows > moment.rows).unwrap_or(moment));
        let told = match moment {
            Some(now) => {
                let known = last.map_or_else(|| self.known_at_first.clone(), |last| vec![last]);
                Told::InSession { known, now }
            }
            None => Told::Nothing,
        };
        self.applying = Some(Applying { bucket, pages, bytes, moment });
        out.disk(DiskRequest::Apply { from: self.peer, bucket, records, next, told });
    }

    pub(super) fn note_have(&mut self) {
        self.dealt_with += 1;
    }

    pub(super) fn has_room(&self) -> bool {
        self.backlog_bytes < self.backlog_bytes_max
    }

    pub(super) fn held(&self) -> Held {
        let buckets = self.buckets.len() * size_of::<(BucketId, Pulled)>();
        let names = self.behind.len() + self.to_look_up.len() + self.ready.len();
        let list_bytes = buckets
            + names * size_of::<BucketId>()
            + (self.known_at_first.len() + self.told.len()) * size_of::<Moment>();
        Held { record_bytes: self.backlog_bytes, list_bytes, ..Held::default() }
    }

    /// Whether everything that the peer has offered is applied.
    pub(super) fn is_idle(&self) -> bool {
        self.offers_seen > 0 && self.applying.is_none() && self.behind.is_empty()
    }

    /// Whether everything is applied that the peer held when it introduced itself, of what is read here.
    pub(super) fn has_read_all(&self) -> bool {
        self.is_idle() && !self.more_offers
    }

    /// Pages, offers and haves dealt with.
    pub(super) fn dealt_with(&self) -> u64 {
        self.dealt_with
    }

    pub(super) fn rows_behind(&self) -> u64 {
        // Heads are what the peer says: they may add up to more than a number holds.
        let behind = self.buckets.values().map(|pulled| pulled.head.0.saturating_sub(pulled.applied.0));
        behind.fold(0, u64::saturating_add)
    }
}
