//! What the command line and the node say to each other about bundles and receipts.

use std::path::PathBuf;

use alexandria_sync::id::{BucketId, NodeId};
use serde::{Deserialize, Serialize};

/// Write a bundle.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct BundleExportRequest {
    /// Absolute path of the file to write.
    pub file: PathBuf,
    /// Titles or ids of the collections that it carries; all if there are none.
    pub collections: Vec<String>,
    /// For whom; anyone if `None`.
    pub reader: Option<NodeId>,
    /// Whether content is left out.
    pub records_only: bool,
    /// The file has no more bytes than this.
    pub max_bytes: Option<u64>,
    /// How many days it is good; the usual time if `None`.
    pub valid_days: Option<u64>,
}

/// How an export goes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum BundleExportLine {
    /// How far it is.
    Progress(BundleProgress),
    /// It is written.
    Done(BundleExported),
    /// There is no bundle, and no half one.
    Failed {
        /// Why.
        reason: String,
    },
}

/// How far an export or an import is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct BundleProgress {
    /// Records so far.
    pub records: u64,
    /// Bytes of the file so far.
    pub bytes: u64,
    /// Of about how many; 0 while nobody knows.
    pub of_bytes: u64,
}

/// What a bundle carries.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct BundleExported {
    /// Records.
    pub records: u64,
    /// Blobs.
    pub blobs: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Blobs that did not fit.
    pub blobs_left_out: u64,
    /// Blobs that the records name and that are not here either.
    pub blobs_absent: u64,
    /// Whether records did not fit.
    pub records_left_out: bool,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_unix_ms: u64,
    /// Whether it starts where its reader stands, rather than at the beginning.
    pub goes_on: bool,
    /// Whether it is signed.
    pub signed: bool,
}

/// Look at a bundle or a receipt, or take it in.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct BundleRequest {
    /// Absolute path of the file to read.
    pub file: PathBuf,
    /// Whether to take what nobody that this node knows has signed.
    pub unsigned: bool,
    /// Where to write the receipt; beside the bundle if `None`.
    pub receipt: Option<PathBuf>,
}

/// What a file would change.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum BundleSurvey {
    /// It is a bundle.
    Bundle(BundleContents),
    /// It is a receipt.
    Receipt(ReceiptContents),
}

/// Who made a bundle or a receipt.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct MadeBy {
    /// Which replica.
    pub node: NodeId,
    /// Whether that is a bridge.
    pub is_bridge: bool,
    /// When by its clock, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Whether the authority of this node's fleet vouches for it.
    pub vouched: bool,
}

/// What a bundle would change.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BundleContents {
    /// By whom.
    pub made_by: MadeBy,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_unix_ms: u64,
    /// Its records.
    pub kinds: Vec<KindChanges>,
    /// Buckets of which nothing would be taken.
    pub refused: Vec<RefusedBucket>,
    /// Blobs that are not here.
    pub blobs_new: u64,
    /// Their bytes.
    pub bytes_new: u64,
    /// Blobs that are here.
    pub blobs_known: u64,
    /// Whether there is room for those that are not here.
    pub has_room: bool,
    /// What is wrong with the file, if anything.
    pub fault: Option<String>,
}

/// What would become of the records of one kind.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct KindChanges {
    /// Which kind.
    pub kind: String,
    /// Not here yet.
    pub new: u64,
    /// Here in another version.
    pub changed: u64,
    /// Deleted for good.
    pub deleted: u64,
    /// Known already.
    pub known: u64,
    /// From a clock that is too far ahead.
    pub set_aside: u64,
}

/// A bucket of which nothing is taken.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RefusedBucket {
    /// Which.
    pub bucket: BucketId,
    /// Why.
    pub reason: String,
    /// Whether an earlier bundle is missing.
    pub gap: bool,
}

/// What a receipt says.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ReceiptContents {
    /// By whom.
    pub made_by: MadeBy,
    /// Buckets that it has read of.
    pub buckets: u64,
    /// Blobs that it lacks.
    pub lacks: u64,
    /// Whether a later one is known already.
    pub outdated: bool,
}

/// How an import goes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum BundleImportLine {
    /// How far it is.
    Progress(BundleProgress),
    /// A bundle was taken in.
    Done(BundleImported),
    /// A receipt was taken note of.
    Noted(ReceiptContents),
    /// It stopped. What was taken by then stays.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What was taken of a bundle.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BundleImported {
    /// By whom it was made.
    pub made_by: MadeBy,
    /// Records that changed something.
    pub applied: u64,
    /// Records that said nothing new.
    pub known: u64,
    /// Records that were set aside.
    pub set_aside: u64,
    /// Blobs that have become whole.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Blobs of which not all was there.
    pub blobs_incomplete: u64,
    /// Blobs that were being received from elsewhere.
    pub blobs_busy: u64,
    /// Whether there was no room for all content.
    pub full: bool,
    /// Buckets of which nothing was taken.
    pub refused: Vec<RefusedBucket>,
    /// What is wrong with the file, if anything.
    pub fault: Option<String>,
    /// The receipt for its exporter.
    pub receipt: Option<PathBuf>,
    /// Why there is none.
    pub receipt_error: Option<String>,
}
