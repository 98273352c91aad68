//! The node's web server: the `/v1` API, the plain pages, and what operators look at.
//!
//! - [`guard`]: who may write.
//! - [`health`]: `/healthz`, `/readyz`, `/metrics`.
//! - [`pages`]: the library for people, without JavaScript.
//!
//! Handlers extract, call the library or a job, and answer. Policy lives in `library`.

pub mod guard;
pub mod health;
pub mod pages;

use std::net::SocketAddr;
use std::sync::Arc;

use alexandria_api::Limits;
use alexandria_api::serve::ServerLimits;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use self::guard::NodeWriteGuard;
use self::health::Metrics;
use crate::library::Library;

/// The web server.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Bytes of one upload, at most.
    pub upload_bytes_max: u64,
    /// Requests worked on at once; more are asked to come again.
    pub requests_max: usize,
    /// Requests that wait for changes, at most.
    pub waiters_max: usize,
    /// The limits of connections.
    pub connections: ServerLimits,
}

impl Default for HttpConfig {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            upload_bytes_max: limits.upload_bytes_max,
            requests_max: 512,
            waiters_max: limits.waiters_max,
            connections: ServerLimits::default(),
        }
    }
}

/// Everything that the network sees.
pub fn router(library: &Library, guard: NodeWriteGuard, metrics: &Metrics, config: &HttpConfig) -> Router {
    let limits =
        Limits { upload_bytes_max: config.upload_bytes_max, waiters_max: config.waiters_max, ..Limits::default() };
    let (api, document) = alexandria_api::routes(library.clone(), guard, limits);
    let slots = Arc::new(Semaphore::new(config.requests_max));
    api.merge(alexandria_api::openapi_route(&document))
        .merge(health::router(library.clone(), metrics.clone()))
        .merge(pages::router(library.clone()))
        .fallback(pages::not_found)
        .layer(middleware::from_fn_with_state(slots, shed))
        .layer(middleware::from_fn_with_state(metrics.clone(), health::measure))
}

/// Where a request comes from, for handlers and the guard.
pub type PeerAddress = axum::extract::ConnectInfo<SocketAddr>;

/// Asks to come again rather than letting a queue grow.
async fn shed(
    axum::extract::State(slots): axum::extract::State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Response {
    match slots.try_acquire_owned() {
        Ok(_slot) => next.run(request).await,
        Err(_) => alexandria_api::Problem::new(alexandria_api::ProblemKind::Busy, "too many requests at once")
            .retry_after(alexandria_api::limits::RETRY_AFTER_S)
            .into_response(),
    }
}
