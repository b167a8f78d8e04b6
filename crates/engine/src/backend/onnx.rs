//! The backend for ONNX models: ONNX Runtime, its shared library loaded at run time.
//!
//! One session on a private thread pool that does not spin. The session gets the model's bytes, never a path, and no
//! file can be opened any more when it is built; models with their weights in other files are refused. Every element
//! type of [`plinth_types::DataType`] goes in and out; inputs are read in place where they are aligned, large outputs
//! are handed on without a copy.
//!
//! Its memory: weights lie outside the arena and the arena grows by what is asked for, so a limit is a limit on what
//! the model takes. The arena keeps what it has until the process ends, which is when the node wants it back.

mod graph;
mod library;
mod texts;
mod value;

use std::borrow::Cow;

use ort::session::builder::GraphOptimizationLevel;
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{Outlet, ValueType};
use plinth_types::{Dim, Tensor, TensorSpec};

use super::{Backend, BackendError, LoadRequest};
use crate::spec::{BackendKind, ModelMetadata};
pub use library::Library;
use texts::{load_error, run_error};

/// Triton's name of the platform.
const PLATFORM: &str = "onnxruntime_onnx";

/// A loaded ONNX model.
pub struct Onnx {
    session: Session,
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
        let session = build(library, model, request.threads).map_err(|error| load_error(&error))?;
        let metadata = ModelMetadata {
            platform: PLATFORM.to_owned(),
            inputs: specs("input", session.inputs())?,
            optional_inputs: Vec::new(),
            outputs: specs("output", session.outputs())?,
            engine: format!("onnxruntime {}", library.version()),
        };
        Ok(Self { session, metadata })
    }

    fn is_all(&self, outputs: &[String]) -> bool {
        self.metadata.outputs.iter().map(TensorSpec::name).eq(outputs.iter().map(String::as_str))
    }
}

fn build(library: &Library, model: &[u8], threads: u16) -> ort::Result<Session> {
    Session::builder(library.environment())?
        .with_intra_threads(usize::from(threads.max(1)))?
        .with_inter_threads(1)?
        .with_parallel_execution(false)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_env_allocators()?
        .with_device_allocated_initializers()?
        .with_config_entry("session.load_model_format", "ONNX")?
        .with_log_level(ort::logging::LogLevel::Fatal)?
        .commit_from_memory(model)
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

    fn execute(&mut self, inputs: Vec<Tensor>, outputs: &[String]) -> Result<Vec<Tensor>, BackendError> {
        let owner = self.session.inner();
        let all = self.is_all(outputs);
        // Declared before the values that point into it.
        let data = inputs.iter().map(value::InputData::of).collect::<Result<Vec<_>, _>>()?;
        let values = inputs.iter().zip(&data).map(|(tensor, data)| {
            let value: SessionInputValue<'_> = data.value(tensor).map_err(|error| run_error(&error))?;
            Ok((Cow::Borrowed(tensor.name()), value))
        });
        let values = values.collect::<Result<Vec<_>, BackendError>>()?;
        let options = match all {
            true => None,
            false => {
                let wished = outputs.iter().fold(OutputSelector::no_default(), OutputSelector::with);
                Some(RunOptions::new().map_err(|error| run_error(&error))?.with_outputs(wished))
            }
        };
        let results = match &options {
            None => self.session.run(values),
            Some(options) => self.session.run_with_options(values, options),
        };
        let results = results.map_err(|error| run_error(&error))?;
        results.into_iter().map(|(name, result)| value::output(name, result, &data, &owner)).collect()
    }
}
