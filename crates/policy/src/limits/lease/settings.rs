//! How large leases are and how long they last.
//!
//! A lease is what the limit may be exceeded by on each node, and what is used between two questions to the store. Everything
//! here is per limit; the number of nodes is known by the cluster.

use std::time::Duration;

use super::super::Rate;

/// See [`for_rate`](Self::for_rate) for the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseSettings {
    /// Nodes that share the limit, at least 1. Only used while the store is away.
    pub nodes: u32,
    /// Tokens of a lease, between 1 and the burst.
    pub size: u64,
    /// More are asked for when fewer than this are held.
    pub low: u64,
    /// After this time what is left of a lease must not be used.
    pub life: Duration,
    /// The least time between a question that was not fully answered and the next one.
    pub pause: Duration,
    /// An answer that takes longer counts as lost.
    pub patience: Duration,
}

impl LeaseSettings {
    /// Leases that together are at most a quarter of the burst, so the limit is exceeded by at most that; single tokens where the
    /// burst is small. They last 5 s, the pause is 10 ms, the patience 1 s.
    #[must_use]
    pub fn for_rate(rate: &Rate, nodes: u32) -> Self {
        let nodes = nodes.max(1);
        let size = (rate.burst() / (4 * u64::from(nodes))).max(1);
        Self {
            nodes,
            size,
            low: size.div_ceil(2),
            life: Duration::from_secs(5),
            pause: Duration::from_millis(10),
            patience: Duration::from_secs(1),
        }
    }

    /// The same with every number in its range.
    pub(super) fn resolved(self, rate: &Rate) -> Self {
        let size = self.size.clamp(1, rate.burst());
        Self { nodes: self.nodes.max(1), size, low: self.low.min(size), ..self }
    }
}
