use std::time::Duration;

use alexandria_e2e::{
    deadline::wait_until,
    fleet::Fleet,
    node::{NodeProcess, NodeSettings},
};
use hyper::{Method, StatusCode};
use serde_json::json;

const SOON: Duration = Duration::from_mins(2);
const LEASE_S: &str = "5";

#[tokio::test]
async fn a_node_that_comes_back_after_its_lease_brings_nothing_back_and_loses_nothing() {
    let fleet = Fleet::start_with(|settings, _| settings.environment("ALEXANDRIA_BRIDGE_FLEET_LEASE_S", LEASE_S)).await;
    let mut node = NodeSettings::default().bare().by_hand().start().await;
    fleet.enrol(&node).await;
    let stays = created(&node, "Stays").await;
    let goes = created(&node, "Goes").await;
    node.sync_once().await;
    assert_eq!(in_cloud(&fleet, &goes).await, StatusCode::OK);

    // It is away, and people go on there.
    edit(&node, &stays, "edited while away").await;
    edit(&node, &goes, "edited, and deleted elsewhere").await;
    let written = created(&node, "Written while away").await;
    let path = format!("/v1/media/{goes}?hard=true");
    fleet.bridge.request(Method::DELETE, &path).ok().await;
    wait_until("the cloud to forget that it deleted something", SOON, async || {
        fleet.database.number("SELECT count(*) FROM record WHERE deleted").await == 0
    })
    .await;
    wait_until("the lease to show as lapsed", SOON, async || {
        let nodes = fleet.bridge.request(Method::GET, "/v1/fleet/nodes").ok().await.json();
        nodes["nodes"][0]["lapsed"] == true
    })
    .await;

    node.sync_once().await;
    node.kill_9();
    node.start_again().await;
    assert_eq!(in_cloud(&fleet, &goes).await, StatusCode::NOT_FOUND, "what was deleted stays deleted");
    assert_eq!(in_cloud(&fleet, &written).await, StatusCode::NOT_FOUND, "nobody has decided about it yet");
    let merged = fleet.bridge.request(Method::GET, &format!("/v1/media/{stays}")).ok().await.json();
    assert_eq!(merged["description"], "edited while away", "an edit of what lives is merged");
    let status = node.status().await["absence"].clone();
    assert_eq!(status["reading_anew"], false, "{status}");
    assert!(status["held_back"].as_u64() >= Some(2), "{status}");
    let listed = node.done("heldback", &["list"]).await;
    assert!(listed.contains("Written while away") && !listed.contains("Stays"), "{listed}");
    let shown = node.get(&format!("/v1/media/{written}")).ok().await.json();
    assert_eq!(shown["title"], "Written while away", "its readers still have it");

    node.done("heldback", &["drop", &goes]).await;
    node.done("heldback", &["send", "--all"]).await;
    node.sync_once().await;
    assert_eq!(in_cloud(&fleet, &written).await, StatusCode::OK);
    assert_eq!(in_cloud(&fleet, &goes).await, StatusCode::NOT_FOUND);
    let gone = node.get(&format!("/v1/media/{goes}")).send().await.unwrap();
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    assert_eq!(node.status().await["absence"]["held_back"], 0);
}

async fn created(node: &NodeProcess, title: &str) -> String {
    let media = json!({ "title": title });
    let made = node.request(Method::POST, "/v1/media").json(&media).ok().await.json();
    made["id"].as_str().unwrap_or_else(|| panic!("no id: {made}")).to_owned()
}

async fn edit(node: &NodeProcess, media: &str, description: &str) {
    let changes = json!({ "description": description }).to_string();
    let request = node.request(Method::PATCH, &format!("/v1/media/{media}"));
    request.header("content-type", "application/merge-patch+json").body(changes).ok().await;
}

async fn in_cloud(fleet: &Fleet, media: &str) -> StatusCode {
    fleet.bridge.request(Method::GET, &format!("/v1/media/{media}")).send().await.unwrap().status
}
