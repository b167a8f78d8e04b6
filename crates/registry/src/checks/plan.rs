//! Plans: rates that can be kept, and urgencies that fit together.

use plinth_policy::limits::Rate;
use plinth_store::resources::gateway::PlanRecord;

use super::{at_most, between};
use crate::problems::Problems;

/// Checks a plan.
pub(crate) fn plan(problems: &mut Problems, plan: &PlanRecord) {
    at_most(problems, "limits", &plan.limits, 32);
    let mut names = std::collections::BTreeSet::new();
    problems.each("limits", &plan.limits, |p, limit| {
        p.must(names.insert(&limit.name), "name", || format!("two limits are called '{}'", limit.name));
        if let Err(error) = Rate::parse(&limit.rate, limit.burst) {
            p.add("rate", format!("'{}': {error}", super::shown(&limit.rate)));
        }
    });
    between(problems, "concurrency", plan.concurrency, 1, 1_000_000);
    between(problems, "weight", Some(plan.weight), 1, 1_000);
    if plan.max_criticality.is_some_and(|most| most < plan.criticality) {
        problems.add("max_criticality", "it is below 'criticality', which requests have that say nothing");
    }
}
