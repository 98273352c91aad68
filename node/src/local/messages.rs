//! What the command line and the node say to each other.

use std::path::PathBuf;

use alexandria_sync::id::{BucketId, Epoch, NodeId, RecordId};
use alexandria_sync::outlook::{Outlook, Wait};
use alexandria_sync::quarantine::{QuarantineId, QuarantineUse};
use serde::{Deserialize, Serialize};

use super::held_back::AbsenceStatus;
use super::selection::SelectionStatus;

/// Take in files.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ImportRequest {
    /// Absolute paths of files and folders.
    pub paths: Vec<PathBuf>,
    /// The title of the collection; the node's own if `None`.
    pub collection: Option<String>,
}

/// How an import goes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ImportLine {
    /// The folders were walked.
    Found {
        /// Files to take in.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// One file is in the library now.
    Imported {
        /// Which file.
        path: PathBuf,
        /// Its bytes.
        bytes: u64,
        /// The medium.
        media: RecordId,
        /// Its title.
        title: String,
    },
    /// One file was in the library already.
    Present {
        /// Which file.
        path: PathBuf,
        /// Its bytes.
        bytes: u64,
        /// Whether its medium was deleted, so that readers do not see it.
        #[serde(default)]
        hidden: bool,
    },
    /// One file was not taken in; the rest goes on.
    Refused {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The end.
    Done(ImportSummary),
    /// The import could not go on.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ImportSummary {
    /// Files that are new in the library.
    pub imported: u64,
    /// Files that were there.
    pub present: u64,
    /// Those of them whose media were deleted, so that readers do not see them.
    #[serde(default)]
    pub hidden: u64,
    /// Files that were not taken in.
    pub refused: u64,
    /// Bytes of the new ones.
    pub bytes: u64,
}

/// What the node holds and does.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Status {
    /// Version of the software.
    pub version: String,
    /// Which node.
    pub node: NodeId,
    /// The life of its feeds.
    pub epoch: Epoch,
    /// The data folder.
    pub data: PathBuf,
    /// Where the library is served; `None` while only a command runs.
    pub address: Option<String>,
    /// Whether something is wrong, in words; writes are refused then.
    pub read_only: Option<String>,
    /// Live records of each kind.
    pub records: RecordCounts,
    /// What they take on the disk.
    #[serde(default)]
    pub store: StoreStatus,
    /// How far search follows them.
    #[serde(default)]
    pub search: SearchStatus,
    /// Content.
    pub content: ContentStatus,
    /// Which collections are kept.
    pub selection: SelectionStatus,
    /// Received records that were set aside.
    pub quarantined: u64,
    /// How it stands with its bridge after an absence.
    #[serde(default)]
    pub absence: AbsenceStatus,
    /// When it was noticed last that the data folder was set back to an older copy, or runs twice; `None` if it never was.
    #[serde(default)]
    pub set_back: Option<SetBackStatus>,
    /// Erasures that are out of sight and may still be on this disk.
    pub erasures_pending: u64,
    /// Replication; `None` if the node is not enrolled.
    pub replication: Option<ReplicationStatus>,
    /// Other nodes on the local network; `None` if none are looked for.
    pub lan: Option<LanStatus>,
}

/// A data folder that was set back to an older copy of itself, or of which two run.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct SetBackStatus {
    /// When that was noticed last, in milliseconds since 1970.
    pub noticed_unix_ms: u64,
    /// Which peer remembered what was not here.
    pub noticed_by: NodeId,
    /// How often it was noticed.
    pub times: u64,
}

/// Live records of each kind that people deal with.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct RecordCounts {
    pub media: u64,
    pub authors: u64,
    pub categories: u64,
    pub collections: u64,
}

/// What the record store takes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct StoreStatus {
    /// Bytes of its files.
    pub disk_bytes: u64,
    /// Bytes of the rows in them, about.
    pub live_bytes: u64,
}

/// How far search follows the records.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct SearchStatus {
    /// Rows of the store that it does not know yet.
    pub behind_rows: u64,
    /// Why it does not follow just now, in words; it is tried again.
    pub trouble: Option<String>,
}

/// What content is here.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct ContentStatus {
    /// Blobs that are whole here.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that records name and that are to come.
    pub wanted: u64,
    /// Blobs that records name and that come when somebody opens them.
    pub on_demand: u64,
    /// Those of them that were here, and went to make room.
    pub evicted: u64,
    /// Bytes free on the disk.
    pub free_bytes: u64,
}

/// How replication goes.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct ReplicationStatus {
    /// The bridge.
    pub bridge: NodeId,
    /// Its address.
    pub address: String,
    /// Whether a session is open.
    pub connected: bool,
    /// What carries it: `QUIC` or `TCP`.
    pub transport: Option<String>,
    /// Why that.
    pub transport_reason: Option<String>,
    /// When both sides last held the same, in milliseconds since 1970.
    pub last_quiet_unix_ms: Option<u64>,
    /// When it is tried again, in seconds from now, if no session is open.
    pub next_attempt_s: Option<u64>,
    /// Why the last attempt ended, if it failed.
    pub last_error: Option<String>,
    /// Rows of the bridge's feeds to come, as far as is known.
    pub rows_behind: u64,
    /// Blobs being received.
    pub blobs_receiving: u32,
    /// Bytes of those to come.
    pub bytes_to_receive: u64,
    /// Bytes a second.
    pub receive_rate: u64,
    /// Content bytes received in this session.
    pub bytes_received: u64,
    /// Content bytes sent in this session.
    pub bytes_sent: u64,
    /// Bytes of content that the bridge has asked for and that have not left.
    pub bytes_to_send: u64,
    /// Why something waits.
    pub wait: Option<Wait>,
    /// What is still to come; told with the status only.
    pub outlook: Option<Outlook>,
}

/// The other nodes on the local network.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct LanStatus {
    /// Where they are listened for; `None` before the node is enrolled.
    pub listening: Option<String>,
    /// Why none can be met.
    pub last_error: Option<String>,
    /// Connections that were not let in since the start.
    pub refused: u64,
    /// Who is known.
    pub peers: Vec<LanPeerStatus>,
}

/// Another node.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct LanPeerStatus {
    /// Which.
    pub node: NodeId,
    /// Where it is.
    pub address: String,
    /// Whether a session is open.
    pub connected: bool,
    /// What carries it: `QUIC` or `TCP`.
    pub transport: Option<String>,
    /// Rows of its feeds to come, as far as is known.
    pub rows_behind: u64,
    /// Bytes of blobs being received from it that are to come.
    pub bytes_to_receive: u64,
    /// Content bytes received in this session.
    pub bytes_received: u64,
    /// Content bytes sent in this session.
    pub bytes_sent: u64,
}

/// Check everything.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct VerifyRequest {
    /// And mend what can be mended.
    pub repair: bool,
}

/// How a check goes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum VerifyLine {
    /// How far it is.
    Progress {
        /// Blobs checked.
        blobs: u64,
        /// Of how many.
        of: u64,
    },
    /// Something is damaged.
    Damaged {
        /// What.
        what: String,
        /// Whether it was mended, or set aside to be fetched again.
        mended: bool,
    },
    /// The end.
    Done {
        /// Records checked.
        records: u64,
        /// Blobs checked.
        blobs: u64,
        /// Things found damaged.
        damaged: u64,
    },
    /// The check could not go on.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Write a backup.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BackupRequest {
    /// Absolute path of the file to write.
    pub file: PathBuf,
}

/// How a backup went.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum BackupLine {
    /// It is written.
    Done {
        /// Records in it.
        records: u64,
        /// Size of the file.
        bytes: u64,
    },
    /// The backup could not be written; there is no half file.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Put a backup back.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RestoreRequest {
    /// Absolute path of the file to read.
    pub file: PathBuf,
}

/// How a restore went.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RestoreLine {
    /// All of it is read and checked; the node starts anew on it.
    Done {
        /// Records restored.
        records: u64,
        /// Where what was here will be kept.
        kept_aside: PathBuf,
    },
    /// Nothing was changed.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Join a fleet.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct EnrollRequest {
    /// Host and port of the bridge's enrolment.
    pub bridge: String,
    /// The one-time token.
    pub token: String,
}

/// Joined.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Enrolled {
    /// As this node.
    pub node: NodeId,
    /// With this bridge.
    pub bridge: NodeId,
}

/// How one replication goes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SyncLine {
    /// How far it is.
    Progress(Box<ReplicationStatus>),
    /// Both sides hold the same.
    Quiet,
    /// It did not come to that.
    Failed {
        /// Why.
        reason: String,
    },
}

/// The token that lets programs write.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TokenAnswer {
    /// To be sent as `Authorization: Bearer TOKEN`.
    pub token: String,
}

/// What of the quarantine is shown.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum QuarantineLine {
    /// One record that is set aside.
    Record(SetAsideRecord),
    /// The end.
    Done(QuarantineUse),
    /// The list could not go on.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A record that is set aside.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SetAsideRecord {
    /// Its name, for `replay` and `drop`.
    pub id: QuarantineId,
    /// Where it belongs.
    pub bucket: BucketId,
    /// Its kind, by name where this version knows one.
    pub kind: String,
    /// Which record it is a version of.
    pub record: RecordId,
    /// Whether it says that the record was deleted.
    pub deleted: bool,
    /// Who wrote it.
    pub written_by: NodeId,
    /// When, by the writer's clock, in milliseconds since 1970.
    pub written_unix_ms: u64,
    /// How far that is ahead of the clock here now, in milliseconds.
    pub ahead_ms: u64,
    /// Who brought it.
    pub received_from: NodeId,
    /// Since when it is set aside, in milliseconds since 1970.
    pub received_unix_ms: u64,
    /// For how long that is, in milliseconds.
    pub set_aside_for_ms: u64,
    /// Why.
    pub reason: String,
}

/// Let records in that are set aside.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct ReplayRequest {
    /// Which; all of them if `None`.
    pub id: Option<QuarantineId>,
    /// As an edit of now, whenever it was written.
    pub as_new_edit: bool,
}

/// What letting records in came to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct ReplayAnswer {
    /// Records that changed something.
    pub applied: u32,
    /// Records that said nothing new.
    pub superseded: u32,
    /// Records that stay set aside.
    pub set_aside: u32,
}

/// Throw a record away that is set aside.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct DropRequest {
    /// Which.
    pub id: QuarantineId,
}

/// Erase a record, here and wherever it goes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct EraseRequest {
    /// Its kind, by name or number.
    pub kind: String,
    /// Its id.
    pub id: RecordId,
}

/// It is erased from sight; the disk follows.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct EraseAnswer {
    /// What orders it.
    pub erasures: Vec<OrderedErasure>,
}

/// An erasure.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct OrderedErasure {
    /// The bucket that the record was in.
    pub bucket: BucketId,
    /// The id of the erasure: receipts name it.
    pub id: RecordId,
}
