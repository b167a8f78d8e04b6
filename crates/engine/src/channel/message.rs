//! What the node and a runner say to each other at the beginning and at the end. Plain values.

use std::path::PathBuf;

use plinth_types::ArtifactPath;
use serde::{Deserialize, Serialize};

use crate::spec::{BackendKind, FileSpec, ModelMetadata, Provider, SandboxReport};

/// From the node to a runner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToRunner {
    /// First and once: what to load and within which limits.
    Init(Box<Init>),
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
    pub provider: Provider,
    pub memory: Option<u64>,
    pub cpu_seconds: Option<u64>,
    pub max_answer_bytes: u64,
}

/// From a runner to the node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromRunner {
    /// The model is loaded, and every lane is listened to.
    Ready { metadata: Box<ModelMetadata>, sandbox: SandboxReport },
    /// The model is not loaded and never will be; the process ends.
    Failed(StartFailure),
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
