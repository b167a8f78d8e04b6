//! Brings what is loaded in line with what is wished: one task that owns all state and takes events.
//!
//! It is periodic, pokeable and idempotent: each round compares wish and state, asks `policy` for a
//! plan, begins loads, lets versions go and publishes a new table. Invariant: the table is published
//! with the new default before an old version is let go, so a request finds one or the other. No load begins before
//! `admission` has found room for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plinth_engine::RunnerExit;
use plinth_policy::memory::{Estimator, Footprint};
use plinth_policy::placement::decide;
use plinth_policy::supervision::CrashLimits;
use plinth_policy::{Phase, Verdict};
use plinth_runtime::OnEnd;
use plinth_telemetry::{Catalogue, ModelLabels};
use plinth_types::{Error, ModelName, Reason, Result, TenantName, VersionNumber};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::loader::Loader;
use crate::memory::measure::Reading;
use crate::serving::Published;
use crate::slot::{Attempt, Slot, Ticket};
use crate::table::{ModelRow, State, Table, VersionRow};
use crate::{Instance, ModelWish, Purpose};

mod admission;
mod intents;

use intents::{asked_for, new_slot, refresh};

type ModelKey = (TenantName, ModelName);

/// How often to look without being asked, at least; earlier when a restart or another try is due.
const TICK: Duration = Duration::from_secs(1);
/// How long a version that is let go may finish what it has begun.
const RETIRE_GRACE: Duration = Duration::from_secs(30);
/// How many versions load at the same time. What a crash or a failure has left without an answer does not wait in line.
const PARALLEL_LOADS: usize = 4;
/// Versions with at least so many bytes of files load one at a time: two at once take each other's disk and memory bandwidth.
const LARGE: u64 = 64 << 20;
/// What an operator asks for waits for room like a request with this deadline.
const OPERATORS_PATIENCE: Duration = Duration::from_secs(10);

/// What happens outside and must be taken in.
#[allow(clippy::large_enum_variant, reason = "an event is moved once, through a bounded channel")]
pub(crate) enum Event {
    /// An attempt to load ended.
    Loaded { key: ModelKey, version: VersionNumber, ticket: Ticket, took: Duration, reading: Reading, result: Result<Instance> },
    /// A runner that answered has ended.
    Ended { key: ModelKey, version: VersionNumber, ticket: Ticket, exit: RunnerExit },
    /// An instance that was let go has ended, and its memory is back.
    Gone { ticket: Ticket },
    /// What runners take now.
    Measured(Vec<(ModelKey, VersionNumber, Ticket, Reading)>),
}

#[derive(Default)]
struct ModelState {
    slots: BTreeMap<VersionNumber, Slot>,
    default: Option<VersionNumber>,
    /// The version of which was last noted that it answers.
    noted: Option<VersionNumber>,
    /// The deployment's count of explicit requests to load when it was last looked at.
    generation: Option<u64>,
    on_demand: bool,
}

/// An instance that is let go as soon as nobody finds it in the table any more.
struct Farewell {
    ticket: Ticket,
    instance: Arc<Instance>,
}

pub(crate) struct Reconciler {
    pub loader: Arc<Loader>,
    pub metrics: Arc<Catalogue>,
    pub wishes: watch::Receiver<Option<Arc<Vec<ModelWish>>>>,
    pub published: Arc<Published>,
    models: BTreeMap<ModelKey, ModelState>,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    loads: Arc<Semaphore>,
    large_loads: Arc<Semaphore>,
    estimator: Estimator,
    /// What was let go and has not ended.
    leaving: BTreeMap<Ticket, (ModelKey, VersionNumber, Footprint)>,
    /// When memory may have to be looked at again (monotonic).
    memory_due: Option<Duration>,
    measure_due: Duration,
    tickets: AtomicU64,
    limits: CrashLimits,
    settled: bool,
}

impl Reconciler {
    pub fn new(
        loader: Arc<Loader>,
        metrics: Arc<Catalogue>,
        wishes: watch::Receiver<Option<Arc<Vec<ModelWish>>>>,
        published: Arc<Published>,
    ) -> Self {
        Self {
            loader,
            metrics,
            wishes,
            published,
            models: BTreeMap::new(),
            events: mpsc::channel(256),
            loads: Arc::new(Semaphore::new(PARALLEL_LOADS)),
            large_loads: Arc::new(Semaphore::new(1)),
            estimator: Estimator::default(),
            leaving: BTreeMap::new(),
            memory_due: None,
            measure_due: Duration::ZERO,
            tickets: AtomicU64::new(0),
            limits: CrashLimits::default(),
            settled: false,
        }
    }

    /// Runs until the group is cancelled, then ends every runner.
    pub async fn run(mut self) {
        let stop = self.loader.tasks.cancelled().clone();
        let parking = self.published.parking().clone();
        loop {
            let due = self.next_due();
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.wishes.changed() => if changed.is_err() { break },
                event = self.events.1.recv() => if let Some(event) = event { self.take(event) },
                () = parking.rung() => {}
                () = tokio::time::sleep(due) => {}
            }
            while let Ok(event) = self.events.1.try_recv() {
                self.take(event);
            }
            self.round();
        }
        for (_, model) in std::mem::take(&mut self.models) {
            for (_, instance) in model.slots.into_values().filter_map(|mut s| s.instance.take()) {
                instance.stop(Duration::ZERO).await;
            }
        }
    }

    fn now(&self) -> Duration {
        self.loader.world.clock.monotonic()
    }

    /// How long until the next restart or retry.
    fn next_due(&self) -> Duration {
        let retries = self.models.values().flat_map(|m| m.slots.values()).filter_map(|s| s.retry_at);
        let due = retries.chain(self.memory_due).min();
        due.map_or(TICK, |due| due.saturating_sub(self.now()).min(TICK))
    }

    fn take(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Loaded { key, version, ticket, took, reading, result } => {
                let current = self.slot(&key, version).filter(|s| s.attempt.as_ref().is_some_and(|a| a.ticket == ticket));
                // A late result of an attempt that nobody waits for: dropping it ends its runner.
                let Some(slot) = current else { return };
                match result {
                    Ok(instance) => {
                        let instance = Arc::new(instance);
                        let old = slot.instance.take().map(|(ticket, instance)| (Farewell { ticket, instance }, slot.holding.footprint()));
                        slot.loaded(ticket, instance.clone());
                        let holding = &mut slot.holding;
                        (holding.reload, holding.since, holding.measured) = (took, now, Some(reading));
                        holding.usage.restart(now);
                        let files = holding.files;
                        self.estimator.learn(files, reading.total());
                        tracing::info!(tenant = %key.0, model = %key.1, version = version.get(), pid = instance.pid(), bytes = reading.total(), took_ms = took.as_millis(), "version ready");
                        self.watch(&key, version, ticket, instance);
                        if let Some((old, bytes)) = old {
                            self.leaving.insert(old.ticket, (key, version, bytes));
                            self.publish();
                            self.retire(old);
                        }
                    }
                    // While an older instance answers, a replacement that dies is a failed load and no more.
                    Err(error) if error.reason() == Reason::RunnerCrashed && slot.instance.is_none() => {
                        self.crashed(&key, version, true, &error);
                    }
                    Err(error) => {
                        slot.load_failed(&error, now);
                        self.metrics.model_load_failures.inc();
                        tracing::warn!(tenant = %key.0, model = %key.1, version = version.get(), reason = %error.reason(), error = %error, cause = %error.log_text(), "version cannot be loaded");
                    }
                }
            }
            Event::Ended { key, version, ticket, exit } => {
                let current = self.slot(&key, version).filter(|s| s.instance.as_ref().is_some_and(|(t, _)| *t == ticket));
                let Some(slot) = current else { return };
                slot.instance = None;
                let error = Error::new(Reason::RunnerCrashed, format!("its runner is gone: {exit}"));
                // A hang may be one caller's doing; it must not take the version from the others. It limits itself: each
                // costs its caller the whole execution time-out.
                self.crashed(&key, version, exit != RunnerExit::Hung, &error);
            }
            Event::Gone { ticket } => {
                self.leaving.remove(&ticket);
            }
            Event::Measured(readings) => {
                for (key, version, ticket, reading) in readings {
                    let current = self.slot(&key, version).filter(|s| s.instance.as_ref().is_some_and(|(t, _)| *t == ticket));
                    if let Some(slot) = current {
                        slot.holding.measured = Some(reading);
                    }
                }
            }
        }
    }

    fn slot(&mut self, key: &ModelKey, version: VersionNumber) -> Option<&mut Slot> {
        self.models.get_mut(key)?.slots.get_mut(&version)
    }

    fn crashed(&mut self, key: &ModelKey, version: VersionNumber, counts: bool, error: &Error) {
        let (now, limits, metrics) = (self.now(), self.limits, self.metrics.clone());
        let Some(slot) = self.slot(key, version) else { return };
        (slot.attempt, slot.intent) = (None, None);
        let verdict = if counts { slot.history.crashed(now, &limits) } else { Verdict::Restart { after: Duration::ZERO } };
        slot.refusal = Some((error.reason(), error.public_text().to_owned()));
        match verdict {
            Verdict::Restart { after } => {
                slot.state = State::Restarting;
                slot.restarts += 1;
                slot.retry_at = Some(now + after);
                metrics.model(labels(key, &version.to_string())).restarts.inc();
                tracing::warn!(tenant = %key.0, model = %key.1, version = version.get(), why = %error, "runner died, starting it again");
            }
            Verdict::Quarantine => {
                slot.state = State::Quarantined;
                slot.retry_at = None;
                metrics.runner_quarantines.inc();
                tracing::error!(tenant = %key.0, model = %key.1, version = version.get(), why = %error, "version crashed too often, it is held back");
            }
        }
    }

    /// One comparison of wish and state.
    fn round(&mut self) {
        let Some(wishes) = self.wishes.borrow_and_update().clone() else { return };
        let wished: BTreeMap<ModelKey, &ModelWish> = wishes.iter().map(|w| ((w.tenant.clone(), w.model.clone()), w)).collect();
        let keys: Vec<ModelKey> = self.models.keys().chain(wished.keys()).cloned().collect();
        let mut gone = Vec::new();
        for key in keys {
            gone.extend(self.reconcile(&key, wished.get(&key).copied()));
        }
        gone.extend(self.admit(&wished));
        self.measure();
        self.models.retain(|key, model| wished.contains_key(key) || !model.slots.is_empty());
        self.settled = self.settled
            || self.models.values().flat_map(|m| m.slots.values()).all(|s| !matches!(s.phase(), Phase::Loading | Phase::Restarting));
        self.publish();
        // Only now: nobody finds them in the table any more.
        for farewell in gone {
            self.retire(farewell);
        }
    }

    fn reconcile(&mut self, key: &ModelKey, wish: Option<&ModelWish>) -> Vec<Farewell> {
        let now = self.now();
        let mut model = self.models.remove(key).unwrap_or_default();
        let policy_wish = wish.map(ModelWish::policy_wish).unwrap_or_default();
        if let Some(wish) = wish {
            refresh(wish, &mut model, now);
        }
        let mut gone = Vec::new();
        // Once more where a version that is loaded on demand was met for the first time: it may answer already.
        for _ in 0..2 {
            let phases = model.slots.iter().map(|(v, s)| (*v, s.phase())).collect();
            let plan = decide(&policy_wish, &phases, model.default);
            if plan.default != model.default {
                tracing::info!(tenant = %key.0, model = %key.1, from = model.default.map(VersionNumber::get), to = plan.default.map(VersionNumber::get), "default version moved");
                model.default = plan.default;
            }
            for version in plan.unload {
                self.metrics.forget_model(labels(key, &version.to_string()));
                let Some(mut slot) = model.slots.remove(&version) else { continue };
                if let Some((ticket, instance)) = slot.instance.take() {
                    self.leaving.insert(ticket, (key.clone(), version, slot.holding.footprint()));
                    gone.push(Farewell { ticket, instance });
                }
            }
            let Some(wish) = wish else { break };
            for version in plan.wake {
                if let Some(slot) = model.slots.get_mut(&version).filter(|s| !s.is_coming() && s.state == State::Unloaded) {
                    slot.intent = Some(asked_for(now));
                }
            }
            for version in plan.load {
                if let Some(slot) = new_slot(self.settled, wish, version, &model, now) {
                    model.slots.insert(version, slot);
                }
            }
        }
        let answering = model.default.filter(|d| model.slots.get(d).is_some_and(|s| s.instance.is_some() && s.is_cleared()));
        if let (Some(wish), Some(version)) = (wish, answering.filter(|_| answering != model.noted)) {
            self.note_answering(key, wish, version);
            model.noted = answering;
        }
        model.generation = wish.map(|w| w.deployment.generation).or(model.generation);
        model.on_demand = wish.is_some_and(|w| w.deployment.on_demand);
        self.models.insert(key.clone(), model);
        gone
    }

    /// Begins an attempt; an urgent one does not wait in line.
    fn begin(&self, key: &ModelKey, wish: &ModelWish, version: VersionNumber, urgent: bool, bytes: Footprint) -> Attempt {
        let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed));
        let cancel = self.loader.tasks.cancelled().child_token();
        let attempt = Attempt { ticket, purpose: wish.purpose(version), bytes, cancel: cancel.clone() };
        let Some(reference) = wish.reference(version) else { return attempt };
        let (loader, loads, events) = (self.loader.clone(), self.loads.clone(), self.events.0.clone());
        let large = (wish.file_bytes(version) >= LARGE).then(|| self.large_loads.clone());
        let (deployment, key) = (wish.deployment.clone(), key.clone());
        let catalogue = self.metrics.clone();
        let metrics = catalogue.model(labels(&key, &version.to_string()));
        self.loader.tasks.spawn("load version", OnEnd::Ignore, async move {
            let load = async {
                // The large ones first stand in their own line, so that they do not fill the common one.
                let _large = match large.filter(|_| !urgent) {
                    Some(large) => large.acquire_owned().await.ok(),
                    None => None,
                };
                let _permit = if urgent { None } else { loads.acquire().await.ok() };
                let start = loader.world.clock.monotonic();
                let result = loader.load(&reference, &deployment, metrics).await;
                let took = loader.world.clock.monotonic().saturating_sub(start);
                let mut reading = Reading::default();
                if let Ok(instance) = &result {
                    catalogue.model_load_duration.observe(took);
                    if let Some(pid) = instance.pid() {
                        reading = tokio::task::spawn_blocking(move || Reading::take(pid)).await.unwrap_or_default();
                    }
                }
                (result, took, reading)
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                (result, took, reading) = load => {
                    let _ = events.send(Event::Loaded { key, version, ticket, took, reading, result }).await;
                }
            }
        });
        attempt
    }

    /// Has it written down that a version answers, when it is the wished one.
    fn note_answering(&self, key: &ModelKey, wish: &ModelWish, version: VersionNumber) {
        let Some(reference) = wish.reference(version).filter(|r| r.purpose == Purpose::Answer) else { return };
        let source = self.loader.source.clone();
        tracing::debug!(tenant = %key.0, model = %key.1, version = version.get(), "the wished version answers");
        self.loader.tasks.spawn("note answering version", OnEnd::Ignore, async move { source.served(&reference).await });
    }

    /// Tells the reconciler when the instance's runner has ended.
    fn watch(&self, key: &ModelKey, version: VersionNumber, ticket: Ticket, instance: Arc<Instance>) {
        let (events, key) = (self.events.0.clone(), key.clone());
        self.loader.tasks.spawn("watch runner", OnEnd::Ignore, async move {
            let exit = instance.ended().await;
            drop(instance);
            if exit != RunnerExit::Stopped {
                let _ = events.send(Event::Ended { key, version, ticket, exit }).await;
            }
        });
    }

    /// Lets an instance go: it takes no more, finishes what it has, and its process ends.
    fn retire(&self, farewell: Farewell) {
        let Farewell { ticket, instance } = farewell;
        tracing::info!(tenant = %instance.tenant, model = %instance.model, version = instance.version.get(), "version let go");
        let events = self.events.0.clone();
        self.loader.tasks.spawn("retire version", OnEnd::Ignore, async move {
            instance.stop(RETIRE_GRACE).await;
            drop(instance);
            let _ = events.send(Event::Gone { ticket }).await;
        });
    }

    fn publish(&self) {
        let mut table = Table { settled: self.settled, memory: self.memory_report(), ..Table::default() };
        let mut loaded = 0u64;
        for ((tenant, name), model) in &self.models {
            let key = (tenant.clone(), name.clone());
            let row = |version: VersionNumber, slot: &Slot| {
                let row = slot.row();
                let leaving = row.state == State::Unloaded && self.is_leaving(&key, version);
                if leaving { VersionRow { state: State::Unloading, ..row } } else { row }
            };
            let versions: BTreeMap<_, _> = model.slots.iter().map(|(v, s)| (*v, row(*v, s))).collect();
            loaded += versions.values().filter(|v| v.state == State::Ready).count() as u64;
            let row = ModelRow { default: model.default, versions };
            table.models.entry(tenant.clone()).or_default().insert(name.clone(), Arc::new(row));
        }
        self.metrics.models_loaded.set_whole(loaded);
        self.published.publish(table);
    }
}

fn labels<'a>(key: &'a ModelKey, version: &'a str) -> ModelLabels<'a> {
    ModelLabels { tenant: key.0.as_str(), model: key.1.as_str(), version }
}
