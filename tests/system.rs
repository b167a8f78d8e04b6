//! Whole-system tests: the real binary, real processes, real files.
//!
//! One test program, so that it links once; a module for each kind of test. Every test starts its
//! own node in its own directory on ports that the system chooses, and ends the processes that it started.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "test code: its helpers fail by panicking, and it has no World that would hand in clock and tasks"
)]

mod support;

mod bad_input;
mod batching;
mod bulk;
mod cache;
mod cli;
mod clients;
mod e2e;
mod faults;
mod filters;
mod gateway;
mod hangup;
mod identity;
mod jobs;
mod memory;
mod pipelines;
mod protocol;
mod remote;
mod resources;
mod trust;
