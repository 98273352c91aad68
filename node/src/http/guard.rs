//! Who may write, until there are accounts: the node's own machine, and whoever has the token of the data folder.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use alexandria_api::{WriteGuard, WriteRefused};
use axum::extract::ConnectInfo;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use rand::Rng;

const TOKEN_FILE: &str = "write-token";

/// Takes writes from loopback, or with the token.
#[derive(Clone, Debug)]
pub struct NodeWriteGuard {
    token_hash: Arc<blake3::Hash>,
}

impl NodeWriteGuard {
    /// A guard that knows this token.
    pub fn new(token: &str) -> Self {
        Self { token_hash: Arc::new(blake3::hash(token.as_bytes())) }
    }

    fn knows(&self, token: &str) -> bool {
        // Comparing hashes of this type takes the same time whatever they are.
        blake3::hash(token.as_bytes()) == *self.token_hash
    }
}

impl WriteGuard for NodeWriteGuard {
    async fn permit(&self, parts: &Parts) -> Result<(), WriteRefused> {
        if let Some(authorization) = parts.headers.get(AUTHORIZATION) {
            let token = authorization.to_str().ok().and_then(|value| value.split_once(' '));
            return match token {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && self.knows(token.trim()) => Ok(()),
                _ => Err(WriteRefused::Unauthenticated),
            };
        }
        let from_loopback = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .is_some_and(|ConnectInfo(address)| address.ip().to_canonical().is_loopback());
        if from_loopback && !is_cross_site(parts) { Ok(()) } else { Err(WriteRefused::Unauthenticated) }
    }
}

/// Whether a page of another site makes a browser on this machine ask. Browsers name the origin of what asks; programs
/// name none. A name of the name service proves nothing, for whoever owns it may point it at this machine.
fn is_cross_site(parts: &Parts) -> bool {
    let Some(origin) = parts.headers.get(ORIGIN) else { return false };
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).or_else(|| parts.uri.host());
    match (origin.to_str().ok().and_then(|origin| origin.split_once("://")), host) {
        (Some((_, origin)), Some(host)) => origin != host || !is_this_machine(host),
        _ => true,
    }
}

/// Whether a host, with or without its port, is an address or a name that only the local network gives.
fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().to_ascii_lowercase();
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    // `.local` is answered by the network itself (RFC 6762), never by the name service.
    is_address || name == "localhost" || name.rsplit('.').next() == Some("local")
}

/// The token of a data folder, made on first use. Only the folder's owner can read it.
///
/// # Errors
///
/// [`io::Error`] if it can be neither read nor made.
pub fn load_or_make_token(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join(TOKEN_FILE);
    match std::fs::read_to_string(&path) {
        Ok(token) if !token.trim().is_empty() => return Ok(token.trim().to_owned()),
        Ok(_) => std::fs::remove_file(&path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let token = hex::encode(rand::rng().random::<[u8; 24]>());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(token.as_bytes())?;
    file.sync_all()?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn permit(address: &str, headers: &[(&str, &str)]) -> Result<(), WriteRefused> {
        let mut request = Request::post("/v1/author");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        parts.extensions.insert(ConnectInfo(address.parse::<SocketAddr>().unwrap()));
        NodeWriteGuard::new("secret").permit(&parts).await
    }

    #[tokio::test]
    async fn loopback_may_write_and_the_network_only_with_the_token() {
        assert_eq!(permit("127.0.0.1:5", &[]).await, Ok(()));
        assert_eq!(permit("[::ffff:127.0.0.1]:5", &[]).await, Ok(()));
        assert_eq!(permit("192.168.1.9:5", &[]).await, Err(WriteRefused::Unauthenticated));
        assert_eq!(permit("192.168.1.9:5", &[("authorization", "Bearer secret")]).await, Ok(()));
        assert_eq!(
            permit("192.168.1.9:5", &[("authorization", "Bearer guess")]).await,
            Err(WriteRefused::Unauthenticated)
        );
    }

    #[tokio::test]
    async fn a_wrong_token_is_refused_from_loopback_too() {
        assert_eq!(permit("127.0.0.1:5", &[("authorization", "Basic x")]).await, Err(WriteRefused::Unauthenticated));
    }

    #[tokio::test]
    async fn a_page_of_another_site_cannot_write_through_a_browser_on_this_machine() {
        let host = ("host", "127.0.0.1:8080");
        assert!(permit("127.0.0.1:5", &[host, ("origin", "http://evil.example")]).await.is_err());
        assert_eq!(permit("127.0.0.1:5", &[host, ("origin", "http://127.0.0.1:8080")]).await, Ok(()));
        let rebound = [("host", "evil.example:8080"), ("origin", "http://evil.example:8080")];
        assert!(permit("127.0.0.1:5", &rebound).await.is_err());
        let named = [("host", "localhost:8080"), ("origin", "http://localhost:8080")];
        assert_eq!(permit("127.0.0.1:5", &named).await, Ok(()));
    }
}
