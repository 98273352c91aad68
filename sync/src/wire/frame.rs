//! Frames: `length u32 (big-endian, of the body), type u8, flags u8, body`.
//!
//! Every length, count and depth is checked against the limit of its type before memory is taken: a body, decompressed or not, is
//! never larger than its type allows. Types from 128 and flags from 16 up are
//! optional: who does not know them skips the frame, or ignores the flag. What is mandatory and unknown is refused
//! by name, so that both ends can log why.

use bytes::{BufMut, Bytes, BytesMut};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::class::Class;
use super::message::{CloseReason, FETCHING_BLOBS_MAX, Hello, Message, Offered};
use crate::cbor;
use crate::chunk::basis::BASIS_CHUNKS_MAX;
use crate::chunk::{BlobHash, CHUNK_BYTES_MAX, ChunkHash};
use crate::id::{BucketId, Epoch, Seq};
use crate::lineage::{Moment, REMEMBERED_MAX};

/// Length of a frame's head, in bytes.
pub const FRAME_HEADER_BYTES: usize = 6;
/// Body of a page, at most, compressed or not.
pub const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Records in a page, at most.
pub const PAGE_RECORDS_MAX: usize = 20_000;
/// Body of a manifest, at most.
pub const MANIFEST_BYTES_MAX: usize = 12 * 1024 * 1024;
/// Buckets in one offer, at most; more are offered in several.
pub const OFFER_BUCKETS_MAX: usize = 10_000;
/// Body of any small message, at most.
pub const SMALL_BYTES_MAX: usize = 4 * 1024;

/// Containers inside containers in one body, at most.
pub const BODY_DEPTH_MAX: usize = 16;

const OFFER_BYTES_MAX: usize = 64 * OFFER_BUCKETS_MAX;
const CHUNK_HEAD_BYTES: usize = 32 + 4;
const ZSTD_LEVEL: i32 = 3;
/// Bodies under this are not worth compressing, in bytes.
const ZSTD_FROM_BYTES: usize = 512;

const FLAG_ZSTD: u8 = 1;
const FLAGS_MANDATORY: u8 = 0x0f;
const OPTIONAL_TYPES_FROM: u8 = 128;

mod frame_type {
    pub(super) const HELLO: u8 = 1;
    pub(super) const OFFER: u8 = 2;
    pub(super) const PULL: u8 = 3;
    pub(super) const PAGE: u8 = 4;
    pub(super) const MANIFEST_ASK: u8 = 5;
    pub(super) const MANIFEST: u8 = 6;
    pub(super) const CHUNK_ASK: u8 = 7;
    pub(super) const CHUNK: u8 = 8;
    pub(super) const HAVE: u8 = 9;
    pub(super) const QUIET: u8 = 10;
    pub(super) const CLOSE: u8 = 11;
    pub(super) const PATCH: u8 = 128;
    pub(super) const FETCHING: u8 = 136;
}

/// Why bytes are not a frame that this version understands.
#[derive(Debug, thiserror::Error)]
pub enum DecodeFrameError {
    /// The type must be understood and is not.
    #[error("frame type {0} is not known here")]
    UnknownType(u8),
    /// A flag must be understood and is not.
    #[error("flags {flags:#04x} of frame type {frame_type} are not known here")]
    UnknownFlags {
        /// The frame's type.
        frame_type: u8,
        /// All its flags.
        flags: u8,
    },
    /// Over the limit of its type.
    #[error("a frame of type {frame_type} has {len} bytes; at most {max} are allowed")]
    TooLong {
        /// The frame's type.
        frame_type: u8,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The body is not of the form of its type.
    #[error("malformed body of frame type {frame_type}: {source}")]
    Malformed {
        /// The frame's type.
        frame_type: u8,
        /// What is wrong.
        source: minicbor::decode::Error,
    },
    /// A count is over its limit.
    #[error("frame type {frame_type} lists {count} entries; at most {max} are allowed")]
    TooMany {
        /// The frame's type.
        frame_type: u8,
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// The body does not decompress within the limit of its type.
    #[error("body of frame type {frame_type} does not decompress: {source}")]
    Compression {
        /// The frame's type.
        frame_type: u8,
        /// What zstd says.
        source: std::io::Error,
    },
}

impl DecodeFrameError {
    /// What to tell the peer.
    pub fn close_reason(&self) -> CloseReason {
        match self {
            Self::UnknownType(_) | Self::UnknownFlags { .. } => CloseReason::NotUnderstood,
            _ => CloseReason::Violation,
        }
    }
}

/// The checked head of a frame.
#[derive(Clone, Copy, Debug)]
pub struct FrameHeader {
    /// Length of the body that follows, in bytes.
    pub body_len: usize,
    frame_type: u8,
    flags: u8,
}

impl FrameHeader {
    /// Reads a head, and refuses it before anything is allocated for the body.
    ///
    /// # Errors
    ///
    /// [`DecodeFrameError`] for a mandatory type or flag that is not known, or a length over the limit.
    pub fn decode(bytes: [u8; FRAME_HEADER_BYTES]) -> Result<Self, DecodeFrameError> {
        let [a, b, c, d, frame_type, flags] = bytes;
        let body_len = u32::from_be_bytes([a, b, c, d]) as usize;
        let max = body_bytes_max(frame_type).ok_or(DecodeFrameError::UnknownType(frame_type))?;
        if body_len > max {
            return Err(DecodeFrameError::TooLong { frame_type, len: body_len, max });
        }
        if frame_type < OPTIONAL_TYPES_FROM && flags & FLAGS_MANDATORY & !FLAG_ZSTD != 0 {
            return Err(DecodeFrameError::UnknownFlags { frame_type, flags });
        }
        Ok(Self { body_len, frame_type, flags })
    }

    /// The frame's type, as on the wire.
    pub fn frame_type(&self) -> u8 {
        self.frame_type
    }

    /// Reads the body that belongs to this head; `None` for an optional type that is not known here.
    ///
    /// # Errors
    ///
    /// [`DecodeFrameError`] if it is not of the form of its type.
    pub fn decode_body(self, body: Bytes) -> Result<Option<Message>, DecodeFrameError> {
        let frame_type = self.frame_type;
        if frame_type == frame_type::PATCH {
            // It has no flags: what is compressed in it says so itself.
            return decode_message(frame_type, &body).map(Some);
        }
        if frame_type >= OPTIONAL_TYPES_FROM && frame_type != frame_type::FETCHING {
            return Ok(None);
        }
        let body = if self.flags & FLAG_ZSTD == 0 {
            body
        } else {
            let max = body_bytes_max(frame_type).ok_or(DecodeFrameError::UnknownType(frame_type))?;
            zstd::bulk::decompress(&body, max)
                .map_err(|source| DecodeFrameError::Compression { frame_type, source })?
                .into()
        };
        decode_message(frame_type, &body).map(Some)
    }
}

/// The body of a frame of this type, at most, in bytes; `None` if the type must be understood and is not.
fn body_bytes_max(frame_type: u8) -> Option<usize> {
    match frame_type {
        frame_type::OFFER => Some(OFFER_BYTES_MAX),
        frame_type::PAGE => Some(PAGE_BYTES_MAX),
        frame_type::MANIFEST => Some(MANIFEST_BYTES_MAX),
        frame_type::CHUNK | frame_type::PATCH => Some(CHUNK_HEAD_BYTES + CHUNK_BYTES_MAX as usize),
        1..=frame_type::CLOSE | OPTIONAL_TYPES_FROM.. => Some(SMALL_BYTES_MAX),
        _ => None,
    }
}

/// The key of the list in a body of this type, and how many entries it may have.
fn list_of(frame_type: u8) -> (i64, usize) {
    match frame_type {
        frame_type::HELLO => (10, REMEMBERED_MAX),
        frame_type::OFFER => (0, OFFER_BUCKETS_MAX),
        frame_type::PAGE => (3, PAGE_RECORDS_MAX),
        frame_type::CHUNK_ASK => (4, BASIS_CHUNKS_MAX),
        frame_type::FETCHING => (0, FETCHING_BLOBS_MAX),
        _ => (0, usize::MAX),
    }
}

fn decode_message(frame_type: u8, body: &Bytes) -> Result<Message, DecodeFrameError> {
    fn read<'b, T: Decode<'b, ()>>(frame_type: u8, body: &'b [u8]) -> Result<T, DecodeFrameError> {
        minicbor::decode(body).map_err(|source| DecodeFrameError::Malformed { frame_type, source })
    }
    if !matches!(frame_type, frame_type::CHUNK | frame_type::PATCH) {
        let (key, max) = list_of(frame_type);
        let count = cbor::entries(body, key, max, BODY_DEPTH_MAX)
            .map_err(|source| DecodeFrameError::Malformed { frame_type, source })?;
        if count > max {
            return Err(DecodeFrameError::TooMany { frame_type, count, max });
        }
    }
    Ok(match frame_type {
        frame_type::HELLO => Message::Hello(read::<Hello>(frame_type, body)?),
        frame_type::OFFER => {
            let OfferBody { buckets } = read(frame_type, body)?;
            Message::Offer(buckets)
        }
        frame_type::PULL => {
            let PullBody { bucket, after, epoch, page_bytes, own_too } = read(frame_type, body)?;
            Message::Pull { bucket, after, epoch, page_bytes, own_too: own_too.unwrap_or(false) }
        }
        frame_type::PAGE => {
            let PageBody { bucket, next, more, records, moment } = read(frame_type, body)?;
            Message::Page { bucket, next, more, records: records.into_iter().map(Vec::from).collect(), moment }
        }
        frame_type::MANIFEST_ASK => Message::ManifestAsk { blob: read::<BlobBody>(frame_type, body)?.blob },
        frame_type::MANIFEST => {
            let ManifestBody { blob, manifest } = read(frame_type, body)?;
            Message::Manifest { blob, manifest: manifest.map(Vec::from) }
        }
        frame_type::CHUNK_ASK => {
            let ChunkAskBody { blob, index, urgent, class, basis } = read(frame_type, body)?;
            let class = match class {
                Some(number) => Class::of_content(number),
                None if urgent => Class::Reader,
                None => Class::Background,
            };
            match basis.filter(|basis| !basis.is_empty()) {
                Some(basis) => Message::PatchAsk { blob, index, class, basis },
                None => Message::ChunkAsk { blob, index, class },
            }
        }
        frame_type::CHUNK | frame_type::PATCH => {
            let Some((head, _)) = body.split_first_chunk::<CHUNK_HEAD_BYTES>() else {
                let source = minicbor::decode::Error::end_of_input();
                return Err(DecodeFrameError::Malformed { frame_type, source });
            };
            let (hash, index) = head.split_at(32);
            let blob = BlobHash::from_bytes(hash.try_into().expect("split at 32"));
            let index = u32::from_be_bytes(index.try_into().expect("4 bytes are left"));
            let rest = body.slice(CHUNK_HEAD_BYTES..);
            if frame_type == frame_type::CHUNK {
                Message::Chunk { blob, index, bytes: rest }
            } else {
                Message::Patch { blob, index, patch: rest }
            }
        }
        frame_type::HAVE => Message::Have { blob: read::<BlobBody>(frame_type, body)?.blob },
        frame_type::QUIET => Message::Quiet { dealt_with: read::<QuietBody>(frame_type, body)?.dealt_with },
        frame_type::CLOSE => {
            let CloseBody { reason, text } = read(frame_type, body)?;
            Message::Close { reason, text }
        }
        frame_type::FETCHING => {
            let FetchingBody { blobs, begun } = read(frame_type, body)?;
            Message::Fetching { blobs, begun: begun.unwrap_or(false) }
        }
        _ => return Err(DecodeFrameError::UnknownType(frame_type)),
    })
}

impl Message {
    /// The whole frame.
    pub fn to_frame(&self) -> Bytes {
        match self {
            Self::Hello(hello) => small(frame_type::HELLO, hello),
            Self::Offer(buckets) => small(frame_type::OFFER, &OfferBody { buckets: buckets.clone() }),
            &Self::Pull { bucket, after, epoch, page_bytes, own_too } => {
                let own_too = own_too.then_some(true);
                small(frame_type::PULL, &PullBody { bucket, after, epoch, page_bytes, own_too })
            }
            Self::Page { bucket, next, more, records, moment } => {
                let records = records.iter().cloned().map(ByteVec::from).collect();
                let body = PageBody { bucket: *bucket, next: *next, more: *more, records, moment: *moment };
                compressed(frame_type::PAGE, &body)
            }
            Self::ManifestAsk { blob } => small(frame_type::MANIFEST_ASK, &BlobBody { blob: *blob }),
            Self::Manifest { blob, manifest } => small(
                frame_type::MANIFEST,
                &ManifestBody { blob: *blob, manifest: manifest.clone().map(ByteVec::from) },
            ),
            Self::ChunkAsk { blob, index, class } => chunk_ask(*blob, *index, *class, None),
            Self::PatchAsk { blob, index, class, basis } => chunk_ask(*blob, *index, *class, Some(basis.clone())),
            Self::Chunk { blob, index, bytes } => chunk(frame_type::CHUNK, *blob, *index, bytes),
            Self::Patch { blob, index, patch } => chunk(frame_type::PATCH, *blob, *index, patch),
            Self::Have { blob } => small(frame_type::HAVE, &BlobBody { blob: *blob }),
            Self::Quiet { dealt_with } => small(frame_type::QUIET, &QuietBody { dealt_with: *dealt_with }),
            Self::Fetching { blobs, begun } => {
                let body = FetchingBody { blobs: blobs.clone(), begun: begun.then_some(true) };
                small(frame_type::FETCHING, &body)
            }
            Self::Close { reason, text } => {
                let text = text.chars().take(CLOSE_TEXT_CHARS_MAX).collect();
                small(frame_type::CLOSE, &CloseBody { reason: *reason, text })
            }
        }
    }
}

/// Characters of the text of a close that are sent.
const CLOSE_TEXT_CHARS_MAX: usize = 500;

fn head(frame_type: u8, flags: u8, body_len: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(FRAME_HEADER_BYTES + body_len);
    frame.put_u32(u32::try_from(body_len).expect("bodies are built within their limits"));
    frame.put_u8(frame_type);
    frame.put_u8(flags);
    frame
}

fn chunk_ask(blob: BlobHash, index: u32, class: Class, basis: Option<Vec<ChunkHash>>) -> Bytes {
    // The two classes that have been there from the start say nothing new.
    let class_number = match class {
        Class::Software | Class::Pinned => Some(class.number()),
        _ => None,
    };
    small(frame_type::CHUNK_ASK, &ChunkAskBody { blob, index, urgent: class.is_urgent(), class: class_number, basis })
}

/// A chunk, or what makes it.
fn chunk(frame_type: u8, blob: BlobHash, index: u32, bytes: &[u8]) -> Bytes {
    let mut frame = head(frame_type, 0, CHUNK_HEAD_BYTES + bytes.len());
    frame.put_slice(blob.as_bytes());
    frame.put_u32(index);
    frame.put_slice(bytes);
    frame.freeze()
}

fn small<T: Encode<()>>(frame_type: u8, body: &T) -> Bytes {
    let body = minicbor::to_vec(body).expect("encoding to memory cannot fail");
    let mut frame = head(frame_type, 0, body.len());
    frame.put_slice(&body);
    frame.freeze()
}

fn compressed<T: Encode<()>>(frame_type: u8, body: &T) -> Bytes {
    let plain = minicbor::to_vec(body).expect("encoding to memory cannot fail");
    let packed = if plain.len() < ZSTD_FROM_BYTES { None } else { zstd::bulk::compress(&plain, ZSTD_LEVEL).ok() };
    let (flags, body) = match packed {
        Some(packed) if packed.len() < plain.len() => (FLAG_ZSTD, packed),
        _ => (0, plain),
    };
    let mut frame = head(frame_type, flags, body.len());
    frame.put_slice(&body);
    frame.freeze()
}

#[derive(Decode, Encode)]
#[cbor(map)]
struct OfferBody {
    #[n(0)]
    buckets: Vec<Offered>,
}

#[derive(Decode, Encode)]
#[cbor(map)]
struct PullBody {
    #[n(0)]
    bucket: BucketId,
    #[n(1)]
    after: Seq,
    #[n(2)]
    epoch: Epoch,
    #[n(3)]
    page_bytes: u32,
    #[n(4)]
    own_too: Option<bool>,
}

#[derive(Decode, Encode)]
#[cbor(map)]
struct PageBody {
    #[n(0)]
    bucket: BucketId,
    #[n(1)]
    next: Seq,
    #[n(2)]
    more: bool,
    #[n(3)]
    records: Vec<ByteVec>,
    #[n(4)]
    moment: Option<Moment>,
}

#[derive(Decode, Encode)]
#[cbor(map)]
struct BlobBody {
    #[n(0)]
    blob: BlobHash,
}

#[derive(Decode, Encode)]
#[cbor(map)]
struct ManifestBody {
    #[n(0)]
    blob: BlobHash,
    #[n(1)]
    manifest: Option<ByteVec>,
}

#[derive(Decode, Encode)]
#[cbor(map)]
struct ChunkAskBody {
    #[n(0)]
    blob: BlobHash,
    #[n(1)]
    index: u32,
    #[n(2)]
    #[cbor(default)]
    urgent: bool,
    #[n(3)]
    class: Option<u8>,
    #[n(4)]
    basis: Option<Vec<ChunkHash>>,
}

#[derive(Decode, Encode)]
#[cbor(map)]
struct QuietBody {
    #[n(0)]
    dealt_with: u64,
}

#[derive(Decode, Encode)]
#[cbor(map)]
struct FetchingBody {
    #[n(0)]
    blobs: Vec<BlobHash>,
    #[n(1)]
    begun: Option<bool>,
}

#[derive(Decode, Encode)]
#[cbor(map)]
struct CloseBody {
    #[n(0)]
    reason: CloseReason,
    #[n(1)]
    text: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hlc::ClockQuality;
    use crate::id::{Incarnation, NodeId};
    use crate::lineage::Remembered;

    fn decode(frame: &Bytes) -> Result<Option<Message>, DecodeFrameError> {
        let head = FrameHeader::decode(frame[..FRAME_HEADER_BYTES].try_into().unwrap())?;
        assert_eq!(head.body_len, frame.len() - FRAME_HEADER_BYTES);
        head.decode_body(frame.slice(FRAME_HEADER_BYTES..))
    }

    fn moment() -> Moment {
        Moment { start: u64::MAX, rows: 70_000, seal: [9; 16] }
    }

    fn samples() -> Vec<Message> {
        let blob = BlobHash::of(b"sample");
        let bucket = BucketId::Site(NodeId::from_bytes([5; 16]));
        vec![
            Message::Hello(Hello {
                protocol_min: 1,
                protocol_max: 1,
                node: NodeId::from_bytes([1; 16]),
                incarnation: Incarnation(3),
                epoch: Epoch(9),
                unix_ms: 1_700_000_000_000,
                clock_quality: ClockQuality::Trusted,
                software: "alexandria 0.1.0".into(),
                features: 0,
                name: None,
                remembered: vec![Remembered { epoch: Epoch(3), moment: moment() }; REMEMBERED_MAX],
                standing: Some(crate::absence::Standing { in_step_ms: u64::MAX, collected_ms: 7, keeps_all: true }),
            }),
            Message::Offer(vec![Offered { bucket, head: Seq(7) }]),
            Message::Pull { bucket, after: Seq(1), epoch: Epoch(9), page_bytes: 65_536, own_too: false },
            Message::Pull { bucket, after: Seq(0), epoch: Epoch(9), page_bytes: 65_536, own_too: true },
            Message::Page { bucket, next: Seq(2), more: true, records: vec![vec![7; 2000], vec![8]], moment: None },
            Message::Page { bucket, next: Seq(3), more: false, records: vec![], moment: Some(moment()) },
            Message::ManifestAsk { blob },
            Message::Manifest { blob, manifest: None },
            Message::Manifest { blob, manifest: Some(vec![1, 2, 3]) },
            Message::ChunkAsk { blob, index: 4, class: Class::Reader },
            Message::ChunkAsk { blob, index: 4, class: Class::Pinned },
            Message::ChunkAsk { blob, index: 5, class: Class::Background },
            Message::PatchAsk { blob, index: 5, class: Class::Reader, basis: vec![ChunkHash::of(b"basis"); 4] },
            Message::Patch { blob, index: 5, patch: Bytes::from_static(b"patch") },
            Message::Chunk { blob, index: 4, bytes: Bytes::from_static(b"chunk") },
            Message::Have { blob },
            Message::Quiet { dealt_with: 12 },
            Message::Fetching { blobs: vec![blob; FETCHING_BLOBS_MAX], begun: true },
            Message::Fetching { blobs: vec![blob], begun: false },
            Message::Close { reason: CloseReason::Violation, text: "a page out of order".into() },
        ]
    }

    #[test]
    fn every_message_reads_back_from_its_frame() {
        for message in samples() {
            assert_eq!(decode(&message.to_frame()).unwrap(), Some(message));
        }
    }

    #[test]
    fn what_is_mandatory_and_unknown_is_refused_and_what_is_optional_is_skipped() {
        assert!(matches!(FrameHeader::decode([0, 0, 0, 0, 99, 0]), Err(DecodeFrameError::UnknownType(99))));
        assert!(matches!(FrameHeader::decode([0, 0, 0, 0, 3, 2]), Err(DecodeFrameError::UnknownFlags { .. })));
        let optional = FrameHeader::decode([0, 0, 0, 1, 200, 0xff]).unwrap();
        assert_eq!(optional.decode_body(Bytes::from_static(b"x")).unwrap(), None);
        let flagged = FrameHeader::decode([0, 0, 0, 3, 10, 0x10]).unwrap();
        assert!(flagged.decode_body(Bytes::from_static(&[0xa1, 0, 5])).unwrap().is_some());
    }

    #[test]
    fn a_length_over_its_limit_is_refused_from_the_head_alone() {
        let head = [0xff, 0xff, 0xff, 0xff, frame_type::PAGE, 0];
        assert!(matches!(FrameHeader::decode(head), Err(DecodeFrameError::TooLong { .. })));
    }

    #[test]
    fn a_page_that_decompresses_past_its_limit_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 64 * 1024 * 1024], 3).unwrap();
        let head = FrameHeader { body_len: bomb.len(), frame_type: frame_type::PAGE, flags: FLAG_ZSTD };
        assert!(matches!(head.decode_body(bomb.into()), Err(DecodeFrameError::Compression { .. })));
    }

    /// A small message stays small: what it decompresses to is held to the limit of its own type.
    #[test]
    fn a_small_message_that_decompresses_past_its_limit_is_refused() {
        let long = Message::Close { reason: CloseReason::Done, text: String::new() }.to_frame();
        let mut body = long[FRAME_HEADER_BYTES..].to_vec();
        // Key 1, a text of 8 KiB.
        body.pop();
        body.extend([0x79, 0x20, 0x00]);
        body.extend([b'x'; 0x2000]);
        let packed = zstd::bulk::compress(&body, 3).unwrap();
        let decode = |frame_type| {
            let head = FrameHeader { body_len: packed.len(), frame_type, flags: FLAG_ZSTD };
            head.decode_body(packed.clone().into())
        };
        assert!(packed.len() < SMALL_BYTES_MAX);
        assert!(matches!(decode(frame_type::CLOSE), Err(DecodeFrameError::Compression { .. })));
    }

    /// 20,001 records that are not there: refused from the count, before anything is taken for them.
    #[test]
    fn a_count_over_its_limit_is_refused_before_the_entries_are_read() {
        let refused = |frame_type, body: &[u8]| {
            let head = FrameHeader { body_len: body.len(), frame_type, flags: 0 };
            head.decode_body(Bytes::copy_from_slice(body)).unwrap_err()
        };
        let empty_records = |count: u16| {
            let mut body = vec![0xa1, 0x03, 0x99];
            body.extend(count.to_be_bytes());
            body.extend(vec![0x40; count.into()]);
            body
        };
        let error = refused(frame_type::PAGE, &empty_records(20_001));
        assert!(matches!(error, DecodeFrameError::TooMany { count: 20_001, .. }), "{error}");
        let error = refused(frame_type::PAGE, &empty_records(20_000));
        assert!(matches!(error, DecodeFrameError::Malformed { .. }), "only its bucket is missing: {error}");
        let endless = [&[0xa1, 0x03, 0x9f][..], &vec![0x40; 30_000], &[0xff]].concat();
        assert!(matches!(refused(frame_type::PAGE, &endless), DecodeFrameError::TooMany { .. }));
        let basis = Message::PatchAsk {
            blob: BlobHash::of(b"sample"),
            index: 1,
            class: Class::Background,
            basis: vec![ChunkHash::of(b"basis"); BASIS_CHUNKS_MAX + 1],
        };
        let error = refused(frame_type::CHUNK_ASK, &basis.to_frame()[FRAME_HEADER_BYTES..]);
        assert!(matches!(error, DecodeFrameError::TooMany { count: 5, max: 4, .. }), "{error}");
        let offers = [&[0xa1, 0x00, 0x99, 0x27, 0x11], &[0x80; 10_001][..]].concat();
        assert!(matches!(refused(frame_type::OFFER, &offers), DecodeFrameError::TooMany { count: 10_001, .. }));
    }

    /// What is not known is walked over, not followed to any depth.
    #[test]
    fn an_unknown_key_that_nests_without_end_is_refused() {
        for container in [0x81, 0x9f] {
            let body = [&[0xa1, 0x18, 0x63], &[container; 4000][..]].concat();
            let head = FrameHeader { body_len: body.len(), frame_type: frame_type::QUIET, flags: 0 };
            let error = head.decode_body(body.into()).unwrap_err();
            assert!(error.to_string().contains("nests too deeply"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_decoding_panic(which in 0usize..17, at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
            let mut frame = samples()[which].to_frame().to_vec();
            let at = FRAME_HEADER_BYTES + at.index(frame.len() - FRAME_HEADER_BYTES);
            frame[at] = byte;
            frame.truncate(FRAME_HEADER_BYTES + cut.index(frame.len() - FRAME_HEADER_BYTES + 1));
            if let Ok(head) = FrameHeader::decode(frame[..FRAME_HEADER_BYTES].try_into().unwrap()) {
                let _ = head.decode_body(Bytes::copy_from_slice(&frame[FRAME_HEADER_BYTES..]));
            }
        }
    }
}
