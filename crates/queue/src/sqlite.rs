//! A SQLite file with one writer that commits what has gathered, and a few readers.
//!
//! Invariants: WAL and `synchronous=FULL`, so what is acknowledged is on the disk; one process at a time has the file
//! ([`QueueError::InUse`] for the second); after a failed commit the connection is opened anew and nothing is tried again behind the caller's
//! back. Statements and tables are left to those who use it.

mod file;
mod readers;
#[cfg(test)]
mod tests;
mod writer;

pub use file::{Migrations, open_connection};
pub use readers::Readers;
pub use writer::{GroupWriter, Points};

use crate::QueueError;

/// What a SQLite error means to the queue.
pub(crate) fn failed(operation: &'static str) -> impl Fn(rusqlite::Error) -> QueueError {
    move |error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => QueueError::Full,
        _ => QueueError::unavailable(operation, error),
    }
}
