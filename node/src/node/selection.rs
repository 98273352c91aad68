//! Collections and pins, for the command line.

use alexandria_api::{Problem, ProblemKind};
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::local::{LocalState, failed};
use crate::library::selection::SelectError;
use crate::local::selection::{ChooseRequest, CollectionState, PinAnswer, PinRequest};

/// The routes of the local socket for them.
pub(super) fn router() -> Router<LocalState> {
    Router::new().route("/collections", get(list).post(choose)).route("/pins", post(pin))
}

async fn list(State(state): State<LocalState>) -> Result<Json<Vec<CollectionState>>, Problem> {
    let listed = tokio::task::spawn_blocking(move || state.library.collections()).await;
    listed.map_err(|error| failed(&error))?.map(Json).map_err(|error| failed(&error))
}

async fn choose(
    State(state): State<LocalState>,
    Json(request): Json<ChooseRequest>,
) -> Result<Json<CollectionState>, Problem> {
    let chosen = state.library.choose_collection(&request.collection, request.level).await;
    chosen.map(Json).map_err(|error| refused(&error))
}

async fn pin(State(state): State<LocalState>, Json(request): Json<PinRequest>) -> Result<Json<PinAnswer>, Problem> {
    let pinned = state.library.set_pinned(&request.named, request.pinned).await;
    let (title, changed) = pinned.map_err(|error| refused(&error))?;
    Ok(Json(PinAnswer { title, changed }))
}

fn refused(error: &SelectError) -> Problem {
    match error {
        SelectError::Unknown { .. } | SelectError::Ambiguous { .. } => {
            Problem::new(ProblemKind::NotFound, error.to_string())
        }
        SelectError::Choose(_) | SelectError::Store(_) => failed(error),
    }
}
