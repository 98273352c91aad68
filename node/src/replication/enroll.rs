//! Joining a fleet: a one-time token and a signing request become a certificate; later the request alone becomes the next one.
//!
//! The token is `SECRET.FINGERPRINT`. The fingerprint is that of the fleet's authority (SHA-256 of its certificate), so
//! the node knows whom it talks to before it says the secret, with no public certificate and no right clock needed.

use std::path::Path;
use std::sync::Arc;

use alexandria_sync::id::NodeId;
use alexandria_sync::identity::{IdentityError, PeerIdentity, PeerRole, SigningRequest};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::membership::{self, Membership, MembershipError};

/// Bytes of the bridge's answer, at most.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// The whole conversation takes no longer than this.
const DEADLINE: std::time::Duration = std::time::Duration::from_mins(1);

/// Why the node did not join.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// Copy the token again, whole.
    #[error("the token is not of the form SECRET.FINGERPRINT: copy it again, whole")]
    MalformedToken,
    /// The address is not HOST:PORT.
    #[error("`{0}` is not of the form HOST:PORT")]
    MalformedAddress(String),
    /// Nobody answers there, or not the bridge of the fleet that made the token.
    #[error("connect to the bridge at {address}")]
    Connect {
        /// Where.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The conversation broke off. Enrolling again with the same token is safe.
    #[error("talk to the bridge; enrolling again with the same token is safe")]
    Http(#[from] hyper::Error),
    /// The bridge did not answer in time. Enrolling again with the same token is safe.
    #[error("the bridge did not answer within a minute; enrolling again with the same token is safe")]
    TimedOut,
    /// The bridge said no.
    #[error("the bridge refused: {0}")]
    Refused(String),
    /// The bridge's answer is not understood.
    #[error("the bridge's answer is not understood")]
    NotUnderstood(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The key could not be made, or the certificate is not for it.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The node was enrolled meanwhile.
    #[error("the node was enrolled anew meanwhile")]
    Superseded,
    /// The data folder.
    #[error(transparent)]
    Membership(#[from] MembershipError),
}

/// What is asked with a token.
#[derive(Serialize)]
struct Ask<'a> {
    token: &'a str,
    csr_pem: &'a str,
    node_id: NodeId,
    name: &'a str,
}

/// What is asked by a node that is in.
#[derive(Serialize)]
struct AskAgain<'a> {
    csr_pem: &'a str,
    node_id: NodeId,
}

#[derive(Deserialize)]
struct Answer {
    certificate_pem: String,
    ca_pem: String,
    bridge_id: NodeId,
    quic_address: String,
    #[serde(default)]
    tcp_address: Option<String>,
}

/// Joins the fleet whose bridge takes enrolments at `address` (HOST:PORT), and keeps what it gave.
///
/// # Errors
///
/// [`EnrollError`]. Until it succeeds the node stays in the fleet that it was in, if any.
pub async fn enroll(
    data_dir: &Path,
    node: NodeId,
    name: &str,
    address: &str,
    token: &str,
) -> Result<Membership, EnrollError> {
    let fingerprint = fingerprint(token).ok_or(EnrollError::MalformedToken)?;
    let (host, _) = address.rsplit_once(':').ok_or_else(|| EnrollError::MalformedAddress(address.to_owned()))?;
    let identity = PeerIdentity { role: PeerRole::Node, id: node };
    let request = if let Some(key) = membership::load_key(data_dir)? {
        SigningRequest::again(identity, &key)?
    } else {
        let request = SigningRequest::make(identity)?;
        membership::save_key(data_dir, &request.key_pem)?;
        request
    };
    let ask = Ask { token: token.trim(), csr_pem: &request.request_pem, node_id: node, name };
    let server = Server { address, host, fingerprint };
    let membership = server.membership(identity, &request, server.ask("/v1/enrol", &ask).await?)?;
    membership.save(data_dir)?;
    Ok(membership)
}

/// Asks for another certificate for the same key, and keeps what the bridge gave: the same one, if it thinks that it is good for long
/// enough.
///
/// # Errors
///
/// [`EnrollError`]. The node stays what it was.
pub(super) async fn renew(data_dir: &Path, node: NodeId, known: &Membership) -> Result<Membership, EnrollError> {
    let address = known.enrolment_address();
    let (host, _) = address.rsplit_once(':').ok_or_else(|| EnrollError::MalformedAddress(address.clone()))?;
    let identity = PeerIdentity { role: PeerRole::Node, id: node };
    let key = membership::load_key(data_dir)?.ok_or(IdentityError::WrongKey)?;
    let request = SigningRequest::again(identity, &key)?;
    let authority = CertificateDer::from_pem_slice(known.authority_pem.as_bytes());
    let authority = authority.map_err(|_| IdentityError::Unreadable)?;
    let ask = AskAgain { csr_pem: &request.request_pem, node_id: node };
    let server = Server { address: &address, host, fingerprint: Sha256::digest(&authority).into() };
    let renewed = server.membership(identity, &request, server.ask("/v1/renew", &ask).await?)?;
    if renewed.replace(data_dir, known)? { Ok(renewed) } else { Err(EnrollError::Superseded) }
}

fn fingerprint(token: &str) -> Option<[u8; 32]> {
    let (secret, fingerprint) = token.trim().split_once('.')?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(fingerprint, &mut bytes).ok()?;
    (!secret.is_empty()).then_some(bytes)
}

/// A bridge that does not know its own name listens on all addresses: then it is where it was enrolled at.
fn reachable(address: &str, host: &str) -> String {
    match address.rsplit_once(':') {
        Some(("" | "0.0.0.0" | "[::]", port)) => format!("{host}:{port}"),
        _ => address.to_owned(),
    }
}

/// Where a bridge takes enrolments, and by what it is known.
struct Server<'a> {
    /// HOST:PORT.
    address: &'a str,
    host: &'a str,
    /// Of the fleet's authority.
    fingerprint: [u8; 32],
}

impl Server<'_> {
    async fn ask(&self, path: &str, question: &impl Serialize) -> Result<Answer, EnrollError> {
        let conversation = self.converse(path, question);
        tokio::time::timeout(DEADLINE, conversation).await.map_err(|_| EnrollError::TimedOut)?
    }

    async fn converse(&self, path: &str, question: &impl Serialize) -> Result<Answer, EnrollError> {
        let connect = |source| EnrollError::Connect { address: self.address.to_owned(), source };
        let stream = TcpStream::connect(self.address).await.map_err(connect)?;
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(PinnedAuthority { fingerprint: self.fingerprint, provider: Arc::clone(&provider) });
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| connect(std::io::Error::other(error)))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let name = ServerName::try_from(self.host.trim_matches(['[', ']']).to_owned())
            .map_err(|_| EnrollError::MalformedAddress(self.address.to_owned()))?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(connect)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let body = serde_json::to_vec(question).map_err(|error| EnrollError::NotUnderstood(error.into()))?;
        let request = Request::post(path)
            .header("host", self.host)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| EnrollError::MalformedAddress(self.address.to_owned()))?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(EnrollError::NotUnderstood)?.to_bytes();
        if status != StatusCode::OK {
            let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let said = problem["detail"].as_str().or(problem["title"].as_str());
            return Err(EnrollError::Refused(said.map_or_else(|| status.to_string(), str::to_owned)));
        }
        serde_json::from_slice(&body).map_err(|error| EnrollError::NotUnderstood(error.into()))
    }

    /// What its answer makes of the node.
    fn membership(
        &self,
        identity: PeerIdentity,
        request: &SigningRequest,
        answer: Answer,
    ) -> Result<Membership, EnrollError> {
        let membership = Membership {
            certificate_pem: answer.certificate_pem,
            authority_pem: answer.ca_pem,
            bridge: answer.bridge_id,
            enrolment: Some(self.address.to_owned()),
            address: reachable(&answer.quic_address, self.host),
            tcp_address: answer.tcp_address.map(|address| reachable(&address, self.host)),
        };
        let held = membership.identity_with_key(&request.key_pem)?;
        if held.named() != identity {
            return Err(IdentityError::NoName.into());
        }
        Ok(membership)
    }
}

/// Trusts a server whose chain ends in the authority with this fingerprint, and which that authority calls a bridge.
/// What it is called in the name service does not matter.
#[derive(Debug)]
struct PinnedAuthority {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority =
            intermediates.iter().find(|certificate| Sha256::digest(certificate).as_slice() == self.fingerprint);
        let authority = authority.ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let now = start_of_validity(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms)?;
        match PeerIdentity::of_certificate(end_entity) {
            Ok(PeerIdentity { role: PeerRole::Bridge, .. }) => Ok(ServerCertVerified::assertion()),
            _ => Err(rustls::Error::InvalidCertificate(CertificateError::InvalidPurpose)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A moment at which the certificate is valid. A node that has never had the right time must be able to join, and the
/// token is short-lived, so the chain is what is checked here, not the calendar.
fn start_of_validity(certificate: &CertificateDer<'_>) -> Result<UnixTime, rustls::Error> {
    let validity = alexandria_sync::identity::validity_unix_s(certificate);
    let validity = validity.map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
    Ok(UnixTime::since_unix_epoch(std::time::Duration::from_secs(validity.start)))
}
