//! Plans as they are asked: rates read, names hashed, headers written in advance.
//!
//! Invariant: a plan never changes; whoever was let in by it settles by it. A limit that cannot be read is left out with a warning,
//! because `registry` refused it long before; a plan that is missing altogether is the built-in `free`, never no limit at all.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use plinth_policy::limits::headers::{Policy, QuotaUnit};
use plinth_policy::limits::lease::central::{CentralCap, CentralRate};
use plinth_policy::limits::{LeaseSettings, Moment, Rate};
use plinth_policy::overload::Criticality;
use plinth_store::limits::Central;
use plinth_store::resources::gateway::{Counted, CriticalityWord, LimitScope, LimitSpec, PlanRecord};
use plinth_types::Label;

use super::keyed::{mix, number_of};
use super::node::Node;

/// The most limits of a plan, as `registry` has it.
pub(super) const MOST: usize = 32;
const DAY: Duration = Duration::from_secs(86_400);

/// A plan.
pub(super) struct Plan {
    pub record: PlanRecord,
    /// Those of the tenant first: they are the cheapest to ask.
    pub rules: Vec<Rule>,
    /// How many of them are the tenant's.
    own: usize,
    /// Whether there is a cap for each day, so that the wall clock is looked at.
    daily: bool,
    /// Whether cost is counted, so that something is to be settled.
    pub settles: bool,
    pub node: Arc<Node>,
}

/// One limit.
pub(super) struct Rule {
    pub name: Label,
    pub scope: LimitScope,
    pub counts: Counted,
    pub operation: Option<Label>,
    pub rate: Rate,
    /// A hard cap for each day in UTC instead of a rate.
    pub daily: bool,
    /// What a node admits of a user's rate while the store is away.
    pub share: Rate,
    /// The same for all nodes, where they count together.
    pub lease: LeaseSettings,
    /// The rule of the central counter.
    pub central: Central,
    /// Tells the cells of this limit from those of others.
    pub tag: u64,
    /// The limit that it replaced, and from whose cells new ones begin.
    pub before: Option<(u64, Rate)>,
    /// `RateLimit-Policy`.
    pub policy: HeaderValue,
}

impl Plan {
    /// A plan of a record. `before` is what the same name meant until now.
    pub fn new(record: PlanRecord, before: Option<&Self>, node: &Arc<Node>) -> Self {
        let read = |spec: &LimitSpec| {
            let rule = Rule::new(spec, before, node.share.as_ref().map_or(1, |share| share.nodes));
            if rule.is_none() {
                tracing::warn!(limit = %spec.name, rate = %spec.rate, "a limit cannot be read and is left out");
            }
            rule
        };
        let mut rules: Vec<Rule> = record.limits.iter().take(MOST).filter_map(read).collect();
        rules.sort_by_key(|rule| rule.scope != LimitScope::Tenant);
        let own = rules.iter().take_while(|rule| rule.scope == LimitScope::Tenant).count();
        let (daily, settles) = (rules.iter().any(|rule| rule.daily), rules.iter().any(|rule| rule.counts == Counted::Cost));
        Self { record, rules, own, daily, settles, node: node.clone() }
    }

    /// The limits whose scope is the tenant.
    pub fn own(&self) -> &[Rule] {
        self.rules.get(..self.own).unwrap_or_default()
    }

    /// Both clocks, as far as the plan needs them: the wall clock costs as much as a limit.
    pub fn moment(&self, monotonic: Duration) -> Moment {
        Moment { monotonic, unix_ms: if self.daily { self.node.world.clock.now().millis() } else { 0 } }
    }

    /// The same, now.
    pub fn now(&self) -> Moment {
        self.moment(self.node.world.clock.monotonic())
    }

    /// The urgency of requests that do not say theirs, and the most that one may say.
    pub fn criticality(&self) -> (Criticality, Criticality) {
        let default = word(self.record.criticality);
        (default, self.record.max_criticality.map_or(default, word).max(default))
    }
}

const fn word(word: CriticalityWord) -> Criticality {
    match word {
        CriticalityWord::Background => Criticality::Background,
        CriticalityWord::Sheddable => Criticality::Sheddable,
        CriticalityWord::Default => Criticality::Default,
        CriticalityWord::Critical => Criticality::Critical,
    }
}

impl Rule {
    fn new(spec: &LimitSpec, before: Option<&Plan>, nodes: u32) -> Option<Self> {
        let once = Rate::parse(&spec.rate, Some(1)).ok()?;
        // A day's worth of a tenant without a burst is a cap. Of users and addresses it is a rate of which all may come at once, because
        // a cell is one number.
        let a_day = once.period() == DAY && spec.burst.is_none();
        let daily = a_day && spec.scope == LimitScope::Tenant;
        let two_seconds = (once.units() as f64 * 2.0 / once.period().as_secs_f64()).ceil().max(1.0) as u64;
        let burst = if a_day { once.units() } else { spec.burst.unwrap_or(two_seconds) };
        let rate = Rate::parse(&spec.rate, Some(burst)).ok()?;
        let share = share(&rate, nodes).unwrap_or(rate);
        let mut lease = LeaseSettings::for_rate(&rate, nodes);
        if daily {
            // What a node holds when it dies is lost to the day: a thousandth of it.
            lease.size = (rate.burst() / 1000).max(1);
            lease.low = lease.size.div_ceil(2);
        }
        let central = if daily {
            Central::Cap(CentralCap { cap: rate.units(), life: lease.life })
        } else {
            Central::Rate(CentralRate::new(&rate, lease.life))
        };
        let tag = mix(number_of(spec.name.as_str()) ^ mix(rate.interval()) ^ mix(rate.burst() << 1) ^ spec.scope as u64);
        let same = before.and_then(|plan| plan.rules.iter().find(|rule| rule.name == spec.name && rule.scope == spec.scope));
        let before = same.and_then(|rule| if rule.tag == tag { rule.before } else { Some((rule.tag, rule.rate)) });
        Some(Self {
            name: spec.name.clone(),
            scope: spec.scope,
            counts: spec.counts,
            operation: spec.operation.clone(),
            rate,
            daily,
            share,
            lease,
            central,
            tag,
            before,
            policy: policy(spec, &rate),
        })
    }
}

/// The same burst in time, at a node's part of the rate.
fn share(rate: &Rate, nodes: u32) -> Option<Rate> {
    let burst = std::num::NonZeroU64::new((rate.burst() / u64::from(nodes.max(1))).max(1))?;
    Rate::new(std::num::NonZeroU64::new(rate.units())?, rate.period().checked_mul(nodes.max(1))?, burst).ok()
}

/// A quota is the burst and the time in which it is earned, where that is more than the units of a period: `remaining` is never above it.
fn policy(spec: &LimitSpec, rate: &Rate) -> HeaderValue {
    let (quota, window) =
        if rate.burst() > rate.units() { (rate.burst(), Duration::from_nanos(rate.tolerance())) } else { (rate.units(), rate.period()) };
    let unit = match spec.counts {
        Counted::Requests => QuotaUnit::Requests,
        Counted::Cost => QuotaUnit::CostUnits,
    };
    let text = Policy { name: spec.name.as_str(), quota, window: Some(window), unit }.to_string();
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(rate: &str, burst: Option<u64>, scope: LimitScope) -> LimitSpec {
        LimitSpec { name: "a".parse().unwrap(), scope, counts: Counted::Requests, operation: None, rate: rate.to_owned(), burst }
    }

    #[test]
    fn bursts_and_caps_are_as_the_record_says() {
        for (rate, burst, scope, expected) in [
            ("10/s", None, LimitScope::Tenant, (20, false)),
            ("10/s", Some(7), LimitScope::Tenant, (7, false)),
            ("10/minute", None, LimitScope::User, (1, false)),
            ("100/10s", None, LimitScope::Tenant, (20, false)),
            ("5000/day", None, LimitScope::Tenant, (5000, true)),
            ("5000/day", None, LimitScope::User, (5000, false)),
            ("5000/day", Some(9), LimitScope::Tenant, (9, false)),
        ] {
            let rule = Rule::new(&spec(rate, burst, scope), None, 2).unwrap();
            assert_eq!((rule.rate.burst(), rule.daily), expected, "{rate} {burst:?}");
        }
        assert!(Rule::new(&spec("ten/s", None, LimitScope::Tenant), None, 1).is_none());
    }

    #[test]
    fn policies_read_as_in_the_draft() {
        let of = |rate: &str, burst| Rule::new(&spec(rate, burst, LimitScope::Tenant), None, 1).unwrap().policy;
        assert_eq!(of("100/s", Some(200)), "\"a\";q=200;w=2");
        assert_eq!(of("10/minute", None), "\"a\";q=10;w=60");
        assert_eq!(of("5000/day", None), "\"a\";q=5000;w=86400");
    }

    #[test]
    fn nodes_share_a_users_rate() {
        let rule = Rule::new(&spec("100/s", Some(40), LimitScope::User), None, 4).unwrap();
        assert_eq!((rule.share.burst(), rule.share.interval(), rule.share.tolerance()), (10, 40_000_000, rule.rate.tolerance()));
    }
}
