//! The list of nodes, revocation, and who may open a session.

use alexandria_sync::absence::Standing;
use alexandria_sync::id::NodeId;
use uuid::Uuid;

use super::Fleet;
use crate::metrics::Refusal;

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
            last_session_at,
            in_step_at,
            lease_until,
            lapsed,
            iot_state,
            iot_error,
        }
    }
}

/// A time in a row, as RFC 3339.
fn rfc3339(column: &str) -> String {
    format!("to_char(({column}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
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
            "SELECT id, name, site, {enrolled} AS enrolled_at, {revoked} AS revoked_at, {session} AS last_session_at, \
                {in_step} AS in_step_at, {lease} AS lease_until, \
                coalesce(in_step_at + make_interval(secs => $3) < now(), false) AS lapsed, iot_state, iot_error \
             FROM node WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT $2",
        )))
        .bind(after.map(|node| Uuid::from_bytes(*node.as_bytes())))
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
        let revoked = revoke(self.pool(), Uuid::from_bytes(*node.as_bytes())).await?;
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
        let found: Option<(bool, i64, bool)> = sqlx::query_as(
            "UPDATE node SET last_session_at = CASE WHEN revoked_at IS NULL THEN now() ELSE last_session_at END \
             WHERE id = $1 RETURNING revoked_at IS NOT NULL, \
                (extract(epoch FROM coalesce(in_step_at, enrolled_at)) * 1000)::bigint, \
                replaces IS NOT NULL AND site_handed_over_at IS NULL",
        )
        .bind(Uuid::from_bytes(*node.as_bytes()))
        .fetch_optional(self.pool())
        .await?;
        Ok(verdict(found.map(|(is_revoked, ..)| is_revoked)).map(|()| {
            let (_, in_step_ms, is_heir) = found.unwrap_or_default();
            let standing = Standing { in_step_ms: in_step_ms as u64, ..Standing::default() };
            Admitted { standing_unless_told: standing, is_heir }
        }))
    }

    /// Whether this node may give and get what a session would bring. Unlike [`Self::admit`], nothing is noted.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn may_take_part(&self, node: NodeId) -> Result<Result<(), Refusal>, sqlx::Error> {
        let is_revoked: Option<bool> = sqlx::query_scalar("SELECT revoked_at IS NOT NULL FROM node WHERE id = $1")
            .bind(Uuid::from_bytes(*node.as_bytes()))
            .fetch_optional(self.pool())
            .await?;
        Ok(verdict(is_revoked))
    }

    /// Keeps what a node says of how it stands, or that it says nothing.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn note_standing(&self, node: NodeId, told: Option<Standing>) -> Result<(), sqlx::Error> {
        // One that holds nothing of anybody is in step.
        let in_step_ms = told.map(|standing| i64::try_from(standing.in_step_ms).ok());
        sqlx::query(
            "UPDATE node SET tells_standing = $2, in_step_at = CASE WHEN NOT $2 THEN in_step_at \
                WHEN $3::bigint IS NULL THEN now() ELSE to_timestamp($3::bigint / 1000.0) END WHERE id = $1",
        )
        .bind(Uuid::from_bytes(*node.as_bytes()))
        .bind(told.is_some())
        .bind(in_step_ms.flatten())
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Keeps what a node has said of how it stood in what came by stick, perhaps long after: what was known before may be newer.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn note_heard(&self, node: NodeId, told: Option<Standing>) -> Result<(), sqlx::Error> {
        let Some(standing) = told else { return Ok(()) };
        // Of one that holds nothing of anybody it says no time.
        let in_step_ms = i64::try_from(standing.in_step_ms).ok();
        sqlx::query(
            "UPDATE node SET tells_standing = true, in_step_at = greatest(in_step_at, to_timestamp($2::bigint / 1000.0)) \
             WHERE id = $1",
        )
        .bind(Uuid::from_bytes(*node.as_bytes()))
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
        sqlx::query(
            "UPDATE node SET in_step_at = greatest(in_step_at, to_timestamp($2::bigint / 1000.0)) WHERE id = $1",
        )
        .bind(Uuid::from_bytes(*node.as_bytes()))
        .bind(in_step_ms as i64)
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// The node that this one replaces, if its site is still to be handed over.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn to_be_handed_over(&self, node: NodeId) -> Result<Option<NodeId>, sqlx::Error> {
        let replaced: Option<Option<Uuid>> =
            sqlx::query_scalar("SELECT replaces FROM node WHERE id = $1 AND site_handed_over_at IS NULL")
                .bind(Uuid::from_bytes(*node.as_bytes()))
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
        .bind(Uuid::from_bytes(*node.as_bytes()))
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
        let ids: Vec<Uuid> = nodes.iter().map(|node| Uuid::from_bytes(*node.as_bytes())).collect();
        let revoked: Vec<Uuid> =
            sqlx::query_scalar("SELECT id FROM node WHERE id = ANY ($1) AND revoked_at IS NOT NULL")
                .bind(ids)
                .fetch_all(self.pool())
                .await?;
        Ok(revoked.into_iter().map(|id| NodeId::from_bytes(id.into_bytes())).collect())
    }
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
