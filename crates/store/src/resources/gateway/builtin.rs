//! The plans that exist without anybody having written them. A record of the same name takes their place.

use plinth_types::Label;

use super::{Counted, CriticalityWord, LimitScope, LimitSpec, PlanRecord};

/// Their names.
pub const BUILTIN_PLANS: [&str; 2] = ["free", "paid"];

/// The built-in plan of this name.
#[must_use]
pub fn builtin_plan(name: &str) -> Option<PlanRecord> {
    let (description, rate, burst, criticality) = match name {
        "free" => ("10 requests a second; the first to be refused under overload", "10/s", 20, CriticalityWord::Sheddable),
        "paid" => ("100 requests a second; the last to be refused under overload", "100/s", 200, CriticalityWord::Critical),
        _ => return None,
    };
    let limit = LimitSpec {
        name: "requests".parse().ok()?,
        scope: LimitScope::Tenant,
        counts: Counted::Requests,
        operation: None,
        rate: rate.to_owned(),
        burst: Some(burst),
    };
    Some(PlanRecord { description: description.to_owned(), limits: vec![limit], criticality, ..PlanRecord::default() })
}

/// All built-in plans, by name.
pub fn builtin_plans() -> impl Iterator<Item = (Label, PlanRecord)> {
    BUILTIN_PLANS.into_iter().filter_map(|name| Some((name.parse().ok()?, builtin_plan(name)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_plan_can_be_made() {
        let plans: Vec<_> = builtin_plans().collect();
        assert_eq!(plans.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), BUILTIN_PLANS);
        let limit = |n: usize| (plans[n].1.limits[0].rate.clone(), plans[n].1.limits[0].burst, plans[n].1.criticality);
        assert_eq!(limit(0), ("10/s".into(), Some(20), CriticalityWord::Sheddable));
        assert_eq!(limit(1), ("100/s".into(), Some(200), CriticalityWord::Critical));
        assert_eq!(builtin_plan("gold"), None);
    }
}
