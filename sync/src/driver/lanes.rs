//! The lanes of one connection: a task for each lane and direction, and channels between them and the session.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{DecodeFrameError, Lane, Link};
use crate::wire::{FRAME_HEADER_BYTES, FrameHeader, Message};

/// Messages of a lane that were read and not yet taken.
const READ_AHEAD: usize = 2;

/// The same on the control lane, with what writers tell.
const CONTROL_READ_AHEAD: usize = 16;

/// Frames of the control lane that the peer has not read, at most, with what each costs in memory: more than the 100,000 pulls
/// of the largest session, which are said at once. A peer that makes this end speak and does not listen is dropped.
const CONTROL_UNREAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a frame costs beside its own bytes, about.
const FRAME_COST_BYTES: usize = 64;

/// What a lane brings. Boxed in queues: they have room for many from the start, and a bridge has thousands of them.
pub(super) enum Arrived {
    Message(Lane, Message),
    /// What was sent has left.
    Drained(Lane),
    /// The peer sent something that is not a frame.
    Bad(DecodeFrameError),
    /// The connection is gone.
    Broken(io::Error),
}

pub(super) struct Lanes<L: Link> {
    link: Arc<L>,
    /// Frames to send, by lane. Unbounded, but the session sends a lane's next frame only once the last was drained;
    /// what waits on the control lane is counted.
    writers: HashMap<Lane, mpsc::UnboundedSender<Bytes>>,
    control_unread_bytes: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
    control_writer: Option<tokio::task::JoinHandle<()>>,
    arrived: mpsc::Receiver<Box<Arrived>>,
    records: mpsc::Receiver<Box<Arrived>>,
    content: mpsc::Receiver<Box<Arrived>>,
    arrived_sender: mpsc::Sender<Box<Arrived>>,
}

impl<L: Link> Lanes<L> {
    pub(super) fn start(link: Arc<L>) -> Self {
        let (arrived_sender, arrived) = mpsc::channel(CONTROL_READ_AHEAD);
        let (records_sender, records) = mpsc::channel(READ_AHEAD);
        let (content_sender, content) = mpsc::channel(READ_AHEAD);
        let mut tasks = JoinSet::new();
        let senders = Senders { control: arrived_sender.clone(), records: records_sender, content: content_sender };
        tasks.spawn(accept_lanes(Arc::clone(&link), senders));
        Self {
            link,
            writers: HashMap::new(),
            control_unread_bytes: Arc::default(),
            tasks,
            control_writer: None,
            arrived,
            records,
            content,
            arrived_sender,
        }
    }

    /// Sends a frame after those before it in its lane. Fails if the peer does not read what it is told.
    pub(super) fn send(&mut self, lane: Lane, frame: Bytes) -> io::Result<()> {
        if lane == Lane::Control {
            let cost = frame.len() + FRAME_COST_BYTES;
            let unread = self.control_unread_bytes.fetch_add(cost, Ordering::Relaxed) + cost;
            if unread > CONTROL_UNREAD_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read its control lane"));
            }
        }
        if !self.writers.contains_key(&lane) {
            let (sender, frames) = mpsc::unbounded_channel();
            let unread = Arc::clone(&self.control_unread_bytes);
            let task = write_lane(Arc::clone(&self.link), lane, frames, unread, self.arrived_sender.clone());
            if lane == Lane::Control {
                self.control_writer = Some(tokio::spawn(task));
            } else {
                self.tasks.spawn(task);
            }
            self.writers.insert(lane, sender);
        }
        // A writer that is gone has told why through `arrived`.
        let _ = self.writers[&lane].send(frame);
        Ok(())
    }

    /// The next thing that any lane brings, in the order of classes; records only if they are wanted.
    pub(super) async fn next(&mut self, records_wanted: bool) -> Box<Arrived> {
        tokio::select! {
            biased;
            Some(arrived) = self.arrived.recv() => arrived,
            Some(arrived) = self.records.recv(), if records_wanted => arrived,
            Some(arrived) = self.content.recv() => arrived,
        }
    }

    /// Lets what is queued on the control lane leave.
    pub(super) async fn finish_control(&mut self) {
        self.writers.remove(&Lane::Control);
        if let Some(writer) = self.control_writer.take() {
            let _ = writer.await;
        }
    }

    pub(super) async fn stop(mut self) {
        if let Some(writer) = self.control_writer.take() {
            writer.abort();
        }
        self.tasks.shutdown().await;
    }
}

/// Where what lanes bring goes: a queue for each class, so that none waits behind a lower one.
struct Senders {
    control: mpsc::Sender<Box<Arrived>>,
    records: mpsc::Sender<Box<Arrived>>,
    content: mpsc::Sender<Box<Arrived>>,
}

impl Senders {
    fn of(&self, lane: Lane) -> &mpsc::Sender<Box<Arrived>> {
        match lane {
            Lane::Control => &self.control,
            Lane::Records => &self.records,
            Lane::Content(_) => &self.content,
        }
    }
}

/// Takes the lanes that the peer opens, and reads each in a task of its own. Ends when the connection does.
async fn accept_lanes<L: Link>(link: Arc<L>, senders: Senders) {
    let mut readers = JoinSet::new();
    let mut open = std::collections::HashSet::new();
    loop {
        match link.accept().await {
            Ok((lane, reader)) => {
                if !open.insert(lane) {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "the peer opened a lane twice");
                    let _ = senders.control.send(Box::new(Arrived::Broken(error))).await;
                    return;
                }
                readers.spawn(read_lane(lane, reader, senders.of(lane).clone()));
            }
            Err(error) => {
                // What was read before the end is still to be handled: a close tells more than a broken connection.
                while readers.join_next().await.is_some() {}
                let _ = senders.control.send(Box::new(Arrived::Broken(error))).await;
                return;
            }
        }
    }
}

async fn read_lane<R: AsyncRead + Unpin>(lane: Lane, mut reader: R, arrived: mpsc::Sender<Box<Arrived>>) {
    loop {
        match read_frame(&mut reader).await {
            Ok(Ok(Some(message))) => {
                if arrived.send(Box::new(Arrived::Message(lane, message))).await.is_err() {
                    return;
                }
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                let _ = arrived.send(Box::new(Arrived::Bad(error))).await;
                return;
            }
            // The end of the lane. If it is that of the connection, `accept_lanes` tells.
            Err(_) => return,
        }
    }
}

/// Reads one frame; `None` for one that may be skipped.
async fn read_frame<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<Result<Option<Message>, DecodeFrameError>> {
    let mut head = [0; FRAME_HEADER_BYTES];
    reader.read_exact(&mut head).await?;
    let head = match FrameHeader::decode(head) {
        Ok(head) => head,
        Err(error) => return Ok(Err(error)),
    };
    let mut body = BytesMut::zeroed(head.body_len);
    reader.read_exact(&mut body).await?;
    Ok(head.decode_body(body.freeze()))
}

async fn write_lane<L: Link>(
    link: Arc<L>,
    lane: Lane,
    mut frames: mpsc::UnboundedReceiver<Bytes>,
    control_unread_bytes: Arc<AtomicUsize>,
    arrived: mpsc::Sender<Box<Arrived>>,
) {
    let result = async {
        let mut writer = link.open(lane).await?;
        while let Some(frame) = frames.recv().await {
            writer.write_all(&frame).await?;
            if lane == Lane::Control {
                control_unread_bytes.fetch_sub(frame.len() + FRAME_COST_BYTES, Ordering::Relaxed);
            } else if arrived.send(Box::new(Arrived::Drained(lane))).await.is_err() {
                return Ok(());
            }
        }
        writer.shutdown().await
    };
    // The end of the connection is told by `accept_lanes`, after what was read before it.
    let result: io::Result<()> = result.await;
    if let Err(error) = result {
        tracing::debug!(?lane, %error, "a lane can no longer be written");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::DuplexStream;

    use super::*;

    /// A connection to a peer that says nothing and reads nothing.
    #[derive(Default)]
    struct DeafLink {
        unread: Mutex<Vec<DuplexStream>>,
    }

    impl Link for DeafLink {
        type Writer = DuplexStream;
        type Reader = DuplexStream;

        async fn open(&self, _: Lane) -> io::Result<DuplexStream> {
            let (here, there) = tokio::io::duplex(64);
            self.unread.lock().unwrap().push(there);
            Ok(here)
        }

        async fn accept(&self) -> io::Result<(Lane, DuplexStream)> {
            std::future::pending().await
        }

        async fn closed(&self) {
            std::future::pending::<()>().await;
        }

        fn close(&self) {}
    }

    /// A peer can make a session speak: each of its offers is answered. Answers that it does not read do not fill the memory.
    #[tokio::test]
    async fn a_peer_that_does_not_listen_is_dropped_before_what_waits_for_it_fills_the_memory() {
        let mut lanes = Lanes::start(Arc::new(DeafLink::default()));
        let frame = Bytes::from(vec![0; 4096]);
        let mut sent = 0;
        let refused = loop {
            assert!(sent < 10_000, "it takes in frames without end");
            match lanes.send(Lane::Control, frame.clone()) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        assert!(sent * 4096 > CONTROL_UNREAD_BYTES_MAX / 2, "an honest session may have that much to say: {sent}");
        lanes.stop().await;
    }
}
