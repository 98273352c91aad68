//! How the bridge stands at this moment, looked up once for all sessions that begin at the same time: after an outage thousands do.

use alexandria_sync::absence::Standing;

use super::{RecordStoreError, Records};

impl Records {
    /// How the bridge stands, as of now or a little later, with the epoch looked at before it ([`super::Identity::refresh_epoch`]).
    ///
    /// # Errors
    ///
    /// If PostgreSQL is away.
    pub async fn present(&self) -> Result<Standing, RecordStoreError> {
        let look = async |asked: Vec<()>| {
            self.identity().refresh_epoch(self.pool()).await?;
            Ok(vec![self.standing().await?; asked.len()])
        };
        self.shared.present.ask((), look).await
    }
}
