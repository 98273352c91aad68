use std::time::Duration;

use alexandria_e2e::{
    catalogue::{create, patch},
    deadline::wait_until,
    fleet::Fleet,
    http::Request,
    node::{NodeProcess, NodeSettings},
};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_mins(1);

#[tokio::test]
async fn edits_made_apart_on_two_nodes_and_in_the_cloud_come_together_everywhere() {
    let world = World::start().await;
    let World { fleet, one, other } = &world;
    let media = json!({ "title": "Soil", "description": "first" });
    let media = create(one, "/v1/media", &media).await;
    let path = format!("/v1/media/{media}");
    world.meet().await;
    world.all_hold_the_same(&path).await;

    // Apart: three sides write different fields, and two of them the same one.
    patch(one, &path, &json!({ "title": "Soil and water", "publisher": "The node" })).await;
    patch(other, &path, &json!({ "languages": ["sw"], "publisher": "The other node" })).await;
    let last = json!({ "description": "from the cloud", "publisher": "The cloud" });
    patch(&fleet.bridge, &path, &last).await;
    let only_here = create(one, "/v1/authors", &json!({ "name": "One" })).await;
    let only_there = create(other, "/v1/authors", &json!({ "name": "Other" })).await;
    one.request(Method::PUT, &format!("{path}/authors/{only_here}")).ok().await;

    world.meet().await;
    let merged = world.all_hold_the_same(&path).await;
    assert_eq!(merged["title"], "Soil and water");
    assert_eq!(merged["languages"], json!(["sw"]));
    assert_eq!(merged["description"], "from the cloud");
    assert_eq!(merged["publisher"], "The cloud", "the last writer wins");
    for author in [&only_here, &only_there] {
        world.all_hold_the_same(&format!("/v1/authors/{author}")).await;
    }
    for side in world.sides(&format!("{path}/authors")) {
        let listed = side.ok().await.json();
        assert_eq!(listed["items"][0]["name"], "One", "{listed}");
    }
    wait_until("search on the other node to know the new title", SOON, async || {
        let found = other.get("/v1/media?query=water").ok().await.json();
        found["items"][0]["id"] == media.as_str()
    })
    .await;
}

#[tokio::test]
async fn a_delete_a_restore_and_a_delete_for_good_reach_every_side() {
    let world = World::start().await;
    let World { fleet, one, other } = &world;
    let category = create(one, "/v1/categories", &json!({ "name": "Farming" })).await;
    let path = format!("/v1/categories/{category}");
    world.meet().await;

    one.request(Method::DELETE, &path).ok().await;
    // While it is hidden there, it is edited here: neither is lost.
    patch(other, &path, &json!({ "description": "Fields and gardens" })).await;
    world.meet().await;
    world.all_answer(&path, StatusCode::NOT_FOUND).await;
    let hidden = world.all_hold_the_same(&format!("{path}?show_disabled=true")).await;
    assert_eq!(hidden["description"], "Fields and gardens");

    fleet.bridge.request(Method::POST, &format!("{path}/restore")).ok().await;
    world.meet().await;
    let restored = world.all_hold_the_same(&path).await;
    assert_eq!(restored["disabled"], false);
    assert_eq!(restored["description"], "Fields and gardens");

    fleet.bridge.request(Method::DELETE, &format!("{path}?hard=true")).ok().await;
    // An edit that nobody had seen when it was deleted does not bring it back.
    patch(one, &path, &json!({ "description": "too late" })).await;
    world.meet().await;
    world.all_answer(&format!("{path}?show_disabled=true"), StatusCode::NOT_FOUND).await;
}

/// A fleet of two nodes that replicate only when told to.
struct World {
    fleet: Fleet,
    one: NodeProcess,
    other: NodeProcess,
}

impl World {
    async fn start() -> Self {
        let fleet = Fleet::start().await;
        let one = NodeSettings::default().bare().by_hand().start().await;
        let other = NodeSettings::default().bare().by_hand().start().await;
        for node in [&one, &other] {
            fleet.enrol(node).await;
        }
        Self { fleet, one, other }
    }

    /// Lets both nodes replicate until all sides have heard of everything.
    async fn meet(&self) {
        for node in [&self.one, &self.other, &self.one] {
            node.sync_once().await;
        }
    }

    /// The same GET to all three.
    fn sides(&self, path: &str) -> [Request; 3] {
        [self.one.get(path), self.other.get(path), self.fleet.bridge.get(path)]
    }

    /// Insists that all three show a record alike, at the same version. Returns it.
    async fn all_hold_the_same(&self, path: &str) -> Value {
        let mut shown = Vec::new();
        for side in self.sides(path) {
            let answer = side.ok().await;
            shown.push((answer.json(), answer.header("etag").map(str::to_owned)));
        }
        assert!(shown.iter().all(|one| *one == shown[0]), "{shown:#?}");
        shown.swap_remove(0).0
    }

    async fn all_answer(&self, path: &str, status: StatusCode) {
        for side in self.sides(path) {
            let answer = side.send().await.unwrap();
            assert_eq!(answer.status, status, "{answer:?}");
        }
    }
}
