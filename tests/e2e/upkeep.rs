use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use alexandria_e2e::{
    deadline::wait_until,
    files::{content_name, real, real_folder},
    fleet::Fleet,
    node::{NodeProcess, NodeSettings},
};
use hyper::{Method, StatusCode};
use serde_json::json;

const SOON: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_flipped_byte_is_found_set_aside_and_fetched_again() {
    let fleet = Fleet::start().await;
    let node = NodeSettings::default().bare().by_hand().start().await;
    fleet.enrol(&node).await;
    import_all(&node).await;
    node.sync_once().await;
    let verified = node.done("verify", &[]).await;
    assert!(verified.contains(" 0 damaged"), "{verified}");

    let file = real().into_iter().find(|file| file.name == "welcome.mp3").unwrap();
    let content = content_name(&file.bytes);
    flip_a_byte(&node.data().join("blobs"), &content);
    let said = node.fails("verify", &[]).await;
    assert!(said.contains(&content) && said.contains(" 1 damaged"), "{said}");
    let held = node.status().await["content"]["blobs"].as_u64().unwrap();

    let said = node.fails("verify", &["--repair"]).await;
    assert!(said.contains(&content), "{said}");
    let content_status = node.status().await["content"].clone();
    assert_eq!(content_status["wanted"], 1, "{content_status}");
    assert_eq!(content_status["blobs"], held - 1, "{content_status}");
    let path = format!("/v1/blobs/{content}");
    let answer = node.get(&path).send().await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "damaged content is not served: {answer:?}");

    node.sync_once().await;
    assert_eq!(node.get(&path).ok().await.body, file.bytes, "it came back from the cloud");
    let verified = node.done("verify", &[]).await;
    assert!(verified.contains(" 0 damaged"), "{verified}");
    assert_eq!(node.status().await["content"]["wanted"], 0);
}

#[tokio::test]
async fn a_backup_restores_beside_a_running_node() {
    let node = NodeSettings::default().bare().start().await;
    import_all(&node).await;
    let backup = node.scratch().join("backup");
    let backup = backup.to_str().unwrap();
    let said = node.done("backup", &[backup]).await;
    assert!(said.contains("records in a backup"), "{said}");
    let created = node.request(Method::POST, "/v1/authors").json(&json!({ "name": "Afterwards" })).ok().await.json();
    let later = format!("/v1/authors/{}", created["id"].as_str().unwrap());

    let said = node.done("restore", &[backup]).await;
    assert!(said.contains("records restored"), "{said}");
    wait_until("the node to be back on what was backed up", SOON, async || {
        node.get(&later).send().await.is_ok_and(|answer| answer.status == StatusCode::NOT_FOUND)
    })
    .await;
    holds_everything(&node).await;
}

#[tokio::test]
async fn a_backup_restores_on_a_stopped_node_and_on_a_new_machine() {
    let mut node = NodeSettings::default().bare().start().await;
    import_all(&node).await;
    node.stop().await;
    let backup = node.scratch().join("backup");
    let backup = backup.to_str().unwrap();
    node.done("backup", &[backup]).await;

    // What is damaged is not restored, and nothing is changed.
    let broken = node.scratch().join("broken");
    let bytes = fs::read(backup).unwrap();
    fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    let said = node.fails("restore", &[broken.to_str().unwrap()]).await;
    assert!(said.contains("nothing was restored"), "{said}");

    node.done("restore", &[backup]).await;
    node.start_again().await;
    holds_everything(&node).await;

    let mut machine = NodeSettings::default().bare().prepare();
    copy_folder(&node.data().join("blobs"), &machine.data().join("blobs"));
    machine.done("restore", &[backup]).await;
    machine.start_again().await;
    holds_everything(&machine).await;
}

#[tokio::test]
async fn status_works_on_a_running_and_on_a_stopped_node_and_a_restart_keeps_search() {
    let mut node = NodeSettings::default().bare().start().await;
    import_all(&node).await;
    is_searched(&node).await;
    let running = node.status().await;
    assert_eq!(running["address"], node.url());
    assert_eq!(running["replication"], serde_json::Value::Null);
    let said = node.done("status", &[]).await;
    assert!(said.contains(node.url()) && said.contains(&format!("{} media", real().len())), "{said}");

    node.stop().await;
    let stopped = node.status().await;
    assert_eq!(stopped["address"], serde_json::Value::Null);
    assert_eq!(stopped["records"], running["records"]);
    assert_eq!(stopped["content"]["bytes"], running["content"]["bytes"]);

    node.start_again().await;
    is_searched(&node).await;
    node.kill_9();
    // An index that is damaged is rebuilt.
    let index = node.data().join("search");
    let mut damaged = 0;
    for entry in fs::read_dir(&index).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        fs::write(entry.path(), b"damaged").unwrap();
        damaged += 1;
    }
    assert!(damaged > 0, "{} holds the index", index.display());
    node.start_again().await;
    is_searched(&node).await;
}

async fn import_all(node: &NodeProcess) {
    let folder = real_folder(node.scratch());
    let said = node.done("import", &[folder.to_str().unwrap()]).await;
    assert!(said.starts_with(&format!("{} imported", real().len())), "{said}");
}

async fn is_searched(node: &NodeProcess) {
    wait_until("search to find a book", SOON, async || {
        let found = node.get("/v1/media?query=handbook").ok().await.json();
        found["items"].as_array().is_some_and(|items| !items.is_empty())
    })
    .await;
}

async fn holds_everything(node: &NodeProcess) {
    let listed = node.get("/v1/media?page_size=100").ok().await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), real().len(), "{listed}");
    for file in real() {
        let path = format!("/v1/blobs/{}", content_name(&file.bytes));
        // Content that lies in the folder is found again in the background.
        wait_until(&file.name, SOON, async || {
            node.get(&path).send().await.is_ok_and(|answer| answer.status.is_success() && answer.body == file.bytes)
        })
        .await;
    }
    is_searched(node).await;
}

fn flip_a_byte(folder: &Path, content: &str) {
    let path = find(folder, content);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
}

fn find(folder: &Path, name: &str) -> PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.file_name() == name {
                return entry.path();
            }
        }
    }
    panic!("{name} is somewhere in {}", folder.display())
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
