//! The ledger of jobs in a SQLite file: for one node.
//!
//! The rules stand in synchronous functions over a connection, so that the simulation runs the very statements that a node runs. Leases are measured
//! with a clock that only goes forward: the wall clock at the opening (or the last lease that was given, when that is later) plus what has passed
//! since, so setting the wall clock neither ends a lease early nor keeps it for ever. What is for people, and when a job is due, follows the wall
//! clock.

mod claim;
mod control;
mod end;
mod ledger;
mod read;
mod rows;
mod schema;
#[cfg(any(test, feature = "testing"))]
pub mod simulated;
mod submit;
mod sweep;
#[cfg(test)]
mod tests;

use std::time::Duration;

use plinth_policy::jobs::State;
use plinth_types::Timestamp;
use rusqlite::{Connection, Result, params};
use serde::Serialize;

use super::{Held, HeldState, JobId, OnFailure};

pub use ledger::SqliteJobs;

/// The moment of a call, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// For leases.
    pub(crate) lease: i64,
    /// For everything else.
    pub(crate) wall: i64,
}

fn millis(at: Timestamp) -> i64 {
    signed(at.millis())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn duration(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// JSON of what cannot fail to be JSON.
fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

const fn on_failure_code(rule: OnFailure) -> i64 {
    match rule {
        OnFailure::Fail => 0,
        OnFailure::Run => 1,
        OnFailure::Cancel => 2,
    }
}

const fn on_failure(code: i64) -> OnFailure {
    match code {
        1 => OnFailure::Run,
        2 => OnFailure::Cancel,
        _ => OnFailure::Fail,
    }
}

fn set_state(db: &Connection, id: JobId, state: State) -> Result<()> {
    db.prepare_cached("UPDATE jobs SET state = ?2 WHERE id = ?1")?.execute(params![id.as_bytes(), state.code()]).map(|_| ())
}

/// Prolongs leases. See [`super::Jobs::heartbeat`].
fn heartbeat(db: &Connection, now: Now, worker: &str, held: &[Held], lease_millis: u64) -> Result<Vec<HeldState>> {
    use rusqlite::OptionalExtension;
    let mut put =
        db.prepare_cached("UPDATE jobs SET lease_until = ?4 WHERE id = ?1 AND epoch = ?2 AND state = 3 AND worker = ?3 RETURNING cancel")?;
    let until = now.lease.saturating_add_unsigned(lease_millis);
    let mut states = Vec::with_capacity(held.len());
    for Held { id, epoch } in held {
        let cancel: Option<bool> = put.query_row(params![id.as_bytes(), signed(*epoch), worker, until], |row| row.get(0)).optional()?;
        states.push(match cancel {
            Some(true) => HeldState::CancelAsked,
            Some(false) => HeldState::Held,
            None => HeldState::Lost,
        });
    }
    Ok(states)
}

/// The last lease that was given.
fn last_lease(db: &Connection) -> Result<i64> {
    db.query_row("SELECT coalesce(max(lease_until), 0) FROM jobs WHERE state = 3", [], |row| row.get(0))
}
