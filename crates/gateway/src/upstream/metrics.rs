//! What an upstream counts, as handles that are fetched when a snapshot is taken.

use std::sync::Arc;
use std::time::Duration;

use plinth_net::outbound::OutboundMetrics;
use plinth_policy::resilience::Outcome;
use plinth_telemetry::{Catalogue, Counter, Gauge, Histogram};

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counts of one upstream. Clones share them.
#[derive(Clone)]
pub(super) struct Metrics {
    catalogue: Arc<Catalogue>,
    name: [Box<str>; 2],
    requests: [Counter; 5],
    duration: Histogram,
    attempts: [Counter; Outcome::ALL.len()],
    pub retries: Counter,
    pub retries_refused: Counter,
    pub hedges: Counter,
    pub refused: Counter,
    pub ejections: Counter,
    pub ejected: Gauge,
    pub ready: Gauge,
    pub in_flight: Gauge,
    pub waiting: Gauge,
    pub limit: Gauge,
    pub outbound: OutboundMetrics,
}

impl Metrics {
    /// `name`: tenant and upstream.
    pub(super) fn new(catalogue: &Arc<Catalogue>, name: [&str; 2]) -> Self {
        let [tenant, upstream] = name;
        Self {
            catalogue: catalogue.clone(),
            name: name.map(Box::from),
            requests: CLASSES.map(|class| catalogue.upstream_requests.get([tenant, upstream, class])),
            duration: catalogue.upstream_duration.get(name),
            attempts: Outcome::ALL.map(|outcome| catalogue.upstream_attempts.get([tenant, upstream, outcome.label()])),
            retries: catalogue.upstream_retries.get(name),
            retries_refused: catalogue.upstream_retries_refused.get(name),
            hedges: catalogue.upstream_hedges.get(name),
            refused: catalogue.upstream_refused.get(name),
            ejections: catalogue.upstream_ejections.get(name),
            ejected: catalogue.upstream_ejected.get(name),
            ready: catalogue.upstream_ready.get(name),
            in_flight: catalogue.upstream_in_flight.get(name),
            waiting: catalogue.upstream_waiting.get(name),
            limit: catalogue.upstream_limit.get(name),
            outbound: OutboundMetrics {
                open: catalogue.upstream_connections.get(name),
                connects: catalogue.upstream_connects.get(name),
                connect_failures: catalogue.upstream_connect_failures.get(name),
                reused: catalogue.upstream_reused.get(name),
                resent: catalogue.upstream_resent.get(name),
            },
        }
    }

    /// Tenant and upstream.
    pub(super) const fn name(&self) -> &[Box<str>; 2] {
        &self.name
    }

    /// Of the breaker of one endpoint.
    pub(super) fn breaker_state(&self, index: usize) -> Gauge {
        let [tenant, upstream] = &self.name;
        self.catalogue.upstream_breaker_state.get([tenant, upstream, &index.to_string()])
    }

    /// Takes the breakers of endpoints that are gone out of the exposition.
    pub(super) fn forget_breakers(&self, indices: impl Iterator<Item = usize>) {
        let [tenant, upstream] = &self.name;
        indices.for_each(|index| self.catalogue.upstream_breaker_state.remove([tenant, upstream, &index.to_string()]));
    }

    /// A request has its head, or its error.
    pub(super) fn answered(&self, status: u16, duration: Duration) {
        if let Some(counter) = self.requests.get(usize::from(status / 100).wrapping_sub(1)) {
            counter.inc();
        }
        self.duration.observe(duration);
    }

    /// An attempt ended.
    pub(super) fn attempted(&self, outcome: Outcome) {
        if let Some(counter) = self.attempts.get(outcome as usize) {
            counter.inc();
        }
    }

    #[cfg(test)]
    pub(super) fn attempts(&self, outcome: Outcome) -> u64 {
        self.attempts[outcome as usize].value()
    }
}

/// Takes an upstream that is gone out of the exposition.
pub(super) fn forget(catalogue: &Catalogue, name: [&str; 2]) {
    /// As many endpoints as an upstream may have.
    const ENDPOINTS: usize = 64;
    let [tenant, upstream] = name;
    for class in CLASSES {
        catalogue.upstream_requests.remove([tenant, upstream, class]);
    }
    for outcome in Outcome::ALL {
        catalogue.upstream_attempts.remove([tenant, upstream, outcome.label()]);
    }
    for endpoint in 0..ENDPOINTS {
        catalogue.upstream_breaker_state.remove([tenant, upstream, &endpoint.to_string()]);
    }
    catalogue.upstream_duration.remove(name);
    for family in [
        &catalogue.upstream_retries,
        &catalogue.upstream_retries_refused,
        &catalogue.upstream_hedges,
        &catalogue.upstream_refused,
        &catalogue.upstream_ejections,
        &catalogue.upstream_connects,
        &catalogue.upstream_connect_failures,
        &catalogue.upstream_reused,
        &catalogue.upstream_resent,
    ] {
        family.remove(name);
    }
    for family in [
        &catalogue.upstream_ejected,
        &catalogue.upstream_ready,
        &catalogue.upstream_in_flight,
        &catalogue.upstream_waiting,
        &catalogue.upstream_limit,
    ] {
        family.remove(name);
    }
    catalogue.upstream_connections.remove(name);
}
