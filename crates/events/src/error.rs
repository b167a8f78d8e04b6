//! Why the store of events could not do what it was asked.

use std::error::Error as StdError;
use std::sync::Arc;

use plinth_queue::QueueError;

/// Why the store of events could not do what it was asked. Cheap to clone: all of a group may be told the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EventsError {
    /// No stream of that name, or it was deleted meanwhile.
    #[error("there is no such stream")]
    NoSuchStream,
    /// A stream of that name is there with other settings; the partitions, the partitioner and the mode of a stream do not change.
    #[error("the stream is there already, with other settings; delete it first, or take another name")]
    Exists,
    /// What was asked for breaks a rule; nothing was stored.
    #[error("{0}")]
    Invalid(&'static str),
    /// So many writes are waiting that this one was not let in; nothing of it was stored. Try again later.
    #[error("too many events are waiting to be stored; try again in a moment")]
    Busy,
    /// The store was closed.
    #[error("the store of events is closed")]
    Closed,
    /// The disk is full; nothing was stored.
    #[error("the disk of the events is full")]
    Full,
    /// Another process has the files.
    #[error("the events' files are in use by another process; stop that node, or give this one a data directory of its own")]
    InUse,
    /// The database was written by a newer release.
    #[error("the events' database has schema {found}, this release knows up to {known}; run the newer release, or restore a backup")]
    TooNew {
        /// The schema in the database.
        found: u32,
        /// The newest schema that this release knows.
        known: u32,
    },
    /// The database cannot be reached or failed. A write may or may not have happened: the same events may be appended again.
    #[error("{operation}: the events' database failed")]
    Unavailable {
        /// What was being done.
        operation: &'static str,
        /// The driver's error.
        #[source]
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// Something in the database cannot be understood.
    #[error("the events' database is damaged: {0}")]
    Damaged(String),
}

impl EventsError {
    /// A failure of the database while it did `operation`.
    pub(crate) fn unavailable(operation: &'static str, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Unavailable { operation, source: Arc::from(source.into()) }
    }

    /// Whether the same call may go well a moment later.
    #[must_use]
    pub const fn retriable(&self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable { .. })
    }
}

impl From<QueueError> for EventsError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::TooNew { found, known } => Self::TooNew { found, known },
            QueueError::InUse => Self::InUse,
            QueueError::Full => Self::Full,
            QueueError::Unavailable { operation, source } => Self::Unavailable { operation, source: Arc::from(source) },
            QueueError::Damaged(text) => Self::Damaged(text),
        }
    }
}
