//! What is set aside, over HTTP: `/v1/fleet/quarantine`.

use alexandria_api::problem::{Problem, ProblemKind};
use alexandria_sync::id::NodeId;
use alexandria_sync::quarantine::{QuarantineId, QuarantineUse, Release, Released};
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::fleet::{BODY_BYTES_MAX, store_failed};
use super::page_size;
use crate::postgres::Records;
use crate::postgres::quarantine::{PAGE_SIZE_MAX, Quarantined, ReleaseError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuarantineQuery {
    after: Option<QuarantineId>,
    /// Only what this node brought.
    node: Option<NodeId>,
    page_size: Option<i64>,
}

#[derive(Serialize)]
struct QuarantineAnswer {
    records: Vec<Quarantined>,
    /// How much is set aside in all.
    kept: QuarantineUse,
    /// Ask again with `after` set to it; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<QuarantineId>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Replay {
    /// As an edit of now, whenever it was written.
    as_new_edit: bool,
}

#[derive(Serialize)]
struct ReplayAnswer {
    /// Whether it changed what is stored.
    applied: bool,
}

pub(super) fn routes(records: Records) -> Router {
    Router::new()
        .route("/quarantine", get(list))
        .route("/quarantine/{id}", delete(discard))
        .route("/quarantine/{id}/replay", post(replay))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(records)
}

async fn list(
    State(records): State<Records>,
    query: Result<Query<QuarantineQuery>, QueryRejection>,
) -> Result<Json<QuarantineAnswer>, Problem> {
    let Query(query) = query.map_err(|error| Problem::new(ProblemKind::InvalidQuery, error.body_text()))?;
    let page_size = page_size(query.page_size, PAGE_SIZE_MAX)?;
    let shown = records.quarantined(query.after, query.node, page_size).await.map_err(|error| store_failed(&error))?;
    let kept = records.quarantine_use().await.map_err(|error| store_failed(&error))?;
    let next = (shown.len() as i64 == page_size).then(|| shown.last().map(|last| last.id)).flatten();
    Ok(Json(QuarantineAnswer { records: shown, kept, next }))
}

async fn replay(
    State(records): State<Records>,
    id: Result<Path<QuarantineId>, PathRejection>,
    request: Result<Json<Replay>, JsonRejection>,
) -> Result<Json<ReplayAnswer>, Problem> {
    let Path(id) = id.map_err(|error| Problem::new(ProblemKind::InvalidPath, error.body_text()))?;
    let Json(request) = request.map_err(|error| Problem::new(ProblemKind::InvalidBody, error.body_text()))?;
    let how = if request.as_new_edit { Release::AsNewEdit } else { Release::AsItIs };
    let released = records.release_quarantined(id, how).await.map_err(|error| refused(&error))?;
    tracing::info!(quarantine.id = %id, ?how, ?released, "an operator let in a record that was set aside");
    Ok(Json(ReplayAnswer { applied: released == Released::Applied }))
}

async fn discard(
    State(records): State<Records>,
    id: Result<Path<QuarantineId>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(|error| Problem::new(ProblemKind::InvalidPath, error.body_text()))?;
    if records.drop_quarantined(id).await.map_err(|error| store_failed(&error))? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(refused(&ReleaseError::NotFound(id)))
    }
}

fn refused(error: &ReleaseError) -> Problem {
    let kind = match error {
        ReleaseError::NotFound(_) => ProblemKind::NotFound,
        ReleaseError::Stays { .. } | ReleaseError::TooLarge(_) | ReleaseError::Deleted(_) => ProblemKind::StaysSetAside,
        ReleaseError::Store(error) => return store_failed(error),
    };
    Problem::new(kind, error.to_string())
}
