//! Content that S3 has lost or holds damaged, over HTTP: `/v1/fleet/damaged`.

use alexandria_api::problem::{Problem, ProblemKind};
use alexandria_sync::chunk::BlobHash;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::fleet::store_failed;
use super::page_size;
use crate::content::Content;
use crate::content::damage::{Damaged, PAGE_SIZE_MAX, Repair};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DamagedQuery {
    after: Option<BlobHash>,
    page_size: Option<i64>,
}

#[derive(Serialize)]
struct DamagedAnswer {
    blobs: Vec<Damaged>,
    /// Ask again with `after` set to it; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<BlobHash>,
}

#[derive(Serialize)]
struct RepairAnswer {
    /// `sound`, or `wanted`.
    outcome: Repair,
}

pub(super) fn routes(content: Content) -> Router {
    Router::new().route("/damaged", get(list)).route("/damaged/{hash}/repair", post(repair)).with_state(content)
}

async fn list(
    State(content): State<Content>,
    query: Result<Query<DamagedQuery>, QueryRejection>,
) -> Result<Json<DamagedAnswer>, Problem> {
    let Query(query) = query.map_err(|error| Problem::new(ProblemKind::InvalidQuery, error.body_text()))?;
    let page_size = page_size(query.page_size, PAGE_SIZE_MAX)?;
    let blobs = content.damaged(query.after, page_size).await.map_err(|error| store_failed(&error))?;
    let next = (blobs.len() as i64 == page_size).then(|| blobs.last().map(|last| last.blob)).flatten();
    Ok(Json(DamagedAnswer { blobs, next }))
}

async fn repair(
    State(content): State<Content>,
    hash: Result<Path<BlobHash>, PathRejection>,
) -> Result<Json<RepairAnswer>, Problem> {
    let Path(hash) = hash.map_err(|error| Problem::new(ProblemKind::InvalidPath, error.body_text()))?;
    let outcome = content.repair(hash).await.map_err(|error| store_failed(&error))?;
    let Some(outcome) = outcome else {
        return Err(Problem::new(ProblemKind::NotFound, format!("no damage of {hash} is known")));
    };
    tracing::info!(blob.hash = %hash, ?outcome, "an operator had damaged content looked at");
    Ok(Json(RepairAnswer { outcome }))
}
