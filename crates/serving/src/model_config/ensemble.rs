//! Triton's `ensemble_scheduling`: a configuration that describes a pipeline instead of a model.
//!
//! It stands in a version's `config.pbtxt`, or as JSON in the deployment's override; both come here. The version has no
//! model file: its steps are models of their own. Invariant: a configuration that was parsed holds a graph that holds
//! together; after [`ModelConfig::complete_pipeline`] its inputs and outputs are the graph's, with types and shapes that fit
//! those models of its steps that are loaded.

use plinth_types::{DataType, Dim, Error, ModelName, Reason, TensorSpec, VersionNumber};

use super::schema::{self, pb};
use super::{ModelConfig, invalid, unsupported};
use crate::pipeline::graph::{Source, TensorId};
use crate::pipeline::{Graph, GraphError, GraphSpec, Look, Models, StepSpec, fit};

/// Triton's name of the platform.
const PLATFORM: &str = "ensemble";

fn ensemble(config: &pb::ModelConfig) -> Option<&pb::ModelEnsembling> {
    match &config.scheduling_choice {
        Some(pb::model_config::SchedulingChoice::EnsembleScheduling(ensemble)) => Some(ensemble),
        _ => None,
    }
}

/// What an ensemble must be by itself, and what it may not have. Other configurations pass.
pub(super) fn check(config: &pb::ModelConfig) -> Result<(), Error> {
    let Some(_) = ensemble(config) else {
        if config.platform == PLATFORM {
            return Err(invalid("ensemble_scheduling", "the platform 'ensemble' needs it; list the steps there"));
        }
        return Ok(());
    };
    if !config.platform.is_empty() && config.platform != PLATFORM {
        return Err(invalid("platform", format!("a pipeline has the platform '{PLATFORM}', not '{}'", schema::excerpt(&config.platform))));
    }
    let meaningless = [
        ("backend", !config.backend.is_empty(), "a pipeline has no backend of its own; remove it"),
        ("default_model_filename", !config.default_model_filename.is_empty(), "a pipeline has no model file; remove it"),
        ("instance_group", !config.instance_group.is_empty(), "a pipeline has no instances; give them to the models of its steps"),
    ];
    if let Some((field, _, why)) = meaningless.iter().find(|(_, given, _)| *given) {
        return Err(invalid(field, why));
    }
    if !config.model_warmup.is_empty() {
        return Err(unsupported("model_warmup", "a pipeline is not warmed up; warm up the models of its steps"));
    }
    graph(config).map(drop)
}

/// The graph of an ensemble; `None` for every other configuration.
pub(super) fn graph(config: &pb::ModelConfig) -> Result<Option<Graph>, Error> {
    let Some(ensemble) = ensemble(config) else { return Ok(None) };
    let steps = ensemble.step.iter().enumerate().map(|(i, step)| read_step(i, step)).collect::<Result<Vec<_>, _>>()?;
    let spec = GraphSpec {
        steps,
        inputs: config.input.iter().map(|input| (input.name.clone(), input.optional)).collect(),
        outputs: config.output.iter().map(|output| output.name.clone()).collect(),
    };
    Graph::new(&spec).map(Some).map_err(|error| misfit(&error))
}

fn read_step(i: usize, step: &pb::model_ensembling::Step) -> Result<StepSpec, Error> {
    let field = |name: &str| format!("ensemble_scheduling.step[{i}].{name}");
    let model = step.model_name.parse::<ModelName>().map_err(|e| invalid(&field("model_name"), e))?;
    if !step.model_namespace.is_empty() {
        return Err(unsupported(&field("model_namespace"), "models have no namespaces here; remove it"));
    }
    let version = match step.model_version {
        // Left out, and Triton's word for the newest: what the model serves by default.
        0 | -1 => None,
        number => {
            let number = u64::try_from(number).ok().and_then(|n| VersionNumber::try_from(n).ok());
            let text = format!("want -1 (what the model serves by default) or a version from 1 on, got {}", step.model_version);
            Some(number.ok_or_else(|| invalid(&field("model_version"), text))?)
        }
    };
    Ok(StepSpec { model, version, inputs: step.input_map.clone(), outputs: step.output_map.clone() })
}

/// The error of a graph, with the place in the configuration.
fn misfit(error: &GraphError) -> Error {
    let prefix = if error.field.starts_with("step") { "ensemble_scheduling." } else { "" };
    invalid(&format!("{prefix}{}", error.field), &error.text)
}

/// As [`misfit`], for what other models have to do with: time, or their owner, may mend it.
fn misfit_now(error: &GraphError) -> Error {
    let error = misfit(error);
    let later = Error::new(Reason::ModelNotReady, error.public_text());
    error.field_name().map_or_else(|| Error::internal("a graph's error has a field"), |field| later.field(field))
}

/// See [`ModelConfig::complete_pipeline`].
pub(super) fn complete(config: ModelConfig, model: &ModelName, look: Look<'_>) -> Result<ModelConfig, Error> {
    let mut message = config.message;
    let Some(graph) = graph(&message)? else { return Err(invalid("ensemble_scheduling", "it is missing")) };
    if message.name.is_empty() {
        message.name = model.to_string();
    } else if message.name != model.as_str() {
        let text = format!("'{}' is given, but the model is called '{model}'; correct or remove it", schema::excerpt(&message.name));
        return Err(invalid("name", text));
    }
    PLATFORM.clone_into(&mut message.platform);
    if let Some(pb::model_config::SchedulingChoice::EnsembleScheduling(ensemble)) = &mut message.scheduling_choice {
        ensemble.step.iter_mut().filter(|step| step.model_version == 0).for_each(|step| step.model_version = -1);
    }
    fit::check_nesting(model, &graph, look).map_err(|e| misfit_now(&e))?;
    let models = Models::look_up(&graph, look);
    name_tensors(&mut message, &graph);
    let completing = Completing { graph: &graph, models: &models, batched: message.max_batch_size > 0 };
    let inputs = message.input.iter_mut().enumerate();
    let inputs =
        inputs.map(|(i, t)| completing.tensor("input", i, &t.name, &mut t.data_type, &mut t.dims)).collect::<Result<Vec<_>, _>>()?;
    let outputs = message.output.iter_mut().enumerate();
    let outputs =
        outputs.map(|(i, t)| completing.tensor("output", i, &t.name, &mut t.data_type, &mut t.dims)).collect::<Result<Vec<_>, _>>()?;
    let declared: Vec<(TensorId, TensorSpec)> = inputs.iter().chain(&outputs).cloned().collect();
    models.check(&declared, u32::try_from(message.max_batch_size).unwrap_or(0)).map_err(|e| misfit_now(&e))?;
    let specs = |tensors: Vec<(TensorId, TensorSpec)>| tensors.into_iter().map(|(_, spec)| spec).collect();
    Ok(ModelConfig { message, inputs: specs(inputs), outputs: specs(outputs), ..ModelConfig::default() })
}

/// Declares the graph's inputs and outputs where none are.
fn name_tensors(message: &mut pb::ModelConfig, graph: &Graph) {
    if message.input.is_empty() {
        let input = |id: &TensorId| {
            let optional = matches!(graph.tensors()[*id].1, Source::Input { optional: true });
            pb::ModelInput { name: graph.name(*id).to_owned(), optional, ..Default::default() }
        };
        message.input = graph.inputs().iter().map(input).collect();
    }
    if message.output.is_empty() {
        let output = |id: &TensorId| pb::ModelOutput { name: graph.name(*id).to_owned(), ..Default::default() };
        message.output = graph.outputs().iter().map(output).collect();
    }
}

struct Completing<'a> {
    graph: &'a Graph,
    models: &'a Models<'a>,
    batched: bool,
}

impl Completing<'_> {
    /// Fills type and dimensions of a declared tensor in from the models, and answers what callers see of it.
    fn tensor(&self, kind: &str, i: usize, name: &str, data_type: &mut i32, dims: &mut Vec<i64>) -> Result<(TensorId, TensorSpec), Error> {
        let id = (0..self.graph.tensors().len()).find(|id| self.graph.name(*id) == name);
        let id = id.ok_or_else(|| Error::internal(format!("the graph lost its tensor '{name}'")))?;
        let field = |part: &str| format!("{kind}[{i}].{part}");
        let given = pb::DataType::try_from(*data_type).ok().filter(|t| *t != pb::DataType::TypeInvalid);
        let known = self.models.spec(id);
        let unknown = |part: &str| {
            let step = self.models.missing().map_or(String::new(), |step| format!(" or load the model of step '{}'", step.label));
            let text = format!("model configuration: {}: nothing says what '{}' is; declare it{step}", field(part), schema::excerpt(name));
            Error::new(Reason::ModelNotReady, text).field(field(part))
        };
        let datatype = match given {
            Some(given) => DataType::from_config_name(given.as_str_name()).map_err(|e| invalid(&field("data_type"), e))?,
            None => known.ok_or_else(|| unknown("data_type"))?.datatype(),
        };
        let wanted = pb::DataType::from_str_name(&datatype.config_name());
        *data_type = wanted.ok_or_else(|| Error::internal(format!("the schema has no {}", datatype.config_name())))?.into();
        if dims.is_empty() {
            let shape = known.ok_or_else(|| unknown("dims"))?.shape();
            let shape = if self.batched { shape.get(1..).unwrap_or_default() } else { shape };
            *dims = shape.iter().map(|d| if let Dim::Fixed(n) = d { i64::try_from(*n).unwrap_or(i64::MAX) } else { -1 }).collect();
        }
        let shown = dims.iter().map(|d| u64::try_from(*d).map_or(Dim::Any, Dim::Fixed));
        let shape = self.batched.then_some(Dim::Any).into_iter().chain(shown).collect();
        Ok((id, TensorSpec::new(name, datatype, shape).map_err(|e| invalid(&field("dims"), e))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::StepView;
    use plinth_types::DataType;

    const PIPELINE: &str = r#"
        platform: "ensemble"
        max_batch_size: 4
        input [ { name: "PHOTO" data_type: TYPE_STRING dims: [ 1 ] } ]
        output [ { name: "LABEL" data_type: TYPE_STRING dims: [ 3 ] } ]
        ensemble_scheduling {
          max_inflight_requests: 7
          step [
            { model_name: "decode" model_version: -1
              input_map { key: "raw" value: "PHOTO" } output_map { key: "pixels" value: "x" } },
            { model_name: "net" model_version: 2
              input_map { key: "x" value: "x" } output_map { key: "y" value: "scores" } },
            { model_name: "classify"
              input_map { key: "scores" value: "scores" } output_map { key: "labels" value: "LABEL" } }
          ]
        }"#;

    fn name() -> ModelName {
        "pipe".parse().unwrap()
    }

    fn spec(name: &str, datatype: DataType, dims: &[i64]) -> TensorSpec {
        TensorSpec::new(name, datatype, dims.iter().map(|d| u64::try_from(*d).map_or(Dim::Any, Dim::Fixed)).collect()).unwrap()
    }

    fn loaded(model: &ModelName, version: Option<VersionNumber>) -> Option<StepView> {
        let view = |input, output| StepView { inputs: vec![input], outputs: vec![output], ..StepView::default() };
        Some(match (model.as_str(), version.map(VersionNumber::get)) {
            ("decode", None) => view(spec("raw", DataType::Bytes, &[-1, -1]), spec("pixels", DataType::Fp32, &[-1, 3, 8, 8])),
            ("net", Some(2)) => view(spec("x", DataType::Fp32, &[-1, 3, -1, -1]), spec("y", DataType::Fp32, &[-1, 10])),
            ("classify", None) => view(spec("scores", DataType::Fp32, &[-1, -1]), spec("labels", DataType::Bytes, &[-1, 3])),
            _ => return None,
        })
    }

    fn parse(text: &str) -> Result<ModelConfig, Error> {
        ModelConfig::parse_pbtxt(text.as_bytes())
    }

    #[test]
    fn a_triton_ensemble_is_read_and_shown() {
        let config = parse(PIPELINE).unwrap();
        let graph = config.pipeline_graph().unwrap().unwrap();
        assert_eq!(graph.steps().iter().map(|s| s.label.as_str()).collect::<Vec<_>>(), ["decode", "net", "classify"]);
        assert_eq!(graph.steps()[1].version.map(VersionNumber::get), Some(2));
        assert_eq!((graph.steps()[0].version, graph.steps()[2].version), (None, None));
        assert_eq!(config.max_inflight_requests(), 7);
        for look in [&loaded as Look<'_>, &|_, _| None] {
            let config = config.clone().complete_pipeline(&name(), look).unwrap();
            assert_eq!(config.metadata_inputs(), [spec("PHOTO", DataType::Bytes, &[-1, 1])]);
            assert_eq!(config.metadata_outputs(), [spec("LABEL", DataType::Bytes, &[-1, 3])]);
            let shown = config.to_json().unwrap();
            assert_eq!((&shown["platform"], &shown["name"], &shown["backend"]), (&"ensemble".into(), &"pipe".into(), &"".into()));
            let steps = &shown["ensemble_scheduling"]["step"];
            assert_eq!((&steps[0]["model_version"], &steps[1]["model_version"]), (&(-1).into(), &2.into()));
            assert_eq!(steps[2]["model_version"], -1, "absent is shown as Triton's word for it");
            assert_eq!(steps[0]["input_map"]["raw"], "PHOTO");
            let again = ModelConfig::parse_json(shown.to_string().as_bytes()).unwrap();
            assert_eq!(again.complete_pipeline(&name(), look).unwrap(), config, "what is shown can be read again");
        }
    }

    #[test]
    fn a_resource_declares_the_same_in_json() {
        let text = br#"{"ensemble_scheduling": {"step": [
            {"model_name": "decode", "input_map": {"raw": "PHOTO"}, "output_map": {"pixels": "x"}},
            {"model_name": "net", "model_version": 2, "input_map": {"x": "x"}, "output_map": {"y": "scores"}}]}}"#;
        let config = ModelConfig::parse_json(text).unwrap();
        let complete = config.clone().complete_pipeline(&name(), &loaded).unwrap();
        assert_eq!(complete.metadata_inputs(), [spec("PHOTO", DataType::Bytes, &[-1, -1])], "from the step that reads it");
        assert_eq!(complete.metadata_outputs(), [spec("scores", DataType::Fp32, &[-1, 10])], "from the step that makes it");
        let error = config.complete_pipeline(&name(), &|m, v| loaded(m, v).filter(|_| m.as_str() != "net")).unwrap_err();
        assert_eq!((error.reason(), error.field_name()), (Reason::ModelNotReady, Some("output[0].data_type")));
        assert!(error.public_text().ends_with("nothing says what 'scores' is; declare it or load the model of step 'net'"), "{error}");
    }

    #[test]
    fn a_batch_dimension_is_not_declared_twice() {
        let text = PIPELINE.replace(r"data_type: TYPE_STRING dims: [ 3 ]", "");
        let config = parse(&text).unwrap().complete_pipeline(&name(), &loaded).unwrap();
        assert_eq!(config.metadata_outputs(), [spec("LABEL", DataType::Bytes, &[-1, 3])]);
        assert_eq!(config.to_json().unwrap()["output"][0]["dims"], serde_json::json!([3]));
    }

    #[test]
    fn what_does_not_hold_together_is_refused() {
        let with = |from: &str, to: &str| PIPELINE.replace(from, to);
        for (text, reason, field) in [
            ("ensemble_scheduling { }".to_owned(), Reason::InvalidResource, "ensemble_scheduling.step"),
            ("platform: \"ensemble\"".to_owned(), Reason::InvalidResource, "ensemble_scheduling"),
            (with("\"ensemble\"", "\"onnxruntime_onnx\""), Reason::InvalidResource, "platform"),
            (with("max_batch_size: 4", "backend: \"x\""), Reason::InvalidResource, "backend"),
            (with("max_batch_size: 4", "instance_group { count: 2 }"), Reason::InvalidResource, "instance_group"),
            (with("max_batch_size: 4", "default_model_filename: \"m\""), Reason::InvalidResource, "default_model_filename"),
            (
                with("max_batch_size: 4", "model_warmup { inputs { key: \"PHOTO\" value { dims: 1 zero_data: true } } }"),
                Reason::NotImplemented,
                "model_warmup",
            ),
            (with("\"net\"", "\"../net\""), Reason::InvalidResource, "ensemble_scheduling.step[1].model_name"),
            (with("model_version: 2", "model_version: -2"), Reason::InvalidResource, "ensemble_scheduling.step[1].model_version"),
            (with("model_version: 2", "model_namespace: \"n\""), Reason::NotImplemented, "ensemble_scheduling.step[1].model_namespace"),
            (with("value: \"scores\" } }", "value: \"LABEL\" } }"), Reason::InvalidResource, "ensemble_scheduling.step[2].output_map"),
            (with("name: \"LABEL\"", "name: \"OTHER\""), Reason::InvalidResource, "output[0].name"),
            (with("value: \"PHOTO\"", "value: \"scores\""), Reason::InvalidResource, "ensemble_scheduling.step[0].input_map"),
        ] {
            let error = parse(&text).map(drop).unwrap_err();
            assert_eq!((error.reason(), error.field_name()), (reason, Some(field)), "{error}");
        }
    }

    #[test]
    fn what_other_models_decide_may_be_mended() {
        let refused = |text: &str, look: Look<'_>| parse(text).unwrap().complete_pipeline(&name(), look).unwrap_err();
        let other = |model: &ModelName, version: Option<VersionNumber>| {
            let mut view = loaded(model, version)?;
            if model.as_str() == "classify" {
                view.inputs = vec![spec("scores", DataType::Fp64, &[-1, -1])];
            }
            Some(view)
        };
        let error = refused(PIPELINE, &other);
        assert!(error.class().retriable(), "{error:?}");
        assert_eq!(error.field_name(), Some("ensemble_scheduling.step[2].input_map"));
        let inside = refused(&PIPELINE.replace("\"net\"", "\"pipe\""), &loaded);
        assert!(inside.public_text().contains("would be a step of itself"), "{inside}");
        let named = refused(&format!("name: \"other\" {PIPELINE}"), &loaded);
        assert_eq!((named.reason(), named.field_name()), (Reason::InvalidResource, Some("name")));
    }

    #[test]
    fn other_models_have_no_graph() {
        assert_eq!(parse("max_batch_size: 4").unwrap().pipeline_graph().unwrap(), None);
        assert!(ModelConfig::default().complete_pipeline(&name(), &loaded).is_err());
    }
}
