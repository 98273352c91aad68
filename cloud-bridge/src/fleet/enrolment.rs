//! Enrolment: a token and a signing request become a certificate, exactly once.
//!
//! The token's row is locked while it is decided, so of many nodes that come with one token a single one gets in. If
//! its answer was lost on the way, it asks again with the same key and gets the same certificate.

use alexandria_sync::id::NodeId;
use alexandria_sync::identity::{IdentityError, is_to_be_renewed};
use uuid::Uuid;

use super::Fleet;
use super::authority::key_fingerprint;
use super::{nodes, token};
use crate::metrics::Refusal;
use crate::postgres::now_unix_ms;

/// Characters in a node's name, at most.
pub const NAME_CHARS_MAX: usize = 200;

/// What a node asks with.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The token, with or without its fingerprint.
    pub token: String,
    /// A signing request (PKCS #10 PEM) made with the node's key.
    pub csr_pem: String,
    /// The id that the node has chosen.
    pub node_id: NodeId,
    /// What people call it.
    pub name: String,
}

/// What a node that is in asks for another certificate with.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    /// A signing request (PKCS #10 PEM) made with the node's key, which it proves to have by that.
    pub csr_pem: String,
    /// Its id.
    pub node_id: NodeId,
}

/// The certificate of a node that is in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Enrolled {
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// The site that the token was made for.
    pub site: String,
}

/// Why a node was not let in.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Get another token. Whether it is unknown, expired or used is nobody's business.
    #[error("the token is not valid")]
    WrongToken,
    /// Enrol with a token. Whether the id is unknown or of another key is nobody's business.
    #[error("no node of this fleet has this id and key: enrol it with a token")]
    NotAMember,
    /// Choose another id.
    #[error("the node id is taken by another key")]
    NodeIdTaken,
    /// The node was revoked; nothing lets it in again under this id.
    #[error("the node was revoked")]
    Revoked,
    /// A node cannot take its own place.
    #[error("the token is for a node that replaces this one: start with a new data folder")]
    ReplacesItself,
    /// Names are shown to people.
    #[error("a node's name has 1 to {NAME_CHARS_MAX} characters")]
    BadName,
    /// Make a proper signing request.
    #[error("the signing request is malformed or not signed by its own key")]
    Malformed(#[from] IdentityError),
    /// Ask again later.
    #[error("PostgreSQL failed")]
    Database(#[from] sqlx::Error),
}

impl EnrolError {
    fn refusal(&self) -> Option<Refusal> {
        Some(match self {
            Self::WrongToken => Refusal::WrongToken,
            Self::NotAMember => Refusal::UnknownNode,
            Self::NodeIdTaken => Refusal::NodeIdTaken,
            Self::Revoked => Refusal::Revoked,
            Self::BadName | Self::ReplacesItself | Self::Malformed(_) => Refusal::Malformed,
            Self::Database(_) => return None,
        })
    }
}

impl Fleet {
    /// Lets a node in.
    ///
    /// # Errors
    ///
    /// [`EnrolError`]; the token is still good then, unless another node has used it.
    pub async fn enrol(&self, request: &Request) -> Result<Enrolled, EnrolError> {
        let outcome = self.decide(request).await;
        self.tell(request.node_id, &outcome);
        outcome
    }

    /// Gives a node that is in another certificate for the same key, once the one that it has is in the last third of its time; the
    /// same one before. Whoever repeats what a node has asked learns what anybody may know.
    ///
    /// # Errors
    ///
    /// [`EnrolError`].
    pub async fn renew(&self, renewal: &Renewal) -> Result<Enrolled, EnrolError> {
        let outcome = self.decide_renewal(renewal).await;
        self.tell(renewal.node_id, &outcome);
        outcome
    }

    fn tell(&self, node: NodeId, outcome: &Result<Enrolled, EnrolError>) {
        match outcome {
            Ok(_) => self.shared.iot_waiting.notify_one(),
            Err(error) => {
                if let Some(reason) = error.refusal() {
                    self.metrics().refused_enrolment(reason);
                }
                tracing::warn!(
                    node.id = %node,
                    error = error as &dyn std::error::Error,
                    "an enrolment was refused"
                );
            }
        }
    }

    async fn decide_renewal(&self, renewal: &Renewal) -> Result<Enrolled, EnrolError> {
        let key_fingerprint = key_fingerprint(&renewal.csr_pem)?;
        let node = Uuid::from_bytes(*renewal.node_id.as_bytes());
        let mut tx = self.pool().begin().await?;
        let known: Option<(Vec<u8>, String, String, bool)> = sqlx::query_as(
            "SELECT key_fingerprint, certificate_pem, site, revoked_at IS NOT NULL FROM node WHERE id = $1 FOR UPDATE",
        )
        .bind(node)
        .fetch_optional(&mut *tx)
        .await?;
        let (certificate_pem, site) = match known {
            Some((_, _, _, true)) => return Err(EnrolError::Revoked),
            Some((key, certificate_pem, site, false)) if key == key_fingerprint => (certificate_pem, site),
            _ => return Err(EnrolError::NotAMember),
        };
        if !is_to_be_renewed(&certificate_pem, now_unix_ms() / 1000)? {
            return Ok(Enrolled { certificate_pem, site });
        }
        let certificate = self.authority().sign(&renewal.csr_pem, renewal.node_id)?;
        sqlx::query(
            "UPDATE node SET certificate_pem = $2, certificate_fingerprint = $3, iot_state = 'register', \
                iot_attempts = 0, iot_next_attempt_at = '-infinity' WHERE id = $1",
        )
        .bind(node)
        .bind(&certificate.pem)
        .bind(certificate.fingerprint.as_slice())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        tracing::info!(node.id = %renewal.node_id, "a node has another certificate");
        Ok(Enrolled { certificate_pem: certificate.pem, site })
    }

    async fn decide(&self, request: &Request) -> Result<Enrolled, EnrolError> {
        let name = request.name.trim();
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.contains('\0') {
            return Err(EnrolError::BadName);
        }
        let key_fingerprint = key_fingerprint(&request.csr_pem)?;
        let node = Uuid::from_bytes(*request.node_id.as_bytes());
        let token_hash = token::hash(&request.token);

        let mut tx = self.pool().begin().await?;
        let token: Option<(String, Option<Uuid>, bool, Option<Uuid>)> = sqlx::query_as(
            "SELECT site, used_by, expires_at < now(), replaces FROM enrolment_token WHERE hash = $1 FOR UPDATE",
        )
        .bind(token_hash.as_slice())
        .fetch_optional(&mut *tx)
        .await?;
        let Some((site, used_by, is_expired, replaces)) = token else { return Err(EnrolError::WrongToken) };
        let known: Option<(Vec<u8>, String, bool)> = sqlx::query_as(
            "SELECT key_fingerprint, certificate_pem, revoked_at IS NOT NULL FROM node WHERE id = $1 FOR UPDATE",
        )
        .bind(node)
        .fetch_optional(&mut *tx)
        .await?;
        match (used_by, known) {
            // A lost answer: the same node with the same key. The token may have expired since.
            (Some(user), Some((key, certificate_pem, false))) if user == node && key == key_fingerprint => {
                return Ok(Enrolled { certificate_pem, site });
            }
            (Some(_), _) => return Err(EnrolError::WrongToken),
            (None, _) if is_expired => return Err(EnrolError::WrongToken),
            (None, Some((_, _, true))) => return Err(EnrolError::Revoked),
            (None, Some((key, _, false))) if key != key_fingerprint => return Err(EnrolError::NodeIdTaken),
            // New, or known with this key: it gets a new certificate.
            (None, _) => {}
        }
        if replaces == Some(node) {
            return Err(EnrolError::ReplacesItself);
        }
        let certificate = self.authority().sign(&request.csr_pem, request.node_id)?;
        let written = sqlx::query(
            "INSERT INTO node (id, name, site, key_fingerprint, certificate_pem, certificate_fingerprint, iot_state, \
                replaces) \
             VALUES ($1, $2, $3, $4, $5, $6, 'register', $7) \
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, site = excluded.site, \
                certificate_pem = excluded.certificate_pem, \
                certificate_fingerprint = excluded.certificate_fingerprint, iot_state = 'register', iot_attempts = 0, \
                iot_next_attempt_at = '-infinity', replaces = coalesce(excluded.replaces, node.replaces), \
                site_handed_over_at = CASE WHEN excluded.replaces IS NULL THEN node.site_handed_over_at END \
                WHERE node.key_fingerprint = excluded.key_fingerprint AND node.revoked_at IS NULL",
        )
        .bind(node)
        .bind(name)
        .bind(&site)
        .bind(key_fingerprint.as_slice())
        .bind(&certificate.pem)
        .bind(certificate.fingerprint.as_slice())
        .bind(replaces)
        .execute(&mut *tx)
        .await?;
        if written.rows_affected() == 0 {
            // Another node took the id with another token, between our look and now.
            return Err(EnrolError::NodeIdTaken);
        }
        if let Some(replaced) = replaces {
            nodes::revoke(&mut *tx, replaced).await?;
        }
        sqlx::query("UPDATE enrolment_token SET used_at = now(), used_by = $2 WHERE hash = $1")
            .bind(token_hash.as_slice())
            .bind(node)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        self.metrics().nodes_enrolled.inc();
        tracing::info!(node.id = %request.node_id, node.name = name, site, "a node was enrolled");
        Ok(Enrolled { certificate_pem: certificate.pem, site })
    }
}
