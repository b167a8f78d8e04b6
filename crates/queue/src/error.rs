//! Why the queue could not do what it was asked.

/// Why the queue could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The database was written by a newer release.
    #[error("the queue's database has schema {found}, this release knows up to {known}; run the newer release, or restore a backup")]
    TooNew {
        /// The schema in the database.
        found: u32,
        /// The newest schema that this release knows.
        known: u32,
    },
    /// Another process has the file.
    #[error("the queue's file is in use by another process; stop that node, or give this one a data directory of its own")]
    InUse,
    /// No space is left; nothing was changed.
    #[error("the queue's disk is full")]
    Full,
    /// The database cannot be reached or failed. After this a write may or may not have happened.
    #[error("{operation}: the queue's database failed")]
    Unavailable {
        /// What was being done.
        operation: &'static str,
        /// The driver's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something in the database cannot be understood.
    #[error("the queue's database is damaged: {0}")]
    Damaged(String),
}

impl QueueError {
    /// A failure of the database while it did `operation`.
    pub(crate) fn unavailable(operation: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable { operation, source: source.into() }
    }
}
