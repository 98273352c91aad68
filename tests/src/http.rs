//! A small HTTP client: one request, one connection, the whole body.
//!
//! No redirects, no retries, no pool: a test sees exactly what the server did.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{HeaderMap, Method, StatusCode};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

/// How long a request may take unless it says otherwise.
const DEADLINE: Duration = Duration::from_secs(30);
/// The largest body that is read.
const BODY_MAX_BYTES: usize = 512 * 1024 * 1024;

/// Why no whole answer came.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The request could not be put together: a bad URL or header.
    #[error("no such request")]
    Request(#[from] hyper::http::Error),
    /// The server was not reached, or hung up before its answer began.
    #[error("send to {url}")]
    Send { url: String, source: hyper_util::client::legacy::Error },
    /// The answer broke off or was too large.
    #[error("read the answer of {url}")]
    Body { url: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// No whole answer in time.
    #[error("{url} did not answer within {deadline:?}")]
    Deadline { url: String, deadline: Duration },
}

/// A request about to be sent.
#[must_use]
pub struct Request {
    url: String,
    builder: hyper::http::request::Builder,
    body: Bytes,
    deadline: Duration,
}

/// A whole answer.
pub struct Response {
    url: String,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Starts a GET.
pub fn get(url: impl Into<String>) -> Request {
    request(Method::GET, url)
}

/// Starts a POST.
pub fn post(url: impl Into<String>) -> Request {
    request(Method::POST, url)
}

/// Starts a PUT.
pub fn put(url: impl Into<String>) -> Request {
    request(Method::PUT, url)
}

/// Starts any request.
pub fn request(method: Method, url: impl Into<String>) -> Request {
    let url = url.into();
    let builder = hyper::Request::builder().method(method).uri(&url);
    Request { url, builder, body: Bytes::new(), deadline: DEADLINE }
}

impl Request {
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.builder = self.builder.header(name, value.as_ref());
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub fn json(self, body: &serde_json::Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sends it and reads the whole answer, whatever its status.
    pub async fn send(self) -> Result<Response, HttpError> {
        let Self { url, builder, body, deadline } = self;
        let request = builder.body(Full::new(body))?;
        let answer = async {
            // A kept connection would belong to the runtime of whichever test opened it.
            let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http::<Full<Bytes>>();
            let answer =
                client.request(request).await.map_err(|source| HttpError::Send { url: url.clone(), source })?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, BODY_MAX_BYTES)
                .collect()
                .await
                .map_err(|source| HttpError::Body { url: url.clone(), source })?
                .to_bytes();
            Ok(Response { url: url.clone(), status: head.status, headers: head.headers, body })
        };
        match tokio::time::timeout(deadline, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::Deadline { url, deadline }),
        }
    }

    /// Sends it and insists on a 2xx answer.
    ///
    /// # Panics
    ///
    /// On any other answer, showing it, or on none.
    pub async fn ok(self) -> Response {
        let url = self.url.clone();
        let answer = self.send().await.unwrap_or_else(|error| panic!("{url}: {}", Chain(&error)));
        assert!(answer.status.is_success(), "{answer:?}");
        answer
    }
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_else(|error| panic!("{}: {error}", self.url))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Enough of a body to recognise it by.
        const SHOWN_BYTES: usize = 2000;
        let shown = String::from_utf8_lossy(&self.body[..self.body.len().min(SHOWN_BYTES)]);
        write!(f, "{} answered {} {:?} with {} bytes: {shown}", self.url, self.status, self.headers, self.body.len())
    }
}

/// An error with all its causes, in one line.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
