//! An inference request: from one HTTP body to tensors.
//!
//! The body is JSON, or JSON followed by the bytes of the inputs that carry `binary_data_size`, in the order of `inputs`
//! (binary tensor data extension); how long the JSON is then stands in a header. Invariant: a parsed [`InferCall`] has no
//! name twice, and every byte of the body belongs to something.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use plinth_types::tensor::{MAX_RANK, push_byte_element};
use plinth_types::{DataType, Dim, Error, Reason, Shape, Tensor, TensorSpec};

use super::parameters::{self, Known, Parameter, Parameters};
use super::scan::{Fault, Scanner};
use super::{HEADER_LENGTH, data};

/// The most inputs, and the most outputs, of one request.
pub const MAX_TENSORS: usize = 4096;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct InferCall {
    /// The client's own name of the request, given back with the answer; empty for none.
    pub id: String,
    /// The inputs.
    pub inputs: Vec<Tensor>,
    /// The wished outputs; empty for all.
    pub outputs: Vec<RequestedOutput>,
    /// Whether outputs that say nothing of it come back as binary.
    pub default_binary: bool,
    /// How long the request may wait.
    pub timeout: Option<Duration>,
    /// Its priority; 0 is the model's default, 1 the highest.
    pub priority: u64,
    /// The parameters that the protocol does not know.
    pub parameters: Parameters,
}

/// An output that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedOutput {
    /// Its name.
    pub name: String,
    /// Whether it comes back as binary.
    pub binary: bool,
    /// How many of the largest values to answer as classes instead of the tensor.
    pub classification: Option<u32>,
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
        Ok(Self {
            id: String::new(),
            inputs: vec![raw_input(body, spec).map_err(|e| e.under("inputs[0]"))?],
            outputs: Vec::new(),
            default_binary: true,
            timeout: None,
            priority: 0,
            parameters: Parameters::new(),
        })
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

fn byte_size_mismatch(name: &str, expected: &str, actual: u64) -> Fault {
    let name: String = name.chars().take(64).collect();
    Fault::new(Reason::InvalidTensor, format!("input byte size mismatch for input '{name}': expected {expected} bytes, got {actual}"))
}

/// What was read so far.
#[derive(Default)]
struct Draft {
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
}

struct Output {
    name: String,
    binary: Option<bool>,
    classification: Option<u32>,
}

/// Puts what was read into its place, which must be empty.
fn set<T>(place: &mut Option<T>, value: T) -> Result<(), Fault> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Fault::new(Reason::MalformedRequest, "malformed request: the member is given twice")),
    }
}

impl Draft {
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
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
    fn finish(self, mut rest: Bytes, has_header: bool) -> Result<InferCall, Fault> {
        let malformed = |text: &str| Fault::new(Reason::MalformedRequest, text);
        let drafts = self.inputs.ok_or_else(|| malformed("malformed request: it has no inputs").under("inputs"))?;
        let mut inputs = Vec::with_capacity(drafts.len());
        for (i, draft) in drafts.into_iter().enumerate() {
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
        });
        Ok(InferCall {
            id: self.id.unwrap_or_default(),
            inputs,
            outputs: outputs.collect(),
            default_binary: known.default_binary,
            timeout: known.timeout,
            priority: known.priority,
            parameters,
        })
    }
}

/// The parameters of a request that mean something to the protocol.
struct RequestParameters {
    default_binary: bool,
    timeout: Option<Duration>,
    priority: u64,
}

fn request_parameters(parameters: &mut Parameters) -> Result<RequestParameters, Fault> {
    let mut known = Known(parameters);
    let default_binary = known.bool("binary_data_output")?.unwrap_or(false);
    let timeout = known.uint("timeout")?.filter(|t| *t > 0).map(Duration::from_micros);
    let priority = known.uint("priority")?.unwrap_or(0);
    // No model here keeps sequences; Triton too leaves them alone for a model without a sequence batcher.
    known.take("sequence_id", "a whole number from 0 on or a string", |p| {
        matches!(p, Parameter::Uint(_) | Parameter::Text(_)).then_some(())
    })?;
    known.bool("sequence_start")?;
    known.bool("sequence_end")?;
    if let Some(name) = parameters.keys().find(|name| *name == "headers" || name.starts_with("triton_")) {
        let shown: String = name.chars().take(64).collect();
        let text = format!("the parameter '{shown}' is reserved; choose another name");
        return Err(Fault::new(Reason::MalformedRequest, text).under(shown));
    }
    Ok(RequestParameters { default_binary, timeout, priority })
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
            return Err(Fault::new(Reason::InvalidTensor, "the input is given twice").under("name"));
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
    let size = known.refuse_shared_memory().and_then(|()| known.uint("binary_data_size")).map_err(|e| e.under("parameters"))?;
    let content = match (data, size) {
        (Some(bytes), None) => Content::Here(bytes),
        (None, Some(size)) => Content::After(size),
        (None, None) => return Err(missing("data")),
        (Some(_), Some(_)) => {
            let text = "the input has both 'data' and 'binary_data_size'; send one of them";
            return Err(Fault::new(Reason::MalformedRequest, text).under("data"));
        }
    };
    Ok(Input { name, datatype, shape, content })
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
            return Err(Fault::new(Reason::InvalidTensor, "the output is asked for twice").under("name"));
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
    let mut read = || {
        known.refuse_shared_memory()?;
        Ok((known.bool("binary_data")?, known.uint("classification")?))
    };
    let (binary, classes) = read().map_err(|e: Fault| e.under("parameters"))?;
    // 0 is what clients send for "no classification".
    let classification = classes.filter(|k| *k > 0).map(|k| u32::try_from(k).unwrap_or(u32::MAX));
    Ok(Output { name, binary, classification })
}

#[cfg(test)]
mod tests;
