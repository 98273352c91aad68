//! What keeps a node sound over months: a copy of its records beside them, content and tombstones that nobody needs swept away, and
//! content read again slowly, so that damage is found before a reader does.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::library::Library;
use crate::store::backup;
use crate::store::blobs::scrub::Outcome;

/// How often things are looked after.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpkeepConfig {
    /// The records are copied to a file in the data folder this often, in seconds: what a damaged store is rebuilt from.
    pub dump_every_s: u64,
    /// Whether the record store takes far more of the disk than it holds is looked at this often, in seconds; if so, it is written anew.
    pub compact_every_s: u64,
    /// Content that no record names is looked for this often, in seconds.
    pub sweep_every_s: u64,
    /// And removed once nothing has named it for this long, in seconds: an upload waits for its record.
    pub sweep_grace_s: u64,
    /// Content is read again at this pace, in bytes a second.
    pub scrub_bytes_per_s: u64,
    /// The wait between two rounds of reading all content again, in seconds.
    pub scrub_every_s: u64,
}

impl Default for UpkeepConfig {
    fn default() -> Self {
        const DAY_S: u64 = 24 * 60 * 60;
        Self {
            dump_every_s: DAY_S,
            compact_every_s: 10 * 60,
            sweep_every_s: 60 * 60,
            sweep_grace_s: DAY_S,
            scrub_bytes_per_s: 4 * 1024 * 1024,
            scrub_every_s: 7 * DAY_S,
        }
    }
}

/// Looks after a library until it closes.
pub async fn run(library: Library, config: UpkeepConfig, unclean_stop: bool) {
    let all = async {
        tokio::join!(
            check_records(&library, unclean_stop),
            dump(&library, config.dump_every_s),
            compact(&library, config.compact_every_s),
            sweep(&library, &config),
            scrub(&library, &config),
        )
    };
    tokio::select! {
        () = library.closed() => {}
        _ = all => {}
    }
}

/// After a power cut, sees whether records and feeds still fit together.
async fn check_records(library: &Library, unclean_stop: bool) {
    if !unclean_stop {
        return;
    }
    match library.store().records.verify().await {
        Ok(report) if report.mismatches == 0 => {
            tracing::info!(records = report.records, "the node was not stopped in order; its records are whole");
        }
        Ok(report) => {
            tracing::error!(report.mismatches, "records do not fit together; the store is rebuilt at the next start");
        }
        Err(error) => tracing::error!(%error, "the records could not be checked"),
    }
}

async fn dump(library: &Library, every_s: u64) {
    loop {
        tokio::time::sleep(Duration::from_secs(every_s)).await;
        let records = library.store().records.clone();
        match tokio::task::spawn_blocking(move || backup::dump(&records)).await {
            Ok(Ok(summary)) => tracing::debug!(summary.records, summary.size_bytes, "copied the records"),
            Ok(Err(error)) => tracing::warn!(%error, "the records could not be copied"),
            Err(error) => tracing::warn!(%error, "the records could not be copied"),
        }
    }
}

async fn compact(library: &Library, every_s: u64) {
    let records = &library.store().records;
    loop {
        tokio::time::sleep(Duration::from_secs(every_s)).await;
        let before = match records.space() {
            Ok(space) if space.is_bloated() => space,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(%error, "what the records take on the disk could not be found out");
                continue;
            }
        };
        match records.compact().await {
            Ok(after) => tracing::info!(
                before_bytes = before.disk_bytes,
                after_bytes = after.disk_bytes,
                live_bytes = after.live_bytes,
                "wrote the record store anew, without what was replaced or removed"
            ),
            Err(error) => tracing::warn!(%error, "the record store could not be written anew; it is tried again"),
        }
    }
}

async fn sweep(library: &Library, config: &UpkeepConfig) {
    loop {
        tokio::time::sleep(Duration::from_secs(config.sweep_every_s)).await;
        match library.store().blobs.sweep(Duration::from_secs(config.sweep_grace_s)).await {
            Ok(swept) if swept.blobs + swept.partial > 0 => {
                tracing::info!(swept.blobs, swept.partial, swept.size_bytes, "removed content that nothing names");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "content that nothing names could not be removed"),
        }
        match library.store().records.collect_tombstones().await {
            Ok(0) => {}
            Ok(tombstones) => tracing::info!(tombstones, "forgot deletes that everybody has heard of"),
            Err(error) => tracing::warn!(%error, "old deletes could not be forgotten"),
        }
    }
}

async fn scrub(library: &Library, config: &UpkeepConfig) {
    loop {
        tokio::time::sleep(Duration::from_secs(config.scrub_every_s)).await;
        let mut scrub = library.store().blobs.scrub(None, Some(config.scrub_bytes_per_s), true);
        loop {
            match scrub.next_blob().await {
                Ok(Some(scrubbed)) if scrubbed.outcome != Outcome::Sound => {
                    tracing::warn!(blob.hash = %scrubbed.hash, outcome = ?scrubbed.outcome, "damaged content was set right or set aside");
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "content could not be read again");
                    break;
                }
            }
        }
    }
}
