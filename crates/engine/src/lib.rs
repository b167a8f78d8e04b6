//! Executing models: the Backend contract, the runner process with its channel, and the backends.
//!
//! A [`Runner`] is a child process of the same binary that holds one loaded model version. The node
//! starts it from a [`RunnerSpec`], asks it through a channel and ends it in order to get the memory
//! back. Invariant: no byte of a model is parsed and no input executed in the node's own process, and
//! the runner parses only bytes whose digests are the ones in its specification.
//!
//! This is the only crate with `unsafe` code; each use says why it holds. When to start and stop a
//! runner, and what to do when one dies, is left to `serving` and `policy`.
#![warn(missing_docs)]

pub mod backend;
#[cfg(feature = "testing")]
pub mod conformance;
pub mod lane;
pub mod process;
pub mod runner;
pub mod spec;
#[cfg(feature = "testing")]
pub mod testing;

mod active_wait;
mod channel;
mod check;
mod child;
mod placement;
mod region;
mod sandbox;

pub use backend::{Backend, BackendError, LoadRequest, OutputPlace, Slot};
pub use child::runner_main;
pub use lane::{Batch, Done, Lane, LaneReceiver, LaneSender, Part, SendError, Timing};
pub use process::{Occasion, ProcessServer, ProcessSpec, TextStream};
pub use runner::Runner;
pub use runner::process::RUNNER_COMMAND;
pub use spec::{BackendKind, FileSpec, ModelMetadata, Provider, RunnerError, RunnerExit, RunnerSpec, SandboxReport};
