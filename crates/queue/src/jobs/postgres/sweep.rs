//! What nobody asks for and must happen: leases that ran out, time that came, what need not be kept.
//!
//! Each step is a transaction of its own, so that locks are short, and passes over what others have locked: every node sweeps.

use plinth_types::Timestamp;
use sqlx::error::Error;
use sqlx::{PgConnection, Row};

use super::super::{JobId, WorkerId};
use super::changes::Changes;
use super::insert::column;
use super::{apply, claim, rows};

/// Jobs that are released in one transaction.
const RELEASED: i64 = 1000;

/// A part of a sweep.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Leases that ran out.
    Lost,
    /// Jobs whose time has come.
    Due,
    /// Jobs that are worthless now.
    Expired,
    /// Jobs and keys that need not be kept.
    Old,
}

/// One step: how many jobs, and for [`Step::Lost`] how many are ready again and how many are dead.
pub(super) async fn sweep(db: &mut PgConnection, now: i64, step: Step, most: u32) -> Result<(u64, u64), Error> {
    match step {
        Step::Lost => {
            let sql = concat!(
                "SELECT ",
                apply::locked_columns!(),
                " FROM jobs j WHERE j.state = 3 AND j.lease_until < $1 ORDER BY j.lease_until LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED"
            );
            let found = sqlx::query(sql).bind(now).bind(i64::from(most)).fetch_all(&mut *db).await?;
            give_back(db, now, &found, "the worker's lease ran out").await
        }
        Step::Due => Ok((claim::let_due(db, now, most).await?, 0)),
        Step::Expired => {
            let sql = concat!(
                "SELECT ",
                apply::locked_columns!(),
                " FROM jobs j WHERE j.expires_at IS NOT NULL AND j.state < 3 AND j.expires_at <= $1 ORDER BY j.expires_at LIMIT $2 \
                 FOR NO KEY UPDATE SKIP LOCKED"
            );
            let found = sqlx::query(sql).bind(now).bind(i64::from(most)).fetch_all(&mut *db).await?;
            let mut changes = Changes::new(now, apply::read_all(&found)?);
            let ids: Vec<JobId> = changes.rows.keys().copied().collect();
            ids.iter().for_each(|id| changes.expire(*id));
            apply::write(db, changes).await?;
            Ok((ids.len() as u64, 0))
        }
        Step::Old => Ok((forget(db, now, most).await?, 0)),
    }
}

/// Gives back what a node's former processes held; how many jobs, 0 when there are no more.
pub(super) async fn release(db: &mut PgConnection, now: i64, node: &str, living: &WorkerId) -> Result<u64, Error> {
    let sql = concat!(
        "SELECT ",
        apply::locked_columns!(),
        " FROM jobs j WHERE j.state = 3 AND j.worker <> $2 AND starts_with(j.worker, $1 || '/') ORDER BY j.id LIMIT $3 FOR NO KEY UPDATE"
    );
    let found = sqlx::query(sql).bind(node).bind(&living.0).bind(RELEASED).fetch_all(&mut *db).await?;
    let (ready, dead) = give_back(db, now, &found, "the node's process ended").await?;
    Ok(ready + dead)
}

/// Ends attempts whose worker is gone: the job is ready again at once, or dead when this was its last. How many of each.
async fn give_back(db: &mut PgConnection, now: i64, found: &[sqlx::postgres::PgRow], why: &str) -> Result<(u64, u64), Error> {
    let mut changes = Changes::new(now, apply::read_all(found)?);
    let ids: Vec<JobId> = changes.rows.keys().copied().collect();
    let died = ids.iter().filter(|id| changes.lose(**id, why)).count() as u64;
    apply::write(db, changes).await?;
    Ok((ids.len() as u64 - died, died))
}

async fn forget(db: &mut PgConnection, now: i64, most: u32) -> Result<u64, Error> {
    let sql = "WITH old AS MATERIALIZED (SELECT id FROM jobs WHERE keep_until IS NOT NULL AND keep_until <= $1 \
         ORDER BY keep_until LIMIT $2 \
         FOR UPDATE SKIP LOCKED) DELETE FROM jobs USING old WHERE jobs.id = old.id RETURNING jobs.id";
    let found = sqlx::query(sql).bind(now).bind(i64::from(most)).fetch_all(&mut *db).await?;
    if !found.is_empty() {
        let ids: Vec<Vec<u8>> = found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        for sql in [
            "DELETE FROM payloads WHERE id = ANY($1)",
            "DELETE FROM results WHERE id = ANY($1)",
            "DELETE FROM attempts WHERE id = ANY($1)",
            "DELETE FROM job_events WHERE id = ANY($1)",
        ] {
            sqlx::query(sql).bind(column(&ids, Vec::as_slice)).execute(&mut *db).await?;
        }
    }
    let sql = "WITH old AS MATERIALIZED (SELECT tenant, key FROM keys WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 \
         FOR UPDATE SKIP LOCKED) DELETE FROM keys USING old WHERE keys.tenant = old.tenant AND keys.key = old.key";
    sqlx::query(sql).bind(now).bind(i64::from(most)).execute(&mut *db).await?;
    Ok(found.len() as u64)
}

/// Milliseconds of a moment that may be missing.
pub(super) fn millis_if_any(at: Option<Timestamp>) -> Option<i64> {
    at.map(rows::millis)
}
