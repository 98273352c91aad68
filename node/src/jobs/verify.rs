//! Checks every record and all content, and mends what can be mended.

use alexandria_sync::store::RecordStore;
use tokio::sync::mpsc;

use crate::library::Library;
use crate::local::VerifyLine;
use crate::store::blobs::scrub::Outcome;

/// Blobs between two lines of progress.
const PROGRESS_EVERY: u64 = 50;

/// Checks everything; the last line sent is `Done` or `Failed`.
pub async fn run(library: Library, repair: bool, lines: mpsc::Sender<VerifyLine>) {
    let checked = tokio::select! {
        checked = check(&library, repair, &lines) => checked,
        () = library.closed() => Err("the node stops; begin it again when it is back".into()),
    };
    let last = checked.unwrap_or_else(|reason| VerifyLine::Failed { reason });
    let _ = lines.send(last).await;
}

async fn check(library: &Library, repair: bool, lines: &mpsc::Sender<VerifyLine>) -> Result<VerifyLine, String> {
    let store = library.store();
    let mut damaged = 0;
    let mut records = 0;
    // Each bucket's feed is read through: every row is decoded and found at its place.
    for head in store.records.heads().await.map_err(|error| error.to_string())? {
        let mut at = alexandria_sync::id::Seq::default();
        while at < head.head {
            let page = store.records.changes_since(head.bucket, at, crate::store::records::ROWS_MAX).await;
            match page {
                Ok(rows) => {
                    records += rows.len() as u64;
                    at = rows.last().map_or(head.head, |row| row.seq);
                }
                Err(error) => {
                    damaged += 1;
                    let what = format!("records of {} after row {}: {error}", head.bucket, at.0);
                    let _ = lines.send(VerifyLine::Damaged { what, mended: false }).await;
                    break;
                }
            }
        }
    }
    let of = store.blobs.stats().map_err(|error| error.to_string())?.held;
    let mut blobs = 0;
    let report = store.blobs.verify(repair, |scrubbed| {
        blobs += 1;
        // What a power cut left behind of an upload that nobody was told of is sound, and no damage.
        if matches!(scrubbed.outcome, Outcome::Sound | Outcome::Unregistered) {
            if blobs % PROGRESS_EVERY == 0 {
                let _ = lines.try_send(VerifyLine::Progress { blobs, of });
            }
            return;
        }
        damaged += 1;
        let what = format!("content {}: {:?}", scrubbed.hash, scrubbed.outcome);
        // The last line counts it, if this one finds no room.
        let _ = lines.try_send(VerifyLine::Damaged { what, mended: repair });
    });
    let report = report.await.map_err(|error| error.to_string())?;
    Ok(VerifyLine::Done { records, blobs: report.checked, damaged })
}
