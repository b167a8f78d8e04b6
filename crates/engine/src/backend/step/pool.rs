//! The step `pool`: one vector for each text, from the vectors of its tokens.
//!
//! ```toml
//! kind = "pool"
//! mode = "mean"            # of the tokens that the mask keeps; or "cls", the first token's vector
//! normalize = true         # to length 1, so that a dot product is the cosine
//! width = 384              # numbers in a vector; any when left out
//! input = "last_hidden_state"
//! mask = "attention_mask"
//! output = "embedding"
//! ```
//!
//! Takes `input` FP32 `[-1, -1, width]` (batch, tokens, width) and `mask` INT64 `[-1, -1]`, which `cls` does not need; gives
//! `output` FP32 `[-1, width]`. A text without a single token has the vector 0. The formulas are those of the library
//! sentence-transformers: the mean over the mask, and `x / max(|x|, 1e-12)`.

use plinth_types::{DataType, Dim, Tensor, TensorSpec};
use serde::Deserialize;

use super::description::{self, spec, within};
use super::values::{check_output, dims, floats, from_floats, input, integers, optional};
use super::{BackendError, Kind};

/// The most numbers in a vector.
const MAX_WIDTH: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Pool {
    #[serde(rename = "kind")]
    _kind: description::Known,
    mode: Mode,
    normalize: bool,
    width: Option<u64>,
    input: String,
    mask: String,
    output: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Mean,
    Cls,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            _kind: description::Known::default(),
            mode: Mode::Mean,
            normalize: true,
            width: None,
            input: "last_hidden_state".to_owned(),
            mask: "attention_mask".to_owned(),
            output: "embedding".to_owned(),
        }
    }
}

impl Pool {
    pub(super) fn load(text: &[u8]) -> Result<Self, BackendError> {
        let pool: Self = description::read(text)?;
        if let Some(width) = &pool.width {
            within("width", width, &1, &MAX_WIDTH)?;
        }
        Ok(pool)
    }

    fn width(&self) -> Dim {
        self.width.map_or(Dim::Any, Dim::Fixed)
    }

    fn mean(&self, tokens: &[f32], mask: &[i64], width: usize) -> Vec<f32> {
        let (mut sum, mut weight) = (vec![0f32; width], 0f32);
        for (token, mask) in tokens.chunks_exact(width).zip(mask) {
            let mask = *mask as f32;
            // Also what stands in padding may be no number.
            if mask != 0.0 {
                weight += mask;
                sum.iter_mut().zip(token).for_each(|(sum, value)| *sum += value * mask);
            }
        }
        sum.iter_mut().for_each(|sum| *sum /= weight.max(1e-9));
        sum
    }
}

impl Kind for Pool {
    fn inputs(&self) -> Result<(Vec<TensorSpec>, Vec<String>), BackendError> {
        let hidden = spec(&self.input, DataType::Fp32, &[Dim::Any, Dim::Any, self.width()])?;
        let mask = spec(&self.mask, DataType::Int64, &[Dim::Any, Dim::Any])?;
        let optional = if self.mode == Mode::Cls { vec![self.mask.clone()] } else { Vec::new() };
        Ok((vec![hidden, mask], optional))
    }

    fn outputs(&self) -> Result<Vec<TensorSpec>, BackendError> {
        Ok(vec![spec(&self.output, DataType::Fp32, &[Dim::Any, self.width()])?])
    }

    fn execute(&self, inputs: &[Tensor], outputs: &[String]) -> Result<Vec<Tensor>, BackendError> {
        let hidden = input(inputs, &self.input)?;
        let [batch, length, width] = dims(hidden)?[..] else { return Err(BackendError::Input("a wrong shape".to_owned())) };
        let mask = match optional(inputs, &self.mask) {
            Some(mask) if dims(mask)? != [batch, length] => {
                let text = format!("'{}' is {}, but '{}' has {batch} texts of {length} tokens", self.mask, mask.shape(), self.input);
                return Err(BackendError::Input(text));
            }
            Some(mask) => integers(mask).collect(),
            None => Vec::new(),
        };
        if length == 0 || width == 0 || width as u64 > MAX_WIDTH {
            return Err(BackendError::Input(format!("'{}' has {length} tokens of {width} numbers; want 1 or more", self.input)));
        }
        let shape = [batch as u64, width as u64];
        check_output(DataType::Fp32, &shape)?;
        let mut pooled = Vec::with_capacity(batch * width);
        let values: Vec<f32> = floats(hidden).collect();
        for (i, tokens) in values.chunks_exact(length * width).enumerate() {
            let mut vector = match self.mode {
                Mode::Cls => tokens[..width].to_vec(),
                Mode::Mean => self.mean(tokens, mask.get(i * length..(i + 1) * length).unwrap_or_default(), width),
            };
            if self.normalize {
                let norm = vector.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt().max(1e-12) as f32;
                vector.iter_mut().for_each(|v| *v /= norm);
            }
            pooled.extend_from_slice(&vector);
        }
        // There is one output, and whatever is wished is that one.
        outputs.iter().map(|name| from_floats(name, &shape, &pooled)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{load, refused, run};
    use crate::backend::BackendError;
    use crate::testing::tensor;
    use plinth_types::{DataType, Tensor};

    fn hidden(dims: &[u64], values: &[f32]) -> Tensor {
        tensor("last_hidden_state", DataType::Fp32, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
    }

    fn mask(dims: &[u64], values: &[i64]) -> Tensor {
        tensor("attention_mask", DataType::Int64, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
    }

    fn floats(tensor: &Tensor) -> Vec<f32> {
        super::floats(tensor).collect()
    }

    #[test]
    fn means_over_the_mask() {
        let step = load(&[("step.toml", "kind = 'pool'\nnormalize = false\nwidth = 2".as_bytes())]);
        let values = [1.0, 2.0, 3.0, 6.0, f32::NAN, 9.0, 5.0, 5.0, 7.0, 7.0, 7.0, 7.0];
        let out = run(&step, vec![hidden(&[2, 3, 2], &values), mask(&[2, 3], &[1, 1, 0, 0, 0, 0])]).unwrap();
        assert_eq!((floats(&out[0]), out[0].shape().dims()), (vec![2.0, 4.0, 0.0, 0.0], &[2, 2][..]), "nothing kept is 0, not NaN");
    }

    #[test]
    fn normalises() {
        let step = load(&[("step.toml", "kind = 'pool'".as_bytes())]);
        let out = run(&step, vec![hidden(&[2, 1, 2], &[3.0, 4.0, 0.0, 0.0]), mask(&[2, 1], &[1, 1])]).unwrap();
        assert_eq!(floats(&out[0]), [0.6, 0.8, 0.0, 0.0]);
    }

    #[test]
    fn takes_the_first_token() {
        let step = load(&[("step.toml", "kind = 'pool'\nmode = 'cls'\nnormalize = false\noutput = 'e'".as_bytes())]);
        let out = run(&step, vec![hidden(&[2, 2, 1], &[1.0, 2.0, 3.0, 4.0])]).unwrap();
        assert_eq!((out[0].name(), floats(&out[0])), ("e", vec![1.0, 3.0]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let step = load(&[("step.toml", "kind = 'pool'".as_bytes())]);
        let says = |inputs| match run(&step, inputs) {
            Err(BackendError::Input(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(says(vec![hidden(&[1, 2, 1], &[1.0, 2.0]), mask(&[1, 1], &[1])]).contains("2 tokens"));
        assert!(says(vec![hidden(&[1, 1, 1], &[1.0]), mask(&[2, 1], &[1, 1])]).contains("batch size"));
        assert!(says(vec![hidden(&[1, 0, 1], &[]), mask(&[1, 0], &[])]).contains("0 tokens"));
        for (text, why) in [
            ("kind = 'pool'\nwidth = 0", "width is 0"),
            ("kind = 'pool'\nmode = 'max'", "line 2: unknown variant"),
            ("kind = 'pool'\ninput = ''", "a tensor name"),
            ("kind = 'pool'\nmask = 'm'\ninput = 'm'", "two tensors are called 'm'"),
            ("kind = 'poll'", "no step of the kind 'poll'"),
        ] {
            assert!(refused(&[("step.toml", text.as_bytes())]).contains(why), "{text}");
        }
    }
}
