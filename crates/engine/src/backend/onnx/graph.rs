//! A look at an ONNX file before ONNX Runtime sees it.
//!
//! Decodes only the skeleton of the protocol buffer: no weight is copied, and the decoder's own limit ends deep nesting.
//! It refuses with a clear text what could not be served: weights in other files, and inputs or outputs that are no
//! tensors of our element types. Whether the graph makes sense is ONNX Runtime's to say.
//!
//! Field numbers: `onnx.proto` of ONNX, IR version 13.

use prost::Message;

use super::BackendError;

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "25")]
    functions: Vec<Function>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Weights>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<Value>,
    #[prost(message, repeated, tag = "15")]
    sparse_initializer: Vec<SparseWeights>,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(message, repeated, tag = "7")]
    node: Vec<Node>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(message, optional, tag = "5")]
    tensor: Option<Weights>,
    #[prost(message, optional, boxed, tag = "6")]
    graph: Option<Box<Graph>>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<Weights>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<Graph>,
    #[prost(message, optional, tag = "22")]
    sparse: Option<SparseWeights>,
    #[prost(message, repeated, tag = "23")]
    sparses: Vec<SparseWeights>,
}

#[derive(Clone, PartialEq, Message)]
struct Weights {
    #[prost(int32, tag = "14")]
    location: i32,
}

#[derive(Clone, PartialEq, Message)]
struct SparseWeights {
    #[prost(message, optional, tag = "1")]
    values: Option<Weights>,
    #[prost(message, optional, tag = "2")]
    indices: Option<Weights>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
    #[prost(message, optional, tag = "4")]
    sequence: Option<Present>,
    #[prost(message, optional, tag = "5")]
    map: Option<Present>,
    #[prost(message, optional, tag = "8")]
    sparse: Option<Present>,
    #[prost(message, optional, tag = "9")]
    optional: Option<Present>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elements: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Present {}

/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: i32 = 1;

/// The names of `TensorProto.DataType`s that cannot be served, for the error's text.
const UNSERVED: [(i32, &str); 12] = [
    (14, "COMPLEX64"),
    (15, "COMPLEX128"),
    (17, "FLOAT8E4M3FN"),
    (18, "FLOAT8E4M3FNUZ"),
    (19, "FLOAT8E5M2"),
    (20, "FLOAT8E5M2FNUZ"),
    (21, "UINT4"),
    (22, "INT4"),
    (23, "FLOAT4E2M1"),
    (24, "FLOAT8E8M0"),
    (25, "UINT2"),
    (26, "INT2"),
];

/// Refuses what cannot be served.
pub(super) fn inspect(bytes: &[u8]) -> Result<(), BackendError> {
    let bad = |text: String| BackendError::Load(text);
    let model = Model::decode(bytes).map_err(|error| bad(format!("model.onnx is not an ONNX model: {error}")))?;
    let graph = model.graph.as_ref().ok_or_else(|| bad("model.onnx is not an ONNX model: it has no graph".to_owned()))?;
    let external = graph.has_external() || model.functions.iter().any(|f| f.node.iter().any(Node::has_external));
    if external {
        let text = "the model keeps weights in other files, which is not supported: save it as one file (onnx.save_model(model, path, save_as_external_data=False))";
        return Err(bad(text.to_owned()));
    }
    for (role, values) in [("input", &graph.input), ("output", &graph.output)] {
        for value in values {
            value.servable().map_err(|why| bad(format!("the model's {role} '{}' is {why}, which is not supported", value.name)))?;
        }
    }
    Ok(())
}

impl Graph {
    fn has_external(&self) -> bool {
        self.initializer.iter().any(Weights::is_external)
            || self.sparse_initializer.iter().any(SparseWeights::is_external)
            || self.node.iter().any(Node::has_external)
    }
}

impl Node {
    fn has_external(&self) -> bool {
        self.attribute.iter().any(|a| {
            a.tensor.iter().chain(&a.tensors).any(Weights::is_external)
                || a.sparse.iter().chain(&a.sparses).any(SparseWeights::is_external)
                || a.graph.as_deref().into_iter().chain(&a.graphs).any(Graph::has_external)
        })
    }
}

impl Weights {
    const fn is_external(&self) -> bool {
        self.location == EXTERNAL
    }
}

impl SparseWeights {
    fn is_external(&self) -> bool {
        self.values.iter().chain(&self.indices).any(Weights::is_external)
    }
}

impl Value {
    fn servable(&self) -> Result<(), String> {
        let Some(kind) = &self.r#type else { return Ok(()) };
        let others =
            [(&kind.sequence, "a sequence"), (&kind.map, "a map"), (&kind.sparse, "a sparse tensor"), (&kind.optional, "an optional")];
        if let Some((_, other)) = others.into_iter().find(|(present, _)| present.is_some()) {
            return Err(other.to_owned());
        }
        let elements = kind.tensor.as_ref().map_or(0, |t| t.elements);
        let unserved = UNSERVED.iter().find(|(number, _)| *number == elements);
        unserved.map_or(Ok(()), |(_, name)| Err(format!("a tensor of {name}")))
    }
}
