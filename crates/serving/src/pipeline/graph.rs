//! The graph of a pipeline: which steps there are and which tensor flows from where to where. Pure.
//!
//! Invariants of a [`Graph`]: it has no cycle; every tensor has one source, an input of the pipeline or an output of a
//! step; every input of a step and every output of the pipeline has a source; nothing is there that nobody uses; its
//! size is bounded. Whether the steps' models really have these tensors, of fitting types, is left to `fit`.

use std::collections::{BTreeMap, BTreeSet};

use plinth_types::tensor::MAX_NAME;
use plinth_types::{ModelName, VersionNumber};

/// The most steps of a pipeline.
pub const MAX_STEPS: usize = 64;
/// The most inputs, or outputs, of a pipeline or of one of its steps.
pub const MAX_TENSORS: usize = 64;

/// A step as it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepSpec {
    /// The model that executes it.
    pub model: ModelName,
    /// The version; `None` for the one that the model serves by default at that moment.
    pub version: Option<VersionNumber>,
    /// The model's input → the pipeline's tensor that is fed to it.
    pub inputs: BTreeMap<String, String>,
    /// The model's output → the pipeline's tensor that it becomes.
    pub outputs: BTreeMap<String, String>,
}

/// What is wrong with a declared graph, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {text}")]
pub struct GraphError {
    /// The place, such as `step[1].input_map`.
    pub field: String,
    /// What is wrong and what to do.
    pub text: String,
}

/// A declared graph.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GraphSpec {
    /// The steps, in any order.
    pub steps: Vec<StepSpec>,
    /// The inputs with whether each may be left out. Empty: every tensor that is used and that no step makes.
    pub inputs: Vec<(String, bool)>,
    /// The outputs. Empty: every tensor that a step makes and none uses.
    pub outputs: Vec<String>,
}

/// A tensor of the pipeline, by its place in [`Graph::tensors`].
pub type TensorId = usize;
/// A step of the pipeline, by its place in [`Graph::steps`].
pub type StepId = usize;

/// Where a tensor comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The caller.
    Input {
        /// Whether the caller may leave it out.
        optional: bool,
    },
    /// A step.
    Step(StepId),
}

/// A step of a checked graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The model that executes it.
    pub model: ModelName,
    /// The version; `None` for the one that the model serves by default.
    pub version: Option<VersionNumber>,
    /// How error texts call it: the model's name, with its place when several steps have the same model.
    pub label: String,
    /// The model's inputs with the tensors that are fed to them.
    pub inputs: Vec<(String, TensorId)>,
    /// The model's outputs with the tensors that they become.
    pub outputs: Vec<(String, TensorId)>,
}

/// A checked graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    steps: Vec<Step>,
    tensors: Vec<(String, Source)>,
    inputs: Vec<TensorId>,
    outputs: Vec<TensorId>,
}

fn wrong(field: impl Into<String>, text: impl Into<String>) -> GraphError {
    GraphError { field: field.into(), text: text.into() }
}

impl Graph {
    /// Checks a declaration.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new(spec: &GraphSpec) -> Result<Self, GraphError> {
        check_sizes(spec)?;
        let mut names = Names::default();
        names.take_outputs(&spec.steps)?;
        names.take_inputs(spec)?;
        let steps = spec.steps.iter().enumerate().map(|(i, step)| names.step(i, step, &spec.steps)).collect::<Result<Vec<_>, _>>()?;
        let outputs = names.outputs(spec, &steps)?;
        let inputs = (0..names.tensors.len()).filter(|id| matches!(names.tensors[*id].1, Source::Input { .. })).collect();
        let graph = Self { steps, tensors: names.tensors, inputs, outputs };
        graph.check_cycles()?;
        graph.check_use()?;
        Ok(graph)
    }

    /// The steps, in the declared order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Every tensor with its source.
    #[must_use]
    pub fn tensors(&self) -> &[(String, Source)] {
        &self.tensors
    }

    /// The tensors that callers send.
    #[must_use]
    pub fn inputs(&self) -> &[TensorId] {
        &self.inputs
    }

    /// The tensors that callers get, in the declared order.
    #[must_use]
    pub fn outputs(&self) -> &[TensorId] {
        &self.outputs
    }

    /// A tensor's name.
    #[must_use]
    pub fn name(&self, tensor: TensorId) -> &str {
        &self.tensors[tensor].0
    }

    /// How many steps the model that occurs most often executes; at least 1.
    #[must_use]
    pub fn most_of_one_model(&self) -> usize {
        let mut counts = BTreeMap::<&ModelName, usize>::new();
        self.steps.iter().for_each(|step| *counts.entry(&step.model).or_default() += 1);
        counts.into_values().max().unwrap_or(1).max(1)
    }

    /// The steps that make `wished`, directly or through others.
    #[must_use]
    pub fn needed_for(&self, wished: &[TensorId]) -> Vec<bool> {
        let mut needed = vec![false; self.steps.len()];
        let mut look: Vec<TensorId> = wished.to_vec();
        while let Some(tensor) = look.pop() {
            let Source::Step(step) = self.tensors[tensor].1 else { continue };
            if !std::mem::replace(&mut needed[step], true) {
                look.extend(self.steps[step].inputs.iter().map(|(_, tensor)| *tensor));
            }
        }
        needed
    }

    /// Takes steps away whose inputs are all there, again and again; what is left stands in a cycle or behind one.
    fn check_cycles(&self) -> Result<(), GraphError> {
        let mut done = vec![false; self.steps.len()];
        let there = |done: &[bool], tensor: TensorId| match self.tensors[tensor].1 {
            Source::Input { .. } => true,
            Source::Step(step) => done[step],
        };
        loop {
            let ready: Vec<StepId> = (0..self.steps.len())
                .filter(|step| !done[*step] && self.steps[*step].inputs.iter().all(|(_, tensor)| there(&done, *tensor)))
                .collect();
            if ready.is_empty() {
                break;
            }
            ready.into_iter().for_each(|step| done[step] = true);
        }
        let Some(stuck) = done.iter().position(|done| !done) else { return Ok(()) };
        let labels: Vec<_> = self.steps.iter().zip(&done).filter(|(_, done)| !**done).map(|(s, _)| format!("'{}'", s.label)).collect();
        Err(wrong(format!("step[{stuck}].input_map"), format!("these steps wait for each other in a circle: {}", labels.join(", "))))
    }

    fn check_use(&self) -> Result<(), GraphError> {
        let needed = self.needed_for(&self.outputs);
        if let Some(idle) = needed.iter().position(|needed| !needed) {
            let text =
                format!("nothing that the pipeline answers depends on step '{}'; remove it or declare an output", self.steps[idle].label);
            return Err(wrong(format!("step[{idle}].output_map"), text));
        }
        let used: BTreeSet<TensorId> = self.steps.iter().flat_map(|s| &s.inputs).map(|(_, t)| *t).collect();
        match self.inputs.iter().find(|input| !used.contains(*input)) {
            Some(input) => Err(wrong("input", format!("no step uses the input '{}'; remove it", shown(self.name(*input))))),
            None => Ok(()),
        }
    }
}

fn check_sizes(spec: &GraphSpec) -> Result<(), GraphError> {
    if spec.steps.is_empty() {
        return Err(wrong("step", "a pipeline has at least one step"));
    }
    if spec.steps.len() > MAX_STEPS {
        return Err(wrong("step", format!("a pipeline has at most {MAX_STEPS} steps, this one has {}", spec.steps.len())));
    }
    let lists = [("input".to_owned(), spec.inputs.len()), ("output".to_owned(), spec.outputs.len())].into_iter();
    let maps = spec
        .steps
        .iter()
        .enumerate()
        .flat_map(|(i, s)| [(format!("step[{i}].input_map"), s.inputs.len()), (format!("step[{i}].output_map"), s.outputs.len())]);
    match lists.chain(maps).find(|(_, count)| *count > MAX_TENSORS) {
        Some((field, count)) => Err(wrong(field, format!("want at most {MAX_TENSORS} tensors, got {count}"))),
        None => Ok(()),
    }
}

fn check_name(field: &str, name: &str) -> Result<(), GraphError> {
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(wrong(field, format!("a tensor's name has 1 to {MAX_NAME} bytes and no control characters")));
    }
    Ok(())
}

/// The tensors while a graph is being built.
#[derive(Default)]
struct Names<'a> {
    tensors: Vec<(String, Source)>,
    by_name: BTreeMap<&'a str, TensorId>,
}

impl<'a> Names<'a> {
    fn add(&mut self, name: &'a str, source: Source) {
        self.by_name.insert(name, self.tensors.len());
        self.tensors.push((name.to_owned(), source));
    }

    fn take_outputs(&mut self, steps: &'a [StepSpec]) -> Result<(), GraphError> {
        for (i, step) in steps.iter().enumerate() {
            let field = format!("step[{i}].output_map");
            if step.outputs.is_empty() {
                return Err(wrong(field, format!("the step '{}' gives nothing; map at least one of its outputs", step.model)));
            }
            for (output, tensor) in &step.outputs {
                check_name(&field, output)?;
                check_name(&field, tensor)?;
                if self.by_name.contains_key(tensor.as_str()) {
                    return Err(wrong(field, format!("the tensor '{}' is made twice; each has one source", shown(tensor))));
                }
                self.add(tensor, Source::Step(i));
            }
        }
        Ok(())
    }

    fn take_inputs(&mut self, spec: &'a GraphSpec) -> Result<(), GraphError> {
        for (i, (name, optional)) in spec.inputs.iter().enumerate() {
            check_name(&format!("input[{i}].name"), name)?;
            if self.by_name.contains_key(name.as_str()) {
                let text = format!("the tensor '{}' is made twice: it is declared already, or a step makes it", shown(name));
                return Err(wrong(format!("input[{i}].name"), text));
            }
            self.add(name, Source::Input { optional: *optional });
        }
        if spec.inputs.is_empty() {
            for tensor in spec.steps.iter().flat_map(|s| s.inputs.values()) {
                if !self.by_name.contains_key(tensor.as_str()) {
                    self.add(tensor, Source::Input { optional: false });
                }
            }
        }
        Ok(())
    }

    fn step(&self, i: StepId, step: &StepSpec, all: &[StepSpec]) -> Result<Step, GraphError> {
        let field = format!("step[{i}].input_map");
        if step.inputs.is_empty() {
            return Err(wrong(field, format!("the step '{}' gets nothing; map its inputs", step.model)));
        }
        let again = all.iter().filter(|other| other.model == step.model).count() > 1;
        let label = if again { format!("{} (step[{i}])", step.model) } else { step.model.to_string() };
        let find = |tensor: &str| self.by_name.get(tensor).copied();
        let inputs = step.inputs.iter().map(|(input, tensor)| {
            check_name(&field, input)?;
            check_name(&field, tensor)?;
            let id = find(tensor).ok_or_else(|| {
                wrong(&field, format!("the tensor '{}' is no input of the pipeline, and no step makes it", shown(tensor)))
            })?;
            Ok((input.clone(), id))
        });
        let inputs = inputs.collect::<Result<Vec<_>, GraphError>>()?;
        let outputs = step.outputs.iter().filter_map(|(output, tensor)| Some((output.clone(), find(tensor)?))).collect();
        Ok(Step { model: step.model.clone(), version: step.version, label, inputs, outputs })
    }

    fn outputs(&self, spec: &GraphSpec, steps: &[Step]) -> Result<Vec<TensorId>, GraphError> {
        if spec.outputs.is_empty() {
            let used: BTreeSet<TensorId> = steps.iter().flat_map(|s| &s.inputs).map(|(_, t)| *t).collect();
            return Ok(steps.iter().flat_map(|s| &s.outputs).map(|(_, t)| *t).filter(|t| !used.contains(t)).collect());
        }
        let mut outputs = Vec::new();
        for (i, name) in spec.outputs.iter().enumerate() {
            let field = format!("output[{i}].name");
            match self.by_name.get(name.as_str()) {
                Some(id) if outputs.contains(id) => return Err(wrong(field, format!("'{}' is declared twice", shown(name)))),
                Some(id) if matches!(self.tensors[*id].1, Source::Step(_)) => outputs.push(*id),
                _ => return Err(wrong(field, format!("no step makes the output '{}'", shown(name)))),
            }
        }
        Ok(outputs)
    }
}

/// A name from outside, fit for an error's text.
pub(super) fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    pub(in crate::pipeline) fn step(model: &str, inputs: &[(&str, &str)], outputs: &[(&str, &str)]) -> StepSpec {
        StepSpec { model: model.parse().unwrap(), version: None, inputs: map(inputs), outputs: map(outputs) }
    }

    pub(in crate::pipeline) fn spec(steps: Vec<StepSpec>, inputs: &[&str], outputs: &[&str]) -> GraphSpec {
        let inputs = inputs.iter().map(|n| ((*n).to_owned(), false)).collect();
        GraphSpec { steps, inputs, outputs: outputs.iter().map(|n| (*n).to_owned()).collect() }
    }

    /// decode feeds two models, whose answers are joined.
    pub(in crate::pipeline) fn diamond() -> GraphSpec {
        let steps = vec![
            step("join", &[("l", "left"), ("r", "right")], &[("y", "answer")]),
            step("one", &[("x", "pixels")], &[("y", "left")]),
            step("two", &[("x", "pixels")], &[("y", "right")]),
            step("decode", &[("raw", "photo")], &[("out", "pixels")]),
        ];
        spec(steps, &["photo"], &["answer"])
    }

    #[test]
    fn a_graph_may_be_declared_in_any_order() {
        let graph = Graph::new(&diamond()).unwrap();
        assert_eq!(graph.steps().len(), 4);
        assert_eq!(graph.inputs().iter().map(|t| graph.name(*t)).collect::<Vec<_>>(), ["photo"]);
        assert_eq!(graph.outputs().iter().map(|t| graph.name(*t)).collect::<Vec<_>>(), ["answer"]);
        assert_eq!(graph.most_of_one_model(), 1);
        let left = (0..graph.tensors().len()).find(|t| graph.name(*t) == "left").unwrap();
        assert_eq!(graph.needed_for(&[left]), [false, true, false, true]);
    }

    #[test]
    fn inputs_and_outputs_follow_from_the_steps_when_they_are_not_declared() {
        let declared = Graph::new(&diamond()).unwrap();
        let derived = Graph::new(&GraphSpec { inputs: vec![], outputs: vec![], ..diamond() }).unwrap();
        assert_eq!(derived, declared);
    }

    #[test]
    fn what_does_not_hold_together_is_refused_with_its_place() {
        let a = || step("a", &[("x", "in")], &[("y", "mid")]);
        let b = || step("b", &[("x", "mid")], &[("y", "out")]);
        let many: Vec<_> = (0..=MAX_STEPS).map(|i| step(&format!("m{i}"), &[("x", "in")], &[("y", &format!("t{i}"))])).collect();
        let wide: Vec<(String, String)> = (0..=MAX_TENSORS).map(|i| (format!("x{i}"), "in".to_owned())).collect();
        let wide = StepSpec { inputs: wide.into_iter().collect(), ..a() };
        for (spec, field, says) in [
            (spec(vec![], &["in"], &["out"]), "step", "at least one step"),
            (spec(many, &["in"], &["t0"]), "step", "at most 64 steps"),
            (spec(vec![wide], &["in"], &["mid"]), "step[0].input_map", "at most 64 tensors"),
            (spec(vec![a(), b()], &["in"], &["other"]), "output[0].name", "no step makes the output 'other'"),
            (spec(vec![a(), b()], &["in"], &["in"]), "output[0].name", "no step makes the output 'in'"),
            (spec(vec![a(), b()], &["in"], &["out", "out"]), "output[1].name", "twice"),
            (spec(vec![a(), b()], &["in", "in"], &["out"]), "input[1].name", "twice"),
            (spec(vec![a(), b()], &["in", "mid"], &["out"]), "input[1].name", "a step makes it"),
            (spec(vec![a(), b()], &["in", "more"], &["out"]), "input", "no step uses the input 'more'"),
            (spec(vec![a(), b()], &["other"], &["out"]), "step[0].input_map", "'in' is no input"),
            (spec(vec![a(), a(), b()], &["in"], &["out"]), "step[1].output_map", "'mid' is made twice"),
            (spec(vec![a(), b()], &["in"], &["mid"]), "step[1].output_map", "depends on step 'b'"),
            (spec(vec![step("a", &[], &[("y", "out")])], &[], &["out"]), "step[0].input_map", "gets nothing"),
            (spec(vec![step("a", &[("x", "in")], &[])], &["in"], &[]), "step[0].output_map", "gives nothing"),
            (spec(vec![step("a", &[("x", "")], &[("y", "out")])], &[], &["out"]), "step[0].input_map", "1 to 256 bytes"),
            (spec(vec![step("a", &[("x", "in")], &[("y", "o\nut")])], &[], &[]), "step[0].output_map", "control characters"),
        ] {
            let error = Graph::new(&spec).unwrap_err();
            assert_eq!(error.field, field, "{error}");
            assert!(error.text.contains(says), "{error}");
        }
    }

    #[test]
    fn circles_are_named() {
        let circle = vec![
            step("a", &[("x", "in"), ("back", "t")], &[("y", "s")]),
            step("b", &[("x", "s")], &[("y", "t")]),
            step("c", &[("x", "in")], &[("y", "u")]),
        ];
        let error = Graph::new(&spec(circle, &["in"], &["t", "u"])).unwrap_err();
        assert_eq!(error.text, "these steps wait for each other in a circle: 'a', 'b'");
        let own = vec![step("a", &[("x", "y")], &[("y", "y")])];
        assert!(Graph::new(&spec(own, &[], &["y"])).unwrap_err().text.contains("circle"));
    }

    #[test]
    fn steps_of_one_model_are_told_apart() {
        let twice = vec![step("m", &[("x", "in")], &[("y", "mid")]), step("m", &[("x", "mid")], &[("y", "out")])];
        let graph = Graph::new(&spec(twice, &["in"], &["out"])).unwrap();
        assert_eq!(graph.steps()[1].label, "m (step[1])");
        assert_eq!(graph.most_of_one_model(), 2);
    }

    /// Any declaration over a few names, sound or not.
    pub(in crate::pipeline) fn any_spec() -> impl Strategy<Value = GraphSpec> {
        let name = || prop::sample::select(vec!["a", "b", "c", "d", "e", "f", "g", "h"]).prop_map(str::to_owned);
        let tensors = || prop::collection::btree_map(name(), name(), 1..4);
        let step = (tensors(), tensors());
        let steps = prop::collection::vec(step, 1..6).prop_map(|steps| {
            let step =
                |(i, (inputs, outputs)): (usize, _)| StepSpec { model: format!("m{i}").parse().unwrap(), version: None, inputs, outputs };
            steps.into_iter().enumerate().map(step).collect()
        });
        let inputs = prop::collection::vec((name(), any::<bool>()), 0..4);
        (steps, inputs, prop::collection::vec(name(), 0..3)).prop_map(|(steps, inputs, outputs)| GraphSpec { steps, inputs, outputs })
    }

    proptest! {
        #[test]
        fn what_is_accepted_keeps_the_invariants(spec in any_spec()) {
            let Ok(graph) = Graph::new(&spec) else { return Ok(()) };
            for (i, step) in graph.steps().iter().enumerate() {
                for (_, tensor) in &step.outputs {
                    prop_assert_eq!(graph.tensors()[*tensor].1, Source::Step(i));
                }
            }
            prop_assert!(!graph.outputs().is_empty());
            prop_assert!(graph.needed_for(graph.outputs()).iter().all(|n| *n));
        }
    }
}
