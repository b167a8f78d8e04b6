//! Open Inference Protocol over HTTP, with the binary tensor extension where the server has it.
//!
//! Source: Open Inference Protocol V2 and Triton's "Binary Tensor Data Extension".

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use plinth_types::{DataType, Parameter, Shape, Tensor, TensorSpec};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Call, Failure, MAX_DESCRIPTION, json, specs};
use crate::process::client::{Answer, Ask, CallError, Http};
use crate::process::manifest::Manifest;
use crate::spec::ModelMetadata;

const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const BINARY: &str = "binary_tensor_data";

pub(crate) struct OipHttp {
    http: Http,
    model: String,
    health: String,
    binary: bool,
}

#[derive(Deserialize)]
struct Server {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    extensions: Vec<String>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    inputs: Vec<TensorSpec>,
    #[serde(default)]
    outputs: Vec<TensorSpec>,
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    outputs: Vec<Output<'a>>,
}

#[derive(Deserialize)]
struct Output<'a> {
    name: String,
    datatype: DataType,
    shape: Vec<u64>,
    #[serde(default)]
    parameters: Option<OutputParameters>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct OutputParameters {
    #[serde(default)]
    binary_data_size: Option<u64>,
}

#[derive(Deserialize)]
struct Complaint {
    error: Option<String>,
    detail: Option<String>,
}

impl OipHttp {
    pub(super) fn new(http: Http, model: &str, manifest: &Manifest) -> Self {
        let version = manifest.model_version.as_ref().map_or_else(String::new, |version| format!("/versions/{version}"));
        let model = format!("/v2/models/{model}{version}");
        let health = manifest.health.path.clone().unwrap_or_else(|| format!("{model}/ready"));
        Self { http, model, health, binary: false }
    }

    pub(super) async fn is_well(&self) -> Result<bool, CallError> {
        let answer = self.http.call(Ask::get(&self.health), MAX_DESCRIPTION).await?;
        Ok(answer.status == StatusCode::OK)
    }

    /// `None` when the server has no such description.
    pub(super) async fn metadata(&mut self) -> Result<Option<ModelMetadata>, Failure> {
        let server = self.http.call(Ask::get("/v2"), MAX_DESCRIPTION).await?;
        let server = (server.status == StatusCode::OK).then(|| serde_json::from_slice::<Server>(&server.body).ok()).flatten();
        self.binary = server.as_ref().is_some_and(|server| server.extensions.iter().any(|extension| extension == BINARY));
        let engine = server.map_or_else(String::new, |server| crate::check::text(&format!("{} {}", server.name, server.version)));
        let model = self.http.call(Ask::get(&self.model), MAX_DESCRIPTION).await?;
        if model.status != StatusCode::OK {
            return Ok(None);
        }
        let model: Model = serde_json::from_slice(&model.body).map_err(|error| Failure::nonsense(error.to_string()))?;
        specs([model.inputs, model.outputs], engine.trim().to_owned()).map(Some)
    }

    pub(super) async fn infer(&self, call: Call<'_>) -> Result<Vec<Tensor>, Failure> {
        let (head, mut body) = (self.head(&call).map_err(Failure::input)?, Vec::new());
        let path = format!("{}/infer", self.model);
        let length = HeaderValue::from(head.len());
        body.push(Bytes::from(head));
        let kind = if self.binary { "application/octet-stream" } else { "application/json" };
        if self.binary {
            body.extend(call.inputs.iter().map(|tensor| tensor.data().clone()));
        }
        let mut ask = Ask::post(&path, kind, body).traced(call.trace);
        if self.binary {
            ask.headers.insert(HEADER_LENGTH, length);
        }
        let answer = self.http.call(ask, call.max_answer).await?;
        if answer.status != StatusCode::OK {
            return Err(Failure::status(answer.status, complaint(&answer.body)));
        }
        tensors(&answer).map_err(Failure::nonsense)
    }

    /// The JSON part of a request.
    fn head(&self, call: &Call<'_>) -> Result<Vec<u8>, String> {
        let mut out = br#"{"inputs":["#.to_vec();
        for (i, tensor) in call.inputs.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(br#"{"name":"#);
            append(&mut out, tensor.name())?;
            out.extend_from_slice(format!(r#","datatype":"{}","shape":"#, tensor.datatype()).as_bytes());
            append(&mut out, tensor.shape())?;
            if self.binary {
                out.extend_from_slice(format!(r#","parameters":{{"binary_data_size":{}}}}}"#, tensor.data().len()).as_bytes());
            } else {
                out.extend_from_slice(br#","data":"#);
                json::write(&mut out, tensor)?;
                out.push(b'}');
            }
        }
        out.push(b']');
        let all: Vec<&str> = if call.outputs.is_empty() {
            call.metadata.outputs.iter().map(TensorSpec::name).collect()
        } else {
            call.outputs.iter().map(String::as_str).collect()
        };
        out.extend_from_slice(br#","outputs":["#);
        for (i, name) in all.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(br#"{"name":"#);
            append(&mut out, name)?;
            if self.binary {
                out.extend_from_slice(br#","parameters":{"binary_data":true}"#);
            }
            out.push(b'}');
        }
        out.push(b']');
        let mut parameters = call.parameters.iter().filter(|(name, _)| *name != "binary_data_output").peekable();
        if parameters.peek().is_some() {
            let map: serde_json::Map<String, serde_json::Value> =
                parameters.map(|(name, value)| (name.clone(), parameter(value))).collect();
            out.extend_from_slice(br#","parameters":"#);
            append(&mut out, &map)?;
        }
        out.push(b'}');
        Ok(out)
    }
}

fn append<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), String> {
    serde_json::to_writer(out, value).map_err(|error| error.to_string())
}

/// A parameter as JSON.
pub(super) fn parameter(value: &Parameter) -> serde_json::Value {
    match value {
        Parameter::Bool(value) => (*value).into(),
        Parameter::Int(value) => (*value).into(),
        Parameter::Uint(value) => (*value).into(),
        Parameter::Double(value) => (*value).into(),
        Parameter::Text(value) => value.as_str().into(),
    }
}

fn complaint(body: &[u8]) -> Option<String> {
    let complaint: Complaint = serde_json::from_slice(body).ok()?;
    complaint.error.or(complaint.detail)
}

/// The tensors of an answer; binary parts follow the JSON in its order.
fn tensors(answer: &Answer) -> Result<Vec<Tensor>, String> {
    let length = match answer.headers.get(&HEADER_LENGTH) {
        None => answer.body.len(),
        Some(value) => value.to_str().ok().and_then(|text| text.parse().ok()).ok_or("the header's length is no number")?,
    };
    if length > answer.body.len() {
        return Err("the header is longer than the answer".to_owned());
    }
    let (head, mut rest) = (answer.body.slice(..length), answer.body.slice(length..));
    let reply: Reply<'_> = serde_json::from_slice(&head).map_err(|error| error.to_string())?;
    let mut tensors = Vec::with_capacity(reply.outputs.len());
    for output in reply.outputs {
        let size = output.parameters.and_then(|parameters| parameters.binary_data_size);
        let data = match (size, output.data) {
            (Some(size), _) => {
                let size = usize::try_from(size).ok().filter(|size| *size <= rest.len()).ok_or("binary data is missing")?;
                rest.split_to(size)
            }
            (None, Some(data)) => Bytes::from(json::read(data, output.datatype)?),
            (None, None) => return Err("an output has no data".to_owned()),
        };
        let shape = Shape::new(output.shape).map_err(|error| error.to_string())?;
        tensors.push(Tensor::new(output.name, output.datatype, shape, data).map_err(|error| error.to_string())?);
    }
    if rest.is_empty() { Ok(tensors) } else { Err("bytes follow that nobody announced".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use proptest::prelude::*;

    fn answer(head: Option<usize>, body: &[u8]) -> Answer {
        let headers = head.map(|length| (HEADER_LENGTH, HeaderValue::from(length)));
        Answer {
            status: StatusCode::OK,
            headers: HeaderMap::from_iter(headers),
            body: Bytes::copy_from_slice(body),
            trailers: HeaderMap::new(),
        }
    }

    #[test]
    fn json_and_binary_answers() {
        let json = br#"{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[[1,2.5]]}]}"#;
        let found = tensors(&answer(None, json)).unwrap();
        assert_eq!(found[0].data().as_ref(), [1f32.to_le_bytes(), 2.5f32.to_le_bytes()].concat());
        let head = br#"{"outputs":[{"name":"y","datatype":"UINT8","shape":[3],"parameters":{"binary_data_size":3}}]}"#;
        let body = [&head[..], b"abc"].concat();
        assert_eq!(tensors(&answer(Some(head.len()), &body)).unwrap()[0].data().as_ref(), b"abc");
        for (length, body) in [
            (Some(9999), body.clone()),
            (Some(head.len()), head.to_vec()),
            (Some(head.len()), [&body[..], b"d"].concat()),
            (Some(3), body.clone()),
            (None, br#"{"outputs":[{"name":"y","datatype":"FP32","shape":[2]}]}"#.to_vec()),
            (None, br#"{"outputs":[{"name":"y","datatype":"FP32","shape":[99999999999],"data":[1]}]}"#.to_vec()),
            (None, br#"{"outputs":[{"name":"y","datatype":"FP32","shape":[-1],"data":[1]}]}"#.to_vec()),
            (None, b"[]".to_vec()),
            (None, Vec::new()),
        ] {
            assert!(tensors(&answer(length, &body)).is_err(), "{}", String::from_utf8_lossy(&body));
        }
    }

    proptest! {
        #[test]
        fn hostile_answers_never_panic(length in proptest::option::of(0usize..200), body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = tensors(&answer(length, &body));
        }
    }
}
