//! What the ledger keeps of a job and what it is asked.
//!
//! Times are milliseconds since 1970 by the ledger's clock unless a field says otherwise. Invariant: nothing here is judged; who submits has
//! checked names, sizes and rights before.

use std::fmt;

use plinth_policy::jobs::{RetryPolicy, State};
use plinth_types::{Reason, TenantName, Timestamp};
use serde::{Deserialize, Serialize};

use super::JobId;

/// Bytes that a job was given or has given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// In the ledger itself.
    Inline(Vec<u8>),
    /// In the object store, under this digest (`sha256:…`), with this length.
    Object {
        /// The digest as text.
        digest: String,
        /// In bytes.
        size: u64,
    },
}

impl Body {
    /// Its length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Object { size, .. } => *size,
        }
    }
}

/// Bytes with what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The content type, and whatever else the kind wants beside the bytes, as JSON.
    pub meta: String,
    /// The bytes.
    pub body: Body,
}

/// What becomes of a job when one that it waits for ends badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It becomes a dead letter too, and so those that wait for it.
    #[default]
    Fail,
    /// It runs all the same; its handler sees who failed.
    Run,
    /// It is cancelled.
    Cancel,
}

/// Where the end of a job is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// The address.
    pub url: String,
    /// The name of the tenant's secret that signs.
    #[serde(default)]
    pub secret: Option<String>,
}

/// A job to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Its id, from [`JobIds`](super::JobIds).
    pub id: JobId,
    /// What kind of work.
    pub kind: String,
    /// 0 critical, 1 default, 2 sheddable, 3 background.
    pub class: u8,
    /// Smaller goes first, within its tenant and class.
    pub priority: i16,
    /// Not before; `None` for at once.
    pub run_at: Option<Timestamp>,
    /// Worthless after: it is dead when it has not begun by then.
    pub expires_at: Option<Timestamp>,
    /// How long one attempt may take, in milliseconds.
    pub timeout_millis: u64,
    /// How often, and with what pauses.
    pub retry: RetryPolicy,
    /// How long it is kept after its end, in milliseconds.
    pub keep_millis: u64,
    /// Who submitted it, for people.
    pub actor: String,
    /// The job of which it is a part.
    pub parent: Option<JobId>,
    /// Jobs that must end first; of the same tenant.
    pub waits_for: Vec<JobId>,
    /// What becomes of it when one of those ends badly.
    pub on_failure: OnFailure,
    /// Where its end is told.
    pub webhook: Option<Webhook>,
    /// A word by which it can be found: labels as `name=value`, joined by spaces.
    pub labels: String,
    /// What it shall work on.
    pub payload: Payload,
}

/// A key that makes a submission happen once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The caller's word.
    pub key: String,
    /// A digest over what was asked.
    pub fingerprint: [u8; 32],
    /// How long the key is kept, in milliseconds.
    pub keep_millis: u64,
}

/// Jobs that are stored together.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// Whose.
    pub tenant: TenantName,
    /// Makes it happen once.
    pub key: Option<IdempotencyKey>,
    /// The jobs, each after those that it waits for.
    pub jobs: Vec<NewJob>,
}

/// What a submission did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// The jobs are stored.
    Created,
    /// The key was used for the same before: these jobs.
    Replayed(Vec<JobId>),
    /// The key was used for something else. Nothing is stored.
    KeyReused,
    /// A job that shall be waited for does not exist (or is another tenant's). Nothing is stored.
    NoSuchJob(JobId),
}

/// A worker: the node's name, `/`, and a word that is new with each process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkerId(pub String);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A kind that a worker can do, and how many of it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindWish {
    /// The kind.
    pub kind: String,
    /// At most so many now.
    pub most: u32,
}

/// What a worker wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimWish {
    /// Who.
    pub worker: WorkerId,
    /// What it can do.
    pub kinds: Vec<KindWish>,
    /// At most so many in all.
    pub most: u32,
    /// No class above this number: 3 for all, 2 while the node is busy with those who wait for an answer.
    pub lowest_class: u8,
    /// How long the lease lasts, in milliseconds.
    pub lease_millis: u64,
}

/// A job that a worker holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The job.
    pub id: JobId,
    /// Whose.
    pub tenant: TenantName,
    /// What kind.
    pub kind: String,
    /// The number under which it is held.
    pub epoch: u64,
    /// Which attempt this is; 1 is the first.
    pub attempt: u32,
    /// How often in all.
    pub retry: RetryPolicy,
    /// How long this attempt may take, in milliseconds.
    pub timeout_millis: u64,
    /// Its class.
    pub class: u8,
    /// Who submitted it.
    pub actor: String,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// What it shall work on.
    pub payload: Payload,
    /// What it last reported, so that it can go on from there.
    pub checkpoint: Option<String>,
}

/// A job that a worker believes to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The job.
    pub id: JobId,
    /// Under this epoch.
    pub epoch: u64,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldState {
    /// It is still held, and the lease is prolonged.
    Held,
    /// Still held, and somebody asked for its end.
    CancelAsked,
    /// It is another's now, or has ended. Stop.
    Lost,
}

/// Why an attempt or a job failed, as callers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The registered reason.
    pub reason: Reason,
    /// For the caller.
    pub text: String,
}

/// How an attempt ends.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// Well, with this result.
    Succeeded(Payload),
    /// Badly, and it runs again after this pause (milliseconds).
    Retry {
        /// Why.
        failure: Failure,
        /// The pause.
        after_millis: u64,
    },
    /// Badly, for good.
    Dead(Failure),
    /// It was asked to end, and did.
    Cancelled,
    /// It did not fail; somebody else shall do it, after a pause (milliseconds). Uses up no attempt.
    Released {
        /// The pause.
        after_millis: u64,
    },
}

/// The end of an attempt, from who holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// The job.
    pub id: JobId,
    /// The epoch under which it is held.
    pub epoch: u64,
    /// How it ended.
    pub end: End,
}

/// What became of an end or a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// It is written.
    Done,
    /// The job was not held under this epoch any more. Nothing is written.
    Fenced,
}

/// Progress or a partial result.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The job.
    pub id: JobId,
    /// The epoch under which it is held.
    pub epoch: u64,
    /// How much is done, in thousandths; stays as it was when `None`.
    pub progress: Option<u16>,
    /// From where another worker could go on; stays as it was when `None`.
    pub checkpoint: Option<String>,
    /// What those who follow the job shall see: a name and JSON.
    pub events: Vec<(String, String)>,
}

/// One thing that a job reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEvent {
    /// Its number within the job; 1 is the first.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Its name.
    pub name: String,
    /// JSON.
    pub data: String,
}

/// What a request to end a job did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It had not begun, and has ended.
    Ended,
    /// It runs; its worker is told.
    Asked,
    /// It had ended before, in this state.
    Was(State),
}

/// Which dead letters are to run again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayWish {
    /// Whose.
    pub tenant: TenantName,
    /// These; all that fit when empty.
    pub ids: Vec<JobId>,
    /// Of this kind.
    pub kind: Option<String>,
    /// At most so many, the oldest first.
    pub limit: u32,
}

/// How much one sweep may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepWish {
    /// At most so many jobs for each thing that is swept.
    pub most: u32,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Jobs whose worker let the lease run out, ready again.
    pub recovered: u64,
    /// Those of them that had no attempt left.
    pub died: u64,
    /// Jobs that became ready because their time came.
    pub due: u64,
    /// Jobs that were worthless before they began.
    pub expired: u64,
    /// Jobs that ended long ago and are forgotten.
    pub forgotten: u64,
}

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its number.
    pub attempt: u32,
    /// The epoch under which it ran.
    pub epoch: u64,
    /// Who ran it.
    pub worker: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Why it failed.
    pub failure: Failure,
}

/// A running job's worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunState {
    /// Who runs it.
    pub worker: String,
    /// Until when the lease lasts.
    pub lease_until: Timestamp,
}

/// A job as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Whose.
    pub tenant: TenantName,
    /// What kind.
    pub kind: String,
    /// Where it stands.
    pub state: State,
    /// Its class.
    pub class: u8,
    /// Its priority.
    pub priority: i16,
    /// How often it was claimed since it was submitted or replayed.
    pub attempt: u32,
    /// How often at most.
    pub max_attempts: u32,
    /// The epoch under which it was last held.
    pub epoch: u64,
    /// Whether somebody asked for its end.
    pub cancel_asked: bool,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// Not before.
    pub run_at: Timestamp,
    /// When it last began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Who runs it, while it runs.
    pub running: Option<RunState>,
    /// How much is done, in thousandths.
    pub progress: u16,
    /// For how many jobs it waits.
    pub waits: u32,
    /// The job of which it is a part.
    pub parent: Option<JobId>,
    /// Who submitted it.
    pub actor: String,
    /// Labels.
    pub labels: String,
    /// Why it (or its last attempt) failed.
    pub failure: Option<Failure>,
    /// Where its end is told.
    pub webhook: Option<Webhook>,
    /// How long its result is, once there is one.
    pub result_size: Option<u64>,
}

/// Which jobs to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListJobs {
    /// Whose.
    pub tenant: TenantName,
    /// Of this kind.
    pub kind: Option<String>,
    /// In this state.
    pub state: Option<State>,
    /// Parts of this job.
    pub parent: Option<JobId>,
    /// Whose labels hold this text.
    pub label: Option<String>,
    /// Older than this one, for the next page.
    pub before: Option<JobId>,
    /// At most so many.
    pub limit: u32,
}

/// How many jobs of a kind are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// The kind.
    pub kind: String,
    /// The state.
    pub state: State,
    /// How many.
    pub jobs: u64,
    /// When the oldest of them was submitted.
    pub oldest: Timestamp,
}

/// Limits of a kind over the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct KindLimits {
    /// At most so many at a time; no limit when `None`.
    pub concurrency: Option<u32>,
    /// At most so many begun in a second; no limit when `None`.
    pub rate_per_second: Option<f64>,
}

/// What holds for a kind.
#[derive(Debug, Clone, PartialEq)]
pub struct KindSettings {
    /// The kind.
    pub kind: String,
    /// Whether none of it begins.
    pub paused: bool,
    /// Its limits.
    pub limits: KindLimits,
}

/// A schedule as it lies in the ledger. What it submits, and when, is JSON that only its owner reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    /// Whose.
    pub tenant: TenantName,
    /// Its name.
    pub name: String,
    /// When and what, as JSON.
    pub spec: String,
    /// Its next tick; `None` when it will not fire again or is paused.
    pub next_at: Option<Timestamp>,
    /// The last tick that fired.
    pub last_at: Option<Timestamp>,
}
