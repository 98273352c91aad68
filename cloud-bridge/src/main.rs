//! `alexandria-bridge`: see `alexandria-bridge --help`.

use std::process::ExitCode;

use alexandria_cloud_bridge::commands::{self, Arguments};
use clap::Parser;

fn main() -> ExitCode {
    match commands::run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            // With its causes: "open the fleet: PostgreSQL failed: …".
            eprintln!("alexandria-bridge: {error:#}");
            ExitCode::FAILURE
        }
    }
}
