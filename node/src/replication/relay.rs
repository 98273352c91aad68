//! Tells a running session what happens in the store: feeds that grow, content that arrives, readers that wait.

use alexandria_sync::driver::HostInput;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use crate::store::Store;

/// Relays until the session is gone.
pub(crate) async fn relay(store: Store, session: mpsc::Sender<HostInput>) {
    let mut heads = store.records.subscribe();
    let mut arrivals = store.blobs.arrivals();
    let mut urgent = store.blobs.urgent_changes();
    loop {
        let inputs = tokio::select! {
            () = session.closed() => return,
            head = heads.recv() => match head {
                Ok(head) => vec![HostInput::LocalChange(head.bucket)],
                // Too many to follow one by one: every bucket may have grown.
                Err(RecvError::Lagged(_)) => {
                    store.records.heads_now().into_iter().map(|head| HostInput::LocalChange(head.bucket)).collect()
                }
                Err(RecvError::Closed) => return,
            },
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
        };
        for input in inputs {
            if session.send(input).await.is_err() {
                return;
            }
        }
    }
}
