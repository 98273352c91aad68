//! The transactional outbox: an event is a row, written with the change that it tells of.
//!
//! Rows are spread over [`LANES`] lanes by their subject. A lane is published in order by one process at a time, so the
//! events of one record keep their order however many processes share the work.

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{
    Annotation, Author, AuthorCategory, Category, Collection, Media, MediaAuthor, MediaCategory, Typed,
};
use alexandria_sync::id::{BucketId, RecordId};
use alexandria_sync::record::Kind;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::postgres::Change;

/// Lanes; as many as the migration made.
pub const LANES: u64 = 16;
/// Bytes of one event's data as JSON, at most; a larger record is named and left out. SNS takes 256 KiB in all.
pub const DATA_BYTES_MAX: usize = 128 * 1024;

/// The kinds whose changes are told. Users are the site's own business, counters would drown the rest, and content
/// is told of once it is in S3.
const TOLD: [(Kind, &str); 8] = [
    (Author::KIND, Author::NAME),
    (Media::KIND, Media::NAME),
    (Category::KIND, Category::NAME),
    (Collection::KIND, Collection::NAME),
    (MediaAuthor::KIND, MediaAuthor::NAME),
    (MediaCategory::KIND, MediaCategory::NAME),
    (AuthorCategory::KIND, AuthorCategory::NAME),
    (Annotation::KIND, Annotation::NAME),
];

/// How soon subscribers should look at an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Priority {
    /// Something is gone.
    High,
    /// Everything else.
    Normal,
}

impl Priority {
    fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
        }
    }
}

/// Events on their way into the outbox, column by column.
#[derive(Default)]
pub(crate) struct Rows {
    lanes: Vec<i32>,
    ids: Vec<Uuid>,
    types: Vec<String>,
    subjects: Vec<String>,
    kinds: Vec<String>,
    buckets: Vec<Option<String>>,
    sites: Vec<Option<String>>,
    priorities: Vec<&'static str>,
    traceparents: Vec<String>,
    data: Vec<String>,
}

/// What is said of a record that was erased: no event tells more of it.
pub(crate) fn erased_data(id: RecordId, bucket: BucketId) -> Value {
    json!({ "id": id, "bucket": bucket, "erased": true })
}

/// Tells of a blob that is now whole in S3.
pub(crate) async fn announce_blob(
    tx: &mut PgConnection,
    hash: BlobHash,
    size_bytes: u64,
    media_type: &str,
    object_key: &str,
) -> Result<(), sqlx::Error> {
    let mut rows = Rows::default();
    let data = json!({ "hash": hash, "size_bytes": size_bytes, "media_type": media_type, "object_key": object_key });
    let subject = ("blob", hash.to_string());
    rows.push(rand::random(), subject, "UPLOADED", Priority::Normal, (None, None), &data);
    rows.insert(tx).await
}

impl Rows {
    /// What tells of records that are about to be stored, each of which shows its fields as `shown` has them.
    pub(crate) fn of_changes(bucket: BucketId, changes: &[Change], shown: Vec<Option<Value>>) -> Self {
        let trace_id: u128 = rand::random();
        let mut rows = Self::default();
        for (change, fields) in changes.iter().zip(shown) {
            let key = change.after.key;
            let Some((_, kind)) = TOLD.iter().find(|(told, _)| *told == key.kind) else { continue };
            let was_live = change.before.as_ref().is_some_and(|before| !before.is_tombstone());
            let (verb, priority) = match (was_live, change.after.is_tombstone()) {
                (false, false) => ("CREATED", Priority::Normal),
                (true, false) => ("UPDATED", Priority::Normal),
                (true, true) => ("DELETED", Priority::High),
                // Nobody was told of it, so nobody needs to know that it is gone.
                (false, true) => continue,
            };
            let site = match bucket {
                BucketId::Site(site) => Some(site),
                _ => change.arrived_from(),
            };
            let data = json!({ "id": key.id, "bucket": bucket, "fields": fields });
            rows.push(trace_id, (kind, key.id.to_string()), verb, priority, (Some(bucket.to_string()), site), &data);
        }
        rows
    }

    fn push(
        &mut self,
        trace_id: u128,
        (kind, id): (&str, String),
        verb: &str,
        priority: Priority,
        (bucket, site): (Option<String>, Option<alexandria_sync::id::NodeId>),
        data: &Value,
    ) {
        let subject = format!("{kind}/{id}");
        let hash = blake3::hash(subject.as_bytes());
        let lane = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes")) % LANES;
        let mut text = data.to_string();
        if text.len() > DATA_BYTES_MAX {
            text = json!({ "id": id, "bucket": bucket, "too_large": true }).to_string();
        }
        let span_id: u64 = rand::random();
        self.lanes.push(lane as i32);
        self.ids.push(Uuid::from_bytes(rand::random()));
        self.types.push(format!("{}_{verb}", kind.to_uppercase()));
        self.subjects.push(subject);
        self.kinds.push(kind.to_owned());
        self.buckets.push(bucket);
        self.sites.push(site.map(|site| site.to_string()));
        self.priorities.push(priority.as_str());
        self.traceparents.push(format!("00-{trace_id:032x}-{span_id:016x}-01"));
        self.data.push(text);
    }

    pub(crate) async fn insert(self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.ids.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO outbox (lane, event_id, type, subject, kind, bucket, site, priority, traceparent, data) \
             SELECT lane, event_id, type, subject, kind, bucket, site, priority, traceparent, data::json \
             FROM unnest($1::integer[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], \
                $8::text[], $9::text[], $10::text[]) WITH ORDINALITY \
                AS event (lane, event_id, type, subject, kind, bucket, site, priority, traceparent, data, place) \
             ORDER BY place",
        )
        .bind(self.lanes)
        .bind(self.ids)
        .bind(self.types)
        .bind(self.subjects)
        .bind(self.kinds)
        .bind(self.buckets)
        .bind(self.sites)
        .bind(self.priorities)
        .bind(self.traceparents)
        .bind(self.data)
        .execute(tx)
        .await?;
        Ok(())
    }
}
