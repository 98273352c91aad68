//! What is known of other nodes nearby, and whom to dial when: a bounded table, without I/O and without a clock.
//!
//! What is heard is a hint that anybody on the network may have made up. So only addresses of local networks are dialled,
//! few for each node, and a table that is full gives up those that did not answer first. Peers that the operator named stay;
//! the others go when they say so, or when what was heard of them is no longer fresh (`announce` tells).

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use alexandria_sync::id::NodeId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Nodes that are known by what was heard, at most.
pub(super) const HEARD_MAX: usize = 64;
/// Addresses that are kept of one of them, at most.
pub(super) const ADDRESSES_MAX: usize = 4;
/// The first wait after a session ended or could not be opened, and the longest. A wait is this, and up to half as long again.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_mins(1);

/// A node that the operator has named: `NODE@HOST:PORT`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct StaticPeer {
    /// Who is expected there.
    pub node: NodeId,
    /// Where: HOST:PORT.
    pub address: String,
}

impl FromStr for StaticPeer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("`{text}` is not of the form NODE@HOST:PORT");
        let (node, address) = text.split_once('@').ok_or_else(malformed)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(malformed)?;
        let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
        match node.parse() {
            Ok(node) if is_port && !host.is_empty() => Ok(Self { node, address: address.to_owned() }),
            _ => Err(malformed()),
        }
    }
}

impl TryFrom<String> for StaticPeer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<StaticPeer> for String {
    fn from(peer: StaticPeer) -> Self {
        peer.to_string()
    }
}

impl fmt::Display for StaticPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.node, self.address)
    }
}

/// What another node says of itself over multicast, or somebody in its name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Hint {
    pub(super) node: NodeId,
    /// Where it takes sessions over QUIC, at most [`ADDRESSES_MAX`].
    pub(super) addresses: Vec<SocketAddr>,
    /// The port for TCP, if it takes sessions over that.
    pub(super) tcp_port: Option<u16>,
}

/// Where to dial a node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// As heard.
    Heard(Hint),
    /// As the operator named it, HOST:PORT, for UDP and TCP.
    Named(String),
}

#[derive(Debug)]
struct Known {
    /// As the operator named it.
    named: Option<String>,
    heard: Option<Hint>,
    /// Attempts that failed since the last session.
    failures: u32,
    /// Nobody dials before this.
    due: Instant,
    /// An attempt or a session is under way.
    is_busy: bool,
}

/// Who is dialled, and who dials.
#[derive(Debug)]
pub(super) struct Peers {
    here: NodeId,
    denied: Vec<NodeId>,
    known: BTreeMap<NodeId, Known>,
}

impl Peers {
    pub(super) fn new(here: NodeId, named: &[StaticPeer], denied: &[NodeId], now: Instant) -> Self {
        let mut peers = Self { here, denied: denied.to_vec(), known: BTreeMap::new() };
        for peer in named {
            if peers.may_meet(peer.node) {
                let named = Some(peer.address.clone());
                peers.known.insert(peer.node, Known { named, heard: None, failures: 0, due: now, is_busy: false });
            }
        }
        peers
    }

    /// Whether a session with the node is wanted at all.
    pub(super) fn may_meet(&self, node: NodeId) -> bool {
        node != self.here && node != NodeId::default() && !self.denied.contains(&node)
    }

    /// Whether this node dials the other, rather than being dialled by it.
    pub(super) fn dials(&self, node: NodeId) -> bool {
        self.here < node
    }

    /// Takes note of what was heard. Returns whether the node was not known.
    pub(super) fn hear(&mut self, mut hint: Hint, now: Instant) -> bool {
        hint.addresses.retain(|address| is_local(address.ip()) && address.port() > 0);
        hint.addresses.truncate(ADDRESSES_MAX);
        if hint.addresses.is_empty() || !self.may_meet(hint.node) {
            return false;
        }
        if let Some(known) = self.known.get_mut(&hint.node) {
            let is_news = known.heard.as_ref() != Some(&hint);
            if is_news && !known.is_busy {
                // It has moved, or is back: what failed before says nothing.
                (known.failures, known.due) = (0, now);
            }
            let was_known = known.heard.replace(hint).is_some() || known.named.is_some();
            return !was_known;
        }
        if self.known.values().filter(|known| known.named.is_none()).count() >= HEARD_MAX && !self.make_room() {
            return false;
        }
        let known = Known { named: None, heard: Some(hint.clone()), failures: 0, due: now, is_busy: false };
        self.known.insert(hint.node, known);
        true
    }

    /// The node has said that it goes, or what was heard of it is old.
    pub(super) fn leave(&mut self, node: NodeId) {
        if let Some(known) = self.known.get_mut(&node) {
            known.heard = None;
        }
        self.forget_empty();
    }

    /// Those to dial now, at most `max`, who has waited longest first. It counts as begun: [`Self::ended`] is to follow for each.
    pub(super) fn due(&mut self, now: Instant, max: usize) -> Vec<(NodeId, Place)> {
        let here = self.here;
        let waiting = |node: &NodeId, known: &Known| here < *node && !known.is_busy && known.due <= now;
        let mut due: Vec<_> = self.known.iter_mut().filter(|(node, known)| waiting(node, known)).collect();
        due.sort_by_key(|(_, known)| known.due);
        let begin = |(&node, known): (&NodeId, &mut Known)| {
            let heard = known.heard.clone().map(Place::Heard);
            let place = known.named.clone().map(Place::Named).or(heard)?;
            known.is_busy = true;
            Some((node, place))
        };
        due.into_iter().filter_map(begin).take(max).collect()
    }

    /// With whom an attempt or a session that this node began is under way.
    pub(super) fn busy(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.known.iter().filter(|(_, known)| known.is_busy).map(|(&node, _)| node)
    }

    /// An attempt has ended, after a session or without one. `chance` is from 0 to 1.
    pub(super) fn ended(&mut self, node: NodeId, met: bool, now: Instant, chance: f64) {
        let Some(known) = self.known.get_mut(&node) else { return };
        known.is_busy = false;
        known.failures = if met { 0 } else { known.failures.saturating_add(1) };
        let doublings = known.failures.saturating_sub(1).min(16);
        let wait = (WAIT_MIN * 2u32.pow(doublings)).min(WAIT_MAX);
        known.due = now + wait.mul_f64(1.0 + chance / 2.0);
        self.forget_empty();
    }

    /// Everybody known, with the address that was heard or named last.
    pub(super) fn list(&self) -> impl Iterator<Item = (NodeId, String)> + '_ {
        self.known.iter().map(|(&node, known)| {
            let heard = known.heard.as_ref().and_then(|hint| hint.addresses.first()).map(ToString::to_string);
            (node, known.named.clone().or(heard).unwrap_or_default())
        })
    }

    /// Gives up the one that failed most often, if one did.
    fn make_room(&mut self) -> bool {
        let idle = self.known.iter().filter(|(_, known)| known.named.is_none() && !known.is_busy && known.failures > 0);
        let worst = idle.max_by_key(|(_, known)| known.failures).map(|(&node, _)| node);
        worst.is_some_and(|node| self.known.remove(&node).is_some())
    }

    fn forget_empty(&mut self) {
        self.known.retain(|_, known| known.is_busy || known.named.is_some() || known.heard.is_some());
    }
}

/// Whether the address is one of a local network: nobody can make this node send anything to elsewhere.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => is_unique_local(address) || is_link_local(address),
    }
}

fn is_unique_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xfe00 == 0xfc00
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HERE: NodeId = NodeId::from_bytes([100; 16]);

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn hint(number: u8, address: &str) -> Hint {
        Hint { node: node(number), addresses: vec![address.parse().unwrap()], tcp_port: None }
    }

    fn peers(now: Instant) -> Peers {
        Peers::new(HERE, &[], &[node(150)], now)
    }

    #[test]
    fn of_two_nodes_one_dials() {
        for (here, there) in [(1, 2), (2, 1)] {
            let now = Instant::now();
            let mut peers = Peers::new(node(here), &[], &[], now);
            peers.hear(hint(there, "10.0.0.1:1"), now);
            assert_eq!(peers.due(now, usize::MAX).len(), usize::from(here < there));
            assert_eq!(peers.dials(node(there)), here < there);
        }
    }

    #[test]
    fn nobody_is_sent_to_addresses_elsewhere_to_itself_or_to_who_is_denied() {
        let now = Instant::now();
        let mut peers = peers(now);
        for address in ["8.8.8.8:53", "127.0.0.1:80", "[2001:db8::1]:1", "224.0.0.251:5353", "10.0.0.1:0", "0.0.0.0:9"]
        {
            assert!(!peers.hear(hint(200, address), now), "{address}");
        }
        assert!(!peers.hear(hint(100, "10.0.0.1:1"), now));
        assert!(!peers.hear(hint(150, "10.0.0.1:1"), now));
        assert!(peers.due(now, usize::MAX).is_empty());
        for (number, address) in
            [(200, "192.168.1.2:1"), (201, "[fe80::1]:1"), (202, "[fd00::1]:1"), (203, "10.1.2.3:1")]
        {
            assert!(peers.hear(hint(number, address), now), "{address}");
        }
        assert_eq!(peers.due(now, usize::MAX).len(), 4);
    }

    #[test]
    fn a_full_table_gives_up_who_did_not_answer_and_keeps_the_others() {
        let now = Instant::now();
        let mut peers = peers(now);
        for number in 0..HEARD_MAX as u8 {
            assert!(peers.hear(hint(101 + number % 49, &format!("10.0.0.{number}:1")), now) || number >= 49);
        }
        let mut ids = (0u16..).map(|number| {
            let mut id = [0xff; 16];
            id[14..].copy_from_slice(&number.to_be_bytes());
            NodeId::from_bytes(id)
        });
        let hint_of = |node| Hint { node, ..hint(0, "10.0.0.9:1") };
        while peers.known.len() < HEARD_MAX {
            assert!(peers.hear(hint_of(ids.next().unwrap()), now));
        }
        assert!(!peers.hear(hint_of(ids.next().unwrap()), now), "the table is full");
        let dialled = peers.due(now, usize::MAX);
        let (failed, _) = dialled[0].clone();
        peers.ended(failed, false, now, 0.0);
        assert!(peers.hear(hint_of(ids.next().unwrap()), now));
        assert_eq!(peers.known.len(), HEARD_MAX);
        assert!(!peers.known.contains_key(&failed));
    }

    #[test]
    fn who_has_left_is_forgotten_and_whom_the_operator_named_is_not() {
        let now = Instant::now();
        let named: StaticPeer = format!("{}@host.example:99", node(120)).parse().unwrap();
        let mut peers = Peers::new(HERE, &[named], &[], now);
        peers.hear(hint(110, "10.0.0.1:1"), now);
        assert_eq!(peers.list().count(), 2);
        peers.leave(node(110));
        assert_eq!(peers.list().collect::<Vec<_>>(), [(node(120), "host.example:99".to_owned())]);
        peers.leave(node(120));
        assert_eq!(peers.due(now, usize::MAX), [(node(120), Place::Named("host.example:99".into()))]);
    }

    #[test]
    fn waits_grow_after_failures_and_end_with_news_or_a_session() {
        let now = Instant::now();
        let mut peers = peers(now);
        peers.hear(hint(200, "10.0.0.1:1"), now);
        let mut at = now;
        for expected_s in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(peers.due(at, usize::MAX).len(), 1);
            peers.ended(node(200), false, at, 0.0);
            assert!(peers.due(at + Duration::from_millis(expected_s * 1000 - 1), usize::MAX).is_empty());
            at += Duration::from_secs(expected_s);
        }
        assert_eq!(peers.due(at, usize::MAX).len(), 1);
        peers.ended(node(200), true, at, 1.0);
        assert!(peers.due(at + Duration::from_millis(1499), usize::MAX).is_empty());
        assert_eq!(peers.due(at + Duration::from_millis(1500), usize::MAX).len(), 1);
        peers.ended(node(200), false, at, 0.0);
        peers.ended(node(200), false, at, 0.0);
        peers.hear(hint(200, "10.0.0.2:1"), at);
        assert_eq!(peers.due(at, usize::MAX).len(), 1, "it has moved");
    }

    #[test]
    fn no_more_are_dialled_than_there_is_room_for_and_each_has_its_turn() {
        let start = Instant::now();
        let mut peers = peers(start);
        for number in [201, 202, 203] {
            peers.hear(hint(number, "10.0.0.1:1"), start);
        }
        assert!(peers.due(start, 0).is_empty());
        let mut dialled = Vec::new();
        for second in 0..3 {
            let at = start + Duration::from_secs(second * 60);
            let due = peers.due(at, 1);
            assert_eq!((due.len(), peers.busy().count()), (1, 1));
            peers.ended(due[0].0, false, at, 0.0);
            dialled.push(due[0].0);
        }
        assert_eq!(dialled, [node(201), node(202), node(203)]);
    }

    proptest! {
        /// However much is made up, the table stays small, and nobody is dialled twice at a time.
        #[test]
        fn the_table_is_bounded(steps in prop::collection::vec((any::<u16>(), 0u8..4, any::<bool>()), 0..400)) {
            let mut now = Instant::now();
            let mut peers = peers(now);
            let mut busy = std::collections::BTreeSet::new();
            for (number, deed, met) in steps {
                let mut id = [number as u8; 16];
                id[0] = (number >> 8) as u8;
                let node = NodeId::from_bytes(id);
                match deed {
                    0 => drop(peers.hear(Hint { node, ..hint(0, "10.0.0.1:1") }, now)),
                    1 => for (node, _) in peers.due(now, usize::MAX) { prop_assert!(busy.insert(node)); },
                    2 => if let Some(node) = busy.pop_first() { peers.ended(node, met, now, 0.5); },
                    _ => { now += Duration::from_secs(u64::from(number)); peers.leave(node); }
                }
                prop_assert!(peers.known.len() <= HEARD_MAX);
            }
        }
    }

    #[test]
    fn a_peer_of_the_wrong_form_is_refused_by_name() {
        let id = node(7);
        for text in
            ["", "host:1", &format!("{id}"), &format!("{id}@host"), &format!("{id}@:1"), &format!("{id}@h:0"), "x@h:1"]
        {
            assert!(text.parse::<StaticPeer>().is_err(), "{text}");
        }
        assert_eq!(format!("{id}@[fe80::1]:5").parse::<StaticPeer>().unwrap().address, "[fe80::1]:5");
    }
}
