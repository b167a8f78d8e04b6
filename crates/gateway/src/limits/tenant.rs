//! The counters of each tenant, in a table by its index.
//!
//! Invariants: the table is swapped whole; a counter of the same tenant, limit and rate is the same one before and after a swap, so what
//! is under way settles where it was counted. A rate that changes begins with the share of its burst that the old one had used; a cap
//! keeps what was used of the day. Indexes are the key ring's; since the two tables are not swapped in the same moment, a slot also
//! knows its tenant's name.
//!
//! Cost: with many tenants a request's time is that of the memory which no cache holds, so all that it touches of a tenant lies in one
//! block of two cache lines, with the reference count: the places, two counters, and the name beside which the tenant is checked. That
//! is 128 bytes and 8 in the table, made when the tenant is first seen in a snapshot; a limit that nodes share takes 350 more from its
//! first request on. A tenant whose plan was changed keeps its former block for the counters that go on.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use plinth_policy::limits::{Cell, DailyCap, Permits, Rate};
use plinth_types::TenantName;

use super::keyed::number_of;
use super::plan::{Plan, Rule};
use super::shared::Shared;

/// One limit of one tenant.
pub(super) enum Counter {
    Rate(Cell),
    Daily(DailyCap),
    /// Made at its first request.
    Shared(OnceLock<Arc<Shared>>),
}

/// A tenant. The order of the fields is that of their use: the first line has what every request needs.
#[repr(C)]
pub(super) struct Tenant {
    pub plan: Arc<Plan>,
    /// Its requests at a time, where the plan has a concurrency.
    permits: Permits,
    /// What goes on from a former plan; `None` where all is in this block.
    kept: Option<Box<Kept>>,
    first: Counter,
    second: Counter,
    more: Box<[Counter]>,
    pub name: TenantName,
    /// Keeps its users apart from others'.
    pub salt: u64,
}

/// With its two reference counts a tenant is two cache lines, and one of the allocator's sizes.
const _: () = assert!(size_of::<Tenant>() + 2 * size_of::<usize>() == 128);

/// What stands in other blocks of the same tenant. Those never stand for others themselves.
struct Kept {
    permits: Option<Arc<Tenant>>,
    /// Beside the limits of the plan: whose counter it is, and which of them.
    counters: Box<[Option<Elsewhere>]>,
}

/// The block that has a counter, and which of its counters it is.
type Elsewhere = (Arc<Tenant>, usize);

/// Where a limit of a new plan counts.
enum Place {
    Kept(Arc<Tenant>, usize),
    New(Counter),
}

impl Tenant {
    /// A tenant with a plan. `before` is the same one until now.
    pub fn new(name: TenantName, plan: Arc<Plan>, before: Option<&Arc<Self>>, now: Duration) -> Self {
        let mut counters = Vec::with_capacity(plan.own().len());
        let mut kept = Kept { permits: None, counters: Box::default() };
        let mut elsewhere = Vec::with_capacity(plan.own().len());
        for rule in plan.own() {
            let (counter, other) = match place(rule, &plan, before, now) {
                Place::Kept(tenant, at) => (Counter::Rate(Cell::new()), Some((tenant, at))),
                Place::New(counter) => (counter, None),
            };
            counters.push(counter);
            elsewhere.push(other);
        }
        if let (Some(most), Some(old)) = (plan.record.concurrency, before)
            && let Some(permits) = old.permits()
        {
            permits.set_max(most);
            kept.permits = Some(old.with_permits());
        }
        let permits = Permits::new(plan.record.concurrency.unwrap_or(u32::MAX));
        if elsewhere.iter().any(Option::is_some) {
            kept.counters = elsewhere.into();
        }
        let kept = (kept.permits.is_some() || !kept.counters.is_empty()).then(|| Box::new(kept));
        let mut counters = counters.into_iter();
        let mut next = || counters.next().unwrap_or_else(|| Counter::Rate(Cell::new()));
        let (first, second) = (next(), next());
        let salt = number_of(name.as_str());
        Self { plan, permits, kept, first, second, more: counters.collect(), name, salt }
    }

    /// Its requests at a time; `None` without a bound.
    pub fn permits(&self) -> Option<&Permits> {
        self.plan.record.concurrency?;
        let kept = self.kept.as_ref().and_then(|kept| kept.permits.as_ref());
        Some(kept.map_or(&self.permits, |tenant| &tenant.permits))
    }

    /// The counter of a rule whose scope is the tenant; `None` for the others, which come after them.
    pub fn counter(&self, at: usize) -> Option<&Counter> {
        if at >= self.plan.own().len() {
            return None;
        }
        match self.kept.as_ref().and_then(|kept| kept.counters.get(at)) {
            Some(Some((tenant, at))) => tenant.here(*at),
            _ => self.here(at),
        }
    }

    fn here(&self, at: usize) -> Option<&Counter> {
        match at {
            0 => Some(&self.first),
            1 => Some(&self.second),
            _ => self.more.get(at - 2),
        }
    }

    /// The block that has the places.
    fn with_permits(self: &Arc<Self>) -> Arc<Self> {
        self.kept.as_ref().and_then(|kept| kept.permits.as_ref()).unwrap_or(self).clone()
    }

    /// The block that has a counter, and its place there.
    fn with_counter(self: &Arc<Self>, at: usize) -> Elsewhere {
        match self.kept.as_ref().and_then(|kept| kept.counters.get(at)) {
            Some(Some((tenant, at))) => (tenant.clone(), *at),
            _ => (self.clone(), at),
        }
    }
}

fn place(rule: &Rule, plan: &Plan, before: Option<&Arc<Tenant>>, now: Duration) -> Place {
    let known = before.and_then(|tenant| {
        let at = tenant.plan.own().iter().position(|old| old.name == rule.name)?;
        Some((tenant, at, tenant.plan.own().get(at)?, tenant.counter(at)?))
    });
    let keep = |tenant: &Arc<Tenant>, at| {
        let (tenant, at) = tenant.with_counter(at);
        Place::Kept(tenant, at)
    };
    match known {
        Some((tenant, at, old, _)) if old.rate == rule.rate && old.daily == rule.daily && old.counts == rule.counts => {
            return keep(tenant, at);
        }
        Some((tenant, at, _, Counter::Daily(cap))) if rule.daily => {
            cap.set_cap(rule.rate.units());
            return keep(tenant, at);
        }
        _ => {}
    }
    Place::New(if plan.node.share.is_some() {
        Counter::Shared(OnceLock::new())
    } else if rule.daily {
        Counter::Daily(DailyCap::new(rule.rate.units()))
    } else {
        let cell = Cell::new();
        if let Some((_, _, old, Counter::Rate(from))) = known {
            carry(from, &old.rate, &cell, &rule.rate, now);
        }
        Counter::Rate(cell)
    })
}

/// Begins a cell with the share of its burst that another has used.
pub(super) fn carry(from: &Cell, old: &Rate, to: &Cell, new: &Rate, now: Duration) {
    let used = from.look(old, now).reset.as_nanos() as f64 / old.tolerance() as f64;
    // What arithmetic adds to a whole number is no unit.
    to.settle(new, 0, (used * new.burst() as f64 - 1e-6).ceil() as u64, now);
}

/// All tenants.
pub(super) struct Table {
    tenants: Vec<Option<Arc<Tenant>>>,
    /// Who is in no record yet.
    unknown: Arc<Tenant>,
    /// Made when an index is another tenant's for the first time.
    by_name: OnceLock<HashMap<TenantName, u32>>,
}

impl Table {
    pub const fn new(tenants: Vec<Option<Arc<Tenant>>>, unknown: Arc<Tenant>) -> Self {
        Self { tenants, unknown, by_name: OnceLock::new() }
    }

    /// The tenant of an index and a name. Who is not there shares the limits of the default plan with all others who are not.
    pub fn tenant(&self, index: u32, name: &TenantName) -> &Arc<Tenant> {
        match self.at(index) {
            Some(tenant) if tenant.name == *name => tenant,
            _ => self.named(name).unwrap_or(&self.unknown),
        }
    }

    pub fn at(&self, index: u32) -> Option<&Arc<Tenant>> {
        self.tenants.get(index as usize)?.as_ref()
    }

    pub fn named(&self, name: &TenantName) -> Option<&Arc<Tenant>> {
        let number = |(index, tenant): (usize, &Option<Arc<Tenant>>)| Some((tenant.as_ref()?.name.clone(), u32::try_from(index).ok()?));
        let names = self.by_name.get_or_init(|| self.tenants.iter().enumerate().filter_map(number).collect());
        self.at(*names.get(name)?)
    }

    pub const fn unknown(&self) -> &Arc<Tenant> {
        &self.unknown
    }
}
