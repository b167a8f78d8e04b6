//! The message of an inference: `ModelInferRequest` to what serving takes.
//!
//! Invariants: raw tensors are slices of the message; at most [`MAX_TENSORS`] inputs, outputs and raw contents are looked at;
//! a tensor's bytes come from exactly one place. Whether they fit the model is for serving to say.

use std::collections::HashSet;

use bytes::Bytes;
use plinth_identity::Principal;
use plinth_types::tensor::MAX_RANK;
use plinth_types::{ByteSize, DataType, Error, ModelName, Parameter, Parameters, Reason, Result, Shape, Tensor, VersionNumber};

use super::contents;
use super::wire::{Fields, malformed};
use crate::oip::parameters::{Known, MAX_PARAMETERS};
use crate::oip::request::{InferCall, MAX_TENSORS, RequestedOutput, byte_size_mismatch, request_parameters};
use crate::oip::scan::Fault;
use crate::oip::shared_memory::{Placement, SharedInput};

/// Asks a stream for a message that says that nothing more comes.
const EMPTY_FINAL: &str = "triton_enable_empty_final_response";

/// An inference that a client asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    /// Of which model.
    pub model: ModelName,
    /// Of which version; the default one when `None`.
    pub version: Option<VersionNumber>,
    /// Everything else.
    pub call: InferCall,
}

/// What was read so far; texts are still the message's.
#[derive(Default)]
struct Draft<'a> {
    model: &'a str,
    version: &'a str,
    id: &'a str,
    parameters: Parameters,
    inputs: Vec<Input<'a>>,
    outputs: Vec<RequestedOutput>,
    raw: Vec<&'a [u8]>,
}

#[derive(Default)]
struct Input<'a> {
    name: &'a str,
    datatype: &'a str,
    dims: Vec<u64>,
    place: Option<Placement>,
    contents: Option<&'a [u8]>,
}

/// Whether a message has raw contents. Looks at the outermost fields alone.
pub(super) fn is_raw(message: &[u8]) -> bool {
    Fields::of(message).any(|field| matches!(field, Ok((7, _))))
}

impl Asked {
    /// Reads a message; typed contents may become at most `max` bytes.
    ///
    /// # Errors
    /// [`Reason::MalformedRequest`], [`Reason::InvalidName`], [`Reason::InvalidTensor`], [`Reason::BodyTooLarge`]; each names
    /// the field.
    pub fn parse(message: &Bytes, max: ByteSize) -> Result<Self> {
        let draft = Draft::read(message)?;
        let model = model(draft.model)?;
        let version = version(draft.version)?;
        Ok(Self { model, version, call: draft.finish(message, max)? })
    }
}

/// The model that a message names.
pub(super) fn model(name: &str) -> Result<ModelName> {
    name.parse().map_err(|e| Error::new(Reason::InvalidName, format!("the model name is malformed: {e}")).field("model_name"))
}

/// The model that a message names, when the caller's key is for it.
pub(super) fn its(who: &Principal, name: &str) -> Result<ModelName> {
    let model = model(name)?;
    who.must_use(&model)?;
    Ok(model)
}

/// The version that a message names; empty for the default one.
pub(super) fn version(text: &str) -> Result<Option<VersionNumber>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|e| {
        let shown = shown(text);
        let text = format!("failed to get model version from specified version string '{shown}': {e}, or empty for the default one");
        Error::new(Reason::InvalidName, text).field("model_version")
    })
}

/// A text from outside, fit for an error's.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn too_many(what: &str) -> Fault {
    malformed(&format!("a request has at most {MAX_TENSORS} {what}")).under(what)
}

impl<'a> Draft<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Fault> {
        let mut draft = Self::default();
        for field in Fields::of(message) {
            let (number, value) = field?;
            match number {
                1 => draft.model = value.text().map_err(|e| e.under("model_name"))?,
                2 => draft.version = value.text().map_err(|e| e.under("model_version"))?,
                3 => draft.id = value.text().map_err(|e| e.under("id"))?,
                4 => add_parameter(&mut draft.parameters, value.bytes()?).map_err(|e| e.under("parameters"))?,
                5 if draft.inputs.len() >= MAX_TENSORS => return Err(too_many("inputs")),
                5 => {
                    let i = draft.inputs.len();
                    draft.inputs.push(read_input(value.bytes()?).map_err(|e| e.under(format_args!("inputs[{i}]")))?);
                }
                6 if draft.outputs.len() >= MAX_TENSORS => return Err(too_many("outputs")),
                6 => {
                    let i = draft.outputs.len();
                    draft.outputs.push(read_output(value.bytes()?).map_err(|e| e.under(format_args!("outputs[{i}]")))?);
                }
                7 if draft.raw.len() >= MAX_TENSORS => return Err(too_many("raw_input_contents")),
                7 => draft.raw.push(value.bytes()?),
                _ => {}
            }
        }
        Ok(draft)
    }

    fn finish(self, message: &Bytes, max: ByteSize) -> Result<InferCall, Fault> {
        let mut raw = Raw { all: &self.raw, next: 0, message, model: self.model };
        let mut inputs = Vec::with_capacity(self.inputs.len());
        let mut shared = Vec::new();
        for (i, input) in self.inputs.into_iter().enumerate() {
            let made = input.make(&mut raw, max).map_err(|e| e.under(format_args!("inputs[{i}]")))?;
            match made {
                Made::Here(tensor) => inputs.push(tensor),
                Made::Shared(input) => shared.push((i, input)),
            }
        }
        raw.end()?;
        twice(&self.outputs)?;
        let mut parameters = self.parameters;
        // Every request has one answer here, which says itself that it is the last; so nothing is left to ask for.
        Known(&mut parameters).bool(EMPTY_FINAL).map_err(|e| e.under("parameters"))?;
        let known = request_parameters(&mut parameters).map_err(|e| e.under("parameters"))?;
        Ok(InferCall {
            id: self.id.to_owned(),
            inputs,
            shared,
            outputs: self.outputs,
            timeout: known.timeout,
            priority: known.priority,
            sequence: known.sequence,
            parameters,
            ..InferCall::default()
        })
    }
}

/// Refuses an output that is asked for twice.
fn twice(outputs: &[RequestedOutput]) -> Result<(), Fault> {
    // One or two outputs, as nearly always, are compared; more are looked up.
    let repeated = match outputs {
        [] | [_] => None,
        [a, b] => (a.name == b.name).then_some(1),
        many => {
            let mut names = HashSet::with_capacity(many.len());
            many.iter().position(|output| !names.insert(output.name.as_str()))
        }
    };
    match repeated {
        None => Ok(()),
        Some(i) => {
            let text = format!("the output '{}' is asked for twice", shown(&outputs[i].name));
            Err(Fault::new(Reason::InvalidTensor, text).under("name").under(format_args!("outputs[{i}]")))
        }
    }
}

/// The raw contents, given to the inputs in order.
struct Raw<'a> {
    all: &'a [&'a [u8]],
    next: usize,
    message: &'a Bytes,
    model: &'a str,
}

impl Raw<'_> {
    fn take(&mut self, name: &str) -> Result<Bytes, Fault> {
        let bytes = self.all.get(self.next).ok_or_else(|| no_data(name, self.model))?;
        self.next += 1;
        Ok(self.message.slice_ref(bytes))
    }

    fn end(&self) -> Result<(), Fault> {
        if self.next == self.all.len() {
            return Ok(());
        }
        let text = format!("there are {} raw_input_contents for {} inputs that want one", self.all.len(), self.next);
        Err(malformed(&text).under("raw_input_contents"))
    }
}

fn no_data(name: &str, model: &str) -> Fault {
    let text = format!("unable to find data for input tensor '{}' for model '{}' in request", shown(name), shown(model));
    Fault::new(Reason::MalformedRequest, text)
}

enum Made {
    Here(Tensor),
    Shared(SharedInput),
}

impl Input<'_> {
    fn make(self, raw: &mut Raw<'_>, max: ByteSize) -> Result<Made, Fault> {
        let Self { name, datatype, dims, place, contents } = self;
        let datatype: DataType =
            datatype.parse().map_err(|e| Fault::new(Reason::InvalidTensor, format!("'{}' is {e}", shown(datatype))).under("datatype"))?;
        let shape = Shape::new(dims).map_err(|e| Fault::from(e).under("shape"))?;
        let both = |other: &str| {
            let text =
                format!("contents field must not be specified when using {other} for '{}' for model '{}'", shown(name), shown(raw.model));
            Fault::new(Reason::MalformedRequest, text).under("contents")
        };
        if let Some(place) = place {
            return match contents {
                Some(_) => Err(both("shared memory")),
                None => Ok(Made::Shared(SharedInput { name: name.to_owned(), datatype, shape, place })),
            };
        }
        let data = match (contents, raw.all.is_empty()) {
            (Some(_), false) => return Err(both("raw_input_contents")),
            (Some(contents), true) => contents::read(contents, raw.message, datatype, &shape, max).map_err(|e| e.under("contents"))?,
            (None, false) => raw.take(name)?,
            (None, true) if shape.elements() == 0 => Bytes::new(),
            (None, true) => return Err(no_data(name, raw.model)),
        };
        if let Some(expected) = shape.byte_size(datatype)?
            && expected != data.len() as u64
        {
            return Err(byte_size_mismatch(name, &expected.to_string(), data.len() as u64));
        }
        Ok(Made::Here(Tensor::new(name, datatype, shape, data)?))
    }
}

fn read_input(message: &[u8]) -> Result<Input<'_>, Fault> {
    let mut input = Input::default();
    let mut parameters = Parameters::new();
    for field in Fields::of(message) {
        let (number, value) = field?;
        match number {
            1 => input.name = value.text().map_err(|e| e.under("name"))?,
            2 => input.datatype = value.text().map_err(|e| e.under("datatype"))?,
            3 => value.varints(|n| add_dimension(&mut input.dims, n)).map_err(|e| e.under("shape"))?,
            4 => add_parameter(&mut parameters, value.bytes()?).map_err(|e| e.under("parameters"))?,
            5 if input.contents.is_some() => return Err(malformed("contents are given twice").under("contents")),
            5 => input.contents = Some(value.bytes()?),
            _ => {}
        }
    }
    input.place = placement(&mut parameters)?;
    Ok(input)
}

fn add_dimension(dims: &mut Vec<u64>, number: u64) -> Result<(), Fault> {
    if dims.len() >= MAX_RANK {
        return Err(Fault::new(Reason::InvalidTensor, format!("a tensor has at most {MAX_RANK} dimensions")));
    }
    // What is negative to the client is above the largest int64 on the wire.
    let signed = number.cast_signed();
    if signed < 0 {
        return Err(Fault::new(Reason::InvalidTensor, format!("a dimension is at least 0, got {signed}")));
    }
    dims.push(number);
    Ok(())
}

fn read_output(message: &[u8]) -> Result<RequestedOutput, Fault> {
    let mut output = RequestedOutput::default();
    let mut parameters = Parameters::new();
    for field in Fields::of(message) {
        let (number, value) = field?;
        match number {
            1 => value.text().map_err(|e| e.under("name"))?.clone_into(&mut output.name),
            2 => add_parameter(&mut parameters, value.bytes()?).map_err(|e| e.under("parameters"))?,
            _ => {}
        }
    }
    let classes = Known(&mut parameters).uint("classification").map_err(|e| e.under("parameters"))?;
    // 0 is what clients send for "no classification".
    output.classification = classes.filter(|k| *k > 0).map(|k| u32::try_from(k).unwrap_or(u32::MAX));
    output.place = placement(&mut parameters)?;
    if output.place.is_some() && output.classification.is_some() {
        let text = "classes cannot be placed in shared memory; ask for 'classification' without it";
        return Err(Fault::new(Reason::MalformedRequest, text).under("parameters.classification"));
    }
    Ok(output)
}

/// Where in shared memory the tensor with these parameters lies, if it does.
fn placement(parameters: &mut Parameters) -> Result<Option<Placement>, Fault> {
    if !Placement::is_in(parameters) {
        return Ok(None);
    }
    let fault = |e: Error| Fault::new(e.reason(), e.public_text()).under(e.field_name().unwrap_or_default()).under("parameters");
    Placement::take(parameters).map_err(fault)
}

/// Adds an entry of a map of parameters; of two with one name the later counts.
fn add_parameter(parameters: &mut Parameters, entry: &[u8]) -> Result<(), Fault> {
    let (mut name, mut choice) = ("", None);
    for field in Fields::of(entry) {
        match field? {
            (1, value) => name = value.text()?,
            (2, value) => choice = Some(value.bytes()?),
            _ => {}
        }
    }
    let mut value = None;
    for field in Fields::of(choice.unwrap_or_default()) {
        let (number, field) = field?;
        value = match number {
            1 => Some(Parameter::Bool(field.varint()? != 0)),
            // A client whose sequences are named by unsigned numbers sends the large ones as negative.
            2 if name == "sequence_id" => Some(Parameter::Uint(field.varint()?)),
            2 => {
                let number = field.varint()?.cast_signed();
                Some(u64::try_from(number).map_or(Parameter::Int(number), Parameter::Uint))
            }
            3 => Some(Parameter::Text(field.text()?.to_owned())),
            4 => match field {
                super::wire::Value::Fixed64(bytes) => Some(Parameter::Double(f64::from_le_bytes(bytes))),
                _ => return Err(malformed("a field has another type than its number says")),
            },
            5 => Some(Parameter::Uint(field.varint()?)),
            _ => value,
        };
    }
    let shown = || shown(name);
    let value = value.ok_or_else(|| malformed("the parameter has no value").under(shown()))?;
    if parameters.len() >= MAX_PARAMETERS && !parameters.contains_key(name) {
        return Err(malformed(&format!("more than {MAX_PARAMETERS} parameters")));
    }
    parameters.insert(name.to_owned(), value);
    Ok(())
}
