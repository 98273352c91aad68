//! The composition root: puts a node together, starts it, and takes it apart again.
//!
//! [`serve`] runs one until it is told to stop. After a restore it takes the node apart and puts it together anew.

mod backup;
mod bundle;
mod held_back;
mod local;
mod quarantine;
mod selection;
mod status;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use alexandria_api::serve::ServerLimits;
use alexandria_ml::Analyser;
use anyhow::Context;
use futures::stream::{self, StreamExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::http;
use crate::http::guard::{NodeWriteGuard, load_or_make_token};
use crate::http::health::Metrics;
use crate::jobs::{Importer, align, analyse, erase, upkeep, verify};
use crate::lan::Lan;
use crate::library::{Library, builtin};
use crate::local::ImportLine;
use crate::replication::Replicator;
use crate::search::follow;

use self::local::LocalState;

/// The command line may wait long without a word: for a large file to be imported, for a backup to be written.
const LOCAL_STALL_TIMEOUT_S: u64 = 7 * 24 * 60 * 60;

/// How much of a node is put together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Face {
    /// All of it.
    Public,
    /// Only what the command line needs.
    LocalOnly,
}

/// A node that runs.
pub struct Node {
    library: Library,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    socket: PathBuf,
    restart: Arc<Notify>,
}

/// Runs the node until it is told to stop (SIGINT or SIGTERM).
///
/// # Errors
///
/// What kept it from starting, or from stopping in order.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        let node = Node::start(config.clone(), Face::Public).await?;
        let again = tokio::select! {
            signal = tokio::signal::ctrl_c() => {
                signal.context("wait for a signal")?;
                false
            }
            _ = terminate.recv() => false,
            () = node.restart.notified() => true,
        };
        node.stop().await?;
        if !again {
            return Ok(());
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
                let restored = backup::put_in_place(&data)?;
                let (library, indexed) = Library::open(&data, &store, &selection)?;
                anyhow::Ok((library, indexed, restored))
            })
            .await?
        };
        let (library, indexed, restored) = opened.with_context(|| format!("open the library in {}", data.display()))?;
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
        let mut servers = vec![tokio::spawn({
            let limits = ServerLimits { stall_timeout_s: LOCAL_STALL_TIMEOUT_S, ..limits.clone() };
            let stopped = stopped.clone();
            async move {
                alexandria_api::serve::serve(local_listener, local::router(local_state), &limits, told(stopped)).await;
            }
        })];
        if let Some(listener) = public {
            let router = http::router(&library, NodeWriteGuard::new(&token), &Metrics::default(), &config.http);
            let listener = alexandria_api::serve::without_delay(listener);
            servers.push(tokio::spawn(async move {
                alexandria_api::serve::serve(listener, router, &limits, told(stopped)).await;
            }));
        }
        let mut workers = vec![spawn_search(library.clone(), indexed), tokio::spawn(erase::run(library.clone()))];
        workers.push(tokio::spawn({
            let replicator = replicator.clone();
            async move { replicator.run().await }
        }));
        if let Some(lan) = lan {
            workers.push(tokio::spawn(async move { lan.run().await }));
        }
        workers.push(tokio::spawn(align::run(library.clone())));
        if restored {
            // Content that lies in the folder is found again.
            let (lines, _) = mpsc::channel(1);
            workers.push(tokio::spawn(verify::run(library.clone(), true, lines)));
        }
        if face == Face::Public {
            offer_builtin(&library, &importer).await;
            workers.push(tokio::spawn(analyse::run(library.clone(), analyser)));
            let unclean_stop = library.store().unclean_stop;
            workers.push(tokio::spawn(upkeep::run(library.clone(), config.upkeep.clone(), unclean_stop)));
        }
        if let Some(address) = &address {
            println!("listening on {address}");
        }
        Ok(Self { library, stop, servers, workers, socket, restart })
    }

    /// Lets requests and sessions end, and closes the store.
    ///
    /// # Errors
    ///
    /// If a part of it failed on the way.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.library.close();
        self.stop.send_replace(true);
        for task in self.servers.into_iter().chain(self.workers) {
            task.await.context("stop a part of the node")?;
        }
        let _ = std::fs::remove_file(&self.socket);
        Ok(())
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

fn spawn_search(library: Library, indexed: crate::search::Indexed) -> JoinHandle<()> {
    tokio::spawn(async move {
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
    })
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
