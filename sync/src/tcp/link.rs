//! A session's connections as the driver sees them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::DuplexStream;
use tokio::sync::{Mutex, mpsc};

use super::endpoint::Registration;
use super::handshake::Known;
use super::lanes::{Lanes, Opened};
use super::segment::Segment;
use crate::driver::Link;
use crate::identity::PeerIdentity;
use crate::transport::WireBytes;
use crate::wire::Lane;

/// Connections to an authenticated peer, one for each lane. All of them end when it is dropped.
#[derive(Debug)]
pub struct TcpLink {
    lanes: Arc<Lanes>,
    opened: Mutex<mpsc::Receiver<Opened>>,
    peer: PeerIdentity,
    is_resumed: bool,
    is_refusing: AtomicBool,
    _registration: Option<Registration>,
}

impl TcpLink {
    pub(super) fn new(
        lanes: Arc<Lanes>,
        opened: mpsc::Receiver<Opened>,
        first: Known,
        registration: Option<Registration>,
    ) -> Self {
        let Known { peer, is_resumed } = first;
        let is_refusing = AtomicBool::new(false);
        Self { lanes, opened: opened.into(), peer, is_resumed, is_refusing, _registration: registration }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> PeerIdentity {
        self.peer
    }

    /// Whether its first handshake went on from an earlier session, without certificates.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// A handle that tells what went over the wire, for as long as the connections live and after.
    pub fn wire_bytes(&self) -> impl Fn() -> WireBytes + Send + Sync + use<> {
        self.lanes.wire_bytes()
    }

    /// Tells the peer that it is not welcome, and ends the connections once that is said.
    pub fn refuse(&self, why: &str) {
        self.is_refusing.store(true, Ordering::Relaxed);
        self.lanes.order(Segment::Refused(why.to_owned()));
    }
}

impl Drop for TcpLink {
    fn drop(&mut self) {
        if !self.is_refusing.load(Ordering::Relaxed) {
            self.lanes.close();
        }
    }
}

impl Link for TcpLink {
    type Writer = DuplexStream;
    type Reader = DuplexStream;

    async fn open(&self, lane: Lane) -> io::Result<DuplexStream> {
        self.lanes.open(lane).await
    }

    async fn accept(&self) -> io::Result<Opened> {
        let mut opened = self.opened.lock().await;
        tokio::select! {
            biased;
            Some(opened) = opened.recv() => Ok(opened),
            error = self.lanes.ended() => Err(error),
        }
    }

    async fn closed(&self) {
        self.lanes.ended().await;
    }

    fn close(&self) {
        self.lanes.close();
    }
}
