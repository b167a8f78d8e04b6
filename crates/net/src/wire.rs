//! The stream of a connection, watched.
//!
//! Notes when bytes arrive, hands on to the parser only bytes that belong to heads that passed and to
//! their bodies, and closes gently: after the last answer it goes on reading for a moment, because
//! closing a socket with unread bytes makes the kernel send a reset, which destroys an answer that the
//! peer has not read yet (a 413 to a large upload, for one).
//!
//! It also holds the connection's place under the caps of its listener, so that a connection that has left HTTP counts for as long as its bytes
//! are carried.
//!
//! In the place of a head that is refused the parser gets one of ours ([`REFUSED`]), so that the answer
//! comes in its turn, after those to the requests before it; behind it the parser gets nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use memchr::memchr;
use plinth_runtime::CancellationToken;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::activity::Activity;
use crate::framing::{Rest, Tracker};
use crate::socket::Stream;

/// How long a closed connection is read on.
const LINGER: Duration = Duration::from_secs(1);

/// The same while the node ends.
const LINGER_WHILE_DRAINING: Duration = Duration::from_millis(100);

/// The method of the head that stands for a refused one. A client that sends it is refused nothing by that: it counts only
/// on a connection on which a head was refused.
pub const REFUSED: &str = "REFUSED";

/// The whole of that head.
const REFUSED_HEAD: &[u8] = b"REFUSED / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

pub struct Wire {
    stream: Stream,
    /// Follows the heads and bodies of HTTP/1; `None` for HTTP/2.
    heads: Option<Heads>,
    /// Was read and not handed on; the first `passed` bytes may be.
    held: BytesMut,
    passed: usize,
    activity: Arc<Activity>,
    draining: CancellationToken,
    linger: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

/// What a connection holds of its listener until it ends: its place under the caps.
pub type Place = Box<dyn Send + Sync>;

/// What comes with a stream.
pub struct Held {
    /// What was read of it already.
    pub begin: BytesMut,
    pub activity: Arc<Activity>,
    pub draining: CancellationToken,
    pub place: Place,
}

struct Heads {
    tracker: Tracker,
    max: usize,
    /// What comes after the bytes that passed.
    end: Option<End>,
}

#[derive(Clone, Copy)]
enum End {
    /// Nothing; the connection closes with the answer to the refused head.
    Silence,
    /// An error in the middle of a body.
    Broken,
}

impl Wire {
    /// Wraps a stream of HTTP/1, the beginning of which was read already. Heads have at most `max` bytes.
    pub fn http1(stream: Stream, max: usize, held: Held) -> Self {
        let heads = Heads { tracker: Tracker::new(max), max, end: None };
        let Held { begin, activity, draining, place } = held;
        let mut wire = Self { stream, heads: Some(heads), held: begin, passed: 0, activity, draining, linger: None, _place: place };
        wire.judge_held();
        wire
    }

    /// The same of HTTP/2, which brings its own framing.
    pub fn http2(stream: Stream, held: Held) -> Self {
        let Held { begin, activity, draining, place } = held;
        let passed = begin.len();
        Self { stream, heads: None, held: begin, passed, activity, draining, linger: None, _place: place }
    }

    /// What follows is not HTTP any more: nothing is judged from here on. Whether that can be: not after a head was refused.
    pub fn leave_http(&mut self) -> bool {
        let clean = self.heads.take().is_none_or(|heads| heads.end.is_none());
        self.passed = self.held.len();
        clean
    }

    /// Judges what is held, none of which has passed yet.
    fn judge_held(&mut self) {
        let Some(heads) = &mut self.heads else { return };
        let passed = heads.tracker.pass(&self.held);
        self.passed = passed.length;
        self.settle(passed.rest);
    }

    /// Of what is held, all behind `passed` is what `rest` says.
    fn settle(&mut self, rest: Rest) {
        let Some(heads) = &mut self.heads else { return };
        let end = match rest {
            Rest::Partial => return,
            Rest::Broken => End::Broken,
            Rest::Refused(_) => End::Silence,
        };
        heads.end = Some(end);
        self.held.truncate(self.passed);
        if let Rest::Refused(refusal) = rest {
            self.activity.refuse(refusal);
            self.held.extend_from_slice(REFUSED_HEAD);
            self.passed = self.held.len();
        }
    }

    /// Reads straight into the parser's buffer, which is what happens to nearly every byte; whether there is something for it.
    fn poll_straight(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let new = &buffer.filled()[before..];
        if new.is_empty() {
            return Poll::Ready(Ok(true));
        }
        self.activity.received();
        let Some(heads) = &mut self.heads else { return Poll::Ready(Ok(true)) };
        let passed = heads.tracker.pass(new);
        if passed.length < new.len() || passed.rest != Rest::Partial {
            self.held.extend_from_slice(&new[passed.length..]);
            self.settle(passed.rest);
            buffer.set_filled(before + passed.length);
        }
        Poll::Ready(Ok(passed.length > 0))
    }

    /// Reads on behind a head that has come in part; whether the peer has closed.
    fn poll_behind(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut piece = [0; 4096];
        let mut buffer = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let new = buffer.filled();
        if new.is_empty() {
            return Poll::Ready(Ok(true));
        }
        self.activity.received();
        self.held.extend_from_slice(new);
        // Only the end of a line, or too many bytes, can change the judgement; so a peer cannot make us judge at each byte.
        let max = self.heads.as_ref().map_or(0, |heads| heads.max);
        if memchr(b'\n', new).is_some() || self.held.len() > max {
            self.judge_held();
        }
        Poll::Ready(Ok(false))
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
        loop {
            if self.passed > 0 {
                let count = self.passed.min(buffer.remaining());
                buffer.put_slice(&self.held[..count]);
                self.held.advance(count);
                self.passed -= count;
                self.activity.received();
                return Poll::Ready(Ok(()));
            }
            match self.heads.as_ref().and_then(|heads| heads.end) {
                None => {}
                // Nobody waits for it: the answer is under way, and the connection ends with it.
                Some(End::Silence) => return Poll::Pending,
                Some(End::Broken) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the chunks of a body are malformed")));
                }
            }
            if self.held.is_empty() {
                if ready!(self.poll_straight(cx, buffer))? {
                    return Poll::Ready(Ok(()));
                }
            } else if ready!(self.poll_behind(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
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
