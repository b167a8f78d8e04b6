//! Pipelines: models that are graphs of other models.
//!
//! A [`Pipeline`] is the executor of a version whose configuration has `ensemble_scheduling`. Each step names a *model*, and
//! is executed by whatever version of it answers at that moment, so that a step can be replaced without touching the
//! pipeline or its other steps. Nothing is loaded here: steps are deployments of their own.
//!
//! Invariants: a request is let in whole or refused at once (`gate`); inside, a step begins as soon as its inputs are there
//! and independent steps run at the same time (`run`); tensors go from step to step as they are, shared and never copied,
//! and are let go with their last reader; the first error ends the request and cancels its other steps. Graphs are checked
//! before they come here (`graph`), and models against them when they are loaded (`fit`).

pub mod fit;
mod gate;
pub mod graph;
mod run;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use plinth_engine::ModelMetadata;
use plinth_runtime::{CancellationToken, Clock};
use plinth_types::{Error, ModelName, Reason, Result, Tensor, TensorSpec};

pub use fit::{Look, Models, StepView};
pub use graph::{Graph, GraphError, GraphSpec, StepSpec};

use crate::{InferRequest, ModelConfig};
use gate::{Gate, Pass};
use graph::{Step, StepId, TensorId};
use run::{Ready, Run};

/// How deep pipelines may stand in pipelines. A step that is a pipeline is one deeper than its own.
pub const MAX_DEPTH: u8 = 8;

/// Executes the steps of pipelines: any model, by its name.
#[async_trait]
pub trait Steps: Send + Sync {
    /// Executes a model once, as a request of its own that is checked, queued, batched, counted and limited like any other.
    /// Answers the wished outputs in their order. `depth` is handed on to [`Pipeline::execute`] when the model is a pipeline
    /// itself. A dropped call is dropped before it costs, if it has not begun.
    ///
    /// # Errors
    /// Those of `Serving::infer`.
    async fn infer(&self, request: InferRequest, depth: u8) -> Result<Vec<Tensor>>;
}

/// The limits of a pipeline's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipelineLimits {
    /// The most requests inside.
    pub max_requests: usize,
    /// No more are let in when those inside hold so many bytes of tensors; they may grow to twice as many.
    pub max_bytes: u64,
}

impl PipelineLimits {
    /// The limits for `graph`: `asked` requests (the configuration's `max_inflight_requests`; 0 for none asked), else as many
    /// as fit into the queue of each step's runner, which has `queue` as its limits, even if they all wait for the same one.
    #[must_use]
    pub fn for_graph(graph: &Graph, asked: u32, queue: Self) -> Self {
        let fitting = (queue.max_requests / graph.most_of_one_model()).max(1);
        Self { max_requests: if asked > 0 { asked as usize } else { fitting }, max_bytes: queue.max_bytes }
    }
}

/// A loaded pipeline.
pub struct Pipeline {
    model: ModelName,
    graph: Graph,
    metadata: ModelMetadata,
    gate: Gate,
    stopped: CancellationToken,
    clock: Arc<dyn Clock>,
}

impl Pipeline {
    /// The executor of the pipeline `model` from its completed configuration; `queue` are the limits of a runner's queue, from
    /// which those of the entry follow where the configuration does not say.
    ///
    /// # Errors
    /// None for a configuration that [`ModelConfig::complete_pipeline`] gave.
    pub fn new(model: ModelName, config: &ModelConfig, queue: PipelineLimits, clock: Arc<dyn Clock>) -> Result<Self> {
        let graph = config.pipeline_graph()?.ok_or_else(|| Error::internal(format!("'{model}' is no pipeline")))?;
        let limits = PipelineLimits::for_graph(&graph, config.max_inflight_requests(), queue);
        let inputs = config.metadata_inputs();
        let optional = inputs.iter().map(TensorSpec::name).filter(|name| config.is_optional(name)).map(str::to_owned).collect();
        let metadata = ModelMetadata {
            platform: config.platform().to_owned(),
            inputs,
            optional_inputs: optional,
            outputs: config.metadata_outputs(),
            engine: format!("pipeline, steps: {}", graph.steps().len()),
        };
        Ok(Self { metadata, ..Self::of(model, graph, limits, clock) })
    }

    fn of(model: ModelName, graph: Graph, limits: PipelineLimits, clock: Arc<dyn Clock>) -> Self {
        let gate = Gate::new(limits.max_requests, limits.max_bytes);
        let (platform, engine) = (String::new(), String::new());
        let metadata = ModelMetadata { platform, inputs: Vec::new(), optional_inputs: Vec::new(), outputs: Vec::new(), engine };
        Self { model, graph, metadata, gate, stopped: CancellationToken::new(), clock }
    }

    /// What it takes and gives, as a model's.
    #[must_use]
    pub const fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    /// Lets what is inside finish for at most `grace`; then [`Self::ended`] returns. What comes all the same, through a table
    /// that was read before, is executed: a pipeline holds nothing that would have to be given back.
    pub async fn stop(&self, grace: Duration) {
        let _late_ones_finish_by_themselves = tokio::time::timeout(grace, self.gate.emptied()).await;
        self.stopped.cancel();
    }

    /// Returns when it was stopped. Any number of callers; cancel safe.
    pub async fn ended(&self) {
        self.stopped.cancelled().await;
    }

    /// Its steps and how they hang together.
    #[must_use]
    pub const fn graph(&self) -> &Graph {
        &self.graph
    }

    /// How many requests are inside.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.gate.inside()
    }

    /// Executes the graph once. The request's inputs were checked against the pipeline's; its deadline counts from now.
    /// `depth` is 0 for a request from outside. Cancel safe: dropping the call drops its steps.
    ///
    /// # Errors
    /// `QueueFull` at the entry; `ModelNotReady` naming a step that nothing answers for; `DeadlineExceeded`; `OverCapacity` when
    /// the tensors between the steps grow too large; else the error of the step that failed, named.
    pub async fn execute(&self, steps: &dyn Steps, request: InferRequest, depth: u8) -> Result<Vec<Tensor>> {
        if depth >= MAX_DEPTH {
            return Err(Error::new(Reason::ModelNotReady, format!("pipelines are nested more than {MAX_DEPTH} deep at '{}'", self.model)));
        }
        let bytes = request.inputs.iter().map(size).sum();
        let pass = self.gate.enter(bytes).ok_or_else(|| self.full(bytes))?;
        let deadline = request.deadline;
        let mut under_way = Vec::new();
        let done = Box::pin(self.run(steps, request, depth + 1, pass, &mut under_way));
        match tokio::time::timeout(deadline, done).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let at: Vec<_> = under_way.iter().map(|step| format!("'{}'", self.graph.steps()[*step].label)).collect();
                let text = format!("the deadline passed while the request to pipeline '{}' was at {}", self.model, at.join(", "));
                Err(Error::new(Reason::DeadlineExceeded, text))
            }
        }
    }

    async fn run(
        &self,
        steps: &dyn Steps,
        mut request: InferRequest,
        depth: u8,
        mut pass: Pass<'_>,
        under_way: &mut Vec<StepId>,
    ) -> Result<Vec<Tensor>> {
        let start = self.clock.monotonic();
        let wished = self.wished(&request.outputs)?;
        let given = std::mem::take(&mut request.inputs).into_iter().filter_map(|tensor| Some((self.input(tensor.name())?, tensor)));
        let mut run = Run::new(&self.graph, given, wished);
        let mut going = FuturesUnordered::new();
        // What the steps that are under way were given for good; what others read too is still held by `run`.
        let mut lent = vec![0; self.graph.steps().len()];
        loop {
            while let Some(ready) = run.next() {
                let step = ready.step;
                lent[step] = ready.inputs.iter().map(|(_, tensor)| size(tensor)).sum();
                under_way.push(step);
                let spent = self.clock.monotonic().saturating_sub(start);
                let call = self.call(&request, ready, spent)?;
                going.push(async move { (step, steps.infer(call, depth).await) });
            }
            let held: u64 = run.held().map(size).chain(lent.iter().copied()).sum();
            if !pass.holds(held) {
                return Err(self.too_much());
            }
            let Some((step, answer)) = going.next().await else { break };
            under_way.retain(|other| *other != step);
            lent[step] = 0;
            self.take(&mut run, step, answer)?;
        }
        run.finish().map_err(|tensor| Error::internal(format!("pipeline '{}': nothing made '{}'", self.model, self.graph.name(tensor))))
    }

    /// The request to a step.
    fn call(&self, request: &InferRequest, ready: Ready<Tensor>, spent: Duration) -> Result<InferRequest> {
        let step = &self.graph.steps()[ready.step];
        let named = |name: &str, tensor: Tensor| tensor.with_name(name).map_err(|e| Error::internal(format!("tensor of a pipeline: {e}")));
        let inputs = ready.inputs.into_iter().map(|(i, tensor)| named(&step.inputs[i].0, tensor)).collect::<Result<_>>()?;
        Ok(InferRequest {
            tenant: request.tenant.clone(),
            model: step.model.clone(),
            version: step.version,
            inputs,
            outputs: ready.outputs.iter().map(|i| step.outputs[*i].0.clone()).collect(),
            deadline: request.deadline.saturating_sub(spent),
            queue_timeout: request.queue_timeout,
            priority: request.priority,
            sequence: request.sequence.clone(),
            parameters: request.parameters.clone(),
            trace: request.trace,
        })
    }

    /// Takes a step's answer in.
    fn take(&self, run: &mut Run<'_, Tensor>, step: StepId, answer: Result<Vec<Tensor>>) -> Result<()> {
        let step = &self.graph.steps()[step];
        for tensor in answer.map_err(|error| self.failed(step, &error))? {
            let Some((_, id)) = step.outputs.iter().find(|(name, _)| name == tensor.name()) else { continue };
            let name = self.graph.name(*id);
            run.give(*id, tensor.with_name(name).map_err(|e| Error::internal(format!("tensor of a pipeline: {e}")))?);
        }
        Ok(())
    }

    fn wished(&self, outputs: &[String]) -> Result<Vec<TensorId>> {
        if outputs.is_empty() {
            return Ok(self.graph.outputs().to_vec());
        }
        let find = |name: &String| self.graph.outputs().iter().copied().find(|id| self.graph.name(*id) == name);
        let unknown = |name: &str| format!("pipeline '{}' has no output '{}'", self.model, graph::shown(name));
        outputs.iter().map(|name| find(name).ok_or_else(|| Error::new(Reason::UnknownTensor, unknown(name)).field("outputs"))).collect()
    }

    fn input(&self, name: &str) -> Option<TensorId> {
        self.graph.inputs().iter().copied().find(|id| self.graph.name(*id) == name)
    }

    /// The error of a step as the pipeline's own. What names the fields of the step's request is left out: the caller has
    /// sent another.
    fn failed(&self, step: &Step, error: &Error) -> Error {
        let reason = match error.reason() {
            // It is the pipeline that names them, not the caller.
            Reason::ModelNotFound | Reason::VersionNotFound => Reason::ModelNotReady,
            Reason::UnknownTensor => Reason::ModelExecutionFailed,
            other => other,
        };
        let text = format!("step '{}' of pipeline '{}': {}", step.label, self.model, error.public_text());
        let failed = Error::new(reason, text).diagnostic(error.log_text());
        match (error.retry_delay(), reason) {
            (Some(delay), _) => failed.retry_after(delay),
            (None, Reason::ModelNotReady) => failed.retry_after(Duration::from_secs(1)),
            (None, _) => failed,
        }
    }

    fn full(&self, bytes: u64) -> Error {
        tracing::debug!(pipeline = %self.model, inside = self.gate.inside(), bytes, "pipeline full");
        let text = format!("the entry of pipeline '{}' is full; send less at a time or try again in a moment", self.model);
        Error::new(Reason::QueueFull, text).retry_after(Duration::from_secs(1))
    }

    fn too_much(&self) -> Error {
        let text =
            format!("the tensors between the steps of pipeline '{}' have become too large together; send smaller batches", self.model);
        Error::new(Reason::OverCapacity, text).retry_after(Duration::from_secs(1))
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("model", &self.model).field("gate", &self.gate).finish_non_exhaustive()
    }
}

fn size(tensor: &Tensor) -> u64 {
    tensor.data().len() as u64
}
