//! Frames and bodies as docs/PROTOCOL.md tells them, section 2, for version 1: frozen, and written from that document alone.

use std::borrow::Cow;
use std::collections::BTreeMap;

use minicbor::{Decoder, Encoder};

/// A rule of version 1 that the other end broke.
#[derive(Debug)]
#[expect(dead_code, reason = "read by who reads why a test failed")]
pub(super) struct Refusal(String);

impl<E: std::error::Error> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

pub(super) fn refuse<T>(text: &str) -> Result<T, Refusal> {
    Err(Refusal(text.to_owned()))
}

pub(super) type Bucket = [u8; 17];
pub(super) type Hash = [u8; 32];

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

const OPTIONAL_FROM: u8 = 128;
pub(super) const HEAD_BYTES: usize = 6;
pub(super) const CHUNK_HEAD_BYTES: usize = 36;
const CHUNK_BYTES_MAX: usize = 1 << 20;
const CHUNKS_MAX: usize = 262_144;
const OFFERS_MAX: usize = 10_000;
const PAGE_RECORDS_MAX: usize = 20_000;

fn body_bytes_max(frame_type: u8) -> usize {
    match frame_type {
        OFFER => 640_000,
        PAGE => 2 * 1024 * 1024,
        MANIFEST => 12 * 1024 * 1024,
        CHUNK => CHUNK_HEAD_BYTES + CHUNK_BYTES_MAX,
        _ => 4 * 1024,
    }
}

/// A frame's type and its body.
type Typed<'f> = (u8, Cow<'f, [u8]>);

/// The frame's type and its body; `None` for what a peer of version 1 skips.
pub(super) fn read_frame(lane: u8, frame: &[u8]) -> Result<Option<Typed<'_>>, Refusal> {
    let Some(([a, b, c, d, frame_type, flags], body)) = frame.split_first_chunk::<HEAD_BYTES>() else {
        return refuse("a frame has a head");
    };
    let max = body_bytes_max(*frame_type);
    if u32::from_be_bytes([*a, *b, *c, *d]) as usize != body.len() || body.len() > max {
        return refuse("a length that is not that of the body, or over its limit");
    }
    match *frame_type {
        OPTIONAL_FROM.. => return Ok(None),
        HELLO..=CLOSE => {}
        _ => return refuse("an unknown type under 128"),
    }
    if flags & 0x0e != 0 {
        return refuse("an unknown flag under 0x10");
    }
    let lane_is_right = match *frame_type {
        PAGE => lane == 1,
        MANIFEST | CHUNK => (2..10).contains(&lane),
        _ => lane == 0,
    };
    if !lane_is_right {
        return refuse("a message in the wrong lane");
    }
    let body = if flags & 1 == 1 { zstd::bulk::decompress(body, max)?.into() } else { body.into() };
    Ok(Some((*frame_type, body)))
}

pub(super) fn frame(frame_type: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.extend([frame_type, 0]);
    frame.extend_from_slice(body);
    frame
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// A frame whose body is a CBOR map of `len` keys.
pub(super) fn map_frame(
    frame_type: u8,
    len: u64,
    write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Written,
) -> Vec<u8> {
    let mut body = Vec::new();
    let mut e = Encoder::new(&mut body);
    e.map(len).and_then(write).expect("memory takes it");
    frame(frame_type, &body)
}

/// The values of a body by their keys. Keys that are not asked for are skipped.
pub(super) struct Body<'b>(BTreeMap<u64, &'b [u8]>);

impl<'b> Body<'b> {
    pub(super) fn read(bytes: &'b [u8]) -> Result<Self, Refusal> {
        let mut d = Decoder::new(bytes);
        let Some(len) = d.map()? else { return refuse("a map of definite length") };
        let mut values = BTreeMap::new();
        for _ in 0..len {
            let key = d.u64()?;
            let start = d.position();
            d.skip()?;
            values.insert(key, &bytes[start..d.position()]);
        }
        Ok(Self(values))
    }

    pub(super) fn optional(&self, key: u64) -> Option<Decoder<'b>> {
        self.0.get(&key).map(|value| Decoder::new(value))
    }

    pub(super) fn get(&self, key: u64) -> Result<Decoder<'b>, Refusal> {
        self.optional(key).map_or_else(|| refuse("a key is missing"), Ok)
    }

    pub(super) fn u64(&self, key: u64) -> Result<u64, Refusal> {
        Ok(self.get(key)?.u64()?)
    }

    pub(super) fn bytes<const LEN: usize>(&self, key: u64) -> Result<[u8; LEN], Refusal> {
        fixed(&mut self.get(key)?)
    }
}

/// A byte string of one length.
pub(super) fn fixed<const LEN: usize>(d: &mut Decoder<'_>) -> Result<[u8; LEN], Refusal> {
    d.bytes()?.try_into().or_else(|_| refuse("a byte string of another length"))
}

fn bucket(d: &mut Decoder<'_>) -> Result<Bucket, Refusal> {
    let bucket: Bucket = fixed(d)?;
    match bucket[0] {
        1 if bucket[1..] == [0; 16] => Ok(bucket),
        2 | 3 => Ok(bucket),
        _ => refuse("a bucket is the catalogue, a collection or a site"),
    }
}

pub(super) fn bucket_of(body: &Body<'_>) -> Result<Bucket, Refusal> {
    bucket(&mut body.get(0)?)
}

fn len(len: Option<u64>, max: usize) -> Result<usize, Refusal> {
    let len = len.and_then(|len| usize::try_from(len).ok()).filter(|len| *len <= max);
    len.map_or_else(|| refuse("more entries than allowed, or no definite number"), Ok)
}

/// The buckets of an OFFER, with their last rows.
pub(super) fn offer(body: &Body<'_>) -> Result<Vec<(Bucket, u64)>, Refusal> {
    let mut d = body.get(0)?;
    let entry = |d: &mut Decoder<'_>| {
        if d.array()? != Some(2) {
            return refuse("an offered bucket is an array of two");
        }
        Ok((bucket(d)?, d.u64()?))
    };
    (0..len(d.array()?, OFFERS_MAX)?).map(|_| entry(&mut d)).collect()
}

/// A PAGE.
pub(super) struct Page {
    pub(super) bucket: Bucket,
    pub(super) next: u64,
    pub(super) more: bool,
    pub(super) records: Vec<Vec<u8>>,
}

impl Page {
    pub(super) fn read(body: &Body<'_>) -> Result<Self, Refusal> {
        let mut d = body.get(3)?;
        let records = (0..len(d.array()?, PAGE_RECORDS_MAX)?).map(|_| Ok(d.bytes()?.to_vec()));
        let records = records.collect::<Result<_, Refusal>>()?;
        Ok(Self { bucket: bucket_of(body)?, next: body.u64(1)?, more: body.get(2)?.bool()?, records })
    }
}

/// How a blob is cut, and the lengths and hashes of its chunks.
type Cut = (u8, Vec<(usize, Hash)>);

/// The chunks of a MANIFEST, each with its length and hash, and its chunking; `None` if the blob is not there.
pub(super) fn manifest(body: &Body<'_>) -> Result<Option<Cut>, Refusal> {
    let Some(mut bytes) = body.optional(1) else { return Ok(None) };
    let mut d = Decoder::new(bytes.bytes()?);
    if d.array()? != Some(3) || fixed(&mut d)? != body.bytes::<32>(0)? {
        return refuse("a manifest of another form or blob");
    }
    let chunking = d.u8()?;
    let chunk = |d: &mut Decoder<'_>| {
        let (entries, len) = (d.array()?, d.u32()? as usize);
        if entries != Some(2) || !(1..=CHUNK_BYTES_MAX).contains(&len) {
            return refuse("a chunk of another form or length");
        }
        Ok((len, fixed(d)?))
    };
    let chunks = (0..len(d.array()?, CHUNKS_MAX)?).map(|_| chunk(&mut d)).collect::<Result<_, _>>()?;
    if chunking > 1 { refuse("a chunking is 0 or 1") } else { Ok(Some((chunking, chunks))) }
}

/// A CHUNK: blob, index, bytes.
pub(super) fn chunk(body: &[u8]) -> Result<(Hash, u32, &[u8]), Refusal> {
    let Some((head, bytes)) = body.split_first_chunk::<CHUNK_HEAD_BYTES>() else { return refuse("a chunk has a head") };
    let (blob, index) = head.split_at(32);
    Ok((blob.try_into()?, u32::from_be_bytes(index.try_into()?), bytes))
}
