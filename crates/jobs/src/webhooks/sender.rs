//! Sending one delivery.
//!
//! Invariants: each delivery has a connection of its own, made after its address passed the guard, and closed with it; everything
//! together ends after [`TOTAL`]; the status alone decides, so an answer that is too long, or breaks off after its head, is judged as
//! if it were whole. Nothing is sent twice here: to try again is the queue's decision.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::{HeaderValue, Request, Response, header};
use http_body::Body as _;
use plinth_net::Body;
use plinth_net::outbound::{
    Deadlines, Guard, OutBody, Outbound, OutboundError, OutboundMetrics, OutboundOptions, Resolver, TlsRoots, TlsSetupError,
};
use plinth_runtime::{Clock, TaskGroup};
use plinth_types::{Error, Reason};
use tokio::time::{Instant, timeout_at};

use super::address::Address;
use super::answer::{Outcome, judge};
use super::attempt::{Attempt, Ended, Failure};
use super::hosts::Hosts;
use super::secret::Secrets;
use super::signature::{MessageId, sign};

/// How long a delivery may take, from looking up the name to the last byte of the answer.
pub const TOTAL: Duration = Duration::from_secs(10);
/// The most bytes of an answer's body that are read.
pub const MAX_ANSWER: u64 = 64 << 10;
/// The most bytes of a delivery's body. The specification recommends less than 20 kB: name large things, do not send them.
pub const MAX_BODY: usize = 1 << 20;
/// When to come back to a host that is busy.
const BUSY: Duration = Duration::from_secs(1);

/// What a [`Sender`] is made of.
pub struct SenderParts {
    /// Which addresses may be called.
    pub guard: Guard,
    /// Finds the addresses of names.
    pub resolver: Resolver,
    /// Whose certificates are trusted. `None`: there is no `https`.
    pub tls: Option<TlsRoots>,
    /// What is counted.
    pub metrics: OutboundMetrics,
    /// Reads the time.
    pub clock: Arc<dyn Clock>,
}

/// Sends deliveries. Cheap to clone; clones share the limit of each host.
#[derive(Clone)]
pub struct Sender {
    outbound: Outbound,
    clock: Arc<dyn Clock>,
    hosts: Hosts,
    total: Duration,
}

/// One delivery.
#[derive(Debug, Clone)]
pub struct Delivery {
    id: MessageId,
    pub(super) address: Address,
    pub(super) secrets: Secrets,
    pub(super) body: Bytes,
}

/// A body of more than [`MAX_BODY`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body of a delivery has at most {MAX_BODY} bytes")]
pub struct BodyTooLarge;

impl Delivery {
    /// The JSON `body` for `address`, signed at each attempt with all of `secrets`. `id` names it, the same at each attempt.
    ///
    /// # Errors
    /// When the body has more than [`MAX_BODY`] bytes.
    pub fn new(id: MessageId, address: Address, secrets: Secrets, body: Bytes) -> Result<Self, BodyTooLarge> {
        if body.len() > MAX_BODY { Err(BodyTooLarge) } else { Ok(Self { id, address, secrets, body }) }
    }
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// What becomes of the delivery.
    pub outcome: Outcome,
    /// For the record, which the tenant sees.
    pub attempt: Attempt,
    /// For the log, which the tenant does not see: what really happened. Empty when it was delivered.
    pub diagnostic: String,
}

impl Sent {
    /// Whether something was tried: an attempt that found its host busy is none, and should not count as one.
    #[must_use]
    pub const fn is_attempt(&self) -> bool {
        !matches!(self.attempt.ended, Ended::Failure(Failure::Busy))
    }

    /// The failure, for whoever asks for the delivery's state. Its public text is the same for all causes for which a receiver was not
    /// reached.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        let text = match (self.outcome, self.attempt.ended) {
            (Outcome::Delivered, _) => return None,
            (_, Ended::Failure(failure)) => failure.text().to_owned(),
            (_, Ended::Status(status @ 300..=399)) => {
                format!("the webhook's receiver answered {status}: redirects are not followed, enter the new address")
            }
            (_, Ended::Status(status)) => format!("the webhook's receiver answered {status}"),
        };
        Some(Error::new(Reason::WebhookFailed, text).diagnostic(self.diagnostic.clone()))
    }
}

impl Sender {
    /// A sender. Its client's upkeep runs in `tasks`.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(parts: SenderParts, tasks: &TaskGroup) -> Result<Self, TlsSetupError> {
        let options = OutboundOptions {
            // Receivers are anywhere on earth, not beside the node.
            connect_timeout: Duration::from_secs(3),
            handshake_timeout: Duration::from_secs(5),
            // One request on each connection: HTTP/2 would be no gain.
            http2: false,
            max_connections: 1,
            max_idle: 0,
            tls: parts.tls,
            ..OutboundOptions::default()
        };
        let outbound = Outbound::new(options, parts.guard, parts.resolver, parts.metrics, tasks)?;
        Ok(Self { outbound, clock: parts.clock, hosts: Hosts::default(), total: TOTAL })
    }

    /// Makes one attempt.
    ///
    /// Cancel safe: a dropped call closes its connection and gives the host's slot back. The receiver may have seen the delivery.
    pub async fn send(&self, delivery: &Delivery) -> Sent {
        let at = self.clock.now();
        let failed = |failure, duration_ms, after, diagnostic: String| {
            let attempt = Attempt { at, ended: Ended::Failure(failure), duration_ms, bytes: 0 };
            Sent { outcome: Outcome::Retry { after }, attempt, diagnostic }
        };
        let Some(_slot) = self.hosts.take(delivery.address.origin().host()) else {
            return failed(Failure::Busy, 0, Some(BUSY), "its host has as many deliveries as it may have".into());
        };
        let start = self.clock.monotonic();
        let took = || u64::try_from(self.clock.monotonic().saturating_sub(start).as_millis()).unwrap_or(u64::MAX);
        let end = Instant::now() + self.total;
        let endpoint = self.outbound.endpoint(delivery.address.origin().clone());
        let deadlines = Deadlines { first_byte: self.total, idle: self.total, total: Some(end) };
        match Box::pin(endpoint.send(request(delivery, at), &deadlines)).await {
            Err(error) => {
                let failure = Failure::of(&error);
                let duration = if failure == Failure::Unreachable { 0 } else { took() };
                failed(failure, duration, None, diagnosis(&error))
            }
            Ok(answer) => {
                let outcome = judge(answer.status(), answer.headers(), self.clock.now());
                let status = answer.status().as_u16();
                let bytes = drain(answer, end).await;
                let diagnostic = if outcome == Outcome::Delivered { String::new() } else { format!("it answered {status}") };
                Sent { outcome, attempt: Attempt { at, ended: Ended::Status(status), duration_ms: took(), bytes }, diagnostic }
            }
        }
    }

    /// With less time than [`TOTAL`], for tests that wait until it is over.
    #[cfg(test)]
    pub(super) fn with_total(mut self, total: Duration) -> Self {
        self.total = total;
        self
    }

    /// The hosts with deliveries under way.
    #[cfg(test)]
    pub(super) fn hosts(&self) -> usize {
        self.hosts.len()
    }
}

fn request(delivery: &Delivery, at: plinth_types::Timestamp) -> Request<OutBody> {
    let mut request = Request::new(OutBody::full(delivery.body.clone()));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = delivery.address.target().clone().into();
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("plinth/", env!("CARGO_PKG_VERSION"))));
    sign(&delivery.secrets, &delivery.id, at, &delivery.body).write(headers);
    request
}

/// Reads what a receiver says, so that it does not see its connection break, up to a bound. What it says counts for nothing.
async fn drain(answer: Response<Body>, end: Instant) -> u64 {
    let mut body = answer.into_body();
    let mut bytes = 0;
    let reading = async {
        while bytes < MAX_ANSWER {
            let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else { break };
            if let Ok(data) = frame.into_data() {
                bytes += data.remaining() as u64;
            }
        }
    };
    let _out_of_time = timeout_at(end, reading).await;
    bytes.min(MAX_ANSWER)
}

/// The error with its causes.
fn diagnosis(error: &OutboundError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
