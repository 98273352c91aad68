//! AWS IoT, brought in line with the database: a thing and an active certificate for each node, inactive once revoked.
//!
//! What is to be told stands in the node's row, so it survives every restart and outage. Each step may be done twice:
//! creating a thing that is there, registering a certificate that is registered, attaching what is attached. A thing is
//! named after the node's id; a certificate's id in AWS IoT is the SHA-256 of its DER form.
//!
//! Who tells AWS IoT claims the node's row for a while and does not lock it: AWS may take its time, and the node connects
//! meanwhile. Until the claim is given up or runs out nobody else tells of this node, so that a revocation that comes during
//! a registration is told after it, whatever process dies.

use std::time::Duration;

use aws_sdk_iot::Client;
use aws_sdk_iot::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_iot::operation::register_certificate_without_ca::RegisterCertificateWithoutCAError;
use aws_sdk_iot::types::{AttributePayload, CertificateStatus};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Fleet;
use crate::metrics::Metrics;
use crate::postgres::STATEMENT_PATIENCE;

/// How often the database is looked at for what another process left to be told.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// The wait after the first failure, in seconds; it doubles up to the maximum.
const BACKOFF_FIRST_S: f64 = 2.0;
const BACKOFF_MAX_S: f64 = 300.0;
/// How long all that AWS IoT is told of a node may take.
const TELLING_MAX: Duration = Duration::from_mins(2);
/// How long that takes with what is read and noted, unless PostgreSQL is gone without a word.
const ROUND_MAX: Duration = TELLING_MAX.saturating_add(STATEMENT_PATIENCE.saturating_mul(2));
/// How long nobody else tells of it, unless who does is done before. Longer than that takes, by what may still be on its way.
const CLAIM: Duration = Duration::from_mins(3);
/// Characters of an error that the operator is shown, at most.
const ERROR_CHARS_MAX: usize = 500;
/// Pages of certificates of one thing that are looked at, at most: a node has a few in its life.
const PRINCIPAL_PAGES_MAX: usize = 20;
/// AWS IoT takes attribute values of letters, digits and a few signs, and so many of them.
const ATTRIBUTE_CHARS_MAX: usize = 800;

/// The `[iot]` section.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether nodes are registered in AWS IoT.
    pub enabled: bool,
}

/// Why AWS IoT is not where it should be yet.
#[derive(Debug, thiserror::Error)]
#[error("AWS IoT {operation}: {reason}")]
pub struct IotError {
    operation: &'static str,
    reason: String,
}

impl IotError {
    fn new<E, R>(operation: &'static str, error: SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        Self { operation, reason: DisplayErrorContext(error).to_string() }
    }
}

/// Tells AWS IoT about the fleet.
#[derive(Clone)]
pub struct Reconciler {
    fleet: Fleet,
    client: Client,
    metrics: Metrics,
}

/// Id, name, site, certificate, its fingerprint, what is to be told, failed attempts, until when it is claimed.
type DueRow = (Uuid, String, String, String, Vec<u8>, String, i32, String);

struct Due {
    node: Uuid,
    name: String,
    site: String,
    certificate_pem: String,
    certificate_fingerprint: Vec<u8>,
    state: String,
    attempts: i32,
    /// Until when the node is claimed, as PostgreSQL writes it.
    claim: String,
}

impl Due {
    fn is_revoked(&self) -> bool {
        self.state == "revoke"
    }

    fn certificate_id(&self) -> String {
        hex::encode(&self.certificate_fingerprint)
    }
}

impl Reconciler {
    /// A reconciler for one account and region.
    pub fn new(fleet: Fleet, client: Client, metrics: Metrics) -> Self {
        Self { fleet, client, metrics }
    }

    /// Reconciles until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match tokio::time::timeout(ROUND_MAX, self.reconcile_one()).await {
                Ok(Ok(true)) => continue,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the fleet cannot be read");
                }
                Err(_) => tracing::warn!("the fleet could not be read in time"),
            }
            tokio::select! {
                () = self.fleet.shared.iot_waiting.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Tells AWS IoT about one node that is due; `false` if none is.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away. That AWS IoT is away is noted in the node's row, and tried again later.
    pub async fn reconcile_one(&self) -> Result<bool, sqlx::Error> {
        let row: Option<DueRow> = sqlx::query_as(
            "UPDATE node SET iot_claimed_until = now() + make_interval(secs => $1) WHERE id = ( \
                SELECT id FROM node WHERE iot_state IN ('register', 'revoke') AND iot_next_attempt_at <= now() \
                    AND iot_claimed_until <= now() \
                ORDER BY iot_next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED) \
             RETURNING id, name, site, certificate_pem, certificate_fingerprint, iot_state, iot_attempts, \
                iot_claimed_until::text",
        )
        .bind(CLAIM.as_secs_f64())
        .fetch_optional(self.fleet.pool())
        .await?;
        let Some((node, name, site, certificate_pem, certificate_fingerprint, state, attempts, claim)) = row else {
            return Ok(false);
        };
        let due = Due { node, name, site, certificate_pem, certificate_fingerprint, state, attempts, claim };
        let telling = async { if due.is_revoked() { self.deactivate(&due).await } else { self.register(&due).await } };
        let told = tokio::time::timeout(TELLING_MAX, telling).await;
        self.note(
            &due,
            told.unwrap_or_else(|_| Err(IotError { operation: "calls", reason: "did not end in time".into() })),
        )
        .await?;
        Ok(true)
    }

    /// Gives the claim up, and notes what came of it unless the node is to be told of anew.
    async fn note(&self, due: &Due, told: Result<(), IotError>) -> Result<(), sqlx::Error> {
        let (state, attempts, error, wait_s) = match told {
            Ok(()) => (if due.is_revoked() { "revoked" } else { "registered" }, 0, None, 0.0),
            Err(error) => {
                self.metrics.iot_failed.inc();
                if due.attempts == 0 {
                    tracing::warn!(node.id = %due.node, %error, "AWS IoT was not told; it will be");
                }
                let wait_s = (BACKOFF_FIRST_S * 2f64.powi(due.attempts.clamp(0, 20))).min(BACKOFF_MAX_S);
                let wait_s = wait_s * (0.5 + rand::random::<f64>() / 2.0);
                let error: String = error.to_string().chars().take(ERROR_CHARS_MAX).collect();
                (due.state.as_str(), due.attempts.saturating_add(1), Some(error), wait_s)
            }
        };
        let mut tx = self.fleet.pool().begin().await?;
        sqlx::query(
            "UPDATE node SET iot_state = $4, iot_attempts = $5, iot_error = $6, \
                iot_next_attempt_at = now() + make_interval(secs => $7) \
             WHERE id = $1 AND iot_claimed_until = $2::timestamptz AND iot_state = $3 AND certificate_fingerprint = $8",
        )
        .bind(due.node)
        .bind(&due.claim)
        .bind(&due.state)
        .bind(state)
        .bind(attempts)
        .bind(error)
        .bind(wait_s)
        .bind(&due.certificate_fingerprint)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "UPDATE node SET iot_claimed_until = '-infinity' WHERE id = $1 AND iot_claimed_until = $2::timestamptz",
        )
        .bind(due.node)
        .bind(&due.claim)
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }

    async fn register(&self, due: &Due) -> Result<(), IotError> {
        let thing = due.node.to_string();
        let mut attributes = AttributePayload::builder();
        for (key, value) in [("name", &due.name), ("site", &due.site)] {
            let value = attribute(value);
            if !value.is_empty() {
                attributes = attributes.attributes(key, value);
            }
        }
        let created = self.client.create_thing().thing_name(&thing).attribute_payload(attributes.build()).send().await;
        match created {
            // Named after the node, so it is this node's; its attributes may be older.
            Err(error) if error.code() == Some("ResourceAlreadyExistsException") => {}
            outcome => {
                outcome.map_err(|error| IotError::new("create thing", error))?;
            }
        }
        let arn = self.certificate_arn(due).await?;
        let attached = self.client.attach_thing_principal().thing_name(&thing).principal(&arn).send().await;
        attached.map_err(|error| IotError::new("attach certificate", error))?;
        // Those that it was enrolled with before.
        for certificate in self.certificates_of(&thing).await?.into_iter().filter(|id| *id != due.certificate_id()) {
            self.deactivate_certificate(&certificate).await?;
        }
        Ok(())
    }

    /// The ids of the certificates that a thing has; none if there is no such thing.
    async fn certificates_of(&self, thing: &str) -> Result<Vec<String>, IotError> {
        let (mut ids, mut next) = (Vec::new(), None);
        for _ in 0..PRINCIPAL_PAGES_MAX {
            let call = self.client.list_thing_principals().thing_name(thing).set_next_token(next.take());
            let page = match call.send().await {
                Err(error) if error.code() == Some("ResourceNotFoundException") => break,
                answer => answer.map_err(|error| IotError::new("list certificates", error))?,
            };
            // A principal may be something else than a certificate: an identity of Cognito.
            let certificates = page.principals().iter().filter_map(|arn| arn.rsplit_once(":cert/"));
            ids.extend(certificates.map(|(_, id)| id.to_owned()));
            next = page.next_token().map(str::to_owned);
            if next.is_none() {
                break;
            }
        }
        Ok(ids)
    }

    /// Registers the certificate, or finds it registered.
    async fn certificate_arn(&self, due: &Due) -> Result<String, IotError> {
        let call = self.client.register_certificate_without_ca().certificate_pem(&due.certificate_pem);
        let missing = |operation| IotError { operation, reason: "the answer names no certificate".into() };
        match call.status(CertificateStatus::Active).send().await {
            Ok(answer) => answer.certificate_arn().map(str::to_owned).ok_or_else(|| missing("register certificate")),
            Err(error) => {
                let is_registered = matches!(
                    error.as_service_error(),
                    Some(RegisterCertificateWithoutCAError::ResourceAlreadyExistsException(_))
                );
                if !is_registered {
                    return Err(IotError::new("register certificate", error));
                }
                let found = self.client.describe_certificate().certificate_id(due.certificate_id()).send().await;
                let found = found.map_err(|error| IotError::new("describe certificate", error))?;
                let arn = found.certificate_description().and_then(|found| found.certificate_arn());
                arn.map(str::to_owned).ok_or_else(|| missing("describe certificate"))
            }
        }
    }

    async fn deactivate(&self, due: &Due) -> Result<(), IotError> {
        let mut certificates = self.certificates_of(&due.node.to_string()).await?;
        certificates.push(due.certificate_id());
        certificates.sort_unstable();
        certificates.dedup();
        for certificate in certificates {
            self.deactivate_certificate(&certificate).await?;
        }
        Ok(())
    }

    async fn deactivate_certificate(&self, id: &str) -> Result<(), IotError> {
        let call = self.client.update_certificate().certificate_id(id);
        match call.new_status(CertificateStatus::Inactive).send().await {
            // Never registered: nothing can connect with it.
            Err(error) if error.code() == Some("ResourceNotFoundException") => Ok(()),
            outcome => outcome.map(|_| ()).map_err(|error| IotError::new("deactivate certificate", error)),
        }
    }
}

/// A text as a thing's attribute may hold it.
fn attribute(text: &str) -> String {
    let fits = |character: char| character.is_ascii_alphanumeric() || "_.,@/:#-".contains(character);
    text.chars().take(ATTRIBUTE_CHARS_MAX).map(|character| if fits(character) { character } else { '_' }).collect()
}
