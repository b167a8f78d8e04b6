//! What a request holds until its last byte, and what one is told that was not let in.
//!
//! Invariant: every entry settles once: with what the request is said to have cost, or, dropped without that, with what is known
//! (its fixed cost and the time it took). A request that was given back has cost nothing.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use plinth_policy::limits::headers::{Remaining, retry_after};
use plinth_policy::limits::{Claim, Limit, Moment, Taken, Verdict};
use plinth_policy::overload::Criticality;
use plinth_store::resources::gateway::{CostSpec, Counted, LimitScope};
use plinth_types::{Error, Reason};

use super::keyed::mix;
use super::plan::Rule;
use super::tenant::{Counter, Tenant};

/// What is known of a request's cost when it comes.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// As its route says.
    pub spec: CostSpec,
    /// The length of its body in bytes, as far as it is known.
    pub body: u64,
}

impl Cost {
    /// Units that are certain.
    fn known(&self) -> u64 {
        u64::from(self.spec.fixed).saturating_add(u64::from(self.spec.per_kib).saturating_mul(self.body.div_ceil(1024)))
    }

    /// Units that are reserved.
    pub(super) fn reserved(&self) -> u64 {
        self.known().saturating_add(u64::from(self.spec.reserve))
    }

    /// Units after this time.
    fn after(&self, time: Duration) -> u64 {
        let millis = u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
        self.known().saturating_add(u64::from(self.spec.per_millisecond).saturating_mul(millis))
    }
}

/// A request that was let in.
pub struct Entry {
    pub(super) tenant: Arc<Tenant>,
    pub(super) user: u64,
    pub(super) address: IpAddr,
    pub(super) cost: Cost,
    pub(super) granted: Moment,
    /// The rules from which something was taken, as bits.
    pub(super) claimed: u32,
    /// Those of them that the shared store has counted for a user or an address.
    pub(super) central: u32,
    pub(super) tightest: Option<(usize, Taken)>,
    pub(super) permit: bool,
    /// `None`: nobody has said.
    pub(super) actual: Option<u64>,
}

impl Entry {
    /// Ends the request with what it has cost, in cost units, whatever was reserved.
    pub fn settle(mut self, actual: u64) {
        self.actual = Some(actual);
    }

    /// Says what the request will have cost; it still holds its place until it is dropped.
    pub const fn has_cost(&mut self, actual: u64) {
        self.actual = Some(actual);
    }

    /// Ends the request as if it had never come, such as one that had to be refused after all.
    pub fn give_back(mut self) {
        let now = self.tenant.plan.now();
        self.each_claim(|entry, at, rule| entry.correct(at, rule, 0, now));
        self.claimed = 0;
    }

    /// The urgency of a request that does not say its own, and the most that it may say.
    #[must_use]
    pub fn criticality_bounds(&self) -> (Criticality, Criticality) {
        self.tenant.plan.criticality()
    }

    /// The tenant's share against others under overload.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.tenant.plan.record.weight
    }

    /// Writes `RateLimit` and `RateLimit-Policy` of the tightest limit, as it stood when the request was let in.
    pub fn headers(&self, headers: &mut HeaderMap) {
        if let Some((rule, taken)) = self.tightest.as_ref().and_then(|(at, taken)| Some((self.tenant.plan.rules.get(*at)?, taken))) {
            write(headers, rule, taken);
        }
    }

    /// Whether something was taken of a user's or an address's limit.
    pub(super) fn is_keyed(&self) -> bool {
        // With all 32 rules the tenant's there is nothing beyond them.
        let own = u32::try_from(self.tenant.plan.own().len()).unwrap_or(u32::BITS);
        self.claimed.checked_shr(own).is_some_and(|keyed| keyed != 0)
    }

    /// What was taken by a rule.
    pub(super) fn claims(&self, at: usize, rule: &Rule) -> Option<u64> {
        (self.claimed & (1 << at) != 0).then(|| self.asked(rule))
    }

    /// What is asked of a rule.
    pub(super) fn asked(&self, rule: &Rule) -> u64 {
        match rule.counts {
            Counted::Requests => 1,
            Counted::Cost => self.cost.reserved(),
        }
    }

    fn each_claim(&self, mut then: impl FnMut(&Self, usize, &Rule)) {
        for (at, rule) in self.tenant.plan.rules.iter().enumerate() {
            if self.claimed & (1 << at) != 0 {
                then(self, at, rule);
            }
        }
    }

    fn correct(&self, at: usize, rule: &Rule, actual: u64, now: Moment) {
        let cost = self.asked(rule);
        if actual == cost {
            return;
        }
        let settle = |limit: Limit<'_>| Claim { limit, cost }.settle(actual, self.granted, now);
        match self.tenant.counter(at) {
            Some(Counter::Rate(cell)) => settle(Limit::Rate(cell, &rule.rate)),
            Some(Counter::Daily(cap)) => settle(Limit::Daily(cap)),
            Some(Counter::Shared(shared)) => {
                if let Some(shared) = shared.get() {
                    settle(Limit::Leased(&shared.leased));
                }
            }
            None => self.correct_keyed(at, rule, cost, actual, now),
        }
    }

    fn correct_keyed(&self, at: usize, rule: &Rule, cost: u64, actual: u64, now: Moment) {
        let node = &self.tenant.plan.node;
        let key = key(&self.tenant, rule.tag, rule.scope, self.user, self.address, node.seed);
        if actual > cost {
            node.keyed.place(key, now.monotonic).cell.settle(&rule.rate, cost, actual, now.monotonic);
        } else if let Some(place) = node.keyed.known(key) {
            // A cell that was given away meanwhile was full again: there is nothing to give back.
            place.cell.settle(&rule.rate, cost, actual, now.monotonic);
        }
        if let Some(share) = node.share.as_ref().filter(|_| self.central & (1 << at) != 0) {
            let name = store_key(&self.tenant, rule, self.user, self.address);
            if actual > cost {
                share.owe(name, &rule.central, actual - cost);
            } else {
                share.give_back(name, &rule.central, cost - actual);
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let plan = &self.tenant.plan;
        if plan.settles && self.claimed != 0 {
            let now = plan.now();
            let actual = self.actual.unwrap_or_else(|| self.cost.after(now.monotonic.saturating_sub(self.granted.monotonic)));
            self.each_claim(|entry, at, rule| {
                if rule.counts == Counted::Cost {
                    entry.correct(at, rule, actual, now);
                }
            });
        }
        if self.permit
            && let Some(permits) = self.tenant.permits()
        {
            permits.give_back();
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("tenant", &self.tenant.name).field("claimed", &self.claimed).finish_non_exhaustive()
    }
}

/// Which cell a user or an address has for a limit. Who has not identified is known by the address alone.
pub(super) fn key(tenant: &Tenant, tag: u64, scope: LimitScope, user: u64, address: IpAddr, seed: u64) -> u64 {
    let who = if scope == LimitScope::User && user != 0 { user } else { place(address) };
    mix(mix(who ^ seed) ^ tag ^ tenant.salt)
}

/// The same for the store that nodes share.
pub(super) fn store_key(tenant: &Tenant, rule: &Rule, user: u64, address: IpAddr) -> String {
    if rule.scope == LimitScope::User && user != 0 {
        format!("{}:{}:u{user:016x}", tenant.name, rule.name)
    } else {
        format!("{}:{}:a{:016x}", tenant.name, rule.name, place(address))
    }
}

/// A number for an IPv4 address, or for a /64 of IPv6: what one subscriber gets.
fn place(address: IpAddr) -> u64 {
    match address.to_canonical() {
        // A part of the /64s that no client can have (multicast).
        IpAddr::V4(address) => 0xff00_0000_0000_0000 | u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

fn write(headers: &mut HeaderMap, rule: &Rule, taken: &Taken) {
    let standing = Remaining { name: rule.name.as_str(), remaining: taken.remaining, reset: Some(taken.reset) };
    headers.insert(HeaderName::from_static("ratelimit-policy"), rule.policy.clone());
    if let Ok(value) = HeaderValue::try_from(standing.to_string()) {
        headers.insert(HeaderName::from_static("ratelimit"), value);
    }
}

/// A request that was not let in.
pub struct Refused {
    /// For the caller. Its retry delay is [`Refused::retry_after`], not yet rounded.
    pub error: Error,
    tenant: Arc<Tenant>,
    at: Option<(usize, Taken)>,
    retry_after: u64,
}

impl Refused {
    /// By a rule of the tenant's plan.
    pub(super) fn by_rule(tenant: Arc<Tenant>, at: usize, taken: Taken) -> Self {
        let rule = tenant.plan.rules.get(at);
        let (name, daily) = rule.map_or(("", false), |rule| (rule.name.as_str(), rule.daily));
        let error = match taken.verdict {
            Verdict::Never => {
                let text = format!("the request costs more than the limit '{name}' ever allows at once: send a smaller one, or several");
                Error::new(Reason::CostAboveLimit, text)
            }
            _ if daily => {
                let text = format!("the limit '{name}' is used up for today: it begins anew at midnight UTC");
                Error::new(Reason::DailyCap, text).retry_after(taken.retry_after)
            }
            _ => {
                let text = format!("the limit '{name}' is used up: wait as long as Retry-After says, then go on more slowly");
                Error::new(Reason::RateLimited, text).retry_after(taken.retry_after)
            }
        };
        Self::new(tenant, error, Some((at, taken)))
    }

    /// By the tenant's concurrency.
    pub(super) fn by_concurrency(tenant: Arc<Tenant>, most: u32) -> Self {
        let text = format!("{most} requests at a time are allowed, and as many are being answered: wait for one of them");
        let error = Error::new(Reason::ConcurrencyLimited, text).retry_after(Duration::from_secs(1));
        Self::new(tenant, error, None)
    }

    fn new(tenant: Arc<Tenant>, error: Error, at: Option<(usize, Taken)>) -> Self {
        let node = &tenant.plan.node;
        node.metrics.refused(error.reason());
        let share = (node.world.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let retry_after = error.retry_delay().map_or(0, |wait| retry_after(wait, share));
        Self { error, tenant, at, retry_after }
    }

    /// Seconds to say in `Retry-After`: up to a quarter longer than it takes, by chance. `None` when waiting does not help.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        (self.retry_after > 0).then_some(self.retry_after)
    }

    /// Writes `RateLimit`, `RateLimit-Policy` and `Retry-After`.
    pub fn headers(&self, headers: &mut HeaderMap) {
        if let Some((rule, taken)) = self.at.as_ref().and_then(|(at, taken)| Some((self.tenant.plan.rules.get(*at)?, taken))) {
            write(headers, rule, taken);
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(http::header::RETRY_AFTER, seconds.into());
        }
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).field("retry_after", &self.retry_after).finish_non_exhaustive()
    }
}
