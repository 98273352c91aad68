//! What keeps a node sound over months: a copy of its records beside them, content and tombstones that nobody needs swept away, and
//! content read again slowly, so that damage is found before a reader does.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use alexandria_sync::chunk::BlobHash;
use serde::{Deserialize, Serialize};

use crate::library::Library;
use crate::store::blobs::scrub::Outcome;
use crate::store::{backup, disk};

/// How long after a start what has been due is begun with.
const SETTLED_AFTER: Duration = Duration::from_mins(1);
/// Where in the data folder it is kept how far content was read again.
const SCRUBBED_FILE: &str = "scrubbed.json";
/// And how often.
const SCRUB_KEPT_EVERY: Duration = Duration::from_mins(5);

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
            dump(&library, Duration::from_secs(config.dump_every_s)),
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

async fn dump(library: &Library, every: Duration) {
    let path = backup::dump_path(library.data_dir());
    let last = std::fs::metadata(path).and_then(|dump| dump.modified()).ok();
    let mut wait = due_in(last, every);
    loop {
        tokio::time::sleep(wait).await;
        wait = every;
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
    let file = library.data_dir().join(SCRUBBED_FILE);
    let every = Duration::from_secs(config.scrub_every_s);
    let mut scrubbed = Scrubbed::read(&file);
    let ended = UNIX_EPOCH.checked_add(Duration::from_millis(scrubbed.round_ended_unix_ms));
    // A round that was broken off goes on.
    let mut wait = due_in(ended.filter(|_| scrubbed.after.is_none()), every);
    loop {
        tokio::time::sleep(wait).await;
        wait = every;
        let mut scrub = library.store().blobs.scrub(scrubbed.after, Some(config.scrub_bytes_per_s), true);
        let mut kept = Instant::now();
        loop {
            match scrub.next_blob().await {
                Ok(Some(looked_at)) if looked_at.outcome != Outcome::Sound => {
                    tracing::warn!(blob.hash = %looked_at.hash, outcome = ?looked_at.outcome, "damaged content was set right or set aside");
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "content could not be read again");
                    break;
                }
            }
            if kept.elapsed() > SCRUB_KEPT_EVERY {
                kept = Instant::now();
                Scrubbed { after: scrub.place(), ..scrubbed }.keep(&file).await;
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        scrubbed = Scrubbed { after: None, round_ended_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX) };
        scrubbed.keep(&file).await;
    }
}

/// How far content was read again, also by earlier lives of the node: it may be switched off each evening.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct Scrubbed {
    /// The last blob of a round that has not ended.
    after: Option<BlobHash>,
    /// When the last round ended.
    round_ended_unix_ms: u64,
}

impl Scrubbed {
    /// What was kept; the beginning if nothing was, or nothing that can be read.
    fn read(file: &Path) -> Self {
        std::fs::read(file).ok().and_then(|kept| serde_json::from_slice(&kept).ok()).unwrap_or_default()
    }

    async fn keep(self, file: &Path) {
        let file = file.to_owned();
        let kept = tokio::task::spawn_blocking(move || disk::write_durably(&file, &serde_json::to_vec(&self)?));
        // Fails only if the runtime is being shut down.
        if let Ok(Err(error)) = kept.await {
            tracing::debug!(%error, "how far content was read again is not kept");
        }
    }
}

/// When what was done `last` is due again, if it is to be done every so often: not at once after a start, and no later than that
/// from now, whatever the clock said then.
fn due_in(last: Option<SystemTime>, every: Duration) -> Duration {
    let since = last.map_or(Duration::MAX, |last| last.elapsed().unwrap_or_default());
    every.saturating_sub(since).max(SETTLED_AFTER).min(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn what_was_done_long_ago_is_due_soon_after_a_start_and_nothing_waits_longer_than_it_may() {
        let ago = |wait: Duration| SystemTime::now().checked_sub(wait);
        assert_eq!(due_in(None, DAY), SETTLED_AFTER);
        assert_eq!(due_in(ago(DAY * 2), DAY), SETTLED_AFTER);
        let left = due_in(ago(DAY / 4), DAY);
        assert!(left <= DAY * 3 / 4 && left > DAY / 2, "{left:?}");
        assert_eq!(due_in(SystemTime::now().checked_add(DAY * 400), DAY), DAY, "the clock was ahead then");
        let short = Duration::from_secs(5);
        assert_eq!(due_in(None, short), short);
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_read_is_the_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(SCRUBBED_FILE);
        let place = Scrubbed { after: Some(BlobHash::from_bytes([7; 32])), round_ended_unix_ms: 5 };
        place.keep(&file).await;
        assert_eq!(Scrubbed::read(&file).after, place.after);
        std::fs::write(&file, "{").unwrap();
        assert_eq!(Scrubbed::read(&file).after, None);
    }
}
