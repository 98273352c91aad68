//! An outage on command: a TCP relay on 127.0.0.1 in front of a real server.
//!
//! The server itself stays up and keeps its state; what a client sees is a refused, cut or silent connection. The
//! address never changes. For datagrams see [`crate::datagrams`].

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// What is read in one go.
const BUFFER_BYTES: usize = 64 * 1024;

/// What becomes of connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Passage {
    /// Everything passes.
    Open,
    /// Connections in use are reset, new ones refused: the server is down.
    Refused,
    /// Connections stay and nothing comes through them: the network has gone away.
    Silent,
}

/// The relay. Gone, with its connections, when dropped.
pub struct OutageProxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    passed: Arc<Passed>,
    _relay: JoinSet<()>,
}

#[derive(Clone, Copy)]
struct Orders {
    passage: Passage,
    /// Goes up with every cut: a connection lives for one of these numbers.
    cuts: u64,
}

#[derive(Default)]
struct Passed {
    connections: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
}

impl OutageProxy {
    /// Starts relaying to `server`.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let address = listener.local_addr().expect("a bound socket has an address");
        let (orders, heard) = watch::channel(Orders { passage: Passage::Open, cuts: 0 });
        let passed = Arc::new(Passed::default());
        let mut relay = JoinSet::new();
        relay.spawn(accept(listener, address, server, heard, Arc::clone(&passed)));
        Self { address, orders, passed, _relay: relay }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same, for HTTP clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes what becomes of connections, from now on.
    pub fn set(&self, passage: Passage) {
        self.orders.send_modify(|orders| {
            orders.passage = passage;
            orders.cuts += u64::from(passage == Passage::Refused);
        });
    }

    /// Resets every connection in use; new ones are taken.
    pub fn cut(&self) {
        self.orders.send_modify(|orders| orders.cuts += 1);
    }

    /// Connections taken so far.
    pub fn connections(&self) -> u64 {
        self.passed.connections.load(Ordering::Relaxed)
    }

    /// Bytes relayed to the server so far.
    pub fn to_server_bytes(&self) -> u64 {
        self.passed.to_server.load(Ordering::Relaxed)
    }

    /// Bytes relayed to clients so far.
    pub fn to_client_bytes(&self) -> u64 {
        self.passed.to_client.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    address: SocketAddr,
    server: SocketAddr,
    mut heard: watch::Receiver<Orders>,
    passed: Arc<Passed>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        let orders = *heard.borrow_and_update();
        match (&listener, orders.passage) {
            // Closing the socket is what makes the system refuse.
            (_, Passage::Refused) => listener = None,
            (None, _) => listener = Some(listen(address).await),
            (Some(_), _) => {}
        }
        tokio::select! {
            accepted = accept_one(listener.as_ref()) => {
                passed.connections.fetch_add(1, Ordering::Relaxed);
                connections.spawn(relay(accepted, server, heard.clone(), orders.cuts, Arc::clone(&passed)));
            }
            changed = heard.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept_one(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => listener.accept().await.expect("the proxy has file descriptors to spare").0,
        None => std::future::pending().await,
    }
}

/// Carries one connection until either side is done with it or it is cut.
async fn relay(
    mut client: TcpStream,
    server: SocketAddr,
    mut heard: watch::Receiver<Orders>,
    cuts: u64,
    passed: Arc<Passed>,
) {
    // Closing then sends a reset: a cut is not a polite end.
    let _ = client.set_zero_linger();
    let Ok(mut upstream) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    // Halves that are borrowed: owned ones end politely when dropped.
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = upstream.split();
    let upwards = pump(from_client, to_server, heard.clone(), &passed.to_server);
    let downwards = pump(from_server, to_client, heard.clone(), &passed.to_client);
    tokio::select! {
        _ = async { tokio::join!(upwards, downwards) } => {}
        _ = heard.wait_for(|orders| orders.cuts != cuts) => {}
    }
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut heard: watch::Receiver<Orders>, passed: &AtomicU64) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if heard.wait_for(|orders| orders.passage != Passage::Silent).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        passed.fetch_add(count as u64, Ordering::Relaxed);
    }
    let _ = to.shutdown().await;
}

async fn listen(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).await.unwrap_or_else(|error| panic!("listen on {address}: {error}"))
}
