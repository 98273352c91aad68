//! Which network the node is on, as far as the way to the bridge is concerned: what was learned on it holds when the node
//! comes back to it.
//!
//! It is told by the router that leads to the bridge and by that router's hardware address, which are there without the
//! internet. Where the system does not say, the node's own address has to do.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Bytes of a table of the system that are looked at, at most.
const TABLE_BYTES_MAX: usize = 256 * 1024;
/// A route that leads through a router (`RTF_GATEWAY`).
const FLAG_GATEWAY: u32 = 2;

/// A network that leads to a bridge.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Network {
    /// The way that packets take, and where to.
    route: String,
    /// The router's hardware address, if it is known at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hardware: Option<String>,
}

impl Network {
    /// The one that leads to `bridge`, which people call `name`, right now.
    pub(super) fn towards(bridge: SocketAddr, name: &str) -> Self {
        let way = Way::of_this_machine(bridge.ip());
        Self { route: format!("{} to {name}", way.text), hardware: way.hardware }
    }

    /// Whether it is the same one, for all that is known.
    pub(super) fn is(&self, other: &Self) -> bool {
        let is_other_router = matches!((&self.hardware, &other.hardware), (Some(here), Some(there)) if here != there);
        self.route == other.route && !is_other_router
    }
}

struct Way {
    text: String,
    hardware: Option<String>,
}

impl Way {
    fn of_this_machine(to: IpAddr) -> Self {
        if to.is_loopback() {
            return Self { text: "this machine".to_owned(), hardware: None };
        }
        let table = |path: &str| table(Path::new(path)).unwrap_or_default();
        let route = match to {
            IpAddr::V4(_) => ipv4_route(&table("/proc/net/route"), to),
            IpAddr::V6(_) => ipv6_route(&table("/proc/net/ipv6_route"), to),
        };
        match route {
            Some(Route { router: Some(router), interface }) => {
                let hardware = hardware_address(&table("/proc/net/arp"), router);
                Self { text: format!("{router} on {interface}"), hardware }
            }
            Some(Route { router: None, interface }) => Self { text: interface, hardware: None },
            None => Self { text: own_prefix(to), hardware: None },
        }
    }
}

fn table(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(TABLE_BYTES_MAX as u64).read_to_string(&mut text).ok()?;
    Some(text)
}

#[derive(Debug, Eq, PartialEq)]
struct Route {
    router: Option<IpAddr>,
    interface: String,
}

/// The most specific route of Linux's table (`/proc/net/route`) that leads to an address.
fn ipv4_route(table: &str, to: IpAddr) -> Option<Route> {
    let IpAddr::V4(to) = to else { return None };
    // The table has addresses as the processor does.
    let to = u32::from_ne_bytes(to.octets());
    let routes = table.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let hex = |column: usize| u32::from_str_radix(columns.get(column)?, 16).ok();
        let (destination, router, flags, mask) = (hex(1)?, hex(2)?, hex(3)?, hex(7)?);
        let metric: u32 = columns.get(6)?.parse().ok()?;
        let router = (flags & FLAG_GATEWAY != 0).then(|| IpAddr::from(router.to_ne_bytes()));
        let route = Route { router, interface: (*columns.first()?).to_owned() };
        (to & mask == destination).then_some((mask.count_ones(), metric, route))
    });
    most_specific(routes)
}

/// The same for `/proc/net/ipv6_route`.
fn ipv6_route(table: &str, to: IpAddr) -> Option<Route> {
    let IpAddr::V6(to) = to else { return None };
    let to = u128::from(to);
    let routes = table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let hex = |column: usize| u128::from_str_radix(columns.get(column)?, 16).ok();
        let (destination, length, router) = (hex(0)?, u32::try_from(hex(1)?).ok()?, hex(4)?);
        let (metric, flags) = (u32::try_from(hex(5)?).ok()?, u32::try_from(hex(8)?).ok()?);
        let mask = if length == 0 { 0 } else { u128::MAX.checked_shl(128 - length)? };
        let router = (flags & FLAG_GATEWAY != 0).then(|| IpAddr::from(router.to_be_bytes()));
        let interface = (*columns.get(9)?).to_owned();
        // The system lists what it refuses on the loopback.
        (to & mask == destination && interface != "lo").then_some((length, metric, Route { router, interface }))
    });
    most_specific(routes)
}

fn most_specific(routes: impl Iterator<Item = (u32, u32, Route)>) -> Option<Route> {
    routes.min_by_key(|(length, metric, _)| (std::cmp::Reverse(*length), *metric)).map(|(_, _, route)| route)
}

/// The hardware address that `/proc/net/arp` has for a neighbour.
fn hardware_address(table: &str, of: IpAddr) -> Option<String> {
    let of = of.to_string();
    let line = table.lines().skip(1).find(|line| line.split_whitespace().next() == Some(of.as_str()))?;
    let address = line.split_whitespace().nth(3)?;
    (address != "00:00:00:00:00:00").then(|| address.to_owned())
}

/// The network part of the address that the system would send from.
fn own_prefix(to: IpAddr) -> String {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    // Nothing is sent by this.
    let own = UdpSocket::bind(any).and_then(|socket| {
        socket.connect((to, 9))?;
        socket.local_addr()
    });
    match own.map(|own| own.ip()) {
        Ok(IpAddr::V4(own)) => {
            let [first, second, third, _] = own.octets();
            format!("{first}.{second}.{third}.0/24")
        }
        Ok(IpAddr::V6(own)) => {
            let [first, second, third, ..] = own.segments();
            format!("{first:x}:{second:x}:{third:x}::/48")
        }
        Err(_) => "no network".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
        eth0\t00000000\t010AA8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        eth0\t000AA8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";

    #[cfg(target_endian = "little")]
    #[test]
    fn the_route_is_the_most_specific_and_then_the_cheapest() {
        let far = ipv4_route(ROUTES, [203, 0, 113, 5].into()).unwrap();
        assert_eq!(far, Route { router: Some([192, 168, 10, 1].into()), interface: "eth0".into() });
        let near = ipv4_route(ROUTES, [192, 168, 10, 7].into()).unwrap();
        assert_eq!(near, Route { router: None, interface: "eth0".into() });
        assert_eq!(ipv4_route("", [203, 0, 113, 5].into()), None);
        assert_eq!(ipv4_route("nonsense\nx y z\n", [203, 0, 113, 5].into()), None);
    }

    #[test]
    fn ipv6_routes_are_read_too() {
        let table = "20010db8000000000000000000000000 40 00000000000000000000000000000000 00 \
            00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n\
            00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
            fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n\
            00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
            00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";
        let far = ipv6_route(table, "2a00::1".parse().unwrap()).unwrap();
        assert_eq!(far, Route { router: Some("fe80::1".parse().unwrap()), interface: "eth0".into() });
        assert_eq!(ipv6_route(table, "2001:db8::5".parse().unwrap()).unwrap().router, None);
    }

    /// Two networks with the same addresses are told apart by their routers; one whose router is not known at the moment
    /// is taken for the one that it looks like.
    #[test]
    fn networks_are_told_apart_by_route_and_router() {
        let arp = "IP address HW type Flags HW address Mask Device\n192.168.1.1 0x1 0x2 aa:bb:cc:00:11:22 * wlan0\n";
        assert_eq!(hardware_address(arp, [192, 168, 1, 1].into()).as_deref(), Some("aa:bb:cc:00:11:22"));
        let network = |hardware: Option<&str>| Network {
            route: "192.168.1.1 on wlan0 to bridge:4433".into(),
            hardware: hardware.map(str::to_owned),
        };
        assert!(network(Some("a")).is(&network(Some("a"))) && network(Some("a")).is(&network(None)));
        assert!(!network(Some("a")).is(&network(Some("b"))));
        let elsewhere = Network { route: "10.0.0.1 on wlan0 to bridge:4433".into(), hardware: None };
        assert!(!elsewhere.is(&network(None)));
    }
}
