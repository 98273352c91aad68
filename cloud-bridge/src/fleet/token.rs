//! One-time tokens: `SECRET.FINGERPRINT`, both in hex.
//!
//! The secret lets one node in. The fingerprint is that of the fleet's authority, so that the node can tell the bridge
//! from anyone in between before it says the secret. The database has the secret's hash only.

use sqlx::PgPool;

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
        let site = site.trim();
        if site.is_empty() || site.chars().count() > SITE_CHARS_MAX || site.contains('\0') {
            return Err(CreateTokenError::BadSite);
        }
        let secret: [u8; 32] = rand::random();
        let secret = hex::encode(secret);
        insert(self.pool(), &secret, site, hours.unwrap_or(self.shared.config.token_hours)).await?;
        Ok(format!("{secret}.{}", hex::encode(self.authority().fingerprint())))
    }
}

/// The hash under which the database knows a token, with or without its fingerprint.
pub(super) fn hash(token: &str) -> [u8; 32] {
    let secret = token.trim().split_once('.').map_or(token.trim(), |(secret, _)| secret);
    sha256(secret.as_bytes())
}

async fn insert(pool: &PgPool, secret: &str, site: &str, hours: u32) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO enrolment_token (hash, site, expires_at) VALUES ($1, $2, now() + $3 * interval '1 hour')")
        .bind(hash(secret).as_slice())
        .bind(site)
        .bind(f64::from(hours))
        .execute(pool)
        .await?;
    Ok(())
}
