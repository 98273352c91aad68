//! `/media/{id}`: one medium: what it is, and every way to open it.

mod player;

use alexandria_api::catalogue::{Catalogue, ListQuery, Relation, Sort};
use alexandria_sync::domain::{Author, Category, Chapter, Collection, Media, MediaFile};
use alexandria_sync::id::BucketId;
use maud::{Markup, html};

use super::answer::{Page, PageError};
use super::directory::{self, Entry};
use super::kind;
use super::language::{direction_of, name_of};
use super::layout;
use super::quantity;
use super::read::{self, Readable};
use super::shelf::{linked, paragraphs};
use super::visit::{Visit, address};
use super::walk::{self, Found, Leaf, Turn};
use super::wording::{Texts, fill};

/// Chapters that are listed; a longer list would make a longer page than the book's own.
const CHAPTERS_SHOWN_MAX: usize = 150;
/// Files that are offered.
const FILES_SHOWN_MAX: usize = 30;

/// The page, counted as an opening.
pub(super) async fn page<C: Catalogue>(catalogue: &C, id: &str, visit: &Visit) -> Result<Page, PageError> {
    let t = visit.texts();
    let media: Found<Media> = walk::find(catalogue, id).await?;
    if visit.looks && visit.parameter(player::AT).is_none() {
        // A count that is lost is no reason to show nothing.
        if let Err(error) = catalogue.note_open(media.id).await {
            tracing::warn!(%error, media.id = %media.id, "an opening was not counted");
        }
    }
    let authors: Leaf<Author> = linked(catalogue, Relation::MediaAuthor, media.id).await?;
    let categories: Leaf<Category> = linked(catalogue, Relation::MediaCategory, media.id).await?;
    let collection = collection_of(catalogue, &media).await?;
    let (before, after) = neighbours(catalogue, &media).await?;
    let opening = player::opening(catalogue, visit, &media).await?;
    let it = &media.it;
    let language = it.languages.first().map(String::as_str);
    let title = html! { span dir=(direction_of(language)) lang=[language] { (it.title) } };
    let shelf = format!("/browse?kind={}", kind::slug(it.media_kind));
    let body = html! {
        (layout::trail(t, &[(&shelf, html! { (kind::plural(t, it.media_kind)) })], &title))
        article.medium {
            h1 { (title) }
            @if !authors.items.is_empty() { p.by { (t.by) " " (names(&authors)) } }
            (opening)
            @if !it.description.is_empty() {
                section.description lang=[language] {
                    h2 lang=(visit.language.tag()) { (t.description) }
                    (paragraphs(&it.description))
                }
            }
            (chapters(t, &media))
            (details(t, &media, &categories, collection.as_ref()))
            (files(t, it))
        }
        (beside(t, before.as_ref(), after.as_ref()))
    };
    Ok(Page::new(&*it.title, body))
}

/// Where the content of a file is, under its own name.
fn content(file: &MediaFile) -> String {
    address(&format!("/v1/blobs/{}", file.blob), [("name", file.name.as_str())])
}

/// The same, to be saved.
fn saved(file: &MediaFile) -> String {
    address(&format!("/v1/blobs/{}", file.blob), [("name", file.name.as_str()), ("download", "true")])
}

/// Nobody gains by knowing that a collection is hidden, or has not arrived: it is left out.
async fn collection_of<C: Catalogue>(
    catalogue: &C,
    media: &Found<Media>,
) -> Result<Option<Found<Collection>>, PageError> {
    let BucketId::Collection(id) = media.bucket else { return Ok(None) };
    match walk::find(catalogue, &id.to_string()).await {
        Ok(collection) => Ok(Some(collection)),
        Err(PageError::Missing) => Ok(None),
        Err(error) => Err(error),
    }
}

type Neighbour = Option<Found<Media>>;

/// The media that came into the same collection just before and just after.
async fn neighbours<C: Catalogue>(catalogue: &C, media: &Found<Media>) -> Result<(Neighbour, Neighbour), PageError> {
    let query = ListQuery { bucket: Some(media.bucket), sort: Sort::Ascending, ..walk::newest::<Media>(1) };
    let after = walk::leaf(catalogue, &query, Turn::After(media.place()), None).await?;
    let back = ListQuery { sort: Sort::Descending, ..query };
    let before = walk::leaf(catalogue, &back, Turn::After(media.place()), None).await?;
    Ok((before.items.into_iter().next(), after.items.into_iter().next()))
}

fn names<T: Entry>(leaf: &Leaf<T>) -> Markup {
    html! {
        @for (at, entry) in leaf.items.iter().enumerate() {
            @if at > 0 { ", " }
            (directory::link(entry))
        }
    }
}

fn chapters(t: &Texts, media: &Found<Media>) -> Markup {
    let Some(file) = media.it.main_file() else { return html! {} };
    let chapters = &media.it.chapters;
    let language = media.it.languages.first().map(String::as_str);
    html! {
        @if !chapters.is_empty() {
            section.chapters {
                h2 #chapters { (t.chapters) }
                ol {
                    @for chapter in chapters.iter().take(CHAPTERS_SHOWN_MAX) {
                        @let title = html! { bdi lang=[language] { (chapter.title) } };
                        li {
                            @if let Some(path) = chapter_address(media, file, chapter) {
                                a href=(path) { (title) }
                            } @else {
                                (title)
                            }
                            @if let Some(ms) = chapter.start_ms {
                                " " span.count { (quantity::duration(ms)) }
                            } @else if let Some(page) = chapter.page {
                                " " span.count { (fill(t.page_number, &[&page.to_string()])) }
                            }
                        }
                    }
                    @if chapters.len() > CHAPTERS_SHOWN_MAX { li.rest { "…" } }
                }
            }
        }
    }
}

fn chapter_address(media: &Found<Media>, file: &MediaFile, chapter: &Chapter) -> Option<String> {
    if let Some(ms) = chapter.start_ms {
        return Some(player::at(media.id, ms));
    }
    match (Readable::of(&file.media_type), chapter.page, &chapter.href) {
        (Some(Readable::Comic), Some(page), _) => Some(read::part_address(media.id, page as usize)),
        (None, Some(page), _) => Some(format!("{}#page={page}", content(file))),
        (Some(readable), _, Some(href)) => Some(read::place_address(media.id, readable, href)),
        _ => None,
    }
}

fn details(
    t: &Texts,
    media: &Found<Media>,
    categories: &Leaf<Category>,
    collection: Option<&Found<Collection>>,
) -> Markup {
    let it = &media.it;
    html! {
        section.details {
            h2 { (t.details) }
            dl {
                dt { (t.kind) } dd { (kind::name(t, it.media_kind)) }
                @if !it.languages.is_empty() {
                    dt { (t.language) }
                    dd {
                        @for (at, tag) in it.languages.iter().enumerate() {
                            @if at > 0 { ", " }
                            bdi lang=(tag) { (name_of(tag)) }
                        }
                    }
                }
                @if !categories.items.is_empty() { dt { (t.categories) } dd { (names(categories)) } }
                @if let Some(collection) = collection { dt { (t.collection) } dd { (directory::link(collection)) } }
                @if let Some(publisher) = &it.publisher { dt { (t.publisher) } dd { bdi { (publisher) } } }
                @if let Some(published) = &it.published { dt { (t.published) } dd { bdi { (published) } } }
                @if let Some(ms) = it.duration_ms { dt { (t.duration) } dd { (quantity::duration(ms)) } }
                @if let Some(pages) = it.pages { dt { (t.page_count) } dd { (quantity::count(t, pages.into())) } }
                @if media.popularity > 0 { dt { (t.opened) } dd { (quantity::count(t, media.popularity)) } }
            }
        }
    }
}

fn files(t: &Texts, media: &Media) -> Markup {
    html! {
        @if !media.files.is_empty() {
            section.files {
                h2 { (t.files) }
                ul {
                    @for file in media.files.iter().take(FILES_SHOWN_MAX) {
                        li {
                            a href=(saved(file)) download=(file.name) { bdi { (file.name) } }
                            " " span.count { (quantity::size(t, file.size_bytes)) }
                        }
                    }
                }
            }
        }
    }
}

fn beside(t: &Texts, before: Option<&Found<Media>>, after: Option<&Found<Media>>) -> Markup {
    let link = |media: &Found<Media>, rel: &str, name: &str| {
        html! {
            a rel=(rel) class=(rel) href={ "/media/" (media.id) } {
                span.step { (name) } " "
                bdi lang=[media.it.languages.first()] { (media.it.title) }
            }
        }
    };
    html! {
        @if before.is_some() || after.is_some() {
            nav.beside aria-label=(t.neighbours) {
                @if let Some(media) = before { (link(media, "prev", t.previous)) }
                @if let Some(media) = after { (link(media, "next", t.next)) }
            }
        }
    }
}
