//! Who may write. The host decides: a node takes writes from loopback or with its token, the bridge from operators.

use std::future::Future;

use axum::http::request::Parts;

/// Decides about each request that would change something. Reads are never asked about.
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
