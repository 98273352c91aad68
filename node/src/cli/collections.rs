//! `collections`, `pin` and `unpin`: what of a fleet's library the node keeps.

use std::process::ExitCode;

use clap::Subcommand;
use indicatif::HumanCount;

use super::report;
use crate::local::Client;
use crate::local::selection::{ChooseRequest, CollectionState, Level, Phase, PinRequest};

#[derive(Debug, Subcommand)]
pub(super) enum CollectionsCommand {
    /// Show every collection of the fleet, and how much of it this node keeps
    List {
        /// As JSON, for scripts
        #[arg(long)]
        json: bool,
    },
    /// Keep a collection on this node
    Add {
        /// Its title or its id
        #[arg(value_name = "NAME-OR-ID")]
        collection: String,
        /// Only its records: readers see and find everything, and content comes when somebody opens it
        #[arg(long)]
        records_only: bool,
    },
    /// No longer keep a collection on this node; nothing is deleted elsewhere
    Remove {
        /// Its title or its id
        #[arg(value_name = "NAME-OR-ID")]
        collection: String,
    },
}

pub(super) async fn run(client: &Client, command: Option<CollectionsCommand>) -> anyhow::Result<ExitCode> {
    let (collection, level) = match command.unwrap_or(CollectionsCommand::List { json: false }) {
        CollectionsCommand::List { json } => {
            let collections = client.collections().await?;
            if json {
                report::json(&collections);
            } else {
                collections.iter().for_each(show);
            }
            return Ok(ExitCode::SUCCESS);
        }
        CollectionsCommand::Add { collection, records_only } => {
            (collection, if records_only { Level::Records } else { Level::Content })
        }
        CollectionsCommand::Remove { collection } => (collection, Level::None),
    };
    show(&client.choose(&ChooseRequest { collection, level }).await?);
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn pin(client: &Client, named: String, pinned: bool) -> anyhow::Result<ExitCode> {
    let answer = client.pin(&PinRequest { named, pinned }).await?;
    let title = answer.title;
    match (pinned, answer.changed) {
        (true, true) => println!("{title}: pinned; its content is fetched and stays"),
        (true, false) => println!("{title}: is pinned already"),
        (false, true) => println!("{title}: no longer pinned"),
        (false, false) => println!("{title}: was not pinned"),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(collection: &CollectionState) {
    println!("{}  {:<40}  {}", collection.id, collection.title, describe(collection));
}

/// How a collection stands, in words.
pub(super) fn describe(collection: &CollectionState) -> String {
    let kept = match collection.keeps {
        Level::Content => "kept with all content",
        Level::Records => "records kept, content on demand",
        Level::None => "not kept",
    };
    let pinned = if collection.pinned { ", pinned" } else { "" };
    match collection.phase {
        Phase::Kept | Phase::NotKept => format!("{kept}{pinned}"),
        Phase::Arriving => format!("{kept}{pinned}; being read from the bridge"),
        Phase::Changing => format!("{kept}{pinned}; being brought in line"),
        Phase::Leaving => "leaving; what only this node holds stays until the bridge has it".to_owned(),
        Phase::WaitingToBeSent => {
            let waiting = HumanCount(collection.waiting_to_be_sent);
            format!("leaving; {waiting} changes wait to be sent to the bridge")
        }
    }
}
