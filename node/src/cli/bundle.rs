//! `alexandria bundle`: writes bundles, shows what one would change, and takes it in once somebody has said yes.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alexandria_sync::bundle::date;
use alexandria_sync::id::NodeId;
use anyhow::{Context, bail};
use clap::Subcommand;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use crate::local::Client;
use crate::local::bundles::{
    BundleContents, BundleExportLine, BundleExportRequest, BundleExported, BundleImportLine, BundleImported,
    BundleProgress, BundleRequest, BundleSurvey, MadeBy, ReceiptContents, RefusedBucket,
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
                print_exported(&request, &exported);
                return Ok(ExitCode::SUCCESS);
            }
            BundleExportLine::Failed { reason } => bail!("no bundle was written: {reason}"),
        }
    }
}

fn print_exported(request: &BundleExportRequest, exported: &BundleExported) {
    println!(
        "{} records and {} files in a bundle of {}, good until {}",
        HumanCount(exported.records),
        HumanCount(exported.blobs),
        HumanBytes(exported.bytes),
        date(exported.expires_unix_ms)
    );
    if !exported.signed {
        println!("it is not signed: this node is in no fleet, and whoever imports it has to say --unsigned");
    }
    if let Some(reader) = request.reader.filter(|_| !exported.goes_on) {
        println!("it starts at the beginning: no receipt of node {reader} is known");
    }
    if exported.records_left_out {
        println!("not all records fitted: import the receipt of this one, then export again for the same node");
    } else if exported.blobs_left_out > 0 {
        let left_out = HumanCount(exported.blobs_left_out);
        println!("{left_out} files did not fit: import the receipt of this one, then export again for the same node");
    }
    if exported.blobs_absent > 0 {
        println!("{} files are not on this node either", HumanCount(exported.blobs_absent));
    }
}

/// Tells whether all of it was taken.
async fn import(client: &Client, request: &BundleRequest, dry_run: bool, yes: bool) -> anyhow::Result<bool> {
    let surveyed = client.survey_bundle(request).await;
    let survey = surveyed.with_context(|| format!("nothing was taken of {}", request.file.display()))?;
    println!("{}", request.file.display());
    let sound = match &survey {
        BundleSurvey::Bundle(contents) => print_contents(contents),
        BundleSurvey::Receipt(contents) => print_receipt(contents),
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
                return Ok(print_imported(&imported));
            }
            BundleImportLine::Noted(noted) => return Ok(!noted.outdated),
            BundleImportLine::Failed { reason } => bail!("the import stopped; what was taken stays: {reason}"),
        }
    }
}

fn print_contents(contents: &BundleContents) -> bool {
    println!("  made by    {}, good until {}", made_by(&contents.made_by), date(contents.expires_unix_ms));
    if contents.kinds.is_empty() {
        println!("  records    none");
    }
    for kind in &contents.kinds {
        let mut said = format!(
            "{} new, {} changed, {} deleted, {} known",
            HumanCount(kind.new),
            HumanCount(kind.changed),
            HumanCount(kind.deleted),
            HumanCount(kind.known)
        );
        if kind.set_aside > 0 {
            // Writing to a string cannot fail.
            let _ = write!(said, ", {} from a clock too far ahead", HumanCount(kind.set_aside));
        }
        println!("  records    {:<16} {said}", kind.kind);
    }
    println!(
        "  content    {} files new, {}; {} here already",
        HumanCount(contents.blobs_new),
        HumanBytes(contents.bytes_new),
        HumanCount(contents.blobs_known)
    );
    if !contents.has_room {
        println!("  ROOM       there is not enough for all of this content: what fits is taken");
    }
    if let Some(fault) = &contents.fault {
        println!("  DAMAGED    {fault}");
    }
    let complete = print_refused(&contents.refused);
    complete && contents.fault.is_none() && contents.has_room
}

fn print_receipt(contents: &ReceiptContents) -> bool {
    println!("  receipt    of {}", made_by(&contents.made_by));
    println!(
        "  it says    {} buckets read, {} files lacking",
        HumanCount(contents.buckets),
        HumanCount(contents.lacks)
    );
    if contents.outdated {
        println!("  OUTDATED   a later one is known already; this one is not taken");
    } else {
        println!("  next       `alexandria bundle export FILE --for {}` carries what is new", contents.made_by.node);
    }
    !contents.outdated
}

fn print_imported(imported: &BundleImported) -> bool {
    println!(
        "{} records taken in, {} known before; {} files, {}",
        HumanCount(imported.applied),
        HumanCount(imported.known),
        HumanCount(imported.blobs),
        HumanBytes(imported.blob_bytes)
    );
    if imported.set_aside > 0 {
        println!("{} records were set aside: a clock is wrong", HumanCount(imported.set_aside));
    }
    if imported.full {
        println!("there was no room for all content; what is whole is kept");
    }
    if imported.blobs_busy > 0 {
        println!(
            "{} files are being received from elsewhere just now; import it again",
            HumanCount(imported.blobs_busy)
        );
    }
    if let Some(fault) = &imported.fault {
        println!("{fault}; everything before that is kept");
    }
    if imported.blobs_incomplete > 0 {
        println!("{} files were not whole in it", HumanCount(imported.blobs_incomplete));
    }
    match (&imported.receipt, &imported.receipt_error) {
        (Some(receipt), _) => println!("the receipt for node {} is {}", imported.made_by.node, receipt.display()),
        (None, Some(error)) => println!("no receipt could be written ({error}); --receipt FILE puts it elsewhere"),
        (None, None) => {}
    }
    let complete = print_refused(&imported.refused);
    complete && !imported.full && imported.fault.is_none() && imported.blobs_busy + imported.blobs_incomplete == 0
}

/// Tells whether nothing is missing; what is not for this node is not.
fn print_refused(refused: &[RefusedBucket]) -> bool {
    for RefusedBucket { bucket, reason, .. } in refused {
        println!("  LEFT OUT   {bucket}: {reason}");
    }
    !refused.iter().any(|refused| refused.gap)
}

fn made_by(made_by: &MadeBy) -> String {
    let MadeBy { node, is_bridge, unix_ms, vouched } = made_by;
    let what = if *is_bridge { "bridge" } else { "node" };
    let vouched = if *vouched { "signed by a member of this fleet" } else { "NOT SIGNED by anyone known here" };
    format!("{what} {node} on {}, {vouched}", date(*unix_ms))
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
