//! Cleans up after a test process however it ends: servers, folders, network namespaces.
//!
//! One small process (`testbed/reaper.py`) for each test process holds the other end of a pipe. It is told what was
//! started; when the pipe closes, be it by `kill -9`, it ends what is left. Processes are named by id and start time,
//! so a reused id is never hit.

use std::{
    fs,
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock},
};

use tempfile::TempDir;

use crate::process::{python, testbed};

/// Folders are only removed under a name that starts so.
const FOLDER_PREFIX: &str = "alexandria-test-";

/// A folder for one test's data: removed when dropped, or when the test process has ended.
pub fn folder(label: &str) -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix(&format!("{FOLDER_PREFIX}{label}-"))
        .tempdir()
        .expect("the machine has a writable folder for temporary files");
    tell(&format!("folder {}", folder.path().display()));
    folder
}

/// Has process `pid` ended with this test process: first by `signal`, then by KILL.
pub(crate) fn process(pid: u32, signal: &str) {
    // A process that has already ended needs no reaping.
    if let Some(started) = start_time(pid) {
        tell(&format!("process {pid} {started} {signal}"));
    }
}

/// Has a network namespace removed with this test process.
pub(crate) fn namespace(name: &str) {
    tell(&format!("namespace {name}"));
}

fn tell(line: &str) {
    static REAPER: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let mut pipe = REAPER.get_or_init(|| Mutex::new(start())).lock().expect("no holder of the lock panics");
    writeln!(pipe, "{line}").expect("the reaper lives as long as this process");
}

fn start() -> ChildStdin {
    let script = testbed("reaper.py");
    Command::new(python())
        .arg(&script)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C ends the tests, not the one who cleans up after them.
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| {
            panic!("start {} {} (tests/run setup installs it): {error}", python().display(), script.display())
        })
        .stdin
        .take()
        .expect("standard input is piped")
}

/// The start time of a process in clock ticks after boot: field 22 of its `stat`.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The second field, a name in brackets, may hold spaces.
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(19)?.parse().ok()
}
