//! Nodes that meet on their own network: what one takes in can be read at the other with no bridge in reach, and afterwards the
//! cloud holds everything once.

use std::time::Duration;

use alexandria_e2e::{
    catalogue::patch,
    deadline::{wait_for, wait_until},
    files::{content_name, noise, write},
    fleet::Fleet,
    http::{self, Request},
    line::CLEAN,
    link::{self, BadLink},
    namespace::{Door, Namespace},
    node::{NodeProcess, NodeSettings},
    process::free_port,
    seed::seed,
    skip,
};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_mins(2);

#[tokio::test]
async fn without_a_bridge_two_nodes_hold_the_same_and_afterwards_the_cloud_holds_it_once() {
    let mut fleet = Fleet::start().await;
    let (mut one, mut other) = neighbours_on_the_loopback().await;
    for node in [&mut one, &mut other] {
        node.start_again().await;
        fleet.enrol(node).await;
    }
    for node in [&one, &other] {
        wait_until("the nodes to meet", SOON, async || session(node).await.is_some()).await;
    }
    fleet.bridge.kill_9();

    let book = text(&noise(3_000_000, 5));
    let file = write(one.scratch(), "rain.txt", &book);
    let content = content_name(&book);
    one.done("import", &[file.to_str().unwrap()]).await;

    let media = wait_for("the medium to appear at the other node", SOON, async || {
        let listed = other.get("/v1/media").ok().await.json();
        listed["items"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    let path = format!("/v1/blobs/{content}");
    wait_until("its content to be there", SOON, async || is_found(other.get(&path)).await).await;
    assert!(other.get(&path).ok().await.body == book, "byte for byte");

    // What is changed there comes back here; nothing needs a bridge.
    let path = format!("/v1/media/{media}");
    patch(&other, &path, &json!({ "title": "Rain and soil" })).await;
    patch(&one, &path, &json!({ "description": "from the first node" })).await;
    for node in [&one, &other] {
        wait_until("both edits to be everywhere", SOON, async || {
            let media = node.get(&path).ok().await.json();
            media["title"] == "Rain and soil" && media["description"] == "from the first node"
        })
        .await;
    }
    wait_until("the session to tell what it has sent", SOON, async || {
        session(&one).await.is_some_and(|session| session["bytes_sent"].as_u64().unwrap() >= book.len() as u64)
    })
    .await;
    assert_eq!(one.status().await["lan"]["refused"], 0);
    assert_eq!(other.status().await["lan"]["refused"], 0);

    // The bridge is back: both bring it the same, which it holds once.
    fleet.bridge.start_again().await;
    one.sync_once().await;
    other.sync_once().await;
    one.sync_once().await;
    assert_eq!(fleet.database.number("SELECT count(*) FROM media").await, 1);
    assert!(fleet.has_stored(&content).await);
    assert_eq!(fleet.object(&content).await.unwrap(), book);
    let sides = [one.get(&path), other.get(&path), fleet.bridge.request(Method::GET, &path)];
    let mut held: Vec<Value> = Vec::new();
    for side in sides {
        held.push(side.ok().await.json());
    }
    assert_eq!(held[0], held[1]);
    assert_eq!(held[0], held[2]);
    for node in [&one, &other] {
        let status = node.status().await;
        assert_eq!((&status["records"]["media"], &status["quarantined"]), (&json!(1), &json!(0)), "{status}");
    }
}

#[tokio::test]
async fn two_nodes_find_each_other_by_multicast_and_need_nothing_else() {
    if let Some(reason) = link::unavailable() {
        return skip::because(reason);
    }
    let fleet = Fleet::start().await;
    let (a, b) = (Namespace::create("lan-a"), Namespace::create("lan-b"));
    let _link = BadLink::between(&a, &b, CLEAN, seed()).unwrap();
    let (mut nodes, mut doors) = (Vec::new(), Vec::new());
    for namespace in [&a, &b] {
        let inside = ([127, 0, 0, 1], 0).into();
        let enrolment = Door::open(namespace, inside, &Namespace::host(), fleet.bridge.settings().enrolment).unwrap();
        // Served to the network, so the other nodes are looked for; the test reads past it.
        let listen = format!("[::]:{}", free_port());
        let node = NodeSettings::default().bare().by_hand().inside(namespace, &listen).start().await;
        let token = fleet.token().await;
        let address = enrolment.address().to_string();
        node.done("enroll", &["--bridge", &address, "--token", &token]).await;
        let port = listen.rsplit_once(':').unwrap().1.parse().unwrap();
        doors.push(enrolment);
        doors.push(Door::open(&Namespace::host(), inside, namespace, ([127, 0, 0, 1], port).into()).unwrap());
        nodes.push(node);
    }
    for node in &nodes {
        wait_until("the nodes to find each other", SOON, async || session(node).await.is_some()).await;
    }
    let book = text(&noise(1_000_000, 6));
    let file = write(nodes[0].scratch(), "rain.txt", &book);
    nodes[0].done("import", &[file.to_str().unwrap()]).await;
    let url = format!("http://{}/v1/blobs/{}", doors[3].address(), content_name(&book));
    let is_there = async || is_found(http::get(&url)).await;
    wait_until("content of the first node to be at the second", SOON, is_there).await;
    assert!(http::get(&url).ok().await.body == book, "byte for byte");
    let said = nodes[1].done("status", &[]).await;
    assert!(said.contains("connected over QUIC"), "{said}");
}

/// Two nodes that do not run yet and know where the other will be.
async fn neighbours_on_the_loopback() -> (NodeProcess, NodeProcess) {
    let mut nodes = [(); 2].map(|()| (NodeSettings::default().bare().prepare(), free_port()));
    let mut names = Vec::new();
    for (node, port) in &nodes {
        let id = node.status().await["node"].as_str().unwrap().to_owned();
        names.push(format!("{id}@127.0.0.1:{port}"));
    }
    for (at, (node, port)) in nodes.iter_mut().enumerate() {
        let peer = &names[1 - at];
        node.configure(format!(
            "[lan]\nenabled = true\nlisten = '127.0.0.1:{port}'\npeers = ['{peer}']\n[replication]\nretry_max_s = 2\n"
        ));
    }
    let [(one, _), (other, _)] = nodes;
    (one, other)
}

/// What a node says of its session with another.
async fn session(node: &NodeProcess) -> Option<Value> {
    let status = node.status().await;
    let peers = status["lan"]["peers"].as_array()?.clone();
    assert!(peers.len() <= 1, "{status}");
    peers.into_iter().find(|peer| peer["connected"] == true)
}

/// A text that nothing compresses much.
fn text(noise: &[u8]) -> Vec<u8> {
    let hex = noise.iter().map(|byte| format!("{byte:02x}"));
    let mut text = String::from("Rain\n\n");
    for (at, two) in hex.enumerate() {
        text.push_str(&two);
        if at % 32 == 31 {
            text.push('\n');
        }
    }
    text.into_bytes()
}

async fn is_found(request: Request) -> bool {
    request.send().await.is_ok_and(|answer| answer.status == StatusCode::OK)
}
