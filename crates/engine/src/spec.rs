//! What a runner is started from, and what it says of itself.
//!
//! Plain values that cross the process boundary or that `serving` reads; no behaviour.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use plinth_types::{ArtifactPath, ByteSize, Digest, TensorSpec};
use serde::{Deserialize, Serialize};

/// Which backend executes a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendKind {
    /// ONNX Runtime; the version has a `model.onnx`.
    Onnx,
    /// A built-in step of a pipeline; the version has a `step.toml`.
    Step,
    /// Misbehaves on demand, for tests; the version has a `villain.toml`.
    Villain,
}

impl BackendKind {
    /// The kind as it stands in the configuration and in `config.pbtxt`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::Step => "step",
            Self::Villain => "villain",
        }
    }

    /// The file by which a version says that it is for this backend.
    #[must_use]
    pub const fn model_file(self) -> &'static str {
        match self {
            Self::Onnx => "model.onnx",
            Self::Step => "step.toml",
            Self::Villain => "villain.toml",
        }
    }
}

/// A file that a runner may read, with the digest that its bytes must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    /// Its path under the version's directory.
    pub path: ArtifactPath,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub digest: Digest,
}

/// What executes the model's mathematics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// The processors of the machine.
    #[default]
    Cpu,
    /// A GPU, through CUDA.
    Cuda {
        /// Its number.
        device: u32,
    },
    /// A GPU, through TensorRT; what that cannot do, CUDA does.
    TensorRt {
        /// Its number.
        device: u32,
    },
}

/// Everything that is needed to start a runner.
#[derive(Debug, Clone)]
pub struct RunnerSpec {
    /// The binary to execute; its hidden command `runner` calls `engine::runner_main`.
    pub program: PathBuf,
    /// For logs and for `ps`: `tenant/model/version`.
    pub label: String,
    /// Which backend.
    pub backend: BackendKind,
    /// The directory with the version's files; the only one that the runner can read.
    pub directory: PathBuf,
    /// The files that it may load.
    pub files: Vec<FileSpec>,
    /// The shared library of ONNX Runtime; needed by [`BackendKind::Onnx`].
    pub onnxruntime: Option<PathBuf>,
    /// Threads for one execution; at least 1.
    pub threads: u16,
    /// How many executions there may be at a time, each on its own threads, over one copy of the weights; at least 1.
    /// The runner has as many lanes.
    pub instances: u16,
    /// What executes the model.
    pub provider: Provider,
    /// How much address space large inputs and outputs share; memory is taken only for what is in use.
    pub shared_memory: ByteSize,
    /// The most address space that the runner may use on top of what it uses before it loads the model.
    pub memory: Option<ByteSize>,
    /// Processor seconds after which the kernel ends the runner; `None` for no limit.
    pub cpu_seconds: Option<u64>,
    /// How long loading may take.
    pub load_timeout: Duration,
    /// How long one execution may take; past it the runner hangs and is killed, which counts as a crash.
    pub execution_timeout: Duration,
}

/// What a loaded model takes and gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// Triton's name of the platform: `onnxruntime_onnx`, `villain`.
    pub platform: String,
    /// The inputs, in the model's order.
    pub inputs: Vec<TensorSpec>,
    /// Names of inputs that may be left out.
    pub optional_inputs: Vec<String>,
    /// The outputs, in the model's order.
    pub outputs: Vec<TensorSpec>,
    /// What executes it, for people: `onnxruntime 1.24.4`.
    pub engine: String,
}

/// Which walls stand around a runner.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SandboxReport {
    /// What was applied, such as `landlock`, `seccomp`, `network namespace`.
    pub applied: Vec<String>,
    /// What could not be applied here, each with the reason.
    pub missing: Vec<String>,
}

/// How a runner ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerExit {
    /// It was asked to stop.
    Stopped,
    /// It ended by itself with this status.
    Status(i32),
    /// A signal ended it, such as 9 or 11.
    Signal(i32),
    /// It held one execution for too long and was killed.
    Hung,
    /// It broke the channel's protocol and was killed.
    BrokeProtocol,
}

impl fmt::Display for RunnerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("it was asked to stop"),
            Self::Status(status) => write!(f, "it ended by itself with status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal} ended it"),
            Self::Hung => f.write_str("it hung and was killed"),
            Self::BrokeProtocol => f.write_str("it broke the channel's protocol and was killed"),
        }
    }
}

/// Why a runner could not do what it was asked. Texts for users name no path and no address.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunnerError {
    /// The model cannot be loaded: its files are bad, or do not fit the limits.
    #[error("{0}")]
    Load(String),
    /// The bytes on disk are not the ones in the specification. Nothing parsed them.
    #[error("the file '{0}' was altered on disk")]
    Altered(ArtifactPath),
    /// The runner could not be started at all; the node's fault.
    #[error("the runner could not be started")]
    Start(String),
    /// The input cannot be executed; the caller's fault.
    #[error("{0}")]
    Input(String),
    /// The model failed on this input.
    #[error("{0}")]
    Execution(String),
    /// The runner died while it held the request.
    #[error("the runner died while it held the request")]
    Crashed,
    /// The runner answered something that the protocol or the metadata does not allow.
    #[error("the model answered something else than it promises: {0}")]
    BrokeProtocol(String),
    /// Too many requests or bytes are waiting.
    #[error("the model's queue is full")]
    QueueFull,
    /// The request's deadline passed.
    #[error("the deadline passed while the request was {0}")]
    Deadline(&'static str),
    /// The server behind the version fails its checks; it may recover, or is ended.
    #[error("the model's server does not pass its checks")]
    Unhealthy,
    /// The runner is stopping and takes no more.
    #[error("the runner is stopping")]
    Stopping,
}
