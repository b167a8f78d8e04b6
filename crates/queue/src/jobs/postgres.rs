//! The ledger of jobs in PostgreSQL 15 or newer: for many nodes.
//!
//! All time is the database's (`clock_timestamp()`): when a job is due, when a lease ends, when a key is over. No node's clock decides
//! anything.
//!
//! **Commits.** Submissions, ends and heartbeats of many callers are written together, one transaction with arrays for a group, two
//! groups of a kind at a time ([`lane`]); whoever asks is told after the commit. A group that fails is told so as a whole and not tried
//! again, because nobody knows whether a commit that was not answered has happened. Two errors are different: after a deadlock or a
//! conflict (40P01, 40001) the server has undone everything, so the transaction runs again, a few times; and what the server refuses as
//! data (classes 22 and 23) had no effect either, so the group runs again one by one and only the one at fault is told.
//!
//! **What nodes may do at once**, all in READ COMMITTED, where each statement sees what was committed before it began and a row lock
//! gives the newest version of its row:
//!
//! - *A job is claimed once*: `FOR NO KEY UPDATE SKIP LOCKED` on ready rows, and each claim raises the epoch. What ends or reports locks
//!   the row and compares the epoch under the lock.
//! - *A ready job always has a flow*: see [`flows`].
//! - *Two predecessors that end at once* each lock the follower before they read how many it waits for. The second one waits for the
//!   first one's commit and reads what that left, so no decrement is lost, and whoever brings it to zero lets the job go on.
//! - *A predecessor that ends while somebody is let in to wait for it*: the submitter holds `FOR SHARE` on it until his commit, the end
//!   needs `FOR NO KEY UPDATE`, and these exclude each other. If the submitter was first, the end waits; it looks for followers in a
//!   statement after its lock, which sees the committed dependency. If the end was first, the submitter waits and reads the ended row.
//!   Either way the job is not left blocked. A predecessor that is forgotten meanwhile is passed over by the sweep (`FOR UPDATE SKIP
//!   LOCKED`).
//! - *A key makes one submission*: its insert meets the other's in the unique index and waits for that one's commit; the statement after
//!   it reads what was stored. A refused key row is locked by the attempt, so it stays until the answer is given.
//! - *Limits of a kind* are counted under the lock of the kind's row, in a statement after the lock.
//!
//! Locks are taken in one order (jobs by id, keys by name, flows by name, and flows last), so deadlocks are rare: a line of dependencies
//! may go against the order of ids. The server finds those, one side loses and runs again.

mod apply;
mod changes;
mod claim;
mod control;
mod database;
mod flows;
mod insert;
mod lane;
mod ledger;
mod options;
mod read;
mod report;
mod rows;
mod schema;
mod submit;
mod sweep;
#[cfg(test)]
mod tests;

pub use ledger::PostgresJobs;
pub use options::{PostgresAddress, PostgresOptions};
