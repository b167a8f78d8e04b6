//! An inference request: from one HTTP body to tensors.
//!
//! The body is JSON, or JSON followed by the bytes of the inputs that carry `binary_data_size`, in the order of `inputs`
//! (binary tensor data extension); how long the JSON is then stands in a header. Invariant: a parsed [`InferCall`] has no
//! name twice, and every byte of the body belongs to something.

pub(super) mod draft;

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use plinth_serving::SequenceControl;
use plinth_types::tensor::push_byte_element;
use plinth_types::{Dim, Error, Reason, Shape, Tensor, TensorSpec};

use self::draft::Draft;
pub(super) use self::draft::request_parameters;
use super::HEADER_LENGTH;
use super::parameters::Parameters;
use super::scan::{Fault, Scanner};
use super::shared_memory::{Placement, SharedInput};

/// The most inputs, and the most outputs, of one request.
pub const MAX_TENSORS: usize = 4096;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InferCall {
    /// The client's own name of the request, given back with the answer; empty for none.
    pub id: String,
    /// The inputs.
    pub inputs: Vec<Tensor>,
    /// The inputs that are still in shared memory, each with its place among all inputs, in ascending order.
    pub shared: Vec<(usize, SharedInput)>,
    /// The wished outputs; empty for all.
    pub outputs: Vec<RequestedOutput>,
    /// Whether outputs that say nothing of it come back as binary.
    pub default_binary: bool,
    /// How long the request may wait until it begins.
    pub timeout: Option<Duration>,
    /// Its priority; 0 is the model's default, 1 the highest.
    pub priority: u64,
    /// The sequence that it belongs to.
    pub sequence: Option<SequenceControl>,
    /// The parameters that the protocol does not know.
    pub parameters: Parameters,
}

/// An output that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestedOutput {
    /// Its name.
    pub name: String,
    /// Whether it comes back as binary.
    pub binary: bool,
    /// How many of the largest values to answer as classes instead of the tensor.
    pub classification: Option<u32>,
    /// Where in shared memory it is to be written, instead of into the answer.
    pub place: Option<Placement>,
}

/// The value of the header `Inference-Header-Content-Length`.
///
/// # Errors
/// [`Reason::MalformedRequest`] when it is not one whole number.
pub fn header_length(headers: &HeaderMap) -> Result<Option<usize>, Error> {
    let mut values = headers.get_all(HEADER_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    match (digits.and_then(|text| text.parse().ok()), values.next()) {
        (Some(length), None) => Ok(Some(length)),
        _ => {
            let text = "the header Inference-Header-Content-Length must be the number of bytes of the JSON part of the body";
            Err(Error::new(Reason::MalformedRequest, text).field(HEADER_LENGTH))
        }
    }
}

impl InferCall {
    /// Reads a body whose first `header_length` bytes are JSON; all of it when `None`.
    ///
    /// # Errors
    /// [`Reason::MalformedRequest`], [`Reason::InvalidTensor`], [`Reason::NotRepresentable`], [`Reason::NotImplemented`];
    /// each names the field.
    pub fn parse(body: &Bytes, header_length: Option<usize>) -> Result<Self, Error> {
        let length = header_length.unwrap_or(body.len());
        let json = body.get(..length).ok_or_else(|| {
            let text = format!("Inference-Header-Content-Length is {length}, but the body has only {} bytes", body.len());
            Error::new(Reason::MalformedRequest, text).field(HEADER_LENGTH)
        })?;
        let json = std::str::from_utf8(json).map_err(|e| {
            let text = format!("malformed request: the JSON part is not UTF-8 from byte {} on", e.valid_up_to());
            Error::new(Reason::MalformedRequest, text)
        })?;
        let mut draft = Draft::default();
        draft.read(&mut Scanner::new(json))?;
        Ok(draft.finish(body.slice(length..), header_length.is_some())?)
    }

    /// Reads a body that is the bytes of the model's only input and nothing else (`Inference-Header-Content-Length: 0`).
    /// All outputs come back as binary.
    ///
    /// # Errors
    /// [`Reason::MalformedRequest`] when the model has several inputs or a shape that the length does not decide;
    /// [`Reason::InvalidTensor`] when the length does not fit.
    pub fn parse_raw(body: Bytes, inputs: &[TensorSpec]) -> Result<Self, Error> {
        let [spec] = inputs else {
            let text =
                format!("a raw request (Inference-Header-Content-Length: 0) needs a model with one input, this one has {}", inputs.len());
            return Err(Error::new(Reason::MalformedRequest, text).field(HEADER_LENGTH));
        };
        let input = raw_input(body, spec).map_err(|e| e.under("inputs[0]"))?;
        Ok(Self { inputs: vec![input], default_binary: true, ..Self::default() })
    }

    /// Whether an output comes back as binary.
    #[must_use]
    pub fn is_binary(&self, output: &str) -> bool {
        self.outputs.iter().find(|o| o.name == output).map_or(self.default_binary, |o| o.binary)
    }

    /// The names of the wished outputs; empty for all.
    #[must_use]
    pub fn output_names(&self) -> Vec<String> {
        self.outputs.iter().map(|o| o.name.clone()).collect()
    }
}

fn raw_input(body: Bytes, spec: &TensorSpec) -> Result<Tensor, Fault> {
    let undecided = || {
        let text =
            "a raw request needs an input with at most one dimension of any size, for BYTES with one element; send JSON before the bytes";
        Fault::new(Reason::MalformedRequest, text)
    };
    let mut fixed = 1u64;
    let mut open = 0;
    for dim in spec.shape() {
        match dim {
            Dim::Any => open += 1,
            Dim::Fixed(n) => fixed = fixed.saturating_mul(*n),
        }
    }
    let filled = |size: u64| Shape::new(spec.shape().iter().map(|d| if let Dim::Fixed(n) = d { *n } else { size }).collect());
    let Some(size) = spec.datatype().element_size() else {
        if fixed != 1 {
            return Err(undecided());
        }
        // The body is the one element; the wire form puts its length before it.
        let mut element = Vec::with_capacity(body.len() + 4);
        push_byte_element(&mut element, &body)?;
        return Ok(Tensor::new(spec.name(), spec.datatype(), filled(1)?, element.into())?);
    };
    if open > 1 {
        return Err(undecided());
    }
    let row = fixed.saturating_mul(size as u64);
    let rows = (body.len() as u64).checked_div(row).unwrap_or(0);
    let shape = filled(rows)?;
    let expected = shape.byte_size(spec.datatype())?.unwrap_or(0);
    if expected != body.len() as u64 {
        let wanted = if open == 1 { format!("a multiple of {row}") } else { expected.to_string() };
        return Err(byte_size_mismatch(spec.name(), &wanted, body.len() as u64));
    }
    Ok(Tensor::new(spec.name(), spec.datatype(), shape, body)?)
}

pub(super) fn byte_size_mismatch(name: &str, expected: &str, actual: u64) -> Fault {
    let name: String = name.chars().take(64).collect();
    Fault::new(Reason::InvalidTensor, format!("input byte size mismatch for input '{name}': expected {expected} bytes, got {actual}"))
}

#[cfg(test)]
mod tests;
