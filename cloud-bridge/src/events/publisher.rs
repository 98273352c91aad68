//! The loop that publishes what the outbox holds.
//!
//! A worker locks one lane (`FOR UPDATE SKIP LOCKED`, so processes share the lanes without knowing of each other),
//! publishes its oldest events in order, deletes them, and commits. If it dies in between, the lane is free again at
//! once and the same events go out a second time under the same ids. A topic that is away is left alone for longer
//! and longer, with jitter; the outbox keeps everything meanwhile.
//!
//! While this process takes in many records at once, it publishes only what has waited for [`Config::yield_max_s`]: the
//! node that sends them is on a link that may end, and who listens to the topic is not.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use aws_sdk_sns::Client;
use aws_sdk_sns::types::{MessageAttributeValue, PublishBatchRequestEntry};
use rand::Rng;
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;

use super::Config;
use super::cloud_event::Event;
use crate::metrics::Metrics;
use crate::postgres::Records;

/// Events taken from a lane in one transaction, at most.
const LANE_BATCH: i64 = 50;
/// Events in one call, at most: a limit of SNS.
const CALL_EVENTS_MAX: usize = 10;
/// Bytes in one call, at most: SNS takes 256 KiB with all attributes.
const CALL_BYTES_MAX: usize = 240 * 1024;
/// How the name of an SNS topic that keeps order ends.
const FIFO_SUFFIX: &str = ".fifo";
/// How often the outbox is looked at for events that another process wrote.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long one round may take, unless a server is gone without a word.
const ROUND_MAX: Duration = Duration::from_mins(5);
/// The wait after the first failure; it doubles up to the maximum.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_mins(1);

/// Publishes the outbox to one topic.
#[derive(Clone)]
pub struct Publisher {
    records: Records,
    client: Client,
    topic_arn: String,
    source: String,
    yield_max: Duration,
    metrics: Metrics,
}

/// What became of one look at the outbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Round {
    /// No lane has anything that is due and free.
    Idle,
    /// So many events went out.
    Published(usize),
    /// The topic did not take them; they are due again later.
    Failed,
}

impl Publisher {
    /// A publisher for the configured topic; `None` if there is none.
    pub fn new(records: Records, client: Client, config: &Config, metrics: Metrics) -> Option<Self> {
        let topic_arn = config.topic_arn.clone()?;
        let yield_max = Duration::from_secs(config.yield_max_s);
        Some(Self { records, client, topic_arn, source: config.source.clone(), yield_max, metrics })
    }

    /// Publishes until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let waiting = match tokio::time::timeout(ROUND_MAX, self.publish_due()).await {
                Ok(Ok(Round::Published(_) | Round::Failed)) => continue,
                Ok(Ok(Round::Idle)) => POLL_INTERVAL,
                Ok(Err(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the outbox cannot be read");
                    POLL_INTERVAL * 5
                }
                Err(_) => {
                    tracing::warn!("PostgreSQL or the topic did not answer in time; the events are kept");
                    continue;
                }
            };
            tokio::select! {
                () = self.records.events_waiting() => {}
                () = tokio::time::sleep(waiting) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Publishes some events of one lane.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away. Events that went out just before will go out again.
    pub async fn publish_due(&self) -> Result<Round, sqlx::Error> {
        let waited_at_least = if self.records.takes_in_many() { self.yield_max } else { Duration::ZERO };
        let mut tx = self.records.pool().begin().await?;
        let lane: Option<(i32, i32)> = sqlx::query_as(
            "SELECT lane, attempts FROM outbox_lane \
             WHERE next_attempt_at <= now() AND (SELECT created_at FROM outbox WHERE outbox.lane = outbox_lane.lane \
                ORDER BY no LIMIT 1) <= clock_timestamp() - $1 * interval '1 millisecond' \
             ORDER BY next_attempt_at, lane LIMIT 1 FOR UPDATE SKIP LOCKED",
        )
        .bind(waited_at_least.as_millis() as f64)
        .fetch_optional(&mut *tx)
        .await?;
        let Some((lane, attempts)) = lane else { return Ok(Round::Idle) };
        let events: Vec<Event> = sqlx::query_as(
            "SELECT no, event_id, type, subject, kind, bucket, site, priority, traceparent, data::text AS data, \
                to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS happened_at \
             FROM outbox WHERE lane = $1 ORDER BY no LIMIT $2",
        )
        .bind(lane)
        .bind(LANE_BATCH)
        .fetch_all(&mut *tx)
        .await?;

        let mut published = 0;
        let mut settled: Vec<i64> = Vec::with_capacity(events.len());
        let mut failure = None;
        let dispatched_at = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let ready: Vec<Ready<'_>> = events.iter().map(|event| Ready::of(event, &self.source, &dispatched_at)).collect();
        for call in calls(&ready) {
            let outcome = self.publish(call).await;
            published += outcome.published.len();
            self.metrics.events_published.inc_by(outcome.published.len() as u64);
            self.metrics.events_refused.inc_by(outcome.refused.len() as u64);
            settled.extend(outcome.published.iter().copied().chain(outcome.refused.iter().map(|(no, _)| *no)));
            keep_refused(&mut tx, &outcome.refused).await?;
            if outcome.failure.is_some() {
                // What follows may be about the same record: it has to wait.
                failure = outcome.failure;
                break;
            }
        }
        sqlx::query("DELETE FROM outbox WHERE no = ANY ($1)").bind(settled).execute(&mut *tx).await?;
        let (attempts, wait) = match &failure {
            None => (0, Duration::ZERO),
            Some(_) => (attempts.saturating_add(1), backoff(attempts)),
        };
        sqlx::query(
            "UPDATE outbox_lane SET attempts = $2, next_attempt_at = now() + $3 * interval '1 millisecond' \
             WHERE lane = $1",
        )
        .bind(lane)
        .bind(attempts)
        .bind(wait.as_millis() as f64)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        match failure {
            None => Ok(Round::Published(published)),
            Some(failure) => {
                self.metrics.events_failed.inc();
                tracing::warn!(lane, attempts, failure, "the topic took no events; they are kept");
                Ok(Round::Failed)
            }
        }
    }

    async fn publish(&self, events: &[Ready<'_>]) -> Outcome {
        let mut call = self.client.publish_batch().topic_arn(&self.topic_arn);
        for event in events {
            match self.entry(event) {
                Ok(entry) => call = call.publish_batch_request_entries(entry),
                Err(error) => return Outcome::failed(error.to_string()),
            }
        }
        let answer = match call.send().await {
            Ok(answer) => answer,
            Err(error) => return Outcome::failed(aws_sdk_sns::error::DisplayErrorContext(&error).to_string()),
        };
        let no_of = |id: Option<&str>| events.iter().map(|ready| ready.event.no).find(|no| id == Some(&no.to_string()));
        let mut outcome = Outcome {
            published: answer.successful().iter().filter_map(|entry| no_of(entry.id())).collect(),
            ..Outcome::default()
        };
        for entry in answer.failed() {
            let Some(no) = no_of(Some(entry.id())) else { continue };
            let reason = format!("{}: {}", entry.code(), entry.message().unwrap_or_default());
            // Only what the topic will never take is set aside; everything else is tried again.
            if entry.sender_fault() && entry.code().starts_with("InvalidParameter") {
                tracing::error!(event.no = no, reason, "the topic refuses an event for good; it is kept aside");
                outcome.refused.push((no, reason));
            } else {
                outcome.failure = Some(reason);
            }
        }
        let settled = outcome.published.len() + outcome.refused.len();
        if outcome.failure.is_none() && settled < events.len() {
            outcome.failure = Some(format!("the answer says nothing of {} events", events.len() - settled));
        }
        outcome
    }

    fn entry(&self, ready: &Ready<'_>) -> Result<PublishBatchRequestEntry, aws_sdk_sns::error::BuildError> {
        let event = ready.event;
        let mut entry = PublishBatchRequestEntry::builder().id(event.no.to_string()).message(&ready.body);
        if self.topic_arn.ends_with(FIFO_SUFFIX) {
            entry = entry.message_group_id(&event.subject).message_deduplication_id(event.event_id.to_string());
        }
        for (name, value) in &ready.attributes {
            let value = MessageAttributeValue::builder().data_type("String").string_value(value).build()?;
            entry = entry.message_attributes(*name, value);
        }
        entry.build()
    }
}

/// An event in the form in which it goes out.
struct Ready<'e> {
    event: &'e Event,
    body: String,
    attributes: BTreeMap<&'static str, String>,
}

impl<'e> Ready<'e> {
    fn of(event: &'e Event, source: &str, dispatched_at: &str) -> Self {
        Self { event, body: event.body(source), attributes: event.attributes(source, dispatched_at) }
    }

    fn size_bytes(&self) -> usize {
        self.body.len() + self.attributes.values().map(|value| value.len() + 32).sum::<usize>()
    }
}

#[derive(Default)]
struct Outcome {
    published: Vec<i64>,
    refused: Vec<(i64, String)>,
    failure: Option<String>,
}

impl Outcome {
    fn failed(failure: String) -> Self {
        Self { failure: Some(failure), ..Self::default() }
    }
}

/// Keeps what the topic will never take, as it is now: it may have been erased since it was read.
async fn keep_refused(tx: &mut PgConnection, refused: &[(i64, String)]) -> Result<(), sqlx::Error> {
    for (no, reason) in refused {
        sqlx::query(
            "INSERT INTO outbox_refused (event_id, type, subject, data, reason) \
             SELECT event_id, type, subject, data, $2 FROM outbox WHERE no = $1 FOR UPDATE",
        )
        .bind(no)
        .bind(reason)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Cuts events into calls. A call never holds two events of one subject: SNS may take the later and not the earlier.
fn calls<'a, 'e>(mut events: &'a [Ready<'e>]) -> Vec<&'a [Ready<'e>]> {
    let mut calls = Vec::new();
    while !events.is_empty() {
        let mut subjects = HashSet::new();
        let mut size_bytes = 0;
        let fitting = events
            .iter()
            .take(CALL_EVENTS_MAX)
            .take_while(|ready| {
                size_bytes += ready.size_bytes();
                size_bytes <= CALL_BYTES_MAX && subjects.insert(&ready.event.subject)
            })
            .count();
        let (call, later) = events.split_at(fitting.max(1));
        calls.push(call);
        events = later;
    }
    calls
}

/// Somewhere below a bound that doubles with each failure ("full jitter"), so that processes do not come back as one.
fn backoff(failures_before: i32) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << failures_before.clamp(0, 10));
    let bound = doubled.min(BACKOFF_MAX);
    rand::rng().random_range(bound / 2..=bound)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn event(no: i64, subject: &str, data_bytes: usize) -> Event {
        Event {
            no,
            event_id: Uuid::from_bytes([1; 16]),
            event_type: "MEDIA_UPDATED".into(),
            subject: subject.into(),
            kind: "media".into(),
            bucket: None,
            site: None,
            priority: "normal".into(),
            traceparent: None,
            happened_at: String::new(),
            data: format!("\"{}\"", "x".repeat(data_bytes)),
        }
    }

    /// The numbers of the events of each call.
    fn numbers(events: &[Event]) -> Vec<Vec<i64>> {
        let ready: Vec<Ready<'_>> = events.iter().map(|event| Ready::of(event, "s", "")).collect();
        calls(&ready).iter().map(|call| call.iter().map(|ready| ready.event.no).collect()).collect()
    }

    #[test]
    fn two_events_of_one_record_never_share_a_call() {
        let events = [event(1, "a", 1), event(2, "b", 1), event(3, "a", 1), event(4, "c", 1)];
        assert_eq!(numbers(&events), [vec![1, 2], vec![3, 4]]);
    }

    #[test]
    fn a_call_stays_within_the_limits_of_sns() {
        let many: Vec<Event> = (0..25).map(|no| event(no, &no.to_string(), 1)).collect();
        assert_eq!(numbers(&many).iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
        let large: Vec<Event> = (0..3).map(|no| event(no, &no.to_string(), 128 * 1024)).collect();
        assert_eq!(numbers(&large).len(), 3);
    }

    #[test]
    fn waiting_grows_and_stays_bounded() {
        for failures in 0..40 {
            assert!((BACKOFF_FIRST / 2..=BACKOFF_MAX).contains(&backoff(failures)));
        }
    }
}
