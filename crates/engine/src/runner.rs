//! The node's side of a runner: start, ask, stop, and know how it ended.

use std::time::Duration;

use plinth_runtime::{TaskGroup, World};
use plinth_types::Tensor;

use crate::spec::{ModelMetadata, RunnerError, RunnerExit, RunnerSpec, SandboxReport};

/// A runner process with a loaded model. Dropping it kills the process.
pub struct Runner {}

impl Runner {
    /// Starts the process and loads the model; returns when it is ready to execute.
    ///
    /// # Errors
    /// [`RunnerError::Load`], [`RunnerError::Altered`], [`RunnerError::Start`], [`RunnerError::Crashed`],
    /// [`RunnerError::Deadline`].
    pub async fn start(spec: RunnerSpec, world: &World, tasks: &TaskGroup) -> Result<Self, RunnerError> {
        let _ = (spec, world, tasks);
        Err(RunnerError::Stopping)
    }

    /// What the model takes and gives.
    #[must_use]
    pub fn metadata(&self) -> &ModelMetadata {
        unreachable!()
    }

    /// Which walls stand around the process.
    #[must_use]
    pub fn sandbox(&self) -> &SandboxReport {
        unreachable!()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        0
    }

    /// How many requests it holds.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        0
    }

    /// Executes the model once. `outputs` empty means all. `deadline` counts from now. Cancel safe: a dropped call is
    /// dropped in the runner too if it has not begun.
    ///
    /// # Errors
    /// All but [`RunnerError::Load`], [`RunnerError::Altered`], [`RunnerError::Start`].
    pub async fn infer(&self, inputs: Vec<Tensor>, outputs: Vec<String>, deadline: Duration) -> Result<Vec<Tensor>, RunnerError> {
        let _ = (inputs, outputs, deadline);
        Err(RunnerError::Stopping)
    }

    /// Takes no more, lets what is in flight finish for at most `grace`, then ends the process. Idempotent.
    pub async fn stop(&self, grace: Duration) {
        let _ = grace;
    }

    /// Returns when the process has ended, however it ended. Any number of callers.
    pub async fn ended(&self) -> RunnerExit {
        RunnerExit::Stopped
    }
}
