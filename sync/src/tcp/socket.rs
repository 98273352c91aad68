//! What is asked of the operating system for one connection, and a count of what crosses it.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::transport::{WireBytes, ip_header_bytes};

/// Bytes that the system takes before it has sent them. What is more urgent waits behind no more than this.
const NOT_SENT_BYTES_MAX: u32 = 128 * 1024;
/// An idle connection is kept in mind by routers on the way if something crosses it this often.
const PROBE_EVERY: Duration = Duration::from_mins(1);

/// TCP's header with a timestamp (RFC 9293, RFC 7323).
const TCP_HEADER_BYTES: u64 = 32;
/// What a segment carries at most on most paths.
const SEGMENT_BYTES: u64 = 1_400;
/// Segments that one acknowledgement answers, as a rule (RFC 9293, section 3.8.6.3).
const SEGMENTS_AN_ACK: u64 = 2;
/// Segments without bytes that open and close a connection, but for acknowledgements.
const SEGMENTS_AROUND: u64 = 4;

/// Prepares a connection: small writes leave at once, and a path that is gone is noticed after `stall_timeout`.
pub(super) fn prepare(stream: &TcpStream, stall_timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_EVERY).with_interval(PROBE_EVERY / 4))?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(stall_timeout))?;
        socket.set_tcp_notsent_lowat(NOT_SENT_BYTES_MAX)?;
    }
    Ok(())
}

/// What one connection has sent and received, as the system takes and gives it, TLS included.
#[derive(Debug)]
pub(super) struct Counters {
    header_bytes: u64,
    sent: AtomicU64,
    received: AtomicU64,
    /// Segments that this took at least, both ways.
    segments: AtomicU64,
}

impl Counters {
    pub(super) fn to(peer: IpAddr) -> Self {
        let header_bytes = ip_header_bytes(peer) + TCP_HEADER_BYTES;
        Self {
            header_bytes,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            segments: AtomicU64::new(SEGMENTS_AROUND),
        }
    }

    fn count(&self, bytes: &AtomicU64, more: u64) {
        bytes.fetch_add(more, Ordering::Relaxed);
        self.segments.fetch_add(more.div_ceil(SEGMENT_BYTES), Ordering::Relaxed);
    }

    pub(super) fn wire_bytes(&self) -> WireBytes {
        let segments = self.segments.load(Ordering::Relaxed);
        WireBytes {
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            headers: (segments + segments / SEGMENTS_AN_ACK) * self.header_bytes,
        }
    }
}

/// A connection whose bytes are counted.
#[derive(Debug)]
pub(super) struct Counted {
    stream: TcpStream,
    counters: Arc<Counters>,
}

impl Counted {
    pub(super) fn new(stream: TcpStream, counters: Arc<Counters>) -> Self {
        Self { stream, counters }
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.counters.count(&self.counters.received, (buf.filled().len() - before) as u64);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &polled {
            self.counters.count(&self.counters.sent, *count as u64);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
