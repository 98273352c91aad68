//! Lists of records of one kind, in one of three orders, page by page.
//!
//! A page starts after the [`Place`] where the last one ended, not after a count: what is added or removed in between
//! never shifts it.

use std::ops::{Bound, RangeInclusive};

use alexandria_sync::id::{BucketId, RecordId};
use alexandria_sync::record::{Kind, RecordKey};

use super::engine::{Direction, end_of_prefix};
use super::error::StoreError;
use super::keys::{self, KeyReader};
use super::records::{ROWS_MAX, Records, Stored};
use super::tables;

/// Rows that one page looks at, at most. A page may therefore be short, or even empty, and still have a next one.
const ROWS_EXAMINED_MAX: usize = 10_000;

/// What a list is sorted by. Equal ranks are sorted by id.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Order {
    /// Time of creation, as the ids tell it; the rank is 0.
    #[default]
    Id,
    /// Time of the last change; the rank is `HlcTime::to_bits`.
    Updated,
    /// How often it was opened; the rank is the count. Only for author, media, category and collection.
    Popularity,
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Records of which kind.
    pub kind: Kind,
    /// Only those of this bucket.
    pub bucket: Option<BucketId>,
    /// In which order.
    pub order: Order,
    /// Which end first.
    pub direction: Direction,
    /// Only those with such a rank; see [`Order`].
    pub ranks: RangeInclusive<u64>,
    /// Where the page before ended.
    pub after: Option<Place>,
    /// How many, up to [`ROWS_MAX`].
    pub limit: usize,
}

impl Listing {
    /// The first page of all records of a kind, oldest first.
    pub fn of(kind: Kind, limit: usize) -> Self {
        Self {
            kind,
            bucket: None,
            order: Order::Id,
            direction: Direction::Ascending,
            ranks: 0..=u64::MAX,
            after: None,
            limit,
        }
    }
}

/// A place between two entries of a list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// The rank of the entry before it.
    pub rank: u64,
    /// The id of that entry.
    pub id: RecordId,
    /// Its bucket.
    pub bucket: BucketId,
}

impl Place {
    /// Length of [`Self::to_bytes`].
    pub const LEN_BYTES: usize = 8 + 16 + BucketId::LEN_BYTES;

    /// Its bytes, for a page token.
    pub fn to_bytes(self) -> [u8; Self::LEN_BYTES] {
        let mut bytes = [0; Self::LEN_BYTES];
        bytes[..8].copy_from_slice(&self.rank.to_be_bytes());
        bytes[8..24].copy_from_slice(self.id.as_bytes());
        bytes[24..].copy_from_slice(&self.bucket.to_bytes());
        bytes
    }

    /// Reads what [`Self::to_bytes`] gave; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (rank, rest) = bytes.split_first_chunk()?;
        let (id, bucket) = rest.split_first_chunk()?;
        let bucket = BucketId::from_bytes(bucket)?;
        Some(Self { rank: u64::from_be_bytes(*rank), id: RecordId::from_bytes(*id), bucket })
    }
}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The record.
    pub stored: Stored,
    /// Its rank in the order asked for.
    pub rank: u64,
}

/// The entries of one page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListedPage {
    /// The entries; none is deleted.
    pub entries: Vec<Listed>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<Place>,
}

impl Records {
    /// One page of a list.
    pub fn list(&self, listing: &Listing) -> Result<ListedPage, StoreError> {
        let (from, to) = bounds(listing);
        let limit = listing.limit.clamp(1, ROWS_MAX);
        let mut page = ListedPage::default();
        let mut place = None;
        for (examined, row) in self.shared().engine.scan(from, to, listing.direction).enumerate() {
            if page.entries.len() == limit || examined == ROWS_EXAMINED_MAX {
                page.next = place;
                break;
            }
            let (row, value) = row?;
            let at = place_of(listing, &row).ok_or(StoreError::DamagedRow { what: "list row" })?;
            place = Some(at);
            let elsewhere = listing.bucket.is_some_and(|bucket| bucket != at.bucket);
            let deleted = listing.order == Order::Id && value == [1];
            if elsewhere || deleted {
                continue;
            }
            let key = RecordKey { bucket: at.bucket, kind: listing.kind, id: at.id };
            // It may have been deleted since the scan met its row.
            let stored = self.get(key)?.filter(|stored| !stored.record.is_tombstone());
            page.entries.extend(stored.map(|stored| Listed { stored, rank: at.rank }));
        }
        Ok(page)
    }
}

fn bounds(listing: &Listing) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let (first, last) = match listing.order {
        Order::Id => {
            let all = keys::key(keys::ID, &[&listing.kind.0.to_be_bytes()]);
            (all.clone(), all)
        }
        Order::Updated => ranks(keys::UPDATED, listing),
        Order::Popularity => ranks(keys::POPULAR, listing),
    };
    let (mut from, mut to) = (Bound::Included(first), end_of_prefix(&last));
    if let Some(after) = listing.after {
        let key = RecordKey { bucket: after.bucket, kind: listing.kind, id: after.id };
        let at = Bound::Excluded(match listing.order {
            Order::Id => keys::id(key),
            Order::Updated => keys::ranked(keys::UPDATED, after.rank, key),
            Order::Popularity => keys::ranked(keys::POPULAR, after.rank, key),
        });
        match listing.direction {
            Direction::Ascending => from = later(from, at),
            Direction::Descending => to = earlier(to, at),
        }
    }
    (from, to)
}

/// The first and the last prefix of the ranks asked for.
fn ranks(table: u8, listing: &Listing) -> (Vec<u8>, Vec<u8>) {
    let at = |rank: u64| keys::key(table, &[&listing.kind.0.to_be_bytes(), &rank.to_be_bytes()]);
    (at(*listing.ranks.start()), at(*listing.ranks.end()))
}

/// A place outside the ranks asked for must not widen them.
fn later(from: Bound<Vec<u8>>, at: Bound<Vec<u8>>) -> Bound<Vec<u8>> {
    match (&from, &at) {
        (Bound::Included(first), Bound::Excluded(place)) if place < first => from,
        _ => at,
    }
}

fn earlier(to: Bound<Vec<u8>>, at: Bound<Vec<u8>>) -> Bound<Vec<u8>> {
    match (&to, &at) {
        (Bound::Excluded(end), Bound::Excluded(place)) if place > end => to,
        _ => at,
    }
}

fn place_of(listing: &Listing, row: &[u8]) -> Option<Place> {
    if listing.order == Order::Id {
        let key = tables::record_of_id_row(row)?;
        return Some(Place { rank: 0, id: key.id, bucket: key.bucket });
    }
    let mut key = KeyReader::new(row);
    key.kind()?;
    Some(Place { rank: key.number()?, id: key.id()?, bucket: key.bucket()? })
}
