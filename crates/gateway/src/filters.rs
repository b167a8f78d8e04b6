//! Filters on the request path: WebAssembly modules that requests of a route pass, and their answers.
//!
//! [`Filters`] follows the ledger: it loads the newest version of each filter and those that routes name, away from requests.
//! A route holds the [`Slot`]s of its filters; a request takes what stands in them at its beginning ([`chain`]) and keeps it to its end.
//!
//! Invariants: a route's request never passes without its filters: while one is not loaded it waits a bounded time, then it is refused;
//! a newer version comes into force when it is loaded, and until then the older one runs on; what is no longer named is
//! kept until the next change, so that who began with an older table of routes still finds it.
//!
//! Left to others: where modules come from and whether they may be trusted ([`FilterSource`]), running them (`plinth_filters`).

mod body;
mod chain;
mod exchange;
mod loaded;
mod slot;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use plinth_api::{FilterHost, FilterState};
use plinth_filters::Filter;
use plinth_registry::FilterFacts;
use plinth_runtime::{OnEnd, TaskGroup, World};
use plinth_store::resources::gateway::{FilterRecord, FilterRef, FilterVersion, RouteRecord};
use plinth_telemetry::Catalogue;
use plinth_types::{Class, Label, Result, TenantName, VersionNumber};

use self::loaded::Loaded;
use self::slot::Slot;

pub(crate) use self::chain::Chain;
pub use self::chain::Handle;
pub(crate) use self::step::Passed;

/// Brings a version of a filter to where it can be called.
#[async_trait]
pub trait FilterSource: Send + Sync {
    /// Judges the signature, fetches the module, compiles it and tries it. Takes no processor time from requests.
    ///
    /// # Errors
    /// `SignatureMissing` and the other reasons of trust, `InvalidFilter`, `ContentAltered`; of class `Unavailable` when it may work later.
    async fn load(&self, facts: FilterFacts<'_>, version: &FilterVersion) -> Result<Filter>;
}

/// Records by tenant and name, as a snapshot has them.
type OfTenants<V> = Arc<BTreeMap<TenantName, Arc<BTreeMap<Label, Arc<V>>>>>;

/// What filters share.
pub struct Filters {
    source: Arc<dyn FilterSource>,
    known: Mutex<Known>,
    catalogue: Arc<Catalogue>,
    world: World,
    tasks: TaskGroup,
}

#[derive(Default)]
struct Known {
    slots: HashMap<TenantName, HashMap<Label, Arc<Slot>>>,
    /// What was followed last.
    seen: Option<(OfTenants<FilterRecord>, OfTenants<RouteRecord>)>,
}

/// The first pause after a load that may work later.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Filters {
    /// With none loaded.
    #[must_use]
    pub fn new(source: Arc<dyn FilterSource>, catalogue: Arc<Catalogue>, world: World, tasks: TaskGroup) -> Arc<Self> {
        Arc::new(Self { source, known: Mutex::default(), catalogue, world, tasks })
    }

    /// Takes the filters of a snapshot, and begins to load what is needed. Before its routes: they ask for slots.
    pub fn follow(self: &Arc<Self>, filters: &OfTenants<FilterRecord>, routes: &OfTenants<RouteRecord>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.seen.as_ref().is_some_and(|(a, b)| Arc::ptr_eq(a, filters) && Arc::ptr_eq(b, routes)) {
            return;
        }
        let pinned = pinned(filters, routes);
        let mut slots: HashMap<TenantName, HashMap<Label, Arc<Slot>>> = HashMap::new();
        for (tenant, records) in filters.iter() {
            for (name, record) in records.iter() {
                let old = known.slots.get(tenant).and_then(|of| of.get(name)).cloned();
                let slot = old.unwrap_or_else(|| Arc::new(Slot::new(tenant.clone(), name.clone())));
                let numbers = pinned.get(&(tenant, name));
                for number in slot.want(record, |number| numbers.is_some_and(|numbers| numbers.contains(&number))) {
                    if let Some(version) = record.versions.get(&number) {
                        self.begin(&slot, number, version.clone());
                    }
                }
                slots.entry(tenant.clone()).or_default().insert(name.clone(), slot);
            }
        }
        known.slots = slots;
        known.seen = Some((filters.clone(), routes.clone()));
        let loaded: usize = known.slots.values().flat_map(HashMap::values).map(|slot| slot.ready()).sum();
        self.catalogue.filters_loaded.set_whole(loaded as u64);
    }

    /// What a route of a tenant gets that names this filter: its own, else the shared one.
    pub(crate) fn handle(&self, tenant: &TenantName, named: &FilterRef) -> Handle {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |owner: &TenantName| known.slots.get(owner)?.get(&named.name).cloned();
        Handle::new(named.clone(), of(tenant).or_else(|| of(&TenantName::default_tenant())))
    }

    fn begin(self: &Arc<Self>, slot: &Arc<Slot>, number: VersionNumber, version: FilterVersion) {
        let (own, slot, stop) = (self.clone(), slot.clone(), self.tasks.cancelled().clone());
        self.tasks.spawn("load a filter", OnEnd::Ignore, async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = own.load(&slot, number, &version) => {}
            }
        });
    }

    /// Loads until it is loaded, or refused for good, or no longer wanted.
    async fn load(&self, slot: &Slot, number: VersionNumber, version: &FilterVersion) {
        let facts = FilterFacts { tenant: &slot.tenant, name: &slot.name, version: number };
        let mut pause = FIRST_PAUSE;
        while slot.wants(number, version) {
            match self.source.load(facts, version).await {
                Ok(filter) => {
                    let loaded = Loaded::new(facts, version, filter, &self.catalogue, &self.world);
                    if slot.loaded(number, version, Arc::new(loaded)) {
                        tracing::info!(tenant = %slot.tenant, filter = %slot.name, version = number.get(), "filter loaded");
                        self.catalogue.filters_loaded.set_whole(self.count());
                    }
                    return;
                }
                Err(error) => {
                    self.catalogue.filter_load_failures.inc();
                    let (reason, cause) = (error.reason(), error.log_text());
                    tracing::warn!(tenant = %slot.tenant, filter = %slot.name, version = number.get(), %reason, error = %error, cause, "a filter cannot be loaded");
                    let later = error.class() == Class::Unavailable;
                    slot.failed(number, version, format!("{reason}: {}", error.public_text()), later);
                    if !later {
                        return;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn count(&self) -> u64 {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.slots.values().flat_map(HashMap::values).map(|slot| slot.ready() as u64).sum()
    }
}

/// The versions that routes name, by whose filter it is.
fn pinned<'a>(
    filters: &'a OfTenants<FilterRecord>,
    routes: &'a OfTenants<RouteRecord>,
) -> HashMap<(&'a TenantName, &'a Label), BTreeSet<VersionNumber>> {
    let mut all: HashMap<_, BTreeSet<VersionNumber>> = HashMap::new();
    for (tenant, routes) in routes.iter() {
        for named in routes.values().flat_map(|route| &route.filters) {
            let Some(version) = named.version else { continue };
            let own = filters.get_key_value(tenant).filter(|(_, of)| of.contains_key(&named.name));
            let shared = || filters.iter().find(|(owner, _)| **owner == TenantName::default_tenant());
            let Some((owner, of)) = own.or_else(shared) else { continue };
            if let Some((name, _)) = of.get_key_value(&named.name) {
                all.entry((owner, name)).or_default().insert(version);
            }
        }
    }
    all
}

#[async_trait]
impl FilterHost for Filters {
    async fn check(&self, facts: FilterFacts<'_>, version: &FilterVersion) -> Result<()> {
        self.source.load(facts, version).await.map(drop)
    }

    fn state(&self, facts: FilterFacts<'_>) -> FilterState {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = known.slots.get(facts.tenant).and_then(|of| of.get(facts.name));
        slot.map_or(FilterState { word: "idle", reason: None }, |slot| slot.state(facts.version, self.world.clock.monotonic()))
    }
}
