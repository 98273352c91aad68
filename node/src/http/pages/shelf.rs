//! `/author/{id}`, `/category/{id}`, `/collection/{id}`: what it is, and the media that belong to it.

use alexandria_api::catalogue::{Catalogue, Kept, LinkedTo, ListQuery, Relation, Sort};
use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Author, Category, Collection, Media};
use alexandria_sync::id::{BucketId, RecordId};
use maud::{Markup, html};

use super::answer::{Page, PageError};
use super::browse;
use super::directory::{self, Entry};
use super::layout;
use super::visit::Visit;
use super::walk::{self, Found, Leaf, Turn};

/// Linked names that are shown.
const NAMES_SHOWN_MAX: usize = 30;
/// Wider subjects that are looked up. They may form a ring: whoever edits them is not stopped.
const PARENTS_MAX: usize = 8;

/// An author, the subjects they write about, and what they made.
pub(super) async fn author<C: Catalogue>(catalogue: &C, id: &str, visit: &Visit) -> Result<Page, PageError> {
    let author: Found<Author> = walk::find(catalogue, id).await?;
    let categories: Leaf<Category> = linked(catalogue, Relation::AuthorCategory, author.id).await?;
    let query = made_of(Some(LinkedTo { relation: Relation::MediaAuthor, id: author.id }), None);
    let beside = names_beside(visit.texts().categories, &categories);
    show(catalogue, visit, &author, author.it.portrait, &author.it.description, &[], &beside, &query).await
}

/// A subject, those who write about it, and the media about it.
pub(super) async fn category<C: Catalogue>(catalogue: &C, id: &str, visit: &Visit) -> Result<Page, PageError> {
    let category: Found<Category> = walk::find(catalogue, id).await?;
    let authors: Leaf<Author> = linked(catalogue, Relation::AuthorCategory, category.id).await?;
    let wider = wider(catalogue, &category).await?;
    let query = made_of(Some(LinkedTo { relation: Relation::MediaCategory, id: category.id }), None);
    let beside = names_beside(visit.texts().authors, &authors);
    show(catalogue, visit, &category, None, &category.it.description, &wider, &beside, &query).await
}

/// A collection and its media.
pub(super) async fn collection<C: Catalogue>(catalogue: &C, id: &str, visit: &Visit) -> Result<Page, PageError> {
    let collection: Found<Collection> = walk::find(catalogue, id).await?;
    let query = made_of(None, Some(BucketId::Collection(collection.id)));
    let t = visit.texts();
    let beside = match catalogue.kept(collection.id).await? {
        Kept::Whole => html! {},
        Kept::Records => html! { div.notice { p { (t.kept_on_demand) } } },
        Kept::Nothing => html! { div.notice { p { (t.not_kept) } } },
    };
    show(catalogue, visit, &collection, collection.it.cover, &collection.it.description, &[], &beside, &query).await
}

#[expect(clippy::too_many_arguments, reason = "the parts of one page, each named where it is given")]
async fn show<C: Catalogue, T: Entry>(
    catalogue: &C,
    visit: &Visit,
    entry: &Found<T>,
    picture: Option<BlobHash>,
    description: &str,
    wider: &[Found<T>],
    beside: &Markup,
    query: &ListQuery,
) -> Result<Page, PageError> {
    let t = visit.texts();
    let results = browse::results(catalogue, visit, query, None).await?;
    let name = html! { bdi { (entry.it.name()) } };
    let paths: Vec<String> = wider.iter().map(|it| format!("/{}/{}", T::NAME, it.id)).collect();
    let mut steps = vec![(T::DIRECTORY, html! { (T::title(t)) })];
    steps.extend(wider.iter().zip(&paths).rev().map(|(it, path)| (path.as_str(), html! { bdi { (it.it.name()) } })));
    let body = html! {
        (layout::trail(t, &steps, &name))
        div.about {
            @if let Some(picture) = picture {
                img.portrait src={ "/v1/blobs/" (picture) } alt="" width="120" height="120";
            }
            h1 { (name) }
            (paragraphs(description))
            (beside)
        }
        (results)
    };
    Ok(Page::new(entry.it.name(), body))
}

/// Text as its writer broke it into paragraphs, each in its own direction.
pub(super) fn paragraphs(text: &str) -> Markup {
    html! {
        @for paragraph in text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty()) {
            p dir="auto" { (paragraph) }
        }
    }
}

fn names_beside<T: Entry>(title: &str, leaf: &Leaf<T>) -> Markup {
    html! {
        @if !leaf.items.is_empty() {
            p.beside {
                (title) ": "
                @for (at, entry) in leaf.items.iter().enumerate() {
                    @if at > 0 { ", " }
                    (directory::link(entry))
                }
            }
        }
    }
}

/// The first records at the other end of links from `id`.
pub(super) async fn linked<C: Catalogue, T: Entry>(
    catalogue: &C,
    relation: Relation,
    id: RecordId,
) -> Result<Leaf<T>, PageError> {
    let linked_to = Some(LinkedTo { relation, id });
    let query = ListQuery { linked_to, sort: Sort::Ascending, ..walk::newest::<T>(NAMES_SHOWN_MAX) };
    walk::leaf(catalogue, &query, Turn::First, None).await
}

/// The wider subjects, nearest first.
async fn wider<C: Catalogue>(catalogue: &C, category: &Found<Category>) -> Result<Vec<Found<Category>>, PageError> {
    let mut wider: Vec<Found<Category>> = Vec::new();
    let mut next = category.it.parent;
    while let Some(id) = next.filter(|id| *id != category.id && wider.len() < PARENTS_MAX) {
        // A wider subject may not have arrived yet, or be hidden.
        let Ok(parent) = walk::find::<C, Category>(catalogue, &id.to_string()).await else { break };
        if wider.iter().any(|held| held.id == parent.id) {
            break;
        }
        next = parent.it.parent;
        wider.push(parent);
    }
    Ok(wider)
}

fn made_of(linked_to: Option<LinkedTo>, bucket: Option<BucketId>) -> ListQuery {
    ListQuery { linked_to, bucket, ..walk::newest::<Media>(1) }
}
