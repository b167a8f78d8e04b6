//! Jobs that are stored: what becomes of each at its submission, and all of them in a few statements.
//!
//! [`place`] is the rule, without the database; [`insert`] writes what it says.

use std::borrow::Cow;
use std::collections::BTreeSet;

use plinth_policy::jobs::State;
use plinth_types::{Reason, TenantName};
use sqlx::PgConnection;
use sqlx::error::Error;

use super::super::{Body, Failure, JobId, NewJob, OnFailure, Payload, WEBHOOK_KIND, webhook_job};
use super::flows::Flow;
use super::rows::{self, millis, signed, signed32};

/// A job as it is written at its submission.
#[derive(Debug, Clone)]
pub(super) struct NewRow<'a> {
    pub(super) job: Cow<'a, NewJob>,
    pub(super) tenant: TenantName,
    pub(super) state: State,
    pub(super) waits: Vec<JobId>,
    pub(super) run_at: i64,
    pub(super) failure: Option<Failure>,
}

/// What becomes of a job, and the job that tells of its end when it has ended already. `state_of` knows the jobs that it may wait for.
pub(super) fn place<'a>(now: i64, tenant: &TenantName, job: Cow<'a, NewJob>, state_of: impl Fn(JobId) -> Option<State>) -> Vec<NewRow<'a>> {
    // What has ended well need not be waited for; what has ended badly decides now.
    let (mut waits, mut failed) = (Vec::new(), false);
    for on in &job.waits_for {
        match state_of(*on) {
            Some(State::Succeeded) => {}
            Some(state) if !state.ended() => waits.push(*on),
            // Ended badly, or not known: the submission was let in, so it is of that and comes later, and the caller's order is wrong.
            Some(_) | None => failed = true,
        }
    }
    waits.sort_unstable();
    waits.dedup();
    let run_at = job.run_at.map_or(now, millis);
    let state = match (failed, job.on_failure) {
        (true, OnFailure::Fail) => State::Dead,
        (true, OnFailure::Cancel) => State::Cancelled,
        _ if !waits.is_empty() => State::Blocked,
        _ if run_at > now => State::Scheduled,
        _ => State::Ready,
    };
    if !state.ended() {
        return vec![NewRow { job, tenant: tenant.clone(), state, waits, run_at, failure: None }];
    }
    let text = "a job that this one waits for had ended badly before".to_owned();
    let failure = Some(Failure { reason: Reason::DependencyFailed, text });
    let tell =
        (job.webhook.is_some() && job.kind != WEBHOOK_KIND).then(|| tell(now, tenant, (job.id, 0), state, job.class, job.keep_millis));
    let ended = NewRow { job, tenant: tenant.clone(), state, waits: Vec::new(), run_at, failure };
    std::iter::once(ended).chain(tell).collect()
}

/// The job that tells of the end of another.
pub(super) fn tell(now: i64, tenant: &TenantName, (of, epoch): (JobId, u64), state: State, class: u8, keep_millis: u64) -> NewRow<'static> {
    let job = webhook_job(of, state, class, keep_millis, JobId::of_end(now, of, epoch));
    NewRow { job: Cow::Owned(job), tenant: tenant.clone(), state: State::Ready, waits: Vec::new(), run_at: now, failure: None }
}

/// The flows that new jobs need.
pub(super) fn flows_of<'a>(new: impl IntoIterator<Item = &'a NewRow<'a>>) -> BTreeSet<Flow> {
    let ready = new.into_iter().filter(|row| row.state == State::Ready);
    ready.map(|row| Flow { kind: row.job.kind.clone(), class: row.job.class, tenant: row.tenant.as_str().to_owned() }).collect()
}

const INSERT_JOBS: &str = "INSERT INTO jobs (id, tenant, kind, state, class, priority, max_attempts, retry_base, retry_factor, retry_cap, \
     timeout, keep, waits, on_failure, created_at, run_at, expires_at, parent, actor, labels, webhook, ended_at, keep_until, \
     reason, failure) \
     SELECT n.id, n.tenant, n.kind, n.state, n.class, n.priority, n.max_attempts, n.retry_base, n.retry_factor, n.retry_cap, \
     n.timeout, n.keep, n.waits, n.on_failure, $22, n.run_at, n.expires_at, n.parent, n.actor, n.labels, n.webhook, \
     CASE WHEN n.state > 3 THEN $22 END, CASE WHEN n.state > 3 THEN n.keep_until END, n.reason, n.failure \
     FROM unnest($1::bytea[], $2::text[], $3::text[], $4::int2[], $5::int2[], $6::int2[], $7::int4[], $8::int8[], $9::int4[], $10::int8[], \
     $11::int8[], $12::int8[], $13::int4[], $14::int2[], $15::int8[], $16::int8[], $17::bytea[], $18::text[], $19::text[], $20::text[], \
     $21::text[], $23::text[], $24::int8[]) \
     AS n (id, tenant, kind, state, class, priority, max_attempts, retry_base, retry_factor, retry_cap, timeout, keep, waits, on_failure, \
     run_at, expires_at, parent, actor, labels, webhook, reason, failure, keep_until)";

/// Writes jobs with what they were given and what they wait for. Their flows are the caller's to enter.
pub(super) async fn insert(db: &mut PgConnection, now: i64, new: &[NewRow<'_>]) -> Result<(), Error> {
    if new.is_empty() {
        return Ok(());
    }
    let webhooks: Vec<Option<String>> =
        new.iter().map(|row| row.job.webhook.as_ref().map(|webhook| serde_json::to_string(webhook).unwrap_or_default())).collect();
    let millis_of = |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    sqlx::query(INSERT_JOBS)
        .bind(column(new, |row| row.job.id.as_bytes().as_slice()))
        .bind(column(new, |row| row.tenant.as_str()))
        .bind(column(new, |row| rows::text(&row.job.kind)))
        .bind(column(new, |row| row.state.code()))
        .bind(column(new, |row| i16::from(row.job.class)))
        .bind(column(new, |row| row.job.priority))
        .bind(column(new, |row| signed32(row.job.retry.max_attempts.max(1))))
        .bind(column(new, |row| millis_of(row.job.retry.base)))
        .bind(column(new, |row| signed32(row.job.retry.factor)))
        .bind(column(new, |row| millis_of(row.job.retry.cap)))
        .bind(column(new, |row| signed(row.job.timeout_millis)))
        .bind(column(new, |row| signed(row.job.keep_millis)))
        .bind(column(new, |row| i32::try_from(row.waits.len()).unwrap_or(i32::MAX)))
        .bind(column(new, |row| rows::on_failure_code(row.job.on_failure)))
        .bind(column(new, |row| row.run_at))
        .bind(column(new, |row| row.job.expires_at.map(millis)))
        .bind(column(new, |row| row.job.parent.as_ref().map(|id| id.as_bytes().as_slice())))
        .bind(column(new, |row| rows::text(&row.job.actor)))
        .bind(column(new, |row| rows::text(&row.job.labels)))
        .bind(webhooks)
        .bind(column(new, |row| row.failure.as_ref().map(|failure| failure.reason.slug())))
        .bind(now)
        .bind(column(new, |row| row.failure.as_ref().map(|failure| rows::text(&failure.text))))
        .bind(column(new, |row| now.saturating_add_unsigned(row.job.keep_millis)))
        .execute(&mut *db)
        .await?;
    put_payloads(db, false, new.iter().map(|row| (row.job.id, &row.job.payload)).collect()).await?;
    let waits: Vec<(&JobId, &JobId)> = new.iter().flat_map(|row| row.waits.iter().map(|on| (on, &row.job.id))).collect();
    if !waits.is_empty() {
        sqlx::query("INSERT INTO dependencies (on_job, job) SELECT * FROM unnest($1::bytea[], $2::bytea[]) ON CONFLICT DO NOTHING")
            .bind(column(&waits, |(on, _)| on.as_bytes().as_slice()))
            .bind(column(&waits, |(_, job)| job.as_bytes().as_slice()))
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// Bytes into `payloads`, or into `results`, where they take the place of what was there.
pub(super) async fn put_payloads(db: &mut PgConnection, results: bool, of: Vec<(JobId, &Payload)>) -> Result<(), Error> {
    const PAYLOADS: &str = "INSERT INTO payloads (id, meta, bytes, digest, size) \
         SELECT * FROM unnest($1::bytea[], $2::text[], $3::bytea[], $4::text[], $5::int8[])";
    const RESULTS: &str = "INSERT INTO results (id, meta, bytes, digest, size) \
         SELECT * FROM unnest($1::bytea[], $2::text[], $3::bytea[], $4::text[], $5::int8[]) ON CONFLICT (id) \
         DO UPDATE SET meta = excluded.meta, bytes = excluded.bytes, digest = excluded.digest, size = excluded.size";
    if of.is_empty() {
        return Ok(());
    }
    let inline = |payload: &Payload| match &payload.body {
        Body::Inline(_) => None,
        Body::Object { digest, .. } => Some(digest.clone()),
    };
    sqlx::query(if results { RESULTS } else { PAYLOADS })
        .bind(column(&of, |(id, _)| id.as_bytes().as_slice()))
        .bind(column(&of, |(_, payload)| rows::text(&payload.meta)))
        .bind(column(&of, |(_, payload)| match &payload.body {
            Body::Inline(bytes) => Some(bytes.as_slice()),
            Body::Object { .. } => None,
        }))
        .bind(column(&of, |(_, payload)| inline(payload)))
        .bind(column(&of, |(_, payload)| signed(payload.body.size())))
        .execute(db)
        .await
        .map(|_| ())
}

/// One column of an array of rows.
pub(super) fn column<'a, R, T>(rows: &'a [R], pick: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(pick).collect()
}
