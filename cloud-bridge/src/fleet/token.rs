//! One-time tokens: `SECRET.FINGERPRINT`, both in hex.
//!
//! The secret lets one node in. The fingerprint is that of the fleet's authority, so that the node can tell the bridge
//! from anyone in between before it says the secret. The database has the secret's hash only.

use alexandria_sync::id::NodeId;
use sqlx::PgPool;
use uuid::Uuid;

use super::Fleet;
use super::authority::sha256;

/// Characters in a site's name, at most.
pub const SITE_CHARS_MAX: usize = 200;

/// Why a token was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateTokenError {
    /// Sites are shown to people.
    #[error("a site's name has 1 to {SITE_CHARS_MAX} characters")]
    BadSite,
    /// Look at the list of nodes.
    #[error("there is no node {0} that could be replaced")]
    NoSuchNode(NodeId),
    /// PostgreSQL is away.
    #[error("PostgreSQL failed")]
    Database(#[from] sqlx::Error),
}

impl Fleet {
    /// Makes a token for a site. It is shown once, here.
    ///
    /// # Errors
    ///
    /// [`CreateTokenError`].
    pub async fn create_token(&self, site: &str, hours: Option<u32>) -> Result<String, CreateTokenError> {
        self.make_token(site, hours, None).await
    }

    /// Makes a token for a node that takes the place of `replaces`: with its use that one is revoked, and the new one gets
    /// what belongs to its site.
    ///
    /// # Errors
    ///
    /// [`CreateTokenError`].
    pub async fn create_replacement_token(
        &self,
        site: &str,
        hours: Option<u32>,
        replaces: NodeId,
    ) -> Result<String, CreateTokenError> {
        let node = Uuid::from_bytes(*replaces.as_bytes());
        let known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM node WHERE id = $1)")
            .bind(node)
            .fetch_one(self.pool())
            .await?;
        if !known {
            return Err(CreateTokenError::NoSuchNode(replaces));
        }
        self.make_token(site, hours, Some(node)).await
    }

    async fn make_token(
        &self,
        site: &str,
        hours: Option<u32>,
        replaces: Option<Uuid>,
    ) -> Result<String, CreateTokenError> {
        let site = site.trim();
        if site.is_empty() || site.chars().count() > SITE_CHARS_MAX || site.contains('\0') {
            return Err(CreateTokenError::BadSite);
        }
        let secret: [u8; 32] = rand::random();
        let secret = hex::encode(secret);
        insert(self.pool(), &secret, site, (hours.unwrap_or(self.shared.config.token_hours), replaces)).await?;
        Ok(format!("{secret}.{}", hex::encode(self.authority().fingerprint())))
    }
}

/// The hash under which the database knows a token, with or without its fingerprint.
pub(super) fn hash(token: &str) -> [u8; 32] {
    let secret = token.trim().split_once('.').map_or(token.trim(), |(secret, _)| secret);
    sha256(secret.as_bytes())
}

async fn insert(
    pool: &PgPool,
    secret: &str,
    site: &str,
    (hours, replaces): (u32, Option<Uuid>),
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO enrolment_token (hash, site, expires_at, replaces) \
         VALUES ($1, $2, now() + $3 * interval '1 hour', $4)",
    )
    .bind(hash(secret).as_slice())
    .bind(site)
    .bind(f64::from(hours))
    .bind(replaces)
    .execute(pool)
    .await?;
    Ok(())
}
