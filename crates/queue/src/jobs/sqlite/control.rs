//! Settings of kinds, and schedules.

use plinth_types::TenantName;
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::super::{KindLimits, KindSettings, NewJob, ScheduleRow};
use super::{Now, rows};

pub(super) fn kinds(db: &Connection) -> Result<Vec<KindSettings>> {
    let mut find = db.prepare_cached("SELECT kind, paused, concurrency, rate FROM kinds ORDER BY kind")?;
    let found = find.query_map([], |row| {
        let limits = KindLimits { concurrency: row.get(2)?, rate_per_second: row.get(3)? };
        Ok(KindSettings { kind: row.get(0)?, paused: row.get(1)?, limits })
    })?;
    found.collect()
}

pub(super) fn set_kind(db: &Connection, settings: &KindSettings) -> Result<()> {
    let mut put = db.prepare_cached(
        "INSERT INTO kinds (kind, paused, concurrency, rate) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (kind) DO UPDATE SET paused = excluded.paused, concurrency = excluded.concurrency, rate = excluded.rate",
    )?;
    put.execute(params![settings.kind, settings.paused, settings.limits.concurrency, settings.limits.rate_per_second])?;
    Ok(())
}

pub(super) fn put_schedule(db: &Connection, schedule: &ScheduleRow) -> Result<()> {
    let mut put =
        db.prepare_cached("INSERT OR REPLACE INTO schedules (tenant, name, spec, next_at, last_at) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let (next, last) = (schedule.next_at.map(super::millis), schedule.last_at.map(super::millis));
    put.execute(params![schedule.tenant.as_str(), schedule.name, schedule.spec, next, last])?;
    Ok(())
}

pub(super) fn delete_schedule(db: &Connection, tenant: &TenantName, name: &str) -> Result<bool> {
    let mut delete = db.prepare_cached("DELETE FROM schedules WHERE tenant = ?1 AND name = ?2")?;
    Ok(delete.execute(params![tenant.as_str(), name])? > 0)
}

pub(super) fn schedules(db: &Connection, tenant: Option<&TenantName>) -> Result<Vec<ScheduleRow>> {
    let mut find = db.prepare_cached(
        "SELECT tenant, name, spec, next_at, last_at FROM schedules WHERE (?1 IS NULL OR tenant = ?1) ORDER BY tenant, name",
    )?;
    let found = find.query_map([tenant.map(TenantName::as_str)], |row| {
        Ok(ScheduleRow {
            tenant: rows::tenant(row, 0)?,
            name: row.get(1)?,
            spec: row.get(2)?,
            next_at: rows::time_if_any(row, 3)?,
            last_at: rows::time_if_any(row, 4)?,
        })
    })?;
    found.collect()
}

pub(super) fn secret(db: &Connection, tenant: &TenantName, name: &str) -> Result<Option<String>> {
    let mut find = db.prepare_cached("SELECT secret FROM secrets WHERE tenant = ?1 AND name = ?2")?;
    find.query_row([tenant.as_str(), name], |row| row.get(0)).optional()
}

pub(super) fn set_secret(db: &Connection, tenant: &TenantName, name: &str, secret: Option<&str>) -> Result<()> {
    match secret {
        Some(secret) => {
            let mut put = db.prepare_cached("INSERT OR REPLACE INTO secrets (tenant, name, secret) VALUES (?1, ?2, ?3)")?;
            put.execute([tenant.as_str(), name, secret]).map(|_| ())
        }
        None => db.prepare_cached("DELETE FROM secrets WHERE tenant = ?1 AND name = ?2")?.execute([tenant.as_str(), name]).map(|_| ()),
    }
}

/// Moves a schedule on and stores its jobs. See [`super::super::Jobs::fire`].
pub(super) fn fire(
    db: &Connection,
    now: Now,
    (tenant, name): (&TenantName, &str),
    seen: i64,
    next: Option<i64>,
    jobs: &[NewJob],
) -> Result<bool> {
    let mut put = db.prepare_cached("UPDATE schedules SET next_at = ?4, last_at = ?3 WHERE tenant = ?1 AND name = ?2 AND next_at = ?3")?;
    if put.execute(params![tenant.as_str(), name, seen, next])? == 0 {
        return Ok(false);
    }
    for job in jobs {
        super::submit::insert(db, now, tenant, job)?;
    }
    Ok(true)
}
