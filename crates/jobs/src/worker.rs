//! Doing the work: claiming, running, keeping leases alive, writing ends.
//!
//! Invariants: a node runs at most [`WorkerOptions::workers`] jobs; every claimed job ends with one [`Finish`] under its epoch, or the lease runs out; a result
//! that the ledger cannot take now is kept and offered again until it is taken or the job turns out to be another's; when the node ends, what
//! has not ended is given back without using up an attempt.

mod held;
mod run;

use std::sync::Arc;
use std::time::Duration;

use plinth_queue::jobs::{ClaimWish, Claimed, HeldState, KindWish, WorkerId};
use plinth_runtime::{CancellationToken, CrashPoint, OnEnd, TaskGroup};
use tokio::sync::Semaphore;

use self::held::HeldJobs;
use crate::JobService;
use crate::request::millis;

/// The most jobs of one claim.
const MOST: u32 = 256;

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The node's name, the same after a restart and no other node's.
    pub node: String,
    /// Jobs at a time.
    pub workers: u32,
    /// How long a job is a worker's that is not heard of.
    pub lease: Duration,
    /// How often it is heard of.
    pub heartbeat: Duration,
    /// How often the ledger is asked when nothing rings.
    pub poll: Duration,
    /// How often leases, schedules and retention are looked at.
    pub sweep: Duration,
    /// How long running jobs may go on when the node ends, before they are given back.
    pub drain: Duration,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            node: "node".into(),
            workers: 64,
            lease: Duration::from_secs(15),
            heartbeat: Duration::from_secs(5),
            poll: Duration::from_secs(1),
            sweep: Duration::from_secs(2),
            drain: Duration::from_secs(20),
        }
    }
}

/// What a [`Worker`] is made of.
pub struct WorkerParts {
    /// Jobs.
    pub service: JobService,
    /// How it works.
    pub options: WorkerOptions,
    /// The lowest class that may begin now: 3 for all, 2 while the node is busy with those who wait for an answer. Asked before each claim.
    pub lowest_class: Arc<dyn Fn() -> u8 + Send + Sync>,
}

/// Does the work of a node. Cheap to clone.
#[derive(Clone)]
pub struct Worker(Arc<Inner>);

struct Inner {
    service: JobService,
    options: WorkerOptions,
    lowest_class: Arc<dyn Fn() -> u8 + Send + Sync>,
    id: WorkerId,
    held: HeldJobs,
    room: Arc<Semaphore>,
    /// Jobs run here, so that they end before the rest.
    running: TaskGroup,
    /// Cancelled when no further job shall begin.
    stopping: CancellationToken,
}

impl Worker {
    /// Starts a worker; its loops run in `tasks`. What this node's former process held is given back at once.
    #[must_use]
    pub fn start(parts: WorkerParts, tasks: &TaskGroup) -> Self {
        let WorkerParts { service, options, lowest_class } = parts;
        let id = WorkerId(format!("{}/{}", options.node, service.next_id()));
        let room = Arc::new(Semaphore::new(options.workers as usize));
        let running = TaskGroup::new("jobs");
        let stopping = tasks.cancelled().child_token();
        let inner = Inner { service, options, lowest_class, id, held: HeldJobs::default(), room, running, stopping };
        let worker = Self(Arc::new(inner));
        // A loop that has stopped in order waits for the end of its group, which its early end would bring about.
        let keep = |name: &'static str, ended: CancellationToken, work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            tasks.spawn(name, OnEnd::CancelGroup, async move {
                work.await;
                ended.cancelled().await;
            });
        };
        let ended = tasks.cancelled();
        if worker.0.options.workers > 0 {
            let (claimer, beater) = (worker.clone(), worker.clone());
            keep("job claims", ended.clone(), Box::pin(async move { claimer.claims().await }));
            keep("job heartbeats", ended.clone(), Box::pin(async move { beater.heartbeats().await }));
        }
        let sweeper = worker.clone();
        let sweeps = async move { crate::sweeper::sweeps(&sweeper.0.service, &sweeper.0.options, &sweeper.0.stopping).await };
        keep("job sweeps", ended.clone(), Box::pin(sweeps));
        worker
    }

    /// This process as the ledger knows it.
    #[must_use]
    pub fn id(&self) -> &WorkerId {
        &self.0.id
    }

    /// How many jobs run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.0.held.len()
    }

    /// Begins nothing more, lets what runs go on for [`WorkerOptions::drain`], and gives the rest back.
    pub async fn stop(&self) {
        self.0.stopping.cancel();
        let inner = &self.0;
        let waiting = inner.room.acquire_many(inner.options.workers);
        if tokio::time::timeout(inner.options.drain, waiting).await.is_err() {
            // Handlers are told, and what they leave is given back by who runs them.
            inner.held.cancel_all(held::Why::NodeEnds);
            let waiting = inner.room.acquire_many(inner.options.workers);
            let _ = tokio::time::timeout(Duration::from_secs(5), waiting).await;
        }
        inner.running.close(Duration::from_secs(1)).await;
    }

    async fn claims(&self) {
        let inner = &*self.0;
        // What a former process of this node held, nobody else will end.
        while let Err(error) = inner.service.ledger().release(&inner.options.node, &inner.id).await {
            tracing::warn!(%error, "jobs of this node's former process cannot be given back yet");
            if inner.stopping.run_until_cancelled(tokio::time::sleep(inner.options.poll)).await.is_none() {
                return;
            }
        }
        loop {
            let Some(claimed) = inner.stopping.run_until_cancelled(self.claim()).await else { return };
            let wait = match claimed {
                Ok(0) => self.pause(),
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(cause = error.log_text(), "jobs cannot be claimed");
                    self.pause()
                }
            };
            let rung = tokio::time::timeout(wait, inner.service.bus().rung());
            if inner.stopping.run_until_cancelled(rung).await.is_none() {
                return;
            }
        }
    }

    /// The poll with a fifth of jitter, so that nodes do not ask together.
    fn pause(&self) -> Duration {
        let draw = self.0.service.world().random.next_u64() as f64 / u64::MAX as f64;
        self.0.options.poll.mul_f64(0.2f64.mul_add(-draw, 1.0))
    }

    /// Waits for room, claims, and starts what was claimed; how many.
    async fn claim(&self) -> plinth_types::Result<usize> {
        let inner = &*self.0;
        // Room first, so that what is claimed begins at once.
        drop(inner.room.acquire().await);
        let room = u32::try_from(inner.room.available_permits()).unwrap_or(u32::MAX).min(MOST);
        let kinds: Vec<KindWish> = inner
            .service
            .kinds()
            .names()
            .filter_map(|kind| {
                let own = inner.service.kinds().get(kind).and_then(|handler| handler.concurrency());
                let most = own.map_or(room, |own| own.saturating_sub(inner.held.of_kind(kind)).min(room));
                (most > 0).then(|| KindWish { kind: kind.to_owned(), most })
            })
            .collect();
        let wish = ClaimWish {
            worker: inner.id.clone(),
            kinds,
            most: room,
            lowest_class: (inner.lowest_class)(),
            lease_millis: millis(inner.options.lease),
        };
        let claimed = inner.service.ledger().claim(wish).await.map_err(|error| inner.service.failed(error))?;
        let count = claimed.len();
        for job in claimed {
            self.begin(job).await;
        }
        Ok(count)
    }

    async fn begin(&self, job: Claimed) {
        let inner = &*self.0;
        let Ok(permit) = inner.room.clone().acquire_owned().await else { return };
        let stop = inner.held.add(&job);
        let worker = self.clone();
        inner.service.world().crash.reach(CrashPoint::JobAtStart);
        inner.running.spawn("job", OnEnd::Ignore, async move {
            let _permit = permit;
            let (id, epoch) = (job.id, job.epoch);
            run::run(&worker.0.service, job, &stop).await;
            worker.0.held.remove(id, epoch);
            worker.0.service.followers().touch(id);
        });
    }

    async fn heartbeats(&self) {
        let inner = &*self.0;
        loop {
            // Also when the node ends: what still runs must be kept.
            let ended = inner.running.cancelled().clone();
            if ended.run_until_cancelled(self.beat()).await.is_none() || (inner.stopping.is_cancelled() && inner.held.len() == 0) {
                return;
            }
        }
    }

    async fn beat(&self) {
        let inner = &*self.0;
        // A cancellation rings, so that a job of this node hears of it at once.
        let _ = tokio::time::timeout(inner.options.heartbeat, inner.service.looks().rung()).await;
        let held = inner.held.all();
        if held.is_empty() {
            if inner.stopping.is_cancelled() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            return;
        }
        match inner.service.ledger().heartbeat(&inner.id, held.clone(), millis(inner.options.lease)).await {
            Ok(states) => {
                for (job, state) in held.iter().zip(states) {
                    match state {
                        HeldState::Held => {}
                        HeldState::CancelAsked => inner.held.cancel(*job, held::Why::Asked),
                        HeldState::Lost => inner.held.cancel(*job, held::Why::Lost),
                    }
                }
            }
            Err(error) => {
                // The leases may run out; what is written after that is fenced.
                let error = inner.service.failed(error);
                tracing::warn!(cause = error.log_text(), "the leases of {} jobs cannot be prolonged", held.len());
            }
        }
    }
}
