//! Runners as processes: the real program, the real sandbox, real deaths.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stop at the first surprise, as the tests do")]

mod batches;
mod faults;
mod hostile;
mod lanes;
mod life;
mod models;
mod sandbox;
mod steps;
mod support;
