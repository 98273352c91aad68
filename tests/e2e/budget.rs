//! What a link may carry: a small budget for a day that everything keeps to, also across kills, and content that is read
//! while it comes. What crossed is counted by the line itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alexandria_e2e::{
    catalogue::create_film,
    datagrams::UdpLossyProxy,
    deadline::{wait_for, wait_until},
    files::noise,
    fleet::Fleet,
    http::Response,
    line::Profile,
    node::{NodeProcess, NodeSettings},
    seed::seed,
};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_mins(3);
const BUDGET_BYTES: u64 = 6_000_000;
const RESERVE_PERCENT: u64 = 40;
/// More than the budget carries.
const BLOB_BYTES: usize = 16_000_000;

#[tokio::test]
async fn replication_keeps_to_the_days_budget_says_so_and_counts_on_after_a_kill() {
    let fleet = Fleet::start().await;
    let line = line(&fleet, 8_000_000).await;
    let bytes = noise(BLOB_BYTES, seed());
    let content = create_film(&fleet.bridge, &bytes).await;
    let link = |settings: NodeSettings, key: &str, value: String| {
        settings.environment(format!("ALEXANDRIA_REPLICATION__LINK__{key}"), value)
    };
    let settings = link(settings(&line), "BYTES_A_DAY", BUDGET_BYTES.to_string());
    let settings = link(settings, "RESERVE_PERCENT", RESERVE_PERCENT.to_string());
    let mut node = link(settings, "UTC_OFFSET", noon_here()).start().await;
    fleet.enrol(&node).await;

    wait_until("a part of the content to cross", DEADLINE, async || crossed(&line) > 1_500_000).await;
    node.kill_9();
    node.start_again().await;

    let wait = waiting(&node, "content_used_up").await;
    assert_eq!(wait["period"], "day");
    let until_s = wait["until_unix_ms"].as_u64().expect("a time") / 1000;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    assert!((now_s..now_s + 24 * 3600).contains(&until_s), "until the next midnight: {wait}");
    let for_content = crossed(&line);
    assert!(for_content <= BUDGET_BYTES * (100 - RESERVE_PERCENT) / 100, "{for_content} crossed: the reserve is left");
    let outlook = node.status().await["replication"]["outlook"].clone();
    assert_eq!(outlook["content"]["background"]["blobs"], 1, "{outlook}");
    assert!(outlook["budget"]["all_bytes"].as_u64().is_some_and(|left| left < BUDGET_BYTES - for_content), "{outlook}");
    for page in ["/", "/status", "/metrics"] {
        let text = node.get(page).ok().await.text().to_owned();
        assert!(text.contains("used up") || text.contains("alexandria_replication_waits 1"), "{page} tells: {text}");
    }

    // Who asks for it is told why it does not come, and when to ask again.
    let refused = get(&node, &content, None).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json()["type"], "urn:alexandria:problem:not-here-yet");
    assert!(
        refused.json()["detail"].as_str().is_some_and(|detail| detail.contains("used up until")),
        "{}",
        refused.text()
    );
    assert!(
        refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok_and(|seconds| seconds > 60))
    );

    // Records go on within the reserve, before and after another kill.
    for (number, name) in [(1, "first"), (2, "second")] {
        let author = json!({ "name": format!("The {name} author") });
        fleet.bridge.request(Method::POST, "/v1/authors").json(&author).ok().await;
        wait_until("the author to reach the node", DEADLINE, async || {
            let authors = node.get("/v1/authors?page_size=100").ok().await.json();
            authors["items"].as_array().is_some_and(|authors| authors.len() == number)
        })
        .await;
        node.kill_9();
        node.start_again().await;
    }
    let told = node.fails("sync", &["--once"]).await;
    assert!(told.contains("used up until"), "{told}");
    let crossed = crossed(&line);
    println!("{crossed} bytes of {BUDGET_BYTES} crossed, {for_content} of them before content stopped");
    assert!(crossed <= BUDGET_BYTES, "{crossed} crossed");
    assert_eq!(node.status().await["content"]["wanted"], 1, "the content has not come");
}

#[tokio::test]
async fn content_is_read_while_it_comes_from_where_the_reader_is() {
    let fleet = Fleet::start().await;
    let line = line(&fleet, 6_000_000).await;
    let bytes = noise(BLOB_BYTES, seed());
    let content = create_film(&fleet.bridge, &bytes).await;
    let node = settings(&line).start().await;
    let nobody = get(&node, &content, None).await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND, "no fleet, no record");
    fleet.enrol(&node).await;
    wait_until("the record to come", DEADLINE, async || node.status().await["content"]["wanted"] == 1).await;

    let (start, end) = (11_000_000, 11_500_000);
    let part = get(&node, &content, Some(format!("bytes={start}-{}", end - 1))).await;
    assert_eq!((part.status, part.header("cache-control")), (StatusCode::PARTIAL_CONTENT, Some("no-store")));
    assert_eq!(part.body, bytes[start..end], "byte for byte");
    assert_eq!(node.status().await["content"]["wanted"], 1, "it came before the whole was there");

    let whole = get(&node, &content, None).await;
    assert_eq!((whole.status, whole.header("cache-control")), (StatusCode::OK, Some("no-store")));
    assert_eq!(whole.body, bytes, "byte for byte");
    let again = get(&node, &content, None).await;
    assert_eq!(again.header("cache-control"), Some("public, max-age=31536000, immutable"), "now it is proved");
}

async fn line(fleet: &Fleet, rate_bits_per_s: u64) -> UdpLossyProxy {
    let profile = Profile {
        delay: Duration::from_millis(25),
        loss: 0.002,
        rate_bits_per_s: Some(rate_bits_per_s),
        queue: Duration::from_millis(400),
    };
    UdpLossyProxy::start(fleet.bridge.settings().quic, profile, seed()).await
}

fn settings(line: &UdpLossyProxy) -> NodeSettings {
    let settings = NodeSettings::default().bare().environment("ALEXANDRIA_REPLICATION__RETRY_MAX_S", "2");
    settings.environment("ALEXANDRIA_REPLICATION__BRIDGE", line.address().to_string())
}

/// What the node has sent and received over the line, lost datagrams included on the way out.
fn crossed(line: &UdpLossyProxy) -> u64 {
    let (sent, received) = (line.to_server(), line.to_client());
    sent.bytes + sent.lost_bytes + received.bytes
}

/// An offset from UTC where it is noon now, so that no day ends while the test runs.
fn noon_here() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    let hours = 12 - (seconds / 3600 % 24) as i64;
    format!("{}{:02}:00", if hours < 0 { '-' } else { '+' }, hours.abs())
}

async fn waiting(node: &NodeProcess, reason: &str) -> Value {
    wait_for(&format!("replication to wait: {reason}"), DEADLINE, async || {
        let wait = node.status().await["replication"]["wait"].clone();
        (wait["reason"] == reason).then_some(wait)
    })
    .await
}

async fn get(node: &NodeProcess, content: &str, range: Option<String>) -> Response {
    let mut request = node.get(&format!("/v1/blobs/{content}")).deadline(DEADLINE);
    if let Some(range) = range {
        request = request.header("range", range);
    }
    request.send().await.expect("the node answers")
}
