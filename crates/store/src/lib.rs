//! Ports to durable things, each with an embedded and a remote adapter and one conformance suite.
//!
//! [`metadata`] is the ledger: records with revisions, changed only by audited transactions.
//! [`objects`] holds the bytes of artifacts by their digest. [`cache`] holds answers for a while. [`limits`] counts
//! what nodes share. [`resources`] gives the shapes of the
//! records as they lie in the ledger. Invariant: when a write returns `Ok`, it is committed and synced.
//!
//! What a record *means* and who may change it is left to the services above.
#![warn(missing_docs)]

pub mod cache;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod durable;
#[cfg(test)]
mod faults;
pub mod limits;
pub mod metadata;
pub mod objects;
pub mod resources;

pub use cache::Cache;
pub use metadata::{Metadata, MetadataError};
pub use objects::{Objects, ObjectsError};
