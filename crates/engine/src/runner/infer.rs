//! One request at a time on the first lane, for warming up, for trials and for tests: as long as nobody has taken the lanes.

use std::time::Duration;

use plinth_types::Tensor;

use super::{Runner, RunnerError, RunnerExit};
use crate::lane::{Batch, Done, Lane, Part, SendError};

/// The lane while it is borrowed; put back also when the call is dropped.
struct Borrowed<'a> {
    runner: &'a Runner,
    lane: Option<Lane>,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            self.runner.lanes().insert(0, lane);
        }
    }
}

impl Runner {
    /// Executes the model once, on the first lane, one call after another. `outputs` empty means all. `deadline` counts from
    /// now. Cancel safe: a dropped call may still be executed, and its answer is thrown away.
    ///
    /// # Errors
    /// All but [`RunnerError::Load`] and [`RunnerError::Altered`]; [`RunnerError::Start`] when the lanes were taken.
    pub async fn infer(&self, inputs: Vec<Tensor>, outputs: Vec<String>, deadline: Duration) -> Result<Vec<Tensor>, RunnerError> {
        let mut began = false;
        match tokio::time::timeout(deadline, self.execute(inputs, outputs, deadline, &mut began)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RunnerError::Deadline(if began { "running" } else { "queued" })),
        }
    }

    async fn execute(
        &self,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
        deadline: Duration,
        began: &mut bool,
    ) -> Result<Vec<Tensor>, RunnerError> {
        let _alone = self.alone.lock().await;
        let first = {
            let mut lanes = self.lanes();
            (!lanes.is_empty()).then(|| lanes.remove(0))
        };
        let mut borrowed = Borrowed { runner: self, lane: first };
        let Some(lane) = &mut borrowed.lane else {
            return Err(RunnerError::Start("the lanes of this runner belong to somebody else".to_owned()));
        };
        let mut batch = Batch { id: 0, parts: vec![Part { inputs, outputs, trace: None }], batched: false, deadline };
        let mut left_over = lane.sender.outstanding();
        loop {
            match lane.sender.send(batch) {
                Ok(()) => break,
                Err(SendError::Busy(back)) => {
                    batch = back;
                    // What a dropped call has left.
                    let Some(_) = lane.receiver.receive().await else { return Err(self.gone().await) };
                    left_over = left_over.saturating_sub(1);
                }
                Err(SendError::Ended(_)) => return Err(self.gone().await),
                Err(SendError::Invalid { text, .. }) => return Err(RunnerError::Input(text)),
            }
        }
        for _ in 0..left_over {
            let Some(_) = lane.receiver.receive().await else { return Err(self.gone().await) };
        }
        *began = true;
        match lane.receiver.receive().await {
            Some(Done { outcome: Ok(parts), .. }) => Ok(parts.into_iter().next().unwrap_or_default()),
            Some(Done { outcome: Err(error), .. }) => Err(error),
            None => Err(self.gone().await),
        }
    }

    /// What to say when the runner takes or answers nothing more.
    async fn gone(&self) -> RunnerError {
        if *self.wish.borrow() != super::Wish::Run {
            return RunnerError::Stopping;
        }
        if self.ended().await == RunnerExit::Stopped { RunnerError::Stopping } else { RunnerError::Crashed }
    }
}
