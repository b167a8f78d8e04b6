//! Limits as effects over the pure parts of `plinth_policy::limits`: which tenant has which, and what a request holds.
//!
//! The order of a request: [`Limits::client`] says where it comes from, [`Limits::door`] whether it may come at all; after it has
//! identified, [`Limits::enter`] takes from every limit of its tenant's plan, or from none, and the [`Entry`] holds that until the last
//! byte. Without a shared store each node counts for itself; with one a tenant's limits hold for all nodes together (see
//! `shared`).
//!
//! Invariants: for limits of a tenant a request that is let in takes no lock and allocates nothing, and costs the same with one tenant
//! and with a hundred thousand; memory for users and addresses is bounded; plans change while requests are under way, and what was
//! counted stays counted. Overload, queues and the answers' bodies are left to others.
//!
//! Bounds that are stated and not hidden: a user's `…/day` is a rate with a day's burst, not a cap; `concurrency` holds on each node; a
//! node that is restarted counts from zero unless nodes share a store.

mod claims;
mod client_address;
mod door;
mod entry;
mod keyed;
mod node;
mod plan;
mod shared;
mod tenant;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use plinth_identity::{Principal, UserKey};
use plinth_policy::limits::{BanSettings, Taken, Verdict};
use plinth_runtime::{OnEnd, TaskGroup, World};
use plinth_store::limits::LeaseStore;
use plinth_store::resources::TenantRecord;
use plinth_store::resources::gateway::{AddressesRecord, CriticalityWord, LimitScope, PlanRecord, builtin_plan};
use plinth_telemetry::LimitMetrics;
use plinth_types::{Label, Result, TenantName};
use tokio::sync::mpsc;

pub use self::client_address::{Networks, client_address};
pub use self::entry::{Cost, Entry, Refused};

use self::claims::Outcome;
use self::door::Door;
use self::keyed::{KeyedCells, mix};
use self::node::Node;
use self::plan::Plan;
use self::shared::{Fetcher, Share, Shared};
use self::tenant::{Table, Tenant};

/// What the configuration says of limits.
#[derive(Debug, Clone)]
pub struct LimitOptions {
    /// Users and addresses whose own limits are counted at a time.
    pub users: usize,
    /// When addresses are banned; never when `None`.
    pub bans: Option<BanSettings>,
    /// Whose addresses never are, besides trusted proxies.
    pub ban_exempt: Networks,
}

impl Default for LimitOptions {
    /// A million users; bans from 500 requests a second; loopback is exempt.
    fn default() -> Self {
        let loopback = Networks::parse(&["127.0.0.0/8", "::1"]).unwrap_or_default();
        Self { users: 1_000_000, bans: Some(BanSettings::default()), ban_exempt: loopback }
    }
}

/// A store that nodes share.
pub struct SharedLimits {
    /// The store. Its own tasks end after `tasks`, so that leases can be brought back.
    pub store: Arc<dyn LeaseStore>,
    /// How many nodes there are.
    pub nodes: u32,
    /// The store's time-out. A request waits at most twice as long for an answer.
    pub timeout: Duration,
    /// Where the task lives that asks the store.
    pub tasks: TaskGroup,
}

/// Who asks, as limits see it.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The tenant.
    pub tenant: &'a TenantName,
    /// Its place in the key ring's table.
    pub tenant_index: u32,
    /// The user; 0 for who has not identified, and is then known by the address.
    pub user: UserKey,
    /// Where the request comes from ([`Limits::client`]).
    pub address: IpAddr,
}

impl<'a> Caller<'a> {
    /// The caller of a principal.
    #[must_use]
    pub const fn of(principal: &'a Principal, address: IpAddr) -> Self {
        Self { tenant: &principal.tenant, tenant_index: principal.tenant_index, user: principal.user, address }
    }
}

/// All limits of a node.
pub struct Limits {
    node: Arc<Node>,
    door: Door,
    table: ArcSwap<Table>,
    /// Of tenants without a plan.
    unlimited: Arc<Plan>,
    /// The plans of the last snapshot; held while a new one is applied.
    plans: Mutex<BTreeMap<Label, Arc<Plan>>>,
}

impl Limits {
    /// Limits in which nobody has any, until [`Limits::apply`].
    ///
    /// # Panics
    /// With a shared store outside a tokio runtime.
    #[must_use]
    pub fn new(world: &World, metrics: LimitMetrics, options: LimitOptions, shared: Option<SharedLimits>) -> Self {
        let seed = world.random.next_u64();
        let share = shared.map(|shared| {
            let (jobs, queue) = mpsc::channel(shared::QUEUE);
            let fetcher = Fetcher { store: shared.store.clone(), metrics: metrics.clone(), world: world.clone() };
            shared.tasks.spawn("fetch leases of limits", OnEnd::CancelGroup, fetcher.run(queue, shared.tasks.cancelled().clone()));
            Share::new(shared.store, shared.nodes.max(1), shared.timeout * 2, jobs)
        });
        let keyed = KeyedCells::new(options.users, metrics.shared_cells.clone());
        let door = Door::new(options.bans, options.ban_exempt, mix(seed), metrics.clone());
        let node = Arc::new(Node { world: world.clone(), metrics, keyed, seed, share });
        let record = PlanRecord { max_criticality: Some(CriticalityWord::Critical), ..PlanRecord::default() };
        let unlimited = Arc::new(Plan::new(record, None, &node));
        let unknown = Arc::new(Tenant::new(TenantName::default_tenant(), unlimited.clone(), None, Duration::ZERO));
        let table = ArcSwap::from_pointee(Table::new(Vec::new(), unknown));
        Self { node, door, table, unlimited, plans: Mutex::default() }
    }

    /// New plans and tenants of a snapshot, each tenant with its index in the key ring. Counters of what did not change go on
    /// counting. Tenants that name no plan have the default one, or no limits; a plan that is missing is the built-in `free`. Costs
    /// about 100 ns for each tenant: not for the request path.
    pub fn apply<'a, P, T>(
        &self,
        plans: &BTreeMap<Label, P>,
        tenants: impl Iterator<Item = (&'a TenantName, u32, &'a T)>,
        default_plan: Option<&Label>,
    ) where
        P: Borrow<PlanRecord>,
        T: Borrow<TenantRecord> + 'a,
    {
        let mut known = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, before) = (self.node.world.clock.monotonic(), self.table.load_full());
        let mut made: BTreeMap<Label, Arc<Plan>> = BTreeMap::new();
        let mut plan = |name: Option<&Label>| {
            let Some(name) = name.or(default_plan) else { return self.unlimited.clone() };
            if let Some(plan) = made.get(name) {
                return plan.clone();
            }
            let plan = self.plan(name, plans.get(name).map(Borrow::borrow), known.get(name));
            made.insert(name.clone(), plan.clone());
            plan
        };
        let next = |name: &TenantName, plan: Arc<Plan>, old: Option<&Arc<Tenant>>| match old {
            Some(old) if Arc::ptr_eq(&old.plan, &plan) => old.clone(),
            old => Arc::new(Tenant::new(name.clone(), plan, old, now)),
        };
        let unknown = next(&TenantName::default_tenant(), plan(None), Some(before.unknown()));
        let mut slots: Vec<Option<Arc<Tenant>>> = Vec::new();
        for (name, index, record) in tenants {
            let old = before.at(index).filter(|tenant| tenant.name == *name).or_else(|| before.named(name));
            let tenant = next(name, plan(record.borrow().plan.as_ref()), old);
            let index = index as usize;
            if slots.len() <= index {
                slots.resize(index + 1, None);
            }
            slots[index] = Some(tenant);
        }
        self.table.store(Arc::new(Table::new(slots, unknown)));
        *known = made;
    }

    fn plan(&self, name: &Label, record: Option<&PlanRecord>, before: Option<&Arc<Plan>>) -> Arc<Plan> {
        let record = record.cloned().or_else(|| builtin_plan(name.as_str())).or_else(|| {
            tracing::warn!(plan = %name, "there is no such plan; its tenants have the plan 'free'");
            builtin_plan("free")
        });
        let record = record.unwrap_or_default();
        match before {
            Some(plan) if plan.record == record => plan.clone(),
            before => Arc::new(Plan::new(record, before.map(|plan| &**plan), &self.node)),
        }
    }

    /// New lists of addresses. One that cannot be read changes nothing.
    pub fn addresses(&self, record: Option<&AddressesRecord>) {
        self.door.apply(record);
    }

    /// Where a request comes from: its peer, or what trusted proxies say of it.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        client_address(peer, headers, &self.door.lists.load().trusted)
    }

    /// Notes that a request from this address was refused, for bans.
    pub fn blame(&self, address: IpAddr, now: Duration) {
        self.door.blame(address, now);
    }

    /// Whether anything from this address may come now, before anything else is known of it.
    ///
    /// # Errors
    /// [`plinth_types::Reason::AddressNotAllowed`], [`plinth_types::Reason::AddressBanned`].
    pub fn door(&self, address: IpAddr, now: Duration) -> Result<()> {
        self.door.pass(address, now)
    }

    /// Ends the ban of an address. Whether there was one.
    pub fn lift_ban(&self, address: IpAddr) -> bool {
        self.door.lift(address, self.node.world.clock.monotonic())
    }

    /// Takes what a request of this operation needs of every limit of its tenant's plan. Waits only for a store that nodes share, and
    /// at most twice its time-out. `now` is the monotonic clock's. Cancel safe: a dropped call gives back what it had taken.
    ///
    /// # Errors
    /// The limit that is used up, with everything given back.
    pub async fn enter(&self, caller: Caller<'_>, operation: &str, cost: Cost, now: Duration) -> Result<Entry, Refused> {
        let mut entry = self.place(caller, cost, now)?;
        match claims::claim(&entry, operation, entry.granted) {
            Outcome::Granted(claimed, tightest) => (entry.claimed, entry.tightest) = (claimed, tightest),
            Outcome::Refused(at, taken) => return Err(Refused::by_rule(entry.tenant.clone(), at, taken)),
            // On the heap, because it is rare and the future would be large.
            Outcome::Ask(shared, at) => Box::pin(wait(&mut entry, operation, shared, at)).await?,
        }
        match &self.node.share {
            Some(share) if entry.is_keyed() && share.store.is_up() => Box::pin(confirm(entry, share)).await,
            _ => Ok(entry),
        }
    }

    /// A place among the tenant's requests.
    fn place(&self, caller: Caller<'_>, cost: Cost, now: Duration) -> Result<Entry, Refused> {
        let tenant = self.table.load().tenant(caller.tenant_index, caller.tenant).clone();
        let permit = match tenant.permits() {
            Some(permits) if !permits.try_take() => {
                let most = permits.max();
                return Err(Refused::by_concurrency(tenant, most));
            }
            permits => permits.is_some(),
        };
        let granted = tenant.plan.moment(now);
        let Caller { user, address, .. } = caller;
        Ok(Entry { tenant, user: user.0, address, cost, granted, claimed: 0, central: 0, tightest: None, permit, actual: None })
    }

    /// Bytes on the heap for users and addresses.
    #[must_use]
    pub fn users_memory(&self) -> usize {
        self.node.keyed.memory()
    }
}

/// Asks again after each answer of the store.
async fn wait(entry: &mut Entry, operation: &str, mut shared: Arc<Shared>, mut at: usize) -> Result<(), Refused> {
    let (node, tenant) = (entry.tenant.plan.node.clone(), entry.tenant.clone());
    let patience = node.share.as_ref().map_or(Duration::ZERO, |share| share.patience);
    let asking = async {
        loop {
            let current = shared.clone();
            let mut answered = std::pin::pin!(current.answered.notified());
            // Before the limit is asked again, so that no answer in between is missed.
            answered.as_mut().enable();
            entry.granted = tenant.plan.now();
            match claims::claim(entry, operation, entry.granted) {
                Outcome::Granted(claimed, tightest) => {
                    (entry.claimed, entry.tightest) = (claimed, tightest);
                    return None;
                }
                Outcome::Refused(at, taken) => return Some((at, taken)),
                Outcome::Ask(other, asked) if Arc::ptr_eq(&other, &current) => {
                    at = asked;
                    answered.await;
                }
                Outcome::Ask(other, asked) => (shared, at) = (other, asked),
            }
        }
    };
    match tokio::time::timeout(patience, asking).await {
        Ok(None) => Ok(()),
        Ok(Some((at, taken))) => Err(Refused::by_rule(tenant, at, taken)),
        Err(_) => Err(Refused::by_rule(tenant, at, later(Duration::from_secs(1)))),
    }
}

/// Asks the store for what limits of users and addresses the node has let pass.
async fn confirm(mut entry: Entry, share: &Share) -> Result<Entry, Refused> {
    let tenant = entry.tenant.clone();
    for (at, rule) in tenant.plan.rules.iter().enumerate().filter(|(_, rule)| rule.scope != LimitScope::Tenant) {
        let Some(cost) = entry.claims(at, rule) else { continue };
        match share.one(entry::store_key(&tenant, rule, entry.user, entry.address), &rule.central, cost).await {
            Ok(counted) => entry.central |= u32::from(counted) << at,
            Err(retry_after) => {
                entry.give_back();
                return Err(Refused::by_rule(tenant.clone(), at, later(retry_after)));
            }
        }
    }
    Ok(entry)
}

const fn later(retry_after: Duration) -> Taken {
    Taken { verdict: Verdict::Later, remaining: 0, retry_after, reset: retry_after }
}
