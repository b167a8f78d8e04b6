//! What the node and an executor say to each other on a lane. Plain values; tensors' bytes travel apart (see [`Payload`]).
//!
//! Tensors are named by their place in the model's metadata, which both ends have.

use plinth_types::{Shape, TraceContext};
use serde::{Deserialize, Serialize};

/// Execute the model once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Execute {
    /// Rising by one from batch to batch of a lane.
    pub sequence: u64,
    /// Until when it may begin, in nanoseconds of the machine's clock.
    pub expires: u64,
    /// The size of the batch, where the first dimension is the batch dimension.
    pub rows: Option<u64>,
    pub inputs: Vec<TensorHead>,
    /// Which outputs, in the order in which they are wanted.
    pub outputs: Vec<u16>,
    pub payload: Payload,
    /// Where outputs may be written.
    pub place: Option<Span>,
    /// Of the requests in it that are recorded: 25 bytes each, and one byte when there are none.
    pub traces: Vec<TraceContext>,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Answer(Answer),
    Refused { sequence: u64, refusal: Refusal },
}

/// The outputs of a batch, in the order in which they were wanted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub sequence: u64,
    /// Nanoseconds: before, in and after the model.
    pub timing: [u64; 3],
    pub outputs: Vec<TensorHead>,
    pub payload: Payload,
}

/// A tensor without its bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TensorHead {
    /// Its place among the model's inputs or outputs.
    pub index: u16,
    pub shape: Shape,
    /// Its bytes within the payload.
    pub span: Span,
}

/// Some bytes of something longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub offset: u64,
    pub length: u64,
}

/// Where the bytes of tensors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Payload {
    /// In this packet, after the header.
    Here,
    /// In the region: what the node said for inputs, where the node allowed it for outputs.
    Region(Span),
    /// So many bytes, in the pieces that follow.
    Pieces(u64),
}

/// Why a batch has no outputs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// The input cannot be executed.
    Input(String),
    /// The execution failed.
    Execution(String),
    /// The model's answer is not what its metadata promises.
    Broken(String),
    /// Its deadline passed before it began.
    Expired,
}

impl Span {
    /// The bytes of `whole` that are meant; `None` when they are not within it.
    pub(crate) fn of<'a>(&self, whole: &'a [u8]) -> Option<&'a [u8]> {
        let (from, length) = (usize::try_from(self.offset).ok()?, usize::try_from(self.length).ok()?);
        whole.get(from..from.checked_add(length)?)
    }
}
