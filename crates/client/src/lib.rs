//! The typed client of the admin API and of inference, used by the command line and by tests.
//!
//! [`wire`] is the contract: the bodies that the admin API takes and gives. The server's side
//! (`api::admin`) builds the same types, so the two cannot drift apart. [`Client`] has one method for each route;
//! [`Plan`] and [`Client::push`] turn a directory into a version.
//!
//! Invariants: every call ends, because each wait has a deadline; every answer is read up to a limit; a request that
//! changes something is sent at most once, except the upload of a blob and the submission of jobs under a key, which are the
//! same whenever they are repeated.
//! What to print, and where keys come from, is left to the command line.
#![warn(missing_docs)]

mod admin;
mod blobs;
mod client;
pub mod error;
pub mod files;
mod filters;
pub mod jobs;
mod models;
pub mod oip;
pub mod plan;
pub mod push;
mod transport;
mod versions;
pub mod wire;

pub use blobs::{BlobSource, BlobUpload};
pub use client::{Client, Options, Paging};
pub use error::Error;
pub use plan::Plan;
pub use plinth_config::Secret;
pub use push::{Push, PushEvent, Pushed};

/// A result of this client.
pub type Result<T, E = Error> = std::result::Result<T, E>;
