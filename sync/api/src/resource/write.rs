//! Creating, replacing, patching, hiding, restoring and deleting one record.
//!
//! A hidden record can be restored, or deleted for good; to everything else here it is not there.
//!
//! Every change is worked out on the version that is there, and written only over that version. Whoever sends no
//! `If-Match` lets the server try again when somebody else was faster, at most [`EDIT_ATTEMPTS_MAX`] times.

use alexandria_sync::domain::{InvalidField, Typed};
use alexandria_sync::id::{BucketId, RecordId};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;

use super::{NamedBlob, Resource, SERVER_FIELDS, answer, find};
use crate::Api;
use crate::catalogue::{BlobInfo, Catalogue, CatalogueError, Content, Edit, NewRecord, Stored};
use crate::extract::{Body, JsonBody, PatchBody, Path, Query, typed};
use crate::limits::{EDIT_ATTEMPTS_MAX, RETRY_AFTER_S};
use crate::merge_patch::merge_patch;
use crate::precondition::{ETag, Preconditions};
use crate::problem::{Problem, ProblemKind};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteParameters {
    #[serde(default)]
    hard: bool,
}

/// `POST /v1/{kind}`: a new record, under an id that the server mints.
pub(crate) async fn create<R: Resource, C: Catalogue>(
    State(api): State<Api<C>>,
    JsonBody(mut body): JsonBody,
) -> Result<Response, Problem> {
    let bucket = bucket_for_new::<R, C>(&api.catalogue, &mut body).await?;
    let record: R = fields(body)?;
    let blobs = present_blobs(&api.catalogue, record.blobs()).await?;
    // At least one: no kind's default has the name that `validate` demands.
    let fields = record.changes_since(&R::default());
    let stored = api.catalogue.create(NewRecord { bucket, kind: R::KIND, fields, blobs }).await?;
    let location = HeaderValue::try_from(format!("/v1/{}/{}", R::PATH, stored.record.key.id))
        .expect("a path and an id are visible ASCII");
    let mut response = answer::<R>(StatusCode::CREATED, &stored)?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// `PUT /v1/{kind}/{id}`: replaces all fields that a client may set; what is left out gets its default.
pub(crate) async fn replace<R: Resource, C: Catalogue>(
    State(api): State<Api<C>>,
    Path(id): Path<RecordId>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let after: R = fields(body)?;
    let preconditions = Preconditions::of(&headers)?;
    let stored =
        edit::<R, C>(&api.catalogue, id, Reach::Visible, &Method::PUT, &preconditions, |_| Ok(after.clone())).await?;
    answer::<R>(StatusCode::OK, &stored)
}

/// `PATCH /v1/{kind}/{id}`: a merge patch (RFC 7396).
pub(crate) async fn patch<R: Resource, C: Catalogue>(
    State(api): State<Api<C>>,
    Path(id): Path<RecordId>,
    headers: HeaderMap,
    PatchBody(body): PatchBody,
) -> Result<Response, Problem> {
    let patch = body.into_json();
    if !patch.is_object() {
        return Err(Problem::new(ProblemKind::InvalidBody, "the patch must be a JSON object"));
    }
    refuse_server_fields(&patch)?;
    refuse_unknown_fields::<R>(&patch)?;
    let preconditions = Preconditions::of(&headers)?;
    let change = |before: &R| {
        let before = serde_json::to_value(before).expect("the fields of a record have a form in JSON");
        checked(typed(merge_patch(before, patch.clone()))?)
    };
    let stored = edit::<R, C>(&api.catalogue, id, Reach::Visible, &Method::PATCH, &preconditions, change).await?;
    answer::<R>(StatusCode::OK, &stored)
}

/// `POST /v1/{kind}/{id}/restore`: takes back a soft delete.
pub(crate) async fn restore<R: Resource, C: Catalogue>(
    State(api): State<Api<C>>,
    Path(id): Path<RecordId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let preconditions = Preconditions::of(&headers)?;
    let stored =
        edit::<R, C>(&api.catalogue, id, Reach::Hidden, &Method::POST, &preconditions, with_disabled(false)).await?;
    answer::<R>(StatusCode::OK, &stored)
}

/// `DELETE /v1/{kind}/{id}`: hides a record, or with `hard=true` deletes it for good.
pub(crate) async fn delete<R: Resource, C: Catalogue>(
    State(api): State<Api<C>>,
    Path(id): Path<RecordId>,
    Query(parameters): Query<DeleteParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let preconditions = Preconditions::of(&headers)?;
    if parameters.hard {
        delete_for_good::<R, C>(&api.catalogue, id, &preconditions).await?;
    } else {
        edit::<R, C>(&api.catalogue, id, Reach::Hidden, &Method::DELETE, &preconditions, with_disabled(true)).await?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn with_disabled<R: Resource>(disabled: bool) -> impl Fn(&R) -> Result<R, Problem> {
    move |before| {
        let mut after = before.clone();
        after.set_disabled(disabled);
        Ok(after)
    }
}

/// Which records an edit finds.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Reach {
    /// What readers can see.
    Visible,
    /// And what is hidden from them.
    Hidden,
}

async fn edit<R: Resource, C: Catalogue>(
    catalogue: &C,
    id: RecordId,
    reach: Reach,
    method: &Method,
    preconditions: &Preconditions,
    change: impl Fn(&R) -> Result<R, Problem>,
) -> Result<Stored, Problem> {
    for _ in 0..EDIT_ATTEMPTS_MAX {
        let stored = find::<R, C>(catalogue, id).await?;
        let before = R::from_record(&stored.record)
            .filter(|before| reach == Reach::Hidden || !before.is_disabled())
            .ok_or_else(|| Problem::not_found(R::NAME, id))?;
        // Before the preconditions: they count only for a request that would succeed (RFC 9110, section 13.2.1).
        let after = change(&before)?;
        let version = stored.version();
        preconditions.check(method, &ETag::from(version))?;
        let named = newly_named(&before, &after);
        let edit = Edit { fields: after.changes_since(&before), blobs: present_blobs(catalogue, named).await? };
        match catalogue.edit(stored.record.key, version, edit).await {
            Err(CatalogueError::Stale) => {}
            outcome => return Ok(outcome?),
        }
    }
    Err(contended())
}

async fn delete_for_good<R: Resource, C: Catalogue>(
    catalogue: &C,
    id: RecordId,
    preconditions: &Preconditions,
) -> Result<(), Problem> {
    for _ in 0..EDIT_ATTEMPTS_MAX {
        let stored = find::<R, C>(catalogue, id).await?;
        let version = stored.version();
        preconditions.check(&Method::DELETE, &ETag::from(version))?;
        match catalogue.delete(stored.record.key, version).await {
            Err(CatalogueError::Stale) => {}
            outcome => return Ok(outcome?),
        }
    }
    Err(contended())
}

fn contended() -> Problem {
    Problem::new(ProblemKind::Busy, "others keep changing this record").retry_after(RETRY_AFTER_S)
}

/// The bucket that a new record goes to. Media name their collection, or go to the default one.
async fn bucket_for_new<R: Resource, C: Catalogue>(catalogue: &C, body: &mut Body) -> Result<BucketId, Problem> {
    if !R::IN_COLLECTION {
        return Ok(BucketId::Catalogue);
    }
    let collection = match body.take("collection")? {
        Some(collection) => collection,
        None => catalogue.default_collection().await?,
    };
    Ok(BucketId::Collection(collection))
}

/// The fields that a body sets, checked.
fn fields<R: Resource>(body: Body) -> Result<R, Problem> {
    let json = body.into_json();
    refuse_server_fields(&json)?;
    checked(typed(json)?)
}

fn checked<R: Typed>(fields: R) -> Result<R, Problem> {
    match fields.validate() {
        Ok(()) => Ok(fields),
        Err(InvalidField { field, problem }) => {
            Err(Problem::new(ProblemKind::InvalidField, format!("`{field}` {problem}")).at(field))
        }
    }
}

fn refuse_server_fields(json: &Value) -> Result<(), Problem> {
    match SERVER_FIELDS.into_iter().find(|field| json.get(field).is_some()) {
        None => Ok(()),
        Some(field) => {
            let detail = format!("`{field}` is set by the server and never changes by request; leave it out");
            Err(Problem::new(ProblemKind::InvalidField, detail).at(field))
        }
    }
}

/// Refuses what a patch would remove and no record has: the merge alone would pass over a misspelt name.
fn refuse_unknown_fields<R: Resource>(patch: &Value) -> Result<(), Problem> {
    let known = serde_json::to_value(R::default()).expect("the fields of a record have a form in JSON");
    match patch.as_object().into_iter().flatten().find(|(field, _)| known.get(field).is_none()) {
        None => Ok(()),
        Some((field, _)) => {
            let detail = format!("unknown field `{field}`");
            Err(Problem::new(ProblemKind::InvalidField, detail).at(field))
        }
    }
}

/// What `after` names and `before` does not: an old name may stand for content that has not replicated to here yet.
fn newly_named<R: Resource>(before: &R, after: &R) -> Vec<NamedBlob> {
    let known: Vec<_> = before.blobs().into_iter().map(|blob| blob.hash).collect();
    after.blobs().into_iter().filter(|blob| !known.contains(&blob.hash)).collect()
}

/// The content that is named, or the problem that it is not here, or not as long as stated.
async fn present_blobs<C: Catalogue>(catalogue: &C, named: Vec<NamedBlob>) -> Result<Vec<BlobInfo>, Problem> {
    let mut present: Vec<BlobInfo> = Vec::with_capacity(named.len());
    for blob in named {
        let Some(content) = catalogue.open_blob(blob.hash).await? else {
            let detail = format!("content {} is not here; upload it first", blob.hash);
            return Err(Problem::new(ProblemKind::ContentNotHere, detail).at(blob.field));
        };
        let info = content.info().clone();
        if blob.size_bytes.is_some_and(|stated| stated != info.size_bytes) {
            let detail = format!("content {} has {} bytes, not as many as stated", blob.hash, info.size_bytes);
            return Err(Problem::new(ProblemKind::ContentMismatch, detail).at(blob.field));
        }
        if !present.contains(&info) {
            present.push(info);
        }
    }
    Ok(present)
}
