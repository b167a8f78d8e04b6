//! The body of an answer as it comes.
//!
//! Invariant: each piece passes as soon as it is there; the connection goes back to its pool with the last piece, and is closed
//! when the body is dropped before, so that the upstream learns at once that nobody listens.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http_body::Frame;

use super::upload::Upload;
use crate::outbound::chunked::{Framing, Step};
use crate::outbound::deadlines::{Deadlines, Pauses};
use crate::outbound::error::{Kind, OutboundError, Reached};
use crate::outbound::pool::Lease;

pub(super) struct Download {
    /// `None` when the body is at its end.
    lease: Option<Lease>,
    /// What is left of the request.
    upload: Option<Upload>,
    framing: Framing,
    /// Came with the head.
    pieces: VecDeque<Bytes>,
    keep: bool,
    pauses: Pauses,
}

impl Download {
    pub(super) fn new(lease: Lease, upload: Upload, framing: Framing, pieces: VecDeque<Bytes>, keep: bool, deadlines: Deadlines) -> Self {
        let upload = Some(upload).filter(|upload| !upload.is_done());
        Self { lease: Some(lease), upload, framing, pieces, keep, pauses: Pauses::new(deadlines) }
    }

    /// The next piece; an error ends the body.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, OutboundError>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Ok(Some(piece)));
        }
        let Some(lease) = &mut self.lease else { return Poll::Ready(Ok(None)) };
        if let Some(upload) = &mut self.upload {
            // A request that breaks off here ends nothing that the upstream does not end itself.
            let poll = upload.poll(&mut lease.link, cx);
            if poll.is_ready() && !upload.is_done() {
                self.keep = false;
            }
            if poll.is_ready() {
                self.upload = None;
            }
        }
        loop {
            let step = self.framing.next(&mut lease.link.read).map_err(|what| failed(Kind::Protocol(what)))?;
            match step {
                Step::Piece(piece) => {
                    self.pauses.passed()?;
                    return Poll::Ready(Ok(Some(piece)));
                }
                Step::End => return Poll::Ready(Ok(None)),
                Step::More => {}
            }
            let Poll::Ready(read) = lease.link.poll_fill(cx) else {
                return Poll::Ready(Err(ready!(self.pauses.poll(cx))));
            };
            match read {
                Ok(0) if self.framing == Framing::Close => return Poll::Ready(Ok(None)),
                Ok(0) => return Poll::Ready(Err(failed(Kind::Reset))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(failed(Kind::Reset).source(error))),
            }
        }
    }

    /// Gives the connection back, if it can be used again.
    fn finish(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        if self.keep && self.framing.is_over() && self.upload.is_none() && lease.link.read.is_empty() {
            lease.keep();
        }
    }
}

const fn failed(kind: Kind) -> OutboundError {
    OutboundError::new(kind, Reached::FirstByte)
}

impl Stream for Download {
    type Item = io::Result<Frame<Bytes>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let item = match ready!(this.poll_piece(cx)) {
            Ok(Some(piece)) => {
                if this.framing.is_over() && this.pieces.is_empty() {
                    this.finish();
                }
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            Ok(None) => None,
            Err(error) => {
                this.lease = None;
                Some(Err(error.into_io()))
            }
        };
        this.finish();
        Poll::Ready(item)
    }
}
