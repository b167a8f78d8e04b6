//! The configuration of one model, as the Triton dialect has it: read from `config.pbtxt` or from JSON, completed from
//! the loaded graph, shown at `/v2/models/{m}/config`.
//!
//! Invariants: a [`ModelConfig`] asks for nothing that Plinth would silently not do where that changes an answer (such
//! fields are refused, see `check`); after [`ModelConfig::complete`] its tensors are the graph's, with types and
//! shapes that agree. Reading takes at most [`ModelConfig::MAX_BYTES`] bytes.
//!
//! Which file a version keeps its configuration in, and acting on it (copies, warm-up, cache), is left to the rest of this
//! crate.

mod check;
mod complete;
mod ensemble;
mod json;
mod schema;
mod sequence;
mod text;
mod warmup;

#[cfg(test)]
mod tests;

use plinth_engine::{ModelMetadata, Provider};
use plinth_types::{ArtifactPath, Error, ModelName, Reason, Tensor, TensorSpec, VersionNumber};
use prost_reflect::DynamicMessage;

pub(crate) use self::schema::pb;
pub(crate) use self::sequence::{Control, ControlKind, SequenceSettings, State};

/// The configuration of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    message: pb::ModelConfig,
    /// Empty until complete, like the outputs.
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    sequence: Option<SequenceSettings>,
}

/// Which versions of a model to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The newest so many; at least 1.
    Latest(u32),
    /// All that there are.
    All,
    /// Exactly these.
    Specific(Vec<VersionNumber>),
}

impl Default for ModelConfig {
    /// The configuration of a model that has none: no batch dimension, everything else from the graph.
    fn default() -> Self {
        Self { message: pb::ModelConfig::default(), inputs: Vec::new(), outputs: Vec::new(), sequence: None }
    }
}

impl ModelConfig {
    /// The longest text that is read, in bytes.
    pub const MAX_BYTES: u64 = 1 << 20;

    /// The name of the file in which a version carries its configuration.
    pub const FILE: &'static str = "config.pbtxt";

    /// Reads the protobuf text format.
    ///
    /// # Errors
    /// [`Reason::InvalidResource`] with line and column, or with the field; [`Reason::NotImplemented`] for what Plinth
    /// does not do; [`Reason::BodyTooLarge`].
    pub fn parse_pbtxt(text: &[u8]) -> Result<Self, Error> {
        check_size(text)?;
        let text = std::str::from_utf8(text)
            .map_err(|e| invalid(Self::FILE, format!("the text is not UTF-8 from byte {} on", e.valid_up_to())))?;
        let message = text::parse(schema::model_config(), text).map_err(|e| invalid(Self::FILE, e.to_string()))?;
        Self::from_message(&message)
    }

    /// Reads proto3 JSON, as the `config` parameter of a load carries it.
    ///
    /// # Errors
    /// As [`Self::parse_pbtxt`].
    pub fn parse_json(text: &[u8]) -> Result<Self, Error> {
        check_size(text)?;
        let message =
            json::parse(schema::model_config(), text).map_err(|e| invalid(if e.field.is_empty() { "config" } else { &e.field }, e.text))?;
        Self::from_message(&message)
    }

    fn from_message(message: &DynamicMessage) -> Result<Self, Error> {
        let message: pb::ModelConfig =
            message.transcode_to().map_err(|e| Error::internal("model configuration does not fit its own schema").source(e))?;
        check::check(&message)?;
        Ok(Self { message, ..Self::default() })
    }

    /// Fills in what is absent from the loaded graph and the model's name, and checks what is given against them.
    ///
    /// # Errors
    /// [`Reason::InvalidResource`] naming the field that contradicts the graph.
    pub fn complete(self, model: &ModelName, metadata: &ModelMetadata) -> Result<Self, Error> {
        complete::complete(self, model, metadata)
    }

    /// The graph of a pipeline (`ensemble_scheduling`); `None` for the configuration of a model.
    ///
    /// # Errors
    /// None for a configuration that was parsed: its graph was checked.
    pub fn pipeline_graph(&self) -> Result<Option<crate::pipeline::Graph>, Error> {
        ensemble::graph(&self.message)
    }

    /// How many requests may be inside a pipeline at a time; 0 when the text does not say.
    #[must_use]
    pub fn max_inflight_requests(&self) -> u32 {
        match &self.message.scheduling_choice {
            Some(pb::model_config::SchedulingChoice::EnsembleScheduling(ensemble)) => ensemble.max_inflight_requests,
            _ => 0,
        }
    }

    /// What [`Self::complete`] is for a pipeline: fills in what is absent, from the models of its steps as far as `look` finds
    /// them, and checks what is given against them.
    ///
    /// # Errors
    /// [`Reason::InvalidResource`] naming the field; [`Reason::ModelNotReady`], worth another try, when the models of the steps
    /// do not fit or are needed and not there.
    pub fn complete_pipeline(self, model: &ModelName, look: crate::pipeline::Look<'_>) -> Result<Self, Error> {
        ensemble::complete(self, model, look)
    }

    /// The configuration as Triton's `/config` shows it.
    ///
    /// # Errors
    /// [`Reason::Internal`]; cannot happen unless the schema is broken.
    pub fn to_json(&self) -> Result<serde_json::Value, Error> {
        let mut message = DynamicMessage::new(schema::model_config());
        message.transcode_from(&self.message).map_err(|e| Error::internal("model configuration to its schema").source(e))?;
        json::show(&message).map_err(|e| Error::internal("model configuration to JSON").source(e))
    }

    /// The configuration as an encoded `inference.ModelConfig`, as gRPC carries it.
    #[must_use]
    pub fn to_protobuf(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(&self.message)
    }

    /// The model's name; empty before [`Self::complete`] when the text gives none.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.message.name
    }

    /// The platform, such as `onnxruntime_onnx`; empty before [`Self::complete`] when the text gives none.
    #[must_use]
    pub fn platform(&self) -> &str {
        &self.message.platform
    }

    /// The backend, such as `onnxruntime`; empty before [`Self::complete`] when the text gives none.
    #[must_use]
    pub fn backend(&self) -> &str {
        &self.message.backend
    }

    /// The largest batch; 0 for a model without a batch dimension.
    #[must_use]
    pub fn max_batch_size(&self) -> u32 {
        u32::try_from(self.message.max_batch_size).unwrap_or(0)
    }

    /// How many copies of the model to run: the sum over its instance groups, at least 1.
    #[must_use]
    pub fn instance_count(&self) -> u32 {
        let counts = self.message.instance_group.iter().map(|g| u32::try_from(g.count).unwrap_or(0).max(1));
        counts.sum::<u32>().max(1)
    }

    /// What executes the model: as the instance groups and the accelerators say, `default` where they say nothing.
    #[must_use]
    pub(crate) fn provider(&self, default: Provider) -> Provider {
        use pb::model_instance_group::Kind;
        let first = self.message.instance_group.first();
        let device = first.and_then(|g| g.gpus.first()).and_then(|n| u32::try_from(*n).ok()).unwrap_or(0);
        let accelerators = self.message.optimization.as_ref().and_then(|o| o.execution_accelerators.as_ref());
        let tensorrt = accelerators.is_some_and(|a| a.gpu_execution_accelerator.iter().any(|a| a.name == "tensorrt"));
        match (first.map(pb::ModelInstanceGroup::kind), default) {
            (Some(Kind::Cpu), _) => Provider::Cpu,
            (Some(Kind::Gpu), Provider::TensorRt { .. }) => Provider::TensorRt { device },
            (Some(Kind::Gpu), _) if tensorrt => Provider::TensorRt { device },
            (Some(Kind::Gpu), _) => Provider::Cuda { device },
            (_, default) => default,
        }
    }

    /// Which versions to serve, when the text says so.
    #[must_use]
    pub fn version_policy(&self) -> Option<VersionPolicy> {
        use pb::model_version_policy::PolicyChoice;
        Some(match self.message.version_policy.as_ref()?.policy_choice.as_ref()? {
            PolicyChoice::Latest(latest) => VersionPolicy::Latest(latest.num_versions.max(1)),
            PolicyChoice::All(_) => VersionPolicy::All,
            PolicyChoice::Specific(specific) => {
                let number = |v: &i64| u64::try_from(*v).ok().and_then(|v| VersionNumber::try_from(v).ok());
                VersionPolicy::Specific(specific.versions.iter().filter_map(number).collect())
            }
        })
    }

    /// Whether answers may be cached.
    #[must_use]
    pub fn response_cache(&self) -> bool {
        self.message.response_cache.is_some_and(|c| c.enable)
    }

    /// Whether requests may be put together into batches.
    #[must_use]
    pub fn dynamic_batching(&self) -> bool {
        matches!(self.message.scheduling_choice, Some(pb::model_config::SchedulingChoice::DynamicBatching(_)))
    }

    /// What it says of sequences; `None` before [`Self::complete`].
    pub(crate) fn sequence_settings(&self) -> Option<&SequenceSettings> {
        self.sequence.as_ref()
    }

    /// How requests are put together, when they may be.
    pub(crate) fn dynamic_batching_settings(&self) -> Option<&pb::ModelDynamicBatching> {
        match &self.message.scheduling_choice {
            Some(pb::model_config::SchedulingChoice::DynamicBatching(batching)) => Some(batching),
            _ => None,
        }
    }

    /// The inputs as clients send them and as the metadata shows them: with a leading dimension of any size when
    /// [`Self::max_batch_size`] is above 0. Empty before [`Self::complete`].
    #[must_use]
    pub fn metadata_inputs(&self) -> Vec<TensorSpec> {
        self.inputs.clone()
    }

    /// The outputs as clients get them; as [`Self::metadata_inputs`].
    #[must_use]
    pub fn metadata_outputs(&self) -> Vec<TensorSpec> {
        self.outputs.clone()
    }

    /// Whether requests may leave the input out.
    #[must_use]
    pub fn is_optional(&self, input: &str) -> bool {
        self.message.input.iter().any(|i| i.name == input && i.optional)
    }

    /// The outputs that have labels, with the file of the version that holds them, one a line.
    pub fn label_files(&self) -> impl Iterator<Item = (String, ArtifactPath)> {
        self.message.output.iter().filter_map(|o| Some((o.name.clone(), o.label_filename.parse().ok()?)))
    }

    /// The requests to execute, in order, before the model takes traffic; none before [`Self::complete`]. Pure. They are
    /// made anew by each call and share their bytes where they are equal.
    ///
    /// # Errors
    /// [`Reason::InvalidResource`] naming the sample that does not fit the model's inputs or is too large.
    pub fn warmup_inputs(&self) -> Result<Vec<Vec<Tensor>>, Error> {
        if self.inputs.is_empty() { Ok(Vec::new()) } else { warmup::build(&self.message, &self.inputs) }
    }
}

fn check_size(text: &[u8]) -> Result<(), Error> {
    let limit = ModelConfig::MAX_BYTES;
    if text.len() as u64 <= limit {
        return Ok(());
    }
    Err(Error::new(Reason::BodyTooLarge, format!("a model configuration has at most {limit} bytes, this one has {}", text.len())))
}

/// The error that `field` is wrong.
fn invalid(field: &str, text: impl std::fmt::Display) -> Error {
    Error::new(Reason::InvalidResource, format!("model configuration: {field}: {text}")).field(field)
}

/// The error that Plinth does not do what `field` asks for.
fn unsupported(field: &str, text: impl std::fmt::Display) -> Error {
    Error::new(Reason::NotImplemented, format!("model configuration: {field}: {text}")).field(field)
}
