//! A whole session with a peer that says whatever a fuzzer makes up, at whatever moment.
//!
//! The session is the bridge's, over the simulator's stores. Its disk answers late, out of order or with a failure, its lanes
//! drain when the script says so, and time moves on by the script. What must hold:
//! - Nothing panics, and every frame that is sent can be read.
//! - Each queue stays within its limit: one frame at a time on a lane, so many disk requests, so many asks.
//! - It ends once, with a reason, and says nothing more.
//! - A timer that fell due does not fall due again at once.
//! - Where another session receives the same blobs, no chunk is asked for that it has claimed.
//! - The stores are whole at the end: feeds and records fit each other, and what claims to be verified is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use alexandria_sync::chunk::{BlobHash, Chunk, ChunkHash, Chunking, Claim, Lot, Manifest};
use alexandria_sync::domain::{Author, Blob, OpenCount, Typed};
use alexandria_sync::hlc::{ClockQuality, HlcTime, Stamp};
use alexandria_sync::id::{BucketId, Epoch, Incarnation, NodeId, RecordId, Seq};
use alexandria_sync::record::{FieldTag, Kind, Record, RecordKey, Value};
use alexandria_sync::session::fetch::READER_BLOBS_BEYOND;
use alexandria_sync::session::provide::ASKS_MAX;
use alexandria_sync::session::{
    Closed, Collections, Config, DiskDone, DiskRequest, Input, Output, Scope, Session, WriteFailure,
};
use alexandria_sync::sim::{self, SimBlobs, SimRecords};
use alexandria_sync::store::RecordStore as _;
use alexandria_sync::wire::message::CONTENT_LANES;
use alexandria_sync::wire::{
    Class, CloseReason, FrameHeader, Hello, Lane, Message, Offered, PROTOCOL_MAX, PROTOCOL_MIN,
};
use bytes::Bytes;

use super::decoders::reread;
use super::script::Script;

/// Steps in one conversation, at most.
const STEPS_MAX: usize = 400;
const NOW_UNIX_MS: u64 = 1_780_000_000_000;
const PEER: NodeId = NodeId::from_bytes([1; 16]);
const HERE: NodeId = NodeId::from_bytes([2; 16]);
/// Another session here, which receives a part of whatever blob is begun, and brings none of it.
const OTHER_PEER: NodeId = NodeId::from_bytes([3; 16]);
/// Room for content here, in bytes.
const QUOTA_BYTES: u64 = 100_000;
const LOOKUPS_MAX: usize = 64;
/// Blobs that nobody waits for and that are received at a time.
const BLOBS_IN_FLIGHT: usize = 3;
/// With those that readers wait for.
const BLOBS_MAX: usize = BLOBS_IN_FLIGHT + READER_BLOBS_BEYOND;

/// Lives through the conversation that `data` describes.
pub fn session(data: &[u8]) {
    let mut script = Script::new(data);
    // Of inputs that are one byte longer than others, not of what they say: what was found before stays found.
    let is_shared = data.len() % 2 == 1;
    let mut conversation = Conversation::begin(&mut script, is_shared);
    for _ in 0..STEPS_MAX {
        if script.is_over() || conversation.closed.is_some() {
            break;
        }
        conversation.step(&mut script);
    }
    conversation.end();
}

struct Conversation {
    records: Arc<SimRecords>,
    blobs: Arc<SimBlobs>,
    session: Session,
    disk: Vec<DiskRequest>,
    busy_lanes: BTreeSet<Lane>,
    /// Asked of the peer and not answered.
    chunks_asked: BTreeSet<(BlobHash, u32)>,
    /// With how many asks.
    manifests_asked: BTreeMap<BlobHash, usize>,
    /// What the peer was to be asked whether it holds: by an ask for the manifest, beside the one of who fetches it.
    checked: BTreeSet<BlobHash>,
    closed: Option<Closed>,
    now_ms: u64,
    is_shared: bool,
    /// By the other session.
    claimed: BTreeSet<(BlobHash, u32)>,
}

fn collection() -> BucketId {
    BucketId::Collection(RecordId::derived(&[b"the collection"]))
}

/// In scope, and not.
fn buckets() -> [BucketId; 5] {
    let other = BucketId::Collection(RecordId::derived(&[b"another"]));
    [BucketId::Catalogue, collection(), BucketId::Site(PEER), BucketId::Site(HERE), other]
}

/// Contents that the peer may have, cut into chunks; the last one is here from the start.
fn contents() -> [(Manifest, Vec<u8>); 4] {
    let cut = |pieces: &[&[u8]]| {
        let chunks = pieces.iter().map(|piece| Chunk { len: piece.len() as u32, hash: ChunkHash::of(piece) }).collect();
        let bytes = pieces.concat();
        (Manifest::new(BlobHash::of(&bytes), Chunking::Fixed, chunks).expect("it is small"), bytes)
    };
    [cut(&[]), cut(&[b"content"]), cut(&[b"first", b"second", b"third"]), cut(&[b"here ", b"already"])]
}

fn hello() -> Hello {
    Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        node: PEER,
        incarnation: Incarnation(1),
        epoch: Epoch(1),
        unix_ms: NOW_UNIX_MS,
        clock_quality: ClockQuality::Trusted,
        software: String::new(),
        features: 0,
        name: None,
        remembered: Vec::new(),
        standing: None,
    }
}

impl Conversation {
    fn begin(script: &mut Script<'_>, is_shared: bool) -> Self {
        let records = Arc::new(SimRecords::new(HERE, Epoch(1), None));
        records.set_clock(NOW_UNIX_MS, ClockQuality::Trusted);
        let blobs = Arc::new(SimBlobs::new(Arc::clone(&records), None));
        blobs.set_quota(QUOTA_BYTES);
        if is_shared {
            blobs.receive_together();
        }
        let collections = Collections::Only([RecordId::derived(&[b"the collection"])].into());
        let scope = Scope { site: PEER, collections };
        blobs.permit(PEER, scope.clone());
        let [.., (manifest, bytes)] = contents();
        for bucket in [BucketId::Catalogue, BucketId::Site(HERE)] {
            write(&records, bucket, 0);
        }
        let blob = Blob { hash: Some(manifest.blob()), size_bytes: manifest.size_bytes(), ..Blob::default() };
        let key = RecordKey { bucket: collection(), kind: Blob::KIND, id: Blob::record_id(manifest.blob()) };
        records.write(key, |_, stamp| Some(blob.to_record(key.bucket, key.id, stamp)));
        blobs.import(manifest, bytes.into());

        let local = Hello { node: HERE, epoch: records.epoch(), ..hello() };
        // A small window, so that the script can fill it.
        let config =
            Config { resend_bytes: 8, page_bytes: 4096, blobs_in_flight_max: BLOBS_IN_FLIGHT, ..Config::default() };
        let session = Session::new(config, local, PEER, scope, 0);
        let mut conversation = Self {
            records,
            blobs,
            session,
            disk: Vec::new(),
            busy_lanes: BTreeSet::new(),
            chunks_asked: BTreeSet::new(),
            manifests_asked: BTreeMap::new(),
            checked: BTreeSet::new(),
            closed: None,
            now_ms: 0,
            is_shared,
            claimed: BTreeSet::new(),
        };
        conversation.drain();
        if !script.chance() {
            conversation.hear(Message::Hello(hello()));
        }
        conversation
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.below(24) {
            0 => self.hear(any_hello(script)),
            1 | 2 => {
                let entries = script.below(4);
                let offered =
                    |script: &mut Script<'_>| Offered { bucket: script.pick(&buckets()), head: Seq(script.number()) };
                self.hear(Message::Offer((0..entries).map(|_| offered(script)).collect()));
            }
            3 => {
                let (bucket, after) = (script.pick(&buckets()), Seq(script.number()));
                let (epoch, page_bytes) = (Epoch(1 + script.number() / 200), script.number() as u32);
                self.hear(Message::Pull { bucket, after, epoch, page_bytes, own_too: page_bytes % 2 == 1 });
            }
            4..=7 => self.hear_page(script),
            8 => self.hear(Message::ManifestAsk { blob: any_blob(script) }),
            9 => self.hear(Message::ChunkAsk {
                blob: any_blob(script),
                index: script.number() as u32,
                class: Class::of_content(script.below(8) as u8),
            }),
            10 | 11 => self.hear_manifest(script),
            12 | 13 => self.hear_chunk(script),
            14 => self.hear(Message::Have { blob: any_blob(script) }),
            15 => self.hear(Message::Quiet { dealt_with: script.number() }),
            16 => self.hear_frame(script),
            17 | 18 => self.disk_answers(script),
            19 => {
                for request in std::mem::take(&mut self.disk) {
                    self.carry_out(request);
                }
            }
            20 => {
                for lane in std::mem::take(&mut self.busy_lanes) {
                    self.handle(Input::LaneDrained(lane));
                }
            }
            21 => self.time_passes(script),
            22 => self.something_happens_here(script),
            _ => match script.below(4) {
                0 => self.hear(Message::Close { reason: CloseReason::Done, text: "bye".into() }),
                1 => self.handle(Input::Stop(CloseReason::GoingAway, String::new())),
                _ => self.hear_frame(script),
            },
        }
    }

    fn hear_page(&mut self, script: &mut Script<'_>) {
        // The driver does not read the lane then.
        if !self.session.accepts(Lane::Records) {
            return;
        }
        let bucket = script.pick(&buckets());
        let next = Seq(script.number());
        let more = script.chance();
        let records = (0..script.below(4)).map(|_| any_record(script, bucket)).collect();
        self.hear(Message::Page { bucket, next, more, records, moment: None });
    }

    fn hear_manifest(&mut self, script: &mut Script<'_>) {
        let (manifest, _) = &contents()[script.below(4)];
        let blob = if script.below(8) == 0 { any_blob(script) } else { manifest.blob() };
        let bytes = match script.below(8) {
            0 => None,
            1 => Some(script.bytes().to_vec()),
            // Chunks that add up to something else.
            2 => {
                let chunk = Chunk { len: 5, hash: ChunkHash::of(b"trash") };
                let lie = Manifest::new(blob, Chunking::Fixed, vec![chunk; 1 + script.below(3)]);
                Some(lie.expect("it is small").to_bytes())
            }
            // Larger than there is room for.
            3 => {
                let chunk = Chunk { len: 1 << 20, hash: ChunkHash::of(b"huge") };
                Some(Manifest::new(blob, Chunking::Fixed, vec![chunk; 3]).expect("it is small").to_bytes())
            }
            _ => Some(manifest.to_bytes()),
        };
        self.hear(Message::Manifest { blob, manifest: bytes });
    }

    fn hear_chunk(&mut self, script: &mut Script<'_>) {
        let (manifest, bytes) = &contents()[script.below(4)];
        let index = script.number() as u32 % 4;
        let bytes = match script.below(8) {
            0 => Bytes::new(),
            1 => Bytes::copy_from_slice(script.bytes()),
            2 => Bytes::from_static(b"trash"),
            _ => manifest.offset(index).zip(manifest.chunk(index)).map_or(Bytes::new(), |(start, chunk)| {
                Bytes::copy_from_slice(&bytes[start as usize..start as usize + chunk.len as usize])
            }),
        };
        self.hear(Message::Chunk { blob: manifest.blob(), index, bytes });
    }

    /// A frame of the fuzzer's own, on any lane.
    fn hear_frame(&mut self, script: &mut Script<'_>) {
        let lane = Lane::from_number(script.byte() % 10).expect("there are ten lanes");
        let (frame_type, flags) = (script.byte(), script.byte());
        let body = script.bytes();
        if lane == Lane::Records && !self.session.accepts(lane) {
            return;
        }
        let head = FrameHeader::decode([0, 0, 0, body.len() as u8, frame_type, flags]);
        let decoded = head.and_then(|head| head.decode_body(Bytes::copy_from_slice(body)));
        match decoded {
            Ok(Some(message)) => self.hear_on(lane, message),
            Ok(None) => {}
            Err(error) => self.handle(Input::Stop(error.close_reason(), error.to_string())),
        }
    }

    /// One disk request is carried out, or fails.
    fn disk_answers(&mut self, script: &mut Script<'_>) {
        if self.disk.is_empty() {
            return;
        }
        let request = self.disk.remove(script.below(self.disk.len()));
        let failure = script.pick(&[None, None, None, Some(WriteFailure::Full), Some(WriteFailure::Busy)]);
        let done = match (failure, request) {
            (Some(failure), DiskRequest::Begin(manifest)) => DiskDone::Began(manifest.blob(), Err(failure)),
            (Some(_), DiskRequest::Write { manifest, index, .. }) => {
                DiskDone::Wrote(manifest.blob(), index, Err(WriteFailure::Full))
            }
            (Some(_), DiskRequest::Sync(manifest)) => DiskDone::Synced(manifest.blob(), Err(WriteFailure::Full)),
            (_, request) => return self.carry_out(request),
        };
        self.handle(Input::Disk(done));
    }

    fn carry_out(&mut self, request: DiskRequest) {
        if let DiskRequest::Begin(manifest) = &request
            && self.is_shared
        {
            self.others_begin(manifest);
        }
        if let Some(done) = sim::carry_out(request, PEER, &self.records, &self.blobs) {
            self.handle(Input::Disk(done));
        }
    }

    /// The other session claims one of the chunks.
    fn others_begin(&mut self, manifest: &Arc<Manifest>) {
        let carry_out = |request| sim::carry_out(request, OTHER_PEER, &self.records, &self.blobs);
        carry_out(DiskRequest::Release(manifest.blob()));
        self.claimed.retain(|(blob, _)| *blob != manifest.blob());
        let begun = carry_out(DiskRequest::Begin(Arc::clone(manifest)));
        let claim = Claim { bytes_max: 1, ..Claim::default() };
        if let Some(DiskDone::Began(blob, Ok(_))) = begun
            && let Some(DiskDone::Claimed(_, Ok(Lot::Chunks(chunks) | Lot::Shared(chunks)))) =
                carry_out(DiskRequest::Claim(Arc::clone(manifest), claim))
        {
            self.claimed.extend(chunks.into_iter().map(|index| (blob, index)));
        }
    }

    /// The other session ends.
    fn others_leave(&mut self) {
        for (blob, _) in std::mem::take(&mut self.claimed) {
            sim::carry_out(DiskRequest::Release(blob), OTHER_PEER, &self.records, &self.blobs);
        }
    }

    fn time_passes(&mut self, script: &mut Script<'_>) {
        self.now_ms = match self.session.next_timeout() {
            Some(at_ms) if script.chance() => self.now_ms.max(at_ms),
            _ => self.now_ms + script.number() % 1_000_000,
        };
        self.others_leave();
        self.handle(Input::Timer);
        if let Some(at_ms) = self.session.next_timeout().filter(|_| self.closed.is_none()) {
            assert!(at_ms > self.now_ms, "a timer that fell due falls due at once again");
        }
    }

    fn something_happens_here(&mut self, script: &mut Script<'_>) {
        match script.below(4) {
            0 => self.handle(Input::WantsChanged),
            1 => {
                self.blobs.want_now(any_blob(script));
                self.handle(Input::WantsChanged);
            }
            2 => {
                let (manifest, bytes) = contents()[script.below(4)].clone();
                let blob = manifest.blob();
                self.blobs.import(manifest, bytes.into());
                self.handle(Input::BlobCompleted(blob));
                // Could it be given up?
                self.checked.insert(blob);
                self.handle(Input::CheckBlobs(vec![blob]));
            }
            _ => {
                let bucket = script.pick(&buckets());
                write(&self.records, bucket, script.byte());
                self.handle(Input::LocalChange(bucket));
            }
        }
    }

    fn hear(&mut self, message: Message) {
        let lane = message.lane();
        self.hear_on(lane, message);
    }

    fn hear_on(&mut self, lane: Lane, message: Message) {
        match &message {
            Message::Chunk { blob, index, .. } => drop(self.chunks_asked.remove(&(*blob, *index))),
            Message::Manifest { blob, .. } => {
                if let Some(asks) = self.manifests_asked.get_mut(blob) {
                    *asks = asks.saturating_sub(1);
                }
            }
            _ => {}
        }
        self.handle(Input::Message(lane, message));
    }

    fn handle(&mut self, input: Input) {
        self.session.handle(input, self.now_ms);
        self.drain();
    }

    fn drain(&mut self) {
        let mut outputs: VecDeque<Output> = std::iter::from_fn(|| self.session.poll()).collect();
        while let Some(output) = outputs.pop_front() {
            assert!(self.closed.is_none(), "it is over, and yet: {output:?}");
            match output {
                Output::Send(lane, message) => self.sent(lane, &message),
                Output::Disk(request) => self.disk.push(request),
                Output::Event(_) => {}
                Output::Closed(closed) => self.closed = Some(closed),
            }
        }
        self.check_limits();
        let _ = self.session.progress();
    }

    fn sent(&mut self, lane: Lane, message: &Message) {
        assert_eq!(std::mem::discriminant(&message.lane()), std::mem::discriminant(&lane));
        if !matches!(message, Message::Close { .. }) {
            assert_eq!(reread(message), *message);
        }
        if lane != Lane::Control {
            assert!(self.busy_lanes.insert(lane), "a second frame on a lane that has not drained");
        }
        match message {
            Message::ManifestAsk { blob } => {
                let asks = self.manifests_asked.entry(*blob).or_default();
                *asks += 1;
                assert!(*asks <= 1 + usize::from(self.checked.contains(blob)), "a manifest is asked for twice");
            }
            Message::ChunkAsk { blob, index, .. } => {
                assert!(self.chunks_asked.insert((*blob, *index)), "a chunk is asked for twice");
                assert!(!self.claimed.contains(&(*blob, *index)), "a chunk is asked for that another session brings");
            }
            _ => {}
        }
    }

    fn check_limits(&self) {
        let count = |which: fn(&DiskRequest) -> bool| self.disk.iter().filter(|request| which(request)).count();
        let fetched = |(blob, asks): &(&BlobHash, &usize)| **asks > 0 && !self.checked.contains(*blob);
        let manifests = self.manifests_asked.iter().filter(fetched).count();
        assert!(self.chunks_asked.len() <= ASKS_MAX / 2 && manifests <= BLOBS_MAX);
        assert!(count(|request| matches!(request, DiskRequest::Page { .. })) <= 1);
        assert!(count(|request| matches!(request, DiskRequest::Apply { .. })) <= 1);
        assert!(count(|request| matches!(request, DiskRequest::Cursor(..))) <= LOOKUPS_MAX);
        assert!(count(|request| matches!(request, DiskRequest::Manifest(_))) <= usize::from(CONTENT_LANES));
        assert!(count(|request| matches!(request, DiskRequest::Read { .. })) <= usize::from(CONTENT_LANES));
        assert!(count(|request| matches!(request, DiskRequest::Urgent | DiskRequest::Wanted { .. })) <= 2);
        assert!(count(|request| matches!(request, DiskRequest::Claim(..))) <= BLOBS_MAX);
        assert!(count(|request| matches!(request, DiskRequest::Begin(_) | DiskRequest::Finish(_))) <= BLOBS_MAX);
    }

    /// What the driver does when a connection ends; then the stores are looked at.
    fn end(mut self) {
        if self.closed.is_none() {
            self.handle(Input::Stop(CloseReason::GoingAway, String::new()));
        }
        let closed = self.closed.as_ref().expect("it was ended");
        assert!(closed.by_peer || closed.reason != CloseReason::Done, "{closed:?}");
        assert_eq!(self.session.next_timeout(), None);
        for request in std::mem::take(&mut self.disk) {
            if let Some(done) = sim::carry_out(request, PEER, &self.records, &self.blobs) {
                self.session.settle_after_close(&done);
            }
        }
        let unfinished: Vec<DiskRequest> = self.session.receiving().collect();
        for request in unfinished {
            sim::carry_out(request, PEER, &self.records, &self.blobs);
        }
        assert_eq!(self.records.feed_fault(), None);
        assert_eq!(self.blobs.unverified(), None);
    }
}

fn write(records: &SimRecords, bucket: BucketId, number: u8) {
    let author = Author { name: format!("author {number}"), ..Author::default() };
    let key = RecordKey { bucket, kind: Author::KIND, id: RecordId::derived(&[b"here", &[number]]) };
    records.write(key, |_, stamp| Some(author.to_record(bucket, key.id, stamp)));
}

fn any_hello(script: &mut Script<'_>) -> Message {
    let node = script.pick(&[PEER, HERE, NodeId::from_bytes([9; 16])]);
    let (protocol_min, protocol_max) = (script.below(3) as u16, script.below(4) as u16);
    Message::Hello(Hello { node, protocol_min, protocol_max, epoch: Epoch(script.number()), ..hello() })
}

fn any_blob(script: &mut Script<'_>) -> BlobHash {
    match script.below(5) {
        4 => BlobHash::of(&[script.byte()]),
        known => contents()[known].0.blob(),
    }
}

fn any_record(script: &mut Script<'_>, bucket: BucketId) -> Vec<u8> {
    const Y2099_UNIX_MS: u64 = 4_070_908_800_000;
    let unix_ms = script.pick(&[NOW_UNIX_MS, NOW_UNIX_MS, NOW_UNIX_MS - 1, 0, Y2099_UNIX_MS, u64::MAX]);
    let stamp = Stamp {
        time: HlcTime::from_unix_ms(unix_ms),
        node: script.pick(&[PEER, HERE]),
        incarnation: Incarnation(u32::from(script.byte())),
        quality: ClockQuality::Trusted,
    };
    let id = RecordId::derived(&[b"here", &[script.byte() % 4]]);
    let record = match script.below(7) {
        0 | 1 => {
            let blob = any_blob(script);
            let typed = Blob { hash: Some(blob), size_bytes: script.number(), ..Blob::default() };
            typed.to_record(bucket, Blob::record_id(blob), stamp)
        }
        2 => Author { name: "theirs".into(), ..Author::default() }.to_record(bucket, id, stamp),
        3 => Author::default().to_record(bucket, id, stamp).deleted(stamp),
        4 => OpenCount { count: script.number(), ..OpenCount::default() }.to_record(bucket, id, stamp),
        5 => {
            // As many fields as a record may have.
            let (first, last) = (u32::from(script.byte()) * 100, 1 + script.below(256) as u32);
            let fields = (first..first + last).map(|number| (FieldTag::lww(number), Value::encode(&number)));
            let key = RecordKey { bucket, kind: Kind(777), id };
            Record::new(key, fields, stamp).expect("it has a field")
        }
        _ => return script.bytes().to_vec(),
    };
    record.encode()
}
