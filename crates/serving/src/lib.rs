//! Keeps the wished versions loaded in runners and answers inferences.
//!
//! A node hands in wishes ([`ModelWish`]) taken from its snapshot and a [`VersionSource`] that gives
//! verified files; [`Serving`] does the rest: load, warm up, swap without a failed request, restart
//! what crashed, quarantine what crashes too often, give memory back. Invariants: a version that
//! answers is not taken away before another can answer; no file is read before the source has
//! accepted its version; the request path takes no lock.
//!
//! The rules themselves are in `policy`; protocols are in `api`.
#![warn(missing_docs)]

mod batch;
pub mod cache;
mod executor;
mod instance;
mod labels;
mod loader;
pub mod memory;
pub mod model_config;
pub mod pipeline;
mod reconciler;
pub mod sequence;
mod serving;
pub mod shared_memory;
mod slot;
mod source;
pub mod statistics;
mod table;
mod wish;

pub use cache::{CacheUse, ResponseCache};
pub use instance::Instance;
pub use labels::Labels;
pub use memory::{DeviceMemory, MemoryReport, VersionMemory};
pub use model_config::ModelConfig;
pub use pipeline::{Pipeline, PipelineLimits, StepView, Steps};
pub use sequence::{SequenceControl, SequenceId};
pub use serving::{InferAnswer, InferRequest, ProcessOptions, Serving, ServingOptions};
pub use shared_memory::{RegionOptions, Regions};
pub use source::{LocalVersion, Purpose, VersionRef, VersionSource};
pub use statistics::ModelStatistics;
pub use table::{ModelRow, State, Table, VersionReport, VersionRow};
pub use wish::ModelWish;
