//! The command line's side door to bundles: the job, with this node's place in its fleet.

use alexandria_api::{Problem, ProblemKind};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use tokio::sync::mpsc;

use super::local::{LocalState, failed, stream};
use crate::jobs::Bundles;
use crate::jobs::bundle::Member;
use crate::jobs::import::LINES_WAITING_MAX;
use crate::local::bundles::{BundleExportRequest, BundleRequest, BundleSurvey};
use crate::replication::membership::{Membership, MembershipError};

/// `POST /bundle/export`: writes one.
pub(super) async fn export(
    State(state): State<LocalState>,
    Json(request): Json<BundleExportRequest>,
) -> Result<Response, Problem> {
    let bundles = bundles(&state).map_err(|error| failed(&error))?;
    let (lines, watched) = mpsc::channel(LINES_WAITING_MAX);
    tokio::spawn(bundles.export(request, lines));
    Ok(stream(watched))
}

/// `POST /bundle/survey`: looks at a bundle or a receipt.
pub(super) async fn survey(
    State(state): State<LocalState>,
    Json(request): Json<BundleRequest>,
) -> Result<Json<BundleSurvey>, Problem> {
    let bundles = bundles(&state).map_err(|error| failed(&error))?;
    let surveyed = bundles.survey(request).await;
    surveyed.map(Json).map_err(|reason| Problem::new(ProblemKind::Internal, reason))
}

/// `POST /bundle/import`: takes in a bundle or a receipt.
pub(super) async fn import(
    State(state): State<LocalState>,
    Json(request): Json<BundleRequest>,
) -> Result<Response, Problem> {
    let bundles = bundles(&state).map_err(|error| failed(&error))?;
    let (lines, watched) = mpsc::channel(LINES_WAITING_MAX);
    tokio::spawn(bundles.import(request, lines));
    Ok(stream(watched))
}

/// As the node's membership now is: it may have joined a fleet a moment ago.
fn bundles(state: &LocalState) -> Result<Bundles, MembershipError> {
    let data_dir = state.library.data_dir();
    let member = match Membership::load(data_dir)? {
        Some(membership) => Some(Member { identity: membership.identity(data_dir)?, bridge: membership.bridge }),
        None => None,
    };
    Ok(Bundles::new(state.library.clone(), member))
}
