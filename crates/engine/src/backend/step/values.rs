//! Between tensors in wire form and numbers.

use plinth_types::{DataType, Shape, Tensor};

use super::{BackendError, MAX_OUTPUT_BYTES};

pub(super) fn input<'a>(inputs: &'a [Tensor], name: &str) -> Result<&'a Tensor, BackendError> {
    optional(inputs, name).ok_or_else(|| BackendError::Input(format!("the input '{name}' is missing")))
}

pub(super) fn optional<'a>(inputs: &'a [Tensor], name: &str) -> Option<&'a Tensor> {
    inputs.iter().find(|tensor| tensor.name() == name)
}

/// A dimension as a size of memory.
pub(super) fn size(dim: u64) -> Result<usize, BackendError> {
    usize::try_from(dim).map_err(|_| BackendError::Input("a dimension is larger than this machine's memory".to_owned()))
}

/// The dimensions of a tensor as sizes.
pub(super) fn dims(tensor: &Tensor) -> Result<Vec<usize>, BackendError> {
    tensor.shape().dims().iter().map(|dim| size(*dim)).collect()
}

/// Refuses an output before it is made, when it would be larger than one may be.
pub(super) fn check_output(datatype: DataType, dims: &[u64]) -> Result<(), BackendError> {
    let shape = Shape::new(dims.to_vec()).and_then(|shape| shape.byte_size(datatype));
    match shape {
        Ok(bytes) if bytes.unwrap_or(0) <= MAX_OUTPUT_BYTES => Ok(()),
        _ => Err(BackendError::Input(format!("the outputs would have more than {} MiB; send smaller batches", MAX_OUTPUT_BYTES >> 20))),
    }
}

pub(super) fn floats(tensor: &Tensor) -> impl Iterator<Item = f32> {
    let (values, _) = tensor.data().as_chunks::<4>();
    values.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

pub(super) fn integers(tensor: &Tensor) -> impl Iterator<Item = i64> {
    let (values, _) = tensor.data().as_chunks::<8>();
    values.iter().map(|bytes| i64::from_le_bytes(*bytes))
}

pub(super) fn from_floats(name: &str, dims: &[u64], values: &[f32]) -> Result<Tensor, BackendError> {
    tensor(name, DataType::Fp32, dims, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

pub(super) fn from_integers(name: &str, dims: &[u64], values: impl Iterator<Item = i64>) -> Result<Tensor, BackendError> {
    tensor(name, DataType::Int64, dims, values.flat_map(i64::to_le_bytes).collect())
}

pub(super) fn tensor(name: &str, datatype: DataType, dims: &[u64], data: Vec<u8>) -> Result<Tensor, BackendError> {
    let made = Shape::new(dims.to_vec()).and_then(|shape| Tensor::new(name, datatype, shape, data.into()));
    made.map_err(|error| BackendError::Execution(format!("the output '{name}' cannot be made: {error}")))
}
