use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use alexandria_e2e::{deadline::wait_until, process::Process, reaper};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_process_is_heard_killed_and_gone() {
    let folder = reaper::folder("process");
    let log = folder.path().join("log");
    let mut process =
        Process::spawn("a shell", &mut shell("echo listening on http://here; exec sleep 600"), &log, Signal::SIGTERM);
    assert_eq!(process.said("listening on ", SOON).await, "http://here");
    assert!(process.resident_bytes() > 0 && process.resident_peak_bytes() >= process.resident_bytes());
    let pid = process.pid();
    process.kill_9();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
#[should_panic(expected = "cannot open the shelf")]
async fn a_process_that_ends_too_early_shows_its_last_words() {
    let folder = reaper::folder("process");
    let log = folder.path().join("log");
    let mut process =
        Process::spawn("a shell", &mut shell("echo cannot open the shelf; exit 1"), &log, Signal::SIGTERM);
    process.said("listening", SOON).await;
}

#[tokio::test]
#[should_panic(expected = "in vain for the moon")]
async fn a_deadline_names_what_never_came() {
    wait_until("the moon", Duration::from_millis(30), async || false).await;
}

/// Plays the test process that is killed: the reaper is told of a child and a folder, then its pipe breaks.
#[tokio::test]
async fn the_reaper_ends_what_a_killed_test_process_left() {
    let folder = tempfile::Builder::new().prefix("alexandria-test-reaped-").tempdir().unwrap().keep();
    // A shell of its own starts the child, so that nobody here has to wait for it.
    let script = format!(
        "sleep 600 & child=$!; start=$(cut -d' ' -f22 /proc/$child/stat); \
         {{ echo process $child $start TERM; echo process $child 1 KILL; echo folder {}; echo $child >&2; }} | \
         python3 testbed/reaper.py",
        folder.display()
    );
    let mut running = shell(&script);
    let mut running = running.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = String::new();
    BufReader::new(running.stderr.take().unwrap()).read_line(&mut child).unwrap();
    let child = Path::new("/proc").join(child.trim()).join("exe");
    wait_until("the child to end", SOON, async || child.read_link().is_err()).await;
    wait_until("the folder to go", SOON, async || !folder.exists()).await;
    running.wait().unwrap();
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", script]);
    command
}
