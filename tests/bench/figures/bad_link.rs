//! A large file from a site to the cloud over a bad link that is cut each minute: ours beside rsync, rclone and syncthing, one after the
//! other over the same link, in a network namespace.
//!
//! Each begins again by itself, or is begun again, whenever it gives up. Who has not ended within the limit is told by what of the
//! file has crossed.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use alexandria_e2e::aws::{Aws, CREDENTIAL, REGION};
use alexandria_e2e::fleet::Fleet;
use alexandria_e2e::line::Profile;
use alexandria_e2e::link::{self, BadLink};
use alexandria_e2e::namespace::{Door, Namespace};
use alexandria_e2e::node::NodeSettings;
use alexandria_e2e::process::free_port;
use serde_json::{Value, json};

use crate::measure::{govern_tcp, mb, write_noise};

/// The link, each way.
const PROFILE: Profile = Profile {
    delay: Duration::from_millis(150),
    loss: 0.01,
    rate_bits_per_s: Some(20_000_000),
    queue: Duration::from_millis(300),
};
/// Between two cuts: with one, a minute.
const WHOLE_FOR: Duration = Duration::from_secs(55);
const CUT_FOR: Duration = Duration::from_secs(5);
/// How often a transfer is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const SEED: u64 = 1;

/// The site's side and the cloud's side of one link.
struct Ground {
    site: Namespace,
    link: Arc<BadLink>,
    /// Of the cloud, on the link.
    cloud: IpAddr,
    folder: tempfile::TempDir,
    /// What is sent, and its size in bytes.
    file: PathBuf,
    size: u64,
    limit: Duration,
}

/// All of them; those named in `ALEXANDRIA_BENCH_ONLY` (with commas) if it is set.
pub(crate) async fn beside_others() {
    if let Some(reason) = link::unavailable() {
        println!("skipped: {reason}");
        return;
    }
    let setting = |name: &str, usual: u64| {
        std::env::var(name).map_or(usual, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let size = setting("ALEXANDRIA_BENCH_MIB", 1024) * 1024 * 1024;
    let limit = Duration::from_secs(setting("ALEXANDRIA_BENCH_LIMIT_S", 900));
    let only = std::env::var("ALEXANDRIA_BENCH_ONLY").unwrap_or_default();
    let site = Namespace::create("site");
    // All that matters is sent from there.
    let tcp = govern_tcp(&site, &std::env::var("ALEXANDRIA_BENCH_TCP").unwrap_or_else(|_| "cubic".into()));
    let link = BadLink::between(&site, &Namespace::host(), PROFILE, SEED).expect("the link can be made");
    let cloud = link.addresses_of_b()[0];
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("archive.txt");
    write_noise(&file, size);
    let ground = Ground { site, link: Arc::new(link), cloud, folder, file, size, limit };
    println!(
        "{} MB over 20 Mbit/s, 300 ms, 1 % loss each way, cut for {} s each minute; TCP with {}; at most {} s",
        mb(size),
        CUT_FOR.as_secs(),
        tcp,
        limit.as_secs()
    );
    for name in ["ours", "rclone", "syncthing", "rsync"] {
        if !only.is_empty() && !only.split(',').any(|wanted| wanted == name) {
            continue;
        }
        match name {
            "ours" => ground.ours().await,
            "rclone" => ground.rclone().await,
            "syncthing" => ground.syncthing().await,
            _ => ground.rsync().await,
        }
    }
}

impl Ground {
    async fn ours(&self) {
        let cloud = self.cloud;
        let fleet = Fleet::start_with(|mut settings, _| {
            settings.quic = SocketAddr::new(cloud, free_port());
            settings.enrolment = SocketAddr::new(cloud, free_port());
            settings
        })
        .await;
        let node = NodeSettings::default().bare().inside(&self.site, "127.0.0.1:8080").start().await;
        node.done("import", &[self.file.to_str().expect("UTF-8")]).await;
        fleet.enrol(&node).await;
        self.measure("ours", async || fleet.database.number("SELECT count(*) FROM stored_blob").await == 1).await;
    }

    async fn rsync(&self) {
        let folder = self.empty_folder("rsync");
        let key = folder.join("key");
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
        let port = free_port();
        let received = self.empty_folder("rsync-received");
        let mut server = Command::new("/usr/sbin/sshd");
        server.args(["-D", "-e", "-p", &port.to_string(), "-o", "StrictModes=no", "-o", "PidFile=none"]);
        server.arg("-h").arg(&key).arg("-o").arg(format!("AuthorizedKeysFile={}.pub", key.display()));
        server.arg("-o").arg(format!("ListenAddress={}", self.cloud));
        // sshd wants this folder, and the package makes it only when it starts it itself.
        std::fs::create_dir_all("/run/sshd").expect("root may");
        let _server = Running::start(&mut server);
        let shell = format!(
            "ssh -p {port} -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
             -o ConnectTimeout=15 -o ServerAliveInterval=5 -o ServerAliveCountMax=3",
            key.display()
        );
        let arguments = ["--partial", "--timeout=30", "-e", &shell, self.file.to_str().expect("UTF-8")];
        let client = self.again_and_again("rsync", &arguments, &format!("root@{}:{}/", self.cloud, received.display()));
        let whole = received.join("archive.txt");
        self.measure("rsync", async || size_of(&whole) == self.size && client.has_ended()).await;
    }

    async fn rclone(&self) {
        let aws = Aws::shared().await;
        let bucket = aws.unique("rclone");
        aws.s3().create_bucket(&bucket).await;
        let s3: SocketAddr = aws.url().trim_start_matches("http://").parse().expect("an address");
        let host = Namespace::host();
        let door = Door::open(&host, SocketAddr::new(self.cloud, 0), &host, s3).expect("a free port");
        let endpoint = format!("http://{}", door.address());
        let remote = format!(
            ":s3,provider=Other,env_auth=false,access_key_id={CREDENTIAL},secret_access_key={CREDENTIAL},region={REGION},\
             endpoint=\"{endpoint}\",force_path_style=true:{bucket}"
        );
        let arguments = [
            "copy",
            "--s3-no-check-bucket",
            "--s3-upload-concurrency",
            "8",
            "--s3-chunk-size",
            "5M",
            "--retries",
            "1000",
            "--low-level-retries",
            "100",
            "--contimeout",
            "15s",
            "--timeout",
            "30s",
            self.file.to_str().expect("UTF-8"),
        ];
        let client = self.again_and_again("rclone", &arguments, &remote);
        self.measure("rclone", async || client.has_ended()).await;
    }

    async fn syncthing(&self) {
        let received = self.empty_folder("syncthing-received");
        let sent = self.empty_folder("syncthing-sent");
        std::fs::hard_link(&self.file, sent.join("archive.txt")).expect("the same disk");
        let host = Namespace::host();
        let (listens, gui) = (free_port(), free_port());
        let cloud = Syncthing::start(&host, &self.empty_folder("syncthing-cloud"), gui).await;
        let site = Syncthing::start(&self.site, &self.empty_folder("syncthing-site"), 8384).await;
        let listen = format!("tcp://{}:{listens},quic://{}:{listens}", self.cloud, self.cloud);
        cloud.listen(&listen.split(',').collect::<Vec<_>>());
        site.listen(&[]);
        cloud.knows(&site.id, &[]);
        site.knows(&cloud.id, &[]);
        cloud.shares(&received, "receiveonly", &site.id);
        site.shares(&sent, "sendonly", &cloud.id);
        // It is dialled only once there is something to send.
        site.knows(&cloud.id, &[listen.split(',').next().expect("one")]);
        let whole = received.join("archive.txt");
        self.measure("syncthing", async || size_of(&whole) == self.size).await;
    }

    /// Waits until `is_done`, or for as long as there is, while the link is cut each minute; prints what came of it.
    async fn measure(&self, name: &str, is_done: impl AsyncFn() -> bool) {
        let before = self.link.a_to_b();
        let back_before = self.link.b_to_a();
        let started = Instant::now();
        let link = Arc::clone(&self.link);
        let cuts = tokio::spawn(async move {
            loop {
                tokio::time::sleep(WHOLE_FOR).await;
                link.cut();
                tokio::time::sleep(CUT_FOR).await;
                link.heal();
            }
        });
        let mut done = false;
        while !done && started.elapsed() < self.limit {
            tokio::time::sleep(LOOK_EVERY).await;
            done = is_done().await;
        }
        cuts.abort();
        self.link.heal();
        let seconds = started.elapsed().as_secs_f64();
        let (after, back) = (self.link.a_to_b(), self.link.b_to_a());
        let sent = after.bytes + after.lost_bytes - before.bytes - before.lost_bytes;
        let crossed = after.bytes - before.bytes;
        let answers = back.bytes + back.lost_bytes - back_before.bytes - back_before.lost_bytes;
        let per_s = |bytes: u64| bytes as f64 * 8.0 / 1e6 / seconds;
        if done {
            println!(
                "{name}: {seconds:.0} s, {:.1} Mbit/s; sent {} MB ({:.3} of the file), answers {} MB",
                per_s(self.size),
                mb(sent),
                sent as f64 / self.size as f64,
                mb(answers)
            );
        } else {
            println!(
                "{name}: not done after {seconds:.0} s; {} MB have crossed at {:.2} Mbit/s: at least {:.0} s for all",
                mb(crossed),
                per_s(crossed),
                self.size as f64 * seconds / crossed.max(1) as f64
            );
        }
    }

    fn empty_folder(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path).expect("room on the disk");
        path
    }

    /// Runs a client at the site until it succeeds, again whenever it fails.
    fn again_and_again(&self, program: &str, arguments: &[&str], target: &str) -> Client {
        let (stopped, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (is_stopped, has_ended) = (Arc::clone(&stopped), Arc::clone(&ended));
        let mut command = self.site.command(program);
        command.args(arguments).arg(target).stdin(Stdio::null()).stdout(Stdio::null());
        // rclone does not start with a bundle of its own authorities, and needs none here.
        command.env_remove("AWS_CA_BUNDLE");
        let thread = std::thread::spawn(move || {
            while !is_stopped.load(Ordering::SeqCst) {
                let mut child = command.spawn().expect("the client is installed");
                let status = loop {
                    if let Some(status) = child.try_wait().expect("a child can be waited for") {
                        break status;
                    }
                    if is_stopped.load(Ordering::SeqCst) {
                        let _ = child.kill();
                    }
                    std::thread::sleep(LOOK_EVERY);
                };
                if status.success() {
                    has_ended.store(true, Ordering::SeqCst);
                    return;
                }
            }
        });
        Client { stopped, ended, thread: Some(thread) }
    }
}

/// A client that is run until it succeeds. Ended when dropped.
struct Client {
    stopped: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Client {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A server. Ended when dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it is installed"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One syncthing, told what to do over its own API.
struct Syncthing {
    namespace: Namespace,
    gui: u16,
    id: String,
    _process: Running,
}

impl Syncthing {
    const KEY: &'static str = "bench";

    async fn start(namespace: &Namespace, home: &Path, gui: u16) -> Self {
        let mut make = namespace.command("syncthing");
        run(make
            .args(["generate", "--no-default-folder", "--skip-port-probing"])
            .arg("--home")
            .arg(home)
            .stdout(Stdio::null()));
        let mut serve = namespace.command("syncthing");
        serve.args(["serve", "--no-browser", "--no-restart", "--no-upgrade", "--gui-apikey", Self::KEY]);
        serve.arg("--gui-address").arg(format!("127.0.0.1:{gui}")).arg("--home").arg(home);
        // It ends its own child only if it is asked to.
        serve.env("STNORESTART", "1").env("STMONITORED", "1");
        let process = Running::start(&mut serve);
        let mut started = Self { namespace: namespace.again(), gui, id: String::new(), _process: process };
        loop {
            if let Some(status) = started.try_call("GET", "system/status", None) {
                status["myID"].as_str().expect("an id").clone_into(&mut started.id);
                return started;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn listen(&self, addresses: &[&str]) {
        let quiet = json!({
            "globalAnnounceEnabled": false, "localAnnounceEnabled": false, "relaysEnabled": false, "natEnabled": false,
            "urAccepted": -1, "crashReportingEnabled": false, "listenAddresses": addresses, "reconnectionIntervalS": 5
        });
        self.call("PATCH", "config/options", &quiet);
    }

    fn knows(&self, id: &str, addresses: &[&str]) {
        let addresses = if addresses.is_empty() { vec!["dynamic"] } else { addresses.to_vec() };
        self.call("POST", "config/devices", &json!({ "deviceID": id, "addresses": addresses }));
    }

    fn shares(&self, path: &Path, kind: &str, with: &str) {
        // By this it knows that the folder is not just an empty place where a disk is missing.
        std::fs::create_dir_all(path.join(".stfolder")).expect("room on the disk");
        let folder = json!({
            "id": "bench", "path": path, "type": kind, "devices": [{ "deviceID": with }], "fsWatcherEnabled": false
        });
        self.call("POST", "config/folders", &folder);
    }

    fn call(&self, method: &str, path: &str, body: &Value) {
        assert!(self.try_call(method, path, Some(body)).is_some(), "syncthing takes {method} {path} {body}");
    }

    fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
        let mut curl = self.namespace.command("curl");
        curl.args(["-sf", "-X", method, "-H", &format!("X-API-Key: {}", Self::KEY)]);
        if let Some(body) = body {
            curl.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
        }
        let output =
            curl.arg(format!("http://127.0.0.1:{}/rest/{path}", self.gui)).output().expect("curl is installed");
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap_or_default())
    }
}

fn run(command: &mut Command) {
    let status = command.status().expect("it is installed");
    assert!(status.success(), "{command:?}: {status}");
}

fn size_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
