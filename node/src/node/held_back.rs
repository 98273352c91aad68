//! What is held back after a long absence, for the operator: listed, sent, dropped. Each thing done is a line of the log.

use alexandria_api::{Problem, ProblemKind};
use alexandria_sync::domain::{Author, Category, Collection, Media, Typed, User, kind_name};
use alexandria_sync::record::Record;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use tokio::sync::mpsc;

use super::local::{LocalState, failed, stream};
use crate::jobs::import::LINES_WAITING_MAX;
use crate::local::held_back::{AbsenceStatus, HeldBackLine, HeldBackRecord, ReleaseAnswer, ReleaseRequest};
use crate::store::absence::held_back::Release;
use crate::store::{Records, StoreError};

/// The routes of the local socket for it.
pub(super) fn router() -> Router<LocalState> {
    Router::new()
        .route("/heldback", post(list))
        .route("/heldback/send", post(send))
        .route("/heldback/drop", post(discard))
}

/// How the node stands.
pub(super) fn status(records: &Records) -> Result<AbsenceStatus, StoreError> {
    Ok(AbsenceStatus {
        in_step_unix_ms: records.in_step_ms()?,
        reading_anew: records.reading_anew()?.is_some(),
        held_back: records.held_back_count()?,
    })
}

async fn list(State(state): State<LocalState>) -> Response {
    let (lines, watched) = mpsc::channel(LINES_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        let last = match send_all(&state.library.store().records, &lines) {
            Ok(records) => HeldBackLine::Done { records },
            Err(error) => HeldBackLine::Failed { reason: error.to_string() },
        };
        // Nobody may be reading any more.
        let _ = lines.blocking_send(last);
    });
    stream(watched)
}

fn send_all(records: &Records, lines: &mpsc::Sender<HeldBackLine>) -> Result<u64, StoreError> {
    let (mut count, mut after) = (0, None);
    loop {
        let (found, next) = records.held_back(after)?;
        for stored in &found {
            count += 1;
            if lines.blocking_send(HeldBackLine::Record(describe(&stored.record))).is_err() {
                return Ok(count);
            }
        }
        after = next;
        if after.is_none() {
            return Ok(count);
        }
    }
}

fn describe(record: &Record) -> HeldBackRecord {
    let stamp = record.newest_stamp();
    let title = Media::from_record(record)
        .map(|media| media.title)
        .or_else(|| Collection::from_record(record).map(|collection| collection.title))
        .or_else(|| Author::from_record(record).map(|author| author.name))
        .or_else(|| Category::from_record(record).map(|category| category.name))
        .or_else(|| User::from_record(record).map(|user| user.name));
    HeldBackRecord {
        id: record.key.id,
        bucket: record.key.bucket,
        kind: kind_name(record.key.kind),
        title,
        deleted: record.is_tombstone(),
        written_by: stamp.node,
        written_unix_ms: stamp.time.unix_ms(),
    }
}

async fn send(state: State<LocalState>, request: Json<ReleaseRequest>) -> Result<Json<ReleaseAnswer>, Problem> {
    release(state, request, Release::Send).await
}

async fn discard(state: State<LocalState>, request: Json<ReleaseRequest>) -> Result<Json<ReleaseAnswer>, Problem> {
    release(state, request, Release::Drop).await
}

async fn release(
    State(state): State<LocalState>,
    Json(ReleaseRequest { id }): Json<ReleaseRequest>,
    how: Release,
) -> Result<Json<ReleaseAnswer>, Problem> {
    let records = &state.library.store().records;
    let released = records.release_held_back(id, how).await.map_err(|error| failed(&error))?;
    if let (0, Some(id)) = (released, id) {
        return Err(Problem::new(ProblemKind::NotFound, format!("no record {id} is held back here")));
    }
    tracing::warn!(records = released, ?how, "decided about records that were held back");
    Ok(Json(ReleaseAnswer { records: released }))
}
