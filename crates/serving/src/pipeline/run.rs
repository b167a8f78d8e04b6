//! One request on its way through a graph: which steps can begin, and who still needs a tensor. Pure.
//!
//! Invariants: a step begins once, as soon as each of its inputs is there or is known to be left out; a tensor is let go
//! the moment its last reader has it; steps that no wished output depends on never begin.

use super::graph::{Graph, Source, StepId, TensorId};

/// What is known of a tensor.
enum Value<V> {
    /// Its source has not given it yet.
    Awaited,
    /// There it is.
    There(V),
    /// The caller left it out, or everybody has had it.
    Gone,
}

/// A request in a graph, over tensors of the type `V`, whose clones are cheap.
pub struct Run<'g, V> {
    graph: &'g Graph,
    wished: Vec<TensorId>,
    values: Vec<Value<V>>,
    /// How many more readers each tensor has.
    readers: Vec<usize>,
    /// How many inputs each step waits for; `None` for one that has begun or is not needed.
    waits: Vec<Option<usize>>,
}

/// A step that can begin, with what is fed to it.
pub struct Ready<V> {
    /// Which one.
    pub step: StepId,
    /// The model's inputs, by their place in [`super::graph::Step::inputs`], with the tensors. An input that the caller left
    /// out is missing.
    pub inputs: Vec<(usize, V)>,
    /// Those outputs of the model, by their place in [`super::graph::Step::outputs`], that somebody reads.
    pub outputs: Vec<usize>,
}

impl<'g, V: Clone> Run<'g, V> {
    /// Begins: `given` are the pipeline's inputs, `wished` the outputs to make.
    pub fn new(graph: &'g Graph, given: impl IntoIterator<Item = (TensorId, V)>, wished: Vec<TensorId>) -> Self {
        let needed = graph.needed_for(&wished);
        let mut readers = vec![0; graph.tensors().len()];
        let steps = graph.steps().iter().zip(&needed).filter(|(_, needed)| **needed);
        let read = steps.flat_map(|(step, _)| step.inputs.iter().map(|(_, tensor)| *tensor)).chain(wished.iter().copied());
        read.for_each(|tensor| readers[tensor] += 1);
        let mut values: Vec<Value<V>> = graph
            .tensors()
            .iter()
            .map(|(_, source)| if matches!(source, Source::Step(_)) { Value::Awaited } else { Value::Gone })
            .collect();
        for (tensor, value) in given {
            if readers[tensor] > 0 {
                values[tensor] = Value::There(value);
            }
        }
        let awaited = |tensor: TensorId| matches!(values[tensor], Value::Awaited);
        let waits = graph
            .steps()
            .iter()
            .zip(&needed)
            .map(|(step, needed)| needed.then(|| step.inputs.iter().filter(|(_, tensor)| awaited(*tensor)).count()));
        let waits = waits.collect();
        Self { graph, wished, values, readers, waits }
    }

    /// A step that can begin now; it counts as begun.
    pub fn next(&mut self) -> Option<Ready<V>> {
        let step = self.waits.iter().position(|waits| *waits == Some(0))?;
        self.waits[step] = None;
        let described = &self.graph.steps()[step];
        let inputs = (0..described.inputs.len()).filter_map(|i| Some((i, self.take(described.inputs[i].1)?))).collect();
        let outputs = (0..described.outputs.len()).filter(|i| self.readers[described.outputs[*i].1] > 0).collect();
        Some(Ready { step, inputs, outputs })
    }

    /// Hands a tensor to one of its readers; the last one gets the value itself.
    fn take(&mut self, tensor: TensorId) -> Option<V> {
        self.readers[tensor] = self.readers[tensor].saturating_sub(1);
        if self.readers[tensor] > 0 {
            return if let Value::There(value) = &self.values[tensor] { Some(value.clone()) } else { None };
        }
        match std::mem::replace(&mut self.values[tensor], Value::Gone) {
            Value::There(value) => Some(value),
            Value::Awaited | Value::Gone => None,
        }
    }

    /// A step has given a tensor. One that nobody reads, or that was given before, is dropped.
    pub fn give(&mut self, tensor: TensorId, value: V) {
        if !matches!(self.values[tensor], Value::Awaited) {
            return;
        }
        self.values[tensor] = if self.readers[tensor] > 0 { Value::There(value) } else { Value::Gone };
        for (step, waits) in self.graph.steps().iter().zip(&mut self.waits) {
            let of_it = step.inputs.iter().filter(|(_, input)| *input == tensor).count();
            *waits = waits.map(|waits| waits.saturating_sub(of_it));
        }
    }

    /// The tensors that are held for those who will read them.
    pub fn held(&self) -> impl Iterator<Item = &V> {
        self.values.iter().filter_map(|value| if let Value::There(value) = value { Some(value) } else { None })
    }

    /// The wished outputs, in their order; `Err` names one that no step gave.
    pub fn finish(mut self) -> Result<Vec<V>, TensorId> {
        let wished = std::mem::take(&mut self.wished);
        wished.into_iter().map(|tensor| self.take(tensor).ok_or(tensor)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::{any_spec, diamond, spec, step};
    use super::*;
    use proptest::prelude::*;
    use std::rc::Rc;

    fn id(graph: &Graph, name: &str) -> TensorId {
        (0..graph.tensors().len()).find(|t| graph.name(*t) == name).unwrap()
    }

    fn labels<V>(graph: &Graph, ready: &[Ready<V>]) -> Vec<String> {
        ready.iter().map(|r| graph.steps()[r.step].label.clone()).collect()
    }

    fn all<V: Clone>(run: &mut Run<'_, V>) -> Vec<Ready<V>> {
        std::iter::from_fn(|| run.next()).collect()
    }

    #[test]
    fn independent_steps_begin_together_and_tensors_go_with_their_last_reader() {
        let graph = Graph::new(&diamond()).unwrap();
        let photo = Rc::new("photo");
        let mut run = Run::new(&graph, [(id(&graph, "photo"), photo.clone())], vec![id(&graph, "answer")]);
        let first = all(&mut run);
        assert_eq!(labels(&graph, &first), ["decode"]);
        assert_eq!((Rc::strong_count(&photo), run.held().count()), (2, 0), "the step alone has it");
        drop(first);
        assert_eq!(Rc::strong_count(&photo), 1);
        let pixels = Rc::new("pixels");
        run.give(id(&graph, "pixels"), pixels.clone());
        let both = all(&mut run);
        assert_eq!(labels(&graph, &both), ["one", "two"]);
        assert_eq!((Rc::strong_count(&pixels), run.held().count()), (3, 0), "no longer held for others");
        run.give(id(&graph, "right"), Rc::new("right"));
        assert!(run.next().is_none(), "join waits for the left one too");
        assert_eq!(run.held().count(), 1);
        run.give(id(&graph, "left"), Rc::new("left"));
        let join = run.next().unwrap();
        assert_eq!(join.inputs.iter().map(|(i, v)| (*i, **v)).collect::<Vec<_>>(), [(0, "left"), (1, "right")]);
        run.give(id(&graph, "answer"), Rc::new("42"));
        run.give(id(&graph, "answer"), Rc::new("again"));
        assert_eq!(run.finish().unwrap(), [Rc::new("42")]);
    }

    #[test]
    fn only_what_is_wished_is_made() {
        let steps = vec![
            step("a", &[("x", "in")], &[("y", "mid"), ("z", "extra")]),
            step("b", &[("x", "mid")], &[("y", "out")]),
            step("c", &[("x", "in")], &[("y", "other")]),
        ];
        let graph = Graph::new(&spec(steps, &["in"], &["out", "other", "extra"])).unwrap();
        let mut run = Run::new(&graph, [(id(&graph, "in"), 1)], vec![id(&graph, "out")]);
        let first = all(&mut run);
        assert_eq!(labels(&graph, &first), ["a"]);
        assert_eq!(first[0].outputs, [0], "nobody reads 'extra'");
        run.give(id(&graph, "mid"), 2);
        assert_eq!(labels(&graph, &all(&mut run)), ["b"]);
        assert_eq!(run.finish(), Err(id(&graph, "out")), "b has given nothing");
    }

    #[test]
    fn an_input_that_was_left_out_holds_nobody_up() {
        let mut declared = spec(vec![step("a", &[("x", "in"), ("mask", "mask")], &[("y", "out")])], &["in"], &["out"]);
        declared.inputs.push(("mask".to_owned(), true));
        let graph = Graph::new(&declared).unwrap();
        let mut run = Run::new(&graph, [(id(&graph, "in"), 1)], graph.outputs().to_vec());
        let ready = run.next().unwrap();
        assert_eq!(ready.inputs.iter().map(|(i, _)| graph.steps()[0].inputs[*i].0.as_str()).collect::<Vec<_>>(), ["x"]);
    }

    proptest! {
        #[test]
        fn every_graph_runs_to_its_end(spec in any_spec(), order in prop::collection::vec(any::<prop::sample::Index>(), 8)) {
            let Ok(graph) = Graph::new(&spec) else { return Ok(()) };
            let given: Vec<_> = graph.inputs().iter().map(|t| (*t, *t)).collect();
            let mut run = Run::new(&graph, given, graph.outputs().to_vec());
            let mut begun = vec![0; graph.steps().len()];
            let mut going: Vec<Ready<TensorId>> = Vec::new();
            let mut order = order.into_iter().cycle();
            loop {
                going.extend(all(&mut run));
                if going.is_empty() {
                    break;
                }
                // Any of those under way ends next.
                let next = order.next().unwrap().index(going.len());
                let Ready { step, inputs, outputs } = going.swap_remove(next);
                begun[step] += 1;
                prop_assert!(inputs.iter().all(|(i, v)| graph.steps()[step].inputs[*i].1 == *v), "each gets its own");
                for output in outputs {
                    let tensor = graph.steps()[step].outputs[output].1;
                    run.give(tensor, tensor);
                }
            }
            prop_assert!(begun.iter().all(|n| *n == 1), "each once: {:?}", begun);
            prop_assert_eq!(run.held().count(), graph.outputs().len(), "nothing is held in vain");
            prop_assert_eq!(run.finish(), Ok(graph.outputs().to_vec()));
        }
    }
}
