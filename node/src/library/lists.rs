//! Lists as the API asks for them: from the store's ordered tables where one fits, else from a set of ids that search or
//! links gave, sorted here.

use std::collections::HashSet;

use alexandria_api::catalogue::{CatalogueError, LinkedTo, ListQuery, Listing, OrderBy, Place, Relation, Sort, Stored};
use alexandria_sync::domain::{Author, Category, Collection, Media, Typed};
use alexandria_sync::id::{BucketId, NodeId, RecordId};
use alexandria_sync::record::{Kind, Record};

use super::Library;
use crate::store::{self, Direction, Order, Side, StoreError};

/// Records that one list looks at, at most, before it gives what it has: a page may be short and still have a next one
/// only through the API's `more`, so this bounds the search for one more entry.
const ROWS_EXAMINED_MAX: usize = 100_000;
/// Links that are followed from one record, at most.
const LINKS_MAX: usize = 100_000;

impl Library {
    /// One page; blocks.
    pub(super) fn list_now(&self, query: &ListQuery) -> Result<Listing, CatalogueError> {
        if let Some(ids) = self.candidates(query)? {
            return self.list_candidates(query, ids);
        }
        let mut listing = store::Listing {
            bucket: query.bucket,
            order: match query.order_by {
                OrderBy::Id => Order::Id,
                OrderBy::Timestamp => Order::Updated,
                OrderBy::Popularity => Order::Popularity,
            },
            direction: match query.sort {
                Sort::Ascending => Direction::Ascending,
                Sort::Descending => Direction::Descending,
            },
            after: query.after.map(|place| to_store_place(place, query.sort)),
            ..store::Listing::of(query.kind, query.page_size + 1)
        };
        let mut items: Vec<Stored> = Vec::new();
        let mut examined = 0;
        loop {
            let page = self.store().records.list(&listing).map_err(store_error)?;
            examined += page.entries.len().max(1);
            for entry in page.entries {
                if query.show_disabled || !is_disabled(&entry.stored.record) {
                    items.push(self.with_popularity(entry.stored.record)?);
                }
            }
            let Some(next) = page.next.filter(|_| items.len() <= query.page_size && examined < ROWS_EXAMINED_MAX)
            else {
                break;
            };
            listing.after = Some(next);
        }
        Ok(cut(items, query.page_size))
    }

    /// The ids that search and links leave; `None` if neither is asked for.
    fn candidates(&self, query: &ListQuery) -> Result<Option<Vec<RecordId>>, CatalogueError> {
        let linked = match query.linked_to {
            Some(linked_to) => Some(self.linked(query.kind, linked_to)?),
            None => None,
        };
        let Some(text) = &query.text else { return Ok(linked) };
        let linked: Option<HashSet<RecordId>> = linked.map(|linked| linked.into_iter().collect());
        let found = self.search().find(query.kind, text, query.bucket, linked.as_ref());
        found.map(Some).map_err(CatalogueError::store)
    }

    fn linked(&self, kind: Kind, linked_to: LinkedTo) -> Result<Vec<RecordId>, CatalogueError> {
        let LinkedTo { relation, id } = linked_to;
        let side = side_to_look_from(relation, kind);
        let mut ids = Vec::new();
        let mut after = None;
        while ids.len() < LINKS_MAX {
            let page = self
                .store()
                .records
                .links(relation.kind(), side, id, after, store::records::ROWS_MAX)
                .map_err(store_error)?;
            let Some(&last) = page.last() else { break };
            ids.extend(page);
            after = Some(last);
        }
        Ok(ids)
    }

    fn list_candidates(&self, query: &ListQuery, ids: Vec<RecordId>) -> Result<Listing, CatalogueError> {
        let mut items = Vec::new();
        for id in ids {
            let Some(stored) = self.store().records.find(query.kind, id).map_err(store_error)? else { continue };
            let record = stored.record;
            let elsewhere = query.bucket.is_some_and(|bucket| bucket != record.key.bucket);
            if record.is_tombstone() || elsewhere || is_disabled(&record) && !query.show_disabled {
                continue;
            }
            let stored = self.with_popularity(record)?;
            let place = stored.place(query.order_by);
            let past = match (query.after, query.sort) {
                (None, _) => true,
                (Some(after), Sort::Ascending) => place > after,
                (Some(after), Sort::Descending) => place < after,
            };
            if past {
                items.push((place, stored));
            }
        }
        items.sort_by_key(|(place, _)| *place);
        if query.sort == Sort::Descending {
            items.reverse();
        }
        items.truncate(query.page_size + 1);
        Ok(cut(items.into_iter().map(|(_, stored)| stored).collect(), query.page_size))
    }

    /// A record with how often it was opened.
    pub(super) fn with_popularity(&self, record: Record) -> Result<Stored, CatalogueError> {
        let popularity = if record.key.kind == Media::KIND {
            self.store().records.popularity(record.key.id).map_err(store_error)?
        } else {
            0
        };
        Ok(Stored { record, popularity })
    }
}

pub(super) fn store_error(error: StoreError) -> CatalogueError {
    match error {
        StoreError::Full => CatalogueError::Full,
        StoreError::ReadOnly { .. } => CatalogueError::ReadOnly,
        StoreError::Closed => CatalogueError::Closing,
        StoreError::Engine(_)
        | StoreError::DamagedRow { .. }
        | StoreError::QuarantineFull(_)
        | StoreError::SelectionChanged
        | StoreError::ReadsAnew => CatalogueError::store(error),
    }
}

fn cut(mut items: Vec<Stored>, page_size: usize) -> Listing {
    let more = items.len() > page_size;
    items.truncate(page_size);
    Listing { items, more }
}

/// The place in the store's table that every entry past `place` lies beyond: ids are unique, so any bucket does that
/// sorts last in the direction of the walk.
fn to_store_place(place: Place, sort: Sort) -> store::Place {
    let bucket = match sort {
        Sort::Ascending => BucketId::Site(NodeId::from_bytes([0xff; 16])),
        Sort::Descending => BucketId::Catalogue,
    };
    store::Place { rank: place.key, id: place.id, bucket }
}

/// The side that the known end of a link is on, when records of `listed` are looked for at the other.
fn side_to_look_from(relation: Relation, listed: Kind) -> Side {
    if relation.ends().0 == listed { Side::Right } else { Side::Left }
}

fn is_disabled(record: &Record) -> bool {
    Media::from_record(record)
        .map(|media| media.disabled)
        .or_else(|| Author::from_record(record).map(|author| author.disabled))
        .or_else(|| Category::from_record(record).map(|category| category.disabled))
        .or_else(|| Collection::from_record(record).map(|collection| collection.disabled))
        .unwrap_or(false)
}
