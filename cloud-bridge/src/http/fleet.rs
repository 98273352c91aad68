//! The fleet over HTTP: `/fleet/nodes` and `/fleet/tokens`.

use alexandria_api::problem::{Problem, ProblemKind};
use alexandria_sync::id::NodeId;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::page_size;
use crate::fleet::Fleet;
use crate::fleet::nodes::{Node, PAGE_SIZE_MAX};
use crate::fleet::token::CreateTokenError;

/// Bytes of a body, at most.
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024;
/// Hours for which a token may be good, at most: a year.
const TOKEN_HOURS_MAX: u32 = 366 * 24;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodesQuery {
    after: Option<NodeId>,
    page_size: Option<i64>,
}

#[derive(Serialize)]
struct NodesAnswer {
    nodes: Vec<Node>,
    /// Ask again with `after` set to it; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<NodeId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    site: String,
    hours: Option<u32>,
    replaces: Option<NodeId>,
}

#[derive(Serialize)]
struct TokenAnswer {
    /// Shown once.
    token: String,
}

pub(super) fn routes(fleet: Fleet) -> Router {
    Router::new()
        .route("/fleet/nodes", get(nodes))
        .route("/fleet/nodes/{id}/revoke", post(revoke))
        .route("/fleet/tokens", post(create_token))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(fleet)
}

async fn nodes(
    State(fleet): State<Fleet>,
    query: Result<Query<NodesQuery>, QueryRejection>,
) -> Result<Json<NodesAnswer>, Problem> {
    let Query(query) = query.map_err(|error| Problem::new(ProblemKind::InvalidQuery, error.body_text()))?;
    let page_size = page_size(query.page_size, PAGE_SIZE_MAX)?;
    let nodes = fleet.nodes(query.after, page_size).await.map_err(|error| store_failed(&error))?;
    let next = (nodes.len() as i64 == page_size).then(|| nodes.last().map(|node| node.id)).flatten();
    Ok(Json(NodesAnswer { nodes, next }))
}

async fn revoke(State(fleet): State<Fleet>, id: Result<Path<NodeId>, PathRejection>) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(|error| Problem::new(ProblemKind::InvalidPath, error.body_text()))?;
    if fleet.revoke(id).await.map_err(|error| store_failed(&error))? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::new(ProblemKind::NotFound, format!("there is no node {id} here")))
    }
}

async fn create_token(
    State(fleet): State<Fleet>,
    new: Result<Json<NewToken>, JsonRejection>,
) -> Result<(StatusCode, Json<TokenAnswer>), Problem> {
    let Json(new) = new.map_err(|error| Problem::new(ProblemKind::InvalidBody, error.body_text()))?;
    if new.hours.is_some_and(|hours| !(1..=TOKEN_HOURS_MAX).contains(&hours)) {
        let detail = format!("must be between 1 and {TOKEN_HOURS_MAX}");
        return Err(Problem::new(ProblemKind::InvalidField, detail).at("hours"));
    }
    let made = match new.replaces {
        Some(node) => fleet.create_replacement_token(&new.site, new.hours, node).await,
        None => fleet.create_token(&new.site, new.hours).await,
    };
    match made {
        Ok(token) => Ok((StatusCode::CREATED, Json(TokenAnswer { token }))),
        Err(error @ CreateTokenError::BadSite) => {
            Err(Problem::new(ProblemKind::InvalidField, error.to_string()).at("site"))
        }
        Err(error @ CreateTokenError::NoSuchNode(_)) => {
            Err(Problem::new(ProblemKind::InvalidField, error.to_string()).at("replaces"))
        }
        Err(CreateTokenError::Database(error)) => Err(store_failed(&error)),
    }
}

pub(super) fn store_failed(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::error!(error, "the stores cannot be read or written");
    Problem::new(ProblemKind::Internal, "the cause is in the server's log")
}
