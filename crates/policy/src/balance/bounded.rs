//! Sticky by key, with a bound: rendezvous hashing (Thaler and Ravishankar 1998) with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2017).
//!
//! Each key has an order of all endpoints, the same on every gateway, with no ring and no shared state. It goes to the first in its order that has
//! room: at most `⌈c × (in flight + 1) × its part of the weight⌉`. Invariants: a ready endpoint is always found; none is given more than its capacity
//! (counts that change meanwhile aside); when an endpoint leaves or comes only keys that it had, or gets, move, as far as the
//! bound lets them. Weights bound the load and do not change the order: an endpoint that is degraded keeps its keys as long as it has room.

use super::hash;

/// `c`, in percent: an endpoint may have a quarter more than its part.
pub const LOAD_PERCENT: u32 = 125;

/// An endpoint that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Stays the same when others come and go: [`hash::key`] of its name.
    pub id: u64,
    /// What is in flight there.
    pub in_flight: u32,
    /// Its part of the capacity; counts as at least 1. Give all 4 to be able to quarter one.
    pub weight: u32,
}

/// The endpoint for a key, of `n`; `None` when none is ready. `node` is `None` for one that is not ready; it is asked for all of them once, and once more for each
/// endpoint in the key's order until one has room. `load_percent` counts as at least 100.
#[must_use]
pub fn pick(key: u64, n: usize, load_percent: u32, node: impl Fn(usize) -> Option<Node>) -> Option<usize> {
    let nodes = || (0..n).filter_map(|place| node(place).map(|node| (place, node)));
    let mut all = Capacity { load_percent: load_percent.max(100), in_flight: 0, weight: 0 };
    for (_, node) in nodes() {
        all.in_flight += u64::from(node.in_flight);
        all.weight += u64::from(node.weight.max(1));
    }
    let mut last = None;
    let mut first = None;
    for _ in 0..n {
        let ranked = nodes().map(|(place, node)| ((hash::mix(key, node.id), node.id, place), node));
        let Some((rank, node)) = ranked.filter(|(rank, _)| last.is_none_or(|last| *rank < last)).max_by_key(|(rank, _)| *rank) else {
            break;
        };
        if u64::from(node.in_flight) < all.of(node) {
            return Some(rank.2);
        }
        first = first.or(Some(rank.2));
        last = Some(rank);
    }
    // Only when counts changed while they were read: together all have more room than is needed.
    first
}

struct Capacity {
    load_percent: u32,
    in_flight: u64,
    weight: u64,
}

impl Capacity {
    fn of(&self, node: Node) -> u64 {
        let load = u128::from(self.load_percent) * u128::from(self.in_flight + 1) * u128::from(node.weight.max(1));
        u64::try_from(load.div_ceil(100 * u128::from(self.weight.max(1)))).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
