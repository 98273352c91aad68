//! Changes as server-sent events: each event is one page, as the JSON answer has it, and its id is the cursor after it, so
//! that a client that connects anew goes on where it was.
//!
//! A stream ends by itself after a while, at shutdown, and with an event `problem` when the feed cannot be read.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::json::Changes;
use super::{Reading, encode_cursor, read};
use crate::Api;
use crate::catalogue::{Catalogue, CatalogueError};
use crate::limits::SSE_KEEP_ALIVE_S;
use crate::problem::Problem;

/// Answers with events from `reading` on. The permit is held until the stream ends.
pub(super) fn answer<C: Catalogue>(api: Api<C>, reading: Reading, permit: OwnedSemaphorePermit) -> Response {
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(SSE_KEEP_ALIVE_S));
    Sse::new(events(api, reading, permit)).keep_alive(keep_alive).into_response()
}

fn events<C: Catalogue>(
    api: Api<C>,
    mut reading: Reading,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    async_stream::stream! {
        let _permit = permit;
        let end = Instant::now() + Duration::from_secs(api.limits.stream_s_max.into());
        let mut first = true;
        while Instant::now() < end {
            let found = match read(&api.catalogue, reading).await {
                Ok(found) => found,
                Err(problem) => {
                    yield Ok(problem_event(&problem));
                    return;
                }
            };
            let next = found.next;
            reading.since = Some(next);
            let more = found.page.more;
            // The first event is sent even if nothing changed: it tells the client its cursor.
            if first || !found.page.records.is_empty() {
                first = false;
                yield Ok(changes_event(Changes::from(found), encode_cursor(next)));
            }
            if more {
                continue;
            }
            match tokio::time::timeout_at(end, api.catalogue.wait_for_change(reading.bucket, next)).await {
                Ok(Ok(())) => {}
                Err(_) | Ok(Err(CatalogueError::Closing)) => return,
                Ok(Err(error)) => {
                    yield Ok(problem_event(&Problem::from(error)));
                    return;
                }
            }
        }
    }
}

fn changes_event(changes: Changes, id: String) -> Event {
    Event::default().event("changes").id(id).json_data(changes).unwrap_or_default()
}

fn problem_event(problem: &Problem) -> Event {
    Event::default().event("problem").json_data(problem.body()).unwrap_or_default()
}
