//! Between rows of SQLite and the port's types.
//!
//! Invariant: what cannot be understood is an error that names it, never skipped and never guessed.

use plinth_policy::jobs::State;
use plinth_types::{Reason, TenantName, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Error, Row};

use super::super::{Body, Failure, Job, JobId, Payload, RunState};

/// The columns of [`job`], in its order.
pub(super) const JOB: &str = "id, tenant, kind, state, class, priority, attempt, max_attempts, epoch, cancel, created_at, run_at, started_at, \
     ended_at, worker, lease_until, progress, waits, parent, actor, labels, reason, failure, webhook, result_size";

fn damaged(column: usize, text: String) -> Error {
    Error::FromSqlConversionFailure(column, Type::Text, text.into())
}

pub(super) fn id(row: &Row<'_>, column: usize) -> Result<JobId, Error> {
    let bytes = row.get_ref(column)?.as_blob()?;
    JobId::from_slice(bytes).ok_or_else(|| damaged(column, "an id has another length".into()))
}

pub(super) fn tenant(row: &Row<'_>, column: usize) -> Result<TenantName, Error> {
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|_| damaged(column, format!("'{text}' is not the name of a tenant")))
}

pub(super) fn count(row: &Row<'_>, column: usize) -> Result<u64, Error> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| Error::IntegralValueOutOfRange(column, number))
}

pub(super) fn time(row: &Row<'_>, column: usize) -> Result<Timestamp, Error> {
    moment(column, row.get(column)?)
}

pub(super) fn time_if_any(row: &Row<'_>, column: usize) -> Result<Option<Timestamp>, Error> {
    row.get::<_, Option<i64>>(column)?.map(|millis| moment(column, millis)).transpose()
}

fn moment(column: usize, millis: i64) -> Result<Timestamp, Error> {
    let millis_ = u64::try_from(millis).map_err(|_| Error::IntegralValueOutOfRange(column, millis))?;
    Timestamp::from_millis(millis_).map_err(|_| Error::IntegralValueOutOfRange(column, millis))
}

pub(super) fn state(row: &Row<'_>, column: usize) -> Result<State, Error> {
    let code: i64 = row.get(column)?;
    State::from_code(code).ok_or(Error::IntegralValueOutOfRange(column, code))
}

/// A reason that this release does not know is an internal one: the text beside it says the rest.
pub(super) fn reason(text: &str) -> Reason {
    Reason::ALL.iter().copied().find(|reason| reason.slug() == text).unwrap_or(Reason::Internal)
}

/// `meta, bytes, digest, size` from `first` on.
pub(super) fn payload(row: &Row<'_>, first: usize) -> Result<Payload, Error> {
    let digest: Option<String> = row.get(first + 2)?;
    let body = match digest {
        Some(digest) => Body::Object { digest, size: count(row, first + 3)? },
        None => Body::Inline(row.get(first + 1)?),
    };
    Ok(Payload { meta: row.get(first)?, body })
}

pub(super) fn job(row: &Row<'_>) -> Result<Job, Error> {
    let worker: Option<String> = row.get(14)?;
    let running = match (worker, time_if_any(row, 15)?) {
        (Some(worker), Some(lease_until)) => Some(RunState { worker, lease_until }),
        _ => None,
    };
    let failure = match (row.get::<_, Option<String>>(21)?, row.get(22)?) {
        (Some(slug), Some(text)) => Some(Failure { reason: reason(&slug), text }),
        _ => None,
    };
    let webhook: Option<String> = row.get(23)?;
    Ok(Job {
        id: id(row, 0)?,
        tenant: tenant(row, 1)?,
        kind: row.get(2)?,
        state: state(row, 3)?,
        class: row.get(4)?,
        priority: row.get(5)?,
        attempt: row.get(6)?,
        max_attempts: row.get(7)?,
        epoch: count(row, 8)?,
        cancel_asked: row.get(9)?,
        created_at: time(row, 10)?,
        run_at: time(row, 11)?,
        started_at: time_if_any(row, 12)?,
        ended_at: time_if_any(row, 13)?,
        running,
        progress: row.get(16)?,
        waits: row.get(17)?,
        parent: row.get_ref(18)?.as_blob_or_null()?.and_then(JobId::from_slice),
        actor: row.get(19)?,
        labels: row.get(20)?,
        failure,
        webhook: webhook.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| damaged(23, error.to_string()))?,
        result_size: row.get::<_, Option<i64>>(24)?.map(i64::unsigned_abs),
    })
}
