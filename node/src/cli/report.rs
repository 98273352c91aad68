//! How the answers of the node look on a terminal.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alexandria_sync::outlook::Outlook;
use alexandria_sync::wire::Class;
use anyhow::bail;
use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar};
use serde::Serialize;

use super::collections::describe as describe_collection;
use crate::local::messages::{LanStatus, ReplicationStatus};
use crate::local::{BackupLine, Lines, RestoreLine, Status, SyncLine, VerifyLine};

pub(super) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("cannot show as JSON: {error}"),
    }
}

pub(super) fn status(status: &Status) {
    println!("Alexandria {}, node {}", status.version, status.node);
    println!("  data         {}", status.data.display());
    match &status.address {
        Some(address) => println!("  serving      {address}"),
        None => println!("  serving      not now: no node runs on this folder"),
    }
    if let Some(reason) = &status.read_only {
        println!("  READ-ONLY    {reason}");
    }
    let records = status.records;
    println!(
        "  holds        {} media, {} authors, {} categories, {} collections",
        HumanCount(records.media),
        HumanCount(records.authors),
        HumanCount(records.categories),
        HumanCount(records.collections)
    );
    let content = status.content;
    println!(
        "  content      {} files, {}; {} wanted; {} free on the disk",
        HumanCount(content.blobs),
        HumanBytes(content.bytes),
        HumanCount(content.wanted),
        HumanBytes(content.free_bytes)
    );
    if content.on_demand > 0 {
        println!(
            "  on demand    {} files come when somebody opens them; {} of them made room for others",
            HumanCount(content.on_demand),
            HumanCount(content.evicted)
        );
    }
    for collection in &status.selection.leaving {
        println!("  leaving      {}: {}", collection.title, describe_collection(collection));
    }
    if let Some(trouble) = &status.search.trouble {
        let rows = HumanCount(status.search.behind_rows);
        println!("  search       {rows} changes are not found yet; it is tried again: {trouble}");
    }
    if status.quarantined > 0 {
        println!(
            "  set aside    {} received records; `alexandria quarantine list` shows why",
            HumanCount(status.quarantined)
        );
    }
    if status.absence.reading_anew {
        println!("  absence      away for longer than its lease: all is read anew before anything is given to others");
    }
    if status.absence.held_back > 0 {
        println!(
            "  held back    {} records were not sent before; `alexandria heldback list` shows them",
            HumanCount(status.absence.held_back)
        );
    }
    if let Some(set_back) = status.set_back {
        let since = HumanDuration(Duration::from_millis(now_unix_ms().saturating_sub(set_back.noticed_unix_ms)));
        println!(
            "  set back     {since} ago a peer had read what was no longer here: the data folder is an older copy, or another node runs \
             with a copy of it. A new life began, and nothing that peers had is lost ({} times so far)",
            set_back.times
        );
    }
    if status.erasures_pending > 0 {
        println!("  erasing      {} erasures are not yet gone from this disk", HumanCount(status.erasures_pending));
    }
    match &status.replication {
        None => println!("  replication  not enrolled; `alexandria enroll` joins a fleet"),
        Some(replication) => {
            println!("  replication  {}", describe(replication));
            if let Some(outlook) = &replication.outlook {
                prospects(outlook);
            }
        }
    }
    if let Some(lan) = &status.lan {
        neighbours(lan);
    }
}

fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn neighbours(lan: &LanStatus) {
    match (&lan.listening, &lan.last_error) {
        (Some(address), _) => println!("  other nodes  listening on {address}; {} refused", HumanCount(lan.refused)),
        (None, Some(error)) => println!("  other nodes  none can be met: {error}"),
        (None, None) => println!("  other nodes  none are met before this node is enrolled"),
    }
    for peer in &lan.peers {
        let how = match &peer.transport {
            Some(transport) => format!(
                "connected over {transport}, {} received, {} sent",
                HumanBytes(peer.bytes_received),
                HumanBytes(peer.bytes_sent)
            ),
            None => "not connected".to_owned(),
        };
        println!("    {} at {}: {how}", peer.node, peer.address);
    }
}

fn prospects(outlook: &Outlook) {
    for (class, amount) in &outlook.content {
        let name = match class {
            Class::Control | Class::Records => continue,
            Class::Reader => "asked for by readers",
            Class::Software => "software",
            Class::Pinned => "small files",
            Class::Background => "other files",
        };
        println!("  to come      {}: {}, {}", name, HumanCount(amount.blobs), HumanBytes(amount.bytes));
    }
    if outlook.bytes_to_send > 0 {
        println!("  to send      {}", HumanBytes(outlook.bytes_to_send));
    }
    if let Some(seconds) = outlook.done_in_s {
        println!("  done in      about {}", HumanDuration(Duration::from_secs(seconds)));
    }
    if let Some(wait) = &outlook.wait {
        println!("  waits        {wait}");
    }
    if let Some(budget) = outlook.budget {
        println!(
            "  data left    {}, of it {} for content",
            HumanBytes(budget.all_bytes),
            HumanBytes(budget.content_bytes)
        );
    }
}

fn describe(replication: &ReplicationStatus) -> String {
    let bridge = &replication.address;
    if !replication.connected {
        let wait = replication.wait.as_ref().map(ToString::to_string);
        let error = wait.as_deref().or(replication.last_error.as_deref()).unwrap_or("waiting");
        let next = replication.next_attempt_s.map(|seconds| format!("; next attempt in {seconds} s"));
        return format!("not connected to {bridge}: {error}{}", next.unwrap_or_default());
    }
    let over = match (&replication.transport, &replication.transport_reason) {
        (Some(transport), Some(reason)) => format!(" over {transport} ({reason})"),
        _ => String::new(),
    };
    if let Some(wait) = &replication.wait {
        return format!("connected to {bridge}{over}: {wait}");
    }
    if replication.rows_behind == 0 && replication.blobs_receiving == 0 {
        return format!("connected to {bridge}{over}, up to date");
    }
    format!(
        "connected to {bridge}{over}, {} records and {} of content to come at {}/s",
        HumanCount(replication.rows_behind),
        HumanBytes(replication.bytes_to_receive),
        HumanBytes(replication.receive_rate)
    )
}

pub(super) async fn verify(mut lines: Lines<VerifyLine>) -> anyhow::Result<ExitCode> {
    let bar = bar();
    loop {
        match lines.next().await? {
            VerifyLine::Progress { blobs, of } => {
                bar.set_length(of);
                bar.set_position(blobs);
            }
            VerifyLine::Damaged { what, mended } => {
                let outcome = if mended { "mended, or set aside to be fetched again" } else { "left as it is" };
                bar.suspend(|| eprintln!("damaged: {what} ({outcome})"));
            }
            VerifyLine::Done { records, blobs, damaged } => {
                bar.finish_and_clear();
                println!("{records} records and {blobs} files checked, {damaged} damaged");
                return Ok(if damaged == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            VerifyLine::Failed { reason } => bail!("the check stopped: {reason}"),
        }
    }
}

pub(super) async fn backup(mut lines: Lines<BackupLine>) -> anyhow::Result<ExitCode> {
    match lines.next().await? {
        BackupLine::Done { records, bytes } => {
            println!("{} records in a backup of {}", HumanCount(records), HumanBytes(bytes));
            println!("content is not in it: copy the folder blobs/ of the data folder beside it");
            Ok(ExitCode::SUCCESS)
        }
        BackupLine::Failed { reason } => bail!("no backup was written: {reason}"),
    }
}

pub(super) async fn restore(mut lines: Lines<RestoreLine>) -> anyhow::Result<ExitCode> {
    match lines.next().await? {
        RestoreLine::Done { records, kept_aside } => {
            println!("{} records restored", HumanCount(records));
            println!("what was here before is kept in {}; delete it when all is well", kept_aside.display());
            Ok(ExitCode::SUCCESS)
        }
        RestoreLine::Failed { reason } => bail!("nothing was restored: {reason}"),
    }
}

pub(super) async fn sync(mut lines: Lines<SyncLine>) -> anyhow::Result<ExitCode> {
    let bar = bar();
    loop {
        match lines.next().await? {
            SyncLine::Progress(progress) => bar.set_message(describe(&progress)),
            SyncLine::Quiet => {
                bar.finish_and_clear();
                println!("up to date with the bridge");
                return Ok(ExitCode::SUCCESS);
            }
            SyncLine::Failed { reason } => bail!("not replicated: {reason}"),
        }
    }
}

fn bar() -> ProgressBar {
    if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() }
}
