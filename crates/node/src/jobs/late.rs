//! The ledger of jobs as a node sees it: there, or away and tried again.
//!
//! Invariant: as with the ledger of records, a database that must not be opened at all (a newer release's, another process's file) ends the start; only one
//! that is away is waited for, and until then every call fails with `Unavailable`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use plinth_queue::jobs::postgres::{PostgresJobs, PostgresOptions};
use plinth_queue::jobs::sqlite::SqliteJobs;
use plinth_queue::jobs::{
    Attempt, Cancelled, ClaimWish, Claimed, Counts, Finish, Finished, Held, HeldState, Job, JobEvent, JobId, KindSettings, ListJobs,
    NewJob, Payload, ReplayWish, Report, ScheduleRow, Submission, Submitted, SweepWish, Swept, WorkerId,
};
use plinth_queue::{Jobs, QueueError};
use plinth_runtime::{OnEnd, TaskGroup, World};
use plinth_types::{TenantName, Timestamp};

/// How long a start waits; past it the ledger is opened in the background.
const FIRST_TRY: Duration = Duration::from_secs(2);
/// Tried again this often.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the ledger is.
#[derive(Debug, Clone)]
pub enum Place {
    Sqlite(PathBuf),
    Postgres(PostgresOptions),
}

impl Place {
    async fn open(&self, world: &World) -> Result<Arc<dyn Jobs>, QueueError> {
        Ok(match self {
            Self::Sqlite(path) => Arc::new(SqliteJobs::open(path, world).await?),
            Self::Postgres(options) => Arc::new(PostgresJobs::open(options, world).await?),
        })
    }
}

/// A ledger of jobs that may be away.
pub struct LateJobs(ArcSwapOption<Arc<dyn Jobs>>);

impl LateJobs {
    /// Opens the ledger, or starts to try.
    ///
    /// # Errors
    /// When the database was written by a newer release, is damaged, or is another process's.
    pub async fn open(place: Place, world: &World, tasks: &TaskGroup) -> Result<Arc<Self>, QueueError> {
        let late = Arc::new(Self(ArcSwapOption::empty()));
        // A file answers at once, and its opening must not be left half-way.
        let first = match &place {
            Place::Sqlite(_) => place.open(world).await,
            Place::Postgres(_) => {
                tokio::time::timeout(FIRST_TRY, place.open(world)).await.unwrap_or_else(|_| Err(away("it takes too long")))
            }
        };
        match first {
            Ok(opened) => late.0.store(Some(Arc::new(opened))),
            Err(error @ (QueueError::Unavailable { .. } | QueueError::Full)) => {
                tracing::warn!(%error, "the queue of jobs cannot be opened, trying again in the background");
                let (waiting, world, stop) = (late.clone(), world.clone(), tasks.cancelled().clone());
                tasks.spawn("open the queue", OnEnd::Ignore, async move {
                    stop.run_until_cancelled(waiting.keep_trying(place, world)).await;
                });
            }
            Err(error) => return Err(error),
        }
        Ok(late)
    }

    async fn keep_trying(&self, place: Place, world: World) {
        loop {
            tokio::time::sleep(PAUSE).await;
            match place.open(&world).await {
                Ok(opened) => {
                    tracing::info!("the queue of jobs is open");
                    return self.0.store(Some(Arc::new(opened)));
                }
                Err(QueueError::Unavailable { .. } | QueueError::Full) => {}
                Err(error) => return tracing::error!(%error, "the queue of jobs must not be opened by this release"),
            }
        }
    }

    fn get_open(&self) -> Result<Arc<Arc<dyn Jobs>>, QueueError> {
        self.0.load_full().ok_or_else(|| away("it has not been opened yet"))
    }
}

fn away(why: &'static str) -> QueueError {
    QueueError::Unavailable { operation: "opening", source: why.into() }
}

macro_rules! forward {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl Jobs for LateJobs {
            $(async fn $name(&self, $($arg: $ty),*) -> Result<$out, QueueError> { self.get_open()?.$name($($arg),*).await })*
            async fn close(&self) {
                if let Some(inner) = self.0.swap(None) { inner.close().await; }
            }
        }
    };
}

forward! {
    submit(submission: Submission) -> Submitted;
    claim(wish: ClaimWish) -> Vec<Claimed>;
    heartbeat(worker: &WorkerId, held: Vec<Held>, lease_millis: u64) -> Vec<HeldState>;
    finish(finish: Finish) -> Finished;
    report(report: Report) -> Finished;
    cancel(tenant: &TenantName, id: JobId) -> Option<Cancelled>;
    replay(wish: ReplayWish) -> u64;
    sweep(wish: SweepWish) -> Swept;
    release(node: &str, living: &WorkerId) -> u64;
    get(tenant: &TenantName, id: JobId) -> Option<Job>;
    payload(tenant: &TenantName, id: JobId) -> Option<Payload>;
    result(tenant: &TenantName, id: JobId) -> Option<Payload>;
    list(query: &ListJobs) -> Vec<Job>;
    attempts(tenant: &TenantName, id: JobId) -> Vec<Attempt>;
    events(tenant: &TenantName, id: JobId, after: u64, limit: u32) -> Vec<JobEvent>;
    position(tenant: &TenantName, id: JobId, most: u64) -> Option<u64>;
    counts(tenant: Option<&TenantName>) -> Vec<Counts>;
    kinds() -> Vec<KindSettings>;
    set_kind(settings: KindSettings) -> ();
    put_schedule(schedule: ScheduleRow) -> ();
    delete_schedule(tenant: &TenantName, name: &str) -> bool;
    schedules(tenant: Option<&TenantName>) -> Vec<ScheduleRow>;
    fire(tenant: &TenantName, name: &str, seen: Timestamp, next: Option<Timestamp>, jobs: Vec<NewJob>) -> bool;
    secret(tenant: &TenantName, name: &str) -> Option<String>;
    set_secret(tenant: &TenantName, name: &str, secret: Option<String>) -> ();
    now() -> Timestamp;
    describe() -> String;
}
