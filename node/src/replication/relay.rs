//! Tells a running session what happens in the store: feeds that grow, content that is wanted or arrives, readers that wait.

use std::time::Duration;

use alexandria_sync::driver::HostInput;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::store::Store;

/// Records that came by another way make content wanted; what is wanted is looked at again so long after they did, however
/// many more come.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Relays until the session is gone.
pub(crate) async fn relay(store: Store, session: mpsc::Sender<HostInput>) {
    let mut heads = store.records.subscribe();
    let mut arrivals = store.blobs.arrivals();
    let mut urgent = store.blobs.urgent_changes();
    let mut look_again: Option<Instant> = None;
    loop {
        let inputs = tokio::select! {
            () = session.closed() => return,
            head = heads.recv() => {
                look_again.get_or_insert_with(|| Instant::now() + LOOK_AGAIN_AFTER);
                match head {
                    Ok(head) => vec![HostInput::LocalChange(head.bucket)],
                    // Too many to follow one by one: every bucket may have grown.
                    Err(RecvError::Lagged(_)) => {
                        store.records.heads_now().into_iter().map(|head| HostInput::LocalChange(head.bucket)).collect()
                    }
                    Err(RecvError::Closed) => return,
                }
            }
            blob = arrivals.recv() => match blob {
                Ok(blob) => vec![HostInput::BlobCompleted(blob)],
                // Peers ask again by themselves for what they missed.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            },
            changed = urgent.changed() => match changed {
                Ok(()) => vec![HostInput::WantsChanged],
                Err(_) => return,
            },
            () = tokio::time::sleep_until(look_again.unwrap_or_else(Instant::now)), if look_again.is_some() => {
                look_again = None;
                vec![HostInput::MoreWanted]
            }
        };
        for input in inputs {
            if session.send(input).await.is_err() {
                return;
            }
        }
    }
}
