use std::time::Duration;

use alexandria_e2e::{
    clock::ahead_by_seconds,
    deadline::wait_until,
    fleet::Fleet,
    node::{NodeProcess, NodeSettings},
};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_mins(1);
/// Further ahead than a bridge believes.
const AHEAD_S: u32 = 2 * 3600;

/// Invariant 9, with real processes: what a node with a wrong clock wrote is set aside, and an operator lets it in.
#[tokio::test]
async fn what_a_wrong_clock_wrote_is_set_aside_at_the_bridge_and_handled_over_its_api() {
    let fleet = Fleet::start().await;
    let library = tempfile::tempdir().unwrap();
    let (name, value) = ahead_by_seconds(AHEAD_S, library.path());
    let early = NodeSettings::default().bare().by_hand().environment(name, value).start().await;
    let author = |name: &'static str| early.request(Method::POST, "/v1/authors").json(&json!({ "name": name })).ok();
    let (kept, dropped) = (author("Nuruddin Farah").await.json(), author("A slip of the pen").await.json());
    let fine = NodeSettings::default().bare().by_hand().start().await;
    fleet.enrol(&early).await;
    fleet.enrol(&fine).await;
    early.sync_once().await;

    assert_eq!(fleet.database.number("SELECT count(*) FROM author").await, 0, "nothing of it is let in");
    let id = early.status().await["node"].as_str().unwrap().to_owned();
    let listed = fleet.bridge.get(&format!("/v1/fleet/quarantine?node={id}")).ok().await.json();
    let find = |record: &Value| {
        let records = listed["records"].as_array().unwrap();
        let found = records.iter().find(|shown| shown["record"] == record["id"]);
        found.unwrap_or_else(|| panic!("{record} is shown: {listed}"))
    };
    let (shown, other) = (find(&kept), find(&dropped));
    assert_eq!(
        (&shown["kind"], &shown["written_by"], &shown["received_from"]),
        (&json!("author"), &json!(id), &json!(id))
    );
    let ahead_ms = shown["ahead_ms"].as_u64().unwrap();
    let bound_ms = u64::from(AHEAD_S) * 1000;
    assert!(ahead_ms <= bound_ms && ahead_ms > bound_ms / 2, "{shown}");
    let kept_records = listed["kept"]["records"].as_u64().unwrap();
    wait_until("the metrics to tell", SOON, async || fleet.bridge.metric("quarantine_records").await == kept_records)
        .await;

    let path = format!("/v1/fleet/quarantine/{}", shown["id"].as_str().unwrap());
    let replay = |how: Value| fleet.bridge.request(Method::POST, &format!("{path}/replay")).json(&how);
    assert_eq!(replay(json!({})).send().await.unwrap().status, StatusCode::CONFLICT, "its time has not come");
    let released = replay(json!({ "as_new_edit": true })).ok().await.json();
    assert_eq!(released, json!({ "applied": true }));
    let gone = replay(json!({ "as_new_edit": true })).send().await.unwrap();
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    let path = format!("/v1/fleet/quarantine/{}", other["id"].as_str().unwrap());
    let answer = fleet.bridge.request(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(answer.status, StatusCode::NO_CONTENT);

    fine.sync_once().await;
    assert_eq!(authors(&fine).await, ["Nuruddin Farah"]);
    let left = fleet.bridge.get("/v1/fleet/quarantine").ok().await.json();
    assert!(!left.to_string().contains(kept["id"].as_str().unwrap()), "{left}");
    // A node with a right clock was never held up.
    fine.request(Method::POST, "/v1/authors").json(&json!({ "name": "Chinua Achebe" })).ok().await;
    fine.sync_once().await;
    wait_until("an edit of a right clock", SOON, async || {
        fleet.database.number("SELECT count(*) FROM author WHERE name = 'Chinua Achebe'").await == 1
    })
    .await;
}

async fn authors(node: &NodeProcess) -> Vec<String> {
    let listed = node.get("/v1/authors").ok().await.json();
    let items = listed["items"].as_array().unwrap();
    items.iter().map(|author| author["name"].as_str().unwrap().to_owned()).collect()
}
