//! Room first, then the load: the reconciler's side of `policy::memory`.
//!
//! Each round hands the whole state of memory to the policy and carries the plan out: begins what there is room for, takes the
//! memory of what shall go, tells those who cannot be served. Invariant: every load begins here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plinth_policy::memory::{Budgets, Demand, Device, Footprint, Loading, Resident, State as MemoryState, Urgency, Why, plan};
use plinth_runtime::OnEnd;
use plinth_telemetry::Outcome;
use plinth_types::VersionNumber;

use super::{Event, Farewell, ModelKey, ModelState, Reconciler, labels};
use crate::ModelWish;
use crate::memory::{DeviceMemory, MemoryReport, refused};
use crate::slot::Slot;
use crate::table::State;

/// How often what is loaded is measured again.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

type Key = (ModelKey, VersionNumber);

impl Reconciler {
    fn budgets(&self) -> Budgets {
        Budgets(self.loader.options.memory_budget.iter().map(|budget| (Device::Host, budget.0)).collect())
    }

    /// Decides about memory and carries the decision out. Returns what is to be let go once the table says so.
    pub(super) fn admit(&mut self, wished: &BTreeMap<ModelKey, &ModelWish>) -> Vec<Farewell> {
        let now = self.now();
        self.observe(now);
        let (state, asked) = self.memory_state(wished, now);
        let plan = plan(&self.budgets(), &state, now);
        self.memory_due = plan.again_at;
        let mut gone = Vec::new();
        for ((key, version), why) in plan.evict {
            gone.extend(self.take_memory(key, version, why));
        }
        for ((key, version), refusal) in plan.refuse {
            let error = refused(&key.1, version, refusal);
            tracing::warn!(tenant = %key.0, model = %key.1, version = version.get(), %error, "no memory for a version");
            self.metrics.model_load_failures.inc();
            let count = asked.get(&(key.clone(), version)).copied();
            let Some(slot) = self.slot(&key, version) else { continue };
            if slot.intent.is_some() {
                slot.load_failed(&error, now);
            } else if let Some(count) = count {
                // It stays one that may be asked for: others may have gone by then.
                slot.refusal = Some((error.reason(), error.public_text().to_owned()));
                slot.holding.refused = count;
            }
        }
        for (key, version) in plan.defer {
            tracing::info!(tenant = %key.0, model = %key.1, version = version.get(), "no room yet, loaded when a request comes for it");
            if let Some(slot) = self.slot(&key, version) {
                // Its process has ended, if it had one.
                slot.sleep();
            }
        }
        for (key, version) in plan.load {
            if let Some(wish) = wished.get(&key) {
                self.load(&key, version, wish);
            }
        }
        gone
    }

    fn load(&mut self, key: &ModelKey, version: VersionNumber, wish: &ModelWish) {
        let Some(mut slot) = self.models.get_mut(key).and_then(|m| m.slots.remove(&version)) else { return };
        let intent = slot.intent.take();
        let on_demand = intent.is_none();
        let bytes = self.expected(&slot);
        slot.attempt = Some(self.begin(key, wish, version, intent.is_some_and(|i| i.skip_line), bytes));
        if on_demand || slot.state == State::Unloaded {
            slot.refusal = None;
            slot.state = State::Loading;
        }
        if on_demand {
            self.metrics.model_loads_on_demand.inc();
        }
        if let Some(model) = self.models.get_mut(key) {
            model.slots.insert(version, slot);
        }
    }

    /// What a version will take: what it took, else an estimate.
    fn expected(&self, slot: &Slot) -> Footprint {
        Footprint::host(slot.holding.measured.map_or_else(|| self.estimator.estimate(slot.holding.files), |reading| reading.total()))
    }

    fn take_memory(&mut self, key: ModelKey, version: VersionNumber, why: Why) -> Option<Farewell> {
        let slot = self.slot(&key, version)?;
        let bytes = slot.holding.footprint();
        let (ticket, instance) = slot.sleep()?;
        tracing::info!(tenant = %key.0, model = %key.1, version = version.get(), bytes = bytes.total(), ?why, "version unloaded, a request for it loads it again");
        self.metrics.model_evictions.get([if why == Why::Idle { "idle" } else { "room" }]).inc();
        self.metrics.forget_model(labels(&key, &version.to_string()));
        self.leaving.insert(ticket, (key, version, bytes));
        Some(Farewell { ticket, instance })
    }

    /// Takes in how much each version was used.
    fn observe(&mut self, now: Duration) {
        for slot in self.models.values_mut().flat_map(|m| m.slots.values_mut()) {
            let Some((_, instance)) = &slot.instance else { continue };
            let total = Outcome::ALL.iter().fold(0u64, |sum, outcome| sum.wrapping_add(instance.metrics.count(*outcome)));
            slot.holding.usage.observe(total, now);
            if instance.in_flight() > 0 || instance.metrics.pending.value() > 0 {
                slot.holding.usage.touch(now);
            }
        }
    }

    /// Everything that a decision about memory rests on, and how many had asked at the gates that were looked at.
    fn memory_state(&self, wished: &BTreeMap<ModelKey, &ModelWish>, now: Duration) -> (MemoryState<Key>, BTreeMap<Key, u64>) {
        let mut state = MemoryState { residents: Vec::new(), loading: Vec::new(), leaving: Footprint::default(), demands: Vec::new() };
        let mut asked = BTreeMap::new();
        self.leaving.values().for_each(|(_, _, bytes)| state.leaving.add(bytes));
        for (key, model) in &self.models {
            let Some(wish) = wished.get(key) else { continue };
            let primary = wish.policy_wish().primary;
            let swap = model.slots.iter().any(|(v, s)| Some(*v) == primary && model.default != primary && s.is_coming());
            for (version, slot) in &model.slots {
                let name = (key.clone(), *version);
                if let Some(attempt) = &slot.attempt {
                    state.loading.push(Loading { bytes: attempt.bytes.clone(), pinned: slot.holding.pinned });
                }
                if slot.instance.is_some() {
                    let replaced = slot.is_coming() || (swap && model.default == Some(*version));
                    state.residents.push(resident(name.clone(), slot, replaced, now));
                }
                if let Some(demand) = self.demand(name.clone(), slot, model, primary, swap) {
                    if slot.intent.is_none() {
                        asked.insert(name, slot.holding.gate.asked());
                    }
                    state.demands.push(demand);
                }
            }
        }
        (state, asked)
    }

    fn demand(&self, key: Key, slot: &Slot, model: &ModelState, primary: Option<VersionNumber>, swap: bool) -> Option<Demand<Key>> {
        let version = key.1;
        let bytes = self.expected(slot);
        if let Some(intent) = &slot.intent {
            let default = model.default.filter(|d| primary == Some(version) && model.slots.get(d).is_some_and(|s| s.instance.is_some()));
            let spare = if slot.instance.is_some() { Some(version) } else { default };
            let spare = spare.map(|version| (key.0.clone(), version));
            return Some(Demand { key, bytes, urgency: intent.urgency, deadline: intent.deadline, spare });
        }
        // Whom its successor will answer in a moment need not wake it.
        let superseded = swap && model.default == Some(version);
        let asked = slot.state == State::Unloaded && slot.attempt.is_none() && slot.holding.gate.parked() > 0 && !superseded;
        asked.then(|| Demand { key, bytes, urgency: Urgency::Demanded, deadline: slot.holding.gate.deadline(), spare: None })
    }

    /// Measures what is loaded, in the background, when it is time.
    pub(super) fn measure(&mut self) {
        let now = self.now();
        if now < self.measure_due {
            return;
        }
        self.measure_due = now.saturating_add(MEASURE_EVERY);
        let mut known = Vec::new();
        for (key, model) in &self.models {
            for (version, slot) in &model.slots {
                if let (Some((ticket, instance)), Some(last)) = (&slot.instance, slot.holding.measured)
                    && let Some(pid) = instance.pid()
                {
                    known.push((key.clone(), *version, *ticket, pid, last));
                }
            }
        }
        if known.is_empty() {
            return;
        }
        let events = self.events.0.clone();
        self.loader.tasks.spawn("measure memory", OnEnd::Ignore, async move {
            let read = move || known.into_iter().filter_map(|(k, v, t, pid, last)| Some((k, v, t, last.again(pid)?))).collect();
            if let Ok(readings) = tokio::task::spawn_blocking(read).await {
                let _ = events.send(Event::Measured(readings)).await;
            }
        });
    }

    /// The sums for people; the same go to the metrics.
    pub(super) fn memory_report(&self) -> MemoryReport {
        let slots = || self.models.values().flat_map(|m| m.slots.values());
        let (mut used, mut loading, mut leaving) = (Footprint::default(), Footprint::default(), Footprint::default());
        slots().filter(|s| s.instance.is_some()).for_each(|s| used.add(&s.holding.footprint()));
        slots().filter_map(|s| s.attempt.as_ref()).for_each(|a| loading.add(&a.bytes));
        self.leaving.values().for_each(|(_, _, bytes)| leaving.add(bytes));
        let budgets = self.budgets();
        let devices: BTreeSet<Device> =
            budgets.0.keys().copied().chain(used.iter().map(|(device, _)| device)).chain([Device::Host]).collect();
        let devices = devices.into_iter().map(|device| DeviceMemory {
            device: device.to_string(),
            budget: budgets.0.get(&device).copied(),
            used: used.on(device),
            loading: loading.on(device),
            leaving: leaving.on(device),
        });
        let devices: Vec<_> = devices.collect();
        for memory in &devices {
            self.metrics.memory_used.get([&memory.device]).set_whole(memory.used);
            if let Some(budget) = memory.budget {
                self.metrics.memory_budget.get([&memory.device]).set_whole(budget);
            }
        }
        MemoryReport {
            devices,
            evictions: self.metrics.model_evictions.get(["room"]).value(),
            idle_unloads: self.metrics.model_evictions.get(["idle"]).value(),
            loads_on_demand: self.metrics.model_loads_on_demand.value(),
            parked: self.published.parking().len(),
        }
    }

    /// The versions that were let go and have not ended.
    pub(super) fn is_leaving(&self, key: &ModelKey, version: VersionNumber) -> bool {
        self.leaving.values().any(|(k, v, _)| k == key && *v == version)
    }
}

fn resident(key: Key, slot: &Slot, busy: bool, now: Duration) -> Resident<Key> {
    let holding = &slot.holding;
    Resident {
        key,
        bytes: holding.footprint(),
        since: holding.since,
        reload: holding.reload,
        recent_use: holding.usage.recent(now),
        last_used: holding.usage.last(),
        in_flight: slot.instance.as_ref().is_some_and(|(_, i)| i.in_flight() > 0 || i.metrics.pending.value() > 0),
        pinned: holding.pinned,
        busy,
        idle_after: holding.idle_after,
    }
}
