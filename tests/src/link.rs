//! A bad link between two hosts: delay, loss, rate and cuts for everything that crosses, multicast too.
//!
//! Each [`Namespace`] gets a TAP device; frames are relayed between the two in this process. It needs what namespaces
//! need and `/dev/net/tun`: [`unavailable`] says what is missing, and the test is skipped. Where UDP alone matters,
//! [`crate::datagrams`] does with neither.
//!
//! Addresses come from 198.18.0.0/15, set aside for testing networks, and `fd98:18::/32`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio::{
    runtime::{self, Runtime},
    sync::mpsc,
};
use tun_rs::{AsyncDevice, DeviceBuilder, DeviceBuilderGuard, Layer, SyncDevice};

use crate::{
    line::{Counters, Fate, Line, Profile, Traffic},
    namespace::{self, Namespace, fresh_number},
};

/// Frames on their way in one direction: more are lost.
const IN_FLIGHT_MAX: usize = 65_536;
/// Larger than any frame.
const FRAME_MAX_BYTES: usize = 65_536;
/// What the kernel may hold for us, in frames.
const TRANSMIT_QUEUE_FRAMES: u32 = 10_000;

/// What this machine lacks for a bad link, if anything.
pub fn unavailable() -> Option<&'static str> {
    let has_tun = Path::new("/dev/net/tun").exists();
    namespace::unavailable().or((!has_tun).then_some("a bad link needs /dev/net/tun (kernel module tun)"))
}

/// The link. Gone when dropped.
pub struct BadLink {
    subnet: u16,
    a_to_b: Arc<Direction>,
    b_to_a: Arc<Direction>,
    relay: Option<Runtime>,
}

struct Direction {
    line: Mutex<Line>,
    counters: Counters,
}

impl BadLink {
    /// Joins two namespaces, alike both ways. The seed decides which frames are lost.
    pub fn between(a: &Namespace, b: &Namespace, profile: Profile, seed: u64) -> io::Result<Self> {
        let subnet = (std::process::id() as u16).wrapping_add(fresh_number()) % 0x200;
        let (device_a, device_b) = (format!("bad{subnet}a"), format!("bad{subnet}b"));
        let tap_a = tap(a, &device_a, [ipv4(subnet, 1), ipv6(subnet, 1)])?;
        let tap_b = tap(b, &device_b, [ipv4(subnet, 2), ipv6(subnet, 2)])?;
        // Not the test's runtime: a test that is busy must not slow the link.
        let relay =
            runtime::Builder::new_multi_thread().worker_threads(1).enable_all().thread_name("bad link").build()?;
        let direction =
            |seed| Arc::new(Direction { line: Mutex::new(Line::new(profile, seed)), counters: Counters::default() });
        let (a_to_b, b_to_a) = (direction(seed), direction(seed.wrapping_add(1)));
        let inside = relay.enter();
        let (tap_a, tap_b) = (Arc::new(AsyncDevice::new(tap_a)?), Arc::new(AsyncDevice::new(tap_b)?));
        drop(inside);
        for (from, to, direction) in [(&tap_a, &tap_b, &a_to_b), (&tap_b, &tap_a, &b_to_a)] {
            let (flights, landing) = mpsc::channel(IN_FLIGHT_MAX);
            relay.spawn(take(Arc::clone(from), flights, Arc::clone(direction)));
            relay.spawn(land(landing, Arc::clone(to), Arc::clone(direction)));
        }
        Ok(Self { subnet, a_to_b, b_to_a, relay: Some(relay) })
    }

    /// The addresses of the first namespace on this link.
    pub fn addresses_of_a(&self) -> [IpAddr; 2] {
        [ipv4(self.subnet, 1), ipv6(self.subnet, 1)]
    }

    /// The addresses of the second namespace on this link.
    pub fn addresses_of_b(&self) -> [IpAddr; 2] {
        [ipv4(self.subnet, 2), ipv6(self.subnet, 2)]
    }

    /// Changes what the link is like, both ways.
    pub fn set(&self, profile: Profile) {
        self.both(|line| line.set(profile));
    }

    /// Loses everything from now on.
    pub fn cut(&self) {
        self.both(|line| line.set_cut(true));
    }

    /// Ends a cut.
    pub fn heal(&self) {
        self.both(|line| line.set_cut(false));
    }

    /// What crossed from the first namespace to the second: whole Ethernet frames.
    pub fn a_to_b(&self) -> Traffic {
        self.a_to_b.counters.traffic()
    }

    /// What crossed the other way.
    pub fn b_to_a(&self) -> Traffic {
        self.b_to_a.counters.traffic()
    }

    fn both(&self, change: impl Fn(&mut Line)) {
        for direction in [&self.a_to_b, &self.b_to_a] {
            change(&mut direction.line.lock().expect("no holder of the lock panics"));
        }
    }
}

impl Drop for BadLink {
    fn drop(&mut self) {
        // A runtime may not be dropped where it would wait, as inside a test's own.
        if let Some(relay) = self.relay.take() {
            relay.shutdown_background();
        }
    }
}

/// A frame that will arrive.
struct Flight {
    at: Instant,
    frame: Vec<u8>,
}

/// Takes frames off one side.
async fn take(from: Arc<AsyncDevice>, flights: mpsc::Sender<Flight>, direction: Arc<Direction>) {
    let mut buffer = vec![0; FRAME_MAX_BYTES];
    // An error means that the device has gone, with its namespace.
    while let Ok(count) = from.recv(&mut buffer).await {
        let fate = direction.line.lock().expect("no holder of the lock panics").carry(count, Instant::now());
        let is_on_its_way = match fate {
            Fate::Lost => false,
            Fate::Arrives(at) => flights.try_send(Flight { at, frame: buffer[..count].to_vec() }).is_ok(),
        };
        if !is_on_its_way {
            direction.counters.lost(count);
        }
    }
}

/// Lets frames arrive on the other side, each in its time.
async fn land(mut flights: mpsc::Receiver<Flight>, to: Arc<AsyncDevice>, direction: Arc<Direction>) {
    while let Some(Flight { at, frame }) = flights.recv().await {
        if at > Instant::now() {
            tokio::time::sleep_until(at.into()).await;
        }
        match to.send(&frame).await {
            Ok(_) => direction.counters.delivered(frame.len()),
            Err(_) => direction.counters.lost(frame.len()),
        }
    }
}

/// Makes a TAP device in a namespace, up and with the two addresses.
fn tap(namespace: &Namespace, device: &str, addresses: [IpAddr; 2]) -> io::Result<SyncDevice> {
    let tap = namespace.within(|| {
        let set = |options: &mut DeviceBuilderGuard<'_>| {
            options.tx_queue_len(TRANSMIT_QUEUE_FRAMES);
        };
        DeviceBuilder::new().name(device).layer(Layer::L2).with(set).build_sync()
    })?;
    for address in addresses {
        let prefix = if address.is_ipv4() { 24 } else { 64 };
        // No probing for duplicates: nobody else is there, and the address works at once.
        let nodad: &[&str] = if address.is_ipv6() { &["nodad"] } else { &[] };
        let with_prefix = format!("{address}/{prefix}");
        namespace.ip(&[&["address", "add", &with_prefix, "dev", device], nodad].concat());
    }
    namespace.ip(&["link", "set", device, "up"]);
    Ok(tap)
}

/// 198.18.0.0/15 has room for 512 subnets.
fn ipv4(subnet: u16, host: u8) -> IpAddr {
    let [high, low] = subnet.to_be_bytes();
    Ipv4Addr::new(198, 18 + high, low, host).into()
}

fn ipv6(subnet: u16, host: u16) -> IpAddr {
    Ipv6Addr::new(0xfd98, 0x18, subnet, 0, 0, 0, 0, host).into()
}
