//! A ledger that tells of every end that was written through it, and of what the ledger beneath said.
//!
//! Invariant: it changes nothing; each call reaches the ledger beneath once.

use std::sync::Arc;

use async_trait::async_trait;
use plinth_queue::QueueError;
use plinth_queue::jobs::{
    Attempt, Cancelled, ClaimWish, Claimed, Counts, Finish, Finished, Held, HeldState, Job, JobEvent, JobId, Jobs, KindSettings, ListJobs,
    NewJob, Payload, ReplayWish, Report, ScheduleRow, Submission, Submitted, SweepWish, Swept, WorkerId,
};
use plinth_types::{TenantName, Timestamp};

/// Is told of an end and its outcome.
pub type Tell = Arc<dyn Fn(&Finish, &Result<Finished, QueueError>) + Send + Sync>;

/// Such a ledger.
pub struct Watched {
    beneath: Arc<dyn Jobs>,
    tell: Tell,
}

impl Watched {
    /// Around another ledger.
    pub fn around(beneath: Arc<dyn Jobs>, tell: Tell) -> Arc<dyn Jobs> {
        Arc::new(Self { beneath, tell })
    }
}

macro_rules! pass_on {
    ($($name:ident($($given:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Jobs for Watched {
            $(async fn $name(&self, $($given: $type),*) -> Result<$answer, QueueError> {
                self.beneath.$name($($given),*).await
            })*

            async fn finish(&self, finish: Finish) -> Result<Finished, QueueError> {
                let outcome = self.beneath.finish(finish.clone()).await;
                (self.tell)(&finish, &outcome);
                outcome
            }

            async fn close(&self) {
                self.beneath.close().await;
            }
        }
    };
}

pass_on! {
    submit(submission: Submission) -> Submitted;
    claim(wish: ClaimWish) -> Vec<Claimed>;
    heartbeat(worker: &WorkerId, held: Vec<Held>, lease_millis: u64) -> Vec<HeldState>;
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
