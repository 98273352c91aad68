//! Hosts on one machine: network namespaces, and doors between them.
//!
//! A process inside a namespace sees only what leads there: a bad link (`link`), or a [`Door`], which is a good TCP
//! relay, as for a test that talks to a node past the link, or for a bridge that needs PostgreSQL. Needs root.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    unistd::Uid,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};

use crate::reaper;

/// What this machine lacks for namespaces, if anything.
pub fn unavailable() -> Option<&'static str> {
    if !Uid::effective().is_root() {
        Some("a network namespace needs root")
    } else if Command::new("ip").arg("-Version").output().is_err() {
        Some("a network namespace needs the program ip (Debian package iproute2)")
    } else {
        None
    }
}

/// A network of its own for a process: a host, as far as that process can tell. Removed when dropped, if made here.
pub struct Namespace {
    /// None for the machine's own network.
    name: Option<String>,
    is_ours: bool,
}

impl Namespace {
    /// Makes a namespace with a working loopback.
    pub fn create(label: &str) -> Self {
        let name = format!("alexandria-{label}-{}-{}", std::process::id(), fresh_number());
        ip(&["netns", "add", &name]);
        reaper::namespace(&name);
        let namespace = Self { name: Some(name), is_ours: true };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// One that exists: made, and later removed, by somebody else.
    pub fn existing(name: &str) -> Self {
        Self { name: Some(name.into()), is_ours: false }
    }

    /// The machine's own network, where the test itself runs.
    pub fn host() -> Self {
        Self { name: None, is_ours: false }
    }

    /// Another handle on it, which does not keep it.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { name: self.name.clone(), is_ours: false }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// A command that runs inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(name) = &self.name else { return Command::new(program) };
        let mut command = Command::new("ip");
        // It becomes the program: the process id is the program's own.
        command.args(["netns", "exec", name]).arg(program);
        command
    }

    /// Runs `make` inside. A socket made there stays there, wherever it is used.
    pub fn within<T: Send>(&self, make: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let Some(name) = &self.name else { return make() };
        let namespace = File::open(Path::new("/run/netns").join(name))?;
        // Entering a namespace changes the thread that does it, so that one is not used for anything else.
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET)?;
                make()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    pub(crate) fn ip(&self, arguments: &[&str]) {
        match &self.name {
            Some(name) => ip(&[&["-n", name], arguments].concat()),
            None => ip(arguments),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let (Some(name), true) = (&self.name, self.is_ours) {
            // The reaper tries again.
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

/// A TCP address in one namespace that leads to an address in another, past every link. Closed when dropped.
pub struct Door {
    address: SocketAddr,
    _relay: JoinSet<()>,
}

impl Door {
    /// Listens on `at` (port 0 takes any) in `outside`; connections go on to `to` in `inside`.
    pub fn open(outside: &Namespace, at: SocketAddr, inside: &Namespace, to: SocketAddr) -> io::Result<Self> {
        let listener = outside.within(|| std::net::TcpListener::bind(at))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let mut relay = JoinSet::new();
        relay.spawn(carry(listener, inside.again(), to));
        Ok(Self { address, _relay: relay })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn carry(listener: TcpListener, inside: Namespace, to: SocketAddr) {
    let mut connections = JoinSet::new();
    let inside = Arc::new(inside);
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((mut outer, _)) = accepted {
                let inside = Arc::clone(&inside);
                connections.spawn(async move {
                    if let Ok(mut inner) = connect(inside, to).await {
                        let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
                    }
                });
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Connects from inside, on a thread of its own: it blocks.
async fn connect(inside: Arc<Namespace>, to: SocketAddr) -> io::Result<TcpStream> {
    let (done, connected) = oneshot::channel();
    thread::spawn(move || {
        // Nobody waits any more when the door has been closed.
        let _ = done.send(inside.within(|| std::net::TcpStream::connect(to)));
    });
    let connection = connected.await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))??;
    connection.set_nonblocking(true)?;
    TcpStream::from_std(connection)
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("the program ip is there");
    assert!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
}

/// A number that this process has not used before, for names and subnets.
pub(crate) fn fresh_number() -> u16 {
    static NUMBERS: AtomicU16 = AtomicU16::new(0);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}
