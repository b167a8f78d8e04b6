//! What every [`Backend`] must do, as a function that each backend's tests call.
//!
//! It knows nothing of any backend but the trait; a case says how to load a model and what to feed it.
#![allow(clippy::panic, reason = "this is test code, exported for tests")]

use plinth_types::{Tensor, TensorSpec};

use crate::backend::{Backend, BackendError};
use crate::check;

/// A model and what to feed it.
pub struct Case {
    /// Loads a fresh copy.
    pub load: Box<dyn Fn() -> Result<Box<dyn Backend>, BackendError>>,
    /// Inputs that succeed.
    pub good: Vec<Tensor>,
    /// Inputs that fit the metadata and yet fail with an error.
    pub failing: Option<Vec<Tensor>>,
}

/// Runs the suite.
///
/// # Panics
/// At the first promise that is broken.
pub fn backend(case: &Case) {
    let model = load(case);
    describes_itself(&*model, case);
    answers_all(&*model, case);
    answers_what_is_wished(&*model, case);
    takes_inputs_in_any_order(&*model, case);
    survives_its_errors(&*model, case);
    executions_at_a_time_agree(&*model, case);
    two_copies_do_not_mind_each_other(case);
}

fn load(case: &Case) -> Box<dyn Backend> {
    (case.load)().unwrap_or_else(|error| panic!("the model does not load: {error}"))
}

fn names(specs: &[TensorSpec]) -> Vec<String> {
    specs.iter().map(|spec| spec.name().to_owned()).collect()
}

fn run(model: &dyn Backend, inputs: &[Tensor], outputs: &[String]) -> Vec<Tensor> {
    let answer = model.execute(inputs.to_vec(), outputs).unwrap_or_else(|error| panic!("good inputs fail: {error}"));
    if let Err(why) = check::answer(model.metadata(), outputs, &answer) {
        panic!("the answer breaks the metadata's promise: {why}");
    }
    answer
}

fn describes_itself(model: &dyn Backend, case: &Case) {
    let metadata = model.metadata();
    assert!(!metadata.platform.is_empty() && !metadata.engine.is_empty(), "platform and engine are named");
    assert!(!metadata.outputs.is_empty(), "a model has an output");
    for optional in &metadata.optional_inputs {
        assert!(metadata.inputs.iter().any(|spec| spec.name() == optional), "an optional input is an input");
    }
    for specs in [&metadata.inputs, &metadata.outputs] {
        let (mut sorted, all) = (names(specs), specs.len());
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), all, "names are unique");
    }
    assert_eq!(check::request(metadata, &case.good, &[]), Ok(()), "the case's own inputs fit");
    assert_eq!(load(case).metadata(), metadata, "the same files give the same metadata");
}

fn answers_all(model: &dyn Backend, case: &Case) {
    let (before, all) = (model.metadata().clone(), names(&model.metadata().outputs));
    let first = run(model, &case.good, &all);
    assert_eq!(run(model, &case.good, &all), first, "the same inputs give the same outputs");
    assert_eq!(*model.metadata(), before, "metadata never changes");
}

fn answers_what_is_wished(model: &dyn Backend, case: &Case) {
    let all = names(&model.metadata().outputs);
    let full = run(model, &case.good, &all);
    for (name, expected) in all.iter().zip(&full) {
        assert_eq!(run(model, &case.good, std::slice::from_ref(name)), std::slice::from_ref(expected), "one output alone");
    }
    let (mut backwards, mut expected) = (all, full);
    backwards.reverse();
    expected.reverse();
    assert_eq!(run(model, &case.good, &backwards), expected, "outputs come in the wished order");
}

fn takes_inputs_in_any_order(model: &dyn Backend, case: &Case) {
    let all = names(&model.metadata().outputs);
    let expected = run(model, &case.good, &all);
    let mut backwards = case.good.clone();
    backwards.reverse();
    assert_eq!(run(model, &backwards, &all), expected);
}

fn survives_its_errors(model: &dyn Backend, case: &Case) {
    let Some(failing) = &case.failing else { return };
    let all = names(&model.metadata().outputs);
    let expected = run(model, &case.good, &all);
    for _ in 0..3 {
        match model.execute(failing.clone(), &all) {
            Err(BackendError::Input(text) | BackendError::Execution(text)) => {
                assert!(!text.is_empty() && !text.contains(".cc:"), "a text for users: {text}");
            }
            Err(BackendError::Load(text)) => panic!("an execution does not load: {text}"),
            Ok(_) => panic!("inputs that should fail do not"),
        }
        assert_eq!(run(model, &case.good, &all), expected, "an error leaves the model usable");
    }
}

fn executions_at_a_time_agree(model: &dyn Backend, case: &Case) {
    let all = names(&model.metadata().outputs);
    let (good, failing) = (&case.good, &case.failing);
    let expected = run(model, good, &all);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(run(model, good, &all), expected, "what others execute changes nothing");
                    if let Some(failing) = failing {
                        assert!(model.execute(failing.clone(), &all).is_err(), "and makes nothing succeed");
                    }
                }
            });
        }
    });
}

fn two_copies_do_not_mind_each_other(case: &Case) {
    let (one, two) = (load(case), load(case));
    let all = names(&one.metadata().outputs);
    let expected = run(&*one, &case.good, &all);
    assert_eq!(run(&*two, &case.good, &all), expected);
    drop(one);
    assert_eq!(run(&*two, &case.good, &all), expected);
}
