//! What goes into a model and what comes out, held against its metadata.
//!
//! The node checks inputs before they cost anything and answers before anybody sees them; a runner checks inputs once
//! more. Invariant: a text that leaves here names tensors, types and shapes, never contents.

use plinth_types::{Dim, Tensor, TensorSpec};

use crate::spec::ModelMetadata;

/// The longest text of a runner that is passed on.
const MAX_TEXT: usize = 1000;

fn find<'a>(specs: &'a [TensorSpec], name: &str) -> Option<&'a TensorSpec> {
    specs.iter().find(|spec| spec.name() == name)
}

/// Whether `inputs` are the model's, each once, none missing, and the names of `outputs` are the model's.
pub(crate) fn request(metadata: &ModelMetadata, inputs: &[Tensor], outputs: &[String]) -> Result<(), String> {
    part(metadata, inputs, outputs, false)
}

/// As a whole request; when `batched` it is one of several whose rows are put together, so the first dimension may be
/// anything that is the same for all inputs.
pub(crate) fn part(metadata: &ModelMetadata, inputs: &[Tensor], outputs: &[String], batched: bool) -> Result<(), String> {
    let rows = |tensor: &Tensor| tensor.shape().dims().first().copied();
    for (i, tensor) in inputs.iter().enumerate() {
        let name = tensor.name();
        let spec = find(&metadata.inputs, name).ok_or_else(|| format!("the model has no input '{name}'"))?;
        if inputs.iter().take(i).any(|earlier| earlier.name() == name) {
            return Err(format!("the input '{name}' is given twice"));
        }
        if batched && (rows(tensor).is_none() || rows(tensor) != inputs.first().and_then(rows)) {
            return Err(format!("input '{name}': the first dimension is the batch's, and must be there and the same for all inputs"));
        }
        match spec.shape().first() {
            Some(Dim::Fixed(_)) if batched => rest_fits(spec, tensor),
            _ => spec.check(tensor).map_err(|error| error.to_string()),
        }
        .map_err(|error| format!("input '{name}': {error}"))?;
    }
    for spec in &metadata.inputs {
        let given = inputs.iter().any(|t| t.name() == spec.name());
        if !given && !metadata.optional_inputs.iter().any(|name| name == spec.name()) {
            return Err(format!("the input '{}' is missing", spec.name()));
        }
    }
    for (i, name) in outputs.iter().enumerate() {
        if find(&metadata.outputs, name).is_none() {
            return Err(format!("the model has no output '{name}'"));
        }
        if outputs.iter().take(i).any(|earlier| earlier == name) {
            return Err(format!("the output '{name}' is asked for twice"));
        }
    }
    Ok(())
}

/// Whether the tensor fits but for the first dimension, which the batch as a whole has to fill.
fn rest_fits(spec: &TensorSpec, tensor: &Tensor) -> Result<(), String> {
    let free: Vec<Dim> = spec.shape().iter().enumerate().map(|(i, dim)| if i == 0 { Dim::Any } else { *dim }).collect();
    let free = TensorSpec::new(spec.name(), spec.datatype(), free).map_err(|error| error.to_string())?;
    free.check(tensor).map_err(|error| error.to_string())
}

/// Whether `answer` is exactly the wished outputs in their order (`wished` empty: all, in the model's order), each as
/// the model promises.
pub(crate) fn answer(metadata: &ModelMetadata, wished: &[String], answer: &[Tensor]) -> Result<(), String> {
    let all: Vec<&str> = if wished.is_empty() {
        metadata.outputs.iter().map(TensorSpec::name).collect()
    } else {
        wished.iter().map(String::as_str).collect()
    };
    for (i, name) in all.iter().enumerate() {
        let tensor = answer.get(i).ok_or_else(|| format!("the output '{name}' is missing"))?;
        if tensor.name() != *name {
            return Err(format!("the output '{}' stands where '{name}' should be", text(tensor.name())));
        }
        let spec = find(&metadata.outputs, name).ok_or_else(|| format!("there is no output '{name}'"))?;
        spec.check(tensor).map_err(|error| format!("output '{name}': {error}"))?;
    }
    if answer.len() > all.len() {
        return Err(format!("{} outputs instead of {}", answer.len(), all.len()));
    }
    Ok(())
}

/// A text from a runner, fit to be shown: bounded, one line.
pub(crate) fn text(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if shown.len() < text.len() && text.chars().nth(MAX_TEXT).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::{DataType, Shape};

    fn metadata() -> ModelMetadata {
        let spec = |name: &str| TensorSpec::new(name, DataType::Uint8, vec![Dim::Any]).unwrap();
        ModelMetadata {
            platform: String::new(),
            inputs: vec![spec("a"), spec("b")],
            optional_inputs: vec!["b".into()],
            outputs: vec![spec("x"), spec("y")],
            engine: String::new(),
        }
    }

    fn tensor(name: &str, dims: &[u64]) -> Tensor {
        let shape = Shape::new(dims.to_vec()).unwrap();
        let bytes = vec![0; usize::try_from(shape.elements()).unwrap()];
        Tensor::new(name, DataType::Uint8, shape, bytes.into()).unwrap()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn requests() {
        let m = metadata();
        let (a, b) = (|| tensor("a", &[2]), || tensor("b", &[0]));
        assert_eq!(request(&m, &[a()], &[]), Ok(()));
        assert_eq!(request(&m, &[b(), a()], &names(&["y", "x"])), Ok(()));
        for (inputs, outputs, says) in [
            (vec![], names(&[]), "'a' is missing"),
            (vec![b()], names(&[]), "'a' is missing"),
            (vec![a(), a()], names(&[]), "'a' is given twice"),
            (vec![a(), tensor("z", &[1])], names(&[]), "no input 'z'"),
            (vec![tensor("a", &[1, 1])], names(&[]), "input 'a'"),
            (vec![a()], names(&["z"]), "no output 'z'"),
            (vec![a()], names(&["x", "x"]), "asked for twice"),
        ] {
            let error = request(&m, &inputs, &outputs).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn answers() {
        let m = metadata();
        let (x, y) = (|| tensor("x", &[1]), || tensor("y", &[1]));
        assert_eq!(answer(&m, &[], &[x(), y()]), Ok(()));
        assert_eq!(answer(&m, &names(&["y"]), &[y()]), Ok(()));
        for (wished, given, says) in [
            (names(&[]), vec![x()], "'y' is missing"),
            (names(&[]), vec![y(), x()], "stands where 'x'"),
            (names(&["x"]), vec![x(), y()], "2 outputs instead of 1"),
            (names(&["x"]), vec![tensor("x", &[1, 1])], "output 'x'"),
        ] {
            let error = answer(&m, &wished, &given).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn texts_are_bounded_and_on_one_line() {
        assert_eq!(text("a\nb\u{7}"), "a b ");
        assert_eq!(text(&"é".repeat(5000)).chars().count(), MAX_TEXT + 1);
    }
}
