//! A fleet without a bridge: an authority whose certificates are put where enrolment puts them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{SystemTime, UNIX_EPOCH},
};

use alexandria_sync::{
    id::NodeId,
    identity::{Authority, PeerIdentity, PeerRole, SigningRequest},
};
use serde_json::json;

use crate::node::NodeProcess;

/// The authority of a fleet.
pub struct FleetAuthority {
    authority: Authority,
}

impl FleetAuthority {
    /// Makes a new one.
    pub fn make() -> Self {
        Self { authority: Authority::make("fleet of the tests", now_unix_s()).expect("the system gives randomness") }
    }

    /// Makes a node a member. Its bridge is nowhere.
    pub async fn admit(&self, node: &NodeProcess) -> NodeId {
        let status = node.status().await;
        let id = status["node"].as_str().and_then(|id| id.parse().ok());
        let id = id.unwrap_or_else(|| panic!("a node has an id: {status}"));
        let named = PeerIdentity { role: PeerRole::Node, id };
        let request = SigningRequest::make(named).expect("the system gives randomness");
        let signed = self.authority.sign(&request.request_pem, named, *id.as_bytes(), now_unix_s(), 365);
        let membership = json!({
            "certificate_pem": signed.expect("the request is valid"),
            "authority_pem": self.authority.certificate_pem(),
            "bridge": NodeId::from_bytes([0xbb; 16]),
            "address": "127.0.0.1:9",
        });
        write_private(node, "fleet-key.pem", &request.key_pem);
        write_private(node, "fleet.json", &membership.to_string());
        id
    }
}

fn write_private(node: &NodeProcess, name: &str, text: &str) {
    let path = node.data().join(name);
    fs::write(&path, text)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
        .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs()
}
