//! The figures of docs/BENCHMARKS.md: `tests/bench/run static|records|replication|blob`. Ours beside a peer where there is
//! one, in one run, interleaved, medians. Not a test: it asserts nothing about time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use alexandria_e2e::aws::Aws;
use alexandria_e2e::bridge::{BridgeProcess, BridgeSettings, Neighbours};
use alexandria_e2e::node::{NodeProcess, NodeSettings};
use alexandria_e2e::postgres::Postgres;
use alexandria_e2e::process::free_port;
use serde_json::{Value, json};

/// Interleaved runs of each side.
const ROUNDS: usize = 3;
/// Media that are created, and replicated.
const RECORDS: usize = 100_000;
/// Requests in flight while creating them.
const WRITERS: usize = 64;
/// Bytes of the blob that is replicated.
const BLOB_BYTES: u64 = 1024 * 1024 * 1024;

#[tokio::main]
async fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("static") => static_content().await,
        Some("records") => records().await,
        Some("replication") => replication().await,
        Some("blob") => blob().await,
        _ => eprintln!("usage: tests/bench/run static|records|replication|blob"),
    }
}

/// Content over HTTP, beside nginx: 4 KiB, 100 KiB, and a range of 10 MiB, with wrk on 2 threads and 32 connections.
async fn static_content() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = NodeProcess::start().await;
    let nginx_port = free_port();
    let mut nginx = start_nginx(folder.path(), nginx_port);
    println!("| content | ours, requests/s | nginx, requests/s | ratio |\n|---|---|---|---|");
    for (name, size, range) in [
        ("4 KiB", 4 * 1024, None),
        ("100 KiB", 100 * 1024, None),
        ("10 MiB range of 32 MiB", 32 * 1024 * 1024, Some("bytes=1048576-11534335")),
    ] {
        let bytes = noise(size);
        std::fs::write(folder.path().join("file.bin"), &bytes).expect("a file for nginx");
        let hash = blake3::hash(&bytes).to_hex().to_string();
        let put = node_post(&node, "/v1/blobs", "application/octet-stream", bytes).await;
        assert_eq!(put["hash"], hash.as_str(), "the node has it");
        let ours = format!("{}/v1/blobs/{hash}", node.url());
        let theirs = format!("http://127.0.0.1:{nginx_port}/file.bin");
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            a.push(wrk(&ours, range));
            b.push(wrk(&theirs, range));
        }
        let (a, b) = (median(a), median(b));
        println!("| {name} | {a:.0} | {b:.0} | {:.2} |", a / b);
    }
    let _ = nginx.kill();
    let _ = nginx.wait();
}

/// 100,000 media through the API: time, memory, disk; then a start with them.
async fn records() {
    let mut node = NodeProcess::start().await;
    let seconds = create_media(&node).await;
    let resident = node.process().resident_bytes();
    let peak = node.process().resident_peak_bytes();
    let disk = folder_bytes(&node.data().join("records"));
    let search = folder_bytes(&node.data().join("search"));
    node.stop().await;
    let started = Instant::now();
    node.start_again().await;
    let ready = started.elapsed().as_secs_f64();
    println!(
        "{RECORDS} media created in {seconds:.1} s ({:.0}/s), {WRITERS} in flight, each durable",
        RECORDS as f64 / seconds
    );
    println!(
        "resident {} MB, peak {} MB; records {} MB, search {} MB on disk",
        mb(resident),
        mb(peak),
        mb(disk),
        mb(search)
    );
    println!("cold start with them: {ready:.2} s");
}

/// 100,000 records, node to bridge.
async fn replication() {
    let (_postgres, mut bridge) = start_bridge().await;
    let mut node = start_enrolled(&bridge).await;
    let _ = create_media(&node).await;
    let started = Instant::now();
    sync(&node).await;
    let seconds = started.elapsed().as_secs_f64();
    println!("{RECORDS} records, node to bridge: {seconds:.1} s ({:.0}/s)", RECORDS as f64 / seconds);
    println!(
        "peak memory: node {} MB, bridge {} MB",
        mb(node.process().resident_peak_bytes()),
        mb(bridge.process().resident_peak_bytes())
    );
}

/// A blob of 1 GiB, node to bridge to S3, over loopback.
async fn blob() {
    let (_postgres, mut bridge) = start_bridge().await;
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

async fn start_bridge() -> (&'static Postgres, BridgeProcess) {
    let postgres = Postgres::shared().await;
    let database = postgres.database().await;
    let aws = Aws::shared().await;
    let neighbours = Neighbours::on(&database, aws).await;
    (postgres, BridgeSettings::new(neighbours).start().await)
}

/// A node that replicates only when told to.
async fn start_enrolled(bridge: &BridgeProcess) -> NodeProcess {
    let node = NodeSettings::default().environment("ALEXANDRIA_REPLICATION__AUTOMATIC", "false").start().await;
    let made = bridge.run("token", &["create", "--site", "bench"]).await;
    let token = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    let address = bridge.settings().enrolment.to_string();
    let enrolled = node.run("enroll", &["--bridge", &address, "--token", &token]).await;
    assert!(enrolled.status.success(), "{}", String::from_utf8_lossy(&enrolled.stderr));
    node
}

async fn sync(node: &NodeProcess) {
    let synced = node.run("sync", &["--once"]).await;
    assert!(synced.status.success(), "{}", String::from_utf8_lossy(&synced.stderr));
}

/// Creates the media and returns how long it took, in seconds.
async fn create_media(node: &NodeProcess) -> f64 {
    let started = Instant::now();
    let next = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut writers = tokio::task::JoinSet::new();
    let authority = node.url().trim_start_matches("http://").to_owned();
    for _ in 0..WRITERS {
        let (next, authority) = (next.clone(), authority.clone());
        writers.spawn(async move {
            let stream = tokio::net::TcpStream::connect(&authority).await.expect("the node listens");
            let io = hyper_util::rt::TokioIo::new(stream);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP");
            tokio::spawn(connection);
            loop {
                let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if number >= RECORDS {
                    return;
                }
                let body = json!({
                    "title": format!("Medium number {number} of a large library"),
                    "media_kind": "book",
                    "description": "Written to be counted: a sentence or two, as a librarian would write them.",
                    "languages": ["en"],
                });
                let request = hyper::Request::post("/v1/media")
                    .header("host", &authority)
                    .header("content-type", "application/json")
                    .body(http_body_util::Full::new(bytes::Bytes::from(body.to_string())))
                    .expect("a request");
                sender.ready().await.expect("a connection");
                let answer = sender.send_request(request).await.expect("an answer");
                assert_eq!(answer.status(), 201, "the medium was created");
                let _ = http_body_util::BodyExt::collect(answer.into_body()).await;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.expect("a writer ended well");
    }
    started.elapsed().as_secs_f64()
}

async fn node_post(node: &NodeProcess, path: &str, media_type: &str, body: Vec<u8>) -> Value {
    let answer = alexandria_e2e::http::post(format!("{}{path}", node.url()))
        .header("content-type", media_type)
        .body(body)
        .send()
        .await
        .expect("the node answers");
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// nginx as Debian configures it for two cores, with sendfile and without a log.
fn start_nginx(folder: &Path, port: u16) -> std::process::Child {
    let config = folder.join("nginx.conf");
    let text = format!(
        "daemon off; master_process on; worker_processes 2; pid {0}/nginx.pid; error_log /dev/null;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;\n\
         server {{ listen 127.0.0.1:{port}; root {0}; }} }}\n",
        folder.display()
    );
    std::fs::write(&config, text).expect("a configuration");
    let nginx = Command::new("nginx").arg("-p").arg(folder).arg("-c").arg(&config).stderr(Stdio::null()).spawn();
    let nginx = nginx.expect("nginx is installed: apt-get install nginx-light");
    std::thread::sleep(Duration::from_millis(500)); // tidy-allow(sleep): nginx says nothing when it is ready
    nginx
}

fn wrk(url: &str, range: Option<&str>) -> f64 {
    let mut command = Command::new("wrk");
    command.args(["-t2", "-c32", "-d5s"]);
    if let Some(range) = range {
        command.args(["-H", &format!("Range: {range}")]);
    }
    let output = command.arg(url).output().expect("wrk is installed: apt-get install wrk");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")).expect("wrk's figures");
    line.trim().parse().expect("a number")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// Text of this size that no chunk repeats.
fn write_noise(path: &PathBuf, len: u64) {
    use std::io::Write;
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("a file"));
    let mut reader = blake3::Hasher::new().finalize_xof();
    let mut bytes = [0; 32];
    for _ in 0..len / 64 {
        reader.fill(&mut bytes);
        let line = blake3::Hash::from_bytes(bytes).to_hex();
        file.write_all(line.as_bytes()).expect("room on the disk");
    }
    file.flush().expect("room on the disk");
}

fn folder_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

fn mb(bytes: u64) -> u64 {
    bytes / 1_000_000
}
