//! Walking lists page by page.

use std::collections::HashMap;

use alexandria_sync::chunk::BlobHash;
use axum::body::Body;
use axum::http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::client::{Client, text};

/// One page of the walk, then what others do before the next.
#[derive(Clone, Debug)]
struct Step {
    inserted: usize,
    page_size: usize,
}

fn step() -> impl Strategy<Value = Step> {
    (0usize..4, 1usize..5).prop_map(|(inserted, page_size)| Step { inserted, page_size })
}

/// Walks a list to its end and gives how often each title came.
async fn walk(client: &Client, first: &str, steps: &[Step]) -> HashMap<String, usize> {
    let mut seen = HashMap::new();
    let mut token = None::<String>;
    let mut inserted = 0;
    for at in 0.. {
        // Past the given steps nothing is inserted any more, so that a walk towards what is new comes to an end.
        let Step { inserted: more, page_size } = steps.get(at).cloned().unwrap_or(Step { inserted: 0, page_size: 3 });
        let continued = token.as_ref().map(|token| format!("&page_token={token}")).unwrap_or_default();
        let page = client.get(&format!("{first}&page_size={page_size}{continued}")).await.json();
        for item in page["items"].as_array().expect("a page has items") {
            *seen.entry(text(&item["title"])).or_default() += 1;
        }
        let Some(next) = page["next_page_token"].as_str() else { return seen };
        token = Some(next.to_owned());
        for _ in 0..more {
            client.create("/v1/media", json!({"title": format!("new {inserted}")})).await;
            inserted += 1;
        }
    }
    unreachable!("a walk ends with a page that has no token")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the order and whatever is inserted meanwhile, what was there before comes exactly once, and nothing twice.
    #[test]
    fn a_walk_shows_each_record_exactly_once_while_others_are_inserted(
        before in 0usize..20,
        opens in prop::collection::vec(0usize..4, 20),
        steps in prop::collection::vec(step(), 0..8),
        order in prop_oneof![Just("id"), Just("timestamp"), Just("popularity")],
        sort in prop_oneof![Just("asc"), Just("desc")],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let seen = runtime.block_on(async {
            let client = Client::new();
            for (at, opens) in opens.iter().take(before).enumerate() {
                let medium = client.create("/v1/media", json!({"title": format!("old {at}")})).await;
                for _ in 0..*opens {
                    let path = format!("/v1/media/{}/opens", text(&medium["id"]));
                    client.call(Method::POST, &path, &[], Body::empty()).await;
                }
            }
            walk(&client, &format!("/v1/media?filter_by={order}&sort={sort}"), &steps).await
        });
        for at in 0..before {
            prop_assert_eq!(seen.get(&format!("old {at}")), Some(&1), "old {}", at);
        }
        prop_assert!(seen.values().all(|times| *times == 1), "{:?}", seen);
    }
}

#[tokio::test]
async fn lists_are_sorted_searched_and_confined_as_asked() {
    let client = Client::new();
    let mut ids = Vec::new();
    for title in ["Red bird", "Blue bird", "Blue whale"] {
        ids.push(text(&client.create("/v1/media", json!({"title": title})).await["id"]));
    }
    let path = format!("/v1/media/{}/opens", ids[1]);
    client.call(Method::POST, &path, &[], Body::empty()).await;
    client.json(Method::PATCH, &format!("/v1/media/{}", ids[0]), &json!({"pages": 3})).await;
    for (query, expected) in [
        ("", vec!["Red bird", "Blue bird", "Blue whale"]),
        ("sort=desc", vec!["Blue whale", "Blue bird", "Red bird"]),
        ("filter_by=timestamp", vec!["Blue bird", "Blue whale", "Red bird"]),
        ("filter_by=popularity&sort=desc", vec!["Blue bird", "Blue whale", "Red bird"]),
        ("query=blue", vec!["Blue bird", "Blue whale"]),
        ("query=BIRD%20blue", vec!["Blue bird"]),
        ("query=", vec!["Red bird", "Blue bird", "Blue whale"]),
        ("query=nothing", vec![]),
    ] {
        let page = client.get(&format!("/v1/media?{query}")).await.json();
        let titles: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| text(&item["title"])).collect();
        assert_eq!(titles, expected, "{query}");
        assert_eq!(page.get("next_page_token"), None::<&Value>, "{query}");
    }
}

#[tokio::test]
async fn lists_of_media_tell_where_their_content_is() {
    let client = Client::new();
    for title in ["Here", "Near", "Away"] {
        let blob = client.upload("text/plain", title).await;
        let file = json!({"blob": blob, "media_type": "text/plain", "name": "a.txt", "size_bytes": 4});
        client.create("/v1/media", json!({"title": title, "files": [file]})).await;
    }
    client.create("/v1/media", json!({"title": "Nothing"})).await;
    let nearby = [(BlobHash::of(b"Near"), vec!["clinic".into()]), (BlobHash::of(b"Away"), vec![])];
    client.catalogue.nearby.lock().unwrap().extend(nearby);
    let page = client.get("/v1/media").await.json();
    let told: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| item["content"].clone()).collect();
    let expected = [
        json!({"here": true, "nearby": []}),
        json!({"here": false, "nearby": ["clinic"]}),
        json!({"here": false, "nearby": []}),
        Value::Null,
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_page_token_is_good_for_its_own_list_only() {
    let client = Client::new();
    for at in 0..3 {
        client.create("/v1/authors", json!({"name": format!("Author {at}")})).await;
    }
    let token = text(&client.get("/v1/authors?page_size=1").await.json()["next_page_token"]);
    assert_eq!(client.get(&format!("/v1/authors?page_size=2&page_token={token}")).await.status, 200);
    let other = client.get(&format!("/v1/authors?sort=desc&page_token={token}")).await;
    assert_eq!(other.problem(410, "token-expired"), "page_token");
    assert_eq!(client.get("/v1/authors?page_token=abc").await.problem(400, "invalid-query"), "page_token");
}

#[tokio::test]
async fn blobs_are_listed_by_hash_in_both_directions() {
    let client = Client::new();
    let mut hashes = Vec::new();
    for at in 0..5u8 {
        hashes.push(client.upload("text/plain", vec![at]).await);
    }
    hashes.sort();
    for (sort, expected) in [("asc", hashes.clone()), ("desc", hashes.iter().rev().cloned().collect())] {
        let mut walked = Vec::new();
        let mut token = String::new();
        loop {
            let page = client.get(&format!("/v1/blobs?page_size=2&sort={sort}{token}")).await.json();
            walked.extend(page["items"].as_array().unwrap().iter().map(|item| text(&item["hash"])));
            match page["next_page_token"].as_str() {
                Some(next) => token = format!("&page_token={next}"),
                None => break,
            }
        }
        assert_eq!(walked, expected);
    }
}
