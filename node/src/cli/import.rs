//! `alexandria import`: a progress bar on a terminal, lines elsewhere, and a summary at the end.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::local::messages::ImportSummary;
use crate::local::{Client, ImportLine, ImportRequest};

const BAR: &str = "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {eta} left  {wide_msg}";

pub(super) async fn run(client: &Client, paths: Vec<PathBuf>, collection: Option<String>) -> anyhow::Result<ExitCode> {
    let paths = paths
        .into_iter()
        .map(|path| std::path::absolute(&path).with_context(|| format!("find {}", path.display())))
        .collect::<Result<_, _>>()?;
    let mut lines = client.import(&ImportRequest { paths, collection }).await?;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template(BAR).context("lay out the progress bar")?);
    loop {
        match lines.next().await? {
            ImportLine::Found { files, bytes } => {
                bar.set_length(bytes);
                bar.set_message(format!("{files} files"));
            }
            ImportLine::Imported { bytes, title, .. } => {
                bar.inc(bytes);
                bar.set_message(title);
            }
            ImportLine::Present { bytes, .. } => bar.inc(bytes),
            ImportLine::Refused { path, reason } => {
                bar.suspend(|| eprintln!("not imported: {}: {reason}", path.display()));
            }
            ImportLine::Done(summary) => {
                bar.finish_and_clear();
                print_summary(summary);
                let nothing_but_refusals = summary.refused > 0 && summary.imported + summary.present == 0;
                return Ok(if nothing_but_refusals { ExitCode::FAILURE } else { ExitCode::SUCCESS });
            }
            ImportLine::Failed { reason } => bail!("the import stopped: {reason}"),
        }
    }
}

fn print_summary(summary: ImportSummary) {
    let ImportSummary { imported, present, hidden, refused, bytes } = summary;
    println!("{imported} imported ({}), {present} already there, {refused} refused", HumanBytes(bytes));
    if hidden > 0 {
        println!("{hidden} of those that are there were deleted, and readers do not see them; they can be restored");
    }
}
