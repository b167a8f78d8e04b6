//! Requests that wait for a version to be loaded.
//!
//! A version that is loaded on demand has a [`Gate`] in the table. Who finds it unloaded leaves a mark there, rings the
//! reconciler and waits for the table to change: until the version answers, until it is clear that it will not, or until
//! the request's own deadline. Invariants: never more wait than the bounds allow, further ones are refused at once; a mark
//! is taken back however the wait ends; a refusal reaches exactly those who asked before it was made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use plinth_telemetry::{UpDownCounter, UpGuard};
use plinth_types::{Error, ModelName, Reason, Result, TenantName, VersionNumber};
use tokio::sync::Notify;

use crate::serving::Published;
use crate::table::{State, Table};
use crate::{Instance, Serving};

/// How many versions' worth of waiting requests a node holds.
const VERSIONS: usize = 4;

/// Where requests wait for one version.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    parked: AtomicUsize,
    asked: AtomicU64,
    /// The earliest deadline of those who wait, in nanoseconds (monotonic). May be that of one who has left already.
    deadline: AtomicU64,
}

impl Gate {
    /// How many wait.
    pub fn parked(&self) -> usize {
        self.parked.load(Ordering::Acquire)
    }

    /// How many ever asked. A decision made after this was read is one for all of them.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    pub fn deadline(&self) -> Duration {
        Duration::from_nanos(self.deadline.load(Ordering::Acquire))
    }
}

/// All who wait on this node.
pub(crate) struct Parking {
    count: AtomicUsize,
    most_for_one: usize,
    most: usize,
    rung: Notify,
    shown: UpDownCounter,
}

impl Parking {
    /// At most `most_for_one` wait for one version.
    pub fn new(most_for_one: usize, shown: UpDownCounter) -> Self {
        let most_for_one = most_for_one.max(1);
        Self { count: AtomicUsize::new(0), most_for_one, most: most_for_one.saturating_mul(VERSIONS), rung: Notify::new(), shown }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Returns when somebody began to wait for what nobody waited for. Cancel safe.
    pub async fn rung(&self) {
        self.rung.notified().await;
    }

    /// `again`: those before were refused, so somebody must look once more.
    fn enter(self: &Arc<Self>, gate: &Arc<Gate>, deadline: Duration, again: bool) -> Option<Place> {
        let take = |count: &AtomicUsize, most: usize| {
            count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < most).then_some(n + 1)).ok()
        };
        take(&self.count, self.most)?;
        let Some(before) = take(&gate.parked, self.most_for_one) else {
            self.count.fetch_sub(1, Ordering::AcqRel);
            return None;
        };
        let deadline = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        if before == 0 {
            gate.deadline.store(deadline, Ordering::Release);
        } else {
            gate.deadline.fetch_min(deadline, Ordering::AcqRel);
        }
        let number = gate.asked.fetch_add(1, Ordering::AcqRel) + 1;
        if before == 0 || again {
            self.rung.notify_one();
        }
        Some(Place { gate: gate.clone(), parking: self.clone(), number, _shown: self.shown.hold() })
    }
}

/// A place in the line of one version; given back when it is dropped.
struct Place {
    gate: Arc<Gate>,
    parking: Arc<Parking>,
    number: u64,
    _shown: UpGuard,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.parked.fetch_sub(1, Ordering::AcqRel);
        self.parking.count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a request looks for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub tenant: &'a TenantName,
    pub model: &'a ModelName,
    /// The default one when `None`.
    pub version: Option<VersionNumber>,
    /// An instance that has sent the request away: its successor is looked for.
    pub not: Option<&'a Arc<Instance>>,
}

/// What a look into the table says.
enum Look {
    Ready(Arc<Instance>),
    /// Nothing answers now; whoever asked here waits.
    Asleep {
        number: VersionNumber,
        gate: Arc<Gate>,
        refused_before: bool,
    },
    /// Nothing answers now, and something will be done about it without being asked.
    Coming,
    Refused(Error),
}

impl Wanted<'_> {
    /// `waiting` is the version for which it waits already, with its place.
    fn look(&self, table: &Table, waiting: Option<&(VersionNumber, Place)>) -> Look {
        let error = match table.resolve(self.tenant, self.model, self.version) {
            Ok(instance) if self.not.is_some_and(|not| Arc::ptr_eq(not, instance)) => return Look::Coming,
            Ok(instance) => return Look::Ready(instance.clone()),
            Err(error) => error,
        };
        let Some(row) = table.row(self.tenant, self.model) else { return Look::Refused(error) };
        let number = self.version.or(row.default).or(waiting.map(|(number, _)| *number));
        let Some((number, version)) = number.and_then(|n| Some((n, row.versions.get(&n)?))) else {
            let coming = self.not.is_some() && table.is_coming(self.tenant, self.model, self.version);
            return if coming { Look::Coming } else { Look::Refused(error) };
        };
        if matches!(version.state, State::Failed | State::Quarantined) {
            return Look::Refused(version.not_ready(self.model, number));
        }
        if let Some(gate) = &version.memory.gate {
            let mine = waiting.filter(|(_, place)| Arc::ptr_eq(&place.gate, gate));
            if let (Some((_, place)), Some((reason, text))) = (mine, &version.refusal)
                && place.number <= version.memory.refused
            {
                return Look::Refused(Error::new(*reason, text.clone()).retry_after(Duration::from_secs(5)));
            }
            return Look::Asleep { number, gate: gate.clone(), refused_before: version.refusal.is_some() };
        }
        let comes = version.loading || version.state == State::Restarting;
        if comes && (waiting.is_some() || self.not.is_some()) { Look::Coming } else { Look::Refused(error) }
    }
}

impl Published {
    /// Finds what answers, and waits for it when it is one that is loaded on demand. `now` and `deadline` are monotonic.
    /// Cancel safe.
    pub async fn find(&self, wanted: Wanted<'_>, now: Duration, deadline: Duration) -> Result<Arc<Instance>> {
        if wanted.not.is_none()
            && let Ok(instance) = self.table().load().resolve(wanted.tenant, wanted.model, wanted.version)
        {
            return Ok(instance.clone());
        }
        let search = self.search(wanted, deadline);
        tokio::time::timeout(deadline.saturating_sub(now), search).await.unwrap_or_else(|_| {
            let text = format!("the deadline passed while model '{}' was being loaded", wanted.model);
            Err(Error::new(Reason::DeadlineExceeded, text).retry_after(Duration::from_secs(1)))
        })
    }

    async fn search(&self, wanted: Wanted<'_>, deadline: Duration) -> Result<Arc<Instance>> {
        let mut bell = self.bell().subscribe();
        let mut waiting: Option<(VersionNumber, Place)> = None;
        loop {
            bell.mark_unchanged();
            // In a block of its own: the table must not be held while this waits.
            let look = { wanted.look(&self.table().load(), waiting.as_ref()) };
            match look {
                Look::Ready(instance) => return Ok(instance),
                Look::Refused(error) => return Err(error),
                Look::Coming => {}
                Look::Asleep { number, gate, refused_before } => {
                    if !waiting.as_ref().is_some_and(|(_, place)| Arc::ptr_eq(&place.gate, &gate)) {
                        let place = self.parking().enter(&gate, deadline, refused_before).ok_or_else(|| full(wanted.model))?;
                        waiting = Some((number, place));
                    }
                }
            }
            if bell.changed().await.is_err() {
                return Err(Error::new(Reason::ShuttingDown, "the node is shutting down"));
            }
        }
    }
}

fn full(model: &ModelName) -> Error {
    let text = format!("too many requests wait for model '{model}' to be loaded; try again in a moment");
    Error::new(Reason::QueueFull, text).retry_after(Duration::from_secs(1))
}

impl Serving {
    /// What answers for a model. A version that is loaded on demand is loaded for it, and the call waits for that at most
    /// until `deadline`, counted from now. Costs a look into the table when the version is loaded. Cancel safe.
    ///
    /// # Errors
    /// As [`Table::resolve`]; `OverCapacity` when there is no memory for it, `QueueFull` when too many wait already,
    /// `DeadlineExceeded`.
    pub async fn ready(
        &self,
        tenant: &TenantName,
        model: &ModelName,
        version: Option<VersionNumber>,
        deadline: Duration,
    ) -> Result<Arc<Instance>> {
        let now = self.now();
        self.published().find(Wanted { tenant, model, version, not: None }, now, now.saturating_add(deadline)).await
    }

    /// The memory of models on this node.
    #[must_use]
    pub fn memory(&self) -> super::MemoryReport {
        super::MemoryReport { parked: self.published().parking().len(), ..self.table().memory.clone() }
    }
}

#[cfg(test)]
mod tests;
