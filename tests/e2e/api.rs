use std::{
    process::Command,
    time::{Duration, Instant},
};

use alexandria_e2e::{
    deadline::wait_until,
    files::{content_name, noise},
    http::{Request, Response},
    node::{NodeProcess, NodeSettings, output},
    process::{python_program, source_tree},
    seed::seed,
};
use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const SOON: Duration = Duration::from_mins(1);
/// Cases that schemathesis makes up for each operation, in each of its phases.
const EXAMPLES: &str = "25";

#[tokio::test]
async fn the_api_is_what_its_description_says_by_schemathesis() {
    let node = NodeSettings::default().bare().start().await;
    let mut command = Command::new(python_program("schemathesis"));
    // No check is left out; the file says which answers are no contradiction, and why.
    command.arg("--config-file").arg(source_tree().join("sync/api/tests/schemathesis.toml"));
    command.arg("run").arg(format!("{}/openapi.json", node.url())).current_dir(node.scratch());
    command.args(["--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"]);
    // A seed of theirs is a number of 32 bits.
    command.args(["--max-examples", EXAMPLES, "--seed", &(seed() % (1 << 32)).to_string(), "--no-color"]);
    command.args(["--workers", "1", "--request-timeout", "20"]);
    let run = output(command).await;
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    println!("{said}");
    assert_eq!(node.get("/readyz").ok().await.text(), "ready\n");
}

#[tokio::test]
async fn every_error_is_a_problem_that_names_what_is_wrong() {
    let node = NodeSettings::default().bare().start().await;
    let missing = "/v1/authors/01900000-0000-7000-8000-000000000000";
    let post = |path: &str| node.request(Method::POST, path);
    let cases: Vec<(Request, StatusCode, Option<&str>)> = vec![
        (node.get(missing), StatusCode::NOT_FOUND, None),
        (node.get("/v1/nothing"), StatusCode::NOT_FOUND, None),
        (node.get("/nothing").header("accept", "application/json"), StatusCode::NOT_FOUND, None),
        (node.get("/v1/authors/not-an-id"), StatusCode::BAD_REQUEST, Some("id")),
        (node.get("/v1/authors?page_size=101"), StatusCode::BAD_REQUEST, Some("page_size")),
        (node.get("/v1/authors?colour=red"), StatusCode::BAD_REQUEST, Some("colour")),
        (node.request(Method::DELETE, "/v1/authors"), StatusCode::METHOD_NOT_ALLOWED, None),
        (post("/v1/authors").json(&json!({ "name": 7 })), StatusCode::BAD_REQUEST, Some("name")),
        (post("/v1/authors").json(&json!({ "name": "A", "colour": "red" })), StatusCode::BAD_REQUEST, Some("colour")),
        (post("/v1/authors").json(&json!({ "name": " " })), StatusCode::BAD_REQUEST, Some("name")),
        (
            post("/v1/media").json(&json!({ "title": "A", "chapters": [{ "title": "x", "page": -1 }] })),
            StatusCode::BAD_REQUEST,
            Some("chapters[0].page"),
        ),
        (
            post("/v1/authors").header("content-type", "application/json").body("{\"name\": "),
            StatusCode::BAD_REQUEST,
            None,
        ),
        (
            post("/v1/authors").header("content-type", "text/csv").body("name\nA"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Some("Content-Type"),
        ),
        (post("/v1/authors").bearer("guess").json(&json!({ "name": "A" })), StatusCode::UNAUTHORIZED, None),
        (
            post("/v1/authors").header("origin", "http://evil.example").json(&json!({ "name": "A" })),
            StatusCode::UNAUTHORIZED,
            None,
        ),
        (node.get("/v1/changes?bucket=site/01900000-0000-7000-8000-000000000000"), StatusCode::FORBIDDEN, None),
    ];
    for (request, status, field) in cases {
        let answer = request.send().await.unwrap();
        is_a_problem(&answer, status, field);
    }
    let listed = node.get("/v1/authors").ok().await.json();
    assert_eq!(listed["items"], json!([]), "what was refused changed nothing");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_nothing_of_it_is_kept() {
    const UPLOAD_BYTES_MAX: usize = 1_000_000;
    const JSON_BYTES_MAX: usize = 512 * 1024;
    let settings = NodeSettings::default().bare();
    let node = settings.environment("ALEXANDRIA_HTTP__UPLOAD_BYTES_MAX", UPLOAD_BYTES_MAX.to_string()).start().await;
    let upload = |size_bytes| {
        let request = node.request(Method::POST, "/v1/blobs").header("content-type", "application/octet-stream");
        request.body(vec![7_u8; size_bytes])
    };
    is_a_problem(&upload(UPLOAD_BYTES_MAX + 1).send().await.unwrap(), StatusCode::PAYLOAD_TOO_LARGE, None);
    // Without its length said first.
    let answer = raw(&node, &chunked_upload(UPLOAD_BYTES_MAX + 1)).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("application/problem+json"), "{answer}");
    // Little enough over the limit for a client to have sent it all before it is refused.
    let author = json!({ "name": "A", "description": "x".repeat(JSON_BYTES_MAX) });
    let answer = node.request(Method::POST, "/v1/authors").json(&author).send().await.unwrap();
    is_a_problem(&answer, StatusCode::PAYLOAD_TOO_LARGE, None);
    assert_eq!(node.get("/v1/blobs").ok().await.json()["items"], json!([]));
    let left_over: Vec<_> = std::fs::read_dir(node.data().join("incoming")).unwrap().collect();
    assert!(left_over.is_empty(), "{left_over:?}");
    upload(UPLOAD_BYTES_MAX).ok().await;
}

#[tokio::test]
async fn a_client_that_does_not_end_its_headers_is_dropped_and_others_are_served() {
    const LESS_THAN_THE_DEFAULT: Duration = Duration::from_secs(12);
    let settings = NodeSettings::default().bare().environment("ALEXANDRIA_HTTP__CONNECTIONS__HEADER_TIMEOUT_S", "1");
    let node = settings.start().await;
    let mut slow = TcpStream::connect(address(&node)).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
    node.get("/healthz").ok().await;
    wait_until("the slow client to be dropped", LESS_THAN_THE_DEFAULT, async || {
        // A byte now and then keeps no connection.
        slow.write_all(b"z").await.is_err()
    })
    .await;
    node.get("/healthz").ok().await;
}

#[tokio::test]
async fn a_download_may_take_longer_than_a_client_may_stall() {
    const STALL: Duration = Duration::from_secs(2);
    const BLOB_BYTES: usize = 48_000_000;
    // What is read at each look: slow enough to take several times as long as a stall.
    const PIECE_BYTES: usize = 64 * 1024;
    let settings = NodeSettings::default().bare();
    let node = settings.environment("ALEXANDRIA_HTTP__CONNECTIONS__STALL_TIMEOUT_S", "2").start().await;
    let bytes = noise(BLOB_BYTES, 5);
    let upload = node.request(Method::POST, "/v1/blobs").header("content-type", "video/mp4").body(bytes.clone());
    upload.ok().await;
    let mut stream = TcpStream::connect(address(&node)).await.unwrap();
    let request = format!("GET /v1/blobs/{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", content_name(&bytes));
    stream.write_all(request.as_bytes()).await.unwrap();
    let started = Instant::now();
    let (mut received, mut piece) = (Vec::new(), vec![0; PIECE_BYTES]);
    wait_until("the download to end", SOON, async || {
        let count = stream.read(&mut piece).await.expect("the connection lasts");
        received.extend_from_slice(&piece[..count]);
        count == 0
    })
    .await;
    assert!(started.elapsed() > 2 * STALL, "it was a slow client");
    assert!(received.ends_with(&bytes), "{} bytes came", received.len());
}

fn is_a_problem(answer: &Response, status: StatusCode, field: Option<&str>) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let problem = answer.json();
    assert_eq!(problem["status"], status.as_u16(), "{problem}");
    for member in ["type", "title", "detail"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member} of {problem}");
    }
    if let Some(field) = field {
        assert_eq!(problem["field"], field, "{problem}");
    }
}

fn address(node: &NodeProcess) -> &str {
    node.url().strip_prefix("http://").unwrap()
}

fn chunked_upload(size_bytes: usize) -> Vec<u8> {
    let head = "POST /v1/blobs HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\
                connection: close\r\n\r\n";
    let mut request = head.as_bytes().to_vec();
    request.extend(format!("{size_bytes:x}\r\n").as_bytes());
    request.extend(vec![b'x'; size_bytes]);
    request.extend(b"\r\n0\r\n\r\n");
    request
}

/// Sends bytes and reads what comes until the server hangs up.
async fn raw(node: &NodeProcess, request: &[u8]) -> String {
    let stream = TcpStream::connect(address(node)).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let request = request.to_vec();
    // The server may answer, and hang up, before it has read everything.
    let sending = tokio::spawn(async move {
        let _ = to.write_all(&request).await;
        to
    });
    let mut answer = Vec::new();
    let _ = from.read_to_end(&mut answer).await;
    drop(sending.await);
    String::from_utf8_lossy(&answer).into_owned()
}
