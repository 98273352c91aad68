//! The feed of changes: page by page, by long poll, as events.

use std::time::Duration;

use alexandria_api::Limits;
use axum::body::{Body, BodyDataStream};
use axum::http::{Method, Request, StatusCode};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::client::{Client, text};

/// How long anything here may take; far more than it does.
const DEADLINE: Duration = Duration::from_secs(20);

fn names(changes: &Value) -> Vec<String> {
    changes["changes"].as_array().unwrap().iter().map(|change| text(&change["record"]["name"])).collect()
}

#[tokio::test]
async fn changes_come_in_order_once_each_in_their_latest_state() {
    let client = Client::new();
    let mut ids = Vec::new();
    for name in ["A", "B", "C"] {
        ids.push(text(&client.create("/v1/authors", json!({"name": name})).await["id"]));
    }
    client.json(Method::PATCH, &format!("/v1/authors/{}", ids[0]), &json!({"name": "A2"})).await;
    let first = client.get("/v1/changes?bucket=catalogue&limit=2").await.json();
    assert_eq!((names(&first), &first["more"]), (vec!["B".to_owned(), "C".to_owned()], &json!(true)));
    let path = format!("/v1/changes?bucket=catalogue&since={}", text(&first["next"]));
    let second = client.get(&path).await.json();
    assert_eq!((names(&second), &second["more"]), (vec!["A2".to_owned()], &json!(false)));
    assert_eq!(second["changes"][0]["record"], client.get(&format!("/v1/authors/{}", ids[0])).await.json());

    client.call(Method::DELETE, &format!("/v1/authors/{}?hard=true", ids[1]), &[], Body::empty()).await;
    let path = format!("/v1/changes?bucket=catalogue&since={}", text(&second["next"]));
    let third = client.get(&path).await.json();
    let deleted = &third["changes"][0];
    assert_eq!(
        (text(&deleted["id"]), &deleted["deleted"], &deleted["record"]),
        (ids[1].clone(), &json!(true), &Value::Null)
    );
}

#[tokio::test]
async fn a_cursor_of_another_life_is_refused_and_a_site_keeps_its_own() {
    let client = Client::new();
    let foreign = format!("/v1/changes?bucket=catalogue&since={:032x}", 5);
    assert_eq!(client.get(&foreign).await.problem(410, "token-expired"), "since");
    let malformed = client.get("/v1/changes?bucket=catalogue&since=5").await;
    assert_eq!(malformed.problem(400, "invalid-query"), "since");
    assert_eq!(client.get("/v1/changes").await.problem(400, "invalid-query"), "bucket");
    assert_eq!(client.get("/v1/changes?bucket=shelf").await.problem(400, "invalid-query"), "bucket");
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    client.get(&format!("/v1/changes?bucket=collection/{id}")).await.problem(404, "not-found");
    client.get(&format!("/v1/changes?bucket=site/{id}")).await.problem(403, "forbidden");
}

#[tokio::test]
async fn a_long_poll_answers_when_something_changes_and_not_before() {
    let client = Client::new();
    let start = text(&client.get("/v1/changes?bucket=catalogue").await.json()["next"]);
    let path = format!("/v1/changes?bucket=catalogue&since={start}&wait=60");
    let (poller, polled) = (client.clone(), path.clone());
    let polling = tokio::spawn(async move { poller.get(&polled).await });
    tokio::task::yield_now().await;
    assert!(!polling.is_finished());
    client.create("/v1/authors", json!({"name": "A"})).await;
    let answer = tokio::time::timeout(DEADLINE, polling).await.expect("it answers in time").unwrap();
    assert_eq!(names(&answer.json()), ["A"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_gives_up_in_time_and_there_are_only_so_many() {
    let client = Client::limited(Limits { waiters_max: 1, ..Limits::default() });
    let path = "/v1/changes?bucket=catalogue&wait=30";
    let (poller, started) = (client.clone(), tokio::time::Instant::now());
    let polling = tokio::spawn(async move { poller.get(path).await });
    tokio::task::yield_now().await;
    let refused = client.get(path).await;
    refused.problem(503, "busy");
    assert_eq!(refused.header("retry-after"), "2");
    let empty = polling.await.unwrap();
    assert_eq!((empty.status, &empty.json()["changes"]), (StatusCode::OK, &json!([])));
    assert_eq!(started.elapsed().as_secs(), 30);
    assert_eq!(client.get(&path.replace("30", "61")).await.problem(400, "invalid-query"), "wait");
}

/// Reads events, skipping comments.
struct Events {
    body: BodyDataStream,
    read: String,
}

impl Events {
    async fn open(client: &Client, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = Request::get(path).header("accept", "text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = client.open(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { body: answer.into_body().into_data_stream(), read: String::new() }
    }

    /// The next event's name, id and data.
    async fn next(&mut self) -> (String, String, Value) {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.read = rest;
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                        .unwrap_or_default()
                        .to_owned()
                };
                if !field("event").is_empty() {
                    let data = serde_json::from_str(&field("data")).expect("data is JSON");
                    return (field("event"), field("id"), data);
                }
                continue;
            }
            let piece = tokio::time::timeout(DEADLINE, self.body.next()).await.expect("an event comes in time");
            self.read += std::str::from_utf8(&piece.expect("the stream goes on").unwrap()).unwrap();
        }
    }
}

#[tokio::test]
async fn events_tell_each_change_and_go_on_where_a_client_left_off() {
    let client = Client::new();
    client.create("/v1/authors", json!({"name": "A"})).await;
    let path = "/v1/changes?bucket=catalogue";
    let mut events = Events::open(&client, path, &[]).await;
    let (event, id, data) = events.next().await;
    assert_eq!((event.as_str(), names(&data), &data["next"]), ("changes", vec!["A".to_owned()], &json!(id)));
    client.create("/v1/authors", json!({"name": "B"})).await;
    let (_, id, data) = events.next().await;
    assert_eq!(names(&data), ["B"]);
    drop(events);

    client.create("/v1/authors", json!({"name": "C"})).await;
    let mut resumed = Events::open(&client, path, &[("last-event-id", &id)]).await;
    assert_eq!(names(&resumed.next().await.2), ["C"]);

    let mut lost = Events::open(&client, path, &[("last-event-id", &"0".repeat(32))]).await;
    let (event, _, data) = lost.next().await;
    assert_eq!((event.as_str(), &data["status"]), ("problem", &json!(410)));
}
