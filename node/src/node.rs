//! The composition root: puts a node together, starts it, and takes it apart again.
//!
//! [`serve`] runs one until it is told to stop. After a restore it takes the node apart and puts it together anew. A part of it
//! that is lost before ends the process with an error (`workers`).

mod backup;
mod bundle;
mod held_back;
mod local;
mod quarantine;
mod selection;
mod status;
mod workers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alexandria_api::serve::ServerLimits;
use alexandria_ml::Analyser;
use anyhow::Context;
use futures::stream::{self, StreamExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc, watch};

use crate::config::Config;
use crate::http;
use crate::http::guard::{NodeWriteGuard, load_or_make_token};
use crate::http::health::Metrics;
use crate::jobs::{Importer, align, analyse, erase, upkeep};
use crate::lan::Lan;
use crate::library::{Library, builtin};
use crate::local::ImportLine;
use crate::replication::Replicator;
use crate::search::follow;

use self::local::LocalState;
use self::workers::Workers;

/// The command line may wait long without a word: for a large file to be imported, for a backup to be written.
const LOCAL_STALL_TIMEOUT_S: u64 = 7 * 24 * 60 * 60;
/// How long the rest of a node may take to stop once a part of it is lost.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

/// How much of a node is put together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Face {
    /// All of it.
    Public,
    /// Only what the command line needs.
    LocalOnly,
}

/// What a run of a node that ended in order is followed by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum AfterRun {
    /// By another one.
    Again,
    Over,
}

/// A node that runs.
pub struct Node {
    library: Library,
    stop: watch::Sender<bool>,
    workers: Workers,
    socket: PathBuf,
    restart: Arc<Notify>,
}

/// Runs the node until it is told to stop (SIGINT or SIGTERM).
///
/// # Errors
///
/// What kept it from starting, from going on, or from stopping in order.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        let node = Node::start(config.clone(), Face::Public).await?;
        let told = async {
            tokio::select! {
                signal = tokio::signal::ctrl_c() => signal.context("wait for a signal"),
                _ = terminate.recv() => Ok(()),
            }
        };
        match node.run(told).await? {
            AfterRun::Again => {}
            AfterRun::Over => return Ok(()),
        }
    }
}

impl Node {
    /// Opens the data folder and starts what `face` asks for. Prints where it listens once it does.
    ///
    /// # Errors
    ///
    /// What kept it from starting.
    pub async fn start(config: Config, face: Face) -> anyhow::Result<Self> {
        let data = std::path::absolute(&config.data).context("find the data folder")?;
        let (store, selection) = (config.store.clone(), config.selection.clone());
        let opened = {
            let data = data.clone();
            tokio::task::spawn_blocking(move || {
                backup::put_in_place(&data)?;
                Library::open(&data, &store, &selection).map_err(anyhow::Error::from)
            })
            .await?
        };
        let (library, indexed) = opened.with_context(|| format!("open the library in {}", data.display()))?;
        let token = load_or_make_token(&data).context("make the write token")?;
        let analyser = Arc::new(Analyser::new(alexandria_ml::Config::default()).context("start the image analyser")?);
        let importer = Importer::new(library.clone(), Arc::clone(&analyser), config.import.clone());
        let replicator = Replicator::new(library.clone(), config.replication.clone());
        let lan = (face == Face::Public)
            .then(|| Lan::new(library.clone(), config.lan.clone(), config.listen, &machine_name()));
        let (stop, stopped) = watch::channel(false);
        let restart = Arc::new(Notify::new());

        let public = match face {
            Face::Public => {
                let listen = config.listen;
                Some(TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?)
            }
            Face::LocalOnly => None,
        };
        let address = match &public {
            Some(listener) => Some(format!("http://{}", listener.local_addr().context("find the address")?)),
            None => None,
        };
        let socket = crate::local::socket_path(&data);
        let local_listener = bind_local(&socket)?;
        let local_state = LocalState {
            library: library.clone(),
            importer: importer.clone(),
            replicator: replicator.clone(),
            lan: lan.clone(),
            token: token.as_str().into(),
            machine: machine_name().into(),
            address: address.as_deref().map(Arc::from),
            cache_bytes: config.store.cache_bytes,
            restart: Arc::clone(&restart),
        };
        let limits = config.http.connections.clone();
        let mut workers = Workers::default();
        workers.spawn("the local socket", {
            let limits = ServerLimits { stall_timeout_s: LOCAL_STALL_TIMEOUT_S, ..limits.clone() };
            let stopped = stopped.clone();
            async move {
                alexandria_api::serve::serve(local_listener, local::router(local_state), &limits, told(stopped)).await;
            }
        });
        if let Some(listener) = public {
            let router = http::router(&library, NodeWriteGuard::new(&token), &Metrics::default(), &config.http);
            let listener = alexandria_api::serve::without_delay(listener);
            workers.spawn("the web server", async move {
                alexandria_api::serve::serve(listener, router, &limits, told(stopped)).await;
            });
        }
        workers.spawn("search", follow_search(library.clone(), indexed));
        workers.spawn("erasing", erase::run(library.clone()));
        workers.spawn("replication", {
            let replicator = replicator.clone();
            async move { replicator.run().await }
        });
        if let Some(lan) = lan {
            // Done at once where no other nodes are looked for.
            workers.spawn_errand("meeting other nodes", async move { lan.run().await });
        }
        workers.spawn("aligning collections", align::run(library.clone()));
        if face == Face::Public {
            workers.spawn_errand("finding content again", backup::seek_content(library.clone()));
            offer_builtin(&library, &importer).await;
            workers.spawn("looking at pictures", analyse::run(library.clone(), analyser));
            let unclean_stop = library.store().unclean_stop;
            workers.spawn("upkeep", upkeep::run(library.clone(), config.upkeep.clone(), unclean_stop));
        }
        if let Some(address) = &address {
            println!("listening on {address}");
        }
        Ok(Self { library, stop, workers, socket, restart })
    }

    /// Goes on until it is `told` to end, a restore wants it anew, or a part of it is lost; then stops.
    async fn run(mut self, told: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<AfterRun> {
        let ended = tokio::select! {
            told = told => told.map(|()| AfterRun::Over),
            () = self.restart.notified() => Ok(AfterRun::Again),
            lost = self.workers.lost() => {
                tracing::error!(error = &lost as &dyn std::error::Error, "the node cannot go on: start it anew");
                // What is left may wait for what is lost. All that was acknowledged is on the disk.
                let _ = tokio::time::timeout(STOPPED_WITHIN, self.stop()).await;
                return Err(lost).context("the node cannot go on");
            }
        };
        self.stop().await?;
        ended
    }

    /// Lets requests and sessions end, and closes the store.
    ///
    /// # Errors
    ///
    /// If a part of it failed on the way.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.library.close();
        self.stop.send_replace(true);
        let ended = self.workers.ended().await;
        let _ = std::fs::remove_file(&self.socket);
        ended.context("stop a part of the node")
    }
}

async fn told(mut stopped: watch::Receiver<bool>) {
    // Fails only if the node is gone, which is told enough.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Binds the local socket; one that a killed node left behind is replaced. The store's lock keeps two nodes apart.
fn bind_local(socket: &Path) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("clear the local socket");
        }
        _ => {}
    }
    let listener = UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).context("protect the local socket")?;
    Ok(listener)
}

/// What people call this machine.
fn machine_name() -> String {
    let name = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "alexandria".to_owned() } else { name.chars().take(100).collect() }
}

async fn follow_search(library: Library, indexed: crate::search::Indexed) {
    let heads = library.store().records.subscribe();
    let changes = stream::unfold((heads, library.clone()), async |(mut heads, library)| {
        let goes_on = tokio::select! {
            () = library.closed() => false,
            heard = heads.recv() => !matches!(heard, Err(RecvError::Closed)),
        };
        goes_on.then_some(((), (heads, library)))
    });
    let records = library.store().records.clone();
    let waits = (follow::RETRY_FIRST, follow::RETRY_LONGEST);
    follow::follow(&records, library.search(), indexed, changes.boxed(), waits).await;
}

/// Puts the small library into an empty node. Without it the node works all the same.
async fn offer_builtin(library: &Library, importer: &Importer) {
    match library.wants_builtin() {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => return tracing::warn!(%error, "the small library could not be offered"),
    }
    let dir = library.data_dir().join("builtin");
    let offered = async {
        builtin::unpack(&dir)?;
        let (lines, mut told) = mpsc::channel(crate::jobs::import::LINES_WAITING_MAX);
        let title = Some(builtin::COLLECTION_TITLE.to_owned());
        let import = importer.run(vec![dir.clone()], title, lines);
        let watch = async {
            while let Some(line) = told.recv().await {
                match line {
                    ImportLine::Refused { path, reason } => {
                        tracing::warn!(path = %path.display(), %reason, "a file of the small library was refused");
                    }
                    ImportLine::Failed { reason } => tracing::warn!(%reason, "the small library is not whole"),
                    _ => {}
                }
            }
        };
        tokio::join!(import, watch);
        std::fs::remove_dir_all(&dir)?;
        library.note_builtin_offered()
    };
    if let Err(error) = offered.await {
        tracing::warn!(%error, "the small library could not be offered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_mins(1);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_worker_that_panics_ends_the_run_with_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data: dir.path().to_owned(), ..Config::default() };
        let mut node = Node::start(config.clone(), Face::LocalOnly).await.unwrap();
        node.workers.spawn("frail work", async { panic!("a bug") });
        let run = tokio::time::timeout(DEADLINE, node.run(std::future::pending())).await.expect("it ends");
        let said = format!("{:#}", run.expect_err("it ends with an error"));
        assert!(said.contains("frail work failed") && said.contains("a bug"), "{said}");

        let again = Node::start(config, Face::LocalOnly).await.expect("it has let go of its folder");
        assert_eq!(again.run(async { Ok(()) }).await.unwrap(), AfterRun::Over);
    }
}
