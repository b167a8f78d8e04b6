//! Jobs: which states there are and how they follow each other, when a failed one runs again, what waits for what, how long it will be.
//!
//! Invariants: a job that has ended stays ended; every end has one state; a failed attempt is counted when it is claimed, so a job that
//! kills its worker uses up its attempts; the delays of [`RetryPolicy`] are bounded. Where a job lies and who runs it is left to the
//! queue and its workers.

mod estimate;
mod graph;
mod retry;
mod state;
#[cfg(test)]
mod tests;

pub use estimate::{Backlog, estimate_wait, poll_after};
pub use graph::{Cycle, order};
pub use retry::{Failure, Next, RetryPolicy};
pub use state::{ParseStateError, State};
