//! What arrives, parsed once: path parameters, query parameters and JSON bodies, each refused with a problem that names
//! what is wrong.
//!
//! A JSON body is read up to [`JSON_BYTES_MAX`], nests at most [`JSON_DEPTH_MAX`] deep and holds no U+0000, which
//! PostgreSQL cannot store.

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path as AxumPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::limits::{JSON_BYTES_MAX, JSON_DEPTH_MAX};
use crate::problem::{Problem, ProblemKind};

/// The parameters of the path.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match AxumPath::from_request_parts(parts, state).await {
            Ok(AxumPath(parameters)) => Ok(Self(parameters)),
            Err(PathRejection::FailedToDeserializePathParams(rejection)) => {
                use axum::extract::path::ErrorKind;
                let (key, detail) = match rejection.into_kind() {
                    ErrorKind::DeserializeError { key, message, .. } => (Some(key), message),
                    ErrorKind::InvalidUtf8InPathParam { key } => (Some(key), "it is not UTF-8".to_owned()),
                    other => (None, other.to_string()),
                };
                let problem = Problem::new(ProblemKind::InvalidPath, detail);
                Err(match key {
                    Some(key) => problem.at(key),
                    None => problem,
                })
            }
            Err(other) => Err(Problem::new(ProblemKind::InvalidPath, other.to_string())),
        }
    }
}

/// The query parameters; unknown ones and repeated ones are refused.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        if let Some((name, _)) = form_urlencoded::parse(query.as_bytes()).find(|(_, value)| value.contains('\0')) {
            let problem = Problem::new(ProblemKind::InvalidQuery, "a parameter must not contain the character U+0000");
            return Err(problem.at(name));
        }
        let deserializer = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(deserializer)
            .map(Self)
            .map_err(|error| located(ProblemKind::InvalidQuery, &error))
    }
}

/// A JSON body of one of the media types that a handler takes.
pub(crate) struct Body {
    json: Value,
}

impl Body {
    /// The body as it came, checked for depth and characters.
    pub(crate) fn into_json(self) -> Value {
        self.json
    }

    /// Takes a member out of the body, if it is an object that has it.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, field: &str) -> Result<Option<T>, Problem> {
        match self.json.as_object_mut().and_then(|object| object.remove(field)) {
            None => Ok(None),
            Some(json) => serde_json::from_value(json)
                .map(Some)
                .map_err(|error| Problem::new(ProblemKind::InvalidField, error.to_string()).at(field)),
        }
    }
}

/// Reads JSON as a `T`, naming the field that does not fit.
pub(crate) fn typed<T: DeserializeOwned>(json: Value) -> Result<T, Problem> {
    if !json.is_object() {
        return Err(Problem::new(ProblemKind::InvalidBody, "the body must be a JSON object"));
    }
    serde_path_to_error::deserialize(json).map_err(|error| located(ProblemKind::InvalidField, &error))
}

/// A body in `application/json`.
pub(crate) struct JsonBody(pub(crate) Body);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        expect_media_type(request.headers(), &["application/json"])?;
        read(request).await.map(Self)
    }
}

/// A body in `application/merge-patch+json` (RFC 7396), or in `application/json`, which means the same here.
pub(crate) struct PatchBody(pub(crate) Body);

impl<S: Send + Sync> FromRequest<S> for PatchBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        expect_media_type(request.headers(), &["application/merge-patch+json", "application/json"])?;
        read(request).await.map(Self)
    }
}

async fn read(request: Request) -> Result<Body, Problem> {
    let too_large = || Problem::new(ProblemKind::TooLarge, format!("the body is larger than {JSON_BYTES_MAX} bytes"));
    let bytes = axum::body::to_bytes(request.into_body(), JSON_BYTES_MAX).await.map_err(|error| {
        if is_length_limit(&error) {
            too_large()
        } else {
            Problem::new(ProblemKind::InvalidBody, "the connection broke before the body was whole")
        }
    })?;
    let json: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(ProblemKind::InvalidBody, format!("not valid JSON: {error}")))?;
    check(&json, &mut String::new(), JSON_DEPTH_MAX)?;
    Ok(Body { json })
}

/// Whether reading stopped at a limit: ours, or that of a layer of the host.
fn is_length_limit(error: &axum::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn expect_media_type(headers: &HeaderMap, allowed: &[&str]) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let parsed = given.and_then(|text| text.parse::<mime::Mime>().ok());
    match parsed {
        Some(given) if allowed.contains(&given.essence_str()) => Ok(()),
        _ => {
            let detail = format!("the body must be {}", allowed.join(" or "));
            Err(Problem::new(ProblemKind::UnsupportedMediaType, detail).at("Content-Type"))
        }
    }
}

/// Refuses what nests too deeply or holds U+0000; `path` is where `json` stands.
fn check(json: &Value, path: &mut String, depth: usize) -> Result<(), Problem> {
    let refuse_nul = |text: &str, path: &str| {
        if text.contains('\0') {
            let problem = Problem::new(ProblemKind::InvalidField, "a text must not contain the character U+0000");
            return Err(problem.at(path.replace('\0', "\u{fffd}")));
        }
        Ok(())
    };
    let deeper = || {
        let detail = format!("the body nests deeper than {JSON_DEPTH_MAX}");
        depth.checked_sub(1).ok_or_else(|| Problem::new(ProblemKind::InvalidBody, detail))
    };
    let here = path.len();
    match json {
        Value::String(text) => refuse_nul(text, path)?,
        Value::Array(items) => {
            let depth = deeper()?;
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                check(item, path, depth)?;
                path.truncate(here);
            }
        }
        Value::Object(members) => {
            let depth = deeper()?;
            for (name, member) in members {
                if here > 0 {
                    path.push('.');
                }
                path.push_str(name);
                refuse_nul(name, path)?;
                check(member, path, depth)?;
                path.truncate(here);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}

/// A problem that names the place where deserializing stopped.
fn located<E: std::error::Error>(kind: ProblemKind, error: &serde_path_to_error::Error<E>) -> Problem {
    let detail = error.inner().to_string();
    let path = error.path().to_string();
    let parent = if path == "." { String::new() } else { path };
    // serde says in its message, not in the path, which member is unknown or missing.
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| detail.strip_prefix(start)?.split_once('`'))
        .map(|(name, _)| name.to_owned());
    let field = match named {
        Some(name) if parent.is_empty() || parent.ends_with('?') || parent.ends_with(&name) => name,
        Some(name) => format!("{parent}.{name}"),
        None => parent,
    };
    let problem = Problem::new(kind, detail);
    if field.is_empty() { problem } else { problem.at(field) }
}
