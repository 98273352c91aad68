//! The values of rows: fixed parts in big-endian, then the encoded record where there is one.

use alexandria_sync::chunk::Chunking;
use alexandria_sync::id::{BucketId, Epoch, NodeId, RecordId, Seq};
use alexandria_sync::lineage::Lineage;
use alexandria_sync::merge::QuarantineReason;
use alexandria_sync::quarantine::QuarantineUse;
use alexandria_sync::record::{Kind, Record};
use alexandria_sync::store::{Cursor, Peer};

use super::error::StoreError;
use super::lineage::SetBack;

/// A row of table `r`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RecordRow {
    /// Its row in the bucket's feed.
    pub(crate) seq: Seq,
    /// Who sent exactly this version, and so need not get it back.
    pub(crate) arrived_from: Option<Peer>,
    pub(crate) record: Record,
}

impl RecordRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let encoding = self.record.encode();
        let mut value = Vec::with_capacity(33 + encoding.len());
        value.extend(self.seq.0.to_be_bytes());
        match self.arrived_from {
            None => value.push(0),
            Some(peer) => {
                value.push(1);
                write_peer(peer, &mut value);
            }
        }
        value.extend(encoding);
        value
    }

    pub(crate) fn decode(bucket: BucketId, value: &[u8]) -> Result<Self, StoreError> {
        Self::read(bucket, value).ok_or(StoreError::DamagedRow { what: "record" })
    }

    fn read(bucket: BucketId, value: &[u8]) -> Option<Self> {
        let mut rest = Rest(value);
        let seq = Seq(rest.number()?);
        let [arrived] = rest.take()?;
        let arrived_from = match arrived {
            0 => None,
            1 => Some(rest.peer()?),
            _ => return None,
        };
        Some(Self { seq, arrived_from, record: Record::decode(bucket, rest.0).ok()? })
    }
}

/// Why a received record was set aside.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SetAside {
    /// Its stamp; replayed once the clocks are right.
    #[error(transparent)]
    Stamp(#[from] QuarantineReason),
    /// Joined with the version held here it is larger than any replica accepts.
    #[error("joined with the version here it is over the limits of a record")]
    TooLarge,
}

/// A row of table `q`: a received record set aside.
#[derive(Clone, Debug, PartialEq)]
pub struct Quarantined {
    /// What came.
    pub record: Record,
    /// From whom.
    pub from: Peer,
    /// When, by the clock here, in milliseconds since 1970.
    pub received_unix_ms: u64,
    /// Why it was not let in.
    pub reason: SetAside,
}

impl Quarantined {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (tag, ahead_ms) = match self.reason {
            SetAside::Stamp(QuarantineReason::AheadOfClock { ahead_ms }) => (0, ahead_ms),
            SetAside::Stamp(QuarantineReason::BeyondTime) => (1, 0),
            SetAside::Stamp(QuarantineReason::TooLarge) | SetAside::TooLarge => (2, 0),
        };
        let mut value = vec![tag];
        value.extend(ahead_ms.to_be_bytes());
        value.extend(self.received_unix_ms.to_be_bytes());
        write_peer(self.from, &mut value);
        value.extend(self.record.encode());
        value
    }

    pub(crate) fn decode(bucket: BucketId, value: &[u8]) -> Result<Self, StoreError> {
        Self::read(bucket, value).ok_or(StoreError::DamagedRow { what: "quarantined record" })
    }

    fn read(bucket: BucketId, value: &[u8]) -> Option<Self> {
        let mut rest = Rest(value);
        let [tag] = rest.take()?;
        let ahead_ms = rest.number()?;
        let reason = match tag {
            0 => QuarantineReason::AheadOfClock { ahead_ms }.into(),
            1 => QuarantineReason::BeyondTime.into(),
            2 => SetAside::TooLarge,
            _ => return None,
        };
        let received_unix_ms = rest.number()?;
        let from = rest.peer()?;
        Some(Self { record: Record::decode(bucket, rest.0).ok()?, from, received_unix_ms, reason })
    }
}

/// A row of table `h`: a blob that is whole in its file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct HeldRow {
    pub(crate) size_bytes: u64,
    pub(crate) chunking: Chunking,
}

impl HeldRow {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut value = self.size_bytes.to_be_bytes().to_vec();
        value.push(match self.chunking {
            Chunking::Fixed => 0,
            Chunking::ContentDefined => 1,
        });
        value
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, StoreError> {
        Self::read(value).ok_or(StoreError::DamagedRow { what: "blob row" })
    }

    fn read(value: &[u8]) -> Option<Self> {
        let mut rest = Rest(value);
        let size_bytes = rest.number()?;
        let chunking = match rest.0 {
            [0] => Chunking::Fixed,
            [1] => Chunking::ContentDefined,
            _ => return None,
        };
        Some(Self { size_bytes, chunking })
    }
}

/// A row of table `k`: how many records of a kind there are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Records that are not deleted.
    pub live: u64,
    /// Tombstones.
    pub deleted: u64,
    /// Bytes of the encodings of both.
    pub size_bytes: u64,
}

impl Totals {
    pub(crate) fn encode(self) -> Vec<u8> {
        [self.live, self.deleted, self.size_bytes].into_iter().flat_map(u64::to_be_bytes).collect()
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let mut rest = Rest(value);
        let mut next = || rest.number().ok_or(StoreError::DamagedRow { what: "total" });
        Ok(Self { live: next()?, deleted: next()?, size_bytes: next()? })
    }
}

/// The row of `m` that keeps a lineage: epoch 8, secret 32, then start 8 and rows 8 for each start.
pub(crate) struct LineageRow;

impl LineageRow {
    pub(crate) fn encode(lineage: &Lineage) -> Vec<u8> {
        let (epoch, secret, starts) = lineage.parts();
        let mut value = epoch.0.to_be_bytes().to_vec();
        value.extend(secret);
        value.extend(starts.iter().flat_map(|&(start, rows)| [start, rows]).flat_map(u64::to_be_bytes));
        value
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Lineage, StoreError> {
        let read = || {
            let (epoch, rest) = value.split_first_chunk()?;
            let (secret, rest) = rest.split_first_chunk()?;
            let (starts, rest) = rest.as_chunks::<16>();
            let starts = starts.iter().map(|pair| {
                let (start, rows) = pair.split_at(8);
                Some((u64::from_be_bytes(start.try_into().ok()?), u64::from_be_bytes(rows.try_into().ok()?)))
            });
            let starts = starts.collect::<Option<Vec<_>>>().filter(|_| rest.is_empty())?;
            Lineage::restored(Epoch(u64::from_be_bytes(*epoch)), *secret, starts)
        };
        read().ok_or(StoreError::DamagedRow { what: "lineage" })
    }
}

/// The row of `m` that says when a store that was set back was noticed: time 8, peer 16, times 8.
pub(crate) struct SetBackRow;

impl SetBackRow {
    pub(crate) fn encode(SetBack { noticed_unix_ms, noticed_by, times }: SetBack) -> Vec<u8> {
        [noticed_unix_ms.to_be_bytes().as_slice(), noticed_by.as_bytes(), &times.to_be_bytes()].concat()
    }

    pub(crate) fn decode(value: &[u8]) -> Result<SetBack, StoreError> {
        let read = || {
            let (noticed, rest) = value.split_first_chunk()?;
            let (by, times) = rest.split_first_chunk()?;
            Some(SetBack {
                noticed_unix_ms: u64::from_be_bytes(*noticed),
                noticed_by: NodeId::from_bytes(*by),
                times: u64::from_be_bytes(times.try_into().ok()?),
            })
        };
        read().ok_or(StoreError::DamagedRow { what: "set back" })
    }
}

pub(crate) fn encode_cursor(cursor: Cursor) -> Vec<u8> {
    [cursor.epoch.0, cursor.seq.0].into_iter().flat_map(u64::to_be_bytes).collect()
}

pub(crate) fn decode_cursor(value: &[u8]) -> Result<Cursor, StoreError> {
    let mut rest = Rest(value);
    let mut next = || rest.number().ok_or(StoreError::DamagedRow { what: "cursor" });
    Ok(Cursor { epoch: Epoch(next()?), seq: Seq(next()?) })
}

/// The value of the row that says how much is set aside.
pub(crate) fn encode_use(kept: QuarantineUse) -> Vec<u8> {
    [kept.records, kept.bytes].into_iter().flat_map(u64::to_be_bytes).collect()
}

pub(crate) fn decode_use(value: &[u8]) -> Result<QuarantineUse, StoreError> {
    let mut rest = Rest(value);
    let mut next = || rest.number().ok_or(StoreError::DamagedRow { what: "size of the quarantine" });
    Ok(QuarantineUse { records: next()?, bytes: next()? })
}

/// The value of a feed row: the record's kind and id.
pub(crate) fn encode_feed(record: &Record) -> Vec<u8> {
    [&record.key.kind.0.to_be_bytes()[..], record.key.id.as_bytes()].concat()
}

pub(crate) fn decode_feed(value: &[u8]) -> Result<(Kind, RecordId), StoreError> {
    let read = || {
        let mut rest = Rest(value);
        let kind = Kind(u16::from_be_bytes(rest.take()?));
        Some((kind, RecordId::from_bytes(rest.take()?)))
    };
    read().ok_or(StoreError::DamagedRow { what: "feed row" })
}

pub(crate) fn decode_number(value: &[u8]) -> Result<u64, StoreError> {
    Rest(value).number().ok_or(StoreError::DamagedRow { what: "number" })
}

fn write_peer(peer: Peer, to: &mut Vec<u8>) {
    to.extend(peer.node.as_bytes());
    to.extend(peer.epoch.0.to_be_bytes());
}

struct Rest<'v>(&'v [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn peer(&mut self) -> Option<Peer> {
        Some(Peer { node: NodeId::from_bytes(self.take()?), epoch: Epoch(self.number()?) })
    }
}
