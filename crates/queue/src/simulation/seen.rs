//! What a checker is told: jobs as they stand in the tables, and what a transaction changed.

use plinth_policy::jobs::State;

use crate::jobs::{JobId, OnFailure};

/// A job as it stands in the tables. Times are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the field of `Job` with the same name")]
pub struct Seen {
    pub id: JobId,
    pub tenant: String,
    pub kind: String,
    pub class: u8,
    pub state: State,
    pub epoch: u64,
    pub attempt: u32,
    pub max_attempts: u32,
    pub worker: Option<String>,
    /// By the lease clock.
    pub lease_until: Option<i64>,
    pub run_at: i64,
    pub expires_at: Option<i64>,
    pub keep_until: Option<i64>,
    pub parent: Option<JobId>,
    /// Why it, or its last attempt, failed.
    pub reason: Option<String>,
}

/// Something that a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A job is new, or stands otherwise than before.
    Job(Seen),
    /// A job is forgotten.
    Gone(JobId),
    /// A tenant's jobs of a kind and class have a place in line, or lost it.
    Flow {
        /// The kind.
        kind: String,
        /// The class.
        class: u8,
        /// The tenant.
        tenant: String,
        /// Whether it is there now.
        there: bool,
    },
    /// A result was written.
    Result {
        /// Whose.
        id: JobId,
        /// Its meta.
        meta: String,
    },
}

/// Which call did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Submitted, by a caller or by a schedule.
    Submit,
    /// Claimed.
    Claim,
    /// Ended, reported on or prolonged by who holds it.
    Finish {
        /// The job.
        id: JobId,
        /// Under this epoch.
        epoch: u64,
        /// Given back without a failure.
        released: bool,
    },
    /// Cancelled by its owner.
    Cancel(JobId),
    /// Dead letters replayed.
    Replay,
    /// Swept.
    Sweep,
    /// A node that starts again gave back what it held.
    Release {
        /// What the names of its workers begin with.
        node: String,
    },
    /// Anything else: it changes no job's state.
    Other,
}

/// A job that somebody asks the ledger to store.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The submission that it is part of: at most one submission with the same key is stored.
    pub key: Option<(String, String)>,
    /// Numbers the submissions: those of one try have the same.
    pub submission: u64,
    /// What must end before.
    pub waits_for: Vec<JobId>,
    /// What becomes of it when one of those ends badly.
    pub on_failure: OnFailure,
    /// Whether its end is to be told.
    pub webhook: bool,
    /// The tick of a schedule that it stands for.
    pub tick: Option<(String, i64)>,
}
