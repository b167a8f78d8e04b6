//! The model as a scorer: batches through `serving`, with patience for a full queue.
//!
//! Invariant: what fails because the node is busy, or the model not ready, is asked again and never becomes a row's error.

use std::time::Duration;

use async_trait::async_trait;
use plinth_jobs::{JobContext, JobError};
use plinth_serving::InferRequest;
use plinth_types::{Error, ModelName, Reason, Result, Tensor};
use tokio::sync::Semaphore;

use super::run::State;
use super::score::{Refusal, Scorer};
use super::spec::Spec;
use super::table::{Facts, Table};
use crate::Services;
use crate::oip::execute::Target;

/// How long one batch may take, with its time in the queue.
const BATCH_TIME: Duration = Duration::from_mins(10);
/// The first pause before a full queue is asked again.
pub(super) const PAUSE: Duration = Duration::from_millis(10);
/// The longest one.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often a deadline may pass for one batch.
const LATE: u32 = 3;

/// A model that scores the rows of one job.
pub(super) struct Engine {
    services: Services,
    target: Target,
    outputs: Vec<String>,
    table: Table,
    room: Semaphore,
    concurrency: usize,
}

impl Engine {
    /// Finds the model, waits until it can answer, and fits the job to it.
    pub async fn open(services: &Services, context: &JobContext, model: ModelName, spec: &Spec, state: &State) -> Result<Self, JobError> {
        // All rows are answered by one version, whatever is promoted meanwhile.
        let version = state.version.or(spec.version);
        let deadline = context.timeout.min(BATCH_TIME);
        let mut target = Target { tenant: context.tenant.clone(), model, version, deadline, trace: None };
        let instance = target.ready(services).await.map_err(not_yet)?;
        target.version = Some(instance.version());
        let optional = |name: &str| instance.metadata().optional_inputs.iter().any(|input| input == name);
        let facts = Facts {
            inputs: instance.inputs(),
            optional: &optional,
            outputs: instance.outputs(),
            max_batch: instance.config().max_batch_size(),
        };
        let mut table = Table::new(&facts, spec).map_err(JobError::Dead)?;
        if let Some(batch) = state.batch {
            table.batch = batch as usize;
        }
        let usual = (2 * instance.config().instance_count() as usize).max(4);
        let concurrency = spec.concurrency.map_or(usual, |asked| asked as usize);
        Ok(Self {
            services: services.clone(),
            target,
            outputs: spec.outputs.clone(),
            table,
            room: Semaphore::new(concurrency),
            concurrency,
        })
    }

    /// What rows are for this model.
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// Batches at a time.
    pub const fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// What must stay as it is in later attempts.
    pub fn pin(&self, state: &mut State) {
        state.version = self.target.version;
        state.batch = u32::try_from(self.table.batch).ok();
    }

    async fn ask(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let request = InferRequest {
            tenant: self.target.tenant.clone(),
            model: self.target.model.clone(),
            version: self.target.version,
            inputs,
            outputs: self.outputs.clone(),
            deadline: self.target.deadline,
            queue_timeout: None,
            priority: 0,
            sequence: None,
            parameters: Default::default(),
            trace: None,
        };
        Ok(self.services.serving.infer(request).await?.outputs)
    }
}

/// A model that is being loaded, as after a start of the node, costs no attempt.
fn not_yet(error: Error) -> JobError {
    match meaning(error.reason()) {
        Meaning::Busy => JobError::NotNow(error.retry_delay().unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE)),
        _ => error.into(),
    }
}

/// What a failure means for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// One of the rows is to blame.
    Rows,
    /// There is no room: again, as often as it takes.
    Busy,
    /// It took too long: again, a few times.
    Late,
    /// Nothing that another try here would change.
    Stop,
}

pub(super) fn meaning(reason: Reason) -> Meaning {
    match reason {
        Reason::InvalidTensor
        | Reason::UnknownTensor
        | Reason::NotRepresentable
        | Reason::InputRefused
        | Reason::ModelExecutionFailed
        | Reason::RunnerCrashed
        | Reason::InvalidSequence => Meaning::Rows,
        Reason::QueueFull | Reason::OverCapacity | Reason::ModelNotReady | Reason::UpstreamUnavailable => Meaning::Busy,
        Reason::DeadlineExceeded | Reason::UpstreamTimeout => Meaning::Late,
        _ => Meaning::Stop,
    }
}

#[async_trait]
impl Scorer for Engine {
    async fn score(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Refusal> {
        let closed = |_| Refusal::Stop(JobError::Cancelled);
        let mut room = Some(self.room.acquire().await.map_err(closed)?);
        let (mut pause, mut late) = (PAUSE, 0);
        loop {
            let error = match self.ask(inputs.clone()).await {
                Ok(outputs) => return Ok(outputs),
                Err(error) => error,
            };
            match meaning(error.reason()) {
                Meaning::Rows => return Err(Refusal::Rows(text(&error))),
                Meaning::Late if late < LATE => late += 1,
                Meaning::Late | Meaning::Stop => return Err(Refusal::Stop(error.into())),
                Meaning::Busy => {}
            }
            // Whoever waits gives its place away.
            drop(room.take());
            tokio::time::sleep(error.retry_delay().unwrap_or(pause).min(LONGEST_PAUSE)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            room = Some(self.room.acquire().await.map_err(closed)?);
        }
    }
}

/// What stands in the output row.
fn text(error: &Error) -> String {
    let text: String = error.public_text().chars().take(500).collect();
    format!("{text} ({})", error.reason())
}
