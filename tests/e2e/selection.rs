use std::{collections::BTreeSet, path::Path, time::Duration};

use alexandria_e2e::{
    deadline::wait_until,
    files::{content_name, noise, real_folder, write},
    fleet::Fleet,
    node::{NodeProcess, NodeSettings},
};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_mins(2);

#[tokio::test]
async fn a_removed_collection_leaves_the_node_and_nothing_else_and_comes_back_whole() {
    let fleet = Fleet::start().await;
    let node = NodeSettings::default().bare().start().await;
    fleet.enrol(&node).await;
    let folder = real_folder(node.scratch());
    import(&node, "School", &folder).await;
    let held = media(&node).await;
    let contents = node.status().await["content"]["blobs"].as_u64().unwrap();
    wait_until("the bridge to hold all content", SOON, async || {
        fleet.database.number("SELECT count(*) FROM stored_blob").await as u64 == contents
    })
    .await;
    let in_the_cloud = fleet.database.number("SELECT count(*) FROM media").await;

    let said = node.done("collections", &["remove", "School"]).await;
    assert!(said.contains("leaving") || said.contains("not kept"), "{said}");
    wait_until("the collection to have left", SOON, async || phase(&node, "School").await == "not_kept").await;
    assert!(media(&node).await.is_empty());
    wait_until("its content to have left", SOON, async || node.status().await["content"]["blobs"] == 0).await;
    wait_until("search to forget it", SOON, async || {
        node.get("/v1/media?query=handbook").ok().await.json()["items"].as_array().unwrap().is_empty()
    })
    .await;
    assert_eq!(fleet.database.number("SELECT count(*) FROM media").await, in_the_cloud);
    let said = node.fails("import", &["--collection", "School", folder.to_str().unwrap()]).await;
    assert!(said.contains("not kept on this node"), "{said}");
    let page = node.get(&format!("/collection/{}", collection(&node, "School").await["id"].as_str().unwrap()));
    assert!(page.ok().await.text().contains("does not keep this collection"));

    node.done("collections", &["add", "School"]).await;
    wait_until("the collection to be back", SOON, async || media(&node).await == held).await;
    wait_until("its content to be back", SOON, async || node.status().await["content"]["blobs"] == contents).await;
    wait_until("it to be whole", SOON, async || phase(&node, "School").await == "kept").await;
    wait_until("search to find it", SOON, async || {
        !node.get("/v1/media?query=handbook").ok().await.json()["items"].as_array().unwrap().is_empty()
    })
    .await;
}

#[tokio::test]
async fn what_only_the_node_has_stays_until_the_bridge_has_it() {
    let fleet = Fleet::start().await;
    let mut node = NodeSettings::default().bare().by_hand().start().await;
    fleet.enrol(&node).await;
    let bytes = noise(2_000_000, 5);
    let file = write(node.scratch(), "lesson.bin", &bytes);
    // Without a bridge in sight, and with the node stopped: the choice is kept.
    let media = json!({ "title": "Lesson", "collection": made(&node, "Drafts").await });
    node.request(Method::POST, "/v1/media").json(&media).ok().await;
    node.stop().await;
    let said = node.done("collections", &["remove", "Drafts"]).await;
    assert!(said.contains("wait to be sent"), "{said}");
    node.start_again().await;
    let status = node.status().await;
    assert_eq!(status["selection"]["leaving"][0]["phase"], "waiting_to_be_sent", "{status}");
    assert!(said.contains("Drafts") && file.exists());
    assert_eq!(self::media(&node).await.len(), 1, "nobody else has it");

    node.sync_once().await;
    assert_eq!(fleet.database.number("SELECT count(*) FROM media WHERE title = 'Lesson'").await, 1);
    // The session after the one that sent it hears that it is there.
    node.sync_once().await;
    wait_until("the collection to have left", SOON, async || phase(&node, "Drafts").await == "not_kept").await;
    assert_eq!(fleet.database.number("SELECT count(*) FROM media WHERE title = 'Lesson'").await, 1);
}

#[tokio::test]
async fn a_node_that_keeps_records_fetches_content_when_it_is_opened_and_makes_room_for_it() {
    let fleet = Fleet::start().await;
    let source = NodeSettings::default().bare().by_hand().start().await;
    fleet.enrol(&source).await;
    let files: Vec<Vec<u8>> = (0..3).map(|seed| noise(1_000_000, 40 + seed)).collect();
    let shelf = made(&source, "Films").await;
    for (at, bytes) in files.iter().enumerate() {
        let blob = source.request(Method::POST, "/v1/blobs").header("content-type", "video/mp4");
        let hash = blob.body(bytes.clone()).ok().await.json()["hash"].clone();
        let name = format!("{at}.mp4");
        let file =
            json!({ "blob": hash, "media_type": "video/mp4", "name": name, "size_bytes": bytes.len(), "role": "main" });
        let media = json!({ "title": name, "collection": shelf, "media_kind": "video", "files": [file] });
        source.request(Method::POST, "/v1/media").json(&media).ok().await;
    }
    source.sync_once().await;

    let config = "[selection]\ndefault = \"records\"\n[store]\ncontent_bytes_max = 2500000\n";
    let node = NodeSettings::default().bare().config(config).start().await;
    fleet.enrol(&node).await;
    wait_until("the records to be here", SOON, async || media(&node).await.len() == 3).await;
    wait_until("it to be known what is on demand", SOON, async || node.status().await["content"]["on_demand"] == 3)
        .await;
    assert_eq!(node.status().await["content"]["blobs"], 0);
    let page = node.get(&format!("/collection/{shelf}")).ok().await;
    assert!(page.text().contains("comes when somebody opens it"));

    for (at, bytes) in files.iter().enumerate() {
        opens(&node, bytes).await;
        let content = node.status().await["content"].clone();
        assert_eq!(content["blobs"], at.min(1) + 1, "there is room for two: {content}");
    }
    let content = node.status().await["content"].clone();
    assert_eq!((content["evicted"].as_u64(), content["on_demand"].as_u64()), (Some(1), Some(1)), "{content}");
    assert_eq!(content["wanted"], 0, "what made room does not come back by itself");
    opens(&node, &files[0]).await;

    // A pin brings it all, as far as there is room, and it stays.
    let id = media_named(&node, "2.mp4").await;
    node.done("pin", &[&id]).await;
    opens(&node, &files[2]).await;
    opens(&node, &files[0]).await;
    opens(&node, &files[1]).await;
    let kept = node.get(&format!("/v1/blobs/{}", content_name(&files[2]))).send().await.unwrap();
    assert_eq!(kept.status, StatusCode::OK, "pinned");
    node.done("unpin", &[&id]).await;
}

/// Asks for content as a reader does, until it has come.
async fn opens(node: &NodeProcess, bytes: &[u8]) {
    let path = format!("/v1/blobs/{}", content_name(bytes));
    wait_until("content that was opened to come", SOON, async || {
        let answer = node.get(&path).send().await.unwrap();
        answer.status == StatusCode::OK && answer.body == bytes
    })
    .await;
}

async fn import(node: &NodeProcess, title: &str, folder: &Path) {
    node.done("import", &["--collection", title, folder.to_str().unwrap()]).await;
}

async fn made(node: &NodeProcess, title: &str) -> String {
    let created = node.request(Method::POST, "/v1/collections").json(&json!({ "title": title })).ok().await.json();
    created["id"].as_str().unwrap().to_owned()
}

async fn media(node: &NodeProcess) -> BTreeSet<(String, String)> {
    let listed = node.get("/v1/media?page_size=100").ok().await.json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    listed["items"].as_array().unwrap().iter().map(|it| (text(&it["id"]), text(&it["title"]))).collect()
}

async fn media_named(node: &NodeProcess, title: &str) -> String {
    let all = media(node).await;
    all.into_iter().find(|(_, known)| known == title).unwrap_or_else(|| panic!("no {title}")).0
}

async fn collection(node: &NodeProcess, title: &str) -> Value {
    let said = node.done("collections", &["list", "--json"]).await;
    let all: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("not JSON ({error}): {said}"));
    let found = all.as_array().unwrap().iter().find(|it| it["title"] == title);
    found.unwrap_or_else(|| panic!("no {title} in {said}")).clone()
}

async fn phase(node: &NodeProcess, title: &str) -> String {
    collection(node, title).await["phase"].as_str().unwrap().to_owned()
}
