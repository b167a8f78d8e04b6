//! The messages of `inference.GRPCInferenceService` that a request with one FP32 input needs, defined by hand.

use std::collections::BTreeMap;

use anyhow::Result;
use prost::Message;

use crate::body;
use crate::http2::Target;

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

#[derive(Clone, PartialEq, Message)]
struct ModelInferRequest {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(message, repeated, tag = "5")]
    inputs: Vec<InferTensor>,
    #[prost(message, repeated, tag = "6")]
    outputs: Vec<RequestedOutput>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    raw_input_contents: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct InferTensor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    datatype: String,
    #[prost(int64, repeated, tag = "3")]
    shape: Vec<i64>,
    #[prost(btree_map = "string, message", tag = "4")]
    parameters: BTreeMap<String, Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct RequestedOutput {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(btree_map = "string, message", tag = "2")]
    parameters: BTreeMap<String, Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(int64, optional, tag = "2")]
    number: Option<i64>,
    #[prost(string, optional, tag = "3")]
    text: Option<String>,
}

/// An inference with the input's bytes in the message.
pub fn infer(address: &str, key: Option<&str>, model: &str, input: &str, shape: &[usize]) -> Result<Target> {
    let request = ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![tensor(input, shape, BTreeMap::new())?],
        outputs: Vec::new(),
        raw_input_contents: vec![body::raw(shape)],
    };
    Target::new(address, INFER, key, &request.encode_to_vec())
}

/// An inference whose input lies at the beginning of a region and whose output goes behind it.
pub fn infer_shared(
    address: &str,
    key: Option<&str>,
    model: &str,
    (input, output): (&str, &str),
    shape: &[usize],
    region: &str,
) -> Result<Target> {
    let size = i64::try_from(shape.iter().product::<usize>() * 4)?;
    let number = |number| Parameter { number: Some(number), text: None };
    let place = |offset| {
        BTreeMap::from([
            ("shared_memory_region".to_owned(), Parameter { number: None, text: Some(region.to_owned()) }),
            ("shared_memory_offset".to_owned(), number(offset)),
            ("shared_memory_byte_size".to_owned(), number(size)),
        ])
    };
    let request = ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![tensor(input, shape, place(0))?],
        outputs: vec![RequestedOutput { name: output.to_owned(), parameters: place(size) }],
        raw_input_contents: Vec::new(),
    };
    Target::new(address, INFER, key, &request.encode_to_vec())
}

fn tensor(name: &str, shape: &[usize], parameters: BTreeMap<String, Parameter>) -> Result<InferTensor> {
    let shape = shape.iter().map(|n| Ok(i64::try_from(*n)?)).collect::<Result<_>>()?;
    Ok(InferTensor { name: name.to_owned(), datatype: "FP32".to_owned(), shape, parameters })
}
