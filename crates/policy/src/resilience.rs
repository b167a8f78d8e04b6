//! Keeping one upstream's trouble from becoming everybody's.
//!
//! Breaker, throttle gate, ejection, retry budget, hedging, adaptive limit and fallback ramp: each decides from what it was told and
//! the time that it is handed (a `Duration` on a monotonic clock). Randomness comes in as a draw, a uniformly distributed `u64`.
//! Invariants: nothing here allocates on a request; whatever every request asks is an atomic load or two, and whatever learns from an
//! answer takes at most one short lock that belongs to one endpoint. Sending, waiting and cancelling are left to the gateway, and
//! which endpoint to take to [`balance`](crate::balance).
//!
//! | part | one for each | on a request | on an answer |
//! |---|---|---|---|
//! | [`breaker`] | endpoint | one load | one lock |
//! | [`throttled`] | endpoint or credential | one load | one load; a write when held |
//! | [`ejection`] | endpoint, with rules for the pool | one load | two atomic writes; a lock for an ejection |
//! | [`retry`] | target | one atomic write | – ; a dozen loads for a retry |
//! | [`hedge`] | target | one atomic write | one atomic write |
//! | [`gradient`] | endpoint | one atomic write | one lock |
//! | [`fallback`] | target that has fallbacks | one load | – |

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub mod breaker;
pub mod ejection;
pub mod fallback;
pub mod gradient;
pub mod hedge;
mod outcome;
pub mod retry;
pub mod throttled;
mod window;

#[cfg(test)]
mod tests;

pub use outcome::Outcome;

/// A time as the atomics hold it. Later than 584 years is the same as never.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Nothing here panics under a lock, and numbers that were half written would still be numbers.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
