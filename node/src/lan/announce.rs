//! Says on the local network that this node is here, and hears of others: DNS-SD (RFC 6763) over multicast DNS (RFC 6762).
//!
//! Anybody on the network reads what is announced, so it says only what they may know: that a node of some fleet is here,
//! its id, which is random, and its ports. What is heard may be made up: it is a [`Hint`], and only its form is checked here.
//!
//! Records that are not heard again within their time to live are told as [`Heard::Gone`].

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use alexandria_sync::id::NodeId;
use mdns_sd::{Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo, TxtProperties};

use super::peers::Hint;

/// The service: sessions between nodes, over QUIC at the port of the SRV record.
const SERVICE: &str = "_alexandria-sync._udp.local.";
/// The form of the TXT record. Another one is another protocol's business.
const VERSION: &str = "1";
const KEY_VERSION: &str = "v";
const KEY_NODE: &str = "id";
const KEY_FLEET: &str = "fleet";
const KEY_TCP: &str = "tcp";

/// Something heard of another node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Heard {
    /// It is here.
    Hint(Hint),
    /// It has gone, or has not been heard for long.
    Gone(NodeId),
}

/// This node's announcement, and an ear for others. What was announced is taken back by [`Self::close`].
pub(super) struct Announcement {
    daemon: ServiceDaemon,
    events: Receiver<ServiceEvent>,
    name: String,
    fleet: String,
}

impl Announcement {
    /// Announces that `here` takes sessions at `listen`, and over TCP at `tcp_port`.
    ///
    /// # Errors
    ///
    /// [`mdns_sd::Error`] if there is no socket for it.
    pub(super) fn start(
        here: NodeId,
        fleet: [u8; 8],
        listen: SocketAddr,
        tcp_port: Option<u16>,
    ) -> Result<Self, mdns_sd::Error> {
        let fleet = hex::encode(fleet);
        let instance = here.to_string();
        let host = format!("alexandria-{instance}.local.");
        let mut about =
            vec![(KEY_VERSION, VERSION.to_owned()), (KEY_NODE, instance.clone()), (KEY_FLEET, fleet.clone())];
        about.extend(tcp_port.map(|port| (KEY_TCP, port.to_string())));
        let service = if listen.ip().is_unspecified() {
            ServiceInfo::new(SERVICE, &instance, &host, "", listen.port(), &about[..])?.enable_addr_auto()
        } else {
            ServiceInfo::new(SERVICE, &instance, &host, listen.ip(), listen.port(), &about[..])?
        };
        let daemon = ServiceDaemon::new()?;
        let name = service.get_fullname().to_owned();
        daemon.register(service)?;
        let events = daemon.browse(SERVICE)?;
        Ok(Self { daemon, events, name, fleet })
    }

    /// The next thing heard of a node of this fleet; never, once the service has ended.
    pub(super) async fn next(&self) -> Heard {
        while let Ok(event) = self.events.recv_async().await {
            let heard = match event {
                ServiceEvent::ServiceResolved(found) => understand(&found, &self.fleet).map(Heard::Hint),
                ServiceEvent::ServiceRemoved(_, name) => instance(&name).map(Heard::Gone),
                _ => None,
            };
            if let Some(heard) = heard {
                return heard;
            }
        }
        std::future::pending().await
    }

    /// Takes back what was announced, so that others know at once.
    pub(super) async fn close(self) {
        if let Ok(done) = self.daemon.unregister(&self.name) {
            let _ = done.recv_async().await;
        }
        if let Ok(done) = self.daemon.shutdown() {
            let _ = done.recv_async().await;
        }
    }
}

fn understand(found: &ResolvedService, fleet: &str) -> Option<Hint> {
    let addresses = found.get_addresses().iter().map(|address| socket_address(address, found.get_port()));
    hint(&found.fullname, &found.txt_properties, addresses.collect(), fleet)
}

/// What the announcement says, if it has the right form and is of the fleet.
fn hint(name: &str, about: &TxtProperties, mut addresses: Vec<SocketAddr>, fleet: &str) -> Option<Hint> {
    let text = |key| about.get_property_val_str(key);
    let node: NodeId = text(KEY_NODE)?.parse().ok()?;
    let is_ours = text(KEY_VERSION) == Some(VERSION) && text(KEY_FLEET) == Some(fleet) && instance(name) == Some(node);
    let tcp_port = text(KEY_TCP).and_then(|port| port.parse().ok()).filter(|&port| port > 0);
    // The same order each time, so that what is heard again is not taken for news; IPv4 first, which needs no zone.
    addresses.sort_unstable();
    is_ours.then_some(Hint { node, addresses, tcp_port })
}

/// The node that an instance is named after.
fn instance(name: &str) -> Option<NodeId> {
    name.strip_suffix(SERVICE)?.strip_suffix('.')?.parse().ok()
}

fn socket_address(address: &ScopedIp, port: u16) -> SocketAddr {
    match address {
        ScopedIp::V6(scoped) => SocketAddrV6::new(*scoped.addr(), port, 0, scoped.scope_id().index).into(),
        other => SocketAddr::new(IpAddr::to_canonical(&other.to_ip_addr()), port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: &str = "0102030405060708";

    fn about(pairs: &[(&str, &str)]) -> TxtProperties {
        let service = ServiceInfo::new(SERVICE, "x", "x.local.", "10.0.0.1", 1, pairs).unwrap();
        service.as_resolved_service().txt_properties
    }

    #[test]
    fn only_an_announcement_of_this_fleet_and_of_the_right_form_is_a_hint() {
        let id = NodeId::from_bytes([7; 16]);
        let text = id.to_string();
        let name = format!("{text}.{SERVICE}");
        let good = [("v", "1"), ("id", &*text), ("fleet", FLEET), ("tcp", "99")];
        let at: Vec<SocketAddr> = vec!["10.0.0.2:5".parse().unwrap(), "10.0.0.1:5".parse().unwrap()];
        let heard = hint(&name, &about(&good), at.clone(), FLEET).unwrap();
        assert_eq!((heard.node, heard.tcp_port), (id, Some(99)));
        assert_eq!(heard.addresses, [at[1], at[0]]);

        for (key, value) in [("v", "2"), ("id", "x"), ("fleet", "00"), ("fleet", "")] {
            let bad: Vec<(&str, &str)> =
                good.iter().map(|&(known, was)| (known, if known == key { value } else { was })).collect();
            assert_eq!(hint(&name, &about(&bad), at.clone(), FLEET), None, "{key}={value}");
        }
        for missing in ["v", "id", "fleet"] {
            let left: Vec<(&str, &str)> = good.iter().copied().filter(|(key, _)| *key != missing).collect();
            assert_eq!(hint(&name, &about(&left), at.clone(), FLEET), None, "without {missing}");
        }
        let other = format!("{}.{SERVICE}", NodeId::from_bytes([8; 16]));
        assert_eq!(hint(&other, &about(&good), at.clone(), FLEET), None, "it speaks for somebody else");
        for port in ["0", "65536", "-1", "x"] {
            let bad = [("v", "1"), ("id", &*text), ("fleet", FLEET), ("tcp", port)];
            assert_eq!(hint(&name, &about(&bad), at.clone(), FLEET).unwrap().tcp_port, None, "{port}");
        }
    }
}
