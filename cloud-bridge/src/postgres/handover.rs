//! Hands what belongs to the site of one node over to the node that replaces it.
//!
//! The records of `site/OLD` go into `site/NEW` as they are, with their stamps, as if they had always been there; then they
//! are deleted for good where they were, so that no counter counts twice. Nobody writes into `site/OLD` any more: its node is
//! revoked. Receipts for erasures stay: they say what a disk has forgotten, and only of the node that gave them. Erasures stay, too:
//! they go with what they are about, and what was erased is never to be here again.
//!
//! Done again after a crash, it goes on where it was: what has been handed over is the same there, and gone here.

use std::convert::Infallible;

use alexandria_sync::domain::{Erasure, ErasureReceipt, Typed};
use alexandria_sync::id::{BucketId, NodeId, RecordId, Seq};
use alexandria_sync::merge::merge;
use alexandria_sync::record::{Kind, Record, RecordKey};

use super::{Edit, EditError, Held, RecordStoreError, Records};

/// Records that are handed over at a time.
const RECORDS_AT_ONCE: usize = 500;
/// Bytes of them.
const BYTES_AT_ONCE: u32 = 4 * 1024 * 1024;

impl Records {
    /// Hands over all that belongs to the site of `from`, and says how many records there were.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away. What was handed over by then is.
    pub async fn hand_over_site(&self, from: NodeId, to: NodeId) -> Result<u64, RecordStoreError> {
        let (old, new) = (BucketId::Site(from), BucketId::Site(to));
        // What is deleted on the way gets rows after this one.
        let until = self.head(old).await?.unwrap_or_default();
        let mut after = Seq(0);
        let mut handed_over = 0;
        while after < until {
            let page = self.page(old, after, None, (RECORDS_AT_ONCE, BYTES_AT_ONCE)).await?;
            after = page.next;
            let mut moving = page.records;
            moving.retain(|record| !record.is_tombstone() && record.key.kind != ErasureReceipt::KIND);
            if !moving.is_empty() {
                self.take_in(new, &moving).await?;
                moving.retain(|record| record.key.kind != Erasure::KIND);
                handed_over += self.delete(old, &moving).await?;
            }
        }
        Ok(handed_over)
    }

    async fn take_in(&self, new: BucketId, moving: &[Record]) -> Result<(), RecordStoreError> {
        let decide = |held: &Held| {
            let mut edit = Edit::default();
            for record in moving {
                let key = (record.key.kind, record.key.id);
                let moved = Record { key: RecordKey { bucket: new, ..record.key }, ..record.clone() };
                let joined = match held.get(&key) {
                    Some(held) => merge(held.clone(), moved),
                    None => moved,
                };
                if held.get(&key) != Some(&joined) {
                    edit.records.push(joined);
                }
            }
            Ok::<_, Infallible>(edit)
        };
        self.edit::<(), _>(new, &keys(moving), decide).await.map_err(store_error)
    }

    async fn delete(&self, old: BucketId, moved: &[Record]) -> Result<u64, RecordStoreError> {
        let decide = |held: &Held| {
            let live = held.values().filter(|record| !record.is_tombstone());
            let delete = |record: &Record| record.deleted(self.identity().stamp_above(record.newest_stamp()));
            let records: Vec<Record> = live.map(delete).collect();
            Ok::<_, Infallible>(Edit { answer: records.len() as u64, records })
        };
        self.edit(old, &keys(moved), decide).await.map_err(store_error)
    }
}

fn keys(records: &[Record]) -> Vec<(Kind, RecordId)> {
    records.iter().map(|record| (record.key.kind, record.key.id)).collect()
}

fn store_error(error: EditError<Infallible>) -> RecordStoreError {
    match error {
        EditError::Refused(never) => match never {},
        EditError::Store(error) => error,
    }
}
