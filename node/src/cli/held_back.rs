//! `alexandria heldback`: what was not sent before a long absence, and what becomes of it.

use std::process::ExitCode;

use alexandria_sync::id::RecordId;
use anyhow::bail;
use clap::Subcommand;
use indicatif::HumanCount;

use crate::local::Client;
use crate::local::held_back::{HeldBackLine, ReleaseRequest};

#[derive(Debug, Subcommand)]
pub(super) enum HeldBackCommand {
    /// Show them
    List {
        /// One JSON object a line, for scripts
        #[arg(long)]
        json: bool,
    },
    /// Send them as edits of now: also what others have deleted meanwhile lives again
    Send {
        /// Only this one
        #[arg(required_unless_present = "all")]
        id: Option<RecordId>,
        /// All of them
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
    /// Throw them away, for good
    Drop {
        /// Only this one
        #[arg(required_unless_present = "all")]
        id: Option<RecordId>,
        /// All of them
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
}

pub(super) async fn run(client: &Client, command: HeldBackCommand) -> anyhow::Result<ExitCode> {
    match command {
        HeldBackCommand::List { json } => return list(client, json).await,
        HeldBackCommand::Send { id, all: _ } => {
            let sent = client.send_held_back(&ReleaseRequest { id }).await?.records;
            println!("{} records are edits of now, and go where all edits go", HumanCount(sent));
        }
        HeldBackCommand::Drop { id, all: _ } => {
            let dropped = client.drop_held_back(&ReleaseRequest { id }).await?.records;
            println!("thrown away: {} records", HumanCount(dropped));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let mut lines = client.held_back().await?;
    loop {
        match lines.next().await? {
            HeldBackLine::Record(record) if json => println!("{}", serde_json::to_string(&record)?),
            HeldBackLine::Record(record) => {
                let what = if record.deleted { "deletion of " } else { "" };
                let title = record.title.map(|title| format!(" \"{title}\"")).unwrap_or_default();
                println!("{}  {what}{}{title} in {}", record.id, record.kind, record.bucket);
            }
            HeldBackLine::Done { .. } if json => return Ok(ExitCode::SUCCESS),
            HeldBackLine::Done { records } => {
                println!("{} records held back; `send` or `drop` decides", HumanCount(records));
                return Ok(ExitCode::SUCCESS);
            }
            HeldBackLine::Failed { reason } => bail!("the list stopped: {reason}"),
        }
    }
}
