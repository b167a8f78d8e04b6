//! One endpoint of an upstream: its connections, and what is known of how it does.
//!
//! Invariant: what belongs to the endpoint itself ([`Core`]) outlives snapshots as long as its URL stays, so a reload neither closes
//! connections nor forgets that an endpoint is down. Weight and place in the record belong to the snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use plinth_net::outbound::Endpoint;
use plinth_policy::balance::bounded::Node;
use plinth_policy::balance::ewma::Load;
use plinth_policy::resilience::breaker::{self, Breaker, State};
use plinth_policy::resilience::ejection::Record;
use plinth_policy::resilience::gradient::Gradient;
use plinth_policy::resilience::throttled::Throttle;
use plinth_telemetry::Gauge;

use super::settings::Tuning;

/// So many checks must fail in a row.
const FAILED_CHECKS: u32 = 2;

/// How an endpoint does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EndpointView {
    /// Its place in the record.
    pub index: usize,
    /// Its breaker.
    pub breaker: State,
    /// Whether it is left out for its failures.
    pub is_ejected: bool,
    /// Whether its checks fail.
    pub fails_checks: bool,
    /// For how long it has asked for peace.
    pub throttled: Option<Duration>,
    /// Requests until their last byte.
    pub in_flight: u32,
    /// How many there may be, when that is limited.
    pub limit: u32,
    /// What it is believed to take until its first byte.
    pub latency: Duration,
}

/// What stays while the URL stays.
pub(super) struct Core {
    pub client: Endpoint,
    pub breaker: Breaker,
    pub record: Record,
    pub load: Arc<Load>,
    pub throttle: Throttle,
    pub limit: Gradient,
    failed_checks: AtomicU32,
}

/// An endpoint as a snapshot has it.
pub(super) struct Place {
    pub core: Arc<Core>,
    /// In the record.
    pub index: usize,
    pub weight: u32,
    pub id: u64,
    pub breaker_state: Gauge,
}

impl AsRef<Record> for Place {
    fn as_ref(&self) -> &Record {
        &self.core.record
    }
}

impl Core {
    /// A new endpoint, believed to be as fast as `first`.
    pub(super) fn new(client: Endpoint, breaker: (breaker::Settings, u64), tuning: &Tuning, now: Duration, first: Duration) -> Self {
        Self {
            client,
            breaker: Breaker::new(breaker.0, breaker.1),
            record: Record::default(),
            load: Arc::new(Load::new(now, Load::TAU, first)),
            throttle: Throttle::default(),
            limit: Gradient::new(tuning.limit.clone()),
            failed_checks: AtomicU32::new(0),
        }
    }

    /// The same endpoint behind another client or another breaker: what it has in flight and asked for stays.
    pub(super) fn again(&self, client: Endpoint, breaker: (breaker::Settings, u64), tuning: &Tuning, now: Duration) -> Self {
        let new = Self { load: self.load.clone(), ..Self::new(client, breaker, tuning, now, Duration::ZERO) };
        if let Some(left) = self.throttle.remaining(now) {
            new.throttle.hold(now, left);
        }
        new.failed_checks.store(self.failed_checks.load(Relaxed), Relaxed);
        new
    }

    /// An active check has passed or failed.
    pub(super) fn checked(&self, now: Duration, passed: bool) {
        if passed {
            self.failed_checks.store(0, Relaxed);
            self.breaker.check_passed(now);
            self.record.readmit(now);
        } else {
            self.failed_checks.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn fails_checks(&self) -> bool {
        self.failed_checks.load(Relaxed) >= FAILED_CHECKS
    }
}

impl Place {
    /// Whether nothing speaks against it. Of one that is well, three loads.
    pub(super) fn is_well(&self, now: Duration) -> bool {
        !self.core.record.is_ejected(now) && self.may_be_asked(now)
    }

    /// Whether nothing but an ejection speaks against it.
    pub(super) fn may_be_asked(&self, now: Duration) -> bool {
        self.core.breaker.allows(now) && !self.core.fails_checks()
    }

    /// What it costs to ask it; lower is better.
    pub(super) fn cost(&self, now: Duration) -> Option<f64> {
        self.core.load.cost(now, f64::from(self.weight) * self.core.breaker.weight(now))
    }

    /// For the choice by key. A degraded one has a quarter of its part.
    pub(super) fn node(&self, now: Duration) -> Node {
        let quarters = if self.core.breaker.state(now) == State::Closed { 4 } else { 1 };
        Node { id: self.id, in_flight: self.core.load.in_flight(), weight: self.weight.saturating_mul(quarters) }
    }

    pub(super) fn view(&self, now: Duration) -> EndpointView {
        let core = &self.core;
        EndpointView {
            index: self.index,
            breaker: core.breaker.state(now),
            is_ejected: core.record.is_ejected(now),
            fails_checks: core.fails_checks(),
            throttled: core.throttle.remaining(now),
            in_flight: core.load.in_flight(),
            limit: core.limit.limit(),
            latency: core.load.latency(now),
        }
    }
}
