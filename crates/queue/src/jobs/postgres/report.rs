//! What a running job reports: progress, where another could go on, and events for those who follow it.

use plinth_types::TenantName;
use sqlx::error::Error;
use sqlx::{PgConnection, Row};

use super::super::{Finished, JobEvent, JobId, Report};
use super::database::{Database, failed};
use super::insert::column;
use super::rows::{self, signed};
use crate::QueueError;

/// Events that are kept of one job.
const EVENTS: i64 = 1000;

/// Writes progress and events. See [`super::super::Jobs::report`].
pub(super) async fn report(db: &mut PgConnection, now: i64, report: &Report) -> Result<Finished, Error> {
    let id = report.id.as_bytes().as_slice();
    let more = signed(report.events.len() as u64);
    let sql = "UPDATE jobs SET progress = coalesce($3, progress), checkpoint = coalesce($4, checkpoint), events = events + $5 \
         WHERE id = $1 AND epoch = $2 AND state = 3 RETURNING events";
    let query = sqlx::query(sql).bind(id).bind(signed(report.epoch)).bind(report.progress.map(|progress| progress.min(1000).cast_signed()));
    let written = query.bind(report.checkpoint.as_deref().map(rows::text)).bind(more).fetch_optional(&mut *db).await?;
    let Some(written) = written else { return Ok(Finished::Fenced) };
    let last: i64 = written.try_get(0)?;
    if more > 0 {
        let sql = "INSERT INTO job_events (id, seq, at, name, data) SELECT $1, $2 + n.at, $3, n.name, n.data \
             FROM unnest($4::text[], $5::text[]) WITH ORDINALITY AS n (name, data, at)";
        sqlx::query(sql)
            .bind(id)
            .bind(last - more)
            .bind(now)
            .bind(column(&report.events, |(name, _)| rows::text(name)))
            .bind(column(&report.events, |(_, data)| rows::text(data)))
            .execute(&mut *db)
            .await?;
        if last > EVENTS {
            sqlx::query("DELETE FROM job_events WHERE id = $1 AND seq <= $2").bind(id).bind(last - EVENTS).execute(db).await?;
        }
    }
    Ok(Finished::Done)
}

pub(super) async fn events(db: &Database, tenant: &TenantName, id: JobId, after: u64, limit: u32) -> Result<Vec<JobEvent>, QueueError> {
    let sql = "SELECT e.seq, e.at, e.name, e.data FROM job_events e JOIN jobs j ON j.id = e.id WHERE e.id = $1 \
         AND j.tenant = $2 AND e.seq > $3 \
         ORDER BY e.seq LIMIT $4";
    let query = sqlx::query(sql).bind(id.as_bytes().as_slice()).bind(tenant.as_str()).bind(signed(after)).bind(i64::from(limit));
    let found = db.ask("events", query).await?;
    let event = |row: &sqlx::postgres::PgRow| {
        Ok(JobEvent { seq: rows::count(row, 0)?, at: rows::time(row, 1)?, name: row.try_get(2)?, data: row.try_get(3)? })
    };
    found.iter().map(event).collect::<Result<_, Error>>().map_err(failed("events"))
}
