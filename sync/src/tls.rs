//! TLS 1.3 with certificates on both sides, all signed by the fleet's authority: the same over QUIC and over TCP.
//!
//! A node trusts the authority that it enrolled with and nothing else. Its clock may be wrong, so certificates are judged
//! at the later of the clock and a floor that only grows: a node that wakes in 1970 still connects.
//!
//! Between two nodes: `peers`.
//!
//! Not here: whom a certificate names (`identity`), and who is let in (the host).

mod peers;

use std::sync::Arc;

use rustls::client::{Resumption, TicketRequest, WebPkiServerVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::identity::{Identity, IdentityError, PeerIdentity};
use crate::tickets::{SharedTickets, TicketSecret};

/// The protocol's name in the handshake (ALPN, RFC 7301) over QUIC.
pub const ALPN_QUIC: &[u8] = b"alexandria/1";
/// The same over TCP, where lanes are bound together by segments of their own.
pub const ALPN_TCP: &[u8] = b"alexandria-tcp/1";

/// Sessions of either transport that the next handshake may resume, at most.
const SESSIONS_REMEMBERED_MAX: usize = 8;

/// Tickets that a connection gives: over QUIC for the next one, over TCP also for the next lane.
const TICKETS_QUIC: usize = 1;
const TICKETS_TCP: usize = 2;

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

/// What a node demands of the bridge and shows to it. It remembers sessions, so that later handshakes are short: keep it
/// for as long as the identity is the same.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub(crate) quic: Arc<ClientConfig>,
    /// Without tickets. Over QUIC a whole handshake fits into the same datagrams, which are padded: a ticket spares the
    /// bridge its signatures, and costs the link its bytes.
    pub(crate) quic_sparing: Arc<ClientConfig>,
    pub(crate) tcp: Arc<ClientConfig>,
}

impl ClientTls {
    /// For a node with this identity, judging certificates no earlier than `floor_unix_s`.
    ///
    /// # Errors
    ///
    /// [`rustls::Error`] if key or certificates are not usable.
    pub fn new(identity: &Identity, floor_unix_s: u64) -> Result<Self, rustls::Error> {
        let verifier = WebPkiServerVerifier::builder_with_provider(roots(identity)?, provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let config = ClientConfig::builder_with_details(provider(), Arc::new(FlooredTime { floor_unix_s }))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())?;
        // Each transport resumes its own sessions only.
        let for_transport = |alpn: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![alpn.to_vec()];
            config.resumption = Resumption::in_memory_sessions(SESSIONS_REMEMBERED_MAX);
            config
        };
        let mut quic_sparing = for_transport(ALPN_QUIC);
        quic_sparing.resumption = Resumption::disabled();
        quic_sparing.send_ticket_request = Some(TicketRequest { new_session_count: 0, resumption_count: 0 });
        let (quic, tcp) = (for_transport(ALPN_QUIC), for_transport(ALPN_TCP));
        Ok(Self { quic: quic.into(), quic_sparing: quic_sparing.into(), tcp: tcp.into() })
    }
}

/// What the bridge demands of nodes and shows to them.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub(crate) quic: Arc<ServerConfig>,
    pub(crate) tcp: Arc<ServerConfig>,
}

impl ServerTls {
    /// For a bridge with this identity, whose processes share this secret.
    ///
    /// # Errors
    ///
    /// [`rustls::Error`] if key or certificates are not usable.
    pub fn new(identity: &Identity, secret: &TicketSecret) -> Result<Self, rustls::Error> {
        // A node has one certificate and needs no hint which to show: that would cross the link each time.
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(identity)?, provider())
            .clear_root_hint_subjects()
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())?;
        config.ticketer = Arc::new(SharedTickets::new(secret, &identity.authority));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let for_transport = |alpn: &[u8], tickets| {
            let mut config = config.clone();
            config.alpn_protocols = vec![alpn.to_vec()];
            config.send_tls13_tickets = tickets;
            // Who asks for fewer gets fewer (RFC 9149).
            config.max_tls13_tickets = tickets;
            Arc::new(config)
        };
        Ok(Self { quic: for_transport(ALPN_QUIC, TICKETS_QUIC), tcp: for_transport(ALPN_TCP, TICKETS_TCP) })
    }
}

/// Whom the first certificate of a verified chain names.
///
/// # Errors
///
/// [`IdentityError::NoName`] if there is none, or it names nobody.
pub(crate) fn peer_of(chain: Option<&[CertificateDer<'_>]>) -> Result<PeerIdentity, IdentityError> {
    PeerIdentity::of_certificate(chain.and_then(<[_]>::first).ok_or(IdentityError::NoName)?)
}
