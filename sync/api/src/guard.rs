//! Who may write. The host decides: a node takes writes from loopback or with its token, the bridge from operators.

use std::future::Future;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::{Problem, ProblemKind};

/// Decides about each request that would change something. Reads are never asked about, nor is counting an opening.
pub trait WriteGuard: Clone + Send + Sync + 'static {
    /// Lets the request pass, or says why not. Its body has not been read. What the host's own layers know (the peer's
    /// address, a verified token) is in `parts.extensions`.
    fn permit(&self, parts: &Parts) -> impl Future<Output = Result<(), WriteRefused>> + Send;
}

/// Why a write is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WriteRefused {
    /// Come back with a valid bearer token.
    #[error("changing something needs a valid bearer token")]
    Unauthenticated,
    /// This caller may not, token or not.
    #[error("this caller may not change anything here")]
    Forbidden,
}

/// The layer around every route that changes something.
pub(crate) async fn check<G: WriteGuard>(State(guard): State<G>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match guard.permit(&parts).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refused) => Problem::from(refused).into_response(),
    }
}

impl From<WriteRefused> for Problem {
    fn from(refused: WriteRefused) -> Self {
        let kind = match refused {
            WriteRefused::Unauthenticated => ProblemKind::Unauthenticated,
            WriteRefused::Forbidden => ProblemKind::Forbidden,
        };
        Self::new(kind, refused.to_string())
    }
}
