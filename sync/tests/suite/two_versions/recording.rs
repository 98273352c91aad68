//! A session between a node and the bridge, as a file: every frame of every lane, in the order in which they were sent.
//!
//! ```text
//! file  = entry*
//! entry = from: u8 (0 the node, 1 the bridge), lane: u8, frame (docs/PROTOCOL.md section 2)
//! ```
//!
//! [`record`] makes one with the code of today. It is kept for the next version of the protocol; a recording of a released
//! version is never made again.

use std::collections::VecDeque;

use alexandria_sync::chunk::{Chunker, Chunking, Manifest};
use alexandria_sync::domain::{
    Annotation, Author, AuthorCategory, Blob, Category, Collection, Media, MediaAuthor, MediaCategory, OpenCount,
    Typed, User,
};
use alexandria_sync::hlc::ClockQuality;
use alexandria_sync::id::{BucketId, Epoch, RecordId};
use alexandria_sync::record::{FieldTag, Kind, Record, RecordKey, Value};
use alexandria_sync::session::{Collections, Config, Input, Output, Scope, Session};
use alexandria_sync::sim::{self, Seeded, SimBlobs, SimRecords};
use alexandria_sync::wire::{CloseReason, FRAME_HEADER_BYTES, FrameHeader, Lane};
use bytes::Bytes;

use crate::fleet::{NOW_UNIX_S, Site, node_id};

/// Who sent a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum From {
    Node,
    Bridge,
}

/// One frame of a recording.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) from: From,
    pub(super) lane: u8,
    pub(super) frame: Vec<u8>,
}

/// Takes a file apart.
pub(super) fn read(mut file: &[u8]) -> Vec<Recorded> {
    let mut entries = Vec::new();
    while let [from, lane, rest @ ..] = file {
        let from = if *from == 0 { From::Node } else { From::Bridge };
        let len = u32::from_be_bytes(rest[..4].try_into().expect("a frame has a head")) as usize;
        let (frame, after) = rest.split_at(FRAME_HEADER_BYTES + len);
        entries.push(Recorded { from, lane: *lane, frame: frame.to_vec() });
        file = after;
    }
    entries
}

const SHELF: &[u8] = b"the shelf";
const LATER_SHELF: &[u8] = b"a later shelf";

fn shelf() -> BucketId {
    BucketId::Collection(RecordId::derived(&[SHELF]))
}

fn id(number: u8) -> RecordId {
    RecordId::mint(1_760_000_000_000, [number; 10])
}

/// Lets a node and the bridge of this version hold a session, and writes down what they send.
pub(super) fn record() -> Vec<u8> {
    let (node, bridge) = (Site::new(1), replica(2, Epoch(0x1122_3344_5566_7788)));
    let scope = Scope { site: node.id, collections: Collections::All };
    node.blobs.permit(bridge.id, scope.clone());
    bridge.blobs.permit(node.id, scope.clone());
    write_shared(&node, &bridge);
    write_at_node(&node);
    let late = write_at_bridge(&bridge);

    // Small pages, so that feeds take several.
    let config = Config { page_bytes: 4096, ..Config::default() };
    let mut exchange = Exchange {
        ends: [
            End { session: Session::new(config.clone(), node.hello(), bridge.id, scope.clone(), 0), site: node },
            End { session: Session::new(config, bridge.hello(), node_id(1), scope, 0), site: bridge },
        ],
        on_the_way: VecDeque::new(),
        file: Vec::new(),
    };
    exchange.run();

    // What was asked for in vain arrives, a name changes, and a bucket comes up.
    let bridge = &exchange.ends[1].site;
    let (manifest, bytes) = late;
    let blob = manifest.blob();
    bridge.blobs.import(manifest, bytes);
    put(bridge, BucketId::Catalogue, id(60), &Author { name: "Amos Tutuola".into(), ..Author::default() });
    let later_shelf = BucketId::Collection(RecordId::derived(&[LATER_SHELF]));
    put(bridge, later_shelf, id(61), &Media { title: "The Palm-Wine Drinkard".into(), ..Media::default() });
    for input in [Input::BlobCompleted(blob), Input::LocalChange(BucketId::Catalogue), Input::LocalChange(later_shelf)]
    {
        exchange.ends[1].session.handle(input, 0);
        exchange.run();
    }
    let node = &exchange.ends[0].site;
    put(node, shelf(), id(62), &Media { title: "Written while connected".into(), ..Media::default() });
    exchange.ends[0].session.handle(Input::LocalChange(shelf()), 0);
    exchange.run();
    exchange.ends[0].session.handle(Input::Stop(CloseReason::Done, "until tomorrow".into()), 0);
    exchange.run();
    exchange.file
}

fn replica(number: u8, epoch: Epoch) -> Site {
    let id = node_id(number);
    let records = std::sync::Arc::new(SimRecords::new(id, epoch, None));
    records.set_clock(NOW_UNIX_S * 1000, ClockQuality::Trusted);
    let blobs = std::sync::Arc::new(SimBlobs::new(std::sync::Arc::clone(&records), None));
    Site { id, records, blobs }
}

/// Two replicas in conversation, and what they have said.
struct Exchange {
    ends: [End; 2],
    on_the_way: VecDeque<(usize, Lane, Bytes)>,
    file: Vec<u8>,
}

struct End {
    session: Session,
    site: Site,
}

impl Exchange {
    /// Until neither has anything left to say.
    fn run(&mut self) {
        loop {
            for from in 0..2 {
                self.drain(from);
            }
            let Some((to, lane, frame)) = self.on_the_way.pop_front() else { return };
            let (head, _) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().expect("it has a head");
            let head = FrameHeader::decode(*head).expect("it was just encoded");
            let message = head.decode_body(frame.slice(FRAME_HEADER_BYTES..)).expect("it was just encoded");
            self.ends[to].session.handle(Input::Message(lane, message.expect("it is known")), 0);
        }
    }

    fn drain(&mut self, from: usize) {
        let peer = self.ends[1 - from].site.id;
        while let Some(output) = self.ends[from].session.poll() {
            let End { session, site } = &mut self.ends[from];
            match output {
                Output::Send(lane, message) => {
                    let frame = message.to_frame();
                    self.file.extend([from as u8, lane.number()]);
                    self.file.extend_from_slice(&frame);
                    self.on_the_way.push_back((1 - from, lane, frame));
                    session.handle(Input::LaneDrained(lane), 0);
                }
                Output::Disk(request) => {
                    if let Some(done) = sim::carry_out(request, peer, &site.records, &site.blobs) {
                        session.handle(Input::Disk(done), 0);
                    }
                }
                Output::Event(_) => {}
                Output::Closed(closed) => assert_eq!(closed.reason, CloseReason::Done, "{}", closed.text),
            }
        }
    }
}

fn put<T: Typed>(site: &Site, bucket: BucketId, id: RecordId, typed: &T) {
    let key = RecordKey { bucket, kind: T::KIND, id };
    site.records.write(key, |_, stamp| Some(typed.to_record(bucket, id, stamp))).expect("it says something");
}

fn edit<T: Typed>(site: &Site, bucket: BucketId, id: RecordId, change: impl FnOnce(&mut T)) {
    let key = RecordKey { bucket, kind: T::KIND, id };
    site.records.write(key, |held, stamp| {
        let before = T::from_record(held?)?;
        let mut after = before.clone();
        change(&mut after);
        held?.edited(after.changes_since(&before), stamp)
    });
}

fn delete<T: Typed>(site: &Site, bucket: BucketId, id: RecordId) {
    let key = RecordKey { bucket, kind: T::KIND, id };
    site.records.write(key, |held, stamp| Some(held?.deleted(stamp)));
}

/// Records that both have had before, and changed since while they were apart.
fn write_shared(node: &Site, bridge: &Site) {
    let both = |record: Record| {
        for site in [node, bridge] {
            site.records.write(record.key, |_, _| Some(record.clone()));
        }
    };
    let key = |number| RecordKey { bucket: shelf(), kind: Media::KIND, id: id(number) };
    for number in 50..53 {
        node.records.write(key(number), |_, stamp| {
            let media = Media { title: format!("Shared {number}"), ..Media::default() };
            Some(media.to_record(shelf(), id(number), stamp))
        });
        both(node.records.get(key(number)).expect("it was just written"));
    }
    let count = OpenCount { media: id(50), count: 5 };
    put(node, shelf(), id(53), &count);
    let count_key = RecordKey { bucket: shelf(), kind: OpenCount::KIND, id: id(53) };
    both(node.records.get(count_key).expect("it was just written"));

    // Both change the title, the bridge later; each changes something else.
    edit::<Media>(node, shelf(), id(50), |media| (media.title, media.pages) = ("By the node".into(), Some(12)));
    bridge.records.set_clock(NOW_UNIX_S * 1000 + 5000, ClockQuality::Trusted);
    edit::<Media>(bridge, shelf(), id(50), |media| {
        (media.title, media.description) = ("By the bridge".into(), "Later.".into());
    });
    // The node deletes what the bridge changes later, and the other way round.
    delete::<Media>(node, shelf(), id(51));
    edit::<Media>(bridge, shelf(), id(51), |media| media.title = "In vain".into());
    edit::<Media>(node, shelf(), id(52), |media| media.title = "In vain too".into());
    delete::<Media>(bridge, shelf(), id(52));
    // The larger number was written earlier.
    edit::<OpenCount>(node, shelf(), id(53), |count| count.count = 300);
    edit::<OpenCount>(bridge, shelf(), id(53), |count| count.count = 20);
}

fn write_at_node(node: &Site) {
    let description = String::from("Line one.\nЯзык, 言語.");
    let (author, category, media) = (id(1), id(2), id(3));
    put(node, BucketId::Catalogue, author, &Author { name: "Chinua Achebe".into(), ..Author::default() });
    put(
        node,
        BucketId::Catalogue,
        category,
        &Category { name: "Novels".into(), parent: Some(id(9)), ..Category::default() },
    );
    let (link, about) = AuthorCategory::between(author, category);
    put(node, BucketId::Catalogue, link, &about);
    let collection = RecordId::derived(&[SHELF]);
    let shelf_record = Collection { title: "School".into(), description: description.clone(), ..Collection::default() };
    put(node, BucketId::Catalogue, collection, &shelf_record);
    let book = Media {
        title: "Things Fall Apart".into(),
        description,
        languages: vec!["en".into(), "ig".into()],
        ..Media::default()
    };
    put(node, shelf(), media, &book);
    let (link, by) = MediaAuthor::between(media, author);
    put(node, shelf(), link, &by);
    let (link, about) = MediaCategory::between(media, category);
    put(node, shelf(), link, &about);
    let annotation =
        Annotation { media, dominant_colours: vec![0xff_8800], perceptual_hash: u64::MAX, ..Annotation::default() };
    put(node, shelf(), id(4), &annotation);
    let site = BucketId::Site(node.id);
    put(node, site, id(5), &User { name: "amina".into(), ..User::default() });
    let count = OpenCount::record_id(media, node.id, node.records.incarnation());
    put(node, site, count, &OpenCount { media, count: 41 });
    // Nothing but its presence; gone for good; fields and kinds of a later version.
    put(node, BucketId::Catalogue, id(6), &Author::default());
    put(node, BucketId::Catalogue, id(7), &Author { name: "Nobody".into(), ..Author::default() });
    delete::<Author>(node, BucketId::Catalogue, id(7));
    let odd = Value::encode(&vec![vec![1.5f32], vec![]]);
    let key = RecordKey { bucket: shelf(), kind: Media::KIND, id: media };
    let later = [(FieldTag::lww(900), odd.clone()), (FieldTag::max(901), Value::encode(&u64::MAX))];
    node.records.write(key, |held, stamp| held?.edited(later, stamp));
    let key = RecordKey { bucket: shelf(), kind: Kind(40_000), id: id(8) };
    node.records.write(key, |_, stamp| Record::new(key, [(FieldTag::lww(3), odd)], stamp));
    // The first content of this size that has a cut in it.
    let (text, bytes) = (0..1000)
        .map(|seed| content_with_manifest(Chunking::ContentDefined, content(seed, 80_000)))
        .find(|(manifest, _)| manifest.chunks().len() > 1)
        .expect("one in thirty has");
    import(node, text, bytes, "text/plain");
}

/// Tells also which content the bridge does not have yet.
fn write_at_bridge(bridge: &Site) -> (Manifest, Bytes) {
    for number in 0..120u8 {
        let author = Author { name: format!("Author {number}"), disabled: number % 2 == 0, ..Author::default() };
        put(bridge, BucketId::Catalogue, id(100 + number), &author);
    }
    delete::<Author>(bridge, BucketId::Catalogue, id(100));
    let (picture, bytes) = content_with_manifest(Chunking::Fixed, content(8, 3_000));
    import(bridge, picture, bytes, "image/png");
    let (manifest, bytes) = content_with_manifest(Chunking::Fixed, content(9, 700));
    blob_record(bridge, &manifest, "audio/mpeg");
    (manifest, bytes)
}

fn content(seed: u64, len: usize) -> Vec<u8> {
    Seeded::new(seed).noise(len)
}

fn content_with_manifest(chunking: Chunking, bytes: Vec<u8>) -> (Manifest, Bytes) {
    let mut chunker = Chunker::new(chunking);
    chunker.update(&bytes);
    (chunker.finish().expect("it is small"), bytes.into())
}

fn import(site: &Site, manifest: Manifest, bytes: Bytes, media_type: &str) {
    blob_record(site, &manifest, media_type);
    site.blobs.import(manifest, bytes);
}

fn blob_record(site: &Site, manifest: &Manifest, media_type: &str) {
    let hash = manifest.blob();
    let blob = Blob { hash: Some(hash), size_bytes: manifest.size_bytes(), media_type: media_type.into() };
    put(site, shelf(), Blob::record_id(hash), &blob);
}
