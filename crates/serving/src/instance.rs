//! A loaded version that answers: its runner, its completed configuration, and the check of inputs.
//!
//! Invariant: what reaches the runner fits the model's inputs, each exactly once; what comes back
//! was checked by the runner's own side of the channel.

use std::time::Duration;

use plinth_engine::{Runner, RunnerError};
use plinth_telemetry::ModelMetrics;
use plinth_types::{Digest, Error, ModelName, Reason, Result, TenantName, Tensor, TensorSpec, VersionNumber};

use crate::model_config::ModelConfig;
use crate::statistics::{ModelStatistics, Statistics};

/// A loaded version.
pub struct Instance {
    pub(crate) tenant: TenantName,
    pub(crate) model: ModelName,
    pub(crate) version: VersionNumber,
    pub(crate) content: Digest,
    pub(crate) config: ModelConfig,
    pub(crate) labels: crate::Labels,
    pub(crate) runner: Runner,
    pub(crate) inputs: Vec<TensorSpec>,
    pub(crate) outputs: Vec<TensorSpec>,
    pub(crate) metrics: ModelMetrics,
    pub(crate) statistics: Statistics,
}

/// Why one try to execute failed.
pub(crate) enum Failure {
    /// The runner is being replaced; the same request may go to whatever answers now.
    Replaced,
    /// An answer for the caller.
    Answer(Error),
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

    /// Its runner.
    #[must_use]
    pub const fn runner(&self) -> &Runner {
        &self.runner
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
        let optional = &self.runner.metadata().optional_inputs;
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

    /// Executes; inputs were checked. Cancel safe.
    pub(crate) async fn execute(&self, inputs: Vec<Tensor>, outputs: Vec<String>, deadline: Duration) -> Result<Vec<Tensor>, Failure> {
        self.runner.infer(inputs, outputs, deadline).await.map_err(|e| self.failure(e))
    }

    fn failure(&self, error: RunnerError) -> Failure {
        let model = &self.model;
        let answer = |reason, text: String| Failure::Answer(Error::new(reason, text));
        match error {
            RunnerError::Stopping => Failure::Replaced,
            RunnerError::Input(text) => answer(Reason::InvalidTensor, format!("model '{model}' refuses the input: {text}")),
            RunnerError::Execution(text) => answer(Reason::ModelExecutionFailed, format!("model '{model}' failed: {text}")),
            RunnerError::Crashed => answer(
                Reason::RunnerCrashed,
                format!(
                    "model '{model}' died while it worked on this request; it is started again. If it dies on the same input once more, do not send that input"
                ),
            ),
            RunnerError::BrokeProtocol(text) => {
                answer(Reason::RunnerBrokeProtocol, format!("model '{model}' answered something else than it promises: {text}"))
            }
            RunnerError::QueueFull => {
                let text = format!("the queue of model '{model}' is full; send less at a time or try again in a moment");
                Failure::Answer(Error::new(Reason::QueueFull, text).retry_after(Duration::from_secs(1)))
            }
            RunnerError::Deadline(phase) => {
                answer(Reason::DeadlineExceeded, format!("the deadline passed while the request to model '{model}' was {phase}"))
            }
            RunnerError::Load(text) | RunnerError::Start(text) => Failure::Answer(Error::internal(text)),
            RunnerError::Altered(path) => Failure::Answer(Error::internal(format!("altered: {path}"))),
        }
    }
}

/// A name from outside, fit for an error text.
fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}
