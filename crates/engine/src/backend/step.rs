//! Built-in steps: what stands before and behind models in pipelines, as versions of their own.
//!
//! A version whose model file is `step.toml` is one step of the kind that the file names: `image` (decode, resize,
//! normalise), `tokenize` (texts to token ids), `pool` (token vectors to one vector), `classify` (scores to classes).
//! Steps run in runners like any model, because images and texts from outside are hostile.
//!
//! Invariants: every tensor has a leading batch dimension; `step.toml` is strict, an unknown key or a value out of range does
//! not load; what an input may cost is bounded by the file's limits and by [`MAX_OUTPUT_BYTES`]; a panic in a foreign
//! decoder is an error for the one who sent the input, not the end of the runner. Steps hold no state between requests.

mod classify;
mod description;
mod image;
mod pool;
mod tokenize;
mod values;

use std::panic::{AssertUnwindSafe, catch_unwind};

use plinth_types::{Tensor, TensorSpec};

use super::{Backend, BackendError, LoadRequest};
use crate::spec::{BackendKind, ModelMetadata};

/// The most bytes of one request's outputs.
pub const MAX_OUTPUT_BYTES: u64 = 256 << 20;

/// The name of the platform.
const PLATFORM: &str = "step";

/// What each kind of step does.
trait Kind: Send + Sync {
    /// What it takes: the specifications, and the names of those that may be left out.
    fn inputs(&self) -> Result<(Vec<TensorSpec>, Vec<String>), BackendError>;

    /// What it gives.
    fn outputs(&self) -> Result<Vec<TensorSpec>, BackendError>;

    /// Computes the wished outputs, in that order, from inputs that fit.
    fn execute(&self, inputs: &[Tensor], outputs: &[String]) -> Result<Vec<Tensor>, BackendError>;
}

/// A loaded step.
pub struct Step {
    kind: Box<dyn Kind>,
    metadata: ModelMetadata,
}

impl Step {
    /// Reads `step.toml` and the files that it names.
    ///
    /// # Errors
    /// [`BackendError::Load`].
    pub fn load(request: &LoadRequest) -> Result<Self, BackendError> {
        let text = request.file(BackendKind::Step.model_file())?;
        let name = description::kind(text)?;
        let kind: Box<dyn Kind> = match name.as_str() {
            "image" => Box::new(image::Image::load(text)?),
            "tokenize" => Box::new(tokenize::Tokenize::load(text, request)?),
            "pool" => Box::new(pool::Pool::load(text)?),
            "classify" => Box::new(classify::Classify::load(text, request)?),
            other => return Err(description::unknown_kind(other)),
        };
        let (inputs, optional_inputs) = kind.inputs()?;
        let outputs = kind.outputs()?;
        let metadata = ModelMetadata { platform: PLATFORM.to_owned(), inputs, optional_inputs, outputs, engine: format!("step {name}") };
        unique(&metadata)?;
        Ok(Self { kind, metadata })
    }

    /// Executes once; see [`Backend::execute`].
    fn run(&self, inputs: &[Tensor], outputs: &[String]) -> Result<Vec<Tensor>, BackendError> {
        let bytes = |tensor: &Tensor| tensor.shape().dims().first().copied().unwrap_or(1);
        let batch = inputs.first().map_or(1, bytes);
        if let Some(other) = inputs.iter().find(|tensor| bytes(tensor) != batch) {
            return Err(BackendError::Input(format!("'{}' has another batch size than the other inputs", other.name())));
        }
        // Nothing of a step changes while it executes, so nothing is left half done.
        match catch_unwind(AssertUnwindSafe(|| self.kind.execute(inputs, outputs))) {
            Ok(result) => result,
            Err(_) => Err(BackendError::Input("the input cannot be processed".to_owned())),
        }
    }
}

impl Backend for Step {
    fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    fn execute(&self, inputs: Vec<Tensor>, outputs: &[String]) -> Result<Vec<Tensor>, BackendError> {
        self.run(&inputs, outputs)
    }
}

/// Names come from the file, so two may be equal.
fn unique(metadata: &ModelMetadata) -> Result<(), BackendError> {
    for specs in [&metadata.inputs, &metadata.outputs] {
        for (i, spec) in specs.iter().enumerate() {
            if specs[..i].iter().any(|other| other.name() == spec.name()) {
                return Err(BackendError::Load(format!("step.toml: two tensors are called '{}'", spec.name())));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
