//! From a page, or the reason why there is none, to a response: status, policy and caching.
//!
//! Pages change with every visit to the library, so browsers ask again each time; a page that is the same is not sent
//! again (a weak tag of its bytes).

use alexandria_api::catalogue::CatalogueError;
use axum::body::Body;
use axum::http::response::Builder;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use maud::{Markup, html};

use super::layout;
use super::visit::{LANGUAGE, Visit};
use super::wording::fill;

/// Nothing runs; everything shown comes from this node; nobody frames it.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; media-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";
/// How long the choice of a language is kept, in seconds: a year.
const LANGUAGE_KEPT_S: u32 = 31_536_000;
/// When to come again to a library that is busy or starting, or for content that is on its way, in seconds.
const RETRY_AFTER_S: &str = "5";

/// What fills a page.
pub(super) struct Page {
    /// What it is about, for the window's title; `None` on the home page.
    pub(super) title: Option<String>,
    /// Everything in `<main>`.
    pub(super) body: Markup,
    /// Whether the page brings its own search form, so that the header needs none.
    pub(super) has_search: bool,
}

impl Page {
    pub(super) fn new(title: impl Into<String>, body: Markup) -> Self {
        Self { title: Some(title.into()), body, has_search: false }
    }
}

/// Why there is no page, by what the visitor can do about it.
#[derive(Debug, thiserror::Error)]
pub(super) enum PageError {
    /// Look elsewhere.
    #[error("there is nothing at this address")]
    Missing,
    /// Use another link.
    #[error("a parameter is not valid")]
    BadLink,
    /// Try again.
    #[error("too much is going on")]
    Busy,
    /// Download it instead; `media` tells from where.
    #[error("the content cannot be shown")]
    Unreadable {
        /// The address of the medium's own page.
        media: String,
    },
    /// Come again later; its own page tells why it is not here, and may fetch it.
    #[error("the content has not arrived")]
    NotArrived {
        /// The address of the medium's own page.
        media: String,
        title: String,
    },
    /// Tell whoever looks after the library.
    #[error("the library failed")]
    Failed(#[source] CatalogueError),
}

impl From<CatalogueError> for PageError {
    fn from(error: CatalogueError) -> Self {
        match error {
            CatalogueError::Missing | CatalogueError::UnknownBucket(_) => Self::Missing,
            CatalogueError::Busy { .. } | CatalogueError::Closing => Self::Busy,
            error => Self::Failed(error),
        }
    }
}

impl Visit {
    /// The response to this visit.
    pub(super) fn answer(&self, page: Result<Page, PageError>) -> Response {
        match page {
            Ok(page) => self.sent(StatusCode::OK, &page),
            Err(error) => self.refused(&error),
        }
    }

    fn refused(&self, error: &PageError) -> Response {
        let t = self.texts();
        let (status, title, advice) = match error {
            PageError::Missing => (StatusCode::NOT_FOUND, t.missing, t.missing_next),
            PageError::BadLink => (StatusCode::BAD_REQUEST, t.bad_link, t.bad_link_next),
            PageError::Busy => (StatusCode::SERVICE_UNAVAILABLE, t.busy, t.busy_next),
            PageError::Unreadable { .. } => (StatusCode::UNPROCESSABLE_ENTITY, t.unreadable, t.unreadable_next),
            PageError::NotArrived { .. } => (StatusCode::SERVICE_UNAVAILABLE, t.not_arrived, t.not_arrived_next),
            PageError::Failed(cause) => {
                tracing::error!(error = cause as &dyn std::error::Error, path = self.path, "a page failed");
                (StatusCode::INTERNAL_SERVER_ERROR, t.failed, t.failed_next)
            }
        };
        let body = html! {
            h1 { (title) }
            p.lead { (advice) }
            p.actions {
                @if let PageError::Unreadable { media } = error {
                    a.button href=(media) { (t.download) }
                }
                @if let PageError::NotArrived { media, title } = error {
                    a.button href=(media) { (fill(t.back_to, &[title])) }
                }
                a.button href="/" { (t.home) }
                a.button.quiet href="/browse" { (t.browse) }
            }
        };
        let mut response = self.sent(status, &Page::new(title, body));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        response
    }

    fn sent(&self, status: StatusCode, page: &Page) -> Response {
        let document = layout::document(self, page).into_string();
        let tag = format!("W/\"{}\"", &blake3::hash(document.as_bytes()).to_hex()[..32]);
        let is_kept = self.if_none_match.as_ref().is_some_and(|held| {
            held.to_str()
                .is_ok_and(|held| held.split(',').any(|held| held.trim().trim_start_matches("W/") == &tag[2..]))
        });
        let found = status == StatusCode::OK;
        let mut response = Response::builder()
            .status(status)
            .header(header::CACHE_CONTROL, "private, no-cache")
            .header(header::VARY, "Accept-Language, Cookie");
        if let Some(language) = self.language_to_keep {
            let cookie = format!("{LANGUAGE}={}; Path=/; Max-Age={LANGUAGE_KEPT_S}; SameSite=Lax", language.tag());
            response = response.header(header::SET_COOKIE, cookie);
        }
        if found {
            response = response.header(header::ETAG, tag);
        }
        if found && is_kept && self.language_to_keep.is_none() {
            return made(response.status(StatusCode::NOT_MODIFIED), Body::empty());
        }
        let response = guarded(response, POLICY)
            .header(header::CONTENT_TYPE, "text/html; charset=utf-8")
            .header(header::CONTENT_LANGUAGE, self.language.tag());
        made(response, Body::from(document))
    }
}

/// Adds what keeps a browser from running, guessing or telling more than it must.
pub(super) fn guarded(response: Builder, policy: &'static str) -> Builder {
    response
        .header(header::CONTENT_SECURITY_POLICY, policy)
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::REFERRER_POLICY, "same-origin")
        .header(header::X_FRAME_OPTIONS, "DENY")
}

/// The response that a builder holds.
pub(super) fn made(response: Builder, body: Body) -> Response {
    response.body(body).unwrap_or_else(|error| {
        tracing::error!(%error, "a header could not be made");
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    })
}
