//! The step `classify`: the most probable classes, from a model's scores.
//!
//! ```toml
//! kind = "classify"
//! top = 5                  # how many classes to answer
//! activation = "softmax"   # or "sigmoid", or "none" when the scores are probabilities already
//! labels = "labels.txt"    # a file of the version, one name a line; left out: no output `labels`
//! classes = 1000           # how many scores there are; as many as labels, or any when left out
//! input = "logits"
//! ```
//!
//! Takes `input` FP32 `[-1, classes]`; gives `scores` FP32, `indices` INT64 and, with a file of labels, `labels` BYTES, each
//! `[-1, top]`, the best first. Of equal scores the lower index is first.

use plinth_types::tensor::push_byte_element;
use plinth_types::{DataType, Dim, Tensor, TensorSpec};
use serde::Deserialize;

use super::description::{self, spec, within, wrong};
use super::values::{check_output, dims, floats, from_floats, from_integers, input, tensor};
use super::{BackendError, Kind, LoadRequest};

/// The most classes.
const MAX_CLASSES: u64 = 1 << 20;
/// The most bytes of a file of labels, and of one label.
const MAX_LABELS: usize = 16 << 20;
const MAX_LABEL: usize = 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    #[serde(rename = "kind")]
    _kind: description::Known,
    #[serde(default = "five")]
    top: u64,
    #[serde(default)]
    activation: Activation,
    labels: Option<String>,
    classes: Option<u64>,
    #[serde(default = "logits")]
    input: String,
}

fn five() -> u64 {
    5
}

fn logits() -> String {
    "logits".to_owned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Activation {
    #[default]
    Softmax,
    Sigmoid,
    None,
}

pub(super) struct Classify {
    description: Description,
    labels: Option<Vec<String>>,
}

impl Classify {
    pub(super) fn load(text: &[u8], request: &LoadRequest) -> Result<Self, BackendError> {
        let mut description: Description = description::read(text)?;
        let labels = description.labels.as_ref().map(|name| read_labels(request.file(name)?)).transpose()?;
        if let Some(labels) = &labels {
            let given = description.classes.get_or_insert(labels.len() as u64);
            if *given != labels.len() as u64 {
                return Err(wrong(format!("classes is {given}, but there are {} labels", labels.len())));
            }
        }
        let most = description.classes.unwrap_or(MAX_CLASSES);
        within("classes", &most, &1, &MAX_CLASSES)?;
        within("top", &description.top, &1, &most)?;
        Ok(Self { description, labels })
    }

    /// The best of one row: index and score after the activation.
    fn best(&self, row: &[f32]) -> Result<Vec<(usize, f32)>, BackendError> {
        if row.iter().any(|score| score.is_nan() || *score == f32::INFINITY) {
            return Err(BackendError::Input(format!("'{}' holds scores that are no finite numbers", self.description.input)));
        }
        let top = usize::try_from(self.description.top).unwrap_or(usize::MAX).min(row.len());
        let mut order: Vec<usize> = (0..row.len()).collect();
        let better = |a: &usize, b: &usize| row[*b].total_cmp(&row[*a]).then(a.cmp(b));
        if top < order.len() {
            order.select_nth_unstable_by(top, better);
            order.truncate(top);
        }
        order.sort_unstable_by(better);
        let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = match self.description.activation {
            // Minus infinity everywhere has no highest.
            Activation::Softmax if highest == f32::NEG_INFINITY => {
                return Err(BackendError::Input(format!("'{}' holds scores that are no finite numbers", self.description.input)));
            }
            Activation::Softmax => row.iter().map(|score| f64::from(score - highest).exp()).sum(),
            Activation::Sigmoid | Activation::None => 1.0,
        };
        let activate = |score: f32| match self.description.activation {
            Activation::Softmax => (f64::from(score - highest).exp() / sum) as f32,
            Activation::Sigmoid => (1.0 / (1.0 + (-f64::from(score)).exp())) as f32,
            Activation::None => score,
        };
        Ok(order.into_iter().map(|i| (i, activate(row[i]))).collect())
    }
}

fn read_labels(bytes: &[u8]) -> Result<Vec<String>, BackendError> {
    if bytes.len() > MAX_LABELS {
        return Err(wrong(format!("the file of labels has more than {MAX_LABELS} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("the file of labels is not UTF-8"))?;
    let labels: Vec<String> = text.trim_start_matches('\u{feff}').lines().map(|line| line.trim_end().to_owned()).collect();
    match labels.iter().position(|label| label.is_empty() || label.len() > MAX_LABEL) {
        Some(line) => Err(wrong(format!("line {} of the labels is empty or longer than {MAX_LABEL} bytes", line + 1))),
        None => Ok(labels),
    }
}

impl Kind for Classify {
    fn inputs(&self) -> Result<(Vec<TensorSpec>, Vec<String>), BackendError> {
        let classes = self.description.classes.map_or(Dim::Any, Dim::Fixed);
        Ok((vec![spec(&self.description.input, DataType::Fp32, &[Dim::Any, classes])?], Vec::new()))
    }

    fn outputs(&self) -> Result<Vec<TensorSpec>, BackendError> {
        let shape = [Dim::Any, Dim::Fixed(self.description.top)];
        let mut outputs = vec![spec("scores", DataType::Fp32, &shape)?, spec("indices", DataType::Int64, &shape)?];
        if self.labels.is_some() {
            outputs.push(spec("labels", DataType::Bytes, &shape)?);
        }
        Ok(outputs)
    }

    fn execute(&self, inputs: &[Tensor], outputs: &[String]) -> Result<Vec<Tensor>, BackendError> {
        let scores = input(inputs, &self.description.input)?;
        let [batch, classes] = dims(scores)?[..] else { return Err(BackendError::Input("a wrong shape".to_owned())) };
        let top = self.description.top;
        if (classes as u64) < top || classes as u64 > MAX_CLASSES {
            let text = format!("'{}' has {classes} scores in a row; want {top} to {MAX_CLASSES}", self.description.input);
            return Err(BackendError::Input(text));
        }
        let shape = [batch as u64, top];
        check_output(DataType::Int64, &shape)?;
        let values: Vec<f32> = floats(scores).collect();
        let mut best = Vec::new();
        for row in values.chunks_exact(classes) {
            best.extend(self.best(row)?);
        }
        let make = |name: &String| match name.as_str() {
            "scores" => from_floats(name, &shape, &best.iter().map(|(_, score)| *score).collect::<Vec<_>>()),
            "indices" => from_integers(name, &shape, best.iter().map(|(i, _)| *i as i64)),
            _ => self.name(name, &shape, &best),
        };
        outputs.iter().map(make).collect()
    }
}

impl Classify {
    fn name(&self, name: &str, shape: &[u64], best: &[(usize, f32)]) -> Result<Tensor, BackendError> {
        let labels = self.labels.as_deref().unwrap_or_default();
        let mut data = Vec::new();
        for (i, _) in best {
            let label = labels.get(*i).map_or("", String::as_str);
            if data.len() as u64 > super::MAX_OUTPUT_BYTES {
                return Err(BackendError::Input("the labels of so many rows are too long together; send smaller batches".to_owned()));
            }
            push_byte_element(&mut data, label.as_bytes()).map_err(|e| BackendError::Execution(e.to_string()))?;
        }
        tensor(name, DataType::Bytes, shape, data)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{load, refused, run};
    use crate::backend::BackendError;
    use crate::testing::tensor;
    use plinth_types::{DataType, Tensor};
    use proptest::prelude::*;

    fn logits(dims: &[u64], values: &[f32]) -> Tensor {
        tensor("logits", DataType::Fp32, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
    }

    fn labels(tensor: &Tensor) -> Vec<String> {
        tensor.byte_elements().map(|e| String::from_utf8(e.to_vec()).unwrap()).collect()
    }

    #[test]
    fn the_best_come_first_with_their_names() {
        let files = [("step.toml", "kind = 'classify'\ntop = 2\nlabels = 'names.txt'".as_bytes()), ("names.txt", b"cat\r\ndog\nbird\n")];
        let step = load(&files);
        let out = run(&step, vec![logits(&[2, 3], &[1.0, 2.0, 3.0, 1000.0, 1000.0, -1000.0])]).unwrap();
        let scores: Vec<f32> = super::floats(&out[0]).collect();
        // e^3/(e+e^2+e^3), e^2/(e+e^2+e^3)
        for (got, want) in scores.iter().zip([0.665_240_94, 0.244_728_47, 0.5, 0.5]) {
            assert!((got - want).abs() < 1e-6, "{scores:?}");
        }
        assert_eq!(super::super::values::integers(&out[1]).collect::<Vec<_>>(), [2, 1, 0, 1], "of equal ones the first");
        assert_eq!(labels(&out[2]), ["bird", "dog", "cat", "dog"]);
        assert_eq!(out[2].shape().dims(), [2, 2]);
    }

    #[test]
    fn other_activations() {
        let sigmoid = load(&[("step.toml", "kind = 'classify'\ntop = 2\nactivation = 'sigmoid'".as_bytes())]);
        let out = run(&sigmoid, vec![logits(&[1, 2], &[0.0, -1e9])]).unwrap();
        assert_eq!(super::floats(&out[0]).collect::<Vec<_>>(), [0.5, 0.0]);
        let none = load(&[("step.toml", "kind = 'classify'\ntop = 1\nactivation = 'none'\ninput = 'logits'".as_bytes())]);
        let out = run(&none, vec![logits(&[1, 2], &[0.25, 0.75])]).unwrap();
        assert_eq!((out.len(), super::floats(&out[0]).collect::<Vec<_>>()), (2, vec![0.75]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let step = load(&[("step.toml", "kind = 'classify'\ntop = 2".as_bytes())]);
        for (input, why) in [
            (logits(&[1, 1], &[1.0]), "1 scores in a row"),
            (logits(&[1, 2], &[f32::NAN, 1.0]), "no finite numbers"),
            (logits(&[1, 2], &[f32::INFINITY, 1.0]), "no finite numbers"),
            (logits(&[1, 2], &[f32::NEG_INFINITY, f32::NEG_INFINITY]), "no finite numbers"),
        ] {
            let Err(BackendError::Input(text)) = run(&step, vec![input]) else { panic!("{why}") };
            assert!(text.contains(why), "{text}");
        }
        let out = run(&step, vec![logits(&[1, 2], &[f32::NEG_INFINITY, 1.0])]).unwrap();
        assert_eq!(super::floats(&out[0]).collect::<Vec<_>>(), [1.0, 0.0]);
        let toml = |text: &'static str| [("step.toml", text.as_bytes()), ("l", b"a\nb\n".as_slice()), ("gap", b"a\n\nb"), ("bad", b"\xff")];
        for (text, why) in [
            ("kind = 'classify'\ntop = 0", "top is 0, want 1"),
            ("kind = 'classify'\ntop = 3\nlabels = 'l'", "top is 3, want 1 to 2"),
            ("kind = 'classify'\nclasses = 3\nlabels = 'l'", "classes is 3, but there are 2 labels"),
            ("kind = 'classify'\nlabels = 'missing'", "no file 'missing'"),
            ("kind = 'classify'\nlabels = 'gap'", "line 2 of the labels"),
            ("kind = 'classify'\nlabels = 'bad'", "not UTF-8"),
            ("kind = 'classify'\nlabel = 'l'", "line 2: unknown field `label`"),
            ("kind = 'classify'\nclasses = 99999999", "classes is 99999999"),
        ] {
            let got = refused(&toml(text));
            assert!(got.contains(why), "{text}: {got}");
        }
    }

    proptest! {
        #[test]
        fn probabilities_add_up_whatever_the_scores(scores in prop::collection::vec(-1e30f32..1e30, 1..40)) {
            let text = format!("kind = 'classify'\ntop = {}", scores.len());
            let step = load(&[("step.toml", text.as_bytes())]);
            let out = run(&step, vec![logits(&[1, scores.len() as u64], &scores)]).unwrap();
            let p: Vec<f32> = super::floats(&out[0]).collect();
            prop_assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-4);
            prop_assert!(p.is_sorted_by(|a, b| a >= b));
        }
    }
}
