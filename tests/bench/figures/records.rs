//! Records: created over HTTP, and what it takes to start with them.

use std::time::Instant;

use alexandria_e2e::node::NodeProcess;
use serde_json::json;

use crate::measure::{folder_bytes, mb};

/// Requests in flight while creating them.
const WRITERS: usize = 64;

/// Media that are created, and replicated: 100,000, or what `ALEXANDRIA_BENCH_RECORDS` says.
pub(crate) fn count() -> usize {
    std::env::var("ALEXANDRIA_BENCH_RECORDS").map_or(100_000, |text| text.parse().expect("a number of records"))
}

/// Media through the API: time, memory, disk; then a start with them.
pub(crate) async fn create_and_start() {
    let records = count();
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

/// Creates the media and returns how long it took, in seconds.
pub(crate) async fn create_media(node: &NodeProcess) -> f64 {
    let records = count();
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
                if number >= records {
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
