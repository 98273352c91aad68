//! The database's schema, step by step. Steps are only ever added.

use sqlx::PgPool;
use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

const STEPS: [(&str, &str); 18] = [
    ("records", include_str!("../../migrations/0001_records.sql")),
    ("content", include_str!("../../migrations/0002_content.sql")),
    ("events and fleet", include_str!("../../migrations/0003_events_and_fleet.sql")),
    ("replacement", include_str!("../../migrations/0004_replacement.sql")),
    ("quarantine", include_str!("../../migrations/0005_quarantine.sql")),
    ("erasures", include_str!("../../migrations/0006_erasures.sql")),
    ("leases", include_str!("../../migrations/0007_leases.sql")),
    ("bundle receipts", include_str!("../../migrations/0008_bundle_receipts.sql")),
    ("lean intake", include_str!("../../migrations/0009_lean_intake.sql")),
    ("copied cards", include_str!("../../migrations/0010_copied_cards.sql")),
    ("shared buckets", include_str!("../../migrations/0011_shared_buckets.sql")),
    ("revocations told", include_str!("../../migrations/0012_revocations_told.sql")),
    ("words later", include_str!("../../migrations/0013_words_later.sql")),
    ("IoT claims", include_str!("../../migrations/0014_iot_claims.sql")),
    ("bucket limits", include_str!("../../migrations/0015_bucket_limits.sql")),
    ("events by subject", include_str!("../../migrations/0016_events_by_subject.sql")),
    ("set aside by record", include_str!("../../migrations/0017_set_aside_by_record.sql")),
    ("damaged content", include_str!("../../migrations/0018_damaged_content.sql")),
];

/// Whether the database has everything that this version needs.
///
/// # Errors
///
/// If PostgreSQL is away.
pub async fn is_migrated(pool: &PgPool) -> Result<bool, sqlx::Error> {
    let was_ever: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(pool).await?;
    if !was_ever {
        return Ok(false);
    }
    let last = sqlx::query_scalar("SELECT EXISTS (SELECT FROM _sqlx_migrations WHERE version = $1 AND success)");
    last.bind(STEPS.len() as i64).fetch_one(pool).await
}

/// Brings the database up to this version. Safe to run beside other processes that do the same: they wait for each other, and a step may
/// take long where there is much.
///
/// # Errors
///
/// If PostgreSQL is away, a step fails (and is undone), or the database was changed by a newer version.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    let steps = (1i64..)
        .zip(STEPS)
        .map(|(version, (name, sql))| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        })
        .collect();
    let mut connection = pool.acquire().await?;
    // What is set here stays with the connection.
    connection.close_on_drop();
    sqlx::query("SET statement_timeout = 0").execute(&mut *connection).await?;
    Migrator::with_migrations(steps).run(&mut *connection).await
}
