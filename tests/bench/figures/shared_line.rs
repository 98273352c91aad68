//! A transfer of ours and one TCP connection on one line, with real sockets in network namespaces: how much each of them gets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use alexandria_e2e::fleet::Fleet;
use alexandria_e2e::line::Profile;
use alexandria_e2e::link::{self, BadLink};
use alexandria_e2e::namespace::Namespace;
use alexandria_e2e::node::NodeSettings;
use alexandria_e2e::process::free_port;

use crate::measure::{govern_tcp, write_noise};

/// The line, each way: a queue of one round trip.
const PROFILE: Profile = Profile {
    delay: Duration::from_millis(20),
    loss: 0.0,
    rate_bits_per_s: Some(20_000_000),
    queue: Duration::from_millis(40),
};
const ALONE: Duration = Duration::from_secs(5);
const SETTLING: Duration = Duration::from_secs(10);
const MEASURED: Duration = Duration::from_mins(1);
/// More than the line carries in all that time.
const FILE_BYTES: u64 = 220_000_000;
const SEED: u64 = 1;

/// Each of the kernel's that are usual, ours first and TCP first.
pub(crate) async fn beside_tcp() {
    if let Some(reason) = link::unavailable() {
        println!("skipped: {reason}");
        return;
    }
    println!("20 Mbit/s, 40 ms, a queue of 1 BDP, no loss; Mbit/s of payload that crossed in {} s", MEASURED.as_secs());
    for tcp in ["cubic", "bbr"] {
        for ours_first in [true, false] {
            share(tcp, ours_first).await;
        }
    }
}

async fn share(tcp: &str, ours_first: bool) {
    let site = Namespace::create("site");
    let tcp = govern_tcp(&site, tcp);
    let link = BadLink::between(&site, &Namespace::host(), PROFILE, SEED).expect("the link can be made");
    let cloud = link.addresses_of_b()[0];
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("archive.txt");
    write_noise(&file, FILE_BYTES);
    let fleet = Fleet::start_with(|mut settings, _| {
        settings.quic = SocketAddr::new(cloud, free_port());
        settings.enrolment = SocketAddr::new(cloud, free_port());
        settings
    })
    .await;
    let node = NodeSettings::default().bare().inside(&site, "127.0.0.1:8080").start().await;
    node.done("import", &[file.to_str().expect("UTF-8")]).await;
    let stream = if ours_first {
        fleet.enrol(&node).await;
        tokio::time::sleep(ALONE).await;
        Stream::start(&site, SocketAddr::new(cloud, free_port()))
    } else {
        let stream = Stream::start(&site, SocketAddr::new(cloud, free_port()));
        tokio::time::sleep(ALONE).await;
        fleet.enrol(&node).await;
        stream
    };
    tokio::time::sleep(SETTLING).await;
    let (crossed_before, stream_before) = (link.a_to_b().bytes, stream.received());
    tokio::time::sleep(MEASURED).await;
    let of_stream = stream.received() - stream_before;
    let ours = (link.a_to_b().bytes - crossed_before).saturating_sub(of_stream);
    let per_s = |bytes: u64| bytes as f64 * 8e-6 / MEASURED.as_secs_f64();
    let first = if ours_first { "ours" } else { "TCP" };
    println!("{tcp}, {first} first: ours {:.1} (headers of both included), TCP {:.1}", per_s(ours), per_s(of_stream));
}

/// A TCP connection from the site that sends as much as it can. Ended when dropped.
struct Stream {
    received: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
}

impl Stream {
    fn start(site: &Namespace, to: SocketAddr) -> Self {
        let received = Arc::new(AtomicU64::new(0));
        let stopped = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind(to).expect("a free port");
        let count = Arc::clone(&received);
        thread::spawn(move || {
            let mut taken = listener.accept().expect("it is dialled").0;
            let mut bytes = vec![0; 65_536];
            while let Ok(len) = taken.read(&mut bytes)
                && len > 0
            {
                count.fetch_add(len as u64, Ordering::Relaxed);
            }
        });
        let mut sending = site.within(|| TcpStream::connect(to)).expect("the line carries it");
        let is_stopped = Arc::clone(&stopped);
        thread::spawn(move || {
            let bytes = vec![0; 65_536];
            while !is_stopped.load(Ordering::Relaxed) && sending.write_all(&bytes).is_ok() {}
        });
        Self { received, stopped }
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}
