//! The adapter: puts writes of many into lanes, runs the rest each in a transaction or as a question.

use std::time::Duration;

use async_trait::async_trait;
use plinth_runtime::{CrashPoint, TaskGroup, World};
use plinth_types::{TenantName, Timestamp};
use sqlx::Row;

use super::super::{
    Attempt, Body, Cancelled, ClaimWish, Claimed, Counts, Finish, Finished, Held, HeldState, Job, JobEvent, JobId, Jobs, KindSettings,
    ListJobs, NewJob, Payload, ReplayWish, Report, ScheduleRow, Submission, Submitted, SweepWish, Swept, WorkerId,
};
use super::database::{Database, Failed, Points, failed, now_sql, transaction};
use super::lane::{Lane, Work};
use super::{PostgresOptions, apply, claim, control, read, report, rows, submit, sweep};
use crate::QueueError;

/// About what a row costs beside its payload.
const ROW: usize = 512;

/// The ledger of jobs in PostgreSQL.
pub struct PostgresJobs {
    pub(super) database: Database,
    submissions: Lane<Submissions>,
    finishes: Lane<Finishes>,
    beats: Lane<Beats>,
    tasks: TaskGroup,
}

impl PostgresJobs {
    /// Connects and brings the tables up to date. Inside a tokio runtime.
    ///
    /// # Errors
    /// [`QueueError`]; a server that is away is told of within `connect_timeout`.
    pub async fn open(options: &PostgresOptions, world: &World) -> Result<Self, QueueError> {
        let database = Database::open(options, world).await?;
        let (tasks, timeout) = (TaskGroup::new("queue"), options.operation_timeout);
        Ok(Self {
            submissions: Lane::new(Submissions(database.clone()), timeout, &tasks),
            finishes: Lane::new(Finishes(database.clone()), timeout, &tasks),
            beats: Lane::new(Beats(database.clone()), timeout, &tasks),
            database,
            tasks,
        })
    }

    /// One step of a sweep, in a transaction of its own.
    async fn swept(&self, step: sweep::Step, most: u32) -> Result<(u64, u64), QueueError> {
        Ok(transaction!(&self.database, "sweep", Points::default(), |db, begun| sweep::sweep(db, begun.0, step, most))?)
    }
}

struct Submissions(Database);

#[async_trait]
impl Work for Submissions {
    type Ask = Submission;
    type Answer = Submitted;
    const OPERATION: &'static str = "submit";
    const FLIGHTS: usize = 2;

    fn bytes(ask: &Submission) -> usize {
        ask.jobs.iter().map(|job| ROW + job.labels.len() + body(&job.payload)).sum()
    }

    async fn run(&self, group: &[Submission]) -> Result<Vec<Submitted>, Failed> {
        let points = Points { before: None, after: Some(CrashPoint::JobSubmitted) };
        transaction!(&self.0, Self::OPERATION, points, |db, begun| submit::submit(db, begun.0, group))
    }
}

struct Finishes(Database);

#[async_trait]
impl Work for Finishes {
    type Ask = Finish;
    type Answer = Finished;
    const OPERATION: &'static str = "finish";
    const FLIGHTS: usize = 2;

    fn bytes(ask: &Finish) -> usize {
        ROW + match &ask.end {
            super::super::End::Succeeded(result) => body(result),
            _ => 0,
        }
    }

    async fn run(&self, group: &[Finish]) -> Result<Vec<Finished>, Failed> {
        let points = Points { before: Some(CrashPoint::JobBeforeCommit), after: Some(CrashPoint::JobAfterCommit) };
        transaction!(&self.0, Self::OPERATION, points, |db, begun| apply::finish(db, begun.0, group))
    }
}

/// A heartbeat of one worker.
pub(super) struct Beat {
    pub(super) worker: WorkerId,
    pub(super) held: Vec<Held>,
    pub(super) lease_millis: u64,
}

struct Beats(Database);

#[async_trait]
impl Work for Beats {
    type Ask = Beat;
    type Answer = Vec<HeldState>;
    const OPERATION: &'static str = "heartbeat";
    const FLIGHTS: usize = 1;

    fn bytes(ask: &Beat) -> usize {
        32 * ask.held.len()
    }

    async fn run(&self, group: &[Beat]) -> Result<Vec<Vec<HeldState>>, Failed> {
        transaction!(&self.0, Self::OPERATION, Points::default(), |db, begun| apply::heartbeat(db, begun.0, group))
    }
}

fn body(payload: &Payload) -> usize {
    payload.meta.len()
        + match &payload.body {
            Body::Inline(bytes) => bytes.len(),
            Body::Object { .. } => 0,
        }
}

#[async_trait]
impl Jobs for PostgresJobs {
    async fn submit(&self, submission: Submission) -> Result<Submitted, QueueError> {
        self.submissions.ask(submission).await
    }

    async fn claim(&self, wish: ClaimWish) -> Result<Vec<Claimed>, QueueError> {
        // A claim that finds nothing is no step of a job's life.
        let claimed = transaction!(&self.database, "claim", Points::default(), |db, begun| async {
            let claimed = claim::claim(db, begun, &wish).await?;
            if !claimed.is_empty() {
                self.database.crash().reach(CrashPoint::JobBeforeClaim);
            }
            Ok(claimed)
        })?;
        if !claimed.is_empty() {
            self.database.crash().reach(CrashPoint::JobAfterClaim);
        }
        Ok(claimed)
    }

    async fn heartbeat(&self, worker: &WorkerId, held: Vec<Held>, lease_millis: u64) -> Result<Vec<HeldState>, QueueError> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        self.beats.ask(Beat { worker: worker.clone(), held, lease_millis }).await
    }

    async fn finish(&self, finish: Finish) -> Result<Finished, QueueError> {
        self.finishes.ask(finish).await
    }

    async fn report(&self, wish: Report) -> Result<Finished, QueueError> {
        Ok(transaction!(&self.database, "report", Points::default(), |db, begun| report::report(db, begun.0, &wish))?)
    }

    async fn cancel(&self, tenant: &TenantName, id: JobId) -> Result<Option<Cancelled>, QueueError> {
        Ok(transaction!(&self.database, "cancel", Points::default(), |db, begun| control::cancel(db, begun.0, tenant, id))?)
    }

    async fn replay(&self, wish: ReplayWish) -> Result<u64, QueueError> {
        Ok(transaction!(&self.database, "replay", Points::default(), |db, begun| control::replay(db, begun.0, &wish))?)
    }

    async fn sweep(&self, wish: SweepWish) -> Result<Swept, QueueError> {
        let (recovered, died) = self.swept(sweep::Step::Lost, wish.most).await?;
        let (due, _) = self.swept(sweep::Step::Due, wish.most).await?;
        let (expired, _) = self.swept(sweep::Step::Expired, wish.most).await?;
        let (forgotten, _) = self.swept(sweep::Step::Old, wish.most).await?;
        Ok(Swept { recovered, died, due, expired, forgotten })
    }

    async fn release(&self, node: &str, living: &WorkerId) -> Result<u64, QueueError> {
        let mut released = 0;
        loop {
            let some: u64 =
                transaction!(&self.database, "release", Points::default(), |db, begun| sweep::release(db, begun.0, node, living))?;
            if some == 0 {
                return Ok(released);
            }
            released += some;
        }
    }

    async fn get(&self, tenant: &TenantName, id: JobId) -> Result<Option<Job>, QueueError> {
        read::get(&self.database, tenant, id).await
    }

    async fn payload(&self, tenant: &TenantName, id: JobId) -> Result<Option<Payload>, QueueError> {
        read::payload(&self.database, false, tenant, id).await
    }

    async fn result(&self, tenant: &TenantName, id: JobId) -> Result<Option<Payload>, QueueError> {
        read::payload(&self.database, true, tenant, id).await
    }

    async fn list(&self, query: &ListJobs) -> Result<Vec<Job>, QueueError> {
        read::list(&self.database, query).await
    }

    async fn attempts(&self, tenant: &TenantName, id: JobId) -> Result<Vec<Attempt>, QueueError> {
        read::attempts(&self.database, tenant, id).await
    }

    async fn events(&self, tenant: &TenantName, id: JobId, after: u64, limit: u32) -> Result<Vec<JobEvent>, QueueError> {
        report::events(&self.database, tenant, id, after, limit).await
    }

    async fn position(&self, tenant: &TenantName, id: JobId, most: u64) -> Result<Option<u64>, QueueError> {
        read::position(&self.database, tenant, id, most).await
    }

    async fn counts(&self, tenant: Option<&TenantName>) -> Result<Vec<Counts>, QueueError> {
        Ok(transaction!(&self.database, "counts", Points::default(), |db, begun| read::counts(db, tenant))?)
    }

    async fn kinds(&self) -> Result<Vec<KindSettings>, QueueError> {
        control::kinds(&self.database).await
    }

    async fn set_kind(&self, settings: KindSettings) -> Result<(), QueueError> {
        control::set_kind(&self.database, &settings).await
    }

    async fn put_schedule(&self, schedule: ScheduleRow) -> Result<(), QueueError> {
        control::put_schedule(&self.database, &schedule).await
    }

    async fn delete_schedule(&self, tenant: &TenantName, name: &str) -> Result<bool, QueueError> {
        control::delete_schedule(&self.database, tenant, name).await
    }

    async fn schedules(&self, tenant: Option<&TenantName>) -> Result<Vec<ScheduleRow>, QueueError> {
        control::schedules(&self.database, tenant).await
    }

    async fn fire(
        &self,
        tenant: &TenantName,
        name: &str,
        seen: Timestamp,
        next: Option<Timestamp>,
        jobs: Vec<NewJob>,
    ) -> Result<bool, QueueError> {
        let points = Points { before: None, after: Some(CrashPoint::JobSubmitted) };
        let tick = control::Tick { tenant, name, seen, next };
        Ok(transaction!(&self.database, "fire", points, |db, begun| control::fire(db, begun.0, &tick, &jobs))?)
    }

    async fn secret(&self, tenant: &TenantName, name: &str) -> Result<Option<String>, QueueError> {
        control::secret(&self.database, tenant, name).await
    }

    async fn set_secret(&self, tenant: &TenantName, name: &str, secret: Option<String>) -> Result<(), QueueError> {
        control::set_secret(&self.database, tenant, name, secret.as_deref()).await
    }

    async fn now(&self) -> Result<Timestamp, QueueError> {
        let found = self.database.ask("now", sqlx::query(concat!("SELECT ", now_sql!()))).await?;
        let row = found.first().ok_or_else(|| Failed::late("now").error)?;
        rows::time(row, 0).map_err(failed("now"))
    }

    async fn describe(&self) -> Result<String, QueueError> {
        let found = self.database.ask("describe", sqlx::query("SELECT current_setting('server_version')")).await?;
        let version: Option<String> = found.first().and_then(|row| row.try_get(0).ok());
        Ok(format!("postgresql {}", version.unwrap_or_default()))
    }

    async fn close(&self) {
        self.submissions.close();
        self.finishes.close();
        self.beats.close();
        let late = self.tasks.wait(self.database.timeout + Duration::from_secs(1)).await;
        if !late.is_empty() {
            tracing::warn!(?late, "the queue closes while groups are under way");
        }
        let _ = tokio::time::timeout(self.database.timeout, self.database.close()).await;
    }
}
