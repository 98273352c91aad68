//! The command line's side door, on the local socket only: what `local` says, answered by the jobs.

use std::convert::Infallible;
use std::sync::Arc;

use alexandria_api::{Problem, ProblemKind};
use alexandria_sync::domain::kind_named;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use serde::Serialize;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::{backup, bundle, held_back, quarantine, selection, status};
use crate::jobs::import::LINES_WAITING_MAX;
use crate::jobs::{Importer, verify};
use crate::lan::Lan;
use crate::library::Library;
use crate::local::messages::OrderedErasure;
use crate::local::{
    BackupRequest, EnrollRequest, Enrolled, EraseAnswer, EraseRequest, ImportRequest, RestoreLine, RestoreRequest,
    Status, SyncLine, TokenAnswer, VerifyRequest,
};
use crate::replication::{Replicator, SyncEnd, enroll};
use crate::store::EraseError;

/// What the command line may ask of a node.
#[derive(Clone)]
pub(super) struct LocalState {
    /// The library.
    pub(super) library: Library,
    /// Takes files in.
    pub(super) importer: Importer,
    /// The way to the bridge.
    pub(super) replicator: Replicator,
    /// The other nodes on the local network, if this is more than a command.
    pub(super) lan: Option<Lan>,
    /// The token for writing.
    pub(super) token: Arc<str>,
    /// The name of this machine, for the fleet.
    pub(super) machine: Arc<str>,
    /// Where the library is served, if it is.
    pub(super) address: Option<Arc<str>>,
    /// Memory for pages of a record store, in bytes.
    pub(super) cache_bytes: u64,
    /// Makes the node stop and start anew.
    pub(super) restart: Arc<Notify>,
}

/// The routes of the local socket.
pub(super) fn router(state: LocalState) -> Router {
    Router::new()
        .route("/status", get(show_status))
        .route("/token", get(token))
        .route("/import", post(import))
        .route("/verify", post(verify_all))
        .route("/backup", post(back_up))
        .route("/restore", post(restore))
        .route("/bundle/export", post(bundle::export))
        .route("/bundle/survey", post(bundle::survey))
        .route("/bundle/import", post(bundle::import))
        .route("/enroll", post(join_fleet))
        .route("/sync", post(sync))
        .route("/erase", post(erase))
        .route("/quarantine", post(quarantine::list))
        .route("/quarantine/replay", post(quarantine::replay))
        .route("/quarantine/drop", post(quarantine::discard))
        .merge(held_back::router())
        .merge(selection::router())
        .fallback(alexandria_api::problem::not_found)
        .with_state(state)
}

async fn show_status(State(state): State<LocalState>) -> Result<Json<Status>, Problem> {
    let gathered = tokio::task::spawn_blocking(move || status::gather(&state)).await;
    match gathered {
        Ok(Ok(status)) => Ok(Json(status)),
        Ok(Err(error)) => Err(failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

async fn token(State(state): State<LocalState>) -> Json<TokenAnswer> {
    Json(TokenAnswer { token: state.token.to_string() })
}

async fn import(State(state): State<LocalState>, Json(request): Json<ImportRequest>) -> Response {
    let (lines, watched) = mpsc::channel(LINES_WAITING_MAX);
    let importer = state.importer.clone();
    tokio::spawn(async move { importer.run(request.paths, request.collection, lines).await });
    stream(watched)
}

async fn verify_all(State(state): State<LocalState>, Json(request): Json<VerifyRequest>) -> Response {
    let (lines, watched) = mpsc::channel(LINES_WAITING_MAX);
    tokio::spawn(verify::run(state.library.clone(), request.repair, lines));
    stream(watched)
}

async fn back_up(State(state): State<LocalState>, Json(request): Json<BackupRequest>) -> Response {
    let (lines, watched) = mpsc::channel(LINES_WAITING_MAX);
    tokio::spawn(backup::run(state.library.clone(), request.file, lines));
    stream(watched)
}

async fn restore(State(state): State<LocalState>, Json(request): Json<RestoreRequest>) -> Response {
    let (lines, watched) = mpsc::channel(LINES_WAITING_MAX);
    tokio::spawn(async move {
        let data_dir = state.library.data_dir().to_owned();
        match backup::stage(request.file, data_dir, state.cache_bytes).await {
            Ok(done) => {
                let _ = lines.send(done).await;
                state.restart.notify_one();
            }
            Err(error) => {
                let _ = lines.send(RestoreLine::Failed { reason: format!("{error:#}") }).await;
            }
        }
    });
    stream(watched)
}

async fn join_fleet(
    State(state): State<LocalState>,
    Json(request): Json<EnrollRequest>,
) -> Result<Json<Enrolled>, Problem> {
    let EnrollRequest { bridge, token } = request;
    let node = state.library.store().records.identity().node;
    let joined = enroll::enroll(state.library.data_dir(), node, &state.machine, &bridge, &token).await;
    let membership = joined.map_err(|error| failed(&error))?;
    state.replicator.joined();
    Ok(Json(Enrolled { node, bridge: membership.bridge }))
}

async fn erase(
    State(state): State<LocalState>,
    Json(request): Json<EraseRequest>,
) -> Result<Json<EraseAnswer>, Problem> {
    let EraseRequest { kind, id } = request;
    let known = kind_named(&kind).ok_or_else(|| {
        Problem::new(ProblemKind::InvalidField, format!("there are no records of a kind called {kind}")).at("kind")
    })?;
    let ordered = state.library.erase(known, id).await.map_err(|error| match error {
        EraseError::NotFound(_) => Problem::new(ProblemKind::NotFound, error.to_string()),
        EraseError::NotErasable => Problem::new(ProblemKind::InvalidField, error.to_string()).at("kind"),
        EraseError::Store(error) => failed(&error),
    })?;
    for erasure in &ordered {
        tracing::warn!(kind, record.id = %id, bucket = %erasure.bucket, erasure.id = %erasure.id, "erased a record");
    }
    let erasures = ordered.into_iter().map(|key| OrderedErasure { bucket: key.bucket, id: key.id }).collect();
    Ok(Json(EraseAnswer { erasures }))
}

async fn sync(State(state): State<LocalState>) -> Response {
    let (lines, watched) = mpsc::channel(LINES_WAITING_MAX);
    tokio::spawn(async move {
        let (progress, mut told) = mpsc::channel(LINES_WAITING_MAX);
        let replicator = state.replicator.clone();
        let syncing = tokio::spawn(async move { replicator.sync_once(progress).await });
        while let Some(progress) = told.recv().await {
            if lines.send(SyncLine::Progress(progress.into())).await.is_err() {
                return;
            }
        }
        let last = match syncing.await {
            Ok(SyncEnd::Quiet) => SyncLine::Quiet,
            Ok(SyncEnd::Failed(reason)) => SyncLine::Failed { reason },
            Err(error) => SyncLine::Failed { reason: error.to_string() },
        };
        let _ = lines.send(last).await;
    });
    stream(watched)
}

/// An answer of JSON lines.
pub(super) fn stream<T: Serialize + Send + 'static>(lines: mpsc::Receiver<T>) -> Response {
    let lines = ReceiverStream::new(lines).map(|line| {
        let mut text = serde_json::to_vec(&line).unwrap_or_default();
        text.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(text))
    });
    ([("content-type", "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// The whole chain of causes: whoever asks on this socket owns the node.
pub(super) fn failed(error: &(dyn std::error::Error + 'static)) -> Problem {
    let mut detail = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        detail.push_str(": ");
        detail.push_str(&error.to_string());
        cause = error.source();
    }
    Problem::new(ProblemKind::Internal, detail)
}
