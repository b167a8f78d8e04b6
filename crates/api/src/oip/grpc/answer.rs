//! The answer to an inference: `ModelInferResponse`, alone or in the wrapper of a stream.
//!
//! Invariants: there is one entry of `raw_output_contents` for each output, in order, empty for one that was placed in shared
//! memory; the bytes of a large output are the tensor's own, a piece by itself, never copied. Fields of a protobuf message
//! that are sent one after another are the message, so the pieces are.

use bytes::Bytes;
use plinth_net::messages::{PREFIX, prefix};
use plinth_serving::{SequenceControl, SequenceId};
use plinth_types::{Error, Parameter, Parameters, Result, Tensor};

use super::wire::{put_key, put_text, put_varint, varint_len};
use crate::oip::error::text;
use crate::oip::request::InferCall;
use crate::oip::shared_memory::Placement;

/// Outputs up to this size are copied behind the head: a frame of their own would cost more.
const INLINE: usize = 2 << 10;

/// Room before the message for the prefix and the wrapper's field.
const ROOM: usize = PREFIX + 1 + 10;

/// What is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered<'a> {
    pub model: &'a str,
    pub version: &'a str,
    pub call: &'a InferCall,
    pub outputs: &'a [Tensor],
}

/// The message with its prefix, in pieces.
pub(super) fn unary(answered: &Answered<'_>) -> Result<Vec<Bytes>> {
    Message::of(answered, false).finish(None)
}

/// The same as a message of a stream: each request has one answer, which says that it is the last.
pub(super) fn streamed(answered: &Answered<'_>) -> Result<Vec<Bytes>> {
    Message::of(answered, true).finish(Some(2))
}

/// The message of a stream that says why a request failed, and which.
pub(super) fn failed(error: &Error, id: &str) -> Result<Bytes> {
    let mut inner = Vec::new();
    put_text(&mut inner, 3, id);
    let mut out = vec![0; PREFIX];
    put_text(&mut out, 1, &text(error));
    if !inner.is_empty() {
        put_key(&mut out, 2, inner.len());
        out.extend_from_slice(&inner);
    }
    let length = out.len() - PREFIX;
    out[..PREFIX].copy_from_slice(&prefix(false, length)?);
    Ok(out.into())
}

/// A message that is being written: the first piece with room before it, and the others.
struct Message {
    first: Option<Vec<u8>>,
    pieces: Vec<Bytes>,
    buffer: Vec<u8>,
}

impl Message {
    fn of(answered: &Answered<'_>, streamed: bool) -> Self {
        let outputs = answered.outputs;
        let small: usize = outputs.iter().map(|o| 64 + o.name().len() + if o.data().len() <= INLINE { o.data().len() } else { 0 }).sum();
        let mut buffer = Vec::with_capacity(ROOM + 64 + answered.call.id.len() + small);
        buffer.resize(ROOM, 0);
        let mut message = Self { first: None, pieces: Vec::new(), buffer };
        message.head(answered, streamed);
        for output in outputs {
            match place(answered.call, output) {
                Some(_) => message.raw(&Bytes::new()),
                None => message.raw(output.data()),
            }
        }
        message
    }

    fn head(&mut self, answered: &Answered<'_>, streamed: bool) {
        let out = &mut self.buffer;
        put_text(out, 1, answered.model);
        put_text(out, 2, answered.version);
        put_text(out, 3, &answered.call.id);
        let mut parameters = answered.call.sequence.as_ref().map(of_sequence).unwrap_or_default();
        if streamed {
            parameters.insert("triton_final_response".to_owned(), Parameter::Bool(true));
        }
        put_parameters(out, 4, &parameters);
        for output in answered.outputs {
            put_output(out, answered.call, output);
        }
    }

    fn raw(&mut self, data: &Bytes) {
        put_key(&mut self.buffer, 6, data.len());
        if data.len() <= INLINE {
            self.buffer.extend_from_slice(data);
            return;
        }
        let head = std::mem::take(&mut self.buffer);
        match self.first {
            None => self.first = Some(head),
            Some(_) => self.pieces.push(head.into()),
        }
        self.pieces.push(data.clone());
    }

    /// Writes the prefix, and before the message the field of the wrapper that holds it.
    fn finish(self, wrapper: Option<u8>) -> Result<Vec<Bytes>> {
        let Self { first, mut pieces, buffer } = self;
        let mut first = match first {
            None => buffer,
            Some(first) => {
                if !buffer.is_empty() {
                    pieces.push(buffer.into());
                }
                first
            }
        };
        let inner = first.len() - ROOM + pieces.iter().map(Bytes::len).sum::<usize>();
        let mut field = Vec::new();
        if let Some(number) = wrapper {
            put_key(&mut field, number, inner);
        }
        let start = ROOM - field.len() - PREFIX;
        first[start..start + PREFIX].copy_from_slice(&prefix(false, inner + field.len())?);
        first[start + PREFIX..ROOM].copy_from_slice(&field);
        pieces.insert(0, Bytes::from(first).slice(start..));
        Ok(pieces)
    }
}

/// Where in shared memory an output was placed.
fn place<'a>(call: &'a InferCall, output: &Tensor) -> Option<&'a Placement> {
    call.outputs.iter().find(|wish| wish.place.is_some() && wish.name == output.name())?.place.as_ref()
}

fn put_output(out: &mut Vec<u8>, call: &InferCall, output: &Tensor) {
    let mut parameters = Vec::new();
    if let Some(place) = place(call, output) {
        put_parameters(&mut parameters, 4, &place.parameters(output.data().len() as u64));
    }
    let dims = output.shape().dims();
    let dims_length: usize = dims.iter().map(|d| varint_len(*d)).sum();
    let text_length = |text: &str| 1 + varint_len(text.len() as u64) + text.len();
    let shape_length = if dims.is_empty() { 0 } else { 1 + varint_len(dims_length as u64) + dims_length };
    put_key(out, 5, text_length(output.name()) + text_length(output.datatype().name()) + shape_length + parameters.len());
    put_text(out, 1, output.name());
    put_text(out, 2, output.datatype().name());
    if !dims.is_empty() {
        put_key(out, 3, dims_length);
        dims.iter().for_each(|d| put_varint(out, *d));
    }
    out.extend_from_slice(&parameters);
}

/// Says to which sequence an answer belongs.
fn of_sequence(sequence: &SequenceControl) -> Parameters {
    let id = match &sequence.id {
        SequenceId::Number(number) => Parameter::Uint(*number),
        SequenceId::Text(text) => Parameter::Text(text.clone()),
    };
    let pairs = [("sequence_id", id), ("sequence_start", Parameter::Bool(sequence.start)), ("sequence_end", Parameter::Bool(sequence.end))];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Writes a map of parameters.
fn put_parameters(out: &mut Vec<u8>, field: u8, parameters: &Parameters) {
    for (name, value) in parameters {
        let mut choice = Vec::new();
        let mut number = |field: u8, number: u64| {
            choice.push(field << 3);
            put_varint(&mut choice, number);
        };
        match value {
            Parameter::Bool(value) => number(1, u64::from(*value)),
            // As clients read them: what fits an int64 is one.
            Parameter::Int(value) => number(2, value.cast_unsigned()),
            Parameter::Uint(value) if i64::try_from(*value).is_ok() => number(2, *value),
            Parameter::Uint(value) => number(5, *value),
            Parameter::Double(value) => {
                choice.push(4 << 3 | 1);
                choice.extend_from_slice(&value.to_le_bytes());
            }
            Parameter::Text(value) => {
                put_key(&mut choice, 3, value.len());
                choice.extend_from_slice(value.as_bytes());
            }
        }
        let mut entry = Vec::with_capacity(name.len() + choice.len() + 8);
        put_text(&mut entry, 1, name);
        put_key(&mut entry, 2, choice.len());
        entry.extend_from_slice(&choice);
        put_key(out, field, entry.len());
        out.extend_from_slice(&entry);
    }
}
