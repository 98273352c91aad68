//! Every error of the API: problem details (RFC 9457) in `application/problem+json`.
//!
//! What a client can tell apart is [`ProblemKind`], in `type`. What is wrong with this request is in `detail`, and where
//! in `field`. Causes inside the server are logged here and never shown.

use axum::Json;
use axum::extract::OriginalUri;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::catalogue::{CatalogueError, UploadError};
use crate::limits::RETRY_AFTER_S;

/// The media type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";

macro_rules! problem_kinds {
    ($( $(#[$doc:meta])* $name:ident = $status:ident $slug:literal $title:literal, )+) => {
        /// What went wrong, as far as a client should tell it apart.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum ProblemKind {
            $( $(#[$doc])* $name, )+
        }

        impl ProblemKind {
            /// The status code that goes with it.
            pub const fn status(self) -> StatusCode {
                match self { $( Self::$name => StatusCode::$status, )+ }
            }

            /// Its `type`: a name, not an address.
            pub const fn uri(self) -> &'static str {
                match self { $( Self::$name => concat!("urn:alexandria:problem:", $slug), )+ }
            }

            /// Its `title`.
            pub const fn title(self) -> &'static str {
                match self { $( Self::$name => $title, )+ }
            }
        }
    };
}

problem_kinds! {
    /// A part of the path is not what it must be.
    InvalidPath = BAD_REQUEST "invalid-path" "The address is not valid",
    /// A query parameter is unknown or not valid.
    InvalidQuery = BAD_REQUEST "invalid-query" "A query parameter is not valid",
    /// A header is not valid.
    InvalidHeader = BAD_REQUEST "invalid-header" "A header is not valid",
    /// The body is not JSON, or is cut off.
    InvalidBody = BAD_REQUEST "invalid-body" "The body cannot be read",
    /// A field of the body is unknown or not valid.
    InvalidField = BAD_REQUEST "invalid-field" "A field is not valid",
    /// A token is needed.
    Unauthenticated = UNAUTHORIZED "unauthenticated" "A valid token is needed",
    /// Not allowed, with or without a token.
    Forbidden = FORBIDDEN "forbidden" "This is not allowed",
    /// There is no such thing here.
    NotFound = NOT_FOUND "not-found" "There is no such thing here",
    /// The address exists, but not with this method.
    MethodNotAllowed = METHOD_NOT_ALLOWED "method-not-allowed" "The method is not allowed here",
    /// The content is not what the request said.
    ContentMismatch = CONFLICT "content-mismatch" "The content is not what the request said",
    /// Content that a record names is not here.
    ContentNotHere = CONFLICT "content-not-here" "Content that is named is not here",
    /// The collection that is named is not here.
    CollectionNotHere = CONFLICT "collection-not-here" "The collection is not here",
    /// A record still names the content.
    InUse = CONFLICT "in-use" "A record still names this content",
    /// A record that is set aside may not be let in yet.
    StaysSetAside = CONFLICT "stays-set-aside" "The record stays set aside",
    /// A token for a list or a feed no longer stands for a place in it.
    TokenExpired = GONE "token-expired" "The token does not belong to this list",
    /// The record is at another version than `If-Match` says.
    Stale = PRECONDITION_FAILED "stale" "The record was changed since it was read",
    /// Too many bytes.
    TooLarge = PAYLOAD_TOO_LARGE "too-large" "This is too large",
    /// The body is of a media type that is not taken here.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" "The media type is not supported",
    /// No byte of the content lies in the ranges that were asked for.
    RangeNotSatisfiable = RANGE_NOT_SATISFIABLE "range-not-satisfiable" "No byte lies in these ranges",
    /// The server's own fault.
    Internal = INTERNAL_SERVER_ERROR "internal" "The server failed",
    /// Too much is going on.
    Busy = SERVICE_UNAVAILABLE "busy" "Too much is going on",
    /// Content that a record names has to come here first.
    NotHereYet = SERVICE_UNAVAILABLE "not-here-yet" "The content is not here yet",
    /// The store takes no writes.
    ReadOnly = SERVICE_UNAVAILABLE "read-only" "The store takes no writes",
    /// The server is going down.
    Closing = SERVICE_UNAVAILABLE "closing" "The server is shutting down",
    /// No room is left.
    Full = INSUFFICIENT_STORAGE "full" "No room is left",
}

/// One error, on its way to a client.
#[derive(Clone, Debug)]
pub struct Problem {
    kind: ProblemKind,
    detail: String,
    field: Option<String>,
    retry_after_s: Option<u32>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// An error (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// What went wrong, as a name to compare with.
    #[schema(example = "urn:alexandria:problem:not-found")]
    r#type: &'a str,
    /// The same for people.
    title: &'a str,
    /// The status code.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong with this request.
    detail: &'a str,
    /// The field, parameter or header that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<&'a str>,
}

impl Problem {
    /// An error of this kind; `detail` says what is wrong with this request.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), field: None, retry_after_s: None, header: None }
    }

    /// Names the field, parameter or header that is wrong.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says when to ask again, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Gives the answer a header of its own.
    #[must_use]
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// Its members in JSON.
    pub(crate) fn body(&self) -> ProblemBody<'_> {
        ProblemBody {
            r#type: self.kind.uri(),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: &self.detail,
            field: self.field.as_deref(),
        }
    }

    /// There is no live record or content with this name.
    pub(crate) fn not_found(what: &str, name: impl std::fmt::Display) -> Self {
        Self::new(ProblemKind::NotFound, format!("there is no {what} {name} here"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.kind.status(), Json(self.body())).into_response();
        response.headers_mut().extend(self.header.map(|header| *header));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.kind == ProblemKind::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<CatalogueError> for Problem {
    fn from(error: CatalogueError) -> Self {
        let detail = error.to_string();
        match error {
            CatalogueError::Missing => Self::new(ProblemKind::NotFound, detail),
            CatalogueError::Stale => Self::new(ProblemKind::Stale, detail),
            CatalogueError::UnknownBucket(_) => Self::new(ProblemKind::CollectionNotHere, detail),
            CatalogueError::CursorExpired => Self::new(ProblemKind::TokenExpired, detail).at("since"),
            CatalogueError::HashMismatch { .. } => Self::new(ProblemKind::ContentMismatch, detail).at("hash"),
            CatalogueError::InUse => Self::new(ProblemKind::InUse, detail),
            CatalogueError::TooLarge(_) | CatalogueError::Upload(UploadError::TooLarge { .. }) => {
                Self::new(ProblemKind::TooLarge, detail)
            }
            CatalogueError::Upload(UploadError::DigestMismatch) => {
                Self::new(ProblemKind::ContentMismatch, detail).at("Content-Digest")
            }
            CatalogueError::Upload(UploadError::Interrupted) => Self::new(ProblemKind::InvalidBody, detail),
            CatalogueError::Full => Self::new(ProblemKind::Full, detail),
            CatalogueError::ReadOnly => Self::new(ProblemKind::ReadOnly, detail),
            CatalogueError::NotHereYet { retry_after_s, .. } => {
                Self::new(ProblemKind::NotHereYet, detail).retry_after(retry_after_s)
            }
            CatalogueError::Busy { retry_after_s } => Self::new(ProblemKind::Busy, detail).retry_after(retry_after_s),
            CatalogueError::Closing => Self::new(ProblemKind::Closing, detail).retry_after(RETRY_AFTER_S),
            CatalogueError::Store(cause) => {
                tracing::error!(error.cause = ?cause, "the store failed");
                Self::new(ProblemKind::Internal, "the cause is in the server's log")
            }
        }
    }
}

/// The answer to an address that does not exist. A host gives it to its outermost router as the fallback.
pub async fn not_found(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("nothing is at {}", uri.path()))
}

/// The answer to a method that an address does not take; axum adds `Allow`.
pub(crate) async fn method_not_allowed() -> Problem {
    Problem::new(ProblemKind::MethodNotAllowed, "the Allow header lists the methods that are")
}
