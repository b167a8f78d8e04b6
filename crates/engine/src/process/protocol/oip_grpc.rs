//! Open Inference Protocol over gRPC, tensors as raw contents.
//!
//! Source: `inference.GRPCInferenceService` and "gRPC over HTTP/2". One connection carries all calls; each message has a
//! byte that says whether it is compressed (never, here) and its length (`u32`, big-endian) before it.

mod message;

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use plinth_types::{Dim, Parameter, Shape, Tensor, TensorSpec, TraceContext};
use prost::Message;

use super::{Call, Failure, MAX_DESCRIPTION, specs};
use crate::process::client::{Ask, CallError, Http};
use crate::process::manifest::Manifest;
use crate::spec::{ModelMetadata, RunnerError};
use message::{
    InferInput, InferParameter, InferRequest, InferResponse, MetadataRequest, MetadataResponse, ParameterChoice, ReadyRequest,
    ReadyResponse, RequestedOutput, TensorMetadata,
};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The most milliseconds that fit the eight digits of a time-out.
const MAX_MILLIS: u128 = 99_999_999;
const PREFIX: usize = 5;

pub(crate) struct OipGrpc {
    http: Http,
    model: String,
    version: String,
    health: Option<String>,
}

impl OipGrpc {
    pub(super) fn new(http: Http, model: String, manifest: &Manifest) -> Self {
        let version = manifest.model_version.clone().unwrap_or_default();
        Self { http, model, version, health: manifest.health.path.clone() }
    }

    pub(super) async fn is_well(&self) -> Result<bool, CallError> {
        if let Some(path) = &self.health {
            return Ok(self.http.call(Ask::get(path), MAX_DESCRIPTION).await?.status == StatusCode::OK);
        }
        let request = ReadyRequest { name: self.model.clone(), version: self.version.clone() };
        match self.call::<_, ReadyResponse>("ModelReady", &request, MAX_DESCRIPTION, None).await {
            Ok(answer) => Ok(answer.ready),
            Err(Failure::Call(error)) => Err(error),
            Err(Failure::Said(_)) => Ok(false),
        }
    }

    /// `None` when the server has no such description.
    pub(super) async fn metadata(&self) -> Result<Option<ModelMetadata>, Failure> {
        let request = MetadataRequest { name: self.model.clone(), version: self.version.clone() };
        let answer: MetadataResponse = match self.call("ModelMetadata", &request, MAX_DESCRIPTION, None).await {
            Ok(answer) => answer,
            Err(Failure::Said(RunnerError::BrokeProtocol(text))) => return Err(Failure::Said(RunnerError::BrokeProtocol(text))),
            Err(Failure::Said(_)) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let lists = [answer.inputs, answer.outputs].map(|list| list.into_iter().map(spec).collect::<Result<Vec<_>, _>>());
        let [inputs, outputs] = lists;
        specs([inputs.map_err(Failure::nonsense)?, outputs.map_err(Failure::nonsense)?], crate::check::text(&answer.platform)).map(Some)
    }

    pub(super) async fn infer(&self, call: Call<'_>) -> Result<Vec<Tensor>, Failure> {
        let tensors = call.inputs.iter();
        let request = InferRequest {
            model_name: self.model.clone(),
            model_version: self.version.clone(),
            id: String::new(),
            parameters: call.parameters.iter().map(|(name, value)| (name.clone(), parameter(value))).collect(),
            inputs: tensors.clone().map(input).collect(),
            outputs: call.outputs.iter().map(|name| RequestedOutput { name: name.clone() }).collect(),
            raw_input_contents: tensors.map(|tensor| tensor.data().clone()).collect(),
        };
        let answer: InferResponse = self.call("ModelInfer", &request, call.max_answer, Some((call.left, call.trace))).await?;
        tensors_of(answer).map_err(Failure::nonsense)
    }

    async fn call<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        max: u64,
        waits: Option<(Duration, Option<TraceContext>)>,
    ) -> Result<A, Failure> {
        let path = format!("/inference.GRPCInferenceService/{method}");
        let body = encode(request).ok_or_else(|| Failure::input("the inputs are more than a request can carry"))?;
        let mut ask = Ask::post(&path, "application/grpc", vec![body]).traced(waits.and_then(|(_, trace)| trace));
        ask.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        if let Some((left, _)) = waits
            && let Ok(value) = HeaderValue::try_from(format!("{}m", left.as_millis().clamp(1, MAX_MILLIS)))
        {
            ask.headers.insert(TIMEOUT, value);
        }
        let answer = self.http.call(ask, max).await?;
        if answer.status != StatusCode::OK {
            return Err(Failure::nonsense(format!("status {}", answer.status.as_u16())));
        }
        // A call without a message has its trailers for headers.
        let told = if answer.trailers.contains_key(&STATUS) { &answer.trailers } else { &answer.headers };
        match code(told) {
            Some(0) => decode(answer.body).map_err(Failure::nonsense),
            Some(code) => Err(refused(code, words(told))),
            None => Err(Failure::nonsense("an answer without a status")),
        }
    }
}

fn encode(message: &impl Message) -> Option<Bytes> {
    let length = message.encoded_len();
    let mut body = BytesMut::with_capacity(PREFIX + length);
    body.put_u8(0);
    body.put_u32(u32::try_from(length).ok()?);
    message.encode(&mut body).ok()?;
    Some(body.freeze())
}

fn decode<A: Message + Default>(mut body: Bytes) -> Result<A, String> {
    if body.len() < PREFIX {
        return Err("an answer without a message".to_owned());
    }
    if body.get_u8() != 0 {
        return Err("a compressed message that nobody asked for".to_owned());
    }
    if body.get_u32() as usize != body.len() {
        return Err("not exactly one message".to_owned());
    }
    A::decode(body).map_err(|error| error.to_string())
}

fn code(headers: &HeaderMap) -> Option<u32> {
    headers.get(&STATUS)?.to_str().ok()?.parse().ok()
}

/// What a server says of a failure; percent-encoded UTF-8.
fn words(headers: &HeaderMap) -> String {
    let bytes = headers.get(&MESSAGE).map_or(&b""[..], HeaderValue::as_bytes);
    let (mut plain, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    crate::check::text(&String::from_utf8_lossy(&plain))
}

/// What a status other than 0 means.
fn refused(code: u32, words: String) -> Failure {
    let words = if words.is_empty() { format!("its server answered with gRPC status {code}") } else { words };
    Failure::Said(match code {
        // INVALID_ARGUMENT, OUT_OF_RANGE
        3 | 11 => RunnerError::Input(words),
        // DEADLINE_EXCEEDED
        4 => RunnerError::Deadline("running"),
        // RESOURCE_EXHAUSTED, UNAVAILABLE
        8 | 14 => RunnerError::QueueFull,
        _ => RunnerError::Execution(words),
    })
}

fn spec(tensor: TensorMetadata) -> Result<TensorSpec, String> {
    let datatype = tensor.datatype.parse().map_err(|_| "an unknown data type".to_owned())?;
    let dim = |size: &i64| match size {
        -1 => Ok(Dim::Any),
        size => u64::try_from(*size).map(Dim::Fixed).map_err(|_| "a negative dimension".to_owned()),
    };
    let shape = tensor.shape.iter().map(dim).collect::<Result<_, _>>()?;
    TensorSpec::new(tensor.name, datatype, shape).map_err(|error| error.to_string())
}

fn input(tensor: &Tensor) -> InferInput {
    InferInput {
        name: tensor.name().to_owned(),
        datatype: tensor.datatype().name().to_owned(),
        // A shape's product fits i64, and so does each of its dimensions.
        shape: tensor.shape().dims().iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX)).collect(),
    }
}

fn parameter(value: &Parameter) -> InferParameter {
    let choice = match value {
        Parameter::Bool(value) => ParameterChoice::Bool(*value),
        Parameter::Int(value) => ParameterChoice::Int64(*value),
        // Old servers know signed numbers only.
        Parameter::Uint(value) => i64::try_from(*value).map_or(ParameterChoice::Uint64(*value), ParameterChoice::Int64),
        Parameter::Double(value) => ParameterChoice::Double(*value),
        Parameter::Text(value) => ParameterChoice::String(value.clone()),
    };
    InferParameter { choice: Some(choice) }
}

fn tensors_of(answer: InferResponse) -> Result<Vec<Tensor>, String> {
    let InferResponse { outputs, raw_output_contents: raw } = answer;
    if !raw.is_empty() && raw.len() != outputs.len() {
        return Err(format!("{} outputs with {} raw contents", outputs.len(), raw.len()));
    }
    let mut raw = raw.into_iter();
    let mut tensor = |output: message::InferOutput| {
        let datatype = output.datatype.parse().map_err(|_| "an unknown data type".to_owned())?;
        let dims = output.shape.iter().map(|dim| u64::try_from(*dim).map_err(|_| "a negative dimension".to_owned()));
        let shape = Shape::new(dims.collect::<Result<_, _>>()?).map_err(|error| error.to_string())?;
        let data = match (raw.next(), output.contents) {
            (Some(raw), _) => raw,
            (None, Some(contents)) => contents.bytes(datatype)?.into(),
            (None, None) => Bytes::new(),
        };
        Tensor::new(output.name, datatype, shape, data).map_err(|error| error.to_string())
    };
    outputs.into_iter().map(&mut tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_message_exactly() {
        let request = ReadyRequest { name: "m".to_owned(), version: String::new() };
        let bytes = encode(&request).unwrap();
        assert_eq!(decode::<ReadyRequest>(bytes.clone()).unwrap(), request);
        assert!(decode::<ReadyRequest>(bytes.slice(..bytes.len() - 1)).is_err());
        assert!(decode::<ReadyRequest>([&bytes[..], b"x"].concat().into()).is_err());
        assert!(decode::<ReadyRequest>([&[1u8], &bytes[1..]].concat().into()).is_err());
        assert!(decode::<ReadyRequest>(Bytes::new()).is_err());
    }

    #[test]
    fn words_are_decoded() {
        let with = |text: &str| words(&HeaderMap::from_iter([(MESSAGE, HeaderValue::from_str(text).unwrap())]));
        assert_eq!(with("100%25 wrong%0A%C3%A9 %zz%"), "100% wrong é %zz%");
    }

    proptest! {
        #[test]
        fn hostile_answers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(answer) = InferResponse::decode(&bytes[..]) {
                let _ = tensors_of(answer);
            }
            let _ = decode::<InferResponse>(bytes.into());
        }
    }
}
