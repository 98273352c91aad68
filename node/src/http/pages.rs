//! The library for people: pages that a browser of any age shows, without JavaScript.
//!
//! Each module makes one sort of page: `home`, `browse`, `search`, `shelf` (what one author, subject or collection
//! holds), `directory` (all of them), `media`, `read`, `outlook` (what is still to come). They share `visit` (what a request asks for), `walk` (lists in
//! pages), `card` and `layout` (how it looks), `answer` (headers and errors), `wording` (every word, in every language).
//!
//! What always holds:
//! - Catalogue text is escaped or sanitised, says its language, and runs its own way.
//! - No script runs on any page, and none is needed. The policy in `answer` forbids them even where a browser has them on.
//! - A page reads a bounded number of records, whatever the size of the library.
//!
//! Not here: content, which is served by `/v1/blobs`; editing; who may see what.

mod answer;
mod assets;
mod browse;
mod card;
mod directory;
mod home;
mod kind;
mod language;
mod layout;
mod media;
mod outlook;
mod quantity;
mod read;
mod search;
mod shelf;
mod visit;
mod walk;
mod wording;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use alexandria_api::catalogue::Catalogue;
use alexandria_api::problem;
use alexandria_sync::domain::{Author, Category, Collection};
use axum::Router;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use self::answer::PageError;
use self::home::Census;
use self::read::ReadingRoom;
use self::visit::Visit;

/// All pages and what they need: `/`, `/browse`, `/search`, `/media/{id}`, `/read/{id}`, `/status`, `/static/…` and so on.
pub fn router<C: Catalogue>(catalogue: C) -> Router {
    let pages = Pages { catalogue, census: Arc::default(), reading_room: Arc::default() };
    Router::new()
        .route("/", get(home::<C>))
        .route("/browse", get(browse::<C>))
        .route("/search", get(search::<C>))
        .route("/authors", get(authors::<C>))
        .route("/categories", get(categories::<C>))
        .route("/collections", get(collections::<C>))
        .route("/author/{id}", get(author::<C>))
        .route("/category/{id}", get(category::<C>))
        .route("/collection/{id}", get(collection::<C>))
        .route(outlook::PATH, get(status::<C>))
        .route("/media/{id}", get(media::<C>))
        .route("/read/{id}", get(read::<C>))
        .route("/read/{id}/file/{*path}", get(picture::<C>))
        .route("/static/{name}", get(assets::get))
        .route("/favicon.ico", get(assets::favicon))
        .with_state(pages)
}

/// What is nowhere: a page for people, a problem for programs. For the host's fallback.
pub async fn not_found(headers: HeaderMap, uri: OriginalUri, visit: Visit) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("text/html") {
        visit.answer(Err(PageError::Missing))
    } else {
        problem::not_found(uri).await.into_response()
    }
}

/// What every page has at hand.
#[derive(Clone)]
struct Pages<C> {
    catalogue: C,
    census: Arc<Census>,
    reading_room: Arc<ReadingRoom>,
}

async fn home<C: Catalogue>(State(pages): State<Pages<C>>, visit: Visit) -> Response {
    visit.answer(home::page(&pages.catalogue, &pages.census, &visit).await)
}

async fn status<C: Catalogue>(State(pages): State<Pages<C>>, visit: Visit) -> Response {
    visit.answer(outlook::page(&pages.catalogue, &visit).await)
}

async fn browse<C: Catalogue>(State(pages): State<Pages<C>>, visit: Visit) -> Response {
    visit.answer(browse::page(&pages.catalogue, &visit).await)
}

async fn search<C: Catalogue>(State(pages): State<Pages<C>>, visit: Visit) -> Response {
    visit.answer(search::page(&pages.catalogue, &visit).await)
}

async fn authors<C: Catalogue>(State(pages): State<Pages<C>>, visit: Visit) -> Response {
    visit.answer(directory::page::<C, Author>(&pages.catalogue, &visit).await)
}

async fn categories<C: Catalogue>(State(pages): State<Pages<C>>, visit: Visit) -> Response {
    visit.answer(directory::page::<C, Category>(&pages.catalogue, &visit).await)
}

async fn collections<C: Catalogue>(State(pages): State<Pages<C>>, visit: Visit) -> Response {
    visit.answer(directory::page::<C, Collection>(&pages.catalogue, &visit).await)
}

async fn author<C: Catalogue>(State(pages): State<Pages<C>>, Path(id): Path<String>, visit: Visit) -> Response {
    visit.answer(shelf::author(&pages.catalogue, &id, &visit).await)
}

async fn category<C: Catalogue>(State(pages): State<Pages<C>>, Path(id): Path<String>, visit: Visit) -> Response {
    visit.answer(shelf::category(&pages.catalogue, &id, &visit).await)
}

async fn collection<C: Catalogue>(State(pages): State<Pages<C>>, Path(id): Path<String>, visit: Visit) -> Response {
    visit.answer(shelf::collection(&pages.catalogue, &id, &visit).await)
}

async fn media<C: Catalogue>(State(pages): State<Pages<C>>, Path(id): Path<String>, visit: Visit) -> Response {
    visit.answer(media::page(&pages.catalogue, &id, &visit).await)
}

async fn read<C: Catalogue>(State(pages): State<Pages<C>>, Path(id): Path<String>, visit: Visit) -> Response {
    visit.answer(read::page(&pages.catalogue, &pages.reading_room, &id, &visit).await)
}

async fn picture<C: Catalogue>(
    State(pages): State<Pages<C>>,
    Path((id, path)): Path<(String, String)>,
    visit: Visit,
) -> Response {
    match read::picture(&pages.catalogue, &pages.reading_room, &id, path).await {
        Ok(picture) => picture.into_response(),
        Err(error) => visit.answer(Err(error)),
    }
}
