//! Authors, media, categories, collections and the links between them.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::client::{Client, text};

/// The body that creates one record of each kind, by path.
fn samples() -> [(&'static str, Value); 4] {
    [
        ("/v1/authors", json!({"name": "Chinua Achebe", "sort_name": "Achebe, Chinua"})),
        ("/v1/categories", json!({"name": "Novels", "description": "Long stories"})),
        ("/v1/collections", json!({"title": "School library"})),
        ("/v1/media", json!({"title": "Arrow of God", "media_kind": "book", "languages": ["en"]})),
    ]
}

#[tokio::test]
async fn every_kind_is_created_read_replaced_hidden_restored_and_deleted() {
    let client = Client::new();
    for (path, body) in samples() {
        let created = client.json(Method::POST, path, &body).await;
        assert_eq!(created.status, StatusCode::CREATED, "{}", created.json());
        let at = created.header("location").to_owned();
        assert_eq!(at, format!("{path}/{}", text(&created.json()["id"])));

        let read = client.get(&at).await;
        assert_eq!(read.json(), created.json());
        assert_eq!(read.header("etag"), created.header("etag"));

        let replaced = client.json(Method::PUT, &at, &json!({first_key(&body): "Other"})).await;
        assert_eq!(replaced.status, StatusCode::OK);
        assert_eq!(replaced.json()[first_key(&body)], "Other");
        assert_ne!(replaced.header("etag"), created.header("etag"));

        assert_eq!(client.call(Method::DELETE, &at, &[], Body::empty()).await.status, StatusCode::NO_CONTENT);
        client.get(&at).await.problem(404, "not-found");
        client.json(Method::PATCH, &at, &json!({"disabled": false})).await.problem(404, "not-found");
        let listed = ids(&client.get(path).await.json());
        assert!(!listed.contains(&text(&created.json()["id"])));
        let hidden = client.get(&format!("{at}?show_disabled=true")).await;
        assert_eq!(hidden.json()["disabled"], true);

        let restored = client.call(Method::POST, &format!("{at}/restore"), &[], Body::empty()).await;
        assert_eq!(restored.json()["disabled"], false);
        assert_eq!(client.get(&at).await.status, StatusCode::OK);

        let gone = client.call(Method::DELETE, &format!("{at}?hard=true"), &[], Body::empty()).await;
        assert_eq!(gone.status, StatusCode::NO_CONTENT);
        client.get(&format!("{at}?show_disabled=true")).await.problem(404, "not-found");
        client.json(Method::PUT, &at, &json!({first_key(&body): "Back"})).await.problem(404, "not-found");
    }
}

fn first_key(body: &Value) -> &'static str {
    if body.get("name").is_some() { "name" } else { "title" }
}

#[tokio::test]
async fn replacing_resets_what_is_left_out() {
    let client = Client::new();
    let author = client.create("/v1/authors", json!({"name": "A", "description": "Somebody"})).await;
    let replaced =
        client.json(Method::PUT, &format!("/v1/authors/{}", text(&author["id"])), &json!({"name": "B"})).await;
    assert_eq!(replaced.json()["description"], "");
}

#[tokio::test]
async fn media_go_to_the_collection_they_name_or_to_the_default_one() {
    let client = Client::new();
    let shelf = client.create("/v1/collections", json!({"title": "Shelf"})).await;
    let named = client.create("/v1/media", json!({"title": "A", "collection": shelf["id"]})).await;
    assert_eq!(named["collection"], shelf["id"]);
    let first = client.create("/v1/media", json!({"title": "B"})).await;
    let second = client.create("/v1/media", json!({"title": "C"})).await;
    assert_eq!(first["collection"], second["collection"]);
    assert_ne!(first["collection"], shelf["id"]);

    let listed = client.get(&format!("/v1/collections/{}/media", text(&shelf["id"]))).await.json();
    assert_eq!(ids(&listed), vec![text(&named["id"])]);
    let listed = client.get(&format!("/v1/media?collection={}", text(&shelf["id"]))).await.json();
    assert_eq!(ids(&listed), vec![text(&named["id"])]);

    let nowhere = json!({"title": "D", "collection": "01890a5d-ac96-774b-bcce-b302099a8057"});
    client.json(Method::POST, "/v1/media", &nowhere).await.problem(409, "collection-not-here");
    let moved = json!({"title": "A", "collection": first["collection"]});
    let at = format!("/v1/media/{}", text(&named["id"]));
    assert_eq!(client.json(Method::PUT, &at, &moved).await.problem(400, "invalid-field"), "collection");
}

#[tokio::test]
async fn media_name_only_content_that_is_here_and_as_long_as_stated() {
    let client = Client::new();
    let hash = client.upload("text/plain", "twelve bytes").await;
    let medium = |blob: &str, size: u64| {
        json!({"title": "A", "files": [
            {"blob": blob, "media_type": "text/plain", "name": "a.txt", "size_bytes": size},
        ]})
    };
    let missing = client.json(Method::POST, "/v1/media", &medium(&"0".repeat(64), 12)).await;
    assert_eq!(missing.problem(409, "content-not-here"), "files[0].blob");
    client.json(Method::POST, "/v1/media", &medium(&hash, 11)).await.problem(409, "content-mismatch");
    let stored = client.create("/v1/media", medium(&hash, 12)).await;

    let bucket = format!("/v1/changes?bucket=collection/{}", text(&stored["collection"]));
    let changes = client.get(&bucket).await.json();
    let kinds: Vec<_> = changes["changes"].as_array().unwrap().iter().map(|change| text(&change["kind"])).collect();
    assert_eq!(kinds, ["blob", "media"], "whoever holds the collection wants the content");

    let at = format!("/v1/blobs/{hash}");
    client.call(Method::DELETE, &at, &[], Body::empty()).await.problem(409, "in-use");
    let medium = format!("/v1/media/{}?hard=true", text(&stored["id"]));
    client.call(Method::DELETE, &medium, &[], Body::empty()).await;
    assert_eq!(client.call(Method::DELETE, &at, &[], Body::empty()).await.status, StatusCode::NO_CONTENT);
    client.call(Method::DELETE, &at, &[], Body::empty()).await.problem(404, "not-found");
}

#[tokio::test]
async fn an_edit_with_if_match_never_overwrites_what_its_author_has_not_seen() {
    let client = Client::new();
    let created = client.json(Method::POST, "/v1/authors", &json!({"name": "A"})).await;
    let (at, seen) = (created.header("location").to_owned(), created.header("etag").to_owned());
    let put = async |tag: &str, name: &str| {
        let headers = [("content-type", "application/json"), ("if-match", tag)];
        client.call(Method::PUT, &at, &headers, json!({ "name": name }).to_string()).await
    };
    assert_eq!(put(&seen, "B").await.status, StatusCode::OK);
    let refused = put(&seen, "C").await;
    refused.problem(412, "stale");
    assert_eq!(refused.header("etag"), client.get(&at).await.header("etag"));
    assert_eq!(client.get(&at).await.json()["name"], "B");
    assert_eq!(put("B", "C").await.problem(400, "invalid-header"), "if-match");

    let stale = client.call(Method::DELETE, &format!("{at}?hard=true"), &[("if-match", &seen)], Body::empty()).await;
    stale.problem(412, "stale");
    let known = client.get(&at).await.header("etag").to_owned();
    let unchanged = client.get_with(&at, &[("if-none-match", &known)]).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (StatusCode::NOT_MODIFIED, 0));
}

#[tokio::test]
async fn links_show_on_both_ends_until_they_are_taken_away() {
    let client = Client::new();
    let author = text(&client.create("/v1/authors", json!({"name": "A"})).await["id"]);
    let category = text(&client.create("/v1/categories", json!({"name": "B"})).await["id"]);
    let medium = text(&client.create("/v1/media", json!({"title": "C"})).await["id"]);
    for (left, left_id, right, right_id) in [
        ("media", &medium, "authors", &author),
        ("media", &medium, "categories", &category),
        ("authors", &author, "categories", &category),
    ] {
        let link = format!("/v1/{left}/{left_id}/{right}/{right_id}");
        let ends =
            [(format!("/v1/{left}/{left_id}/{right}"), right_id), (format!("/v1/{right}/{right_id}/{left}"), left_id)];
        for (method, linked) in [
            (Method::PUT, true),
            (Method::PUT, true),
            (Method::DELETE, false),
            (Method::DELETE, false),
            (Method::PUT, true),
        ] {
            let answer = client.call(method, &link, &[], Body::empty()).await;
            assert_eq!(answer.status, StatusCode::NO_CONTENT);
            for (list, id) in &ends {
                let expected = if linked { vec![(*id).clone()] } else { vec![] };
                assert_eq!(ids(&client.get(list).await.json()), expected, "{list}");
            }
        }
    }
    let nobody = format!("/v1/media/{medium}/authors/{medium}");
    client.call(Method::PUT, &nobody, &[], Body::empty()).await.problem(404, "not-found");
}

#[tokio::test]
async fn readers_make_popularity_and_it_leaves_the_entity_tag_alone() {
    let client = Client::new();
    let created = client.json(Method::POST, "/v1/media", &json!({"title": "A"})).await;
    let at = created.header("location").to_owned();
    for _ in 0..3 {
        // Without the token: readers count, too.
        let open = Request::post(format!("{at}/opens")).body(Body::empty()).unwrap();
        assert_eq!(client.send(open).await.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(client.get("/v1/media").await.json()["items"][0]["popularity"], 3);
    assert_eq!(client.get(&at).await.header("etag"), created.header("etag"));
}

#[tokio::test]
async fn only_the_guard_lets_writes_through() {
    let client = Client::new();
    let post = |token: Option<&str>| {
        let request = Request::post("/v1/authors").header("content-type", "application/json");
        let request = match token {
            Some(token) => request.header("authorization", token),
            None => request,
        };
        request.body(Body::from(r#"{"name": "A"}"#)).unwrap()
    };
    let anonymous = client.send(post(None)).await;
    anonymous.problem(401, "unauthenticated");
    assert_eq!(anonymous.header("www-authenticate"), "Bearer");
    client.send(post(Some("Bearer wrong"))).await.problem(403, "forbidden");
    assert_eq!(client.send(post(Some("Bearer open"))).await.status, StatusCode::CREATED);
    let read = Request::get("/v1/authors").body(Body::empty()).unwrap();
    assert_eq!(client.send(read).await.status, StatusCode::OK);
}

fn ids(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|item| text(&item["id"])).collect()
}
