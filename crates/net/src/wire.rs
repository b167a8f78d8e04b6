//! The socket of a connection, watched.
//!
//! Notes when bytes arrive and when the peer takes none, gives back the bytes that were read to tell
//! the protocol, and closes gently: after the last answer it goes on reading for a moment, because
//! closing a socket with unread bytes makes the kernel send a reset, which destroys an answer that the
//! peer has not read yet (a 413 to a large upload, for one).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use plinth_runtime::CancellationToken;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::activity::Activity;

/// How long a closed connection is read on.
const LINGER: Duration = Duration::from_secs(1);

/// The same while the node ends.
const LINGER_WHILE_DRAINING: Duration = Duration::from_millis(100);

pub struct Wire {
    stream: TcpStream,
    prefix: Bytes,
    activity: Arc<Activity>,
    draining: CancellationToken,
    linger: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    /// Wraps a socket from which `prefix` was read already.
    pub fn new(stream: TcpStream, prefix: Bytes, activity: Arc<Activity>, draining: CancellationToken) -> Self {
        Self { stream, prefix, activity, draining, linger: None }
    }

    fn note_write(&self, written: &Poll<io::Result<usize>>) {
        self.activity.blocked(written.is_pending());
    }

    /// Reads and forgets until the peer closes as well or the time is over.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let time = if self.draining.is_cancelled() { LINGER_WHILE_DRAINING } else { LINGER };
        let timer = self.linger.get_or_insert_with(|| Box::pin(sleep(time)));
        let mut waste = [0; 8192];
        loop {
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.has_remaining() {
            let count = self.prefix.remaining().min(buffer.remaining());
            buffer.put_slice(&self.prefix.split_to(count));
            self.activity.received();
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        if buffer.filled().len() > before {
            self.activity.received();
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note_write(&written);
        written
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.note_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.poll_linger(cx).map(Ok)
    }
}
