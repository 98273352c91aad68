use std::{collections::BTreeMap, time::Duration};

use alexandria_e2e::{
    deadline::wait_until,
    files::{content_name, noise, real, real_folder},
    fleet::{Event, Fleet},
    node::{NodeProcess, NodeSettings},
};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_mins(1);

#[tokio::test]
async fn an_offline_node_serves_what_it_imported_and_replicates_it_to_postgres_s3_sns_and_another_node() {
    let node = NodeSettings::default().bare().by_hand().start().await;
    let folder = real_folder(node.scratch());
    let said = node.done("import", &[folder.to_str().unwrap()]).await;
    assert!(said.starts_with(&format!("{} imported", real().len())), "{said}");
    let shelf = Shelf::of(&node).await;
    shelf.holds_the_real_files();
    for (content, media) in &shelf.contents {
        let served = node.get(&format!("/v1/blobs/{content}")).ok().await;
        assert_eq!(content_name(&served.body), *content, "{media}");
    }

    let fleet = Fleet::start().await;
    fleet.enrol(&node).await;
    node.sync_once().await;

    let rows = rows_by_id(&fleet).await;
    assert_eq!(rows, shelf.titles, "every medium is a row, under its title");
    let authors = fleet.database.number("SELECT count(*) FROM author WHERE name <> ''").await;
    assert!(authors > 0, "the books have authors");
    assert_eq!(authors, node.status().await["records"]["authors"].as_i64().unwrap());

    let mut expected = Vec::new();
    for content in shelf.contents.keys() {
        let object = fleet.object(content).await.unwrap_or_else(|| panic!("{content} is an object"));
        assert_eq!(content_name(&object), *content, "byte for byte");
        assert!(fleet.has_stored(content).await);
        expected.push(format!("BLOB_UPLOADED blob/{content}"));
    }
    expected.extend(shelf.titles.keys().map(|id| format!("MEDIA_CREATED media/{id}")));
    let events = fleet.events(&expected, SOON).await;
    events.iter().for_each(is_a_cloud_event);
    assert!(events.iter().any(|event| event.name().starts_with("AUTHOR_CREATED author/")));

    let things = fleet.aws.iot().things().await;
    let id = node.status().await["node"].as_str().unwrap().to_owned();
    let thing = things.iter().find(|thing| thing.contains(&id)).unwrap_or_else(|| panic!("{id} among {things:?}"));
    assert_eq!(fleet.aws.iot().certificates_of(thing).await.len(), 1);

    let second = NodeSettings::default().bare().by_hand().start().await;
    fleet.enrol(&second).await;
    second.sync_once().await;
    let received = Shelf::of(&second).await;
    assert_eq!(received.titles, shelf.titles);
    serves_in_ranges(&second, shelf.contents.keys()).await;
    // The index follows the records.
    wait_until("what was received to be found", SOON, async || {
        let found = second.get("/v1/media?query=handbook").ok().await.json();
        !found["items"].as_array().unwrap().is_empty()
    })
    .await;
}

#[tokio::test]
async fn what_is_created_in_the_cloud_reaches_the_node() {
    let fleet = Fleet::start().await;
    let node = NodeSettings::default().bare().start().await;
    fleet.enrol(&node).await;

    let bytes = noise(3_000_000, 11);
    let blob = fleet.bridge.request(Method::POST, "/v1/blobs").header("content-type", "video/mp4");
    let blob = blob.body(bytes.clone()).ok().await.json();
    let content = blob["hash"].as_str().unwrap();
    assert_eq!(content, content_name(&bytes));
    let collection = json!({ "title": "From the ministry" });
    let collection = fleet.bridge.request(Method::POST, "/v1/collections").json(&collection).ok().await.json();
    let file = json!({ "blob": content, "media_type": "video/mp4", "name": "well.mp4", "size_bytes": bytes.len(), "role": "main" });
    let media =
        json!({ "title": "Digging a well", "collection": collection["id"], "media_kind": "video", "files": [file] });
    let media = fleet.bridge.request(Method::POST, "/v1/media").json(&media).ok().await.json();
    let author = json!({ "name": "Ministry of Water" });
    let author = fleet.bridge.request(Method::POST, "/v1/authors").json(&author).ok().await.json();
    let (media, author) = (media["id"].as_str().unwrap(), author["id"].as_str().unwrap());
    fleet.bridge.request(Method::PUT, &format!("/v1/media/{media}/authors/{author}")).ok().await;

    // The node keeps its session open: it is told without asking.
    let path = format!("/v1/media/{media}");
    wait_until("the medium to reach the node", SOON, async || is_found(&node, &path).await).await;
    let path = format!("/v1/blobs/{content}");
    wait_until("its content to reach the node", SOON, async || is_found(&node, &path).await).await;
    assert_eq!(node.get(&path).ok().await.body, bytes);
    let path = format!("/v1/media/{media}/authors");
    wait_until("its author to reach the node", SOON, async || {
        let authors = node.get(&path).ok().await.json();
        authors["items"][0]["name"] == "Ministry of Water"
    })
    .await;
}

async fn is_found(node: &NodeProcess, path: &str) -> bool {
    let answer = node.get(path).send().await.unwrap();
    let on_its_way = [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.status);
    assert!(answer.status.is_success() || on_its_way, "{answer:?}");
    answer.status.is_success()
}

/// The media of a node.
struct Shelf {
    /// By id.
    titles: BTreeMap<String, String>,
    /// The titles of media by the content of their files.
    contents: BTreeMap<String, String>,
}

impl Shelf {
    async fn of(node: &NodeProcess) -> Self {
        let listed = node.get("/v1/media?page_size=100").ok().await.json();
        let mut shelf = Self { titles: BTreeMap::new(), contents: BTreeMap::new() };
        for media in listed["items"].as_array().unwrap() {
            let title = text(&media["title"]);
            shelf.titles.insert(text(&media["id"]), title.clone());
            for file in media["files"].as_array().unwrap() {
                shelf.contents.insert(text(&file["blob"]), title.clone());
            }
        }
        shelf
    }

    fn holds_the_real_files(&self) {
        let files = real();
        assert_eq!(self.titles.len(), files.len(), "{:?}", self.titles);
        for file in files {
            assert!(self.contents.contains_key(&content_name(&file.bytes)), "{} is there", file.name);
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is a text")).to_owned()
}

async fn rows_by_id(fleet: &Fleet) -> BTreeMap<String, String> {
    let client = fleet.database.connect().await;
    let rows = client.query("SELECT id::text, title FROM media", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// CloudEvents 1.0, and attributes that a subscriber can filter on.
fn is_a_cloud_event(event: &Event) {
    let Event { body, attributes } = event;
    assert_eq!(body["specversion"], "1.0", "{body}");
    for member in ["id", "source", "type", "subject", "time", "traceparent"] {
        assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{member} of {body}");
    }
    let kind = text(&body["type"]);
    assert!(kind.ends_with("_CREATED") || kind.ends_with("_UPDATED") || kind.ends_with("_UPLOADED"), "{kind}");
    assert_eq!(kind, kind.to_uppercase());
    for name in ["id", "type", "kind", "service", "dispatch_time", "priority", "traceparent"] {
        assert!(attributes.get(name).is_some_and(|value| !value.is_empty()), "{name} of {attributes:?}");
    }
    assert_eq!(attributes["id"], text(&body["id"]));
    assert_eq!(attributes["type"], kind);
}

async fn serves_in_ranges(node: &NodeProcess, contents: impl Iterator<Item = &String>) {
    for content in contents {
        let path = format!("/v1/blobs/{content}");
        let whole = node.get(&path).ok().await;
        assert_eq!(content_name(&whole.body), *content);
        let part = node.get(&path).header("range", "bytes=1000-2999").ok().await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.body, whole.body[1000..3000]);
        assert_eq!(part.header("content-range"), Some(format!("bytes 1000-2999/{}", whole.body.len()).as_str()));
        let head = node.request(Method::HEAD, &path).ok().await;
        assert_eq!(head.header("content-length"), Some(whole.body.len().to_string().as_str()));
        assert_eq!(head.header("etag"), whole.header("etag"));
    }
}
