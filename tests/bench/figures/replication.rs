//! Replication, node to bridge: records, a large blob, and a new version of an archive beside rsync.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use alexandria_e2e::aws::Aws;
use alexandria_e2e::bridge::{BridgeProcess, BridgeSettings, Neighbours};
use alexandria_e2e::datagrams::UdpLossyProxy;
use alexandria_e2e::deadline::wait_until;
use alexandria_e2e::line::CLEAN;
use alexandria_e2e::node::{NodeProcess, NodeSettings};
use alexandria_e2e::postgres::{Database, Postgres};

use crate::measure::{mb, noise, processor_seconds, write_noise};
use crate::records::{count, node_with_media};

/// Bytes of the blob that is replicated.
const BLOB_BYTES: u64 = 1024 * 1024 * 1024;
/// How long the bridge may take until all that has come is found by its words.
const WORDS_DEADLINE: Duration = Duration::from_mins(10);
/// Bytes of the archive that gets one byte more.
const ARCHIVE_BYTES: usize = 500_000_000;

/// Records, node to bridge: time, processor time of each that takes part, memory meanwhile.
pub(crate) async fn records() {
    let (postgres, database, mut bridge) = start_bridge().await;
    let mut node = node_with_media().await;
    enrol(&node, &bridge).await;
    let records = count();
    let before = node.process().resident_bytes();
    node.process().forget_resident_peak();
    let parts = [
        ("node", node.process().pid()),
        ("bridge", bridge.process().pid()),
        ("PostgreSQL", postgres.pid()),
        ("moto", Aws::shared().await.pid()),
    ];
    let used = || parts.map(|(_, pid)| processor_seconds(pid));
    let (started, used_before) = (Instant::now(), used());
    sync(&node).await;
    let seconds = started.elapsed().as_secs_f64();
    let used = used();
    println!("{records} records, node to bridge: {seconds:.1} s ({:.0}/s)", records as f64 / seconds);
    for (part, (used, before)) in parts.iter().zip(used.iter().zip(used_before)) {
        println!("processor time of {}: {:.1} s", part.0, used - before);
    }
    wait_until("the words to search in", WORDS_DEADLINE, async || {
        database.number("SELECT count(*) FROM words_due").await == 0
    })
    .await;
    println!("found by their words after {:.1} s", started.elapsed().as_secs_f64());
    println!(
        "memory of the node: {} MB before, {} MB at the peak, {} MB without pages of files; of the bridge: {} MB",
        mb(before),
        mb(node.process().resident_peak_bytes()),
        mb(node.process().resident_anonymous_bytes()),
        mb(bridge.process().resident_peak_bytes())
    );
    let busy = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load of the machine, itself included: {}", busy.trim());
}

/// A blob of 1 GiB, node to bridge to S3, over loopback.
pub(crate) async fn blob() {
    let (_postgres, _database, mut bridge) = start_bridge().await;
    let mut node = start_enrolled(&bridge).await;
    let file = node.scratch().join("video.txt");
    write_noise(&file, BLOB_BYTES);
    let imported = node.run("import", &[file.to_str().expect("UTF-8")]).await;
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let started = Instant::now();
    sync(&node).await;
    let seconds = started.elapsed().as_secs_f64();
    println!("1 GiB, node to bridge to S3: {seconds:.1} s ({:.0} MB/s)", BLOB_BYTES as f64 / 1e6 / seconds);
    println!(
        "peak memory: node {} MB, bridge {} MB",
        mb(node.process().resident_peak_bytes()),
        mb(bridge.process().resident_peak_bytes())
    );
}

/// One byte inserted into the middle of an archive of 500 MB: what crosses the wire, beside rsync.
pub(crate) async fn delta() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (folder.path().join("old.tar"), folder.path().join("new.tar"));
    let mut bytes = archive();
    std::fs::write(&old, &bytes).expect("room on the disk");
    // Inside the contents of the member, whose length is not checked by who replicates it.
    bytes.insert(ARCHIVE_BYTES / 2, b'!');
    std::fs::write(&new, &bytes).expect("room on the disk");
    drop(bytes);

    let (_postgres, _database, bridge) = start_bridge().await;
    let line = UdpLossyProxy::start(bridge.settings().quic, CLEAN, 1).await;
    let node = start_enrolled_through(&bridge, Some(&line)).await;
    upload(&node, &old).await;
    sync(&node).await;
    upload(&node, &new).await;
    let carried = || line.to_server().bytes + line.to_client().bytes;
    let before = carried();
    sync(&node).await;
    let ours = carried() - before;

    println!(
        "one byte inserted into an archive of {} MB, bytes on the wire both ways: ours {ours}",
        ARCHIVE_BYTES / 1_000_000
    );
    for options in ["--no-compress", "--compress"] {
        let theirs = rsync_bytes(&old, &new, folder.path(), options);
        println!("rsync {options} {theirs}, ratio {:.2}", ours as f64 / theirs as f64);
    }
}

/// A tar file with one member that nothing compresses.
fn archive() -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..8].copy_from_slice(b"data.bin");
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{ARCHIVE_BYTES:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend(noise(ARCHIVE_BYTES));
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    bytes
}

/// Takes an archive in, and a medium that names it, so that it is replicated.
async fn upload(node: &NodeProcess, path: &Path) {
    let bytes = std::fs::read(path).expect("the archive is there");
    let size = bytes.len();
    let upload = node.request(hyper::Method::POST, "/v1/blobs").header("content-type", "application/x-tar");
    let blob = upload.body(bytes).deadline(Duration::from_mins(5)).ok().await.json();
    let file = serde_json::json!({
        "blob": blob["hash"], "media_type": "application/x-tar", "name": "data.tar", "size_bytes": size, "role": "main"
    });
    let media = serde_json::json!({ "title": "An archive", "media_kind": "doc", "files": [file] });
    node.request(hyper::Method::POST, "/v1/media").json(&media).ok().await;
}

/// What rsync sends and receives to make a copy of `old` into `new`, as it counts itself.
fn rsync_bytes(old: &Path, new: &Path, folder: &Path, options: &str) -> u64 {
    let copy = folder.join("copy.tar");
    std::fs::copy(old, &copy).expect("room on the disk");
    let mut command = Command::new("rsync");
    command.args(["--no-whole-file", "--stats", options]).arg(new).arg(&copy).stderr(Stdio::null());
    let output = command.output().expect("rsync is installed: apt-get install rsync");
    let said = String::from_utf8_lossy(&output.stdout);
    let figure = |name: &str| -> u64 {
        let line = said.lines().find_map(|line| line.strip_prefix(name)).expect("rsync's figures");
        line.chars().filter(char::is_ascii_digit).collect::<String>().parse().expect("a number")
    };
    figure("Total bytes sent:") + figure("Total bytes received:")
}

async fn start_bridge() -> (&'static Postgres, Database, BridgeProcess) {
    let postgres = Postgres::shared().await;
    let database = postgres.database().await;
    let aws = Aws::shared().await;
    let neighbours = Neighbours::on(&database, aws).await;
    (postgres, database, BridgeSettings::new(neighbours).start().await)
}

/// A node that replicates only when told to.
async fn start_enrolled(bridge: &BridgeProcess) -> NodeProcess {
    start_enrolled_through(bridge, None).await
}

async fn start_enrolled_through(bridge: &BridgeProcess, line: Option<&UdpLossyProxy>) -> NodeProcess {
    let mut settings = NodeSettings::default().by_hand();
    if let Some(line) = line {
        settings = settings.environment("ALEXANDRIA_REPLICATION__BRIDGE", line.address().to_string());
    }
    let node = settings.start().await;
    enrol(&node, bridge).await;
    node
}

async fn enrol(node: &NodeProcess, bridge: &BridgeProcess) {
    let made = bridge.run("token", &["create", "--site", "bench"]).await;
    let token = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    let address = bridge.settings().enrolment.to_string();
    let enrolled = node.run("enroll", &["--bridge", &address, "--token", &token]).await;
    assert!(enrolled.status.success(), "{}", String::from_utf8_lossy(&enrolled.stderr));
}

async fn sync(node: &NodeProcess) {
    let synced = node.run("sync", &["--once"]).await;
    assert!(synced.status.success(), "{}", String::from_utf8_lossy(&synced.stderr));
}
