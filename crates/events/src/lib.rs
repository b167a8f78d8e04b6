//! Bursts of small writes (likes, labels, events): acknowledged when they are durable, committed in groups.
//!
//! [`Events`] is the port, [`SqliteEvents`] and [`PostgresEvents`] are its adapters, [`partition`] says where a key lies. Invariants:
//! what is acknowledged is committed and synced; an event is stored once, by its stream, key and id, however often it is sent; counts are
//! written in the transactions that change the rows; what waits is bounded, and who finds no room is told at once. The identity includes
//! the key, so that it is decided within one partition, in one transaction. Who may write to which stream, and the routes, are left to
//! others.
//!
//! # Where the time goes
//!
//! One event after the other costs a sync each. In groups the syncs are shared, and what is left is statements and pages. Measured on two
//! cores (ext4, a sync of 0.2 ms, random ids, 100 bytes of data, 300,000 rows, SQLite driven from a script, events/s in groups of 64 and
//! of 640):
//!
//! | tables | 64 | 640 |
//! |---|---|---|
//! | rows alone, `INTEGER PRIMARY KEY` | 170,000 | 395,000 |
//! | and an index by text of id, and one of key | 39,000 | 51,000 |
//! | and one index by a 16-byte hash of the id | 60,000 | 96,000 |
//! | the same, looked up for each event, but written sorted, 32,768 at a time | 100,000 | 134,000 |
//!
//! Hence random order in the indexes is what costs: each event dirties pages of 4 KiB of its own. So both indexes are one B-tree of
//! 8-byte hashes, whose new entries gather in memory and are written in order, a slice with each commit (`sqlite::index`).
//!
//! With `examples/events_speed` (release, two cores that other builds were using: load 4 to 7, median sync 0.7 ms, 95 % within 4 ms):
//! 1,000,000 events of 64 clients in lists of 10 were acknowledged at 52,000/s (82,000/s for 200,000 under less load), one at a time at
//! 14,000/s (21,000/s), of 512 clients one at a time at 68,000/s; PostgreSQL, lists of 10, 40,000/s. The process used 6.7 µs of processor
//! time for an event in lists of 10 and 13.6 µs alone: with 64 clients that send one at a time a group is 64 events, and the time of a
//! sync and of waking decides.
#![warn(missing_docs)]

mod batcher;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod error;
mod event;
#[cfg(test)]
mod faults;
pub mod partition;
mod port;
pub mod postgres;
pub mod sqlite;
mod stream;

pub use batcher::Gathering;
pub use error::EventsError;
pub use event::{Appended, Event, EventId, Key, MOST_DATA, MOST_IN_LIST, MOST_IN_PAGE, MOST_PAGE_BYTES, ParseTextError, Position, Stored};
pub use port::{Created, Description, Events, Swept};
pub use postgres::{PostgresEvents, PostgresOptions};
pub use sqlite::{SqliteEvents, SqliteOptions};
pub use stream::{MOST_PARTITIONS, Mode, Retention, Settings, Stream, StreamName};
