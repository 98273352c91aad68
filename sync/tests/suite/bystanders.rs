//! A peer that lies costs itself its session and nobody else anything: while it lies to the bridge, an honest node holds a
//! session over the same stores, and must not notice.

use std::collections::VecDeque;

use alexandria_sync::chunk::{BlobHash, Chunk, ChunkHash, Chunking, Manifest};
use alexandria_sync::id::{Epoch, Seq};
use alexandria_sync::record::Record;
use alexandria_sync::session::{Collections, Config, DiskRequest, Event, Input, Output, Scope, Session};
use alexandria_sync::sim;
use alexandria_sync::wire::{CloseReason, Lane, Message, Offered};
use bytes::Bytes;

use crate::fleet::{NOW_UNIX_S, Site, node_id};
use crate::liars::{BUCKET, Victim, author, blob_record, hello, page};

const NOW_UNIX_MS: u64 = NOW_UNIX_S * 1000;

/// An honest node and the bridge, in a session that goes on one message at a time.
struct Bystanders {
    /// The bridge, then the node.
    ends: [(Site, Session); 2],
    on_the_way: VecDeque<(usize, Lane, Message)>,
    quiet: [bool; 2],
    now_ms: u64,
}

impl Bystanders {
    fn at(bridge: Site) -> Self {
        let node = Site::new(3);
        let scope = Scope { site: node.id, collections: Collections::All };
        bridge.blobs.permit(node.id, scope.clone());
        node.blobs.permit(bridge.id, scope.clone());
        let session = |site: &Site, peer| Session::new(Config::default(), site.hello(), peer, scope.clone(), 0);
        let (here, there) = (session(&bridge, node.id), session(&node, bridge.id));
        let ends = [(bridge, here), (node, there)];
        Self { ends, on_the_way: VecDeque::new(), quiet: [false; 2], now_ms: 0 }
    }

    /// One message arrives. Tells whether there was one.
    fn step(&mut self) -> bool {
        for from in 0..2 {
            self.drain(from);
        }
        let Some((to, lane, message)) = self.on_the_way.pop_front() else { return false };
        self.ends[to].1.handle(Input::Message(lane, message), self.now_ms);
        self.drain(to);
        true
    }

    fn drain(&mut self, from: usize) {
        let peer = self.ends[1 - from].0.id;
        let (site, session) = &mut self.ends[from];
        while let Some(output) = session.poll() {
            match output {
                Output::Send(lane, message) => {
                    self.on_the_way.push_back((1 - from, lane, message));
                    session.handle(Input::LaneDrained(lane), self.now_ms);
                }
                Output::Disk(request) => {
                    if let Some(done) = sim::carry_out(request, peer, &site.records, &site.blobs) {
                        session.handle(Input::Disk(done), self.now_ms);
                    }
                }
                Output::Event(event) => self.quiet[from] = matches!(event, Event::Quiet),
                Output::Closed(closed) => panic!("the honest session ended: {closed:?}"),
            }
        }
    }

    /// Whatever changes at the bridge is told to its session, as the host does.
    fn bridge_changed(&mut self) {
        self.ends[0].1.handle(Input::LocalChange(BUCKET), self.now_ms);
    }

    /// Until all is said, timers included.
    fn come_to_rest(&mut self) {
        for _ in 0..10 {
            while self.step() {}
            let timers = self.ends.iter().filter_map(|(_, session)| session.next_timeout());
            let Some(at_ms) = timers.min() else { break };
            self.now_ms = self.now_ms.max(at_ms);
            for (_, session) in &mut self.ends {
                session.handle(Input::Timer, self.now_ms);
            }
        }
    }
}

/// Content that both the liar and the honest node say they have.
const CONTENT: [&[u8]; 2] = [b"first half, ", b"second half"];

fn content() -> (Manifest, Bytes) {
    let chunks = CONTENT.iter().map(|piece| Chunk { len: piece.len() as u32, hash: ChunkHash::of(piece) }).collect();
    let bytes = CONTENT.concat();
    (Manifest::new(BlobHash::of(&bytes), Chunking::Fixed, chunks).expect("it is small"), bytes.into())
}

/// Lets the liar say `lies` after its hello, one between any two messages of the honest session; its session then ends with a
/// violation that says `found_out`, or goes on. The honest session comes to the end that it would have come to alone.
fn lie(lies: impl IntoIterator<Item = Message>, found_out: Option<&str>) -> Victim {
    let bridge = Site::new(2);
    bridge.write_authors(3);
    let mut bystanders = Bystanders::at(bridge.clone());
    let honest = bystanders.ends[1].0.clone();
    honest.write_authors(300);
    let (manifest, bytes) = content();
    let blob = manifest.blob();
    let record = blob_record(blob);
    honest.records.write(record.key, |_, _| Some(record.clone()));
    honest.blobs.import(manifest, bytes.clone());

    let mut victim = Victim::at(bridge.clone());
    victim.hear(Message::Hello(hello()));
    for lie in lies {
        if victim.closed.is_some() {
            break;
        }
        victim.hear(lie);
        bystanders.bridge_changed();
        bystanders.step();
    }
    match found_out {
        Some(text) => victim.has_closed(CloseReason::Violation, text),
        None => victim.is_well(),
    }
    // What the driver does at the end of a session.
    let unfinished: Vec<DiskRequest> = victim.session.receiving().collect();
    for request in unfinished {
        sim::carry_out(request, node_id(1), &bridge.records, &bridge.blobs);
    }
    bystanders.come_to_rest();

    assert_eq!(bystanders.quiet, [true; 2], "the honest session came to rest");
    assert_eq!(honest.records.all(), bridge.records.all(), "both honest replicas hold the same");
    assert_eq!(bridge.records.all().iter().filter(|record| record.newest_stamp().node == honest.id).count(), 300);
    assert_eq!(bridge.blobs.whole(blob), Some(bytes), "the content came from the honest node");
    assert_eq!((bridge.records.feed_fault(), bridge.blobs.unverified()), (None, None));
    // The next edit here is of today.
    bridge.write_authors(1);
    let newest = bridge.records.all().iter().map(Record::newest_stamp).max().expect("there are some");
    assert!(newest.time.unix_ms() < NOW_UNIX_MS + 1000);
    victim
}

fn offer(head: u64) -> Message {
    Message::Offer(vec![Offered { bucket: BUCKET, head: Seq(head) }])
}

/// It says that it has the content too, sooner than the honest node does, and so is asked for it first.
fn wrong_content(chunk: &'static [u8]) -> [Message; 4] {
    let (manifest, _) = content();
    let blob = manifest.blob();
    [
        offer(1),
        page(1, vec![blob_record(blob).encode()]),
        Message::Manifest { blob, manifest: Some(manifest.to_bytes()) },
        Message::Chunk { blob, index: 0, bytes: Bytes::from_static(chunk) },
    ]
}

#[test]
fn a_wrong_hash_costs_nobody_else_anything() {
    lie(wrong_content(b"f1rst half, "), Some("does not match its hash"));
    lie(wrong_content(b"first"), Some("has 5 bytes, not 12"));
    let (manifest, _) = content();
    let blob = manifest.blob();
    let [offer, record, ..] = wrong_content(b"");
    let trash = Chunk { len: 5, hash: ChunkHash::of(b"trash") };
    let lying = Manifest::new(blob, Chunking::Fixed, vec![trash]).expect("it is small").to_bytes();
    let manifest = Message::Manifest { blob, manifest: Some(lying) };
    let chunk = Message::Chunk { blob, index: 0, bytes: Bytes::from_static(b"trash") };
    lie([offer, record, manifest, chunk], Some("does not match its hash"));
}

/// It claims the content, and then says nothing more: the honest node waits for it no longer than its session lasts.
#[test]
fn content_that_is_claimed_and_never_sent_comes_from_elsewhere_once_the_claim_ends() {
    let [offer, record, manifest, _] = wrong_content(b"");
    lie([offer, record, manifest], None);
}

#[test]
fn an_endless_page_costs_nobody_else_anything() {
    let stands_still = Message::Page { bucket: BUCKET, next: Seq(3), more: true, records: vec![], moment: None };
    let first = page(3, vec![author(1, NOW_UNIX_MS).encode()]);
    lie([offer(3), first, stands_still], Some("does not move on from row 3"));
    // One that moves on for ever, with nothing in it, keeps its own session from coming to rest.
    let moves_on = (1..2000).map(|next| Message::Page {
        bucket: BUCKET,
        next: Seq(next),
        more: true,
        records: vec![],
        moment: None,
    });
    lie([offer(u64::MAX)].into_iter().chain(moves_on), None);
}

#[test]
fn a_cursor_in_the_future_costs_nobody_else_anything() {
    let pull =
        Message::Pull { bucket: BUCKET, after: Seq(u64::MAX), epoch: Epoch(1), page_bytes: 4096, own_too: false };
    lie([pull], Some("which ends at row"));
    // The end of its own feed is where it says; there is nothing after that.
    let end = page(u64::MAX, vec![author(1, NOW_UNIX_MS).encode()]);
    let after = page(u64::MAX, vec![author(2, NOW_UNIX_MS).encode()]);
    lie([offer(1), end, after], Some("does not move on from row 18446744073709551615"));
}

#[test]
fn a_stamp_of_2099_costs_nobody_else_anything() {
    const Y2099_UNIX_MS: u64 = 4_070_908_800_000;
    let records = vec![author(1, Y2099_UNIX_MS).encode(), author(2, NOW_UNIX_MS).encode()];
    let victim = lie([offer(2), page(2, records)], None);
    assert_eq!(victim.site.records.quarantined(), [author(1, Y2099_UNIX_MS)]);
}

/// Heads that add up to more than a number holds.
#[test]
fn heads_without_end_are_told_as_progress_without_harm() {
    let buckets = [BUCKET, alexandria_sync::id::BucketId::Site(node_id(1))];
    let offers = buckets.map(|bucket| Message::Offer(vec![Offered { bucket, head: Seq(u64::MAX) }]));
    let victim = lie(offers, None);
    assert_eq!(victim.session.progress().rows_behind, u64::MAX);
}
