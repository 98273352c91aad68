//! The words that the catalogue is searched in: a column of the typed tables, made from others.
//!
//! To make and to index them takes longer than all the rest of a row. As a rule they are written with it; of what comes in
//! by thousands ([`super::intake`]) it is only noted that they are due (`words_due`, in the same transaction), and they are made
//! when less comes in. Until then such a row is found by everything but its words, and a changed one by its earlier ones.

use std::time::Duration;

use alexandria_sync::record::Kind;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::{Records, tables};

/// How often it is looked for words that are due.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// When the words of a row are made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Words {
    /// With the row.
    Now,
    /// When less comes in.
    Later,
}

/// Notes that the words of some rows are to be made.
pub(super) async fn note_due(tx: &mut PgConnection, kind: Kind, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    let statement = "INSERT INTO words_due (kind, ids) VALUES ($1, $2)";
    sqlx::query(statement).bind(i32::from(kind.0)).bind(ids).execute(tx).await?;
    Ok(())
}

impl Records {
    /// Makes the words that are due, and says of how many rows. While many records come in, only those that have waited for
    /// [`super::Config::words_yield_max_s`].
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away. What is due stays so.
    pub async fn make_due_words(&self) -> Result<u64, sqlx::Error> {
        let mut total = 0;
        loop {
            let waited_at_least = if self.takes_in_many() { self.shared.words_yield_max } else { Duration::ZERO };
            let Some(made) = self.make_some_words(waited_at_least).await? else { return Ok(total) };
            total += made;
        }
    }

    /// Makes those of one note; `None` if there is none that nobody else is at.
    async fn make_some_words(&self, waited_at_least: Duration) -> Result<Option<u64>, sqlx::Error> {
        let mut tx = self.pool().begin().await?;
        let due: Option<(i64, i32, Vec<Uuid>)> = sqlx::query_as(
            "SELECT no, kind, ids FROM words_due WHERE due_since <= clock_timestamp() - $1 * interval '1 millisecond' \
             ORDER BY no LIMIT 1 FOR UPDATE SKIP LOCKED",
        )
        .bind(waited_at_least.as_millis() as f64)
        .fetch_optional(&mut *tx)
        .await?;
        let Some((no, kind, ids)) = due else { return Ok(None) };
        let mut made = 0;
        if let Some(statement) = u16::try_from(kind).ok().and_then(|kind| tables::make_words(Kind(kind))) {
            made = sqlx::query(AssertSqlSafe(statement)).bind(ids).execute(&mut *tx).await?.rows_affected();
        }
        sqlx::query("DELETE FROM words_due WHERE no = $1").bind(no).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(Some(made))
    }
}
