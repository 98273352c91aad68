//! Health and metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::Mutex;

use crate::content::Content;
use crate::metrics::Metrics;

/// An answer is good for this long: health is asked for without a token.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(2);
/// What does not answer within this is away.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Readiness {
    pool: PgPool,
    content: Content,
    answer: Arc<Mutex<Option<(Instant, StatusCode, Value)>>>,
}

/// `/healthz`: the process runs. `/readyz`: it can serve; without S3 it serves records, and says so.
pub(super) fn routes(pool: PgPool, content: Content) -> Router {
    let readiness = Readiness { pool, content, answer: Arc::default() };
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready)).with_state(readiness)
}

/// `/metrics`, for Prometheus.
pub(super) fn metrics_route(metrics: Metrics) -> Router {
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let handler = move || std::future::ready(([(header::CONTENT_TYPE, media_type)], metrics.to_text()));
    Router::new().route("/metrics", get(handler))
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let mut answer = readiness.answer.lock().await;
    if let Some((at, status, body)) = answer.as_ref()
        && at.elapsed() < ANSWER_AGE_MAX
    {
        return (*status, Json(body.clone()));
    }
    let database = sqlx::query("SELECT 1 FROM bridge").execute(&readiness.pool);
    let database = matches!(tokio::time::timeout(PATIENCE, database).await, Ok(Ok(_)));
    let objects = matches!(tokio::time::timeout(PATIENCE, readiness.content.check()).await, Ok(Ok(())));
    let status = if database { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": database, "postgres": database, "s3": objects });
    *answer = Some((Instant::now(), status, body.clone()));
    (status, Json(body))
}
