//! TLS 1.3 with certificates on both sides, all signed by the fleet's authority.
//!
//! A node trusts the authority that it enrolled with and nothing else. Its clock may be wrong, so certificates are judged
//! at the later of the clock and a floor that only grows: a node that wakes in 1970 still connects.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::UnixTime;

use super::identity::Identity;

/// The protocol's name in the handshake (ALPN, RFC 7301).
pub const ALPN: &[u8] = b"alexandria/1";

/// The system's clock, but never before a floor.
#[derive(Debug)]
struct FlooredTime {
    floor_unix_s: u64,
}

impl TimeProvider for FlooredTime {
    fn current_time(&self) -> Option<UnixTime> {
        let floor = UnixTime::since_unix_epoch(std::time::Duration::from_secs(self.floor_unix_s));
        Some(DefaultTimeProvider.current_time().map_or(floor, |now| now.max(floor)))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(identity: &Identity) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(identity.authority.clone())?;
    Ok(Arc::new(roots))
}

/// What a node demands of the bridge and shows to it.
///
/// # Errors
///
/// [`rustls::Error`] if key or certificates are not usable.
pub fn client_config(identity: &Identity, floor_unix_s: u64) -> Result<ClientConfig, rustls::Error> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(identity)?, provider())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(FlooredTime { floor_unix_s }))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// What the bridge demands of nodes and shows to them.
///
/// # Errors
///
/// [`rustls::Error`] if key or certificates are not usable.
pub fn server_config(identity: &Identity) -> Result<ServerConfig, rustls::Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(identity)?, provider())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}
