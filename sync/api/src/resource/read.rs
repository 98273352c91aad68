//! `GET` of one record.

use alexandria_sync::id::RecordId;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::{Resource, answer, find};
use crate::Api;
use crate::catalogue::Catalogue;
use crate::extract::{Path, Query};
use crate::precondition::{ETag, Preconditions, Verdict};
use crate::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadParameters {
    #[serde(default)]
    show_disabled: bool,
}

/// `GET /v1/{kind}/{id}`: a record, unless it is hidden or the client already has this version.
pub(crate) async fn get<R: Resource, C: Catalogue>(
    State(api): State<Api<C>>,
    Path(id): Path<RecordId>,
    Query(parameters): Query<ReadParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let preconditions = Preconditions::of(&headers)?;
    let stored = find::<R, C>(&api.catalogue, id).await?;
    let hidden = R::from_record(&stored.record).is_none_or(|fields| fields.is_disabled());
    if hidden && !parameters.show_disabled {
        return Err(Problem::not_found(R::NAME, id));
    }
    let etag = ETag::from(stored.version());
    match preconditions.check(&Method::GET, &etag)? {
        Verdict::NotModified => Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag.to_header())]).into_response()),
        Verdict::Proceed => answer::<R>(StatusCode::OK, &stored),
    }
}
