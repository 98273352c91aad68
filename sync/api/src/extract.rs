//! What arrives, parsed once: path parameters, query parameters and JSON bodies, each refused with a problem that names
//! what is wrong.
//!
//! A JSON body is read up to [`JSON_BYTES_MAX`], nests at most [`JSON_DEPTH_MAX`] deep and holds no U+0000, which
//! PostgreSQL cannot store.

use std::str::FromStr;

use alexandria_sync::id::ParseIdError;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::limits::{JSON_BYTES_MAX, JSON_DEPTH_MAX};
use crate::problem::{Problem, ProblemKind};

/// The one parameter of the path.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: FromStr<Err = ParseIdError>, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let parameters = raw_parameters(parts, state).await?;
        parameter(&mut parameters.iter()).map(Self)
    }
}

/// The two parameters of the path, in the order in which they stand there.
pub(crate) struct PathPair<A, B>(pub(crate) A, pub(crate) B);

impl<A, B, S> FromRequestParts<S> for PathPair<A, B>
where
    A: FromStr<Err = ParseIdError>,
    B: FromStr<Err = ParseIdError>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let parameters = raw_parameters(parts, state).await?;
        let mut parameters = parameters.iter();
        Ok(Self(parameter(&mut parameters)?, parameter(&mut parameters)?))
    }
}

async fn raw_parameters(parts: &mut Parts, state: &(impl Send + Sync)) -> Result<RawPathParams, Problem> {
    RawPathParams::from_request_parts(parts, state).await.map_err(|rejection| {
        // What is not UTF-8; axum quotes the parameter's name in the text, and tells it nowhere else.
        let detail = rejection.body_text();
        let name = detail.split('`').nth(1).unwrap_or_default().to_owned();
        Problem::new(ProblemKind::InvalidPath, detail).at(name)
    })
}

fn parameter<'a, T>(parameters: &mut impl Iterator<Item = (&'a str, &'a str)>) -> Result<T, Problem>
where
    T: FromStr<Err = ParseIdError>,
{
    let (name, text) = parameters.next().unwrap_or_default();
    text.parse().map_err(|error: ParseIdError| Problem::new(ProblemKind::InvalidPath, error.to_string()).at(name))
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
    let mut json: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(ProblemKind::InvalidBody, format!("not valid JSON: {error}")))?;
    check(&json, &mut String::new(), JSON_DEPTH_MAX)?;
    read_whole_numbers(&mut json);
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
                path.extend(["[", &index.to_string(), "]"]);
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

/// Makes `3.0` and `3e0` what they are in JSON: the same number as `3`, which serde would tell apart.
fn read_whole_numbers(json: &mut Value) {
    match json {
        Value::Number(number) => {
            // 2^64, the first number that is too large; every float below it without a fraction is exactly some u64.
            const END: f64 = 18_446_744_073_709_551_616.0;
            if let Some(float) = number.as_f64().filter(|_| number.is_f64())
                && float.fract() == 0.0
                && (0.0..END).contains(&float)
            {
                *number = (float as u64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(read_whole_numbers),
        Value::Object(members) => members.values_mut().for_each(read_whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// A problem that names the place where deserializing stopped.
fn located<E: std::error::Error>(kind: ProblemKind, error: &serde_path_to_error::Error<E>) -> Problem {
    let detail = error.inner().to_string();
    let path = error.path().to_string();
    // The path ends in "." at the top, and in "?" where the name of a member was not read.
    let parent = path.trim_end_matches(['?', '.']).to_owned();
    // serde says in its message, not in the path, which member is unknown or missing.
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| detail.strip_prefix(start)?.split_once('`'))
        .map(|(name, _)| name.to_owned());
    let field = match named {
        Some(name) if parent.is_empty() || parent == name => name,
        Some(name) if parent.ends_with(&format!(".{name}")) => parent,
        Some(name) => format!("{parent}.{name}"),
        None => parent,
    };
    let problem = Problem::new(kind, detail);
    if field.is_empty() { problem } else { problem.at(field) }
}
