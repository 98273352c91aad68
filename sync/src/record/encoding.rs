//! The bytes of a record, on disk and on the wire: version 1.
//!
//! ```text
//! record = [kind: uint, id: bytes(16), body]
//! body   = {0: [+ stamp], 1: {+ tag => [stamp index, value]}}     live: distinct stamps in order, then the fields
//!        / {2: stamp}                                             tombstone
//! stamp  = [time: uint, node: bytes(16), incarnation: uint, quality: uint]
//! ```
//!
//! One record has one encoding, so equal records have equal bytes and equal digests. Values are opaque CBOR items,
//! copied byte for byte. The bucket is not part of it: a page and a store key both name it already. What later versions
//! add goes into new field tags, which this version keeps and merges; a body key that it does not know is refused.

use std::collections::BTreeMap;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use super::{Body, Field, FieldTag, Kind, Record, RecordKey, Value};
use crate::hlc::Stamp;
use crate::id::{BucketId, RecordId};

/// Fields in one record, at most.
pub const FIELDS_MAX: usize = 256;
/// Bytes of one encoded record, at most.
pub const RECORD_BYTES_MAX: usize = 256 * 1024;
/// Containers inside containers in one value, at most.
pub const VALUE_DEPTH_MAX: usize = 16;

const KEY_STAMPS: u8 = 0;
const KEY_FIELDS: u8 = 1;
const KEY_TOMBSTONE: u8 = 2;

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub enum DecodeRecordError {
    /// Not CBOR, or not of the form above.
    #[error("malformed record: {0}")]
    Malformed(#[from] minicbor::decode::Error),
    /// Larger than [`RECORD_BYTES_MAX`].
    #[error("record of {0} bytes is larger than {RECORD_BYTES_MAX}")]
    TooLarge(usize),
    /// More than [`FIELDS_MAX`] fields, or none.
    #[error("record has {0} fields; between 1 and {FIELDS_MAX} are allowed")]
    FieldCount(u64),
    /// A value nests deeper than [`VALUE_DEPTH_MAX`].
    #[error("a value nests deeper than {VALUE_DEPTH_MAX}")]
    TooDeep,
    /// Bytes follow the record.
    #[error("{0} bytes follow the record")]
    TrailingBytes(usize),
}

/// Why a record that was made here cannot be stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "record of {size_bytes} bytes and {fields} fields is over the limit of {RECORD_BYTES_MAX} bytes or {FIELDS_MAX} fields"
)]
pub struct RecordTooLarge {
    /// Its encoded size.
    pub size_bytes: usize,
    /// Its number of fields.
    pub fields: usize,
}

impl Record {
    /// Its one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        self.encode_to(&mut out);
        out
    }

    /// Refuses a record that peers would refuse; call it before storing what was made here.
    ///
    /// # Errors
    ///
    /// [`RecordTooLarge`] past [`RECORD_BYTES_MAX`] or [`FIELDS_MAX`].
    pub fn check_size(&self) -> Result<(), RecordTooLarge> {
        let size_bytes = self.encode().len();
        let fields = self.fields().map_or(0, BTreeMap::len);
        if size_bytes > RECORD_BYTES_MAX || fields > FIELDS_MAX {
            return Err(RecordTooLarge { size_bytes, fields });
        }
        Ok(())
    }

    fn encode_to(&self, out: &mut Vec<u8>) {
        let mut e = Encoder::new(out);
        write_record(self, &mut e).expect("encoding to memory cannot fail");
    }

    /// Reads one record of `bucket` that takes up all of `bytes`.
    ///
    /// # Errors
    ///
    /// [`DecodeRecordError`]; nothing is allocated from a length that `bytes` does not hold.
    pub fn decode(bucket: BucketId, bytes: &[u8]) -> Result<Self, DecodeRecordError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(DecodeRecordError::TooLarge(bytes.len()));
        }
        let mut d = Decoder::new(bytes);
        expect_len(d.array()?, 3)?;
        let kind = Kind(d.u16()?);
        let id: RecordId = d.decode()?;
        let body = read_body(&mut d)?;
        match bytes.len() - d.position() {
            0 => Ok(Self { key: RecordKey { bucket, kind, id }, body }),
            trailing => Err(DecodeRecordError::TrailingBytes(trailing)),
        }
    }

    /// BLAKE3 over bucket and encoding: equal on replicas that hold the same version.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.key.bucket.to_bytes());
        hasher.update(&self.encode());
        *hasher.finalize().as_bytes()
    }
}

type EncodeResult = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn write_record(record: &Record, e: &mut Encoder<&mut Vec<u8>>) -> EncodeResult {
    e.array(3)?.u16(record.key.kind.0)?.encode(record.key.id)?;
    let fields = match &record.body {
        Body::Tombstone(stamp) => {
            e.map(1)?.u8(KEY_TOMBSTONE)?.encode(stamp)?;
            return Ok(());
        }
        Body::Live(fields) => fields,
    };
    let mut stamps: Vec<Stamp> = fields.values().map(|field| field.stamp).collect();
    stamps.sort_unstable();
    stamps.dedup();
    e.map(2)?.u8(KEY_STAMPS)?.encode(&stamps)?;
    e.u8(KEY_FIELDS)?.map(fields.len() as u64)?;
    for (tag, field) in fields {
        let index = stamps.binary_search(&field.stamp).expect("every field's stamp was collected");
        e.encode(tag)?.array(2)?.u64(index as u64)?;
        e.writer_mut().extend_from_slice(field.value.as_bytes());
    }
    Ok(())
}

fn read_body(d: &mut Decoder<'_>) -> Result<Body, DecodeRecordError> {
    let entries = d.map()?;
    match (entries, d.u8()?) {
        (Some(1), KEY_TOMBSTONE) => Ok(Body::Tombstone(d.decode()?)),
        (Some(2), KEY_STAMPS) => {
            let stamps = read_stamps(d)?;
            if d.u8()? != KEY_FIELDS {
                return Err(minicbor::decode::Error::message("fields must follow the stamps").into());
            }
            read_fields(d, &stamps).map(Body::Live)
        }
        _ => Err(minicbor::decode::Error::message("unknown form of body").into()),
    }
}

fn read_stamps(d: &mut Decoder<'_>) -> Result<Vec<Stamp>, DecodeRecordError> {
    let count = definite(d.array()?)?;
    if count == 0 || count > FIELDS_MAX as u64 {
        return Err(DecodeRecordError::FieldCount(count));
    }
    (0..count).map(|_| Ok(d.decode()?)).collect()
}

fn read_fields(d: &mut Decoder<'_>, stamps: &[Stamp]) -> Result<BTreeMap<FieldTag, Field>, DecodeRecordError> {
    let count = definite(d.map()?)?;
    if count == 0 || count > FIELDS_MAX as u64 {
        return Err(DecodeRecordError::FieldCount(count));
    }
    let mut fields = BTreeMap::new();
    for _ in 0..count {
        let tag: FieldTag = d.decode()?;
        expect_len(d.array()?, 2)?;
        let index = d.u16()?;
        let stamp = *stamps
            .get(usize::from(index))
            .ok_or_else(|| minicbor::decode::Error::message("a field names a stamp that is not there"))?;
        let start = d.position();
        skip_value(d, VALUE_DEPTH_MAX)?;
        let value = Value::from_checked(&d.input()[start..d.position()]);
        if fields.insert(tag, Field { stamp, value }).is_some() {
            return Err(minicbor::decode::Error::message("a field stands twice").into());
        }
    }
    Ok(fields)
}

/// Moves past one well-formed item that nests at most `depth` containers.
fn skip_value(d: &mut Decoder<'_>, depth: usize) -> Result<(), DecodeRecordError> {
    match d.datatype()? {
        Type::Array => {
            let depth = depth.checked_sub(1).ok_or(DecodeRecordError::TooDeep)?;
            for _ in 0..definite(d.array()?)? {
                skip_value(d, depth)?;
            }
        }
        Type::Map => {
            let depth = depth.checked_sub(1).ok_or(DecodeRecordError::TooDeep)?;
            for _ in 0..definite(d.map()?)? {
                skip_value(d, depth)?;
                skip_value(d, depth)?;
            }
        }
        Type::Tag => {
            let depth = depth.checked_sub(1).ok_or(DecodeRecordError::TooDeep)?;
            d.tag()?;
            skip_value(d, depth)?;
        }
        Type::String => {
            d.str()?;
        }
        Type::ArrayIndef | Type::MapIndef | Type::BytesIndef | Type::StringIndef | Type::Break | Type::Unknown(_) => {
            return Err(minicbor::decode::Error::message("only items of definite length are allowed").into());
        }
        _ => d.skip()?,
    }
    Ok(())
}

fn definite(len: Option<u64>) -> Result<u64, minicbor::decode::Error> {
    len.ok_or_else(|| minicbor::decode::Error::message("only items of definite length are allowed"))
}

fn expect_len(len: Option<u64>, expected: u64) -> Result<(), minicbor::decode::Error> {
    if len == Some(expected) { Ok(()) } else { Err(minicbor::decode::Error::message("array of unexpected length")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hlc::{ClockQuality, HlcTime};
    use crate::id::{Incarnation, NodeId};

    fn stamp(unix_ms: u64) -> Stamp {
        Stamp {
            time: HlcTime::from_unix_ms(unix_ms),
            node: NodeId::from_bytes([0xaa; 16]),
            incarnation: Incarnation(2),
            quality: ClockQuality::Trusted,
        }
    }

    fn sample() -> Record {
        let key =
            RecordKey { bucket: BucketId::Catalogue, kind: Kind(2), id: RecordId::mint(1_700_000_000_000, [1; 10]) };
        Record::new(
            key,
            [(FieldTag::lww(0), Value::encode(&"Title")), (FieldTag::max(9), Value::encode(&7u64))],
            stamp(5),
        )
        .and_then(|record| record.edited([(FieldTag::lww(1), Value::encode(&vec!["en", "fr"]))], stamp(6)))
        .expect("it has fields")
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let record = sample();
        assert_eq!(Record::decode(BucketId::Catalogue, &record.encode()).unwrap(), record);
        let tombstone = record.deleted(stamp(9));
        assert_eq!(Record::decode(BucketId::Catalogue, &tombstone.encode()).unwrap(), tombstone);
    }

    /// Invariant 10, the encoding's part: a value of a form that this version has no type for is kept to the byte.
    #[test]
    fn unknown_values_are_kept_byte_for_byte() {
        // 24(h'01') and a float in a non-shortest form: nothing in `domain` reads either.
        let odd: &[u8] = &[0x82, 0xd8, 0x18, 0x41, 0x01, 0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0];
        let mut bytes = vec![0x83, 0x19, 0xff, 0xfe, 0x50];
        bytes.extend([3; 16]);
        bytes.extend([0xa2, 0x00, 0x81]);
        bytes.extend(minicbor::to_vec(stamp(1)).unwrap());
        bytes.extend([0x01, 0xa1, 0x19, 0x03, 0xe8, 0x82, 0x00]);
        bytes.extend(odd);
        assert_eq!(Record::decode(BucketId::Catalogue, &bytes).unwrap().encode(), bytes);
    }

    #[test]
    fn a_value_that_nests_too_deeply_is_refused() {
        let mut bytes = sample().deleted(stamp(1)).encode();
        bytes.truncate(20);
        bytes.extend([0xa2, 0x00, 0x81]);
        bytes.extend(minicbor::to_vec(stamp(1)).unwrap());
        bytes.extend([0x01, 0xa1, 0x00, 0x82, 0x00]);
        bytes.extend(vec![0x81; 60_000]);
        bytes.push(0);
        assert!(matches!(
            Record::decode(BucketId::Catalogue, &bytes),
            Err(DecodeRecordError::TooDeep | DecodeRecordError::Malformed(_))
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(BucketId::Catalogue, &bytes);
        }

        #[test]
        fn a_damaged_record_is_refused_or_reads_as_a_record(at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = sample().encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(record) = Record::decode(BucketId::Catalogue, &bytes) {
                prop_assert_eq!(Record::decode(BucketId::Catalogue, &record.encode()).unwrap(), record);
            }
        }
    }
}
