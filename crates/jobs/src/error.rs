//! What a failure of the queue means to a caller.

use plinth_queue::QueueError;
use plinth_types::{Error, Reason};

/// The error that crosses the edge.
pub fn from_queue(error: QueueError) -> Error {
    match error {
        QueueError::Full => Error::new(Reason::StorageFull, "the queue's storage is full; nothing was stored").source(error),
        QueueError::TooNew { .. } => Error::new(Reason::StoreTooNew, "the queue was written by a newer release").source(error),
        QueueError::Damaged(_) => Error::internal("the queue's database").source(error),
        QueueError::InUse | QueueError::Unavailable { .. } => {
            let text = "the queue's database cannot be reached; with an idempotency key the same request is safe to repeat";
            Error::new(Reason::StoreUnavailable, text).retry_after(std::time::Duration::from_secs(2)).source(error)
        }
    }
}
