//! The catalogue of a node or of the bridge, as the author of an app changes it.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::bridge::BridgeProcess;
use crate::files::content_name;
use crate::http::Request;
use crate::node::NodeProcess;

/// How long an upload may take on a busy machine.
const UPLOAD_DEADLINE: Duration = Duration::from_mins(3);

/// Whoever answers the API.
pub trait Api {
    /// Any request for a path such as `/v1/media`.
    fn ask(&self, method: Method, path: &str) -> Request;
}

impl Api for NodeProcess {
    fn ask(&self, method: Method, path: &str) -> Request {
        self.request(method, path)
    }
}

impl Api for BridgeProcess {
    fn ask(&self, method: Method, path: &str) -> Request {
        self.request(method, path)
    }
}

/// Makes a record by a POST of `fields` to `path`. Returns its id.
pub async fn create(at: &impl Api, path: &str, fields: &Value) -> String {
    let made = at.ask(Method::POST, path).json(fields).ok().await.json();
    made["id"].as_str().unwrap_or_else(|| panic!("no id: {made}")).to_owned()
}

/// Makes a medium that has a title and nothing else. Returns its id.
pub async fn create_titled(at: &impl Api, title: &str) -> String {
    create(at, "/v1/media", &json!({ "title": title })).await
}

/// Uploads a film and makes a medium with it as its only file. Returns the content's name.
pub async fn create_film(at: &impl Api, bytes: &[u8]) -> String {
    let content = content_name(bytes);
    let upload = at.ask(Method::POST, "/v1/blobs").header("content-type", "video/mp4");
    upload.body(bytes.to_vec()).deadline(UPLOAD_DEADLINE).ok().await;
    let file = json!({ "blob": content, "media_type": "video/mp4", "name": "film.mp4", "size_bytes": bytes.len(), "role": "main" });
    create(at, "/v1/media", &json!({ "title": "A long film", "media_kind": "video", "files": [file] })).await;
    content
}

/// Writes some fields of the record at `path`, as RFC 7396 has it.
pub async fn patch(at: &impl Api, path: &str, changes: &Value) {
    let request = at.ask(Method::PATCH, path).header("content-type", "application/merge-patch+json");
    request.body(changes.to_string()).ok().await;
}

/// Whether there is a medium.
///
/// # Panics
///
/// If the answer is neither that it is there nor that it is not.
pub async fn has_medium(at: &impl Api, id: &str) -> bool {
    let answer = at.ask(Method::GET, &format!("/v1/media/{id}")).send().await.expect("an answer");
    match answer.status {
        StatusCode::OK => true,
        StatusCode::NOT_FOUND => false,
        _ => panic!("{answer:?}"),
    }
}
