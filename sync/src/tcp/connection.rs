//! Carries one lane over one connection: what the driver writes becomes segments, and the other way round.
//!
//! The two directions are tasks of their own, with a bounded buffer between each and the driver. They end with the session's
//! lanes. The control lane also says that somebody is there, and ends the session if it hears nothing for too long; it is
//! the one lane that the driver always reads.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsStream;

use super::lanes::Lanes;
use super::segment::{BODY_BYTES_MAX, HEADER_BYTES, Segment, SegmentHeader};
use super::socket::Counted;
use crate::wire::Lane;

/// Bytes of a lane and direction between the driver and the connection, at most.
const BUFFER_BYTES: usize = 64 * 1024;

/// Starts to carry `lane` over `stream`. Returns what the driver writes to, and what it reads from.
pub(super) fn carry(
    lanes: &Arc<Lanes>,
    lane: Lane,
    stream: TlsStream<Counted>,
    orders: Option<mpsc::Receiver<Segment>>,
) -> (DuplexStream, DuplexStream) {
    let (from_peer, to_peer) = tokio::io::split(stream);
    let (driver_writes, outgoing) = tokio::io::duplex(BUFFER_BYTES);
    let (incoming, driver_reads) = tokio::io::duplex(BUFFER_BYTES);
    let sender = Arc::clone(lanes);
    tokio::spawn(async move {
        tokio::select! {
            sent = send(&sender, outgoing, to_peer, orders) => if let Err(error) = sent {
                sender.break_off(&error);
            },
            _ = sender.ended() => {}
        }
    });
    let receiver = Arc::clone(lanes);
    tokio::spawn(async move {
        tokio::select! {
            received = receive(&receiver, lane, from_peer, incoming) => match received {
                // The other end is done with the session.
                Ok(()) if lane == Lane::Control => receiver.close(),
                Ok(()) => {}
                Err(error) => receiver.break_off(&error),
            },
            _ = receiver.ended() => {}
        }
    });
    (driver_writes, driver_reads)
}

/// Sends what the driver writes until it is done, and on the control lane what else there is to say.
async fn send(
    lanes: &Lanes,
    mut outgoing: DuplexStream,
    mut to_peer: impl AsyncWrite + Unpin,
    mut orders: Option<mpsc::Receiver<Segment>>,
) -> io::Result<()> {
    let stall_timeout = lanes.config.stall_timeout;
    let mut buffer = vec![0; HEADER_BYTES + BODY_BYTES_MAX];
    loop {
        let (ordered, quiet_for) = match &mut orders {
            Some(orders) => (Some(orders), lanes.config.keep_alive),
            None => (None, Duration::MAX),
        };
        tokio::select! {
            biased;
            order = next_order(ordered) => {
                write(&mut to_peer, &order.encode(), stall_timeout).await?;
                if matches!(order, Segment::Refused(_)) {
                    to_peer.shutdown().await?;
                    lanes.close();
                    return Ok(());
                }
            }
            count = outgoing.read(&mut buffer[HEADER_BYTES..]) => {
                let count = count?;
                if count == 0 {
                    break;
                }
                buffer[..HEADER_BYTES].copy_from_slice(&Segment::data_header(count));
                write(&mut to_peer, &buffer[..HEADER_BYTES + count], stall_timeout).await?;
            }
            () = tokio::time::sleep(quiet_for) => {
                write(&mut to_peer, &Segment::KeepAlive.encode(), stall_timeout).await?;
            }
        }
    }
    timeout(stall_timeout, to_peer.shutdown()).await?
}

async fn next_order(orders: Option<&mut mpsc::Receiver<Segment>>) -> Segment {
    if let Some(orders) = orders
        && let Some(order) = orders.recv().await
    {
        return order;
    }
    std::future::pending().await
}

/// A peer that takes nothing for so long is gone.
async fn write(to_peer: &mut (impl AsyncWrite + Unpin), bytes: &[u8], stall_timeout: Duration) -> io::Result<()> {
    let written = async {
        to_peer.write_all(bytes).await?;
        to_peer.flush().await
    };
    timeout(stall_timeout, written)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing"))?
}

/// Gives the driver what the peer sends, until either is done.
async fn receive(
    lanes: &Arc<Lanes>,
    lane: Lane,
    mut from_peer: impl AsyncRead + Unpin,
    mut incoming: DuplexStream,
) -> io::Result<()> {
    let idle_timeout = if lane == Lane::Control { lanes.config.idle_timeout } else { Duration::MAX };
    loop {
        let read = timeout(idle_timeout, read(&mut from_peer)).await;
        let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "the peer has fallen silent");
        match read.map_err(silent)?? {
            None => return Ok(()),
            Some(Segment::Data(bytes)) => {
                if incoming.write_all(&bytes).await.is_err() {
                    // The driver does not want to hear more of this lane.
                    return Ok(());
                }
            }
            Some(segment) if lane == Lane::Control => lanes.heard(segment)?,
            Some(Segment::KeepAlive | Segment::Skipped) => {}
            Some(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "a segment that does not belong here")),
        }
    }
}

/// Reads one segment; `None` at the end.
pub(super) async fn read(from_peer: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Segment>> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut header = [0; HEADER_BYTES];
    let count = from_peer.read(&mut header).await?;
    if count == 0 {
        return Ok(None);
    }
    from_peer.read_exact(&mut header[count..]).await?;
    let header = SegmentHeader::decode(header).map_err(invalid)?;
    let mut body = BytesMut::zeroed(header.body_len);
    from_peer.read_exact(&mut body).await?;
    header.decode_body(body.freeze()).map(Some).map_err(invalid)
}
