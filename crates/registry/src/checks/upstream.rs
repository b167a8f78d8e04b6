//! Upstreams: places that can be called, and numbers within reason.

use std::collections::BTreeSet;

use plinth_store::resources::gateway::{BalanceWord, UpstreamRecord};

use super::{Asker, at_most, between, headers, matching, millis, networks};
use crate::problems::Problems;

/// The most endpoints of one upstream.
const MAX_ENDPOINTS: usize = 64;
/// The heaviest weight, so that no sum overflows.
pub(super) const MAX_WEIGHT: u32 = 1_000_000;

/// Checks an upstream.
pub(crate) fn upstream(problems: &mut Problems, upstream: &UpstreamRecord, asker: Asker<'_>) {
    let allowed = networks::allowed(problems, &upstream.allow_networks, asker);
    problems.must(!upstream.endpoints.is_empty(), "endpoints", || "an upstream has at least one endpoint".into());
    at_most(problems, "endpoints", &upstream.endpoints, MAX_ENDPOINTS);
    let mut seen = BTreeSet::new();
    problems.each("endpoints", &upstream.endpoints, |p, endpoint| {
        if let Some(address) = networks::outside(p, "url", &endpoint.url, &allowed, asker) {
            p.must(seen.insert(address.to_string()), "url", || format!("{address} is there twice; give it a weight instead"));
        }
        between(p, "weight", Some(endpoint.weight), 0, MAX_WEIGHT);
    });
    if !upstream.endpoints.is_empty() && upstream.endpoints.iter().all(|endpoint| endpoint.weight == 0) {
        problems.add("endpoints", "the weights add up to 0; give at least one endpoint a weight");
    }
    if let BalanceWord::Sticky(key) = &upstream.balance {
        problems.within("balance.sticky", |p| headers::sticky(p, key));
    }
    millis(problems, "connect_timeout_ms", upstream.connect_timeout_ms);
    millis(problems, "response_timeout_ms", upstream.response_timeout_ms);
    millis(problems, "idle_timeout_ms", upstream.idle_timeout_ms);
    between(problems, "max_connections", upstream.max_connections, 1, 65_535);
    between(problems, "attempts", upstream.attempts, 1, 10);
    if let Some(breaker) = &upstream.breaker {
        problems.within("breaker", |p| {
            between(p, "failure_percent", breaker.failure_percent, 1, 100);
            millis(p, "slow_ms", breaker.slow_ms);
            millis(p, "open_ms", breaker.open_ms);
        });
    }
    if let Some(health) = &upstream.health {
        problems.within("health", |p| {
            matching::path(p, "path", &health.path);
            between(p, "interval_seconds", health.interval_seconds, 1, 3_600);
        });
    }
}
