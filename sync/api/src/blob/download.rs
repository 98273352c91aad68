//! `GET` and `HEAD` of content: whole, one range, or several as `multipart/byteranges` (RFC 9110, section 14.6).
//!
//! A hash never names other bytes, so an answer may be kept for ever. Content comes from anybody who may upload, and is
//! served from the same origin as the pages: what a browser could run is sandboxed, and nothing is sniffed.

use alexandria_sync::chunk::BlobHash;
use axum::body::Body;
use axum::extract::State;
use axum::http::response::Builder;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use std::ops::Range;

use super::range::{Selection, select};
use crate::Api;
use crate::catalogue::{BlobInfo, Catalogue, CatalogueError, Content};
use crate::extract::{Path, Query};
use crate::limits::FILE_NAME_CHARS_MAX;
use crate::precondition::{ETag, Preconditions, Verdict};
use crate::problem::{Problem, ProblemKind};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DownloadParameters {
    /// The name to save it under.
    name: Option<String>,
    /// Whether it is to be saved rather than shown.
    #[serde(default)]
    download: bool,
}

/// `GET` and `HEAD /v1/blobs/{hash}`.
pub(crate) async fn get<C: Catalogue>(
    State(api): State<Api<C>>,
    method: Method,
    Path(hash): Path<BlobHash>,
    Query(parameters): Query<DownloadParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let preconditions = Preconditions::of(&headers)?;
    let disposition = disposition(&parameters)?;
    let content = api.catalogue.fetch_blob(hash).await?.ok_or_else(|| Problem::not_found("content", hash))?;
    let etag = ETag::new(hash.to_string());
    let verdict = preconditions.check(&method, &etag)?;
    let base = Response::builder()
        .header(header::ETAG, etag.to_header())
        .header(header::CACHE_CONTROL, cache_control(&content))
        .header(header::ACCEPT_RANGES, "bytes");
    if verdict == Verdict::NotModified {
        return Ok(sent(base.status(StatusCode::NOT_MODIFIED), Body::empty()));
    }
    let base = safe(base, &content.info().media_type, disposition);
    let selection = selection(&method, &headers, &etag, content.info().size_bytes);
    if method == Method::GET {
        content.ready(selection.first(content.info().size_bytes)).await?;
    }
    Ok(match selection {
        Selection::Whole => whole(base, &method, &content),
        Selection::One(range) => one(base, &content, range),
        Selection::Several(ranges) => several(base, content, ranges),
        Selection::Unsatisfiable => return Err(unsatisfiable(content.info())),
    })
}

/// A hash never names other bytes, but what is still arriving is proved only once it is whole.
fn cache_control(content: &impl Content) -> &'static str {
    if content.is_whole() { "public, max-age=31536000, immutable" } else { "no-store" }
}

/// Ranges count for `GET` only, and only while `If-Range` names what is there (RFC 9110, section 13.1.5).
fn selection(method: &Method, headers: &HeaderMap, etag: &ETag, size_bytes: u64) -> Selection {
    let unchanged = headers.get(header::IF_RANGE).is_none_or(|value| etag.is(value));
    match headers.get(header::RANGE).and_then(|range| range.to_str().ok()) {
        Some(range) if method == Method::GET && unchanged => select(range, size_bytes),
        _ => Selection::Whole,
    }
}

fn whole(answer: Builder, method: &Method, content: &impl Content) -> Response {
    let BlobInfo { size_bytes, media_type, .. } = content.info();
    let answer = answer.header(header::CONTENT_TYPE, media_type_header(media_type));
    let answer = answer.header(header::CONTENT_LENGTH, *size_bytes);
    // A HEAD must not open the file, or fetch from afar, only to drop the bytes.
    let body = if method == Method::HEAD { Body::empty() } else { Body::from_stream(content.read(0..*size_bytes)) };
    sent(answer.status(StatusCode::OK), body)
}

fn one(answer: Builder, content: &impl Content, range: Range<u64>) -> Response {
    let BlobInfo { size_bytes, media_type, .. } = content.info();
    let answer = answer
        .header(header::CONTENT_TYPE, media_type_header(media_type))
        .header(header::CONTENT_RANGE, content_range(&range, *size_bytes))
        .header(header::CONTENT_LENGTH, range.end - range.start);
    sent(answer.status(StatusCode::PARTIAL_CONTENT), Body::from_stream(content.read(range)))
}

fn several(answer: Builder, content: impl Content, ranges: Vec<Range<u64>>) -> Response {
    let BlobInfo { hash, size_bytes, media_type } = content.info().clone();
    // The hash of the content cannot well occur in the content.
    let boundary = hash.to_string();
    let preambles: Vec<Bytes> = ranges
        .iter()
        .map(|range| {
            let range = content_range(range, size_bytes);
            format!("\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {range}\r\n\r\n").into()
        })
        .collect();
    let closing = Bytes::from(format!("\r\n--{boundary}--\r\n"));
    let length = closing.len() as u64
        + preambles.iter().map(|preamble| preamble.len() as u64).sum::<u64>()
        + ranges.iter().map(|range| range.end - range.start).sum::<u64>();
    let body = stream::iter(preambles.into_iter().zip(ranges))
        .flat_map(move |(preamble, range)| ready(preamble).chain(content.read(range)))
        .chain(ready(closing));
    let answer = answer
        .header(header::CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}"))
        .header(header::CONTENT_LENGTH, length);
    sent(answer.status(StatusCode::PARTIAL_CONTENT), Body::from_stream(body))
}

fn ready(bytes: Bytes) -> impl stream::Stream<Item = Result<Bytes, CatalogueError>> + Send {
    stream::once(std::future::ready(Ok(bytes)))
}

fn unsatisfiable(info: &BlobInfo) -> Problem {
    let range = HeaderValue::try_from(format!("bytes */{}", info.size_bytes)).expect("a number is visible ASCII");
    let detail = format!("the content has {} bytes", info.size_bytes);
    Problem::new(ProblemKind::RangeNotSatisfiable, detail).at("Range").with_header(header::CONTENT_RANGE, range)
}

fn content_range(range: &Range<u64>, size_bytes: u64) -> String {
    format!("bytes {}-{}/{size_bytes}", range.start, range.end - 1)
}

/// The stored media type, unless it was stored before this version's checks and cannot stand in a header.
fn media_type_header(media_type: &str) -> HeaderValue {
    HeaderValue::try_from(media_type).unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

fn sent(answer: Builder, body: Body) -> Response {
    answer.body(body).unwrap_or_else(|error| {
        tracing::error!(%error, "a header could not be made");
        Problem::new(ProblemKind::Internal, "the cause is in the server's log").into_response()
    })
}

/// Adds what keeps content from acting as a page of this origin.
fn safe(answer: Builder, media_type: &str, disposition: Option<HeaderValue>) -> Builder {
    let mut answer = answer.header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if may_run(media_type) {
        let policy = "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'";
        answer = answer.header(header::CONTENT_SECURITY_POLICY, policy);
    }
    if let Some(disposition) = disposition {
        answer = answer.header(header::CONTENT_DISPOSITION, disposition);
    }
    answer
}

/// Whether a browser could run scripts in it. Everything could that is not known to be passive; PDF is let out because
/// browsers show it in a viewer of their own, which a sandbox breaks.
fn may_run(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let passive_kind = ["image/", "audio/", "video/", "font/"].iter().any(|kind| essence.starts_with(kind));
    let passive = ["application/pdf", "application/epub+zip", "application/octet-stream", "text/plain"];
    !(passive.contains(&essence.as_str()) || (passive_kind && !essence.contains("xml")))
}

/// What may stand unencoded in the extended notation of RFC 8187.
const ATTR_CHAR: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// `Content-Disposition` (RFC 6266), if the client wants to save, or to name, what it gets.
fn disposition(parameters: &DownloadParameters) -> Result<Option<HeaderValue>, Problem> {
    let kind = if parameters.download { "attachment" } else { "inline" };
    let Some(name) = &parameters.name else {
        return Ok(parameters.download.then(|| HeaderValue::from_static("attachment")));
    };
    if name.chars().count() > FILE_NAME_CHARS_MAX {
        let detail = format!("it has more than {FILE_NAME_CHARS_MAX} characters");
        return Err(Problem::new(ProblemKind::InvalidQuery, detail).at("name"));
    }
    let name = safe_name(name);
    let plain: String =
        name.chars().map(|c| if c.is_ascii() && !matches!(c, '"' | '\\' | '%') { c } else { '_' }).collect();
    let extended = utf8_percent_encode(&name, ATTR_CHAR);
    let header = format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{extended}");
    Ok(Some(HeaderValue::try_from(header).expect("the name was reduced to visible ASCII and spaces")))
}

/// The last part of a path, without control characters and leading dots: nothing that a client saves elsewhere for.
fn safe_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let visible: String = last.chars().filter(|c| !c.is_control() && !is_bidi_control(*c)).collect();
    let safe = visible.trim().trim_start_matches('.').trim();
    if safe.is_empty() { "content".to_owned() } else { safe.to_owned() }
}

/// Characters that turn the direction of text, and so make `gpj.exe` read as `exe.jpg`.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(name: &str) -> String {
        let parameters = DownloadParameters { name: Some(name.to_owned()), download: true };
        disposition(&parameters).unwrap().unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_name_is_never_a_path() {
        assert_eq!(named("../../etc/passwd"), "attachment; filename=\"passwd\"; filename*=UTF-8''passwd");
        assert_eq!(named("C:\\x\\.bashrc"), "attachment; filename=\"bashrc\"; filename*=UTF-8''bashrc");
        assert_eq!(named("a/"), "attachment; filename=\"content\"; filename*=UTF-8''content");
        assert_eq!(named("é\"\r\nX: y"), "attachment; filename=\"__X: y\"; filename*=UTF-8''%C3%A9%22X%3A%20y");
    }

    #[test]
    fn what_a_browser_could_run_is_sandboxed() {
        for runs in ["text/html", "image/svg+xml", "application/xhtml+xml", "text/xml; charset=utf-8", "TEXT/HTML", ""]
        {
            assert!(may_run(runs), "{runs}");
        }
        for passive in ["image/png", "application/pdf", "video/mp4", "text/plain; charset=utf-8"] {
            assert!(!may_run(passive), "{passive}");
        }
    }

    proptest! {
        #[test]
        fn no_name_breaks_the_header(name in any::<String>()) {
            let parameters = DownloadParameters { name: Some(name), download: false };
            let _ = disposition(&parameters);
        }
    }
}
