//! Counting how often something was opened through the bridge: in memory first, in records every few seconds. A process
//! that is killed loses what it has not written down.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use alexandria_sync::domain::{OpenCount, Typed};
use alexandria_sync::hlc::Stamp;
use alexandria_sync::id::{BucketId, RecordId};

use crate::postgres::{Edit, EditError, RecordStoreError, Records};

/// Media that are counted between two writes, at most; openings of further ones are not counted.
const MEDIA_MAX: usize = 10_000;

/// Openings that are not written down yet.
#[derive(Default)]
pub(super) struct Opens {
    counted: Mutex<HashMap<RecordId, u64>>,
}

impl Opens {
    pub(super) fn note(&self, media: RecordId) {
        self.add(media, 1);
    }

    fn add(&self, media: RecordId, count: u64) {
        let mut counted = self.counted();
        if counted.len() < MEDIA_MAX || counted.contains_key(&media) {
            *counted.entry(media).or_default() += count;
        }
    }

    /// Each process counts in records of its own, by its incarnation, so no two ever write the same one.
    pub(super) async fn flush(&self, records: &Records) -> Result<(), RecordStoreError> {
        let mut taken = self.take();
        let counted = &taken.counted;
        if counted.is_empty() {
            return Ok(());
        }
        let identity = records.identity();
        let bridge = identity.node_id();
        let bucket = BucketId::Site(bridge);
        let id = |media| OpenCount::record_id(media, bridge, identity.incarnation());
        let keys: Vec<_> = counted.keys().map(|media| (OpenCount::KIND, id(*media))).collect();
        let written = records.edit(bucket, &keys, |held| {
            let mut edit = Edit::default();
            for (media, more) in counted {
                let before = held.get(&(OpenCount::KIND, id(*media)));
                let old = before.and_then(OpenCount::from_record).unwrap_or_default();
                let new = OpenCount { media: *media, count: old.count.saturating_add(*more) };
                edit.records.extend(match before {
                    None => Some(new.to_record(bucket, id(*media), identity.stamp_above(Stamp::default()))),
                    Some(record) => record.edited(new.changes_since(&old), identity.stamp_above(record.newest_stamp())),
                });
            }
            Ok::<Edit<()>, std::convert::Infallible>(edit)
        });
        match written.await {
            Ok(()) => {
                taken.counted.clear();
                Ok(())
            }
            Err(EditError::Store(error)) => Err(error),
            Err(EditError::Refused(never)) => match never {},
        }
    }

    fn take(&self) -> Taken<'_> {
        Taken { opens: self, counted: std::mem::take(&mut *self.counted()) }
    }

    fn counted(&self) -> MutexGuard<'_, HashMap<RecordId, u64>> {
        self.counted.lock().expect("no holder of this lock panics")
    }
}

/// Openings that are being written down. What is not, by a failure or because nobody waits for it any more, is for the next time.
struct Taken<'o> {
    opens: &'o Opens,
    counted: HashMap<RecordId, u64>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let taken = std::mem::take(&mut self.counted);
        for (media, count) in taken {
            self.opens.add(media, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_down_is_for_the_next_time_within_the_limit() {
        let opens = Opens::default();
        let [often, once, late] = [1, 2, 3].map(|number| RecordId::from_bytes([number; 16]));
        for media in [often, often, once] {
            opens.note(media);
        }
        let taken = opens.take();
        opens.note(often);
        drop(taken);
        assert_eq!(*opens.counted(), HashMap::from([(often, 3), (once, 1)]));

        let mut written = opens.take();
        written.counted.clear();
        drop(written);
        assert_eq!(*opens.counted(), HashMap::new());

        opens.note(late);
        let taken = opens.take();
        for number in 0..MEDIA_MAX as u128 {
            opens.note(RecordId::from_bytes((number << 8).to_be_bytes()));
        }
        drop(taken);
        let counted = opens.counted();
        assert_eq!((counted.len(), counted.contains_key(&late)), (MEDIA_MAX, false));
    }
}
