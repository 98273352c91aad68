//! Answers pulls: reads pages of the feeds here and sends them one after the other, bucket by bucket in turn, then again
//! whenever a feed has grown.
//!
//! At most one page is being read and one waits for the lane, so memory stays flat however slow the peer reads.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::credit::Credit;
use super::{DiskRequest, Event, Held, Outbox, Scope, Selection, Violation};
use crate::id::{BucketId, Epoch, Seq};
use crate::lineage::Moment;
use crate::store::{BucketHead, Page, Peer};
use crate::wire::frame::OFFER_BUCKETS_MAX;
use crate::wire::{Lane, Message, Offered};

/// Pages are never larger, whatever the peer asks for, in bytes.
pub const PAGE_BUDGET_BYTES_MAX: u32 = 1024 * 1024;
/// Nor smaller.
pub const PAGE_BUDGET_BYTES_MIN: u32 = 4 * 1024;

#[derive(Debug)]
pub(super) struct Server {
    scope: Scope,
    /// What this end wants itself: of the rest it follows how far the peer has it. While all is read anew, nothing is given.
    selection: Selection,
    epoch: Epoch,
    peer: Peer,
    /// Whether the peer could be asked to give back what it got from here.
    gives_back: bool,
    heads_known: bool,
    /// With the last row when the session began, where that is known.
    offered: BTreeMap<BucketId, Option<Seq>>,
    serving: BTreeMap<BucketId, Serving>,
    /// Buckets to read a page of, in turn.
    queue: VecDeque<BucketId>,
    reading: Option<BucketId>,
    waiting: Option<Message>,
    lane_busy: bool,
    /// Buckets that came up before the first offer was made.
    early_changes: BTreeSet<BucketId>,
    /// Rows in pages that have gone out.
    rows_sent: u64,
}

#[derive(Debug)]
struct Serving {
    /// Where the peer began to read.
    from: Seq,
    at: Seq,
    /// The last row of the pages that were sent, and of what the peer is known to have made durable.
    sent: Seq,
    held_by_peer: Option<Seq>,
    own_too: bool,
    page_bytes: u32,
    answered: bool,
    queued: bool,
    /// The feed has grown while a page was being read.
    grown: bool,
}

impl Server {
    pub(super) fn new(scope: Scope, epoch: Epoch) -> Self {
        Self {
            scope,
            selection: Selection::default(),
            epoch,
            peer: Peer::NOBODY,
            gives_back: false,
            heads_known: false,
            offered: BTreeMap::new(),
            serving: BTreeMap::new(),
            queue: VecDeque::new(),
            reading: None,
            waiting: None,
            lane_busy: false,
            early_changes: BTreeSet::new(),
            rows_sent: 0,
        }
    }

    pub(super) fn select(&mut self, selection: Selection) {
        self.selection = selection;
    }

    pub(super) fn open(&mut self, peer: Peer, gives_back: bool) {
        self.peer = peer;
        self.gives_back = gives_back;
    }

    pub(super) fn take_heads(&mut self, heads: &[BucketHead], out: &mut Outbox) {
        self.heads_known = true;
        let mut offers: Vec<Offered> = Vec::new();
        let held = heads.iter().map(|&BucketHead { bucket, head }| (bucket, Some(head)));
        let early = std::mem::take(&mut self.early_changes).into_iter().map(|bucket| (bucket, None));
        for (bucket, head) in held.chain(early) {
            if self.scope.contains(bucket)
                && let Entry::Vacant(entry) = self.offered.entry(bucket)
            {
                entry.insert(head);
                offers.push(Offered { bucket, head: head.unwrap_or_default() });
            }
        }
        for offer in offers.chunks(OFFER_BUCKETS_MAX) {
            out.control(Message::Offer(offer.to_vec()));
        }
        // The peer waits for one that is not full: that was all.
        if offers.len().is_multiple_of(OFFER_BUCKETS_MAX) {
            out.control(Message::Offer(Vec::new()));
        }
    }

    pub(super) fn local_change(&mut self, bucket: BucketId, out: &mut Outbox) {
        if !self.scope.contains(bucket) {
            return;
        }
        if !self.heads_known {
            self.early_changes.insert(bucket);
            return;
        }
        if let Entry::Vacant(entry) = self.offered.entry(bucket) {
            entry.insert(None);
            out.control(Message::Offer(vec![Offered { bucket, head: Seq::default() }]));
        }
        self.enqueue(bucket);
    }

    fn enqueue(&mut self, bucket: BucketId) {
        let Some(serving) = self.serving.get_mut(&bucket) else { return };
        if self.reading == Some(bucket) {
            serving.grown = true;
        } else if !serving.queued {
            serving.queued = true;
            self.queue.push_back(bucket);
        }
    }

    pub(super) fn take_pull(
        &mut self,
        (bucket, after, epoch): (BucketId, Seq, Epoch),
        page_bytes: u32,
        own_too: bool,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let Some(&head) = self.offered.get(&bucket) else {
            return Err(Violation::new(format!("a pull of {bucket}, which was not offered")));
        };
        if epoch != self.epoch {
            return Err(Violation::new(format!("a pull of {bucket} in an epoch that is not this one")));
        }
        if self.serving.contains_key(&bucket) {
            return Err(Violation::new(format!("a second pull of {bucket}")));
        }
        if let Some(head) = head.filter(|&head| after > head) {
            // To go on would skip rows: the peer lies, or this store went back without a new epoch.
            return Err(Violation::new(format!(
                "a pull of {bucket} after row {}, which ends at row {}",
                after.0, head.0
            )));
        }
        let page_bytes = page_bytes.clamp(PAGE_BUDGET_BYTES_MIN, PAGE_BUDGET_BYTES_MAX);
        // Its place in the feed is durable there.
        let told = self.gives_back && !self.selection.wants(bucket);
        if told {
            out.event(Event::HeldByPeer { bucket, upto: after });
        }
        let serving = Serving {
            from: after,
            at: after,
            sent: after,
            held_by_peer: told.then_some(after),
            own_too,
            page_bytes,
            answered: false,
            queued: false,
            grown: false,
        };
        self.serving.insert(bucket, serving);
        self.enqueue(bucket);
        Ok(())
    }

    pub(super) fn take_page(&mut self, bucket: BucketId, page: &Page, moment: Option<Moment>) {
        self.reading = None;
        let Some(serving) = self.serving.get_mut(&bucket) else { return };
        let says_something = page.next > serving.at || !serving.answered;
        // A cursor ahead of a feed whose head was not known stays put.
        let next = page.next.max(serving.at);
        serving.at = next;
        serving.answered = true;
        let again = page.more || std::mem::take(&mut serving.grown);
        if says_something {
            let records = page.records.iter().map(crate::record::Record::encode).collect();
            self.waiting = Some(Message::Page { bucket, next, more: page.more, records, moment });
        }
        if again {
            self.enqueue(bucket);
        }
    }

    pub(super) fn lane_drained(&mut self) {
        self.lane_busy = false;
    }

    pub(super) fn pump(&mut self, credit: &mut Credit, out: &mut Outbox) {
        if !self.lane_busy
            && credit.lets_records()
            && let Some(message) = self.waiting.take()
        {
            self.lane_busy = true;
            if let Message::Page { bucket, next, records, .. } = &message {
                credit.note_page(records);
                self.rows_sent += records.len() as u64;
                if let Some(serving) = self.serving.get_mut(bucket) {
                    serving.sent = *next;
                }
            }
            out.send(Lane::Records, message);
        }
        if !self.selection.all_anew
            && self.reading.is_none()
            && self.waiting.is_none()
            && let Some(bucket) = self.queue.pop_front()
            && let Some(serving) = self.serving.get_mut(&bucket)
        {
            serving.queued = false;
            self.reading = Some(bucket);
            out.disk(DiskRequest::Page {
                bucket,
                after: serving.at,
                reader: if serving.own_too { Peer::NOBODY } else { self.peer },
                budget_bytes: serving.page_bytes,
            });
        }
    }

    pub(super) fn rows_sent(&self) -> u64 {
        self.rows_sent
    }

    /// Tells how far the peer holds the buckets that are not wanted here, now that it has dealt with all that was sent. It
    /// is told only if the peer would give them back.
    pub(super) fn all_is_dealt_with(&mut self, out: &mut Outbox) {
        if !self.gives_back {
            return;
        }
        for (&bucket, serving) in &mut self.serving {
            if !self.selection.wants(bucket) && serving.held_by_peer != Some(serving.sent) {
                serving.held_by_peer = Some(serving.sent);
                out.event(Event::HeldByPeer { bucket, upto: serving.sent });
            }
        }
    }

    /// Whether the peer has said of all that was offered how far it has it.
    pub(super) fn is_pulled_whole(&self) -> bool {
        self.heads_known && self.serving.len() == self.offered.len()
    }

    /// Who the peer is, and how far it had the feeds here when it began to read them.
    pub(super) fn pulled(&self) -> (Peer, Vec<BucketHead>) {
        let pulled = self.serving.iter().map(|(&bucket, serving)| BucketHead { bucket, head: serving.from });
        (self.peer, pulled.collect())
    }

    pub(super) fn held(&self) -> Held {
        let record_bytes = match &self.waiting {
            Some(Message::Page { records, .. }) => records.iter().map(Vec::len).sum(),
            _ => 0,
        };
        let names = self.queue.len() + self.early_changes.len();
        let list_bytes = self.offered.len() * size_of::<(BucketId, Option<Seq>)>()
            + self.serving.len() * size_of::<(BucketId, Serving)>()
            + names * size_of::<BucketId>();
        Held { record_bytes, list_bytes, ..Held::default() }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.heads_known && self.queue.is_empty() && self.reading.is_none() && self.waiting.is_none() && !self.lane_busy
    }
}
