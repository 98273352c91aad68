//! The frame around every page: head, header, landmarks, footer.

use maud::{DOCTYPE, Markup, html};

use super::answer::Page;
use super::assets::{ICON, STYLE};
use super::language::Language;
use super::visit::{LANGUAGE, Visit};
use super::wording::Texts;

/// The whole document.
pub(super) fn document(visit: &Visit, page: &Page) -> Markup {
    let t = visit.texts();
    html! {
        (DOCTYPE)
        html lang=(visit.language.tag()) dir=(visit.language.direction()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { @if let Some(title) = &page.title { (title) " · " } (t.brand) }
                link rel="stylesheet" href=(STYLE.path());
                link rel="icon" type="image/svg+xml" href=(ICON.path());
            }
            body {
                a.skip href="#main" { (t.skip) }
                (header(visit, page))
                main #main tabindex="-1" { (page.body) }
                (footer(visit))
            }
        }
    }
}

fn header(visit: &Visit, page: &Page) -> Markup {
    let t = visit.texts();
    let links = [
        ("/browse", t.browse),
        ("/authors", t.authors),
        ("/categories", t.categories),
        ("/collections", t.collections),
    ];
    html! {
        header.top {
            div.inner {
                a.brand href="/" aria-current=[(visit.path == "/").then_some("page")] { (t.brand) }
                nav aria-label=(t.main_menu) {
                    ul {
                        @for (path, name) in links {
                            li { a href=(path) aria-current=[(visit.path == path).then_some("page")] { (name) } }
                        }
                    }
                }
                @if !page.has_search {
                    (search_form(t, ""))
                }
            }
        }
    }
}

/// The form that searches the whole library. One on a page.
pub(super) fn search_form(t: &Texts, words: &str) -> Markup {
    html! {
        form.search role="search" action="/search" method="get" {
            label.unseen for="q" { (t.search_label) }
            input #q type="search" name="q" value=(words) dir="auto" maxlength="200" placeholder=(t.search_hint);
            button { (t.search) }
        }
    }
}

fn footer(visit: &Visit) -> Markup {
    let t = visit.texts();
    html! {
        footer.bottom {
            div.inner {
                p { (t.tagline) }
                nav aria-label=(t.page_language) {
                    ul {
                        @for language in Language::ALL {
                            @let tag = language.tag();
                            @let current = (language == visit.language).then_some("true");
                            li {
                                a href=(visit.address_with(&[(LANGUAGE, Some(tag))])) lang=(tag) hreflang=(tag)
                                    dir=(language.direction()) aria-current=[current] { (language.name()) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The way from the home page to here; the last step is this page.
pub(super) fn trail(t: &Texts, steps: &[(&str, Markup)], here: &Markup) -> Markup {
    html! {
        nav.trail aria-label=(t.path_here) {
            ol {
                li { a href="/" { (t.home) } }
                @for (path, name) in steps {
                    li { a href=(path) { (name) } }
                }
                li { span aria-current="page" { (here) } }
            }
        }
    }
}
