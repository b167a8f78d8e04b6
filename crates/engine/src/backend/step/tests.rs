//! What all steps have in common: they pass the suite of backends, and their files are strict.

use plinth_types::{DataType, Tensor, TensorSpec};

use super::{BackendError, Step};
use crate::backend::{Backend, LoadRequest};
use crate::spec::Provider;

fn request(files: &[(&str, &[u8])]) -> LoadRequest {
    let files = files.iter().map(|(path, bytes)| (path.parse().unwrap(), bytes.to_vec().into())).collect();
    LoadRequest { files, threads: 1, provider: Provider::default(), spawner: None }
}

pub(super) fn load(files: &[(&str, &[u8])]) -> Step {
    Step::load(&request(files)).unwrap()
}

/// The text with which the files are refused.
pub(super) fn refused(files: &[(&str, &[u8])]) -> String {
    match Step::load(&request(files)).map(drop) {
        Err(BackendError::Load(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// All outputs.
pub(super) fn run(step: &Step, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, BackendError> {
    let outputs: Vec<String> = step.metadata().outputs.iter().map(|spec| spec.name().to_owned()).collect();
    let made = step.run(&inputs, &outputs)?;
    let specs = step.metadata().outputs.iter();
    made.iter().zip(specs).for_each(|(tensor, spec): (&Tensor, &TensorSpec)| spec.check(tensor).unwrap());
    Ok(made)
}

#[test]
fn numbers_pass_the_suite_of_backends() {
    const CLASSIFY: &[(&str, &[u8])] = &[("step.toml", b"kind = 'classify'\ntop = 2\nlabels = 'names'"), ("names", b"a\nb\nc\n")];
    const POOL: &[(&str, &[u8])] = &[("step.toml", b"kind = 'pool'")];
    let tensor = |name: &str, datatype, dims: &[u64]| {
        let elements = dims.iter().product::<u64>();
        crate::testing::tensor(name, datatype, dims, crate::testing::sample(datatype, usize::try_from(elements).unwrap()))
    };
    for (files, good) in [
        (CLASSIFY, vec![tensor("logits", DataType::Fp32, &[2, 3])]),
        (POOL, vec![tensor("last_hidden_state", DataType::Fp32, &[2, 3, 4]), tensor("attention_mask", DataType::Int64, &[2, 3])]),
    ] {
        crate::conformance::backend(&crate::conformance::Case {
            load: Box::new(move || Ok(Box::new(load(files)) as Box<dyn Backend>)),
            good,
            failing: None,
        });
    }
}

#[test]
fn a_version_without_the_file_or_with_another_kind_does_not_load() {
    assert!(refused(&[("other", b"")]).contains("no file 'step.toml'"));
    assert!(refused(&[("step.toml", b"")]).contains("'kind' is missing"));
    assert!(refused(&[("step.toml", b"kind = 'magic'")]).contains("there is no step of the kind 'magic'"));
}
