//! A bad line for datagrams, without root: a UDP relay on 127.0.0.1 that delays, loses and cuts on command.
//!
//! It counts what each direction carried and lost, so a test can tell how much of a transfer was sent again. Each
//! client gets a socket of its own towards the server, as behind a NAT.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{net::UdpSocket, sync::mpsc, task::JoinSet};

use crate::line::{Counters, Fate, Line, Profile, Traffic};

/// Clients at a time.
const CLIENTS_MAX: usize = 64;
/// Packets on their way in one direction: more are lost.
const IN_FLIGHT_MAX: usize = 65_536;
/// Larger than any datagram.
const DATAGRAM_MAX_BYTES: usize = 65_536;
/// What the system may hold for us while other processes have the processor.
const SOCKET_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// The relay. Gone when dropped.
pub struct UdpLossyProxy {
    address: SocketAddr,
    to_server: Arc<Direction>,
    to_client: Arc<Direction>,
    _relay: JoinSet<()>,
}

struct Direction {
    line: Mutex<Line>,
    counters: Counters,
}

/// A datagram that will arrive, and where.
struct Flight {
    at: Instant,
    bytes: Vec<u8>,
    from: Arc<UdpSocket>,
    to: SocketAddr,
}

impl UdpLossyProxy {
    /// Starts relaying to `server`, both ways alike. The seed decides which datagrams are lost.
    pub async fn start(server: SocketAddr, profile: Profile, seed: u64) -> Self {
        let socket = Arc::new(bind().await);
        let address = socket.local_addr().expect("a bound socket has an address");
        let direction = |seed| Arc::new(Direction::new(profile, seed));
        let (to_server, to_client) = (direction(seed), direction(seed.wrapping_add(1)));
        let mut relay = JoinSet::new();
        relay.spawn(serve(socket, server, Arc::clone(&to_server), Arc::clone(&to_client)));
        Self { address, to_server, to_client, _relay: relay }
    }

    /// Where clients send.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what the line is like, both ways.
    pub fn set(&self, profile: Profile) {
        self.both(|line| line.set(profile));
    }

    /// Loses everything from now on.
    pub fn cut(&self) {
        self.both(|line| line.set_cut(true));
    }

    /// Ends a cut.
    pub fn heal(&self) {
        self.both(|line| line.set_cut(false));
    }

    pub fn to_server(&self) -> Traffic {
        self.to_server.counters.traffic()
    }

    pub fn to_client(&self) -> Traffic {
        self.to_client.counters.traffic()
    }

    fn both(&self, change: impl Fn(&mut Line)) {
        for direction in [&self.to_server, &self.to_client] {
            change(&mut direction.line.lock().expect("no holder of the lock panics"));
        }
    }
}

impl Direction {
    fn new(profile: Profile, seed: u64) -> Self {
        Self { line: Mutex::new(Line::new(profile, seed)), counters: Counters::default() }
    }

    /// Sends a datagram on its way, or loses it.
    fn carry(&self, flights: &mpsc::Sender<Flight>, bytes: &[u8], from: &Arc<UdpSocket>, to: SocketAddr) {
        let fate = self.line.lock().expect("no holder of the lock panics").carry(bytes.len(), Instant::now());
        let is_on_its_way = match fate {
            Fate::Lost => false,
            Fate::Arrives(at) => {
                flights.try_send(Flight { at, bytes: bytes.to_vec(), from: Arc::clone(from), to }).is_ok()
            }
        };
        if !is_on_its_way {
            self.counters.lost(bytes.len());
        }
    }
}

/// Takes datagrams from clients; opens a way back for each new one.
async fn serve(socket: Arc<UdpSocket>, server: SocketAddr, to_server: Arc<Direction>, to_client: Arc<Direction>) {
    let mut tasks = JoinSet::new();
    let mut spawn_landing = |direction: &Arc<Direction>| {
        let (flights, landing) = mpsc::channel(IN_FLIGHT_MAX);
        tasks.spawn(land(landing, Arc::clone(direction)));
        flights
    };
    let (up, down) = (spawn_landing(&to_server), spawn_landing(&to_client));
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
    loop {
        // An error belongs to an earlier datagram that found nobody listening.
        let Ok((count, client)) = socket.recv_from(&mut buffer).await else { continue };
        if !clients.contains_key(&client) {
            assert!(clients.len() < CLIENTS_MAX, "more than {CLIENTS_MAX} clients of one proxy");
            let upstream = Arc::new(bind().await);
            tasks.spawn(answer(
                Arc::clone(&upstream),
                Arc::clone(&socket),
                client,
                Arc::clone(&to_client),
                down.clone(),
            ));
            clients.insert(client, upstream);
        }
        to_server.carry(&up, &buffer[..count], &clients[&client], server);
    }
}

/// Takes the server's datagrams for one client.
async fn answer(
    upstream: Arc<UdpSocket>,
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    to_client: Arc<Direction>,
    down: mpsc::Sender<Flight>,
) {
    let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
    loop {
        if let Ok((count, _server)) = upstream.recv_from(&mut buffer).await {
            to_client.carry(&down, &buffer[..count], &socket, client);
        }
    }
}

/// Lets datagrams arrive, each in its time.
async fn land(mut flights: mpsc::Receiver<Flight>, direction: Arc<Direction>) {
    while let Some(Flight { at, bytes, from, to }) = flights.recv().await {
        if at > Instant::now() {
            tokio::time::sleep_until(at.into()).await;
        }
        match from.send_to(&bytes, to).await {
            Ok(_) => direction.counters.delivered(bytes.len()),
            Err(_) => direction.counters.lost(bytes.len()),
        }
    }
}

async fn bind() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("127.0.0.1 has a free port");
    // Root may go past the system's limit; others get as much as it grants.
    if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES).is_err() {
        let _ = setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER_BYTES);
    }
    socket
}
