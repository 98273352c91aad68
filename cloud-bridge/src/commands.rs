//! The command line's verbs.

mod bundle;

use std::path::PathBuf;
use std::process::ExitCode;

use alexandria_sync::id::NodeId;
use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

use self::bundle::BundleCommand;
use crate::bridge;
use crate::config::{Config, LogConfig, LogFormat};
use crate::fleet::Fleet;
use crate::fleet::nodes::PAGE_SIZE_MAX;
use crate::metrics::Metrics;
use crate::postgres;

/// The cloud control plane of a fleet of Alexandria nodes.
#[derive(Debug, Parser)]
#[command(name = "alexandria-bridge", version)]
pub struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, global = true, env = "ALEXANDRIA_BRIDGE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets one key, over the file and the environment: `content.bucket=library`. May be given again.
    #[arg(long = "set", global = true, value_name = "SECTION.KEY=VALUE")]
    settings: Vec<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve nodes and operators until told to stop.
    Serve,
    /// Bring the database up to this version, and make the fleet's certificate authority if there is none.
    Migrate,
    /// One-time tokens that let nodes in.
    #[command(subcommand)]
    Token(TokenCommand),
    /// The list of nodes.
    #[command(subcommand)]
    Nodes(NodesCommand),
    /// One node.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Replicate with nodes that no link reaches: over a USB stick.
    #[command(subcommand, long_about = bundle::ABOUT)]
    Bundle(BundleCommand),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it. It is not kept, and works once.
    Create {
        /// The site that the node will be at.
        #[arg(long, value_name = "NAME")]
        site: String,
        /// For how many hours it is good.
        #[arg(long, value_name = "HOURS")]
        hours: Option<u32>,
        /// The node whose place the new one takes: it gets what belongs to that one's site, and that one is revoked.
        #[arg(long, value_name = "NODE")]
        replaces: Option<NodeId>,
    },
}

#[derive(Debug, Subcommand)]
enum NodesCommand {
    /// Print all nodes.
    List {
        /// One JSON object for each line.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Shut a node out, for good.
    Revoke {
        /// Its id.
        id: NodeId,
    },
}

/// Does what the arguments say.
///
/// # Errors
///
/// What went wrong, for a person to read.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let config = Config::load(arguments.config.as_deref(), environment, &arguments.settings)?;
    start_log(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        match &arguments.command {
            Command::Serve => {
                config.check_for_serving()?;
                bridge::serve(config).await?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Bundle(command) => {
                config.check_for_stores()?;
                bundle::run(command, config).await
            }
            command => {
                config.check_for_database()?;
                manage(command, config).await?;
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

async fn manage(command: &Command, config: Config) -> anyhow::Result<()> {
    let pool = postgres::pool(&config.postgres).context("postgres.url")?;
    if let Command::Migrate = command {
        postgres::migrate(&pool).await.context("migrate the database")?;
    }
    let fleet = Fleet::open(pool, config.fleet, Metrics::new()).await.context("open the fleet")?;
    match command {
        Command::Serve | Command::Bundle(_) => unreachable!("these are not managing"),
        Command::Migrate => println!("the database is up to date"),
        Command::Token(TokenCommand::Create { site, hours, replaces }) => {
            let token = match replaces {
                Some(node) => fleet.create_replacement_token(site, *hours, *node).await?,
                None => fleet.create_token(site, *hours).await?,
            };
            println!("{token}");
        }
        Command::Nodes(NodesCommand::List { json }) => list_nodes(&fleet, *json).await?,
        Command::Node(NodeCommand::Revoke { id }) => {
            if !fleet.revoke(*id).await? {
                bail!("there is no node {id}");
            }
            println!("{id} is revoked; a running bridge tells AWS IoT");
        }
    }
    Ok(())
}

async fn list_nodes(fleet: &Fleet, json: bool) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let nodes = fleet.nodes(after, PAGE_SIZE_MAX).await?;
        for node in &nodes {
            if json {
                println!("{}", serde_json::to_string(node)?);
                continue;
            }
            let state = node.revoked_at.as_ref().map_or("active", |_| "revoked");
            let lease = match &node.lease_until {
                Some(_) if node.lapsed => "lapsed",
                Some(until) => until,
                None => "none",
            };
            let certificate = node.certificate_until.as_deref().unwrap_or("unknown");
            let seen = node.last_session_at.as_deref().unwrap_or("never");
            println!(
                "{}  {state:8}  iot {:10}  seen {seen:20}  lease {lease:20}  \
                 certificate {certificate:20}  {}  {}",
                node.id, node.iot_state, node.site, node.name
            );
        }
        after = nodes.last().map(|node| node.id);
        if (nodes.len() as i64) < PAGE_SIZE_MAX {
            return Ok(());
        }
    }
}

/// The log goes to standard error; standard output is for what was asked for.
fn start_log(config: &LogConfig) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.filter).context("log.filter")?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Json => subscriber.json().init(),
        LogFormat::Text => subscriber.with_ansi(false).init(),
    }
    Ok(())
}
