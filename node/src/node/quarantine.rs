//! What is set aside, for the operator: listed, let in, thrown away. Each thing done is a line of the log.

use alexandria_api::{Problem, ProblemKind};
use alexandria_sync::domain::kind_name;
use alexandria_sync::quarantine::{QuarantineId, Release, Released};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use tokio::sync::mpsc;

use super::local::{LocalState, failed, stream};
use crate::jobs::import::LINES_WAITING_MAX;
use crate::library::Library;
use crate::local::{DropRequest, QuarantineLine, ReplayAnswer, ReplayRequest, SetAsideRecord};
use crate::store::{Quarantined, ReleaseError, StoreError};

/// Records that are read at a time.
const PAGE: usize = 100;

/// Shows everything that is set aside, a line each.
pub(super) async fn list(State(state): State<LocalState>) -> Response {
    let (lines, watched) = mpsc::channel(LINES_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        let last = match send_all(&state.library, &lines) {
            Ok(last) => last,
            Err(error) => QuarantineLine::Failed { reason: error.to_string() },
        };
        // Nobody may be reading any more.
        let _ = lines.blocking_send(last);
    });
    stream(watched)
}

fn send_all(library: &Library, lines: &mpsc::Sender<QuarantineLine>) -> Result<QuarantineLine, StoreError> {
    let records = &library.store().records;
    let mut after = None;
    loop {
        let page = records.quarantined(after, PAGE)?;
        for quarantined in &page.entries {
            let line = QuarantineLine::Record(describe(quarantined, records.now_unix_ms()));
            if lines.blocking_send(line).is_err() {
                break;
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(QuarantineLine::Done(records.quarantine_use()?));
        }
    }
}

/// Lets in one record, or all that the clock here now allows.
pub(super) async fn replay(
    State(state): State<LocalState>,
    Json(request): Json<ReplayRequest>,
) -> Result<Json<ReplayAnswer>, Problem> {
    let records = &state.library.store().records;
    let Some(id) = request.id else {
        if request.as_new_edit {
            let detail = "name the record that is to be a new edit: each one replaces what is here now";
            return Err(Problem::new(ProblemKind::InvalidField, detail).at("id"));
        }
        let done = records.replay_quarantine().await.map_err(|error| failed(&error))?;
        tracing::info!(done.applied, done.superseded, done.quarantined, "tried what was set aside again");
        let answer = ReplayAnswer { applied: done.applied, superseded: done.superseded, set_aside: done.quarantined };
        return Ok(Json(answer));
    };
    let how = if request.as_new_edit { Release::AsNewEdit } else { Release::AsItIs };
    let released = records.release_quarantined(id, how).await.map_err(|error| refused(&error))?;
    tracing::info!(quarantine.id = %id, ?how, ?released, "let in a record that was set aside");
    let mut answer = ReplayAnswer::default();
    match released {
        Released::Applied => answer.applied = 1,
        Released::Superseded => answer.superseded = 1,
    }
    Ok(Json(answer))
}

/// Throws one record away.
pub(super) async fn discard(
    State(state): State<LocalState>,
    Json(request): Json<DropRequest>,
) -> Result<Json<SetAsideRecord>, Problem> {
    let records = &state.library.store().records;
    let dropped = records.drop_quarantined(request.id).await.map_err(|error| failed(&error))?;
    let dropped = dropped.ok_or_else(|| refused(&ReleaseError::NotFound(request.id)))?;
    let described = describe(&dropped, records.now_unix_ms());
    tracing::warn!(
        quarantine.id = %request.id, bucket = %described.bucket, kind = %described.kind, record.id = %described.record,
        written_by = %described.written_by, "threw away a record that was set aside"
    );
    Ok(Json(described))
}

fn describe(quarantined: &Quarantined, now_unix_ms: u64) -> SetAsideRecord {
    let Quarantined { record, from, received_unix_ms, reason } = quarantined;
    let stamp = record.newest_stamp();
    SetAsideRecord {
        id: QuarantineId::of(record),
        bucket: record.key.bucket,
        kind: kind_name(record.key.kind),
        record: record.key.id,
        deleted: record.is_tombstone(),
        written_by: stamp.node,
        written_unix_ms: stamp.time.unix_ms(),
        ahead_ms: stamp.time.unix_ms().saturating_sub(now_unix_ms),
        received_from: from.node,
        received_unix_ms: *received_unix_ms,
        set_aside_for_ms: now_unix_ms.saturating_sub(*received_unix_ms),
        reason: reason.to_string(),
    }
}

fn refused(error: &ReleaseError) -> Problem {
    let kind = match error {
        ReleaseError::NotFound(_) => ProblemKind::NotFound,
        ReleaseError::Refused(_) => ProblemKind::StaysSetAside,
        ReleaseError::Change(error) => return failed(error),
    };
    Problem::new(kind, error.to_string())
}
