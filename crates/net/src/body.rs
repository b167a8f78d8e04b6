//! The bodies of requests and answers.
//!
//! Invariant: what a [`Body`] holds for its answer (permits, counters) is given back when its last
//! byte was handed to the kernel, or when the answer was abandoned, and not before; for streams, when
//! the stream has ended. Pieces are written as they are, never copied together. Trailers, where a body
//! has some, follow its last byte.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use crate::activity::{Activity, RequestGuard};
use crate::answers::Answer;
use crate::rest::Arriving;

/// The body of an answer.
#[derive(Default)]
pub struct Body {
    kind: Kind,
    /// Follow the last piece; those of a stream are among its frames.
    trailers: Option<Box<HeaderMap>>,
    /// Counts the bytes that wait for the peer, on HTTP/2.
    answer: Option<Arc<Answer>>,
    held: Held,
}

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Pieces(VecDeque<Bytes>),
    Stream(Frames),
}

/// Frames as they come.
type Frames = BoxStream<'static, io::Result<Frame<Bytes>>>;

/// What is given back at the end.
#[derive(Default)]
struct Held {
    guards: Vec<Box<dyn Send>>,
    request: Option<RequestGuard>,
}

impl Body {
    /// No bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// One piece.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::chain([bytes.into()])
    }

    /// Several pieces, one after another.
    #[must_use]
    pub fn chain(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let pieces: VecDeque<_> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let kind = if pieces.is_empty() { Kind::Empty } else { Kind::Pieces(pieces) };
        Self { kind, ..Self::default() }
    }

    /// Bytes as they come. An error cuts the connection, so that the peer sees that the answer is not whole.
    #[must_use]
    pub fn stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self::frames(stream.map(|item| item.map(Frame::data)))
    }

    /// As [`Self::stream`], of frames: data, and trailers as the last.
    #[must_use]
    pub fn frames(stream: impl Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static) -> Self {
        Self { kind: Kind::Stream(Box::pin(stream)), ..Self::default() }
    }

    /// Adds trailers behind the pieces. Only HTTP/2 carries them in any case.
    #[must_use]
    pub fn with_trailers(mut self, trailers: HeaderMap) -> Self {
        self.trailers = Some(Box::new(trailers));
        self
    }

    /// Keeps `guard` until the last byte has left. May be called more than once.
    #[must_use]
    pub fn with_guard(mut self, guard: impl Send + 'static) -> Self {
        self.held.guards.push(Box::new(guard));
        self
    }

    pub(crate) fn with_request(mut self, guard: RequestGuard) -> Self {
        self.answer = guard.answer().cloned();
        self.held.request = Some(guard);
        self
    }

    /// The length in bytes; `None` for a stream.
    #[must_use]
    pub fn len(&self) -> Option<u64> {
        match &self.kind {
            Kind::Empty => Some(0),
            Kind::Pieces(pieces) => Some(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Kind::Stream(_) => None,
        }
    }

    /// Whether there are certainly no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The pieces, when all of them are there already.
    #[must_use]
    pub fn pieces(&self) -> Option<Vec<Bytes>> {
        match &self.kind {
            Kind::Empty => Some(Vec::new()),
            Kind::Pieces(pieces) => Some(pieces.iter().cloned().collect()),
            Kind::Stream(_) => None,
        }
    }

    /// Other bytes under the same guards.
    #[must_use]
    pub fn replaced(self, bytes: impl Into<Bytes>) -> Self {
        Self { held: self.held, trailers: self.trailers, ..Self::full(bytes) }
    }

    /// Changes the frames of a stream on their way, under the same guards; a body that is there already stays as it is.
    #[must_use]
    pub(crate) fn changed(self, change: impl FnOnce(Frames) -> Frames) -> Self {
        let kind = match self.kind {
            Kind::Stream(stream) => Kind::Stream(change(stream)),
            kind => kind,
        };
        Self { kind, ..self }
    }

    /// Counts into `tally` the bytes of a stream as they leave; those of a body that is there already are its [`Self::len`].
    #[must_use]
    pub fn tallied(self, tally: Arc<AtomicU64>) -> Self {
        self.changed(|stream| {
            let count = move |frame: &io::Result<Frame<Bytes>>| {
                if let Some(data) = frame.as_ref().ok().and_then(Frame::data_ref) {
                    tally.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
            };
            stream.inspect(count).boxed()
        })
    }

    /// All bytes, copied together. For tests; bytes of a stream are not bounded.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn into_bytes(self) -> io::Result<Bytes> {
        Ok(self.into_parts().await?.0)
    }

    /// All bytes, copied together, and the trailers. As [`Self::into_bytes`].
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn into_parts(mut self) -> io::Result<(Bytes, Option<HeaderMap>)> {
        let (mut all, mut trailers) = (Vec::new(), None);
        while let Some(frame) = std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut self), cx)).await {
            match frame?.into_data() {
                Ok(chunk) => all.extend_from_slice(&chunk.bytes),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok((all.into(), trailers))
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl http_body::Body for Body {
    type Data = Chunk;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Chunk>>>> {
        let this = &mut *self;
        let answer = this.answer.as_ref();
        let trailers = |this: &mut Option<Box<HeaderMap>>| Poll::Ready(this.take().map(|trailers| Ok(Frame::trailers(*trailers))));
        match &mut this.kind {
            Kind::Empty => trailers(&mut this.trailers),
            Kind::Pieces(pieces) => {
                let Some(bytes) = pieces.pop_front() else { return trailers(&mut this.trailers) };
                // The last piece takes the guards along: it is dropped when it was written, this body when it was queued.
                let held = pieces.is_empty().then(|| std::mem::take(&mut this.held));
                Poll::Ready(Some(Ok(Frame::data(Chunk::new(bytes, answer, held)))))
            }
            Kind::Stream(stream) => {
                let whole = |frame: Frame<Bytes>| frame.map_data(|bytes| Chunk::new(bytes, answer, None));
                stream.as_mut().poll_next(cx).map(|item| item.map(|item| item.map(whole)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // Who sends trailers announces no length: on HTTP/1 the two exclude each other.
        let known = if self.trailers.is_none() { self.len() } else { None };
        known.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A piece of an answer on its way out.
pub struct Chunk {
    bytes: Bytes,
    answer: Option<Arc<Answer>>,
    _held: Option<Held>,
}

impl Chunk {
    fn new(bytes: Bytes, answer: Option<&Arc<Answer>>, held: Option<Held>) -> Self {
        if let Some(answer) = answer {
            answer.handed(bytes.len());
        }
        Self { bytes, answer: answer.cloned(), _held: held }
    }

    fn took(&self, count: usize) {
        if let Some(answer) = &self.answer {
            answer.took(count);
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }
    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }
    fn advance(&mut self, count: usize) {
        self.took(count);
        self.bytes.advance(count);
    }
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        self.took(len);
        self.bytes.copy_to_bytes(len)
    }
}

/// The body of a request: from a connection, or made by a test.
#[derive(Debug, Default)]
pub struct RequestBody(Source);

#[derive(Default)]
enum Source {
    #[default]
    Empty,
    /// Its connection is told when the end was read.
    Incoming(Arriving),
    Pieces(VecDeque<Bytes>),
    /// What was taken and put back, and what comes after it.
    Ahead(VecDeque<Bytes>, Box<Source>),
    Stuck,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty",
            Self::Incoming(_) => "incoming",
            Self::Pieces(_) => "pieces",
            Self::Ahead(..) => "looked at",
            Self::Stuck => "stuck",
        })
    }
}

impl RequestBody {
    /// No bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Source::Empty)
    }

    /// Pieces that are there already.
    #[must_use]
    pub fn pieces(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        Self(Source::Pieces(pieces.into_iter().collect()))
    }

    /// Never brings anything and never ends: for tests of deadlines.
    #[must_use]
    pub const fn stuck() -> Self {
        Self(Source::Stuck)
    }

    /// Puts back what was taken from its beginning.
    pub(crate) fn put_back(&mut self, pieces: VecDeque<Bytes>) {
        if !pieces.is_empty() {
            self.0 = Source::Ahead(pieces, Box::new(std::mem::take(&mut self.0)));
        }
    }

    pub(crate) fn incoming(incoming: Incoming, activity: &Arc<Activity>) -> Self {
        if http_body::Body::is_end_stream(&incoming) {
            return Self::empty();
        }
        activity.body_unread(true);
        Self(Source::Incoming(Arriving::new(incoming, activity.clone())))
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        Self::pieces([bytes])
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Self::Ahead(pieces, rest) = self {
            if let Some(piece) = pieces.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            *self = std::mem::take(&mut **rest);
        }
        match self {
            Source::Empty | Source::Ahead(..) => Poll::Ready(None),
            Source::Incoming(arriving) => {
                let Some((incoming, activity)) = arriving.parts() else { return Poll::Ready(None) };
                let frame = ready!(http_body::Body::poll_frame(Pin::new(&mut *incoming), cx));
                if frame.is_none() || http_body::Body::is_end_stream(incoming) {
                    activity.body_unread(false);
                }
                Poll::Ready(frame)
            }
            Source::Pieces(pieces) => Poll::Ready(pieces.pop_front().map(|piece| Ok(Frame::data(piece)))),
            Source::Stuck => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Source::Empty => true,
            Source::Ahead(pieces, rest) => pieces.is_empty() && rest.is_end_stream(),
            Source::Incoming(arriving) => arriving.get().is_none_or(http_body::Body::is_end_stream),
            Source::Pieces(pieces) => pieces.is_empty(),
            Source::Stuck => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Source::Empty => SizeHint::with_exact(0),
            Source::Ahead(pieces, rest) => {
                let ahead: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
                let rest = rest.size_hint();
                rest.exact().map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest.saturating_add(ahead)))
            }
            Source::Incoming(arriving) => arriving.get().map(http_body::Body::size_hint).unwrap_or_default(),
            Source::Pieces(pieces) => SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Source::Stuck => SizeHint::default(),
        }
    }
}

impl RequestBody {
    /// The next piece of data; trailers are passed over. `None` at the end.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            return match ready!(http_body::Body::poll_frame(Pin::new(self), cx)) {
                None => Poll::Ready(None),
                Some(Err(error)) => Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Poll::Ready(Some(Ok(data))),
                    Err(_trailers) => continue,
                },
            };
        }
    }

    pub(crate) async fn data(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        std::future::poll_fn(|cx| self.poll_data(cx)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    fn next(body: &mut Body) -> Option<Chunk> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match http_body::Body::poll_frame(Pin::new(body), &mut cx) {
            Poll::Ready(frame) => frame.map(|frame| frame.unwrap().into_data().ok().unwrap()),
            Poll::Pending => panic!("a body made of pieces never waits"),
        }
    }

    #[test]
    fn guards_leave_with_the_last_piece() {
        let held = Arc::new(());
        let mut body = Body::chain([Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")]).with_guard(held.clone());
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(3));
        drop(next(&mut body));
        assert_eq!(Arc::strong_count(&held), 2);
        let last = next(&mut body).unwrap();
        assert!(next(&mut body).is_none());
        drop(body);
        assert_eq!(Arc::strong_count(&held), 2, "the last piece is not written yet");
        drop(last);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn trailers_follow_the_last_piece() {
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))]);
        for body in [Body::empty(), Body::chain([Bytes::from_static(b"a"), Bytes::from_static(b"b")])] {
            let (empty, body) = (body.is_empty(), body.with_trailers(trailers.clone()));
            assert!(!http_body::Body::is_end_stream(&body) && http_body::Body::size_hint(&body).exact().is_none());
            let (bytes, read) = body.into_parts().await.unwrap();
            assert_eq!((&bytes[..], read), (if empty { &b""[..] } else { b"ab" }, Some(trailers.clone())));
        }
        let frames = [Ok(Frame::data(Bytes::from_static(b"x"))), Ok(Frame::trailers(trailers.clone()))];
        assert_eq!(Body::frames(stream::iter(frames)).into_parts().await.unwrap(), (Bytes::from_static(b"x"), Some(trailers)));
    }

    #[tokio::test]
    async fn an_abandoned_or_streamed_body_gives_back_too() {
        let held = Arc::new(());
        drop(Body::full("x").with_guard(held.clone()));
        assert_eq!(Arc::strong_count(&held), 1);
        let body = Body::stream(stream::iter([Ok(Bytes::from_static(b"a")), Ok(Bytes::from_static(b"b"))])).with_guard(held.clone());
        assert_eq!(body.len(), None);
        assert_eq!(body.into_bytes().await.unwrap(), "ab");
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
