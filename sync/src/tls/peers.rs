//! TLS between two nodes: each shows the certificate with which it dials the bridge, and takes the other's.
//!
//! A node's certificate names no server and is for clients only (`docs/PROTOCOL.md`, section 1). So the dialler judges the
//! other end's as a server judges a client's: by the fleet's authority, and by the node that it names, which must be the
//! one that was dialled. To be taken for the bridge such a certificate still does not do.
//!
//! Nothing is resumed: handshakes on a local network cost little, and each asks again who is there.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{ALPN_QUIC, ALPN_TCP, ClientTls, FlooredTime, ServerTls, provider, roots};
use crate::id::NodeId;
use crate::identity::{Identity, IdentityError, PeerIdentity, PeerRole};

impl ClientTls {
    /// To dial the node `expected` of the same fleet, and nobody else, judging certificates no earlier than `floor_unix_s`.
    ///
    /// # Errors
    ///
    /// [`rustls::Error`] if key or certificates are not usable.
    pub fn for_peer(identity: &Identity, floor_unix_s: u64, expected: NodeId) -> Result<Self, rustls::Error> {
        let expected = PeerIdentity { role: PeerRole::Node, id: expected };
        let verifier = Arc::new(Pinned { expected, member: member(roots(identity)?)? });
        let mut config = ClientConfig::builder_with_details(provider(), Arc::new(FlooredTime { floor_unix_s }))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())?;
        config.resumption = Resumption::disabled();
        let over = |alpn: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![alpn.to_vec()];
            Arc::new(config)
        };
        Ok(Self { quic: over(ALPN_QUIC), quic_sparing: over(ALPN_QUIC), tcp: over(ALPN_TCP) })
    }
}

impl ServerTls {
    /// For a node that other nodes of its fleet dial, judging certificates no earlier than `floor_unix_s`.
    ///
    /// # Errors
    ///
    /// [`rustls::Error`] if key or certificates are not usable.
    pub fn for_peers(identity: &Identity, floor_unix_s: u64) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_details(provider(), Arc::new(FlooredTime { floor_unix_s }))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(member(roots(identity)?)?)
            .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let over = |alpn: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![alpn.to_vec()];
            Arc::new(config)
        };
        Ok(Self { quic: over(ALPN_QUIC), tcp: over(ALPN_TCP) })
    }
}

/// Judges whether a certificate makes its holder a client of this fleet.
fn member(roots: Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    WebPkiClientVerifier::builder_with_provider(roots, provider())
        .clear_root_hint_subjects()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
}

/// Takes one node for a server, and nobody else.
#[derive(Debug)]
struct Pinned {
    expected: PeerIdentity,
    member: Arc<dyn ClientCertVerifier>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.member.verify_client_cert(end_entity, intermediates, now)?;
        let refused = |error: IdentityError| CertificateError::Other(OtherError(Arc::new(error)));
        match PeerIdentity::of_certificate(end_entity) {
            Ok(named) if named == self.expected => Ok(ServerCertVerified::assertion()),
            Ok(_) => Err(refused(IdentityError::Unexpected).into()),
            Err(error) => Err(refused(error).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.member.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.member.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.member.supported_verify_schemes()
    }
}
