//! The adapter: hands each call to the file's writer or to a reader.

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use async_trait::async_trait;
use plinth_runtime::{CrashPoint, World};
use plinth_types::{TenantName, Timestamp};

use super::super::{
    Attempt, Cancelled, ClaimWish, Claimed, Counts, Finish, Finished, Held, HeldState, Job, JobEvent, JobId, Jobs, KindSettings, ListJobs,
    NewJob, Payload, ReplayWish, Report, ScheduleRow, Submission, Submitted, SweepWish, Swept, WorkerId,
};
use super::{Now, claim, control, end, heartbeat, last_lease, read, schema, submit, sweep};
use crate::QueueError;
use crate::sqlite::{GroupWriter, Points, Readers};

/// Questions that are answered at a time.
const READERS: usize = 4;

/// The ledger of jobs in a SQLite file.
pub struct SqliteJobs {
    writer: Mutex<Option<Arc<GroupWriter>>>,
    readers: Readers,
    clock: LedgerClock,
}

/// Tells the ledger's time. Cheap to clone.
#[derive(Clone)]
struct LedgerClock {
    world: World,
    /// What is added to the monotonic clock, in milliseconds.
    origin: i64,
}

impl LedgerClock {
    fn now(&self) -> Now {
        let passed = i64::try_from(self.world.clock.monotonic().as_millis()).unwrap_or(i64::MAX);
        Now { lease: self.origin.saturating_add(passed), wall: super::millis(self.world.clock.now()) }
    }
}

impl SqliteJobs {
    /// Opens the file, made when it is missing. This process is then its only user, so what was running when the last one ended is given back at once.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn open(path: &Path, world: &World) -> Result<Self, QueueError> {
        let (path, world) = (path.to_owned(), world.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let writer = GroupWriter::open(&path, schema::STEPS, &world)?;
            Ok::<_, QueueError>((writer, path, world))
        });
        let (writer, path, world) = opened.await.map_err(|error| QueueError::unavailable("open", error))??;
        let last = writer.write("open", Points::default(), last_lease).await?;
        let passed = i64::try_from(world.clock.monotonic().as_millis()).unwrap_or(i64::MAX);
        let clock = LedgerClock { origin: super::millis(world.clock.now()).max(last) - passed, world };
        let now = clock.now();
        writer.write("open", Points::default(), move |db| sweep::release(db, now, None, "")).await?;
        Ok(Self { writer: Mutex::new(Some(Arc::new(writer))), readers: Readers::new(path, READERS), clock })
    }

    fn writer(&self, operation: &'static str) -> Result<Arc<GroupWriter>, QueueError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.clone().ok_or_else(|| QueueError::unavailable(operation, "the queue is closed"))
    }

    async fn write<T, F>(&self, operation: &'static str, points: Points, mut work: F) -> Result<T, QueueError>
    where
        F: FnMut(&rusqlite::Connection, Now) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let clock = self.clock.clone();
        self.writer(operation)?.write(operation, points, move |db| work(db, clock.now())).await
    }
}

#[async_trait]
impl Jobs for SqliteJobs {
    async fn submit(&self, submission: Submission) -> Result<Submitted, QueueError> {
        let points = Points { before: None, after: Some(CrashPoint::JobSubmitted) };
        self.write("submit", points, move |db, now| submit::submit(db, now, &submission)).await
    }

    async fn claim(&self, wish: ClaimWish) -> Result<Vec<Claimed>, QueueError> {
        // A claim that finds nothing is no step of a job's life.
        let crash = self.clock.world.crash.clone();
        let claimed = self.write("claim", Points::default(), move |db, now| {
            let claimed = claim::claim(db, now, &wish)?;
            if !claimed.is_empty() {
                crash.reach(CrashPoint::JobBeforeClaim);
            }
            Ok(claimed)
        });
        let claimed = claimed.await?;
        if !claimed.is_empty() {
            self.clock.world.crash.reach(CrashPoint::JobAfterClaim);
        }
        Ok(claimed)
    }

    async fn heartbeat(&self, worker: &WorkerId, held: Vec<Held>, lease_millis: u64) -> Result<Vec<HeldState>, QueueError> {
        let worker = worker.0.clone();
        self.write("heartbeat", Points::default(), move |db, now| heartbeat(db, now, &worker, &held, lease_millis)).await
    }

    async fn finish(&self, finish: Finish) -> Result<Finished, QueueError> {
        let points = Points { before: Some(CrashPoint::JobBeforeCommit), after: Some(CrashPoint::JobAfterCommit) };
        self.write("finish", points, move |db, now| end::finish(db, now, &finish)).await
    }

    async fn report(&self, report: Report) -> Result<Finished, QueueError> {
        self.write("report", Points::default(), move |db, now| end::report(db, now, &report)).await
    }

    async fn cancel(&self, tenant: &TenantName, id: JobId) -> Result<Option<Cancelled>, QueueError> {
        let tenant = tenant.clone();
        self.write("cancel", Points::default(), move |db, now| end::cancel(db, now, &tenant, id)).await
    }

    async fn replay(&self, wish: ReplayWish) -> Result<u64, QueueError> {
        self.write("replay", Points::default(), move |db, now| end::replay(db, now, &wish)).await
    }

    async fn sweep(&self, wish: SweepWish) -> Result<Swept, QueueError> {
        self.write("sweep", Points::default(), move |db, now| sweep::sweep(db, now, &wish)).await
    }

    async fn release(&self, node: &str, living: &WorkerId) -> Result<u64, QueueError> {
        let (node, living) = (node.to_owned(), living.0.clone());
        self.write("release", Points::default(), move |db, now| sweep::release(db, now, Some(&node), &living)).await
    }

    async fn get(&self, tenant: &TenantName, id: JobId) -> Result<Option<Job>, QueueError> {
        let tenant = tenant.clone();
        self.readers.read("get", move |db| read::get(db, &tenant, id)).await
    }

    async fn payload(&self, tenant: &TenantName, id: JobId) -> Result<Option<Payload>, QueueError> {
        let tenant = tenant.clone();
        self.readers.read("payload", move |db| read::payload(db, "payloads", &tenant, id)).await
    }

    async fn result(&self, tenant: &TenantName, id: JobId) -> Result<Option<Payload>, QueueError> {
        let tenant = tenant.clone();
        self.readers.read("result", move |db| read::payload(db, "results", &tenant, id)).await
    }

    async fn list(&self, query: &ListJobs) -> Result<Vec<Job>, QueueError> {
        let query = query.clone();
        self.readers.read("list", move |db| read::list(db, &query)).await
    }

    async fn attempts(&self, tenant: &TenantName, id: JobId) -> Result<Vec<Attempt>, QueueError> {
        let tenant = tenant.clone();
        self.readers.read("attempts", move |db| read::attempts(db, &tenant, id)).await
    }

    async fn events(&self, tenant: &TenantName, id: JobId, after: u64, limit: u32) -> Result<Vec<JobEvent>, QueueError> {
        let tenant = tenant.clone();
        self.readers.read("events", move |db| read::events(db, &tenant, id, after, limit)).await
    }

    async fn position(&self, tenant: &TenantName, id: JobId, most: u64) -> Result<Option<u64>, QueueError> {
        let tenant = tenant.clone();
        self.readers.read("position", move |db| read::position(db, &tenant, id, most)).await
    }

    async fn counts(&self, tenant: Option<&TenantName>) -> Result<Vec<Counts>, QueueError> {
        let tenant = tenant.cloned();
        self.readers.read("counts", move |db| read::counts(db, tenant.as_ref())).await
    }

    async fn kinds(&self) -> Result<Vec<KindSettings>, QueueError> {
        self.readers.read("kinds", control::kinds).await
    }

    async fn set_kind(&self, settings: KindSettings) -> Result<(), QueueError> {
        self.write("set kind", Points::default(), move |db, _| control::set_kind(db, &settings)).await
    }

    async fn put_schedule(&self, schedule: ScheduleRow) -> Result<(), QueueError> {
        self.write("put schedule", Points::default(), move |db, _| control::put_schedule(db, &schedule)).await
    }

    async fn delete_schedule(&self, tenant: &TenantName, name: &str) -> Result<bool, QueueError> {
        let (tenant, name) = (tenant.clone(), name.to_owned());
        self.write("delete schedule", Points::default(), move |db, _| control::delete_schedule(db, &tenant, &name)).await
    }

    async fn schedules(&self, tenant: Option<&TenantName>) -> Result<Vec<ScheduleRow>, QueueError> {
        let tenant = tenant.cloned();
        self.readers.read("schedules", move |db| control::schedules(db, tenant.as_ref())).await
    }

    async fn fire(
        &self,
        tenant: &TenantName,
        name: &str,
        seen: Timestamp,
        next: Option<Timestamp>,
        jobs: Vec<NewJob>,
    ) -> Result<bool, QueueError> {
        let (tenant, name, seen, next) = (tenant.clone(), name.to_owned(), super::millis(seen), next.map(super::millis));
        let points = Points { before: None, after: Some(CrashPoint::JobSubmitted) };
        self.write("fire", points, move |db, now| control::fire(db, now, (&tenant, &name), seen, next, &jobs)).await
    }

    async fn secret(&self, tenant: &TenantName, name: &str) -> Result<Option<String>, QueueError> {
        let (tenant, name) = (tenant.clone(), name.to_owned());
        self.readers.read("secret", move |db| control::secret(db, &tenant, &name)).await
    }

    async fn set_secret(&self, tenant: &TenantName, name: &str, secret: Option<String>) -> Result<(), QueueError> {
        let (tenant, name) = (tenant.clone(), name.to_owned());
        self.write("set secret", Points::default(), move |db, _| control::set_secret(db, &tenant, &name, secret.as_deref())).await
    }

    async fn now(&self) -> Result<Timestamp, QueueError> {
        Ok(self.clock.world.clock.now())
    }

    async fn describe(&self) -> Result<String, QueueError> {
        Ok(format!("sqlite {}", rusqlite::version()))
    }

    async fn close(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.readers.close();
        if let Some(writer) = writer.and_then(Arc::into_inner) {
            // Joining waits for the last sync.
            let _ = tokio::task::spawn_blocking(move || writer.close()).await;
        }
    }
}
