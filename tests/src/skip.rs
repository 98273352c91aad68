//! What this machine cannot run. A skipped test says so; `tests/run` counts it apart from the passed ones.

use std::{
    fs::OpenOptions,
    io::{self, Write},
};

/// A file that `tests/run` reads the skipped tests from, one line each.
const VARIABLE: &str = "ALEXANDRIA_SKIPPED";

/// Says that the test running on this thread is skipped, and why. The test returns right after.
pub fn because(reason: impl std::fmt::Display) {
    let thread = std::thread::current();
    let line = format!("skipped: {}: {reason}\n", thread.name().unwrap_or("a test"));
    // Past the capturing of the test runner, which hides what a passing test prints.
    let _ = io::stderr().lock().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os(VARIABLE) {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|error| panic!("note a skipped test in {}: {error}", path.display()));
    }
}
