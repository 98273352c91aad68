//! What the node holds and does, for the operator.

use alexandria_sync::domain::{Author, Category, Collection, Media, Typed};
use alexandria_sync::record::Kind;

use super::held_back;
use super::local::LocalState;
use crate::lan::Lan;
use crate::local::Status;
use crate::local::messages::{
    ContentStatus, RecordCounts, ReplicationStatus, SearchStatus, SetBackStatus, StoreStatus,
};
use crate::store::StoreError;
use crate::store::lineage::SetBack;

/// Gathers it; blocks.
///
/// # Errors
///
/// [`StoreError`] if the store cannot be read.
pub(super) fn gather(state: &LocalState) -> Result<Status, StoreError> {
    let store = state.library.store();
    let identity = store.records.identity();
    let records = store.records.stats()?;
    let live = |kind: Kind| {
        records.kinds.iter().find(|(known, _)| *known == kind).map(|(_, totals)| totals.live).unwrap_or_default()
    };
    let content = store.blobs.stats()?;
    let outlook = state.library.prospects()?;
    let replication = state.replicator.status();
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: identity.node,
        epoch: identity.epoch,
        data: state.library.data_dir().to_owned(),
        address: state.address.as_deref().map(str::to_owned),
        read_only: store.records.read_only(),
        records: RecordCounts {
            media: live(Media::KIND),
            authors: live(Author::KIND),
            categories: live(Category::KIND),
            collections: live(Collection::KIND),
        },
        store: StoreStatus { disk_bytes: records.space.disk_bytes, live_bytes: records.space.live_bytes },
        search: SearchStatus {
            behind_rows: state.library.search_behind_rows(),
            trouble: state.library.search().trouble().borrow().clone(),
        },
        content: ContentStatus {
            blobs: content.held,
            bytes: content.held_bytes,
            wanted: content.wanted,
            on_demand: content.on_demand,
            evicted: content.evicted,
            free_bytes: crate::store::free_bytes(state.library.data_dir()),
        },
        selection: state.library.selection_status()?,
        quarantined: records.quarantined.records,
        absence: held_back::status(&store.records)?,
        set_back: store.records.set_back()?.map(|SetBack { noticed_unix_ms, noticed_by, times }| SetBackStatus {
            noticed_unix_ms,
            noticed_by,
            times,
        }),
        erasures_pending: store.records.pending_erasures()?.len() as u64,
        replication: replication.map(|replication| ReplicationStatus { outlook, ..replication }),
        lan: state.lan.as_ref().and_then(Lan::status),
    })
}
