//! A node: the real `alexandria` binary with a data folder of its own.
//!
//! The folder outlives the process, so that a test can kill a node and start it again; the port stays too. The binary
//! is the one that `ALEXANDRIA_BIN` names, or the one cargo built beside the test.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    http,
    namespace::Namespace,
    process::{Process, free_port, product},
    reaper,
};

/// How long a node may take to start, on a busy machine in a debug build, and to stop politely.
const DEADLINE: Duration = Duration::from_mins(1);
/// What a server prints once it takes requests, before the rest of its address.
pub(crate) const READY: &str = "listening on http://";

/// By this file in its data folder a node knows that it has offered its small library.
const BUILTIN_OFFERED_FILE: &str = "builtin-offered";

/// What a node is started with.
pub struct NodeSettings {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    config: Option<String>,
    namespace: Option<String>,
    listen: String,
    is_bare: bool,
}

/// A node: running, killed or stopped.
pub struct NodeProcess {
    settings: NodeSettings,
    process: Option<Process>,
    /// As the node itself says it.
    url: String,
    /// Declared last: the process goes first.
    folder: TempDir,
}

impl Default for NodeSettings {
    fn default() -> Self {
        let listen = format!("127.0.0.1:{}", free_port());
        let (arguments, environment) = (Vec::new(), Vec::new());
        Self { arguments, environment, config: None, namespace: None, listen, is_bare: false }
    }
}

impl NodeSettings {
    /// One more argument after `alexandria serve --data … --listen …`.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// An environment variable, for `serve` and every other command.
    #[must_use]
    pub fn environment(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The text of the configuration file.
    #[must_use]
    pub fn config(mut self, toml: impl Into<String>) -> Self {
        self.config = Some(toml.into());
        self
    }

    /// Runs inside a namespace; the test then reaches it by `listen`, over a link or by commands in there.
    #[must_use]
    pub fn inside(mut self, namespace: &Namespace, listen: impl Into<String>) -> Self {
        self.namespace = namespace.name().map(str::to_owned);
        self.listen = listen.into();
        self
    }

    /// Without the small library that an empty node offers.
    #[must_use]
    pub fn bare(mut self) -> Self {
        self.is_bare = true;
        self
    }

    /// Replicates only when told to: `sync --once`.
    #[must_use]
    pub fn by_hand(self) -> Self {
        self.environment("ALEXANDRIA_REPLICATION__AUTOMATIC", "false")
    }

    /// A node with an empty data folder that does not run yet.
    pub fn prepare(self) -> NodeProcess {
        let node = NodeProcess { settings: self, process: None, url: String::new(), folder: reaper::folder("node") };
        if node.settings.is_bare {
            std::fs::create_dir(node.data())
                .and_then(|()| std::fs::write(node.data().join(BUILTIN_OFFERED_FILE), ""))
                .unwrap_or_else(|error| panic!("prepare {}: {error}", node.data().display()));
        }
        node
    }

    /// Starts a node on an empty data folder.
    pub async fn start(self) -> NodeProcess {
        let mut node = self.prepare();
        node.start_again().await;
        node
    }
}

impl NodeProcess {
    /// Starts a node as it comes, on an empty data folder.
    pub async fn start() -> Self {
        NodeSettings::default().start().await
    }

    /// The text of the configuration file from the next start on.
    pub fn configure(&mut self, toml: impl Into<String>) {
        self.settings.config = Some(toml.into());
    }

    /// Starts a killed or stopped node on the data and the port it had.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "the node is running already");
        let mut command = self.command("serve");
        command.args(["--listen", &self.settings.listen]).args(&self.settings.arguments);
        let log = self.folder.path().join("log");
        let process = self.process.insert(Process::spawn("alexandria", &mut command, &log, Signal::SIGTERM));
        self.url = format!("http://{}", process.said(READY, DEADLINE).await.trim_end_matches('/'));
    }

    /// A power cut, as far as the process can tell.
    pub fn kill_9(&mut self) {
        self.process.take().expect("the node is running").kill_9();
    }

    /// See [`Process::stop`].
    pub async fn stop(&mut self) {
        self.process.take().expect("the node is running").stop(DEADLINE).await;
    }

    /// `alexandria SUBCOMMAND --data … `, to be given its other arguments: works beside a running node.
    pub fn command(&self, subcommand: &str) -> Command {
        let binary = product("alexandria", "ALEXANDRIA_BIN");
        let mut command = match &self.settings.namespace {
            Some(name) => Namespace::existing(name).command(binary),
            None => Command::new(binary),
        };
        command.arg(subcommand).arg("--data").arg(self.data());
        if let Some(config) = &self.settings.config {
            let path = self.folder.path().join("config.toml");
            std::fs::write(&path, config).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
            command.arg("--config").arg(path);
        }
        command.envs(self.settings.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a subcommand to its end, without holding up the test's runtime.
    pub async fn run(&self, subcommand: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(subcommand);
        command.args(arguments);
        output(command).await
    }

    /// Runs a subcommand that must succeed. Returns what it printed.
    ///
    /// # Panics
    ///
    /// When it fails, with its own words.
    pub async fn done(&self, subcommand: &str, arguments: &[&str]) -> String {
        let output = self.run(subcommand, arguments).await;
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{subcommand} {arguments:?}: {}\n{said}{complained}", output.status);
        said.into_owned()
    }

    /// Runs a subcommand that must fail. Returns what it said of it.
    pub async fn fails(&self, subcommand: &str, arguments: &[&str]) -> String {
        let output = self.run(subcommand, arguments).await;
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success(), "{subcommand} {arguments:?} succeeded: {said}{complained}");
        format!("{said}{complained}")
    }

    /// Replicates with its bridge until both hold the same.
    pub async fn sync_once(&self) {
        self.done("sync", &["--once"]).await;
    }

    /// What `status --json` says.
    pub async fn status(&self) -> serde_json::Value {
        let said = self.done("status", &["--json"]).await;
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("not JSON ({error}): {said}"))
    }

    /// `http://…`, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A GET of a path such as `/v1/media`.
    pub fn get(&self, path: &str) -> http::Request {
        http::get(format!("{}{path}", self.url))
    }

    /// Any request for a path such as `/v1/media`.
    pub fn request(&self, method: hyper::Method, path: &str) -> http::Request {
        http::request(method, format!("{}{path}", self.url))
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Copies the data folder as it is, beside it, as an image of a card is made.
    pub fn image(&self, name: &str) -> PathBuf {
        let image = self.scratch().join(name);
        copy_folder(&self.data(), &image);
        image
    }

    /// Puts an image of a stopped node's data folder in the place of the folder.
    ///
    /// # Panics
    ///
    /// If the node runs.
    pub fn put_back(&self, image: &Path) {
        assert!(self.process.is_none(), "the node is running");
        std::fs::remove_dir_all(self.data()).unwrap_or_else(|error| panic!("clear {}: {error}", self.data().display()));
        copy_folder(image, &self.data());
    }

    /// A folder beside the data folder, for what the test itself writes.
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the node is running")
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    let copied = copied.unwrap_or_else(|error| panic!("start cp: {error}"));
    assert!(copied.success(), "copy {} to {}: {copied}", from.display(), to.display());
}

/// Runs a command to its end, without holding up the test's runtime.
pub async fn output(mut command: Command) -> Output {
    let shown = format!("{command:?}");
    let run = tokio::task::spawn_blocking(move || command.output());
    run.await.expect("running a command does not panic").unwrap_or_else(|error| panic!("start {shown}: {error}"))
}
