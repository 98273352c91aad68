//! The lanes of one session over TCP: which are open, who is to open the others, and how all of them end.
//!
//! Either end may want a lane first; only the dialler can open the connection. So each lane has a slot: the connection
//! puts its sending half in, whenever it comes about, and whoever opens the lane waits for it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ClientConfig;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot, watch};

use super::connection;
use super::endpoint::TcpConfig;
use super::handshake::{self, ConnectError, Connection};
use super::segment::{Segment, SessionToken};
use super::socket::Counters;
use crate::identity::PeerIdentity;
use crate::transport::WireBytes;
use crate::wire::Lane;
use crate::wire::message::CONTENT_LANES;

/// Lanes of a session, and so its connections, at most.
const LANES: usize = CONTENT_LANES as usize + 2;
/// What the control lane's writer may be asked to say beside the lane's bytes: to open each lane, and one refusal.
const ORDERS_MAX: usize = LANES + 2;

/// Who opens connections.
#[derive(Debug)]
pub(super) enum Role {
    /// This end, in this way.
    Dialler(Redial),
    /// The other.
    Listener,
}

/// How the dialler reaches the other end once more.
#[derive(Debug)]
pub(super) struct Redial {
    pub(super) address: SocketAddr,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) expected: PeerIdentity,
}

/// Why there are no lanes any more.
#[derive(Clone, Debug)]
enum End {
    Closed,
    Refused(String),
    Broken(io::ErrorKind, String),
}

/// What the driver gets of a lane that was opened.
pub(super) type Opened = (Lane, DuplexStream);

#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) config: TcpConfig,
    role: Role,
    slots: Mutex<[Slot; LANES]>,
    opened: mpsc::Sender<Opened>,
    orders: mpsc::Sender<Segment>,
    token: watch::Sender<Option<SessionToken>>,
    end: watch::Sender<Option<End>>,
    counters: Arc<Mutex<Vec<Arc<Counters>>>>,
}

#[derive(Debug)]
struct Slot {
    is_asked_for: bool,
    /// For the connection, until there is one.
    give: Option<oneshot::Sender<DuplexStream>>,
    /// For whoever opens the lane, until it was opened.
    take: Option<oneshot::Receiver<DuplexStream>>,
}

impl Default for Slot {
    fn default() -> Self {
        let (give, take) = oneshot::channel();
        Self { is_asked_for: false, give: Some(give), take: Some(take) }
    }
}

impl Lanes {
    /// The lanes of a session that begins on `control`. Also gives what the driver is to hear of.
    pub(super) fn begin(role: Role, control: Connection, config: TcpConfig) -> (Arc<Self>, mpsc::Receiver<Opened>) {
        let (opened, to_hear) = mpsc::channel(LANES);
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let lanes = Arc::new(Self {
            config,
            role,
            slots: Mutex::default(),
            opened,
            orders,
            token: watch::Sender::new(None),
            end: watch::Sender::new(None),
            counters: Arc::default(),
        });
        lanes.put(Lane::Control, control, Some(ordered)).expect("a new session has no lanes");
        (lanes, to_hear)
    }

    /// Takes a further connection in, for `lane`.
    ///
    /// # Errors
    ///
    /// [`ConnectError::MayNotJoin`] if the lane has one.
    pub(super) fn join(self: &Arc<Self>, lane: Lane, connection: Connection) -> Result<(), ConnectError> {
        self.put(lane, connection, None)
    }

    fn put(
        self: &Arc<Self>,
        lane: Lane,
        connection: Connection,
        orders: Option<mpsc::Receiver<Segment>>,
    ) -> Result<(), ConnectError> {
        let give = {
            let slot = &mut self.slots()[usize::from(lane.number())];
            slot.is_asked_for = true;
            slot.give.take().ok_or(ConnectError::MayNotJoin)?
        };
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).push(connection.counters);
        let (writer, reader) = connection::carry(self, lane, connection.stream, orders);
        // Neither fails while somebody cares: there is room for each lane once, and one waits for it or will.
        let _ = give.send(writer);
        let _ = self.opened.try_send((lane, reader));
        Ok(())
    }

    /// Opens the sending half of a lane, over a new connection if there is none.
    pub(super) async fn open(self: &Arc<Self>, lane: Lane) -> io::Result<DuplexStream> {
        let take = self.slots()[usize::from(lane.number())].take.take();
        let take = take.ok_or_else(|| io::Error::new(io::ErrorKind::AlreadyExists, "the lane is open"))?;
        self.ask_for(lane);
        let opening = tokio::time::timeout(self.config.handshake_timeout * 2, take);
        tokio::select! {
            biased;
            writer = opening => {
                if let Ok(Ok(writer)) = writer {
                    return Ok(writer);
                }
                self.break_off(&io::Error::new(io::ErrorKind::TimedOut, "the peer did not open a lane in time"));
                Err(self.ended().await)
            }
            error = self.ended() => Err(error),
        }
    }

    /// Sees to it that a lane gets its connection.
    pub(super) fn ask_for(self: &Arc<Self>, lane: Lane) {
        let was_asked_for = std::mem::replace(&mut self.slots()[usize::from(lane.number())].is_asked_for, true);
        if was_asked_for {
            return;
        }
        match &self.role {
            // There is room for each lane once. If the control lane is gone, everything is.
            Role::Listener => drop(self.orders.try_send(Segment::Open(lane))),
            Role::Dialler(_) => {
                let lanes = Arc::clone(self);
                tokio::spawn(async move {
                    tokio::select! {
                        dialled = lanes.dial(lane) => if let Err(error) = dialled {
                            lanes.break_off(&io::Error::other(error));
                        },
                        _ = lanes.ended() => {}
                    }
                });
            }
        }
    }

    async fn dial(self: &Arc<Self>, lane: Lane) -> Result<(), ConnectError> {
        let Role::Dialler(redial) = &self.role else { return Ok(()) };
        let mut token = self.token.subscribe();
        let told = tokio::time::timeout(self.config.handshake_timeout, token.wait_for(Option::is_some)).await;
        let token = told.ok().and_then(Result::ok).and_then(|token| *token).ok_or(ConnectError::TimedOut)?;
        let mut connection =
            handshake::dial(redial.address, Arc::clone(&redial.tls), redial.expected, &self.config).await?;
        let join = Segment::Join(token, lane).encode();
        connection.stream.write_all(&join).await.map_err(ConnectError::Socket)?;
        self.join(lane, connection)
    }

    /// Says something on the control lane, beside its bytes.
    pub(super) fn order(&self, segment: Segment) {
        // It is full or gone only when the session is over.
        let _ = self.orders.try_send(segment);
    }

    /// What the listener said on the control lane.
    pub(super) fn heard(self: &Arc<Self>, segment: Segment) -> io::Result<()> {
        match (segment, &self.role) {
            (Segment::KeepAlive | Segment::Skipped, _) => {}
            (Segment::Session(token), Role::Dialler(_)) => drop(self.token.send_replace(Some(token))),
            (Segment::Open(lane), Role::Dialler(_)) => self.ask_for(lane),
            (Segment::Refused(reason), Role::Dialler(_)) => self.end_with(End::Refused(reason)),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a segment that does not belong here")),
        }
        Ok(())
    }

    /// Ends all lanes: this end is done, or the other is.
    pub(super) fn close(&self) {
        self.end_with(End::Closed);
    }

    /// Ends all lanes: one of them broke.
    pub(super) fn break_off(&self, error: &io::Error) {
        self.end_with(End::Broken(error.kind(), error_text(error)));
    }

    fn end_with(&self, end: End) {
        // The first reason is the one that counts.
        self.end.send_if_modified(|known| {
            let is_new = known.is_none();
            known.get_or_insert(end);
            is_new
        });
    }

    /// Waits until there are no lanes any more, and says why.
    pub(super) async fn ended(&self) -> io::Error {
        let mut end = self.end.subscribe();
        let end = end.wait_for(Option::is_some).await;
        match end.ok().and_then(|end| end.clone()).unwrap_or(End::Closed) {
            End::Closed => io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was closed"),
            End::Refused(reason) => io::Error::new(io::ErrorKind::ConnectionRefused, format!("refused: {reason}")),
            End::Broken(kind, text) => io::Error::new(kind, text),
        }
    }

    /// Tells what went over the wire, for as long as it is asked.
    pub(super) fn wire_bytes(&self) -> impl Fn() -> WireBytes + Send + Sync + use<> {
        let counters = Arc::clone(&self.counters);
        move || {
            let counters = counters.lock().unwrap_or_else(PoisonError::into_inner);
            counters.iter().map(|counters| counters.wire_bytes()).sum()
        }
    }

    fn slots(&self) -> MutexGuard<'_, [Slot; LANES]> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with its causes, in one line.
fn error_text(error: &io::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.get_ref().and_then(std::error::Error::source);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
