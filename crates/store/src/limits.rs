//! Central counters of limits that nodes share: one question, one answer.
//!
//! Invariants, the same for every adapter: a counter follows the rule of [`plinth_policy::limits::lease::central`] to the unit; one
//! question changes it whole or not at all; time is the store's and not the node's; no call waits longer than the adapter's
//! time-out; while the store is lost a call fails at once. A question without an answer may have been heard or not.
//!
//! Who asks for what and lives how without a store is the gateway's, with `plinth_policy::limits::Leased`.

#[cfg(any(test, feature = "testing"))]
mod memory;
mod redis;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use plinth_policy::limits::lease::central::{CentralCap, CentralRate};
use plinth_policy::limits::{LeaseAnswer, LeaseRequest};

#[cfg(any(test, feature = "testing"))]
pub use memory::MemoryLeases;
pub use redis::{RedisLeases, RedisLeasesOptions};

/// What a counter keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Central {
    /// A rate with its burst.
    Rate(CentralRate),
    /// Units for each day in UTC.
    Cap(CentralCap),
}

/// A question was not answered. The cause is in the log, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store of the limits does not answer")]
pub struct NoAnswer;

/// The port. See the module for what every adapter keeps.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Asks the counter of this key. All nodes must give the same rule for a key; while they do not (a limit is being changed), what
    /// is owed is at most one burst of the newer rule. Not cancel safe: what a dropped call was granted is lost.
    ///
    /// # Errors
    /// [`NoAnswer`]: the question may have been heard.
    async fn lease(&self, key: &str, rule: &Central, ask: &LeaseRequest) -> Result<LeaseAnswer, NoAnswer>;

    /// Whether it is worth to ask. Takes a nanosecond.
    fn is_up(&self) -> bool;

    /// Waits until it is worth to ask, or is not. Cancel safe; waits for ever when it never is.
    async fn until(&self, up: bool);

    /// What this adapter is, for people. Holds no password.
    fn describe(&self) -> String;
}
