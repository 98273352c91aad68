use alexandria_e2e::{
    catalogue::{create_titled, has_medium, patch},
    fleet::Fleet,
    node::NodeSettings,
};
use serde_json::json;

/// Replications after which all who take part hold the same, whoever notices what, and when.
const ROUNDS: usize = 4;

#[tokio::test]
async fn a_node_whose_card_was_put_back_loses_nothing_that_it_or_the_bridge_had() {
    let fleet = Fleet::start().await;
    let mut node = settings().start().await;
    fleet.enrol(&node).await;
    let old = create_titled(&node, "Of old").await;
    node.sync_once().await;
    node.stop().await;
    let image = node.image("image");

    node.start_again().await;
    patch(&node, &format!("/v1/media/{old}"), &json!({ "description": "edited before the card was put back" })).await;
    let lost = create_titled(&node, "Written before the card was put back").await;
    node.sync_once().await;
    node.stop().await;
    node.put_back(&image);

    node.start_again().await;
    assert!(!has_medium(&node, &lost).await);
    // More than was lost: it stands where the bridge believes to have read.
    let mut since = Vec::new();
    for number in 0..3 {
        since.push(create_titled(&node, &format!("Written since, {number}")).await);
    }
    for _ in 0..ROUNDS {
        node.sync_once().await;
    }
    assert!(has_medium(&node, &lost).await, "the bridge had it");
    let media = node.get(&format!("/v1/media/{old}")).ok().await.json();
    assert_eq!(media["description"], "edited before the card was put back");
    for written in since.iter().chain([&old, &lost]) {
        assert!(has_medium(&fleet.bridge, written).await);
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
    let mut written = vec![create_titled(&node, "Of old").await];
    node.sync_once().await;
    node.stop().await;
    let mut copy = settings().prepare();
    copy.put_back(&node.image("image"));
    node.start_again().await;
    copy.start_again().await;

    for round in 0..ROUNDS {
        for (name, end) in [("original", &node), ("copy", &copy)] {
            if round < 2 {
                written.push(create_titled(end, &format!("Written by the {name}, {round}")).await);
            }
            end.sync_once().await;
        }
    }
    for media in &written {
        assert!(has_medium(&fleet.bridge, media).await);
        for end in [&node, &copy] {
            assert!(has_medium(end, media).await);
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
