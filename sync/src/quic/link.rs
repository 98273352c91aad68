//! A QUIC connection as the driver sees it: each lane is a unidirectional stream that starts with the lane's number.

use std::io;

use quinn::{Connection, RecvStream, SendStream, VarInt};

use crate::driver::Link;
use crate::identity::PeerIdentity;
use crate::transport::{WireBytes, ip_header_bytes};
use crate::wire::Lane;

/// RFC 768.
const UDP_HEADER_BYTES: u64 = 8;

/// A connection to an authenticated peer.
#[derive(Debug)]
pub struct QuicLink {
    connection: Connection,
    peer: PeerIdentity,
}

impl QuicLink {
    pub(super) fn new(connection: Connection, peer: PeerIdentity) -> Self {
        Self { connection, peer }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> PeerIdentity {
        self.peer
    }

    /// A handle that tells what went over the wire, for as long as the connection lives and after.
    pub fn wire_bytes(&self) -> impl Fn() -> WireBytes + Send + Sync + use<> {
        let connection = self.connection.clone();
        move || {
            let stats = connection.stats();
            let datagrams = stats.udp_tx.datagrams + stats.udp_rx.datagrams;
            let headers = datagrams * (ip_header_bytes(connection.remote_address().ip()) + UDP_HEADER_BYTES);
            WireBytes { sent: stats.udp_tx.bytes, received: stats.udp_rx.bytes, headers }
        }
    }

    /// A handle that tells how large the path lets datagrams be, as far as is known, in bytes of UDP payload.
    pub fn path_mtu(&self) -> impl Fn() -> u16 + Send + Sync + use<> {
        let connection = self.connection.clone();
        move || connection.stats().path.current_mtu
    }

    /// Ends the connection at once: the peer is not welcome.
    pub fn refuse(&self, why: &str) {
        self.connection.close(VarInt::from_u32(1), why.as_bytes());
    }
}

/// Streams of a higher priority are sent first; those of the same take turns.
fn priority(lane: Lane) -> i32 {
    match lane {
        Lane::Control => 2,
        Lane::Records => 1,
        Lane::Content(_) => 0,
    }
}

impl Link for QuicLink {
    type Writer = SendStream;
    type Reader = RecvStream;

    async fn open(&self, lane: Lane) -> io::Result<SendStream> {
        let mut stream = self.connection.open_uni().await?;
        stream.set_priority(priority(lane)).map_err(io::Error::other)?;
        stream.write_all(&[lane.number()]).await?;
        Ok(stream)
    }

    async fn accept(&self) -> io::Result<(Lane, RecvStream)> {
        let mut stream = self.connection.accept_uni().await?;
        let mut number = [0];
        stream.read_exact(&mut number).await.map_err(io::Error::other)?;
        let lane = Lane::from_number(number[0])
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the peer opened a lane that does not exist"))?;
        Ok((lane, stream))
    }

    async fn closed(&self) {
        self.connection.closed().await;
    }

    fn close(&self) {
        self.connection.close(VarInt::from_u32(0), b"");
    }
}
