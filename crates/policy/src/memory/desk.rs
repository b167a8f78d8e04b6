//! One decision about memory, worked out step by step on a copy of the sums.
//!
//! Two sums are kept: `committed` is what will be there once everything decided so far has happened, `present` what may be
//! there right now. Room is planned by the first, and a load begins by the second, so that a budget holds at every
//! moment and not only in the end.

use std::time::Duration;

use super::{Budgets, Demand, Footprint, Plan, Refusal, Resident, State, Urgency, Why, residence};

pub(super) struct Desk<'a, K> {
    budgets: &'a Budgets,
    state: &'a State<K>,
    now: Duration,
    /// Which residents are still counted on to stay.
    stays: Vec<bool>,
    committed: Footprint,
    present: Footprint,
    plan: Plan<K>,
}

impl<'a, K: Clone + Ord> Desk<'a, K> {
    pub fn new(budgets: &'a Budgets, state: &'a State<K>, now: Duration) -> Self {
        let mut committed = Footprint::default();
        state.residents.iter().for_each(|r| committed.add(&r.bytes));
        state.loading.iter().for_each(|l| committed.add(&l.bytes));
        let mut present = committed.clone();
        present.add(&state.leaving);
        let plan = Plan { load: Vec::new(), evict: Vec::new(), refuse: Vec::new(), defer: Vec::new(), again_at: None };
        Self { budgets, state, now, stays: vec![true; state.residents.len()], committed, present, plan }
    }

    pub fn plan(mut self) -> Plan<K> {
        self.let_the_idle_go();
        self.keep_the_budget();
        let mut demands: Vec<_> = self.state.demands.iter().collect();
        demands.sort_by(|a, b| (a.urgency, a.deadline, &a.key).cmp(&(b.urgency, b.deadline, &b.key)));
        for demand in demands {
            self.serve(demand);
        }
        self.plan
    }

    fn let_the_idle_go(&mut self) {
        for (index, resident) in self.state.residents.iter().enumerate() {
            let Some(limit) = resident.idle_after else { continue };
            if resident.in_flight || resident.busy {
                continue;
            }
            let end = resident.last_used.saturating_add(limit);
            if end <= self.now { self.evict(index, Why::Idle) } else { self.again_at(end) }
        }
    }

    /// What was loaded may have turned out larger, or have grown.
    fn keep_the_budget(&mut self) {
        if !self.is_short(&self.committed, &Footprint::default()) {
            return;
        }
        // Being young protects nobody here but the newest: it came last because somebody waits for it.
        let newest = self.state.residents.iter().filter(|r| ripe_at(r) > self.now).map(|r| r.since).max();
        let candidates = self.candidates(None, |resident| Some(resident.since) == newest);
        let victims = match self.choose(&Footprint::default(), &candidates) {
            Some(victims) => victims,
            // Everything that may go, goes: what is pinned has its room by somebody's will.
            None => candidates,
        };
        for index in victims {
            self.evict(index, Why::OverBudget);
        }
    }

    fn serve(&mut self, demand: &Demand<K>) {
        let wished = demand.urgency == Urgency::Wished;
        if let Some(refusal) = self.refusal(demand) {
            if wished {
                self.plan.defer.push(demand.key.clone())
            } else {
                self.plan.refuse.push((demand.key.clone(), refusal))
            }
            return;
        }
        if !self.is_short(&self.committed, &demand.bytes) {
            self.committed.add(&demand.bytes);
            // Otherwise what is leaving makes the room, and its end is the moment to ask again.
            if !self.is_short(&self.present, &demand.bytes) {
                self.present.add(&demand.bytes);
                self.plan.load.push(demand.key.clone());
            }
            return;
        }
        if wished {
            self.plan.defer.push(demand.key.clone());
            return;
        }
        let candidates = self.candidates(demand.spare.as_ref(), |resident| ripe_at(resident) > self.now);
        if let Some(victims) = self.choose(&demand.bytes, &candidates) {
            let ripe = victims.iter().map(|index| ripe_at(&self.state.residents[*index])).max().unwrap_or_default();
            for index in victims {
                if ripe <= self.now {
                    self.evict(index, Why::Room);
                } else {
                    self.count_out(index);
                }
            }
            if ripe > self.now {
                self.again_at(ripe);
            }
        }
        // Also when there is no way yet: who comes later must not take the room that this one waits for.
        self.committed.add(&demand.bytes);
    }

    /// Why there will never be room, as things are.
    fn refusal(&self, demand: &Demand<K>) -> Option<Refusal> {
        let residents = self.state.residents.iter().filter(|r| r.pinned || demand.spare.as_ref() == Some(&r.key)).map(|r| &r.bytes);
        let held: Vec<_> = residents.chain(self.state.loading.iter().filter(|l| l.pinned).map(|l| &l.bytes)).collect();
        for (device, need) in demand.bytes.iter() {
            let Some(budget) = self.budgets.0.get(&device).copied() else { continue };
            if need > budget {
                return Some(Refusal::TooLarge { device, need, budget });
            }
            let held = held.iter().fold(0u64, |sum, bytes| sum.saturating_add(bytes.on(device)));
            if need > 0 && need.saturating_add(held) > budget {
                return Some(Refusal::Held { device, need, held, budget });
            }
        }
        None
    }

    /// Those of the candidates, the first ones first, whose going makes room; `None` when all of them are not enough.
    fn choose(&self, need: &Footprint, candidates: &[usize]) -> Option<Vec<usize>> {
        let mut rest = self.committed.clone();
        let mut taken: Vec<usize> = Vec::new();
        for index in candidates.iter().copied() {
            if !self.is_short(&rest, need) {
                break;
            }
            let bytes = &self.state.residents[index].bytes;
            if bytes.iter().any(|(device, bytes)| bytes > 0 && self.is_short_on(device, &rest, need)) {
                rest.subtract(bytes);
                taken.push(index);
            }
        }
        if self.is_short(&rest, need) {
            return None;
        }
        // A large one that came last may have made the small ones before it needless; the dearest are spared first.
        for index in taken.clone().into_iter().rev() {
            let mut without = rest.clone();
            without.add(&self.state.residents[index].bytes);
            if !self.is_short(&without, need) {
                rest = without;
                taken.retain(|other| *other != index);
            }
        }
        Some(taken)
    }

    /// Who may go, the cheapest first, and those who are to be kept for now after all others.
    fn candidates(&self, spare: Option<&K>, kept: impl Fn(&Resident<K>) -> bool) -> Vec<usize> {
        let residents = &self.state.residents;
        let mut candidates: Vec<usize> = (0..residents.len())
            .filter(|index| {
                let resident = &residents[*index];
                self.stays[*index] && !resident.pinned && !resident.busy && spare != Some(&resident.key)
            })
            .collect();
        candidates.sort_by(|a, b| {
            let (a, b) = (&residents[*a], &residents[*b]);
            (kept(a), a.in_flight)
                .cmp(&(kept(b), b.in_flight))
                .then_with(|| value(a).total_cmp(&value(b)))
                .then_with(|| (a.last_used, &a.key).cmp(&(b.last_used, &b.key)))
        });
        candidates
    }

    fn is_short(&self, taken: &Footprint, need: &Footprint) -> bool {
        self.budgets.0.keys().any(|device| self.is_short_on(*device, taken, need))
    }

    fn is_short_on(&self, device: super::Device, taken: &Footprint, need: &Footprint) -> bool {
        self.budgets.0.get(&device).is_some_and(|budget| taken.on(device).saturating_add(need.on(device)) > *budget)
    }

    fn evict(&mut self, index: usize, why: Why) {
        self.count_out(index);
        self.plan.evict.push((self.state.residents[index].key.clone(), why));
    }

    fn count_out(&mut self, index: usize) {
        self.stays[index] = false;
        self.committed.subtract(&self.state.residents[index].bytes);
    }

    fn again_at(&mut self, at: Duration) {
        self.plan.again_at = Some(self.plan.again_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// When a resident may go for another.
fn ripe_at<K>(resident: &Resident<K>) -> Duration {
    resident.since.saturating_add(residence(resident.reload))
}

/// What is lost for each byte that is won.
#[allow(clippy::cast_precision_loss, reason = "an order of values, not a sum of bytes")]
fn value<K>(resident: &Resident<K>) -> f64 {
    resident.recent_use * resident.reload.as_secs_f64() / (resident.bytes.total().max(1) as f64)
}
