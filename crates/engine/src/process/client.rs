//! HTTP to one port of this machine, for a server that may be hostile.
//!
//! Invariants: every connection goes to 127.0.0.1 and the server's port; no redirect is followed; an answer is bounded in
//! bytes. Deadlines around whole calls are the caller's, because only it knows them. A dropped call closes the request's
//! connection (HTTP/1) or resets its stream (HTTP/2), which is how a server learns of it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use plinth_runtime::{OnEnd, TaskGroup};
use plinth_types::TraceContext;

const CONNECT: Duration = Duration::from_secs(2);
/// Shorter than what servers keep connections open for, so that they seldom close one that is about to be used.
const IDLE: Duration = Duration::from_millis(1500);
/// What is set aside for an answer before it has come.
const FIRST_BUFFER: u64 = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("nobody listens")]
    Connect,
    #[error("the connection ended before the answer did")]
    Closed,
    #[error("the answer is longer than {0} bytes")]
    TooLong(u64),
    #[error("not HTTP: {0}")]
    Protocol(String),
}

/// A whole answer.
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

pub(crate) struct Http {
    client: Client<HttpConnector, Pieces>,
    authority: String,
    authorization: Option<HeaderValue>,
}

/// What to send.
pub(crate) struct Ask<'a> {
    pub method: Method,
    pub path: &'a str,
    pub headers: HeaderMap,
    pub body: Vec<Bytes>,
}

impl<'a> Ask<'a> {
    pub(crate) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, headers: HeaderMap::new(), body: Vec::new() }
    }

    pub(crate) fn post(path: &'a str, kind: &'static str, body: Vec<Bytes>) -> Self {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        Self { method: Method::POST, path, headers, body }
    }

    /// The same, with where it stands in its trace: this call is a piece of work of its own.
    pub(crate) fn traced(mut self, trace: Option<TraceContext>) -> Self {
        if let Some(value) = trace.and_then(|trace| HeaderValue::from_bytes(&trace.child(0).traceparent()).ok()) {
            self.headers.insert("traceparent", value);
        }
        self
    }
}

impl Http {
    /// A client for `port`; with `http2` it speaks nothing else.
    pub(crate) fn new(port: u16, token: Option<&str>, http2: bool, connections: usize, tasks: &TaskGroup) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let client = Client::builder(Spawner(tasks.clone()))
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(connections.saturating_add(1))
            .http2_only(http2)
            .http2_adaptive_window(true)
            .build(connector);
        let authorization = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
        Self { client, authority: format!("127.0.0.1:{port}"), authorization }
    }

    /// Sends a request and returns when the head of the answer is there.
    pub(crate) async fn begin(&self, ask: Ask<'_>) -> Result<Response<Incoming>, CallError> {
        let mut request = Request::new(Pieces::new(ask.body));
        *request.method_mut() = ask.method;
        *request.uri_mut() =
            format!("http://{}{}", self.authority, ask.path).parse().map_err(|_| CallError::Protocol("the path is no path".to_owned()))?;
        *request.headers_mut() = ask.headers;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        self.client.request(request).await.map_err(|error| {
            let cause = std::error::Error::source(&error);
            let hyper = cause.and_then(|cause| cause.downcast_ref::<hyper::Error>());
            match hyper {
                _ if error.is_connect() => CallError::Connect,
                Some(error) if error.is_parse() => CallError::Protocol(error.to_string()),
                _ => CallError::Closed,
            }
        })
    }

    /// Sends a request and returns its whole answer of at most `max` bytes.
    pub(crate) async fn call(&self, ask: Ask<'_>, max: u64) -> Result<Answer, CallError> {
        let (head, body) = self.begin(ask).await?.into_parts();
        let (body, trailers) = collect(body, max).await?;
        Ok(Answer { status: head.status, headers: head.headers, body, trailers })
    }
}

async fn collect(mut body: Incoming, max: u64) -> Result<(Bytes, HeaderMap), CallError> {
    let promised = body.size_hint().exact();
    if promised.is_some_and(|length| length > max) {
        return Err(CallError::TooLong(max));
    }
    let (mut whole, mut trailers) = (BytesMut::new(), HeaderMap::new());
    // A promise costs the server nothing, so it reserves little.
    whole.reserve(usize::try_from(promised.unwrap_or(0).min(FIRST_BUFFER)).unwrap_or(0));
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| CallError::Closed)?.into_data() {
            Ok(data) if (whole.len() as u64).saturating_add(data.len() as u64) > max => return Err(CallError::TooLong(max)),
            Ok(data) => whole.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok((whole.freeze(), trailers))
}

/// A body from pieces that lie in several places.
pub(crate) struct Pieces {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl Pieces {
    fn new(pieces: Vec<Bytes>) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces: pieces.into_iter().filter(|piece| !piece.is_empty()).collect(), left }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop_front();
        self.left -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Connections live in tasks of the group that owns the server.
#[derive(Clone)]
struct Spawner(TaskGroup);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        let cancelled = self.0.cancelled().clone();
        self.0.spawn("process-connection", OnEnd::Ignore, async move {
            let _ended_or_cancelled = cancelled.run_until_cancelled_owned(future).await;
        });
    }
}
