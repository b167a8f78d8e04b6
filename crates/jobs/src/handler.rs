//! What a kind of job is in code.
//!
//! A [`Handler`] gets bytes and gives bytes; [`typed`] makes one of a [`Kind`], whose input and output are types. Invariant: a handler is told when it
//! should stop ([`JobContext::cancelled`]) and is dropped when it does not; it may run more than once for one job, so what it does outside
//! carries the job's id and step ([`JobContext::effect_key`]).

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use plinth_policy::jobs::RetryPolicy;
use plinth_queue::Jobs;
use plinth_queue::jobs::{Failure, Finished, JobId, Report};
use plinth_runtime::{CancellationToken, CrashPoint, CrashPoints};
use plinth_types::{Class, Error, Reason, TenantName, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Meta;

/// What a job was given.
#[derive(Debug, Clone)]
pub struct Input {
    /// What the bytes are.
    pub meta: Meta,
    /// The bytes.
    pub bytes: Bytes,
}

/// What a job gives.
#[derive(Debug, Clone)]
pub struct Output {
    /// What the bytes are.
    pub meta: Meta,
    /// The bytes.
    pub bytes: Bytes,
}

impl Output {
    /// JSON.
    ///
    /// # Errors
    /// When the value cannot be JSON.
    pub fn json<T: Serialize>(value: &T) -> Result<Self, JobError> {
        let bytes = serde_json::to_vec(value).map_err(|error| JobError::Dead(Error::internal("the result of a job").source(error)))?;
        Ok(Self { meta: Meta::of(crate::META_TYPE), bytes: bytes.into() })
    }
}

/// Why an attempt did not succeed.
#[derive(Debug)]
pub enum JobError {
    /// It may go better next time, not before so long.
    Retry(Error, Option<Duration>),
    /// What did the work died with it: again at once.
    Died(Error),
    /// It will never go better.
    Dead(Error),
    /// It could not begin for want of room; somebody else shall do it, after a pause. Uses up no attempt.
    NotNow(Duration),
    /// It stopped because it was asked to.
    Cancelled,
}

impl From<Error> for JobError {
    /// What may be tried again by the class of its reason is tried again.
    fn from(error: Error) -> Self {
        match error.reason() {
            Reason::RunnerCrashed => Self::Died(error),
            Reason::QueueFull | Reason::OverCapacity | Reason::ShuttingDown => {
                Self::NotNow(error.retry_delay().unwrap_or(Duration::from_millis(200)))
            }
            _ if error.reason().class().retriable() || error.reason().class() == Class::Internal => {
                let after = error.retry_delay();
                Self::Retry(error, after)
            }
            _ => Self::Dead(error),
        }
    }
}

/// What a handler knows of the job that it runs.
pub struct JobContext {
    /// The job.
    pub id: JobId,
    /// Whose.
    pub tenant: TenantName,
    /// What kind.
    pub kind: String,
    /// Which attempt; 1 is the first.
    pub attempt: u32,
    /// Its class: 0 critical to 3 background.
    pub class: u8,
    /// Who submitted it.
    pub actor: String,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When this attempt must be over.
    pub timeout: Duration,
    /// What an earlier attempt last kept.
    pub checkpoint: Option<String>,
    /// Cancelled when the handler should stop: it was asked to, has lost the job, or the node ends.
    pub cancelled: CancellationToken,
    /// Tells of progress.
    pub reporter: Reporter,
}

impl JobContext {
    /// A key for what the job does outside, the same in each attempt: receivers that know it do the thing once.
    #[must_use]
    pub fn effect_key(&self, step: &str) -> String {
        format!("{}:{step}", self.id)
    }
}

/// Tells of a job's progress. Cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    pub(crate) ledger: Arc<dyn Jobs>,
    pub(crate) id: JobId,
    pub(crate) epoch: u64,
    pub(crate) lost: CancellationToken,
    pub(crate) crash: CrashPoints,
    pub(crate) seen: crate::follow::Followers,
}

impl Reporter {
    /// Writes how much is done (0 to 1), from where another attempt could go on, and what those who follow shall see (a name and JSON).
    ///
    /// # Errors
    /// [`Reason::StoreUnavailable`] when the ledger is away: go on, and report again later. [`Reason::WorkerLost`] when the job is held no more:
    /// stop.
    pub async fn report(&self, done: Option<f64>, checkpoint: Option<String>, events: Vec<(String, String)>) -> Result<(), Error> {
        self.crash.reach(CrashPoint::JobMidRun);
        let progress = done.map(|done| (done.clamp(0.0, 1.0) * 1000.0) as u16);
        let report = Report { id: self.id, epoch: self.epoch, progress, checkpoint, events };
        match self.ledger.report(report).await.map_err(crate::from_queue)? {
            Finished::Done => {
                self.seen.touch(self.id);
                Ok(())
            }
            Finished::Fenced => {
                self.lost.cancel();
                Err(Error::new(Reason::WorkerLost, "the job is held by somebody else now"))
            }
        }
    }
}

/// Does the work of a kind.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Runs one attempt.
    async fn run(&self, input: Input, context: &JobContext) -> Result<Output, JobError>;

    /// How often a job of this kind is tried when nobody says otherwise.
    fn retry(&self) -> RetryPolicy {
        RetryPolicy::default()
    }

    /// How many run on one node at a time; no limit of its own when `None`.
    fn concurrency(&self) -> Option<u32> {
        None
    }
}

/// A kind whose input and output are types. [`typed`] makes a [`Handler`] of it.
pub trait Kind: Send + Sync + 'static {
    /// What a job is given.
    type Input: DeserializeOwned + Send;
    /// What it gives.
    type Output: Serialize + Send;

    /// Runs one attempt.
    fn run(&self, input: Self::Input, context: &JobContext) -> impl Future<Output = Result<Self::Output, JobError>> + Send;

    /// How often it is tried.
    fn retry(&self) -> RetryPolicy {
        RetryPolicy::default()
    }
}

/// A handler of a typed kind: JSON in, JSON out; input that does not fit is a dead letter.
pub fn typed<K: Kind>(kind: K) -> Arc<dyn Handler> {
    struct Typed<K>(K);
    #[async_trait]
    impl<K: Kind> Handler for Typed<K> {
        async fn run(&self, input: Input, context: &JobContext) -> Result<Output, JobError> {
            let read = serde_json::from_slice(&input.bytes).map_err(|error| {
                JobError::Dead(
                    Error::new(Reason::MalformedRequest, format!("the input is not what this kind takes: {error}")).field("input"),
                )
            })?;
            Output::json(&self.0.run(read, context).await?)
        }

        fn retry(&self) -> RetryPolicy {
            self.0.retry()
        }
    }
    Arc::new(Typed(kind))
}

/// The kinds that a node knows.
#[derive(Clone, Default)]
pub struct Kinds(Arc<BTreeMap<String, Arc<dyn Handler>>>);

impl Kinds {
    /// From pairs of a name and its handler.
    pub fn new(kinds: impl IntoIterator<Item = (String, Arc<dyn Handler>)>) -> Self {
        Self(Arc::new(kinds.into_iter().collect()))
    }

    /// The handler of a kind.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<&Arc<dyn Handler>> {
        self.0.get(kind)
    }

    /// Names of all kinds, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// A failure as the ledger keeps it: the public text alone.
pub(crate) fn failure(error: &Error) -> Failure {
    Failure { reason: error.reason(), text: error.public_text().chars().take(2000).collect() }
}
