//! Counts every request, also the refused ones, until the last byte of its answer has left.

use std::time::Duration;

use http::Method;
use plinth_net::Response;
use plinth_runtime::World;
use plinth_telemetry::{Catalogue, RouteMetrics, UpGuard};
use plinth_types::{Class, Error, RequestId};

/// What nginx calls a request whose client went away; it is counted, never sent.
const CLIENT_WENT_AWAY: u16 = 499;

/// A request that is being counted. When it is dropped before it has an answer, its client went away.
pub struct Record {
    metrics: RouteMetrics,
    world: World,
    start: Duration,
    status: u16,
    _in_flight: UpGuard,
}

/// Begins to count.
pub fn begin(metrics: &RouteMetrics, catalogue: &Catalogue, world: &World) -> Record {
    Record {
        metrics: metrics.clone(),
        world: world.clone(),
        start: world.clock.monotonic(),
        status: CLIENT_WENT_AWAY,
        _in_flight: catalogue.http_requests_in_flight.hold(),
    }
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
        self.metrics.record(self.status, self.world.clock.monotonic().saturating_sub(self.start));
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
