//! The previous version of the protocol still replicates: a peer that says what a released version said, and takes only what
//! that version takes, holds a session with the present code, in both directions.
//!
//! The released version's session is in `golden/v1/session-exchange.frames` (see [`recording`]). The peer ([`v1_peer`],
//! [`v1_wire`], [`v1_record`]) is written from docs/PROTOCOL.md and never changes. What the present code adds, in ways that
//! section 7 allows, the peer skips; everything else must be as it was.

mod recording;
mod v1_peer;
mod v1_record;
mod v1_wire;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::{env, fs};

use alexandria_sync::chunk::{BlobHash, Manifest};
use alexandria_sync::hlc::ClockQuality;
use alexandria_sync::id::{BucketId, Epoch, NodeId, Seq};
use alexandria_sync::record::{Record, RecordKey};
use alexandria_sync::session::{Closed, Collections, Config, Event, Input, Output, Scope, Session};
use alexandria_sync::sim::{self, SimBlobs, SimRecords};
use alexandria_sync::wire::{CloseReason, FRAME_HEADER_BYTES, FrameHeader, Lane, Message};
use bytes::Bytes;

use self::recording::{From, Recorded};
use self::v1_peer::V1Peer;
use crate::fleet::{NOW_UNIX_S, Site, node_id};

fn recorded() -> Vec<Recorded> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1/session-exchange.frames");
    if !path.exists() && env::var_os("ALEXANDRIA_GOLDEN").is_some_and(|how| how == "write") {
        fs::write(&path, recording::record()).expect("the golden folder can be written");
    }
    recording::read(&fs::read(&path).expect("the golden file is there"))
}

/// The present code in a session with a peer of version 1.
struct Present {
    site: Site,
    session: Session,
    peer: V1Peer,
    peer_id: NodeId,
    quiet: bool,
    closed: Option<Closed>,
    /// Content that comes up in the second half of the session.
    late: Vec<(Manifest, Bytes)>,
}

impl Present {
    /// In the place of one end of the recorded session, with what that one held; the other end is the peer.
    fn in_place_of(end: From) -> Self {
        let (own, others): (Vec<_>, Vec<_>) = recorded().into_iter().partition(|recorded| recorded.from == end);
        let peer = V1Peer::of(others.into_iter().map(|recorded| (recorded.lane, recorded.frame)));
        let own: Vec<Message> = own.iter().map(|recorded| message(&recorded.frame).expect("it is known")).collect();
        let Some(Message::Hello(hello)) = own.first() else { panic!("a session begins with a hello") };

        let records = Arc::new(SimRecords::new(hello.node, hello.epoch, None));
        records.set_clock(NOW_UNIX_S * 1000 + 60_000, ClockQuality::Trusted);
        let blobs = Arc::new(SimBlobs::new(Arc::clone(&records), None));
        let site = Site { id: hello.node, records, blobs };
        let late = fill(&site, &own);
        let peer_id = if end == From::Node { node_id(2) } else { node_id(1) };
        let scope = Scope { site: node_id(1), collections: Collections::All };
        site.blobs.permit(peer_id, scope.clone());
        let session = Session::new(Config::default(), site.hello(), peer_id, scope, 0);
        let peer = peer.expect("it is a recording of version 1");
        Self { site, session, peer, peer_id, quiet: false, closed: None, late }
    }

    /// Until neither end has anything left to say.
    fn run(&mut self) {
        loop {
            self.drain();
            let frames = self.peer.poll();
            if frames.is_empty() {
                return;
            }
            for (lane, frame) in frames {
                let lane = Lane::from_number(lane).expect("version 1 has ten lanes");
                if let Some(message) = message(&frame) {
                    self.session.handle(Input::Message(lane, message), 0);
                    self.drain();
                }
            }
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(lane, message) => {
                    self.peer.take(lane.number(), &message.to_frame()).expect("version 1 takes it");
                    self.session.handle(Input::LaneDrained(lane), 0);
                }
                Output::Disk(request) => {
                    let done = sim::carry_out(request, self.peer_id, &self.site.records, &self.site.blobs);
                    if let Some(done) = done {
                        self.session.handle(Input::Disk(done), 0);
                    }
                }
                Output::Event(event) => self.quiet = matches!(event, Event::Quiet),
                Output::Closed(closed) => self.closed = Some(closed),
            }
        }
    }

    /// Lets what came up in the second half of the recorded session come up here and there.
    fn go_on(&mut self) {
        for (manifest, bytes) in std::mem::take(&mut self.late) {
            let blob = manifest.blob();
            self.site.blobs.import(manifest, bytes);
            self.session.handle(Input::BlobCompleted(blob), 0);
        }
        self.peer.go_on();
        self.run();
    }

    #[track_caller]
    fn both_are_quiet(&self) {
        assert_eq!(self.closed, None);
        assert!(self.quiet && self.peer.other_is_quiet, "both know that the other wants nothing more");
    }

    /// Both hold the same, byte for byte.
    #[track_caller]
    fn both_hold_the_same(&self) {
        let here: BTreeMap<_, _> =
            self.site.records.all().iter().map(|record| (place(record.key), record.encode())).collect();
        let there = self.peer.records.iter();
        let there: BTreeMap<_, _> =
            there.map(|(&(bucket, key), record)| ((bucket, key), v1_record::encode(key, record))).collect();
        assert_eq!(here.keys().collect::<Vec<_>>(), there.keys().collect::<Vec<_>>());
        for (place, bytes) in &here {
            assert_eq!(hex::encode(bytes), hex::encode(&there[place]), "{place:?}");
        }
        assert!(self.site.records.quarantined().is_empty());
        let blobs = self.site.blobs.whole_blobs().into_iter();
        let blobs: BTreeMap<_, _> =
            blobs.map(|blob| (*blob.as_bytes(), self.site.blobs.whole(blob).expect("it is whole").to_vec())).collect();
        assert_eq!(blobs, self.peer.blobs);
    }
}

fn place(key: RecordKey) -> ([u8; 17], (u16, [u8; 16])) {
    (key.bucket.to_bytes(), (key.kind.0, *key.id.as_bytes()))
}

fn message(frame: &[u8]) -> Option<Message> {
    let (head, body) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().expect("it has a head");
    let head = FrameHeader::decode(*head).expect("a frame of version 1 is understood");
    head.decode_body(Bytes::copy_from_slice(body)).expect("a frame of version 1 is understood")
}

/// Puts into the store what its recorded messages say that it held. Returns what it held only later.
fn fill(site: &Site, messages: &[Message]) -> Vec<(Manifest, Bytes)> {
    let mut manifests: BTreeMap<BlobHash, (Option<Manifest>, bool)> = BTreeMap::new();
    let mut chunks = BTreeMap::new();
    for message in messages {
        match message {
            Message::Page { bucket, records, .. } => {
                for bytes in records {
                    let record = Record::decode(*bucket, bytes).expect("a record of version 1 is read");
                    site.records.write(record.key, |_, _| Some(record.clone()));
                }
            }
            Message::Manifest { blob, manifest: None } => drop(manifests.insert(*blob, (None, true))),
            Message::Manifest { blob, manifest: Some(bytes) } => {
                let manifest = Manifest::from_bytes(bytes).expect("a manifest of version 1 is read");
                manifests.entry(*blob).or_insert((None, false)).0 = Some(manifest);
            }
            Message::Chunk { blob, index, bytes } => drop(chunks.insert((*blob, *index), bytes.clone())),
            _ => {}
        }
    }
    let mut late = Vec::new();
    for (blob, (manifest, was_absent)) in manifests {
        // Answered in vain to the end: it was the other's.
        let Some(manifest) = manifest else { continue };
        let bytes: Bytes = chunks.range((blob, 0)..=(blob, u32::MAX)).flat_map(|(_, chunk)| chunk.to_vec()).collect();
        if was_absent {
            late.push((manifest, bytes));
        } else {
            site.blobs.import(manifest, bytes);
        }
    }
    late
}

fn a_whole_session_in_place_of(end: From) {
    let mut present = Present::in_place_of(end);
    present.run();
    present.both_are_quiet();
    present.go_on();
    present.both_are_quiet();
    assert!(present.peer.is_done());
    present.both_hold_the_same();

    // The cursors stand at the ends of the peer's feeds, in its epoch.
    let cursors = present.site.records.cursors();
    assert!(cursors.len() >= 3, "{cursors:?}");
    for (node, bucket, cursor) in cursors {
        assert_eq!((node, cursor.epoch), (present.peer_id, Epoch(present.peer.own_epoch)));
        assert_eq!(cursor.seq, Seq(present.peer.last_row(bucket.to_bytes())));
    }
    present.peer.close();
    present.run();
    let closed = present.closed.expect("the peer has closed it");
    assert_eq!((closed.reason, closed.by_peer, closed.text.as_str()), (CloseReason::Done, true, "until tomorrow"));
}

#[test]
fn a_node_of_version_1_replicates_with_the_present_bridge() {
    a_whole_session_in_place_of(From::Bridge);
}

#[test]
fn a_bridge_of_version_1_replicates_with_the_present_node() {
    a_whole_session_in_place_of(From::Node);
}

/// What the recording is made of, so that the two tests above say something.
#[test]
fn the_recorded_session_holds_what_version_1_can_say() {
    let recorded = recorded();
    let messages: Vec<(From, Message)> =
        recorded.iter().map(|recorded| (recorded.from, message(&recorded.frame).expect("it is known"))).collect();
    for from in [From::Node, From::Bridge] {
        let types: std::collections::BTreeSet<u8> =
            recorded.iter().filter(|recorded| recorded.from == from).map(|recorded| recorded.frame[4]).collect();
        let all_but_have_and_close = [1, 2, 3, 4, 5, 6, 7, 8, 10];
        assert!(all_but_have_and_close.iter().all(|frame_type| types.contains(frame_type)), "{from:?}: {types:?}");
    }
    assert!(messages.iter().any(|(_, message)| matches!(message, Message::Have { .. })));
    assert!(messages.iter().any(|(_, message)| matches!(message, Message::Close { .. })));
    assert!(messages.iter().any(|(_, message)| matches!(message, Message::Manifest { manifest: None, .. })));
    assert!(recorded.iter().any(|recorded| recorded.frame[4..6] == [4, 1]), "a page is compressed");
    assert!(messages.iter().any(|(_, message)| matches!(message, Message::Chunk { index: 1, .. })), "a blob is cut");
    let records = messages.iter().flat_map(|(_, message)| match message {
        Message::Page { bucket, records, .. } => records.iter().map(|bytes| (*bucket, bytes)).collect(),
        _ => Vec::new(),
    });
    let records: Vec<Record> =
        records.map(|(bucket, bytes)| Record::decode(bucket, bytes).expect("it is one")).collect();
    let kinds: std::collections::BTreeSet<u16> = records.iter().map(|record| record.key.kind.0).collect();
    assert_eq!(kinds, (1..12).chain([40_000]).collect());
    assert!(records.iter().any(Record::is_tombstone));
    let buckets: std::collections::BTreeSet<BucketId> = records.iter().map(|record| record.key.bucket).collect();
    assert_eq!(buckets.len(), 4, "the catalogue, two collections and a site: {buckets:?}");
}
