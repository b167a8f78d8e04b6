//! Lanes: how batches get to a runner and back.
//!
//! A runner offers one [`Lane`] for each of its instances. Whoever owns a lane puts batches together and decides when
//! they go; nothing waits in here but the one batch that the runner takes up as soon as it has finished the one before.
//! Invariants: sending never waits; what was sent comes back exactly once and in the order of sending, or the lane ends;
//! what comes back was held against the model's metadata.
//!
//! The way of a batch: it is checked and laid out ([`plan`]); its bytes go into the packet when they are few, else into the
//! region that node and runner share, else, when that is full, after the packet in pieces; the answer's bytes come back in
//! the same three ways and are taken apart for the requests ([`split`]). A node's task and a runner's thread meet at one
//! socket, with nobody in between.

mod arrivals;
mod plan;
mod receiver;
mod sender;
mod shared;
mod split;
#[cfg(test)]
mod tests;

use std::time::Duration;

use plinth_types::{Tensor, TraceContext};

use crate::spec::RunnerError;
pub use receiver::LaneReceiver;
pub use sender::LaneSender;
pub(crate) use shared::{LaneEnd, Shared, Wiring};

/// Payloads up to this go with the packet: for so few bytes the kernel's copy is cheaper than a place of their own.
pub(crate) const INLINE: u64 = 16 << 10;
/// Tensors begin at multiples of this in the region.
const REGION_ALIGNMENT: u64 = 64;

/// The most recorded requests of which a batch says so: a header has a bounded length.
pub(crate) const TRACES: usize = 64;

/// How many batches a lane takes before it has answered one: one in execution, and one that waits in the runner, so that
/// the instance is never idle while the node puts the next together.
pub const DEPTH: usize = 2;

/// One instance of a loaded model.
pub struct Lane {
    /// Where batches go in.
    pub sender: LaneSender,
    /// Where their outcomes come out.
    pub receiver: LaneReceiver,
}

/// What one execution of the model gets.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Comes back in [`Done`]; free for the caller to choose.
    pub id: u64,
    /// The requests that are executed together.
    pub parts: Vec<Part>,
    /// Whether the first dimension of inputs and outputs is the batch dimension, along which parts are put together.
    /// Without it a batch has exactly one part.
    pub batched: bool,
    /// From now; a batch that has not begun by then is dropped by the runner.
    pub deadline: Duration,
}

/// One request of a batch. All parts of a batch have the same inputs: names, types, and shapes but for the first
/// dimension, which within one part is the same for all inputs.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// Its inputs.
    pub inputs: Vec<Tensor>,
    /// The outputs that it asks for, in the order of the answer; empty for all.
    pub outputs: Vec<String>,
    /// Where it stands in its trace; of requests that are recorded alone, so that the others cost nothing.
    pub trace: Option<TraceContext>,
}

/// A batch that has ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// The batch's.
    pub id: u64,
    /// For each part, in order, the outputs that it asked for; or why the whole batch has none.
    pub outcome: Result<Vec<Vec<Tensor>>, RunnerError>,
    /// How long it took in the runner.
    pub timing: Timing,
}

/// What a batch cost, measured in the runner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// From the frame's arrival in hand to the first instruction of the model.
    pub input: Duration,
    /// The model.
    pub infer: Duration,
    /// From the model's end until the outputs lay ready to be sent.
    pub output: Duration,
}

/// Why a batch was not sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// [`DEPTH`] batches are outstanding.
    #[error("the lane holds as much as it takes")]
    Busy(Batch),
    /// The runner is stopping or gone.
    #[error("the runner takes no more")]
    Ended(Batch),
    /// The batch does not fit the model or itself.
    #[error("{text}")]
    Invalid {
        /// The batch.
        batch: Batch,
        /// Which part, where it is one.
        part: Option<usize>,
        /// What is wrong, for users.
        text: String,
    },
}

impl Lane {
    pub(crate) fn new(shared: std::sync::Arc<Shared>) -> Self {
        Self { sender: LaneSender::new(shared.clone()), receiver: LaneReceiver::new(shared) }
    }
}
