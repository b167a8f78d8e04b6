//! What the node and a runner say to each other. Plain values; the tensors' bytes follow in the frame's payload.

use std::path::PathBuf;

use plinth_types::{ArtifactPath, DataType, Shape, Tensor};
use serde::{Deserialize, Serialize};

use crate::spec::{BackendKind, FileSpec, ModelMetadata, SandboxReport};

/// From the node to a runner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToRunner {
    /// First and once: what to load and within which limits.
    Init(Box<Init>),
    /// Execute the model once.
    Infer(Infer),
    /// The caller of this request is gone: drop it if it has not begun.
    Cancel { id: u64 },
    /// End the process now.
    Stop,
}

/// Everything that a runner is told of its model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Init {
    pub backend: BackendKind,
    pub directory: PathBuf,
    pub files: Vec<FileSpec>,
    pub onnxruntime: Option<PathBuf>,
    pub threads: u16,
    pub memory: Option<u64>,
    pub cpu_seconds: Option<u64>,
    pub max_queue_requests: u64,
    pub max_queue_bytes: u64,
    pub max_answer_bytes: u64,
}

/// One request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Infer {
    /// Never used twice on one channel; rising.
    pub id: u64,
    /// How long after its arrival it may still begin.
    pub deadline_micros: u64,
    pub inputs: Vec<TensorHead>,
    /// The wished outputs; empty for all.
    pub outputs: Vec<String>,
}

/// From a runner to the node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromRunner {
    /// The model is loaded.
    Ready { metadata: Box<ModelMetadata>, sandbox: SandboxReport },
    /// The model is not loaded and never will be; the process ends.
    Failed(StartFailure),
    /// The outputs of a request.
    Answer { id: u64, outputs: Vec<TensorHead> },
    /// A request without outputs.
    Refused { id: u64, refusal: Refusal },
}

/// Why a model is not loaded.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum StartFailure {
    /// The bytes of a file are not the ones that were promised.
    Altered(ArtifactPath),
    /// The model is bad or does not fit; for users.
    Load(String),
    /// The machine is at fault; for the log.
    Machine(String),
}

/// Why a request has no outputs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// The input cannot be executed.
    Input(String),
    /// The execution failed.
    Execution(String),
    /// It was cancelled before it began.
    Cancelled,
    /// Its deadline passed before it began.
    Expired,
}

/// A tensor without its bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TensorHead {
    pub name: String,
    pub datatype: DataType,
    pub shape: Shape,
    /// How many bytes of the payload are its.
    pub length: u64,
}

impl TensorHead {
    pub(crate) fn of(tensor: &Tensor) -> Self {
        Self {
            name: tensor.name().to_owned(),
            datatype: tensor.datatype(),
            shape: tensor.shape().clone(),
            length: tensor.data().len() as u64,
        }
    }

    pub(crate) fn of_all(tensors: &[Tensor]) -> Vec<Self> {
        tensors.iter().map(Self::of).collect()
    }
}
