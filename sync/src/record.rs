//! Records: what is replicated.
//!
//! A record is `(bucket, kind, id)` with fields. Each field carries the stamp of the write that set it. What the fields
//! mean is `domain`'s business; here they are tagged CBOR items, kept byte for byte, so that a replica relays what
//! it does not understand.
//!
//! Not here: how two versions join (`merge`), and the bytes on disk and on the wire ([`encoding`]).

pub mod encoding;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::hlc::Stamp;
use crate::id::{BucketId, RecordId};

/// What sort of thing a record describes. The numbers that this version knows are in `domain`.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Kind(#[n(0)] pub u16);

/// Names one record among all.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RecordKey {
    /// The bucket that it replicates in.
    pub bucket: BucketId,
    /// What sort of thing it is.
    pub kind: Kind,
    /// Which one.
    pub id: RecordId,
}

/// How two versions of a field join.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MergeRule {
    /// The later stamp wins.
    Lww,
    /// The larger number wins: the furthest position read, a counter that only grows.
    Max,
}

/// A field's number in its kind, and its merge rule, in one number: `number * 2`, plus 1 for [`MergeRule::Max`].
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cbor(transparent)]
pub struct FieldTag(#[n(0)] u32);

impl FieldTag {
    /// The tag of a last-writer-wins field.
    pub const fn lww(number: u32) -> Self {
        Self(number << 1)
    }

    /// The tag of a field whose largest number wins.
    pub const fn max(number: u32) -> Self {
        Self(number << 1 | 1)
    }

    /// How two versions of the field join.
    pub const fn rule(self) -> MergeRule {
        if self.0 & 1 == 0 { MergeRule::Lww } else { MergeRule::Max }
    }
}

/// One well-formed CBOR item (RFC 8949), kept as the bytes in which it came.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Value(Box<[u8]>);

impl Value {
    /// Encodes anything that CBOR can say.
    pub fn encode<T: Encode<()>>(value: &T) -> Self {
        Self(minicbor::to_vec(value).expect("encoding to memory cannot fail").into())
    }

    /// Reads it as a `T`.
    ///
    /// # Errors
    ///
    /// If it is something else, as a newer version may have made it.
    pub fn decode<'b, T: Decode<'b, ()>>(&'b self) -> Result<T, minicbor::decode::Error> {
        minicbor::decode(&self.0)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes bytes that were checked to be one CBOR item.
    pub(crate) fn from_checked(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Orders numbers in CBOR's shortest form by size without decoding them, and everything else in some total order.
    pub(crate) fn cmp_as_number(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", minicbor::display(&self.0))
    }
}

/// A field's value, and the write that set it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Field {
    /// The write.
    pub stamp: Stamp,
    /// What it wrote.
    pub value: Value,
}

/// What a record says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Body {
    /// Its fields; at least one.
    Live(BTreeMap<FieldTag, Field>),
    /// It was deleted for good, by this write. The payload is gone.
    Tombstone(Stamp),
}

/// One version of a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Which record.
    pub key: RecordKey,
    /// What it says.
    pub body: Body,
}

impl Record {
    /// A new record whose fields were all written at `stamp`. `None` if there are no fields.
    pub fn new(key: RecordKey, fields: impl IntoIterator<Item = (FieldTag, Value)>, stamp: Stamp) -> Option<Self> {
        let fields: BTreeMap<_, _> = fields.into_iter().map(|(tag, value)| (tag, Field { stamp, value })).collect();
        (!fields.is_empty()).then_some(Self { key, body: Body::Live(fields) })
    }

    /// This record with some fields written anew at `stamp`; `None` if it is deleted. A field whose largest number wins
    /// keeps a larger one: an edit that lowered it here would be undone nowhere else.
    pub fn edited(&self, changes: impl IntoIterator<Item = (FieldTag, Value)>, stamp: Stamp) -> Option<Self> {
        let Body::Live(fields) = &self.body else { return None };
        let mut fields = fields.clone();
        for (tag, value) in changes {
            let lowers = |held: &Field| held.value.cmp_as_number(&value) == Ordering::Greater;
            if tag.rule() == MergeRule::Max && fields.get(&tag).is_some_and(lowers) {
                continue;
            }
            fields.insert(tag, Field { stamp, value });
        }
        Some(Self { key: self.key, body: Body::Live(fields) })
    }

    /// This record deleted for good at `stamp`.
    #[must_use]
    pub fn deleted(&self, stamp: Stamp) -> Self {
        Self { key: self.key, body: Body::Tombstone(stamp) }
    }

    /// Its fields; `None` once it is deleted.
    pub fn fields(&self) -> Option<&BTreeMap<FieldTag, Field>> {
        match &self.body {
            Body::Live(fields) => Some(fields),
            Body::Tombstone(_) => None,
        }
    }

    /// Whether it was deleted for good.
    pub fn is_tombstone(&self) -> bool {
        matches!(self.body, Body::Tombstone(_))
    }

    /// The latest write that it shows.
    pub fn newest_stamp(&self) -> Stamp {
        match &self.body {
            Body::Live(fields) => fields.values().map(|field| field.stamp).max().unwrap_or_default(),
            Body::Tombstone(stamp) => *stamp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An edit that lowered it here would be undone nowhere else: peers keep the larger number and never send it back.
    #[test]
    fn an_edit_never_lowers_a_field_whose_largest_number_wins() {
        let key = RecordKey { bucket: BucketId::Catalogue, kind: Kind(11), id: RecordId::default() };
        let (furthest, title) = (FieldTag::max(1), FieldTag::lww(2));
        let number = |number: u64| Value::encode(&number);
        let later = Stamp { time: crate::hlc::HlcTime::from_unix_ms(1), ..Stamp::default() };
        let record =
            Record::new(key, [(furthest, number(300)), (title, number(300))], Stamp::default()).expect("it has fields");
        let edited = record.edited([(furthest, number(20)), (title, number(20))], later).expect("it is live");
        assert_eq!(crate::merge::merge(edited.clone(), record), edited, "an edit says all that was there");
        let fields = edited.fields().expect("it is live");
        assert_eq!(fields[&title].value, number(20));
        assert_eq!(fields[&furthest].value, number(300));
    }
}
