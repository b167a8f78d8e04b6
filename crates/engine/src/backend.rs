//! The contract between a runner and the code that executes a model.
//!
//! Every backend passes the suite in `crate::conformance` (feature `testing`).

pub mod onnx;
mod place;
pub mod step;
pub mod villain;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use plinth_types::{ArtifactPath, Tensor};

use crate::spec::{BackendKind, ModelMetadata, Provider};
pub use place::{OutputPlace, Slot};

/// What a backend gets in order to load a model.
#[derive(Clone)]
pub struct LoadRequest {
    /// The version's files, already verified, whole in memory.
    pub files: BTreeMap<ArtifactPath, Bytes>,
    /// How many threads one execution may use; at least 1.
    pub threads: u16,
    /// What the model is executed on.
    pub provider: Provider,
    /// Starts threads for the backend; `None`: it starts them itself. A runner loads on a thread of low priority, which
    /// the threads that will execute must not inherit.
    pub spawner: Option<Spawner>,
}

/// Starts threads at the priority of the process.
pub type Spawner = std::sync::Arc<dyn Fn(Box<dyn FnOnce() + Send>) -> std::io::Result<std::thread::JoinHandle<()>> + Send + Sync>;

/// Why a backend could not do its work. The texts are shown to users: they name no path and no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The files are not a model that this backend can load.
    #[error("{0}")]
    Load(String),
    /// The input cannot be executed; the caller's fault.
    #[error("{0}")]
    Input(String),
    /// The execution failed; the model's fault.
    #[error("{0}")]
    Execution(String),
}

/// A loaded model. Blocking; any number of threads may execute at a time, and none changes what another answers.
///
/// - `load` parses and prepares; after it nothing of the files is needed but what the backend keeps.
/// - `metadata` never changes and costs nothing.
/// - `execute` gets inputs that fit `metadata().inputs` (each once, in any order) and the names of the wished
///   outputs, never empty, each one of `metadata().outputs`. It answers exactly those, in that order. An error leaves the
///   model usable. Whatever else goes wrong (a crash, a hang, a leak) is the runner's to contain.
/// - `drop` frees what can be freed; the rest goes with the process.
pub trait Backend: Send + Sync {
    /// What the model takes and gives.
    fn metadata(&self) -> &ModelMetadata;

    /// Executes the model once.
    ///
    /// # Errors
    /// [`BackendError::Input`] and [`BackendError::Execution`].
    fn execute(&self, inputs: Vec<Tensor>, outputs: &[String]) -> Result<Vec<Tensor>, BackendError>;

    /// As [`Backend::execute`]; outputs that the backend writes itself may lie in `place`, which saves a copy. Where they
    /// do not, the caller copies them.
    ///
    /// # Errors
    /// As [`Backend::execute`].
    fn execute_into(&self, inputs: Vec<Tensor>, outputs: &[String], place: &mut OutputPlace) -> Result<Vec<Tensor>, BackendError> {
        let _ = place;
        self.execute(inputs, outputs)
    }
}

/// What a backend needs of the machine, opened while the machine can still be reached.
pub(crate) enum Engine {
    Onnx(onnx::Library),
    Step,
    Villain,
}

impl Engine {
    /// The text of an error is for the log.
    pub(crate) fn open(kind: BackendKind, onnxruntime: Option<&Path>, provider: Provider) -> Result<Self, String> {
        match (kind, onnxruntime) {
            (BackendKind::Villain, _) => Ok(Self::Villain),
            (BackendKind::Step, _) => Ok(Self::Step),
            (BackendKind::Onnx, Some(path)) => {
                let library = onnx::Library::open(path)?;
                library.prepare(provider);
                Ok(Self::Onnx(library))
            }
            (BackendKind::Onnx, None) => Err("no path of ONNX Runtime's library is given".to_owned()),
        }
    }
}

/// A model that is about to be parsed.
pub(crate) struct Loader {
    pub engine: Engine,
    pub request: LoadRequest,
}

impl Loader {
    pub(crate) fn load(self) -> Result<Box<dyn Backend>, BackendError> {
        Ok(match self.engine {
            Engine::Onnx(library) => Box::new(onnx::Onnx::load(&library, &self.request)?),
            Engine::Step => Box::new(step::Step::load(&self.request)?),
            Engine::Villain => Box::new(villain::Villain::load(&self.request)?),
        })
    }
}

impl LoadRequest {
    /// The text of an error says which file the version lacks.
    pub(crate) fn file(&self, name: &str) -> Result<&Bytes, BackendError> {
        let found = self.files.iter().find(|(path, _)| path.as_str() == name);
        found.map(|(_, bytes)| bytes).ok_or_else(|| BackendError::Load(format!("the version has no file '{name}'")))
    }
}
