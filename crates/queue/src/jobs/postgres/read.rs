//! Questions about jobs.

use plinth_policy::jobs::State;
use plinth_types::TenantName;
use sqlx::error::Error;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, AssertSqlSafe, PgConnection, Row};

use super::super::{Attempt, Counts, Failure, Job, JobId, ListJobs, Payload};
use super::database::{Database, failed};
use super::rows::{self, job_columns};
use crate::QueueError;

pub(super) async fn get(db: &Database, tenant: &TenantName, id: JobId) -> Result<Option<Job>, QueueError> {
    let sql = concat!("SELECT ", job_columns!(), " FROM jobs WHERE id = $1 AND tenant = $2");
    let found = db.ask("get", sqlx::query(sql).bind(id.as_bytes().as_slice()).bind(tenant.as_str())).await?;
    found.first().map(rows::job).transpose().map_err(failed("get"))
}

/// From `payloads` or `results`.
pub(super) async fn payload(db: &Database, results: bool, tenant: &TenantName, id: JobId) -> Result<Option<Payload>, QueueError> {
    let sql = match results {
        true => "SELECT p.meta, p.bytes, p.digest, p.size FROM results p JOIN jobs j ON j.id = p.id WHERE p.id = $1 AND j.tenant = $2",
        false => "SELECT p.meta, p.bytes, p.digest, p.size FROM payloads p JOIN jobs j ON j.id = p.id WHERE p.id = $1 AND j.tenant = $2",
    };
    let found = db.ask("payload", sqlx::query(sql).bind(id.as_bytes().as_slice()).bind(tenant.as_str())).await?;
    found.first().map(|row| rows::payload(row, 0)).transpose().map_err(failed("payload"))
}

pub(super) async fn list(db: &Database, query: &ListJobs) -> Result<Vec<Job>, QueueError> {
    let build = || -> Result<_, sqlx::error::BoxDynError> {
        let mut sql = concat!("SELECT ", job_columns!(), " FROM jobs WHERE tenant = $1").to_owned();
        let mut values = PgArguments::default();
        values.add(query.tenant.as_str())?;
        let only = |sql: &mut String, condition: &str, added: Result<(), sqlx::error::BoxDynError>, count: usize| {
            sql.push_str(&condition.replace('?', &format!("${count}")));
            added
        };
        if let Some(before) = query.before {
            let added = values.add(before.as_bytes().to_vec());
            only(&mut sql, " AND id < ?", added, values.len())?;
        }
        if let Some(kind) = &query.kind {
            let added = values.add(kind);
            only(&mut sql, " AND kind = ?", added, values.len())?;
        }
        if let Some(parent) = query.parent {
            let added = values.add(parent.as_bytes().to_vec());
            only(&mut sql, " AND parent = ?", added, values.len())?;
        }
        if let Some(label) = &query.label {
            let added = values.add(rows::text(label));
            only(&mut sql, " AND strpos(labels, ?) > 0", added, values.len())?;
        }
        match query.state {
            // A literal, so that the index of dead letters is seen to fit.
            Some(State::Dead) => sql.push_str(" AND state = 5"),
            Some(state) => {
                let added = values.add(state.code());
                only(&mut sql, " AND state = ?", added, values.len())?;
            }
            None => {}
        }
        let added = values.add(i64::from(query.limit));
        only(&mut sql, " ORDER BY id DESC LIMIT ?", added, values.len())?;
        Ok((sql, values))
    };
    let (sql, values) = build().map_err(|error| failed("list")(Error::Encode(error)))?;
    let found = db.ask("list", sqlx::query_with(AssertSqlSafe(sql), values)).await?;
    found.iter().map(rows::job).collect::<Result<_, _>>().map_err(failed("list"))
}

pub(super) async fn attempts(db: &Database, tenant: &TenantName, id: JobId) -> Result<Vec<Attempt>, QueueError> {
    let sql = "SELECT a.attempt, a.epoch, a.worker, a.started_at, a.ended_at, a.reason, a.failure FROM attempts a \
         JOIN jobs j ON j.id = a.id \
         WHERE a.id = $1 AND j.tenant = $2 ORDER BY a.epoch LIMIT 1000";
    let found = db.ask("attempts", sqlx::query(sql).bind(id.as_bytes().as_slice()).bind(tenant.as_str())).await?;
    let attempt = |row: &PgRow| {
        Ok(Attempt {
            attempt: rows::count32(row, 0)?,
            epoch: rows::count(row, 1)?,
            worker: row.try_get(2)?,
            started_at: rows::time(row, 3)?,
            ended_at: rows::time(row, 4)?,
            failure: Failure { reason: rows::reason(row.try_get(5)?), text: row.try_get(6)? },
        })
    };
    found.iter().map(attempt).collect::<Result<_, Error>>().map_err(failed("attempts"))
}

/// How many ready jobs of the kind are to begin before this one: those of higher classes, and in its own class as many of each other
/// tenant as of its own, at most what they have.
pub(super) async fn position(db: &Database, tenant: &TenantName, id: JobId, most: u64) -> Result<Option<u64>, QueueError> {
    let sql = "WITH me AS MATERIALIZED (SELECT kind, class, priority FROM jobs WHERE id = $1 AND tenant = $2 AND state = 2), \
         own AS MATERIALIZED (SELECT count(*) AS jobs FROM me, LATERAL (SELECT 1 FROM jobs j WHERE j.state = 2 AND j.kind = me.kind \
         AND j.class = me.class AND j.tenant = $2 AND (j.priority, j.id) < (me.priority, $1) LIMIT $3) AS ahead), \
         others AS (SELECT f.class, f.tenant FROM me, LATERAL (SELECT class, tenant FROM flows WHERE kind = me.kind AND class <= me.class \
         AND NOT (class = me.class AND tenant = $2) ORDER BY class LIMIT 1000) f) \
         SELECT least($3, own.jobs + (SELECT coalesce(sum(c.jobs), 0)::bigint FROM others o, LATERAL (SELECT count(*) AS jobs FROM \
         (SELECT 1 FROM jobs j WHERE j.state = 2 AND j.kind = me.kind AND j.class = o.class AND j.tenant = o.tenant \
         LIMIT CASE WHEN o.class = me.class THEN least($3, own.jobs + 1) ELSE $3 END) AS theirs) AS c)) FROM me, own";
    let query = sqlx::query(sql).bind(id.as_bytes().as_slice()).bind(tenant.as_str()).bind(rows::signed(most));
    let found = db.ask("position", query).await?;
    found.first().map(|row| rows::count(row, 0)).transpose().map_err(failed("position"))
}

pub(super) async fn counts(db: &mut PgConnection, tenant: Option<&TenantName>) -> Result<Vec<Counts>, Error> {
    // The one question that reads everything.
    sqlx::raw_sql("SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on").execute(&mut *db).await?;
    let sql = "SELECT kind, state, count(*), min(created_at) FROM jobs WHERE ($1::text IS NULL OR tenant = $1) GROUP BY kind, state \
         ORDER BY kind, state";
    let found = sqlx::query(sql).bind(tenant.map(TenantName::as_str)).fetch_all(db).await?;
    let counts = |row: &PgRow| {
        Ok(Counts { kind: row.try_get(0)?, state: rows::state(row, 1)?, jobs: rows::count(row, 2)?, oldest: rows::time(row, 3)? })
    };
    found.iter().map(counts).collect()
}
