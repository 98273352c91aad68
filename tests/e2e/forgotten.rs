use std::{fs, path::Path, time::Duration};

use alexandria_e2e::{
    deadline::wait_until,
    files::{content_name, write},
    fleet::Fleet,
    node::{NodeProcess, NodeSettings},
};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_mins(1);
/// Stands in the title and in the content of what is erased, and nowhere else.
const SECRET: &str = "Zanzibarine";

/// Invariant 7, with the real servers: erased bytes are nowhere once all receipts are in.
#[tokio::test]
async fn what_an_operator_erases_leaves_postgres_s3_and_the_disks_of_two_nodes_which_give_receipts() {
    let fleet = Fleet::start().await;
    let (mut first, mut second) = (a_node(&fleet).await, a_node(&fleet).await);
    let text = format!("My dear {SECRET},\nnobody but you should read this.\n").repeat(50);
    let file = write(first.scratch(), &format!("{SECRET}.txt"), text.as_bytes());
    let content = content_name(text.as_bytes());
    first.done("import", &[file.to_str().unwrap()]).await;
    first.sync_once().await;
    second.sync_once().await;
    let listed = second.get("/v1/media").ok().await.json();
    let media = listed["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(listed["items"][0]["title"], SECRET, "{listed}");
    assert!(rows_with_secret(&fleet).await > 0 && fleet.object(&content).await.is_some(), "it is in the cloud");
    for node in [&first, &second] {
        let path = format!("/v1/blobs/{content}");
        assert_eq!(node.get(&path).ok().await.body, text.as_bytes());
    }

    let unknown = json!({ "kind": "media", "id": "01900000-0000-7000-8000-000000000000" });
    let answer = fleet.bridge.request(Method::POST, "/v1/fleet/erasures").json(&unknown).send().await.unwrap();
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let order = json!({ "kind": "media", "id": media });
    let ordered = fleet.bridge.request(Method::POST, "/v1/fleet/erasures").json(&order).ok().await.json();
    let erasure = ordered["erasures"][0]["id"].as_str().unwrap();
    let again = fleet.bridge.request(Method::POST, "/v1/fleet/erasures").json(&order).ok().await.json();
    assert_eq!(again, ordered, "asking twice orders it once");
    assert_eq!(rows_with_secret(&fleet).await, 0);
    wait_until("the object to go", SOON, async || fleet.object(&content).await.is_none()).await;
    let listed = fleet.bridge.get("/v1/fleet/erasures").ok().await.json();
    assert_eq!(listed["erasures"][0]["id"], erasure, "{listed}");
    assert_eq!(listed["erasures"][0]["record"], media.as_str());
    assert_eq!((&listed["erasures"][0]["receipts"], &listed["erasures"][0]["owing"]), (&json!(0), &json!(2)));

    let path = format!("/v1/fleet/erasures/{erasure}");
    gives_its_receipt(&fleet, &path, &first).await;
    let shown = fleet.bridge.get(&path).ok().await.json();
    assert_eq!((&shown["erasures"][0]["receipts"], &shown["erasures"][0]["owing"]), (&json!(1), &json!(1)), "{shown}");
    gives_its_receipt(&fleet, &path, &second).await;

    for node in [&mut first, &mut second] {
        let found = node.get(&format!("/v1/media?query={SECRET}")).ok().await.json();
        assert_eq!(found["items"], json!([]), "{found}");
        let answer = node.get(&format!("/v1/blobs/{content}")).send().await.unwrap();
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        node.stop().await;
        assert_eq!(files_with(node.data().as_ref(), SECRET.as_bytes()), Vec::<String>::new());
    }
    assert_eq!(rows_with_secret(&fleet).await, 0, "no receipt and no session brought it back");

    // The bridge looks once more, after all calls to S3 that were under way have ended.
    assert_eq!(listed["erasures"][0]["bridge_done"], false);
    let statement = "UPDATE erased_blob SET removed_at = removed_at - interval '6 minutes'";
    fleet.database.connect().await.execute(statement, &[]).await.unwrap();
    wait_until("the bridge to be done", SOON, async || {
        fleet.bridge.get(&path).ok().await.json()["erasures"][0]["bridge_done"] == true
    })
    .await;
}

async fn a_node(fleet: &Fleet) -> NodeProcess {
    let node = NodeSettings::default().bare().by_hand().start().await;
    fleet.enrol(&node).await;
    node
}

/// Lets a node replicate until its receipt is at the bridge.
async fn gives_its_receipt(fleet: &Fleet, path: &str, node: &NodeProcess) {
    let id = node.status().await["node"].as_str().unwrap().to_owned();
    wait_until("a receipt", SOON, async || {
        node.sync_once().await;
        let shown: Value = fleet.bridge.get(path).ok().await.json();
        let nodes = shown["nodes"].as_array().unwrap();
        let shown = nodes.iter().find(|shown| shown["node"] == id.as_str());
        shown.unwrap_or_else(|| panic!("{id} owes one: {nodes:?}"))["receipt_at"].is_string()
    })
    .await;
}

/// Rows of tables that keep what records say, in which it stands.
async fn rows_with_secret(fleet: &Fleet) -> i64 {
    let mut found = 0;
    for table in ["record", "quarantine"] {
        let query = format!("SELECT count(*) FROM {table} WHERE position('{SECRET}'::bytea IN encoding) > 0");
        found += fleet.database.number(&query).await;
    }
    for table in ["media", "annotation", "outbox", "outbox_refused"] {
        let query = format!("SELECT count(*) FROM {table} AS row WHERE position('{SECRET}' IN row::text) > 0");
        found += fleet.database.number(&query).await;
    }
    found
}

/// Files below a folder that contain some bytes.
fn files_with(folder: &Path, bytes: &[u8]) -> Vec<String> {
    let (mut folders, mut found) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if fs::read(entry.path()).unwrap_or_default().windows(bytes.len()).any(|window| window == bytes) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}
