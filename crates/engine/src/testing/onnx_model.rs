//! Tiny ONNX models, built as protocol buffers, so that no binary lies in the repository and no Python is needed.
//!
//! Only what the tests of Plinth use; not a general builder. Field numbers: `onnx.proto`.

use std::collections::BTreeMap;

use plinth_types::{DataType, Dim};
use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSet>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSet {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(int32, tag = "20")]
    r#type: i32,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<KeyValue>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
    #[prost(message, optional, boxed, tag = "4")]
    sequence: Option<Box<SequenceType>>,
}

#[derive(Clone, PartialEq, Message)]
struct SequenceType {
    #[prost(message, optional, boxed, tag = "1")]
    element: Option<Box<TypeProto>>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShape>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    param: Option<String>,
}

/// A model under construction.
#[derive(Debug, Clone)]
pub struct ModelBuilder {
    graph: GraphProto,
}

/// ONNX's number for a type.
const fn element(datatype: DataType) -> i32 {
    match datatype {
        DataType::Fp32 => 1,
        DataType::Uint8 => 2,
        DataType::Int8 => 3,
        DataType::Uint16 => 4,
        DataType::Int16 => 5,
        DataType::Int32 => 6,
        DataType::Int64 => 7,
        DataType::Bytes => 8,
        DataType::Bool => 9,
        DataType::Fp16 => 10,
        DataType::Fp64 => 11,
        DataType::Uint32 => 12,
        DataType::Uint64 => 13,
        DataType::Bf16 => 16,
    }
}

fn value(name: &str, elem_type: i32, shape: &[Dim]) -> ValueInfo {
    let dimension = |(i, dim): (usize, &Dim)| match dim {
        Dim::Fixed(n) => Dimension { value: i64::try_from(*n).ok(), param: None },
        Dim::Any => Dimension { value: None, param: Some(format!("d{i}")) },
    };
    let shape = TensorShape { dim: shape.iter().enumerate().map(dimension).collect() };
    let tensor = TensorType { elem_type, shape: Some(shape) };
    ValueInfo { name: name.to_owned(), r#type: Some(TypeProto { tensor: Some(tensor), sequence: None }) }
}

impl Default for ModelBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ModelBuilder {
    /// An empty graph.
    #[must_use]
    pub fn new() -> Self {
        Self { graph: GraphProto { name: "test".to_owned(), ..GraphProto::default() } }
    }

    /// Adds an input.
    #[must_use]
    pub fn input(self, name: &str, datatype: DataType, shape: &[Dim]) -> Self {
        self.input_of(name, element(datatype), shape)
    }

    /// Adds an input whose element type is one of ONNX's numbers, known to Plinth or not.
    #[must_use]
    pub fn input_of(mut self, name: &str, elem_type: i32, shape: &[Dim]) -> Self {
        self.graph.input.push(value(name, elem_type, shape));
        self
    }

    /// Adds an input that is a sequence of FP32 tensors.
    #[must_use]
    pub fn sequence_input(mut self, name: &str) -> Self {
        let element = value("", element(DataType::Fp32), &[Dim::Any]).r#type.map(Box::new);
        let kind = TypeProto { tensor: None, sequence: Some(Box::new(SequenceType { element })) };
        self.graph.input.push(ValueInfo { name: name.to_owned(), r#type: Some(kind) });
        self
    }

    /// Adds an output.
    #[must_use]
    pub fn output(mut self, name: &str, datatype: DataType, shape: &[Dim]) -> Self {
        self.graph.output.push(value(name, element(datatype), shape));
        self
    }

    /// Adds a node of the standard operators without attributes.
    #[must_use]
    pub fn node(self, op: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        self.node_with(op, inputs, outputs, &BTreeMap::new())
    }

    /// Adds a node with integer attributes.
    #[must_use]
    pub fn node_with(mut self, op: &str, inputs: &[&str], outputs: &[&str], attributes: &BTreeMap<&str, i64>) -> Self {
        const INT: i32 = 2;
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        self.graph.node.push(NodeProto {
            input: owned(inputs),
            output: owned(outputs),
            name: format!("/{}/{op}", self.graph.node.len()),
            op_type: op.to_owned(),
            attribute: attributes.iter().map(|(name, i)| AttributeProto { name: (*name).to_owned(), i: *i, r#type: INT }).collect(),
        });
        self
    }

    /// Adds weights; `dims` and `data` need not fit each other.
    #[must_use]
    pub fn weights(mut self, name: &str, datatype: DataType, dims: &[i64], data: Vec<u8>) -> Self {
        let tensor = TensorProto {
            dims: dims.to_vec(),
            data_type: element(datatype),
            name: name.to_owned(),
            raw_data: data,
            ..TensorProto::default()
        };
        self.graph.initializer.push(tensor);
        self
    }

    /// Adds FP32 weights that are said to lie in another file.
    #[must_use]
    pub fn external_weights(mut self, name: &str, dims: &[i64], file: &str) -> Self {
        let place = KeyValue { key: "location".to_owned(), value: file.to_owned() };
        self.graph.initializer.push(TensorProto {
            dims: dims.to_vec(),
            data_type: element(DataType::Fp32),
            name: name.to_owned(),
            external_data: vec![place],
            data_location: 1,
            ..TensorProto::default()
        });
        self
    }

    /// The bytes of `model.onnx`.
    #[must_use]
    pub fn build(self) -> Vec<u8> {
        let opset = OperatorSet { domain: String::new(), version: 21 };
        let producer_name = "plinth tests".to_owned();
        ModelProto { ir_version: 10, producer_name, graph: Some(self.graph), opset_import: vec![opset] }.encode_to_vec()
    }
}

/// `y` is `x`.
#[must_use]
pub fn identity(datatype: DataType, shape: &[Dim]) -> Vec<u8> {
    ModelBuilder::new().input("x", datatype, shape).output("y", datatype, shape).node("Identity", &["x"], &["y"]).build()
}

/// FP32: `sum` is `a + b`, `product` is `a * b`, broadcast.
#[must_use]
pub fn arithmetic() -> Vec<u8> {
    let any = [Dim::Any];
    ModelBuilder::new()
        .input("a", DataType::Fp32, &any)
        .input("b", DataType::Fp32, &any)
        .output("sum", DataType::Fp32, &any)
        .output("product", DataType::Fp32, &any)
        .node("Add", &["a", "b"], &["sum"])
        .node("Mul", &["a", "b"], &["product"])
        .build()
}

/// FP32: `y` is `x + offset`; two models with different offsets are told apart by their answers.
#[must_use]
pub fn offset(offset: f32) -> Vec<u8> {
    ModelBuilder::new()
        .input("x", DataType::Fp32, &[Dim::Any])
        .output("y", DataType::Fp32, &[Dim::Any])
        .weights("offset", DataType::Fp32, &[1], offset.to_le_bytes().to_vec())
        .node("Add", &["x", "offset"], &["y"])
        .build()
}
