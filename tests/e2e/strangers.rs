use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use alexandria_e2e::{
    deadline::wait_until,
    fleet::Fleet,
    node::{NodeProcess, NodeSettings},
};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_mins(1);
/// Where a node keeps what its fleet gave it.
const MEMBERSHIP_FILE: &str = "fleet.json";
const OVERRIDE: &str = "ALEXANDRIA_REPLICATION__BRIDGE";

#[tokio::test]
async fn a_wrong_token_is_refused_and_counted() {
    let fleet = Fleet::start().await;
    let node = NodeSettings::default().bare().by_hand().start().await;
    let token = fleet.token().await;
    let (secret, authority) = token.split_once('.').unwrap();
    let guess = format!("{}.{authority}", secret.chars().rev().collect::<String>());
    let said = node.fails("enroll", &["--bridge", &fleet.enrolment(), "--token", &guess]).await;
    assert!(said.contains("refused") && said.contains("token"), "{said}");
    assert_eq!(node.status().await["replication"], Value::Null, "the node is in no fleet");
    assert_eq!(fleet.bridge.metric(r#"enrolments_refused_total{reason="WrongToken"}"#).await, 1);
    assert_eq!(fleet.database.number("SELECT count(*) FROM node").await, 0);

    // Of another fleet: the node does not even say the secret to this one.
    let elsewhere = format!("{secret}.{}", "0".repeat(authority.len()));
    let said = node.fails("enroll", &["--bridge", &fleet.enrolment(), "--token", &elsewhere]).await;
    assert!(said.contains("connect"), "{said}");
    // The right one still works: guessing does not use it up.
    node.done("enroll", &["--bridge", &fleet.enrolment(), "--token", &token]).await;
}

#[tokio::test]
async fn a_token_lets_one_node_in_and_no_second_one() {
    let fleet = Fleet::start().await;
    let token = fleet.token().await;
    let first = NodeSettings::default().bare().by_hand().prepare();
    let second = NodeSettings::default().bare().by_hand().prepare();
    first.done("enroll", &["--bridge", &fleet.enrolment(), "--token", &token]).await;
    let said = second.fails("enroll", &["--bridge", &fleet.enrolment(), "--token", &token]).await;
    assert!(said.contains("refused"), "{said}");
    assert_eq!(fleet.bridge.metric(r#"enrolments_refused_total{reason="WrongToken"}"#).await, 1);
    assert_eq!(fleet.bridge.metric("nodes_enrolled_total").await, 1);
    // The same node may have missed the answer.
    first.done("enroll", &["--bridge", &fleet.enrolment(), "--token", &token]).await;
    first.sync_once().await;
}

#[tokio::test]
async fn a_node_with_a_certificate_of_another_fleet_is_refused_logged_once_and_counted() {
    let (home, mut abroad) = (Fleet::start().await, Fleet::start().await);
    let quic = abroad.bridge.settings().quic;
    let spy = pointed_at(quic);
    home.enrol(&spy).await;
    // Left to itself the node refuses the foreign bridge, and tells it nothing.
    let said = spy.fails("sync", &["--once"]).await;
    assert!(said.contains("not replicated"), "{said}");
    // So it is made to believe in the other fleet's authority; its certificate stays that of its own.
    let member = NodeSettings::default().bare().by_hand().prepare();
    abroad.enrol(&member).await;
    let before = refusals(&mut abroad).await;
    let mut membership = read_membership(&spy);
    membership["authority_pem"] = read_membership(&member)["authority_pem"].clone();
    membership["bridge"] = read_membership(&member)["bridge"].clone();
    fs::write(membership_file(&spy), membership.to_string()).unwrap();
    let said = spy.fails("sync", &["--once"]).await;
    assert!(said.contains("not replicated"), "{said}");

    let after = refusals(&mut abroad).await;
    assert_eq!(after.counted - before.counted, 1, "counted");
    assert_eq!(after.logged - before.logged, 1, "logged once");
    assert_eq!(abroad.database.number("SELECT count(*) FROM record").await, 0, "nothing came in");
    member.sync_once().await;
}

#[tokio::test]
async fn a_node_that_the_fleet_does_not_know_is_refused_and_counted() {
    let fleet = Fleet::start().await;
    let node = NodeSettings::default().bare().by_hand().prepare();
    fleet.enrol(&node).await;
    fleet.database.connect().await.batch_execute("DELETE FROM node").await.unwrap();
    let said = node.fails("sync", &["--once"]).await;
    assert!(said.contains("not replicated"), "{said}");
    assert_eq!(fleet.bridge.metric(r#"connections_refused_total{reason="UnknownNode"}"#).await, 1);
}

#[tokio::test]
async fn a_revoked_node_gets_nothing_gives_nothing_and_is_counted() {
    let fleet = Fleet::start().await;
    let node = NodeSettings::default().bare().by_hand().start().await;
    fleet.enrol(&node).await;
    node.sync_once().await;
    let id = node.status().await["node"].as_str().unwrap().to_owned();

    let revoked = fleet.bridge.run("node", &["revoke", &id]).await;
    assert!(revoked.status.success(), "{revoked:?}");
    let secret = json!({ "name": "For the others only" });
    let author = fleet.bridge.request(Method::POST, "/v1/authors").json(&secret).ok().await.json();
    node.request(Method::POST, "/v1/authors").json(&json!({ "name": "From the revoked" })).ok().await;
    let said = node.fails("sync", &["--once"]).await;
    assert!(said.contains("not replicated"), "{said}");

    let path = format!("/v1/authors/{}", author["id"].as_str().unwrap());
    assert_eq!(node.get(&path).send().await.unwrap().status, StatusCode::NOT_FOUND);
    let given = "SELECT count(*) FROM author WHERE name = 'From the revoked'";
    assert_eq!(fleet.database.number(given).await, 0);
    assert!(fleet.bridge.metric(r#"connections_refused_total{reason="Revoked"}"#).await >= 1);
    // Its token is no way back either.
    let token = fleet.token().await;
    node.fails("enroll", &["--bridge", &fleet.enrolment(), "--token", &token]).await;
}

/// A node that dials `bridge` whatever its own fleet says.
fn pointed_at(bridge: SocketAddr) -> NodeProcess {
    NodeSettings::default().bare().by_hand().environment(OVERRIDE, bridge.to_string()).prepare()
}

struct Refusals {
    counted: u64,
    logged: usize,
}

async fn refusals(fleet: &mut Fleet) -> Refusals {
    let counted = fleet.bridge.metric(r#"connections_refused_total{reason="ForeignCertificate"}"#).await;
    let words = fleet.bridge.process().words();
    Refusals { counted, logged: words.lines().filter(|line| line.contains("a connection was refused")).count() }
}

fn membership_file(node: &NodeProcess) -> PathBuf {
    node.data().join(MEMBERSHIP_FILE)
}

fn read_membership(node: &NodeProcess) -> Value {
    let text = fs::read_to_string(membership_file(node)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A node that comes back after its certificate has run out is no stranger, and needs no new token.
#[tokio::test]
async fn a_node_renews_a_certificate_that_has_run_out_by_itself() {
    const DAYS: &str = "ALEXANDRIA_BRIDGE_FLEET_CERTIFICATE_DAYS";
    let mut fleet = Fleet::start_with(|settings, _| settings.environment(DAYS, "0")).await;
    let node = NodeSettings::default().bare().by_hand().start().await;
    fleet.enrol(&node).await;
    let enrolled = SystemTime::now();
    let certificate = || {
        let kept = fs::read_to_string(node.data().join(MEMBERSHIP_FILE)).unwrap();
        serde_json::from_str::<Value>(&kept).unwrap()["certificate_pem"].clone()
    };
    let first = certificate();
    fleet.bridge.stop().await;
    fleet.bridge.configure(DAYS, "300");
    fleet.bridge.start_again().await;
    wait_until("the certificate to run out", SOON, async || {
        enrolled.elapsed().is_ok_and(|since| since > Duration::from_secs(2))
    })
    .await;

    node.sync_once().await;
    let second = certificate();
    assert_ne!(second, first);
    node.sync_once().await;
    assert_eq!(certificate(), second, "it is good for long");
}
