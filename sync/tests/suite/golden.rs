//! Bytes that released versions wrote, and that every later one must read, and write again to the byte.
//!
//! One folder for each version of the encodings. `ALEXANDRIA_GOLDEN=write cargo test -p alexandria-sync --test suite golden`
//! writes the files that are not there yet, for a new kind or message; a file that is there is never changed.

use std::path::{Path, PathBuf};
use std::{env, fs};

use alexandria_sync::absence::Standing;
use alexandria_sync::chunk::{BlobHash, Chunk, ChunkHash, Chunking, Manifest, patch};
use alexandria_sync::domain::{
    Annotation, Author, AuthorCategory, Blob, Category, Chapter, Collection, Erasure, ErasureReceipt, FileRole, Label,
    Media, MediaAuthor, MediaCategory, MediaFile, MediaKind, OpenCount, Revocation, Role, Typed, User,
};
use alexandria_sync::hlc::{ClockQuality, HlcTime, Stamp};
use alexandria_sync::id::{BucketId, Epoch, Incarnation, NodeId, RecordId, Seq};
use alexandria_sync::lineage::{Moment, Remembered};
use alexandria_sync::record::{FieldTag, Kind, Record, RecordKey, Value};
use alexandria_sync::wire::{Class, CloseReason, FRAME_HEADER_BYTES, FrameHeader, Hello, Message, Offered, feature};
use bytes::Bytes;

const BUCKET: BucketId = BucketId::Catalogue;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// The bytes in the golden file, which `encoded` must equal.
fn golden(name: &str, encoded: &[u8]) -> Vec<u8> {
    let path = folder().join(name);
    if !path.exists() && env::var_os("ALEXANDRIA_GOLDEN").is_some_and(|how| how == "write") {
        fs::write(&path, encoded).expect("the golden folder can be written");
    }
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}; see the head of this file"));
    assert_eq!(hex::encode(encoded), hex::encode(&bytes), "{name} is encoded in another way than released versions do");
    bytes
}

fn stamp(number: u64) -> Stamp {
    Stamp {
        time: HlcTime::from_bits((1_780_000_000_000 + number) << 16 | number),
        node: NodeId::from_bytes([0xa1; 16]),
        incarnation: Incarnation(2),
        quality: ClockQuality::Estimated,
    }
}

fn id(number: u8) -> RecordId {
    RecordId::mint(1_780_000_000_000, [number; 10])
}

fn hash(text: &str) -> BlobHash {
    BlobHash::of(text.as_bytes())
}

/// Checks a record of one kind, all of whose fields are set, in both directions.
fn kind<T: Typed + std::fmt::Debug>(typed: &T) {
    let record = typed.to_record(BUCKET, id(T::KIND.0 as u8), stamp(1));
    let bytes = golden(&format!("record-{}.cbor", T::NAME), &record.encode());
    let read = Record::decode(BUCKET, &bytes).expect("it is a record");
    assert_eq!(read, record);
    assert_eq!(T::from_record(&read).as_ref(), Some(typed));
    assert!(
        typed.changes_since(&T::default()).len() == read.fields().map_or(0, std::collections::BTreeMap::len),
        "every field differs from its default"
    );
}

#[test]
fn golden_records_of_every_kind_read_and_write_as_released() {
    let description = String::from("Line one.\nЯзык, 言語.");
    kind(&Author {
        name: "Chinua Achebe".into(),
        sort_name: Some("Achebe, Chinua".into()),
        description: description.clone(),
        portrait: Some(hash("portrait")),
        disabled: true,
    });
    kind(&Media {
        title: "Things Fall Apart".into(),
        media_kind: MediaKind::Book,
        description: description.clone(),
        languages: vec!["en".into(), "ig".into()],
        publisher: Some("Heinemann".into()),
        published: Some("1958".into()),
        duration_ms: Some(36_000_000),
        pages: Some(209),
        chapters: vec![Chapter {
            title: "One".into(),
            start_ms: Some(0),
            page: Some(3),
            href: Some("one.xhtml#top".into()),
        }],
        files: vec![MediaFile {
            blob: hash("file"),
            media_type: "application/epub+zip".into(),
            name: "things.epub".into(),
            size_bytes: 1_234_567,
            role: FileRole::Alternate,
        }],
        cover: Some(hash("cover")),
        disabled: true,
    });
    kind(&Category { name: "Novels".into(), description: description.clone(), parent: Some(id(9)), disabled: true });
    kind(&Collection { title: "School".into(), description, cover: Some(hash("cover")), disabled: true });
    kind(&Blob { hash: Some(hash("file")), size_bytes: 1_234_567, media_type: "application/epub+zip".into() });
    kind(&User { name: "amina".into(), role: Role::Librarian, disabled: true });
    kind(&MediaAuthor { media: id(1), author: id(2), linked: true });
    kind(&MediaCategory { media: id(1), category: id(3), linked: true });
    kind(&AuthorCategory { author: id(2), category: id(3), linked: true });
    kind(&Annotation {
        media: id(1),
        blob: Some(hash("picture")),
        width_px: 640,
        height_px: 480,
        dominant_colours: vec![0xff_8800, 0x00_1122],
        placeholder: "1QcSHQRnh493V4dIh4eXh1h4kJUI".into(),
        perceptual_hash: 0xdead_beef_0123_4567,
        labels: vec![Label { name: "tree".into(), score: 0.75 }],
        model: "testnet 1".into(),
    });
    kind(&OpenCount { media: id(1), count: 41 });
    kind(&Erasure { kind: Media::KIND.0, record: id(1), blobs: vec![hash("file"), hash("cover")] });
    kind(&ErasureReceipt { erasure: id(20), bucket: Some(BucketId::Collection(id(5))), incarnation: 3 });
    kind(&Revocation { node: NodeId::from_bytes([0xa1; 16]) });
}

/// Replicas of different versions that order or acknowledge the same give it the same name.
#[test]
fn golden_ids_of_erasures_and_receipts_are_those_of_released_versions() {
    let erasure = Erasure::record_id(Media::KIND, id(1), stamp(7), &[hash("file"), hash("cover")]);
    golden("id-erasure.bin", erasure.as_bytes());
    let receipt = ErasureReceipt::record_id(BUCKET, erasure, NodeId::from_bytes([0xa1; 16]));
    golden("id-erasure-receipt.bin", receipt.as_bytes());
}

/// A node looks for what a bridge of another version has written.
#[test]
fn golden_ids_of_revocations_are_those_of_released_versions() {
    golden("id-revocation.bin", Revocation::key(NodeId::from_bytes([0xa1; 16])).id.as_bytes());
}

#[test]
fn golden_tombstones_and_edited_records_read_and_write_as_released() {
    let author = Author { name: "First".into(), ..Author::default() };
    let record = author.to_record(BUCKET, id(1), stamp(1));
    let renamed = Author { name: "Second".into(), disabled: true, ..author.clone() };
    let edited = record.edited(renamed.changes_since(&author), stamp(2)).expect("it is live");
    for (name, record) in [
        ("record-edited.cbor", edited),
        ("record-tombstone.cbor", record.deleted(stamp(3))),
        ("record-presence.cbor", Author::default().to_record(BUCKET, id(1), stamp(1))),
    ] {
        let bytes = golden(name, &record.encode());
        assert_eq!(Record::decode(BUCKET, &bytes).expect("it is a record"), record);
    }
}

/// Invariant 10: what a later version wrote is still there, to the byte, after this version has edited the record.
#[test]
fn golden_unknown_fields_and_kinds_survive_an_edit_by_this_version() {
    let odd = Value::encode(&vec![vec![1.5f32], vec![]]);
    let counter = Value::encode(&u64::MAX);
    let media = Media { title: "Old title".into(), ..Media::default() };
    let from_later = media
        .to_record(BUCKET, id(1), stamp(1))
        .edited([(FieldTag::lww(900), odd.clone()), (FieldTag::max(901), counter.clone())], stamp(2))
        .expect("it is live");
    let bytes = golden("record-unknown-fields.cbor", &from_later.encode());

    let read = Record::decode(BUCKET, &bytes).expect("it is a record");
    let before = Media::from_record(&read).expect("it is a medium");
    let after = Media { title: "New title".into(), ..before.clone() };
    let edited = read.edited(after.changes_since(&before), stamp(3)).expect("it is live");
    let again = Record::decode(BUCKET, &edited.encode()).expect("it is a record");
    let fields = again.fields().expect("it is live");
    assert_eq!((&fields[&FieldTag::lww(900)].value, fields[&FieldTag::lww(900)].stamp), (&odd, stamp(2)));
    assert_eq!((&fields[&FieldTag::max(901)].value, fields[&FieldTag::max(901)].stamp), (&counter, stamp(2)));

    let key = RecordKey { bucket: BUCKET, kind: Kind(40_000), id: id(1) };
    let unknown = Record::new(key, [(FieldTag::lww(3), odd)], stamp(1)).expect("it has a field");
    let bytes = golden("record-unknown-kind.cbor", &unknown.encode());
    assert_eq!(Record::decode(BUCKET, &bytes).expect("it is a record"), unknown);
}

fn hello() -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        node: NodeId::from_bytes([0xa1; 16]),
        incarnation: Incarnation(2),
        epoch: Epoch(0x1122_3344_5566_7788),
        unix_ms: 1_780_000_000_000,
        clock_quality: ClockQuality::Trusted,
        software: "alexandria 0.1.0".into(),
        features: 0,
        name: None,
        remembered: Vec::new(),
        standing: None,
    }
}

#[test]
fn golden_frames_of_every_type_read_and_write_as_released() {
    let blob = hash("file");
    let bucket = BucketId::Site(NodeId::from_bytes([0xa1; 16]));
    let moment = Moment { start: 0x0102_0304_0506_0708, rows: 300, seal: [0x5e; 16] };
    let told = Hello {
        features: feature::OWN_ROWS | feature::PATCHES,
        name: Some("Kisumu".into()),
        remembered: vec![Remembered { epoch: Epoch(9), moment }],
        standing: Some(Standing { in_step_ms: 1_779_000_000_000, collected_ms: 1_760_000_000_000, keeps_all: true }),
        ..hello()
    };
    let author = Author { name: "Chinua Achebe".into(), ..Author::default() }.to_record(BUCKET, id(1), stamp(1));
    let messages = [
        ("hello", Message::Hello(hello())),
        ("hello-whole", Message::Hello(told)),
        ("offer", Message::Offer(vec![Offered { bucket, head: Seq(300) }, Offered { bucket: BUCKET, head: Seq(0) }])),
        ("offer-empty", Message::Offer(vec![])),
        ("pull", Message::Pull { bucket, after: Seq(17), epoch: Epoch(9), page_bytes: 65_536, own_too: false }),
        ("pull-own-too", Message::Pull { bucket, after: Seq(0), epoch: Epoch(9), page_bytes: 4096, own_too: true }),
        (
            "page",
            Message::Page { bucket: BUCKET, next: Seq(18), more: true, records: vec![author.encode()], moment: None },
        ),
        (
            "page-moment",
            Message::Page { bucket, next: Seq(18), more: false, records: Vec::new(), moment: Some(moment) },
        ),
        ("manifest-ask", Message::ManifestAsk { blob }),
        ("manifest", Message::Manifest { blob, manifest: Some(manifest(Chunking::Fixed).to_bytes()) }),
        ("manifest-absent", Message::Manifest { blob, manifest: None }),
        ("chunk-ask", Message::ChunkAsk { blob, index: 70_000, class: Class::Reader }),
        (
            "chunk-ask-basis",
            Message::PatchAsk { blob, index: 70_000, class: Class::Pinned, basis: vec![ChunkHash::of(b"basis")] },
        ),
        ("patch", Message::Patch { blob, index: 70_000, patch: Bytes::from_static(b"patch") }),
        ("chunk", Message::Chunk { blob, index: 70_000, bytes: Bytes::from_static(b"file") }),
        ("chunk-gone", Message::Chunk { blob, index: 0, bytes: Bytes::new() }),
        ("have", Message::Have { blob }),
        ("fetching", Message::Fetching { blobs: vec![blob, hash("another")], begun: false }),
        ("fetching-begun", Message::Fetching { blobs: vec![blob], begun: true }),
        ("quiet", Message::Quiet { dealt_with: 1000 }),
        ("close", Message::Close { reason: CloseReason::GoingAway, text: "restart".into() }),
    ];
    for (name, message) in messages {
        let bytes = golden(&format!("frame-{name}.bin"), &message.to_frame());
        assert_eq!(read_frame(&bytes), Some(message), "{name}");
    }
}

/// A page that is long enough is compressed. How well may differ between versions, what it says may not.
#[test]
fn golden_compressed_pages_still_read() {
    let records: Vec<Vec<u8>> = (0..40)
        .map(|number| Author { name: format!("Author {number}"), ..Author::default() })
        .map(|author| author.to_record(BUCKET, id(1), stamp(1)).encode())
        .collect();
    let page = Message::Page { bucket: BUCKET, next: Seq(40), more: false, records, moment: None };
    let path = folder().join("frame-page-zstd.bin");
    if !path.exists() && env::var_os("ALEXANDRIA_GOLDEN").is_some_and(|how| how == "write") {
        fs::write(&path, page.to_frame()).expect("the golden folder can be written");
    }
    let bytes = fs::read(path).expect("the golden file is there");
    assert_eq!(bytes[5], 1, "it is compressed");
    assert_eq!(read_frame(&bytes), Some(page));
}

/// What makes a chunk of its basis. How well may differ between versions, what it says may not.
#[test]
fn golden_patches_still_make_their_chunks() {
    let basis = alexandria_sync::sim::Seeded::new(2).noise(100_000);
    let mut chunk = basis.clone();
    chunk.splice(50_000..50_100, b"another".iter().copied());
    let path = folder().join("patch.zst");
    if !path.exists() && env::var_os("ALEXANDRIA_GOLDEN").is_some_and(|how| how == "write") {
        let made = patch::make(&basis, &chunk).expect("most of it is in the basis");
        fs::write(&path, made).expect("the golden folder can be written");
    }
    let bytes = fs::read(path).expect("the golden file is there");
    let named = Chunk { len: chunk.len() as u32, hash: ChunkHash::of(&chunk) };
    assert_eq!(patch::apply(&basis, &bytes, named), Ok(chunk));
}

fn read_frame(bytes: &[u8]) -> Option<Message> {
    let (head, body) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>().expect("it has a head");
    let head = FrameHeader::decode(*head).expect("its head is right");
    head.decode_body(Bytes::copy_from_slice(body)).expect("its body is right")
}

fn manifest(chunking: Chunking) -> Manifest {
    let chunk = |text: &str| Chunk { len: text.len() as u32, hash: ChunkHash::of(text.as_bytes()) };
    Manifest::new(hash("file"), chunking, vec![chunk("fi"), chunk("le")]).expect("it is small")
}

#[test]
fn golden_manifests_read_and_write_as_released() {
    for (name, chunking) in [("fixed", Chunking::Fixed), ("content-defined", Chunking::ContentDefined)] {
        let manifest = manifest(chunking);
        let bytes = golden(&format!("manifest-{name}.cbor"), &manifest.to_bytes());
        assert_eq!(Manifest::from_bytes(&bytes).expect("it is a manifest"), manifest);
    }
}

/// Where blobs are cut is part of what is stored: other cuts share no chunks with those that are out there.
#[test]
fn golden_cuts_stay_where_they_were() {
    let bytes = alexandria_sync::sim::Seeded::new(1).noise(3_000_000);
    for (name, chunking) in [("fixed", Chunking::Fixed), ("content-defined", Chunking::ContentDefined)] {
        let mut chunker = alexandria_sync::chunk::Chunker::new(chunking);
        chunker.update(&bytes);
        let manifest = chunker.finish().expect("it is small");
        golden(&format!("cuts-{name}.cbor"), &manifest.to_bytes());
    }
}
