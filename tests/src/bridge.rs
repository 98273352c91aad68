//! A bridge: the real `alexandria-bridge` binary with its neighbours around it.
//!
//! The binary is the one that `ALEXANDRIA_BRIDGE_BIN` names, or the one cargo built beside the test. What it is told
//! stands in [`Neighbours::environment`] alone.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    aws::{Aws, CREDENTIAL, REGION},
    http,
    node::{READY, output},
    postgres::Database,
    process::{Process, free_port, product},
    reaper,
};

/// How long a bridge may take to start, on a busy machine in a debug build, and to stop politely.
const DEADLINE: Duration = Duration::from_mins(1);

/// What a bridge needs around it. Several replicas share one of these.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// `postgres://…`; through a proxy, where a test cuts it off.
    pub database_url: String,
    /// Where S3, SNS and IoT are.
    pub aws_url: String,
    /// S3 alone elsewhere: behind a proxy, say.
    pub s3_url: Option<String>,
    pub bucket: String,
    pub topic_arn: String,
}

/// A bridge: running, killed or stopped.
pub struct BridgeProcess {
    neighbours: Neighbours,
    environment: Vec<(String, String)>,
    /// Operator HTTP.
    listen: SocketAddr,
    /// Where nodes connect, by UDP and TCP.
    nodes: SocketAddr,
    process: Option<Process>,
    /// Declared last: the process goes first.
    folder: TempDir,
}

impl Neighbours {
    /// A bucket and a topic of one's own on `aws`.
    pub async fn on(database: &Database, aws: &Aws) -> Self {
        let bucket = aws.unique("content");
        aws.s3().create_bucket(&bucket).await;
        let topic_arn = aws.messaging().create_topic(&aws.unique("events")).await;
        Self { database_url: database.url(), aws_url: aws.url(), s3_url: None, bucket, topic_arn }
    }

    /// The bridge's settings, as it reads them from its environment.
    fn environment(&self) -> Vec<(&'static str, &str)> {
        let mut environment = vec![
            ("ALEXANDRIA_BRIDGE_DATABASE_URL", self.database_url.as_str()),
            ("ALEXANDRIA_BRIDGE_S3_BUCKET", &self.bucket),
            ("ALEXANDRIA_BRIDGE_SNS_TOPIC_ARN", &self.topic_arn),
            ("AWS_ENDPOINT_URL", &self.aws_url),
            ("AWS_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", CREDENTIAL),
            ("AWS_SECRET_ACCESS_KEY", CREDENTIAL),
        ];
        environment.extend(self.s3_url.as_deref().map(|url| ("AWS_ENDPOINT_URL_S3", url)));
        environment
    }
}

impl BridgeProcess {
    /// Prepares the database and starts a bridge.
    pub async fn start(neighbours: Neighbours) -> Self {
        Self::start_with(neighbours, Vec::new()).await
    }

    /// The same, with more settings in the environment.
    pub async fn start_with(neighbours: Neighbours, environment: Vec<(String, String)>) -> Self {
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let folder = reaper::folder("bridge");
        let (listen, nodes) = (address(), address());
        let mut bridge = Self { neighbours, environment, listen, nodes, process: None, folder };
        let migrated = bridge.run("migrate", &[]).await;
        assert!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
        bridge.start_again().await;
        bridge
    }

    /// Starts a killed or stopped bridge on the ports it had.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "the bridge is running already");
        let mut command = self.command("serve");
        let log = self.folder.path().join("log");
        let process = self.process.insert(Process::spawn("alexandria-bridge", &mut command, &log, Signal::SIGTERM));
        process.said(READY, DEADLINE).await;
    }

    /// The machine under it goes away.
    pub fn kill_9(&mut self) {
        self.process.take().expect("the bridge is running").kill_9();
    }

    /// A polite end: SIGTERM, and the bridge must leave with success.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().expect("the bridge is running");
        process.signal(Signal::SIGTERM);
        let status = process.wait(DEADLINE).await;
        assert!(status.success(), "the bridge stopped with {status}:\n{}", process.log_tail());
    }

    /// `alexandria-bridge SUBCOMMAND`, to be given its other arguments.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(product("alexandria-bridge", "ALEXANDRIA_BRIDGE_BIN"));
        command.arg(subcommand).current_dir(self.folder.path());
        command.envs(self.neighbours.environment());
        command.env("ALEXANDRIA_BRIDGE_LISTEN", self.listen.to_string());
        command.env("ALEXANDRIA_BRIDGE_NODES_LISTEN", self.nodes.to_string());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a subcommand to its end, without holding up the test's runtime.
    pub async fn run(&self, subcommand: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(subcommand);
        command.args(arguments);
        output(command).await
    }

    /// The operator's address: `http://…`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// A GET of a path such as `/v1/media`.
    pub fn get(&self, path: &str) -> http::Request {
        http::get(format!("{}{path}", self.url()))
    }

    /// Where nodes connect.
    pub fn nodes_address(&self) -> SocketAddr {
        self.nodes
    }

    /// The bridge's working folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the bridge is running")
    }
}
