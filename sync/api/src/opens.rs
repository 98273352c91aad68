//! `POST /v1/media/{id}/opens`: readers count what they open. It is what popularity is made of, and needs no permission.

use alexandria_sync::domain::{Media, Typed};
use alexandria_sync::id::RecordId;
use axum::extract::State;
use axum::http::StatusCode;

use crate::Api;
use crate::catalogue::Catalogue;
use crate::extract::Path;
use crate::problem::Problem;
use crate::resource::{Resource, find};

/// Counts one opening of a medium that readers can see.
pub(crate) async fn note<C: Catalogue>(
    State(api): State<Api<C>>,
    Path(id): Path<RecordId>,
) -> Result<StatusCode, Problem> {
    let stored = find::<Media, C>(&api.catalogue, id).await?;
    if Media::from_record(&stored.record).is_none_or(|media| media.is_disabled()) {
        return Err(Problem::not_found(Media::NAME, id));
    }
    api.catalogue.note_open(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
