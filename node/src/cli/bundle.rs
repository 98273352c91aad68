//! `alexandria bundle`: writes bundles, shows what one would change, and takes it in once somebody has said yes.

use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alexandria_sync::id::NodeId;
use anyhow::{Context, bail};
use clap::Subcommand;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::local::Client;
use crate::local::bundles::{
    BundleExportLine, BundleExportRequest, BundleImportLine, BundleProgress, BundleRequest, BundleSurvey,
};

const BAR: &str = "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {eta} left  {wide_msg}";

/// What is done with bundles.
#[derive(Debug, Subcommand)]
pub(super) enum BundleCommand {
    /// Write the catalogue and collections to a file, for a node that no link reaches
    Export {
        /// The file to write, such as one on a USB stick
        file: PathBuf,
        /// A collection to carry, by title or id; may be given again [default: all]
        #[arg(long = "collection", value_name = "NAME")]
        collections: Vec<String>,
        /// Only what this node does not have yet, as its last receipt says [default: everything, for anyone]
        #[arg(long = "for", value_name = "NODE")]
        reader: Option<NodeId>,
        /// Without content
        #[arg(long)]
        records_only: bool,
        /// No larger than this; what does not fit is left for the next one
        #[arg(long, value_name = "N")]
        max_bytes: Option<u64>,
        /// How long it is good, at most 180 days [default: 90]
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=180))]
        valid_days: Option<u64>,
    },
    /// Show what a bundle would change here, ask, and take it in; take note of a receipt
    Import {
        /// Bundles and receipts
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Only show it
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        /// Take what nobody that this node knows has signed
        #[arg(long)]
        unsigned: bool,
        /// Where to write the receipt [default: beside the bundle]
        #[arg(long, value_name = "FILE")]
        receipt: Option<PathBuf>,
    },
}

pub(super) async fn run(client: &Client, command: BundleCommand) -> anyhow::Result<ExitCode> {
    match command {
        BundleCommand::Export { file, collections, reader, records_only, max_bytes, valid_days } => {
            let file = absolute(&file)?;
            export(client, BundleExportRequest { file, collections, reader, records_only, max_bytes, valid_days }).await
        }
        BundleCommand::Import { files, dry_run, yes, unsigned, receipt } => {
            if receipt.is_some() && files.len() > 1 {
                bail!("--receipt names one file; import the bundles one by one");
            }
            let receipt = receipt.as_deref().map(absolute).transpose()?;
            let mut all_taken = true;
            for file in files {
                let request = BundleRequest { file: absolute(&file)?, unsigned, receipt: receipt.clone() };
                all_taken &= import(client, &request, dry_run, yes).await?;
            }
            Ok(if all_taken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

async fn export(client: &Client, request: BundleExportRequest) -> anyhow::Result<ExitCode> {
    let mut lines = client.export_bundle(&request).await?;
    let bar = bar()?;
    loop {
        match lines.next().await? {
            BundleExportLine::Progress(progress) => show(&bar, progress),
            BundleExportLine::Done(exported) => {
                bar.finish_and_clear();
                println!("{exported}");
                return Ok(ExitCode::SUCCESS);
            }
            BundleExportLine::Failed { reason } => bail!("no bundle was written: {reason}"),
        }
    }
}

/// Tells whether all of it was taken.
async fn import(client: &Client, request: &BundleRequest, dry_run: bool, yes: bool) -> anyhow::Result<bool> {
    let surveyed = client.survey_bundle(request).await;
    let survey = surveyed.with_context(|| format!("nothing was taken of {}", request.file.display()))?;
    println!("{}", request.file.display());
    let sound = match &survey {
        BundleSurvey::Bundle(contents) => {
            println!("{contents}");
            contents.is_sound()
        }
        BundleSurvey::Receipt(contents) => {
            println!("{}", contents.in_words("alexandria"));
            !contents.outdated
        }
    };
    if dry_run {
        return Ok(sound);
    }
    if matches!(survey, BundleSurvey::Bundle(_)) && !yes && !confirmed()? {
        println!("nothing was changed");
        return Ok(false);
    }
    let mut lines = client.import_bundle(request).await?;
    let bar = bar()?;
    loop {
        match lines.next().await? {
            BundleImportLine::Progress(progress) => show(&bar, progress),
            BundleImportLine::Done(imported) => {
                bar.finish_and_clear();
                println!("{imported}");
                return Ok(imported.is_complete());
            }
            BundleImportLine::Noted(noted) => return Ok(!noted.outdated),
            BundleImportLine::Failed { reason } => bail!("the import stopped; what was taken stays: {reason}"),
        }
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

fn show(bar: &ProgressBar, progress: BundleProgress) {
    bar.set_length(progress.of_bytes.max(progress.bytes));
    bar.set_position(progress.bytes);
    bar.set_message(format!("{} records", HumanCount(progress.records)));
}

fn bar() -> anyhow::Result<ProgressBar> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template(BAR).context("lay out the progress bar")?);
    Ok(bar)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("find {}", path.display()))
}
