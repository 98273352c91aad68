//! The other nodes of the fleet on the local network: found, met, and replicated with, with no bridge in reach.
//!
//! - `announce`: says that this node is here, and hears of others (DNS-SD over multicast DNS).
//! - `peers`: what is known of others, bounded, and whom to dial when.
//! - [`meeting`]: listens, dials, and keeps one session with each.
//! - `session`: one of them.
//!
//! What always holds:
//! - What is heard over multicast is a hint, never trusted: who is dialled is named by the certificate that it shows, signed
//!   by the authority of this node's fleet, or nothing is said to it.
//! - Two nodes hold one session: the one with the smaller id dials.
//! - Catalogue and collections move, in both directions; nobody's site does.
//!
//! Not here: what is said in a session (`alexandria_sync::session`), and the way to the bridge (`replication`).

pub mod meeting;

mod announce;
mod peers;
mod session;

use std::net::{IpAddr, SocketAddr};

use alexandria_sync::id::NodeId;
use serde::{Deserialize, Serialize};

pub use meeting::Lan;
pub use peers::StaticPeer;

/// The other nodes on the local network.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LanConfig {
    /// Replicate with other nodes of the fleet; if not said, whenever the library is served to the network.
    pub enabled: Option<bool>,
    /// Where other nodes are listened for, over UDP and TCP; if not given, at the address of the library, on a port that is
    /// free.
    pub listen: Option<SocketAddr>,
    /// What readers at other nodes are told that this one is called; the name of the machine if not given.
    pub name: Option<String>,
    /// Announce this node and look for others by multicast DNS.
    pub discovery: bool,
    /// Nodes that are dialled without being found: `NODE@HOST:PORT`.
    pub peers: Vec<StaticPeer>,
    /// Nodes that are not let in, and not dialled, whatever their certificate says.
    pub denied: Vec<NodeId>,
    /// Sessions with other nodes at once, at most.
    pub sessions_max: usize,
}

impl Default for LanConfig {
    fn default() -> Self {
        let (peers, denied) = (Vec::new(), Vec::new());
        Self { enabled: None, listen: None, name: None, discovery: true, peers, denied, sessions_max: 16 }
    }
}

impl LanConfig {
    /// Where to listen for other nodes, if at all, when the library is served at `library`.
    pub fn address(&self, library: SocketAddr) -> Option<SocketAddr> {
        let is_wanted = self.enabled.unwrap_or(!library.ip().is_loopback());
        is_wanted.then(|| self.listen.unwrap_or(SocketAddr::new(library.ip(), 0)))
    }

    /// Whether to announce the node that listens at `address`. Multicast does not reach the loopback.
    fn announces(&self, address: IpAddr) -> bool {
        self.discovery && !address.is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_serves_only_itself_meets_nobody_unless_told_to() {
        let library = |text: &str| text.parse::<SocketAddr>().unwrap();
        let config = LanConfig::default();
        assert_eq!(config.address(library("127.0.0.1:8080")), None);
        assert_eq!(config.address(library("[::1]:8080")), None);
        assert_eq!(config.address(library("0.0.0.0:8080")), Some(library("0.0.0.0:0")));
        let off = LanConfig { enabled: Some(false), ..config.clone() };
        assert_eq!(off.address(library("0.0.0.0:8080")), None);
        let on = LanConfig { enabled: Some(true), listen: Some(library("127.0.0.2:99")), ..config };
        assert_eq!(on.address(library("127.0.0.1:8080")), Some(library("127.0.0.2:99")));
        assert!(!on.announces(library("127.0.0.2:99").ip()));
    }
}
