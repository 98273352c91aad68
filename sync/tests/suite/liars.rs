//! Peers that lie, flood or stay silent: each ends its own session, with the reason, and changes nothing here.

use std::sync::Arc;

use alexandria_sync::chunk::{BlobHash, Chunk, ChunkHash, Chunking, Manifest};
use alexandria_sync::domain::{Author, Typed};
use alexandria_sync::hlc::{ClockQuality, HlcTime, Stamp};
use alexandria_sync::id::{BucketId, Epoch, Incarnation, RecordId, Seq};
use alexandria_sync::record::Record;
use alexandria_sync::session::{
    Closed, Collections, Config, DiskDone, DiskRequest, Event, Input, Output, Scope, Session, WriteFailure,
};
use alexandria_sync::sim;
use alexandria_sync::wire::{Class, CloseReason, Hello, Lane, Message, Offered, PROTOCOL_MAX};
use bytes::Bytes;

use crate::fleet::{NOW_UNIX_S, Site, node_id};

pub(crate) const BUCKET: BucketId = BucketId::Catalogue;

/// A bridge in a session with the liar, which is node 1.
pub(crate) struct Victim {
    pub(crate) site: Site,
    pub(crate) session: Session,
    pub(crate) sent: Vec<Message>,
    pub(crate) events: Vec<Event>,
    pub(crate) closed: Option<Closed>,
    /// Whether its disk answers; if not, what it was asked.
    disk_works: bool,
    asked: Vec<DiskRequest>,
    now_ms: u64,
}

impl Victim {
    pub(crate) fn new() -> Self {
        Self::at(Site::new(2))
    }

    /// One over stores that others use too.
    pub(crate) fn at(site: Site) -> Self {
        let scope = Scope { site: node_id(1), collections: Collections::Only([collection()].into()) };
        site.blobs.permit(node_id(1), scope.clone());
        let session = Session::new(Config::default(), site.hello(), node_id(1), scope, 0);
        let mut victim = Self {
            site,
            session,
            sent: Vec::new(),
            events: Vec::new(),
            closed: None,
            disk_works: true,
            asked: Vec::new(),
            now_ms: 0,
        };
        victim.drain();
        victim
    }

    /// One that has heard an honest hello.
    pub(crate) fn after_hello() -> Self {
        let mut victim = Self::new();
        victim.hear(Message::Hello(hello()));
        victim
    }

    /// One that pulls the catalogue, from its beginning.
    fn pulling() -> Self {
        let mut victim = Self::after_hello();
        victim.hear(Message::Offer(vec![Offered { bucket: BUCKET, head: Seq(5) }]));
        assert!(victim.sent.iter().any(|message| matches!(message, Message::Pull { bucket: BUCKET, .. })));
        victim
    }

    /// One that has asked for the manifest of a blob to which it holds a record.
    pub(crate) fn wanting(blob: BlobHash) -> Self {
        let mut victim = Self::pulling();
        victim.hear(page(1, vec![blob_record(blob).encode()]));
        assert!(victim.sent.contains(&Message::ManifestAsk { blob }), "{:?}", victim.sent);
        victim
    }

    /// One that has asked for the chunks of `content`.
    fn fetching(content: &[u8]) -> Self {
        Self::fetching_by(&manifest_of(content))
    }

    /// The same, cut as the manifest says.
    fn fetching_by(manifest: &Manifest) -> Self {
        let blob = manifest.blob();
        let mut victim = Self::wanting(blob);
        victim.hear(Message::Manifest { blob, manifest: Some(manifest.to_bytes()) });
        let is_asked =
            |message: &Message| matches!(message, Message::ChunkAsk { blob: asked, index: 0, .. } if *asked == blob);
        assert!(victim.sent.iter().any(is_asked));
        victim
    }

    pub(crate) fn hear(&mut self, message: Message) {
        let lane = message.lane();
        self.hear_on(lane, message);
    }

    fn hear_on(&mut self, lane: Lane, message: Message) {
        self.handle(Input::Message(lane, message));
    }

    pub(crate) fn handle(&mut self, input: Input) {
        self.session.handle(input, self.now_ms);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(lane, message) => {
                    self.sent.push(message);
                    self.session.handle(Input::LaneDrained(lane), self.now_ms);
                }
                Output::Disk(request) if self.disk_works => self.carry_out(request),
                Output::Disk(request) => self.asked.push(request),
                Output::Event(event) => self.events.push(event),
                Output::Closed(closed) => self.closed = Some(closed),
            }
        }
    }

    fn carry_out(&mut self, request: DiskRequest) {
        if let Some(done) = sim::carry_out(request, node_id(1), &self.site.records, &self.site.blobs) {
            self.session.handle(Input::Disk(done), self.now_ms);
        }
    }

    #[track_caller]
    pub(crate) fn has_closed(&self, reason: CloseReason, text: &str) {
        let closed = self.closed.as_ref().expect("the session is closed");
        assert_eq!((closed.reason, closed.by_peer), (reason, false), "{}", closed.text);
        assert!(closed.text.contains(text), "`{}` does not say `{text}`", closed.text);
        let told = Message::Close { reason, text: closed.text.clone() };
        assert_eq!(self.sent.last(), Some(&told), "the peer is told");
    }

    #[track_caller]
    pub(crate) fn is_well(&self) {
        assert_eq!(self.closed, None);
    }
}

pub(crate) fn collection() -> RecordId {
    RecordId::derived(&[b"the collection"])
}

pub(crate) fn hello() -> Hello {
    Hello { node: node_id(1), incarnation: Incarnation(1), ..Site::new(1).hello() }
}

pub(crate) fn page(next: u64, records: Vec<Vec<u8>>) -> Message {
    Message::Page { bucket: BUCKET, next: Seq(next), more: false, records, moment: None }
}

pub(crate) fn author(number: u8, unix_ms: u64) -> Record {
    let stamp = Stamp {
        time: HlcTime::from_unix_ms(unix_ms),
        node: node_id(1),
        incarnation: Incarnation(1),
        quality: ClockQuality::Trusted,
    };
    let author = Author { name: "A. Liar".into(), ..Author::default() };
    author.to_record(BUCKET, RecordId::derived(&[&[number]]), stamp)
}

pub(crate) fn blob_record(blob: BlobHash) -> Record {
    let stamp = Stamp { node: node_id(1), ..author(0, NOW_UNIX_S * 1000).newest_stamp() };
    let typed = alexandria_sync::domain::Blob { hash: Some(blob), size_bytes: 1, media_type: "video/mp4".into() };
    typed.to_record(BUCKET, alexandria_sync::domain::Blob::record_id(blob), stamp)
}

pub(crate) fn manifest_of(content: &[u8]) -> Manifest {
    let chunk = Chunk { len: content.len() as u32, hash: ChunkHash::of(content) };
    Manifest::new(BlobHash::of(content), Chunking::Fixed, vec![chunk]).unwrap()
}

#[test]
fn a_hello_of_another_node_than_the_certificate_names_is_not_welcome() {
    for node in [node_id(3), node_id(2)] {
        let mut victim = Victim::new();
        victim.hear(Message::Hello(Hello { node, ..hello() }));
        victim.has_closed(CloseReason::NotWelcome, "the certificate is not that of node");
    }
}

#[test]
fn who_speaks_no_common_version_is_told_so() {
    for (protocol_min, protocol_max) in [(PROTOCOL_MAX + 1, PROTOCOL_MAX + 3), (0, 0), (2, 1)] {
        let mut victim = Victim::new();
        victim.hear(Message::Hello(Hello { protocol_min, protocol_max, ..hello() }));
        victim.has_closed(CloseReason::NoCommonVersion, "is spoken here");
    }
}

#[test]
fn nothing_comes_before_the_hello_and_the_hello_comes_once_and_in_time() {
    let mut early = Victim::new();
    early.hear(Message::Quiet { dealt_with: 0 });
    early.has_closed(CloseReason::Violation, "before the hello");

    let mut twice = Victim::after_hello();
    twice.hear(Message::Hello(hello()));
    twice.has_closed(CloseReason::Violation, "a second hello");

    let mut silent = Victim::new();
    silent.now_ms = silent.session.next_timeout().expect("a hello has a deadline");
    silent.handle(Input::Timer);
    silent.has_closed(CloseReason::Violation, "no hello within its deadline");
}

#[test]
fn a_message_in_the_wrong_lane_is_refused() {
    let mut victim = Victim::pulling();
    victim.hear_on(Lane::Control, page(1, vec![]));
    victim.has_closed(CloseReason::Violation, "wrong lane");
}

#[test]
fn a_page_that_was_not_pulled_or_does_not_move_on_is_refused() {
    let mut unasked = Victim::after_hello();
    unasked.hear(page(1, vec![]));
    unasked.has_closed(CloseReason::Violation, "which was not pulled");

    let mut backwards = Victim::pulling();
    backwards.hear(page(3, vec![author(1, NOW_UNIX_S * 1000).encode()]));
    backwards.hear(page(2, vec![author(2, NOW_UNIX_S * 1000).encode()]));
    backwards.has_closed(CloseReason::Violation, "does not move on from row 3");

    // It would never end.
    let mut endless = Victim::pulling();
    endless.hear(page(3, vec![author(1, NOW_UNIX_S * 1000).encode()]));
    endless.hear(Message::Page { bucket: BUCKET, next: Seq(3), more: true, records: vec![], moment: None });
    endless.has_closed(CloseReason::Violation, "does not move on from row 3");
}

#[test]
fn a_page_with_a_record_that_is_none_is_refused_whole() {
    let mut victim = Victim::pulling();
    victim.hear(page(2, vec![author(1, NOW_UNIX_S * 1000).encode(), vec![0xff; 10]]));
    victim.has_closed(CloseReason::Violation, "a bad record");
    assert!(victim.site.records.all().is_empty());
}

#[test]
fn a_page_of_a_bucket_out_of_scope_is_neither_pulled_nor_taken_nor_served() {
    let foreign = BucketId::Site(node_id(9));
    let other_collection = BucketId::Collection(RecordId::derived(&[b"another"]));
    for bucket in [foreign, other_collection] {
        let mut victim = Victim::after_hello();
        victim.hear(Message::Offer(vec![Offered { bucket, head: Seq(1) }]));
        assert!(!victim.sent.iter().any(|message| matches!(message, Message::Pull { .. })));
        victim.is_well();
        victim.hear(Message::Page { bucket, next: Seq(1), more: false, records: vec![], moment: None });
        victim.has_closed(CloseReason::Violation, "which was not pulled");

        let mut curious = Victim::after_hello();
        curious.handle(Input::LocalChange(bucket));
        curious.hear(Message::Pull { bucket, after: Seq(0), epoch: Epoch(1), page_bytes: 4096, own_too: false });
        curious.has_closed(CloseReason::Violation, "which was not offered");
    }
}

#[test]
fn a_pull_from_the_future_in_another_life_or_twice_is_refused() {
    let pull = |after, epoch| Message::Pull {
        bucket: BUCKET,
        after: Seq(after),
        epoch: Epoch(epoch),
        page_bytes: 1,
        own_too: false,
    };
    let serving = || {
        let site = Site::new(2);
        site.write_authors(2);
        let mut victim = Victim::new();
        victim.site.write_authors(2);
        victim.hear(Message::Hello(hello()));
        victim
    };
    for after in [3, u64::MAX] {
        let mut victim = serving();
        victim.hear(pull(after, 1));
        victim.has_closed(CloseReason::Violation, "which ends at row 2");
    }
    let mut other_life = serving();
    other_life.hear(pull(0, 7));
    other_life.has_closed(CloseReason::Violation, "in an epoch that is not this one");
    let mut twice = serving();
    twice.hear(pull(0, 1));
    twice.is_well();
    twice.hear(pull(0, 1));
    twice.has_closed(CloseReason::Violation, "a second pull");
}

/// The year 2099 is refused by a trusted clock, one record at a time: the session and everyone else go on.
#[test]
fn a_stamp_of_2099_is_set_aside_and_moves_no_clock() {
    const Y2099_UNIX_MS: u64 = 4_070_908_800_000;
    let mut victim = Victim::pulling();
    victim.hear(page(2, vec![author(1, Y2099_UNIX_MS).encode(), author(2, NOW_UNIX_S * 1000).encode()]));
    victim.is_well();
    let applied = victim.events.iter().find_map(|event| match event {
        Event::Applied(_, applied) => Some((applied.applied, applied.superseded, applied.quarantined)),
        _ => None,
    });
    assert_eq!(applied, Some((1, 0, 1)));
    assert_eq!(victim.site.records.quarantined(), [author(1, Y2099_UNIX_MS)]);
    victim.site.write_authors(1);
    let newest = victim.site.records.all().iter().map(Record::newest_stamp).max().unwrap();
    assert!(newest.time.unix_ms() < NOW_UNIX_S * 1000 + 1000);
}

#[test]
fn content_that_was_not_asked_for_is_refused() {
    let (blob, other) = (BlobHash::of(b"content"), BlobHash::of(b"other"));
    let mut manifest = Victim::after_hello();
    manifest.hear(Message::Manifest { blob, manifest: None });
    manifest.has_closed(CloseReason::Violation, "which was not asked for");

    let mut chunk = Victim::after_hello();
    chunk.hear(Message::Chunk { blob, index: 0, bytes: Bytes::from_static(b"content") });
    chunk.has_closed(CloseReason::Violation, "which was not asked for");

    let mut exchanged = Victim::wanting(blob);
    exchanged.hear(Message::Manifest { blob, manifest: Some(manifest_of(b"other").to_bytes()) });
    exchanged.has_closed(CloseReason::Violation, &format!("a manifest of {other} for {blob}"));

    let mut garbled = Victim::wanting(blob);
    garbled.hear(Message::Manifest { blob, manifest: Some(vec![0x83, 0x00]) });
    garbled.has_closed(CloseReason::Violation, "malformed manifest");
}

#[test]
fn content_that_is_not_what_its_hash_says_is_refused_and_not_kept() {
    let blob = BlobHash::of(b"content");
    let mut wrong = Victim::fetching(b"content");
    wrong.hear(Message::Chunk { blob, index: 0, bytes: Bytes::from_static(b"c0ntent") });
    wrong.has_closed(CloseReason::Violation, "does not match its hash");
    assert!(wrong.site.blobs.whole(blob).is_none() && !wrong.site.blobs.has_durable(blob, 0));

    let mut short = Victim::fetching(b"content");
    short.hear(Message::Chunk { blob, index: 0, bytes: Bytes::from_static(b"cont") });
    short.has_closed(CloseReason::Violation, "has 4 bytes, not 7");

    let mut twice = Victim::fetching(b"content");
    twice.hear(Message::Chunk { blob, index: 0, bytes: Bytes::from_static(b"content") });
    twice.is_well();
    assert!(twice.site.blobs.whole(blob).is_some());
    twice.hear(Message::Chunk { blob, index: 0, bytes: Bytes::from_static(b"content") });
    twice.has_closed(CloseReason::Violation, "which was not asked for");
}

/// Every chunk is what the manifest says, and the manifest is not what the blob's name says.
#[test]
fn a_manifest_whose_chunks_are_not_the_blob_is_found_out_at_the_end() {
    let blob = BlobHash::of(b"content");
    let chunk = Chunk { len: 5, hash: ChunkHash::of(b"trash") };
    let lie = Manifest::new(blob, Chunking::Fixed, vec![chunk]).unwrap();
    let mut victim = Victim::wanting(blob);
    victim.hear(Message::Manifest { blob, manifest: Some(lie.to_bytes()) });
    victim.hear(Message::Chunk { blob, index: 0, bytes: Bytes::from_static(b"trash") });
    victim.has_closed(CloseReason::Violation, "does not match its hash");
    assert!(victim.site.blobs.whole_blobs().is_empty() && !victim.site.blobs.has_durable(blob, 0));
}

#[test]
fn a_flood_of_asks_is_refused_before_it_fills_the_memory() {
    let flood = |ask: &dyn Fn(u32) -> Message| {
        let mut victim = Victim::after_hello();
        victim.disk_works = false;
        for number in 0..10_000 {
            victim.hear(ask(number));
            if victim.closed.is_some() {
                return victim;
            }
        }
        panic!("a flood was taken in");
    };
    let blob = |number: u32| BlobHash::of(&number.to_be_bytes());
    flood(&|number| Message::ManifestAsk { blob: blob(number) }).has_closed(CloseReason::Violation, "asks at once");

    // Lanes that never drain: answers pile up nowhere either.
    let mut stuck = Victim::after_hello();
    let mut asks = 0;
    while stuck.closed.is_none() && asks < 10_000 {
        asks += 1;
        let class = if asks % 2 == 0 { Class::Reader } else { Class::Background };
        let ask = Message::ChunkAsk { blob: blob(asks), index: 0, class };
        stuck.session.handle(Input::Message(Lane::Control, ask), 0);
        while let Some(output) = stuck.session.poll() {
            if let Output::Closed(closed) = output {
                stuck.closed = Some(closed);
            }
        }
    }
    assert!(stuck.closed.is_some_and(|closed| closed.text.contains("asks at once")));
}

#[test]
fn an_offer_of_endless_buckets_is_refused_and_looked_up_a_few_at_a_time() {
    let scope = Scope { site: node_id(1), collections: Collections::All };
    let site = Site::new(2);
    let mut session = Session::new(Config::default(), site.hello(), node_id(1), scope, 0);
    session.handle(Input::Message(Lane::Control, Message::Hello(hello())), 0);
    let (mut lookups, mut closed) = (0, None);
    for offer in 0u32..11 {
        let bucket =
            |number: u32| BucketId::Collection(RecordId::derived(&[&offer.to_be_bytes(), &number.to_be_bytes()]));
        let offered = (0..10_000).map(|number| Offered { bucket: bucket(number), head: Seq(1) }).collect();
        session.handle(Input::Message(Lane::Control, Message::Offer(offered)), 0);
        while let Some(output) = session.poll() {
            match output {
                Output::Disk(DiskRequest::Cursor(..)) => lookups += 1,
                Output::Closed(reason) => closed = Some(reason),
                _ => {}
            }
        }
    }
    assert!(lookups <= 64, "{lookups} lookups at once");
    assert_eq!(closed.map(|closed| closed.reason), Some(CloseReason::Violation));
}

/// Records that are applied slower than they come hold their lane back, and only that one.
#[test]
fn a_peer_that_sends_faster_than_the_disk_writes_is_held_back() {
    let mut victim = Victim::pulling();
    victim.disk_works = false;
    let author = Author { name: "x".into(), description: "d".repeat(19_000), ..Author::default() };
    let mut row = 0;
    while victim.session.accepts(Lane::Records) {
        assert!(row < 1_000, "it takes in records without end");
        row += 1;
        let id = RecordId::derived(&[&u32::to_be_bytes(row)]);
        let record = author.to_record(BUCKET, id, Stamp::default());
        victim.hear(page(row.into(), vec![record.encode()]));
    }
    victim.is_well();
    assert!(victim.session.accepts(Lane::Control) && victim.session.accepts(Lane::Content(0)));
}

/// A claim on a blob that another session receives is not let go by the one that found it busy.
#[test]
fn who_finds_a_blob_busy_does_not_release_it() {
    let manifest = manifest_of(b"content");
    let blob = manifest.blob();
    let mut victim = Victim::wanting(blob);
    let elsewhere = sim::carry_out(
        DiskRequest::Begin(Arc::new(manifest.clone())),
        node_id(5),
        &victim.site.records,
        &victim.site.blobs,
    );
    assert!(elsewhere.is_some());
    victim.hear(Message::Manifest { blob, manifest: Some(manifest.to_bytes()) });
    victim.is_well();
    let again =
        sim::carry_out(DiskRequest::Begin(Arc::new(manifest)), node_id(6), &victim.site.records, &victim.site.blobs);
    assert!(matches!(again, Some(DiskDone::Began(_, Err(WriteFailure::Busy)))));
}

/// Another session may begin the blob as soon as it is released: a write that is still under way would go into its file.
#[test]
fn a_blob_that_is_given_up_is_released_only_after_its_last_write() {
    let (one, two) = (b"first half".as_slice(), b"second half".as_slice());
    let chunk = |bytes: &[u8]| Chunk { len: bytes.len() as u32, hash: ChunkHash::of(bytes) };
    let blob = BlobHash::of(&[one, two].concat());
    let manifest = Manifest::new(blob, Chunking::Fixed, vec![chunk(one), chunk(two)]).unwrap();
    let mut victim = Victim::fetching_by(&manifest);
    victim.disk_works = false;
    victim.hear(Message::Chunk { blob, index: 0, bytes: Bytes::from_static(one) });
    victim.hear(Message::Chunk { blob, index: 1, bytes: Bytes::from_static(two) });
    assert_eq!(victim.asked.len(), 2, "{:?}", victim.asked);

    victim.handle(Input::Disk(DiskDone::Wrote(blob, 0, Err(WriteFailure::Full))));
    assert_eq!(victim.asked.len(), 2, "a write is still under way: {:?}", victim.asked);
    assert!(victim.events.iter().any(|event| matches!(event, Event::ContentBlocked)));
    let left: Vec<DiskRequest> = victim.session.receiving().collect();
    assert!(matches!(left[..], [DiskRequest::Release(_)]), "{left:?}");

    victim.handle(Input::Disk(DiskDone::Wrote(blob, 1, Ok(()))));
    assert!(matches!(victim.asked[..], [_, _, DiskRequest::Release(released)] if released == blob));
    victim.is_well();
}

/// While the disk is busy with a sync, the next one that falls due waits for it, and no timer spins.
#[test]
fn a_sync_that_waits_for_the_disk_sets_no_timer_in_the_past() {
    let pieces: Vec<Vec<u8>> = (0u8..3).map(|piece| vec![piece; 10]).collect();
    let chunks = pieces.iter().map(|piece| Chunk { len: 10, hash: ChunkHash::of(piece) }).collect();
    let blob = BlobHash::of(&pieces.concat());
    let manifest = Manifest::new(blob, Chunking::Fixed, chunks).unwrap();
    let mut victim = Victim::fetching_by(&manifest);
    victim.disk_works = false;
    for (index, at_ms) in [(0, 0), (1, 2_500)] {
        victim.now_ms = at_ms;
        victim.hear(Message::Chunk { blob, index, bytes: pieces[index as usize].clone().into() });
        victim.handle(Input::Disk(DiskDone::Wrote(blob, index, Ok(()))));
        victim.now_ms = at_ms + 2_000;
        victim.handle(Input::Timer);
    }
    let syncs = victim.asked.iter().filter(|request| matches!(request, DiskRequest::Sync(_))).count();
    assert_eq!(syncs, 1, "the first is still under way");
    assert!(victim.session.next_timeout().is_none_or(|at_ms| at_ms > victim.now_ms));
    victim.handle(Input::Disk(DiskDone::Synced(blob, Ok(()))));
    let syncs = victim.asked.iter().filter(|request| matches!(request, DiskRequest::Sync(_))).count();
    assert_eq!(syncs, 2, "the second follows at once");
}
