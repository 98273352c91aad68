//! The fleet: who belongs to it, and how a node gets in and out.
//!
//! - [`authority`]: the certificate authority that signs node certificates.
//! - [`token`]: one-time tokens that let a node in.
//! - [`enrolment`]: a token and a signing request become a certificate, once.
//! - [`listener`]: the TLS server that nodes enrol at.
//! - [`nodes`]: the list of nodes, revocation, and who may open a session.
//! - [`iot`]: telling AWS IoT, and telling it later when it was away.
//!
//! Invariants:
//! - A token lets in one node with one key. The same node may ask again with the same key and gets the same answer.
//! - A node's private key never leaves it; the authority's key is never in the database.
//! - A revoked node gets nothing, from the commit of its revocation on.
//! - The database decides; AWS IoT is brought in line with it, however long that takes.

pub mod authority;
pub mod enrolment;
pub mod iot;
pub mod listener;
pub mod nodes;
mod revocations;
pub mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::Notify;
use uuid::Uuid;

use self::authority::Authority;
use crate::metrics::Metrics;
use crate::postgres::{ACQUIRE_TIMEOUT, STATEMENT_PATIENCE};
use crate::together::Together;

/// The `[fleet]` section.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The file of the authority's private key (PKCS #8 PEM), readable by its owner only. Made on first use.
    pub ca_key_file: PathBuf,
    /// The key itself, instead of a file: for replicas that get it as a secret in their environment.
    pub ca_key_pem: Option<String>,
    /// For how many hours a token is good, unless said otherwise.
    pub token_hours: u32,
    /// For how many days a node's certificate is good.
    pub certificate_days: u32,
    /// For how long after its last complete session a node may come back as if nothing were, in seconds. Deletes that are older are
    /// forgotten; a node that was away for longer reads all anew.
    pub lease_s: u64,
    /// What the bridge's processes share so that a node's session resumes at any of them. It follows from the authority's
    /// key, which they share too, if not given.
    pub ticket_secret: Option<String>,
}

/// Characters of `fleet.ticket_secret`, at least: who guesses it can pose as any node.
pub const TICKET_SECRET_CHARS_MIN: usize = 32;

impl Default for Config {
    fn default() -> Self {
        Self {
            ca_key_file: "fleet-ca.key".into(),
            ca_key_pem: None,
            token_hours: 7 * 24,
            certificate_days: 825,
            lease_s: 180 * 24 * 60 * 60,
            ticket_secret: None,
        }
    }
}

/// The fleet, as one process serves it.
#[derive(Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
}

struct Shared {
    pool: PgPool,
    authority: Authority,
    config: Config,
    metrics: Metrics,
    /// Rung when AWS IoT has something to be told.
    iot_waiting: Notify,
    admitting: Together<Uuid, Option<nodes::Found>>,
    noting: Together<(Uuid, nodes::Note), ()>,
}

impl Fleet {
    /// Opens the fleet on a migrated database; makes its authority on first use.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away, or the authority's key is missing or not the right one.
    pub async fn open(pool: PgPool, config: Config, metrics: Metrics) -> Result<Self, authority::AuthorityError> {
        let authority = Authority::open(&pool, &config).await?;
        let iot_waiting = Notify::new();
        let admitting = Together::new(ACQUIRE_TIMEOUT, STATEMENT_PATIENCE);
        let noting = Together::new(ACQUIRE_TIMEOUT, STATEMENT_PATIENCE);
        Ok(Self { shared: Arc::new(Shared { pool, authority, config, metrics, iot_waiting, admitting, noting }) })
    }

    /// How long a lease is.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.shared.config.lease_s)
    }

    /// Who signs the fleet's certificates.
    pub fn authority(&self) -> &Authority {
        &self.shared.authority
    }

    fn pool(&self) -> &PgPool {
        &self.shared.pool
    }

    fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }
}
