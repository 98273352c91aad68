//! The command line.
//!
//! `serve` runs the node. Every other command talks to the node of its data folder over the local socket, so it works
//! beside a running node; where none runs, it starts one for as long as it takes, without the public web server
//! ([`session`]). So each command is written once, in `local`.

mod bundle;
mod collections;
mod held_back;
mod import;
mod quarantine;
mod report;
mod session;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use alexandria_sync::id::RecordId;
use alexandria_sync::quarantine::QuarantineId;
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use self::bundle::BundleCommand;
use self::collections::CollectionsCommand;
use self::session::NodeSession;
use crate::config::{Config, LogConfig};
use crate::local::{BackupRequest, EnrollRequest, EraseRequest, ReplayRequest, RestoreRequest, VerifyRequest};
use crate::node;

/// A digital library in a box: serves books, documents, podcasts, videos and images to the local network, with no
/// internet, and replicates with its cloud bridge when a link appears.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  alexandria                                  start on ./alexandria-data, http://127.0.0.1:8080
  alexandria --listen 0.0.0.0:8080            open it to the phones and laptops of the network
  alexandria import ~/Books ~/talk.mp3        add a folder and a file, beside the running node
  alexandria status                           what is held, what is going on
  alexandria bundle export /media/stick/library.bundle
  alexandria enroll --bridge cloud.example.org:8443 --token TOKEN
  alexandria sync --once                      replicate now, then stop";

#[derive(Args, Debug)]
struct Global {
    /// The folder that holds everything the node keeps [default: ./alexandria-data]
    #[arg(long, global = true, value_name = "DIR", env = "ALEXANDRIA_DATA")]
    data: Option<PathBuf>,
    /// A configuration file, in TOML; docs/CONFIGURATION.md lists its keys
    #[arg(long, global = true, value_name = "FILE", env = "ALEXANDRIA_CONFIG")]
    config: Option<PathBuf>,
    /// Where to serve the library [default: 127.0.0.1:8080]
    #[arg(long, global = true, value_name = "ADDRESS", env = "ALEXANDRIA_LISTEN")]
    listen: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node; what `alexandria` alone does
    Serve,
    /// Add files and folders to the library; what is there already is left alone
    Import {
        /// Files, and folders with everything in them
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// The collection to add to; made if there is none of this name [default: the node's own]
        #[arg(long, value_name = "NAME")]
        collection: Option<String>,
    },
    /// Show what the node holds and what it is doing
    Status {
        /// As JSON, for scripts
        #[arg(long)]
        json: bool,
    },
    /// Check every record and all content against their hashes
    Verify {
        /// Rebuild what can be rebuilt; set damaged content aside, to be fetched again
        #[arg(long)]
        repair: bool,
    },
    /// Write all records to one file; content is copied from the folder `blobs` by any tool
    Backup {
        /// The file to write
        file: PathBuf,
    },
    /// Put back what `backup` wrote; what is here now is kept aside in the data folder
    Restore {
        /// The file that `backup` wrote
        file: PathBuf,
    },
    /// Carry the library where no link reaches: write it to a stick, take it in from one
    Bundle {
        #[command(subcommand)]
        command: BundleCommand,
    },
    /// Join a fleet, with a token that its operator made
    Enroll {
        /// The bridge's enrolment address
        #[arg(long, value_name = "HOST:PORT")]
        bridge: String,
        /// The one-time token
        #[arg(long)]
        token: String,
    },
    /// Replicate with the bridge now
    Sync {
        /// Stop once both sides hold the same
        #[arg(long, required = true)]
        once: bool,
    },
    /// Show and choose which collections of the fleet this node keeps
    Collections {
        #[command(subcommand)]
        command: Option<CollectionsCommand>,
    },
    /// Fetch all content of a medium or a collection, and keep it whatever the disk is needed for
    Pin {
        /// Its id, or the title of a collection
        #[arg(value_name = "ID")]
        named: String,
    },
    /// No longer keep what `pin` kept
    Unpin {
        /// Its id, or the title of a collection
        #[arg(value_name = "ID")]
        named: String,
    },
    /// Erase a record for ever, here and at every node: what it says, the files that only it has, what was found in them
    Erase {
        /// What it is: media, author, category, collection, user, or the number of a kind
        #[arg(value_name = "KIND")]
        kind: String,
        /// Its id
        #[arg(value_name = "ID")]
        id: RecordId,
    },
    /// Received records that were set aside, because their stamps lie in the future
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Records that were not sent before this node was away for longer than its lease
    #[command(subcommand, name = "heldback")]
    HeldBack(held_back::HeldBackCommand),
    /// Show the token that lets programs on other machines write
    Token,
}

#[derive(Debug, Subcommand)]
enum QuarantineCommand {
    /// Show them: why, who wrote them, how far ahead, since when
    List {
        /// One JSON object a line, for scripts
        #[arg(long)]
        json: bool,
    },
    /// Let in what the clock here now allows
    Replay {
        /// Only this one
        id: Option<QuarantineId>,
        /// As an edit of now, whenever it was written: it replaces what is here
        #[arg(long, requires = "id")]
        as_new_edit: bool,
    },
    /// Throw one away, for good
    Drop {
        /// Which
        id: QuarantineId,
    },
}

/// Runs the command that the arguments name.
///
/// # Errors
///
/// What went wrong, with what was being done.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { global, command } = arguments;
    let flags = [("data", global.data.as_ref().map(|path| path.display().to_string())), ("listen", global.listen)];
    let flags = flags.into_iter().filter_map(|(key, value)| Some((key, toml::Value::String(value?))));
    let config = Config::load(global.config.as_deref(), std::env::vars(), flags)?;
    start_log(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        match command {
            None | Some(Command::Serve) => node::serve(config).await.map(|()| ExitCode::SUCCESS),
            Some(command) => {
                let session = NodeSession::open(config).await?;
                let result = run_in(&session, command).await;
                session.close().await?;
                result
            }
        }
    })
}

async fn run_in(session: &NodeSession, command: Command) -> anyhow::Result<ExitCode> {
    let client = session.client();
    match command {
        Command::Serve => unreachable!("`serve` is run before a session is opened"),
        Command::Import { paths, collection } => import::run(client, paths, collection).await,
        Command::Status { json } => {
            let status = client.status().await?;
            if json {
                report::json(&status);
            } else {
                report::status(&status);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify { repair } => report::verify(client.verify(&VerifyRequest { repair }).await?).await,
        Command::Backup { file } => {
            let file = std::path::absolute(file).context("find the backup file")?;
            report::backup(client.backup(&BackupRequest { file }).await?).await
        }
        Command::Restore { file } => {
            let file = std::path::absolute(file).context("find the backup file")?;
            report::restore(client.restore(&RestoreRequest { file }).await?).await
        }
        Command::Bundle { command } => bundle::run(client, command).await,
        Command::Enroll { bridge, token } => {
            let enrolled = client.enroll(&EnrollRequest { bridge, token }).await?;
            println!("Enrolled as node {} with bridge {}.", enrolled.node, enrolled.bridge);
            Ok(ExitCode::SUCCESS)
        }
        Command::Sync { once: _ } => report::sync(client.sync().await?).await,
        Command::Collections { command } => collections::run(client, command).await,
        Command::Pin { named } => collections::pin(client, named, true).await,
        Command::Unpin { named } => collections::pin(client, named, false).await,
        Command::Erase { kind, id } => {
            let answer = client.erase(&EraseRequest { kind, id }).await?;
            for erasure in answer.erasures {
                println!("erased from {}: erasure {}", erasure.bucket, erasure.id);
            }
            println!("it is out of sight; `alexandria status` tells when it has left this disk, too");
            Ok(ExitCode::SUCCESS)
        }
        Command::Quarantine(QuarantineCommand::List { json }) => quarantine::list(client, json).await,
        Command::Quarantine(QuarantineCommand::Replay { id, as_new_edit }) => {
            quarantine::replay(client, ReplayRequest { id, as_new_edit }).await
        }
        Command::Quarantine(QuarantineCommand::Drop { id }) => quarantine::discard(client, id).await,
        Command::HeldBack(command) => held_back::run(client, command).await,
        Command::Token => {
            println!("{}", client.token().await?.token);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn start_log(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.filter).context("configuration key `log.filter`")?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if config.json {
        subscriber.json().init();
    } else {
        subscriber.with_target(false).init();
    }
    Ok(())
}
