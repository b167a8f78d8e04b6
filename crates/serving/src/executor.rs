//! What executes a loaded version: a runner with its lanes, a foreign server, or a pipeline over other models.
//!
//! Invariant: an executor that was closed ends what it has begun; a runner or server answers [`Failure::Replaced`] to what
//! comes after.

use std::sync::Arc;
use std::time::Duration;

use plinth_engine::{ModelMetadata, Occasion, ProcessServer, Runner, RunnerError, RunnerExit, SandboxReport};
use plinth_types::Tensor;

use crate::InferRequest;
use crate::batch::{Dispatcher, Work};
use crate::instance::Failure;
use crate::pipeline::{Pipeline, Steps};

/// What executes a version.
pub(crate) enum Executor {
    /// A runner process behind a dispatcher.
    Runner { runner: Runner, dispatcher: Arc<Dispatcher> },
    /// A foreign server.
    Process(ProcessServer),
    /// Other models.
    Pipeline(Box<Pipeline>),
}

/// What a request brings besides its work.
pub(crate) struct Scene<'a> {
    pub request: &'a InferRequest,
    /// What is left of its deadline.
    pub left: Duration,
    /// Executes the steps of pipelines.
    pub steps: &'a dyn Steps,
    /// How many pipelines the request has entered.
    pub depth: u8,
}

impl Executor {
    pub fn metadata(&self) -> &ModelMetadata {
        match self {
            Self::Runner { runner, .. } => runner.metadata(),
            Self::Process(server) => server.metadata(),
            Self::Pipeline(pipeline) => pipeline.metadata(),
        }
    }

    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Runner { runner, .. } => Some(runner.pid()),
            Self::Process(server) => Some(server.pid()),
            Self::Pipeline(_) => None,
        }
    }

    pub fn sandbox(&self) -> SandboxReport {
        match self {
            Self::Runner { runner, .. } => runner.sandbox().clone(),
            Self::Process(server) => server.sandbox().clone(),
            Self::Pipeline(_) => SandboxReport::default(),
        }
    }

    /// How many requests wait or are executed.
    pub fn in_flight(&self) -> usize {
        match self {
            Self::Runner { dispatcher, .. } => dispatcher.len(),
            Self::Process(server) => server.in_flight(),
            Self::Pipeline(pipeline) => pipeline.in_flight(),
        }
    }

    /// Executes a request. Cancel safe.
    pub async fn execute(&self, work: Work, scene: Scene<'_>) -> Result<Vec<Tensor>, Failure> {
        match self {
            Self::Runner { dispatcher, .. } => dispatcher.execute(work).await,
            Self::Process(server) => {
                let Work { inputs, outputs, trace, .. } = work;
                let occasion = Occasion { parameters: &scene.request.parameters, deadline: scene.left, trace };
                let answer = server.infer_for(inputs, outputs, occasion).await;
                answer.map_err(|error| if matches!(error, RunnerError::Stopping) { Failure::Replaced } else { Failure::Runner(error) })
            }
            Self::Pipeline(pipeline) => {
                let request = InferRequest { inputs: work.inputs, deadline: scene.left, ..scene.request.without_inputs() };
                pipeline.execute(scene.steps, request, scene.depth).await.map_err(Failure::Answer)
            }
        }
    }

    /// Takes no more, lets what has begun finish for at most `grace`, and ends.
    pub async fn stop(&self, grace: Duration) {
        match self {
            Self::Runner { runner, dispatcher } => {
                dispatcher.close();
                // What does not finish in time is killed with the process.
                let _ = tokio::time::timeout(grace, dispatcher.emptied()).await;
                runner.stop(Duration::ZERO).await;
            }
            Self::Process(server) => server.stop(grace).await,
            Self::Pipeline(pipeline) => pipeline.stop(grace).await,
        }
    }

    /// Returns when it has ended, however it ended.
    pub async fn ended(&self) -> RunnerExit {
        match self {
            Self::Runner { runner, .. } => runner.ended().await,
            Self::Process(server) => server.ended().await,
            Self::Pipeline(pipeline) => {
                pipeline.ended().await;
                RunnerExit::Stopped
            }
        }
    }
}
