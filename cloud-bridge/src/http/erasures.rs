//! The right to be forgotten, over HTTP: `/v1/fleet/erasures`.

use alexandria_api::problem::{Problem, ProblemKind};
use alexandria_sync::domain::kind_named;
use alexandria_sync::id::{BucketId, NodeId, RecordId};
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::fleet::{BODY_BYTES_MAX, store_failed};
use super::page_size;
use crate::postgres::Records;
use crate::postgres::erase::EraseError;
use crate::postgres::erase::obligations::{Obligation, PAGE_SIZE_MAX, ShownErasure};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewErasure {
    /// The kind of record, by name or number.
    kind: String,
    /// Its id.
    id: RecordId,
}

#[derive(Serialize)]
struct Ordered {
    /// What orders it: one or more for each bucket that has the record.
    erasures: Vec<OrderedErasure>,
}

#[derive(Serialize)]
struct OrderedErasure {
    id: RecordId,
    bucket: BucketId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErasuresQuery {
    after: Option<RecordId>,
    page_size: Option<i64>,
}

#[derive(Serialize)]
struct ErasuresAnswer {
    erasures: Vec<ShownErasure>,
    /// Ask again with `after` set to it; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<RecordId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErasureQuery {
    /// Nodes after this one.
    after: Option<NodeId>,
    page_size: Option<i64>,
}

#[derive(Serialize)]
struct ErasureAnswer {
    /// The erasure, in each bucket that has it.
    erasures: Vec<ShownErasure>,
    /// Who has told that it is done, and who owes it.
    nodes: Vec<Obligation>,
    /// Ask again with `after` set to it; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<NodeId>,
}

pub(super) fn routes(records: Records) -> Router {
    Router::new()
        .route("/erasures", get(list).post(erase))
        .route("/erasures/{id}", get(show))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(records)
}

async fn erase(
    State(records): State<Records>,
    new: Result<Json<NewErasure>, JsonRejection>,
) -> Result<(StatusCode, Json<Ordered>), Problem> {
    let Json(NewErasure { kind, id }) =
        new.map_err(|error| Problem::new(ProblemKind::InvalidBody, error.body_text()))?;
    let known = kind_named(&kind).ok_or_else(|| {
        Problem::new(ProblemKind::InvalidField, format!("there are no records of a kind called {kind}")).at("kind")
    })?;
    let ordered = records.erase(known, id).await.map_err(|error| match error {
        EraseError::NotFound(_) => Problem::new(ProblemKind::NotFound, error.to_string()),
        EraseError::NotErasable => Problem::new(ProblemKind::InvalidField, error.to_string()).at("kind"),
        EraseError::Store(error) => store_failed(&error),
    })?;
    let erasures = ordered.into_iter().map(|key| OrderedErasure { id: key.id, bucket: key.bucket }).collect();
    Ok((StatusCode::CREATED, Json(Ordered { erasures })))
}

async fn list(
    State(records): State<Records>,
    query: Result<Query<ErasuresQuery>, QueryRejection>,
) -> Result<Json<ErasuresAnswer>, Problem> {
    let Query(query) = query.map_err(|error| Problem::new(ProblemKind::InvalidQuery, error.body_text()))?;
    let page_size = page_size(query.page_size, PAGE_SIZE_MAX)?;
    let erasures = records.erasures(query.after, page_size).await.map_err(|error| store_failed(&error))?;
    let next = (erasures.len() as i64 >= page_size).then(|| erasures.last().map(|last| last.id)).flatten();
    Ok(Json(ErasuresAnswer { erasures, next }))
}

async fn show(
    State(records): State<Records>,
    id: Result<Path<RecordId>, PathRejection>,
    query: Result<Query<ErasureQuery>, QueryRejection>,
) -> Result<Json<ErasureAnswer>, Problem> {
    let Path(id) = id.map_err(|error| Problem::new(ProblemKind::InvalidPath, error.body_text()))?;
    let Query(query) = query.map_err(|error| Problem::new(ProblemKind::InvalidQuery, error.body_text()))?;
    let page_size = page_size(query.page_size, PAGE_SIZE_MAX)?;
    let erasures = records.erasure(id).await.map_err(|error| store_failed(&error))?;
    if erasures.is_empty() {
        return Err(Problem::new(ProblemKind::NotFound, format!("there is no erasure {id} here")));
    }
    let nodes = records.obligations(id, query.after, page_size).await.map_err(|error| store_failed(&error))?;
    let next = (nodes.len() as i64 == page_size).then(|| nodes.last().map(|last| last.node)).flatten();
    Ok(Json(ErasureAnswer { erasures, nodes, next }))
}
