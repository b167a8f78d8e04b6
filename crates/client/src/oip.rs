//! Inference and metadata of models over the Open Inference Protocol, under `/v2`.
//!
//! Invariant: what comes back as a [`Tensor`] was checked against its own type and shape; an answer that does not hold
//! together is an error, never a wrong tensor. How tensors become text and back is in `oip::json`; the binary
//! extension puts their bytes behind the JSON unchanged.

use bytes::{BufMut, Bytes, BytesMut};
use plinth_types::{DataType, ModelName, Shape, Tensor, TensorSpec, VersionNumber};
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use crate::transport::Call;
use crate::{Client, Error, Result};

mod json;

/// The header that says how long the JSON part of a body is.
const HEADER_LENGTH: &str = "inference-header-content-length";

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// Its name.
    pub name: String,
    /// The versions that can be asked.
    #[serde(default)]
    pub versions: Vec<String>,
    /// What executes it.
    #[serde(default)]
    pub platform: String,
    /// The inputs.
    pub inputs: Vec<TensorSpec>,
    /// The outputs.
    pub outputs: Vec<TensorSpec>,
}

/// How tensors travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// As bytes behind the JSON; every data type, no conversion.
    #[default]
    Binary,
    /// As numbers in the JSON; not for FP16, BF16 and values that JSON does not know.
    Json,
}

/// A request for an inference.
#[derive(Debug, Clone, Default)]
pub struct InferRequest {
    /// Comes back with the answer.
    pub id: Option<String>,
    /// The inputs.
    pub inputs: Vec<Tensor>,
    /// The names of the outputs that are wanted; empty for all.
    pub outputs: Vec<String>,
    /// How tensors travel, in both directions.
    pub encoding: Encoding,
}

/// The answer to an inference.
#[derive(Debug, Clone)]
pub struct InferResponse {
    /// The model that answered.
    pub model_name: String,
    /// The version that answered.
    pub model_version: Option<String>,
    /// The request's id.
    pub id: Option<String>,
    /// The outputs.
    pub outputs: Vec<Tensor>,
}

#[derive(Deserialize)]
struct ResponseHead {
    #[serde(default)]
    model_name: String,
    #[serde(default)]
    model_version: Option<String>,
    #[serde(default)]
    id: Option<String>,
    outputs: Vec<OutputHead>,
}

#[derive(Deserialize)]
struct OutputHead {
    name: String,
    datatype: DataType,
    shape: Shape,
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(default)]
    data: Option<Value>,
}

impl Client {
    fn oip_url(&self, model: &ModelName, version: Option<VersionNumber>, last: Option<&str>) -> Url {
        let number = version.map(|v| v.to_string());
        let version = number.iter().flat_map(|n| ["versions", n.as_str()]);
        self.url(["v2", "models", model.as_str()].into_iter().chain(version).chain(last))
    }

    /// `GET /v2/health/live`: whether a node answers at all. Needs no key.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn live(&self) -> Result<()> {
        self.send(Call::get(self.url(["v2", "health", "live"]))).await.map(drop)
    }

    /// `GET /v2/models/{m}[/versions/{v}]`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn model_metadata(&self, model: &ModelName, version: Option<VersionNumber>) -> Result<ModelMetadata> {
        self.fetch(Call::get(self.oip_url(model, version, None))).await
    }

    /// `POST /v2/repository/models/{m}/load`: has the node load the model, afresh if it failed before; returns when it
    /// answers.
    ///
    /// # Errors
    /// As [`Client::status`]; the reason for which it cannot be loaded.
    pub async fn load_model(&self, model: &ModelName) -> Result<()> {
        let url = self.url(["v2", "repository", "models", model.as_str(), "load"]);
        self.send(Call::post(url).within(self.options.work_timeout)).await.map(drop)
    }

    /// `POST /v2/repository/models/{m}/unload`: has the node give the model's memory back; it is kept in the registry.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn unload_model(&self, model: &ModelName) -> Result<()> {
        let url = self.url(["v2", "repository", "models", model.as_str(), "unload"]);
        self.send(Call::post(url).within(self.options.work_timeout)).await.map(drop)
    }

    /// `POST /v2/models/{m}[/versions/{v}]/infer`. Sent once. Without a version the model's champion answers.
    ///
    /// # Errors
    /// As [`Client::status`]; [`Error::Tensor`] when an input cannot travel in the chosen encoding.
    pub async fn infer(&self, model: &ModelName, version: Option<VersionNumber>, request: &InferRequest) -> Result<InferResponse> {
        let body = encode(request)?;
        let mut post = self.http.post(self.oip_url(model, version, Some("infer")));
        post = match body.header_length {
            Some(length) => post.header(HEADER_LENGTH, length).header(CONTENT_TYPE, "application/octet-stream"),
            None => post.header(CONTENT_TYPE, "application/json"),
        };
        let exchange = async {
            let response = self.success(post.body(body.bytes)).await?;
            let header = response.headers().get(HEADER_LENGTH).map(|v| v.to_str().ok().and_then(|t| t.parse::<usize>().ok()));
            let body = self.read(response, self.options.max_inference_answer).await?;
            match header {
                Some(None) => Err(self.protocol("its Inference-Header-Content-Length is not a number")),
                Some(Some(length)) if length > body.len() => Err(self.protocol("its Inference-Header-Content-Length goes past the end")),
                other => decode(&body, other.flatten()).map_err(|what| self.protocol(what)),
            }
        };
        self.within(self.options.idle_timeout, exchange).await
    }
}

/// A body with the length of its JSON part when bytes follow.
struct Body {
    bytes: Bytes,
    header_length: Option<usize>,
}

fn encode(request: &InferRequest) -> Result<Body> {
    let binary = request.encoding == Encoding::Binary;
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for tensor in &request.inputs {
        let mut input = Map::new();
        input.insert("name".into(), tensor.name().into());
        input.insert("datatype".into(), tensor.datatype().name().into());
        input.insert("shape".into(), tensor.shape().dims().into());
        if binary {
            input.insert("parameters".into(), serde_json::json!({ "binary_data_size": tensor.data().len() }));
        } else {
            let data = json::data(tensor).map_err(|what| Error::Tensor { tensor: tensor.name().to_owned(), what })?;
            input.insert("data".into(), data);
        }
        inputs.push(Value::Object(input));
    }
    let mut head = Map::new();
    if let Some(id) = &request.id {
        head.insert("id".into(), id.as_str().into());
    }
    head.insert("inputs".into(), inputs.into());
    if request.outputs.is_empty() {
        head.insert("parameters".into(), serde_json::json!({ "binary_data_output": binary }));
    } else {
        let outputs = request.outputs.iter().map(|name| serde_json::json!({ "name": name, "parameters": { "binary_data": binary } }));
        head.insert("outputs".into(), outputs.collect());
    }
    let head = Value::Object(head).to_string();
    if !binary {
        return Ok(Body { bytes: head.into(), header_length: None });
    }
    let length = head.len();
    let mut bytes = BytesMut::with_capacity(length + request.inputs.iter().map(|t| t.data().len()).sum::<usize>());
    bytes.put_slice(head.as_bytes());
    for tensor in &request.inputs {
        bytes.put_slice(tensor.data());
    }
    Ok(Body { bytes: bytes.freeze(), header_length: Some(length) })
}

fn decode(body: &Bytes, header_length: Option<usize>) -> Result<InferResponse, String> {
    let split = header_length.unwrap_or(body.len());
    let mut rest = body.slice(split..);
    let head: ResponseHead = serde_json::from_slice(&body[..split]).map_err(|e| format!("its JSON is not what was expected: {e}"))?;
    let mut outputs = Vec::with_capacity(head.outputs.len());
    for output in head.outputs {
        let of = |what: &str| format!("the output '{}' {what}", crate::client::printable(&output.name));
        let data = match (output.parameters.get("binary_data_size"), &output.data) {
            (Some(size), None) => {
                let size = size.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= rest.len());
                rest.split_to(size.ok_or_else(|| of("announces more bytes than there are"))?)
            }
            (None, Some(data)) => json::bytes(output.datatype, data).map_err(|what| of(&what))?.into(),
            _ => return Err(of("has neither data nor binary data")),
        };
        let tensor = Tensor::new(output.name.clone(), output.datatype, output.shape, data)
            .map_err(|e| of(&format!("does not hold together: {e}")))?;
        outputs.push(tensor);
    }
    if !rest.is_empty() {
        return Err(format!("{} bytes follow its last output", rest.len()));
    }
    Ok(InferResponse { model_name: head.model_name, model_version: head.model_version, id: head.id, outputs })
}

#[cfg(test)]
mod tests;
