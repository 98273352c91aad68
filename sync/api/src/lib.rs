//! The `/v1` JSON API, written once for the node and the bridge.
//!
//! - [`catalogue`]: the port that each host implements: records and content.
//! - [`guard`]: the hook that decides who may write.
//! - [`limits`]: every limit, by name.
//! - [`problem`]: every error (RFC 9457).
//! - `routes`: every route and its description; `openapi`: the document made of them.
//! - `extract`, `precondition`, `merge_patch`: what arrives, parsed once.
//! - [`serve`]: the HTTP server itself, with a limit on everything.
//! - `resource`, `links`, `opens`, `blob`, `changes`: the handlers.
//!
//! A host composes it so:
//!
//! ```
//! # use alexandria_api::{Catalogue, Limits, WriteGuard, problem};
//! # fn compose(
//! #     catalogue: impl Catalogue, guard: impl WriteGuard, host_routes: axum::Router, host_document: utoipa::openapi::OpenApi,
//! # ) -> axum::Router {
//! let (api, mut document) = alexandria_api::routes(catalogue, guard, Limits::default());
//! document.merge(host_document);
//! api.merge(alexandria_api::openapi_route(&document)).merge(host_routes).fallback(problem::not_found)
//! # }
//! ```
//!
//! Not here: rate limits, health and metrics, which are the host's.

mod blob;
pub mod catalogue;
mod changes;
mod extract;
pub mod guard;
pub mod limits;
mod links;
mod merge_patch;
mod openapi;
mod opens;
mod precondition;
pub mod problem;
mod resource;
mod routes;
pub mod serve;

use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use tokio::sync::Semaphore;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use catalogue::{Catalogue, CatalogueError};
pub use guard::{WriteGuard, WriteRefused};
pub use limits::Limits;
pub use openapi::openapi_route;
pub use problem::{Problem, ProblemKind};

/// Everything under `/v1`, and its description for the host to add its own to.
///
/// Any other path under `/v1` is answered with a problem. The host sets `problem::not_found` as the fallback for the rest.
pub fn routes<C: Catalogue, G: WriteGuard>(catalogue: C, guard: G, limits: Limits) -> (Router, OpenApi) {
    let api = Api { catalogue, limits, waiters: Arc::new(Semaphore::new(limits.waiters_max)) };
    let (router, document) = OpenApiRouter::with_openapi(openapi::document())
        .merge(routes::reads())
        .merge(routes::writes(guard))
        .split_for_parts();
    let router = router
        .route("/v1/{*rest}", any(problem::not_found))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .with_state(api);
    (router, document)
}

/// The whole API as one service: [`routes`], its description at `/openapi.json`, and problems for everything else.
pub fn router<C: Catalogue, G: WriteGuard>(catalogue: C, guard: G, limits: Limits) -> Router {
    let (router, document) = routes(catalogue, guard, limits);
    router.merge(openapi_route(&document)).fallback(problem::not_found)
}

/// What every handler has at hand.
#[derive(Clone)]
struct Api<C> {
    catalogue: C,
    limits: Limits,
    /// One permit for each request that waits for changes.
    waiters: Arc<Semaphore>,
}
