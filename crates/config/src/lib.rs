//! File and environment to validated values; the only reader of the environment.
//!
//! One table ([`keys`]) names every key with its type, default and meaning; parsing, `config show`
//! and the reference page all come from it. Invariant: a [`Config`] exists only when every key and
//! every rule between keys holds, and it never changes afterwards; it is passed into constructors,
//! there is no global. What changes while a node runs (models, keys, policies) is not here: that is
//! in the registry. Whether files and directories exist is left to those who open them.
#![warn(missing_docs)]

pub mod client;
pub mod keys;
pub mod kinds;
pub mod problem;
pub mod process;
pub mod setting;
pub mod show;

mod check;
mod input;

pub use client::ClientSettings;
pub use keys::Config;
pub use kinds::{AuthMode, Backend, BusUrl, CacheUrl, LimitsUrl, LogFormat, MetadataUrl, ObjectsUrl, Provider, Role, Secret, Share};
pub use problem::{Origin, Problem};
pub use show::{Shown, reference_markdown};

#[cfg(test)]
mod tests;
