//! The messages of `inference.GRPCInferenceService` that a client of one model needs, by their numbers in the protocol.
//!
//! Fields that are not used here are left out; they are skipped when they come.

use std::collections::BTreeMap;

use bytes::Bytes;
use plinth_types::DataType;
use plinth_types::tensor::push_byte_element;

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct ReadyRequest {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct ReadyResponse {
    #[prost(bool, tag = "1")]
    pub ready: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct MetadataRequest {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct MetadataResponse {
    #[prost(string, tag = "3")]
    pub platform: String,
    #[prost(message, repeated, tag = "4")]
    pub inputs: Vec<TensorMetadata>,
    #[prost(message, repeated, tag = "5")]
    pub outputs: Vec<TensorMetadata>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct TensorMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub shape: Vec<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InferRequest {
    #[prost(string, tag = "1")]
    pub model_name: String,
    #[prost(string, tag = "2")]
    pub model_version: String,
    #[prost(string, tag = "3")]
    pub id: String,
    #[prost(btree_map = "string, message", tag = "4")]
    pub parameters: BTreeMap<String, InferParameter>,
    #[prost(message, repeated, tag = "5")]
    pub inputs: Vec<InferInput>,
    #[prost(message, repeated, tag = "6")]
    pub outputs: Vec<RequestedOutput>,
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub raw_input_contents: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InferParameter {
    #[prost(oneof = "ParameterChoice", tags = "1, 2, 3, 4, 5")]
    pub choice: Option<ParameterChoice>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum ParameterChoice {
    #[prost(bool, tag = "1")]
    Bool(bool),
    #[prost(int64, tag = "2")]
    Int64(i64),
    #[prost(string, tag = "3")]
    String(String),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(uint64, tag = "5")]
    Uint64(u64),
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct InferInput {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub shape: Vec<i64>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct RequestedOutput {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InferResponse {
    #[prost(message, repeated, tag = "5")]
    pub outputs: Vec<InferOutput>,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub raw_output_contents: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InferOutput {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub shape: Vec<i64>,
    #[prost(message, optional, tag = "5")]
    pub contents: Option<Contents>,
}

/// Elements by type, as servers answer that do not know raw contents.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Contents {
    #[prost(bool, repeated, tag = "1")]
    pub bool_contents: Vec<bool>,
    #[prost(int32, repeated, tag = "2")]
    pub int_contents: Vec<i32>,
    #[prost(int64, repeated, tag = "3")]
    pub int64_contents: Vec<i64>,
    #[prost(uint32, repeated, tag = "4")]
    pub uint_contents: Vec<u32>,
    #[prost(uint64, repeated, tag = "5")]
    pub uint64_contents: Vec<u64>,
    #[prost(float, repeated, tag = "6")]
    pub fp32_contents: Vec<f32>,
    #[prost(double, repeated, tag = "7")]
    pub fp64_contents: Vec<f64>,
    #[prost(bytes = "bytes", repeated, tag = "8")]
    pub bytes_contents: Vec<Bytes>,
}

impl Contents {
    /// The elements in wire form.
    ///
    /// # Errors
    /// A number that its type cannot hold, or a type that has no such form.
    pub(super) fn bytes(&self, datatype: DataType) -> Result<Vec<u8>, String> {
        fn narrow<T: Copy, N: TryFrom<T>, const S: usize>(list: &[T], bytes: impl Fn(N) -> [u8; S]) -> Result<Vec<u8>, String> {
            let each = list.iter().map(|value| N::try_from(*value).map(&bytes));
            each.collect::<Result<Vec<_>, _>>().map(|all| all.concat()).map_err(|_| "a number that its type cannot hold".to_owned())
        }
        match datatype {
            DataType::Bool => Ok(self.bool_contents.iter().map(|value| u8::from(*value)).collect()),
            DataType::Int8 => narrow(&self.int_contents, i8::to_le_bytes),
            DataType::Int16 => narrow(&self.int_contents, i16::to_le_bytes),
            DataType::Int32 => narrow(&self.int_contents, i32::to_le_bytes),
            DataType::Int64 => narrow(&self.int64_contents, i64::to_le_bytes),
            DataType::Uint8 => narrow(&self.uint_contents, u8::to_le_bytes),
            DataType::Uint16 => narrow(&self.uint_contents, u16::to_le_bytes),
            DataType::Uint32 => narrow(&self.uint_contents, u32::to_le_bytes),
            DataType::Uint64 => narrow(&self.uint64_contents, u64::to_le_bytes),
            DataType::Fp32 => narrow(&self.fp32_contents, f32::to_le_bytes),
            DataType::Fp64 => narrow(&self.fp64_contents, f64::to_le_bytes),
            DataType::Bytes => {
                let mut out = Vec::new();
                let push = |element: &Bytes| push_byte_element(&mut out, element).map_err(|error| error.to_string());
                self.bytes_contents.iter().try_for_each(push)?;
                Ok(out)
            }
            DataType::Fp16 | DataType::Bf16 => Err(format!("{datatype} without raw contents")),
        }
    }
}
