//! `/browse`: all media, narrowed by filters, in an order, page by page.
//!
//! Of an author and a subject, one narrows at a time (the author, if both are given).

use std::collections::BTreeSet;

use alexandria_api::catalogue::{Catalogue, LinkedTo, ListQuery, OrderBy, PAGE_SIZE_MAX, Relation, Sort};
use alexandria_sync::domain::{Author, Category, Collection, Media, MediaKind, Typed};
use alexandria_sync::id::{BucketId, RecordId};
use maud::{Markup, html};

use super::answer::{Page, PageError};
use super::card;
use super::kind::{self, KINDS};
use super::language::name_of;
use super::layout;
use super::quantity;
use super::visit::Visit;
use super::walk::{self, AFTER, BEFORE, EXAMINED_MAX, Keep, Leaf, Turn};
use super::wording::{Texts, fill};

/// Media on a page: fills rows of two, three, four and six.
const PAGE_SIZE: usize = 24;

/// The page that the address asks for.
pub(super) async fn page<C: Catalogue>(catalogue: &C, visit: &Visit) -> Result<Page, PageError> {
    let t = visit.texts();
    let filter = Filter::of(visit)?;
    let results = results(catalogue, visit, &filter.query(), filter.keep().as_deref()).await?;
    let choices = Choices::load(catalogue, &filter).await?;
    let title = filter.media_kind.map_or(t.browse, |kind| kind::plural(t, kind));
    let body = html! {
        (layout::trail(t, &[], &html! { (title) }))
        h1 { (title) }
        (form(t, &filter, &choices))
        @if let Some(author) = &choices.author { (narrowed(visit, "author", t.author, author)) }
        (results)
    };
    Ok(Page::new(title, body))
}

/// One page of the media that `query` and `keep` leave, with links to the pages beside it.
pub(super) async fn results<C: Catalogue>(
    catalogue: &C,
    visit: &Visit,
    query: &ListQuery,
    keep: Option<&Keep<Media>>,
) -> Result<Markup, PageError> {
    let t = visit.texts();
    let query = ListQuery { page_size: PAGE_SIZE, ..query.clone() };
    let leaf: Leaf<Media> = walk::leaf(catalogue, &query, Turn::of(visit)?, keep).await?;
    let pager = pager(visit, &leaf);
    let goes_on = leaf.next.or(leaf.previous).is_some();
    let is_narrowed = query.text.is_some() || keep.is_some();
    let cards = card::with_authors(catalogue, leaf.items).await?;
    Ok(html! {
        @if cards.is_empty() {
            div.empty {
                @if goes_on {
                    p { (fill(t.nothing_so_far, &[&quantity::count(t, EXAMINED_MAX as u64)])) }
                    p { (t.nothing_so_far_next) }
                } @else if is_narrowed {
                    p { (t.nothing_found) }
                    p { (t.nothing_found_next) }
                } @else {
                    p { (t.nothing_here) }
                }
                p.actions { a.button.quiet href="/browse" { (t.browse) } }
            }
        } @else {
            (card::list(t, &cards))
        }
        (pager)
    })
}

/// Links to the pages beside this one.
pub(super) fn pager<T>(visit: &Visit, leaf: &Leaf<T>) -> Markup {
    let t = visit.texts();
    let beside = |name, place| {
        let other = if name == AFTER { BEFORE } else { AFTER };
        visit.address_with(&[(other, None), (name, Some(&walk::token(place)))])
    };
    let is_lost = leaf.items.is_empty() && (visit.parameter(AFTER).is_some() || visit.parameter(BEFORE).is_some());
    html! {
        @if leaf.next.is_some() || leaf.previous.is_some() || is_lost {
            nav.pager aria-label=(t.pages) {
                @if let Some(place) = leaf.previous {
                    a.button.quiet rel="prev" href=(beside(BEFORE, place)) { (t.previous_page) }
                } @else if is_lost {
                    a.button.quiet href=(visit.address_with(&[(AFTER, None), (BEFORE, None)])) { (t.first_page) }
                }
                @if let Some(place) = leaf.next {
                    a.button rel="next" href=(beside(AFTER, place)) {
                        @if leaf.is_cut { (t.look_further) } @else { (t.next_page) }
                    }
                }
            }
        }
    }
}

/// The orders that media are offered in: the name in addresses, and what it means.
const ORDERS: [(&str, OrderBy, Sort); 4] = [
    ("newest", OrderBy::Id, Sort::Descending),
    ("opened", OrderBy::Popularity, Sort::Descending),
    ("changed", OrderBy::Timestamp, Sort::Descending),
    ("oldest", OrderBy::Id, Sort::Ascending),
];

fn order_name(t: &Texts, slug: &str) -> &'static str {
    match slug {
        "opened" => t.most_opened,
        "changed" => t.recently_changed,
        "oldest" => t.oldest,
        _ => t.newest,
    }
}

/// What the address narrows the list to.
struct Filter {
    words: Option<String>,
    media_kind: Option<MediaKind>,
    /// The first part of a language tag.
    language: Option<String>,
    author: Option<RecordId>,
    category: Option<RecordId>,
    collection: Option<RecordId>,
    order: (&'static str, OrderBy, Sort),
}

impl Filter {
    fn of(visit: &Visit) -> Result<Self, PageError> {
        let id = |name| visit.parameter(name).map(str::parse).transpose().map_err(|_| PageError::BadLink);
        let media_kind = match visit.parameter("kind") {
            None => None,
            Some(slug) => Some(kind::from_slug(slug).ok_or(PageError::BadLink)?),
        };
        let order = visit.parameter("order").and_then(|slug| ORDERS.into_iter().find(|(known, ..)| *known == slug));
        Ok(Self {
            words: visit.parameter("q").map(str::to_owned),
            media_kind,
            language: visit.parameter("language").map(primary),
            author: id("author")?,
            category: id("category")?,
            collection: id("collection")?,
            order: order.unwrap_or(ORDERS[0]),
        })
    }

    fn query(&self) -> ListQuery {
        let by_author = self.author.map(|id| LinkedTo { relation: Relation::MediaAuthor, id });
        let by_category = self.category.map(|id| LinkedTo { relation: Relation::MediaCategory, id });
        ListQuery {
            text: self.words.clone(),
            order_by: self.order.1,
            sort: self.order.2,
            bucket: self.collection.map(BucketId::Collection),
            linked_to: by_author.or(by_category),
            ..walk::newest::<Media>(PAGE_SIZE)
        }
    }

    fn keep(&self) -> Option<Box<Keep<Media>>> {
        let (media_kind, language) = (self.media_kind, self.language.clone());
        if media_kind.is_none() && language.is_none() {
            return None;
        }
        Some(Box::new(move |media| {
            media_kind.is_none_or(|kind| media.media_kind == kind)
                && language.as_ref().is_none_or(|wanted| media.languages.iter().any(|tag| primary(tag) == *wanted))
        }))
    }
}

fn primary(tag: &str) -> String {
    tag.split('-').next().unwrap_or(tag).to_ascii_lowercase()
}

/// What the form offers. Of each sort the newest hundred, which is everything in most libraries.
struct Choices {
    languages: BTreeSet<String>,
    categories: Vec<(String, String)>,
    collections: Vec<(String, String)>,
    /// The name of the author that the list is narrowed to.
    author: Option<String>,
}

impl Choices {
    async fn load<C: Catalogue>(catalogue: &C, filter: &Filter) -> Result<Self, PageError> {
        let media: Leaf<Media> = first(catalogue).await?;
        let mut languages: BTreeSet<String> =
            media.items.iter().flat_map(|media| media.it.languages.iter().map(|tag| primary(tag))).collect();
        languages.extend(filter.language.clone());
        let categories: Leaf<Category> = first(catalogue).await?;
        let mut categories = named(categories, |category| category.name);
        let collections: Leaf<Collection> = first(catalogue).await?;
        let mut collections = named(collections, |collection| collection.title);
        if let Some(id) = filter.category {
            let chosen = walk::find::<C, Category>(catalogue, &id.to_string()).await?;
            keep_chosen(&mut categories, id, chosen.it.name);
        }
        if let Some(id) = filter.collection {
            let chosen = walk::find::<C, Collection>(catalogue, &id.to_string()).await?;
            keep_chosen(&mut collections, id, chosen.it.title);
        }
        let author = match filter.author {
            Some(id) => Some(walk::find::<C, Author>(catalogue, &id.to_string()).await?.it.name),
            None => None,
        };
        Ok(Self { languages, categories, collections, author })
    }
}

async fn first<C: Catalogue, T: Typed>(catalogue: &C) -> Result<Leaf<T>, PageError> {
    walk::leaf(catalogue, &walk::newest::<T>(PAGE_SIZE_MAX), Turn::First, None).await
}

fn named<T>(leaf: Leaf<T>, name: impl Fn(T) -> String) -> Vec<(String, String)> {
    let mut named: Vec<_> = leaf.items.into_iter().map(|found| (found.id.to_string(), name(found.it))).collect();
    named.sort_by_key(|(_, name)| name.to_lowercase());
    named
}

fn keep_chosen(choices: &mut Vec<(String, String)>, id: RecordId, name: String) {
    let id = id.to_string();
    if !choices.iter().any(|(held, _)| *held == id) {
        choices.insert(0, (id, name));
    }
}

fn form(t: &Texts, filter: &Filter, choices: &Choices) -> Markup {
    let kinds: Vec<_> = KINDS.iter().map(|kind| (kind::slug(*kind), kind::plural(t, *kind))).collect();
    let languages: Vec<_> = choices.languages.iter().map(|tag| (tag.as_str(), name_of(tag))).collect();
    let pairs = |pairs: &'_ [(String, String)]| -> Vec<(String, String)> { pairs.to_vec() };
    let (categories, collections) = (pairs(&choices.categories), pairs(&choices.collections));
    let chosen = |id: Option<RecordId>| id.map(|id| id.to_string()).unwrap_or_default();
    html! {
        form.filters action="/browse" method="get" aria-label=(t.filters) {
            @if let Some(words) = &filter.words {
                p.field {
                    label for="words" { (t.search) }
                    input #words type="search" name="q" value=(words) dir="auto" maxlength="200";
                }
            }
            @if let Some(author) = filter.author { input type="hidden" name="author" value=(author); }
            (select("kind", t.kind, Some(t.any), filter.media_kind.map_or("", kind::slug), &kinds))
            @if choices.languages.len() > 1 || filter.language.is_some() {
                (select("language", t.language, Some(t.any), filter.language.as_deref().unwrap_or_default(), &languages))
            }
            @if !categories.is_empty() && filter.author.is_none() {
                (select("category", t.category, Some(t.any), &chosen(filter.category), &categories))
            }
            @if collections.len() > 1 || filter.collection.is_some() {
                (select("collection", t.collection, Some(t.any), &chosen(filter.collection), &collections))
            }
            (select("order", t.order, None, filter.order.0, &ORDERS.map(|(slug, ..)| (slug, order_name(t, slug)))))
            p.field.submit { button { (t.apply) } }
        }
    }
}

fn select<S: AsRef<str>>(name: &str, label: &str, any: Option<&str>, chosen: &str, choices: &[(S, S)]) -> Markup {
    html! {
        p.field {
            label for={ "by-" (name) } { (label) }
            select id={ "by-" (name) } name=(name) {
                @if let Some(any) = any { option value="" { (any) } }
                @for (value, text) in choices {
                    option value=(value.as_ref()) selected[value.as_ref() == chosen] dir="auto" { (text.as_ref()) }
                }
            }
        }
    }
}

/// Says what the list is narrowed to, with a link that takes it away.
fn narrowed(visit: &Visit, parameter: &str, label: &str, value: &str) -> Markup {
    let away = visit.address_with(&[(parameter, None), (AFTER, None), (BEFORE, None)]);
    html! {
        p.narrowed {
            (label) ": " bdi { (value) } " "
            a href=(away) aria-label=(fill(visit.texts().remove_filter, &[value])) { "×" }
        }
    }
}
