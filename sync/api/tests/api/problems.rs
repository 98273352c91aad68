//! Every error is a problem (RFC 9457), whoever finds it: a handler, an extractor or the router.

use alexandria_api::limits::{JSON_BYTES_MAX, JSON_DEPTH_MAX};
use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::client::Client;

#[tokio::test]
async fn addresses_and_methods_that_do_not_exist_are_problems() {
    let client = Client::new();
    for path in ["/", "/v1", "/v1/", "/v1/nothing", "/v1/media/x/y/z", "/nothing"] {
        client.get(path).await.problem(404, "not-found");
    }
    for (method, path, allowed) in [
        (Method::DELETE, "/v1/media", "GET,HEAD,POST"),
        (Method::PATCH, "/v1/blobs", "GET,HEAD,POST"),
        (Method::PUT, "/v1/changes", "GET,HEAD"),
        (Method::POST, "/openapi.json", "GET,HEAD"),
    ] {
        let answer = client.call(method, path, &[], Body::empty()).await;
        answer.problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), allowed);
    }
}

#[tokio::test]
async fn a_wrong_address_names_the_part_that_is_wrong() {
    let client = Client::new();
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for (path, field) in [
        ("/v1/media/17".to_owned(), "id"),
        (format!("/v1/media/{id}%00"), "id"),
        ("/v1/media/%ff".to_owned(), "id"),
        ("/v1/blobs/abc".to_owned(), "hash"),
        (format!("/v1/authors/{id}x/media"), "id"),
    ] {
        assert_eq!(client.get(&path).await.problem(400, "invalid-path"), field, "{path}");
    }
    let link = format!("/v1/media/{id}/authors/17");
    assert_eq!(client.call(Method::PUT, &link, &[], Body::empty()).await.problem(400, "invalid-path"), "author_id");
}

#[tokio::test]
async fn a_wrong_parameter_is_named() {
    let client = Client::new();
    for (query, field) in [
        ("page_size=0", "page_size"),
        ("page_size=101", "page_size"),
        ("page_size=x", "page_size"),
        ("page_size=1&page_size=2", "page_size"),
        ("filter_by=color", "filter_by"),
        ("sort=up", "sort"),
        ("show_disabled=1", "show_disabled"),
        ("query=a%00b", "query"),
        (&format!("query={}", "x".repeat(201)), "query"),
        ("pagesize=3", "pagesize"),
        ("collection=abc", "collection"),
    ] {
        assert_eq!(client.get(&format!("/v1/media?{query}")).await.problem(400, "invalid-query"), field, "{query}");
    }
    let path = "/v1/authors?collection=01890a5d-ac96-774b-bcce-b302099a8057";
    assert_eq!(client.get(path).await.problem(400, "invalid-query"), "collection");
}

#[tokio::test]
async fn a_wrong_body_says_what_is_wrong_and_where() {
    let client = Client::new();
    for (body, slug, field) in [
        ("", "invalid-body", ""),
        ("{", "invalid-body", ""),
        ("[]", "invalid-body", ""),
        ("\"text\"", "invalid-body", ""),
        ("{\"name\": \"\\u0000\"}", "invalid-field", "name"),
        ("{}", "invalid-field", "name"),
        ("{\"name\": 3}", "invalid-field", "name"),
        ("{\"name\": \"A\", \"nam\": 1}", "invalid-field", "nam"),
        ("{\"name\": \"A\", \"id\": \"x\"}", "invalid-field", "id"),
        ("{\"name\": \"A\", \"portrait\": \"x\"}", "invalid-field", "portrait"),
    ] {
        let answer = client.call(Method::POST, "/v1/authors", &[("content-type", "application/json")], body).await;
        assert_eq!(answer.problem(400, slug), field, "{body}");
    }
    let file = json!({"title": "A", "files": [{"blob": "0", "media_type": "", "name": "a", "size_bytes": 1}]});
    assert_eq!(client.json(Method::POST, "/v1/media", &file).await.problem(400, "invalid-field"), "files[0].blob");
    let nul = json!({"title": "A", "chapters": [{"title": "B\0"}]});
    assert_eq!(client.json(Method::POST, "/v1/media", &nul).await.problem(400, "invalid-field"), "chapters[0].title");
}

#[tokio::test]
async fn bodies_that_are_too_large_too_deep_or_of_another_type_are_refused() {
    let client = Client::new();
    let large = json!({"name": "A", "description": "x".repeat(JSON_BYTES_MAX)});
    client.json(Method::POST, "/v1/authors", &large).await.problem(413, "too-large");
    // Too large for a record, though not for a body.
    let chapters: Vec<_> = (0..600).map(|_| json!({"title": "x".repeat(500)})).collect();
    let answer = client.json(Method::POST, "/v1/media", &json!({"title": "A", "chapters": chapters})).await;
    answer.problem(413, "too-large");

    let deep = (0..JSON_DEPTH_MAX).fold(json!({}), |inner, _| json!({"name": inner}));
    client.json(Method::POST, "/v1/authors", &deep).await.problem(400, "invalid-body");
    let bottomless = "[".repeat(100_000);
    let json = [("content-type", "application/json")];
    client.call(Method::POST, "/v1/authors", &json, bottomless).await.problem(400, "invalid-body");

    for media_type in ["text/plain", "application/xml", "application/merge-patch+json", "", "é"] {
        let headers = [("content-type", media_type)];
        let answer = client.call(Method::POST, "/v1/authors", &headers, "{}").await;
        assert_eq!(answer.problem(415, "unsupported-media-type"), "Content-Type");
    }
    let untyped = Request::post("/v1/authors").header("authorization", "Bearer open").body(Body::from("{}")).unwrap();
    client.send(untyped).await.problem(415, "unsupported-media-type");
    let with_charset = [("content-type", "application/json; charset=utf-8")];
    let answer = client.call(Method::POST, "/v1/authors", &with_charset, r#"{"name": "A"}"#).await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn the_description_is_served_and_describes_every_problem() {
    let client = Client::new();
    let answer = client.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    let document = answer.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    let mut operations = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations += 1;
            let server_error = &operation["responses"]["500"]["content"]["application/problem+json"];
            assert!(server_error.is_object(), "{method} {path}");
        }
    }
    assert!(operations > 40, "{operations}");
    for reference in references(&document) {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn references(json: &Value) -> Vec<String> {
    match json {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, member)| match member {
                Value::String(reference) if name == "$ref" => vec![reference.clone()],
                member => references(member),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}
