//! The list of nodes, revocation, and who may open a session.

use std::collections::BTreeMap;

use alexandria_sync::absence::Standing;
use alexandria_sync::hlc::DRIFT_BOUND_MS;
use alexandria_sync::id::NodeId;
use alexandria_sync::identity::validity_unix_s;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::Fleet;
use crate::metrics::Refusal;
use crate::postgres::{now_unix_ms, rfc3339};

/// Nodes in one page of the list, at most.
pub const PAGE_SIZE_MAX: i64 = 1000;

/// A node, as operators see it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// What people call it.
    pub name: String,
    /// The site that its token was made for.
    pub site: String,
    /// When it was enrolled (RFC 3339).
    pub enrolled_at: String,
    /// When it was revoked.
    pub revoked_at: Option<String>,
    /// Until when its certificate is good (RFC 3339); it renews it by itself before that.
    pub certificate_until: Option<String>,
    /// When its last session began.
    pub last_session_at: Option<String>,
    /// As of when it has met whatever the bridge held.
    pub in_step_at: Option<String>,
    /// Until when it may come back as if nothing were.
    pub lease_until: Option<String>,
    /// Whether that has passed: it reads all anew when it comes back.
    pub lapsed: bool,
    /// Where AWS IoT stands: register, registered, revoke, revoked.
    pub iot_state: String,
    /// Why AWS IoT is not there yet.
    pub iot_error: Option<String>,
}

/// A node whose session may begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Admitted {
    /// As of when it is in step if its version cannot say so: its last complete session, or else its enrolment, when it held
    /// nothing.
    pub standing_unless_told: Standing,
    /// Whether it replaces a node whose site is still to be handed over.
    pub is_heir: bool,
}

type Row = (
    Uuid,
    String,
    String,
    String,
    Option<String>,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    bool,
    String,
    Option<String>,
);

impl From<Row> for Node {
    fn from(row: Row) -> Self {
        let (
            id,
            name,
            site,
            enrolled_at,
            revoked_at,
            certificate_pem,
            last_session_at,
            in_step_at,
            lease_until,
            lapsed,
            iot_state,
            iot_error,
        ) = row;
        Self {
            id: NodeId::from_bytes(id.into_bytes()),
            name,
            site,
            enrolled_at,
            revoked_at,
            certificate_until: good_until(&certificate_pem),
            last_session_at,
            in_step_at,
            lease_until,
            lapsed,
            iot_state,
            iot_error,
        }
    }
}

fn good_until(certificate_pem: &str) -> Option<String> {
    let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).ok()?;
    let until_s = i64::try_from(validity_unix_s(&certificate).ok()?.end).ok()?;
    OffsetDateTime::from_unix_timestamp(until_s).ok()?.format(&Rfc3339).ok()
}

/// What is found of a node whose session begins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    is_revoked: bool,
    in_step_ms: i64,
    is_heir: bool,
}

/// What a session brings to be kept of its node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Note {
    /// It cannot say how it stands.
    CannotTell,
    /// It holds nothing of anybody: it is in step.
    Fresh,
    /// As of when it says that it is in step, in milliseconds since 1970.
    Told(i64),
    /// As of when it is so at the end of a session.
    InStep(i64),
}

/// What the notes of one node come to.
#[derive(Clone, Copy, Debug, Default)]
struct Noted {
    tells: Option<bool>,
    told_ms: Option<i64>,
    is_fresh: bool,
    in_step_ms: Option<i64>,
}

impl Fleet {
    /// Nodes by id, after a place.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn nodes(&self, after: Option<NodeId>, limit: i64) -> Result<Vec<Node>, sqlx::Error> {
        let [enrolled, revoked, session, in_step, lease] =
            ["enrolled_at", "revoked_at", "last_session_at", "in_step_at", "in_step_at + make_interval(secs => $3)"]
                .map(rfc3339);
        let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT id, name, site, {enrolled} AS enrolled_at, {revoked} AS revoked_at, certificate_pem, \
                {session} AS last_session_at, {in_step} AS in_step_at, {lease} AS lease_until, \
                coalesce(in_step_at + make_interval(secs => $3) < now(), false) AS lapsed, iot_state, iot_error \
             FROM node WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT $2",
        )))
        .bind(after.map(uuid))
        .bind(limit.clamp(1, PAGE_SIZE_MAX))
        .bind(self.lease().as_secs_f64())
        .fetch_all(self.pool())
        .await?;
        Ok(rows.into_iter().map(Node::from).collect())
    }

    /// Shuts a node out, for good. `false` if there is no such node. Revoking twice is fine.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn revoke(&self, node: NodeId) -> Result<bool, sqlx::Error> {
        let revoked = revoke(self.pool(), uuid(node)).await?;
        self.shared.iot_waiting.notify_one();
        if revoked {
            tracing::info!(node.id = %node, "a node was revoked");
        }
        Ok(revoked)
    }

    /// Whether a session with this node, whose certificate the fleet's authority has signed, may begin. The session's
    /// start is noted.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away: then nobody is let in.
    pub async fn admit(&self, node: NodeId) -> Result<Result<Admitted, Refusal>, sqlx::Error> {
        let found = self.shared.admitting.ask(uuid(node), |nodes| self.find(nodes)).await?;
        Ok(verdict(found.map(|found| found.is_revoked)).map(|()| {
            let Found { in_step_ms, is_heir, .. } = found.unwrap_or_default();
            let standing = Standing { in_step_ms: in_step_ms as u64, ..Standing::default() };
            Admitted { standing_unless_told: standing, is_heir }
        }))
    }

    /// Finds nodes whose sessions begin, and notes that they do.
    async fn find(&self, nodes: Vec<Uuid>) -> Result<Vec<Option<Found>>, sqlx::Error> {
        // Locked in the order of their ids: other processes do the same.
        let found: Vec<(Uuid, bool, i64, bool)> = sqlx::query_as(
            "WITH due AS (SELECT id FROM node WHERE id = ANY ($1) ORDER BY id FOR UPDATE) \
             UPDATE node SET last_session_at = CASE WHEN revoked_at IS NULL THEN now() ELSE last_session_at END \
             FROM due WHERE node.id = due.id RETURNING node.id, revoked_at IS NOT NULL, \
                (extract(epoch FROM coalesce(in_step_at, enrolled_at)) * 1000)::bigint, \
                replaces IS NOT NULL AND site_handed_over_at IS NULL",
        )
        .bind(&nodes)
        .fetch_all(self.pool())
        .await?;
        let found = found
            .into_iter()
            .map(|(id, is_revoked, in_step_ms, is_heir)| (id, Found { is_revoked, in_step_ms, is_heir }));
        let found: BTreeMap<Uuid, Found> = found.collect();
        Ok(nodes.iter().map(|node| found.get(node).copied()).collect())
    }

    /// Whether this node may give and get what a session would bring. Unlike [`Self::admit`], nothing is noted.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn may_take_part(&self, node: NodeId) -> Result<Result<(), Refusal>, sqlx::Error> {
        let is_revoked: Option<bool> = sqlx::query_scalar("SELECT revoked_at IS NOT NULL FROM node WHERE id = $1")
            .bind(uuid(node))
            .fetch_optional(self.pool())
            .await?;
        Ok(verdict(is_revoked))
    }

    /// Keeps what a node says of how it stands, or that it says nothing. Nothing is kept of what cannot be.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn note_standing(&self, node: NodeId, told: Option<Standing>) -> Result<(), sqlx::Error> {
        let note = match told {
            None => Note::CannotTell,
            Some(standing) if standing.in_step_ms == Standing::FRESH.in_step_ms => Note::Fresh,
            Some(standing) => match past_ms(node, standing) {
                None => return Ok(()),
                Some(in_step_ms) => Note::Told(in_step_ms),
            },
        };
        self.shared.noting.ask((uuid(node), note), |notes| self.note(notes)).await
    }

    /// Keeps what a node has said of how it stood in what came by stick, perhaps long after: what was known before may be newer.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn note_heard(&self, node: NodeId, told: Option<Standing>) -> Result<(), sqlx::Error> {
        let Some(standing) = told else { return Ok(()) };
        let in_step_ms = if standing.in_step_ms == Standing::FRESH.in_step_ms {
            // Of one that holds nothing of anybody it says no time.
            None
        } else {
            let Some(in_step_ms) = past_ms(node, standing) else { return Ok(()) };
            Some(in_step_ms)
        };
        sqlx::query(
            "UPDATE node SET tells_standing = true, in_step_at = greatest(in_step_at, to_timestamp($2::bigint / 1000.0)) \
             WHERE id = $1",
        )
        .bind(uuid(node))
        .bind(in_step_ms)
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Notes that a session has come to its end in which a node has met whatever was here at a time, in milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn note_in_step(&self, node: NodeId, in_step_ms: u64) -> Result<(), sqlx::Error> {
        let note = Note::InStep(in_step_ms as i64);
        self.shared.noting.ask((uuid(node), note), |notes| self.note(notes)).await
    }

    /// Writes notes, of one node in their order.
    async fn note(&self, notes: Vec<(Uuid, Note)>) -> Result<Vec<()>, sqlx::Error> {
        let answers = vec![(); notes.len()];
        let mut noted: BTreeMap<Uuid, Noted> = BTreeMap::new();
        for (node, note) in notes {
            let noted = noted.entry(node).or_default();
            match note {
                Note::CannotTell => noted.tells = Some(false),
                Note::Fresh => *noted = Noted { tells: Some(true), is_fresh: true, ..Noted::default() },
                Note::Told(told_ms) => *noted = Noted { tells: Some(true), told_ms: Some(told_ms), ..Noted::default() },
                Note::InStep(in_step_ms) => noted.in_step_ms = noted.in_step_ms.max(Some(in_step_ms)),
            }
        }
        let (nodes, noted): (Vec<Uuid>, Vec<Noted>) = noted.into_iter().unzip();
        sqlx::query(
            "WITH noted AS (SELECT * FROM unnest($1::uuid[], $2::boolean[], $3::bigint[], $4::boolean[], $5::bigint[]) \
                AS noted (id, tells, told_ms, is_fresh, in_step_ms)), \
             due AS (SELECT id FROM node WHERE id = ANY ($1) ORDER BY id FOR UPDATE) \
             UPDATE node SET tells_standing = coalesce(noted.tells, tells_standing), \
                in_step_at = greatest(CASE WHEN noted.is_fresh THEN now() \
                    ELSE coalesce(to_timestamp(noted.told_ms / 1000.0), in_step_at) END, to_timestamp(noted.in_step_ms / 1000.0)) \
             FROM noted JOIN due ON due.id = noted.id WHERE node.id = noted.id",
        )
        .bind(nodes)
        .bind(noted.iter().map(|noted| noted.tells).collect::<Vec<_>>())
        .bind(noted.iter().map(|noted| noted.told_ms).collect::<Vec<_>>())
        .bind(noted.iter().map(|noted| noted.is_fresh).collect::<Vec<_>>())
        .bind(noted.iter().map(|noted| noted.in_step_ms).collect::<Vec<_>>())
        .execute(self.pool())
        .await?;
        Ok(answers)
    }

    /// The node that this one replaces, if its site is still to be handed over.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn to_be_handed_over(&self, node: NodeId) -> Result<Option<NodeId>, sqlx::Error> {
        let replaced: Option<Option<Uuid>> =
            sqlx::query_scalar("SELECT replaces FROM node WHERE id = $1 AND site_handed_over_at IS NULL")
                .bind(uuid(node))
                .fetch_optional(self.pool())
                .await?;
        Ok(replaced.flatten().map(|replaced| NodeId::from_bytes(replaced.into_bytes())))
    }

    /// Notes that all of the site of the node that this one replaces is its own now. Not while a session of that node may
    /// still be running somewhere: then it is looked at again in the next session.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn note_handed_over(&self, node: NodeId) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE node SET site_handed_over_at = now() FROM node AS replaced \
             WHERE node.id = $1 AND replaced.id = node.replaces AND replaced.revoked_at < now() - interval '1 minute'",
        )
        .bind(uuid(node))
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Of these nodes, those that were revoked: their running sessions are to end.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn revoked_among(&self, nodes: &[NodeId]) -> Result<Vec<NodeId>, sqlx::Error> {
        let ids: Vec<Uuid> = nodes.iter().map(|&node| uuid(node)).collect();
        let revoked: Vec<Uuid> =
            sqlx::query_scalar("SELECT id FROM node WHERE id = ANY ($1) AND revoked_at IS NOT NULL")
                .bind(ids)
                .fetch_all(self.pool())
                .await?;
        Ok(revoked.into_iter().map(|id| NodeId::from_bytes(id.into_bytes())).collect())
    }
}

/// As of when a node says that it is in step, if that can be: nobody has met what the bridge will hold. It is looked at here, not in
/// PostgreSQL, where one statement writes down what many say.
fn past_ms(node: NodeId, told: Standing) -> Option<i64> {
    let now_ms = now_unix_ms();
    if told.in_step_ms > now_ms.saturating_add(DRIFT_BOUND_MS) {
        let in_step_ms = told.in_step_ms;
        tracing::warn!(node.id = %node, in_step_ms, now_ms, "a node says that it is in step with what is to come; that is not noted");
        return None;
    }
    i64::try_from(told.in_step_ms).ok()
}

/// Whether a node takes part: revoked or not, or `None` if there is no such node.
fn verdict(is_revoked: Option<bool>) -> Result<(), Refusal> {
    match is_revoked {
        None => Err(Refusal::UnknownNode),
        Some(true) => Err(Refusal::Revoked),
        Some(false) => Ok(()),
    }
}

/// Shuts a node out; `false` if there is none.
pub(super) async fn revoke(database: impl sqlx::PgExecutor<'_>, node: Uuid) -> Result<bool, sqlx::Error> {
    let revoked = sqlx::query(
        "UPDATE node SET revoked_at = coalesce(revoked_at, now()), iot_attempts = 0, \
            iot_next_attempt_at = '-infinity', \
            iot_state = CASE WHEN iot_state = 'revoked' THEN iot_state ELSE 'revoke' END WHERE id = $1",
    )
    .bind(node)
    .execute(database)
    .await?;
    Ok(revoked.rows_affected() > 0)
}

fn uuid(node: NodeId) -> Uuid {
    Uuid::from_bytes(*node.as_bytes())
}
