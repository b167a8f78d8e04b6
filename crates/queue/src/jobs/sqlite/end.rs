//! Ending attempts and jobs, and what follows in the same transaction: those that waited are let go on, webhooks become jobs.

use plinth_policy::jobs::State;
use plinth_types::{Reason, TenantName};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::super::{Cancelled, End, Failure, Finish, Finished, JobId, OnFailure, ReplayWish, Report, WEBHOOK_KIND};
use super::{Now, rows};

/// Events that are kept of one job.
const EVENTS: u64 = 1000;

/// What ending needs to know of a job.
struct Running {
    tenant: TenantName,
    kind: String,
    class: u8,
    attempt: u32,
    max_attempts: u32,
    worker: String,
    started_at: i64,
    cancel: bool,
}

fn held(db: &Connection, id: JobId, epoch: u64) -> Result<Option<Running>> {
    let mut find = db.prepare_cached(
        "SELECT tenant, kind, class, attempt, max_attempts, worker, started_at, cancel FROM jobs WHERE id = ?1 AND epoch = ?2 AND state = 3",
    )?;
    find.query_row(params![id.as_bytes(), super::signed(epoch)], |row| {
        Ok(Running {
            tenant: rows::tenant(row, 0)?,
            kind: row.get(1)?,
            class: row.get(2)?,
            attempt: row.get(3)?,
            max_attempts: row.get(4)?,
            worker: row.get(5)?,
            started_at: row.get(6)?,
            cancel: row.get(7)?,
        })
    })
    .optional()
}

/// Ends an attempt. See [`super::super::Jobs::finish`].
pub(super) fn finish(db: &Connection, now: Now, finish: &Finish) -> Result<Finished> {
    let Some(job) = held(db, finish.id, finish.epoch)? else { return Ok(Finished::Fenced) };
    match &finish.end {
        End::Succeeded(result) => {
            super::submit::put_payload(db, "results", finish.id, result)?;
            let size = super::signed(result.body.size());
            db.prepare_cached("UPDATE jobs SET result_size = ?2, progress = 1000, reason = NULL, failure = NULL WHERE id = ?1")?
                .execute(params![finish.id.as_bytes(), size])?;
            end(db, now, finish.id, State::Succeeded)?;
        }
        End::Dead(failure) => {
            note_attempt(db, now, finish.id, finish.epoch, &job, failure)?;
            end(db, now, finish.id, State::Dead)?;
        }
        End::Cancelled => {
            put_failure(db, finish.id, &Failure { reason: Reason::JobCancelled, text: "cancelled while it ran".into() })?;
            end(db, now, finish.id, State::Cancelled)?;
        }
        End::Retry { failure, after_millis } => {
            note_attempt(db, now, finish.id, finish.epoch, &job, failure)?;
            if job.cancel {
                end(db, now, finish.id, State::Cancelled)?;
            } else if job.attempt >= job.max_attempts {
                end(db, now, finish.id, State::Dead)?;
            } else {
                again(db, now, finish.id, &job, *after_millis)?;
            }
        }
        End::Released { after_millis } => {
            if job.cancel {
                end(db, now, finish.id, State::Cancelled)?;
            } else {
                db.prepare_cached("UPDATE jobs SET attempt = max(attempt - 1, 0) WHERE id = ?1")?.execute([finish.id.as_bytes()])?;
                again(db, now, finish.id, &job, *after_millis)?;
            }
        }
    }
    Ok(Finished::Done)
}

/// Back in line, at once or after a pause.
fn again(db: &Connection, now: Now, id: JobId, job: &Running, after_millis: u64) -> Result<()> {
    let state = if after_millis == 0 { State::Ready } else { State::Scheduled };
    let run_at = now.wall.saturating_add_unsigned(after_millis);
    db.prepare_cached("UPDATE jobs SET state = ?2, run_at = ?3, worker = NULL, lease_until = NULL WHERE id = ?1")?.execute(params![
        id.as_bytes(),
        state.code(),
        run_at
    ])?;
    if state == State::Ready {
        super::submit::enter_flow(db, &job.kind, job.class, job.tenant.as_str())?;
    }
    Ok(())
}

fn note_attempt(db: &Connection, now: Now, id: JobId, epoch: u64, job: &Running, failure: &Failure) -> Result<()> {
    let mut put = db.prepare_cached(
        "INSERT OR REPLACE INTO attempts (id, epoch, attempt, worker, started_at, ended_at, reason, failure) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let reason = failure.reason.slug();
    put.execute(params![id.as_bytes(), super::signed(epoch), job.attempt, job.worker, job.started_at, now.wall, reason, failure.text])?;
    put_failure(db, id, failure)
}

/// Why it fails; what has ended keeps its reason.
fn put_failure(db: &Connection, id: JobId, failure: &Failure) -> Result<()> {
    let mut put = db.prepare_cached("UPDATE jobs SET reason = ?2, failure = ?3 WHERE id = ?1 AND state < 4")?;
    put.execute(params![id.as_bytes(), failure.reason.slug(), failure.text]).map(|_| ())
}

/// Ends a job that has not ended, whatever state it is in, and everything that follows from it.
fn end(db: &Connection, now: Now, id: JobId, state: State) -> Result<()> {
    let mut ended = vec![(id, state)];
    while let Some((id, state)) = ended.pop() {
        let mut put = db.prepare_cached(
            "UPDATE jobs SET state = ?2, ended_at = ?3, keep_until = ?3 + keep, worker = NULL, lease_until = NULL, waits = 0 WHERE id = ?1 AND state < 4 \
             RETURNING tenant, class, webhook, keep, kind, epoch",
        )?;
        let row = put.query_row(params![id.as_bytes(), state.code(), now.wall], |row| {
            let webhook = row.get::<_, Option<String>>(2)?.filter(|_| row.get_ref(4).is_ok_and(|kind| kind.as_str() != Ok(WEBHOOK_KIND)));
            Ok((rows::tenant(row, 0)?, row.get::<_, u8>(1)?, webhook, rows::count(row, 3)?, rows::count(row, 5)?))
        });
        let Some((tenant, class, webhook, keep, epoch)) = row.optional()? else { continue };
        if webhook.is_some() {
            let tell = super::super::webhook_job(id, state, class, keep, JobId::of_end(now.wall, id, epoch));
            super::submit::insert(db, now, &tenant, &tell)?;
        }
        followers(db, now, id, state, &mut ended)?;
    }
    Ok(())
}

/// Those that waited for a job that has ended, and wait still: one that ended meanwhile, or was replayed, is no concern of it.
fn followers(db: &Connection, now: Now, on: JobId, state: State, ended: &mut Vec<(JobId, State)>) -> Result<()> {
    let mut find = db.prepare_cached(
        "SELECT j.id, j.on_failure, j.waits, j.run_at, j.kind, j.class, j.tenant FROM dependencies d JOIN jobs j ON j.id = d.job \
         WHERE d.on_job = ?1 AND j.state = 0",
    )?;
    type Follower = (JobId, i64, u32, i64, String, u8, String);
    let waiting: Vec<Follower> = find
        .query_map([on.as_bytes()], |row| {
            Ok((rows::id(row, 0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
        })?
        .collect::<Result<_>>()?;
    db.prepare_cached("DELETE FROM dependencies WHERE on_job = ?1")?.execute([on.as_bytes()])?;
    for (job, on_failure, waits, run_at, kind, class, tenant) in waiting {
        let bad = state != State::Succeeded;
        match super::on_failure(on_failure) {
            OnFailure::Fail | OnFailure::Cancel if bad => {
                let text = format!("job {on}, which this one waits for, is {state}");
                put_failure(db, job, &Failure { reason: Reason::DependencyFailed, text })?;
                let next = if super::on_failure(on_failure) == OnFailure::Cancel { State::Cancelled } else { State::Dead };
                ended.push((job, next));
            }
            _ => {
                let left = waits.saturating_sub(1);
                let next = match (left, run_at > now.wall) {
                    (0, false) => State::Ready,
                    (0, true) => State::Scheduled,
                    _ => State::Blocked,
                };
                let mut put = db.prepare_cached("UPDATE jobs SET waits = ?2, state = ?3 WHERE id = ?1 AND state = 0")?;
                put.execute(params![job.as_bytes(), left, next.code()])?;
                if next == State::Ready {
                    super::submit::enter_flow(db, &kind, class, &tenant)?;
                }
            }
        }
    }
    Ok(())
}

/// Ends a job at its submission, because one that it waits for has ended badly.
pub(super) fn because_of_another(db: &Connection, now: Now, id: JobId, state: State) -> Result<()> {
    let text = "a job that this one waits for had ended badly before".to_owned();
    put_failure(db, id, &Failure { reason: Reason::DependencyFailed, text })?;
    end(db, now, id, state)
}

/// Ends a job that has not begun, with a reason.
pub(super) fn unbegun(db: &Connection, now: Now, id: JobId, state: State, failure: &Failure) -> Result<()> {
    put_failure(db, id, failure)?;
    end(db, now, id, state)
}

/// Writes progress and events. See [`super::super::Jobs::report`].
pub(super) fn report(db: &Connection, now: Now, report: &Report) -> Result<Finished> {
    let mut put = db.prepare_cached(
        "UPDATE jobs SET progress = coalesce(?3, progress), checkpoint = coalesce(?4, checkpoint), events = events + ?5 \
         WHERE id = ?1 AND epoch = ?2 AND state = 3 RETURNING events",
    )?;
    let more = report.events.len() as u64;
    let id = report.id.as_bytes();
    let written = put.query_row(params![id, super::signed(report.epoch), report.progress, report.checkpoint, super::signed(more)], |row| {
        rows::count(row, 0)
    });
    let Some(last) = written.optional()? else { return Ok(Finished::Fenced) };
    for ((name, data), seq) in report.events.iter().zip(last - more + 1..) {
        let mut put = db.prepare_cached("INSERT INTO job_events (id, seq, at, name, data) VALUES (?1, ?2, ?3, ?4, ?5)")?;
        put.execute(params![id, super::signed(seq), now.wall, name, data])?;
    }
    if more > 0 && last > EVENTS {
        db.prepare_cached("DELETE FROM job_events WHERE id = ?1 AND seq <= ?2")?.execute(params![id, super::signed(last - EVENTS)])?;
    }
    Ok(Finished::Done)
}

/// Asks for the end of a job. See [`super::super::Jobs::cancel`].
pub(super) fn cancel(db: &Connection, now: Now, tenant: &TenantName, id: JobId) -> Result<Option<Cancelled>> {
    let mut find = db.prepare_cached("SELECT state FROM jobs WHERE id = ?1 AND tenant = ?2")?;
    let Some(state) = find.query_row(params![id.as_bytes(), tenant.as_str()], |row| rows::state(row, 0)).optional()? else {
        return Ok(None);
    };
    Ok(Some(match state {
        ended if ended.ended() => Cancelled::Was(ended),
        State::Running => {
            db.prepare_cached("UPDATE jobs SET cancel = 1 WHERE id = ?1")?.execute([id.as_bytes()])?;
            Cancelled::Asked
        }
        _ => {
            put_failure(db, id, &Failure { reason: Reason::JobCancelled, text: "cancelled before it began".into() })?;
            end(db, now, id, State::Cancelled)?;
            Cancelled::Ended
        }
    }))
}

/// Makes dead letters ready again. See [`super::super::Jobs::replay`].
pub(super) fn replay(db: &Connection, now: Now, wish: &ReplayWish) -> Result<u64> {
    let mut find = db.prepare_cached(
        "SELECT id, kind, class FROM jobs WHERE state = 5 AND tenant = ?1 AND (?2 IS NULL OR kind = ?2) \
         AND (?3 = '[]' OR hex(id) IN (SELECT value FROM json_each(?3))) ORDER BY id LIMIT ?4",
    )?;
    let ids: Vec<String> = wish.ids.iter().map(|id| id.to_string().replace('-', "").to_uppercase()).collect();
    let dead: Vec<(JobId, String, u8)> = find
        .query_map(params![wish.tenant.as_str(), wish.kind, super::json(&ids), wish.limit], |row| {
            Ok((rows::id(row, 0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<Result<_>>()?;
    for (id, kind, class) in &dead {
        let mut put = db.prepare_cached(
            "UPDATE jobs SET state = 2, epoch = epoch + 1, attempt = 0, cancel = 0, run_at = ?2, expires_at = NULL, ended_at = NULL, keep_until = NULL WHERE id = ?1",
        )?;
        put.execute(params![id.as_bytes(), now.wall])?;
        super::submit::enter_flow(db, kind, *class, wish.tenant.as_str())?;
    }
    Ok(dead.len() as u64)
}
