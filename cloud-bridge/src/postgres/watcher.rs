//! Tells sessions and long polls which feeds have grown, whichever process made them grow.
//!
//! One look at all heads each second and process, and at once after a commit here. What a listener misses because it
//! was slow, it is told to assume.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use alexandria_sync::id::{BucketId, Seq};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{Records, STATEMENT_PATIENCE};

/// How often the heads are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Commits here are gathered for this long before the heads are looked at, and for so many times as long as the last look took: one at
/// all heads of a large fleet is not cheap.
const GATHER: Duration = Duration::from_millis(20);
const GATHER_LOOKS: u32 = 9;
/// Buckets that a listener may be behind before it is told to look at all of them.
pub(super) const BACKLOG_MAX: usize = 1024;

impl Records {
    /// Hears of each bucket whose feed has grown.
    pub fn grown(&self) -> broadcast::Receiver<BucketId> {
        self.shared.grown.subscribe()
    }

    /// Watches the heads until told to stop.
    pub async fn watch_heads(self, stop: CancellationToken) {
        let mut known: HashMap<BucketId, Seq> = HashMap::new();
        let mut changes = self.changes();
        while !stop.is_cancelled() {
            changes.mark_unchanged();
            let look = Instant::now();
            if self.shared.grown.receiver_count() > 0 {
                match tokio::time::timeout(STATEMENT_PATIENCE, self.heads(None)).await {
                    Ok(Ok(heads)) => {
                        for head in heads {
                            if known.insert(head.bucket, head.head).is_none_or(|before| before < head.head) {
                                // Nobody listens just now, perhaps.
                                let _ = self.shared.grown.send(head.bucket);
                            }
                        }
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "the heads cannot be read");
                    }
                    Err(_) => tracing::warn!("the heads could not be read in time"),
                }
            }
            let gather = GATHER.max(look.elapsed() * GATHER_LOOKS).min(POLL_INTERVAL);
            tokio::select! {
                _ = changes.changed() => tokio::time::sleep(gather).await,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}
