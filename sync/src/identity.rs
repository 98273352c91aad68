//! Keys, signing requests and certificates, and which replica a certificate names.
//!
//! A certificate of the fleet names its holder in a URI: `alexandria:node/UUID` or `alexandria:bridge/UUID` (subject
//! alternative name, RFC 5280 section 4.2.1.6). A node makes its key itself and sends only a signing request (PKCS#10,
//! RFC 2986); the authority decides what the certificate says, whatever the request asked for.

use std::ops::Range;
use std::str::FromStr;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::id::NodeId;

/// The name that every bridge certificate carries beside its URI, and that nodes ask for: they trust the fleet's
/// authority, not the name service.
pub const BRIDGE_SERVER_NAME: &str = "bridge.alexandria.internal";

/// What a certificate's holder is in the fleet.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PeerRole {
    /// A node at a site.
    Node,
    /// The cloud bridge.
    Bridge,
}

/// Whom a certificate names.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PeerIdentity {
    /// What it is.
    pub role: PeerRole,
    /// Which one.
    pub id: NodeId,
}

impl PeerIdentity {
    fn to_uri(self) -> String {
        match self.role {
            PeerRole::Node => format!("alexandria:node/{}", self.id),
            PeerRole::Bridge => format!("alexandria:bridge/{}", self.id),
        }
    }

    fn from_uri(uri: &str) -> Option<Self> {
        let (role, id) = uri.strip_prefix("alexandria:")?.split_once('/')?;
        let role = match role {
            "node" => PeerRole::Node,
            "bridge" => PeerRole::Bridge,
            _ => return None,
        };
        Some(Self { role, id: NodeId::from_str(id).ok()? })
    }

    /// Whom `certificate` names. Its signature is not checked here.
    ///
    /// # Errors
    ///
    /// [`IdentityError::NoName`] if it names nobody, or more than one.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| IdentityError::Unreadable)?;
        let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Unreadable)?;
        let mut found = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => Self::from_uri(uri),
            _ => None,
        });
        match (found.next(), found.next()) {
            (Some(identity), None) => Ok(identity),
            _ => Err(IdentityError::NoName),
        }
    }
}

/// What can be wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not PEM, or not a key or certificate of a kind that is used here.
    #[error("not a readable key, certificate or signing request")]
    Unreadable,
    /// A certificate that names no member of the fleet.
    #[error("the certificate names no node or bridge")]
    NoName,
    /// A member of the fleet, but not the one that was expected, or not one that may take this part.
    #[error("the certificate names another member of the fleet than the one expected here")]
    Unexpected,
    /// A key that is not that of the certificate.
    #[error("the certificate is not for this key")]
    WrongKey,
    /// The signing request is not signed by its own key, or asks for an algorithm that is not supported.
    #[error("the signing request is not valid")]
    BadRequest(#[source] rcgen::Error),
    /// Making a key or signing with it failed.
    #[error("could not make or sign with a key")]
    Crypto(#[source] rcgen::Error),
}

/// A replica's key and the certificate that the fleet's authority gave it.
#[derive(Debug)]
pub struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) authority: CertificateDer<'static>,
    named: PeerIdentity,
}

impl Identity {
    /// Puts together what enrolment gave: PEM texts of the certificate, its key and the authority's certificate.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if one cannot be read, the key does not fit, or the certificate names nobody.
    pub fn from_pem(certificate_pem: &str, key_pem: &str, authority_pem: &str) -> Result<Self, IdentityError> {
        let certificate = read_certificate(certificate_pem)?;
        let authority = read_certificate(authority_pem)?;
        let key_pair = KeyPair::from_pem(key_pem).map_err(|_| IdentityError::Unreadable)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| IdentityError::Unreadable)?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| IdentityError::Unreadable)?;
        if parsed.public_key().raw != key_pair.subject_public_key_info() {
            return Err(IdentityError::WrongKey);
        }
        let named = PeerIdentity::of_certificate(&certificate)?;
        Ok(Self { certificate, key, authority, named })
    }

    /// Whom the certificate names.
    pub fn named(&self) -> PeerIdentity {
        self.named
    }

    /// Tells the fleet from others to whoever belongs to it, and nothing to anybody else.
    pub fn fleet_tag(&self) -> [u8; 8] {
        let hash = blake3::derive_key("alexandria 2026 fleet tag", &self.authority);
        *hash.first_chunk().expect("a hash has more than eight bytes")
    }
}

/// A new key, and the request to sign it.
pub struct SigningRequest {
    /// The private key, PKCS#8 in PEM. It never leaves the replica.
    pub key_pem: String,
    /// The request, PKCS#10 in PEM.
    pub request_pem: String,
}

impl SigningRequest {
    /// Makes an ECDSA P-256 key and its request for `identity`.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Crypto`] if the system gives no randomness.
    pub fn make(identity: PeerIdentity) -> Result<Self, IdentityError> {
        let key = KeyPair::generate().map_err(IdentityError::Crypto)?;
        Self::for_key(identity, &key)
    }

    /// The request for a key that was made before.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if the key cannot be read.
    pub fn again(identity: PeerIdentity, key_pem: &str) -> Result<Self, IdentityError> {
        let key = KeyPair::from_pem(key_pem).map_err(|_| IdentityError::Unreadable)?;
        Self::for_key(identity, &key)
    }

    fn for_key(identity: PeerIdentity, key: &KeyPair) -> Result<Self, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&identity.id.to_string());
        let request = params.serialize_request(key).map_err(IdentityError::Crypto)?;
        let request_pem = request.pem().map_err(IdentityError::Crypto)?;
        Ok(Self { key_pem: key.serialize_pem(), request_pem })
    }
}

/// The fleet's certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    key_pem: String,
}

impl Authority {
    /// How long the authority's own certificate is valid, in days.
    pub const VALIDITY_DAYS: u64 = 20 * 365;

    /// Makes a new authority, valid from `now_unix_s`.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Crypto`] if the system gives no randomness.
    pub fn make(fleet_name: &str, now_unix_s: u64) -> Result<Self, IdentityError> {
        let key = KeyPair::generate().map_err(IdentityError::Crypto)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(fleet_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        set_validity(&mut params, now_unix_s, Self::VALIDITY_DAYS);
        let certificate = params.self_signed(&key).map_err(IdentityError::Crypto)?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// Reads an authority that was made before.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if either PEM text cannot be read.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, IdentityError> {
        let key = KeyPair::from_pem(key_pem).map_err(|_| IdentityError::Unreadable)?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key).map_err(|_| IdentityError::Unreadable)?;
        Ok(Self { issuer, certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned() })
    }

    /// Its certificate, in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its private key, in PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Its private key in one form, however the PEM text was laid out.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Unreadable`] if it is no key.
    pub fn key_der(&self) -> Result<Vec<u8>, IdentityError> {
        Ok(KeyPair::from_pem(&self.key_pem).map_err(|_| IdentityError::Unreadable)?.serialize_der())
    }

    /// Signs a request. Only its key is taken over; the certificate says what `identity` says.
    ///
    /// # Errors
    ///
    /// [`IdentityError::BadRequest`] if the request is not signed by the key that it carries.
    pub fn sign(
        &self,
        request_pem: &str,
        identity: PeerIdentity,
        serial: [u8; 16],
        now_unix_s: u64,
        validity_days: u64,
    ) -> Result<String, IdentityError> {
        let mut request = CertificateSigningRequestParams::from_pem(request_pem).map_err(IdentityError::BadRequest)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&identity.id.to_string());
        let uri = identity.to_uri().try_into().map_err(IdentityError::Crypto)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if identity.role == PeerRole::Bridge {
            let name = BRIDGE_SERVER_NAME.try_into().map_err(IdentityError::Crypto)?;
            params.subject_alt_names.push(SanType::DnsName(name));
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        set_validity(&mut params, now_unix_s, validity_days);
        request.params = params;
        let certificate = request.signed_by(&self.issuer).map_err(IdentityError::Crypto)?;
        Ok(certificate.pem())
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Valid from a day before `now_unix_s`, for clocks that are a little behind.
fn set_validity(params: &mut CertificateParams, now_unix_s: u64, days: u64) {
    const DAY_S: u64 = 24 * 60 * 60;
    let at = |unix_s: u64| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(unix_s);
    params.not_before = at(now_unix_s.saturating_sub(DAY_S));
    params.not_after = at(now_unix_s.saturating_add(days * DAY_S));
}

/// From when until when the certificate is valid, in seconds since 1970.
///
/// # Errors
///
/// [`IdentityError::Unreadable`] if it is no certificate, or starts before 1970.
pub fn validity_unix_s(certificate: &CertificateDer<'_>) -> Result<Range<u64>, IdentityError> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| IdentityError::Unreadable)?;
    let validity = certificate.validity();
    let [from, until] = [validity.not_before, validity.not_after].map(|time| u64::try_from(time.timestamp()));
    Ok(from.map_err(|_| IdentityError::Unreadable)?..until.map_err(|_| IdentityError::Unreadable)?)
}

/// Whether a certificate (PEM) is to be renewed: less than a third of its time is left.
///
/// # Errors
///
/// [`IdentityError::Unreadable`] if it is no certificate.
pub fn is_to_be_renewed(certificate_pem: &str, now_unix_s: u64) -> Result<bool, IdentityError> {
    let validity = validity_unix_s(&read_certificate(certificate_pem)?)?;
    Ok(validity.end.saturating_sub(now_unix_s) < validity.end.saturating_sub(validity.start) / 3)
}

fn read_certificate(pem: &str) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| IdentityError::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    #[test]
    fn a_signed_certificate_names_whom_the_authority_says_and_fits_only_its_key() {
        let authority = Authority::make("test fleet", NOW_S).unwrap();
        let identity = PeerIdentity { role: PeerRole::Node, id: NodeId::from_bytes([1; 16]) };
        let asked = PeerIdentity { role: PeerRole::Bridge, id: NodeId::from_bytes([2; 16]) };
        let request = SigningRequest::make(asked).unwrap();
        let certificate = authority.sign(&request.request_pem, identity, [7; 16], NOW_S, 365).unwrap();
        let held = Identity::from_pem(&certificate, &request.key_pem, authority.certificate_pem()).unwrap();
        assert_eq!(held.named(), identity);

        let other = SigningRequest::make(identity).unwrap();
        let error = Identity::from_pem(&certificate, &other.key_pem, authority.certificate_pem()).unwrap_err();
        assert!(matches!(error, IdentityError::WrongKey));
    }

    #[test]
    fn a_certificate_is_to_be_renewed_in_the_last_third_of_its_time_and_after_it() {
        const DAY_S: u64 = 24 * 3600;
        let authority = Authority::make("test fleet", NOW_S).unwrap();
        let identity = PeerIdentity { role: PeerRole::Node, id: NodeId::from_bytes([1; 16]) };
        let request = SigningRequest::make(identity).unwrap();
        let certificate = authority.sign(&request.request_pem, identity, [7; 16], NOW_S, 300).unwrap();
        for (days, due) in [(0, false), (190, false), (210, true), (299, true), (400, true)] {
            assert_eq!(is_to_be_renewed(&certificate, NOW_S + days * DAY_S).unwrap(), due, "after {days} days");
        }
        assert!(is_to_be_renewed("no certificate", NOW_S).is_err());
    }

    #[test]
    fn a_request_that_was_tampered_with_is_not_signed() {
        let identity = PeerIdentity { role: PeerRole::Node, id: NodeId::from_bytes([1; 16]) };
        let request = SigningRequest::make(identity).unwrap().request_pem;
        let mut der =
            rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(request.as_bytes()).unwrap().to_vec();
        let middle = der.len() / 3;
        der[middle] ^= 1;
        let tampered = CertificateSigningRequestParams::from_der(&der.into());
        assert!(tampered.is_err());
    }
}
