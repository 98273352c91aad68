//! Merge patches, end to end.

use axum::http::{Method, StatusCode};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::client::{Client, text};

/// A value for each field of a medium that a patch may name; null resets it.
fn patch() -> impl Strategy<Value = Value> {
    let title = "[a-z]{1,8}".prop_map(Value::from);
    let text = || prop_oneof![Just(Value::Null), "[a-z ]{0,8}".prop_map(Value::from)];
    let number = || prop_oneof![Just(Value::Null), any::<u32>().prop_map(Value::from)];
    let kind = prop_oneof![Just(Value::Null), Just(json!("book")), Just(json!("video"))];
    let languages =
        prop_oneof![Just(Value::Null), prop::collection::vec("[a-z]{2}", 0..3).prop_map(|tags| json!(tags))];
    let chapters = prop_oneof![
        Just(Value::Null),
        prop::collection::vec(("[a-z]{0,4}", any::<u32>()), 0..3).prop_map(|chapters| {
            let chapters = chapters.into_iter();
            chapters.map(|(title, at)| json!({"title": title, "start_ms": at, "page": null, "href": null})).collect()
        }),
    ];
    let field = prop_oneof![
        title.prop_map(|value| ("title", value)),
        text().prop_map(|value| ("description", value)),
        text().prop_map(|value| ("publisher", value)),
        number().prop_map(|value| ("pages", value)),
        number().prop_map(|value| ("duration_ms", value)),
        kind.prop_map(|value| ("media_kind", value)),
        languages.prop_map(|value| ("languages", value)),
        chapters.prop_map(|value| ("chapters", value)),
    ];
    prop::collection::vec(field, 0..6)
        .prop_map(|fields| Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
}

/// What RFC 7396 makes of a flat patch whose members are replaced whole; what it removes has its default.
fn patched(before: &Value, patch: &Value) -> Value {
    let defaults = json!({
        "description": "", "publisher": null, "pages": null, "duration_ms": null, "media_kind": "doc", "languages": [],
        "chapters": [],
    });
    let mut after: Map<_, _> = before.as_object().unwrap().clone();
    for (name, value) in patch.as_object().unwrap() {
        let value = if value.is_null() { defaults[name].clone() } else { value.clone() };
        after.insert(name.clone(), value);
    }
    Value::Object(after)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Patch then get gives what RFC 7396 says, patch after patch.
    #[test]
    fn what_was_patched_reads_back_as_the_rfc_says(patches in prop::collection::vec(patch(), 1..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::new();
            let mut expected = client.create("/v1/media", json!({"title": "First"})).await;
            let at = format!("/v1/media/{}", text(&expected["id"]));
            for patch in &patches {
                let headers = [("content-type", "application/merge-patch+json")];
                let answer = client.call(Method::PATCH, &at, &headers, patch.to_string()).await;
                assert_eq!(answer.status, StatusCode::OK, "{patch}: {}", answer.json());
                expected = patched(&expected, patch);
                expected["updated_unix_ms"] = answer.json()["updated_unix_ms"].clone();
                assert_eq!(client.get(&at).await.json(), expected, "{patch}");
            }
        });
    }
}

#[tokio::test]
async fn a_patch_that_cannot_be_is_refused_whole() {
    let client = Client::new();
    let created = client.json(Method::POST, "/v1/media", &json!({"title": "A"})).await;
    let at = created.header("location").to_owned();
    for (patch, field) in [
        (json!({"pages": 3, "title": null}), "title"),
        (json!({"pages": 3, "title": "  "}), "title"),
        (json!({"pages": 3, "id": "x"}), "id"),
        (json!({"pages": 3, "popularity": 4}), "popularity"),
        (json!({"pages": -3}), "pages"),
        (json!({"titel": "B"}), "titel"),
        (json!({"titel": null}), "titel"),
        (json!({"pages": 3.5}), "pages"),
        (json!({"chapters": [{"title": "B"}, {"titel": "C"}]}), "chapters[1].titel"),
        (json!({"languages": ["en", "not a tag"]}), "languages"),
    ] {
        let answer = client.json(Method::PATCH, &at, &patch).await;
        assert_eq!(answer.problem(400, "invalid-field"), field, "{patch}");
    }
    client.json(Method::PATCH, &at, &json!([])).await.problem(400, "invalid-body");
    assert_eq!(client.get(&at).await.header("etag"), created.header("etag"), "nothing was changed");
}

#[tokio::test]
async fn a_whole_number_may_be_written_with_a_point() {
    let client = Client::new();
    let created = client.create("/v1/media", json!({"title": "A", "pages": 3.0})).await;
    assert_eq!(created["pages"], 3);
    let at = format!("/v1/media/{}", text(&created["id"]));
    assert_eq!(client.json(Method::PATCH, &at, &json!({"duration_ms": 1e3})).await.json()["duration_ms"], 1000);
}

#[tokio::test]
async fn patches_that_race_on_different_fields_are_all_kept() {
    let client = Client::new();
    let created = client.create("/v1/media", json!({"title": "A"})).await;
    let at = format!("/v1/media/{}", text(&created["id"]));
    let patches =
        [json!({"pages": 1}), json!({"publisher": "P"}), json!({"description": "D"}), json!({"published": "1958"})];
    let racing = patches.each_ref().map(|patch| {
        let (client, at, patch) = (client.clone(), at.clone(), patch.clone());
        tokio::spawn(async move { client.json(Method::PATCH, &at, &patch).await.status })
    });
    for patched in racing {
        assert_eq!(patched.await.unwrap(), StatusCode::OK);
    }
    let after = client.get(&at).await.json();
    for patch in &patches {
        for (name, value) in patch.as_object().unwrap() {
            assert_eq!(&after[name], value);
        }
    }
}
