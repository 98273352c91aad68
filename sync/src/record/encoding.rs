//! The bytes of a record, on disk and on the wire: version 1.
//!
//! ```text
//! record = [kind: uint, id: bytes(16), body]
//! body   = {0: [+ stamp], 1: {+ tag => [stamp index, value]}}     live: distinct stamps in order, then the fields
//!        / {2: stamp}                                             tombstone
//! stamp  = [time: uint, node: bytes(16), incarnation: uint, quality: uint]
//! ```
//!
//! One record has one encoding, so equal records have equal bytes and equal digests; every other one is refused: lengths are
//! definite, heads as short as they can be, stamps and fields in order, each once, no stamp unused. Values are opaque CBOR
//! items, copied byte for byte. The bucket is not part of it: a page and a store key both name it already. What later versions
//! add goes into new field tags, which this version keeps and merges; a body key that it does not know is refused.

use std::collections::BTreeMap;

use minicbor::{Decoder, Encoder};

use super::{Body, Field, FieldTag, Kind, Record, RecordKey, Value};
use crate::cbor::{self, Lengths, head};
use crate::hlc::{HlcTime, Stamp};
use crate::id::{BucketId, Incarnation, NodeId, RecordId};

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
        array_of(&mut d, 3)?;
        let kind = Kind(uint(&mut d)?);
        let id = RecordId::from_bytes(id_bytes(&mut d)?);
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
    let entries = head(d, cbor::MAP)?;
    match (entries, uint(d)?) {
        (1, KEY_TOMBSTONE) => Ok(Body::Tombstone(read_stamp(d)?)),
        (2, KEY_STAMPS) => {
            let stamps = read_stamps(d)?;
            if uint::<u8>(d)? != KEY_FIELDS {
                return Err(malformed("fields must follow the stamps").into());
            }
            read_fields(d, &stamps).map(Body::Live)
        }
        _ => Err(malformed("unknown form of body").into()),
    }
}

fn read_stamps(d: &mut Decoder<'_>) -> Result<Vec<Stamp>, DecodeRecordError> {
    let count = field_count(head(d, cbor::ARRAY)?)?;
    let mut stamps: Vec<Stamp> = Vec::new();
    for _ in 0..count {
        let stamp = read_stamp(d)?;
        if stamps.last().is_some_and(|last| *last >= stamp) {
            return Err(malformed("stamps stand in order, each once").into());
        }
        stamps.push(stamp);
    }
    Ok(stamps)
}

fn read_fields(d: &mut Decoder<'_>, stamps: &[Stamp]) -> Result<BTreeMap<FieldTag, Field>, DecodeRecordError> {
    let count = field_count(head(d, cbor::MAP)?)?;
    let mut fields = BTreeMap::new();
    let mut used = [false; FIELDS_MAX];
    for _ in 0..count {
        let tag = FieldTag(uint(d)?);
        if fields.last_key_value().is_some_and(|(last, _)| *last >= tag) {
            return Err(malformed("fields stand in order, each once").into());
        }
        array_of(d, 2)?;
        let index = usize::from(uint::<u16>(d)?);
        let stamp = *stamps.get(index).ok_or_else(|| malformed("a field names a stamp that is not there"))?;
        used[index] = true;
        let start = d.position();
        cbor::skip(d, VALUE_DEPTH_MAX, Lengths::Definite)?;
        let value = Value::from_checked(&d.input()[start..d.position()]);
        fields.insert(tag, Field { stamp, value });
    }
    if used.iter().take(stamps.len()).all(|used| *used) {
        Ok(fields)
    } else {
        Err(malformed("a stamp that no field names").into())
    }
}

fn field_count(count: u64) -> Result<u64, DecodeRecordError> {
    if (1..=FIELDS_MAX as u64).contains(&count) { Ok(count) } else { Err(DecodeRecordError::FieldCount(count)) }
}

fn read_stamp(d: &mut Decoder<'_>) -> Result<Stamp, minicbor::decode::Error> {
    array_of(d, 4)?;
    let time = HlcTime::from_bits(uint(d)?);
    let node = NodeId::from_bytes(id_bytes(d)?);
    let incarnation = Incarnation(uint(d)?);
    let before = d.position();
    let quality = d.decode()?;
    // Each quality is one byte; a longer form of its number is another encoding.
    if d.position() - before != 1 {
        return Err(malformed("a number is longer than it need be"));
    }
    Ok(Stamp { time, node, incarnation, quality })
}

fn array_of(d: &mut Decoder<'_>, len: u64) -> Result<(), minicbor::decode::Error> {
    if head(d, cbor::ARRAY)? == len { Ok(()) } else { Err(malformed("array of unexpected length")) }
}

fn uint<T: TryFrom<u64>>(d: &mut Decoder<'_>) -> Result<T, minicbor::decode::Error> {
    head(d, cbor::UINT)?.try_into().map_err(|_| malformed("a number is larger than its type"))
}

fn id_bytes(d: &mut Decoder<'_>) -> Result<[u8; 16], minicbor::decode::Error> {
    let before = d.position();
    let bytes = d.bytes()?;
    // One byte of head for 16 bytes.
    if d.position() - before != 17 {
        return Err(malformed("an id is 16 bytes"));
    }
    bytes.try_into().map_err(|_| malformed("an id is 16 bytes"))
}

fn malformed(what: &'static str) -> minicbor::decode::Error {
    minicbor::decode::Error::message(what)
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
        // The kind and the id.
        bytes.truncate(19);
        bytes.extend([0xa2, 0x00, 0x81]);
        bytes.extend(minicbor::to_vec(stamp(1)).unwrap());
        bytes.extend([0x01, 0xa1, 0x00, 0x82, 0x00]);
        let nested = |depth: usize| [&bytes[..], &vec![0x81; depth], &[0]].concat();
        assert!(Record::decode(BucketId::Catalogue, &nested(VALUE_DEPTH_MAX)).is_ok());
        for depth in [VALUE_DEPTH_MAX + 1, 60_000] {
            let refused = Record::decode(BucketId::Catalogue, &nested(depth)).unwrap_err();
            assert!(refused.to_string().contains("nests too deeply"), "{refused}");
        }
    }

    /// Each says the same as a record in its one encoding, in another way.
    #[test]
    fn another_encoding_of_a_record_is_refused() {
        let stamp_bytes = |unix_ms| minicbor::to_vec(stamp(unix_ms)).unwrap();
        let record = |stamps: &[&[u8]], fields: &[u8]| {
            let mut bytes = vec![0x83, 0x02, 0x50];
            bytes.extend([3; 16]);
            bytes.extend([0xa2, 0x00, 0x80 + stamps.len() as u8]);
            bytes.extend(stamps.concat());
            bytes.push(0x01);
            bytes.extend(fields);
            bytes
        };
        let (early, late) = (stamp_bytes(1), stamp_bytes(2));
        let in_order = [&early[..], &late];
        let two_fields = [0xa2, 0x00, 0x82, 0x00, 0xf6, 0x02, 0x82, 0x01, 0xf6];
        let good = record(&in_order, &two_fields);
        assert_eq!(Record::decode(BucketId::Catalogue, &good).unwrap().encode(), good);

        let mut long_quality = early.clone();
        let quality = long_quality.pop().unwrap();
        long_quality.extend([0x18, quality]);
        let mut long_array = good.clone();
        long_array.splice(0..1, [0x98, 0x03]);
        let mut long_kind = good.clone();
        long_kind.splice(1..2, [0x18, 0x02]);
        let mut long_id = good.clone();
        long_id.splice(2..3, [0x58, 0x10]);
        let mut indefinite = good.clone();
        indefinite[0] = 0x9f;
        indefinite.push(0xff);
        for (what, bytes) in [
            ("stamps out of order", record(&[&late, &early], &two_fields)),
            ("a stamp twice", record(&[&early, &early], &two_fields)),
            ("a stamp unused", record(&in_order, &[0xa1, 0x00, 0x82, 0x00, 0xf6])),
            ("fields out of order", record(&in_order, &[0xa2, 0x02, 0x82, 0x01, 0xf6, 0x00, 0x82, 0x00, 0xf6])),
            ("a field twice", record(&in_order, &[0xa2, 0x00, 0x82, 0x00, 0xf6, 0x00, 0x82, 0x01, 0xf6])),
            ("a long tag", record(&[&early], &[0xa1, 0x18, 0x00, 0x82, 0x00, 0xf6])),
            ("a long index", record(&[&early], &[0xa1, 0x00, 0x82, 0x18, 0x00, 0xf6])),
            ("a long quality", record(&[&long_quality], &[0xa1, 0x00, 0x82, 0x00, 0xf6])),
            ("a long array", long_array),
            ("a long kind", long_kind),
            ("a long id", long_id),
            ("an indefinite length", indefinite),
        ] {
            assert!(Record::decode(BucketId::Catalogue, &bytes).is_err(), "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(BucketId::Catalogue, &bytes);
        }

        #[test]
        fn a_damaged_record_is_refused_or_is_the_encoding_of_another(at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = sample().encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(record) = Record::decode(BucketId::Catalogue, &bytes) {
                prop_assert_eq!(record.encode(), bytes);
            }
        }
    }
}
