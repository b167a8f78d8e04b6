//! A loaded version that answers: its runner, its completed configuration, and the check of inputs.
//!
//! Invariant: what reaches the runner fits the model's inputs, each exactly once; what comes back
//! was checked by the runner's own side of the channel.

use std::sync::Arc;
use std::time::Duration;

use plinth_engine::{ModelMetadata, RunnerError, RunnerExit, SandboxReport};
use plinth_telemetry::ModelMetrics;
use plinth_types::{Digest, Error, ModelName, Reason, Result, TenantName, Tensor, TensorSpec, VersionNumber};

use crate::cache::{CachePlan, ComputeError, ForOthers};
use crate::executor::Executor;
use crate::model_config::ModelConfig;
use crate::sequence::Sequences;
use crate::statistics::{ModelStatistics, Statistics};

/// How long to wait before another try, at least and at most.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
const MOST_PAUSE: Duration = Duration::from_secs(30);

/// A loaded version.
pub struct Instance {
    pub(crate) tenant: TenantName,
    pub(crate) model: ModelName,
    pub(crate) version: VersionNumber,
    pub(crate) content: Digest,
    pub(crate) config: ModelConfig,
    pub(crate) labels: crate::Labels,
    pub(crate) executor: Executor,
    pub(crate) sequences: Option<Arc<Sequences>>,
    pub(crate) cache: Option<CachePlan>,
    pub(crate) inputs: Vec<TensorSpec>,
    pub(crate) outputs: Vec<TensorSpec>,
    pub(crate) metrics: ModelMetrics,
    pub(crate) statistics: Arc<Statistics>,
}

/// Why one try to execute failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The instance takes no more; the same request may go to whatever answers now.
    Replaced,
    /// The runner died while it executed the request, perhaps because of it.
    Suspect,
    /// There is no room.
    Full { retry_after: Option<Duration> },
    /// What the runner or the queue says.
    Runner(RunnerError),
    /// An answer for the caller.
    Answer(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Answer(error)
    }
}

impl ComputeError for Failure {
    fn for_others(&self) -> ForOthers<Self> {
        match self {
            Self::Answer(error) => match error.for_others() {
                ForOthers::Nothing => ForOthers::Nothing,
                ForOthers::Perhaps(error) | ForOthers::Surely(error) => ForOthers::Perhaps(Self::Answer(error)),
            },
            // Else each of a herd would find out for itself that the input kills the runner.
            Self::Suspect => ForOthers::Surely(Self::Suspect),
            Self::Replaced | Self::Full { .. } | Self::Runner(_) => ForOthers::Nothing,
        }
    }
}

impl Instance {
    /// Whose it is.
    #[must_use]
    pub const fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// Its model.
    #[must_use]
    pub const fn model(&self) -> &ModelName {
        &self.model
    }

    /// Its number.
    #[must_use]
    pub const fn version(&self) -> VersionNumber {
        self.version
    }

    /// The digest of its content.
    #[must_use]
    pub const fn content(&self) -> &Digest {
        &self.content
    }

    /// Its configuration, completed from the model.
    #[must_use]
    pub const fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The labels of its outputs.
    #[must_use]
    pub const fn labels(&self) -> &crate::Labels {
        &self.labels
    }

    /// Its inputs as callers see them: with the batch dimension.
    #[must_use]
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    /// Its outputs as callers see them: with the batch dimension.
    #[must_use]
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// The process that executes it, when it has one of its own.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.executor.pid()
    }

    /// Which walls stand around that process.
    #[must_use]
    pub fn sandbox(&self) -> SandboxReport {
        self.executor.sandbox()
    }

    /// What executes it, for people, such as `onnxruntime 1.24.4`.
    #[must_use]
    pub fn engine(&self) -> &str {
        &self.executor.metadata().engine
    }

    /// What the loaded model takes and gives, as what executes it says.
    #[must_use]
    pub fn metadata(&self) -> &ModelMetadata {
        self.executor.metadata()
    }

    /// How many requests wait or are executed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.executor.in_flight()
    }

    /// Takes no more, lets what has begun finish for at most `grace`, and ends. Idempotent; a dropped call goes on.
    pub async fn stop(&self, grace: Duration) {
        self.executor.stop(grace).await;
    }

    /// Returns when what executes it has ended, however it ended.
    pub async fn ended(&self) -> RunnerExit {
        self.executor.ended().await
    }

    /// What it has done since it was loaded.
    #[must_use]
    pub fn statistics(&self) -> ModelStatistics {
        self.statistics.read(&self.model, self.version, self.metrics.memory.bytes())
    }

    /// Checks that inputs and wished outputs fit the model.
    ///
    /// # Errors
    /// [`Reason::UnknownTensor`] and [`Reason::InvalidTensor`], naming the field.
    pub fn check(&self, inputs: &[Tensor], outputs: &[String]) -> Result<()> {
        let model = &self.model;
        for (i, input) in inputs.iter().enumerate() {
            let field = || format!("inputs[{i}]");
            let Some(spec) = self.inputs.iter().find(|s| s.name() == input.name()) else {
                let text = format!("unexpected inference input '{}' for model '{model}'", printable(input.name()));
                return Err(Error::new(Reason::UnknownTensor, text).field(field()));
            };
            if inputs[..i].iter().any(|other| other.name() == input.name()) {
                let text = format!("input '{}' is given twice for model '{model}'", spec.name());
                return Err(Error::new(Reason::InvalidTensor, text).field(field()));
            }
            spec.check(input).map_err(|e| {
                Error::new(Reason::InvalidTensor, format!("input '{}' does not fit model '{model}': {e}", spec.name())).field(field())
            })?;
        }
        let optional = &self.executor.metadata().optional_inputs;
        let missing = self.inputs.iter().find(|s| !optional.iter().any(|o| o == s.name()) && inputs.iter().all(|t| t.name() != s.name()));
        if let Some(missing) = missing {
            let (n, k) = (self.inputs.len(), inputs.len());
            let text = format!("expected {n} inputs but got {k} inputs for model '{model}': '{}' is missing", missing.name());
            return Err(Error::new(Reason::UnknownTensor, text).field("inputs"));
        }
        for (i, output) in outputs.iter().enumerate() {
            if !self.outputs.iter().any(|s| s.name() == output) {
                let text = format!("unexpected inference output '{}' for model '{model}'", printable(output));
                return Err(Error::new(Reason::UnknownTensor, text).field(format!("outputs[{i}]")));
            }
        }
        self.check_batch(inputs)
    }

    fn check_batch(&self, inputs: &[Tensor]) -> Result<()> {
        let max = u64::from(self.config.max_batch_size());
        if max == 0 {
            return Ok(());
        }
        let mut batches = inputs.iter().map(|t| t.shape().dims().first().copied().unwrap_or(1));
        let first = batches.next().unwrap_or(1);
        if first == 0 || first > max {
            let text = format!("inference request batch-size must be from 1 to {max} for model '{}', got {first}", self.model);
            return Err(Error::new(Reason::InvalidTensor, text).field("inputs[0].shape"));
        }
        match batches.position(|b| b != first) {
            None => Ok(()),
            Some(i) => {
                let text = format!("input batch size does not match other inputs for model '{}'", self.model);
                Err(Error::new(Reason::InvalidTensor, text).field(format!("inputs[{}].shape", i + 1)))
            }
        }
    }

    /// What a failure is to the caller.
    pub(crate) fn error(&self, failure: Failure) -> Error {
        let model = &self.model;
        match failure {
            Failure::Answer(error) => error,
            Failure::Runner(error) => self.runner_error(error),
            Failure::Full { retry_after } => {
                let text = format!("the queue of model '{model}' is full; send less at a time or try again in a moment");
                let pause = retry_after.unwrap_or(LEAST_PAUSE).clamp(LEAST_PAUSE, MOST_PAUSE);
                Error::new(Reason::QueueFull, text).retry_after(pause)
            }
            Failure::Suspect => Error::new(
                Reason::RunnerCrashed,
                format!("model '{model}' died twice while it worked on this request; this input is refused for a while. Send another one"),
            ),
            Failure::Replaced => {
                let text = format!("model '{model}' is changing versions; try again in a moment");
                Error::new(Reason::ModelNotReady, text).retry_after(LEAST_PAUSE)
            }
        }
    }

    fn runner_error(&self, error: RunnerError) -> Error {
        let model = &self.model;
        match error {
            RunnerError::Stopping => self.error(Failure::Replaced),
            RunnerError::Unhealthy => {
                let text = format!("the server of model '{model}' does not pass its health checks; try again in a moment");
                Error::new(Reason::ModelNotReady, text).retry_after(LEAST_PAUSE)
            }
            RunnerError::Input(text) => Error::new(Reason::InvalidTensor, format!("model '{model}' refuses the input: {text}")),
            RunnerError::Execution(text) => Error::new(Reason::ModelExecutionFailed, format!("model '{model}' failed: {text}")),
            RunnerError::Crashed => {
                Error::new(Reason::RunnerCrashed, format!("model '{model}' died while it worked on this request; it is started again"))
            }
            RunnerError::BrokeProtocol(text) => {
                Error::new(Reason::RunnerBrokeProtocol, format!("model '{model}' answered something else than it promises: {text}"))
            }
            RunnerError::QueueFull => self.error(Failure::Full { retry_after: None }),
            RunnerError::Deadline(phase) => {
                Error::new(Reason::DeadlineExceeded, format!("the deadline passed while the request to model '{model}' was {phase}"))
            }
            RunnerError::Load(text) | RunnerError::Start(text) => Error::internal(text),
            RunnerError::Altered(path) => Error::internal(format!("altered: {path}")),
        }
    }
}

/// A name from outside, fit for an error text.
fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}
