//! Puts the roles together: the order of start and of stop.
//!
//! [`run`] is the whole life of a node. Each part builds itself; this crate decides who is handed
//! what, in which order they start, and in which order they end. It implements the small traits by
//! which services ask for each other: serving's `VersionSource`, the API's `Verifier` and `Probe`.

mod announce;
mod artifacts;
mod background;
mod bootstrap;
mod data_dir;
mod edge;
mod events;
mod filters;
mod hangup;
mod issuers;
mod jobs;
mod ledger;
mod library;
mod load;
mod options;
mod probe;
mod run;
mod wishes;

pub use announce::{Announce, Announcement};
pub use data_dir::Addresses;
pub use library::{LibraryNotFound, find_onnxruntime};
pub use run::{NodeOptions, run};
