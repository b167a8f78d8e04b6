//! Counts every request, also the refused ones, until the last byte of its answer has left, and says what the access log wants to know.
//!
//! ```text
//! begun ──answered──▶ on its way ──last byte, or given up──▶ counted, and logged if wanted
//!   └──dropped: its client went away──▶ counted and logged as 499
//! ```
//!
//! Invariant: what is kept for the log beyond the answer is made only for requests that get a line.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Version};
use plinth_identity::Who;
use plinth_net::{Peer, Request, Response};
use plinth_runtime::Clock;
use plinth_telemetry::{Catalogue, RouteMetrics, UpDownCounter, UpGuard};
use plinth_types::{Class, Error, Reason, RequestId};

use crate::access_log::{AccessLog, Ended, Line, bounded, path};
use crate::dispatch;
use crate::limits::Refused;
use crate::request_id::Drawn;
use crate::routes::{Named, Route};
use crate::trace::Place;

/// What nginx calls a request whose client went away; it is counted, never sent.
const CLIENT_WENT_AWAY: u16 = 499;
/// The word for that in the access log.
const GIVEN_UP: &str = "client_went_away";

/// What a route's requests are counted into. Shared as a whole: each handle of its own would be one more counter of owners
/// that all processors write to, for each request.
pub struct Counted {
    metrics: Option<(RouteMetrics, UpDownCounter)>,
    clock: Arc<dyn Clock>,
    log: Option<Arc<AccessLog>>,
}

impl Counted {
    /// The handles of a route, unless nothing is counted or logged.
    pub fn new(catalogue: &Catalogue, route: &str, clock: &Arc<dyn Clock>, log: Option<&Arc<AccessLog>>) -> Option<Arc<Self>> {
        let metrics = catalogue.route(route);
        let metrics = metrics.is_on().then(|| (metrics, catalogue.http_requests_in_flight.clone()));
        (metrics.is_some() || log.is_some()).then(|| Arc::new(Self { metrics, clock: clock.clone(), log: log.cloned() }))
    }
}

/// What is known of a request from its head.
pub struct Facts {
    pub id: RequestId,
    pub method: Method,
    pub path: String,
    /// Plinth's own route: its name, and its pattern where there is one.
    pub route: (&'static str, Option<&'static str>),
    version: Version,
    remote: SocketAddr,
    listener: &'static str,
    bytes_in: Option<u64>,
    /// Chance, for the log.
    draw: u32,
    pub seen: Seen,
}

/// What becomes known of a request on its way.
pub struct Seen {
    pub who: Option<Who>,
    /// Where it comes from, once the door has let it pass.
    pub address: Option<IpAddr>,
    pub origin: Option<HeaderValue>,
    /// What a refused caller is told of its limits.
    pub limits: HeaderMap,
    /// Where it stands in its trace.
    pub trace: Place,
    /// The users' route that it takes.
    pub route: Option<Arc<Route>>,
    /// The model that a message names.
    pub model: Option<String>,
}

impl Seen {
    pub fn refused(&mut self, refused: Refused) -> Error {
        refused.headers(&mut self.limits);
        refused.error
    }
}

impl Facts {
    /// Of a request that has just come.
    pub fn of(request: &Request, peer: &Peer, route: (&'static str, Option<&'static str>), drawn: &Drawn, trace: Place) -> Self {
        let seen = Seen { who: None, address: None, origin: None, limits: HeaderMap::new(), trace, route: None, model: None };
        Self {
            id: drawn.id(request),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            route,
            version: request.version(),
            remote: peer.remote,
            listener: peer.listener,
            bytes_in: plinth_net::content_length(request.headers()),
            draw: drawn.logged,
            seen,
        }
    }

    /// The line of a request that ended with `status` and this answer.
    fn line(&self, log: &AccessLog, status: u16, reason: Option<&'static str>, answer: Option<&Response>) -> Box<Line> {
        let seen = &self.seen;
        let context = seen.trace.context();
        let said = |name: &http::HeaderName| answer?.headers().get(name)?.to_str().ok().map(bounded);
        let route = seen.route.as_ref();
        // Without the header there was one attempt, where there was an upstream at all.
        let attempts = said(&dispatch::ATTEMPTS).and_then(|text| text.parse().ok());
        let model = seen.model.as_deref().filter(|model| !model.is_empty()).or_else(|| Named::of(&self.path).map(|named| named.model));
        Box::new(Line {
            time: log.now(),
            request: self.id.to_string(),
            trace: context.trace().to_string(),
            span: context.span().to_string(),
            recorded: context.sampled(),
            tenant: seen.who.as_ref().map(|who| who.tenant().to_string()),
            user: seen.who.as_ref().map(|who| bounded(&who.caller().to_string())),
            client: seen.address.unwrap_or_else(|| self.remote.ip()).to_canonical().to_string(),
            listener: self.listener,
            version: version(self.version),
            method: bounded(self.method.as_str()),
            pattern: self.route.1.filter(|_| route.is_none()),
            route: route.map_or_else(|| self.route.0.to_owned(), |route| route.name.to_string()),
            path: log.names_paths().then(|| path(&self.path)),
            status,
            reason,
            bytes_in: self.bytes_in,
            bytes_out: 0,
            duration_ms: 0.0,
            model: model.map(bounded),
            target: said(&dispatch::TARGET).or_else(|| route.and_then(|route| route.only_target()).map(str::to_owned)),
            attempts: attempts.or_else(|| route.filter(|route| route.asks_upstreams()).map(|_| 1)),
            instead: said(&dispatch::FALLBACK).or_else(|| said(&dispatch::DEGRADED)),
            share: (status < 400 && reason.is_none()).then(|| log.share()).filter(|share| *share < 1.0),
            dropped: None,
        })
    }
}

const fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        _ => "3",
    }
}

/// A request that is being counted. When it is dropped before it has an answer, its client went away.
pub struct Record {
    pub facts: Facts,
    /// `None` once it is answered, and where nothing is counted.
    open: Option<Open>,
}

/// What is done at the end.
struct Open {
    counted: Arc<Counted>,
    start: Duration,
    status: u16,
    _in_flight: Option<UpGuard>,
    line: Option<Box<Line>>,
    sent: Sent,
}

/// The bytes of the answer.
enum Sent {
    Known(u64),
    Tally(Arc<AtomicU64>),
}

impl Record {
    /// Begins to count.
    pub fn begin(counted: Option<&Arc<Counted>>, facts: Facts) -> Self {
        let open = counted.map(|counted| Open {
            start: counted.clock.monotonic(),
            status: CLIENT_WENT_AWAY,
            _in_flight: counted.metrics.as_ref().map(|(_, in_flight)| in_flight.hold()),
            counted: counted.clone(),
            line: None,
            sent: Sent::Known(0),
        });
        Self { facts, open }
    }

    /// Goes along with the answer and ends with it. `error`: why it failed; counted with `status` where the answer's own says nothing.
    pub fn until_sent(mut self, mut answer: Response, error: Option<Reason>, status: Option<u16>) -> Response {
        let Some(mut open) = self.open.take() else { return answer };
        open.status = status.unwrap_or_else(|| answer.status().as_u16());
        let ended = if error.is_none() && open.status < 400 { Ended::Well } else { Ended::Badly };
        if let Some(log) = open.log_for(ended, self.facts.draw) {
            open.line = Some(self.facts.line(&log, open.status, error.map(Reason::slug), Some(&answer)));
            open.sent = match answer.body().len() {
                Some(length) => Sent::Known(length),
                None => {
                    let tally = Arc::new(AtomicU64::new(0));
                    answer = answer.map(|body| body.tallied(tally.clone()));
                    Sent::Tally(tally)
                }
            };
        }
        answer.map(|body| body.with_guard(open))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(open) = &mut self.open else { return };
        if let Some(log) = open.log_for(Ended::Badly, self.facts.draw) {
            open.line = Some(self.facts.line(&log, CLIENT_WENT_AWAY, Some(GIVEN_UP), None));
        }
    }
}

impl Open {
    /// The log, when it wants a line.
    fn log_for(&self, ended: Ended, draw: u32) -> Option<Arc<AccessLog>> {
        let log = self.counted.log.as_ref()?;
        log.wants(ended, draw, self.counted.clock.monotonic()).then(|| log.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Counted { metrics, clock, log } = &*self.counted;
        let took = clock.monotonic().saturating_sub(self.start);
        if let Some((metrics, _)) = metrics {
            metrics.record(self.status, took);
        }
        if let (Some(mut line), Some(log)) = (self.line.take(), log) {
            line.bytes_out = match &self.sent {
                Sent::Known(bytes) => *bytes,
                Sent::Tally(tally) => tally.load(Ordering::Relaxed),
            };
            line.duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
            line.time = log.now();
            log.note(line);
        }
    }
}

/// One line for each failure that is not the caller's fault; the caller's own are for those who look closely.
pub fn log(error: &Error, facts: &Facts) {
    let (reason, cause) = (error.reason().slug(), error.log_text());
    let Facts { id, method, path, seen, .. } = facts;
    let trace_id = seen.trace.context().trace();
    match error.class() {
        Class::Internal | Class::RunnerFailed => {
            tracing::error!(request = %id, %trace_id, %method, path, reason, error = %error, cause, "request failed")
        }
        Class::Unavailable | Class::DeadlineExceeded => {
            tracing::warn!(request = %id, %trace_id, %method, path, reason, error = %error, cause, "request failed")
        }
        _ => tracing::debug!(request = %id, %trace_id, %method, path, reason, error = %error, cause, "request refused"),
    }
}
