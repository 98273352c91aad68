//! `GET /v1/changes`: what changed in a bucket since a cursor; at once, after a wait, or as a stream of events.
//!
//! Each answer names the cursor to ask from next. A cursor of another life of the store is refused with 410: its reader
//! starts again from the beginning. Site buckets hold what belongs to people at a site, and are not served.

pub(crate) mod json;
mod stream;

use std::time::Duration;

use alexandria_sync::id::{BucketId, Epoch, Seq};
use alexandria_sync::store::Cursor;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use self::json::Changes;
use crate::Api;
use crate::catalogue::{Catalogue, CatalogueError, ChangePage};
use crate::extract::Query;
use crate::limits::{CHANGES_MAX, Limits, RETRY_AFTER_S};
use crate::problem::{Problem, ProblemKind};

/// Hexadecimal digits of a cursor.
pub(crate) const CURSOR_DIGITS: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangesParameters {
    bucket: BucketId,
    since: Option<String>,
    limit: Option<u64>,
    #[serde(default)]
    wait: u32,
}

/// What to read, and from where.
#[derive(Clone, Copy)]
struct Reading {
    bucket: BucketId,
    since: Option<Cursor>,
    limit: usize,
}

/// `GET /v1/changes`.
pub(crate) async fn get<C: Catalogue>(
    State(api): State<Api<C>>,
    Query(parameters): Query<ChangesParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wait = Duration::from_secs(parse_wait(parameters.wait)?.min(api.limits.wait_s_max).into());
    let reading = parse(&parameters, &headers)?;
    if wants_stream(&headers) {
        let permit = waiter(&api)?;
        return Ok(stream::answer(api, reading, permit));
    }
    let mut found = read(&api.catalogue, reading).await?;
    if found.page.records.is_empty() && !wait.is_zero() {
        let _permit = waiter(&api)?;
        // Whether it changed or the time is up: what is there now is the answer.
        match tokio::time::timeout(wait, api.catalogue.wait_for_change(reading.bucket, found.next)).await {
            Ok(changed) => changed?,
            Err(_) => return Ok(answer(found)),
        }
        found = read(&api.catalogue, Reading { since: Some(found.next), ..reading }).await?;
    }
    Ok(answer(found))
}

fn answer(found: ChangePage) -> Response {
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(Changes::from(found))).into_response()
}

async fn read<C: Catalogue>(catalogue: &C, reading: Reading) -> Result<ChangePage, Problem> {
    match catalogue.changes(reading.bucket, reading.since, reading.limit).await {
        Err(CatalogueError::UnknownBucket(bucket)) => Err(Problem::not_found("bucket", bucket).at("bucket")),
        outcome => Ok(outcome?),
    }
}

/// A place among those who wait, or the problem that there is none.
fn waiter<C>(api: &Api<C>) -> Result<OwnedSemaphorePermit, Problem> {
    api.waiters.clone().try_acquire_owned().map_err(|_| {
        let detail = "too many requests wait for changes; ask without waiting, or later";
        Problem::new(ProblemKind::Busy, detail).retry_after(RETRY_AFTER_S)
    })
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts.flat_map(|value| value.split(',')).any(|range| range.trim().starts_with("text/event-stream"))
}

fn parse(parameters: &ChangesParameters, headers: &HeaderMap) -> Result<Reading, Problem> {
    if matches!(parameters.bucket, BucketId::Site(_)) {
        let detail = "what belongs to a site is not served as changes";
        return Err(Problem::new(ProblemKind::Forbidden, detail).at("bucket"));
    }
    let limit = match parameters.limit {
        None => CHANGES_MAX,
        Some(limit) if (1..=CHANGES_MAX as u64).contains(&limit) => limit as usize,
        Some(limit) => {
            let detail = format!("it is {limit}; between 1 and {CHANGES_MAX} are allowed");
            return Err(Problem::new(ProblemKind::InvalidQuery, detail).at("limit"));
        }
    };
    // A browser that connects anew to the same address says here how far it came.
    let resumed = match headers.get("last-event-id") {
        Some(token) if !token.is_empty() => {
            let cursor = token.to_str().ok().and_then(decode_cursor);
            Some(cursor.ok_or_else(|| {
                Problem::new(ProblemKind::InvalidHeader, "it must be the id of an event").at("Last-Event-ID")
            })?)
        }
        _ => None,
    };
    let asked = match &parameters.since {
        None => None,
        Some(token) => Some(decode_cursor(token).ok_or_else(|| {
            Problem::new(ProblemKind::InvalidQuery, "it must be a `next` cursor, unchanged").at("since")
        })?),
    };
    Ok(Reading { bucket: parameters.bucket, since: resumed.or(asked), limit })
}

fn parse_wait(asked_s: u32) -> Result<u32, Problem> {
    if asked_s > Limits::WAIT_S_MAX {
        let detail = format!("it is {asked_s}; at most {} seconds are allowed", Limits::WAIT_S_MAX);
        return Err(Problem::new(ProblemKind::InvalidQuery, detail).at("wait"));
    }
    Ok(asked_s)
}

pub(crate) fn encode_cursor(cursor: Cursor) -> String {
    format!("{:016x}{:016x}", cursor.epoch.0, cursor.seq.0)
}

fn decode_cursor(token: &str) -> Option<Cursor> {
    let mut bytes = [0; CURSOR_DIGITS / 2];
    hex::decode_to_slice(token, &mut bytes).ok()?;
    let bits = u128::from_be_bytes(bytes);
    Some(Cursor { epoch: Epoch((bits >> 64) as u64), seq: Seq(bits as u64) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_reads_back_from_its_token(epoch: u64, seq: u64) {
            let cursor = Cursor { epoch: Epoch(epoch), seq: Seq(seq) };
            let token = encode_cursor(cursor);
            prop_assert_eq!(token.len(), CURSOR_DIGITS);
            prop_assert_eq!(decode_cursor(&token), Some(cursor));
        }
    }
}
