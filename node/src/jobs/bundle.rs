//! Bundles: a library on a stick. Chooses what goes in, reads and writes the files, and keeps what others have said in
//! their receipts.
//!
//! - `export`: writes one, whole or not at all.
//! - `import`: looks at one, takes it in, and writes the receipt.
//! - `receipts`: the last receipt of each peer, from which the next bundle for it starts.
//!
//! What always holds: a bundle carries the catalogue and collections; the node's own site only for the bridge of its
//! fleet; another site's never. A collection that is not kept here is neither written nor taken.
//!
//! Not here: the format, signatures, and what is refused (`alexandria_sync::bundle`).

mod export;
mod import;
mod receipts;

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::sync::Arc;

use alexandria_sync::absence::{Standing, may_give};
use alexandria_sync::bundle::{Issuer, Receiver};
use alexandria_sync::hlc::DRIFT_BOUND_MS;
use alexandria_sync::id::{BucketId, NodeId};
use alexandria_sync::identity::{Identity, IdentityError, PeerRole};
use alexandria_sync::merge::ReceiverClock;
use alexandria_sync::store::Peer;
use alexandria_sync::wire::{Hello, PROTOCOL_MAX, PROTOCOL_MIN};

use crate::library::Library;
use crate::store::selection::Selected;
use crate::store::{Blobs, Records, StoreError};

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
        path: std::path::PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file system of the stick takes no file of this size.
    #[error("{} is full, or takes no larger files: --max-bytes makes a smaller bundle", .0.display())]
    NoRoom(std::path::PathBuf),
    /// There is no such collection.
    #[error("there is no collection `{0}` here")]
    UnknownCollection(String),
    /// Some other file.
    #[error("{} is neither a bundle nor a receipt", .0.display())]
    NeitherOf(std::path::PathBuf),
    /// There is nothing of it here, or what is left of it is on its way out.
    #[error("the collection `{0}` is not kept on this node; `alexandria collections add` takes it up")]
    NotKept(String),
    /// A bundle for oneself.
    #[error("a bundle for this node itself")]
    ForItself,
    /// Of the bridge, to whom it is too late to bring together what is here with what is there.
    #[error(
        "this node was away from its bridge for longer than its lease: it has to read all anew over a link (`alexandria sync --once`), \
        which no bundle can do; nothing was changed"
    )]
    LeaseRanOut,
    /// It was not written.
    #[error(transparent)]
    Export(#[from] alexandria_sync::bundle::ExportError),
    /// It is not taken.
    #[error(transparent)]
    Open(#[from] alexandria_sync::bundle::OpenError),
    /// It cannot be looked at.
    #[error(transparent)]
    Survey(#[from] alexandria_sync::bundle::SurveyError),
    /// It was not taken in, or not all of it.
    #[error(transparent)]
    Import(#[from] alexandria_sync::bundle::ImportError),
    /// It was the first to show that this library was set back.
    #[error(
        "whoever wrote it has read what is not here: this library was set back to an older copy, or runs twice. It has begun a new \
         life; make the next bundle without it"
    )]
    SetBack,
    /// The receipt was not signed.
    #[error(transparent)]
    Receipt(#[from] alexandria_sync::bundle::WriteSegmentError),
    /// The key or the certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The receipt could not be put together.
    #[error("read what this node has")]
    Gather(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Closed,
}

/// A node's place in its fleet.
pub struct Member {
    /// Its key and certificate.
    pub identity: Identity,
    /// The bridge.
    pub bridge: NodeId,
}

/// Writes and takes in bundles of one library. Clones are handles on the same one.
#[derive(Clone)]
pub struct Bundles {
    library: Library,
    member: Option<Arc<Member>>,
}

impl Bundles {
    /// Bundles of `library`, signed and judged by its membership, if it is in a fleet.
    pub fn new(library: Library, member: Option<Member>) -> Self {
        Self { library, member: member.map(Arc::new) }
    }

    fn records(&self) -> &Records {
        &self.library.store().records
    }

    fn blobs(&self) -> &Blobs {
        &self.library.store().blobs
    }

    fn identity(&self) -> Option<&Identity> {
        self.member.as_ref().map(|member| &member.identity)
    }

    fn local(&self) -> Peer {
        let identity = self.records().identity();
        Peer { node: identity.node, epoch: identity.epoch }
    }

    fn is_bridge(&self, replica: NodeId) -> bool {
        self.member.as_ref().is_some_and(|member| member.bridge == replica)
    }

    /// How this node stands, as it tells another: to its bridge, its own site counts, too.
    fn standing_to(&self, reader: NodeId, selected: &Selected) -> Standing {
        if self.is_bridge(reader) { selected.to_bridge } else { selected.nearby }
    }

    /// Refuses a bundle of the bridge that this node could begin to read all anew with, and not end.
    fn check_lease(&self, issuer: &Issuer, selected: &Selected) -> Result<(), BundleError> {
        let theirs = issuer.hello.standing.unwrap_or_default();
        if self.is_bridge(issuer.hello.node) && !may_give(selected.to_bridge, theirs) {
            return Err(BundleError::LeaseRanOut);
        }
        Ok(())
    }

    /// Who this node is, at a time when its certificate is valid: a clock that was never set may be before that.
    /// Whoever is to read it is told what is remembered of it.
    async fn hello(&self, standing: Standing, to: Option<NodeId>) -> Result<Hello, BundleError> {
        let records = self.records();
        let identity = records.identity();
        let remembered = match to {
            Some(node) => records.remembered_of(node).await?,
            None => Vec::new(),
        };
        let valid_from_s = self.identity().map_or(Ok(0), Identity::valid_from_unix_s)?;
        Ok(Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            node: identity.node,
            incarnation: identity.incarnation,
            epoch: identity.epoch,
            unix_ms: records.now_unix_ms().max(valid_from_s.saturating_mul(1000)),
            clock_quality: records.clock_quality(),
            software: concat!("alexandria ", env!("CARGO_PKG_VERSION")).to_owned(),
            features: 0,
            name: None,
            remembered,
            standing: Some(standing),
        })
    }

    /// Calls `work` with what this node demands of a bundle or a receipt.
    fn receiver<'r>(&'r self, unsigned: bool, takes: &'r Takes) -> Receiver<'r> {
        let records = self.records();
        let clock = ReceiverClock {
            unix_ms: records.now_unix_ms(),
            quality: records.clock_quality(),
            drift_bound_ms: DRIFT_BOUND_MS,
        };
        Receiver {
            local: self.local(),
            clock,
            identity: self.identity(),
            unsigned,
            accepts: &*takes.accepts,
            selection: &takes.selected.selection,
            standing: takes.selected.nearby,
        }
    }

    /// Which buckets this node takes from whom: those that it would pull in a session that began now.
    async fn takes(&self) -> Result<Takes, StoreError> {
        let selected = self.records().selected().await?;
        if selected.selection.all_anew {
            return Err(StoreError::ReadsAnew);
        }
        let own = self.local().node;
        let accepts = move |issuer: &Issuer, bucket| match bucket {
            BucketId::Catalogue | BucketId::Collection(_) => true,
            BucketId::Site(site) => site == own && issuer.vouched && issuer.role == PeerRole::Bridge,
        };
        Ok(Takes { accepts: Box::new(accepts), selected })
    }
}

/// Whether a bucket may come from someone.
type Accepts = dyn Fn(&Issuer, BucketId) -> bool + Send + Sync;

/// What this node takes of bundles.
struct Takes {
    /// What it may have from whom.
    accepts: Box<Accepts>,
    /// What it keeps.
    selected: Selected,
}

fn open(path: &Path) -> Result<BufReader<File>, BundleError> {
    let file = File::open(path).map_err(failed("read", path))?;
    Ok(BufReader::with_capacity(BUFFER_BYTES, file))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::File { action, path, source }
}

/// Runs work that reads and writes files, and waits for the store in between, away from the threads that serve
/// connections.
async fn blocking<T: Send + 'static>(
    work: impl AsyncFnOnce() -> Result<T, BundleError> + Send + 'static,
) -> Result<T, BundleError> {
    let runtime = tokio::runtime::Handle::current();
    // Fails only if `work` panicked or the runtime is being shut down.
    tokio::task::spawn_blocking(move || runtime.block_on(work())).await.unwrap_or(Err(BundleError::Closed))
}

/// The whole chain of causes, for whoever asked.
fn described(error: BundleError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}
