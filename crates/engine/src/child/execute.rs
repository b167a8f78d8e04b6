//! The threads that execute: one for each lane, all with the same model.
//!
//! Invariants: every batch that is received is answered, unless the process dies; a panic of a backend is such a death,
//! because nobody knows in which state it leaves the model; what leaves here fits the model's metadata.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plinth_runtime::{Clock, SystemClock};
use plinth_types::{Tensor, TensorSpec, TraceContext};
use rustix::thread::CpuSet;

use super::lane::{Incoming, Lane};
use super::leave::leave;
use super::{NO_CHANNEL, PROTOCOL, complain};
use crate::backend::{Backend, BackendError};
use crate::channel::frame::FrameError;
use crate::channel::machine_time;
use crate::channel::wire::{Execute, Refusal};
use crate::check;

/// Graphs may be deep, and engines recurse.
pub(super) const STACK: usize = 8 << 20;
/// The status after a backend has panicked: the one that Rust uses for it.
const PANICKED: u8 = 101;

const NO_MEMORY: &str = "the inputs do not fit into the memory that the model may use";

pub(super) struct Executor {
    pub lane: Lane,
    pub backend: Arc<dyn Backend>,
    pub max_answer: u64,
    /// Where the thread shall stay.
    pub processors: Option<CpuSet>,
}

impl Executor {
    /// Executes until the node closes the lane or the process ends.
    pub(super) fn run(mut self) {
        if let Some(processors) = &self.processors {
            // Without it the thread is only farther from its memory.
            let _ = rustix::thread::sched_setaffinity(None, processors);
        }
        loop {
            match self.next() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) if error.is_end() => leave(NO_CHANNEL),
                Err(error) => {
                    complain(&format!("a lane to the node failed: {error}"));
                    leave(PROTOCOL);
                }
            }
        }
    }

    fn next(&mut self) -> Result<bool, FrameError> {
        let Some(Incoming { execute, payload, arrived }) = self.lane.receive()? else { return Ok(false) };
        let sequence = execute.sequence;
        let Some(payload) = payload else {
            // The limit is the model's; a caller with a large input must not be able to end the process with it.
            self.lane.refuse(sequence, Refusal::Execution(NO_MEMORY.to_owned()))?;
            return Ok(true);
        };
        if machine_time() >= Duration::from_nanos(execute.expires) {
            self.lane.refuse(sequence, Refusal::Expired)?;
            return Ok(true);
        }
        let metadata = self.backend.metadata();
        let inputs = inputs(&metadata.inputs, &execute, payload)?;
        let outputs = names(&metadata.outputs, &execute)?;
        if let Err(text) = check::part(metadata, &inputs, &outputs, false) {
            self.lane.refuse(sequence, Refusal::Input(text))?;
            return Ok(true);
        }
        let mut place = self.lane.place(&execute)?;
        let begun = SystemClock.monotonic();
        let Ok(done) = catch_unwind(AssertUnwindSafe(|| self.backend.execute_into(inputs, &outputs, &mut place))) else {
            tell(&execute.traces, "the backend panicked");
            leave(PANICKED)
        };
        let ended = SystemClock.monotonic();
        match done.map_err(refusal).and_then(|tensors| self.fits(&execute, &outputs, tensors)) {
            Ok(tensors) => self.lane.answer(&execute, &tensors, place, [arrived, begun, ended])?,
            Err(refusal) => {
                tell(&execute.traces, "the execution failed");
                self.lane.refuse(sequence, refusal)?;
            }
        }
        Ok(true)
    }

    /// Whether the answer is what the model has promised.
    fn fits(&self, execute: &Execute, outputs: &[String], tensors: Vec<Tensor>) -> Result<Vec<Tensor>, Refusal> {
        check::answer(self.backend.metadata(), outputs, &tensors).map_err(Refusal::Broken)?;
        if let Some(rows) = execute.rows {
            for tensor in &tensors {
                let got = tensor.shape().dims().first().copied();
                if got != Some(rows) {
                    let got = got.map_or_else(|| "none".to_owned(), |n| n.to_string());
                    return Err(Refusal::Broken(format!("output '{}': {got} rows for a batch of {rows}", tensor.name())));
                }
            }
        }
        let bytes = tensors.iter().fold(0u64, |sum, tensor| sum.saturating_add(tensor.data().len() as u64).saturating_add(16));
        if bytes > self.max_answer {
            return Err(Refusal::Execution(format!("the model's outputs are larger than the limit of {} bytes", self.max_answer)));
        }
        Ok(tensors)
    }
}

/// Says in the node's log which recorded requests something happened to.
fn tell(traces: &[TraceContext], what: &str) {
    for trace in traces {
        complain(&format!("{what}: trace_id={} span_id={}", trace.trace(), trace.span()));
    }
}

fn refusal(error: BackendError) -> Refusal {
    match error {
        BackendError::Input(text) => Refusal::Input(text),
        BackendError::Execution(text) | BackendError::Load(text) => Refusal::Execution(text),
    }
}

fn inputs(specs: &[TensorSpec], execute: &Execute, payload: Bytes) -> Result<Vec<Tensor>, FrameError> {
    let input = |head: &crate::channel::wire::TensorHead| {
        let spec = specs.get(usize::from(head.index)).ok_or(FrameError::Payload)?;
        let data = head.span.of(&payload).ok_or(FrameError::Payload)?;
        let data = if data.is_empty() { Bytes::new() } else { payload.slice_ref(data) };
        Tensor::new(spec.name(), spec.datatype(), head.shape.clone(), data).map_err(|error| FrameError::Tensor(error.to_string()))
    };
    execute.inputs.iter().map(input).collect()
}

fn names(specs: &[TensorSpec], execute: &Execute) -> Result<Vec<String>, FrameError> {
    let name = |index: &u16| specs.get(usize::from(*index)).map(|spec| spec.name().to_owned()).ok_or(FrameError::Payload);
    execute.outputs.iter().map(name).collect()
}
