use std::time::Duration;

use alexandria_e2e::{
    catalogue::{create_titled, has_medium, patch},
    deadline::wait_until,
    fleet::Fleet,
    node::NodeSettings,
};
use hyper::Method;
use serde_json::json;

const SOON: Duration = Duration::from_mins(2);
const LEASE_S: &str = "5";

#[tokio::test]
async fn a_node_that_comes_back_after_its_lease_brings_nothing_back_and_loses_nothing() {
    let fleet = Fleet::start_with(|settings, _| settings.environment("ALEXANDRIA_BRIDGE_FLEET_LEASE_S", LEASE_S)).await;
    let mut node = NodeSettings::default().bare().by_hand().start().await;
    fleet.enrol(&node).await;
    let stays = create_titled(&node, "Stays").await;
    let goes = create_titled(&node, "Goes").await;
    node.sync_once().await;
    assert!(has_medium(&fleet.bridge, &goes).await);

    // It is away, and people go on there.
    patch(&node, &format!("/v1/media/{stays}"), &json!({ "description": "edited while away" })).await;
    patch(&node, &format!("/v1/media/{goes}"), &json!({ "description": "edited, and deleted elsewhere" })).await;
    let written = create_titled(&node, "Written while away").await;
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
    assert!(!has_medium(&fleet.bridge, &goes).await, "what was deleted stays deleted");
    assert!(!has_medium(&fleet.bridge, &written).await, "nobody has decided about it yet");
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
    assert!(has_medium(&fleet.bridge, &written).await);
    assert!(!has_medium(&fleet.bridge, &goes).await);
    assert!(!has_medium(&node, &goes).await);
    assert_eq!(node.status().await["absence"]["held_back"], 0);
}
