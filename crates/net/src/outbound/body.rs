//! The body of a request to an upstream.
//!
//! Invariant: what was taken from a streamed body and not sent can be put back, and only then is it whole again; a body of bytes
//! can be sent any number of times.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::RequestBody;

/// The body of a request: bytes, or the body of an incoming request as it comes.
#[derive(Debug, Default)]
pub struct OutBody {
    /// The whole, or what stands before the rest.
    bytes: Bytes,
    /// What comes after.
    rest: Option<RequestBody>,
}

impl OutBody {
    /// No bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self { bytes: Bytes::new(), rest: None }
    }

    /// Bytes that are there already.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), rest: None }
    }

    /// The body of an incoming request, as it comes. Can be sent once.
    #[must_use]
    pub fn streaming(body: RequestBody) -> Self {
        let rest = if body.is_end_stream() { None } else { Some(body) };
        Self { bytes: Bytes::new(), rest }
    }

    /// Whether it can be sent again.
    #[must_use]
    pub const fn is_replayable(&self) -> bool {
        self.rest.is_none()
    }

    /// The same body once more, if it can be sent again.
    #[must_use]
    pub fn replay(&self) -> Option<Self> {
        self.is_replayable().then(|| Self::full(self.bytes.clone()))
    }

    /// The length in bytes, if it is known.
    #[must_use]
    pub fn len(&self) -> Option<u64> {
        let rest = self.rest.as_ref().map_or(Some(0), |rest| rest.size_hint().exact())?;
        Some(rest.saturating_add(self.bytes.len() as u64))
    }

    /// Whether there are certainly no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Puts back what was taken and not sent.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.bytes = bytes;
    }

    /// The next piece that is not empty; `None` at the end. Trailers are passed over: HTTP/1 has no use for them here.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            if !self.bytes.is_empty() {
                return Poll::Ready(Some(Ok(std::mem::take(&mut self.bytes))));
            }
            let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
            match ready!(rest.poll_data(cx)) {
                Some(Ok(piece)) => self.bytes = piece,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.rest = None,
            }
        }
    }

    /// Whether nothing comes any more.
    pub(super) fn is_over(&self) -> bool {
        self.bytes.is_empty() && self.rest.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
}

impl From<Bytes> for OutBody {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl From<RequestBody> for OutBody {
    fn from(body: RequestBody) -> Self {
        Self::streaming(body)
    }
}

/// For HTTP/2, with trailers.
impl http_body::Body for OutBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !self.bytes.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.bytes)))));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.len().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
