//! A client of the router: sends a request, takes the answer apart.

use alexandria_api::{Limits, WriteGuard, WriteRefused};
use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use crate::memory::MemoryCatalogue;

/// Lets in whoever has the token `open`.
#[derive(Clone)]
struct Token;

impl WriteGuard for Token {
    async fn permit(&self, parts: &Parts) -> Result<(), WriteRefused> {
        match parts.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes) {
            Some(b"Bearer open") => Ok(()),
            Some(_) => Err(WriteRefused::Forbidden),
            None => Err(WriteRefused::Unauthenticated),
        }
    }
}

/// The API over a catalogue of its own.
#[derive(Clone)]
pub(crate) struct Client {
    router: Router,
    pub(crate) catalogue: MemoryCatalogue,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{} with a body that is not JSON: {error}", self.status))
    }

    /// A header as text, empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers here are ASCII"))
    }

    /// Checks that it is a problem of this sort, and gives the field that it names.
    pub(crate) fn problem(&self, status: u16, slug: &str) -> String {
        let json = self.json();
        assert_eq!(self.status.as_u16(), status, "{json}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(json["type"], format!("urn:alexandria:problem:{slug}"), "{json}");
        assert_eq!(json["status"], status);
        json["field"].as_str().unwrap_or_default().to_owned()
    }
}

impl Client {
    pub(crate) fn new() -> Self {
        Self::limited(Limits::default())
    }

    pub(crate) fn limited(limits: Limits) -> Self {
        let catalogue = MemoryCatalogue::default();
        Self { router: alexandria_api::router(catalogue.clone(), Token, limits), catalogue }
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("the router never fails");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("the body is whole").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// Sends a request and leaves the body of the answer unread.
    pub(crate) async fn open(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.expect("the router never fails")
    }

    /// Sends a request with the token.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, "Bearer open");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).expect("the request is well-formed")).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], Body::empty()).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.call(Method::GET, path, headers, Body::empty()).await
    }

    /// Sends JSON.
    pub(crate) async fn json(&self, method: Method, path: &str, json: &Value) -> Answer {
        self.call(method, path, &[("content-type", "application/json")], json.to_string()).await
    }

    /// Creates a record and gives what was answered.
    pub(crate) async fn create(&self, path: &str, json: Value) -> Value {
        let answer = self.json(Method::POST, path, &json).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json());
        answer.json()
    }

    /// Uploads content and gives its hash.
    pub(crate) async fn upload(&self, media_type: &str, bytes: impl Into<Body>) -> String {
        let answer = self.call(Method::POST, "/v1/blobs", &[("content-type", media_type)], bytes).await;
        assert!(answer.status.is_success(), "{}", answer.json());
        text(&answer.json()["hash"])
    }
}

/// A JSON string as text.
pub(crate) fn text(json: &Value) -> String {
    json.as_str().unwrap_or_else(|| panic!("{json} is not a string")).to_owned()
}
