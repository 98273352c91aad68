//! The way to the bridge: joining a fleet, dialling, and running sessions one after the other.
//!
//! - [`enroll`]: a one-time token becomes a certificate.
//! - [`membership`]: what the node keeps of it.
//! - `link`: whether the link may be used, and how far. `tell`: what the library hears of it.
//! - [`Replicator`]: dials, runs a session until it ends, and dials again after a growing, jittered wait.
//! - `companions`: what goes with a session, and is missed when it fails.
//! - `connect`: over QUIC or TCP, as `transport_choice` decides from what `network_memory` knows of the `network`.
//!
//! Not here: what is said in a session (`alexandria_sync::session`), and what is kept (`store`).

pub mod enroll;
pub mod membership;

mod companions;
mod connect;
mod dial;
mod link;
mod network;
mod network_memory;
mod over_the_link;
mod relay;
mod selection;
mod tell;
mod transport_choice;

pub(crate) use companions::Companions;
pub use dial::{Replicator, SyncEnd};
pub use link::LinkConfig;
pub(crate) use relay::relay;
pub use transport_choice::TransportSetting;

use serde::{Deserialize, Serialize};

/// The way to the bridge.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplicationConfig {
    /// Dial by itself whenever no session is open. Without it only `alexandria sync --once` does.
    pub automatic: bool,
    /// The first wait after a session ended or could not be opened, in seconds.
    pub retry_min_s: u64,
    /// The longest wait, in seconds.
    pub retry_max_s: u64,
    /// `sync --once` gives up after this long without progress, in seconds.
    pub stall_timeout_s: u64,
    /// The bridge's address for replication, HOST:PORT; what enrolment said if not given.
    pub bridge: Option<String>,
    /// What the link may be used for.
    pub link: LinkConfig,
    /// The same over TCP; the one for QUIC, or what enrolment said, if not given.
    pub bridge_tcp: Option<String>,
    /// What sessions are carried by.
    pub transport: TransportSetting,
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        Self {
            automatic: true,
            retry_min_s: 1,
            retry_max_s: 300,
            stall_timeout_s: 120,
            bridge: None,
            link: LinkConfig::default(),
            bridge_tcp: None,
            transport: TransportSetting::Auto,
        }
    }
}
