//! Whether a blob that is not here is wanted now, or only once somebody opens it.
//!
//! | | wanted (`w`) | on demand (`O`) |
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
use alexandria_sync::domain::{Media, Typed};
use alexandria_sync::id::BucketId;
use alexandria_sync::record::{Kind, RecordKey};

use super::error::StoreError;
use super::overlay::Overlay;
use super::selection::{Level, Pinned, level};
use super::{keys, tables};

/// On demand because only the records are kept.
const AS_CHOSEN: u8 = 0;
/// On demand because it was evicted.
const EVICTED: u8 = 1;

/// Makes the rows of tables `w` and `O` right for a blob.
pub(crate) fn settle(rows: &mut Overlay<'_>, blob: BlobHash) -> Result<(), StoreError> {
    let held = rows.contains(&keys::held(blob))?;
    let named_in = if held { Vec::new() } else { tables::content_of(rows, blob)? };
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
    let size = tables::size_in_record(rows, blob)?.map_or(Vec::new(), |size| size.to_be_bytes().to_vec());
    if wanted {
        rows.put(keys::wanted(blob), size);
        rows.remove(keys::on_demand(blob));
    } else {
        rows.remove(keys::wanted(blob));
        let reason = if evicted { EVICTED } else { AS_CHOSEN };
        rows.put(keys::on_demand(blob), [&[reason], size.as_slice()].concat());
    }
    Ok(())
}

/// Notes that a blob is given up for want of room: whoever settles it next finds it on demand.
pub(crate) fn note_evicted(rows: &mut Overlay<'_>, blob: BlobHash) {
    rows.put(keys::on_demand(blob), vec![EVICTED]);
}

/// Whether a row of table `O` says that the blob was evicted.
pub(crate) fn says_evicted(value: &[u8]) -> bool {
    value.first() == Some(&EVICTED)
}

/// The size in a row of table `O`; 0 if nobody knows.
pub(crate) fn on_demand_size(value: &[u8]) -> u64 {
    tables::wanted_size(value.get(1..).unwrap_or_default())
}

/// Whether a blob belongs to a medium or a collection that is pinned.
pub(crate) fn is_pinned(rows: &Overlay<'_>, blob: BlobHash) -> Result<bool, StoreError> {
    if rows.any_with_prefix(&[keys::PIN])?.is_none() {
        return Ok(false);
    }
    for bucket in tables::content_of(rows, blob)? {
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
    let rows = rows.with_prefix(&keys::references_of_kind(blob, kind))?;
    let read = |row: &[u8]| keys::reference_of(row).ok_or(StoreError::DamagedRow { what: "blob reference" });
    rows.iter().map(|(row, _)| read(row)).collect()
}
