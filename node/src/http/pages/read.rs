//! `/read/{id}`: books and texts as pages, part by part.
//!
//! What a file holds is never passed on as it is: EPUB chapters, web pages and Markdown are cut down to plain markup
//! (`clean`) and shown in this site's own frame and style, under its policy. Pictures inside archives are passed on only
//! if their bytes are those of a known picture format.
//!
//! - [`archive`]: what is inside a ZIP, within limits.
//! - [`epub`]: the reading order of a book.
//! - [`text`]: plain text and Markdown.
//! - [`clean`]: from hostile markup to harmless.

mod archive;
mod clean;
mod epub;
mod text;

use std::sync::Arc;

use alexandria_api::catalogue::{Catalogue, Content};
use alexandria_sync::domain::{FileRole, Media};
use alexandria_sync::id::RecordId;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, PreEscaped, html};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use self::archive::{Archive, BlobReader};
use super::answer::{Page, PageError, guarded, made};
use super::language::direction_of;
use super::layout;
use super::visit::{Visit, address};
use super::walk::{self, Found};
use super::wording::{Texts, fill};

/// Parts worked on at once. Each holds a thread and some megabytes.
const READERS_MAX: usize = 6;
/// Of a chapter or a whole web page, unpacked.
const MARKUP_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Of a picture in a book, unpacked.
const PICTURE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Of a plain text.
const TEXT_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Pictures in books are kept by browsers this long, in seconds: the file behind an address may be replaced.
const PICTURE_KEPT_S: u32 = 86_400;

const PART: &str = "part";
const AT: &str = "at";

/// Why content cannot be shown as pages.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    /// A limit on what one page may cost.
    #[error("{what} is over its limit")]
    TooLarge { what: &'static str },
    /// It is not what its media type says, or not whole, or locked.
    #[error("the file is damaged or locked: {0}")]
    Damaged(&'static str),
    /// The address names nothing in it.
    #[error("there is no such part")]
    NoSuchPart,
}

/// What can be read here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Readable {
    Epub,
    Comic,
    Text,
    Markdown,
    Html,
}

impl Readable {
    /// By media type, parameters ignored.
    pub(super) fn of(media_type: &str) -> Option<Self> {
        match media_type.split(';').next().unwrap_or_default().trim() {
            "application/epub+zip" => Some(Self::Epub),
            "application/vnd.comicbook+zip" | "application/x-cbz" => Some(Self::Comic),
            "text/plain" => Some(Self::Text),
            "text/markdown" => Some(Self::Markdown),
            "text/html" | "application/xhtml+xml" => Some(Self::Html),
            _ => None,
        }
    }
}

/// The address of a part, from 1.
pub(super) fn part_address(media: RecordId, part: usize) -> String {
    format!("/read/{media}?{PART}={part}")
}

/// The address of a place that the table of contents names.
pub(super) fn place_address(media: RecordId, readable: Readable, href: &str) -> String {
    let (path, fragment) = href.split_once('#').unwrap_or((href, ""));
    let fragment = clean::fragment(fragment);
    match readable {
        Readable::Epub => address(&format!("/read/{media}"), [(AT, path)]) + &fragment,
        // A heading of a web page, which has but one part.
        _ if fragment.is_empty() => format!("/read/{media}{}", clean::fragment(path)),
        _ => format!("/read/{media}{fragment}"),
    }
}

/// Lets in only so many at once.
pub(super) struct ReadingRoom {
    seats: Arc<Semaphore>,
}

impl Default for ReadingRoom {
    fn default() -> Self {
        Self { seats: Arc::new(Semaphore::new(READERS_MAX)) }
    }
}

impl ReadingRoom {
    /// Does `work` where it may block, once there is a seat.
    async fn read<T: Send + 'static>(
        &self,
        media: RecordId,
        work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, PageError> {
        let Ok(seat) = Arc::clone(&self.seats).acquire_owned().await else { return Err(PageError::Busy) };
        let done = tokio::task::spawn_blocking(move || {
            let _seat = seat;
            work()
        });
        // A parser's panic costs this page only.
        match done.await.unwrap_or(Err(ReadError::Damaged("its reader failed"))) {
            Ok(done) => Ok(done),
            Err(ReadError::NoSuchPart) => Err(PageError::Missing),
            Err(error) => {
                tracing::info!(%error, media.id = %media, "content cannot be shown");
                Err(PageError::Unreadable { media: format!("/media/{media}") })
            }
        }
    }
}

/// Which part of it.
#[derive(Clone, Debug)]
enum Place {
    Number(usize),
    /// The part that is this file of the book.
    Path(String),
}

/// One part, ready to be shown.
struct Part {
    number: usize,
    count: usize,
    body: Markup,
}

/// The part that the address asks for.
pub(super) async fn page<C: Catalogue>(
    catalogue: &C,
    room: &ReadingRoom,
    id: &str,
    visit: &Visit,
) -> Result<Page, PageError> {
    let t = visit.texts();
    let (media, readable, content) = open(catalogue, id).await?;
    let place = match (visit.parameter(PART), visit.parameter(AT)) {
        (Some(part), _) => Place::Number(part.parse().ok().filter(|part| *part > 0).ok_or(PageError::BadLink)?),
        (None, Some(path)) => Place::Path(path.to_owned()),
        (None, None) => Place::Number(1),
    };
    let id = media.id;
    let runtime = Handle::current();
    let part = room.read(id, move || part(id, readable, BlobReader::new(content, runtime), &place)).await?;
    let title = if part.count > 1 {
        format!("{} ({}/{})", media.it.title, part.number, part.count)
    } else {
        media.it.title.clone()
    };
    let language = media.it.languages.first().map(String::as_str);
    let name = html! { bdi lang=[language] { (media.it.title) } };
    let media_path = format!("/media/{id}");
    let here = if part.count > 1 {
        html! { (position(t, &part)) }
    } else {
        html! { (t.read) }
    };
    let body = html! {
        (layout::trail(t, &[(&media_path, name)], &here))
        h1.unseen { bdi { (title) } }
        @if part.count > 1 { nav.pager aria-label=(t.parts) { (steps(t, id, &part)) } }
        article.reading lang=[language] dir=(direction_of(language)) { (part.body) }
        // The same again, which a screen reader need not announce as another place.
        @if part.count > 1 { div.pager { (steps(t, id, &part)) } }
        p.actions { a.button.quiet href=(media_path) { (fill(t.back_to, &[&media.it.title])) } }
    };
    Ok(Page::new(title, body))
}

/// A picture inside a book.
pub(super) async fn picture<C: Catalogue>(
    catalogue: &C,
    room: &ReadingRoom,
    id: &str,
    path: String,
) -> Result<Response, PageError> {
    let (media, readable, content) = open(catalogue, id).await?;
    if !matches!(readable, Readable::Epub | Readable::Comic) {
        return Err(PageError::Missing);
    }
    let runtime = Handle::current();
    let (media_type, bytes) = room
        .read(media.id, move || {
            let mut archive = Archive::open(BlobReader::new(content, runtime))?;
            let bytes = archive.read(&path, "the picture", PICTURE_BYTES_MAX)?.ok_or(ReadError::NoSuchPart)?;
            // Anything else in the book is not to be had at an address of its own.
            let media_type = picture_type(&path, &bytes).ok_or(ReadError::NoSuchPart)?;
            Ok((media_type, bytes))
        })
        .await?;
    let response = Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CACHE_CONTROL, format!("private, max-age={PICTURE_KEPT_S}"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox";
    Ok(made(guarded(response, policy), Body::from(bytes)).into_response())
}

/// The medium, and the first of its files that can be read here.
async fn open<C: Catalogue>(catalogue: &C, id: &str) -> Result<(Found<Media>, Readable, C::Content), PageError> {
    let media: Found<Media> = walk::find(catalogue, id).await?;
    let mut files: Vec<_> = media.it.files.iter().filter(|file| file.role != FileRole::Supplement).collect();
    files.sort_by_key(|file| file.role != FileRole::Main);
    let readable = files.iter().find_map(|file| Some((file.blob, Readable::of(&file.media_type)?)));
    let (blob, readable) = readable.ok_or(PageError::Missing)?;
    match catalogue.open_blob(blob).await? {
        Some(content) => Ok((media, readable, content)),
        None => Err(PageError::NotArrived { media: format!("/media/{}", media.id), title: media.it.title }),
    }
}

fn part<T: Content>(
    media: RecordId,
    readable: Readable,
    mut reader: BlobReader<T>,
    place: &Place,
) -> Result<Part, ReadError> {
    match readable {
        Readable::Epub => {
            let mut archive = Archive::open(reader)?;
            let spine = epub::spine(&mut archive)?;
            let number = match place {
                Place::Number(number) => *number,
                Place::Path(path) => spine.iter().position(|held| held == path).ok_or(ReadError::NoSuchPart)? + 1,
            };
            let path = spine.get(number - 1).ok_or(ReadError::NoSuchPart)?;
            let bytes = archive.read(path, "the chapter", MARKUP_BYTES_MAX)?;
            let bytes = bytes.ok_or(ReadError::Damaged("a chapter is missing"))?;
            let body = clean::chapter(&text::decode(&bytes), media, path)?;
            Ok(Part { number, count: spine.len(), body: PreEscaped(body) })
        }
        Readable::Comic => {
            let archive = Archive::open(reader)?;
            let pages = archive.pictures();
            let Place::Number(number) = *place else { return Err(ReadError::NoSuchPart) };
            let path = pages.get(number - 1).ok_or(ReadError::NoSuchPart)?;
            let body = html! { p.picture { img src=(clean::picture_address(media, path)) alt=(number); } };
            Ok(Part { number, count: pages.len(), body })
        }
        Readable::Text => {
            let text = text::decode(&reader.whole(TEXT_BYTES_MAX)?).into_owned();
            let parts = text::parts(&text);
            let Place::Number(number) = *place else { return Err(ReadError::NoSuchPart) };
            let part = parts.get(number - 1).ok_or(ReadError::NoSuchPart)?;
            Ok(Part { number, count: parts.len(), body: html! { pre.text dir="auto" { (part) } } })
        }
        Readable::Markdown | Readable::Html => {
            let bytes = reader.whole(MARKUP_BYTES_MAX)?;
            let text = text::decode(&bytes);
            let markup = if readable == Readable::Markdown { text::markdown(&text)? } else { text.into_owned() };
            if !matches!(place, Place::Number(1)) {
                return Err(ReadError::NoSuchPart);
            }
            Ok(Part { number: 1, count: 1, body: PreEscaped(clean::document(&markup)?) })
        }
    }
}

fn position(t: &Texts, part: &Part) -> String {
    fill(t.part_of, &[&part.number.to_string(), &part.count.to_string()])
}

fn steps(t: &Texts, media: RecordId, part: &Part) -> Markup {
    html! {
        @if part.number > 1 {
            a.button.quiet rel="prev" href=(part_address(media, part.number - 1)) { (t.previous) }
        }
        span.count { (position(t, part)) }
        @if part.number < part.count {
            a.button rel="next" href=(part_address(media, part.number + 1)) { (t.next) }
        }
    }
}

/// The type of a picture by its first bytes; of a drawing in XML, by its name.
fn picture_type(path: &str, bytes: &[u8]) -> Option<&'static str> {
    let known = ["image/jpeg", "image/png", "image/gif", "image/webp", "image/avif"];
    match infer::get(bytes) {
        Some(kind) if known.contains(&kind.mime_type()) => Some(kind.mime_type()),
        _ if path.to_ascii_lowercase().ends_with(".svg") => Some("image/svg+xml"),
        _ => None,
    }
}
