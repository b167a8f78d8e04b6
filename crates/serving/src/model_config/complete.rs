//! Fills a configuration in from the loaded graph and checks it against the graph.
//!
//! The graph has the last word on names, element types and fixed dimensions. The configuration may leave out tensors, types
//! and dimensions, may narrow a dimension of any size to a fixed one, and may show fewer outputs than the graph has.

use std::borrow::Cow;

use plinth_engine::{BackendKind, ModelMetadata};
use plinth_types::{DataType, Dim, Error, ModelName, TensorSpec};

use super::schema::{self, pb};
use super::{ModelConfig, SequenceSettings, invalid, unsupported};

/// See [`ModelConfig::complete`].
pub(super) fn complete(config: ModelConfig, model: &ModelName, metadata: &ModelMetadata) -> Result<ModelConfig, Error> {
    let mut message = config.message;
    fill_identity(&mut message, model, metadata)?;
    fill_instances(&mut message, model);
    let batched = message.max_batch_size > 0;
    let sequence = match &message.scheduling_choice {
        Some(pb::model_config::SchedulingChoice::SequenceBatching(sequence)) => {
            Some(super::sequence::settings(sequence, u32::try_from(message.max_batch_size).unwrap_or(0), metadata)?)
        }
        _ => None,
    };
    let shown = hide(metadata, sequence.as_ref());
    let inputs = fill_inputs(&mut message, &shown, batched)?;
    let outputs = fill_outputs(&mut message, &shown, batched)?;
    Ok(ModelConfig { message, inputs, outputs, sequence })
}

/// The metadata without what the server feeds and keeps by itself.
fn hide<'a>(metadata: &'a ModelMetadata, sequence: Option<&SequenceSettings>) -> Cow<'a, ModelMetadata> {
    let Some(sequence) = sequence else { return Cow::Borrowed(metadata) };
    let mut shown = metadata.clone();
    shown.inputs.retain(|spec| !sequence.hides(spec.name()));
    shown.outputs.retain(|spec| !sequence.hides(spec.name()));
    Cow::Owned(shown)
}

/// Sets `given` to `known` when it is empty; it must be one of `accepted` otherwise.
fn fill_text(field: &str, given: &mut String, known: &str, accepted: &[&str]) -> Result<(), Error> {
    if given.is_empty() {
        known.clone_into(given);
        return Ok(());
    }
    if accepted.contains(&given.as_str()) {
        return Ok(());
    }
    Err(invalid(field, format!("'{}' is given, but the model that was loaded has '{known}'; correct or remove it", schema::excerpt(given))))
}

fn fill_identity(message: &mut pb::ModelConfig, model: &ModelName, metadata: &ModelMetadata) -> Result<(), Error> {
    fill_text("name", &mut message.name, model.as_str(), &[model.as_str()])?;
    fill_text("platform", &mut message.platform, &metadata.platform, &[&metadata.platform])?;
    // Triton calls the backend for ONNX files "onnxruntime", we call it "onnx": both are understood.
    let (backend, file) = match metadata.platform.as_str() {
        "onnxruntime_onnx" => ("onnxruntime", Some(BackendKind::Onnx.model_file())),
        "step" => (BackendKind::Step.as_str(), Some(BackendKind::Step.model_file())),
        "villain" => (BackendKind::Villain.as_str(), Some(BackendKind::Villain.model_file())),
        other => (other, None),
    };
    fill_text("backend", &mut message.backend, backend, &[backend, backend.strip_suffix("runtime").unwrap_or(backend)])?;
    let Some(file) = file else { return Ok(()) };
    if !message.default_model_filename.is_empty() && message.default_model_filename != file {
        return Err(unsupported("default_model_filename", format!("the model's file is called '{file}' here; rename it")));
    }
    file.clone_into(&mut message.default_model_filename);
    Ok(())
}

fn fill_instances(message: &mut pb::ModelConfig, model: &ModelName) {
    use pb::model_instance_group::Kind;
    if message.instance_group.is_empty() {
        message.instance_group.push(pb::ModelInstanceGroup { name: model.to_string(), ..Default::default() });
    }
    for (i, group) in message.instance_group.iter_mut().enumerate() {
        if group.name.is_empty() {
            group.name = format!("{model}_{i}");
        }
        group.count = group.count.max(1);
        if group.kind() != Kind::Gpu {
            group.set_kind(Kind::Cpu);
        }
    }
}

fn fill_inputs(message: &mut pb::ModelConfig, metadata: &ModelMetadata, batched: bool) -> Result<Vec<TensorSpec>, Error> {
    for spec in &metadata.inputs {
        let optional = metadata.optional_inputs.iter().any(|name| name == spec.name());
        match message.input.iter_mut().enumerate().find(|(_, i)| i.name == spec.name()) {
            Some((i, input)) if input.optional && !optional => {
                return Err(invalid(&format!("input[{i}].optional"), format!("the graph needs '{}'", spec.name())));
            }
            Some((_, input)) => input.optional = optional,
            None => message.input.push(pb::ModelInput { name: spec.name().to_owned(), optional, ..Default::default() }),
        }
    }
    let fit = Fit { kind: "input", graph: &metadata.inputs, batched };
    message.input.iter_mut().enumerate().map(|(i, t)| fit.tensor(i, &t.name, &mut t.data_type, &mut t.dims)).collect()
}

fn fill_outputs(message: &mut pb::ModelConfig, metadata: &ModelMetadata, batched: bool) -> Result<Vec<TensorSpec>, Error> {
    if message.output.is_empty() {
        let named = |spec: &TensorSpec| pb::ModelOutput { name: spec.name().to_owned(), ..Default::default() };
        message.output = metadata.outputs.iter().map(named).collect();
    }
    let fit = Fit { kind: "output", graph: &metadata.outputs, batched };
    message.output.iter_mut().enumerate().map(|(i, t)| fit.tensor(i, &t.name, &mut t.data_type, &mut t.dims)).collect()
}

/// Fits declared tensors to the graph's.
struct Fit<'a> {
    /// `input` or `output`.
    kind: &'static str,
    graph: &'a [TensorSpec],
    batched: bool,
}

impl Fit<'_> {
    /// Fills type and dimensions of tensor `i` in, and answers what clients see of it.
    fn tensor(&self, i: usize, name: &str, data_type: &mut i32, dims: &mut Vec<i64>) -> Result<TensorSpec, Error> {
        let kind = self.kind;
        let Some(spec) = self.graph.iter().find(|s| s.name() == name) else {
            let names: Vec<_> = self.graph.iter().map(TensorSpec::name).collect();
            let hint = schema::hint(name, names.iter().copied());
            let text = format!("the graph has no {kind} '{}', it has {}{hint}", schema::excerpt(name), list(&names));
            return Err(invalid(&format!("{kind}[{i}].name"), text));
        };
        let graph_dims = self.without_batch(spec)?;
        let datatype = fill_type(&format!("{kind}[{i}].data_type"), data_type, spec)?;
        if dims.is_empty() {
            *dims = graph_dims.iter().map(|d| if let Dim::Fixed(n) = d { i64::try_from(*n).unwrap_or(i64::MAX) } else { -1 }).collect();
        }
        let field = format!("{kind}[{i}].dims");
        let agree = |(given, graph): (&i64, &Dim)| match graph {
            Dim::Any => true,
            Dim::Fixed(n) => u64::try_from(*given) == Ok(*n),
        };
        if dims.len() != graph_dims.len() || !dims.iter().zip(graph_dims).all(agree) {
            let graph: Vec<_> = graph_dims.iter().map(ToString::to_string).collect();
            let batch = if self.batched { " after the batch dimension" } else { "" };
            return Err(invalid(
                &field,
                format!("{dims:?} does not fit '{name}', whose shape in the graph is [{}]{batch}", graph.join(", ")),
            ));
        }
        let shown = dims.iter().map(|d| u64::try_from(*d).map_or(Dim::Any, Dim::Fixed));
        let shape = self.batched.then_some(Dim::Any).into_iter().chain(shown).collect();
        TensorSpec::new(name, datatype, shape).map_err(|e| invalid(&field, e))
    }

    /// The graph's dimensions after the batch dimension, if there is to be one.
    fn without_batch<'s>(&self, spec: &'s TensorSpec) -> Result<&'s [Dim], Error> {
        if !self.batched {
            return Ok(spec.shape());
        }
        match spec.shape().split_first() {
            Some((Dim::Any, rest)) => Ok(rest),
            first => {
                let found = first.map_or_else(|| "has no dimensions".to_owned(), |(d, _)| format!("begins with the fixed dimension {d}"));
                let text = format!(
                    "a value above 0 needs a first dimension of any size in every tensor, but the graph's {} '{}' {found}; set it to 0",
                    self.kind,
                    spec.name()
                );
                Err(invalid("max_batch_size", text))
            }
        }
    }
}

/// Sets the type to the graph's when it is absent; it must be the graph's otherwise.
fn fill_type(field: &str, data_type: &mut i32, spec: &TensorSpec) -> Result<DataType, Error> {
    let datatype = spec.datatype();
    let wanted = pb::DataType::from_str_name(&datatype.config_name())
        .ok_or_else(|| Error::internal(format!("the schema has no {}", datatype.config_name())))?;
    let given = pb::DataType::try_from(*data_type).unwrap_or(pb::DataType::TypeInvalid);
    if given != pb::DataType::TypeInvalid && given != wanted {
        let text = format!("'{}' is {} in the graph, not {}", spec.name(), wanted.as_str_name(), given.as_str_name());
        return Err(invalid(field, text));
    }
    *data_type = wanted.into();
    Ok(datatype)
}

fn list(names: &[&str]) -> String {
    names.iter().map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", ")
}
