//! An event as subscribers get it: CloudEvents 1.0 in structured JSON
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>), with message attributes that
//! SNS can filter on. All attributes are strings: not every SQS client reads a binary one.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

/// A row of the outbox.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its place in the outbox.
    pub no: i64,
    /// Its id, the same on every try.
    pub event_id: Uuid,
    /// Upper case, past tense: `MEDIA_CREATED`.
    pub event_type: String,
    /// What it is about: `media/UUID`.
    pub subject: String,
    /// The kind of record: `media`.
    pub kind: String,
    /// The bucket of the record.
    pub bucket: Option<String>,
    /// The node that it came from or belongs to.
    pub site: Option<String>,
    /// `high` or `normal`.
    pub priority: String,
    /// The W3C trace context of the change.
    pub traceparent: Option<String>,
    /// When it happened (RFC 3339).
    pub happened_at: String,
    /// What happened, as JSON.
    pub data: String,
}

impl Event {
    /// The message body.
    pub fn body(&self, source: &str) -> String {
        let mut body = json!({
            "specversion": "1.0",
            "id": self.event_id.to_string(),
            "source": source,
            "type": self.event_type,
            "subject": self.subject,
            "time": self.happened_at,
            "datacontenttype": "application/json",
            "priority": self.priority,
        });
        let extensions = [("bucket", &self.bucket), ("site", &self.site), ("traceparent", &self.traceparent)];
        for (name, value) in extensions {
            if let Some(value) = value {
                body[name] = value.clone().into();
            }
        }
        // What happened is JSON already: PostgreSQL takes nothing else into that column.
        let mut text = body.to_string();
        text.pop();
        text.push_str(",\"data\":");
        text.push_str(&self.data);
        text.push('}');
        text
    }

    /// The message attributes. At most ten, or SQS drops the message on raw delivery.
    pub fn attributes(&self, source: &str, dispatched_at: &str) -> BTreeMap<&'static str, String> {
        let mut attributes = BTreeMap::from([
            ("id", self.event_id.to_string()),
            ("type", self.event_type.clone()),
            ("kind", self.kind.clone()),
            ("priority", self.priority.clone()),
            ("service", source.to_owned()),
            ("dispatch_time", dispatched_at.to_owned()),
        ]);
        let optional = [("bucket", &self.bucket), ("site", &self.site), ("traceparent", &self.traceparent)];
        for (name, value) in optional {
            if let Some(value) = value {
                attributes.insert(name, value.clone());
            }
        }
        attributes
    }
}

impl FromRow<'_, PgRow> for Event {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            no: row.try_get("no")?,
            event_id: row.try_get("event_id")?,
            event_type: row.try_get("type")?,
            subject: row.try_get("subject")?,
            kind: row.try_get("kind")?,
            bucket: row.try_get("bucket")?,
            site: row.try_get("site")?,
            priority: row.try_get("priority")?,
            traceparent: row.try_get("traceparent")?,
            happened_at: row.try_get("happened_at")?,
            data: row.try_get("data")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_event_reads_as_cloudevents_and_fits_the_ten_attributes_of_sqs() {
        let event = Event {
            no: 1,
            event_id: Uuid::from_bytes([7; 16]),
            event_type: "MEDIA_CREATED".into(),
            subject: "media/x".into(),
            kind: "media".into(),
            bucket: Some("catalogue".into()),
            site: Some("s".into()),
            priority: "normal".into(),
            traceparent: Some("00-1-2-01".into()),
            happened_at: "2026-01-01T00:00:00.000000Z".into(),
            data: r#"{"id":"x"}"#.into(),
        };
        let body: Value = serde_json::from_str(&event.body("bridge")).unwrap();
        for required in ["specversion", "id", "source", "type"] {
            assert!(body[required].is_string(), "{required} in {body}");
        }
        assert_eq!(body["data"]["id"], "x");
        let extensions = body.as_object().unwrap().keys();
        assert!(extensions.into_iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())));
        assert!(event.attributes("bridge", "now").len() <= 10);
    }
}
