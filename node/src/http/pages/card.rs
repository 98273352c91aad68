//! A medium in a list: its cover, its title, who made it. Without a cover, one is drawn in the colours of its kind.

use alexandria_api::catalogue::{Catalogue, LinkedTo, Relation};
use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Author, Media, MediaKind};
use futures::future::try_join_all;
use maud::{Markup, html};

use super::answer::PageError;
use super::kind;
use super::language::{direction_of, name_of};
use super::quantity;
use super::walk::{self, Found, Turn};
use super::wording::Texts;

/// Authors named in a list.
const AUTHORS_SHOWN_MAX: usize = 3;
/// Nodes named that hold the same.
const NEARBY_SHOWN_MAX: usize = 3;
/// Colours that drawn covers come in; the style names as many.
const TINTS: u8 = 6;
/// Of a drawn cover, in pixels, and of the room that a picture is given before it is here.
const COVER_PX: (u32, u32) = (150, 200);

/// A medium and who made it.
pub(super) struct Card {
    pub(super) media: Found<Media>,
    authors: Vec<Found<Author>>,
    /// The nodes on the local network that hold it, if it is not here.
    nearby: Vec<String>,
}

/// Looks up who made each, and where it is.
pub(super) async fn with_authors<C: Catalogue>(
    catalogue: &C,
    media: Vec<Found<Media>>,
) -> Result<Vec<Card>, PageError> {
    let contents: Vec<BlobHash> = media.iter().filter_map(|media| Some(media.it.main_file()?.blob)).collect();
    let whereabouts = catalogue.whereabouts(&contents).await?;
    try_join_all(media.into_iter().map(async |media| {
        let authors = authors(catalogue, &media, AUTHORS_SHOWN_MAX).await?;
        let found = media.it.main_file().and_then(|file| whereabouts.get(&file.blob));
        let nearby = found.map(|found| found.nearby.clone()).unwrap_or_default();
        Ok(Card { media, authors, nearby })
    }))
    .await
}

/// The first authors of a medium.
pub(super) async fn authors<C: Catalogue>(
    catalogue: &C,
    media: &Found<Media>,
    authors_max: usize,
) -> Result<Vec<Found<Author>>, PageError> {
    let linked_to = Some(LinkedTo { relation: Relation::MediaAuthor, id: media.id });
    let query = alexandria_api::catalogue::ListQuery {
        linked_to,
        sort: alexandria_api::catalogue::Sort::Ascending,
        ..walk::newest::<Author>(authors_max)
    };
    Ok(walk::leaf(catalogue, &query, Turn::First, None).await?.items)
}

/// A list of them.
pub(super) fn list(t: &Texts, cards: &[Card]) -> Markup {
    html! {
        ul.cards {
            @for card in cards {
                li { (one(t, card)) }
            }
        }
    }
}

fn one(t: &Texts, Card { media, authors, nearby }: &Card) -> Markup {
    let it = &media.it;
    let language = it.languages.first().map(String::as_str);
    html! {
        a.card href={ "/media/" (media.id) } {
            (cover(media))
            span.title dir=(direction_of(language)) lang=[language] { (it.title) }
        }
        @if !authors.is_empty() {
            p.by {
                @for (at, author) in authors.iter().enumerate() {
                    @if at > 0 { ", " }
                    bdi { (author.it.name) }
                }
            }
        }
        p.what {
            (kind::name(t, it.media_kind))
            @if let Some(ms) = it.duration_ms { " · " (quantity::duration(ms)) }
            @if let Some(language) = language { " · " bdi lang=(language) { (name_of(language)) } }
        }
        @if !nearby.is_empty() { p.what { (at(t, nearby)) } }
    }
}

/// Where it is that is not here.
pub(super) fn at(t: &Texts, nearby: &[String]) -> Markup {
    let (before, after) = t.at_nearby.split_once("{}").unwrap_or((t.at_nearby, ""));
    html! {
        (before)
        @for (at, name) in nearby.iter().take(NEARBY_SHOWN_MAX).enumerate() {
            @if at > 0 { ", " }
            bdi { (name) }
        }
        (after)
    }
}

/// The picture on the front. Says nothing that the title beside it does not.
pub(super) fn cover(media: &Found<Media>) -> Markup {
    let it = &media.it;
    let language = it.languages.first().map(String::as_str);
    let drawn = if it.cover.is_none() { " drawn" } else { "" };
    let tint = media.id.as_bytes()[15] % TINTS;
    html! {
        span class={ "cover cover-" (kind::slug(it.media_kind)) " tint-" (tint) (drawn) } aria-hidden="true" {
            @if let Some(picture) = it.cover {
                img src={ "/v1/blobs/" (picture) } alt="" width=(COVER_PX.0) height=(COVER_PX.1) loading="lazy";
            } @else {
                @if matches!(it.media_kind, MediaKind::Book | MediaKind::Doc) {
                    span.cover-title dir=(direction_of(language)) lang=[language] { (it.title) }
                } @else {
                    span.glyph {}
                }
            }
        }
    }
}
