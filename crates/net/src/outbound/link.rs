//! One connection to an upstream: the socket and what was read from it and not looked at yet.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use plinth_telemetry::UpGuard;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The smallest and the largest piece that is asked for in one read.
const READ: (usize, usize) = (8 << 10, 128 << 10);

/// What a connection keeps while it is idle.
const KEPT: usize = 16 << 10;

/// A socket, with TLS or without.
pub(super) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Io::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Io::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(cx, bytes))
    }
    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write_vectored(cx, parts))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(cx))
    }
}

/// A connection.
pub(super) struct Link {
    pub io: Io,
    /// Read and not looked at yet.
    pub read: BytesMut,
    /// The head of a request on its way out; kept to be filled again.
    pub out: Vec<u8>,
    /// How much is asked for in one read.
    want: usize,
    /// How long the upstream keeps it, if it said so.
    pub kept_for: Option<Duration>,
    /// Counts it as long as it is open.
    pub open: UpGuard,
}

impl Link {
    pub(super) fn new(io: Io, open: UpGuard) -> Self {
        Self { io, read: BytesMut::new(), out: Vec::new(), want: READ.0, kept_for: None, open }
    }

    /// Reads some bytes; 0 at the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(self.want);
        let room = self.read.capacity() - self.read.len();
        let count = ready!(pin!(self.io.read_buf(&mut self.read)).poll(cx))?;
        if count == room {
            self.want = (self.want * 2).min(READ.1);
        } else if count < self.want / 4 {
            self.want = (self.want / 2).max(READ.0);
        }
        Poll::Ready(Ok(count))
    }

    /// Whether an idle connection can be used: the upstream neither closed it nor said anything.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        match &mut self.io {
            // Costs no system call unless the kernel reported something.
            Io::Plain(stream) => matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock),
            Io::Tls(stream) => {
                // Tickets and such may arrive at any time, so TLS has to look.
                let mut cx = Context::from_waker(Waker::noop());
                Pin::new(stream.as_mut()).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
            }
        }
    }

    /// Gives back what an idle connection need not hold.
    pub(super) fn rest(&mut self) {
        if self.read.capacity() > KEPT {
            self.read = BytesMut::new();
            self.want = READ.0;
        }
        if self.out.capacity() > KEPT {
            self.out = Vec::new();
        }
    }
}
