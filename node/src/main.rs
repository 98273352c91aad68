//! The `alexandria` binary. What it can do is in `cli`.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use alexandria_node::cli;
use clap::Parser;

/// How many arenas the C library's allocator may make (mallopt(3)). Its default, eight for each core, keeps what every
/// thread has freed to that thread: three times the memory for the same work.
const ARENAS_MAX: (&str, &str) = ("MALLOC_ARENA_MAX", "2");

fn main() -> ExitCode {
    limit_arenas();
    match cli::run(cli::Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("alexandria: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The allocator reads its limit when a process starts, so this one starts once more with it, as the same process. Where
/// the operator has set one, or that does not work, it stays as it is.
fn limit_arenas() {
    let (name, value) = ARENAS_MAX;
    if std::env::var_os(name).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    let mut again = Command::new("/proc/self/exe");
    if let Some(program) = arguments.next() {
        again.arg0(program);
    }
    // Returns only if it did not work.
    let _ = again.args(arguments).env(name, value).exec();
}
