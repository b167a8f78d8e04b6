//! Durable jobs: work that outlives the request.
//!
//! [`JobService`] is what callers see: submit, look, wait, cancel, replay, schedule. [`Worker`] is what does the work: it claims from the ledger
//! (`plinth_queue`), runs a [`Handler`] for each kind, keeps the leases alive and writes the ends. [`Blobs`] keeps what is too large for a row.
//! Kinds that need no code are here ([`http_kind`], [`webhook_kind`]); that of inference is in `api`, which knows its protocols.
//!
//! Invariants: what a worker writes carries the epoch under which it holds the job; a result larger than a row is in the object store before the
//! ledger names it; the bell only wakes, and everything goes on without it, at most one poll later.
#![warn(missing_docs)]

mod bell;
mod blobs;
mod error;
mod estimate;
mod follow;
mod handler;
pub mod http_kind;
mod limits;
mod request;
mod schedules;
mod service;
mod sweeper;
#[cfg(test)]
mod tests;
mod waiting;
pub mod webhook_kind;
pub mod webhooks;
mod worker;

pub use bell::Bell;
pub use blobs::{Blobs, META_TYPE, Meta};
pub use error::from_queue;
pub use handler::{Handler, Input, JobContext, JobError, Kind, Kinds, Output, Reporter, typed};
pub use limits::JobLimits;
pub use request::{JobRequest, RetryRequest, Submit, WebhookRequest};
pub use schedules::{ScheduleRequest, ScheduleView};
pub use service::{JobService, ServiceParts, Submitted, View};
pub use worker::{Worker, WorkerOptions, WorkerParts};
