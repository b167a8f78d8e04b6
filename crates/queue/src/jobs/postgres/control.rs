//! What people and schedules do: cancelling and replaying, settings of kinds, schedules, and secrets.

use plinth_types::{TenantName, Timestamp};
use sqlx::error::Error;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::super::{Cancelled, JobId, KindLimits, KindSettings, NewJob, ReplayWish, ScheduleRow};
use super::changes::Changes;
use super::database::{Database, failed};
use super::insert::column;
use super::rows::millis;
use super::sweep::millis_if_any;
use super::{apply, rows, submit};
use crate::QueueError;

/// Asks for the end of a job. See [`super::super::Jobs::cancel`].
pub(super) async fn cancel(db: &mut PgConnection, now: i64, tenant: &TenantName, id: JobId) -> Result<Option<Cancelled>, Error> {
    let mut changes = Changes::new(now, apply::lock(db, &[id]).await?);
    let outcome = changes.cancel(tenant, id);
    apply::write(db, changes).await?;
    Ok(outcome)
}

/// Makes dead letters ready again. See [`super::super::Jobs::replay`].
pub(super) async fn replay(db: &mut PgConnection, now: i64, wish: &ReplayWish) -> Result<u64, Error> {
    let sql = concat!(
        "SELECT ",
        apply::locked_columns!(),
        " FROM jobs j WHERE j.state = 5 AND j.tenant = $1 AND ($2::text IS NULL OR j.kind = $2) \
         AND (cardinality($3::bytea[]) = 0 OR j.id = ANY($3)) ORDER BY j.id LIMIT $4 FOR NO KEY UPDATE"
    );
    let query = sqlx::query(sql).bind(wish.tenant.as_str()).bind(wish.kind.as_deref());
    let query = query.bind(column(&wish.ids, |id| id.as_bytes().as_slice())).bind(i64::from(wish.limit));
    let mut changes = Changes::new(now, apply::read_all(&query.fetch_all(&mut *db).await?)?);
    let ids: Vec<JobId> = changes.rows.keys().copied().collect();
    ids.iter().for_each(|id| changes.replay(*id));
    apply::write(db, changes).await?;
    Ok(ids.len() as u64)
}

pub(super) async fn kinds(db: &Database) -> Result<Vec<KindSettings>, QueueError> {
    let found = db.ask("kinds", sqlx::query("SELECT kind, paused, concurrency, rate FROM kinds ORDER BY kind")).await?;
    let settings = |row: &PgRow| {
        let concurrency = row.try_get::<Option<i64>, _>(2)?.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX));
        let limits = KindLimits { concurrency, rate_per_second: row.try_get(3)? };
        Ok(KindSettings { kind: row.try_get(0)?, paused: row.try_get(1)?, limits })
    };
    found.iter().map(settings).collect::<Result<_, Error>>().map_err(failed("kinds"))
}

pub(super) async fn set_kind(db: &Database, settings: &KindSettings) -> Result<(), QueueError> {
    let sql = "INSERT INTO kinds (kind, paused, concurrency, rate) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (kind) DO UPDATE SET paused = excluded.paused, concurrency = excluded.concurrency, rate = excluded.rate";
    let limits = settings.limits;
    let query = sqlx::query(sql).bind(&settings.kind).bind(settings.paused);
    db.ask("set kind", query.bind(limits.concurrency.map(i64::from)).bind(limits.rate_per_second)).await.map(|_| ())
}

pub(super) async fn put_schedule(db: &Database, schedule: &ScheduleRow) -> Result<(), QueueError> {
    let sql = "INSERT INTO schedules (tenant, name, spec, next_at, last_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (tenant, name) DO UPDATE SET spec = excluded.spec, next_at = excluded.next_at, last_at = excluded.last_at";
    let query = sqlx::query(sql).bind(schedule.tenant.as_str()).bind(&schedule.name).bind(rows::text(&schedule.spec));
    db.ask("put schedule", query.bind(millis_if_any(schedule.next_at)).bind(millis_if_any(schedule.last_at))).await.map(|_| ())
}

pub(super) async fn delete_schedule(db: &Database, tenant: &TenantName, name: &str) -> Result<bool, QueueError> {
    let query = sqlx::query("DELETE FROM schedules WHERE tenant = $1 AND name = $2 RETURNING name").bind(tenant.as_str()).bind(name);
    Ok(!db.ask("delete schedule", query).await?.is_empty())
}

pub(super) async fn schedules(db: &Database, tenant: Option<&TenantName>) -> Result<Vec<ScheduleRow>, QueueError> {
    let sql = "SELECT tenant, name, spec, next_at, last_at FROM schedules WHERE ($1::text IS NULL OR tenant = $1) ORDER BY tenant, name";
    let found = db.ask("schedules", sqlx::query(sql).bind(tenant.map(TenantName::as_str))).await?;
    let schedule = |row: &PgRow| {
        Ok(ScheduleRow {
            tenant: rows::tenant(row, 0)?,
            name: row.try_get(1)?,
            spec: row.try_get(2)?,
            next_at: rows::time_if_any(row, 3)?,
            last_at: rows::time_if_any(row, 4)?,
        })
    };
    found.iter().map(schedule).collect::<Result<_, Error>>().map_err(failed("schedules"))
}

pub(super) async fn secret(db: &Database, tenant: &TenantName, name: &str) -> Result<Option<String>, QueueError> {
    let query = sqlx::query("SELECT secret FROM secrets WHERE tenant = $1 AND name = $2").bind(tenant.as_str()).bind(name);
    db.ask("secret", query).await?.first().map(|row| row.try_get(0)).transpose().map_err(failed("secret"))
}

pub(super) async fn set_secret(db: &Database, tenant: &TenantName, name: &str, secret: Option<&str>) -> Result<(), QueueError> {
    let put =
        "INSERT INTO secrets (tenant, name, secret) VALUES ($1, $2, $3) ON CONFLICT (tenant, name) DO UPDATE SET secret = excluded.secret";
    let query = match secret {
        Some(secret) => sqlx::query(put).bind(tenant.as_str()).bind(name).bind(secret),
        None => sqlx::query("DELETE FROM secrets WHERE tenant = $1 AND name = $2").bind(tenant.as_str()).bind(name),
    };
    db.ask("set secret", query).await.map(|_| ())
}

/// A tick of a schedule.
pub(super) struct Tick<'a> {
    pub(super) tenant: &'a TenantName,
    pub(super) name: &'a str,
    pub(super) seen: Timestamp,
    pub(super) next: Option<Timestamp>,
}

/// Moves a schedule on and stores its jobs. See [`super::super::Jobs::fire`].
pub(super) async fn fire(db: &mut PgConnection, now: i64, tick: &Tick<'_>, jobs: &[NewJob]) -> Result<bool, Error> {
    // The row's lock puts nodes that saw the same tick in a line; the later ones find another time in it.
    let sql = "UPDATE schedules SET next_at = $4, last_at = $3 WHERE tenant = $1 AND name = $2 AND next_at = $3";
    let query = sqlx::query(sql).bind(tick.tenant.as_str()).bind(tick.name).bind(millis(tick.seen)).bind(millis_if_any(tick.next));
    if query.execute(&mut *db).await?.rows_affected() == 0 {
        return Ok(false);
    }
    submit::store(db, now, tick.tenant, jobs).await?;
    Ok(true)
}
