//! The words of Plinth as types that cannot be built wrong.
//!
//! Everything that comes from outside becomes one of these before any other code sees it: a value
//! of [`Digest`], [`ModelName`], [`ArtifactPath`], [`OutboundUrl`], [`TensorSpec`], [`Tensor`] or
//! [`CacheKey`] exists only because its parser accepted it, so no later code checks it again.
//!
//! This crate does no IO, reads no clock and draws no randomness.
#![warn(missing_docs)]

pub mod cache_key;
pub mod datatype;
pub mod digest;
pub mod error;
pub mod id;
pub mod name;
pub mod outbound_url;
pub mod parameter;
pub mod path;
pub mod tensor;
pub mod timestamp;
pub mod trace;
pub mod units;
pub mod version;

pub use cache_key::{CacheKey, CacheScope};
pub use datatype::DataType;
pub use digest::{Digest, DigestHasher};
pub use error::{Class, Error, Flaw, Reason, Result};
pub use id::{KeyId, RequestId};
pub use name::{AliasName, Label, ModelName, TenantName};
pub use outbound_url::{OutboundPolicy, OutboundUrl};
pub use parameter::{Parameter, Parameters};
pub use path::ArtifactPath;
pub use tensor::{Dim, Shape, Tensor, TensorSpec};
pub use timestamp::Timestamp;
pub use trace::{SpanId, TraceContext, TraceId};
pub use units::ByteSize;
pub use version::VersionNumber;
