//! Storing jobs: with their key, what they wait for, and a place in line.

use plinth_policy::jobs::State;
use plinth_types::TenantName;
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::super::{Body, JobId, NewJob, OnFailure, Payload, Submission, Submitted};
use super::Now;

/// Stores a submission. See [`super::super::Jobs::submit`].
pub(super) fn submit(db: &Connection, now: Now, submission: &Submission) -> Result<Submitted> {
    let tenant = submission.tenant.as_str();
    if let Some(key) = &submission.key {
        let mut find = db.prepare_cached("SELECT fingerprint, jobs FROM keys WHERE tenant = ?1 AND key = ?2 AND expires_at > ?3")?;
        let found = find.query_row(params![tenant, key.key, now.wall], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)));
        if let Some((fingerprint, jobs)) = found.optional()? {
            if fingerprint != key.fingerprint {
                return Ok(Submitted::KeyReused);
            }
            return Ok(Submitted::Replayed(jobs.chunks_exact(16).filter_map(JobId::from_slice).collect()));
        }
    }
    // Everything is looked at before the first write, so that a refusal writes nothing.
    for job in &submission.jobs {
        for on in &job.waits_for {
            let among = submission.jobs.iter().any(|other| other.id == *on);
            if !among && state_of(db, &submission.tenant, *on)?.is_none() {
                return Ok(Submitted::NoSuchJob(*on));
            }
        }
    }
    if let Some(key) = &submission.key {
        let ids: Vec<u8> = submission.jobs.iter().flat_map(|job| *job.id.as_bytes()).collect();
        let mut put =
            db.prepare_cached("INSERT OR REPLACE INTO keys (tenant, key, fingerprint, jobs, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)")?;
        put.execute(params![tenant, key.key, key.fingerprint, ids, now.wall.saturating_add_unsigned(key.keep_millis)])?;
    }
    for job in &submission.jobs {
        insert(db, now, &submission.tenant, job)?;
    }
    Ok(Submitted::Created)
}

fn state_of(db: &Connection, tenant: &TenantName, id: JobId) -> Result<Option<State>> {
    let mut find = db.prepare_cached("SELECT state FROM jobs WHERE id = ?1 AND tenant = ?2")?;
    find.query_row(params![id.as_bytes(), tenant.as_str()], |row| super::rows::state(row, 0)).optional()
}

/// Stores one job and gives it its place in line.
pub(super) fn insert(db: &Connection, now: Now, tenant: &TenantName, job: &NewJob) -> Result<()> {
    // What has ended well need not be waited for; what has ended badly decides now.
    let (mut waits, mut failed) = (Vec::new(), false);
    for on in &job.waits_for {
        match state_of(db, tenant, *on)? {
            Some(State::Succeeded) => {}
            Some(state) if state.ended() => failed = true,
            Some(_) => waits.push(*on),
            // It was looked for a moment ago, so it is of this submission and comes later: the caller's order is wrong.
            None => failed = true,
        }
    }
    waits.sort_unstable();
    waits.dedup();
    let run_at = job.run_at.map_or(now.wall, super::millis);
    let state = match (failed, job.on_failure) {
        (true, OnFailure::Fail) => State::Dead,
        (true, OnFailure::Cancel) => State::Cancelled,
        _ if !waits.is_empty() => State::Blocked,
        _ if run_at > now.wall => State::Scheduled,
        _ => State::Ready,
    };
    let mut put = db.prepare_cached(
        "INSERT INTO jobs (id, tenant, kind, state, class, priority, max_attempts, retry_base, retry_factor, retry_cap, timeout, keep, waits, \
         on_failure, created_at, run_at, expires_at, parent, actor, labels, webhook) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
    )?;
    let webhook = job.webhook.as_ref().map(super::json);
    let retry = &job.retry;
    put.execute(params![
        job.id.as_bytes(),
        tenant.as_str(),
        job.kind,
        if state.ended() { State::Blocked.code() } else { state.code() },
        job.class,
        job.priority,
        retry.max_attempts.max(1),
        super::duration(retry.base),
        retry.factor,
        super::duration(retry.cap),
        super::signed(job.timeout_millis),
        super::signed(job.keep_millis),
        super::signed(waits.len() as u64),
        super::on_failure_code(job.on_failure),
        now.wall,
        run_at,
        job.expires_at.map(super::millis),
        job.parent.map(|id| id.as_bytes().to_vec()),
        job.actor,
        job.labels,
        webhook,
    ])?;
    put_payload(db, "payloads", job.id, &job.payload)?;
    for on in &waits {
        let mut put = db.prepare_cached("INSERT OR IGNORE INTO dependencies (on_job, job) VALUES (?1, ?2)")?;
        put.execute(params![on.as_bytes(), job.id.as_bytes()])?;
    }
    match state {
        State::Ready => enter_flow(db, &job.kind, job.class, tenant.as_str()),
        State::Dead | State::Cancelled => super::end::because_of_another(db, now, job.id, state),
        _ => Ok(()),
    }
}

/// Bytes into `payloads` or `results`.
pub(super) fn put_payload(db: &Connection, table: &'static str, id: JobId, payload: &Payload) -> Result<()> {
    let sql = match table {
        "results" => "INSERT OR REPLACE INTO results (id, meta, bytes, digest, size) VALUES (?1, ?2, ?3, ?4, ?5)",
        _ => "INSERT INTO payloads (id, meta, bytes, digest, size) VALUES (?1, ?2, ?3, ?4, ?5)",
    };
    let (bytes, digest) = match &payload.body {
        Body::Inline(bytes) => (Some(bytes), None),
        Body::Object { digest, .. } => (None, Some(digest)),
    };
    db.prepare_cached(sql)?.execute(params![id.as_bytes(), payload.meta, bytes, digest, super::signed(payload.body.size())])?;
    Ok(())
}

/// Makes sure that a flow has a turn. One that had none begins where its class is: idle time earns no credit.
pub(super) fn enter_flow(db: &Connection, kind: &str, class: u8, tenant: &str) -> Result<()> {
    let mut put = db.prepare_cached(
        "INSERT OR IGNORE INTO flows (kind, class, tenant, pass) \
         VALUES (?1, ?2, ?3, coalesce((SELECT pass FROM turns WHERE class = ?2), 0))",
    )?;
    put.execute(params![kind, class, tenant])?;
    Ok(())
}
