//! Tensors in and out of ONNX Runtime.
//!
//! Invariants: the library gets memory that is aligned for the element type, as long as the shape says, and alive until
//! the call returns; what it gives back is copied, or held by an owner for as long as anybody looks at it.
#![allow(unsafe_code, reason = "tensors cross into the library as pointers; its typed interface does not fit elements known at run time")]

use std::sync::Arc;

use bytes::Bytes;
use ort::AsPointer;
use ort::memory::MemoryInfo;
use ort::session::{SessionInputValue, SharedSessionInner};
use ort::value::{DynValue, Shape as OrtShape, Tensor as OrtTensor, TensorElementType, TensorRefMut, ValueType};
use plinth_types::tensor::push_byte_element;
use plinth_types::{DataType, Shape, Tensor};

use super::BackendError;
use super::texts::run_error;

/// Outputs from this size on are handed on in the library's memory.
const NOT_COPIED: usize = 16 << 10;

/// Our name of the library's type.
pub(super) const fn datatype(element: TensorElementType) -> Option<DataType> {
    Some(match element {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Bfloat16 => DataType::Bf16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        TensorElementType::String => DataType::Bytes,
        _ => return None,
    })
}

/// Where an input's elements lie during a call.
pub(super) enum InputData<'a> {
    /// In the request itself.
    InPlace(&'a [u8]),
    /// Copied, because the request's bytes were not aligned.
    Aligned { words: Vec<u64>, length: usize },
    /// Strings, which the library copies.
    Strings(Vec<String>),
}

impl<'a> InputData<'a> {
    pub(super) fn of(tensor: &'a Tensor) -> Result<Self, BackendError> {
        let data: &[u8] = tensor.data();
        let bad = |what: &str| BackendError::Input(format!("input '{}': {what}", tensor.name()));
        match tensor.datatype() {
            DataType::Bytes => {
                let text = |element: &[u8]| match std::str::from_utf8(element) {
                    Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
                    Ok(_) => Err(bad("an ONNX string holds no NUL character")),
                    Err(_) => Err(bad("an ONNX string is UTF-8, and an element is not")),
                };
                Ok(Self::Strings(tensor.byte_elements().map(text).collect::<Result<_, _>>()?))
            }
            DataType::Bool if data.iter().any(|byte| *byte > 1) => Err(bad("a BOOL element is 0 or 1")),
            other => {
                let alignment = other.element_size().unwrap_or(1);
                if data.as_ptr().addr().is_multiple_of(alignment) { Ok(Self::InPlace(data)) } else { Ok(Self::aligned(data)) }
            }
        }
    }

    fn aligned(data: &[u8]) -> Self {
        let word = |chunk: &[u8]| {
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            u64::from_ne_bytes(bytes)
        };
        Self::Aligned { words: data.chunks(8).map(word).collect(), length: data.len() }
    }

    /// The bytes' place: address and length. Nothing for strings.
    fn place(&self) -> (*const u8, usize) {
        match self {
            Self::InPlace(data) => (data.as_ptr(), data.len()),
            Self::Aligned { words, length } => (words.as_ptr().cast(), *length),
            Self::Strings(_) => (std::ptr::null(), 0),
        }
    }

    fn overlaps(&self, start: usize, length: usize) -> bool {
        let (own, own_length) = self.place();
        let own = own.addr();
        own < start.saturating_add(length) && start < own.saturating_add(own_length)
    }

    /// The library's view of the tensor whose data this is. It points into `self` and into the tensor.
    pub(super) fn value(&self, tensor: &Tensor) -> ort::Result<SessionInputValue<'_>> {
        let dims = tensor.shape().dims().iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX));
        let shape = OrtShape::new(dims);
        if let Self::Strings(strings) = self {
            return Ok(OrtTensor::from_string_array((shape, strings.as_slice()))?.into());
        }
        let (data, info) = (self.place().0.cast_mut().cast(), MemoryInfo::default());
        macro_rules! view {
            ($element:ty) => {
                // SAFETY: `data` is aligned for the element (checked in `of`), as long as type and shape say (an
                // invariant of `Tensor`), on the CPU, and borrowed by the value's lifetime. Inputs are only read.
                unsafe { TensorRefMut::<$element>::from_raw(info, data, shape) }?.into()
            };
        }
        Ok(match tensor.datatype() {
            DataType::Bool => view!(bool),
            DataType::Uint8 | DataType::Bytes => view!(u8),
            DataType::Uint16 => view!(u16),
            DataType::Uint32 => view!(u32),
            DataType::Uint64 => view!(u64),
            DataType::Int8 => view!(i8),
            DataType::Int16 => view!(i16),
            DataType::Int32 => view!(i32),
            DataType::Int64 => view!(i64),
            DataType::Fp16 => view!(half::f16),
            DataType::Bf16 => view!(half::bf16),
            DataType::Fp32 => view!(f32),
            DataType::Fp64 => view!(f64),
        })
    }
}

/// Memory of the library that outlives the call it came from.
struct Owned {
    value: DynValue,
    address: usize,
    length: usize,
    /// An output may be one of the session's own weights.
    _session: Arc<SharedSessionInner>,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        let _ = &self.value;
        // SAFETY: `output` has checked address and length; `value` and the session keep the memory, and nobody writes
        // to an output after the call that made it.
        unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(self.address), self.length) }
    }
}

/// An output as our tensor.
pub(super) fn output(
    name: &str,
    value: DynValue,
    inputs: &[InputData<'_>],
    session: &Arc<SharedSessionInner>,
) -> Result<Tensor, BackendError> {
    let bad = |what: &str| BackendError::Execution(format!("the model's output '{name}' {what}"));
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(bad("is not a tensor"));
    };
    let datatype = datatype(*ty).ok_or_else(|| bad("has elements of an unsupported type"))?;
    let dims = shape.iter().map(|dim| u64::try_from(*dim)).collect::<Result<Vec<_>, _>>().map_err(|_| bad("has a negative dimension"))?;
    let shape = Shape::new(dims).map_err(|error| bad(&error.to_string()))?;
    let length = shape.byte_size(datatype).map_err(|error| bad(&error.to_string()))?;
    let data = match length.map(usize::try_from) {
        None => strings(&value).map_err(|error| run_error(&error))?.into(),
        Some(Ok(0)) => Bytes::new(),
        Some(Ok(length)) => numbers(value, length, inputs, session).map_err(|error| run_error(&error))?,
        Some(Err(_)) => return Err(bad("is larger than memory")),
    };
    Tensor::new(name, datatype, shape, data).map_err(|error| bad(&error.to_string()))
}

fn strings(value: &DynValue) -> ort::Result<Vec<u8>> {
    let (_, strings) = value.try_extract_strings()?;
    let mut data = Vec::new();
    for string in strings {
        push_byte_element(&mut data, string.as_bytes()).map_err(ort::Error::wrap)?;
    }
    Ok(data)
}

fn numbers(value: DynValue, length: usize, inputs: &[InputData<'_>], session: &Arc<SharedSessionInner>) -> ort::Result<Bytes> {
    let mut pointer = std::ptr::null_mut();
    // SAFETY: `value` is a tensor of numbers in memory of the CPU; the call only fills in the pointer.
    unsafe { ort::Error::result_from_status((ort::api().GetTensorMutableData)(value.ptr().cast_mut(), &raw mut pointer)) }?;
    if pointer.is_null() {
        return Err(ort::Error::new("a tensor without memory"));
    }
    let address = pointer.expose_provenance();
    // A graph's output that is its input comes back in the request's memory, which does not stay.
    if length < NOT_COPIED || inputs.iter().any(|input| input.overlaps(address, length)) {
        // SAFETY: a tensor of this type and shape has so many bytes; `value` and the inputs keep them during the copy.
        return Ok(Bytes::copy_from_slice(unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), length) }));
    }
    Ok(Bytes::from_owner(Owned { value, address, length, _session: session.clone() }))
}
