//! How the bridge stands at this moment, looked up once for all sessions that begin at the same time: after an outage thousands do.

use std::time::Instant;

use alexandria_sync::absence::Standing;
use tokio::sync::Mutex;

use super::{ACQUIRE_TIMEOUT, RecordStoreError, Records};

/// What was found last, and when that look began.
#[derive(Debug, Default)]
pub(super) struct Present(Mutex<Option<(Instant, Standing)>>);

impl Records {
    /// How the bridge stands, as of now or a little later, with the epoch looked at before it ([`super::Identity::refresh_epoch`]).
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn present(&self) -> Result<Standing, RecordStoreError> {
        let asked = Instant::now();
        // Who waits here may find that somebody has looked since it asked. While PostgreSQL is away nobody waits for long: each look takes as
        // long as a connection may.
        let turn = tokio::time::timeout(ACQUIRE_TIMEOUT, self.shared.present.0.lock()).await;
        let mut last = turn.map_err(|_| sqlx::Error::PoolTimedOut)?;
        if let Some((began, standing)) = *last
            && began >= asked
        {
            return Ok(standing);
        }
        let began = Instant::now();
        self.identity().refresh_epoch(self.pool()).await?;
        let standing = self.standing().await?;
        *last = Some((began, standing));
        Ok(standing)
    }
}
