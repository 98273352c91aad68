//! What the command line and the node say to each other about a long absence.

use alexandria_sync::id::{BucketId, NodeId, RecordId};
use serde::{Deserialize, Serialize};

/// How the node stands with its bridge.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct AbsenceStatus {
    /// As of when whatever the bridge held was applied here, in milliseconds since 1970; `None` before that ever was.
    pub in_step_unix_ms: Option<u64>,
    /// Whether the node was away for longer than its lease, and all is being read anew.
    pub reading_anew: bool,
    /// Records that were not sent before that, and wait for a decision; what is over a thousand is not counted.
    pub held_back: u64,
}

/// What of the records that are held back is shown.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum HeldBackLine {
    /// One of them.
    Record(HeldBackRecord),
    /// The end.
    Done {
        /// How many there are.
        records: u64,
    },
    /// The list could not go on.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A record that is held back.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct HeldBackRecord {
    /// Its id, for `send` and `drop`.
    pub id: RecordId,
    /// Where it belongs.
    pub bucket: BucketId,
    /// Its kind, by name where this version knows one.
    pub kind: String,
    /// What it is called, if it is called anything.
    pub title: Option<String>,
    /// Whether it says that the record was deleted.
    pub deleted: bool,
    /// Who wrote to it last.
    pub written_by: NodeId,
    /// When, by the writer's clock, in milliseconds since 1970.
    pub written_unix_ms: u64,
}

/// Send records that are held back as edits of now, or drop them.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct ReleaseRequest {
    /// Which; all of them if `None`.
    pub id: Option<RecordId>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct ReleaseAnswer {
    /// Records that were sent or dropped.
    pub records: u64,
}
