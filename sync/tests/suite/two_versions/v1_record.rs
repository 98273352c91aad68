//! Records and their merge as docs/PROTOCOL.md tells them, sections 4 and 5, for version 1: frozen, and written from that
//! document alone. Refuses whatever is not the one encoding of a record.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use super::v1_wire::{Refusal, fixed, refuse};

/// Names a record inside its bucket: kind, id.
pub(super) type Key = (u16, [u8; 16]);

/// Time, node, incarnation, quality: in this order they sort.
type Stamp = (u64, [u8; 16], u32, u8);

/// One version of a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    Live(BTreeMap<u32, (Stamp, Vec<u8>)>),
    Tombstone(Stamp),
}

const BYTES_MAX: usize = 256 * 1024;
const FIELDS_MAX: u64 = 256;
const DEPTH_MAX: u32 = 16;

/// Reads a record, which must take up all of `bytes` and be written in the one way.
pub(super) fn decode(bytes: &[u8]) -> Result<(Key, Record), Refusal> {
    if bytes.len() > BYTES_MAX {
        return refuse("a record of more than 256 KiB");
    }
    let mut d = Decoder::new(bytes);
    if d.array()? != Some(3) {
        return refuse("a record is an array of three");
    }
    let key = (d.u16()?, fixed(&mut d)?);
    let record = match (d.map()?, d.u8()?) {
        (Some(1), 2) => Record::Tombstone(stamp(&mut d)?),
        (Some(2), 0) => {
            let stamps = (0..count(d.array()?)?).map(|_| stamp(&mut d)).collect::<Result<Vec<_>, _>>()?;
            if d.u8()? != 1 {
                return refuse("fields follow the stamps");
            }
            let mut fields = BTreeMap::new();
            for _ in 0..count(d.map()?)? {
                let tag = d.u32()?;
                if d.array()? != Some(2) {
                    return refuse("a field is an array of two");
                }
                let Some(&stamp) = stamps.get(usize::from(d.u16()?)) else { return refuse("no such stamp") };
                let start = d.position();
                skip(&mut d, DEPTH_MAX)?;
                fields.insert(tag, (stamp, bytes[start..d.position()].to_vec()));
            }
            Record::Live(fields)
        }
        _ => return refuse("an unknown form of body"),
    };
    // One encoding each: order, lengths and shortest integers need no checks of their own.
    if encode(key, &record) == bytes { Ok((key, record)) } else { refuse("a record in another than its one encoding") }
}

fn count(len: Option<u64>) -> Result<u64, Refusal> {
    match len {
        Some(len @ 1..=FIELDS_MAX) => Ok(len),
        _ => refuse("between 1 and 256 fields, of definite length"),
    }
}

fn stamp(d: &mut Decoder<'_>) -> Result<Stamp, Refusal> {
    if d.array()? != Some(4) {
        return refuse("a stamp is an array of four");
    }
    let stamp = (d.u64()?, fixed(d)?, d.u32()?, d.u8()?);
    if stamp.3 > 2 { refuse("a quality is 0 to 2") } else { Ok(stamp) }
}

fn skip(d: &mut Decoder<'_>, depth: u32) -> Result<(), Refusal> {
    let items = match d.datatype()? {
        Type::Array => d.array()?,
        Type::Map => d.map()?.map(|pairs| pairs.saturating_mul(2)),
        Type::Tag => {
            d.tag()?;
            Some(1)
        }
        Type::ArrayIndef | Type::MapIndef | Type::BytesIndef | Type::StringIndef | Type::Break => None,
        _ => return Ok(d.skip()?),
    };
    let Some(items) = items else { return refuse("definite lengths only") };
    let Some(inside) = depth.checked_sub(1) else { return refuse("nested more than 16 deep") };
    (0..items).try_for_each(|_| skip(d, inside))
}

/// The one encoding.
pub(super) fn encode(key: Key, record: &Record) -> Vec<u8> {
    fn write(key: Key, record: &Record, e: &mut Encoder<&mut Vec<u8>>) -> Result<(), Box<dyn std::error::Error>> {
        let stamp = |e: &mut Encoder<&mut Vec<u8>>, &(time, node, incarnation, quality): &Stamp| {
            e.array(4)?.u64(time)?.bytes(&node)?.u32(incarnation)?.u8(quality)?.ok()
        };
        e.array(3)?.u16(key.0)?.bytes(&key.1)?;
        match record {
            Record::Tombstone(deleted) => stamp(e.map(1)?.u8(2)?, deleted)?,
            Record::Live(fields) => {
                let stamps: std::collections::BTreeSet<Stamp> = fields.values().map(|(stamp, _)| *stamp).collect();
                e.map(2)?.u8(0)?.array(stamps.len() as u64)?;
                for written in &stamps {
                    stamp(e, written)?;
                }
                e.u8(1)?.map(fields.len() as u64)?;
                for (tag, (written, value)) in fields {
                    let index = stamps.iter().position(|stamp| stamp == written).expect("it was collected");
                    e.u32(*tag)?.array(2)?.u64(index as u64)?;
                    e.writer_mut().extend_from_slice(value);
                }
            }
        }
        Ok(())
    }
    let mut bytes = Vec::new();
    write(key, record, &mut Encoder::new(&mut bytes)).expect("memory takes it");
    bytes
}

/// Joins two versions.
pub(super) fn merge(mine: Record, theirs: Record) -> Record {
    match (mine, theirs) {
        (Record::Tombstone(mine), Record::Tombstone(theirs)) => Record::Tombstone(mine.max(theirs)),
        (Record::Tombstone(stamp), Record::Live(_)) | (Record::Live(_), Record::Tombstone(stamp)) => {
            Record::Tombstone(stamp)
        }
        (Record::Live(mut fields), Record::Live(theirs)) => {
            for (tag, field) in theirs {
                let stays = fields.get(&tag).is_some_and(|held| order(tag, held, &field) != Ordering::Less);
                if !stays {
                    fields.insert(tag, field);
                }
            }
            Record::Live(fields)
        }
    }
}

fn order(tag: u32, a: &(Stamp, Vec<u8>), b: &(Stamp, Vec<u8>)) -> Ordering {
    if tag % 2 == 1 {
        let number = a.1.len().cmp(&b.1.len()).then_with(|| a.1.cmp(&b.1));
        number.then_with(|| a.0.cmp(&b.0))
    } else {
        a.0.cmp(&b.0).then_with(|| a.1.cmp(&b.1))
    }
}

/// The blob that a record of kind 5 names: field number 1, in the form of 32 bytes.
pub(super) fn blob_of(key: Key, record: &Record) -> Option<[u8; 32]> {
    let Record::Live(fields) = record else { return None };
    let (_, value) = fields.get(&2).filter(|_| key.0 == 5)?;
    Decoder::new(value).bytes().ok()?.try_into().ok()
}
