//! A node that no link reaches, and a carrier who goes between it and town, where the bridge is.

use std::fs;

use alexandria_e2e::{
    authority::FleetAuthority,
    catalogue::{create_film, create_titled, patch},
    deadline::wait_until,
    files::{content_name, noise, real, real_folder},
    fleet::Fleet,
    node::NodeProcess,
    process::Process,
    seed::seed,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{FILM_BYTES, SOON, Stick, bare};

#[tokio::test]
async fn a_node_without_a_link_gets_the_library_on_a_stick_and_what_is_made_there_comes_home() {
    let stick = Stick::new();
    let fleet = Fleet::start().await;
    // The library comes to the cloud from a node that has a link.
    let (town, away) = (bare().start().await, bare().start().await);
    fleet.enrol(&town).await;
    town.done("import", &[real_folder(town.scratch()).to_str().unwrap()]).await;
    town.sync_once().await;
    // The other one is enrolled in town, and never reaches the bridge again.
    fleet.enrol(&away).await;
    let away_id = id_of(&away).await;

    let first = stick.file("first.bundle");
    let said = done(&fleet, &["export", "--for", &away_id, &first]).await;
    assert!(said.contains("good until") && said.contains("starts at the beginning"), "{said}");
    let said = away.done("bundle", &["import", &first, "--yes"]).await;
    assert!(said.contains("bridge ") && said.contains("signed by a member of this fleet"), "{said}");
    assert_eq!(media(&away).await, cloud_media(&fleet).await);
    for file in real() {
        let path = format!("/v1/blobs/{}", content_name(&file.bytes));
        assert_eq!(away.get(&path).ok().await.body, file.bytes, "{}", file.name);
    }

    // An edit, a film and the receipt go back to town, beside a bridge that serves.
    let edited = media(&away).await[0]["id"].as_str().unwrap().to_owned();
    patch(&away, &format!("/v1/media/{edited}"), &json!({ "publisher": "Named far away" })).await;
    let bytes = noise(3_000_000, seed());
    let film = create_film(&away, &bytes).await;
    let (bridge_id, back) = (bridge_in(&said), stick.file("back.bundle"));
    away.done("bundle", &["export", "--for", &bridge_id, &back]).await;
    assert!(stick.size("back.bundle") < 4_000_000, "nothing goes back to where it came from");
    let said = done(&fleet, &["import", &back, "--dry-run"]).await;
    assert!(said.contains(&away_id) && said.contains("1 files new"), "{said}");
    let said = fails(&fleet, &["import", &back]).await;
    assert!(said.contains("--yes"), "nobody was asked: {said}");
    assert!(!fleet.has_stored(&film).await, "a look changes nothing");
    let receipt = stick.file(&format!("first.bundle.{away_id}.receipt"));
    let said = done(&fleet, &["import", &back, &receipt, "--yes"]).await;
    assert!(said.contains("1 files, ") && said.contains("0 files lacking"), "{said}");
    assert!(fleet.has_stored(&film).await);
    assert_eq!(fleet.object(&film).await.unwrap(), bytes, "byte for byte");
    assert_eq!(cloud_media(&fleet).await, media(&away).await);
    let edited_there = format!("SELECT count(*) FROM media WHERE id = '{edited}' AND publisher = 'Named far away'");
    assert_eq!(fleet.database.number(&edited_there).await, 1);
    let expected = [format!("MEDIA_UPDATED media/{edited}"), format!("BLOB_UPLOADED blob/{film}")];
    fleet.events(&expected, SOON).await;
    town.sync_once().await;
    assert_eq!(media(&town).await, media(&away).await, "and on to whoever has a link");

    // The bridge's receipt, and the next bundle: what is new, and no more.
    let receipt = stick.file(&format!("back.bundle.{bridge_id}.receipt"));
    away.done("bundle", &["import", &receipt]).await;
    create_titled(&town, "Made in town").await;
    town.sync_once().await;
    let second = stick.file("second.bundle");
    let said = done(&fleet, &["export", "--for", &away_id, &second]).await;
    assert!(!said.contains("starts at the beginning"), "{said}");
    let (large, small) = (stick.size("first.bundle"), stick.size("second.bundle"));
    assert!(small < large / 10, "{small} of {large} bytes");
    away.done("bundle", &["import", &second, "--yes"]).await;
    assert_eq!(media(&away).await, cloud_media(&fleet).await);
    let nothing = stick.file("nothing.bundle");
    let said = away.done("bundle", &["export", "--for", &bridge_id, &nothing]).await;
    assert!(said.starts_with("0 records and 0 files"), "{said}");

    // Once more the same changes nothing; nor does a node that was put out.
    let said = done(&fleet, &["import", &back, "--yes"]).await;
    assert!(said.contains("0 records taken in"), "{said}");
    let revoked = fleet.bridge.run("node", &["revoke", &away_id]).await;
    assert!(revoked.status.success());
    for arguments in [&["import", &back, "--yes"][..], &["export", "--for", &away_id, &second]] {
        let said = fails(&fleet, arguments).await;
        assert!(said.contains("was revoked"), "{said}");
    }
}

#[tokio::test]
async fn an_import_at_the_bridge_that_is_killed_goes_on_and_ends_whole() {
    let stick = Stick::new();
    let mut fleet = Fleet::start().await;
    let away = bare().start().await;
    fleet.enrol(&away).await;
    let bytes = noise(FILM_BYTES, seed());
    let film = create_film(&away, &bytes).await;
    let carried = stick.file("film.bundle");
    away.done("bundle", &["export", &carried]).await;

    let mut import = fleet.bridge.command("bundle");
    import.args(["import", &carried, "--yes"]);
    let mut import = Process::spawn("import", &mut import, &stick.path("log"), Signal::SIGTERM);
    wait_until("a part of the film to be durable", SOON, async || {
        assert!(import.ended().is_none(), "it ended before it could be killed: {}", import.log_tail());
        fleet.database.number("SELECT count(*) FROM blob_upload_part").await > 0
    })
    .await;
    import.kill_9();
    fleet.bridge.kill_9();
    assert_eq!(cloud_titles(&fleet).await, 1, "records come before content");
    assert!(!fleet.has_stored(&film).await, "the kill came in the middle");

    // Without a bridge that serves, as well.
    let said = done(&fleet, &["import", &carried, "--yes"]).await;
    assert!(said.contains("1 files, "), "{said}");
    assert_eq!(fleet.object(&film).await.unwrap(), bytes, "byte for byte");
    assert_eq!(fleet.database.number("SELECT count(*) FROM blob_upload").await, 0);
    fleet.bridge.start_again().await;
    fleet.events(&[format!("BLOB_UPLOADED blob/{film}")], SOON).await;
}

#[tokio::test]
async fn what_is_foreign_unsigned_damaged_or_cut_off_is_refused_by_the_bridge() {
    let stick = Stick::new();
    let (fleet, elsewhere) = (Fleet::start().await, FleetAuthority::make());
    let (node, stranger, alone) = (bare().start().await, bare().start().await, bare().start().await);
    fleet.enrol(&node).await;
    elsewhere.admit(&stranger).await;
    for (at, name) in [(&node, "ours"), (&stranger, "foreign"), (&alone, "unsigned")] {
        create_film(at, &noise(6_000_000, seed())).await;
        at.done("bundle", &["export", &stick.file(name)]).await;
    }
    let whole = fs::read(stick.path("ours")).unwrap();
    let mut damaged = whole.clone();
    damaged[200] ^= 1;
    fs::write(stick.path("damaged"), &damaged).unwrap();
    fs::write(stick.path("stub"), &whole[..400]).unwrap();
    fs::write(stick.path("book"), "no bundle at all").unwrap();
    let refused = [
        ("foreign", "not of this fleet"),
        ("unsigned", "nobody has signed it"),
        ("damaged", "damaged"),
        ("stub", "ends within its first segment"),
        ("book", "neither a bundle nor a receipt"),
        ("missing", "No such file"),
    ];
    for (name, why) in refused {
        let said = fails(&fleet, &["import", &stick.file(name), "--yes"]).await;
        assert!(said.contains(why) && said.contains("nothing was taken of"), "{name}: {said}");
    }
    assert_eq!(fleet.database.number("SELECT count(*) FROM record").await, 0);

    // Cut off in the film: what was before it is taken, and whoever called hears of it.
    fs::write(stick.path("cut"), &whole[..whole.len() * 2 / 3]).unwrap();
    let said = fails(&fleet, &["import", &stick.file("cut"), "--yes"]).await;
    assert!(said.contains("cut off") && said.contains("everything before that is kept"), "{said}");
    assert_eq!(cloud_titles(&fleet).await, 1);
    done(&fleet, &["import", &stick.file("ours"), "--yes"]).await;
    assert_eq!(fleet.database.number("SELECT count(*) FROM stored_blob").await, 1);

    let nobody = "00000000-0000-4000-8000-000000000000";
    let said = fails(&fleet, &["export", "--for", nobody, &stick.file("out")]).await;
    assert!(said.contains("nodes list"), "{said}");
    assert!(!stick.path("out").exists());
}

/// `alexandria-bridge bundle ARGUMENTS`, which succeeds. Returns what it printed.
async fn done(fleet: &Fleet, arguments: &[&str]) -> String {
    let output = fleet.bridge.run("bundle", arguments).await;
    let [said, complained] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "bundle {arguments:?}: {said}{complained}");
    said
}

/// The same where it fails: what it printed, and what it complained of.
async fn fails(fleet: &Fleet, arguments: &[&str]) -> String {
    let output = fleet.bridge.run("bundle", arguments).await;
    let [said, complained] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(!output.status.success(), "bundle {arguments:?} succeeded: {said}{complained}");
    said + &complained
}

/// Every medium, without where its content is, which a node alone says.
async fn media(node: &NodeProcess) -> Vec<Value> {
    let mut listed = super::media(node).await;
    for medium in &mut listed {
        medium.as_object_mut().expect("a medium is an object").remove("content");
    }
    listed
}

/// The same, as operators see it.
async fn cloud_media(fleet: &Fleet) -> Vec<Value> {
    let listed = fleet.bridge.get("/v1/media?page_size=100").ok().await.json();
    listed["items"].as_array().unwrap_or_else(|| panic!("no list: {listed}")).clone()
}

async fn cloud_titles(fleet: &Fleet) -> i64 {
    fleet.database.number("SELECT count(*) FROM media").await
}

async fn id_of(node: &NodeProcess) -> String {
    node.status().await["node"].as_str().expect("a node has an id").to_owned()
}

/// The bridge's id, as an import says for whom its receipt is.
fn bridge_in(said: &str) -> String {
    let after = said.split_once("the receipt for bridge ").unwrap_or_else(|| panic!("no receipt: {said}")).1;
    after.split_once(' ').expect("more is said").0.to_owned()
}
