//! Handles in the bundles in which they are held: by a listener, by a route, by a loaded version.
//!
//! Invariant: everything here is fetched once and then only counted into.

use std::time::Duration;

use plinth_types::{Class, Reason};

use crate::Catalogue;
use crate::metric::{Counter, Gauge, UpDownCounter};
use crate::{Histogram, ResidentMemory};

/// What this binary is.
#[derive(Debug, Clone, Copy)]
pub struct BuildInfo {
    /// The release.
    pub version: &'static str,
    /// The commit, or `unknown`.
    pub commit: &'static str,
}

/// What a listener counts.
#[derive(Clone, Default)]
pub struct ConnectionMetrics {
    /// Connections that are open.
    pub open: UpDownCounter,
    /// Connections that were taken.
    pub accepted: Counter,
    /// Connections that were refused because there were too many.
    pub refused: Counter,
    /// Connections that were refused because their client had too many.
    pub over_client_cap: Counter,
    /// Connections without a whole request that made room for newer ones.
    pub given_up: Counter,
    /// TLS handshakes that came to nothing.
    pub handshake_failures: Counter,
    /// Requests whose head was malformed or could be read in more than one way.
    pub malformed_heads: Counter,
    /// Failures of accept.
    pub accept_errors: Counter,
    /// Connections that were closed because the peer was too slow or silent.
    pub timeouts: Counter,
    /// Handlers that panicked.
    pub panics: Counter,
}

/// What a route counts.
#[derive(Clone, Default)]
pub struct RouteMetrics {
    by_class: [Counter; 5],
    duration: Histogram,
}

impl RouteMetrics {
    /// Whether requests are counted at all.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.duration.is_on()
    }

    /// Notes an answered request.
    pub fn record(&self, status: u16, duration: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.by_class[class].inc();
        self.duration.observe(duration);
    }
}

/// How an inference ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// With an answer.
    Ok,
    /// The request was wrong.
    Invalid,
    /// There was no room, or the model was not ready.
    Refused,
    /// The model failed on this input.
    Failed,
    /// The runner died or broke its protocol.
    Crashed,
    /// The deadline passed.
    Deadline,
    /// The client went away first.
    Cancelled,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 7] = [Self::Ok, Self::Invalid, Self::Refused, Self::Failed, Self::Crashed, Self::Deadline, Self::Cancelled];

    /// The word in the label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::Deadline => "deadline",
            Self::Cancelled => "cancelled",
        }
    }

    /// The outcome that an error's class stands for.
    #[must_use]
    pub const fn of(class: Class) -> Self {
        match class {
            Class::OverQuota | Class::Unavailable => Self::Refused,
            Class::Internal => Self::Failed,
            Class::RunnerFailed => Self::Crashed,
            Class::DeadlineExceeded => Self::Deadline,
            _ => Self::Invalid,
        }
    }
}

/// Which version of which model of which tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelLabels<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The model.
    pub model: &'a str,
    /// The version's number.
    pub version: &'a str,
}

impl<'a> ModelLabels<'a> {
    const fn values(self) -> [&'a str; 3] {
        [self.tenant, self.model, self.version]
    }
}

/// What a loaded version counts.
#[derive(Clone, Default)]
pub struct ModelMetrics {
    outcomes: [Counter; 7],
    /// How long requests took, from the whole request read to the answer ready.
    pub duration: Histogram,
    /// Requests refused because the queue was full.
    pub queue_full: Counter,
    /// Requests that wait or are executed.
    pub pending: UpDownCounter,
    /// Runners started again after one died.
    pub restarts: Counter,
    /// The runner's memory; name the process when it starts.
    pub memory: ResidentMemory,
    /// Requests answered from the response cache.
    pub cache_hits: Counter,
    /// Requests that were looked for in the response cache in vain.
    pub cache_misses: Counter,
}

/// What the response cache counts.
#[derive(Clone, Default)]
pub struct CacheMetrics {
    /// Answers found in memory.
    pub memory_hits: Counter,
    /// Answers found in Redis.
    pub redis_hits: Counter,
    /// Look-ups in vain.
    pub misses: Counter,
    /// Requests that took the answer of the same request in flight.
    pub followers: Counter,
    /// Answers in memory.
    pub entries: Gauge,
    /// What they take, in bytes.
    pub memory: Gauge,
    /// Answers that left for want of room.
    pub evictions: Counter,
    /// 1 while Redis is reached.
    pub redis_up: Gauge,
    redis_failures: [Counter; 6],
}

/// What did not work with Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RedisFailure {
    /// It did not answer in time.
    Timeout,
    /// It could not be reached, or the connection broke.
    Connection,
    /// It answered with an error.
    Refused,
    /// It gave something that is no answer of ours.
    Damaged,
    /// Too many requests were on their way to it already.
    Busy,
    /// A write was given up because too much waited to be written.
    Dropped,
}

impl RedisFailure {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Timeout, Self::Connection, Self::Refused, Self::Damaged, Self::Busy, Self::Dropped];

    /// The word in the label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Refused => "refused",
            Self::Damaged => "damaged",
            Self::Busy => "busy",
            Self::Dropped => "dropped",
        }
    }
}

impl CacheMetrics {
    /// Notes a failure.
    pub fn redis_failed(&self, failure: RedisFailure) {
        self.redis_failures[failure as usize].inc();
    }

    /// How often this failed.
    #[must_use]
    pub fn redis_failures(&self, failure: RedisFailure) -> u64 {
        self.redis_failures[failure as usize].value()
    }
}

/// What limits and the door count.
#[derive(Clone, Default)]
pub struct LimitMetrics {
    refused: [Counter; 6],
    /// Bans that began.
    pub bans: Counter,
    /// Users and addresses that share a counter because the table is full.
    pub shared_cells: Counter,
    /// Questions to the shared store that were granted whole.
    pub leases_granted: Counter,
    /// Questions of which less, or nothing, was granted.
    pub leases_short: Counter,
    /// Questions without an answer.
    pub leases_failed: Counter,
    /// 1 while the shared store is reached.
    pub store_up: Gauge,
}

impl LimitMetrics {
    /// The reasons that are counted.
    const REASONS: [Reason; 6] = [
        Reason::RateLimited,
        Reason::ConcurrencyLimited,
        Reason::DailyCap,
        Reason::CostAboveLimit,
        Reason::AddressNotAllowed,
        Reason::AddressBanned,
    ];

    /// Notes a refusal. Other reasons than those of limits are not counted.
    pub fn refused(&self, reason: Reason) {
        if let Some(place) = Self::REASONS.iter().position(|known| *known == reason) {
            self.refused[place].inc();
        }
    }

    /// How many were refused for this reason.
    #[must_use]
    pub fn refusals(&self, reason: Reason) -> u64 {
        Self::REASONS.iter().position(|known| *known == reason).map_or(0, |place| self.refused[place].value())
    }
}

/// How a call of a filter ended: the words of the label.
const FILTER_OUTCOMES: [&str; 9] = ["unchanged", "changed", "time", "memory", "trap", "answer", "body", "busy", "held"];

/// What a filter counts.
#[derive(Clone)]
pub struct FilterMetrics {
    outcomes: [Counter; FILTER_OUTCOMES.len()],
    /// How long calls took.
    pub duration: Histogram,
}

impl FilterMetrics {
    /// Notes how a call ended, in the word of the label; others are not counted.
    pub fn ended(&self, word: &str) {
        if let Some(place) = FILTER_OUTCOMES.iter().position(|known| *known == word) {
            self.outcomes[place].inc();
        }
    }
}

impl ModelMetrics {
    /// Notes an ended request.
    pub fn record(&self, outcome: Outcome, duration: Duration) {
        self.outcomes[outcome as usize].inc();
        self.duration.observe(duration);
    }

    /// How many requests ended so.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].value()
    }
}

impl Catalogue {
    /// The handles of a listener.
    #[must_use]
    pub fn listener(&self, name: &str) -> ConnectionMetrics {
        ConnectionMetrics {
            open: self.http_connections_open.get([name]),
            accepted: self.http_connections.get([name]),
            refused: self.http_connections_refused.get([name]),
            over_client_cap: self.http_connections_over_client_cap.get([name]),
            given_up: self.http_connections_given_up.get([name]),
            handshake_failures: self.tls_handshake_failures.get([name]),
            malformed_heads: self.http_malformed_heads.get([name]),
            accept_errors: self.http_accept_errors.get([name]),
            timeouts: self.http_connection_timeouts.get([name]),
            panics: self.http_panics.clone(),
        }
    }

    /// The handles of a route.
    #[must_use]
    pub fn route(&self, name: &str) -> RouteMetrics {
        const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        RouteMetrics {
            by_class: CLASSES.map(|class| self.http_requests.get([name, class])),
            duration: self.http_request_duration.get([name]),
        }
    }

    /// The handles of a version; hold them as long as it is loaded.
    #[must_use]
    pub fn model(&self, labels: ModelLabels<'_>) -> ModelMetrics {
        let values = labels.values();
        let [tenant, model, version] = values;
        ModelMetrics {
            outcomes: Outcome::ALL.map(|outcome| self.inference_requests.get([tenant, model, version, outcome.as_str()])),
            duration: self.inference_duration.get(values),
            queue_full: self.inference_queue_full.get(values),
            pending: self.inference_pending.get(values),
            restarts: self.runner_restarts.get(values),
            memory: self.runner_resident_memory.get(values),
            cache_hits: self.inference_cache_hits.get(values),
            cache_misses: self.inference_cache_misses.get(values),
        }
    }

    /// The handles of a filter of a tenant.
    #[must_use]
    pub fn filter(&self, tenant: &str, filter: &str) -> FilterMetrics {
        FilterMetrics {
            outcomes: FILTER_OUTCOMES.map(|outcome| self.filter_calls.get([tenant, filter, outcome])),
            duration: self.filter_duration.get([tenant, filter]),
        }
    }

    /// The handles of the response cache.
    #[must_use]
    pub fn cache(&self) -> CacheMetrics {
        CacheMetrics {
            memory_hits: self.cache_hits.get(["memory"]),
            redis_hits: self.cache_hits.get(["redis"]),
            misses: self.cache_misses.clone(),
            followers: self.cache_followers.clone(),
            entries: self.cache_entries.clone(),
            memory: self.cache_memory.clone(),
            evictions: self.cache_evictions.clone(),
            redis_up: self.cache_redis_up.clone(),
            redis_failures: RedisFailure::ALL.map(|failure| self.cache_redis_failures.get([failure.as_str()])),
        }
    }

    /// The handles of limits and of the door.
    #[must_use]
    pub fn limits(&self) -> LimitMetrics {
        LimitMetrics {
            refused: LimitMetrics::REASONS.map(|reason| self.limits_refused.get([reason.slug()])),
            bans: self.limits_bans.clone(),
            shared_cells: self.limits_shared_cells.clone(),
            leases_granted: self.limits_leases.get(["granted"]),
            leases_short: self.limits_leases.get(["short"]),
            leases_failed: self.limits_leases.get(["failed"]),
            store_up: self.limits_store_up.clone(),
        }
    }

    /// Takes a version that is no longer loaded out of the exposition.
    pub fn forget_model(&self, labels: ModelLabels<'_>) {
        let values = labels.values();
        let [tenant, model, version] = values;
        for outcome in Outcome::ALL {
            self.inference_requests.remove([tenant, model, version, outcome.as_str()]);
        }
        self.inference_duration.remove(values);
        self.inference_queue_full.remove(values);
        self.inference_pending.remove(values);
        self.runner_restarts.remove(values);
        self.runner_resident_memory.remove(values);
        self.inference_cache_hits.remove(values);
        self.inference_cache_misses.remove(values);
    }
}
