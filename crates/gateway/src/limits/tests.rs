//! Limits of one node, and of two that share a store.

mod cluster;

use std::sync::Arc;
use std::time::Duration;

use plinth_policy::limits::{Cell, Rate};
use plinth_policy::overload::Criticality;
use plinth_runtime::{Clock, ManualClock, SeededRandom, World};
use plinth_store::resources::gateway::{CostSpec, Counted, LimitSpec};
use plinth_types::{Reason, Timestamp};
use proptest::prelude::*;

use super::*;

const NOON: u64 = 20_000 * 86_400_000 + 43_200_000;

fn world(start: u64) -> (World, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(start).unwrap()));
    (World { clock: clock.clone(), random: Arc::new(SeededRandom::new(3)), ..World::real() }, clock)
}

fn limit(name: &str, rate: &str, burst: Option<u64>) -> LimitSpec {
    let (scope, counts) = (LimitScope::Tenant, Counted::Requests);
    LimitSpec { name: name.parse().unwrap(), scope, counts, operation: None, rate: rate.to_owned(), burst }
}

fn tenant(plan: Option<&str>) -> TenantRecord {
    let created_at = Timestamp::from_millis(NOON).unwrap();
    TenantRecord { description: String::new(), created_at, plan: plan.map(|plan| plan.parse().unwrap()), suspended: false }
}

/// One node with its plans and tenants.
struct Bed {
    limits: Limits,
    clock: Arc<ManualClock>,
    plans: BTreeMap<Label, PlanRecord>,
    tenants: Vec<(TenantName, TenantRecord)>,
    default_plan: Option<Label>,
}

impl Bed {
    fn new() -> Self {
        let (world, clock) = world(NOON);
        clock.advance(Duration::from_secs(100));
        let limits = Limits::new(&world, LimitMetrics::default(), LimitOptions { users: 10_000, ..LimitOptions::default() }, None);
        Self { limits, clock, plans: BTreeMap::new(), tenants: Vec::new(), default_plan: None }
    }

    fn plan(mut self, name: &str, limits: Vec<LimitSpec>) -> Self {
        self.plans.insert(name.parse().unwrap(), PlanRecord { limits, ..PlanRecord::default() });
        self
    }

    fn tenant(mut self, name: &str, plan: Option<&str>) -> Self {
        self.tenants.push((name.parse().unwrap(), tenant(plan)));
        self.apply();
        self
    }

    fn apply(&self) {
        let tenants = self.tenants.iter().zip(0..).map(|((name, record), index)| (name, index, record));
        self.limits.apply(&self.plans, tenants, self.default_plan.as_ref());
    }

    fn set(&mut self, plan: &str, change: impl FnOnce(&mut PlanRecord)) {
        change(self.plans.get_mut(&plan.parse::<Label>().unwrap()).unwrap());
        self.apply();
    }

    /// The index is looked up as the key ring would; who is in no record has a wrong one.
    fn ask(&self, name: &str, user: u64, operation: &str, spec: CostSpec) -> Result<Entry, Refused> {
        let index = self.tenants.iter().position(|(known, _)| known.as_str() == name).unwrap_or(77);
        let (name, address) = (name.parse().unwrap(), IpAddr::from([203, 0, 113, 5]));
        let caller = Caller { tenant: &name, tenant_index: index as u32, user: UserKey(user), address };
        let entering = self.limits.enter(caller, operation, Cost { spec, body: 0 }, self.clock.monotonic());
        // Without a shared store nothing is ever waited for.
        futures_util::FutureExt::now_or_never(entering).unwrap()
    }

    fn enter(&self, name: &str) -> Result<Entry, Refused> {
        self.ask(name, 1, "infer", CostSpec::default())
    }

    fn count(&self, name: &str, requests: u32) -> usize {
        (0..requests).filter(|_| self.enter(name).is_ok()).count()
    }
}

fn reason(result: Result<Entry, Refused>) -> Reason {
    result.unwrap_err().error.reason()
}

#[test]
fn built_in_plans_hold_and_are_told() {
    let bed = Bed::new().tenant("default", Some("paid")).tenant("acme", Some("free")).tenant("other", None);
    assert_eq!((bed.count("acme", 50), bed.count("default", 300), bed.count("other", 1000)), (20, 200, 1000));
    bed.clock.advance(Duration::from_secs(1));
    let entry = bed.enter("acme").unwrap();
    let mut headers = HeaderMap::new();
    entry.headers(&mut headers);
    assert_eq!(
        (headers["ratelimit-policy"].as_bytes(), headers["ratelimit"].as_bytes()),
        (&b"\"requests\";q=20;w=2"[..], &b"\"requests\";r=9;t=2"[..])
    );
    assert_eq!((entry.criticality_bounds(), entry.weight()), ((Criticality::Sheddable, Criticality::Sheddable), 1));
    assert_eq!(bed.count("acme", 50), 9);
    let refused = bed.enter("acme").unwrap_err();
    assert_eq!((refused.error.reason(), refused.error.retry_delay()), (Reason::RateLimited, Some(Duration::from_millis(100))));
    let mut headers = HeaderMap::new();
    refused.headers(&mut headers);
    assert_eq!(headers["ratelimit"], "\"requests\";r=0;t=2");
    assert!(["1", "2"].contains(&headers["retry-after"].to_str().unwrap()));
    assert_eq!(bed.limits.node.metrics.refusals(Reason::RateLimited), 30 + 100 + 41 + 1);
}

#[test]
fn every_user_has_a_limit_and_a_refusal_takes_nothing() {
    let user =
        LimitSpec { scope: LimitScope::User, operation: Some("generate".parse().unwrap()), ..limit("generations", "10/minute", Some(10)) };
    let bed = Bed::new().plan("p", vec![user, limit("all", "100/s", Some(25))]).tenant("acme", Some("p")).tenant("b", Some("p"));
    let generate = |name: &str, user: u64| bed.ask(name, user, "generate", CostSpec::default());
    assert_eq!((0..14).filter(|_| generate("acme", 1).is_ok()).count(), 10);
    let refused = generate("acme", 1).unwrap_err();
    assert_eq!((refused.error.retry_delay(), refused.retry_after().unwrap() >= 6), (Some(Duration::from_secs(6)), true));
    assert_eq!((0..14).filter(|_| generate("acme", 2).is_ok()).count(), 10, "another user");
    assert_eq!((0..14).filter(|_| generate("b", 1).is_ok()).count(), 10, "the same user in another tenant");
    assert_eq!(bed.count("acme", 50), 5, "what was refused took nothing of the tenant's, and other operations are not counted");
    assert_eq!((0..14).filter(|_| generate("b", 0).is_ok()).count(), 10, "who has not identified is one by address");
}

#[test]
fn places_are_held_until_the_last_byte() {
    let mut bed = Bed::new().plan("p", vec![limit("all", "100/s", Some(10))]).tenant("acme", Some("p"));
    bed.set("p", |plan| plan.concurrency = Some(2));
    let (one, _two) = (bed.enter("acme").unwrap(), bed.enter("acme").unwrap());
    assert_eq!(reason(bed.enter("acme")), Reason::ConcurrencyLimited);
    bed.set("p", |plan| plan.concurrency = Some(3));
    let _three = bed.enter("acme").unwrap();
    assert_eq!(reason(bed.enter("acme")), Reason::ConcurrencyLimited, "those under way are counted after a change");
    drop(one);
    assert_eq!(bed.count("acme", 9), 7, "a refused one gives its place back");
    let refused = bed.enter("acme").unwrap_err();
    assert_eq!((refused.error.reason(), refused.retry_after().is_some()), (Reason::RateLimited, true));
}

#[test]
fn cost_is_reserved_and_settled() {
    let cost = LimitSpec { counts: Counted::Cost, ..limit("units", "1/s", Some(100)) };
    let bed = Bed::new().plan("p", vec![cost]).tenant("acme", Some("p"));
    let spec = CostSpec { fixed: 10, per_millisecond: 1, per_kib: 0, reserve: 50 };
    let left = || {
        let mut headers = HeaderMap::new();
        let entry = bed.ask("acme", 1, "infer", CostSpec { fixed: 0, ..CostSpec::default() }).unwrap();
        entry.headers(&mut headers);
        headers["ratelimit"].to_str().unwrap().split([';', '=']).nth(2).unwrap().parse::<u64>().unwrap()
    };
    let entry = bed.ask("acme", 1, "infer", spec).unwrap();
    assert_eq!((left(), reason(bed.ask("acme", 1, "infer", spec))), (40, Reason::RateLimited));
    entry.settle(25);
    assert_eq!(left(), 75);
    let entry = bed.ask("acme", 1, "infer", spec).unwrap();
    bed.clock.advance(Duration::from_millis(20));
    drop(entry);
    assert_eq!(left(), 45, "10 and 20 ms");
    bed.ask("acme", 1, "infer", CostSpec { reserve: 20, ..spec }).unwrap().give_back();
    assert_eq!(left(), 45);
    bed.ask("acme", 1, "infer", CostSpec { reserve: 0, ..spec }).unwrap().settle(95);
    let owes = bed.ask("acme", 1, "infer", CostSpec { fixed: 1, ..CostSpec::default() }).unwrap_err();
    assert_eq!(owes.error.retry_delay().unwrap().as_secs(), 50, "what was used beyond is owed");
    let never = bed.ask("acme", 1, "infer", CostSpec { fixed: 101, ..CostSpec::default() }).unwrap_err();
    assert_eq!((never.error.reason(), never.retry_after()), (Reason::CostAboveLimit, None));
}

#[test]
fn a_users_cost_is_settled_in_the_cell_that_was_charged() {
    let cost = LimitSpec { counts: Counted::Cost, scope: LimitScope::User, ..limit("units", "1/s", Some(100)) };
    let bed = Bed::new().plan("p", vec![cost]).tenant("acme", Some("p"));
    let spec = CostSpec { fixed: 1, reserve: 89, ..CostSpec::default() };
    let entry = bed.ask("acme", 7, "infer", spec).unwrap();
    assert_eq!(reason(bed.ask("acme", 7, "infer", spec)), Reason::RateLimited);
    assert!(bed.ask("acme", 8, "infer", spec).is_ok());
    drop(entry);
    assert!(bed.ask("acme", 7, "infer", spec).is_ok());
}

#[test]
fn a_daily_cap_ends_at_midnight() {
    let bed = Bed::new().plan("p", vec![limit("day", "500/day", None)]).tenant("acme", Some("p"));
    assert_eq!(bed.count("acme", 600), 500);
    let refused = bed.enter("acme").unwrap_err();
    let wait = Duration::from_secs(12 * 3600 - 100);
    assert_eq!((refused.error.reason(), refused.error.retry_delay()), (Reason::DailyCap, Some(wait)));
    bed.clock.advance(wait);
    assert_eq!(bed.count("acme", 600), 500);
}

#[test]
fn what_was_counted_stays_counted_when_plans_change() {
    let user = LimitSpec { scope: LimitScope::User, ..limit("each", "10/s", Some(40)) };
    let mut bed = Bed::new().plan("p", vec![limit("all", "10/s", Some(20))]).plan("q", vec![user]).tenant("acme", Some("p"));
    assert_eq!(bed.count("acme", 15), 15);
    bed.apply();
    bed.set("p", |plan| plan.weight = 9);
    assert_eq!((bed.count("acme", 1), bed.enter("acme").unwrap().weight()), (1, 9));
    bed.set("p", |plan| plan.limits = vec![limit("all", "100/s", Some(200))]);
    assert_eq!(bed.count("acme", 300), 30, "17 of 20 were used: 170 of 200 are");
    // Other tenants come before it, so its index is another one.
    bed.tenants.insert(0, ("aaa".parse().unwrap(), tenant(Some("p"))));
    bed.apply();
    assert_eq!((bed.count("acme", 10), bed.count("aaa", 300)), (0, 200));
    // A user's limit that changes: three quarters used.
    bed = bed.tenant("users", Some("q"));
    assert_eq!(bed.count("users", 30), 30);
    bed.set("q", |plan| plan.limits[0].rate = "20/s".to_owned());
    assert_eq!(bed.count("users", 100), 10);
    bed.set("q", |plan| plan.limits[0].burst = Some(80));
    assert_eq!(bed.count("users", 100), 0, "all of 40 are all of 80");
}

#[test]
fn a_tenant_with_many_limits_keeps_those_that_stay() {
    let limits = |third: &str| {
        let limit = |name, burst| limit(name, if name == "c" { third } else { "100/s" }, Some(burst));
        vec![limit("a", 50), limit("b", 40), limit("c", 30), limit("d", 20)]
    };
    let mut bed = Bed::new().plan("p", limits("100/s")).tenant("acme", Some("p"));
    bed.set("p", |plan| plan.concurrency = Some(100));
    let held: Vec<Entry> = (0..5).map(|_| bed.enter("acme").unwrap()).collect();
    for third in ["90/s", "100/s", "80/s", "100/s", "90/s", "100/s"] {
        bed.set("p", |plan| plan.limits = limits(third));
    }
    assert_eq!(bed.count("acme", 100), 15, "'d' has been asked five times");
    bed.set("p", |plan| {
        plan.limits.truncate(2);
        plan.concurrency = Some(6);
    });
    let one = bed.enter("acme").unwrap();
    assert_eq!(reason(bed.enter("acme")), Reason::ConcurrencyLimited, "those who came by former plans hold their places");
    drop((held, one));
    assert_eq!(bed.count("acme", 100), 19, "'b' has been asked 21 times");
    assert!(bed.limits.table.load().tenant(0, &"acme".parse().unwrap()).permits().is_some_and(|permits| permits.in_use() == 0));
}

#[test]
fn nobody_is_without_a_limit_by_accident() {
    let mut bed = Bed::new().tenant("a", Some("gone")).tenant("b", Some("free"));
    assert_eq!(bed.count("a", 50), 20, "a plan that is missing is the strictest");
    bed.default_plan = Some("free".parse().unwrap());
    bed = bed.tenant("c", None);
    assert_eq!(bed.count("c", 50), 20);
    assert_eq!(bed.count("unheard-of", 50), 20, "who is in no record yet has the default plan");
    // The key ring knows new indexes a moment earlier than this table: names decide.
    let (name, address) = ("b".parse().unwrap(), IpAddr::from([203, 0, 113, 5]));
    let wrong = Caller { tenant: &name, tenant_index: 0, user: UserKey(1), address };
    let cost = Cost { spec: CostSpec::default(), body: 0 };
    let entering = bed.limits.enter(wrong, "infer", cost, bed.clock.monotonic());
    assert!(futures_util::FutureExt::now_or_never(entering).unwrap().is_ok(), "b has used nothing");
}

proptest! {
    /// Whatever snapshots come in between, each tenant is admitted exactly what one cell of its own would admit.
    #[test]
    fn snapshots_change_no_count(steps in proptest::collection::vec((0usize..4, 0u64..300, any::<bool>()), 1..150)) {
        let mut bed = Bed::new().plan("p", vec![limit("all", "5/s", Some(4))]);
        for name in ["a", "b", "c", "d"] {
            bed = bed.tenant(name, Some("p"));
        }
        let (rate, cells) = (Rate::parse("5/s", Some(4)).unwrap(), [const { Cell::new() }; 4]);
        for (who, wait, swaps) in steps {
            bed.clock.advance(Duration::from_millis(wait));
            if swaps {
                bed.tenants.rotate_left(who);
                let weight = bed.plans.values().next().unwrap().weight;
                bed.set("p", |plan| plan.weight = weight % 7 + 1);
            }
            let expected = cells[who].take(&rate, 1, bed.clock.monotonic()).allowed();
            prop_assert_eq!(bed.enter(["a", "b", "c", "d"][who]).is_ok(), expected);
        }
    }
}
