//! Questions about jobs.

use plinth_policy::jobs::State;
use plinth_types::TenantName;
use rusqlite::{Connection, OptionalExtension, Result, params, params_from_iter, types::Value};

use super::super::{Attempt, Counts, Failure, Job, JobEvent, JobId, ListJobs, Payload};
use super::rows;

pub(super) fn get(db: &Connection, tenant: &TenantName, id: JobId) -> Result<Option<Job>> {
    let mut find = db.prepare_cached(&format!("SELECT {} FROM jobs WHERE id = ?1 AND tenant = ?2", rows::JOB))?;
    find.query_row(params![id.as_bytes(), tenant.as_str()], rows::job).optional()
}

/// From `payloads` or `results`.
pub(super) fn payload(db: &Connection, table: &'static str, tenant: &TenantName, id: JobId) -> Result<Option<Payload>> {
    let sql = match table {
        "results" => "SELECT p.meta, p.bytes, p.digest, p.size FROM results p JOIN jobs j ON j.id = p.id WHERE p.id = ?1 AND j.tenant = ?2",
        _ => "SELECT p.meta, p.bytes, p.digest, p.size FROM payloads p JOIN jobs j ON j.id = p.id WHERE p.id = ?1 AND j.tenant = ?2",
    };
    db.prepare_cached(sql)?.query_row(params![id.as_bytes(), tenant.as_str()], |row| rows::payload(row, 0)).optional()
}

pub(super) fn list(db: &Connection, query: &ListJobs) -> Result<Vec<Job>> {
    let mut sql = format!("SELECT {} FROM jobs WHERE tenant = ?", rows::JOB);
    let mut values: Vec<Value> = vec![Value::from(query.tenant.as_str().to_owned())];
    let mut only = |condition: &str, value: Value| {
        sql.push_str(condition);
        values.push(value);
    };
    if let Some(before) = query.before {
        only(" AND id < ?", Value::from(before.as_bytes().to_vec()));
    }
    if let Some(kind) = &query.kind {
        only(" AND kind = ?", Value::from(kind.clone()));
    }
    if let Some(parent) = query.parent {
        only(" AND parent = ?", Value::from(parent.as_bytes().to_vec()));
    }
    if let Some(label) = &query.label {
        only(" AND instr(labels, ?) > 0", Value::from(label.clone()));
    }
    match query.state {
        // A literal, so that the index of dead letters is seen to fit.
        Some(State::Dead) => sql.push_str(" AND state = 5"),
        Some(state) => {
            sql.push_str(" AND state = ?");
            values.push(Value::from(i64::from(state.code())));
        }
        None => {}
    }
    sql.push_str(" ORDER BY id DESC LIMIT ?");
    values.push(Value::from(i64::from(query.limit)));
    let mut find = db.prepare_cached(&sql)?;
    find.query_map(params_from_iter(values), rows::job)?.collect()
}

pub(super) fn attempts(db: &Connection, tenant: &TenantName, id: JobId) -> Result<Vec<Attempt>> {
    let mut find = db.prepare_cached(
        "SELECT a.attempt, a.epoch, a.worker, a.started_at, a.ended_at, a.reason, a.failure FROM attempts a JOIN jobs j ON j.id = a.id \
         WHERE a.id = ?1 AND j.tenant = ?2 ORDER BY a.epoch LIMIT 1000",
    )?;
    let found = find.query_map(params![id.as_bytes(), tenant.as_str()], |row| {
        Ok(Attempt {
            attempt: row.get(0)?,
            epoch: rows::count(row, 1)?,
            worker: row.get(2)?,
            started_at: rows::time(row, 3)?,
            ended_at: rows::time(row, 4)?,
            failure: Failure { reason: rows::reason(row.get_ref(5)?.as_str()?), text: row.get(6)? },
        })
    })?;
    found.collect()
}

pub(super) fn events(db: &Connection, tenant: &TenantName, id: JobId, after: u64, limit: u32) -> Result<Vec<JobEvent>> {
    let mut find = db.prepare_cached(
        "SELECT e.seq, e.at, e.name, e.data FROM job_events e JOIN jobs j ON j.id = e.id WHERE e.id = ?1 AND j.tenant = ?2 AND e.seq > ?3 \
         ORDER BY e.seq LIMIT ?4",
    )?;
    let found = find.query_map(params![id.as_bytes(), tenant.as_str(), super::signed(after), limit], |row| {
        Ok(JobEvent { seq: rows::count(row, 0)?, at: rows::time(row, 1)?, name: row.get(2)?, data: row.get(3)? })
    })?;
    found.collect()
}

/// How many ready jobs of the kind are to begin before this one: those of higher classes, and in its own class as many of each other tenant as
/// of its own, at most what they have.
pub(super) fn position(db: &Connection, tenant: &TenantName, id: JobId, most: u64) -> Result<Option<u64>> {
    let mut find = db.prepare_cached("SELECT kind, class, priority, state FROM jobs WHERE id = ?1 AND tenant = ?2")?;
    let found = find.query_row(params![id.as_bytes(), tenant.as_str()], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, u8>(1)?, row.get::<_, i64>(2)?, rows::state(row, 3)?))
    });
    let Some((kind, class, priority, state)) = found.optional()? else { return Ok(None) };
    if state != State::Ready {
        return Ok(None);
    }
    let most = super::signed(most);
    let count = |sql: &str, params: &[&dyn rusqlite::ToSql]| -> Result<i64> { db.prepare_cached(sql)?.query_row(params, |row| row.get(0)) };
    let own = count(
        "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 2 AND kind = ?1 AND class = ?2 AND tenant = ?3 \
         AND (priority, id) < (?4, ?5) LIMIT ?6)",
        params![kind, class, tenant.as_str(), priority, id.as_bytes(), most],
    )?;
    let mut ahead = own;
    let mut flows = db.prepare_cached("SELECT class, tenant FROM flows WHERE kind = ?1 AND class <= ?2 ORDER BY class LIMIT 1000")?;
    let others: Vec<(u8, String)> = flows.query_map(params![kind, class], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_>>()?;
    for (other_class, other) in others {
        if ahead >= most || (other_class == class && other == tenant.as_str()) {
            continue;
        }
        let share = if other_class == class { own + 1 } else { most - ahead };
        ahead += count(
            "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 2 AND kind = ?1 AND class = ?2 AND tenant = ?3 LIMIT ?4)",
            params![kind, other_class, other, share.min(most - ahead)],
        )?;
    }
    Ok(Some(ahead.min(most).unsigned_abs()))
}

pub(super) fn counts(db: &Connection, tenant: Option<&TenantName>) -> Result<Vec<Counts>> {
    let mut find = db.prepare_cached(
        "SELECT kind, state, count(*), min(created_at) FROM jobs WHERE (?1 IS NULL OR tenant = ?1) GROUP BY kind, state ORDER BY kind, state",
    )?;
    let found = find.query_map([tenant.map(TenantName::as_str)], |row| {
        Ok(Counts { kind: row.get(0)?, state: rows::state(row, 1)?, jobs: rows::count(row, 2)?, oldest: rows::time(row, 3)? })
    })?;
    found.collect()
}
