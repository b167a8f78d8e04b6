//! HTTP/1.1 as a client (RFC 9112), driven by the task that makes the request.
//!
//! Invariant: a connection serves one request at a time and is kept only when both the request and its answer went over it to the
//! last byte and nothing else came. The answer is looked for while the request is still being sent, so an upstream may answer
//! early; its body then goes on pulling the request.

mod download;
mod encode;
mod parse;
mod upload;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};
use tokio::time::{Instant, sleep_until};

use super::address::Address;
use super::body::OutBody;
use super::chunked::Step;
use super::deadlines::Deadlines;
use super::error::{Kind, OutboundError, Reached, Stage};
use super::pool::Lease;
use crate::Body;

use download::Download;
pub(super) use parse::Head;
use parse::{Asked, Parsed};
use upload::Upload;

/// Informational answers (1xx) before the real one.
const MAX_INFORMATIONAL: u32 = 8;

/// One request on its connection.
pub(super) struct Exchange {
    lease: Lease,
    upload: Upload,
    asked: Asked,
    max_head: usize,
    /// Bytes of the head that were looked at and are not all of it.
    looked: usize,
    informational: u32,
    /// Whether a byte of an answer came.
    answered: bool,
}

/// What a request is made of, besides its body.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub parts: &'a Parts,
    pub address: &'a Address,
    /// Whether to leave HTTP on this connection.
    pub upgrade: bool,
    pub max_head: usize,
}

impl Exchange {
    /// Writes the head down; sends nothing yet.
    pub(super) fn begin(mut lease: Lease, asking: Asking<'_>, body: OutBody) -> Result<Self, OutboundError> {
        let framing = encode::request(&mut lease.link.out, asking, &body)?;
        let asked = Asked { head: asking.parts.method == Method::HEAD, upgrade: asking.upgrade };
        let upload = Upload::new(body, framing);
        Ok(Self { lease, upload, asked, max_head: asking.max_head, looked: 0, informational: 0, answered: false })
    }

    /// Sends the request and waits for the head of the answer.
    pub(super) async fn head(&mut self, deadlines: &Deadlines) -> Result<Head, OutboundError> {
        let start = Instant::now();
        let mut timer = pin!(sleep_until(deadlines.end(start, deadlines.first_byte, Stage::FirstByte).0));
        poll_fn(|cx| {
            if let Poll::Ready(head) = self.poll_head(cx) {
                return Poll::Ready(head);
            }
            loop {
                ready!(timer.as_mut().poll(cx));
                let since = self.upload.last_progress().unwrap_or(start);
                let (until, stage) = deadlines.end(since, deadlines.first_byte, Stage::FirstByte);
                if Instant::now() >= until {
                    let slow = self.upload.is_starved() && stage == Stage::FirstByte;
                    let kind = if slow { Kind::Request("its body stopped") } else { Kind::Timeout(stage) };
                    return Poll::Ready(Err(OutboundError::new(kind, self.reached())));
                }
                timer.as_mut().reset(until);
            }
        })
        .await
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, OutboundError>> {
        if let Poll::Ready(Err(broken)) = self.upload.poll(&mut self.lease.link, cx) {
            return Poll::Ready(Err(self.broken(Kind::Request("its body broke off")).source(broken)));
        }
        loop {
            if let Some(head) = self.look()? {
                return Poll::Ready(Ok(head));
            }
            match ready!(self.lease.link.poll_fill(cx)) {
                Ok(0) => return Poll::Ready(Err(self.ended(None))),
                Ok(_) => self.answered = true,
                Err(error) => return Poll::Ready(Err(self.ended(Some(error)))),
            }
        }
    }

    /// Looks at what was read for the head of the answer.
    fn look(&mut self) -> Result<Option<Head>, OutboundError> {
        loop {
            let read = &mut self.lease.link.read;
            let new = read.get(self.looked..).unwrap_or_default();
            // Head by head of one byte each must not cost a look at all of it each time.
            if new.is_empty() || (self.looked > 0 && !new.contains(&b'\n')) {
                return if read.len() > self.max_head { Err(self.broken(Kind::TooLarge)) } else { Ok(None) };
            }
            match parse::answer(read, self.asked, self.max_head) {
                Ok(Parsed::Head(head)) => return Ok(Some(head)),
                Ok(Parsed::Partial) => {
                    self.looked = read.len();
                    return Ok(None);
                }
                Ok(Parsed::Informational) => {
                    self.looked = 0;
                    self.informational += 1;
                    if self.informational > MAX_INFORMATIONAL {
                        return Err(self.broken(Kind::Protocol("too many informational answers")));
                    }
                }
                Err(kind) => return Err(self.broken(kind)),
            }
        }
    }

    fn broken(&self, kind: Kind) -> OutboundError {
        OutboundError::new(kind, self.reached())
    }

    /// The upstream closed before its answer was there.
    fn ended(&mut self, error: Option<io::Error>) -> OutboundError {
        let ended = self.broken(Kind::Reset);
        match error.or_else(|| self.upload.take_failure()) {
            Some(error) => ended.source(error),
            None => ended,
        }
    }

    const fn reached(&self) -> Reached {
        if self.answered {
            Reached::FirstByte
        } else if self.upload.has_written() {
            Reached::MaybeSent
        } else {
            Reached::NotSent
        }
    }

    /// The body, if none of it was sent.
    pub(super) fn into_unsent(self) -> Option<OutBody> {
        self.upload.into_unsent()
    }

    /// The connection after it left HTTP.
    pub(super) fn into_lease(self) -> Lease {
        self.lease
    }

    /// The answer. What of it is there already becomes its body; the rest comes as it comes.
    pub(super) fn answer(mut self, head: Head, deadlines: &Deadlines) -> Result<Response<Body>, OutboundError> {
        let Head { status, headers, framing, keep, kept_for } = head;
        self.lease.link.kept_for = kept_for;
        let body = match framing {
            None => {
                self.finish(keep);
                Body::empty()
            }
            Some(mut framing) => {
                let mut pieces = VecDeque::new();
                let step = loop {
                    match framing.next(&mut self.lease.link.read) {
                        Ok(Step::Piece(piece)) => pieces.push_back(piece),
                        Ok(step) => break step,
                        Err(what) => return Err(self.broken(Kind::Protocol(what))),
                    }
                };
                if step == Step::End {
                    self.finish(keep);
                    whole(pieces)
                } else {
                    let Self { lease, upload, .. } = self;
                    Body::frames(Download::new(lease, upload, framing, pieces, keep, *deadlines))
                }
            }
        };
        let mut answer = Response::new(body);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }

    fn finish(self, keep: bool) {
        if keep && self.upload.is_done() && self.lease.link.read.is_empty() {
            self.lease.keep();
        }
    }
}

fn whole(mut pieces: VecDeque<Bytes>) -> Body {
    match (pieces.pop_front(), pieces.is_empty()) {
        (None, _) => Body::empty(),
        (Some(piece), true) => Body::full(piece),
        (Some(piece), false) => {
            pieces.push_front(piece);
            Body::chain(pieces)
        }
    }
}
