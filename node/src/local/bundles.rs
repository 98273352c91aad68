//! What the command line and the node say to each other about bundles and receipts.

use std::path::PathBuf;

pub use alexandria_sync::bundle::report::{
    BundleContents, BundleExported, BundleImported, KindChanges, MadeBy, ReceiptContents, RefusedBucket,
};
use alexandria_sync::id::NodeId;
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
