//! The JSON part of an inference request, read piece by piece, and the bytes behind it given to their inputs.
//!
//! Invariant: `data` is read at once into the tensor's bytes when type and shape stand before it, as all known clients write
//! it, and in a second pass over its text otherwise; it is never kept as a tree.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use plinth_serving::{SequenceControl, SequenceId};
use plinth_types::tensor::MAX_RANK;
use plinth_types::{DataType, Error, Reason, Shape, Tensor};

use super::{InferCall, MAX_TENSORS, RequestedOutput, byte_size_mismatch};
use crate::oip::data;
use crate::oip::parameters::{self, Known, Parameter, Parameters};
use crate::oip::scan::{Fault, Scanner};
use crate::oip::shared_memory::{Placement, SharedInput};

/// The longest text that names a sequence, in bytes.
const MAX_SEQUENCE_ID: usize = 128;

/// What was read so far.
#[derive(Default)]
pub(super) struct Draft {
    id: Option<String>,
    inputs: Option<Vec<Input>>,
    outputs: Option<Vec<Output>>,
    parameters: Option<Parameters>,
}

struct Input {
    name: String,
    datatype: DataType,
    shape: Shape,
    content: Content,
}

enum Content {
    /// In JSON, read already.
    Here(Bytes),
    /// So many bytes after the JSON.
    After(u64),
    /// In shared memory.
    Shared(Placement),
}

struct Output {
    name: String,
    binary: Option<bool>,
    classification: Option<u32>,
    place: Option<Placement>,
}

/// Puts what was read into its place, which must be empty.
fn set<T>(place: &mut Option<T>, value: T) -> Result<(), Fault> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Fault::new(Reason::MalformedRequest, "malformed request: the member is given twice")),
    }
}

impl Draft {
    pub(super) fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        scanner.object(|s, key| {
            let outcome = match key {
                "id" if s.null() => Ok(()),
                "id" => s.string().and_then(|id| set(&mut self.id, id.into_owned())),
                "parameters" => parameters::read(s).and_then(|p| set(&mut self.parameters, p)),
                "inputs" => read_inputs(s).and_then(|inputs| set(&mut self.inputs, inputs)),
                "outputs" if s.null() => Ok(()),
                "outputs" => read_outputs(s).and_then(|outputs| set(&mut self.outputs, outputs)),
                _ => return s.skip(),
            };
            outcome.map_err(|e| e.under(key))
        })?;
        scanner.end()
    }

    /// Cuts the bytes after the JSON into the inputs that they belong to, and reads the known parameters.
    pub(super) fn finish(self, mut rest: Bytes, has_header: bool) -> Result<InferCall, Fault> {
        let malformed = |text: &str| Fault::new(Reason::MalformedRequest, text);
        let drafts = self.inputs.ok_or_else(|| malformed("malformed request: it has no inputs").under("inputs"))?;
        let mut inputs = Vec::with_capacity(drafts.len());
        let mut shared = Vec::new();
        for (i, draft) in drafts.into_iter().enumerate() {
            if let Content::Shared(place) = draft.content {
                shared.push((i, SharedInput { name: draft.name, datatype: draft.datatype, shape: draft.shape, place }));
                continue;
            }
            let tensor = draft.into_tensor(&mut rest, has_header).map_err(|e| e.under(format_args!("inputs[{i}]")))?;
            inputs.push(tensor);
        }
        if !rest.is_empty() {
            let text = format!("the body has {} bytes more than the inputs announce with binary_data_size", rest.len());
            return Err(malformed(&text));
        }
        let mut parameters = self.parameters.unwrap_or_default();
        let known = request_parameters(&mut parameters).map_err(|e| e.under("parameters"))?;
        let outputs = self.outputs.unwrap_or_default().into_iter().map(|output| RequestedOutput {
            name: output.name,
            binary: output.binary.unwrap_or(known.default_binary),
            classification: output.classification,
            place: output.place,
        });
        Ok(InferCall {
            id: self.id.unwrap_or_default(),
            inputs,
            shared,
            outputs: outputs.collect(),
            default_binary: known.default_binary,
            timeout: known.timeout,
            priority: known.priority,
            sequence: known.sequence,
            parameters,
        })
    }
}

/// The parameters of a request that mean something to the protocol.
pub(in crate::oip) struct RequestParameters {
    pub default_binary: bool,
    pub timeout: Option<Duration>,
    pub priority: u64,
    pub sequence: Option<SequenceControl>,
}

/// Takes them out of the parameters; the others are the client's own.
pub(in crate::oip) fn request_parameters(parameters: &mut Parameters) -> Result<RequestParameters, Fault> {
    let mut known = Known(parameters);
    let default_binary = known.bool("binary_data_output")?.unwrap_or(false);
    let timeout = known.uint("timeout")?.filter(|t| *t > 0).map(Duration::from_micros);
    let priority = known.uint("priority")?.unwrap_or(0);
    let id = known.take("sequence_id", "a whole number from 0 on or a string", |p| match p {
        // 0 and the empty text are no sequence. Whether the model needs one is for serving to say.
        Parameter::Uint(n) => Some((n != 0).then_some(SequenceId::Number(n))),
        Parameter::Text(text) => Some((!text.is_empty()).then_some(SequenceId::Text(text))),
        _ => None,
    })?;
    let (start, end) = (known.bool("sequence_start")?.unwrap_or(false), known.bool("sequence_end")?.unwrap_or(false));
    if let Some(Some(SequenceId::Text(text))) = &id
        && text.len() > MAX_SEQUENCE_ID
    {
        let text = format!("a sequence_id has at most {MAX_SEQUENCE_ID} bytes");
        return Err(Fault::new(Reason::MalformedRequest, text).under("sequence_id"));
    }
    let sequence = id.flatten().map(|id| SequenceControl { id, start, end });
    if let Some(name) = parameters.keys().find(|name| *name == "headers" || name.starts_with("triton_")) {
        let shown: String = name.chars().take(64).collect();
        let text = format!("the parameter '{shown}' is reserved; choose another name");
        return Err(Fault::new(Reason::MalformedRequest, text).under(shown));
    }
    Ok(RequestParameters { default_binary, timeout, priority, sequence })
}

/// A name from outside, fit for an error's text.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn too_many(what: &str) -> Fault {
    Fault::new(Reason::MalformedRequest, format!("a request has at most {MAX_TENSORS} {what}"))
}

fn read_inputs(scanner: &mut Scanner<'_>) -> Result<Vec<Input>, Fault> {
    let mut inputs = Vec::new();
    let mut names = HashSet::new();
    scanner.array(|s, i| {
        if i >= MAX_TENSORS {
            return Err(too_many("inputs"));
        }
        let input = read_input(s)?;
        if !names.insert(input.name.clone()) {
            return Err(Fault::new(Reason::InvalidTensor, format!("the input '{}' is given twice", shown(&input.name))).under("name"));
        }
        inputs.push(input);
        Ok(())
    })?;
    Ok(inputs)
}

/// `data` as it was met: read at once when type and shape stood before it, as all known clients write it.
enum Met<'a> {
    Read(Bytes),
    Later(Scanner<'a>),
}

fn read_input<'a>(scanner: &mut Scanner<'a>) -> Result<Input, Fault> {
    let (mut name, mut shape, mut datatype, mut parameters, mut data) = (None, None, None, None, None);
    scanner.object(|s, key| {
        let outcome = match key {
            "name" => s.string().and_then(|n| set(&mut name, n.into_owned())),
            "shape" => read_shape(s).and_then(|v| set(&mut shape, v)),
            "datatype" => read_datatype(s).and_then(|v| set(&mut datatype, v)),
            "parameters" => parameters::read(s).and_then(|p| set(&mut parameters, p)),
            "data" if s.null() => Ok(()),
            "data" => match (&shape, datatype) {
                (Some(shape), Some(datatype)) => data::read(s, datatype, shape).and_then(|bytes| set(&mut data, Met::Read(bytes))),
                _ => {
                    let here = s.clone();
                    s.skip().and_then(|()| set(&mut data, Met::Later(here)))
                }
            },
            _ => return s.skip(),
        };
        outcome.map_err(|e| e.under(key))
    })?;
    let missing = |what: &str| Fault::new(Reason::MalformedRequest, format!("malformed request: the input has no {what}")).under(what);
    let name = name.ok_or_else(|| missing("name"))?;
    let datatype = datatype.ok_or_else(|| missing("datatype"))?;
    let shape = shape.ok_or_else(|| missing("shape"))?;
    let data = match data {
        Some(Met::Later(mut there)) => Some(data::read(&mut there, datatype, &shape).map_err(|e| e.under("data"))?),
        Some(Met::Read(bytes)) => Some(bytes),
        None => None,
    };
    let mut parameters = parameters.unwrap_or_default();
    let mut known = Known(&mut parameters);
    let size = known.uint("binary_data_size").map_err(|e| e.under("parameters"))?;
    let content = match (data, size, placement(&mut parameters)?) {
        (Some(bytes), None, None) => Content::Here(bytes),
        (None, Some(size), None) => Content::After(size),
        (None, None, Some(place)) => Content::Shared(place),
        (None, None, None) => return Err(missing("data")),
        _ => {
            let text = "the input has more than one of 'data', 'binary_data_size' and 'shared_memory_region'; send one of them";
            return Err(Fault::new(Reason::MalformedRequest, text).under("data"));
        }
    };
    Ok(Input { name, datatype, shape, content })
}

/// Where in shared memory the tensor with these parameters lies, if it does.
fn placement(parameters: &mut Parameters) -> Result<Option<Placement>, Fault> {
    let fault = |e: Error| Fault::new(e.reason(), e.public_text()).under(e.field_name().unwrap_or_default()).under("parameters");
    if Placement::is_in(parameters) { Placement::take(parameters).map_err(fault) } else { Ok(None) }
}

fn read_shape(scanner: &mut Scanner<'_>) -> Result<Shape, Fault> {
    let mut dims = Vec::new();
    scanner.array(|s, i| {
        if i >= MAX_RANK {
            return Err(Fault::new(Reason::InvalidTensor, format!("a tensor has at most {MAX_RANK} dimensions")));
        }
        if s.peek() == Some(b'-') {
            let text = s.number()?;
            return Err(Fault::new(Reason::InvalidTensor, format!("a dimension is at least 0, got {}", &text[..text.len().min(32)])));
        }
        dims.push(s.integer("a dimension")?);
        Ok(())
    })?;
    Ok(Shape::new(dims)?)
}

fn read_datatype(scanner: &mut Scanner<'_>) -> Result<DataType, Fault> {
    let text = scanner.string()?;
    text.parse().map_err(|e: plinth_types::datatype::ParseDataTypeError| {
        let shown: String = text.chars().take(32).collect();
        Fault::new(Reason::InvalidTensor, format!("'{shown}' is {e}"))
    })
}

impl Input {
    /// Makes the tensor; takes its bytes from the front of `rest` when they come after the JSON.
    fn into_tensor(self, rest: &mut Bytes, has_header: bool) -> Result<Tensor, Fault> {
        let size = match self.content {
            Content::Here(bytes) => return Ok(Tensor::new(self.name, self.datatype, self.shape, bytes)?),
            Content::After(size) => size,
            // Its bytes are none of this body's.
            Content::Shared(_) => 0,
        };
        let under = |e: Fault| e.under("parameters.binary_data_size");
        if let Some(expected) = self.shape.byte_size(self.datatype)?
            && expected != size
        {
            return Err(under(byte_size_mismatch(&self.name, &expected.to_string(), size)));
        }
        let size = usize::try_from(size).ok().filter(|size| *size <= rest.len()).ok_or_else(|| {
            let header = if has_header { "" } else { "; the header Inference-Header-Content-Length is missing" };
            let text = format!("binary_data_size is {size}, but only {} bytes are left in the body{header}", rest.len());
            under(Fault::new(Reason::MalformedRequest, text))
        })?;
        Ok(Tensor::new(self.name, self.datatype, self.shape, rest.split_to(size))?)
    }
}

fn read_outputs(scanner: &mut Scanner<'_>) -> Result<Vec<Output>, Fault> {
    let mut outputs = Vec::new();
    let mut names = HashSet::new();
    scanner.array(|s, i| {
        if i >= MAX_TENSORS {
            return Err(too_many("outputs"));
        }
        let output = read_output(s)?;
        if !names.insert(output.name.clone()) {
            return Err(Fault::new(Reason::InvalidTensor, format!("the output '{}' is asked for twice", shown(&output.name))).under("name"));
        }
        outputs.push(output);
        Ok(())
    })?;
    Ok(outputs)
}

fn read_output(scanner: &mut Scanner<'_>) -> Result<Output, Fault> {
    let (mut name, mut parameters) = (None, None);
    scanner.object(|s, key| {
        let outcome = match key {
            "name" => s.string().and_then(|n| set(&mut name, n.into_owned())),
            "parameters" => parameters::read(s).and_then(|p| set(&mut parameters, p)),
            _ => return s.skip(),
        };
        outcome.map_err(|e| e.under(key))
    })?;
    let name = name.ok_or_else(|| Fault::new(Reason::MalformedRequest, "malformed request: the output has no name").under("name"))?;
    let mut parameters = parameters.unwrap_or_default();
    let mut known = Known(&mut parameters);
    let mut read = || Ok((known.bool("binary_data")?, known.uint("classification")?));
    let (binary, classes) = read().map_err(|e: Fault| e.under("parameters"))?;
    let place = placement(&mut parameters)?;
    // 0 is what clients send for "no classification".
    let classification = classes.filter(|k| *k > 0).map(|k| u32::try_from(k).unwrap_or(u32::MAX));
    if place.is_some() && classification.is_some() {
        let text = "classes cannot be placed in shared memory; ask for 'classification' without it";
        return Err(Fault::new(Reason::MalformedRequest, text).under("parameters.classification"));
    }
    Ok(Output { name, binary, classification, place })
}
