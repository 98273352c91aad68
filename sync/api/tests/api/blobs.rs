//! Content: taken in, given out whole and in ranges.

use alexandria_api::Limits;
use axum::body::Body;
use axum::http::{Method, StatusCode};
use proptest::prelude::*;
use serde_json::json;

use crate::client::{Answer, Client};

/// `len` bytes that are all but the same anywhere.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

/// The parts of a `multipart/byteranges` answer: where each starts, and its bytes. Parsed by the RFC, not by our code.
fn parts(answer: &Answer) -> Vec<(usize, Vec<u8>)> {
    let boundary = answer.header("content-type").strip_prefix("multipart/byteranges; boundary=").expect("a boundary");
    let delimiter = format!("\r\n--{boundary}");
    let mut parts = Vec::new();
    let mut rest = &answer.body[..];
    loop {
        assert!(rest.starts_with(delimiter.as_bytes()));
        rest = &rest[delimiter.len()..];
        if rest == b"--\r\n" {
            return parts;
        }
        let head_end = rest.windows(4).position(|window| window == b"\r\n\r\n").expect("a part has a head");
        let head = String::from_utf8(rest[..head_end].to_vec()).unwrap();
        let range = head.lines().find_map(|line| line.strip_prefix("Content-Range: bytes ")).expect("a range");
        let (first, last) = range.split('/').next().and_then(|range| range.split_once('-')).expect("two ends");
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let body = &rest[head_end + 4..][..=last - first];
        parts.push((first, body.to_vec()));
        rest = &rest[head_end + 4 + body.len()..];
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is asked for, every byte in the answer is the byte of the content at the place that the answer names.
    #[test]
    fn every_range_answer_holds_the_bytes_it_names(
        len in 1usize..4000,
        ranges in prop::collection::vec((0usize..4200, 0usize..4200), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bytes = content(len);
        runtime.block_on(async {
            let client = Client::new();
            let hash = client.upload("video/mp4", bytes.clone()).await;
            let asked: Vec<_> = ranges.iter().map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))).collect();
            let header = format!("bytes={}", asked.join(","));
            let answer = client.get_with(&format!("/v1/blobs/{hash}"), &[("range", &header)]).await;
            let satisfiable = ranges.iter().any(|(a, b)| a.min(b) < &len);
            if !satisfiable {
                answer.problem(416, "range-not-satisfiable");
                assert_eq!(answer.header("content-range"), format!("bytes */{len}"));
                return;
            }
            assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
            assert_eq!(answer.header("content-length"), answer.body.len().to_string());
            let pieces = match answer.header("content-range").strip_prefix("bytes ") {
                None => parts(&answer),
                Some(range) => {
                    let first = range.split('-').next().unwrap().parse().unwrap();
                    vec![(first, answer.body.to_vec())]
                }
            };
            for at in 0..len {
                let asked = ranges.iter().any(|(a, b)| (*a.min(b)..=*a.max(b)).contains(&at));
                let holding = pieces.iter().filter(|(first, piece)| (*first..first + piece.len()).contains(&at));
                let found: Vec<_> = holding.map(|(first, piece)| piece[at - first]).collect();
                assert_eq!(found, if asked { vec![bytes[at]] } else { vec![] }, "byte {at} of {header}");
            }
        });
    }
}

#[tokio::test]
async fn content_comes_back_whole_with_all_its_headers() {
    let client = Client::new();
    let bytes = content(10_000);
    let hash = client.upload("audio/ogg", bytes.clone()).await;
    let at = format!("/v1/blobs/{hash}");
    let answer = client.get(&at).await;
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &bytes[..]));
    for (name, value) in [
        ("content-type", "audio/ogg"),
        ("content-length", "10000"),
        ("etag", &format!("\"{hash}\"")),
        ("accept-ranges", "bytes"),
        ("cache-control", "public, max-age=31536000, immutable"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", ""),
        ("content-disposition", ""),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let head = client.call(Method::HEAD, &at, &[("range", "bytes=0-1")], Body::empty()).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(head.header("content-length"), "10000");
}

#[tokio::test]
async fn conditions_save_bytes_and_if_range_never_mixes_versions() {
    let client = Client::new();
    let hash = client.upload("text/plain", content(100)).await;
    let (at, etag) = (format!("/v1/blobs/{hash}"), format!("\"{hash}\""));
    let unchanged = client.get_with(&at, &[("if-none-match", &etag), ("range", "bytes=0-1")]).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (StatusCode::NOT_MODIFIED, 0));
    client.get_with(&at, &[("if-match", "\"other\"")]).await.problem(412, "stale");
    for (if_range, status) in
        [(etag.as_str(), 206), ("\"other\"", 200), (&format!("W/{etag}"), 200), ("Wed, 21 Oct 2026 07:28:00 GMT", 200)]
    {
        let answer = client.get_with(&at, &[("range", "bytes=10-19"), ("if-range", if_range)]).await;
        assert_eq!(answer.status, status, "{if_range}");
    }
    client.get(&format!("/v1/blobs/{}", "0".repeat(64))).await.problem(404, "not-found");
}

#[tokio::test]
async fn what_a_browser_could_run_is_sandboxed_and_names_are_made_safe() {
    let client = Client::new();
    let page = client.upload("text/html", "<script>alert(1)</script>").await;
    let picture = client.upload("image/svg+xml", "<svg/>").await;
    for hash in [page, picture] {
        let answer = client.get(&format!("/v1/blobs/{hash}?name=..%2F..%2Fpage%0d%0a.html&download=true")).await;
        assert!(answer.header("content-security-policy").starts_with("sandbox;"));
        assert_eq!(
            answer.header("content-disposition"),
            "attachment; filename=\"page.html\"; filename*=UTF-8''page.html"
        );
    }
}

#[tokio::test]
async fn an_upload_tells_the_hash_and_is_taken_once() {
    let client = Client::new();
    let first = client.call(Method::POST, "/v1/blobs", &[("content-type", "image/png")], content(3000)).await;
    assert_eq!(first.status, StatusCode::CREATED);
    let hash = alexandria_sync::chunk::BlobHash::of(&content(3000));
    assert_eq!(first.json(), json!({"hash": hash.to_string(), "size_bytes": 3000, "media_type": "image/png"}));
    assert_eq!(first.header("location"), format!("/v1/blobs/{hash}"));
    let path = format!("/v1/blobs?hash={hash}");
    let again = client.call(Method::POST, &path, &[("content-type", "text/plain")], content(3000)).await;
    assert_eq!((again.status, again.json()["media_type"].as_str()), (StatusCode::OK, Some("image/png")));
}

#[tokio::test]
async fn an_upload_that_breaks_a_promise_leaves_nothing_behind() {
    let client = Client::limited(Limits { upload_bytes_max: 1000, ..Limits::default() });
    let sha256_of_nothing = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
    let post = async |path: &str, headers: &[(&str, &str)], len: usize| {
        client.call(Method::POST, path, headers, content(len)).await
    };
    post("/v1/blobs", &[], 1001).await.problem(413, "too-large");
    post("/v1/blobs", &[("content-length", "1001")], 10).await.problem(413, "too-large");
    let path = format!("/v1/blobs?hash={}", "0".repeat(64));
    assert_eq!(post(&path, &[], 10).await.problem(409, "content-mismatch"), "hash");
    let digest = [("content-digest", sha256_of_nothing)];
    assert_eq!(post("/v1/blobs", &digest, 10).await.problem(409, "content-mismatch"), "Content-Digest");
    let malformed = [("content-digest", "sha-256=abc")];
    assert_eq!(post("/v1/blobs", &malformed, 10).await.problem(400, "invalid-header"), "Content-Digest");
    let malformed = [("content-type", "not a type")];
    assert_eq!(post("/v1/blobs", &malformed, 10).await.problem(400, "invalid-header"), "Content-Type");
    assert_eq!(client.get("/v1/blobs").await.json()["items"], json!([]));

    assert_eq!(post("/v1/blobs", &digest, 0).await.status, StatusCode::CREATED);
    let unknown = [("content-digest", "crc32c=:AAAAAA==:")];
    assert_eq!(post("/v1/blobs", &unknown, 1000).await.status, StatusCode::CREATED);
}
