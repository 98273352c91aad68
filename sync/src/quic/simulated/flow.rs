//! A connection and the two programs at its ends: one writes, on all content lanes, the other reads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, Endpoint, EndpointConfig,
    ServerConfig, StreamId,
};

use crate::id::NodeId;
use crate::identity::{Authority, BRIDGE_SERVER_NAME, Identity, PeerIdentity, PeerRole, SigningRequest};
use crate::quic::endpoint::TransportConfig;
use crate::tickets::TicketSecret;
use crate::tls::{ClientTls, ServerTls};
use crate::wire::message::CONTENT_LANES;

/// Datagrams that quinn hands to the kernel in one call.
const DATAGRAMS_IN_A_BATCH: usize = 10;

/// A mark in a transfer: when its first megabyte had been read.
pub const FIRST_BYTES: u64 = 1_000_000;

/// 2026-01-01, in seconds since 1970: when certificates are made.
const NOW_UNIX_S: u64 = 1_767_225_600;

/// Who governs how much is in flight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Controller {
    /// This crate's.
    Ours,
    /// quinn's CUBIC, which stands in for TCP.
    Cubic,
    /// quinn's BBR.
    Bbr,
}

/// What a flow is to do.
#[derive(Clone, Debug)]
pub struct FlowConfig {
    /// Who governs it.
    pub controller: Controller,
    /// The limits of the connection, as the product sets them.
    pub transport: TransportConfig,
    /// How much it is to deliver. It writes no more than that.
    pub size_bytes: u64,
}

/// How far a flow has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Bytes that the reader has read.
    pub read_bytes: u64,
    /// Bytes that the sender has sent, as UDP payload: what the product counts as wire bytes.
    pub sent_bytes: u64,
    /// Datagrams that the sender deemed lost.
    pub deemed_lost: u64,
    /// From dialling until the first megabyte had been read.
    pub first_megabyte: Option<Duration>,
    /// From dialling until all had been read.
    pub done_at: Option<Duration>,
}

/// The two ends of a flow. Data goes from the first to the second.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum End {
    Sender,
    Receiver,
}

/// The certificates of a fleet of one node, which sends, and one bridge.
pub(super) struct Ends {
    node: Identity,
    bridge: Identity,
}

impl Ends {
    pub(super) fn new() -> Self {
        let authority = Authority::make("simulated fleet", NOW_UNIX_S).expect("the system gives randomness");
        let identity = |role, number: u8| {
            let named = PeerIdentity { role, id: NodeId::from_bytes([number; 16]) };
            let request = SigningRequest::make(named).expect("the system gives randomness");
            let signed = authority.sign(&request.request_pem, named, [number; 16], NOW_UNIX_S, 18 * 365);
            let certificate = signed.expect("the request was just made");
            Identity::from_pem(&certificate, &request.key_pem, authority.certificate_pem()).expect("it was just made")
        };
        Self { node: identity(PeerRole::Node, 1), bridge: identity(PeerRole::Bridge, 2) }
    }
}

/// One end's half of the connection.
struct Half {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    peer: SocketAddr,
}

pub(super) struct Flow {
    sender: Half,
    receiver: Half,
    lanes: Vec<StreamId>,
    /// Bytes that are still to be written.
    unwritten: u64,
    size_bytes: u64,
    dialled_at: Duration,
    progress: Progress,
}

impl Flow {
    pub(super) fn dial(ends: &Ends, config: &FlowConfig, now: Instant, dialled_at: Duration) -> Self {
        let addresses: [SocketAddr; 2] = [([10, 0, 0, 1], 4001).into(), ([10, 0, 0, 2], 4002).into()];
        let transport = || {
            let mut transport = config.transport.to_quinn();
            if let Some(factory) = factory(config.controller) {
                Arc::get_mut(&mut transport).expect("it was just made").congestion_controller_factory(factory);
            }
            transport
        };
        let secret = TicketSecret::derived_from(b"simulated");
        let tls = ServerTls::new(&ends.bridge, &secret).expect("the certificate is good").quic;
        let mut server =
            ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("TLS 1.3 is there")));
        server.transport_config(transport());
        let tls = ClientTls::new(&ends.node, NOW_UNIX_S).expect("the certificate is good").quic;
        let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3 is there")));
        client.transport_config(transport());

        let endpoint = |server: Option<ServerConfig>, seed: u8| {
            Endpoint::new(Arc::new(EndpointConfig::default()), server.map(Arc::new), true, Some([seed; 32]))
        };
        let mut sender = Half { endpoint: endpoint(None, 1), connection: None, peer: addresses[1] };
        let receiver = Half { endpoint: endpoint(Some(server), 2), connection: None, peer: addresses[0] };
        let dialled = sender.endpoint.connect(now, client, addresses[1], BRIDGE_SERVER_NAME);
        sender.connection = Some(dialled.expect("the address and the name are good"));
        Self {
            sender,
            receiver,
            lanes: Vec::new(),
            unwritten: config.size_bytes,
            size_bytes: config.size_bytes,
            dialled_at,
            progress: Progress::default(),
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let stats = self.sender.connection.as_ref().map(|(_, connection)| connection.stats()).unwrap_or_default();
        Progress { sent_bytes: stats.udp_tx.bytes, deemed_lost: stats.path.lost_packets, ..self.progress }
    }

    /// When the next timer of either end fires.
    pub(super) fn timeout(&mut self) -> Option<Instant> {
        let halves = [&mut self.sender, &mut self.receiver];
        halves.into_iter().filter_map(|half| half.connection.as_mut()?.1.poll_timeout()).min()
    }

    pub(super) fn timers_fire(&mut self, now: Instant) {
        for half in [&mut self.sender, &mut self.receiver] {
            if let Some((_, connection)) = &mut half.connection
                && connection.poll_timeout().is_some_and(|at| at <= now)
            {
                connection.handle_timeout(now);
            }
        }
    }

    pub(super) fn receive(&mut self, to: End, ecn: Option<EcnCodepoint>, payload: &[u8], now: Instant) {
        let half = match to {
            End::Sender => &mut self.sender,
            End::Receiver => &mut self.receiver,
        };
        half.receive(ecn, payload, now);
    }

    /// Writes, reads, and hands over to `send` what either end has for the other.
    pub(super) fn pump(&mut self, now: Instant, virtual_now: Duration, send: &mut dyn FnMut(End, &[u8], bool)) {
        self.write();
        self.read(virtual_now.saturating_sub(self.dialled_at));
        for (from, half) in [(End::Sender, &mut self.sender), (End::Receiver, &mut self.receiver)] {
            half.exchange_events();
            half.transmit(now, from, send);
        }
    }

    fn write(&mut self) {
        static PIECE: [u8; 64 * 1024] = [0; 64 * 1024];
        let Some((_, connection)) = &mut self.sender.connection else { return };
        while connection.poll().is_some() {}
        if connection.is_handshaking() {
            return;
        }
        while self.lanes.len() < usize::from(CONTENT_LANES) {
            let Some(lane) = connection.streams().open(Dir::Uni) else { break };
            self.lanes.push(lane);
        }
        let mut written = true;
        while written {
            written = false;
            for &lane in &self.lanes {
                let piece = PIECE.len().min(usize::try_from(self.unwritten).unwrap_or(usize::MAX));
                if piece == 0 {
                    return;
                }
                if let Ok(taken) = connection.send_stream(lane).write(&PIECE[..piece]) {
                    self.unwritten -= taken as u64;
                    written |= taken > 0;
                }
            }
        }
    }

    fn read(&mut self, since_dialled: Duration) {
        let Some((_, connection)) = &mut self.receiver.connection else { return };
        while connection.poll().is_some() {}
        while connection.streams().accept(Dir::Uni).is_some() {}
        for &lane in &self.lanes {
            let mut stream = connection.recv_stream(lane);
            let Ok(mut chunks) = stream.read(true) else { continue };
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                self.progress.read_bytes += chunk.bytes.len() as u64;
            }
            let _ = chunks.finalize();
        }
        if self.progress.read_bytes >= FIRST_BYTES {
            self.progress.first_megabyte.get_or_insert(since_dialled);
        }
        if self.progress.read_bytes >= self.size_bytes {
            self.progress.done_at.get_or_insert(since_dialled);
        }
    }
}

impl Half {
    fn receive(&mut self, ecn: Option<EcnCodepoint>, payload: &[u8], now: Instant) {
        let mut answer = Vec::new();
        match self.endpoint.handle(now, self.peer, None, ecn, BytesMut::from(payload), &mut answer) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                if let Ok(accepted) = self.endpoint.accept(incoming, now, &mut answer, None) {
                    self.connection = Some(accepted);
                }
            }
            // A refusal: there is nobody to refuse here.
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    fn transmit(&mut self, now: Instant, from: End, send: &mut dyn FnMut(End, &[u8], bool)) {
        let Some((_, connection)) = &mut self.connection else { return };
        let mut buffer = Vec::new();
        while let Some(transmit) = connection.poll_transmit(now, DATAGRAMS_IN_A_BATCH, &mut buffer) {
            let segment = transmit.segment_size.unwrap_or(transmit.size);
            for datagram in buffer[..transmit.size].chunks(segment) {
                send(from, datagram, transmit.ecn.is_some());
            }
            buffer.clear();
        }
    }

    /// Tells endpoint and connection what each has for the other.
    fn exchange_events(&mut self) {
        let Some((handle, connection)) = &mut self.connection else { return };
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(answer) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(answer);
            }
        }
    }
}

/// What replaces the product's controller.
fn factory(controller: Controller) -> Option<Arc<dyn ControllerFactory + Send + Sync>> {
    match controller {
        Controller::Ours => None,
        Controller::Cubic => Some(Arc::new(CubicConfig::default())),
        Controller::Bbr => Some(Arc::new(BbrConfig::default())),
    }
}
