//! What operators and their apps see: the `/v1` API, the fleet, health and metrics.
//!
//! Everything but health wants the operator's bearer token. The server is plain HTTP: it stands behind a TLS proxy, or
//! stays local.
//!
//! Not here: the API itself (`alexandria_api`), enrolment (`fleet::listener`).

mod damage;
mod erasures;
mod fleet;
mod health;
mod quarantine;

use std::convert::Infallible;

use alexandria_api::problem::{self, Problem, ProblemKind};
use alexandria_api::{Limits, WriteGuard, WriteRefused, openapi_route};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use sqlx::PgPool;

use crate::catalogue::Library;
use crate::content::Content;
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::postgres::Records;

/// Entries of a page of a list, unless asked for otherwise.
const PAGE_SIZE: i64 = 100;

/// What the server serves.
#[derive(Clone)]
pub struct Served {
    /// The library.
    pub library: Library,
    /// The fleet.
    pub fleet: Fleet,
    /// The records, for what is set aside.
    pub records: Records,
    /// The blob store, to know whether it answers.
    pub content: Content,
    /// The database, to know whether it answers.
    pub pool: PgPool,
    /// The metrics.
    pub metrics: Metrics,
}

/// All routes.
pub fn router(served: &Served, operator_token: &str) -> Router {
    let (api, document) = alexandria_api::routes(served.library.clone(), TokenWasChecked, Limits::default());
    let guarded = api
        .merge(openapi_route(&document))
        .merge(fleet::routes(served.fleet.clone()))
        .nest("/v1", fleet::routes(served.fleet.clone()))
        .nest("/v1/fleet", quarantine::routes(served.records.clone()))
        .nest("/v1/fleet", erasures::routes(served.records.clone()))
        .nest("/v1/fleet", damage::routes(served.content.clone()))
        .merge(health::metrics_route(served.metrics.clone()))
        .fallback(problem::not_found)
        .layer(middleware::from_fn_with_state(OperatorToken::new(operator_token), check_token));
    health::routes(served.pool.clone(), served.content.clone()).fallback_service(guarded)
}

/// How many a page of a list has: what is asked for, at most `max`.
fn page_size(asked: Option<i64>, max: i64) -> Result<i64, Problem> {
    let page_size = asked.unwrap_or(PAGE_SIZE);
    if (1..=max).contains(&page_size) {
        return Ok(page_size);
    }
    Err(Problem::new(ProblemKind::InvalidQuery, format!("must be between 1 and {max}")).at("page_size"))
}

/// A token's hash: comparing hashes takes the same time wherever two tokens differ.
#[derive(Clone)]
struct OperatorToken(blake3::Hash);

impl OperatorToken {
    fn new(token: &str) -> Self {
        Self(blake3::hash(token.as_bytes()))
    }
}

async fn check_token(State(token): State<OperatorToken>, request: Request, next: Next) -> Result<Response, Infallible> {
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown =
        shown.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Ok(match shown {
        Some((_, shown)) if blake3::hash(shown.trim().as_bytes()) == token.0 => next.run(request).await,
        _ => Problem::new(ProblemKind::Unauthenticated, "show the operator's token").into_response(),
    })
}

/// Every request that reaches the API has shown the operator's token.
#[derive(Clone)]
struct TokenWasChecked;

impl WriteGuard for TokenWasChecked {
    async fn permit(&self, _parts: &Parts) -> Result<(), WriteRefused> {
        Ok(())
    }
}
