//! Content: immutable bytes named by their hash. Taken in by [`upload`], given out by [`download`], whole or in the
//! ranges that [`range`] works out.
//!
//! Content is never edited, so there is no `PUT` or `PATCH`; and it cannot be hidden, only removed once no record names it.

pub(crate) mod download;
pub(crate) mod range;
pub(crate) mod upload;

use alexandria_sync::chunk::BlobHash;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::catalogue::{BlobInfo, Catalogue, Sort};
use crate::extract::{Path, Query};
use crate::problem::{Problem, ProblemKind};
use crate::resource::list::{Page, page_size};

/// Content that is here.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BlobView)]
pub(crate) struct BlobView {
    /// Its name.
    hash: BlobHash,
    /// Its size in bytes.
    size_bytes: u64,
    /// Its media type.
    media_type: String,
}

impl From<BlobInfo> for BlobView {
    fn from(BlobInfo { hash, size_bytes, media_type }: BlobInfo) -> Self {
        Self { hash, size_bytes, media_type }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParameters {
    page_size: Option<u64>,
    page_token: Option<String>,
    #[serde(default)]
    sort: Sort,
}

/// `GET /v1/blobs`: what is here, by hash. The page token is the last hash shown.
pub(crate) async fn list<C: Catalogue>(
    State(api): State<Api<C>>,
    Query(parameters): Query<ListParameters>,
) -> Result<Response, Problem> {
    let size = page_size(parameters.page_size)?;
    let after: Option<BlobHash> = match parameters.page_token.map(|token| token.parse()) {
        None => None,
        Some(Ok(hash)) => Some(hash),
        Some(Err(_)) => {
            let detail = "it must be a next_page_token, unchanged";
            return Err(Problem::new(ProblemKind::InvalidQuery, detail).at("page_token"));
        }
    };
    let mut blobs = api.catalogue.list_blobs(after, parameters.sort, size + 1).await?;
    let more = blobs.len() > size;
    blobs.truncate(size);
    let next = blobs.last().filter(|_| more).map(|last| last.hash.to_string());
    Ok(Page::new(blobs.into_iter().map(BlobView::from).collect(), next).into_answer())
}

/// `DELETE /v1/blobs/{hash}`: removes content that no record names.
pub(crate) async fn delete<C: Catalogue>(
    State(api): State<Api<C>>,
    Path(hash): Path<BlobHash>,
) -> Result<StatusCode, Problem> {
    if api.catalogue.delete_blob(hash).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("content", hash))
    }
}
