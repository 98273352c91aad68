//! Dialling and listening over TCP.
//!
//! The listener takes every connection through its handshake by itself, beside the others. Those that join a session go to
//! it; only new sessions, and whoever was refused, come out of [`Listener::accept`].

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::connection;
use super::handshake::{self, ConnectError, Connection};
use super::lanes::{Lanes, Redial, Role};
use super::link::TcpLink;
use super::segment::{Segment, SessionToken, TOKEN_BYTES};
use crate::identity::{IdentityError, PeerIdentity};
use crate::tls::{ClientTls, ServerTls};
use crate::wire::Lane;

/// Connections that the system has taken and nobody has looked at, at most.
const BACKLOG: u32 = 1024;
/// New sessions and refusals that wait to be taken from the listener, at most.
const READY_MAX: usize = 64;
/// Connections that were taken for a moment without means, such as file descriptors, are waited for this long.
const OUT_OF_MEANS_WAIT: Duration = Duration::from_millis(100);

/// The limits of a session's connections.
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// A session that hears nothing for this long is gone.
    pub idle_timeout: Duration,
    /// A quiet session says something this often, so that it is known to be there.
    pub keep_alive: Duration,
    /// A peer that takes nothing of what it is sent for this long is gone.
    pub stall_timeout: Duration,
    /// How long a connection may take from the first packet until its purpose is known.
    pub handshake_timeout: Duration,
    /// Handshakes under way at once, at most.
    pub incoming_max: usize,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(8),
            stall_timeout: Duration::from_mins(1),
            handshake_timeout: Duration::from_secs(20),
            incoming_max: 256,
        }
    }
}

/// Dials the bridge.
#[derive(Clone, Debug)]
pub struct Dialer {
    config: TcpConfig,
}

impl Dialer {
    /// A dialler with these limits.
    pub fn new(config: &TcpConfig) -> Self {
        Self { config: config.clone() }
    }

    /// Connects to the bridge `expected` at `address`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; it is safe to try again.
    pub async fn connect(
        &self,
        address: SocketAddr,
        tls: &ClientTls,
        expected: PeerIdentity,
    ) -> Result<TcpLink, ConnectError> {
        let redial = Redial { address, tls: Arc::clone(&tls.tcp), expected };
        let mut control = handshake::dial(address, Arc::clone(&tls.tcp), expected, &self.config).await?;
        control.stream.write_all(&Segment::Begin.encode()).await.map_err(ConnectError::Socket)?;
        let known = control.known;
        let (lanes, opened) = Lanes::begin(Role::Dialler(redial), control, self.config.clone());
        Ok(TcpLink::new(lanes, opened, known, None))
    }
}

/// Takes connections of nodes.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    ready: tokio::sync::Mutex<mpsc::Receiver<Knock>>,
    sessions: Sessions,
    accepting: Mutex<JoinSet<()>>,
}

/// A peer that asks to be let in, after its handshake.
#[derive(Debug)]
pub struct Knock {
    address: SocketAddr,
    result: Result<TcpLink, ConnectError>,
}

impl Knock {
    /// Where it knocks from.
    pub fn remote_address(&self) -> SocketAddr {
        self.address
    }

    /// What came of the handshake.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the peer's certificate is missing, foreign or names no node, or if it may not join the session
    /// that it names.
    pub fn answer(self) -> Result<TcpLink, ConnectError> {
        self.result
    }
}

impl Listener {
    /// Listens on `address`. Must be made inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Socket`] if the address is not usable.
    pub fn bind(address: SocketAddr, tls: &ServerTls, config: &TcpConfig) -> Result<Self, ConnectError> {
        let listener = listen(address).map_err(ConnectError::Socket)?;
        let address = listener.local_addr().map_err(ConnectError::Socket)?;
        let (sender, ready) = mpsc::channel(READY_MAX);
        let sessions = Sessions::default();
        let greeter = Greeter { tls: Arc::clone(&tls.tcp), sessions: sessions.clone(), config: config.clone() };
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, greeter, sender));
        Ok(Self { address, ready: ready.into(), sessions, accepting: accepting.into() })
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next peer that opens a session or was refused.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Closed`] once the listener was closed.
    pub async fn accept(&self) -> Result<Knock, ConnectError> {
        self.ready.lock().await.recv().await.ok_or(ConnectError::Closed)
    }

    /// Stops listening, and ends every session.
    pub fn close(&self) {
        self.accepting.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        for door in self.sessions.doors().values() {
            if let Some(lanes) = door.lanes.upgrade() {
                lanes.close();
            }
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, greeter: Greeter, ready: mpsc::Sender<Knock>) {
    let slots = Arc::new(Semaphore::new(greeter.config.incoming_max));
    let mut greeted = JoinSet::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(OUT_OF_MEANS_WAIT).await;
                    continue;
                }
            },
            Some(_) = greeted.join_next() => continue,
        };
        let (greeter, ready) = (greeter.clone(), ready.clone());
        greeted.spawn(async move {
            let greeting = tokio::time::timeout(greeter.config.handshake_timeout, greeter.greet(stream)).await;
            if let Some(result) = greeting.unwrap_or(Err(ConnectError::TimedOut)).transpose() {
                // The listener is gone if it fails, and so is the link.
                let _ = ready.send(Knock { address, result }).await;
            }
            drop(slot);
        });
    }
}

/// Finds out what a connection is for.
#[derive(Clone)]
struct Greeter {
    tls: Arc<ServerConfig>,
    sessions: Sessions,
    config: TcpConfig,
}

impl Greeter {
    /// A new session, or `None` if the connection went to the one that it belongs to.
    async fn greet(&self, stream: TcpStream) -> Result<Option<TcpLink>, ConnectError> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.tls));
        let mut connection = handshake::answer(stream, &acceptor, &self.config).await?;
        let certificate = connection.certificate().ok_or(IdentityError::NoName)?;
        match connection::read(&mut connection.stream).await.map_err(ConnectError::Handshake)? {
            Some(Segment::Begin) => self.begin(connection, certificate).map(Some),
            Some(Segment::Join(token, lane)) => {
                self.join(connection, certificate, token, lane)?;
                Ok(None)
            }
            _ => Err(ConnectError::FirstWord),
        }
    }

    fn begin(&self, control: Connection, certificate: blake3::Hash) -> Result<TcpLink, ConnectError> {
        let mut token = [0; TOKEN_BYTES];
        let random = self.tls.crypto_provider().secure_random.fill(&mut token);
        random.map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
        let token = SessionToken::from_bytes(token);
        let known = control.known;
        let (lanes, opened) = Lanes::begin(Role::Listener, control, self.config.clone());
        self.sessions.doors().insert(token, Door { certificate, lanes: Arc::downgrade(&lanes) });
        lanes.order(Segment::Session(token));
        Ok(TcpLink::new(lanes, opened, known, Some(Registration { sessions: self.sessions.clone(), token })))
    }

    fn join(
        &self,
        connection: Connection,
        certificate: blake3::Hash,
        token: SessionToken,
        lane: Lane,
    ) -> Result<(), ConnectError> {
        let lanes = {
            let doors = self.sessions.doors();
            let door = doors.get(&token).ok_or(ConnectError::UnknownSession)?;
            if door.certificate != certificate {
                return Err(ConnectError::MayNotJoin);
            }
            door.lanes.upgrade().ok_or(ConnectError::UnknownSession)?
        };
        lanes.join(lane, connection)
    }
}

/// The sessions that are open, by their token: as many as there are links.
#[derive(Clone, Debug, Default)]
struct Sessions {
    doors: Arc<Mutex<HashMap<SessionToken, Door>>>,
}

#[derive(Debug)]
struct Door {
    /// Whose certificate began the session.
    certificate: blake3::Hash,
    lanes: Weak<Lanes>,
}

impl Sessions {
    fn doors(&self) -> MutexGuard<'_, HashMap<SessionToken, Door>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a session open to further connections.
#[derive(Debug)]
pub(super) struct Registration {
    sessions: Sessions,
    token: SessionToken,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.sessions.doors().remove(&self.token);
    }
}
