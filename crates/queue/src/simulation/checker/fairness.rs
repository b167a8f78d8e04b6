//! Whether tenants took turns: two who both wait all the time are served alike, whatever the others do.

use std::collections::BTreeMap;

use super::{Broken, Verdict};

/// A kind, a class, a tenant.
pub(super) type Flow = (String, u8, String);

/// How many jobs are ready, and who got how many more than whom.
#[derive(Default)]
pub(super) struct Fairness {
    ready: BTreeMap<Flow, i64>,
    /// By how many jobs the first was served more than the second since both wait without a break.
    ahead: BTreeMap<(Flow, String), i64>,
}

impl Fairness {
    /// A job became ready (+1) or is ready no more (−1).
    pub(super) fn count(&mut self, flow: Flow, by: i64) {
        let ready = self.ready.entry(flow.clone()).or_default();
        *ready += by;
        if *ready <= 0 {
            self.ready.remove(&flow);
            // A break: what was before does not count.
            let (kind, class, tenant) = &flow;
            self.ahead.retain(|(first, second), _| (&first.0, &first.1) != (kind, class) || (&first.2 != tenant && second != tenant));
        }
    }

    /// Flows with ready jobs.
    pub(super) fn ready(&self) -> impl Iterator<Item = &Flow> {
        self.ready.keys()
    }

    /// How many are ready now.
    pub(super) fn waiting(&self) -> BTreeMap<Flow, i64> {
        self.ready.clone()
    }

    /// After a claim that has `begun` jobs of these flows: who waited before it and waits still is compared with each other of the same kind and
    /// class. (How many wait is no measure of who was served: a claim also lets jobs go on whose time has come.)
    pub(super) fn served(&mut self, before: &BTreeMap<Flow, i64>, begun: impl Iterator<Item = Flow>, most: i64) -> Verdict {
        let mut taken: BTreeMap<Flow, i64> = BTreeMap::new();
        begun.for_each(|flow| *taken.entry(flow).or_default() += 1);
        let waits = before.keys().filter(|flow| self.ready.contains_key(flow));
        let served: Vec<(&Flow, i64)> = waits.map(|flow| (flow, taken.get(flow).copied().unwrap_or(0))).collect();
        if served.iter().all(|(_, count)| *count == 0) {
            return Ok(());
        }
        for (first, got) in &served {
            for (second, other) in served.iter().filter(|(second, _)| (&second.0, second.1) == (&first.0, first.1) && second.2 > first.2) {
                let ahead = self.ahead.entry(((*first).clone(), second.2.clone())).or_default();
                *ahead += got - other;
                if ahead.abs() > most {
                    let (kind, class, tenant) = first;
                    return Err(Broken(format!(
                        "{tenant} was served {ahead} jobs more than {} while both waited (kind {kind}, class {class})",
                        second.2
                    )));
                }
            }
        }
        Ok(())
    }
}
