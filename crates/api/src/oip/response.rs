//! An inference answer: from tensors to one HTTP body.
//!
//! Outputs stand in the JSON, flat, or after it as their bytes (binary tensor data extension), each as the request asked.
//! Invariant: the bytes of a binary output are the tensor's own, not a copy; and JSON never carries a value that would come
//! back as another one: NaN, infinity, half floats and bytes that are not UTF-8 are refused with the advice to ask for
//! binary.

use std::io;

use bytes::Bytes;
use plinth_serving::{SequenceControl, SequenceId};
use plinth_types::{DataType, Error, Reason, Tensor};
use serde_json::ser::{CompactFormatter, Formatter};

use super::classification;
use super::request::InferCall;

/// What is answered.
#[derive(Debug, Clone, Copy)]
pub struct InferResult<'a> {
    /// The model's name.
    pub model_name: &'a str,
    /// The version that answered.
    pub model_version: &'a str,
    /// The outputs, in the order in which they were asked for.
    pub outputs: &'a [Tensor],
    /// Whether the first dimension of the outputs is the batch.
    pub batched: bool,
}

/// Gives the labels of an output for the classification extension, if it has any.
pub type Labels<'a> = &'a dyn Fn(&str) -> Option<&'a [String]>;

/// The body of an answer, in pieces to be sent one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferReply {
    /// The value of `Inference-Header-Content-Length`; `None` when the body is all JSON.
    pub header_length: Option<usize>,
    /// The JSON, then the bytes of each binary output.
    pub pieces: Vec<Bytes>,
}

impl InferReply {
    /// The content type that belongs to the body.
    #[must_use]
    pub const fn content_type(&self) -> &'static str {
        if self.header_length.is_some() { "application/octet-stream" } else { "application/json" }
    }

    /// The body's length in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Writes the answer to `call`.
    ///
    /// # Errors
    /// [`Reason::NotRepresentable`] naming the output that JSON cannot carry; [`Reason::InvalidTensor`] for a
    /// classification of something that is not a number.
    pub fn render(result: InferResult<'_>, call: &InferCall, labels: Labels<'_>) -> Result<Self, Error> {
        let mut writer = Writer { json: Vec::with_capacity(256), binary: Vec::new(), any_binary: false };
        writer.head(&result, call).map_err(broken)?;
        for (i, output) in result.outputs.iter().enumerate() {
            let wish = call.outputs.iter().find(|o| o.name == output.name());
            let binary = call.is_binary(output.name());
            if i > 0 {
                writer.json.push(b',');
            }
            let placed = wish.is_some_and(|w| w.place.is_some());
            let classes = wish.and_then(|w| w.classification);
            let outcome = match classes {
                _ if placed => writer.placed(output),
                Some(k) => classification::classify(output, k, result.batched, labels(output.name()))
                    .and_then(|classes| writer.output(&classes, binary)),
                None => writer.output(output, binary),
            };
            outcome.map_err(|e| e.field(format!("outputs[{i}]")))?;
        }
        writer.json.extend_from_slice(b"]}");
        let header_length = writer.any_binary.then_some(writer.json.len());
        let mut pieces = Vec::with_capacity(1 + writer.binary.len());
        pieces.push(Bytes::from(writer.json));
        pieces.append(&mut writer.binary);
        Ok(Self { header_length, pieces })
    }
}

/// Writing into memory cannot fail; if it does, it is ours.
fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal("writing an inference answer").source(error)
}

struct Writer {
    json: Vec<u8>,
    binary: Vec<Bytes>,
    any_binary: bool,
}

impl Writer {
    fn head(&mut self, result: &InferResult<'_>, call: &InferCall) -> Result<(), serde_json::Error> {
        self.json.extend_from_slice(b"{");
        if !call.id.is_empty() {
            self.json.extend_from_slice(b"\"id\":");
            serde_json::to_writer(&mut self.json, &call.id)?;
            self.json.push(b',');
        }
        self.json.extend_from_slice(b"\"model_name\":");
        serde_json::to_writer(&mut self.json, result.model_name)?;
        self.json.extend_from_slice(b",\"model_version\":");
        serde_json::to_writer(&mut self.json, result.model_version)?;
        if let Some(sequence) = &call.sequence {
            self.sequence(sequence)?;
        }
        self.json.extend_from_slice(b",\"outputs\":[");
        Ok(())
    }

    /// Says to which sequence the answer belongs.
    fn sequence(&mut self, sequence: &SequenceControl) -> Result<(), serde_json::Error> {
        self.json.extend_from_slice(b",\"parameters\":{\"sequence_id\":");
        match &sequence.id {
            SequenceId::Number(n) => serde_json::to_writer(&mut self.json, n)?,
            SequenceId::Text(text) => serde_json::to_writer(&mut self.json, text)?,
        }
        self.json.extend_from_slice(b",\"sequence_start\":");
        serde_json::to_writer(&mut self.json, &sequence.start)?;
        self.json.extend_from_slice(b",\"sequence_end\":");
        serde_json::to_writer(&mut self.json, &sequence.end)?;
        self.json.push(b'}');
        Ok(())
    }

    /// An output that was written to shared memory. It has no parameters, as with Triton: its C++ client takes an output
    /// with parameters for a binary one, and fails when they do not say how long it is.
    fn placed(&mut self, tensor: &Tensor) -> Result<(), Error> {
        self.description(tensor)?;
        self.json.push(b'}');
        Ok(())
    }

    /// What stands before the data.
    fn description(&mut self, tensor: &Tensor) -> Result<(), Error> {
        self.json.extend_from_slice(b"{\"name\":");
        serde_json::to_writer(&mut self.json, tensor.name()).map_err(broken)?;
        self.json.extend_from_slice(b",\"datatype\":\"");
        self.json.extend_from_slice(tensor.datatype().name().as_bytes());
        self.json.extend_from_slice(b"\",\"shape\":");
        serde_json::to_writer(&mut self.json, tensor.shape()).map_err(broken)
    }

    fn output(&mut self, tensor: &Tensor, binary: bool) -> Result<(), Error> {
        self.description(tensor)?;
        if binary {
            self.any_binary = true;
            self.json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            CompactFormatter.write_u64(&mut self.json, tensor.data().len() as u64).map_err(broken)?;
            self.json.extend_from_slice(b"}}");
            if !tensor.data().is_empty() {
                self.binary.push(tensor.data().clone());
            }
            return Ok(());
        }
        self.json.extend_from_slice(b",\"data\":[");
        write_elements(&mut self.json, tensor)?;
        self.json.extend_from_slice(b"]}");
        Ok(())
    }
}

/// Writes the elements of a tensor as JSON, with commas between them.
///
/// # Errors
/// [`Reason::NotRepresentable`] when JSON cannot carry one.
pub(super) fn write_elements(out: &mut Vec<u8>, tensor: &Tensor) -> Result<(), Error> {
    let data = tensor.data();
    let mut fmt = CompactFormatter;
    macro_rules! numbers {
        ($kind:ty, $write:ident) => {
            elements(out, data, |out, bytes| fmt.$write(out, <$kind>::from_le_bytes(bytes)))
        };
    }
    let odd = match tensor.datatype() {
        DataType::Bool => elements(out, data, |out, [byte]| fmt.write_bool(out, byte != 0)),
        DataType::Uint8 => numbers!(u8, write_u8),
        DataType::Uint16 => numbers!(u16, write_u16),
        DataType::Uint32 => numbers!(u32, write_u32),
        DataType::Uint64 => numbers!(u64, write_u64),
        DataType::Int8 => numbers!(i8, write_i8),
        DataType::Int16 => numbers!(i16, write_i16),
        DataType::Int32 => numbers!(i32, write_i32),
        DataType::Int64 => numbers!(i64, write_i64),
        DataType::Fp32 => floats(out, data, f32::from_le_bytes, f32::is_finite, |out, x| fmt.write_f32(out, x)),
        DataType::Fp64 => floats(out, data, f64::from_le_bytes, f64::is_finite, |out, x| fmt.write_f64(out, x)),
        DataType::Bytes => texts(out, tensor),
        DataType::Fp16 | DataType::Bf16 => return Err(not_json(tensor, &format!("is {}", tensor.datatype()))),
    };
    match odd.map_err(broken)? {
        None => Ok(()),
        Some(index) if tensor.datatype() == DataType::Bytes => Err(not_json(tensor, &format!("is not UTF-8 at element {index}"))),
        Some(index) => Err(not_json(tensor, &format!("is NaN or infinite at element {index}"))),
    }
}

fn not_json(tensor: &Tensor, what: &str) -> Error {
    let text = format!("output '{}' {what}, which JSON cannot carry; ask for it with the parameter binary_data: true", tensor.name());
    Error::new(Reason::NotRepresentable, text)
}

/// The index of the first element that JSON cannot carry.
type Odd = Option<usize>;

/// Writes elements of `N` bytes with commas between them.
fn elements<const N: usize>(
    out: &mut Vec<u8>,
    data: &[u8],
    mut write: impl FnMut(&mut Vec<u8>, [u8; N]) -> io::Result<()>,
) -> io::Result<Odd> {
    let (chunks, _) = data.as_chunks::<N>();
    out.reserve(chunks.len() * (N + 2));
    for (i, chunk) in chunks.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, *chunk)?;
    }
    Ok(None)
}

fn floats<const N: usize, T: Copy>(
    out: &mut Vec<u8>,
    data: &[u8],
    read: impl Fn([u8; N]) -> T,
    finite: impl Fn(T) -> bool,
    mut write: impl FnMut(&mut Vec<u8>, T) -> io::Result<()>,
) -> io::Result<Odd> {
    let odd = data.as_chunks::<N>().0.iter().position(|chunk| !finite(read(*chunk)));
    if odd.is_some() {
        return Ok(odd);
    }
    elements(out, data, |out, chunk| write(out, read(chunk)))
}

fn texts(out: &mut Vec<u8>, tensor: &Tensor) -> io::Result<Odd> {
    for (i, element) in tensor.byte_elements().enumerate() {
        let Ok(text) = std::str::from_utf8(element) else { return Ok(Some(i)) };
        if i > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, text)?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
