//! The bell within a node: for those who should look at something of this node alone. What wakes workers of all nodes is a `Bus`.
//!
//! Invariant: it promises nothing. A ring may be lost, doubled or come from nowhere; who listens looks at the ledger then, and also without it, each
//! poll.

use std::sync::Arc;

use tokio::sync::Notify;

/// Rings for new work. Cheap to clone; clones ring the same bell.
#[derive(Clone, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    /// There is work. Remembered when nobody listens now.
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// The next ring.
    pub async fn rung(&self) {
        self.0.notified().await;
    }
}
