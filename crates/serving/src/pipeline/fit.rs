//! Whether the models of a pipeline's steps fit together. Pure.
//!
//! The models come and go on their own, so this looks at those that are loaded at one moment. What it finds to fit may not
//! fit any more when a model is replaced; each request is checked again by the steps themselves.

use plinth_types::{Dim, ModelName, TensorSpec, VersionNumber};

use super::MAX_DEPTH;
use super::graph::{Graph, GraphError, Source, Step, StepId, TensorId, shown};
use crate::model_config::ModelConfig;

/// What a pipeline needs to know of a model that executes one of its steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepView {
    /// Its inputs as callers see them: with the batch dimension.
    pub inputs: Vec<TensorSpec>,
    /// The inputs that may be left out.
    pub optional_inputs: Vec<String>,
    /// Its outputs as callers see them: with the batch dimension.
    pub outputs: Vec<TensorSpec>,
    /// Its largest batch; 0 for none.
    pub max_batch_size: u32,
    /// The models of its own steps, if it is a pipeline itself.
    pub steps: Vec<(ModelName, Option<VersionNumber>)>,
}

impl StepView {
    /// The view of a loaded model, from its completed configuration.
    #[must_use]
    pub fn of(config: &ModelConfig) -> Self {
        let inputs = config.metadata_inputs();
        let optional_inputs = inputs.iter().map(|spec| spec.name().to_owned()).filter(|name| config.is_optional(name)).collect();
        let steps = config.pipeline_graph().ok().flatten().map(|graph| {
            let named = |step: &Step| (step.model.clone(), step.version);
            graph.steps().iter().map(named).collect()
        });
        Self {
            inputs,
            optional_inputs,
            outputs: config.metadata_outputs(),
            max_batch_size: config.max_batch_size(),
            steps: steps.unwrap_or_default(),
        }
    }

    fn input(&self, name: &str) -> Option<&TensorSpec> {
        self.inputs.iter().find(|spec| spec.name() == name)
    }

    fn output(&self, name: &str) -> Option<&TensorSpec> {
        self.outputs.iter().find(|spec| spec.name() == name)
    }
}

/// Finds a loaded model by its name and version (`None`: the one that it serves by default).
pub type Look<'a> = &'a dyn Fn(&ModelName, Option<VersionNumber>) -> Option<StepView>;

fn wrong(field: String, text: String) -> GraphError {
    GraphError { field, text }
}

/// The steps of a graph with those of their models that are loaded.
pub struct Models<'a> {
    graph: &'a Graph,
    views: Vec<Option<StepView>>,
}

impl<'a> Models<'a> {
    /// Looks the models up.
    #[must_use]
    pub fn look_up(graph: &'a Graph, look: Look<'_>) -> Self {
        Self { graph, views: graph.steps().iter().map(|step| look(&step.model, step.version)).collect() }
    }

    /// A step whose model is not loaded.
    #[must_use]
    pub fn missing(&self) -> Option<&'a Step> {
        self.graph.steps().iter().zip(&self.views).find(|(_, view)| view.is_none()).map(|(step, _)| step)
    }

    /// What the loaded models say of a tensor: who makes it, or else one that reads it.
    #[must_use]
    pub fn spec(&self, tensor: TensorId) -> Option<&TensorSpec> {
        let made = self.made(tensor);
        made.or_else(|| (0..self.views.len()).find_map(|step| self.read(step, tensor)))
    }

    fn made(&self, tensor: TensorId) -> Option<&TensorSpec> {
        let Source::Step(step) = self.graph.tensors()[tensor].1 else { return None };
        let (output, _) = self.graph.steps()[step].outputs.iter().find(|(_, t)| *t == tensor)?;
        self.views[step].as_ref()?.output(output)
    }

    fn read(&self, step: StepId, tensor: TensorId) -> Option<&TensorSpec> {
        let (input, _) = self.graph.steps()[step].inputs.iter().find(|(_, t)| *t == tensor)?;
        self.views[step].as_ref()?.input(input)
    }

    /// Checks the loaded models against the graph, against each other, and against what the pipeline `declared` of its own
    /// tensors; `max_batch_size` is the pipeline's.
    ///
    /// # Errors
    /// The first step that does not fit.
    pub fn check(&self, declared: &[(TensorId, TensorSpec)], max_batch_size: u32) -> Result<(), GraphError> {
        for (i, (step, view)) in self.graph.steps().iter().zip(&self.views).enumerate() {
            if let Some(view) = view {
                check_step(i, step, view, max_batch_size)?;
            }
        }
        for (i, step) in self.graph.steps().iter().enumerate() {
            for (input, tensor) in &step.inputs {
                let Some(wanted) = self.views[i].as_ref().and_then(|view| view.input(input)) else { continue };
                let given = self.made(*tensor).or_else(|| declared.iter().find(|(t, _)| t == tensor).map(|(_, spec)| spec));
                let field = || format!("step[{i}].input_map");
                let text =
                    |why| format!("'{}' does not fit the input '{}' of '{}': {why}", self.graph.name(*tensor), shown(input), step.label);
                given.map_or(Ok(()), |given| fits(given, wanted).map_err(|why| wrong(field(), text(why))))?;
            }
        }
        for (tensor, wanted) in declared {
            if let Some(made) = self.made(*tensor) {
                let text = |why| format!("'{}' is declared otherwise than its step makes it: {why}", self.graph.name(*tensor));
                fits(made, wanted).map_err(|why| wrong("output".to_owned(), text(why)))?;
            }
        }
        Ok(())
    }
}

fn check_step(i: StepId, step: &Step, view: &StepView, max_batch_size: u32) -> Result<(), GraphError> {
    let label = &step.label;
    if let Some((input, _)) = step.inputs.iter().find(|(name, _)| view.input(name).is_none()) {
        return Err(wrong(format!("step[{i}].input_map"), format!("the model of step '{label}' has no input '{}'", shown(input))));
    }
    if let Some((output, _)) = step.outputs.iter().find(|(name, _)| view.output(name).is_none()) {
        return Err(wrong(format!("step[{i}].output_map"), format!("the model of step '{label}' has no output '{}'", shown(output))));
    }
    let fed = |spec: &&TensorSpec| step.inputs.iter().any(|(name, _)| name == spec.name());
    let optional = |spec: &&TensorSpec| view.optional_inputs.iter().any(|name| name == spec.name());
    if let Some(spec) = view.inputs.iter().find(|spec| !fed(spec) && !optional(spec)) {
        return Err(wrong(format!("step[{i}].input_map"), format!("the input '{}' of step '{label}' is fed by nothing", spec.name())));
    }
    if view.max_batch_size > 0 && max_batch_size > view.max_batch_size {
        let text = format!("{max_batch_size} is more than the {} that step '{label}' takes", view.max_batch_size);
        return Err(wrong("max_batch_size".to_owned(), text));
    }
    Ok(())
}

/// Whether a tensor of one description can be one of the other.
fn fits(given: &TensorSpec, wanted: &TensorSpec) -> Result<(), String> {
    if given.datatype() != wanted.datatype() {
        return Err(format!("it is {}, not {}", given.datatype(), wanted.datatype()));
    }
    let meet = |(a, b): (&Dim, &Dim)| a == b || matches!((a, b), (Dim::Any, _) | (_, Dim::Any));
    if given.shape().len() == wanted.shape().len() && given.shape().iter().zip(wanted.shape()).all(meet) {
        return Ok(());
    }
    let show = |spec: &TensorSpec| spec.shape().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Err(format!("its shape is [{}], not [{}]", show(given), show(wanted)))
}

/// Whether the pipeline `own` is inside itself, through the pipelines among its steps as far as they are loaded, or pipelines
/// are nested too deeply.
///
/// # Errors
/// Naming the step.
pub fn check_nesting(own: &ModelName, graph: &Graph, look: Look<'_>) -> Result<(), GraphError> {
    for (i, step) in graph.steps().iter().enumerate() {
        let fail = |text: String| wrong(format!("step[{i}].model_name"), text);
        // By level, each model once: a graph of graphs may have very many paths.
        let (mut level, mut seen) = (vec![(step.model.clone(), step.version)], std::collections::BTreeSet::new());
        for depth in 0usize.. {
            if level.is_empty() {
                break;
            }
            if level.iter().any(|(model, _)| model == own) {
                let through = if depth == 0 { String::new() } else { format!(", through its step '{}'", step.label) };
                return Err(fail(format!("the pipeline '{own}' would be a step of itself{through}")));
            }
            if depth >= usize::from(MAX_DEPTH) {
                return Err(fail(format!("pipelines are nested more than {MAX_DEPTH} deep below step '{}'", step.label)));
            }
            level.retain(|entry| seen.insert(entry.clone()));
            level = level.iter().filter_map(|(model, version)| look(model, *version)).flat_map(|view| view.steps).collect();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::{spec, step};
    use super::*;
    use plinth_types::DataType;
    use std::collections::BTreeMap;

    fn tensor(name: &str, datatype: DataType, dims: &[i64]) -> TensorSpec {
        let dims = dims.iter().map(|d| u64::try_from(*d).map_or(Dim::Any, Dim::Fixed)).collect();
        TensorSpec::new(name, datatype, dims).unwrap()
    }

    fn chain() -> Graph {
        let steps = vec![step("a", &[("x", "in")], &[("y", "mid")]), step("b", &[("x", "mid")], &[("y", "out")])];
        Graph::new(&spec(steps, &["in"], &["out"])).unwrap()
    }

    fn view(input: TensorSpec, output: TensorSpec) -> StepView {
        StepView { inputs: vec![input], outputs: vec![output], ..StepView::default() }
    }

    fn a() -> StepView {
        view(tensor("x", DataType::Bytes, &[-1]), tensor("y", DataType::Fp32, &[-1, 3]))
    }

    fn b() -> StepView {
        view(tensor("x", DataType::Fp32, &[-1, -1]), tensor("y", DataType::Int64, &[-1, 1]))
    }

    fn check(a: Option<StepView>, b: Option<StepView>, declared: &[TensorSpec], max_batch_size: u32) -> Result<(), String> {
        let graph = chain();
        let known: BTreeMap<&str, Option<StepView>> = [("a", a), ("b", b)].into();
        let models = Models::look_up(&graph, &|model, _| known.get(model.as_str()).cloned().flatten());
        let id = |name: &str| (0..graph.tensors().len()).find(|t| graph.name(*t) == name).unwrap();
        let declared: Vec<_> = declared.iter().map(|spec| (id(spec.name()), spec.clone())).collect();
        models.check(&declared, max_batch_size).map_err(|e| e.to_string())
    }

    #[test]
    fn models_that_fit_are_accepted() {
        let declared = [tensor("in", DataType::Bytes, &[-1]), tensor("out", DataType::Int64, &[-1, 1])];
        assert_eq!(check(Some(a()), Some(b()), &declared, 4), Ok(()));
        assert_eq!(check(None, None, &declared, 4), Ok(()), "what is not loaded is not judged");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let more = |mut view: StepView| {
            view.inputs.push(tensor("mask", DataType::Bool, &[-1]));
            view
        };
        let optional = StepView { optional_inputs: vec!["mask".to_owned()], ..more(b()) };
        assert_eq!(check(Some(a()), Some(optional), &[], 0), Ok(()));
        let x = tensor("x", DataType::Fp32, &[-1, -1]);
        for (first, second, declared, batch, says) in [
            (a(), view(tensor("z", DataType::Fp32, &[-1, -1]), tensor("y", DataType::Int64, &[-1])), vec![], 0, "has no input 'x'"),
            (view(x.clone(), tensor("z", DataType::Fp32, &[-1])), b(), vec![], 0, "'a' has no output 'y'"),
            (a(), more(b()), vec![], 0, "'mask' of step 'b' is fed by nothing"),
            (a(), view(tensor("x", DataType::Fp16, &[-1, -1]), tensor("y", DataType::Int64, &[-1, 1])), vec![], 0, "it is FP32, not FP16"),
            (
                a(),
                view(tensor("x", DataType::Fp32, &[-1, 4]), tensor("y", DataType::Int64, &[-1, 1])),
                vec![],
                0,
                "its shape is [-1,3], not [-1,4]",
            ),
            (a(), b(), vec![tensor("in", DataType::Uint8, &[-1])], 0, "it is UINT8, not BYTES"),
            (a(), b(), vec![tensor("out", DataType::Int64, &[-1])], 0, "its shape is [-1,1], not [-1]"),
            (a(), StepView { max_batch_size: 4, ..b() }, vec![], 8, "8 is more than the 4"),
        ] {
            let error = check(Some(first), Some(second), &declared, batch).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn tensors_are_described_by_their_maker_or_else_their_reader() {
        let graph = chain();
        let models = Models::look_up(&graph, &|model, _| Some(if model.as_str() == "a" { a() } else { b() }));
        let id = |name: &str| (0..graph.tensors().len()).find(|t| graph.name(*t) == name).unwrap();
        assert_eq!(models.spec(id("in")).unwrap().datatype(), DataType::Bytes);
        assert_eq!(models.spec(id("mid")).unwrap().shape()[1], Dim::Fixed(3));
        assert!(models.missing().is_none());
        assert_eq!(Models::look_up(&graph, &|m, _| (m.as_str() == "a").then(a)).missing().unwrap().label, "b");
    }

    #[test]
    fn no_pipeline_is_inside_itself() {
        let graph = chain();
        let name = |text: &str| text.parse::<ModelName>().unwrap();
        let inner = |steps: &[&str]| StepView { steps: steps.iter().map(|s| (name(s), None)).collect(), ..StepView::default() };
        let nesting = |own: &str, look: &dyn Fn(&str) -> Option<StepView>| check_nesting(&name(own), &graph, &|m, _| look(m.as_str()));
        assert_eq!(nesting("p", &|_| Some(StepView::default())), Ok(()));
        assert_eq!(nesting("a", &|_| None).unwrap_err().text, "the pipeline 'a' would be a step of itself");
        let through = nesting("p", &|m| {
            Some(inner(if m == "b" {
                &["q"]
            } else if m == "q" {
                &["p"]
            } else {
                &[]
            }))
        });
        assert_eq!(through.unwrap_err().text, "the pipeline 'p' would be a step of itself, through its step 'b'");
        // A circle that does not contain the pipeline ends this search all the same; a long chain is refused.
        assert_eq!(nesting("p", &|m| Some(inner(if m == "a" { &["b"] } else { &["a"] }))), Ok(()));
        let long = nesting("p", &|m| Some(inner(&[&format!("{m}x")])));
        assert!(long.unwrap_err().text.contains("nested more than"));
    }
}
