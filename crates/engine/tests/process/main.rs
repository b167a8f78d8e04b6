//! Servers as model versions: real processes out of Python's standard library, real walls, real deaths.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stop at the first surprise, as the tests do")]

mod ends;
mod example;
mod grpc;
mod health;
mod hostile;
mod protocols;
mod start;
mod support;
mod walls;
