//! Sees to it that what was erased leaves the disk, soon after it has left everybody's sight.

use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;

use crate::library::Library;

/// Erasures are gathered for this long: the record store is written anew for all of them at once.
const GATHER: Duration = Duration::from_secs(5);
/// The wait after a failure; it doubles with each that follows.
const RETRY_FIRST: Duration = Duration::from_secs(30);
/// The longest wait between two tries.
const RETRY_LONGEST: Duration = Duration::from_mins(10);

/// Works until the library closes.
pub async fn run(library: Library) {
    let work = async {
        let mut heads = library.store().records.subscribe();
        let mut wait = RETRY_FIRST;
        loop {
            match library.forget_erased().await {
                Ok(0) => wait = RETRY_FIRST,
                Ok(erasures) => tracing::info!(erasures, "what was erased has left the disk; receipts are given"),
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::from(error));
                    tracing::warn!(%error, "something that was erased may still be on the disk; it is tried again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_LONGEST);
                    continue;
                }
            }
            if let Err(RecvError::Closed) = heads.recv().await {
                return;
            }
            tokio::time::sleep(GATHER).await;
            // What else was heard meanwhile is dealt with in the same round.
            heads = heads.resubscribe();
        }
    };
    tokio::select! {
        () = library.closed() => {}
        () = work => {}
    }
}
