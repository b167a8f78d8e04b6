//! The backend for ONNX models: ONNX Runtime, its shared library loaded at run time.
//!
//! One session, for any number of executions at a time, on a private thread pool that does not spin. The session gets the model's bytes, never a path, and no
//! file can be opened any more when it is built; models with their weights in other files are refused. Every element
//! type of [`plinth_types::DataType`] goes in and out; inputs are read in place where they are aligned, large outputs
//! are handed on without a copy.
//!
//! Its memory: weights lie outside the arena and the arena grows by what is asked for, so a limit is a limit on what
//! the model takes. The arena keeps what it has until the process ends, which is when the node wants it back.

mod graph;
mod library;
mod provider;
mod run;
mod texts;
mod threads;
mod value;

use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{Outlet, ValueType};
use plinth_types::{Dim, Tensor, TensorSpec};

use super::{Backend, BackendError, LoadRequest, OutputPlace};
use crate::spec::{BackendKind, ModelMetadata};
pub use library::Library;
use run::Executable;
use texts::load_error;

/// Triton's name of the platform.
const PLATFORM: &str = "onnxruntime_onnx";

/// A loaded ONNX model.
pub struct Onnx {
    executable: Executable,
    metadata: ModelMetadata,
}

impl Onnx {
    /// Parses `model.onnx` and prepares to execute it.
    ///
    /// # Errors
    /// [`BackendError::Load`].
    pub fn load(library: &Library, request: &LoadRequest) -> Result<Self, BackendError> {
        let model = request.file(BackendKind::Onnx.model_file())?;
        graph::inspect(model)?;
        let session = build(library, model, request)?;
        let metadata = ModelMetadata {
            platform: PLATFORM.to_owned(),
            inputs: specs("input", session.inputs())?,
            optional_inputs: Vec::new(),
            outputs: specs("output", session.outputs())?,
            engine: format!("onnxruntime {}", library.version()),
        };
        let executable = Executable::new(session, &metadata)?;
        Ok(Self { executable, metadata })
    }
}

fn build(library: &Library, model: &[u8], request: &LoadRequest) -> Result<Session, BackendError> {
    let builder = options(library, request).map_err(|error| load_error(&error))?;
    let mut builder = provider::append(builder, request.provider)?;
    builder.commit_from_memory(model).map_err(|error| load_error(&error))
}

fn options(library: &Library, request: &LoadRequest) -> ort::Result<SessionBuilder> {
    let builder = Session::builder(library.environment())?
        .with_intra_threads(usize::from(request.threads.max(1)))?
        .with_inter_threads(1)?
        .with_parallel_execution(false)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_env_allocators()?
        .with_device_allocated_initializers()?
        .with_config_entry("session.load_model_format", "ONNX")?
        .with_log_level(ort::logging::LogLevel::Fatal)?;
    match &request.spawner {
        Some(spawner) => Ok(builder.with_thread_manager(threads::Threads(spawner.clone()))?),
        None => Ok(builder),
    }
}

fn specs(role: &str, outlets: &[Outlet]) -> Result<Vec<TensorSpec>, BackendError> {
    outlets
        .iter()
        .map(|outlet| spec(outlet).map_err(|why| BackendError::Load(format!("the model's {role} '{}' {why}", outlet.name()))))
        .collect()
}

fn spec(outlet: &Outlet) -> Result<TensorSpec, String> {
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return Err("is not a tensor".to_owned());
    };
    let datatype = value::datatype(*ty).ok_or_else(|| format!("has elements of type {ty}, which are not supported"))?;
    // Symbolic dimensions are negative.
    let dims = shape.iter().map(|dim| u64::try_from(*dim).map_or(Dim::Any, Dim::Fixed)).collect();
    TensorSpec::new(outlet.name(), datatype, dims).map_err(|error| format!("cannot be served: {error}"))
}

impl Backend for Onnx {
    fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    fn execute(&self, inputs: Vec<Tensor>, outputs: &[String]) -> Result<Vec<Tensor>, BackendError> {
        self.execute_into(inputs, outputs, &mut OutputPlace::none(None))
    }

    fn execute_into(&self, inputs: Vec<Tensor>, outputs: &[String], place: &mut OutputPlace) -> Result<Vec<Tensor>, BackendError> {
        self.executable.run(&inputs, outputs, place)
    }
}
