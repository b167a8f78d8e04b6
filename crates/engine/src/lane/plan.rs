//! A batch, checked and laid out. Pure.
//!
//! Invariants: what leaves here fits the model and adds up; every input of the batch is one tensor whose rows are the
//! parts' rows in order; no product or sum was left unchecked.

use plinth_types::{Dim, Shape, TensorSpec};

use super::Batch;
use crate::channel::wire::{Span, TensorHead};
use crate::check;
use crate::spec::ModelMetadata;

/// How a batch becomes one execution.
#[derive(Debug)]
pub(super) struct Plan {
    /// The inputs of the execution, in the model's order. Their spans are for an alignment of 1 until [`Plan::place`].
    pub heads: Vec<TensorHead>,
    /// For each part and each head the tensor's place among the part's inputs.
    places: Vec<usize>,
    /// The first dimension of each part; empty without a batch dimension.
    pub rows: Vec<u64>,
    /// The first dimension of the batch.
    pub total: Option<u64>,
    /// The outputs of the execution: what any part asks for, in the model's order.
    pub outputs: Vec<u16>,
    /// For each part what it asks for, as places in `outputs`; `None` for all of them in order.
    pub wished: Vec<Option<Vec<usize>>>,
}

/// Which part is at fault, and what is wrong.
pub(super) type Refused = (Option<usize>, String);

impl Plan {
    pub(super) fn of(metadata: &ModelMetadata, batch: &Batch) -> Result<Self, Refused> {
        let (first, count) = match (batch.parts.first(), batch.parts.len()) {
            (Some(first), 1) => (first, 1),
            (Some(first), count) if batch.batched => (first, count),
            _ => return Err((None, "a batch has parts, and exactly one where the model has no batch dimension".to_owned())),
        };
        let mut plan = Self {
            heads: Vec::with_capacity(first.inputs.len()),
            places: Vec::with_capacity(first.inputs.len() * count),
            rows: Vec::with_capacity(count),
            total: None,
            outputs: Vec::new(),
            wished: Vec::with_capacity(count),
        };
        for (i, part) in batch.parts.iter().enumerate() {
            check::part(metadata, &part.inputs, &part.outputs, batch.batched).map_err(|text| (Some(i), text))?;
            plan.take(metadata, batch, i).map_err(|text| (Some(i), text))?;
        }
        plan.sum_up(metadata, batch).map_err(|text| (None, text))?;
        plan.choose_outputs(metadata, batch);
        Ok(plan)
    }

    /// Finds a part's inputs, which are its own and in any order.
    fn take(&mut self, metadata: &ModelMetadata, batch: &Batch, i: usize) -> Result<(), String> {
        let Some(part) = batch.parts.get(i) else { return Ok(()) };
        if batch.batched {
            self.rows.push(part.inputs.first().and_then(|tensor| tensor.shape().dims().first().copied()).unwrap_or(0));
        }
        let mut found = 0;
        for (index, spec) in metadata.inputs.iter().enumerate() {
            let Some(place) = part.inputs.iter().position(|tensor| tensor.name() == spec.name()) else { continue };
            let Some(tensor) = part.inputs.get(place) else { continue };
            let length = tensor.data().len() as u64;
            if i == 0 {
                let index = u16::try_from(index).map_err(|_| "the model has more inputs than can be served".to_owned())?;
                self.heads.push(TensorHead { index, shape: tensor.shape().clone(), span: Span { offset: 0, length } });
            } else {
                let other = || format!("the input '{}' has another shape than in the batch's first part", spec.name());
                let head = self.heads.get_mut(found).filter(|head| usize::from(head.index) == index).ok_or_else(other)?;
                if head.shape.dims().get(1..) != tensor.shape().dims().get(1..) {
                    return Err(other());
                }
                head.span.length = head.span.length.checked_add(length).ok_or_else(too_much)?;
            }
            self.places.push(place);
            found += 1;
        }
        if found == self.heads.len() { Ok(()) } else { Err("the part has other inputs than the batch's first part".to_owned()) }
    }

    /// The shapes of the whole.
    fn sum_up(&mut self, metadata: &ModelMetadata, batch: &Batch) -> Result<(), String> {
        if !batch.batched {
            return Ok(());
        }
        let total = self.rows.iter().try_fold(0u64, |sum, rows| sum.checked_add(*rows)).ok_or_else(too_much)?;
        self.total = Some(total);
        for head in &mut self.heads {
            let spec = metadata.inputs.get(usize::from(head.index)).ok_or_else(too_much)?;
            if let Some(Dim::Fixed(rows)) = spec.shape().first()
                && *rows != total
            {
                return Err(format!("the model takes {rows} at a time, and the batch has {total}"));
            }
            head.shape = with_rows(&head.shape, total).ok_or_else(too_much)?;
        }
        Ok(())
    }

    fn choose_outputs(&mut self, metadata: &ModelMetadata, batch: &Batch) {
        let all = batch.parts.iter().any(|part| part.outputs.is_empty());
        let wanted = |spec: &TensorSpec| all || batch.parts.iter().any(|part| part.outputs.iter().any(|name| name == spec.name()));
        let outputs = metadata.outputs.iter().enumerate().filter(|(_, spec)| wanted(spec));
        let names: Vec<(u16, &str)> = outputs.filter_map(|(i, spec)| Some((u16::try_from(i).ok()?, spec.name()))).collect();
        self.outputs = names.iter().map(|(index, _)| *index).collect();
        self.wished = batch
            .parts
            .iter()
            .map(|part| {
                let places: Vec<usize> = part.outputs.iter().filter_map(|name| names.iter().position(|(_, other)| other == name)).collect();
                (!places.is_empty() && !places.iter().copied().eq(0..names.len())).then_some(places)
            })
            .collect();
    }

    /// Gives every input its place, at multiples of `alignment`, and says how long the whole is.
    pub(super) fn place(&mut self, alignment: u64) -> Option<u64> {
        let mut end = 0u64;
        for head in &mut self.heads {
            head.span.offset = end.checked_next_multiple_of(alignment)?;
            end = head.span.offset.checked_add(head.span.length)?;
        }
        Some(end)
    }

    /// The bytes of the inputs with their offsets, in order.
    pub(super) fn bytes<'a>(&'a self, batch: &'a Batch) -> impl Iterator<Item = (u64, &'a bytes::Bytes)> {
        self.heads.iter().enumerate().flat_map(move |(h, head)| {
            let mut offset = head.span.offset;
            batch.parts.iter().enumerate().filter_map(move |(p, part)| {
                let data = part.inputs.get(*self.places.get(p * self.heads.len() + h)?)?.data();
                let at = offset;
                offset += data.len() as u64;
                (!data.is_empty()).then_some((at, data))
            })
        })
    }

    /// How long the outputs will be, one by one, where type and shape say so.
    pub(super) fn exact_output(&self, metadata: &ModelMetadata) -> Option<u64> {
        let mut end = 0u64;
        for index in &self.outputs {
            let spec = metadata.outputs.get(usize::from(*index))?;
            let mut length = spec.datatype().element_size()? as u64;
            for (i, dim) in spec.shape().iter().enumerate() {
                let n = match (self.total, dim) {
                    (Some(total), _) if i == 0 => total,
                    (_, Dim::Fixed(n)) => *n,
                    (_, Dim::Any) => return None,
                };
                length = length.checked_mul(n)?;
            }
            end = end.checked_next_multiple_of(super::REGION_ALIGNMENT)?.checked_add(length)?;
        }
        Some(end)
    }
}

/// The shape with another first dimension; `None` when there is none, or it does not multiply out.
pub(super) fn with_rows(shape: &Shape, rows: u64) -> Option<Shape> {
    let (_, rest) = shape.dims().split_first()?;
    Shape::new([&[rows], rest].concat()).ok()
}

fn too_much() -> String {
    "the inputs are more than a batch can carry".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::Part;
    use plinth_types::{DataType, Tensor};
    use std::time::Duration;

    fn metadata() -> ModelMetadata {
        let spec = |name: &str, dims: Vec<Dim>| TensorSpec::new(name, DataType::Uint8, dims).unwrap();
        ModelMetadata {
            platform: String::new(),
            inputs: vec![spec("a", vec![Dim::Any, Dim::Any]), spec("b", vec![Dim::Any])],
            optional_inputs: vec!["b".into()],
            outputs: vec![spec("x", vec![Dim::Any, Dim::Fixed(3)]), spec("y", vec![Dim::Any]), spec("z", vec![Dim::Any])],
            engine: String::new(),
        }
    }

    fn tensor(name: &str, dims: &[u64], fill: u8) -> Tensor {
        let shape = Shape::new(dims.to_vec()).unwrap();
        let bytes = vec![fill; usize::try_from(shape.elements()).unwrap()];
        Tensor::new(name, DataType::Uint8, shape, bytes.into()).unwrap()
    }

    fn part(inputs: Vec<Tensor>, outputs: &[&str]) -> Part {
        Part { inputs, outputs: outputs.iter().map(|n| (*n).to_owned()).collect(), trace: None }
    }

    fn batch(batched: bool, parts: Vec<Part>) -> Batch {
        Batch { id: 0, parts, batched, deadline: Duration::ZERO }
    }

    #[test]
    fn rows_of_an_input_lie_together() {
        let parts = vec![
            part(vec![tensor("a", &[2, 2], 1), tensor("b", &[2], 2)], &["y"]),
            part(vec![tensor("b", &[1], 4), tensor("a", &[1, 2], 3)], &["z", "x"]),
        ];
        let batch = batch(true, parts);
        let mut plan = Plan::of(&metadata(), &batch).unwrap();
        assert_eq!(plan.place(16), Some(19));
        let mut whole = [0; 19];
        for (offset, bytes) in plan.bytes(&batch) {
            let at = usize::try_from(offset).unwrap();
            whole[at..at + bytes.len()].copy_from_slice(bytes);
        }
        assert_eq!(whole, [1, 1, 1, 1, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 4]);
        assert_eq!(plan.heads[0].shape.dims(), [3, 2]);
        assert_eq!((plan.rows.as_slice(), plan.total, plan.outputs.as_slice()), (&[2, 1][..], Some(3), &[0, 1, 2][..]));
        assert_eq!(plan.wished, [Some(vec![1]), Some(vec![2, 0])]);
        assert_eq!(plan.exact_output(&metadata()), Some(64 + 64 + 3));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let a = |dims: &[u64]| tensor("a", dims, 0);
        let b = |n: u64| tensor("b", &[n], 0);
        for (batched, parts, who, says) in [
            (true, vec![], None, "a batch has parts"),
            (false, vec![part(vec![a(&[1, 1])], &[]), part(vec![a(&[1, 1])], &[])], None, "exactly one"),
            (true, vec![part(vec![a(&[1, 1])], &[]), part(vec![a(&[1, 2])], &[])], Some(1), "another shape"),
            (true, vec![part(vec![a(&[1, 1])], &[]), part(vec![a(&[1, 1]), b(1)], &[])], Some(1), "another shape"),
            (true, vec![part(vec![a(&[1, 1]), b(1)], &[]), part(vec![a(&[1, 1])], &[])], Some(1), "other inputs"),
            (true, vec![part(vec![a(&[1, 1]), b(2)], &[])], Some(0), "first dimension"),
            (true, vec![part(vec![b(2)], &[])], Some(0), "'a' is missing"),
            (true, vec![part(vec![a(&[1, 1])], &["q"])], Some(0), "no output 'q'"),
        ] {
            let error = Plan::of(&metadata(), &batch(batched, parts)).unwrap_err();
            assert!(error.0 == who && error.1.contains(says), "{says}: {error:?}");
        }
        let mut fixed = metadata();
        fixed.inputs[0] = TensorSpec::new("a", DataType::Uint8, vec![Dim::Fixed(2), Dim::Any]).unwrap();
        let two = || vec![part(vec![a(&[1, 1])], &[]), part(vec![a(&[1, 1])], &[])];
        assert!(Plan::of(&fixed, &batch(true, two())).is_ok());
        let three = [two(), vec![part(vec![a(&[1, 1])], &[])]].concat();
        assert!(Plan::of(&fixed, &batch(true, three)).unwrap_err().1.contains("2 at a time"));
    }

    #[test]
    fn without_a_batch_dimension_all_is_as_it_was() {
        let batch = batch(false, vec![part(vec![tensor("b", &[5], 0), tensor("a", &[3, 2], 0)], &["x", "y", "z"])]);
        let plan = Plan::of(&metadata(), &batch).unwrap();
        assert_eq!((plan.heads[0].shape.dims(), plan.heads[1].shape.dims(), plan.total), (&[3, 2][..], &[5][..], None));
        assert_eq!((plan.wished, plan.rows.len()), (vec![None], 0));
    }
}
