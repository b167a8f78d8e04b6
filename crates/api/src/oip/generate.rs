//! The generate extension: requests and answers as plain JSON objects whose members are the model's tensors.
//!
//! A member of the request is an input by its name; its shape comes from its value and the model's own: a scalar is one
//! element, an array lies in the last dimensions, and dimensions in front of it, the batch among them, are 1. `id` names the
//! request, members of `parameters` are inputs too where they have an input's name, and parameters otherwise. Invariant: a
//! member that is nothing of this is refused, with the names that there are.

mod events;

use plinth_types::tensor::MAX_RANK;
use plinth_types::{Dim, Error, Reason, Shape, Tensor, TensorSpec};

pub use events::events;

use super::data;
use super::parameters::{self, MAX_PARAMETERS, Parameters};
use super::request::{InferCall, request_parameters};
use super::response::write_elements;
use super::scan::{Fault, Scanner};

/// Reads a body as a request to a model with these inputs. `batched`: whether the first dimension of each is the batch.
///
/// # Errors
/// [`Reason::MalformedRequest`], [`Reason::InvalidTensor`], [`Reason::UnknownTensor`], [`Reason::NotRepresentable`]; each
/// names the member.
pub fn parse(body: &[u8], inputs: &[TensorSpec], batched: bool) -> Result<InferCall, Error> {
    let json = std::str::from_utf8(body).map_err(|e| {
        Error::new(Reason::MalformedRequest, format!("malformed request: it is not UTF-8 from byte {} on", e.valid_up_to()))
    })?;
    let mut draft = Draft { specs: inputs, batched, id: None, parameters: None, inputs: Vec::new() };
    let mut scanner = Scanner::new(json);
    draft.read(&mut scanner).and_then(|()| scanner.end())?;
    let mut parameters = draft.parameters.unwrap_or_default();
    let known = request_parameters(&mut parameters).map_err(|e| e.under("parameters"))?;
    Ok(InferCall {
        id: draft.id.unwrap_or_default(),
        inputs: draft.inputs,
        timeout: known.timeout,
        priority: known.priority,
        sequence: known.sequence,
        parameters,
        ..InferCall::default()
    })
}

struct Draft<'s> {
    specs: &'s [TensorSpec],
    batched: bool,
    id: Option<String>,
    parameters: Option<Parameters>,
    inputs: Vec<Tensor>,
}

impl Draft<'_> {
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        scanner.object(|s, key| {
            let outcome = match key {
                // An input may well be called `id`; then it is one.
                "id" if self.spec("id").is_none() => self.read_id(s),
                "parameters" if self.spec("parameters").is_none() => self.read_parameters(s),
                _ if self.spec(key).is_some() => self.read_input(s, key),
                _ => Err(self.unknown(key)),
            };
            outcome.map_err(|e| e.under(shown(key)))
        })
    }

    fn spec(&self, name: &str) -> Option<&TensorSpec> {
        self.specs.iter().find(|spec| spec.name() == name)
    }

    fn unknown(&self, key: &str) -> Fault {
        let names: Vec<_> = self.specs.iter().map(TensorSpec::name).collect();
        let text =
            format!("'{}' is no input of this model; it has {}, and 'id' and 'parameters' may stand beside", shown(key), names.join(", "));
        Fault::new(Reason::UnknownTensor, text)
    }

    fn read_id(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        if self.id.is_some() {
            return Err(twice());
        }
        // Some clients number their requests.
        self.id = match scanner.peek() {
            _ if scanner.null() => None,
            Some(b'"') => Some(scanner.string()?.into_owned()),
            Some(b'0'..=b'9' | b'-') => Some(scanner.number()?.to_owned()),
            _ => return Err(scanner.malformed("a string or a number")),
        };
        Ok(())
    }

    fn read_parameters(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        if self.parameters.is_some() {
            return Err(twice());
        }
        let mut parameters = Parameters::new();
        if !scanner.null() {
            scanner.object(|s, key| {
                let outcome = if self.spec(key).is_some() {
                    self.read_input(s, key)
                } else if parameters.len() >= MAX_PARAMETERS {
                    Err(Fault::new(Reason::MalformedRequest, format!("more than {MAX_PARAMETERS} parameters")))
                } else {
                    parameters::read_value(s).and_then(|value| match parameters.insert(key.to_owned(), value) {
                        None => Ok(()),
                        Some(_) => Err(twice()),
                    })
                };
                outcome.map_err(|e| e.under(shown(key)))
            })?;
        }
        self.parameters = Some(parameters);
        Ok(())
    }

    fn read_input(&mut self, scanner: &mut Scanner<'_>, name: &str) -> Result<(), Fault> {
        if self.inputs.iter().any(|input| input.name() == name) {
            return Err(twice());
        }
        let Some(spec) = self.spec(name) else { return Err(self.unknown(name)) };
        let mut value = Vec::new();
        measure(&mut scanner.clone(), &mut value)?;
        let shape = fit(&value, spec, self.batched)?;
        // It is read in its own shape, which has as many elements.
        let bytes = data::read(scanner, spec.datatype(), &Shape::new(value)?)?;
        let tensor = Tensor::new(spec.name(), spec.datatype(), shape, bytes)?;
        self.inputs.push(tensor);
        Ok(())
    }
}

fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn twice() -> Fault {
    Fault::new(Reason::MalformedRequest, "malformed request: the member is given twice")
}

/// The lengths of a value's arrays, outermost first, by the first element of each; none for a scalar.
fn measure(scanner: &mut Scanner<'_>, dims: &mut Vec<u64>) -> Result<(), Fault> {
    if scanner.peek() != Some(b'[') {
        return scanner.skip();
    }
    if dims.len() >= MAX_RANK {
        return Err(Fault::new(Reason::InvalidTensor, format!("a tensor has at most {MAX_RANK} dimensions")));
    }
    let at = dims.len();
    dims.push(0);
    let mut count = 0;
    scanner.array(|s, i| {
        count = i as u64 + 1;
        if i == 0 { measure(s, dims) } else { s.skip() }
    })?;
    if let Some(dim) = dims.get_mut(at) {
        *dim = count;
    }
    Ok(())
}

/// The shape of a value with these lengths as a tensor of this description.
fn fit(value: &[u64], spec: &TensorSpec, batched: bool) -> Result<Shape, Fault> {
    let rank = spec.shape().len();
    let odd = || {
        let dims: Vec<_> = spec.shape().iter().map(ToString::to_string).collect();
        let text = format!("the value does not fit the input '{}', whose shape is [{}]", spec.name(), dims.join(","));
        Fault::new(Reason::InvalidTensor, text)
    };
    let lengths = match value {
        // The last open dimension takes what the fixed ones leave; other open ones are 1.
        [] | [_] if rank > 0 => {
            let count = value.first().copied().unwrap_or(1);
            let mut dims: Vec<u64> = spec.shape().iter().map(|d| if let Dim::Fixed(n) = d { *n } else { 1 }).collect();
            let fixed = dims.iter().try_fold(1u64, |product, n| product.checked_mul(*n)).ok_or_else(odd)?;
            let first_open = usize::from(batched && rank > 1);
            let open = spec.shape().iter().skip(first_open).rposition(|d| *d == Dim::Any).map(|i| i + first_open);
            match open.and_then(|i| dims.get_mut(i)) {
                Some(dim) if fixed != 0 && count % fixed == 0 => *dim = count / fixed,
                None if fixed == count => {}
                _ => return Err(odd()),
            }
            dims
        }
        _ if value.len() <= rank => std::iter::repeat_n(1, rank - value.len()).chain(value.iter().copied()).collect(),
        _ => return Err(odd()),
    };
    Ok(Shape::new(lengths)?)
}

/// The answer as one JSON object: the model, the request's id, and each output, a scalar where it has one element.
///
/// # Errors
/// [`Reason::NotRepresentable`] naming the output that JSON cannot carry.
pub fn render(model: &str, version: &str, id: &str, outputs: &[Tensor]) -> Result<Vec<u8>, Error> {
    let mut json = b"{\"model_name\":".to_vec();
    let broken = |e: serde_json::Error| Error::internal("writing an answer").source(e);
    serde_json::to_writer(&mut json, model).map_err(broken)?;
    json.extend_from_slice(b",\"model_version\":");
    serde_json::to_writer(&mut json, version).map_err(broken)?;
    if !id.is_empty() {
        json.extend_from_slice(b",\"id\":");
        serde_json::to_writer(&mut json, id).map_err(broken)?;
    }
    for output in outputs {
        json.push(b',');
        serde_json::to_writer(&mut json, output.name()).map_err(broken)?;
        json.push(b':');
        let scalar = output.shape().elements() == 1;
        if !scalar {
            json.push(b'[');
        }
        write_elements(&mut json, output).map_err(|e| e.field(output.name()))?;
        if !scalar {
            json.push(b']');
        }
    }
    json.push(b'}');
    Ok(json)
}

#[cfg(test)]
mod tests;
