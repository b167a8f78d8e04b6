//! From one request to a batch on a lane of the runner, and back.
//!
//! [`Dispatcher`] holds what waits for one loaded version. The decisions (who next, with whom, when) are
//! `plinth_policy::batching`'s; here are the requests themselves, the lanes, and the clock. Invariants: a request that was
//! taken in ends exactly once: with an answer, with an error, by its caller going away, or by being told to go to
//! another instance; what has not begun when the runner dies is never an error; nothing waits without bound.
//!
//! One short lock for each version guards the book; bytes are copied and sockets written outside of it.

mod book;
mod dispatcher;
mod poison;
mod settings;
mod work;

#[cfg(test)]
mod tests;

pub(crate) use dispatcher::{Dispatcher, DispatcherParts};
pub(crate) use poison::{Poison, digest as poison_digest};
pub(crate) use settings::{Bounds, merges, settings};
pub(crate) use work::{Work, tenant_id};
