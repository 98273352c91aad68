//! `/`: a search, what is new, what is read most, and the shelves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alexandria_api::catalogue::{Catalogue, ListQuery, OrderBy, PAGE_SIZE_MAX};
use alexandria_sync::domain::{Collection, Media, MediaKind};
use alexandria_sync::id::BucketId;
use maud::{Markup, html};

use super::answer::{Page, PageError};
use super::card::{self, Card};
use super::kind::{self, KINDS};
use super::layout;
use super::outlook;
use super::quantity;
use super::visit::Visit;
use super::walk::{self, Found, Leaf, Turn};
use super::wording::Texts;

/// Media in each row: fills rows of two, three and six.
const ROW_SIZE: usize = 6;
/// Collections that are shown here; all of them are on a page of their own.
const COLLECTIONS_SHOWN_MAX: usize = 12;
/// Media that are counted. A larger library is not counted: it would take longer than a page may.
const COUNTED_MAX: usize = 2_000;
/// How long a count is good for.
const COUNT_KEPT: Duration = Duration::from_secs(10);

/// Counts the media of a small library, and keeps the count for a moment.
#[derive(Default)]
pub(super) struct Census {
    kept: Mutex<Option<(Instant, Arc<Counts>)>>,
}

/// How many media there are.
#[derive(Debug, Default)]
struct Counts {
    of_kind: HashMap<MediaKind, u64>,
    in_bucket: HashMap<BucketId, u64>,
    /// Whether everything was counted; else the numbers mean nothing.
    is_whole: bool,
}

impl Counts {
    fn of_kind(&self, kind: MediaKind) -> Option<u64> {
        self.is_whole.then(|| self.of_kind.get(&kind).copied().unwrap_or(0))
    }

    fn in_bucket(&self, bucket: BucketId) -> Option<u64> {
        self.is_whole.then(|| self.in_bucket.get(&bucket).copied().unwrap_or(0))
    }
}

impl Census {
    async fn counts<C: Catalogue>(&self, catalogue: &C) -> Result<Arc<Counts>, PageError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((counted, counts)) = kept
            && counted.elapsed() < COUNT_KEPT
        {
            return Ok(counts);
        }
        let counts = Arc::new(count(catalogue).await?);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), Arc::clone(&counts)));
        Ok(counts)
    }
}

async fn count<C: Catalogue>(catalogue: &C) -> Result<Counts, PageError> {
    let query = walk::newest::<Media>(PAGE_SIZE_MAX);
    let mut counts = Counts::default();
    let mut turn = Turn::First;
    for _ in 0..COUNTED_MAX / PAGE_SIZE_MAX {
        let leaf: Leaf<Media> = walk::leaf(catalogue, &query, turn, None).await?;
        for media in leaf.items {
            *counts.of_kind.entry(media.it.media_kind).or_default() += 1;
            *counts.in_bucket.entry(media.bucket).or_default() += 1;
        }
        match leaf.next {
            Some(next) => turn = Turn::After(next),
            None => return Ok(Counts { is_whole: true, ..counts }),
        }
    }
    Ok(counts)
}

/// The home page.
pub(super) async fn page<C: Catalogue>(catalogue: &C, census: &Census, visit: &Visit) -> Result<Page, PageError> {
    let t = visit.texts();
    let newest: Leaf<Media> = walk::leaf(catalogue, &walk::newest::<Media>(ROW_SIZE), Turn::First, None).await?;
    let by_opens = ListQuery { order_by: OrderBy::Popularity, ..walk::newest::<Media>(ROW_SIZE) };
    let mut opened: Vec<Found<Media>> = walk::leaf(catalogue, &by_opens, Turn::First, None).await?.items;
    opened.retain(|media: &Found<Media>| media.popularity > 0);
    let collections: Leaf<Collection> =
        walk::leaf(catalogue, &walk::newest::<Collection>(COLLECTIONS_SHOWN_MAX), Turn::First, None).await?;
    let counts = census.counts(catalogue).await?;
    let newest = card::with_authors(catalogue, newest.items).await?;
    let opened = card::with_authors(catalogue, opened).await?;
    let to_come = outlook::line(catalogue, t).await?;
    let body = html! {
        div.welcome {
            h1 { (t.brand) }
            p.lead { (t.tagline) }
            (layout::search_form(t, ""))
        }
        @if newest.is_empty() {
            (empty(t))
        } @else {
            (shelves(t, &counts))
            (row(t, t.newest, "/browse", &newest))
            @if !opened.is_empty() { (row(t, t.most_opened, "/browse?order=opened", &opened)) }
        }
        @if !collections.items.is_empty() { (collection_list(t, &collections, &counts)) }
        (to_come)
    };
    Ok(Page { title: None, body, has_search: true })
}

fn shelves(t: &Texts, counts: &Counts) -> Markup {
    let filled = KINDS.into_iter().filter(|kind| counts.of_kind(*kind) != Some(0));
    html! {
        nav.shelves aria-label=(t.shelves) {
            ul {
                @for kind in filled {
                    li {
                        a.shelf.{ "shelf-" (kind::slug(kind)) } href={ "/browse?kind=" (kind::slug(kind)) } {
                            span.name { (kind::plural(t, kind)) }
                            @if let Some(count) = counts.of_kind(kind) { " " span.count { (quantity::count(t, count)) } }
                        }
                    }
                }
            }
        }
    }
}

fn row(t: &Texts, title: &str, all: &str, cards: &[Card]) -> Markup {
    html! {
        section {
            div.heading {
                h2 { (title) }
                a href=(all) { (t.show_all) span.unseen { ": " (title) } }
            }
            (card::list(t, cards))
        }
    }
}

fn collection_list(t: &Texts, collections: &Leaf<Collection>, counts: &Counts) -> Markup {
    html! {
        section {
            div.heading {
                h2 { (t.collections) }
                @if collections.next.is_some() {
                    a href="/collections" { (t.show_all) span.unseen { ": " (t.collections) } }
                }
            }
            ul.names {
                @for collection in &collections.items {
                    li {
                        a href={ "/collection/" (collection.id) } { bdi { (collection.it.title) } }
                        @if let Some(count) = counts.in_bucket(BucketId::Collection(collection.id)) {
                            " " span.count { (quantity::count(t, count)) }
                        }
                    }
                }
            }
        }
    }
}

fn empty(t: &Texts) -> Markup {
    html! {
        div.empty {
            p { (t.library_empty) }
            p { (t.library_empty_next) ": " code dir="ltr" { "alexandria import FOLDER" } }
        }
    }
}
