//! Nodes that no link reaches, and a stick that goes between them.

mod bridge;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use alexandria_e2e::{
    authority::FleetAuthority,
    catalogue::{create_film, patch},
    deadline::wait_until,
    files::{content_name, noise, real, real_folder},
    node::{NodeProcess, NodeSettings},
    process::{Process, source_tree},
    reaper,
    seed::seed,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

const SOON: Duration = Duration::from_mins(1);
const FILM_BYTES: usize = 48_000_000;

#[tokio::test]
async fn a_library_travels_on_a_stick_and_edits_and_receipts_come_home() {
    let stick = Stick::new();
    let fleet = FleetAuthority::make();
    let (mut one, other) = (bare().start().await, bare().start().await);
    let one_id = fleet.admit(&one).await.to_string();
    let other_id = fleet.admit(&other).await.to_string();
    one.done("import", &[real_folder(one.scratch()).to_str().unwrap()]).await;

    // There, with a look before it.
    let first = stick.file("first.bundle");
    let said = one.done("bundle", &["export", &first]).await;
    assert!(said.contains("good until"), "{said}");
    let said = other.done("bundle", &["import", &first, "--dry-run"]).await;
    assert!(said.contains(&one_id) && said.contains(&format!("{} new", real().len())), "{said}");
    assert_eq!(media(&other).await, Vec::<Value>::new(), "a look changes nothing");
    let said = other.fails("bundle", &["import", &first]).await;
    assert!(said.contains("--yes"), "nobody was asked: {said}");
    assert_eq!(media(&other).await, Vec::<Value>::new());
    other.done("bundle", &["import", &first, "--yes"]).await;
    hold_the_same(&one, &other).await;
    for file in real() {
        let path = format!("/v1/blobs/{}", content_name(&file.bytes));
        assert_eq!(other.get(&path).ok().await.body, file.bytes, "{}", file.name);
    }

    // Edits on both sides; the receipt goes home, to a node that does not run.
    let path = format!("/v1/media/{}", media(&one).await[0]["id"].as_str().unwrap());
    patch(&one, &path, &json!({ "title": "Named at one" })).await;
    patch(&other, &path, &json!({ "publisher": "The other" })).await;
    one.stop().await;
    let receipt = stick.file(&format!("first.bundle.{other_id}.receipt"));
    let said = one.done("bundle", &["import", &receipt]).await;
    assert!(said.contains("0 files lacking"), "{said}");
    let (second, back) = (stick.file("second.bundle"), stick.file("back.bundle"));
    one.done("bundle", &["export", &second, "--for", &other_id]).await;
    let (large, small) = (stick.size("first.bundle"), stick.size("second.bundle"));
    assert!(small < large / 10, "only what is new is carried: {small} of {large} bytes");
    other.done("bundle", &["import", &second, "--yes"]).await;
    other.done("bundle", &["export", &back, "--for", &one_id]).await;
    assert!(stick.size("back.bundle") < large / 10, "nothing goes back to where it came from");
    one.start_again().await;
    one.done("bundle", &["import", &back, "--yes"]).await;
    hold_the_same(&one, &other).await;
    let merged = one.get(&path).ok().await.json();
    assert_eq!((&merged["title"], &merged["publisher"]), (&json!("Named at one"), &json!("The other")));

    // Once more the same changes nothing.
    let said = other.done("bundle", &["import", &first, &second, "--yes"]).await;
    assert!(said.contains("0 records taken in"), "{said}");
    hold_the_same(&one, &other).await;
    let verified = other.done("verify", &[]).await;
    assert!(verified.contains(" 0 damaged"), "{verified}");
}

#[tokio::test]
async fn an_import_that_is_killed_goes_on_and_ends_whole() {
    let stick = Stick::new();
    let fleet = FleetAuthority::make();
    let (one, mut other) = (bare().start().await, bare().start().await);
    fleet.admit(&one).await;
    fleet.admit(&other).await;
    let film = create_film(&one, &noise(FILM_BYTES, seed())).await;
    one.done("import", &[real_folder(one.scratch()).to_str().unwrap()]).await;
    let bundle = stick.file("library.bundle");
    one.done("bundle", &["export", &bundle]).await;

    let mut import = other.command("bundle");
    import.args(["import", &bundle, "--yes"]);
    let mut import = Process::spawn("import", &mut import, &stick.folder.path().join("log"), Signal::SIGTERM);
    let arrived = other.data().join("partial").join(format!("{film}.have"));
    wait_until("a part of the film to be durable", SOON, async || {
        assert!(import.ended().is_none(), "it ended before it could be killed: {}", import.log_tail());
        arrived.exists()
    })
    .await;
    other.kill_9();
    import.kill_9();
    other.start_again().await;
    assert_eq!(media(&other).await.len(), real().len() + 1, "records come before content");
    assert!(other.status().await["content"]["wanted"].as_u64() > Some(0), "the kill came in the middle");

    other.done("bundle", &["import", &bundle, "--yes"]).await;
    hold_the_same(&one, &other).await;
    assert_eq!(other.status().await["content"]["wanted"], 0);
    let verified = other.done("verify", &[]).await;
    assert!(verified.contains(" 0 damaged"), "{verified}");
}

#[tokio::test]
async fn what_is_foreign_expired_unsigned_or_changed_is_refused() {
    let stick = Stick::new();
    let (here, elsewhere) = (FleetAuthority::make(), FleetAuthority::make());
    let (node, stranger, alone) = (bare().start().await, bare().start().await, bare().start().await);
    here.admit(&node).await;
    create_film(&stranger, b"a film").await;
    elsewhere.admit(&stranger).await;
    let foreign = stick.file("foreign.bundle");
    stranger.done("bundle", &["export", &foreign]).await;
    for arguments in [&["import", &foreign, "--yes"][..], &["import", &foreign, "--yes", "--unsigned"]] {
        let said = node.fails("bundle", arguments).await;
        assert!(said.contains("not of this fleet"), "{said}");
    }

    // Made on the first day of 2026, for 90 days.
    let expired = source_tree().join("sync/tests/golden/bundle-v1/unsigned.bundle");
    let said = node.fails("bundle", &["import", expired.to_str().unwrap(), "--yes", "--unsigned"]).await;
    assert!(said.contains("expired on 2026-04-01"), "{said}");

    create_film(&alone, b"another film").await;
    let unsigned = stick.file("unsigned.bundle");
    let said = alone.done("bundle", &["export", &unsigned]).await;
    assert!(said.contains("not signed"), "{said}");
    let said = node.fails("bundle", &["import", &unsigned, "--yes"]).await;
    assert!(said.contains("--unsigned"), "{said}");
    let own = alone.fails("bundle", &["import", &unsigned, "--yes", "--unsigned"]).await;
    assert!(own.contains("made it itself"), "{own}");
    assert_eq!(media(&node).await, Vec::<Value>::new(), "nothing was taken so far");

    let mut bytes = fs::read(&unsigned).unwrap();
    let last = bytes.len() - 200;
    bytes[last] ^= 1;
    fs::write(stick.file("changed.bundle"), bytes).unwrap();
    let said = node.fails("bundle", &["import", &stick.file("changed.bundle"), "--yes", "--unsigned"]).await;
    assert!(said.contains("damaged"), "{said}");

    let said = node.done("bundle", &["import", &unsigned, "--yes", "--unsigned"]).await;
    assert!(said.contains("NOT SIGNED"), "{said}");
    assert_eq!(media(&node).await.len(), 1);
    let book = stick.file("book.txt");
    fs::write(&book, "no bundle at all").unwrap();
    let said = node.fails("bundle", &["import", &book, "--yes"]).await;
    assert!(said.contains("neither a bundle nor a receipt"), "{said}");
}

#[tokio::test]
async fn a_stick_pulled_too_early_and_a_full_disk_keep_what_is_whole() {
    let stick = Stick::new();
    let fleet = FleetAuthority::make();
    let one = bare().start().await;
    let small = bare().environment("ALEXANDRIA_STORE__CONTENT_BYTES_MAX", "9000000").start().await;
    let other = bare().start().await;
    for node in [&one, &small, &other] {
        fleet.admit(node).await;
    }
    let seed = seed();
    let films = [noise(6_000_000, seed), noise(6_000_001, seed + 1), noise(6_000_002, seed + 2)];
    for film in &films {
        create_film(&one, film).await;
    }
    let bundle = stick.file("library.bundle");
    one.done("bundle", &["export", &bundle]).await;
    let whole = fs::read(&bundle).unwrap();

    let cut = stick.file("cut.bundle");
    fs::write(&cut, &whole[..whole.len() * 2 / 3]).unwrap();
    let said = other.fails("bundle", &["import", &cut, "--yes"]).await;
    assert!(said.contains("cut off"), "{said}");
    assert_eq!(media(&other).await.len(), films.len(), "all records came before the cut");
    assert_eq!(other.status().await["content"]["wanted"], 2, "{said}");
    other.done("bundle", &["import", &bundle, "--yes"]).await;
    hold_the_same(&one, &other).await;
    assert_eq!(other.status().await["content"]["wanted"], 0);

    let said = small.fails("bundle", &["import", &bundle, "--yes"]).await;
    assert!(said.contains("ROOM") && said.contains("what is whole is kept"), "{said}");
    assert_eq!(media(&small).await.len(), films.len());
    assert_eq!(small.status().await["content"]["blobs"], 1);

    // A bundle of its size for whom there is little room, and the rest for the next one.
    let receipt = fs::read_dir(stick.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let small_id = small.status().await["node"].as_str().unwrap().to_owned();
    let receipt = receipt.into_iter().find(|path| path.to_string_lossy().ends_with(&format!("{small_id}.receipt")));
    let said = one.done("bundle", &["import", receipt.unwrap().to_str().unwrap()]).await;
    assert!(said.contains("2 files lacking"), "{said}");
    let rest = stick.file("rest.bundle");
    let said = one.done("bundle", &["export", &rest, "--for", &small_id, "--max-bytes", "7000000"]).await;
    assert!(said.contains("1 files in a bundle") && said.contains("1 files did not fit"), "{said}");
    assert!(stick.size("rest.bundle") <= 7_000_000);
}

/// A folder that goes from node to node.
struct Stick {
    folder: TempDir,
}

impl Stick {
    fn new() -> Self {
        Self { folder: reaper::folder("stick") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        self.path(name).to_str().expect("it is ASCII").to_owned()
    }

    fn size(&self, name: &str) -> u64 {
        let path: &Path = &self.path(name);
        fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).len()
    }
}

fn bare() -> NodeSettings {
    NodeSettings::default().bare().by_hand()
}

/// Every medium.
async fn media(node: &NodeProcess) -> Vec<Value> {
    let listed = node.get("/v1/media?page_size=100").ok().await.json();
    listed["items"].as_array().unwrap_or_else(|| panic!("no list: {listed}")).clone()
}

async fn hold_the_same(one: &NodeProcess, other: &NodeProcess) {
    let (here, there) = (media(one).await, media(other).await);
    assert!(!here.is_empty());
    assert_eq!(here, there);
}
