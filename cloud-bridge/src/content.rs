//! The content of the fleet, in S3: each blob whole in one object, `blobs/HASH`.
//!
//! - [`objects`]: the few S3 calls, and what their failures mean.
//! - [`parts`]: how a blob is cut into parts, and how the parts' hashes make the blob's.
//! - [`assembly`]: one blob in the making, in memory: which bytes are here and which are durable.
//! - [`receive`]: the blob store that sessions write to.
//! - [`known`]: the chunks of a new version that other blobs hold already.
//! - [`basis`]: those from which the others can be told.
//! - [`progress`]: how far each blob has come, in PostgreSQL.
//! - [`publish`]: the last step: object, then manifest row, then event.
//! - [`serve`]: reading, listing, and what is wanted.
//! - [`intake`]: content that an operator uploads.
//! - [`damage`]: what S3 has lost, and how it comes again.
//! - `erase`: what was erased.
//! - [`sweep`]: what nobody came back for.
//!
//! Invariants:
//! - A `stored_blob` row means that the object is in S3, whole and verified: S3 first, then the row, then the event.
//! - A process may die at any time; what `sync` returned for is taken up again by any other process.
//! - No two processes receive one blob at once: a lease in PostgreSQL, and a claim number that fences a late owner off.
//! - Memory: at most [`receive::PENDING_BYTES_MAX`] for each blob in the making, and `memory_bytes_max` for all of them:
//!   whoever writes past either waits until what is there has gone to S3.

mod assembly;
mod basis;
pub mod damage;
mod erase;
pub mod intake;
mod known;
pub mod objects;
mod parts;
mod progress;
mod publish;
pub mod receive;
pub mod serve;
mod sweep;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alexandria_sync::chunk::{BlobHash, ManifestError};
use sqlx::PgPool;
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

use self::objects::{ObjectError, Objects};
use self::receive::Slot;
use self::sweep::SweptTo;
use crate::metrics::Metrics;
use crate::postgres::{Records, Unanswered};

/// Completed blobs that a listener may be behind.
const COMPLETED_MAX: usize = 256;

/// The `[content]` section.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The S3 bucket.
    pub bucket: String,
    /// Whether the bucket's name stands in the path of URLs, as most S3 servers other than AWS want it.
    pub path_style: bool,
    /// How long after a crash another process may take up a blob, in seconds.
    pub lease_seconds: u32,
    /// Bytes of unfinished blobs in this process's memory, at most (but for the chunks that are just being written).
    pub memory_bytes_max: usize,
    /// Blobs that this process receives at once, at most.
    pub uploads_max: usize,
    /// After how many hours without progress an unfinished blob is removed.
    pub abandoned_after_hours: u32,
    /// Keys of S3 that one sweep looks at, at most; S3 lists no more than 1,000 at once.
    pub sweep_keys_max: u16,
    /// For how many minutes content that an operator removed stays readable for those who are reading it.
    pub removal_grace_minutes: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            path_style: false,
            lease_seconds: 15,
            memory_bytes_max: 256 * 1024 * 1024,
            uploads_max: 256,
            abandoned_after_hours: 7 * 24,
            sweep_keys_max: 1000,
            removal_grace_minutes: 60,
        }
    }
}

/// Why the content store could not do it. What was durable stays; the same call may succeed later.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// S3 is away or refused.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// PostgreSQL is away or refused.
    #[error("PostgreSQL failed")]
    Database(#[from] sqlx::Error),
    /// The claim on the blob is gone: it was never made, was given up, or another process took over.
    #[error("no claim on blob {0}")]
    NotClaimed(BlobHash),
    /// The blob was ended before all of it was there.
    #[error("blob {0} is not complete")]
    Incomplete(BlobHash),
    /// S3 forgot the multipart upload: the blob starts over.
    #[error("the upload of blob {0} is gone from S3; it starts over")]
    UploadGone(BlobHash),
    /// Content that no manifest can describe.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// PostgreSQL or S3 is gone without a word.
    #[error("PostgreSQL or S3: {0}")]
    Unanswered(#[from] Unanswered),
}

impl ContentError {
    /// Whether what was noted as durable is gone from S3, so that the blob has to start over.
    fn is_lost_progress(&self) -> bool {
        match self {
            Self::Object(error) => error.is_missing() || error.refuses_parts(),
            Self::UploadGone(_) => true,
            _ => false,
        }
    }
}

/// The blob store: one for each process, shared by everything in it.
#[derive(Clone)]
pub struct Content {
    shared: Arc<Shared>,
}

struct Shared {
    records: Records,
    objects: Objects,
    config: Config,
    /// Names this process in leases.
    owner: Uuid,
    /// Names each blob that this process has made whole.
    completed: broadcast::Sender<BlobHash>,
    /// Rings when what was whole is wanted again.
    wanted_again: watch::Sender<()>,
    /// Blobs that this process is receiving.
    open: Mutex<HashMap<BlobHash, Slot>>,
    swept_to: Mutex<SweptTo>,
    metrics: Metrics,
}

impl Content {
    /// A store on one S3 bucket.
    pub fn new(records: Records, client: aws_sdk_s3::Client, config: Config, metrics: Metrics) -> Self {
        let objects = Objects::new(client, config.bucket.clone());
        let owner = Uuid::from_bytes(rand::random());
        let (completed, _) = broadcast::channel(COMPLETED_MAX);
        let (wanted_again, _) = watch::channel(());
        let (open, swept_to) = (Mutex::default(), Mutex::default());
        let shared = Shared { records, objects, config, owner, completed, wanted_again, open, swept_to, metrics };
        Self { shared: Arc::new(shared) }
    }

    /// Hears of each blob that becomes whole through this process.
    pub fn completed(&self) -> broadcast::Receiver<BlobHash> {
        self.shared.completed.subscribe()
    }

    /// To be called after the commit that made a blob whole.
    fn ring_completed(&self, blob: BlobHash) {
        // Nobody listens just now, perhaps.
        let _ = self.shared.completed.send(blob);
        self.shared.records.ring_events();
    }

    /// Whether S3 answers and the bucket is there.
    ///
    /// # Errors
    ///
    /// If not, and why.
    pub async fn check(&self) -> Result<(), ObjectError> {
        self.objects().check_bucket().await
    }

    fn pool(&self) -> &PgPool {
        self.shared.records.pool()
    }

    fn objects(&self) -> &Objects {
        &self.shared.objects
    }

    /// How long a claim on a blob lasts that nobody renews.
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_secs(self.shared.config.lease_seconds.max(1).into())
    }
}

/// The object of a whole blob.
fn blob_key(blob: BlobHash) -> String {
    format!("blobs/{blob}")
}

/// Where the bytes of a blob lie that do not fill a part yet.
fn staging_prefix(blob: BlobHash) -> String {
    format!("staging/{blob}/")
}
