//! `alexandria quarantine`: what was set aside, and what becomes of it.

use std::process::ExitCode;
use std::time::Duration;

use alexandria_sync::quarantine::QuarantineId;
use anyhow::bail;
use indicatif::{HumanBytes, HumanCount, HumanDuration};

use crate::local::{Client, DropRequest, QuarantineLine, ReplayRequest, SetAsideRecord};

pub(super) async fn list(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let mut lines = client.quarantine().await?;
    loop {
        match lines.next().await? {
            QuarantineLine::Record(record) if json => println!("{}", serde_json::to_string(&record)?),
            QuarantineLine::Record(record) => print(&record),
            QuarantineLine::Done(_) if json => return Ok(ExitCode::SUCCESS),
            QuarantineLine::Done(kept) => {
                println!("{} records set aside, {}", HumanCount(kept.records), HumanBytes(kept.bytes));
                return Ok(ExitCode::SUCCESS);
            }
            QuarantineLine::Failed { reason } => bail!("the list stopped: {reason}"),
        }
    }
}

fn print(record: &SetAsideRecord) {
    let SetAsideRecord { id, bucket, kind, record: of, written_by, received_from, reason, .. } = record;
    let what = if record.deleted { "deletion of " } else { "" };
    let ahead = HumanDuration(Duration::from_millis(record.ahead_ms));
    let since = HumanDuration(Duration::from_millis(record.set_aside_for_ms));
    println!("{id}  {what}{kind} {of} in {bucket}");
    println!("    {reason}");
    println!("    written by {written_by}, now {ahead} ahead");
    println!("    received from {received_from}, set aside for {since}");
}

pub(super) async fn replay(client: &Client, request: ReplayRequest) -> anyhow::Result<ExitCode> {
    let done = client.replay(&request).await?;
    println!("{} let in, {} said nothing new, {} stay set aside", done.applied, done.superseded, done.set_aside);
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn discard(client: &Client, id: QuarantineId) -> anyhow::Result<ExitCode> {
    let dropped = client.drop_set_aside(&DropRequest { id }).await?;
    println!(
        "thrown away: {} {} in {}, written by {}",
        dropped.kind, dropped.record, dropped.bucket, dropped.written_by
    );
    Ok(ExitCode::SUCCESS)
}
