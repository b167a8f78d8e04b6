//! All limits of a request at once: found, taken together, and checked.
//!
//! Invariant: a request takes from all limits that concern it or from none. Nothing is allocated, and nothing is locked but for a user
//! or an address that was not there before, and for a question to the store, which one request in a lease leaves.

use std::sync::{Arc, OnceLock};

use plinth_policy::limits::{Claim, Limit, Moment, Rate, Standing, Taken, Verdict, reserve};

use super::entry::{Entry, key};
use super::keyed::Place;
use super::plan::{MOST, Rule};
use super::shared::{Share, Shared};
use super::tenant::{Counter, Tenant, carry};

/// After so many times that a place was given away in between, the last answer counts.
const TRIES: usize = 4;

/// What became of the claims.
pub(super) enum Outcome {
    /// All were granted: the rules, as bits, and the tightest.
    Granted(u32, Option<(usize, Taken)>),
    /// One was not.
    Refused(usize, Taken),
    /// One needs a lease.
    Ask(Arc<Shared>, usize),
}

/// Takes what a request needs of all rules of its tenant's plan.
pub(super) fn claim(entry: &Entry, operation: &str, now: Moment) -> Outcome {
    // A plan with few limits is common, and 32 claims are a kilobyte to write.
    if entry.tenant.plan.rules.len() <= 4 { claim_up_to::<4>(entry, operation, now) } else { claim_up_to::<MOST>(entry, operation, now) }
}

fn claim_up_to<const N: usize>(entry: &Entry, operation: &str, now: Moment) -> Outcome {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        if let Some(outcome) = claim_once::<N>(entry, operation, now, tries == 0) {
            return outcome;
        }
    }
}

fn claim_once<const N: usize>(entry: &Entry, operation: &str, now: Moment, last: bool) -> Option<Outcome> {
    let tenant = &*entry.tenant;
    let concerns = |rule: &Rule| rule.operation.as_ref().is_none_or(|only| only.as_str() == operation);
    let mut claims: [Option<Claim<'_>>; N] = [None; N];
    let mut rules = [0usize; N];
    let mut places: [Option<Place<'_>>; N] = [None; N];
    let mut count = 0;
    for (at, rule) in tenant.plan.rules.iter().enumerate().filter(|(_, rule)| concerns(rule)).take(N) {
        let cost = entry.asked(rule);
        let limit = match tenant.counter(at) {
            Some(Counter::Rate(cell)) => Limit::Rate(cell, &rule.rate),
            Some(Counter::Daily(cap)) => Limit::Daily(cap),
            Some(Counter::Shared(cell)) => leased(tenant, rule, cell, now),
            None => {
                let place = keyed(entry, rule, now);
                places[count] = Some(place);
                Limit::Rate(place.cell, rate(tenant, rule))
            }
        };
        claims[count] = Some(Claim { limit, cost });
        rules[count] = at;
        count += 1;
    }
    let Some(first) = claims[0] else { return Some(Outcome::Granted(0, None)) };
    let all = claims.map(|claim| claim.unwrap_or(first));
    let all = &all[..count];
    let reserved = reserve(all, now);
    poke(tenant, all, &rules, now);
    let place = |standing: &Standing| rules[standing.index];
    match reserved {
        Ok(_) if !last && places.iter().flatten().any(|place| !place.holds()) => {
            all.iter().for_each(|claim| claim.settle(0, now, now));
            None
        }
        Ok(tightest) => {
            let bits = rules[..count].iter().fold(0, |bits, at| bits | 1 << at);
            Some(Outcome::Granted(bits, tightest.map(|standing| (place(&standing), standing.taken))))
        }
        Err(standing) => Some(match shared(tenant, place(&standing)) {
            Some(shared) if standing.taken.verdict == Verdict::Ask => Outcome::Ask(shared.clone(), place(&standing)),
            _ => Outcome::Refused(place(&standing), standing.taken),
        }),
    }
}

fn leased<'a>(tenant: &Tenant, rule: &Rule, cell: &'a OnceLock<Arc<Shared>>, now: Moment) -> Limit<'a> {
    let shared = cell.get_or_init(|| Share::limit(&tenant.name, rule));
    if let Some(share) = &tenant.plan.node.share {
        share.follow(shared, now.monotonic);
    }
    Limit::Leased(&shared.leased)
}

fn shared(tenant: &Tenant, at: usize) -> Option<&Arc<Shared>> {
    match tenant.counter(at)? {
        Counter::Shared(cell) => cell.get(),
        _ => None,
    }
}

/// Leaves questions for leases that run low.
fn poke(tenant: &Tenant, claims: &[Claim<'_>], rules: &[usize], now: Moment) {
    let Some(share) = &tenant.plan.node.share else { return };
    for (_, at) in claims.iter().zip(rules) {
        if let Some(shared) = shared(tenant, *at) {
            share.poke(shared, now.monotonic);
        }
    }
}

/// A user's rate on this node: its share of it where the nodes cannot ask.
fn rate<'a>(tenant: &Tenant, rule: &'a Rule) -> &'a Rate {
    match &tenant.plan.node.share {
        Some(share) if !share.store.is_up() => &rule.share,
        _ => &rule.rate,
    }
}

fn keyed<'a>(entry: &'a Entry, rule: &Rule, now: Moment) -> Place<'a> {
    let node = &*entry.tenant.plan.node;
    let key_of = |tag| key(&entry.tenant, tag, rule.scope, entry.user, entry.address, node.seed);
    let place = node.keyed.place(key_of(rule.tag), now.monotonic);
    if place.new
        && let Some((tag, old)) = &rule.before
        && let Some(before) = node.keyed.known(key_of(*tag))
    {
        carry(before.cell, old, place.cell, &rule.rate, now.monotonic);
    }
    place
}
