//! The Open Inference Protocol V2 over HTTP, in Triton's dialect: bodies to tensors and back, and the routes.
//!
//! Source: the Open Inference Protocol V2 (REST), and Triton's extensions for binary tensor data, classification,
//! parameters, model configuration and model repository.
//!
//! Invariants: tensor bytes of a request are slices of its one body; what is allocated for a body is bounded by the body's
//! length, never by a number that it states; every refusal names the field. Which model answers, and whether the tensors
//! fit it, is left to `serving`.

mod classification;
mod data;
pub mod error;
pub(crate) mod execute;
mod generate;
pub mod grpc;
pub(crate) mod infer_bytes;
pub mod logging;
pub mod metadata;
pub mod parameters;
mod repository;
pub mod request;
pub mod response;
mod routes;
mod scan;
pub mod shared_memory;
mod statistics;
pub mod trace;

pub use parameters::{Parameter, Parameters};
pub use request::{InferCall, RequestedOutput, header_length};
pub use response::{InferReply, InferResult, Labels};
pub use routes::routes;

/// The header that says how many bytes at the body's beginning are JSON.
pub const HEADER_LENGTH: &str = "inference-header-content-length";
