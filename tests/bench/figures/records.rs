//! Records: created over HTTP, what it takes to start with them, and what is left of their room once they are gone.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alexandria_e2e::node::{NodeProcess, NodeSettings};
use hyper::Method;
use serde_json::{Value, json};

use crate::measure::{folder_bytes, mb};

/// Requests in flight while creating them.
const WRITERS: usize = 64;
/// The same where how fast they are created is not what is measured.
const MANY_WRITERS: usize = 256;
/// One of so many records is left.
const KEPT_OF: usize = 10;
/// How long upkeep may take to give the room back.
const UPKEEP_PATIENCE: Duration = Duration::from_mins(10);

/// Media that are created, and replicated: 100,000, or what `ALEXANDRIA_BENCH_RECORDS` says.
pub(crate) fn count() -> usize {
    std::env::var("ALEXANDRIA_BENCH_RECORDS").map_or(100_000, |text| text.parse().expect("a number of records"))
}

/// Media through the API: time, memory, disk; then a start with them.
pub(crate) async fn create_and_start() {
    let records = count();
    let mut node = NodeProcess::start().await;
    let started = Instant::now();
    let _ = create_media(&node, WRITERS).await;
    let seconds = started.elapsed().as_secs_f64();
    let resident = node.process().resident_bytes();
    let peak = node.process().resident_peak_bytes();
    let disk = folder_bytes(&node.data().join("records"));
    let search = folder_bytes(&node.data().join("search"));
    node.stop().await;
    let started = Instant::now();
    node.start_again().await;
    let ready = started.elapsed().as_secs_f64();
    println!(
        "{records} media created in {seconds:.1} s ({:.0}/s), {WRITERS} in flight, each durable",
        records as f64 / seconds
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

/// All media updated, then nine of ten deleted: what the record store takes on disk, before and after upkeep.
pub(crate) async fn churn() {
    let records = count();
    let settings = NodeSettings::default().bare().environment("ALEXANDRIA_UPKEEP__COMPACT_EVERY_S", "10");
    let mut node = settings.start().await;
    let ids = Arc::new(create_media(&node, MANY_WRITERS).await);
    let folder = node.data().join("records");
    let tell = |when: &str, node: &mut NodeProcess| {
        println!(
            "{when}: {} MB on disk, {} MB resident",
            mb(folder_bytes(&folder)),
            mb(node.process().resident_bytes())
        );
    };
    tell("created", &mut node);
    let patched = Arc::clone(&ids);
    request_all(&node, MANY_WRITERS, ids.len(), move |number| {
        let change = json!({ "title": format!("Medium number {number}, of which more is known by now") });
        (Method::PATCH, format!("/v1/media/{}", patched[number]), Some(change))
    })
    .await;
    tell("all updated", &mut node);
    let numbered = ids.iter().enumerate();
    let gone: Vec<String> = numbered.filter(|(number, _)| number % KEPT_OF != 0).map(|(_, id)| id.clone()).collect();
    let deleted = gone.len();
    request_all(&node, MANY_WRITERS, deleted, move |number| {
        (Method::DELETE, format!("/v1/media/{}?hard=true", gone[number]), None)
    })
    .await;
    tell(&format!("{deleted} of {records} deleted"), &mut node);
    let started = Instant::now();
    let status = loop {
        let status = node.status().await;
        let (disk, live) = (number(&status, "disk_bytes"), number(&status, "live_bytes"));
        if disk <= 3 * live || started.elapsed() > UPKEEP_PATIENCE {
            break (disk, live);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let (disk, live) = status;
    println!(
        "after upkeep, {:.0} s later: {:.1} MB on disk, {:.1} MB live: {:.2} times",
        started.elapsed().as_secs_f64(),
        disk as f64 / 1e6,
        live as f64 / 1e6,
        disk as f64 / live as f64
    );
    tell("with readers and writers served all the while", &mut node);
}

fn number(status: &Value, of: &str) -> u64 {
    status["store"][of].as_u64().unwrap_or_else(|| panic!("no store.{of} in {status}"))
}

/// A node that holds the media and replicates only when told to. `ALEXANDRIA_BENCH_LIBRARY` names a folder that keeps them from
/// run to run; a node that starts with a copy of it has forgotten what making them took.
pub(crate) async fn node_with_media() -> NodeProcess {
    let settings = NodeSettings::default().bare().by_hand();
    let Some(kept) = std::env::var_os("ALEXANDRIA_BENCH_LIBRARY").map(PathBuf::from) else {
        let node = settings.start().await;
        let _ = create_media(&node, MANY_WRITERS).await;
        return node;
    };
    let mut node = settings.prepare();
    if kept.exists() {
        std::fs::remove_dir_all(node.data()).expect("a folder of ours");
        copy_folder(&kept, &node.data());
    } else {
        node.start_again().await;
        let _ = create_media(&node, MANY_WRITERS).await;
        node.stop().await;
        copy_folder(&node.data(), &kept);
    }
    node.start_again().await;
    node
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status().expect("cp is there");
    assert!(copied.success(), "copy {} to {}", from.display(), to.display());
}

/// Creates the media, and returns their ids.
async fn create_media(node: &NodeProcess, writers: usize) -> Vec<String> {
    request_all(node, writers, count(), |number| {
        let media = json!({
            "title": format!("Medium number {number} of a large library"),
            "media_kind": "book",
            "description": "Written to be counted: a sentence or two, as a librarian would write them.",
            "languages": ["en"],
        });
        (Method::POST, "/v1/media".to_owned(), Some(media))
    })
    .await
}

/// Makes `count` requests, so many at once, all of which must succeed; returns the ids of what they answer with.
async fn request_all(
    node: &NodeProcess,
    writers: usize,
    count: usize,
    request: impl Fn(usize) -> (Method, String, Option<Value>) + Send + Sync + 'static,
) -> Vec<String> {
    let next = Arc::new(AtomicUsize::new(0));
    let ids = Arc::new(Mutex::new(vec![String::new(); count]));
    let authority = Arc::<str>::from(node.url().trim_start_matches("http://"));
    let request = Arc::new(request);
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..writers {
        let (next, ids, authority, request) = (next.clone(), ids.clone(), authority.clone(), request.clone());
        running.spawn(async move {
            let stream = tokio::net::TcpStream::connect(&*authority).await.expect("the node listens");
            let io = hyper_util::rt::TokioIo::new(stream);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP");
            tokio::spawn(connection);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                let (method, path, body) = request(number);
                let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
                let body = body.map_or_else(bytes::Bytes::new, |body| body.to_string().into());
                let request = hyper::Request::builder()
                    .method(&method)
                    .uri(&path)
                    .header("host", &*authority)
                    .header("content-type", kind)
                    .body(http_body_util::Full::new(body))
                    .expect("a request");
                sender.ready().await.expect("a connection");
                let answer = sender.send_request(request).await.expect("an answer");
                let status = answer.status();
                let body = http_body_util::BodyExt::collect(answer.into_body()).await.expect("a body").to_bytes();
                assert!(status.is_success(), "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
                let answered: Value = serde_json::from_slice(&body).unwrap_or_default();
                if let Some(id) = answered["id"].as_str() {
                    id.clone_into(&mut ids.lock().unwrap_or_else(PoisonError::into_inner)[number]);
                }
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done.expect("a writer ended well");
    }
    let mut ids = ids.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *ids)
}
