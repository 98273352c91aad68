//! `alexandria-bridge bundle`: writes bundles, shows what one would change, and takes it in once somebody has said yes.

use std::io::{IsTerminal, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alexandria_sync::bundle::Progress;
use alexandria_sync::id::NodeId;
use anyhow::{Context, bail};
use clap::Subcommand;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::bridge;
use crate::bundle::{Bundles, ExportOptions, Surveyed, Taken};
use crate::config::Config;

pub(super) const ABOUT: &str = "\
Replicate with nodes that no link reaches: over a USB stick.

  1. Here:          alexandria-bridge bundle export --for NODE FILE
  2. At the node:   alexandria bundle import FILE
                    alexandria bundle export --for BRIDGE BACK
  3. Here:          alexandria-bridge bundle import BACK FILE.NODE.receipt

NODE is an id of `alexandria-bridge nodes list`; BRIDGE is who made FILE, as the import at the node says. The receipt lies beside what \
was imported: with it, the next export for that node carries only what is new. Run this where the \
bridge runs, with its configuration: its database, its S3 bucket, its topic and its authority's key. It may run beside \
`alexandria-bridge serve`. Whatever is imported twice, cut off or interrupted does no harm: import it again.";

const BAR: &str = "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {eta} left  {wide_msg}";

/// What is done with bundles.
#[derive(Debug, Subcommand)]
pub(super) enum BundleCommand {
    /// Write the catalogue and collections to a file, for a node that no link reaches.
    Export {
        /// The file to write, such as one on a USB stick.
        file: PathBuf,
        /// Only what this node does not have yet, as its last receipt says, and what belongs to its site [default: everything
        /// but sites, for any node; that renews nobody's lease].
        #[arg(long = "for", value_name = "NODE")]
        reader: Option<NodeId>,
        /// A collection to carry, by title or id; may be given again [default: all].
        #[arg(long = "collection", value_name = "NAME")]
        collections: Vec<String>,
        /// Without content.
        #[arg(long)]
        records_only: bool,
        /// No larger than this; what does not fit is left for the next one.
        #[arg(long, value_name = "N")]
        max_bytes: Option<u64>,
        /// How long it is good, at most 180 days [default: 90].
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=180))]
        valid_days: Option<u64>,
    },
    /// Show what a node's bundle would change, ask, and take it in; take note of a receipt.
    Import {
        /// Bundles and receipts.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Only show it.
        #[arg(long)]
        dry_run: bool,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
        /// Where to write the receipt for the node [default: beside the bundle].
        #[arg(long, value_name = "FILE")]
        receipt: Option<PathBuf>,
    },
}

pub(super) async fn run(command: &BundleCommand, config: Config) -> anyhow::Result<ExitCode> {
    match command {
        BundleCommand::Export { file, reader, collections, records_only, max_bytes, valid_days } => {
            let options = ExportOptions {
                file: file.clone(),
                collections: collections.clone(),
                reader: *reader,
                records_only: *records_only,
                max_bytes: *max_bytes,
                valid_days: *valid_days,
            };
            let bundles = bridge::open_bundles(config).await?;
            let bar = bar()?;
            let exported = bundles.export(&options, &mut |now| show(&bar, now, now.content_bytes)).await;
            bar.finish_and_clear();
            println!("{}", exported.context("no bundle was written")?);
            Ok(ExitCode::SUCCESS)
        }
        BundleCommand::Import { files, dry_run, yes, receipt } => {
            if receipt.is_some() && files.len() > 1 {
                bail!("--receipt names one file; import the bundles one by one");
            }
            let bundles = bridge::open_bundles(config).await?;
            let mut all_taken = true;
            for file in files {
                all_taken &= import(&bundles, file, receipt.as_deref(), *dry_run, *yes).await?;
            }
            Ok(if all_taken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// Tells whether all of it was taken.
async fn import(
    bundles: &Bundles,
    file: &Path,
    receipt: Option<&Path>,
    dry_run: bool,
    yes: bool,
) -> anyhow::Result<bool> {
    let surveyed = bundles.survey(file).await;
    let surveyed = surveyed.with_context(|| format!("nothing was taken of {}", file.display()))?;
    println!("{}", file.display());
    let is_sound = match &surveyed {
        Surveyed::Bundle(contents) => {
            println!("{contents}");
            contents.is_sound()
        }
        Surveyed::Receipt(contents) => {
            println!("{}", contents.in_words("alexandria-bridge"));
            !contents.outdated
        }
    };
    if dry_run {
        return Ok(is_sound);
    }
    if matches!(surveyed, Surveyed::Bundle(_)) && !yes && !confirmed()? {
        println!("nothing was changed");
        return Ok(false);
    }
    let of_bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let bar = bar()?;
    let taken = bundles.import(file, receipt, &mut |now| show(&bar, now, of_bytes)).await;
    bar.finish_and_clear();
    match taken.context("the import stopped; what was taken stays, and the same file goes on from there")? {
        Taken::Bundle(imported) => {
            println!("{imported}");
            Ok(imported.is_complete())
        }
        Taken::Receipt(noted) => Ok(!noted.outdated),
    }
}

fn confirmed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody is there to say yes; --yes does");
    }
    print!("Take it in? [y/N] ");
    std::io::stdout().flush().context("ask")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn show(bar: &ProgressBar, now: Progress, of_bytes: u64) -> ControlFlow<()> {
    bar.set_length(of_bytes.max(now.bytes));
    bar.set_position(now.bytes);
    bar.set_message(format!("{} records", HumanCount(now.records)));
    ControlFlow::Continue(())
}

fn bar() -> anyhow::Result<ProgressBar> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template(BAR).context("lay out the progress bar")?);
    Ok(bar)
}
