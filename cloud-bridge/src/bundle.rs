//! Bundles: what a session with a node would carry, on a stick. An operator writes one next to PostgreSQL and S3, and takes in there
//! what comes home.
//!
//! - `export`: writes one, whole or not at all.
//! - `import`: looks at one, takes it in, and writes the receipt.
//! - `receipts`: the last receipt of each node, from which the next bundle for it starts.
//!
//! What always holds:
//! - Only a node of the fleet that was not revoked is written for, or taken from, and it gets and gives what it would in a session:
//!   the catalogue, collections, and its own site. A bundle for anyone carries no site.
//! - Everything goes through the same two stores as in sessions. This process is one more of the bridge's: any number of others may
//!   run beside it, and it may be killed at any time.
//!
//! Not here: the format, signatures, and what is refused (`alexandria_sync::bundle`); the command line (`commands`).

mod export;
mod import;
mod receipts;

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use alexandria_sync::absence::Standing;
use alexandria_sync::bundle::{ExportError, ImportError, Issuer, OpenError, Receiver, SurveyError, WriteSegmentError};
use alexandria_sync::id::{BucketId, NodeId};
use alexandria_sync::identity::{Identity, PeerRole};
use alexandria_sync::session::Selection;
use alexandria_sync::store::Peer;
use tokio::task::JoinSet;

pub use self::export::ExportOptions;
pub use self::import::{Surveyed, Taken};
use crate::content::Content;
use crate::fleet::Fleet;
use crate::fleet::authority::AuthorityError;
use crate::metrics::Refusal;
use crate::postgres::{RecordStoreError, Records, may_access};
use crate::replication::REVOCATION_INTERVAL;

/// Bytes that wait to be written or were read ahead.
const BUFFER_BYTES: usize = 256 * 1024;

/// Why a bundle was not written, looked at or taken in.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file.
    #[error("{action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file system of the stick takes no file of this size.
    #[error("{} is full, or takes no larger files: --max-bytes makes a smaller bundle", .0.display())]
    NoRoom(PathBuf),
    /// Some other file.
    #[error("{} is neither a bundle nor a receipt", .0.display())]
    NeitherOf(PathBuf),
    /// There is no such collection.
    #[error("there is no collection `{0}`")]
    UnknownCollection(String),
    /// Not a member of the fleet.
    #[error("there is no node {0} in this fleet; `alexandria-bridge nodes list` shows those that there are")]
    UnknownNode(NodeId),
    /// It gets nothing, and nothing of it is taken any more.
    #[error("node {0} was revoked: it gets nothing, and nothing of it is taken")]
    Revoked(NodeId),
    /// Not signed by a member of the fleet.
    #[error("nobody has signed it; the bridge takes what nodes of its fleet have signed, and nothing else")]
    Unsigned,
    /// It was not written.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// It is not taken.
    #[error(transparent)]
    Open(OpenError),
    /// It cannot be looked at.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// It was not taken in, or not all of it.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The receipt was not signed.
    #[error(transparent)]
    Receipt(#[from] WriteSegmentError),
    /// The receipt could not be put together.
    #[error("read what the bridge has")]
    Gather(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The record store.
    #[error(transparent)]
    Records(#[from] RecordStoreError),
    /// The fleet's own tables.
    #[error("PostgreSQL failed")]
    Database(#[from] sqlx::Error),
}

impl From<OpenError> for BundleError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Unsigned => Self::Unsigned,
            error => Self::Open(error),
        }
    }
}

/// Writes and takes in bundles of the fleet's library.
pub struct Bundles {
    records: Records,
    content: Content,
    fleet: Fleet,
    identity: Identity,
}

impl Bundles {
    /// Bundles over these stores, signed with a certificate of the fleet's authority in the bridge's name.
    ///
    /// # Errors
    ///
    /// If the authority cannot sign.
    pub fn new(records: Records, content: Content, fleet: Fleet) -> Result<Self, AuthorityError> {
        let identity = fleet.authority().bridge_identity(records.identity().node_id())?.transport;
        Ok(Self { records, content, fleet, identity })
    }

    /// The bridge in the present life of its feeds, which is looked up anew.
    async fn local(&self) -> Result<Peer, BundleError> {
        let identity = self.records.identity();
        let epoch = identity.refresh_epoch(self.records.pool()).await?;
        Ok(Peer { node: identity.node_id(), epoch })
    }

    /// What the bridge demands of a bundle or a receipt.
    fn receiver<'r>(&'r self, local: Peer, standing: Standing, selection: &'r Selection) -> Receiver<'r> {
        let clock = self.records.clock();
        let identity = Some(&self.identity);
        Receiver { local, clock, identity, unsigned: false, accepts: &accepts, selection, standing }
    }

    /// Whether a node may have and give anything now.
    async fn check_member(&self, node: NodeId) -> Result<(), BundleError> {
        match self.fleet.may_take_part(node).await? {
            Ok(()) => Ok(()),
            Err(Refusal::Revoked) => Err(BundleError::Revoked(node)),
            Err(_) => Err(BundleError::UnknownNode(node)),
        }
    }

    /// Sees to what a session sees to meanwhile, until it is dropped: what is received here stays claimed, and a node that is revoked
    /// gets and gives nothing more.
    fn watch(&self, node: Option<NodeId>) -> Watch {
        let revoked = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let content = self.content.clone();
        tasks.spawn(async move {
            let mut due = tokio::time::interval(content.lease_renewal_interval());
            loop {
                due.tick().await;
                if let Err(error) = content.renew_leases().await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "claims on content were not renewed");
                }
            }
        });
        if let Some(node) = node {
            let (fleet, revoked) = (self.fleet.clone(), Arc::clone(&revoked));
            tasks.spawn(async move {
                let mut due = tokio::time::interval(REVOCATION_INTERVAL);
                loop {
                    due.tick().await;
                    // While PostgreSQL is away nothing is taken or given either.
                    let found = fleet.revoked_among(&[node]).await.unwrap_or_default();
                    revoked.store(!found.is_empty(), Ordering::Relaxed);
                }
            });
        }
        Watch { revoked, _tasks: tasks }
    }
}

/// What is seen to while a bundle is written or taken in.
struct Watch {
    revoked: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Watch {
    fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Relaxed)
    }
}

/// Which buckets the bridge takes from whom: those that a node may write in a session.
fn accepts(issuer: &Issuer, bucket: BucketId) -> bool {
    issuer.vouched && issuer.role == PeerRole::Node && may_access(issuer.hello.node, bucket)
}

fn open(path: &Path) -> Result<BufReader<File>, BundleError> {
    let file = File::open(path).map_err(failed("read", path))?;
    Ok(BufReader::with_capacity(BUFFER_BYTES, file))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::File { action, path, source }
}

/// Has a file under the name that it is to have, once it is whole and durable.
fn place(partial: &Path, file: &Path) -> Result<(), BundleError> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let placed = std::fs::rename(partial, file).and_then(|()| File::open(folder)?.sync_all());
    placed.map_err(failed("write", file))
}

/// The name that a file has while it is written.
fn partial(file: &Path) -> PathBuf {
    with_suffix(file, ".partial")
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    file.with_file_name(name)
}
