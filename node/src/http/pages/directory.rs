//! `/authors`, `/categories`, `/collections`: all of them, page by page.

use alexandria_api::catalogue::{Catalogue, ListQuery};
use alexandria_sync::domain::{Author, Category, Collection, Typed};
use maud::{Markup, html};

use super::answer::{Page, PageError};
use super::browse;
use super::layout;
use super::visit::Visit;
use super::walk::{self, Found, Leaf, Turn};
use super::wording::Texts;

/// Names on a page.
const PAGE_SIZE: usize = 60;

/// What has a name and a page of its own.
pub(super) trait Entry: Typed {
    /// Where all of them are.
    const DIRECTORY: &'static str;

    /// What all of them are called.
    fn title(t: &Texts) -> &'static str;

    /// The name of this one.
    fn name(&self) -> &str;
}

impl Entry for Author {
    const DIRECTORY: &'static str = "/authors";

    fn title(t: &Texts) -> &'static str {
        t.authors
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Entry for Category {
    const DIRECTORY: &'static str = "/categories";

    fn title(t: &Texts) -> &'static str {
        t.categories
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Entry for Collection {
    const DIRECTORY: &'static str = "/collections";

    fn title(t: &Texts) -> &'static str {
        t.collections
    }

    fn name(&self) -> &str {
        &self.title
    }
}

/// The page of the directory that the address asks for.
pub(super) async fn page<C: Catalogue, T: Entry>(catalogue: &C, visit: &Visit) -> Result<Page, PageError> {
    let t = visit.texts();
    let query = ListQuery { text: visit.parameter("q").map(str::to_owned), ..walk::newest::<T>(PAGE_SIZE) };
    let leaf: Leaf<T> = walk::leaf(catalogue, &query, Turn::of(visit)?, None).await?;
    let title = T::title(t);
    let body = html! {
        (layout::trail(t, &[], &html! { (title) }))
        h1 { (title) }
        @if leaf.items.is_empty() {
            div.empty {
                p { @if query.text.is_some() { (t.nothing_found) } @else { (t.nothing_here) } }
                p.actions { a.button.quiet href="/browse" { (t.browse) } }
            }
        } @else {
            (names(&leaf.items))
        }
        (browse::pager(visit, &leaf))
    };
    Ok(Page::new(title, body))
}

/// A list of links to them.
pub(super) fn names<T: Entry>(entries: &[Found<T>]) -> Markup {
    html! {
        ul.names {
            @for entry in entries {
                li { (link(entry)) }
            }
        }
    }
}

/// A link to one.
pub(super) fn link<T: Entry>(entry: &Found<T>) -> Markup {
    html! { a href={ "/" (T::NAME) "/" (entry.id) } { bdi { (entry.it.name()) } } }
}
