//! The few files that pages need, each under a name that changes with its content, so that browsers keep it for ever.

use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};

use super::answer::{PageError, guarded, made};
use super::visit::Visit;

/// How every page looks.
pub(super) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("style", "css", "text/css; charset=utf-8", include_str!("style.css")));
/// The mark of the library.
pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("icon.svg")));

/// A file that comes with the binary.
pub(super) struct Asset {
    name: String,
    media_type: &'static str,
    content: &'static str,
}

impl Asset {
    fn new(stem: &str, extension: &str, media_type: &'static str, content: &'static str) -> Self {
        let fingerprint = &blake3::hash(content.as_bytes()).to_hex()[..12];
        Self { name: format!("{stem}.{fingerprint}.{extension}"), media_type, content }
    }

    /// Where it is.
    pub(super) fn path(&self) -> String {
        format!("/static/{}", self.name)
    }
}

/// `GET /static/{name}`.
pub(super) async fn get(Path(name): Path<String>, visit: Visit) -> Response {
    let Some(asset) = [&*STYLE, &*ICON].into_iter().find(|asset| asset.name == name) else {
        return visit.answer(Err(PageError::Missing));
    };
    let response = Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, asset.media_type)
        .header(header::CACHE_CONTROL, "public, max-age=31536000, immutable");
    made(guarded(response, "default-src 'none'; style-src 'unsafe-inline'"), Body::from(asset.content))
}

/// `GET /favicon.ico`, which browsers ask for whatever the page says.
pub(super) async fn favicon() -> Response {
    Redirect::permanent(&ICON.path()).into_response()
}
