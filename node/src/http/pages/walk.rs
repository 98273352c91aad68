//! Lists in pages, walked by key both ways: inserting and removing meanwhile neither repeats nor skips what stays.
//!
//! What the catalogue cannot filter (the kind of a medium, its language) is filtered here, over a bounded number of
//! records for each page; where that bound is hit, the page is short and its link goes on from there.

use alexandria_api::catalogue::{Catalogue, ListQuery, OrderBy, PAGE_SIZE_MAX, Place, Sort, Stored};
use alexandria_sync::domain::Typed;
use alexandria_sync::id::RecordId;

use super::answer::PageError;
use super::visit::Visit;

/// Records that one page looks at, at most, for those that it shows.
pub(super) const EXAMINED_MAX: usize = 2_000;
/// The parameters that say where a page starts or ends.
pub(super) const AFTER: &str = "after";
pub(super) const BEFORE: &str = "before";

/// Which records a page keeps, of those that the catalogue gives.
pub(super) type Keep<T> = dyn Fn(&T) -> bool + Send + Sync;

/// One record of a page.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) id: RecordId,
    pub(super) it: T,
    pub(super) popularity: u64,
    pub(super) bucket: alexandria_sync::id::BucketId,
    place: Place,
}

impl<T> Found<T> {
    /// Where it stands in the list that it was found in; of what was found by its id, in the order of creation.
    pub(super) fn place(&self) -> Place {
        self.place
    }
}

/// Which page of a list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    First,
    After(Place),
    Before(Place),
}

/// A page of a list, and where its neighbours start.
#[derive(Debug)]
pub(super) struct Leaf<T> {
    pub(super) items: Vec<Found<T>>,
    pub(super) next: Option<Place>,
    pub(super) previous: Option<Place>,
    /// Whether the search for more was given up at the bound, rather than because there is none.
    pub(super) is_cut: bool,
}

impl Turn {
    /// What the address asks for.
    pub(super) fn of(visit: &Visit) -> Result<Self, PageError> {
        match (visit.parameter(AFTER), visit.parameter(BEFORE)) {
            (Some(place), _) => Ok(Self::After(place_of(place)?)),
            (None, Some(place)) => Ok(Self::Before(place_of(place)?)),
            (None, None) => Ok(Self::First),
        }
    }
}

/// A query for the first page of everything of a kind that readers may see, newest first.
pub(super) fn newest<T: Typed>(page_size: usize) -> ListQuery {
    ListQuery {
        kind: T::KIND,
        page_size,
        after: None,
        text: None,
        order_by: OrderBy::Id,
        sort: Sort::Descending,
        show_disabled: false,
        bucket: None,
        linked_to: None,
    }
}

/// The page of `query` that `turn` says, of what `keep` keeps.
pub(super) async fn leaf<C: Catalogue, T: Typed>(
    catalogue: &C,
    query: &ListQuery,
    turn: Turn,
    keep: Option<&Keep<T>>,
) -> Result<Leaf<T>, PageError> {
    let (sort, after) = match turn {
        Turn::First => (query.sort, None),
        Turn::After(place) => (query.sort, Some(place)),
        Turn::Before(place) => (reversed(query.sort), Some(place)),
    };
    let asked = ListQuery { sort, after, ..query.clone() };
    let Reach { mut items, goes_on } = reach(catalogue, asked, keep).await?;
    let Turn::Before(_) = turn else {
        let previous = items.first().map(|first| first.place).filter(|_| turn != Turn::First);
        return Ok(Leaf { items, next: goes_on.place(), previous, is_cut: matches!(goes_on, GoesOn::Perhaps(_)) });
    };
    if items.len() < query.page_size && matches!(goes_on, GoesOn::No) {
        // So near the start that the page would be short: the first page is what is meant.
        return Box::pin(leaf(catalogue, query, Turn::First, keep)).await;
    }
    let next = items.first().map(|last| last.place);
    items.reverse();
    Ok(Leaf { items, next, previous: goes_on.place(), is_cut: false })
}

/// The record of a kind that readers may see.
pub(super) async fn find<C: Catalogue, T: Typed>(catalogue: &C, id: &str) -> Result<Found<T>, PageError> {
    let id: RecordId = id.parse().map_err(|_| PageError::Missing)?;
    let stored = catalogue.get(T::KIND, id).await?.ok_or(PageError::Missing)?;
    found(&stored, OrderBy::Id).ok_or(PageError::Missing)
}

/// Writes a place for an address.
pub(super) fn token(place: Place) -> String {
    format!("{:x}.{}", place.key, place.id)
}

fn place_of(token: &str) -> Result<Place, PageError> {
    let (key, id) = token.split_once('.').ok_or(PageError::BadLink)?;
    let key = u64::from_str_radix(key, 16).ok().filter(|key| *key < 1 << 63).ok_or(PageError::BadLink)?;
    Ok(Place { key, id: id.parse().map_err(|_| PageError::BadLink)? })
}

struct Reach<T> {
    items: Vec<Found<T>>,
    goes_on: GoesOn,
}

/// Whether more follows, and after which place.
enum GoesOn {
    No,
    Yes(Place),
    /// Nobody looked further.
    Perhaps(Place),
}

impl GoesOn {
    fn place(&self) -> Option<Place> {
        match self {
            Self::No => None,
            Self::Yes(place) | Self::Perhaps(place) => Some(*place),
        }
    }
}

/// Collects a page's worth from where `query` starts.
async fn reach<C: Catalogue, T: Typed>(
    catalogue: &C,
    mut query: ListQuery,
    keep: Option<&Keep<T>>,
) -> Result<Reach<T>, PageError> {
    let wanted = query.page_size;
    query.page_size = if keep.is_some() { PAGE_SIZE_MAX } else { wanted.min(PAGE_SIZE_MAX) };
    let mut items: Vec<Found<T>> = Vec::new();
    let mut examined = 0;
    loop {
        let listing = catalogue.list(query.clone()).await?;
        examined += listing.items.len();
        let last = listing.items.last().map(|stored| stored.place(query.order_by));
        for stored in listing.items {
            let Some(found) = found::<T>(&stored, query.order_by) else { continue };
            if keep.is_some_and(|keep| !keep(&found.it)) {
                continue;
            }
            if items.len() == wanted {
                let goes_on = items.last().map_or(GoesOn::No, |last| GoesOn::Yes(last.place));
                return Ok(Reach { items, goes_on });
            }
            items.push(found);
        }
        let Some(last) = last.filter(|_| listing.more) else { return Ok(Reach { items, goes_on: GoesOn::No }) };
        if items.len() == wanted && keep.is_none() {
            return Ok(Reach { items, goes_on: GoesOn::Yes(last) });
        }
        if examined >= EXAMINED_MAX {
            return Ok(Reach { items, goes_on: GoesOn::Perhaps(last) });
        }
        query.after = Some(last);
    }
}

/// `None` if it is of another kind, or hidden from readers.
fn found<T: Typed>(stored: &Stored, order_by: OrderBy) -> Option<Found<T>> {
    let it = T::from_record(&stored.record)?;
    if is_hidden(stored) {
        return None;
    }
    let place = stored.place(order_by);
    let key = stored.record.key;
    Some(Found { id: key.id, it, popularity: stored.popularity, bucket: key.bucket, place })
}

fn is_hidden(stored: &Stored) -> bool {
    use alexandria_sync::domain::{Author, Category, Collection, Media};
    let record = &stored.record;
    Media::from_record(record)
        .map(|media| media.disabled)
        .or_else(|| Author::from_record(record).map(|author| author.disabled))
        .or_else(|| Category::from_record(record).map(|category| category.disabled))
        .or_else(|| Collection::from_record(record).map(|collection| collection.disabled))
        .unwrap_or(true)
}

fn reversed(sort: Sort) -> Sort {
    match sort {
        Sort::Ascending => Sort::Descending,
        Sort::Descending => Sort::Ascending,
    }
}
