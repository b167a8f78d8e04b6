//! What all limits of a node count with: clocks, the table of users and addresses, the shared store, metrics.
//!
//! Entries hold it through their plan, so that what they reserved is settled also when [`Limits`](super::Limits) is gone.

use plinth_runtime::World;
use plinth_telemetry::LimitMetrics;

use super::keyed::KeyedCells;
use super::shared::Share;

/// See the module.
pub(super) struct Node {
    pub world: World,
    pub metrics: LimitMetrics,
    pub keyed: KeyedCells,
    /// Keeps addresses and users from choosing whom they share a set with.
    pub seed: u64,
    /// Where nodes count together, if they do.
    pub share: Option<Share>,
}
