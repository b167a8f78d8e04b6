//! A request as the dispatcher sees it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use plinth_types::{TenantName, Tensor, TraceContext};

/// A request that was checked against the model.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub inputs: Vec<Tensor>,
    /// The wished outputs; all when empty.
    pub outputs: Vec<String>,
    /// Stands for the tenant, for fairness.
    pub tenant: u64,
    /// 0 for the model's default, 1 for the highest.
    pub level: u32,
    /// How long it may wait before it begins; the model's own time-out when `None`.
    pub queue_timeout: Option<Duration>,
    /// When its caller gives up (monotonic).
    pub deadline: Duration,
    /// Whether it was in a batch that a runner died with, and therefore runs with nothing beside it.
    pub suspect: bool,
    /// Where it stands in its trace, when it is recorded.
    pub trace: Option<TraceContext>,
}

impl Work {
    /// How many rows it brings: its batch dimension, 1 without.
    pub fn rows(&self, batched: bool) -> u32 {
        Self::rows_of(&self.inputs, batched).unwrap_or(1)
    }

    /// The batch dimension of inputs, when there is one.
    pub fn rows_of(inputs: &[Tensor], batched: bool) -> Option<u32> {
        let rows = inputs.first()?.shape().dims().first().copied()?;
        batched.then(|| u32::try_from(rows).unwrap_or(u32::MAX))
    }

    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|t| t.data().len() as u64).sum()
    }

    /// Requests of one group may share a batch: the same inputs with the same shapes but for the batch dimension.
    pub fn group(&self) -> u64 {
        // Nothing is decided by it but who may share a batch, and the engine checks that again: a collision made on purpose
        // costs its maker an error.
        let mut all = 0u64;
        for tensor in &self.inputs {
            let mut hasher = DefaultHasher::new();
            (tensor.name(), tensor.shape().dims().get(1..)).hash(&mut hasher);
            // The order of inputs does not matter.
            all = all.wrapping_add(hasher.finish());
        }
        all
    }
}

/// Stands for a tenant where only sameness counts.
pub(crate) fn tenant_id(tenant: &TenantName) -> u64 {
    let mut hasher = DefaultHasher::new();
    tenant.hash(&mut hasher);
    hasher.finish()
}
