//! Each decoder alone.

use std::str::FromStr;

use alexandria_sync::chunk::{BlobHash, Have, Manifest};
use alexandria_sync::domain::{
    Annotation, Author, AuthorCategory, Blob, Category, Collection, Media, MediaAuthor, MediaCategory, OpenCount,
    Typed, User,
};
use alexandria_sync::hlc::{ClockQuality, DRIFT_BOUND_MS};
use alexandria_sync::id::{BucketId, NodeId, RecordId};
use alexandria_sync::identity::PeerIdentity;
use alexandria_sync::merge::{self, Admission, ReceiverClock, admit};
use alexandria_sync::record::Record;
use alexandria_sync::wire::{FRAME_HEADER_BYTES, FrameHeader, Message};
use bytes::Bytes;
use rustls_pki_types::CertificateDer;

const BUCKET: BucketId = BucketId::Catalogue;

/// What a lane brings: frames, one after the other. Whatever is a message is written as a frame that says the same.
pub fn frame(mut data: &[u8]) {
    while let Some((head, rest)) = data.split_first_chunk::<FRAME_HEADER_BYTES>() {
        let Ok(head) = FrameHeader::decode(*head) else { return };
        // Lengths that are made up rarely fit; what is left is the last body.
        let (body, after) = rest.split_at(head.body_len.min(rest.len()));
        check_body(head, Bytes::copy_from_slice(body));
        data = after;
    }
}

/// The body of a message of each type, plain or compressed: the first byte says which.
pub fn message(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else { return };
    let (frame_type, flags) = (choice % 11 + 1, choice / 11 % 2);
    let body = if flags == 0 { body.to_vec() } else { zstd::bulk::compress(body, 1).expect("memory takes it") };
    let [a, b, c, d] = (body.len() as u32).to_be_bytes();
    if let Ok(head) = FrameHeader::decode([a, b, c, d, frame_type, flags]) {
        check_body(head, body.into());
    }
}

fn check_body(head: FrameHeader, body: Bytes) {
    let Ok(Some(message)) = head.decode_body(body) else { return };
    let again = reread(&message);
    if let (Message::Close { reason, .. }, Message::Close { reason: same, text }) = (&message, &again) {
        assert_eq!(reason, same);
        assert_eq!(reread(&again), again, "a text is cut once: {text}");
    } else {
        assert_eq!(message, again);
    }
}

/// What the message's own frame says.
pub(crate) fn reread(message: &Message) -> Message {
    let frame = message.to_frame();
    let (head, _) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().expect("a frame has a head");
    let head = FrameHeader::decode(*head).expect("what is sent is within the limits");
    assert_eq!(head.body_len, frame.len() - FRAME_HEADER_BYTES);
    head.decode_body(frame.slice(FRAME_HEADER_BYTES..)).expect("what is sent can be read").expect("it is known")
}

fn trusted_clock() -> ReceiverClock {
    let unix_ms = 1_780_000_000_000;
    ReceiverClock { unix_ms, quality: ClockQuality::Trusted, drift_bound_ms: DRIFT_BOUND_MS }
}

/// A record has one encoding, says the same to itself, and can be looked at as every kind.
pub fn record(data: &[u8]) {
    let Ok(record) = Record::decode(BUCKET, data) else { return };
    assert_eq!(record.encode(), data, "a record has one encoding");
    record.check_size().expect("what is taken from a peer can be stored and sent on");
    assert_eq!(merge::merge(record.clone(), record.clone()), record);
    let admission = admit(Some(record.clone()), record.clone(), trusted_clock());
    let same = Admission::Superseded { equals_received: true };
    assert!(admission == same || matches!(admission, Admission::Quarantine(_)), "{admission:?}");
    look_at::<Annotation>(&record);
    look_at::<Author>(&record);
    look_at::<AuthorCategory>(&record);
    look_at::<Blob>(&record);
    look_at::<Category>(&record);
    look_at::<Collection>(&record);
    look_at::<Media>(&record);
    look_at::<MediaAuthor>(&record);
    look_at::<MediaCategory>(&record);
    look_at::<OpenCount>(&record);
    look_at::<User>(&record);
}

fn look_at<T: Typed>(record: &Record) {
    if let Some(typed) = T::from_record(record) {
        let _ = typed.validate();
        assert!(typed.changes_since(&T::default()).len() <= 256);
    }
}

/// Two or three versions of one record, each preceded by its length: their join is the same in any order, and what a replica
/// takes in can be read back.
pub fn merge(mut data: &[u8]) {
    let mut versions = Vec::new();
    while let Some(([a, b], rest)) = data.split_first_chunk::<2>() {
        let (version, after) = rest.split_at(usize::from(u16::from_be_bytes([*a, *b])).min(rest.len()));
        let Ok(version) = Record::decode(BUCKET, version) else { return };
        versions.push(version);
        data = after;
    }
    let [first, rest @ ..] = &mut versions[..] else { return };
    for version in rest {
        version.key = first.key;
    }
    let join = |a: &Record, b: &Record| merge::merge(a.clone(), b.clone());
    let [a, b, rest @ ..] = &versions[..] else { return };
    let both = join(a, b);
    assert_eq!(both, join(b, a));
    assert_eq!(both, join(&both, a));
    assert_eq!(both, join(&both, b));
    if let [c, ..] = rest {
        assert_eq!(join(&both, c), join(a, &join(b, c)));
    }
    if let Admission::Apply { record, equals_received } = admit(Some(a.clone()), b.clone(), trusted_clock()) {
        assert_eq!(Record::decode(BUCKET, &record.encode()).expect("what is taken in can be read back"), record);
        assert_eq!(record == *b, equals_received);
    }
}

/// A manifest reads back, and its chunks lie one after the other.
pub fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::from_bytes(data) else { return };
    assert_eq!(Manifest::from_bytes(&manifest.to_bytes()).expect("it was just written"), manifest);
    let mut end = 0;
    for (index, chunk) in (0u32..).zip(manifest.chunks()) {
        assert_eq!((manifest.offset(index), manifest.chunk(index)), (Some(end), Some(*chunk)));
        assert!(!manifest.verifies(index, &[]));
        end += u64::from(chunk.len);
    }
    assert_eq!(manifest.size_bytes(), end);
    assert_eq!(manifest.offset(manifest.chunks().len() as u32), None);
}

/// A certificate that nobody has checked names one member of the fleet, or nobody.
pub fn certificate(data: &[u8]) {
    let certificate = CertificateDer::from(data);
    if let Ok(identity) = PeerIdentity::of_certificate(&certificate) {
        assert_eq!(NodeId::from_str(&identity.id.to_string()), Ok(identity.id));
    }
}

/// The bits of a blob's chunks, preceded by their number.
pub fn have(data: &[u8]) {
    let Some(([a, b], bits)) = data.split_first_chunk::<2>() else { return };
    let chunks = u32::from(u16::from_be_bytes([*a, *b]));
    let Some(mut have) = Have::from_bytes(chunks, bits) else { return };
    let missing: Vec<u32> = have.missing().collect();
    assert_eq!(have.count() as usize + missing.len(), chunks as usize);
    assert_eq!(Have::from_bytes(chunks, have.as_bytes()).as_ref(), Some(&have));
    assert!(!have.insert(chunks) && !have.contains(chunks));
    for index in missing {
        assert!(!have.contains(index) && have.insert(index) && have.contains(index));
    }
    assert!(have.is_complete());
}

/// Names in their text forms and as bytes: each has one.
pub fn name(data: &[u8]) {
    if let Some(bucket) = BucketId::from_bytes(data) {
        assert_eq!(bucket.to_bytes(), data);
        assert_eq!(BucketId::from_str(&bucket.to_string()), Ok(bucket));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    reads_back::<BucketId>(text);
    reads_back::<NodeId>(text);
    reads_back::<RecordId>(text);
    reads_back::<BlobHash>(text);
}

fn reads_back<T: FromStr + ToString>(text: &str) {
    if let Ok(name) = text.parse::<T>() {
        assert!(name.to_string().eq_ignore_ascii_case(text));
    }
}
