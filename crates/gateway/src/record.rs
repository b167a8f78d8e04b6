//! Counts every request, also the refused ones, until the last byte of its answer has left.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use plinth_net::Response;
use plinth_runtime::Clock;
use plinth_telemetry::{Catalogue, RouteMetrics, UpDownCounter, UpGuard};
use plinth_types::{Class, Error, RequestId};

/// What nginx calls a request whose client went away; it is counted, never sent.
const CLIENT_WENT_AWAY: u16 = 499;

/// What a route's requests are counted into. Shared as a whole: each handle of its own would be one more counter of owners
/// that all processors write to, for each request.
pub struct Counted {
    metrics: RouteMetrics,
    in_flight: UpDownCounter,
    clock: Arc<dyn Clock>,
}

impl Counted {
    /// The handles of a route, unless nothing is counted.
    pub fn new(catalogue: &Catalogue, route: &str, clock: &Arc<dyn Clock>) -> Option<Arc<Self>> {
        let (metrics, in_flight) = (catalogue.route(route), catalogue.http_requests_in_flight.clone());
        metrics.is_on().then(|| Arc::new(Self { metrics, in_flight, clock: clock.clone() }))
    }
}

/// A request that is being counted. When it is dropped before it has an answer, its client went away.
pub struct Record {
    counted: Arc<Counted>,
    start: Duration,
    status: u16,
    _in_flight: UpGuard,
}

/// Begins to count.
pub fn begin(counted: &Arc<Counted>) -> Record {
    Record { start: counted.clock.monotonic(), status: CLIENT_WENT_AWAY, _in_flight: counted.in_flight.hold(), counted: counted.clone() }
}

impl Record {
    /// Goes along with the answer and ends with it. Counted with `status` where the answer's own says nothing.
    pub fn until_sent(mut self, answer: Response, status: Option<u16>) -> Response {
        self.status = status.unwrap_or_else(|| answer.status().as_u16());
        answer.map(|body| body.with_guard(self))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Counted { metrics, clock, .. } = &*self.counted;
        metrics.record(self.status, clock.monotonic().saturating_sub(self.start));
    }
}

/// One line for each failure that is not the caller's fault; the caller's own are for those who look closely.
pub fn log(error: &Error, id: &RequestId, method: &Method, path: &str) {
    let (reason, cause) = (error.reason().slug(), error.log_text());
    match error.class() {
        Class::Internal | Class::RunnerFailed => {
            tracing::error!(request = %id, %method, path, reason, error = %error, cause, "request failed")
        }
        Class::Unavailable | Class::DeadlineExceeded => {
            tracing::warn!(request = %id, %method, path, reason, error = %error, cause, "request failed")
        }
        _ => tracing::debug!(request = %id, %method, path, reason, error = %error, cause, "request refused"),
    }
}
