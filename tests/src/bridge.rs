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

use hyper::Method;
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

/// Names another binary than the one built beside the test.
const BINARY_VARIABLE: &str = "ALEXANDRIA_BRIDGE_BIN";

/// What operators say who they are with.
pub const OPERATOR_TOKEN: &str = "operator-token-of-the-tests";

/// What a bridge needs around it. Several replicas share one of these.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// `postgres://…`; through a proxy, where a test cuts it off.
    pub database_url: String,
    /// Where S3, SNS and IoT are.
    pub aws_url: String,
    /// One of them elsewhere: behind a proxy, say.
    pub s3_url: Option<String>,
    pub sns_url: Option<String>,
    pub iot_url: Option<String>,
    pub bucket: String,
    pub topic_arn: String,
}

/// What a bridge is started with. Its addresses are settled already, so that a proxy can be put before them.
pub struct BridgeSettings {
    pub neighbours: Neighbours,
    /// Operators' HTTP.
    pub http: SocketAddr,
    /// Where nodes enrol, over TLS.
    pub enrolment: SocketAddr,
    /// Where nodes replicate, over QUIC.
    pub quic: SocketAddr,
    environment: Vec<(String, String)>,
}

/// A bridge: running, killed or stopped.
pub struct BridgeProcess {
    settings: BridgeSettings,
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
        let (database_url, aws_url) = (database.url(), aws.url());
        Self { database_url, aws_url, s3_url: None, sns_url: None, iot_url: None, bucket, topic_arn }
    }

    /// The bridge's settings, as it reads them from its environment. The AWS library reads its own.
    fn environment(&self) -> Vec<(&'static str, &str)> {
        let mut environment = vec![
            ("ALEXANDRIA_BRIDGE_POSTGRES_URL", self.database_url.as_str()),
            ("ALEXANDRIA_BRIDGE_CONTENT_BUCKET", &self.bucket),
            ("ALEXANDRIA_BRIDGE_CONTENT_PATH_STYLE", "true"),
            ("ALEXANDRIA_BRIDGE_EVENTS_TOPIC_ARN", &self.topic_arn),
            ("ALEXANDRIA_BRIDGE_IOT_ENABLED", "true"),
            ("AWS_ENDPOINT_URL", &self.aws_url),
            ("AWS_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", CREDENTIAL),
            ("AWS_SECRET_ACCESS_KEY", CREDENTIAL),
        ];
        let elsewhere = [
            ("AWS_ENDPOINT_URL_S3", &self.s3_url),
            ("AWS_ENDPOINT_URL_SNS", &self.sns_url),
            ("AWS_ENDPOINT_URL_IOT", &self.iot_url),
        ];
        environment.extend(elsewhere.into_iter().filter_map(|(name, url)| Some((name, url.as_deref()?))));
        environment
    }
}

impl BridgeSettings {
    pub fn new(neighbours: Neighbours) -> Self {
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self { neighbours, http: address(), enrolment: address(), quic: address(), environment: Vec::new() }
    }

    /// One more setting: `section.key` is `ALEXANDRIA_BRIDGE_SECTION_KEY`.
    #[must_use]
    pub fn environment(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Tells nodes to replicate through a proxy before [`Self::quic`].
    #[must_use]
    pub fn replicating_through(self, proxy: SocketAddr) -> Self {
        self.environment("ALEXANDRIA_BRIDGE_QUIC_PUBLIC_ADDRESS", proxy.to_string())
    }

    /// Prepares the database and starts the bridge.
    pub async fn start(self) -> BridgeProcess {
        let mut bridge = BridgeProcess { settings: self, process: None, folder: reaper::folder("bridge") };
        let migrated = bridge.run("migrate", &[]).await;
        assert!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
        bridge.start_again().await;
        bridge
    }
}

impl BridgeProcess {
    /// Starts a bridge as it comes.
    pub async fn start(neighbours: Neighbours) -> Self {
        BridgeSettings::new(neighbours).start().await
    }

    /// Starts a killed or stopped bridge on the ports it had.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "the bridge is running already");
        let mut command = self.command("serve");
        let log = self.folder.path().join("log");
        let process = self.process.insert(Process::spawn("alexandria-bridge", &mut command, &log, Signal::SIGTERM));
        process.said(READY, DEADLINE).await;
    }

    /// Sets a variable of its environment, for its next start.
    pub fn configure(&mut self, name: &str, value: &str) {
        self.settings.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The machine under it goes away.
    pub fn kill_9(&mut self) {
        self.process.take().expect("the bridge is running").kill_9();
    }

    /// See [`Process::stop`].
    pub async fn stop(&mut self) {
        self.process.take().expect("the bridge is running").stop(DEADLINE).await;
    }

    /// `alexandria-bridge SUBCOMMAND`, to be given its other arguments.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(product("alexandria-bridge", BINARY_VARIABLE));
        command.arg(subcommand).current_dir(self.folder.path());
        // Of the tests' own: the bridge knows no such setting.
        command.env_remove(BINARY_VARIABLE);
        command.envs(self.settings.neighbours.environment());
        command.env("ALEXANDRIA_BRIDGE_HTTP_LISTEN", self.settings.http.to_string());
        command.env("ALEXANDRIA_BRIDGE_HTTP_OPERATOR_TOKEN", OPERATOR_TOKEN);
        command.env("ALEXANDRIA_BRIDGE_ENROLMENT_LISTEN", self.settings.enrolment.to_string());
        command.env("ALEXANDRIA_BRIDGE_QUIC_LISTEN", self.settings.quic.to_string());
        command.envs(self.settings.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a subcommand to its end, without holding up the test's runtime.
    pub async fn run(&self, subcommand: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(subcommand);
        command.args(arguments);
        output(command).await
    }

    /// The operators' address: `http://…`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.settings.http)
    }

    /// A GET of a path such as `/v1/media`, as an operator.
    pub fn get(&self, path: &str) -> http::Request {
        self.request(Method::GET, path)
    }

    /// Any request for a path such as `/v1/media`, as an operator.
    pub fn request(&self, method: Method, path: &str) -> http::Request {
        http::request(method, format!("{}{path}", self.url())).bearer(OPERATOR_TOKEN)
    }

    /// What `/metrics` says of a series such as `sessions_failed_total`, without the prefix of all of them.
    pub async fn metric(&self, series: &str) -> u64 {
        metric(self.get("/metrics").ok().await.text(), &format!("alexandria_bridge_{series}"))
    }

    /// What it was started with, its addresses among it.
    pub fn settings(&self) -> &BridgeSettings {
        &self.settings
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

/// The count of one series on a page of metrics; 0 if nothing was counted yet.
fn metric(page: &str, series: &str) -> u64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap_or_else(|_| panic!("{series} is {value:?}")))
}
