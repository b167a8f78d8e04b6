//! Between rows of PostgreSQL and the port's types.
//!
//! Invariant: what cannot be understood is an error that names it, never skipped and never guessed.

use std::borrow::Cow;

use plinth_policy::jobs::State;
use plinth_types::{Reason, TenantName, Timestamp};
use sqlx::Row;
use sqlx::error::Error;
use sqlx::postgres::PgRow;

use super::super::{Body, Failure, Job, JobId, OnFailure, Payload, RunState};

/// The columns of [`job`], in its order.
macro_rules! job_columns {
    () => {
        "id, tenant, kind, state, class, priority, attempt, max_attempts, epoch, cancel, created_at, run_at, started_at, ended_at, worker, \
         lease_until, progress, waits, parent, actor, labels, reason, failure, webhook, result_size"
    };
}
pub(super) use job_columns;

fn damaged(text: String) -> Error {
    Error::Decode(text.into())
}

pub(super) fn id(row: &PgRow, column: usize) -> Result<JobId, Error> {
    JobId::from_slice(row.try_get(column)?).ok_or_else(|| damaged(format!("the id in column {column} has another length")))
}

pub(super) fn tenant(row: &PgRow, column: usize) -> Result<TenantName, Error> {
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|_| damaged(format!("'{text}' is not the name of a tenant")))
}

/// A whole number of any width that is not negative.
pub(super) fn count(row: &PgRow, column: usize) -> Result<u64, Error> {
    unsigned(row.try_get::<i64, _>(column)?)
}

pub(super) fn count32(row: &PgRow, column: usize) -> Result<u32, Error> {
    unsigned(row.try_get::<i32, _>(column)?)
}

pub(super) fn class(row: &PgRow, column: usize) -> Result<u8, Error> {
    unsigned(row.try_get::<i16, _>(column)?)
}

fn unsigned<S: Copy + std::fmt::Display, U: TryFrom<S>>(number: S) -> Result<U, Error> {
    U::try_from(number).map_err(|_| damaged(format!("a column holds {number}")))
}

pub(super) fn time(row: &PgRow, column: usize) -> Result<Timestamp, Error> {
    moment(row.try_get(column)?)
}

pub(super) fn time_if_any(row: &PgRow, column: usize) -> Result<Option<Timestamp>, Error> {
    row.try_get::<Option<i64>, _>(column)?.map(moment).transpose()
}

pub(super) fn moment(millis: i64) -> Result<Timestamp, Error> {
    Timestamp::from_millis(unsigned(millis)?).map_err(|_| damaged(format!("a column holds the time {millis}")))
}

pub(super) fn state(row: &PgRow, column: usize) -> Result<State, Error> {
    let code: i16 = row.try_get(column)?;
    State::from_code(code.into()).ok_or_else(|| damaged(format!("{code} is no state")))
}

/// A reason that this release does not know is an internal one: the text beside it says the rest.
pub(super) fn reason(text: &str) -> Reason {
    Reason::ALL.iter().copied().find(|reason| reason.slug() == text).unwrap_or(Reason::Internal)
}

/// `meta, bytes, digest, size` from `first` on.
pub(super) fn payload(row: &PgRow, first: usize) -> Result<Payload, Error> {
    let digest: Option<String> = row.try_get(first + 2)?;
    let body = match digest {
        Some(digest) => Body::Object { digest, size: count(row, first + 3)? },
        None => Body::Inline(row.try_get(first + 1)?),
    };
    Ok(Payload { meta: row.try_get(first)?, body })
}

pub(super) fn job(row: &PgRow) -> Result<Job, Error> {
    let worker: Option<String> = row.try_get(14)?;
    let running = match (worker, time_if_any(row, 15)?) {
        (Some(worker), Some(lease_until)) => Some(RunState { worker, lease_until }),
        _ => None,
    };
    let failure = match (row.try_get::<Option<&str>, _>(21)?, row.try_get(22)?) {
        (Some(slug), Some(text)) => Some(Failure { reason: reason(slug), text }),
        _ => None,
    };
    let webhook: Option<&str> = row.try_get(23)?;
    Ok(Job {
        id: id(row, 0)?,
        tenant: tenant(row, 1)?,
        kind: row.try_get(2)?,
        state: state(row, 3)?,
        class: class(row, 4)?,
        priority: row.try_get(5)?,
        attempt: count32(row, 6)?,
        max_attempts: count32(row, 7)?,
        epoch: count(row, 8)?,
        cancel_asked: row.try_get(9)?,
        created_at: time(row, 10)?,
        run_at: time(row, 11)?,
        started_at: time_if_any(row, 12)?,
        ended_at: time_if_any(row, 13)?,
        running,
        progress: unsigned(row.try_get::<i16, _>(16)?)?,
        waits: count32(row, 17)?,
        parent: row.try_get::<Option<&[u8]>, _>(18)?.and_then(JobId::from_slice),
        actor: row.try_get(19)?,
        labels: row.try_get(20)?,
        failure,
        webhook: webhook.map(serde_json::from_str).transpose().map_err(|error| damaged(error.to_string()))?,
        result_size: row.try_get::<Option<i64>, _>(24)?.map(i64::unsigned_abs),
    })
}

pub(super) const fn on_failure_code(rule: OnFailure) -> i16 {
    match rule {
        OnFailure::Fail => 0,
        OnFailure::Run => 1,
        OnFailure::Cancel => 2,
    }
}

pub(super) const fn on_failure(code: i16) -> OnFailure {
    match code {
        1 => OnFailure::Run,
        2 => OnFailure::Cancel,
        _ => OnFailure::Fail,
    }
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn signed32(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

pub(super) fn millis(at: Timestamp) -> i64 {
    signed(at.millis())
}

/// PostgreSQL's text cannot hold U+0000, which a worker's error text may; what was there is then the replacement character.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_is_not_sent() {
        assert_eq!(text("a\0b"), "a\u{fffd}b");
        assert!(matches!(text("ab"), Cow::Borrowed("ab")));
    }
}
