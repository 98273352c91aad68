//! Signatures of members of the fleet over what is not said in a session: bundles and their receipts.
//!
//! ECDSA on P-256 with SHA-256 (FIPS 186-5), by the key of enrolment. Whoever checks one sees the signer's certificate
//! first, and takes it only if the fleet's authority has signed it.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring::{default_provider, sign::any_ecdsa_type};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::{Identity, IdentityError, PeerIdentity, validity_unix_s};

const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;

/// Why something was not signed, or a signature does not count.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The key is not of the kind that enrolment makes, or the system gives no randomness.
    #[error("sign with the key of this replica")]
    Sign(#[source] rustls::Error),
    /// The authority of this fleet has not signed the certificate, or not for this time.
    #[error("the certificate is not one of this fleet")]
    Foreign(#[source] rustls::Error),
    /// The certificate cannot be read, or names no member of a fleet.
    #[error("the certificate names no node or bridge")]
    NoName,
    /// The signature is not by the key of the certificate, or not over these bytes.
    #[error("the signature does not fit")]
    Mismatch,
}

impl Identity {
    /// The certificate to show with a signature, in DER (RFC 5280).
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// When its certificate starts to be valid, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Unreadable`] if that is before 1970.
    pub fn valid_from_unix_s(&self) -> Result<u64, IdentityError> {
        validity_unix_s(&self.certificate).map(|validity| validity.start)
    }

    /// Signs `message`: a sequence of two integers in DER (RFC 3279, section 2.2.3).
    ///
    /// # Errors
    ///
    /// [`SignatureError::Sign`].
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let key = any_ecdsa_type(&self.key).map_err(SignatureError::Sign)?;
        let unusable = || SignatureError::Sign(rustls::Error::General("not an ECDSA P-256 key".into()));
        let signer = key.choose_scheme(&[SCHEME]).ok_or_else(unusable)?;
        signer.sign(message).map_err(SignatureError::Sign)
    }

    /// Takes a certificate in DER as that of a member of this fleet, if it was valid at `unix_s`.
    ///
    /// # Errors
    ///
    /// [`SignatureError::Foreign`] or [`SignatureError::NoName`].
    pub fn recognise(&self, certificate: &[u8], unix_s: u64) -> Result<Signatory, SignatureError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).map_err(SignatureError::Foreign)?;
        let foreign = |error: String| SignatureError::Foreign(rustls::Error::General(error));
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
            .build()
            .map_err(|error| foreign(error.to_string()))?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(unix_s));
        let der = CertificateDer::from(certificate);
        verifier.verify_client_cert(&der, &[], at).map_err(SignatureError::Foreign)?;
        Signatory::unchecked(certificate)
    }
}

/// A signer, by the certificate that was shown.
#[derive(Clone, Debug)]
pub struct Signatory {
    named: PeerIdentity,
    public_key: Vec<u8>,
}

impl Signatory {
    /// Believes a certificate in DER whatever authority has signed it.
    ///
    /// # Errors
    ///
    /// [`SignatureError::NoName`] if it cannot be read or names nobody.
    pub fn unchecked(certificate: &[u8]) -> Result<Self, SignatureError> {
        let named =
            PeerIdentity::of_certificate(&CertificateDer::from(certificate)).map_err(|_| SignatureError::NoName)?;
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| SignatureError::NoName)?;
        Ok(Self { named, public_key: parsed.public_key().subject_public_key.data.to_vec() })
    }

    /// Whom the certificate names.
    pub fn named(&self) -> PeerIdentity {
        self.named
    }

    /// Checks that it has signed `message`.
    ///
    /// # Errors
    ///
    /// [`SignatureError::Mismatch`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let algorithms = default_provider().signature_verification_algorithms.mapping;
        let known = algorithms.iter().find(|(scheme, _)| *scheme == SCHEME).and_then(|(_, known)| known.first());
        let algorithm = known.ok_or(SignatureError::Mismatch)?;
        algorithm.verify_signature(&self.public_key, message, signature).map_err(|_| SignatureError::Mismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::{Authority, PeerRole, SigningRequest};
    use super::*;
    use crate::id::NodeId;

    const NOW_S: u64 = 1_800_000_000;
    const DAY_S: u64 = 24 * 60 * 60;

    fn member(authority: &Authority, number: u8) -> Identity {
        let named = PeerIdentity { role: PeerRole::Node, id: NodeId::from_bytes([number; 16]) };
        let request = SigningRequest::make(named).unwrap();
        let certificate = authority.sign(&request.request_pem, named, [number; 16], NOW_S, 365).unwrap();
        Identity::from_pem(&certificate, &request.key_pem, authority.certificate_pem()).unwrap()
    }

    #[test]
    fn a_signature_of_a_member_is_taken_for_what_was_signed_and_nothing_else() {
        let authority = Authority::make("test fleet", NOW_S).unwrap();
        let (one, other) = (member(&authority, 1), member(&authority, 2));
        let signature = one.sign(b"message").unwrap();
        let signatory = other.recognise(one.certificate_der(), NOW_S).unwrap();
        assert_eq!(signatory.named(), one.named());
        signatory.verify(b"message", &signature).unwrap();
        assert!(signatory.verify(b"another", &signature).is_err());
        let signatory = other.recognise(other.certificate_der(), NOW_S).unwrap();
        assert!(signatory.verify(b"message", &signature).is_err());
    }

    #[test]
    fn a_certificate_of_another_fleet_or_another_time_is_not_recognised() {
        let (ours, theirs) = (Authority::make("ours", NOW_S).unwrap(), Authority::make("ours", NOW_S).unwrap());
        let (here, stranger) = (member(&ours, 1), member(&theirs, 2));
        let recognised = |certificate: &[u8], at| here.recognise(certificate, at);
        assert!(matches!(recognised(stranger.certificate_der(), NOW_S), Err(SignatureError::Foreign(_))));
        let member = member(&ours, 3);
        assert!(recognised(member.certificate_der(), NOW_S).is_ok());
        for at in [NOW_S - 2 * DAY_S, NOW_S + 366 * DAY_S] {
            assert!(matches!(recognised(member.certificate_der(), at), Err(SignatureError::Foreign(_))));
        }
    }
}
