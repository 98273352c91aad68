//! Forgets tombstones that the bridge has told to be out of everybody's way.
//!
//! Each session with the bridge tells how far it has every feed here: a mark, at the time of its hello. What lies up to one mark
//! was there when the next one was made. So a tombstone goes once the bridge has collected up to the mark after the one that
//! it lies before; not if its stamp is later than that, for the bridge may have set it aside. What stays, and why, is in docs/adr/0013-long-absence.md.

use std::ops::Bound;

use alexandria_sync::absence::{Mark, Marks, has_come, is_forgettable};
use alexandria_sync::id::{BucketId, Seq};
use alexandria_sync::record::RecordKey;
use alexandria_sync::store::BucketHead;

use super::super::engine::{Direction, EngineError};
use super::super::error::StoreError;
use super::super::keys;
use super::super::overlay::Overlay;
use super::super::quarantine;
use super::super::records::Records;
use super::super::row::{decode_feed, decode_number};
use super::super::tables;
use super::super::writer::{Room, Transaction};
use super::{bucket_of, is_reading_anew, times};

/// Feed rows that one step looks at, at most.
const ROWS_AT_ONCE: usize = 256;

/// The marks of one feed, and up to where it was gone through.
struct Marked {
    seen: Seq,
    marks: Marks,
}

impl Marked {
    fn encode(&self) -> Vec<u8> {
        let marks = self.marks.kept().iter().flat_map(|mark| [mark.at_ms, mark.head.0]);
        std::iter::once(self.seen.0).chain(marks).flat_map(u64::to_be_bytes).collect()
    }

    fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let numbers = value.chunks(8).map(decode_number).collect::<Result<Vec<_>, _>>()?;
        let (seen, marks) = numbers.split_first().ok_or(StoreError::DamagedRow { what: "marks" })?;
        let marks = marks.chunks_exact(2).map(|mark| Mark { at_ms: mark[0], head: Seq(mark[1]) });
        Ok(Self { seen: Seq(*seen), marks: Marks::restored(marks) })
    }

    /// The last row that the bridge is known to have had at a time: that of the mark before the last one until then.
    fn had_at(&self, at_ms: u64) -> Seq {
        let until: Vec<&Mark> = self.marks.kept().iter().filter(|mark| mark.at_ms <= at_ms).collect();
        until.len().checked_sub(2).map_or(Seq::default(), |at| until[at].head)
    }
}

impl Records {
    /// Forgets tombstones that may be forgotten, in small steps. Says how many.
    pub async fn collect_tombstones(&self) -> Result<u64, StoreError> {
        let mut total = 0;
        let keys: Vec<Vec<u8>> = {
            let rows = self.shared().engine.scan_prefix(&[keys::MARKS]);
            rows.map(|row| row.map(|(key, _)| key)).collect::<Result<_, EngineError>>()?
        };
        for key in keys {
            let bucket = bucket_of(&key)?;
            loop {
                let work = move |transaction: &mut Transaction<'_>| collect_some(&mut transaction.rows, bucket);
                match self.inner.writer.submit::<_, StoreError>(Room::Freed, work).await? {
                    Some(collected) => total += collected,
                    None => break,
                }
            }
        }
        Ok(total)
    }
}

/// Notes how far the bridge has the feeds here.
pub(super) fn note_marks(rows: &mut Overlay<'_>, at_ms: u64, has: &[BucketHead]) -> Result<(), StoreError> {
    for &BucketHead { bucket, head } in has {
        let key = keys::marks(bucket);
        let mut marked = match rows.get(&key)? {
            Some(value) => Marked::decode(&value)?,
            None => Marked { seen: Seq::default(), marks: Marks::default() },
        };
        if head > Seq::default() && marked.marks.note(Mark { at_ms, head }) {
            rows.put(key, marked.encode());
        }
    }
    Ok(())
}

/// Looks at the next rows of a feed; `None` if there are none that may go yet.
fn collect_some(rows: &mut Overlay<'_>, bucket: BucketId) -> Result<Option<u64>, StoreError> {
    let key = keys::marks(bucket);
    let (Some(value), Some(times)) = (rows.get(&key)?, times(rows)?) else { return Ok(None) };
    let mut marked = Marked::decode(&value)?;
    let until = marked.had_at(times.collected_ms);
    if marked.seen >= until || is_reading_anew(rows)? {
        return Ok(None);
    }
    let from = Bound::Excluded(keys::feed(bucket, marked.seen));
    let upto = Bound::Included(keys::feed(bucket, until));
    let feed = rows.engine().scan(from, upto, Direction::Ascending).take(ROWS_AT_ONCE);
    let feed = feed.collect::<Result<Vec<_>, _>>()?;
    if feed.len() < ROWS_AT_ONCE {
        marked.seen = until;
    }
    let mut collected = 0;
    for (row, named) in feed {
        let seq = row.last_chunk().map(|bytes| Seq(u64::from_be_bytes(*bytes)));
        let seq = seq.ok_or(StoreError::DamagedRow { what: "feed row" })?;
        marked.seen = marked.seen.max(seq);
        let (kind, id) = decode_feed(&named)?;
        let of = RecordKey { bucket, kind, id };
        let Some(found) = tables::read(rows, of)? else { continue };
        let may_go = is_forgettable(&found.record) && has_come(&found.record, times.collected_ms);
        if found.seq != seq || !may_go || is_needed(rows, of)? {
            continue;
        }
        tables::forget_tombstone(rows, &found)?;
        collected += 1;
    }
    rows.put(key, marked.encode());
    Ok(Some(collected))
}

/// Whether a tombstone has to stay: a version of its record is set aside, an erasure would make it again, or it was not sent.
fn is_needed(rows: &Overlay<'_>, of: RecordKey) -> Result<bool, StoreError> {
    Ok(quarantine::is_aside(rows, of)?
        || rows.any_with_prefix(&keys::erasures_of(of))?.is_some()
        || rows.contains(&keys::held_back(of))?)
}
