//! `/search`: media, authors, subjects and collections in which every word occurs; some of each, with a link to all.

use alexandria_api::catalogue::{Catalogue, ListQuery};
use alexandria_sync::domain::{Author, Category, Collection, Media};
use maud::{Markup, html};

use super::answer::{Page, PageError};
use super::card;
use super::directory::{self, Entry};
use super::layout;
use super::visit::{Visit, address};
use super::walk::{self, Leaf, Turn};
use super::wording::{Texts, fill};

/// Media that are shown here: fills rows of two, three, four and six.
const MEDIA_SHOWN_MAX: usize = 12;
/// Authors, subjects and collections that are shown here, of each.
const NAMES_SHOWN_MAX: usize = 8;

/// The page for the words in the address.
pub(super) async fn page<C: Catalogue>(catalogue: &C, visit: &Visit) -> Result<Page, PageError> {
    let t = visit.texts();
    let Some(words) = visit.parameter("q") else {
        let body = html! {
            h1 { (t.search) }
            (layout::search_form(t, ""))
            p.lead { (t.search_empty) }
        };
        return Ok(Page { title: Some(t.search.to_owned()), body, has_search: true });
    };
    let media: Leaf<Media> = matching(catalogue, words, walk::newest::<Media>(MEDIA_SHOWN_MAX)).await?;
    let authors: Leaf<Author> = matching(catalogue, words, walk::newest::<Author>(NAMES_SHOWN_MAX)).await?;
    let categories: Leaf<Category> = matching(catalogue, words, walk::newest::<Category>(NAMES_SHOWN_MAX)).await?;
    let collections: Leaf<Collection> = matching(catalogue, words, walk::newest::<Collection>(NAMES_SHOWN_MAX)).await?;
    let names = [authors.items.len(), categories.items.len(), collections.items.len()];
    let is_empty = media.items.is_empty() && names.iter().all(|count| *count == 0);
    let more_media = media.next.is_some();
    let cards = card::with_authors(catalogue, media.items).await?;
    let title = fill(t.results_for, &[words]);
    let body = html! {
        h1.found { bdi { (title) } }
        (layout::search_form(t, words))
        @if is_empty {
            div.empty {
                p { (t.nothing_found) }
                p { (t.nothing_found_next) }
                p.actions { a.button.quiet href="/browse" { (t.browse) } }
            }
        }
        (names_found(t, words, &authors))
        (names_found(t, words, &categories))
        (names_found(t, words, &collections))
        @if !cards.is_empty() {
            section {
                (heading(t, t.media, more_media.then(|| address("/browse", [("q", words)]))))
                (card::list(t, &cards))
            }
        }
    };
    Ok(Page { title: Some(title), body, has_search: true })
}

async fn matching<C: Catalogue, T: alexandria_sync::domain::Typed>(
    catalogue: &C,
    words: &str,
    query: ListQuery,
) -> Result<Leaf<T>, PageError> {
    walk::leaf(catalogue, &ListQuery { text: Some(words.to_owned()), ..query }, Turn::First, None).await
}

fn names_found<T: Entry>(t: &Texts, words: &str, found: &Leaf<T>) -> Markup {
    let all = found.next.is_some().then(|| address(T::DIRECTORY, [("q", words)]));
    html! {
        @if !found.items.is_empty() {
            section {
                (heading(t, T::title(t), all))
                (directory::names(&found.items))
            }
        }
    }
}

fn heading(t: &Texts, title: &str, all: Option<String>) -> Markup {
    html! {
        div.heading {
            h2 { (title) }
            @if let Some(all) = all {
                a href=(all) { (t.show_all) span.unseen { ": " (title) } }
            }
        }
    }
}
