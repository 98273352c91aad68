//! Wrong clocks, for one process at a time.

use std::{path::Path, process::Command};

/// The name and value of an environment variable that puts a process's clock this far ahead. What does it is a small
/// library, made in `folder` by the C compiler that Rust links with.
pub fn ahead_by_seconds(seconds: u32, folder: &Path) -> (&'static str, String) {
    let library = folder.join("wrong_clock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("testbed/wrong_clock.c");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O1", &format!("-DAHEAD_S={seconds}"), "-o"]).arg(&library).arg(&source);
    let output = command.output().unwrap_or_else(|error| panic!("run cc: {error}"));
    assert!(output.status.success(), "cc {}: {}", source.display(), String::from_utf8_lossy(&output.stderr));
    ("LD_PRELOAD", library.to_str().expect("folders of tests have plain names").to_owned())
}
