//! Which versions of a model a node loads, which one answers, and which may go.
//!
//! Rules, in order of weight:
//! 1. A version that answers requests is never taken away before another is ready to answer.
//! 2. The wished version answers as soon as it is ready.
//! 3. When the wished version cannot be had (its load failed or it is quarantined), whatever answered
//!    before goes on; if nothing did, the previous version is loaded in its place.
//! 4. Nothing else stays loaded.
//! 5. A version that is loaded on demand counts as one that answers, but for the place of one that does.
//!
//! One model at a time; how loading is done and when a failed load is tried again is the caller's.

use std::collections::{BTreeMap, BTreeSet};

use plinth_types::VersionNumber;

/// What is wished of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The version that shall answer requests that name none; `None`: the model shall not be served.
    pub primary: Option<VersionNumber>,
    /// The version to fall back to when the primary cannot be had.
    pub fallback: Option<VersionNumber>,
    /// More versions to keep loaded.
    pub others: BTreeSet<VersionNumber>,
}

/// Where a version stands on this node. A version that is not listed is not there at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Being fetched, loaded or warmed; cannot answer yet.
    Loading,
    /// Can answer.
    Ready,
    /// Its runner died and comes back in a moment.
    Restarting,
    /// Could not be loaded, or is quarantined; will not answer until something changes.
    Failed,
    /// Not loaded, or being loaded because somebody asked: requests for it wait until it is.
    OnDemand,
}

/// What to do next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Begin to load these, or know them from now on if they are loaded on demand.
    pub load: BTreeSet<VersionNumber>,
    /// Load these though nobody asks: another answers in the place of one that is loaded on demand.
    pub wake: BTreeSet<VersionNumber>,
    /// Let these go: refuse new requests, finish the running ones, end the runner. Also clears failed ones.
    pub unload: BTreeSet<VersionNumber>,
    /// This one answers requests that name no version.
    pub default: Option<VersionNumber>,
}

/// Decides. `current` is the version that answers now.
#[must_use]
pub fn decide(wish: &Wish, phases: &BTreeMap<VersionNumber, Phase>, current: Option<VersionNumber>) -> Plan {
    let phase = |v: VersionNumber| phases.get(&v).copied();
    let ready = |v: VersionNumber| phase(v) == Some(Phase::Ready);
    let Some(primary) = wish.primary else {
        return Plan { unload: phases.keys().copied().collect(), ..Plan::default() };
    };

    let candidates = [Some(primary), current, wish.fallback];
    let first = |wanted: Phase| candidates.into_iter().flatten().find(|v| phase(*v) == Some(wanted));
    let asleep = phase(primary) == Some(Phase::OnDemand);
    // The wished version keeps its place when its memory was taken: who asks for it waits until it is back. One that
    // restarts keeps it when nothing better is ready: its callers get "try again in a moment".
    let default = current
        .filter(|current| *current == primary && asleep)
        .or_else(|| first(Phase::Ready))
        .or_else(|| first(Phase::Restarting))
        .or_else(|| first(Phase::OnDemand));

    let mut keep: BTreeSet<_> = wish.others.clone();
    keep.insert(primary);
    keep.extend(default);
    if phase(primary) == Some(Phase::Failed) && !default.is_some_and(|d| d != primary && ready(d)) {
        keep.extend(wish.fallback);
    }
    Plan {
        load: keep.iter().copied().filter(|v| phase(*v).is_none()).collect(),
        wake: Some(primary).filter(|_| asleep && default != Some(primary)).into_iter().collect(),
        unload: phases.keys().copied().filter(|v| !keep.contains(v)).collect(),
        default,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Phase::{Failed, Loading, OnDemand, Ready, Restarting};
    use proptest::prelude::*;

    fn v(n: u64) -> VersionNumber {
        VersionNumber::try_from(n).unwrap()
    }

    fn wish(primary: u64, fallback: u64) -> Wish {
        Wish { primary: Some(v(primary)), fallback: (fallback > 0).then(|| v(fallback)), others: BTreeSet::new() }
    }

    type Case = (&'static str, Wish, &'static [(u64, Phase)], u64, (&'static [u64], &'static [u64], u64));

    #[test]
    fn the_rules_by_table() {
        let cases: &[Case] = &[
            ("first start loads", wish(1, 0), &[], 0, (&[1], &[], 0)),
            ("loading is waited for", wish(1, 0), &[(1, Loading)], 0, (&[], &[], 0)),
            ("ready answers", wish(1, 0), &[(1, Ready)], 0, (&[], &[], 1)),
            ("the old one answers while the new one loads", wish(2, 1), &[(1, Ready)], 1, (&[2], &[], 1)),
            ("still", wish(2, 1), &[(1, Ready), (2, Loading)], 1, (&[], &[], 1)),
            ("the new one is ready: the old one goes", wish(2, 1), &[(1, Ready), (2, Ready)], 1, (&[], &[1], 2)),
            ("the new one failed: the old one stays", wish(2, 1), &[(1, Ready), (2, Failed)], 1, (&[], &[], 1)),
            ("failed at start: the previous is loaded", wish(2, 1), &[(2, Failed)], 0, (&[1], &[], 0)),
            ("quarantined while alone: the previous is loaded", wish(2, 1), &[(2, Failed)], 2, (&[1], &[], 0)),
            ("and answers when ready", wish(2, 1), &[(1, Ready), (2, Failed)], 2, (&[], &[], 1)),
            ("a restart keeps its place", wish(2, 1), &[(2, Restarting)], 2, (&[], &[], 2)),
            ("nothing wished: all go", Wish::default(), &[(1, Ready), (2, Failed)], 1, (&[], &[1, 2], 0)),
            ("on demand answers", wish(2, 1), &[(2, OnDemand)], 0, (&[], &[], 2)),
            ("and keeps its place beside one that is ready", wish(2, 1), &[(1, Ready), (2, OnDemand)], 2, (&[], &[1], 2)),
            ("a predecessor that lost its memory still answers", wish(2, 1), &[(1, OnDemand), (2, Loading)], 1, (&[], &[], 1)),
            ("one that failed gives way to one on demand", wish(2, 1), &[(1, OnDemand), (2, Failed)], 2, (&[], &[], 1)),
            ("an old failure is forgotten", wish(3, 1), &[(1, Ready), (2, Failed), (3, Loading)], 1, (&[], &[2], 1)),
        ];
        for (name, wish, phases, current, (load, unload, default)) in cases {
            let phases = phases.iter().map(|(n, p)| (v(*n), *p)).collect();
            let number = |n: u64| (n > 0).then(|| v(n));
            let set = |list: &[u64]| list.iter().map(|n| v(*n)).collect();
            let plan = Plan { load: set(load), unload: set(unload), default: number(*default), ..Plan::default() };
            assert_eq!(decide(wish, &phases, number(*current)), plan, "{name}");
        }
    }

    #[test]
    fn others_are_kept_beside_the_primary() {
        let wish = Wish { others: [v(5), v(6)].into(), ..wish(7, 0) };
        let plan = decide(&wish, &[(v(5), Ready), (v(7), Ready)].into(), Some(v(7)));
        assert_eq!((plan.load, plan.unload.len(), plan.default), ([v(6)].into(), 0, Some(v(7))));
    }

    #[test]
    fn a_successor_on_demand_is_loaded_while_the_old_one_answers() {
        let plan = decide(&wish(2, 1), &[(v(1), Ready), (v(2), OnDemand)].into(), Some(v(1)));
        assert_eq!((plan.wake, plan.unload.len(), plan.default), ([v(2)].into(), 0, Some(v(1))));
    }

    fn phases() -> impl Strategy<Value = BTreeMap<VersionNumber, Phase>> {
        let phase = prop_oneof![Just(Loading), Just(Ready), Just(Restarting), Just(Failed), Just(OnDemand)];
        proptest::collection::btree_map((1u64..6).prop_map(v), phase, 0..5)
    }

    proptest! {
        #[test]
        fn what_answers_is_never_taken_away(primary in 0u64..6, fallback in 0u64..6, current in 0u64..6, phases in phases()) {
            let number = |n: u64| (n > 0).then(|| v(n));
            let wish = Wish { primary: number(primary), fallback: number(fallback), others: BTreeSet::new() };
            let plan = decide(&wish, &phases, number(current));
            if let Some(default) = plan.default {
                prop_assert!(!plan.unload.contains(&default));
            }
            // Rule 1: if the current one is ready and the model is wished, something ready answers.
            let current_ready = number(current).is_some_and(|c| phases.get(&c) == Some(&Ready));
            if current_ready && wish.primary.is_some() {
                prop_assert!(plan.default.is_some_and(|d| phases.get(&d) == Some(&Ready)));
            }
            // Rule 2.
            if let Some(p) = wish.primary && phases.get(&p) == Some(&Ready) {
                prop_assert_eq!(plan.default, Some(p));
            }
            prop_assert!(plan.load.iter().all(|l| !phases.contains_key(l)));
            prop_assert!(plan.unload.iter().all(|u| phases.contains_key(u)));
        }

        #[test]
        fn it_settles(primary in 1u64..6, fallback in 0u64..6, mut phases in phases()) {
            // Loads succeed or fail, restarts succeed; after a few rounds there is nothing left to do.
            let wish = wish(primary, fallback);
            let mut current = None;
            for _ in 0..6 {
                let plan = decide(&wish, &phases, current);
                for u in &plan.unload { phases.remove(u); }
                for l in plan.load.iter().chain(&plan.wake) { phases.insert(*l, Ready); }
                for p in phases.values_mut() { if matches!(p, Loading | Restarting) { *p = Ready; } }
                current = plan.default;
            }
            let plan = decide(&wish, &phases, current);
            prop_assert!(plan.load.is_empty() && plan.unload.is_empty(), "{plan:?} {phases:?}");
            let hopeless = |version: Option<VersionNumber>| version.is_none_or(|x| phases.get(&x) == Some(&Failed));
            prop_assert!(plan.default.is_some() || (hopeless(wish.primary) && hopeless(wish.fallback)), "{plan:?} {phases:?}");
        }
    }
}
