//! The durable queue: the ledger of jobs, in SQLite and in PostgreSQL.
//!
//! [`jobs`] is the ledger of work that outlives the request: submitted with its idempotency key in one transaction, claimed under an
//! epoch, ended under the same epoch. What is acknowledged is committed and synced, and what has gathered is committed together
//! ([`sqlite::GroupWriter`], which others may use for files of their own).
//!
//! It is a crate beside `store` because its writes are many and small where the ledger's are few and audited: it has a file (or tables) of its
//! own, a writer of its own and statements of its own. What a job does, who runs it and what a caller sees is left to `jobs` and `api`.
#![warn(missing_docs)]

#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a suite of tests: it fails by panicking")]
pub mod conformance;
mod error;
pub mod jobs;
#[cfg(any(test, feature = "testing"))]
pub mod simulation;
pub mod sqlite;

pub use error::QueueError;
pub use jobs::Jobs;
