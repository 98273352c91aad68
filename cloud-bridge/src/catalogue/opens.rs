//! Counting how often something was opened through the bridge: in memory first, in records every few seconds. A process
//! that is killed loses what it has not written down.

use std::collections::HashMap;
use std::sync::Mutex;

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
        let mut counted = self.counted.lock().expect("no holder of this lock panics");
        if counted.len() < MEDIA_MAX || counted.contains_key(&media) {
            *counted.entry(media).or_default() += 1;
        }
    }

    /// Each process counts in records of its own, by its incarnation, so no two ever write the same one.
    pub(super) async fn flush(&self, records: &Records) -> Result<(), RecordStoreError> {
        let counted = std::mem::take(&mut *self.counted.lock().expect("no holder of this lock panics"));
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
            for (media, more) in &counted {
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
            Ok(()) => Ok(()),
            Err(EditError::Store(error)) => {
                let mut kept = self.counted.lock().expect("no holder of this lock panics");
                for (media, count) in counted {
                    *kept.entry(media).or_default() += count;
                }
                Err(error)
            }
            Err(EditError::Refused(never)) => match never {},
        }
    }
}
