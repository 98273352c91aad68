//! A server as a child process: its words go to a file, it says when it is ready, it is gone when the test is.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    deadline::{wait_for, wait_until},
    reaper,
};

/// How much of a log is shown when a test fails.
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// A running child. Killed when dropped; a failing test shows the end of its log.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where this run's words begin in the log.
    log_start: u64,
}

impl Process {
    /// Starts `command`, appending what it prints to `log`. `end_with` ends it if this test process is itself killed.
    pub fn spawn(name: &str, command: &mut Command, log: &Path, end_with: Signal) -> Self {
        let words = File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|error| panic!("open {}: {error}", log.display()));
        let log_start = words.metadata().expect("an open file has a size").len();
        let child = command
            .stdin(Stdio::null())
            .stdout(words.try_clone().expect("a file can be shared"))
            .stderr(words)
            .spawn()
            .unwrap_or_else(|error| panic!("start {name} ({command:?}): {error}"));
        reaper::process(child.id(), end_with.as_str().trim_start_matches("SIG"));
        Self { name: name.into(), child, log: log.into(), log_start }
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits until this run has printed a line containing `marker`; returns what follows it on that line.
    ///
    /// # Panics
    ///
    /// When the process ends first, or `deadline` passes.
    pub async fn said(&mut self, marker: &str, deadline: Duration) -> String {
        let what = format!("{} to say {marker:?}", self.name);
        wait_for(&what, deadline, async || {
            let words = self.words();
            let found = words.split_inclusive('\n').filter(|line| line.ends_with('\n')).find_map(|line| {
                let (_, rest) = line.split_once(marker)?;
                Some(rest.trim_end().to_owned())
            });
            if found.is_none()
                && let Some(status) = self.ended()
            {
                panic!("{} ended with {status} before it said {marker:?}:\n{}", self.name, self.log_tail());
            }
            found
        })
        .await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("process ids are small"));
        // Fails only for a process that has ended, which is what most signals are for.
        let _ = kill(pid, signal);
    }

    /// Waits for the process to end.
    pub async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} to end", self.name);
        wait_for(&what, deadline, async || self.ended()).await
    }

    /// A polite end: SIGTERM, and the process must leave with success.
    pub async fn stop(mut self, deadline: Duration) {
        self.signal(Signal::SIGTERM);
        let status = self.wait(deadline).await;
        assert!(status.success(), "{} stopped with {status}:\n{}", self.name, self.log_tail());
    }

    /// Ends the process as a power cut would, and waits until it is gone.
    pub fn kill_9(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Everything this run has printed.
    pub fn words(&self) -> String {
        self.read_from(self.log_start)
    }

    /// The end of the log, with a heading.
    pub fn log_tail(&self) -> String {
        let size = fs::metadata(&self.log).map_or(0, |log| log.len());
        format!(
            "--- the last words of {} ---\n{}",
            self.name,
            self.read_from(size.saturating_sub(LOG_TAIL_BYTES).max(self.log_start))
        )
    }

    /// Memory in use, from the kernel's books.
    pub fn resident_bytes(&self) -> u64 {
        self.status_kib("VmRSS:") * 1024
    }

    /// The most memory ever in use, or since [`Self::forget_resident_peak`].
    pub fn resident_peak_bytes(&self) -> u64 {
        self.status_kib("VmHWM:") * 1024
    }

    /// Of what is in use, what is not pages of files, which the kernel takes back whenever it needs them.
    pub fn resident_anonymous_bytes(&self) -> u64 {
        self.status_kib("RssAnon:") * 1024
    }

    /// Starts [`Self::resident_peak_bytes`] anew, from what is in use now.
    pub fn forget_resident_peak(&self) {
        let path = format!("/proc/{}/clear_refs", self.pid());
        fs::write(&path, "5").unwrap_or_else(|error| panic!("write {path}: {error}"));
    }

    fn status_kib(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"));
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let value = line.and_then(|line| line.split_whitespace().next()).and_then(|text| text.parse().ok());
        value.unwrap_or_else(|| panic!("{path} has no {field}: has {} ended?", self.name))
    }

    fn read_from(&self, start: u64) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut log = File::open(&self.log)?;
            log.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        // A log that cannot be read must not hide the failure it was wanted for.
        read().map_or_else(
            |error| format!("({}: {error})", self.log.display()),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a server takes connections on `address`.
pub async fn wait_listening(name: &str, address: std::net::SocketAddr, deadline: Duration) {
    let what = format!("{name} to listen on {address}");
    wait_until(&what, deadline, async || tokio::net::TcpStream::connect(address).await.is_ok()).await;
}

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("127.0.0.1 has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// The product's binary `name`: where `variable` says, or beside the running test as cargo lays them out.
///
/// # Panics
///
/// When it is in neither place: build it first, or let `tests/run` do so.
pub fn product(name: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let test = std::env::current_exe().expect("a process knows its own file");
    let profile = test.ancestors().nth(2).expect("test binaries lie two folders below the target folder");
    let path = profile.join(name);
    assert!(path.exists(), "{} is not built (run tests/run, or set {variable})", path.display());
    path
}

/// The Python that has `testbed/requirements.txt` installed.
pub(crate) fn python() -> PathBuf {
    std::env::var_os("ALEXANDRIA_TESTBED_PYTHON").map_or_else(|| tests().join(".venv/bin/python"), PathBuf::from)
}

/// A program that came with those, such as `schemathesis`.
pub fn python_program(name: &str) -> PathBuf {
    python().with_file_name(name)
}

/// A file under `tests/testbed`.
pub(crate) fn testbed(file: impl AsRef<OsStr>) -> PathBuf {
    tests().join("testbed").join(file.as_ref())
}

/// The root of the source tree.
pub fn source_tree() -> &'static Path {
    tests().parent().expect("the folder of the tests is in one")
}

/// The folder `tests` of the source tree.
pub(crate) fn tests() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
