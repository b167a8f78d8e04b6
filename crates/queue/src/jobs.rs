//! The ledger of jobs: the port, and what every adapter keeps.
//!
//! Invariants, the same for every adapter:
//!
//! - `Ok` from a call that writes means committed and synced. A submission is stored whole with its idempotency key or not at all; the same key
//!   with the same fingerprint gives the same jobs, with another it changes nothing.
//! - A job is held by one worker at a time, under an epoch that only grows. What ends or reports on a job says its epoch and is void
//!   ([`Finished::Fenced`]) when the job has another one or is not running: a worker that was cut off cannot write a result.
//! - An attempt is counted when it is claimed. Leases are measured with the ledger's clock, not the workers'.
//! - A job that ended stays ended, but for a dead letter that is replayed. With its end, in the same transaction, those that wait for
//!   it are let go on and its webhook becomes a job of its own.
//! - Classes are served in order; within a class tenants take turns; within a tenant smaller priority numbers first, then the oldest.
//!
//! Nothing here knows what a kind of job does. Bytes that are too large for a row are the caller's to put elsewhere first ([`Body`]).

mod id;
mod model;
pub mod postgres;
mod rate;
pub mod sqlite;
mod telling;

use async_trait::async_trait;
use plinth_types::{TenantName, Timestamp};

use crate::QueueError;

pub use id::{JobId, JobIds, ParseJobIdError};
use telling::webhook_job;

pub use model::{
    Attempt, Body, Cancelled, ClaimWish, Claimed, Counts, End, Failure, Finish, Finished, Held, HeldState, IdempotencyKey, Job, JobEvent,
    KindLimits, KindSettings, KindWish, ListJobs, NewJob, OnFailure, Payload, ReplayWish, Report, RunState, ScheduleRow, Submission,
    Submitted, SweepWish, Swept, Webhook, WorkerId,
};

/// The kind whose jobs carry webhooks; the ledger makes them itself when a job ends that asked for one.
pub const WEBHOOK_KIND: &str = "webhook";

/// The port. See the module for what every adapter keeps.
#[async_trait]
pub trait Jobs: Send + Sync {
    /// Stores jobs. All of one submission or none.
    async fn submit(&self, submission: Submission) -> Result<Submitted, QueueError>;

    /// Takes jobs that are ready, for a worker, until the lease ends.
    async fn claim(&self, wish: ClaimWish) -> Result<Vec<Claimed>, QueueError>;

    /// Prolongs leases and tells what became of the jobs that a worker believes to hold. In the order of `held`.
    async fn heartbeat(&self, worker: &WorkerId, held: Vec<Held>, lease_millis: u64) -> Result<Vec<HeldState>, QueueError>;

    /// Ends an attempt.
    async fn finish(&self, finish: Finish) -> Result<Finished, QueueError>;

    /// Writes progress and partial results of a running job; void when it is not held under this epoch.
    async fn report(&self, report: Report) -> Result<Finished, QueueError>;

    /// Asks for the end of a job. What runs is told with its next heartbeat.
    async fn cancel(&self, tenant: &TenantName, id: JobId) -> Result<Option<Cancelled>, QueueError>;

    /// Makes dead letters ready again, with all their attempts; how many. What is not dead stays as it is.
    async fn replay(&self, wish: ReplayWish) -> Result<u64, QueueError>;

    /// Takes back what dead workers held, lets go what is due, forgets what need not be kept. A bounded piece of work each time.
    async fn sweep(&self, wish: SweepWish) -> Result<Swept, QueueError>;

    /// Gives back at once what workers held whose ids begin with this and are not `living`: for a node that starts again and knows that its former
    /// process is dead. How many jobs.
    async fn release(&self, node: &str, living: &WorkerId) -> Result<u64, QueueError>;

    /// A job; `None` when there is none or it is another tenant's.
    async fn get(&self, tenant: &TenantName, id: JobId) -> Result<Option<Job>, QueueError>;

    /// What a job was given.
    async fn payload(&self, tenant: &TenantName, id: JobId) -> Result<Option<Payload>, QueueError>;

    /// What a job has given; `None` while there is nothing.
    async fn result(&self, tenant: &TenantName, id: JobId) -> Result<Option<Payload>, QueueError>;

    /// Jobs of a tenant, newest first.
    async fn list(&self, query: &ListJobs) -> Result<Vec<Job>, QueueError>;

    /// Failed attempts of a job, oldest first.
    async fn attempts(&self, tenant: &TenantName, id: JobId) -> Result<Vec<Attempt>, QueueError>;

    /// What a job has reported after event number `after`, oldest first, at most `limit`.
    async fn events(&self, tenant: &TenantName, id: JobId, after: u64, limit: u32) -> Result<Vec<JobEvent>, QueueError>;

    /// How many jobs of the same kind are to begin before this one, looking no further than `most`; `None` when it is not waiting.
    async fn position(&self, tenant: &TenantName, id: JobId, most: u64) -> Result<Option<u64>, QueueError>;

    /// How many jobs there are by kind and state; of one tenant or of all.
    async fn counts(&self, tenant: Option<&TenantName>) -> Result<Vec<Counts>, QueueError>;

    /// All kinds that have settings of their own.
    async fn kinds(&self) -> Result<Vec<KindSettings>, QueueError>;

    /// Sets what holds for a kind.
    async fn set_kind(&self, settings: KindSettings) -> Result<(), QueueError>;

    /// Stores or replaces a schedule.
    async fn put_schedule(&self, schedule: ScheduleRow) -> Result<(), QueueError>;

    /// Forgets a schedule; whether it was there.
    async fn delete_schedule(&self, tenant: &TenantName, name: &str) -> Result<bool, QueueError>;

    /// Schedules of a tenant by name; of all tenants when `None`.
    async fn schedules(&self, tenant: Option<&TenantName>) -> Result<Vec<ScheduleRow>, QueueError>;

    /// Moves a schedule from the tick that the caller saw to the next one and stores the jobs of the ticks between, in one transaction. `false`, and
    /// nothing is changed, when somebody else has moved it.
    async fn fire(
        &self,
        tenant: &TenantName,
        name: &str,
        seen: Timestamp,
        next: Option<Timestamp>,
        jobs: Vec<NewJob>,
    ) -> Result<bool, QueueError>;

    /// A tenant's secret that signs webhooks, as its owner reads it; `None` when there is none of this name.
    async fn secret(&self, tenant: &TenantName, name: &str) -> Result<Option<String>, QueueError>;

    /// Stores, replaces or (with `None`) forgets such a secret.
    async fn set_secret(&self, tenant: &TenantName, name: &str, secret: Option<String>) -> Result<(), QueueError>;

    /// The ledger's time.
    async fn now(&self) -> Result<Timestamp, QueueError>;

    /// What this adapter is, for people.
    async fn describe(&self) -> Result<String, QueueError>;

    /// Ends what is under way and closes; the adapter is not used after.
    async fn close(&self);
}
