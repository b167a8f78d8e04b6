//! A request on its way out: head and body.
//!
//! Invariant: the head and what is there of the body leave in one system call; a body that is shorter than announced breaks the
//! request, never the framing of what follows.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::encode::Sending;
use crate::outbound::body::OutBody;
use crate::outbound::link::Link;

/// What stands behind a chunk, and behind the last one.
const NEXT: &[u8] = b"\r\n";
const LAST: &[u8] = b"\r\n0\r\n\r\n";
const NONE: &[u8] = b"0\r\n\r\n";

/// Up to this size a body is copied behind its head: that costs less than to tell the kernel of two places.
const JOINED: usize = 2 << 10;

/// The request's own body broke off, or is not as long as it said.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("its client went away")]
    Client(#[source] hyper::Error),
    #[error("it is not as long as it said")]
    Length,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Pieces of the body are to come.
    Open,
    /// Everything is queued.
    Ending,
    /// Everything is in the hands of the kernel.
    Done,
    /// The upstream takes no more; it may have answered.
    Failed,
}

/// Up to this size a head waits for its body: hyper's server brings the one a moment before the other, and two writes cost
/// twice as much as one.
const AWAITED: u64 = 16 << 10;

/// What is left of a request.
pub(super) struct Upload {
    body: OutBody,
    framing: Sending,
    state: State,
    /// How much of the link's `out` was sent.
    at: usize,
    data: Bytes,
    /// What stands behind the head in `out`, to be put back when nothing was sent.
    joined: Bytes,
    tail: &'static [u8],
    wrote: bool,
    starved: bool,
    /// When more than the first piece was taken.
    progress: Option<Instant>,
    failure: Option<io::Error>,
}

impl Upload {
    /// The head stands in the link's `out`.
    pub(super) const fn new(body: OutBody, framing: Sending) -> Self {
        Self {
            body,
            framing,
            state: State::Open,
            at: 0,
            data: Bytes::new(),
            joined: Bytes::new(),
            tail: &[],
            wrote: false,
            starved: false,
            progress: None,
            failure: None,
        }
    }

    /// Sends what can be sent. Ready when everything was, or when the upstream takes no more.
    pub(super) fn poll(&mut self, link: &mut Link, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            if matches!(self.state, State::Done | State::Failed) {
                return Poll::Ready(Ok(()));
            }
            let mut waits = false;
            if self.state == State::Open && self.data.is_empty() && self.tail.is_empty() {
                match self.pull(link, cx) {
                    Poll::Ready(pulled) => pulled?,
                    Poll::Pending => waits = true,
                }
            }
            if waits && !self.wrote && matches!(self.framing, Sending::Length(left) if left <= AWAITED) {
                self.starved = true;
                return Poll::Pending;
            }
            let queued = self.at < link.out.len() || !self.data.is_empty() || !self.tail.is_empty();
            self.starved = waits && !queued;
            let moved = if queued { self.poll_write(link, cx) } else { Pin::new(&mut link.io).poll_flush(cx) };
            match ready!(moved) {
                Ok(()) if queued => {}
                Ok(()) if waits => return Poll::Pending,
                Ok(()) => self.state = State::Done,
                Err(error) => {
                    self.failure = Some(error);
                    self.state = State::Failed;
                }
            }
        }
    }

    /// Queues the next piece of the body.
    fn pull(&mut self, link: &mut Link, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if let Sending::Nothing | Sending::Length(0) = self.framing {
            self.state = State::Ending;
            return Poll::Ready(Ok(()));
        }
        let piece = ready!(self.body.poll_piece(cx)).transpose().map_err(Broken::Client)?;
        if self.at == link.out.len() {
            link.out.clear();
            self.at = 0;
        }
        match (&mut self.framing, piece) {
            (Sending::Length(left), Some(piece)) => {
                *left = left.checked_sub(piece.len() as u64).ok_or(Broken::Length)?;
                if *left == 0 {
                    self.state = State::Ending;
                }
                if piece.len() <= JOINED && !self.wrote {
                    link.out.extend_from_slice(&piece);
                    self.joined = piece;
                } else {
                    self.data = piece;
                }
            }
            (Sending::Chunked, Some(piece)) => {
                // Writing into a vector does not fail.
                let _ = write!(link.out, "{:x}\r\n", piece.len());
                self.data = piece;
                let last = self.body.is_over();
                self.tail = if last { LAST } else { NEXT };
                if last {
                    self.state = State::Ending;
                }
            }
            (Sending::Chunked, None) => {
                self.tail = NONE;
                self.state = State::Ending;
            }
            (_, _) => return Poll::Ready(Err(Broken::Length)),
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, link: &mut Link, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let out = link.out.get(self.at..).unwrap_or_default();
        let parts = [IoSlice::new(out), IoSlice::new(&self.data), IoSlice::new(self.tail)];
        // The commonest request is a head alone.
        let written = if self.data.is_empty() && self.tail.is_empty() {
            ready!(Pin::new(&mut link.io).poll_write(cx, out))?
        } else {
            ready!(Pin::new(&mut link.io).poll_write_vectored(cx, &parts))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        if self.wrote {
            self.progress = Some(Instant::now());
        }
        self.wrote = true;
        let of_out = written.min(out.len());
        let of_data = (written - of_out).min(self.data.len());
        self.at += of_out;
        self.data.advance(of_data);
        self.tail = self.tail.get(written - of_out - of_data..).unwrap_or_default();
        Poll::Ready(Ok(()))
    }

    pub(super) const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    pub(super) const fn has_written(&self) -> bool {
        self.wrote
    }

    /// Whether the upstream has all that there is, and more of the body is to come.
    pub(super) const fn is_starved(&self) -> bool {
        self.starved
    }

    pub(super) const fn last_progress(&self) -> Option<Instant> {
        self.progress
    }

    pub(super) const fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// The body, if none of it was sent.
    pub(super) fn into_unsent(mut self) -> Option<OutBody> {
        if self.wrote {
            return None;
        }
        let taken = if self.joined.is_empty() { self.data } else { self.joined };
        if !taken.is_empty() {
            self.body.put_back(taken);
        }
        Some(self.body)
    }
}
