//! One upstream: its connections, and requests over them.
//!
//! Invariant: a request is sent a second time only when the connection on which it went was kept from before and closed without a
//! byte of answer, and only when it certainly was not seen or the method allows it (RFC 9110, 9.2.2; RFC 9112, 9.3.1). That is a
//! repair of keeping connections and not a retry: everything else is reported, with how far it came.

use std::future::Future;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::time::timeout_at;

use super::Client;
use super::address::{Address, Scheme};
use super::body::OutBody;
use super::deadlines::Deadlines;
use super::dial::Dialled;
use super::error::{Kind, OutboundError, Reached, Stage};
use super::http1::{Asking, Exchange};
use super::http2::Streams;
use super::link::{Io, Link};
use super::pool::{Limits, Pool, Slot};
use super::tls::Offer;
use super::tunnel::Tunnel;
use crate::Body;

/// One upstream. Cheap to clone; clones share its connections.
#[derive(Clone)]
pub struct Endpoint(Arc<Shared>);

pub(super) struct Shared {
    client: Arc<Client>,
    address: Address,
    pool: Pool,
    streams: Streams,
    /// What an `https` upstream agreed on.
    agreed: AtomicU8,
    turn: AtomicUsize,
}

/// Nothing is known yet; HTTP/1.1; HTTP/2.
const UNKNOWN: u8 = 0;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

/// What came of asking an upstream to leave HTTP.
pub enum Upgrade {
    /// It did; the answer is for the client, and the connection waits for it.
    Switched(Response<Body>, Tunnel),
    /// It answered as usual.
    Declined(Response<Body>),
}

impl Endpoint {
    pub(super) fn new(client: Arc<Client>, address: Address) -> Self {
        let options = &client.options;
        let limits = Limits {
            max_connections: options.max_connections,
            max_idle: options.max_idle,
            idle_timeout: options.idle_timeout,
            queue_timeout: options.queue_timeout,
        };
        let agreed = match address.scheme() {
            Scheme::Http => HTTP1,
            Scheme::Https => UNKNOWN,
            Scheme::H2c | Scheme::Grpc | Scheme::Grpcs => HTTP2,
        };
        let (pool, streams) = (Pool::new(limits), Streams::default());
        Self(Arc::new(Shared { client, address, pool, streams, agreed: AtomicU8::new(agreed), turn: AtomicUsize::new(0) }))
    }

    pub(super) fn weak(&self) -> Weak<Shared> {
        Arc::downgrade(&self.0)
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// Connections that wait for a request.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.0.pool.counts().0
    }

    /// Requests that are under way, until the last byte of their answers.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.pool.counts().1 + self.0.streams.active()
    }

    /// Sends a request and brings the answer, its body as it comes. Of the request's URI only path and query count, behind the
    /// prefix of the address; `Host` is the address's. Headers that belong to one connection pass in neither direction, and
    /// redirects are answers like others.
    ///
    /// Cancel safe: dropping it, or the body of the answer, closes the connection or resets the stream.
    ///
    /// # Errors
    /// See [`Kind`]. Errors that come after the head are those of the body; [`OutboundError::of`] finds them.
    pub async fn send(&self, request: Request<OutBody>, deadlines: &Deadlines) -> Result<Response<Body>, OutboundError> {
        let (parts, body) = request.into_parts();
        match self.0.agreed.load(Ordering::Relaxed) {
            HTTP1 => self.0.over_http1(&parts, body, deadlines, None).await,
            HTTP2 => Box::pin(self.0.over_http2(parts, body, deadlines)).await,
            _ => Box::pin(self.0.agree(parts, body, deadlines)).await,
        }
    }

    /// As [`Self::send`], with a head that stays the caller's, who may have to send it again. HTTP/1 does not copy it.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_head(&self, parts: &Parts, body: OutBody, deadlines: &Deadlines) -> Result<Response<Body>, OutboundError> {
        match self.0.agreed.load(Ordering::Relaxed) {
            HTTP1 => self.0.over_http1(parts, body, deadlines, None).await,
            HTTP2 => Box::pin(self.0.over_http2(parts.clone(), body, deadlines)).await,
            _ => Box::pin(self.0.agree(parts.clone(), body, deadlines)).await,
        }
    }

    /// Asks the upstream to leave HTTP, as WebSocket does: on a connection of its own, with the headers `Upgrade` and those of
    /// the protocol. The connection counts among the endpoint's until the [`Tunnel`] is dropped.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn upgrade(&self, request: Request<()>, deadlines: &Deadlines) -> Result<Upgrade, OutboundError> {
        let (parts, ()) = request.into_parts();
        let (slot, _) = self.0.pool.take(false, deadlines.total).await?;
        let link = Box::pin(self.0.link(Offer::Http1, deadlines)).await?;
        let mut exchange = Exchange::begin(slot.with(link), self.0.asking(&parts, true), OutBody::empty())?;
        let head = exchange.head(deadlines).await?;
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            return exchange.answer(head, deadlines).map(Upgrade::Declined);
        }
        let same = |headers: &HeaderMap| headers.get(http::header::UPGRADE).map(|to| to.as_bytes().to_ascii_lowercase());
        if same(&head.headers) != same(&parts.headers) {
            return Err(OutboundError::new(Kind::Protocol("it switches to another protocol"), Reached::FirstByte));
        }
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = head.status;
        *answer.headers_mut() = head.headers;
        Ok(Upgrade::Switched(answer, Tunnel::new(exchange.into_lease())))
    }
}

impl Shared {
    pub(super) fn sweep(&self) {
        self.pool.sweep();
        self.streams.sweep(self.client.options.idle_timeout);
    }

    pub(super) fn close_idle(&self) {
        self.pool.close_idle();
        self.streams.close();
    }

    fn asking<'a>(&'a self, parts: &'a Parts, upgrade: bool) -> Asking<'a> {
        Asking { parts, address: &self.address, upgrade, max_head: self.client.options.max_head.as_usize() }
    }

    async fn dial(&self, offer: Offer, deadlines: &Deadlines) -> Result<Dialled, OutboundError> {
        within(deadlines, self.client.dial(&self.address, offer, &self.turn)).await
    }

    async fn link(&self, offer: Offer, deadlines: &Deadlines) -> Result<Link, OutboundError> {
        Ok(self.open(self.dial(offer, deadlines).await?.io))
    }

    fn open(&self, io: Io) -> Link {
        Link::new(io, self.client.metrics.open.hold())
    }

    /// `first`: a connection that was just made.
    async fn over_http1(
        &self,
        parts: &Parts,
        mut body: OutBody,
        deadlines: &Deadlines,
        mut first: Option<(Slot, Link)>,
    ) -> Result<Response<Body>, OutboundError> {
        let metrics = &self.client.metrics;
        let mut fresh = false;
        loop {
            let (lease, reused) = match first.take() {
                Some((slot, link)) => (slot.with(link), false),
                None => match self.pool.take(!fresh, deadlines.total).await? {
                    (slot, Some(link)) => {
                        metrics.reused.inc();
                        (slot.with(link), true)
                    }
                    (slot, None) => (slot.with(Box::pin(self.link(Offer::Http1, deadlines)).await?), false),
                },
            };
            let again = if reused { body.replay() } else { None };
            let mut exchange = Exchange::begin(lease, self.asking(parts, false), body)?;
            let error = match exchange.head(deadlines).await {
                Ok(head) => return exchange.answer(head, deadlines),
                Err(error) => error,
            };
            let safe = error.reached == Reached::NotSent || (error.reached == Reached::MaybeSent && is_idempotent(parts));
            let Some(unsent) = again.or_else(|| exchange.into_unsent()).filter(|_| reused && safe && error.kind == Kind::Reset) else {
                return Err(error);
            };
            metrics.resent.inc();
            (body, fresh) = (unsent, true);
        }
    }

    async fn over_http2(&self, parts: Parts, body: OutBody, deadlines: &Deadlines) -> Result<Response<Body>, OutboundError> {
        let answer = self.streams.send(self, parts, body, deadlines).await;
        if self.address.scheme() == Scheme::Https && answer.as_ref().is_err_and(|error| error.kind == Kind::Tls) {
            // It may have gone back to HTTP/1.1: the next request asks.
            self.agreed.store(UNKNOWN, Ordering::Relaxed);
        }
        answer
    }

    /// The first request to an `https` upstream: TLS tells what it speaks. One at a time, so that not each of many makes a
    /// connection where one would do.
    async fn agree(&self, parts: Parts, body: OutBody, deadlines: &Deadlines) -> Result<Response<Body>, OutboundError> {
        let turn = within(deadlines, async { Ok(self.streams.dialling().await) }).await?;
        match self.agreed.load(Ordering::Relaxed) {
            HTTP1 => {
                drop(turn);
                return self.over_http1(&parts, body, deadlines, None).await;
            }
            HTTP2 => {
                drop(turn);
                return self.over_http2(parts, body, deadlines).await;
            }
            _ => {}
        }
        let (slot, _) = self.pool.take(false, deadlines.total).await?;
        let dialled = self.dial(Offer::Any, deadlines).await?;
        if dialled.http2 {
            drop(slot);
            self.streams.adopt(self, dialled.io).await?;
            self.agreed.store(HTTP2, Ordering::Relaxed);
            drop(turn);
            return self.over_http2(parts, body, deadlines).await;
        }
        self.agreed.store(HTTP1, Ordering::Relaxed);
        drop(turn);
        let link = self.open(dialled.io);
        self.over_http1(&parts, body, deadlines, Some((slot, link))).await
    }

    /// A new connection for HTTP/2.
    pub(super) async fn dial_http2(&self, deadlines: &Deadlines) -> Result<Io, OutboundError> {
        Ok(self.dial(Offer::Http2, deadlines).await?.io)
    }

    pub(super) const fn client(&self) -> &Arc<Client> {
        &self.client
    }

    pub(super) const fn address(&self) -> &Address {
        &self.address
    }
}

/// Ends at the total deadline.
async fn within<T>(deadlines: &Deadlines, work: impl Future<Output = Result<T, OutboundError>>) -> Result<T, OutboundError> {
    match deadlines.total {
        None => work.await,
        Some(total) => timeout_at(total, work).await.unwrap_or_else(|_| Err(OutboundError::unsent(Kind::Timeout(Stage::Total)))),
    }
}

/// Whether to send it twice is to send it once.
fn is_idempotent(parts: &Parts) -> bool {
    let by_method = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE);
    by_method || parts.headers.contains_key("idempotency-key")
}
