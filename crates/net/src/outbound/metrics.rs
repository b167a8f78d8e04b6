//! What the client counts, as handles.

use plinth_telemetry::{Counter, UpDownCounter};

/// Counts of a client. Clones share them.
#[derive(Clone, Default)]
pub struct OutboundMetrics {
    /// Connections that are open, idle ones among them.
    pub open: UpDownCounter,
    /// Connections that were made.
    pub connects: Counter,
    /// Attempts to connect that failed.
    pub connect_failures: Counter,
    /// Requests that went over a connection that was there already.
    pub reused: Counter,
    /// Requests that were sent once more because a kept connection was closed under them.
    pub resent: Counter,
}
