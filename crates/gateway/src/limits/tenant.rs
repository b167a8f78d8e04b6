//! The counters of each tenant, in a table by its index.
//!
//! Invariants: the table is swapped whole; a counter of the same tenant, limit and rate is the same one before and after a swap, so what
//! is under way settles where it was counted. A rate that changes begins with the share of its burst that the old one had used; a cap
//! keeps what was used of the day. Indexes are the key ring's; since the two tables are not swapped in the same moment, a slot also
//! knows its tenant's name.
//!
//! Cost: a tenant with one limit takes about 150 bytes, made when it is first seen in a snapshot; a limit that nodes share 350 more
//! from its first request on.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use plinth_policy::limits::{Cell, DailyCap, Permits, Rate};
use plinth_store::resources::gateway::LimitScope;
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

/// A tenant.
pub(super) struct Tenant {
    pub name: TenantName,
    pub plan: Arc<Plan>,
    /// Its requests at a time.
    pub permits: Option<Arc<Permits>>,
    /// Beside the rules of the plan whose scope is the tenant, which come first.
    pub counters: Box<[Arc<Counter>]>,
    /// Keeps its users apart from others'.
    pub salt: u64,
}

impl Tenant {
    /// A tenant with a plan. `before` is the same one until now.
    pub fn new(name: TenantName, plan: Arc<Plan>, before: Option<&Self>, now: Duration) -> Self {
        let counters = plan.rules.iter().take_while(|rule| rule.scope == LimitScope::Tenant);
        let counters = counters.map(|rule| counter(rule, &plan, before, now)).collect();
        let permits = plan.record.concurrency.map(|most| match before.and_then(|tenant| tenant.permits.as_ref()) {
            Some(permits) => {
                permits.set_max(most);
                permits.clone()
            }
            None => Arc::new(Permits::new(most)),
        });
        let salt = number_of(name.as_str());
        Self { name, plan, permits, counters, salt }
    }
}

fn counter(rule: &Rule, plan: &Plan, before: Option<&Tenant>, now: Duration) -> Arc<Counter> {
    let known = before.and_then(|tenant| {
        let rules = tenant.plan.rules.iter().zip(&tenant.counters);
        rules.into_iter().find(|(old, _)| old.name == rule.name)
    });
    match known {
        Some((old, counter)) if old.rate == rule.rate && old.daily == rule.daily && old.counts == rule.counts => return counter.clone(),
        Some((_, counter)) if rule.daily && matches!(**counter, Counter::Daily(_)) => {
            if let Counter::Daily(cap) = &**counter {
                cap.set_cap(rule.rate.units());
            }
            return counter.clone();
        }
        _ => {}
    }
    Arc::new(if plan.node.share.is_some() {
        Counter::Shared(OnceLock::new())
    } else if rule.daily {
        Counter::Daily(DailyCap::new(rule.rate.units()))
    } else {
        let cell = Cell::new();
        if let Some((old, Counter::Rate(from))) = known.map(|(old, counter)| (old, &**counter)) {
            carry(from, &old.rate, &cell, &rule.rate, now);
        }
        Counter::Rate(cell)
    })
}

/// Begins a cell with the share of its burst that another has used.
pub(super) fn carry(from: &Cell, old: &Rate, to: &Cell, new: &Rate, now: Duration) {
    let used = from.look(old, now).reset.as_nanos() as f64 / old.tolerance() as f64;
    to.settle(new, 0, (used * new.burst() as f64).ceil() as u64, now);
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
