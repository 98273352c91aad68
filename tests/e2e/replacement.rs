use alexandria_e2e::{
    catalogue::create,
    fleet::Fleet,
    node::{NodeProcess, NodeSettings},
};
use hyper::Method;
use serde_json::json;

/// DESIGN section 4: what belongs to a site is backed up to the cloud, and handed to a replacement node.
#[tokio::test]
async fn a_replacement_node_takes_over_what_belongs_to_the_site_and_the_old_one_is_shut_out() {
    let fleet = Fleet::start().await;
    let old = enrolled(&fleet, &fleet.token().await).await;
    let collection = old.request(Method::POST, "/v1/collections").json(&json!({ "title": "School" })).ok().await.json();
    let media = json!({ "title": "Lesson", "collection": collection["id"] });
    let media = create(&old, "/v1/media", &media).await;
    for _ in 0..3 {
        opens(&old, &media).await;
    }
    old.sync_once().await;
    let other = enrolled(&fleet, &fleet.token().await).await;
    other.sync_once().await;
    assert_eq!(popularity(&other, &media).await, 0, "how often it was opened at a site stays with the site");

    let replaced = old.status().await["node"].as_str().unwrap().to_owned();
    let made = fleet.bridge.run("token", &["create", "--site", "Harbour", "--replaces", &replaced]).await;
    assert!(made.status.success(), "{made:?}");
    let token = String::from_utf8(made.stdout).unwrap();
    let new = enrolled(&fleet, token.trim()).await;
    new.sync_once().await;
    assert_eq!(popularity(&new, &media).await, 3);
    opens(&new, &media).await;
    new.sync_once().await;
    assert_eq!(popularity(&new, &media).await, 4);
    assert_eq!(fleet.database.number("SELECT opened::bigint FROM popularity").await, 4, "nothing counts twice");

    opens(&old, &media).await;
    let said = old.fails("sync", &["--once"]).await;
    assert!(said.contains("not replicated"), "{said}");
    assert_eq!(fleet.database.number("SELECT opened::bigint FROM popularity").await, 4);
}

async fn enrolled(fleet: &Fleet, token: &str) -> NodeProcess {
    let node = NodeSettings::default().bare().by_hand().start().await;
    node.done("enroll", &["--bridge", &fleet.enrolment(), "--token", token]).await;
    node
}

async fn opens(node: &NodeProcess, media: &str) {
    node.request(Method::POST, &format!("/v1/media/{media}/opens")).ok().await;
}

async fn popularity(node: &NodeProcess, media: &str) -> u64 {
    let listed = node.get("/v1/media").ok().await.json();
    let found = listed["items"].as_array().unwrap().iter().find(|entry| entry["id"] == media);
    found.expect("it is here")["popularity"].as_u64().expect("lists tell it")
}
