//! Content: over HTTP beside nginx, and a large file coming in.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use alexandria_e2e::files::real;
use alexandria_e2e::node::{NodeProcess, NodeSettings};
use alexandria_e2e::process::free_port;
use serde_json::Value;

use crate::measure::{mb, median, noise};

/// Interleaved runs of each side.
const ROUNDS: usize = 3;
/// Bytes of the film that is imported.
const FILM_BYTES: u64 = 4 << 30;

/// Content over HTTP, beside nginx: 4 KiB, 100 KiB, and a range of 10 MiB, with wrk on 2 threads and 32 connections.
pub(crate) async fn beside_nginx() {
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

/// A film of 4 GiB, most of it a hole in the file: time and memory.
pub(crate) async fn import_large() {
    let mut node = NodeSettings::default().bare().start().await;
    let film = real().into_iter().find(|file| file.name == "sunrise.mp4").expect("a film").bytes;
    let path = node.scratch().join("large.mp4");
    let mut file = std::fs::File::create(&path).expect("a file");
    file.write_all(&film).expect("room on the disk");
    // A `free` box (ISO/IEC 14496-12, 8.1.2) with a size of 64 bits.
    let head = [1u32.to_be_bytes().as_slice(), b"free", &FILM_BYTES.to_be_bytes()].concat();
    file.write_all(&head).expect("room on the disk");
    file.seek(SeekFrom::Start(film.len() as u64 + FILM_BYTES - 1)).expect("a place in the file");
    file.write_all(&[0]).expect("room on the disk");
    drop(file);
    let resident = node.process().resident_bytes();
    let started = Instant::now();
    node.done("import", &[path.to_str().expect("UTF-8")]).await;
    let seconds = started.elapsed().as_secs_f64();
    println!("4 GiB imported in {seconds:.1} s ({:.0} MB/s)", FILM_BYTES as f64 / 1e6 / seconds);
    println!("resident before {} MB, peak {} MB", mb(resident), mb(node.process().resident_peak_bytes()));
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
