use alexandria_e2e::{
    fleet::Fleet,
    node::{NodeProcess, NodeSettings},
};
use hyper::{Method, StatusCode};
use serde_json::json;

/// Replications after which all who take part hold the same, whoever notices what, and when.
const ROUNDS: usize = 4;

#[tokio::test]
async fn a_node_whose_card_was_put_back_loses_nothing_that_it_or_the_bridge_had() {
    let fleet = Fleet::start().await;
    let mut node = settings().start().await;
    fleet.enrol(&node).await;
    let old = created(&node, "Of old").await;
    node.sync_once().await;
    node.stop().await;
    let image = node.image("image");

    node.start_again().await;
    edit(&node, &old, "edited before the card was put back").await;
    let lost = created(&node, "Written before the card was put back").await;
    node.sync_once().await;
    node.stop().await;
    node.put_back(&image);

    node.start_again().await;
    assert_eq!(held(&node, &lost).await, StatusCode::NOT_FOUND);
    // More than was lost: it stands where the bridge believes to have read.
    let mut since = Vec::new();
    for number in 0..3 {
        since.push(created(&node, &format!("Written since, {number}")).await);
    }
    for _ in 0..ROUNDS {
        node.sync_once().await;
    }
    assert_eq!(held(&node, &lost).await, StatusCode::OK, "the bridge had it");
    let media = node.get(&format!("/v1/media/{old}")).ok().await.json();
    assert_eq!(media["description"], "edited before the card was put back");
    for written in since.iter().chain([&old, &lost]) {
        assert_eq!(in_cloud(&fleet, written).await, StatusCode::OK);
    }
    let status = node.status().await["set_back"].clone();
    assert_eq!(status["times"], 1, "{status}");
    let shown = node.done("status", &[]).await;
    assert!(shown.contains("the data folder is an older copy"), "{shown}");
}

#[tokio::test]
async fn two_nodes_with_copies_of_one_card_lose_nothing_that_either_wrote() {
    let fleet = Fleet::start().await;
    let mut node = settings().start().await;
    fleet.enrol(&node).await;
    let mut written = vec![created(&node, "Of old").await];
    node.sync_once().await;
    node.stop().await;
    let mut copy = settings().prepare();
    copy.put_back(&node.image("image"));
    node.start_again().await;
    copy.start_again().await;

    for round in 0..ROUNDS {
        for (name, end) in [("original", &node), ("copy", &copy)] {
            if round < 2 {
                written.push(created(end, &format!("Written by the {name}, {round}")).await);
            }
            end.sync_once().await;
        }
    }
    for media in &written {
        assert_eq!(in_cloud(&fleet, media).await, StatusCode::OK);
        for end in [&node, &copy] {
            assert_eq!(held(end, media).await, StatusCode::OK);
        }
    }
    let mut times = 0;
    for end in [&node, &copy] {
        times += end.status().await["set_back"]["times"].as_u64().unwrap_or_default();
    }
    assert!((1..=2).contains(&times), "a new life each is enough: {times}");
}

fn settings() -> NodeSettings {
    NodeSettings::default().bare().by_hand()
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

async fn held(node: &NodeProcess, media: &str) -> StatusCode {
    node.get(&format!("/v1/media/{media}")).send().await.unwrap().status
}

async fn in_cloud(fleet: &Fleet, media: &str) -> StatusCode {
    fleet.bridge.request(Method::GET, &format!("/v1/media/{media}")).send().await.unwrap().status
}
