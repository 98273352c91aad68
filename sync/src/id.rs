//! Names of things: nodes, records, buckets, and the lives of a store.
//!
//! All of them are plain bytes with one text form each, so that they sort the same in sled, in PostgreSQL and on the
//! wire. Nothing here draws randomness: whoever mints an id passes the random bits in.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not the name it was meant to be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{text}` is not a valid {what}: expected {expected}")]
pub struct ParseIdError {
    /// The kind of name that was expected.
    pub what: &'static str,
    /// The form it should have had.
    pub expected: &'static str,
    /// What was given, cut to 80 characters.
    pub text: String,
}

impl ParseIdError {
    pub(crate) fn new(what: &'static str, expected: &'static str, text: &str) -> Self {
        Self { what, expected, text: text.chars().take(80).collect() }
    }
}

/// Defines a 16-byte id that reads and prints as a UUID.
macro_rules! uuid_like {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The id with exactly these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Its bytes, in the order in which ids sort.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = hex::encode(self.0);
                write!(f, "{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = || ParseIdError::new($what, "a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057", text);
                let dashes_in_place = text.len() == 36
                    && text.bytes().enumerate().all(|(at, byte)| (byte == b'-') == matches!(at, 8 | 13 | 18 | 23));
                if !dashes_in_place {
                    return Err(error());
                }
                let mut bytes = [0; 16];
                hex::decode_to_slice(text.replace('-', ""), &mut bytes).map_err(|_| error())?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                let bytes = d.bytes()?;
                bytes.try_into().map(Self).map_err(|_| minicbor::decode::Error::message(concat!($what, " is not 16 bytes")))
            }
        }
    };
}

uuid_like! {
    /// One replica: a node, or the bridge (all of whose processes are one replica). Random, kept for the life of its data.
    NodeId, "node id"
}

uuid_like! {
    /// One record. Time-ordered in the layout of UUIDv7 (RFC 9562, section 5.7), so that store keys arrive in order.
    RecordId, "record id"
}

impl RecordId {
    /// Mints an id at `unix_ms` from ten random bytes.
    pub fn mint(unix_ms: u64, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        bytes[6] = bytes[6] & 0x0f | 0x70;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// The id of a record that follows from others: an association, a counter, the record of a blob.
    ///
    /// Two replicas that derive it from the same parts write the same record.
    pub fn derived(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("alexandria 2026 derived record id");
        for part in parts {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        // Version 8 (RFC 9562, section 5.8) marks an id whose first bytes are not a time.
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// When it was minted, in milliseconds since 1970; `None` for a derived id.
    pub fn minted_unix_ms(&self) -> Option<u64> {
        if self.0[6] >> 4 != 7 {
            return None;
        }
        let mut bytes = [0; 8];
        bytes[2..].copy_from_slice(&self.0[..6]);
        Some(u64::from_be_bytes(bytes))
    }
}

/// Counts the lives of one node's data: a restored backup or a cloned card starts a new one, so that its counters and
/// stamps never collide with those of the life that it was copied from.
#[derive(Clone, Copy, Debug, Default, Decode, Encode, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Incarnation(#[n(0)] pub u32);

/// Names one life of a store's feeds. A cursor is only good in the epoch in which it was handed out.
#[derive(Clone, Copy, Debug, Default, Decode, Encode, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Epoch(#[n(0)] pub u64);

/// A place in one bucket's feed. Rows are numbered from 1; 0 is before the first.
#[derive(Clone, Copy, Debug, Default, Decode, Encode, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Seq(#[n(0)] pub u64);

impl Seq {
    /// The place after this one. No feed is so long that it saturates; a peer may name such a place.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The unit of selection, permission and replication.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum BucketId {
    /// Authors, categories and the list of collections: small, held by every replica.
    Catalogue,
    /// The media of one collection, with their files and associations.
    Collection(RecordId),
    /// What belongs to one site: users, positions, counters, private uploads.
    Site(NodeId),
}

impl BucketId {
    /// Length of [`Self::to_bytes`].
    pub const LEN_BYTES: usize = 17;

    /// One byte of kind, then the id: the order in which buckets sort everywhere.
    pub fn to_bytes(self) -> [u8; Self::LEN_BYTES] {
        let mut bytes = [0; Self::LEN_BYTES];
        match self {
            Self::Catalogue => bytes[0] = 1,
            Self::Collection(id) => {
                bytes[0] = 2;
                bytes[1..].copy_from_slice(id.as_bytes());
            }
            Self::Site(id) => {
                bytes[0] = 3;
                bytes[1..].copy_from_slice(id.as_bytes());
            }
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN_BYTES] = bytes.try_into().ok()?;
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[1..]);
        match bytes[0] {
            1 if id == [0; 16] => Some(Self::Catalogue),
            2 => Some(Self::Collection(RecordId::from_bytes(id))),
            3 => Some(Self::Site(NodeId::from_bytes(id))),
            _ => None,
        }
    }
}

impl fmt::Display for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Catalogue => f.write_str("catalogue"),
            Self::Collection(id) => write!(f, "collection/{id}"),
            Self::Site(id) => write!(f, "site/{id}"),
        }
    }
}

impl FromStr for BucketId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        match text.split_once('/') {
            None if text == "catalogue" => Ok(Self::Catalogue),
            Some(("collection", id)) => Ok(Self::Collection(id.parse()?)),
            Some(("site", id)) => Ok(Self::Site(id.parse()?)),
            _ => Err(ParseIdError::new("bucket", "catalogue, collection/UUID or site/UUID", text)),
        }
    }
}

impl Serialize for BucketId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BucketId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<C> Encode<C> for BucketId {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.to_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for BucketId {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::from_bytes(d.bytes()?).ok_or_else(|| minicbor::decode::Error::message("not a bucket id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minted_ids_sort_by_time_and_tell_it() {
        let early = RecordId::mint(1_700_000_000_000, [0xff; 10]);
        let late = RecordId::mint(1_700_000_000_001, [0; 10]);
        assert!(early < late);
        assert_eq!(early.minted_unix_ms(), Some(1_700_000_000_000));
    }

    #[test]
    fn derived_ids_depend_on_where_parts_end() {
        assert_ne!(RecordId::derived(&[b"ab", b"c"]), RecordId::derived(&[b"a", b"bc"]));
        assert_eq!(RecordId::derived(&[b"ab"]).minted_unix_ms(), None);
    }

    #[test]
    fn every_id_reads_back_from_its_text_and_its_bytes() {
        let id = RecordId::mint(42, [7; 10]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bucket in [BucketId::Catalogue, BucketId::Collection(id), BucketId::Site(NodeId::from_bytes([9; 16]))] {
            assert_eq!(bucket.to_string().parse(), Ok(bucket));
            assert_eq!(BucketId::from_bytes(&bucket.to_bytes()), Some(bucket));
        }
        assert!("018-90a5dac96774bbcceb302099a80576".parse::<RecordId>().is_err());
        assert!("shelf/1".parse::<BucketId>().is_err());
    }
}
