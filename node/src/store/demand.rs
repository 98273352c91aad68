//! Whether a blob that is not here is wanted now, or only once somebody opens it.
//!
//! | | wanted (`w`) | on demand (`o`) |
//! |---|---|---|
//! | pinned, by its medium or its collection | yes | |
//! | in a collection kept with content, and not evicted | yes | |
//! | in a collection of which only records are kept | | yes |
//! | evicted for want of room | | yes |
//!
//! A blob that is here, or that no bucket's blob record names, is neither. Wanted blobs are fetched by themselves; one on
//! demand becomes urgent when a reader opens it. What was evicted stays on demand until it is here again, so that content
//! does not come and go in a circle.

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Blob, Media, Typed};
use alexandria_sync::id::BucketId;
use alexandria_sync::record::{Kind, RecordKey};

use super::error::StoreError;
use super::keys::{self, KeyReader};
use super::overlay::Overlay;
use super::selection::{Level, Pinned, level};

/// On demand because only the records are kept.
const AS_CHOSEN: u8 = 0;
/// On demand because it was evicted.
const EVICTED: u8 = 1;

/// Makes the rows of tables `w` and `o` right for a blob.
pub(crate) fn settle(rows: &mut Overlay<'_>, blob: BlobHash) -> Result<(), StoreError> {
    let held = rows.contains(&keys::held(blob))?;
    let named_in = if held { Vec::new() } else { buckets_that_name(rows, blob)? };
    if named_in.is_empty() {
        rows.remove(keys::wanted(blob));
        rows.remove(keys::on_demand(blob));
        return Ok(());
    }
    let evicted = was_evicted(rows, blob)?;
    let mut wanted = is_pinned(rows, blob)?;
    for bucket in named_in {
        wanted |= !evicted && level(rows, bucket)? == Level::Content;
    }
    if wanted {
        rows.put(keys::wanted(blob), Vec::new());
        rows.remove(keys::on_demand(blob));
    } else {
        rows.remove(keys::wanted(blob));
        rows.put(keys::on_demand(blob), vec![if evicted { EVICTED } else { AS_CHOSEN }]);
    }
    Ok(())
}

/// Notes that a blob is given up for want of room: whoever settles it next finds it on demand.
pub(crate) fn note_evicted(rows: &mut Overlay<'_>, blob: BlobHash) {
    rows.put(keys::on_demand(blob), vec![EVICTED]);
}

/// Whether a row of table `o` says that the blob was evicted.
pub(crate) fn says_evicted(value: &[u8]) -> bool {
    value == [EVICTED]
}

/// The buckets whose blob records name a blob.
pub(crate) fn buckets_that_name(rows: &Overlay<'_>, blob: BlobHash) -> Result<Vec<BucketId>, StoreError> {
    Ok(named_by(rows, blob, Blob::KIND)?.into_iter().map(|key| key.bucket).collect())
}

/// Whether a blob belongs to a medium or a collection that is pinned.
pub(crate) fn is_pinned(rows: &Overlay<'_>, blob: BlobHash) -> Result<bool, StoreError> {
    if !rows.any_with_prefix(&[keys::PIN])? {
        return Ok(false);
    }
    for bucket in buckets_that_name(rows, blob)? {
        if let BucketId::Collection(id) = bucket
            && rows.contains(&keys::pin(Pinned::Collection(id)))?
        {
            return Ok(true);
        }
    }
    for media in named_by(rows, blob, Media::KIND)? {
        if rows.contains(&keys::pin(Pinned::Media(media.id)))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn was_evicted(rows: &Overlay<'_>, blob: BlobHash) -> Result<bool, StoreError> {
    Ok(rows.get(&keys::on_demand(blob))?.is_some_and(|value| says_evicted(&value)))
}

fn named_by(rows: &Overlay<'_>, blob: BlobHash, kind: Kind) -> Result<Vec<RecordKey>, StoreError> {
    let read = |row: &[u8]| {
        let mut key = KeyReader::new(row);
        key.blob()?;
        let kind = key.kind()?;
        Some(RecordKey { kind, bucket: key.bucket()?, id: key.id()? })
    };
    let rows = rows.with_prefix(&keys::references_of_kind(blob, kind))?;
    rows.iter().map(|(row, _)| read(row).ok_or(StoreError::DamagedRow { what: "blob reference" })).collect()
}
