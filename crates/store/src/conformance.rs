//! What every adapter of a port must keep, as functions that an adapter's tests call.
//!
//! Each suite takes a function that makes a fresh, empty store and panics at the first promise that is not kept. Faults
//! (a full disk, a killed process) are left to the adapters' own tests: they know how to bring them about.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a conformance suite is a test")]

mod cache;
mod leases;
mod metadata;
mod objects;

pub use cache::{cache, cache_key};
pub use leases::leases;
pub use metadata::metadata;
pub use objects::objects;
