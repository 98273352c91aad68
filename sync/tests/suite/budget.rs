//! Two sessions joined in memory over a narrow link that counts what crosses it: budgets, reserves and classes.

use std::collections::{BTreeMap, VecDeque};

use alexandria_sync::budget::{Account, Hold, Ledger, LinkPolicy, Period, Spent};
use alexandria_sync::chunk::CHUNK_BYTES_MAX;
use alexandria_sync::id::BucketId;
use alexandria_sync::session::{
    Closed, Collections, Config, Event, Input, Output, READER_WAITS_BYTES_MAX, Scope, Session,
};
use alexandria_sync::sim::{self, Seeded};
use alexandria_sync::wire::message::CONTENT_LANES;
use alexandria_sync::wire::{CloseReason, FRAME_HEADER_BYTES, FrameHeader, Lane, Message};
use bytes::Bytes;

use crate::fleet::{NOW_UNIX_S, Site, node_id};

const TICK_MS: u64 = 10;
/// The host says how it stands this often.
const WORD_EVERY_MS: u64 = 100;
const NOW_UNIX_MS: u64 = NOW_UNIX_S * 1000;
/// What a packet of the link carries, and takes beyond that.
const PACKET_BYTES: usize = 1200;
const PACKET_HEAD_BYTES: u64 = 40;

/// One end: a replica and its session.
struct End {
    site: Site,
    session: Session,
    /// Frames on their way out, by lane.
    out: BTreeMap<Lane, VecDeque<Bytes>>,
    /// What of each lane has come in.
    inbox: BTreeMap<Lane, Vec<u8>>,
    /// Packets on the link, with the time of their arrival.
    flying: VecDeque<(u64, Lane, Bytes)>,
    events: Vec<Event>,
    arrived: Vec<(u64, Message)>,
    closed: Option<Closed>,
}

/// Node 1 and bridge 2.
struct Pair {
    ends: [End; 2],
    now_ms: u64,
    latency_ms: u64,
    /// Bytes of each direction in a tick.
    per_tick: u64,
    /// What has crossed, both ways.
    wire_bytes: u64,
}

const NODE: usize = 0;
const BRIDGE: usize = 1;

impl Pair {
    fn new(node: Site, bridge: Site, config: Config, bytes_per_s: u64, latency_ms: u64) -> Self {
        let end = |site: Site, peer: u8, config: Config| {
            let scope = Scope { site: node_id(1), collections: Collections::All };
            site.blobs.permit(node_id(peer), scope.clone());
            End {
                session: Session::new(config, site.hello(), node_id(peer), scope, 0),
                site,
                out: BTreeMap::new(),
                inbox: BTreeMap::new(),
                flying: VecDeque::new(),
                events: Vec::new(),
                arrived: Vec::new(),
                closed: None,
            }
        };
        let ends = [end(node, 2, config), end(bridge, 1, Config::default())];
        let mut pair = Self { ends, now_ms: 0, latency_ms, per_tick: bytes_per_s * TICK_MS / 1000, wire_bytes: 0 };
        (0..2).for_each(|end| pair.drain(end));
        pair
    }

    fn handle(&mut self, end: usize, input: Input) {
        self.ends[end].session.handle(input, self.now_ms);
        self.drain(end);
    }

    fn drain(&mut self, at: usize) {
        let now_ms = self.now_ms;
        let end = &mut self.ends[at];
        while let Some(output) = end.session.poll() {
            match output {
                Output::Send(lane, message) => end.out.entry(lane).or_default().push_back(message.to_frame()),
                Output::Disk(request) => {
                    let peer = node_id(if at == NODE { 2 } else { 1 });
                    if let Some(done) = sim::carry_out(request, peer, &end.site.records, &end.site.blobs) {
                        end.session.handle(Input::Disk(done), now_ms);
                    }
                }
                Output::Event(event) => end.events.push(event),
                Output::Closed(closed) => end.closed = Some(closed),
            }
        }
    }

    /// Time goes on by a tick: packets leave by the priority of their lanes, content lanes in turn, and others arrive.
    fn tick(&mut self) {
        self.now_ms += TICK_MS;
        for at in [NODE, BRIDGE] {
            let mut room = self.per_tick as usize;
            let mut drained = Vec::new();
            while room > 0 {
                let end = &mut self.ends[at];
                let turn = end.flying.len() % usize::from(CONTENT_LANES);
                let ready = |lane: &Lane| end.out.get(lane).is_some_and(|frames| !frames.is_empty());
                let content = (0..CONTENT_LANES).map(|lane| Lane::Content((lane + turn as u8) % CONTENT_LANES));
                let Some(lane) = [Lane::Control, Lane::Records].into_iter().chain(content).find(ready) else { break };
                let frames = end.out.get_mut(&lane).expect("it is ready");
                let frame = frames.front_mut().expect("it is ready");
                let packet = frame.split_to(frame.len().min(PACKET_BYTES));
                if frame.is_empty() {
                    frames.pop_front();
                    drained.push(lane);
                }
                room = room.saturating_sub(packet.len());
                self.wire_bytes += packet.len() as u64 + PACKET_HEAD_BYTES;
                end.flying.push_back((self.now_ms + self.latency_ms, lane, packet));
            }
            for lane in drained {
                self.handle(at, Input::LaneDrained(lane));
            }
        }
        for at in [NODE, BRIDGE] {
            self.arrive(at);
            if self.ends[at].session.next_timeout().is_some_and(|due| due <= self.now_ms) {
                self.handle(at, Input::Timer);
            }
        }
    }

    /// Hands over what flies from `at` and is due.
    fn arrive(&mut self, at: usize) {
        let there = 1 - at;
        while self.ends[at].flying.front().is_some_and(|(due, ..)| *due <= self.now_ms) {
            let (_, lane, packet) = self.ends[at].flying.pop_front().expect("one is due");
            self.ends[there].inbox.entry(lane).or_default().extend_from_slice(&packet);
        }
        let lanes: Vec<Lane> = self.ends[there].inbox.keys().copied().collect();
        for lane in lanes {
            while self.ends[there].closed.is_none() && self.ends[there].session.accepts(lane) {
                let Some(message) = take_message(self.ends[there].inbox.get_mut(&lane).expect("it is there")) else {
                    break;
                };
                self.ends[there].arrived.push((self.now_ms, message.clone()));
                self.handle(there, Input::Message(lane, message));
            }
        }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.tick();
        }
    }

    fn has_closed(&self) -> bool {
        self.ends.iter().any(|end| end.closed.is_some())
    }
}

fn take_message(bytes: &mut Vec<u8>) -> Option<Message> {
    let head = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
    let head = FrameHeader::decode(*head).expect("an honest peer");
    let end = FRAME_HEADER_BYTES + head.body_len;
    if bytes.len() < end {
        return None;
    }
    let frame: Vec<u8> = bytes.drain(..end).collect();
    let body = Bytes::from(frame).slice(FRAME_HEADER_BYTES..);
    Some(head.decode_body(body).expect("an honest peer").expect("a known type"))
}

/// Keeps the node's end to a policy, as a host does: measures, reserves, says how it stands, and ends it.
struct Host {
    account: Account,
    disk: Spent,
    measured: u64,
    short: Option<u64>,
    hold: Option<Hold>,
}

impl Host {
    fn new(policy: LinkPolicy, disk: Spent) -> Self {
        let mut account = Account::open(Ledger::new(policy, disk.clone()), NOW_UNIX_MS, 0);
        let disk = account.reserve(None, NOW_UNIX_MS).unwrap_or(disk);
        account.kept();
        Self { account, disk, measured: 0, short: None, hold: None }
    }

    fn config(&self) -> Config {
        Config { credit: Some(self.account.word(NOW_UNIX_MS)), ..Config::default() }
    }

    fn look(&mut self, pair: &mut Pair) {
        let now_unix_ms = NOW_UNIX_MS + pair.now_ms;
        self.account.measure(pair.wire_bytes - self.measured, now_unix_ms, pair.now_ms);
        self.measured = pair.wire_bytes;
        self.short = pair.ends[NODE].session.progress().credit_short;
        if let Some(spent) = self.account.reserve(self.short, now_unix_ms) {
            self.disk = spent;
        }
        self.account.kept();
        self.hold = self.account.hold(now_unix_ms);
        if self.hold.is_some() {
            pair.handle(NODE, Input::Stop(CloseReason::GoingAway, "used up".into()));
        } else {
            pair.handle(NODE, Input::Credit(self.account.word(now_unix_ms)));
        }
    }

    fn content_hold(&self) -> Option<Hold> {
        self.short.and_then(|short| self.account.content_hold(short, NOW_UNIX_MS))
    }

    /// Runs for so long, or until the session is over.
    fn run(&mut self, pair: &mut Pair, ms: u64) {
        for _ in 0..ms / WORD_EVERY_MS {
            if pair.has_closed() {
                return;
            }
            pair.run(WORD_EVERY_MS);
            if !pair.has_closed() {
                self.look(pair);
            }
        }
    }
}

fn policy(bytes_a_day: u64, reserve_percent: u8) -> LinkPolicy {
    LinkPolicy { bytes_a_day: Some(bytes_a_day), reserve_percent, ..LinkPolicy::default() }
}

/// Invariant 13, with content going both ways over links of several speeds.
#[test]
fn wire_bytes_never_pass_the_budget_and_records_go_on_within_the_reserve() {
    for (seed, bytes_per_s) in [(1, 60_000), (2, 2_000_000)] {
        const BUDGET: u64 = 5_000_000;
        let (node, bridge) = (Site::new(1), Site::new(2));
        let from_bridge = (0..8).map(|number| bridge.import(seed * 100 + number, 600_000)).collect::<Vec<_>>();
        let from_node = (8..14).map(|number| node.import(seed * 100 + number, 400_000)).collect::<Vec<_>>();
        let mut host = Host::new(policy(BUDGET, 25), Spent::default());
        let mut pair = Pair::new(node, bridge, host.config(), bytes_per_s, 100);
        host.run(&mut pair, 120_000);

        assert!(host.content_hold().is_some_and(|hold| matches!(hold, Hold::UsedUp { period: Period::Day, .. })));
        assert!(pair.wire_bytes >= BUDGET / 2, "{} of {BUDGET}: most of it was of use", pair.wire_bytes);
        assert!(pair.wire_bytes <= BUDGET * 3 / 4, "{}: the reserve is left", pair.wire_bytes);
        let whole = from_bridge.iter().filter(|blob| pair.ends[NODE].site.blobs.whole(**blob).is_some()).count();
        let sent = from_node.iter().filter(|blob| pair.ends[BRIDGE].site.blobs.whole(**blob).is_some()).count();
        assert!(whole + sent > 0 && whole + sent < 14, "{whole} came, {sent} went");
        assert!(!pair.has_closed(), "the session stays for records");

        pair.ends[BRIDGE].site.write_authors(500);
        pair.handle(BRIDGE, Input::LocalChange(BucketId::Catalogue));
        host.run(&mut pair, 20_000);
        assert_eq!(pair.ends[NODE].site.records.all().len(), 514, "records go on");

        // As many records as it takes.
        for round in 0..60 {
            if pair.has_closed() {
                break;
            }
            let writer = Site { id: node_id(100 + round), ..pair.ends[BRIDGE].site.clone() };
            writer.write_authors(5_000);
            pair.handle(BRIDGE, Input::LocalChange(BucketId::Catalogue));
            host.run(&mut pair, 10_000);
        }
        let closed = pair.ends[NODE].closed.as_ref().expect("the session ends when all is used up");
        assert_eq!((closed.reason, closed.text.as_str()), (CloseReason::GoingAway, "used up"));
        assert!(host.hold.is_some());
        // What was on its way still arrives, and counts.
        let flying: usize = pair.ends.iter().flat_map(|end| &end.flying).map(|(_, _, packet)| packet.len()).sum();
        assert!(pair.wire_bytes <= BUDGET, "{} of {BUDGET} crossed, {flying} at the end", pair.wire_bytes);
    }
}

/// A crash counts what was reserved, a session that ends in order gives it back, and neither counts too little.
#[test]
fn counting_goes_on_after_a_crash_and_never_counts_too_little() {
    const BUDGET: u64 = 9_000_000;
    let (node, bridge) = (Site::new(1), Site::new(2));
    for number in 0..10 {
        bridge.import(number, 1_200_000);
    }
    let mut disk = Spent::default();
    let mut crossed = 0;
    for life in 0..12 {
        let mut host = Host::new(policy(BUDGET, 10), disk.clone());
        if host.account.hold(NOW_UNIX_MS).is_some() {
            break;
        }
        let mut pair = Pair::new(node.clone(), bridge.clone(), host.config(), 300_000, 50);
        host.run(&mut pair, 3_000 + 700 * life);
        crossed += pair.wire_bytes;
        node.blobs.crash(&mut Seeded::new(life));
        bridge.blobs.crash(&mut Seeded::new(life));
        disk = host.disk;
        let left = Ledger::new(policy(BUDGET, 10), disk.clone()).left(NOW_UNIX_MS).all_bytes;
        assert!(BUDGET - left >= crossed, "{crossed} crossed, {} counted", BUDGET - left);
    }
    assert!(crossed <= BUDGET, "{crossed}");
    assert!(crossed > BUDGET / 4, "a crash costs little: {crossed} of {BUDGET} were of use");
}

/// Invariant 14: class 0 waits at most a few round trips under a full content queue.
#[test]
fn control_waits_at_most_a_few_round_trips_under_a_full_content_queue() {
    let (node, bridge) = (Site::new(1), Site::new(2));
    for number in 0..8 {
        bridge.import(number, 3_000_000);
        node.import(50 + number, 3_000_000);
    }
    // Two seconds for one chunk of a lane: whoever queues behind content waits for minutes.
    let mut pair = Pair::new(node, bridge, Config::default(), 60_000, 300);
    pair.run(30_000);
    let round_trip_ms = 2 * pair.latency_ms + 2 * TICK_MS;
    let queued =
        |end: &End| end.out.iter().any(|(lane, frames)| matches!(lane, Lane::Content(_)) && !frames.is_empty());
    assert!(pair.ends.iter().all(queued), "content waits at both ends");
    // A record (class 1), asked for and answered, then a word of class 0.
    let since = pair.now_ms;
    pair.ends[NODE].site.write_authors(1);
    pair.handle(NODE, Input::LocalChange(BucketId::Catalogue));
    pair.run(3 * round_trip_ms);
    let page = pair.ends[BRIDGE].arrived.iter().find(|(at_ms, message)| {
        *at_ms > since && matches!(message, Message::Page { records, .. } if !records.is_empty())
    });
    let (at_ms, _) = page.expect("the record arrived");
    assert!(at_ms - since <= round_trip_ms, "the record after {} ms", at_ms - since);
    let since = pair.now_ms;
    pair.handle(NODE, Input::Stop(CloseReason::Done, "class 0".into()));
    pair.run(3 * round_trip_ms);
    let told = pair.ends[BRIDGE].arrived.iter().find(|(_, message)| matches!(message, Message::Close { .. }));
    let (at_ms, _) = told.expect("it arrived");
    assert!(at_ms - since <= round_trip_ms, "class 0 after {} ms", at_ms - since);
}

/// What a reader clicks on overtakes content that was asked for before.
#[test]
fn what_a_reader_waits_for_comes_before_what_was_asked_for_in_the_background() {
    let (node, bridge) = (Site::new(1), Site::new(2));
    for number in 0..40 {
        bridge.import(number, 2_000_000);
    }
    let mut pair = Pair::new(node, bridge, Config::default(), 500_000, 100);
    pair.run(20_000);
    let clicked = (0..40)
        .map(|number| Site::new(3).import(number, 2_000_000))
        .find(|blob| {
            pair.ends[NODE].site.blobs.whole(*blob).is_none()
                && !pair.ends[NODE]
                    .arrived
                    .iter()
                    .any(|(_, message)| matches!(message, Message::Manifest { blob: asked, .. } if asked == blob))
        })
        .expect("not all has come yet");
    let before = pair.ends[NODE].arrived.len();
    pair.ends[NODE].site.blobs.want_now(clicked);
    pair.handle(NODE, Input::WantsChanged);
    while pair.ends[NODE].site.blobs.whole(clicked).is_none() {
        assert!(pair.now_ms < 200_000, "it comes");
        pair.tick();
    }
    let others = pair.ends[NODE].arrived[before..].iter().filter_map(|(_, message)| match message {
        Message::Chunk { blob, bytes, .. } if *blob != clicked => Some(bytes.len() as u64),
        _ => None,
    });
    // Each lane may be in the middle of a chunk, for the manifest and again for the chunks; between them others take turns.
    let on_the_lanes = 2 * u64::from(CONTENT_LANES) * u64::from(CHUNK_BYTES_MAX);
    let overtaken: u64 = others.sum();
    assert!(overtaken <= on_the_lanes + 2 * READER_WAITS_BYTES_MAX, "{overtaken} bytes came before");
}
