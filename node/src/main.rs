//! The `alexandria` binary. What it can do is in `cli`.

use std::process::ExitCode;

use alexandria_node::cli;
use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("alexandria: {error:#}");
            ExitCode::FAILURE
        }
    }
}
