//! Limits that nodes share: leases from a store, fetched by one task.
//!
//! A request takes from the lease that the node holds; when that runs low the request leaves a question for the task and goes on. Only
//! a request that finds nothing waits for the answer, at most twice the store's time-out. While the store is away the node lives on
//! its share of each limit, and who waits is woken at once. Invariant: the limit is exceeded by at most one lease for each node; how
//! large that is and why it holds is stated at [`plinth_policy::limits::lease`].
//!
//! Limits of users and addresses are asked for one by one, because most of their bursts are smaller than any lease: each request is one
//! question, after the node's own cell has let it pass. Nothing is held, so nothing is exceeded; a question without an answer lets
//! the request in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use plinth_policy::limits::{LeaseRequest, Leased};
use plinth_runtime::{CancellationToken, World};
use plinth_store::limits::{Central, LeaseStore};
use plinth_telemetry::LimitMetrics;
use plinth_types::TenantName;
use tokio::sync::{Notify, mpsc};

use super::plan::Rule;

/// Questions that wait for the task.
pub(super) const QUEUE: usize = 4096;
/// Questions on their way at a time.
const FLIGHTS: usize = 256;
/// How often leases are looked at that nobody uses any longer.
const SWEEP: Duration = Duration::from_millis(250);
/// After so long without a question a limit is not looked at any longer.
const QUIET: Duration = Duration::from_secs(30);
/// For bringing leases back when the node stops.
const FAREWELL: Duration = Duration::from_millis(500);

/// A limit of a tenant on this node.
pub(super) struct Shared {
    pub leased: Leased,
    key: Box<str>,
    rule: Central,
    /// Held while the node turns to its share or back.
    turn: Mutex<()>,
    /// Every answer, and the loss of the store.
    pub answered: Notify,
}

/// What the task is asked to do.
pub(super) enum Job {
    Lease(Arc<Shared>, LeaseRequest),
    /// Tokens that a user's request did not need.
    Return(String, Central, LeaseRequest),
}

/// The way to the store.
pub(super) struct Share {
    pub store: Arc<dyn LeaseStore>,
    pub nodes: u32,
    /// The most that a request waits for an answer.
    pub patience: Duration,
    jobs: mpsc::Sender<Job>,
}

impl Share {
    pub const fn new(store: Arc<dyn LeaseStore>, nodes: u32, patience: Duration, jobs: mpsc::Sender<Job>) -> Self {
        Self { store, nodes, patience, jobs }
    }

    /// A limit of a tenant, from its first request on.
    pub fn limit(tenant: &TenantName, rule: &Rule) -> Arc<Shared> {
        Arc::new(Shared {
            leased: Leased::new(rule.rate, rule.lease),
            key: format!("{tenant}:{}", rule.name).into(),
            rule: rule.central,
            turn: Mutex::new(()),
            answered: Notify::new(),
        })
    }

    /// Turns the limit to what the store is now.
    pub fn follow(&self, shared: &Shared, now: Duration) {
        let up = self.store.is_up();
        if shared.leased.is_lost() == up
            && let Ok(_turn) = shared.turn.try_lock()
        {
            if up { shared.leased.back(now) } else { shared.leased.lost(now) }
        }
    }

    /// Leaves a question, if there is one to ask. Never waits.
    pub fn poke(&self, shared: &Arc<Shared>, now: Duration) {
        if let Some(request) = shared.leased.wants(now)
            && self.jobs.try_send(Job::Lease(shared.clone(), request)).is_err()
        {
            shared.leased.failed(&request, now);
        }
    }

    /// Asks for one request of a user: whether it was counted, or how long to wait when it must not pass now.
    pub async fn one(&self, key: String, rule: &Central, cost: u64) -> Result<bool, Duration> {
        let Ok(answer) = self.store.lease(&key, rule, &plain(cost, 0)).await else { return Ok(false) };
        if answer.granted >= cost {
            return Ok(true);
        }
        self.give_back(key, rule, answer.granted);
        Err(answer.retry_after.max(Duration::from_millis(1)))
    }

    /// Brings back what a user's request did not need, in the background.
    pub fn give_back(&self, key: String, rule: &Central, units: u64) {
        if units > 0 {
            // Lost when the queue is full: then less is admitted than could be.
            let _ = self.jobs.try_send(Job::Return(key, *rule, plain(0, units)));
        }
    }

    /// Takes what a user's request needed beyond its reservation, as far as there is any.
    pub fn owe(&self, key: String, rule: &Central, units: u64) {
        if units > 0 {
            let _ = self.jobs.try_send(Job::Return(key, *rule, plain(units, 0)));
        }
    }
}

const fn plain(want: u64, unused: u64) -> LeaseRequest {
    LeaseRequest { want, unused, window: 0, lost_for: Duration::ZERO, spent: 0, sent: Duration::ZERO }
}

/// The task.
pub(super) struct Fetcher {
    pub store: Arc<dyn LeaseStore>,
    pub metrics: LimitMetrics,
    pub world: World,
}

impl Fetcher {
    /// Asks until the end, then brings back what is held.
    pub async fn run(self, mut jobs: mpsc::Receiver<Job>, end: CancellationToken) {
        let mut flights = FuturesUnordered::new();
        let mut active: HashMap<usize, (Arc<Shared>, Duration)> = HashMap::new();
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = end.cancelled() => break,
                Some(()) = flights.next(), if !flights.is_empty() => {}
                Some(job) = jobs.recv(), if flights.len() < FLIGHTS => {
                    if let Job::Lease(shared, _) = &job {
                        active.insert(Arc::as_ptr(shared) as usize, (shared.clone(), self.world.clock.monotonic()));
                    }
                    flights.push(self.serve(job));
                }
                _ = sweep.tick() => {
                    let now = self.world.clock.monotonic();
                    self.metrics.store_up.set(f64::from(u8::from(self.store.is_up())));
                    active.retain(|_, (_, used)| now.saturating_sub(*used) < QUIET);
                    for (shared, _) in active.values() {
                        if let Some(request) = self.due(shared, now) {
                            flights.push(self.serve(Job::Lease(shared.clone(), request)));
                        }
                    }
                }
            }
        }
        drop(flights);
        let farewell = active.into_values().map(|(shared, _)| self.surrender(shared));
        let all = farewell.collect::<FuturesUnordered<_>>().for_each(async |()| {});
        let _ = tokio::time::timeout(FAREWELL, all).await;
    }

    /// What to ask for a limit that perhaps nobody uses.
    fn due(&self, shared: &Arc<Shared>, now: Duration) -> Option<LeaseRequest> {
        let up = self.store.is_up();
        if shared.leased.is_lost() == up
            && let Ok(_turn) = shared.turn.try_lock()
        {
            if up { shared.leased.back(now) } else { shared.leased.lost(now) }
        }
        if up { shared.leased.wants(now) } else { None }
    }

    async fn serve(&self, job: Job) {
        match job {
            Job::Lease(shared, request) => {
                let answer = self.store.lease(&shared.key, &shared.rule, &request).await;
                let now = self.world.clock.monotonic();
                match answer {
                    Ok(answer) => {
                        let short = answer.granted < request.want;
                        if short { &self.metrics.leases_short } else { &self.metrics.leases_granted }.inc();
                        shared.leased.granted(&request, &answer, now);
                    }
                    Err(_) => {
                        self.metrics.leases_failed.inc();
                        shared.leased.failed(&request, now);
                    }
                }
                shared.answered.notify_waiters();
            }
            Job::Return(key, rule, request) => {
                if self.store.lease(&key, &rule, &request).await.is_err() {
                    self.metrics.leases_failed.inc();
                }
            }
        }
    }

    async fn surrender(&self, shared: Arc<Shared>) {
        let request = shared.leased.surrender(self.world.clock.monotonic());
        if request.unused > 0 || request.spent > 0 {
            let _ = self.store.lease(&shared.key, &shared.rule, &request).await;
        }
    }
}
