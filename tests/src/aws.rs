//! An AWS-speaking server (moto, through `testbed/aws.py`): S3, SNS, SQS and IoT on one port of 127.0.0.1.
//!
//! Tests look at it through plain HTTP with a signature that nobody checks: the AWS crates are the bridge's business,
//! and dear to build. Its state lives in memory: to play an outage, put an [`crate::outage::OutageProxy`] before
//! [`Aws::address`] rather than stop it. Names of buckets, topics and queues are shared by all tests of a server, so
//! a test that shares one takes [`Aws::unique`] names.

mod iot;
mod messaging;
mod s3;

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use hyper::Method;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::sync::OnceCell;

pub use self::{
    iot::Iot,
    messaging::{Message, Messaging},
    s3::S3,
};
use crate::{
    http,
    process::{Process, python, testbed},
    reaper,
};

/// The region that everything is in.
pub const REGION: &str = "us-east-1";
/// The access key and the secret: any would do.
pub const CREDENTIAL: &str = "test";

/// moto imports a good part of the Python package index.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// A running server.
pub struct Aws {
    address: SocketAddr,
    names: AtomicU32,
    server: Process,
    folder: TempDir,
}

impl Aws {
    /// The server that all tests of this process share.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Aws> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A server of one's own, which [`Self::reset`] may empty.
    pub async fn start() -> Self {
        let folder = reaper::folder("aws");
        let mut command = Command::new(python());
        command.arg(testbed("aws.py")).arg("--ca-file").arg(folder.path().join("iot-ca.pem"));
        let mut server = Process::spawn("moto", &mut command, &folder.path().join("log"), Signal::SIGTERM);
        let address = server.said("listening on http://", START_DEADLINE).await;
        let address = address.parse().unwrap_or_else(|error| panic!("moto listens on {address:?}: {error}"));
        Self { address, names: AtomicU32::new(0), server, folder }
    }

    /// Forgets everything but the device authority.
    pub async fn reset(&self) {
        http::post(format!("{}/moto-api/reset", self.url())).ok().await;
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the bridge is given as its endpoint.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What an AWS client finds in its environment.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL", self.url()),
            ("AWS_REGION", REGION.into()),
            ("AWS_ACCESS_KEY_ID", CREDENTIAL.into()),
            ("AWS_SECRET_ACCESS_KEY", CREDENTIAL.into()),
        ]
    }

    /// The certificate of the authority that issues IoT certificates, in PEM.
    pub fn iot_ca_file(&self) -> PathBuf {
        self.folder.path().join("iot-ca.pem")
    }

    /// A name that no other test of this process uses: `label-N`.
    pub fn unique(&self, label: &str) -> String {
        format!("{label}-{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    pub fn s3(&self) -> S3<'_> {
        S3(self)
    }

    pub fn messaging(&self) -> Messaging<'_> {
        Messaging(self)
    }

    pub fn iot(&self) -> Iot<'_> {
        Iot(self)
    }

    /// A request to one service, which moto tells by the signature's scope.
    fn request(&self, service: &str, method: Method, path: &str) -> http::Request {
        let scope = format!("{CREDENTIAL}/20200101/{REGION}/{service}/aws4_request");
        http::request(method, format!("{}{path}", self.url()))
            .header("authorization", format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none"))
    }
}

/// A value as it stands in a URL or a form.
fn escape(value: &str) -> String {
    use std::fmt::Write;

    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            _ => write!(escaped, "%{byte:02X}").expect("a string takes everything"),
        }
    }
    escaped
}

/// The text of every element called `name` in an XML answer.
fn elements(xml: &str, name: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(xml).unwrap_or_else(|error| panic!("not XML ({error}): {xml}"));
    let found = document.descendants().filter(|node| node.tag_name().name() == name);
    found.map(|node| node.text().unwrap_or_default().to_owned()).collect()
}
