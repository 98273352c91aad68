//! PostgreSQL: a private cluster on a random port of 127.0.0.1, with a database for each test.
//!
//! Tests share [`Postgres::shared`] and take a [`Database`] of their own from it. A test that stops the server starts
//! one of its own with [`Postgres::start`]. The server runs as an ordinary user (`postgres` where the tests are root,
//! which PostgreSQL refuses to be) and without fsync: it survives its own crash, though not the machine's.

use std::{
    collections::HashMap,
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::{
    sys::signal::Signal,
    unistd::{Uid, User},
};
use tempfile::TempDir;
use tokio::sync::{Mutex, OnceCell};
use tokio_postgres::{Client, NoTls};

use crate::{
    deadline::wait_until,
    process::{Process, free_port},
    reaper,
};

/// How long a start or stop may take, `initdb` aside.
const DEADLINE: Duration = Duration::from_secs(20);
/// Enough for every test of the binary at once, each with the pools of two bridges.
const CONNECTIONS_MAX: u32 = 300;

/// A running, or stopped, cluster.
pub struct Postgres {
    programs: PathBuf,
    owner: Option<User>,
    port: u16,
    server: Option<Process>,
    databases: AtomicU32,
    /// Prepared databases that others are copied from, by label.
    templates: Mutex<HashMap<String, String>>,
    /// Declared last: the server goes first.
    folder: TempDir,
}

/// How to stop the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// Sessions are cut off, what is committed is written out.
    Fast,
    /// A crash: nothing is written out, recovery follows at the next start.
    Crash,
}

/// One test's database, gone with its cluster.
pub struct Database {
    name: String,
    port: u16,
}

impl Postgres {
    /// The cluster that all tests of this process share.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A cluster of one's own, to be stopped and started at will.
    pub async fn start() -> Self {
        let programs = programs();
        let folder = reaper::folder("postgres");
        let owner = Uid::effective().is_root().then(|| {
            User::from_name("postgres")
                .expect("the user database can be read")
                .expect("there is a user postgres to run PostgreSQL as")
        });
        if let Some(owner) = &owner {
            chown(folder.path(), Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).expect("root may give a folder");
        }
        let mut cluster = Self {
            programs,
            owner,
            port: free_port(),
            server: None,
            databases: AtomicU32::new(0),
            templates: Mutex::default(),
            folder,
        };
        cluster.create();
        cluster.start_again().await;
        cluster
    }

    /// Starts a stopped server, on the same port with the same data.
    pub async fn start_again(&mut self) {
        assert!(self.server.is_none(), "PostgreSQL is running already");
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path());
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-F"]);
        for setting in ["full_page_writes=off", "wal_level=minimal", "max_wal_senders=0", "log_min_messages=warning"] {
            command.args(["-c", setting]);
        }
        command.args(["-c", &format!("max_connections={CONNECTIONS_MAX}")]);
        let log = self.folder.path().join("log");
        // QUIT ends it at once, its children too.
        let server = self.server.insert(Process::spawn("PostgreSQL", &mut command, &log, Signal::SIGQUIT));
        let url = url(self.port, "postgres");
        wait_until("PostgreSQL to answer", DEADLINE, async || {
            assert!(server.ended().is_none(), "PostgreSQL did not start:\n{}", server.log_tail());
            match tokio_postgres::connect(&url, NoTls).await {
                // The session ends with its two halves.
                Ok(_session) => true,
                Err(_) => false,
            }
        })
        .await;
    }

    /// Stops the server. Its port refuses connections until [`Self::start_again`].
    pub async fn stop(&mut self, how: Stop) {
        let mut server = self.server.take().expect("PostgreSQL is running");
        server.signal(match how {
            Stop::Fast => Signal::SIGINT,
            Stop::Crash => Signal::SIGQUIT,
        });
        server.wait(DEADLINE).await;
    }

    /// The id of the server's first process, the parent of all others.
    ///
    /// # Panics
    ///
    /// When it is stopped.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("PostgreSQL is running").pid()
    }

    /// The address, for an [`crate::outage::OutageProxy`] in front of it.
    pub fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// A new, empty database.
    pub async fn database(&self) -> Database {
        self.copy_of("template1").await
    }

    /// A new database that `prepare` has filled: it runs once for each `label` and cluster, later calls copy its work.
    pub async fn database_from(&self, label: &str, prepare: impl AsyncFnOnce(&Database)) -> Database {
        let mut templates = self.templates.lock().await;
        let template = if let Some(template) = templates.get(label) {
            template.clone()
        } else {
            let prepared = self.database().await;
            prepare(&prepared).await;
            templates.insert(label.to_owned(), prepared.name.clone());
            prepared.name
        };
        // Under the lock: PostgreSQL refuses to copy a database that another copy is just opening.
        self.copy_of(&template).await
    }

    async fn copy_of(&self, template: &str) -> Database {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let admin = Database { name: "postgres".into(), port: self.port }.connect().await;
        admin
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await
            .unwrap_or_else(|error| panic!("copy database {template}: {error:?}"));
        Database { name, port: self.port }
    }

    fn create(&self) {
        let mut command = self.program("initdb");
        command.arg("-D").arg(self.data());
        command.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
        let output = command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// One of PostgreSQL's programs, to be run as the cluster's owner.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(self.folder.path()).env("LC_ALL", "C.UTF-8");
        if let Some(owner) = &self.owner {
            command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Database {
    /// What the bridge is given: `postgres://…`.
    pub fn url(&self) -> String {
        url(self.port, &self.name)
    }

    /// The same database reached through a proxy on 127.0.0.1.
    pub fn url_through(&self, proxy: std::net::SocketAddr) -> String {
        url(proxy.port(), &self.name)
    }

    /// Opens a session.
    pub async fn connect(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls)
            .await
            .unwrap_or_else(|error| panic!("connect to {}: {error:?}", self.url()));
        // Ends with the client; a test sees a lost connection at its next query.
        tokio::spawn(connection);
        client
    }

    /// The single number that `query` asks for, such as a count.
    pub async fn number(&self, query: &str) -> i64 {
        let client = self.connect().await;
        let row = client.query_one(query, &[]).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
        row.get(0)
    }
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{database}")
}

/// The folder of `initdb` and `postgres`. Debian keeps them off the path, one folder for each version.
fn programs() -> PathBuf {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.filter_map(|version| Some(version.ok()?.path().join("bin"))).collect())
        .unwrap_or_default();
    folders.sort();
    folders.extend(std::env::split_paths(&on_path));
    let has_both = |folder: &Path| folder.join("initdb").exists() && folder.join("postgres").exists();
    folders
        .into_iter()
        .rev()
        .find(|folder| has_both(folder))
        .expect("PostgreSQL's server is installed (Debian package postgresql)")
}
