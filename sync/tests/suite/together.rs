//! Several sessions of one node receive a blob together: each brings a part of it, none what another brings.

use std::collections::{BTreeMap, VecDeque};

use alexandria_sync::budget::{Word, wire_cost};
use alexandria_sync::chunk::{BlobHash, Chunk, ChunkHash, Chunking, Manifest};
use alexandria_sync::id::Seq;
use alexandria_sync::session::{
    Closed, Config, DiskDone, DiskRequest, Event, Input, Output, Scope, Session, WriteFailure,
};
use alexandria_sync::sim;
use alexandria_sync::wire::{CloseReason, Hello, Message, Offered};
use bytes::Bytes;
use proptest::prelude::*;

use crate::fleet::{Site, node_id};
use crate::liars::{BUCKET, blob_record, page};

const CHUNK_BYTES: usize = 1000;
/// Chunks that a session may have asked for and not made durable.
const WINDOW_CHUNKS: usize = 4;

/// A node with sessions over one store. Its neighbours answer when the test says so.
struct Here {
    site: Site,
    sessions: BTreeMap<u8, Conversation>,
    now_ms: u64,
}

struct Conversation {
    session: Session,
    asked: VecDeque<(BlobHash, u32)>,
    /// Asked of it before the blob was given up: it answers all the same.
    late: VecDeque<(BlobHash, u32)>,
    manifests_asked: usize,
    /// Those of them that it has not answered.
    manifests: VecDeque<BlobHash>,
    /// Chunks that it has given.
    given: usize,
    events: Vec<Event>,
    closed: Option<Closed>,
    /// Its disk answers only when it is told to.
    disk_waits: bool,
    disk: Vec<DiskRequest>,
}

fn pieces(chunks: u8) -> Vec<Bytes> {
    (0..chunks).map(|number| Bytes::from(vec![number; CHUNK_BYTES])).collect()
}

fn manifest(pieces: &[Bytes]) -> Manifest {
    named(BlobHash::of(&pieces.concat()), pieces)
}

fn named(blob: BlobHash, pieces: &[Bytes]) -> Manifest {
    let chunks = pieces.iter().map(|piece| Chunk { len: piece.len() as u32, hash: ChunkHash::of(piece) });
    Manifest::new(blob, Chunking::Fixed, chunks.collect()).expect("it is small")
}

impl Here {
    /// It holds the record that makes it want the blob.
    fn wanting(blobs: &[BlobHash]) -> Self {
        let site = Site::new(2);
        site.blobs.receive_together();
        for &blob in blobs {
            let record = blob_record(blob);
            site.records.write(record.key, |_, _| Some(record.clone()));
        }
        Self { site, sessions: BTreeMap::new(), now_ms: 0 }
    }

    fn config() -> Config {
        Config {
            resend_bytes: (WINDOW_CHUNKS * CHUNK_BYTES) as u64,
            window_bytes_max: (WINDOW_CHUNKS * CHUNK_BYTES) as u64,
            blobs_in_flight_max: 4,
            ..Config::default()
        }
    }

    /// Two peers, 5 and 6, have it all, and this one wants it.
    fn between_two(manifest: &Manifest) -> Self {
        let mut here = Self::wanting(&[manifest.blob()]);
        for peer in [5, 6] {
            here.meet(peer);
            here.give_manifest(peer, manifest);
        }
        here
    }

    fn meet(&mut self, peer: u8) {
        self.meet_with(peer, Self::config());
    }

    fn meet_with(&mut self, peer: u8, config: Config) {
        let scope = Scope::between_nodes();
        self.site.blobs.permit(node_id(peer), scope.clone());
        let session = Session::new(config, self.site.hello(), node_id(peer), scope, self.now_ms);
        let conversation = Conversation {
            session,
            asked: VecDeque::new(),
            late: VecDeque::new(),
            manifests_asked: 0,
            manifests: VecDeque::new(),
            given: 0,
            events: Vec::new(),
            closed: None,
            disk_waits: false,
            disk: Vec::new(),
        };
        self.sessions.insert(peer, conversation);
        self.hear(peer, Message::Hello(Hello { node: node_id(peer), ..Site::new(peer).hello() }));
        self.hear(peer, Message::Offer(vec![Offered { bucket: BUCKET, head: Seq(1) }]));
        self.hear(peer, page(1, Vec::new()));
    }

    fn at(&self, peer: u8) -> &Conversation {
        &self.sessions[&peer]
    }

    fn hear(&mut self, peer: u8, message: Message) {
        let lane = message.lane();
        self.handle(peer, Input::Message(lane, message));
    }

    fn handle(&mut self, peer: u8, input: Input) {
        let Some(conversation) = self.sessions.get_mut(&peer) else { return };
        conversation.session.handle(input, self.now_ms);
        self.drain(peer);
    }

    fn drain(&mut self, peer: u8) {
        loop {
            let Some(conversation) = self.sessions.get_mut(&peer) else { return };
            let Some(output) = conversation.session.poll() else { break };
            match output {
                Output::Send(lane, message) => {
                    match message {
                        Message::ChunkAsk { blob, index, .. } => self.note_asked(peer, blob, index),
                        Message::ManifestAsk { blob } => {
                            conversation.manifests_asked += 1;
                            conversation.manifests.push_back(blob);
                        }
                        _ => {}
                    }
                    self.handle(peer, Input::LaneDrained(lane));
                }
                Output::Disk(request) if conversation.disk_waits => conversation.disk.push(request),
                Output::Disk(request) => self.carry_out(peer, request),
                Output::Event(event) => conversation.events.push(event),
                Output::Closed(closed) => conversation.closed = Some(closed),
            }
        }
    }

    fn note_asked(&mut self, peer: u8, blob: BlobHash, index: u32) {
        for (other, there) in &self.sessions {
            assert!(!there.asked.contains(&(blob, index)), "chunk {index} is asked of {other} and of {peer}");
        }
        assert!(!self.site.blobs.has_durable(blob, index), "chunk {index} is here");
        let conversation = self.sessions.get_mut(&peer).expect("it asks");
        conversation.asked.push_back((blob, index));
        let asked = conversation.asked.len();
        assert!(asked <= WINDOW_CHUNKS, "{asked} chunks are on the way");
    }

    fn carry_out(&mut self, peer: u8, request: DiskRequest) {
        let released = if let DiskRequest::Release(blob) = request { Some(blob) } else { None };
        let done = sim::carry_out(request, node_id(peer), &self.site.records, &self.site.blobs);
        if let Some(blob) = released {
            // What it no longer waits for may be asked of others.
            let there = self.sessions.get_mut(&peer).expect("it releases");
            let (late, asked): (VecDeque<_>, _) =
                std::mem::take(&mut there.asked).into_iter().partition(|(asked, _)| *asked == blob);
            there.asked = asked;
            there.late.extend(late);
        }
        if let Some(done) = done {
            let finished = if let DiskDone::Finished(blob, Ok(())) = done { Some(blob) } else { None };
            self.handle(peer, Input::Disk(done));
            if let Some(blob) = finished {
                self.tell_all(|| Input::BlobCompleted(blob));
            }
        }
    }

    fn tell_all(&mut self, input: impl Fn() -> Input) {
        for peer in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.handle(peer, input());
        }
    }

    /// The peer gives the manifest that it is asked for.
    fn give_manifest(&mut self, peer: u8, manifest: &Manifest) {
        if let Some(there) = self.sessions.get_mut(&peer) {
            there.manifests.retain(|blob| *blob != manifest.blob());
        }
        self.hear(peer, Message::Manifest { blob: manifest.blob(), manifest: Some(manifest.to_bytes()) });
    }

    /// The peer gives the next chunk that it is asked for. Whether there was one.
    fn give(&mut self, peer: u8, pieces: &[Bytes]) -> bool {
        let Some(there) = self.sessions.get_mut(&peer) else { return false };
        let in_time = there.asked.pop_front();
        there.given += usize::from(in_time.is_some());
        let Some((blob, index)) = in_time.or_else(|| there.late.pop_front()) else { return false };
        self.hear(peer, Message::Chunk { blob, index, bytes: pieces[index as usize].clone() });
        true
    }

    fn time_passes(&mut self, ms: u64) {
        self.now_ms += ms;
        self.tell_all(|| Input::Timer);
        for (peer, there) in &self.sessions {
            let next = there.session.next_timeout();
            assert!(next.is_none_or(|at_ms| at_ms > self.now_ms), "the timer of {peer} spins: {next:?}");
        }
    }

    /// Its connection breaks, and the driver does what it does then.
    fn lose(&mut self, peer: u8) -> Conversation {
        let mut lost = self.sessions.remove(&peer).expect("it was met");
        for request in std::mem::take(&mut lost.disk) {
            let done = sim::carry_out(request, node_id(peer), &self.site.records, &self.site.blobs);
            if let Some(done) = done {
                lost.session.settle_after_close(&done);
            }
        }
        for request in lost.session.receiving().collect::<Vec<_>>() {
            sim::carry_out(request, node_id(peer), &self.site.records, &self.site.blobs);
        }
        lost
    }

    #[track_caller]
    fn all_are_well(&self) {
        for (peer, there) in &self.sessions {
            assert_eq!(there.closed, None, "the session with {peer}");
        }
        assert_eq!(self.site.blobs.unverified(), None);
    }
}

#[test]
fn two_neighbours_bring_one_blob_each_a_part_and_nothing_twice() {
    let pieces = pieces(40);
    let manifest = manifest(&pieces);
    let mut here = Here::between_two(&manifest);
    assert_eq!([5, 6].map(|peer| here.at(peer).asked.len()), [WINDOW_CHUNKS, 1], "the first was alone");
    // One is three times as fast.
    while [5, 5, 5, 6].map(|peer| here.give(peer, &pieces)).contains(&true) {
        here.all_are_well();
    }
    let given = [5, 6].map(|peer| here.at(peer).given);
    assert_eq!(given.iter().sum::<usize>(), 40);
    assert!(given[1] >= 8 && given[0] >= 2 * given[1], "{given:?}");
    assert_eq!(here.site.blobs.whole(manifest.blob()), Some(pieces.concat().into()));
    for peer in [5, 6] {
        assert_eq!(here.at(peer).session.progress().blobs_receiving, 0);
        assert_eq!(here.at(peer).session.progress().bytes_to_receive, 0);
    }
}

/// What it was asked for is what all wait for in the end.
#[test]
fn a_slow_neighbour_is_asked_for_a_chunk_at_a_time_while_others_bring_the_rest() {
    let pieces = pieces(40);
    let manifest = manifest(&pieces);
    let mut here = Here::between_two(&manifest);
    while here.give(5, &pieces) {
        here.now_ms += 100;
        assert_eq!(here.at(6).asked.len(), 1);
    }
    assert_eq!(here.at(5).given, 39);
    here.give(6, &pieces);
    for _ in 0..2 {
        here.time_passes(Config::default().busy_retry_ms);
    }
    assert!(here.site.blobs.whole(manifest.blob()).is_some());
    here.all_are_well();
}

#[test]
fn what_a_lost_neighbour_was_to_bring_comes_from_the_other_and_what_it_brought_does_not() {
    let pieces = pieces(20);
    let manifest = manifest(&pieces);
    let mut here = Here::between_two(&manifest);
    for _ in 0..5 {
        here.give(5, &pieces);
        here.give(6, &pieces);
    }
    let lost = here.lose(5);
    while here.give(6, &pieces) {}
    assert!(
        here.site.blobs.whole(manifest.blob()).is_some(),
        "it needs nobody to tell it while it has something to do"
    );
    assert_eq!(here.at(6).given + lost.given, 20);
    here.all_are_well();
}

/// Who has nothing to bring waits, asks the peer nothing, and goes on as soon as it hears that there is more, or a little later.
#[test]
fn who_waits_for_others_goes_on_when_they_leave() {
    for is_told in [false, true] {
        let pieces = pieces(WINDOW_CHUNKS as u8);
        let manifest = manifest(&pieces);
        let mut here = Here::between_two(&manifest);
        assert_eq!((here.at(5).asked.len(), here.at(6).asked.len()), (WINDOW_CHUNKS, 0));
        for _ in 0..10 {
            here.time_passes(Config::default().busy_retry_ms);
        }
        assert_eq!((here.at(6).asked.len(), here.at(6).manifests_asked), (0, 1));
        assert!(!here.at(6).events.iter().any(|event| matches!(event, Event::Quiet)), "it still wants something");
        here.give(5, &pieces);
        here.lose(5);
        if is_told {
            here.handle(6, Input::WantsChanged);
        } else {
            here.time_passes(Config::default().busy_retry_ms);
        }
        assert_eq!(here.at(6).asked.len(), WINDOW_CHUNKS - 1);
        while here.give(6, &pieces) {}
        assert!(here.site.blobs.whole(manifest.blob()).is_some());
        here.all_are_well();
    }
}

/// The last one who had something to write may be gone before it was durable, or finished.
#[test]
fn who_waits_finishes_what_others_have_written_and_left() {
    let pieces = pieces(2);
    let manifest = manifest(&pieces);
    let mut here = Here::between_two(&manifest);
    here.give(5, &pieces);
    here.sessions.get_mut(&5).expect("it is there").disk_waits = true;
    here.give(5, &pieces);
    // What was given is written; nothing is synced.
    let [write] = &std::mem::take(&mut here.sessions.get_mut(&5).expect("it is there").disk)[..] else {
        panic!("it is to be written")
    };
    sim::carry_out(write.clone(), node_id(5), &here.site.records, &here.site.blobs);
    sim::carry_out(DiskRequest::Release(manifest.blob()), node_id(5), &here.site.records, &here.site.blobs);
    here.sessions.remove(&5);
    here.time_passes(Config::default().busy_retry_ms);
    assert_eq!(here.site.blobs.whole(manifest.blob()), Some(pieces.concat().into()));
    assert_eq!(here.at(6).given, 0);
    here.all_are_well();
}

/// Chunks that it was asked for may still come once the blob has become whole by another way.
#[test]
fn answers_that_come_after_the_blob_is_whole_are_no_violation() {
    let pieces = pieces(6);
    let manifest = manifest(&pieces);
    let blob = manifest.blob();
    let mut here = Here::wanting(&[blob]);
    here.meet(5);
    here.give_manifest(5, &manifest);
    let asked: Vec<u32> = here.at(5).asked.iter().map(|(_, index)| *index).collect();
    assert_eq!(asked.len(), WINDOW_CHUNKS);
    here.site.blobs.import(manifest, pieces.concat().into());
    here.handle(5, Input::BlobCompleted(blob));
    assert_eq!(here.at(5).session.progress().blobs_receiving, 0);
    for index in asked {
        here.hear(5, Message::Chunk { blob, index, bytes: pieces[index as usize].clone() });
    }
    here.all_are_well();
    assert_eq!(here.at(5).session.held().content_bytes, 0);
}

/// Both bring the same lie about what the blob is made of. Who finds it out is told off; the other begins anew, and is believed
/// no more than before.
#[test]
fn a_blob_that_is_something_else_costs_the_session_that_ends_it_and_no_other() {
    let pieces = pieces(8);
    let lie = named(BlobHash::of(b"what it is said to be"), &pieces);
    let blob = lie.blob();
    let mut here = Here::wanting(&[blob]);
    for peer in [5, 6] {
        here.meet(peer);
        here.give_manifest(peer, &lie);
    }
    while [5, 6].map(|peer| here.give(peer, &pieces)).contains(&true) {}
    let (ended, other) = if here.at(5).closed.is_some() { (5, 6) } else { (6, 5) };
    assert_eq!(here.at(ended).closed.as_ref().map(|closed| closed.reason), Some(CloseReason::Violation));
    assert_eq!(here.at(other).closed, None);
    here.lose(ended);
    assert!(!here.site.blobs.has_durable(blob, 0), "all of it is gone");
    for _ in 0..3 {
        here.time_passes(Config::default().busy_retry_ms);
    }
    assert_eq!(here.at(other).manifests_asked, 2, "it asks again");
    here.all_are_well();
    let honest = named(blob, &[Bytes::from_static(b"what it is said to be")]);
    here.give_manifest(other, &honest);
    assert!(here.give(other, &[Bytes::from_static(b"what it is said to be")]));
    assert!(here.site.blobs.whole(blob).is_some());
}

#[test]
fn who_brings_another_manifest_does_not_join() {
    let pieces = pieces(8);
    let honest = manifest(&pieces);
    let blob = honest.blob();
    let mut here = Here::wanting(&[blob]);
    for (peer, manifest) in [(5, &honest), (6, &named(blob, &pieces[1..]))] {
        here.meet(peer);
        here.give_manifest(peer, manifest);
    }
    assert_eq!((here.at(5).asked.len(), here.at(6).asked.len()), (WINDOW_CHUNKS, 0));
    while here.give(5, &pieces) {}
    assert!(here.site.blobs.whole(blob).is_some());
    here.all_are_well();
}

/// A link that may carry nothing more just now does not keep what another could bring for nothing.
#[test]
fn what_the_budget_does_not_admit_is_left_to_others() {
    let pieces = pieces(12);
    let manifest = manifest(&pieces);
    let mut here = Here::wanting(&[manifest.blob()]);
    let word = |chunks: u64| Word { content_bytes: chunks * wire_cost(CHUNK_BYTES as u64), records_bytes: u64::MAX };
    here.meet_with(5, Config { credit: Some(word(100)), ..Here::config() });
    // It claims its window, and hears meanwhile that less may be had.
    here.sessions.get_mut(&5).expect("it is there").disk_waits = true;
    here.give_manifest(5, &manifest);
    let mut claims = 0;
    while let Some(request) = here.sessions.get_mut(&5).and_then(|there| there.disk.pop()) {
        claims += usize::from(matches!(request, DiskRequest::Claim(..)));
        if matches!(request, DiskRequest::Claim(..)) && claims == 2 {
            // The second word knows that what came before has crossed.
            here.handle(5, Input::Credit(word(1)));
            here.handle(5, Input::Credit(word(1)));
        }
        here.carry_out(5, request);
    }
    here.sessions.get_mut(&5).expect("it is there").disk_waits = false;
    assert_eq!(claims, 3, "one chunk, what the window has room for, and that is given back");
    assert_eq!(here.at(5).asked.len(), 1);
    here.meet(6);
    here.give_manifest(6, &manifest);
    while here.give(6, &pieces) {}
    assert_eq!(here.at(6).given, 11);
    here.give(5, &pieces);
    for _ in 0..2 {
        here.time_passes(Config::default().busy_retry_ms);
    }
    assert!(here.site.blobs.whole(manifest.blob()).is_some());
    here.all_are_well();
}

/// However many blobs a neighbour has begun and does not bring, the other goes on with the rest.
#[test]
fn blobs_that_wait_for_others_make_way_for_those_that_do_not() {
    let contents: Vec<Vec<Bytes>> = (0..12).map(|seed| vec![Bytes::from(vec![seed; CHUNK_BYTES / 2])]).collect();
    let manifests: BTreeMap<BlobHash, Manifest> =
        contents.iter().map(|pieces| manifest(pieces)).map(|manifest| (manifest.blob(), manifest)).collect();
    let blobs: Vec<BlobHash> = manifests.keys().copied().collect();
    let mut here = Here::wanting(&blobs);
    here.meet(5);
    // It is asked for four, and brings none of them.
    for blob in here.at(5).manifests.clone() {
        here.give_manifest(5, &manifests[&blob]);
    }
    assert_eq!(here.at(5).asked.len(), 4);
    here.meet(6);
    while let Some(blob) = here.at(6).manifests.front().copied() {
        here.give_manifest(6, &manifests[&blob]);
        while let Some((asked, _)) = here.at(6).asked.front() {
            let pieces =
                contents.iter().find(|pieces| BlobHash::of(&pieces.concat()) == *asked).expect("it is one of them");
            here.give(6, pieces);
        }
    }
    let whole = blobs.iter().filter(|blob| here.site.blobs.whole(**blob).is_some()).count();
    assert_eq!(whole, 8);
    here.all_are_well();
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Give(u8),
    /// It does not have the chunk any more.
    Refuse(u8),
    Meet(u8),
    Lose(u8),
    DiskWaits(u8),
    /// One request of a disk that waits, whichever.
    DiskDoes(u8, usize),
    DiskFails(u8),
    TimePasses(u64),
    WantsChanged,
}

fn step() -> impl Strategy<Value = Step> {
    let peer = || 5u8..8;
    prop_oneof![
        12 => peer().prop_map(Step::Give),
        1 => peer().prop_map(Step::Refuse),
        2 => peer().prop_map(Step::Meet),
        2 => peer().prop_map(Step::Lose),
        2 => peer().prop_map(Step::DiskWaits),
        8 => (peer(), any::<usize>()).prop_map(|(peer, which)| Step::DiskDoes(peer, which)),
        1 => peer().prop_map(Step::DiskFails),
        3 => (0..5_000u64).prop_map(Step::TimePasses),
        1 => Just(Step::WantsChanged),
    ]
}

impl Here {
    fn take(&mut self, step: Step, manifest: &Manifest, pieces: &[Bytes]) {
        let is_there = |here: &Self, peer| here.sessions.contains_key(&peer);
        match step {
            Step::Give(peer) => drop(self.give(peer, pieces)),
            Step::Refuse(peer) => {
                let asked = self.sessions.get_mut(&peer).and_then(|there| there.asked.pop_front());
                if let Some((blob, index)) = asked {
                    self.hear(peer, Message::Chunk { blob, index, bytes: Bytes::new() });
                }
            }
            Step::Meet(peer) if !is_there(self, peer) => self.meet(peer),
            Step::Lose(peer) if is_there(self, peer) => drop(self.lose(peer)),
            Step::DiskWaits(peer) => {
                if let Some(there) = self.sessions.get_mut(&peer) {
                    there.disk_waits = true;
                }
            }
            Step::DiskDoes(peer, which) => {
                let Some(there) = self.sessions.get_mut(&peer).filter(|there| !there.disk.is_empty()) else { return };
                let request = there.disk.remove(which % there.disk.len());
                self.carry_out(peer, request);
            }
            Step::DiskFails(peer) => {
                let Some(there) = self.sessions.get_mut(&peer) else { return };
                let writes = |request: &DiskRequest| matches!(request, DiskRequest::Write { .. });
                let Some(at) = there.disk.iter().position(writes) else { return };
                if let DiskRequest::Write { manifest, index, .. } = there.disk.remove(at) {
                    let failed = DiskDone::Wrote(manifest.blob(), index, Err(WriteFailure::Full));
                    self.handle(peer, Input::Disk(failed));
                }
            }
            Step::TimePasses(ms) => self.time_passes(ms),
            Step::WantsChanged => self.tell_all(|| Input::WantsChanged),
            Step::Meet(_) | Step::Lose(_) => {}
        }
        self.answer_manifest_asks(manifest);
    }

    fn answer_manifest_asks(&mut self, manifest: &Manifest) {
        for peer in self.sessions.keys().copied().collect::<Vec<_>>() {
            while !self.at(peer).manifests.is_empty() {
                self.give_manifest(peer, manifest);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whoever comes, goes, refuses, and however late disks answer: no chunk is asked of two at once or asked for again once it is
    /// durable, nobody honest breaks a rule, no timer spins, and with one neighbour left that answers the blob comes whole.
    #[test]
    fn whatever_befalls_the_sessions_each_chunk_comes_through_one_of_them(
        chunks in 1u8..20,
        steps in prop::collection::vec(step(), 0..150),
    ) {
        let pieces = pieces(chunks);
        let manifest = manifest(&pieces);
        let mut here = Here::wanting(&[manifest.blob()]);
        here.take(Step::Meet(5), &manifest, &pieces);
        here.take(Step::Meet(6), &manifest, &pieces);
        for step in steps {
            here.take(step, &manifest, &pieces);
            here.all_are_well();
        }
        here.take(Step::Lose(6), &manifest, &pieces);
        here.take(Step::Lose(7), &manifest, &pieces);
        here.take(Step::Meet(5), &manifest, &pieces);
        here.sessions.get_mut(&5).expect("it was met").disk_waits = false;
        for _ in 0..50 {
            while !here.at(5).disk.is_empty() {
                here.take(Step::DiskDoes(5, 0), &manifest, &pieces);
            }
            while here.give(5, &pieces) {}
            here.take(Step::TimePasses(Config::default().absent_retry_ms / 10), &manifest, &pieces);
        }
        here.all_are_well();
        prop_assert_eq!(here.site.blobs.whole(manifest.blob()), Some(pieces.concat().into()));
        prop_assert_eq!(here.at(5).session.held().content_bytes, 0);
    }
}

/// A session gave a blob up, for its disk was full, and left a chunk that was written and not synced: the simulated store made it durable with the
/// next one's, behind the back of those who had asked for it again.
#[test]
fn regression_what_the_last_session_left_unsynced_is_asked_for_again() {
    let pieces = pieces(6);
    let manifest = manifest(&pieces);
    let mut here = Here::wanting(&[manifest.blob()]);
    let steps = [
        Step::Meet(5),
        Step::Meet(6),
        Step::DiskWaits(6),
        Step::Lose(5),
        Step::Give(6),
        Step::DiskDoes(6, 1),
        Step::Give(6),
        Step::DiskFails(6),
        Step::Lose(6),
        Step::Meet(5),
        Step::Meet(6),
        Step::Give(6),
    ];
    for step in steps {
        here.take(step, &manifest, &pieces);
        here.all_are_well();
    }
}
