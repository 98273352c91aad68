//! A connection that is given up once nothing has moved on it for a while, in either direction.
//!
//! One direction alone says little: who takes a long answer sends nothing meanwhile, and who sends a long body is told
//! nothing.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Ends with [`io::ErrorKind::TimedOut`] after `patience` without a byte. One task at a time may wait for it.
pub(super) struct Stalling<I> {
    io: I,
    patience: Duration,
    moved_at: Instant,
    /// Rings at the earliest moment at which the patience can be over.
    alarm: Pin<Box<Sleep>>,
}

impl<I> Stalling<I> {
    pub(super) fn new(io: I, patience: Duration) -> Self {
        Self { io, patience, moved_at: Instant::now(), alarm: Box::pin(tokio::time::sleep(patience)) }
    }

    /// What becomes of an attempt to move bytes: it is noted if it did, and ended if none did for too long.
    fn judge<T>(&mut self, context: &mut Context<'_>, attempt: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            // The alarm is set later, when it rings: bytes are many, alarms few.
            self.moved_at = Instant::now();
            return attempt;
        }
        loop {
            ready!(self.alarm.as_mut().poll(context));
            let over_at = self.moved_at + self.patience;
            if over_at <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.alarm.as_mut().reset(over_at);
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Stalling<I> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let attempt = Pin::new(&mut this.io).poll_read(context, into);
        this.judge(context, attempt)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Stalling<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let attempt = Pin::new(&mut this.io).poll_write(context, bytes);
        this.judge(context, attempt)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let attempt = Pin::new(&mut this.io).poll_write_vectored(context, slices);
        this.judge(context, attempt)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::advance;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_moves_is_given_up() {
        let (_client, server) = duplex(64);
        let mut server = Stalling::new(server, PATIENCE);
        let error = server.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_takes_is_not_given_up() {
        let (mut client, server) = duplex(64);
        let (mut from, mut to) = tokio::io::split(Stalling::new(server, PATIENCE));
        let waiting = tokio::spawn(async move { from.read_u8().await });
        for _ in 0..20 {
            advance(PATIENCE / 2).await;
            to.write_u8(1).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), 1);
        }
        assert!(!waiting.is_finished(), "a read that waits is no stall while bytes go the other way");
        client.write_u8(2).await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up() {
        let (_client, server) = duplex(64);
        let mut server = Stalling::new(server, PATIENCE);
        let error = server.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
