//! HTTP/2 to an upstream, gRPC too: many requests on few connections, driven by hyper.
//!
//! Invariants: a connection is made by one task at a time, and another only when all have their fill of requests; a connection that
//! is asked to end (GOAWAY) finishes its requests and gets no more. Trailers pass in both directions. What the upstream says that
//! it did not look at (`REFUSED_STREAM`, RFC 9113, 8.7) counts as not sent.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, TE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use plinth_runtime::{OnEnd, TaskGroup};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use super::address::Address;
use super::body::OutBody;
use super::deadlines::{Deadlines, Pauses};
use super::endpoint::Shared;
use super::error::{Kind, OutboundError, Reached, Stage};
use super::headers::{strip_hop_by_hop, tokens};
use super::link::Io;
use crate::Body;

/// What may be on its way to us and wait: of one answer, of a connection.
const WINDOWS: (u32, u32) = (1 << 20, 4 << 20);

/// Between two questions whether the upstream is still there, and how long it may take to answer them.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// The HTTP/2 connections of an endpoint.
pub(super) struct Streams {
    connections: Mutex<Vec<Arc<Connection>>>,
    dialling: Semaphore,
}

struct Connection {
    sender: SendRequest<OutBody>,
    active: AtomicUsize,
    used: Mutex<Instant>,
}

/// One request on a connection.
struct Active(Arc<Connection>);

impl Drop for Active {
    fn drop(&mut self) {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts what HTTP/2 runs beside its connection.
#[derive(Clone)]
struct Spawner(TaskGroup);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("http/2 request", OnEnd::Ignore, future);
    }
}

impl Default for Streams {
    fn default() -> Self {
        Self { connections: Mutex::default(), dialling: Semaphore::new(1) }
    }
}

impl Streams {
    fn connections(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests under way.
    pub(super) fn active(&self) -> usize {
        self.connections().iter().map(|connection| connection.active.load(Ordering::Relaxed)).sum()
    }

    /// The right to make a connection.
    pub(super) async fn dialling(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.dialling.acquire().await.ok()
    }

    /// Gives up connections without requests that were not used for a while. They end when nobody holds them.
    pub(super) fn sweep(&self, idle_timeout: Duration) {
        let idle = |connection: &Connection| {
            let used = *connection.used.lock().unwrap_or_else(PoisonError::into_inner);
            connection.active.load(Ordering::Relaxed) == 0 && used.elapsed() >= idle_timeout
        };
        self.connections().retain(|connection| !connection.sender.is_closed() && !idle(connection));
    }

    /// Takes no more requests on any; those under way go on.
    pub(super) fn close(&self) {
        self.connections().clear();
    }

    /// Makes a connection ready for requests.
    pub(super) async fn adopt(&self, endpoint: &Shared, io: Io) -> Result<(), OutboundError> {
        let client = endpoint.client();
        let mut builder = Builder::new(Spawner(client.tasks.clone()));
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_header_list_size(u32::try_from(client.options.max_head.0).unwrap_or(u32::MAX))
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1);
        let handshake = timeout(client.options.handshake_timeout, builder.handshake(TokioIo::new(io)));
        let shaken = handshake.await.map_err(|_| OutboundError::unsent(Kind::Timeout(Stage::Connect)))?;
        let (sender, connection) = shaken.map_err(|error| OutboundError::unsent(Kind::Connect).source(error))?;
        let open = client.metrics.open.hold();
        client.tasks.spawn("http/2 upstream", OnEnd::Ignore, async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "connection to an upstream failed");
            }
            drop(open);
        });
        let (active, used) = (AtomicUsize::new(0), Mutex::new(Instant::now()));
        self.connections().push(Arc::new(Connection { sender, active, used }));
        Ok(())
    }

    /// A connection with room for a request.
    fn pick(&self, max_streams: usize) -> Option<Active> {
        let mut connections = self.connections();
        connections.retain(|connection| !connection.sender.is_closed());
        let least = connections.iter().min_by_key(|connection| connection.active.load(Ordering::Relaxed))?;
        let active = least.active.load(Ordering::Relaxed);
        if active >= max_streams {
            return None;
        }
        least.active.store(active + 1, Ordering::Relaxed);
        Some(Active(least.clone()))
    }

    async fn connection(&self, endpoint: &Shared, deadlines: &Deadlines) -> Result<Active, OutboundError> {
        let options = &endpoint.client().options;
        if let Some(active) = self.pick(options.max_streams) {
            endpoint.client().metrics.reused.inc();
            return Ok(active);
        }
        let _turn = self.dialling().await;
        if let Some(active) = self.pick(options.max_streams) {
            return Ok(active);
        }
        if self.connections().len() < options.max_connections {
            let io = endpoint.dial_http2(deadlines).await?;
            self.adopt(endpoint, io).await?;
        }
        // More than its fill is better than an error; the upstream's own limit makes them wait.
        self.pick(usize::MAX).ok_or_else(|| OutboundError::unsent(Kind::Connect))
    }

    /// Sends a request.
    pub(super) async fn send(
        &self,
        endpoint: &Shared,
        parts: Parts,
        body: OutBody,
        deadlines: &Deadlines,
    ) -> Result<Response<Body>, OutboundError> {
        let mut request = Some(prepare(parts, body, endpoint.address())?);
        let mut last = false;
        loop {
            let Some(now) = request.take() else { return Err(OutboundError::unsent(Kind::Reset)) };
            let again = now.body().replay().map(|body| copy(&now, body));
            let active = self.connection(endpoint, deadlines).await?;
            let (until, stage) = deadlines.end(Instant::now(), deadlines.first_byte, Stage::FirstByte);
            // Waits for nothing but room in a queue that hyper does not bound.
            let answer = timeout_at(until, active.0.sender.clone().try_send_request(now)).await;
            let mut failed = match answer {
                Err(_elapsed) => return Err(OutboundError::new(Kind::Timeout(stage), Reached::MaybeSent)),
                Ok(Ok(answer)) => return Ok(arriving(answer, active, deadlines)),
                Ok(Err(failed)) => failed,
            };
            let unsent = failed.take_message();
            let error = classify(failed.into_error(), unsent.is_some());
            request = unsent.or(again);
            if last || error.reached != Reached::NotSent || request.is_none() {
                return Err(error);
            }
            endpoint.client().metrics.resent.inc();
            last = true;
        }
    }
}

/// The request as HTTP/2 has it.
fn prepare(mut parts: Parts, body: OutBody, address: &Address) -> Result<Request<OutBody>, OutboundError> {
    let invalid = |_| OutboundError::unsent(Kind::Request("its path is not valid"));
    let (prefix, path) = address.target(&parts.uri);
    let path = if prefix.is_empty() { PathAndQuery::try_from(path) } else { PathAndQuery::try_from(format!("{prefix}{path}")) };
    let path = path.map_err(|error| invalid(error.into()))?;
    let uri = Uri::builder().scheme(address.scheme().on_the_wire()).authority(address.authority().as_bytes()).path_and_query(path);
    parts.uri = uri.build().map_err(invalid)?;
    parts.version = Version::HTTP_2;
    let wants_trailers = parts.headers.get_all(TE).into_iter().filter_map(|value| value.to_str().ok()).flat_map(tokens);
    let wants_trailers = wants_trailers.into_iter().any(|token| token.eq_ignore_ascii_case("trailers"));
    strip_hop_by_hop(&mut parts.headers);
    for name in [HOST, EXPECT, CONTENT_LENGTH] {
        parts.headers.remove(name);
    }
    if wants_trailers || address.scheme().is_grpc() {
        parts.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Ok(Request::from_parts(parts, body))
}

fn copy(request: &Request<OutBody>, body: OutBody) -> Request<OutBody> {
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn classify(error: hyper::Error, unsent: bool) -> OutboundError {
    let reason = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    let refused = reason.is_some_and(|error| error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM));
    let kind = if error.is_user() || error.is_body_write_aborted() {
        Kind::Request("its body broke off")
    } else if reason.is_some_and(|error| !error.is_remote() && !error.is_io()) || error.is_parse() {
        Kind::Protocol("HTTP/2")
    } else {
        Kind::Reset
    };
    let reached = if unsent || refused { Reached::NotSent } else { Reached::MaybeSent };
    OutboundError::new(kind, reached).source(error)
}

fn arriving(answer: Response<Incoming>, active: Active, deadlines: &Deadlines) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    parts.version = Version::HTTP_11;
    strip_hop_by_hop(&mut parts.headers);
    let body = if body.is_end_stream() {
        Body::empty()
    } else {
        Body::frames(Frames { body: Some(body), pauses: Pauses::new(*deadlines), _active: active })
    };
    Response::from_parts(parts, body)
}

/// The body of an answer. Dropping it resets the stream.
struct Frames {
    /// `None` after its end.
    body: Option<Incoming>,
    pauses: Pauses,
    _active: Active,
}

impl Stream for Frames {
    type Item = io::Result<Frame<Bytes>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let error = ready!(this.pauses.poll(cx));
                this.body = None;
                return Poll::Ready(Some(Err(error.into_io())));
            }
        };
        match frame {
            Some(Ok(frame)) => {
                let passed = this.pauses.passed();
                if passed.is_err() {
                    this.body = None;
                }
                Poll::Ready(Some(passed.map(|()| frame).map_err(OutboundError::into_io)))
            }
            Some(Err(error)) => {
                this.body = None;
                Poll::Ready(Some(Err(OutboundError::new(Kind::Reset, Reached::FirstByte).source(error).into_io())))
            }
            None => Poll::Ready(None),
        }
    }
}
