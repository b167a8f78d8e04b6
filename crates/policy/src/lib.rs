//! Decisions without IO: `(state, event, now) → (state, decision)`.
//!
//! Everything here is pure: no clock is read, nothing is spawned, nothing is stored. Callers on
//! higher floors hand the time in and carry the decision out, so each rule is tested by table and
//! by random histories.
#![warn(missing_docs)]

pub mod balance;
pub mod batching;
pub mod jobs;
pub mod limits;
pub mod memory;
pub mod overload;
pub mod placement;
pub mod poison;
pub mod resilience;
pub mod supervision;

pub use placement::{Phase, Plan, Wish};
pub use supervision::{CrashHistory, CrashLimits, Verdict};
