//! The fleet's certificate authority. Its certificate is in the database, its key is not: it lies in a file that only
//! its owner can read, or comes with the environment where several replicas share it.
//!
//! What a certificate says, and that a request's wishes are ignored, is decided in `alexandria_sync::identity`,
//! which both ends share. Here are the key's keeping and the fingerprints.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use alexandria_sync::id::NodeId;
use alexandria_sync::identity::{self, Identity, IdentityError, PeerIdentity, PeerRole, SigningRequest};
use alexandria_sync::tickets::TicketSecret;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sqlx::PgPool;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::FromDer;

use super::Config;
use crate::postgres::now_unix_ms;

/// The bridge's certificate is made anew at each start; this only bounds how long a process may run.
const BRIDGE_DAYS: u64 = 825;
/// Clocks of nodes are slow more often than fast.
const BACKDATED: Duration = Duration::days(2);

/// Why the authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// PostgreSQL is away or not migrated.
    #[error("PostgreSQL failed")]
    Database(#[from] sqlx::Error),
    /// The database has an authority whose key is not where it should be. A new one would shut out every node.
    #[error(
        "the fleet has a certificate authority already, but its key is not in {0}: put it there, or set fleet.ca_key_pem"
    )]
    KeyMissing(PathBuf),
    /// The key is another one's.
    #[error("the key in fleet.ca_key_file or fleet.ca_key_pem is not that of the fleet's certificate authority")]
    WrongKey,
    /// Others could read it.
    #[error("{0} may be read by others than its owner: chmod 600 it")]
    KeyExposed(PathBuf),
    /// The file cannot be read or written.
    #[error("the key file {path}")]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Neither a key nor a certificate.
    #[error("the certificate authority's key or certificate is malformed")]
    Malformed(#[from] rcgen::Error),
    /// Something could not be signed.
    #[error("the certificate authority cannot sign")]
    Signing(#[from] IdentityError),
    /// The database holds something else than a certificate.
    #[error("the certificate authority's certificate in the database is malformed")]
    MalformedCertificate,
}

/// A certificate for a node.
#[derive(Clone, Debug)]
pub struct NodeCertificate {
    /// In PEM.
    pub pem: String,
    /// SHA-256 of its DER form.
    pub fingerprint: [u8; 32],
}

/// The bridge's own certificate, with its key, for the two servers that show it.
pub struct BridgeIdentity {
    /// For sessions.
    pub transport: Identity,
    /// For enrolment: the certificate, then the authority's, by which a node checks the fingerprint in its token.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first of them.
    pub key: PrivateKeyDer<'static>,
}

/// The authority, with its key.
pub struct Authority {
    signer: identity::Authority,
    certificate_der: CertificateDer<'static>,
    certificate_days: u64,
}

impl Authority {
    /// Opens the fleet's authority, or makes it if the fleet has none.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`].
    pub async fn open(pool: &PgPool, config: &Config) -> Result<Self, AuthorityError> {
        let mut certificate_pem = stored_certificate(pool).await?;
        if certificate_pem.is_none() {
            let made = make_certificate(&KeyPair::from_pem(&key_pem(config, true)?)?)?;
            sqlx::query("INSERT INTO fleet_authority (certificate_pem) VALUES ($1) ON CONFLICT DO NOTHING")
                .bind(made)
                .execute(pool)
                .await?;
            certificate_pem = stored_certificate(pool).await?;
        }
        let certificate_pem = certificate_pem.ok_or(AuthorityError::MalformedCertificate)?;
        let key_pem = key_pem(config, false)?;
        let certificate_der = certificate_of(&certificate_pem)?;
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&certificate_der)
            .map_err(|_| AuthorityError::MalformedCertificate)?;
        if certificate.public_key().raw != KeyPair::from_pem(&key_pem)?.subject_public_key_info() {
            return Err(AuthorityError::WrongKey);
        }
        let signer = identity::Authority::from_pem(&certificate_pem, &key_pem)?;
        Ok(Self { signer, certificate_der, certificate_days: config.certificate_days.into() })
    }

    /// The authority's certificate in PEM.
    pub fn certificate_pem(&self) -> &str {
        self.signer.certificate_pem()
    }

    /// What the processes of the bridge open each other's session tickets with.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Signing`] if the authority's key cannot be read any more.
    pub fn ticket_secret(&self, chosen: Option<&str>) -> Result<TicketSecret, AuthorityError> {
        match chosen {
            Some(chosen) => Ok(TicketSecret::derived_from(chosen.as_bytes())),
            None => Ok(TicketSecret::derived_from(&self.signer.key_der()?)),
        }
    }

    /// SHA-256 of the authority's certificate: what tokens carry, so that a node knows whom it talks to.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&self.certificate_der)
    }

    /// Signs a certificate for a node.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if the request is not signed by its own key.
    pub fn sign(&self, request_pem: &str, node: NodeId) -> Result<NodeCertificate, IdentityError> {
        let named = PeerIdentity { role: PeerRole::Node, id: node };
        let pem = self.signer.sign(request_pem, named, random_serial(), now_unix_s(), self.certificate_days)?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| IdentityError::Unreadable)?;
        Ok(NodeCertificate { fingerprint: sha256(&der), pem })
    }

    /// A certificate and a fresh key for this process, in the bridge's name.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Signing`] if the system gives no randomness.
    pub fn bridge_identity(&self, bridge: NodeId) -> Result<BridgeIdentity, AuthorityError> {
        let named = PeerIdentity { role: PeerRole::Bridge, id: bridge };
        let request = SigningRequest::make(named)?;
        let pem = self.signer.sign(&request.request_pem, named, random_serial(), now_unix_s(), BRIDGE_DAYS)?;
        Ok(BridgeIdentity {
            transport: Identity::from_pem(&pem, &request.key_pem, self.certificate_pem())?,
            chain: vec![certificate_of(&pem)?, self.certificate_der.clone()],
            key: PrivateKeyDer::from_pem_slice(request.key_pem.as_bytes()).map_err(|_| IdentityError::Unreadable)?,
        })
    }
}

/// SHA-256 of the public key that a signing request is for, after checking that its sender holds the key.
///
/// # Errors
///
/// [`IdentityError::BadRequest`].
pub fn key_fingerprint(request_pem: &str) -> Result<[u8; 32], IdentityError> {
    let request = CertificateSigningRequestParams::from_pem(request_pem).map_err(IdentityError::BadRequest)?;
    Ok(sha256(&request.public_key.subject_public_key_info()))
}

/// SHA-256, as certificates are named everywhere.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn certificate_of(pem: &str) -> Result<CertificateDer<'static>, AuthorityError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| AuthorityError::MalformedCertificate)
}

fn now_unix_s() -> u64 {
    now_unix_ms() / 1000
}

/// A positive serial number of 127 bits.
fn random_serial() -> [u8; 16] {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    bytes
}

fn make_certificate(key: &KeyPair) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Alexandria fleet");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()));
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + Duration::days(identity::Authority::VALIDITY_DAYS as i64);
    Ok(params.self_signed(key)?.pem())
}

async fn stored_certificate(pool: &PgPool) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT certificate_pem FROM fleet_authority").fetch_optional(pool).await
}

fn key_pem(config: &Config, may_make: bool) -> Result<String, AuthorityError> {
    if let Some(pem) = &config.ca_key_pem {
        return Ok(pem.clone());
    }
    let path = &config.ca_key_file;
    if may_make && !path.exists() {
        let key = KeyPair::generate()?;
        match write_owner_only(path, &key.serialize_pem()) {
            // Another process made it at the same moment.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            outcome => outcome.map_err(|source| AuthorityError::KeyFile { path: path.clone(), source })?,
        }
    }
    let file_error = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => AuthorityError::KeyMissing(path.clone()),
        _ => AuthorityError::KeyFile { path: path.clone(), source },
    };
    if fs::metadata(path).map_err(file_error)?.permissions().mode() & 0o077 != 0 {
        return Err(AuthorityError::KeyExposed(path.clone()));
    }
    fs::read_to_string(path).map_err(file_error)
}

/// Whole or not at all, and on the disk before anything is signed with it.
fn write_owner_only(path: &Path, text: &str) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{:08x}", rand::random::<u32>()));
    let draft = PathBuf::from(draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    // A link fails where a rename would replace a key that another process has just made.
    let placed = written.and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    placed?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}
