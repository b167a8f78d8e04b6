//! What callers see of jobs.
//!
//! Invariant: everything here is of one tenant, which the caller's credentials name; another tenant's job is one that does not exist.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plinth_bus::Bus;
use plinth_net::outbound::Guard;
use plinth_policy::jobs::{State, estimate_wait, poll_after};
use plinth_queue::Jobs;
use plinth_queue::jobs::{
    Attempt, Cancelled, Counts, IdempotencyKey, Job, JobEvent, JobId, JobIds, KindSettings, ListJobs, ReplayWish, Submission,
    Submitted as Stored,
};
use plinth_runtime::World;
use plinth_telemetry::Catalogue;
use plinth_types::{DigestHasher, Error, Reason, Result, TenantName};

use crate::estimate::Seen;
use crate::follow::Followers;
use crate::limits::{JobLimits, MAX_KEY};
use crate::request::{JobRequest, Judge, Submit};
use crate::waiting::{Judged, Waiting};
use crate::{Bell, Blobs, Input, Kinds, Meta, from_queue};

/// How far a position in line is looked for.
const MAX_POSITION: u64 = 100_000;
/// How often a job of another node is looked at while somebody waits for it.
const LOOK: Duration = Duration::from_secs(1);

/// What a [`JobService`] is made of.
pub struct ServiceParts {
    /// The ledger.
    pub ledger: Arc<dyn Jobs>,
    /// Where large bytes are.
    pub blobs: Blobs,
    /// The kinds that this node knows.
    pub kinds: Kinds,
    /// What jobs may cost.
    pub limits: JobLimits,
    /// Which addresses webhooks may name.
    pub guard: Guard,
    /// Wakes the workers of all nodes.
    pub bus: Bus,
    /// What is counted.
    pub metrics: Arc<Catalogue>,
    /// Time and randomness.
    pub world: World,
}

/// What callers see of jobs. Cheap to clone.
#[derive(Clone)]
pub struct JobService(Arc<Inner>);

struct Inner {
    parts: ServiceParts,
    ids: JobIds,
    looks: Bell,
    followers: Followers,
    seen: Seen,
    waiting: Waiting,
}

/// What a submission did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The jobs, in the order in which they were asked for.
    pub ids: Vec<JobId>,
    /// Whether they were there before, under the same idempotency key.
    pub replayed: bool,
}

/// A job with what can be said about its line.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The job.
    pub job: Job,
    /// How many of its kind are to begin before it; `None` when it does not wait for a worker.
    pub position: Option<u64>,
    /// How long until it begins, as far as one can know.
    pub wait: Option<Duration>,
    /// When to look again; `None` when it has ended.
    pub retry_after: Option<Duration>,
}

impl JobService {
    /// Takes the parts.
    #[must_use]
    pub fn new(parts: ServiceParts) -> Self {
        let ids = JobIds::new(parts.world.clone());
        Self(Arc::new(Inner {
            parts,
            ids,
            looks: Bell::default(),
            followers: Followers::default(),
            seen: Seen::default(),
            waiting: Waiting::default(),
        }))
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Arc<dyn Jobs> {
        &self.0.parts.ledger
    }

    /// Where large bytes are.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        &self.0.parts.blobs
    }

    /// The kinds that this node knows.
    #[must_use]
    pub fn kinds(&self) -> &Kinds {
        &self.0.parts.kinds
    }

    /// What jobs may cost.
    #[must_use]
    pub fn limits(&self) -> &JobLimits {
        &self.0.parts.limits
    }

    /// Rings when there is work.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.0.parts.bus
    }

    /// Rings when somebody asked for the end of a job that may run here.
    pub(crate) fn looks(&self) -> &Bell {
        &self.0.looks
    }

    pub(crate) fn followers(&self) -> &Followers {
        &self.0.followers
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.0.seen
    }

    pub(crate) fn world(&self) -> &World {
        &self.0.parts.world
    }

    pub(crate) fn metrics(&self) -> &Arc<Catalogue> {
        &self.0.parts.metrics
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.0.parts.guard
    }

    /// A new id.
    #[must_use]
    pub fn next_id(&self) -> JobId {
        self.0.ids.next()
    }

    /// What judges requests of somebody now.
    pub(crate) fn judge<'a>(&'a self, actor: &'a str) -> Judge<'a> {
        let now = self.world().clock.now();
        Judge { kinds: self.kinds(), limits: self.limits(), ids: &self.0.ids, now, actor, guard: self.guard() }
    }

    /// Counts a failure of the ledger and turns it into what a caller hears.
    pub(crate) fn failed(&self, error: plinth_queue::QueueError) -> Error {
        self.metrics().jobs_ledger_failures.inc();
        from_queue(error)
    }

    /// Stores jobs, all or none. With `key` a repeated submission gives the same jobs.
    ///
    /// # Errors
    /// What is wrong with the request, with its field; [`Reason::IdempotencyKeyReused`], [`Reason::JobNotFound`] for one that shall be waited for,
    /// [`Reason::JobsLimited`], [`Reason::StorageFull`], [`Reason::StoreUnavailable`].
    pub async fn submit(&self, tenant: &TenantName, actor: &str, key: Option<&str>, asked: Vec<(JobRequest, Input)>) -> Result<Submitted> {
        let fingerprint = key.map(|key| fingerprint(key, &asked)).transpose()?;
        let count = asked.len();
        let ledger = &self.0.parts.ledger;
        let checked = self.judge(actor).all(asked)?;
        self.must_have_room(tenant, count as u64).await?;
        let mut ids = vec![None; count];
        let mut jobs = Vec::with_capacity(count);
        for (at, Submit { mut job, input }) in checked {
            if let Some(place) = ids.get_mut(at) {
                *place = Some(job.id);
            }
            job.payload = self.0.parts.blobs.keep(&input.meta, input.bytes).await?;
            jobs.push(job);
        }
        let ids: Vec<JobId> = ids.into_iter().flatten().collect();
        let kinds: Vec<String> = jobs.iter().map(|job| job.kind.clone()).collect();
        let key = key.zip(fingerprint).map(|(key, fingerprint)| IdempotencyKey {
            key: key.to_owned(),
            fingerprint,
            keep_millis: crate::request::millis(self.0.parts.limits.keep_keys),
        });
        let submission = Submission { tenant: tenant.clone(), key, jobs };
        match ledger.submit(submission).await.map_err(|error| self.failed(error))? {
            Stored::Created => {
                for kind in kinds {
                    self.metrics().jobs_submitted.get([&kind]).inc();
                }
                self.bus().ring();
                Ok(Submitted { ids, replayed: false })
            }
            Stored::Replayed(stored) => {
                // The ledger keeps them in the order in which they were stored; ids tell the order in which they were asked for.
                let mut stored = stored;
                stored.sort_unstable();
                Ok(Submitted { ids: stored, replayed: true })
            }
            Stored::KeyReused => {
                let text = "this idempotency key was used for a request with another body; a key stands for one request: use a new one";
                Err(Error::new(Reason::IdempotencyKeyReused, text).field("Idempotency-Key"))
            }
            Stored::NoSuchJob(id) => Err(Error::new(Reason::JobNotFound, format!("there is no job {id} to wait for")).field("after")),
        }
    }

    /// Refuses a tenant that has as many jobs waiting as it may.
    async fn must_have_room(&self, tenant: &TenantName, jobs: u64) -> Result<()> {
        let most = self.limits().max_waiting;
        if self.0.waiting.judge(tenant, jobs, most) == Judged::Enter {
            return Ok(());
        }
        let counts = self.counts(Some(tenant)).await?;
        let waits = |state: State| matches!(state, State::Blocked | State::Scheduled | State::Ready);
        let waiting = counts.iter().filter(|count| waits(count.state)).map(|count| count.jobs).sum();
        if self.0.waiting.counted(tenant, waiting, jobs, most) {
            return Ok(());
        }
        let text =
            format!("{waiting} jobs of your tenant are waiting, and {most} may; wait until some have ended, or submit them as one batch");
        Err(Error::new(Reason::JobsLimited, text).retry_after(Duration::from_secs(30)))
    }

    /// A job.
    ///
    /// # Errors
    /// [`Reason::JobNotFound`], [`Reason::StoreUnavailable`].
    pub async fn get(&self, tenant: &TenantName, id: JobId) -> Result<Job> {
        let found = self.ledger().get(tenant, id).await.map_err(|error| self.failed(error))?;
        found.ok_or_else(|| not_found(id))
    }

    /// A job with its place in line.
    ///
    /// # Errors
    /// As [`JobService::get`].
    pub async fn view(&self, tenant: &TenantName, id: JobId) -> Result<View> {
        let job = self.get(tenant, id).await?;
        if job.state.ended() {
            return Ok(View { job, position: None, wait: None, retry_after: None });
        }
        let position = match job.state {
            State::Ready => self.ledger().position(tenant, id, MAX_POSITION).await.map_err(|error| self.failed(error))?,
            _ => None,
        };
        let now = self.world().clock.monotonic();
        let running = self.metrics().jobs_running.get([&job.kind]).value().unsigned_abs();
        let held = position.is_some()
            && self.ledger().kinds().await.is_ok_and(|kinds| kinds.iter().any(|kind| kind.paused && kind.kind == job.kind));
        let wait = position.filter(|_| !held).and_then(|ahead| estimate_wait(&self.seen().backlog(&job.kind, ahead, running, now)));
        let until_due = job.run_at.since(self.world().clock.now());
        let expected = match job.state {
            State::Scheduled => Some(until_due),
            State::Running => Some(self.seen().backlog(&job.kind, 0, 1, now).mean_run),
            _ => wait,
        };
        Ok(View { position, wait, retry_after: Some(poll_after(expected)), job })
    }

    /// Waits until a job has ended, at most so long; the job as it stands then.
    ///
    /// # Errors
    /// As [`JobService::get`].
    pub async fn wait(&self, tenant: &TenantName, id: JobId, most: Duration) -> Result<View> {
        let end = tokio::time::Instant::now() + most;
        let watch = self.followers().watch(id);
        loop {
            let written = watch.next();
            let view = self.view(tenant, id).await?;
            if view.job.state.ended() || tokio::time::Instant::now() >= end {
                return Ok(view);
            }
            let look = end.min(tokio::time::Instant::now() + LOOK);
            let _ = tokio::time::timeout_at(look, written).await;
        }
    }

    /// What a job gives to those who follow it after event number `after`, as soon as there is something new or it ends, at the latest after `most`.
    ///
    /// # Errors
    /// As [`JobService::get`].
    pub async fn follow(&self, tenant: &TenantName, id: JobId, after: u64, most: Duration) -> Result<(Job, Vec<JobEvent>)> {
        let end = tokio::time::Instant::now() + most;
        let watch = self.followers().watch(id);
        let before = self.get(tenant, id).await?;
        loop {
            let written = watch.next();
            let events = self.ledger().events(tenant, id, after, 100).await.map_err(|error| self.failed(error))?;
            let job = self.get(tenant, id).await?;
            let moved = (job.state, job.progress, job.attempt) != (before.state, before.progress, before.attempt);
            if !events.is_empty() || moved || job.state.ended() || tokio::time::Instant::now() >= end {
                return Ok((job, events));
            }
            let look = end.min(tokio::time::Instant::now() + LOOK);
            let _ = tokio::time::timeout_at(look, written).await;
        }
    }

    /// What a job was given.
    ///
    /// # Errors
    /// As [`JobService::get`], and those of the object store.
    pub async fn input(&self, tenant: &TenantName, id: JobId) -> Result<(Meta, Bytes)> {
        let found = self.ledger().payload(tenant, id).await.map_err(|error| self.failed(error))?;
        self.blobs().read(found.ok_or_else(|| not_found(id))?).await
    }

    /// What a job has given.
    ///
    /// # Errors
    /// The job's own failure when it ended badly; [`Reason::JobNotFound`]; `None` when it has not ended.
    pub async fn result(&self, tenant: &TenantName, id: JobId) -> Result<Option<(Meta, Bytes)>> {
        let job = self.get(tenant, id).await?;
        match job.state {
            State::Succeeded => {
                let found = self.ledger().result(tenant, id).await.map_err(|error| self.failed(error))?;
                self.blobs().read(found.ok_or_else(|| not_found(id))?).await.map(Some)
            }
            State::Cancelled => Err(Error::new(Reason::JobCancelled, "the job was cancelled and has no result")),
            State::Dead => Err(match job.failure {
                Some(failure) => Error::new(failure.reason, failure.text),
                None => Error::internal("a dead letter without a reason"),
            }),
            _ => Ok(None),
        }
    }

    /// Jobs, newest first.
    ///
    /// # Errors
    /// [`Reason::StoreUnavailable`].
    pub async fn list(&self, query: &ListJobs) -> Result<Vec<Job>> {
        self.ledger().list(query).await.map_err(|error| self.failed(error))
    }

    /// Failed attempts of a job.
    ///
    /// # Errors
    /// As [`JobService::get`].
    pub async fn attempts(&self, tenant: &TenantName, id: JobId) -> Result<Vec<Attempt>> {
        self.get(tenant, id).await?;
        self.ledger().attempts(tenant, id).await.map_err(|error| self.failed(error))
    }

    /// Asks for the end of a job.
    ///
    /// # Errors
    /// [`Reason::JobNotFound`]; [`Reason::JobFinished`] when it had ended otherwise before.
    pub async fn cancel(&self, tenant: &TenantName, id: JobId) -> Result<Job> {
        let asked = self.ledger().cancel(tenant, id).await.map_err(|error| self.failed(error))?;
        match asked.ok_or_else(|| not_found(id))? {
            Cancelled::Was(state) if state != State::Cancelled => Err(Error::new(
                Reason::JobFinished,
                format!("the job has ended before, and is {state}; what has ended cannot be cancelled"),
            )),
            _ => {
                self.followers().touch(id);
                // A worker of this node hears of it at once.
                self.0.looks.ring();
                self.get(tenant, id).await
            }
        }
    }

    /// Makes dead letters ready again; how many.
    ///
    /// # Errors
    /// [`Reason::StoreUnavailable`].
    pub async fn replay(&self, wish: ReplayWish) -> Result<u64> {
        let count = self.ledger().replay(wish).await.map_err(|error| self.failed(error))?;
        self.bus().ring();
        Ok(count)
    }

    /// How many jobs there are by kind and state.
    ///
    /// # Errors
    /// [`Reason::StoreUnavailable`].
    pub async fn counts(&self, tenant: Option<&TenantName>) -> Result<Vec<Counts>> {
        self.ledger().counts(tenant).await.map_err(|error| self.failed(error))
    }

    /// What holds for each kind that this node knows or that was set.
    ///
    /// # Errors
    /// [`Reason::StoreUnavailable`].
    pub async fn kind_settings(&self) -> Result<Vec<KindSettings>> {
        let mut set = self.ledger().kinds().await.map_err(|error| self.failed(error))?;
        for name in self.kinds().names() {
            if !set.iter().any(|kind| kind.kind == name) {
                set.push(KindSettings { kind: name.to_owned(), paused: false, limits: Default::default() });
            }
        }
        set.sort_by(|a, b| a.kind.cmp(&b.kind));
        Ok(set)
    }

    /// Sets what holds for a kind, on all nodes.
    ///
    /// # Errors
    /// [`Reason::JobKindUnknown`] for one that neither this node nor the ledger knows; [`Reason::MalformedRequest`] for limits that make no sense.
    pub async fn set_kind(&self, settings: KindSettings) -> Result<()> {
        let known = self.kinds().get(&settings.kind).is_some() || self.kind_settings().await?.iter().any(|kind| kind.kind == settings.kind);
        if !known {
            return Err(Error::new(Reason::JobKindUnknown, "there is no such kind of job").field("kind"));
        }
        let limits = settings.limits;
        if limits.rate_per_second.is_some_and(|rate| !(rate.is_finite() && (0.001..=1e6).contains(&rate))) {
            return Err(Error::new(Reason::MalformedRequest, "a rate is a number from 0.001 to 1000000 a second").field("rate_per_second"));
        }
        self.ledger().set_kind(settings).await.map_err(|error| self.failed(error))?;
        self.bus().ring();
        Ok(())
    }

    /// Draws a new secret for webhooks; the one before signs beside it until the next. Shown once.
    ///
    /// # Errors
    /// [`Reason::InvalidName`], [`Reason::StoreUnavailable`].
    pub async fn rotate_secret(&self, tenant: &TenantName, name: &str) -> Result<String> {
        crate::webhook_kind::rotate(&**self.ledger(), &*self.world().random, tenant, name).await
    }
}

pub(crate) fn not_found(id: JobId) -> Error {
    Error::new(Reason::JobNotFound, format!("there is no job {id}; jobs are forgotten some time after their end"))
}

/// A digest over everything that was asked under a key.
fn fingerprint(key: &str, asked: &[(JobRequest, Input)]) -> Result<[u8; 32]> {
    let plain = |byte: u8| byte.is_ascii_graphic();
    if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(plain) {
        let text = format!("an idempotency key has 1 to {MAX_KEY} printable ASCII characters without spaces, such as a UUID");
        return Err(Error::new(Reason::IdempotencyKeyInvalid, text).field("Idempotency-Key"));
    }
    let mut hash = DigestHasher::new();
    for (job, input) in asked {
        let job = serde_json::to_vec(job).unwrap_or_default();
        let meta = serde_json::to_vec(&input.meta).unwrap_or_default();
        for part in [&job[..], &meta[..], &input.bytes[..]] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    Ok(*hash.finish().as_bytes())
}
