//! Locks jobs, follows their ends down the line, and writes what [`Changes`] decided.
//!
//! Invariant: rows are locked in the order of their ids, so that two transactions that end or submit around the same jobs seldom want
//! each other's; where a line of dependencies goes against that order the server finds the deadlock and the transaction runs again. The
//! statement that looks for followers comes after the lock on the job that ends, so it sees whoever was let in to wait for it.

use std::collections::BTreeMap;

use sqlx::error::Error;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::super::{Finish, Finished, HeldState, JobId};
use super::changes::{Changes, Row};
use super::insert::{column, flows_of, insert, put_payloads};
use super::ledger::Beat;
use super::{flows, rows};

/// The columns of [`read`], in its order.
macro_rules! locked_columns {
    () => {
        "j.id, j.tenant, j.kind, j.state, j.class, j.epoch, j.attempt, j.max_attempts, j.cancel, j.waits, j.on_failure, \
         j.run_at, j.worker, j.started_at, j.keep, j.webhook IS NOT NULL, j.progress, j.reason, j.failure, j.result_size, j.expires_at, \
         j.ended_at, j.keep_until"
    };
}
pub(super) use locked_columns;

/// A locked row; `at` is the number of its first column.
pub(super) fn read(row: &PgRow, at: usize) -> Result<(JobId, Row), Error> {
    let failure = match (row.try_get(at + 17)?, row.try_get(at + 18)?) {
        (Some(reason), Some(text)) => Some((reason, text)),
        _ => None,
    };
    let read = Row {
        tenant: rows::tenant(row, at + 1)?,
        kind: row.try_get(at + 2)?,
        state: rows::state(row, at + 3)?,
        class: rows::class(row, at + 4)?,
        epoch: row.try_get(at + 5)?,
        attempt: row.try_get(at + 6)?,
        max_attempts: row.try_get(at + 7)?,
        cancel: row.try_get(at + 8)?,
        waits: row.try_get(at + 9)?,
        on_failure: rows::on_failure(row.try_get(at + 10)?),
        run_at: row.try_get(at + 11)?,
        worker: row.try_get(at + 12)?,
        started_at: row.try_get(at + 13)?,
        keep: row.try_get(at + 14)?,
        webhook: row.try_get(at + 15)?,
        progress: row.try_get(at + 16)?,
        failure,
        result_size: row.try_get(at + 19)?,
        expires_at: row.try_get(at + 20)?,
        ended_at: row.try_get(at + 21)?,
        keep_until: row.try_get(at + 22)?,
    };
    Ok((rows::id(row, at)?, read))
}

/// All of an answer.
pub(super) fn read_all(found: &[PgRow]) -> Result<BTreeMap<JobId, Row>, Error> {
    found.iter().map(|row| read(row, 0)).collect()
}

/// Locks jobs by their ids, waiting for whoever has them.
pub(super) async fn lock(db: &mut PgConnection, ids: &[JobId]) -> Result<BTreeMap<JobId, Row>, Error> {
    let sql = concat!("SELECT ", locked_columns!(), " FROM jobs j WHERE j.id = ANY($1) ORDER BY j.id FOR NO KEY UPDATE");
    read_all(&sqlx::query(sql).bind(column(ids, |id| id.as_bytes().as_slice())).fetch_all(db).await?)
}

/// Ends attempts, together. See [`super::super::Jobs::finish`].
pub(super) async fn finish(db: &mut PgConnection, now: i64, finishes: &[Finish]) -> Result<Vec<Finished>, Error> {
    let locked = lock(db, &column(finishes, |finish| finish.id)).await?;
    let mut changes = Changes::new(now, locked);
    let outcomes = finishes.iter().map(|finish| changes.finish(finish)).collect();
    write(db, changes).await?;
    Ok(outcomes)
}

/// Prolongs leases, together. See [`super::super::Jobs::heartbeat`].
pub(super) async fn heartbeat(db: &mut PgConnection, now: i64, beats: &[Beat]) -> Result<Vec<Vec<HeldState>>, Error> {
    let ids: Vec<JobId> = beats.iter().flat_map(|beat| &beat.held).map(|held| held.id).collect();
    let locked = lock(db, &ids).await?;
    let mut changes = Changes::new(now, locked);
    let mut leases: BTreeMap<JobId, i64> = BTreeMap::new();
    let mut outcomes = Vec::with_capacity(beats.len());
    for beat in beats {
        let states: Vec<HeldState> = beat.held.iter().map(|held| changes.heartbeat(&beat.worker, *held)).collect();
        let until = now.saturating_add_unsigned(beat.lease_millis);
        leases.extend(beat.held.iter().zip(&states).filter(|(_, state)| **state != HeldState::Lost).map(|(held, _)| (held.id, until)));
        outcomes.push(states);
    }
    if !leases.is_empty() {
        let (ids, until): (Vec<&[u8]>, Vec<i64>) = leases.iter().map(|(id, until)| (id.as_bytes().as_slice(), *until)).unzip();
        let sql = "UPDATE jobs j SET lease_until = n.until FROM unnest($1::bytea[], $2::int8[]) AS n (id, until) WHERE j.id = n.id";
        sqlx::query(sql).bind(ids).bind(until).execute(db).await?;
    }
    Ok(outcomes)
}

/// Follows all ends down the line and writes everything.
pub(super) async fn write(db: &mut PgConnection, mut changes: Changes<'_>) -> Result<(), Error> {
    loop {
        let ended = changes.followers_of();
        if ended.is_empty() {
            break;
        }
        let ids: Vec<&[u8]> = ended.keys().map(|id| id.as_bytes().as_slice()).collect();
        let sql = concat!(
            "SELECT d.on_job, ",
            locked_columns!(),
            " FROM dependencies d JOIN jobs j ON j.id = d.job WHERE d.on_job = ANY($1) ORDER BY j.id, d.on_job FOR NO KEY UPDATE OF j"
        );
        let found = sqlx::query(sql).bind(ids).fetch_all(&mut *db).await?;
        let (mut pairs, mut locked) = (Vec::with_capacity(found.len()), BTreeMap::new());
        for row in &found {
            let (id, follower) = read(row, 1)?;
            pairs.push((rows::id(row, 0)?, id));
            locked.insert(id, follower);
        }
        changes.follow(&ended, &pairs, locked);
    }
    put_rows(db, &changes).await?;
    put_attempts(db, &changes).await?;
    put_payloads(db, true, changes.results.iter().map(|(id, payload)| (*id, *payload)).collect()).await?;
    if !changes.followed.is_empty() {
        let ids = column(&changes.followed, |id| id.as_bytes().as_slice());
        sqlx::query("DELETE FROM dependencies WHERE on_job = ANY($1)").bind(ids).execute(&mut *db).await?;
    }
    insert(db, changes.now, &changes.new).await?;
    let mut ready = flows_of(&changes.new);
    ready.append(&mut changes.flows);
    // Last, because a flow that is new is waited for by all who submit to it.
    flows::enter(db, &ready).await
}

const PUT: &str = "UPDATE jobs j SET state = n.state, epoch = n.epoch, attempt = n.attempt, cancel = n.cancel, \
     waits = n.waits, run_at = n.run_at, \
     progress = n.progress, reason = n.reason, failure = n.failure, result_size = n.result_size, expires_at = n.expires_at, \
     ended_at = n.ended_at, keep_until = n.keep_until, worker = CASE WHEN n.state = 3 THEN j.worker END, \
     lease_until = CASE WHEN n.state = 3 THEN j.lease_until END \
     FROM unnest($1::bytea[], $2::int2[], $3::int8[], $4::int4[], $5::bool[], $6::int4[], $7::int8[], $8::int2[], $9::text[], $10::text[], \
     $11::int8[], $12::int8[], $13::int8[], $14::int8[]) AS n (id, state, epoch, attempt, cancel, waits, run_at, progress, \
     reason, failure, \
     result_size, expires_at, ended_at, keep_until) WHERE j.id = n.id";

async fn put_rows(db: &mut PgConnection, changes: &Changes<'_>) -> Result<(), Error> {
    let changed: Vec<(&JobId, &Row)> = changes.changed.iter().filter_map(|id| Some((id, changes.rows.get(id)?))).collect();
    if changed.is_empty() {
        return Ok(());
    }
    sqlx::query(PUT)
        .bind(column(&changed, |(id, _)| id.as_bytes().as_slice()))
        .bind(column(&changed, |(_, row)| row.state.code()))
        .bind(column(&changed, |(_, row)| row.epoch))
        .bind(column(&changed, |(_, row)| row.attempt))
        .bind(column(&changed, |(_, row)| row.cancel))
        .bind(column(&changed, |(_, row)| row.waits))
        .bind(column(&changed, |(_, row)| row.run_at))
        .bind(column(&changed, |(_, row)| row.progress))
        .bind(column(&changed, |(_, row)| row.failure.as_ref().map(|(reason, _)| reason.as_str())))
        .bind(column(&changed, |(_, row)| row.failure.as_ref().map(|(_, text)| rows::text(text))))
        .bind(column(&changed, |(_, row)| row.result_size))
        .bind(column(&changed, |(_, row)| row.expires_at))
        .bind(column(&changed, |(_, row)| row.ended_at))
        .bind(column(&changed, |(_, row)| row.keep_until))
        .execute(db)
        .await
        .map(|_| ())
}

async fn put_attempts(db: &mut PgConnection, changes: &Changes<'_>) -> Result<(), Error> {
    if changes.attempts.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO attempts (id, epoch, attempt, worker, started_at, ended_at, reason, failure) \
         SELECT n.id, n.epoch, n.attempt, n.worker, n.started_at, $8, n.reason, n.failure \
         FROM unnest($1::bytea[], $2::int8[], $3::int4[], $4::text[], $5::int8[], $6::text[], $7::text[]) \
         AS n (id, epoch, attempt, worker, started_at, reason, failure) ON CONFLICT DO NOTHING";
    sqlx::query(sql)
        .bind(column(&changes.attempts, |a| a.id.as_bytes().as_slice()))
        .bind(column(&changes.attempts, |a| a.epoch))
        .bind(column(&changes.attempts, |a| a.attempt))
        .bind(column(&changes.attempts, |a| rows::text(&a.worker)))
        .bind(column(&changes.attempts, |a| a.started_at))
        .bind(column(&changes.attempts, |a| a.failure.reason.slug()))
        .bind(column(&changes.attempts, |a| rows::text(&a.failure.text)))
        .bind(changes.now)
        .execute(db)
        .await
        .map(|_| ())
}
