//! Records that are set aside: how each is named, how many a replica keeps, and how one is let in.
//!
//! A record that may not be merged (`merge::admit`) is kept aside with its reason, counted as received, and tried again
//! or thrown away by a person. What is kept is bounded. Where the bound is met nothing is dropped: the page that would
//! pass it is not applied, its cursor stays, and the session ends with the reason, so that the same page comes again
//! once there is room.
//!
//! Not here: the reasons (`merge`), and the rows (the stores).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::ParseIdError;
use crate::record::Record;

/// Names one version of a record that is set aside: equal on every replica that set it aside.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct QuarantineId([u8; 16]);

impl QuarantineId {
    /// The name of this version.
    pub fn of(record: &Record) -> Self {
        Self::from_digest(record.digest())
    }

    /// The name of the version with this digest.
    pub fn from_digest(digest: [u8; 32]) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(bytes)
    }

    /// Its bytes: the first of the version's digest.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for QuarantineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for QuarantineId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| ParseIdError::new("name of a record set aside", "32 hexadecimal digits", text))?;
        Ok(Self(bytes))
    }
}

impl Serialize for QuarantineId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for QuarantineId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How much is set aside.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct QuarantineUse {
    /// Versions of records.
    pub records: u64,
    /// Bytes of their encodings.
    pub bytes: u64,
}

impl QuarantineUse {
    /// One more record, of so many bytes.
    #[must_use]
    pub fn with(self, bytes: u64) -> Self {
        Self { records: self.records.saturating_add(1), bytes: self.bytes.saturating_add(bytes) }
    }

    /// One record less, of so many bytes.
    #[must_use]
    pub fn without(self, bytes: u64) -> Self {
        Self { records: self.records.saturating_sub(1), bytes: self.bytes.saturating_sub(bytes) }
    }
}

/// How much may be set aside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QuarantineLimits {
    /// Versions of records, at most.
    pub records_max: u64,
    /// Bytes of their encodings, at most.
    pub bytes_max: u64,
}

impl Default for QuarantineLimits {
    /// Enough for what one wrong clock writes in a busy month, and no burden on a small card.
    fn default() -> Self {
        Self { records_max: 10_000, bytes_max: 32 * 1024 * 1024 }
    }
}

impl QuarantineLimits {
    /// Whether so much may be kept.
    ///
    /// # Errors
    ///
    /// [`QuarantineFull`] if it is too much.
    pub fn check(&self, kept: QuarantineUse) -> Result<(), QuarantineFull> {
        if kept.records <= self.records_max && kept.bytes <= self.bytes_max {
            Ok(())
        } else {
            Err(QuarantineFull { limits: *self })
        }
    }
}

/// No more may be set aside. The page was not applied and will come again; a person replays or drops what is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the quarantine is full ({} records or {} bytes): set the wrong clock right, then replay or drop what is set aside",
    limits.records_max, limits.bytes_max
)]
pub struct QuarantineFull {
    /// The limits that would be passed.
    pub limits: QuarantineLimits,
}

/// How a record that is set aside is let in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Release {
    /// With its own stamps, if the clock here now allows them.
    AsItIs,
    /// As an edit that is made here and now: only what it says counts, not when that was written.
    AsNewEdit,
}

/// What letting a record in came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Released {
    /// It changed what is stored here.
    Applied,
    /// What is here says all of it already.
    Superseded,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_from_its_text() {
        let id = QuarantineId::from_digest([0xa7; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("a7".parse::<QuarantineId>().is_err());
    }

    #[test]
    fn either_limit_stops_it() {
        let limits = QuarantineLimits { records_max: 2, bytes_max: 100 };
        let kept = QuarantineUse::default().with(50).with(50);
        assert_eq!(limits.check(kept), Ok(()));
        assert_eq!(limits.check(kept.with(0)), Err(QuarantineFull { limits }));
        assert_eq!(limits.check(QuarantineUse::default().with(101)), Err(QuarantineFull { limits }));
        assert_eq!(kept.with(7).without(7), kept);
    }
}
