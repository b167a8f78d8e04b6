//! Tensors in and out of ONNX Runtime.
//!
//! Invariants: the library gets memory that is aligned for the element type, as long as the shape says, and alive until
//! the call returns; what it gives back is copied, or held by an owner for as long as anybody looks at it.
#![allow(unsafe_code, reason = "tensors cross into the library as pointers; its typed interface does not fit elements known at run time")]

use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;
use ort::memory::MemoryInfo;
use ort::session::SharedSessionInner;
use ort::sys::{ONNXTensorElementDataType as Element, OrtValue};
use ort::value::TensorElementType;
use ort::{AsPointer, Error};
use plinth_types::tensor::push_byte_element;
use plinth_types::{DataType, Shape, Tensor};

use super::BackendError;
use super::texts::run_error;
use crate::backend::OutputPlace;

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

/// The library's name of our type.
const fn element(datatype: DataType) -> Element {
    match datatype {
        DataType::Bool => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DataType::Uint8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DataType::Uint16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DataType::Uint32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DataType::Uint64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DataType::Int8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DataType::Int16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DataType::Int32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DataType::Int64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DataType::Fp16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DataType::Bf16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DataType::Fp32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DataType::Fp64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DataType::Bytes => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

/// A value of the library's, released when this goes.
pub(super) struct Value(NonNull<OrtValue>);

// SAFETY: a value may be used by any thread, and here by one at a time.
unsafe impl Send for Value {}
// SAFETY: a shared value is only read.
unsafe impl Sync for Value {}

impl Value {
    /// Takes a value over.
    ///
    /// # Safety
    /// `pointer` is null or a value that nobody else releases.
    pub(super) unsafe fn own(pointer: *mut OrtValue) -> Option<Self> {
        NonNull::new(pointer).map(Self)
    }

    pub(super) const fn as_ptr(&self) -> *mut OrtValue {
        self.0.as_ptr()
    }

    /// A view of memory.
    ///
    /// # Safety
    /// `length` bytes at `data`, aligned for the type and as many as type and shape say, outlive the value.
    pub(super) unsafe fn view(
        memory: &MemoryInfo<'_>,
        data: *mut u8,
        length: usize,
        dims: &[i64],
        datatype: DataType,
    ) -> ort::Result<Self> {
        let mut value = std::ptr::null_mut();
        // SAFETY: the shape is read during the call only; the rest is the caller's promise.
        unsafe {
            Error::result_from_status((ort::api().CreateTensorWithDataAsOrtValue)(
                memory.ptr(),
                data.cast(),
                length,
                dims.as_ptr(),
                dims.len(),
                element(datatype),
                &raw mut value,
            ))?;
            Self::own(value).ok_or_else(|| Error::new("a tensor that is none"))
        }
    }

    fn strings(strings: &[&str], dims: &[i64]) -> ort::Result<Self> {
        let (mut allocator, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the default allocator is the library's own and stays; the shape is copied during the call. Each buffer is the
        // library's, as long as was asked for, and not used after the next call. (Strings that end at a NUL could not hold one.)
        unsafe {
            let api = ort::api();
            Error::result_from_status((api.GetAllocatorWithDefaultOptions)(&raw mut allocator))?;
            let created = (api.CreateTensorAsOrtValue)(allocator, dims.as_ptr(), dims.len(), element(DataType::Bytes), &raw mut value);
            Error::result_from_status(created)?;
            let value = Self::own(value).ok_or_else(|| Error::new("a tensor that is none"))?;
            for (index, text) in strings.iter().enumerate() {
                let mut buffer = std::ptr::null_mut();
                let resized = (api.GetResizedStringTensorElementBuffer)(value.as_ptr(), index, text.len(), &raw mut buffer);
                Error::result_from_status(resized)?;
                let buffer = NonNull::new(buffer).ok_or_else(|| Error::new("a string without memory"))?;
                std::ptr::copy_nonoverlapping(text.as_ptr(), buffer.as_ptr().cast(), text.len());
            }
            Ok(value)
        }
    }

    /// The type of a tensor's elements and its dimensions.
    fn shape(&self) -> ort::Result<(Element, Vec<i64>)> {
        let mut info = std::ptr::null_mut();
        let mut kind = Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        let (mut rank, mut dims) = (0, Vec::new());
        // SAFETY: the description is released below, whatever the calls in between say; each fills in what it is given.
        unsafe {
            let api = ort::api();
            Error::result_from_status((api.GetTensorTypeAndShape)(self.as_ptr(), &raw mut info))?;
            let read = Error::result_from_status((api.GetTensorElementType)(info, &raw mut kind))
                .and_then(|()| Error::result_from_status((api.GetDimensionsCount)(info, &raw mut rank)))
                .and_then(|()| {
                    dims.resize(rank, 0);
                    Error::result_from_status((api.GetDimensions)(info, dims.as_mut_ptr(), rank))
                });
            (api.ReleaseTensorTypeAndShapeInfo)(info);
            read?;
        }
        Ok((kind, dims))
    }

    fn data(&self) -> ort::Result<*mut u8> {
        let mut pointer = std::ptr::null_mut();
        // SAFETY: the value is a tensor of numbers in memory of the CPU; the call only fills in the pointer.
        unsafe { Error::result_from_status((ort::api().GetTensorMutableData)(self.as_ptr(), &raw mut pointer)) }?;
        if pointer.is_null() { Err(Error::new("a tensor without memory")) } else { Ok(pointer.cast()) }
    }

    fn texts(&self, elements: usize) -> ort::Result<Vec<u8>> {
        let mut length = 0;
        // SAFETY: as above; the buffers below are as long as is said.
        unsafe { Error::result_from_status((ort::api().GetStringTensorDataLength)(self.as_ptr(), &raw mut length)) }?;
        let (mut all, mut starts) = (vec![0u8; length], vec![0usize; elements]);
        // SAFETY: as above.
        unsafe {
            let read = (ort::api().GetStringTensorContent)(self.as_ptr(), all.as_mut_ptr().cast(), length, starts.as_mut_ptr(), elements);
            Error::result_from_status(read)?;
        }
        let mut data = Vec::with_capacity(length + 4 * elements);
        for (i, start) in starts.iter().enumerate() {
            let end = starts.get(i + 1).copied().unwrap_or(length);
            let text = all.get(*start..end).ok_or_else(|| Error::new("texts that do not add up"))?;
            push_byte_element(&mut data, text).map_err(Error::wrap)?;
        }
        Ok(data)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: the value is this one's own.
        unsafe { (ort::api().ReleaseValue)(self.as_ptr()) }
    }
}

/// Dimensions as the library counts them.
pub(super) fn dims(shape: &Shape) -> Vec<i64> {
    shape.dims().iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX)).collect()
}

/// Where an input's elements lie during a call.
pub(super) enum InputData<'a> {
    /// In the request itself.
    InPlace(&'a [u8]),
    /// Copied, because the request's bytes were not aligned.
    Aligned { words: Vec<u64>, length: usize },
    /// Strings, which the library copies.
    Strings(Vec<&'a str>),
}

impl<'a> InputData<'a> {
    pub(super) fn of(tensor: &'a Tensor) -> Result<Self, BackendError> {
        let data: &[u8] = tensor.data();
        let bad = |what: &str| BackendError::Input(format!("input '{}': {what}", tensor.name()));
        match tensor.datatype() {
            DataType::Bytes => {
                let text = |element| std::str::from_utf8(element).map_err(|_| bad("an ONNX string is UTF-8, and an element is not"));
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

    /// The library's view of the tensor whose data this is.
    ///
    /// # Safety
    /// The value is released before `self` and the tensor are.
    pub(super) unsafe fn value(&self, tensor: &Tensor, memory: &MemoryInfo<'_>) -> ort::Result<Value> {
        let dims = dims(tensor.shape());
        if let Self::Strings(strings) = self {
            return Value::strings(strings, &dims);
        }
        let (data, length) = self.place();
        // SAFETY: the data is aligned for the element (checked in `of`), as long as type and shape say (an invariant of
        // `Tensor`), and outlives the value (the caller's promise). Inputs are only read.
        unsafe { Value::view(memory, data.cast_mut(), length, &dims, tensor.datatype()) }
    }
}

/// Memory of the library that outlives the call it came from.
struct Owned {
    value: Value,
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

/// An output as our tensor. Its bytes go to `place` when there is room.
pub(super) fn output(
    (name, datatype): (&str, DataType),
    value: Value,
    inputs: &[InputData<'_>],
    session: &Arc<SharedSessionInner>,
    place: &mut OutputPlace,
) -> Result<Tensor, BackendError> {
    let bad = |what: &str| BackendError::Execution(format!("the model's output '{name}' {what}"));
    let (kind, dims) = value.shape().map_err(|error| run_error(&error))?;
    if kind != element(datatype) {
        return Err(bad("has elements of another type than the model says"));
    }
    let dims = dims.iter().map(|dim| u64::try_from(*dim)).collect::<Result<Vec<_>, _>>().map_err(|_| bad("has a negative dimension"))?;
    let shape = Shape::new(dims).map_err(|error| bad(&error.to_string()))?;
    let length = shape.byte_size(datatype).map_err(|error| bad(&error.to_string()))?;
    let data = match length.map(usize::try_from) {
        None => {
            let elements = usize::try_from(shape.elements()).map_err(|_| bad("is larger than memory"))?;
            value.texts(elements).map_err(|error| run_error(&error))?.into()
        }
        Some(Ok(0)) => Bytes::new(),
        Some(Ok(length)) => numbers(value, length, inputs, session, place).map_err(|error| run_error(&error))?,
        Some(Err(_)) => return Err(bad("is larger than memory")),
    };
    Tensor::new(name, datatype, shape, data).map_err(|error| bad(&error.to_string()))
}

fn numbers(
    value: Value,
    length: usize,
    inputs: &[InputData<'_>],
    session: &Arc<SharedSessionInner>,
    place: &mut OutputPlace,
) -> ort::Result<Bytes> {
    let pointer = value.data()?;
    let address = pointer.expose_provenance();
    // SAFETY: a tensor of this type and shape has so many bytes; `value` and the inputs keep them while this is used.
    let bytes = unsafe { std::slice::from_raw_parts(pointer.cast_const(), length) };
    if let Some(slot) = place.slot(length) {
        return Ok(slot.fill(bytes));
    }
    // A graph's output that is its input comes back in the request's memory, which does not stay.
    if length < NOT_COPIED || inputs.iter().any(|input| input.overlaps(address, length)) {
        return Ok(Bytes::copy_from_slice(bytes));
    }
    Ok(Bytes::from_owner(Owned { value, address, length, _session: session.clone() }))
}
