//! Taking jobs: whose turn it is, how many of a kind may begin, and under which epoch.
//!
//! Start-time fair queueing, as in `policy::overload::Admission`, kept in rows: each flow (kind, class, tenant) has a `pass` that grows by one for
//! each job taken from it, the smallest goes first. Each class has a virtual time (`turns`): where the flow stood that was looked at last. One that
//! begins anew starts there, and one that stands behind it (its kind was paused, or nobody could do it) is served as if it stood there: time in
//! which nothing was taken earns no credit. The work of a claim grows with the jobs that it takes and the flows that it finds empty, not with
//! the jobs that wait.

use rusqlite::{Connection, OptionalExtension, Result, params};

use plinth_policy::jobs::{RetryPolicy, State};

use super::super::{ClaimWish, Claimed, JobId, KindWish};
use super::{Now, rows};

/// Flows that are looked at in one claim.
const FLOWS: u32 = 256;
/// Jobs whose time has come, or is over, that are let go on, or ended, in one claim.
const DUE: u32 = 256;

/// Takes jobs. See [`super::super::Jobs::claim`].
pub(super) fn claim(db: &Connection, now: Now, wish: &ClaimWish) -> Result<Vec<Claimed>> {
    let_due(db, now, DUE)?;
    super::sweep::expire(db, now, DUE)?;
    let mut room = Vec::with_capacity(wish.kinds.len());
    for KindWish { kind, most } in &wish.kinds {
        room.push(room_of(db, now, kind, (*most).min(wish.most))?);
    }
    let mut taken = Vec::new();
    // Each round takes an equal part of what is wanted from each flow in turn; a second one shares what the first left.
    while taken.len() < wish.most as usize {
        let flows = flows(db, wish, &room)?;
        let Some(class) = flows.first().map(|flow| flow.class) else { break };
        let same: Vec<_> = flows.into_iter().filter(|flow| flow.class == class).collect();
        let part = (wish.most as usize - taken.len()).div_ceil(same.len()).max(1);
        for flow in same {
            let Some(left) = wish.kinds.iter().position(|kind| kind.kind == flow.kind).and_then(|at| room.get_mut(at)) else { continue };
            let most = part.min(wish.most as usize - taken.len()).min(*left as usize);
            if most == 0 {
                continue;
            }
            let ids = ready_of(db, &flow, most)?;
            let got = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            *left -= got;
            turn(db, &flow, got)?;
            for id in ids {
                taken.push(take(db, now, wish, id)?);
            }
        }
    }
    for (KindWish { kind, .. }, _) in wish.kinds.iter().zip(&room) {
        let begun = taken.iter().filter(|job| job.kind == *kind).count();
        count_begun(db, now, kind, begun)?;
    }
    Ok(taken)
}

struct Flow {
    kind: String,
    class: u8,
    tenant: String,
    pass: f64,
}

/// Flows in turn, of kinds that have room.
fn flows(db: &Connection, wish: &ClaimWish, room: &[u32]) -> Result<Vec<Flow>> {
    let kinds: Vec<&str> = wish.kinds.iter().zip(room).filter(|(_, room)| **room > 0).map(|(kind, _)| kind.kind.as_str()).collect();
    if kinds.is_empty() {
        return Ok(Vec::new());
    }
    let mut find = db.prepare_cached(
        "SELECT kind, class, tenant, pass FROM flows WHERE class <= ?1 AND kind IN (SELECT value FROM json_each(?2)) ORDER BY class, pass LIMIT ?3",
    )?;
    let found = find.query_map(params![wish.lowest_class, super::json(&kinds), FLOWS], |row| {
        Ok(Flow { kind: row.get(0)?, class: row.get(1)?, tenant: row.get(2)?, pass: row.get(3)? })
    })?;
    found.collect()
}

fn ready_of(db: &Connection, flow: &Flow, most: usize) -> Result<Vec<JobId>> {
    let mut find = db.prepare_cached(
        "SELECT id FROM jobs WHERE state = 2 AND kind = ?1 AND class = ?2 AND tenant = ?3 ORDER BY priority, id LIMIT ?4",
    )?;
    let found = find.query_map(params![flow.kind, flow.class, flow.tenant, super::signed(most as u64)], |row| rows::id(row, 0))?;
    found.collect()
}

/// Moves a flow on by what was taken from it, and the class to where it stood. One that was emptied keeps its place until it is found empty when
/// its turn comes again: would it be forgotten at once, who sends one job at a time would begin anew each time, before those with a queue.
fn turn(db: &Connection, flow: &Flow, got: u32) -> Result<()> {
    let mut turn = db.prepare_cached(
        "INSERT INTO turns (class, pass) VALUES (?1, ?2) ON CONFLICT (class) DO UPDATE SET pass = max(pass, excluded.pass) RETURNING pass",
    )?;
    let start: f64 = turn.query_row(params![flow.class, flow.pass], |row| row.get(0))?;
    if got == 0 {
        let mut delete = db.prepare_cached("DELETE FROM flows WHERE kind = ?1 AND class = ?2 AND tenant = ?3")?;
        delete.execute(params![flow.kind, flow.class, flow.tenant])?;
    } else {
        let mut put = db.prepare_cached("UPDATE flows SET pass = ?4 WHERE kind = ?1 AND class = ?2 AND tenant = ?3")?;
        put.execute(params![flow.kind, flow.class, flow.tenant, start + f64::from(got)])?;
    }
    Ok(())
}

fn take(db: &Connection, now: Now, wish: &ClaimWish, id: JobId) -> Result<Claimed> {
    let lease = now.lease.saturating_add_unsigned(wish.lease_millis);
    let mut take = db.prepare_cached(
        "UPDATE jobs SET state = 3, epoch = epoch + 1, attempt = attempt + 1, worker = ?2, lease_until = ?3, started_at = ?4 WHERE id = ?1 \
         RETURNING tenant, kind, epoch, attempt, max_attempts, retry_base, retry_factor, retry_cap, timeout, class, actor, created_at, checkpoint",
    )?;
    let mut claimed = take.query_row(params![id.as_bytes(), wish.worker.0, lease, now.wall], |row| {
        Ok(Claimed {
            id,
            tenant: rows::tenant(row, 0)?,
            kind: row.get(1)?,
            epoch: rows::count(row, 2)?,
            attempt: row.get(3)?,
            retry: RetryPolicy {
                max_attempts: row.get(4)?,
                base: std::time::Duration::from_millis(rows::count(row, 5)?),
                factor: row.get(6)?,
                cap: std::time::Duration::from_millis(rows::count(row, 7)?),
            },
            timeout_millis: rows::count(row, 8)?,
            class: row.get(9)?,
            actor: row.get(10)?,
            created_at: rows::time(row, 11)?,
            checkpoint: row.get(12)?,
            payload: super::super::Payload { meta: String::new(), body: super::super::Body::Inline(Vec::new()) },
        })
    })?;
    let mut find = db.prepare_cached("SELECT meta, bytes, digest, size FROM payloads WHERE id = ?1")?;
    claimed.payload = find.query_row([id.as_bytes()], |row| rows::payload(row, 0))?;
    Ok(claimed)
}

/// How many of a kind may begin now.
fn room_of(db: &Connection, now: Now, kind: &str, most: u32) -> Result<u32> {
    let mut find = db.prepare_cached("SELECT paused, concurrency, rate, next_at FROM kinds WHERE kind = ?1")?;
    let found = find.query_row([kind], |row| {
        Ok((row.get::<_, bool>(0)?, row.get::<_, Option<u32>>(1)?, row.get::<_, Option<f64>>(2)?, row.get::<_, f64>(3)?))
    });
    let Some((paused, concurrency, rate, next_at)) = found.optional()? else { return Ok(most) };
    if paused {
        return Ok(0);
    }
    let mut room = most;
    if let Some(limit) = concurrency {
        let mut count = db.prepare_cached("SELECT count(*) FROM jobs INDEXED BY jobs_leased WHERE state = 3 AND kind = ?1")?;
        let running: u32 = count.query_row([kind], |row| row.get(0))?;
        room = room.min(limit.saturating_sub(running));
    }
    if let Some(rate) = rate {
        room = room.min(super::super::rate::room(now.wall, next_at, rate));
    }
    Ok(room)
}

fn count_begun(db: &Connection, now: Now, kind: &str, begun: usize) -> Result<()> {
    if begun == 0 {
        return Ok(());
    }
    let mut find = db.prepare_cached("SELECT rate, next_at FROM kinds WHERE kind = ?1 AND rate IS NOT NULL")?;
    let Some((rate, next_at)) = find.query_row([kind], |row| Ok((row.get::<_, f64>(0)?, row.get::<_, f64>(1)?))).optional()? else {
        return Ok(());
    };
    let next = super::super::rate::after(now.wall, next_at, rate, begun);
    db.prepare_cached("UPDATE kinds SET next_at = ?2 WHERE kind = ?1")?.execute(params![kind, next])?;
    Ok(())
}

/// Lets go on what waited for a moment that has come; how many.
pub(super) fn let_due(db: &Connection, now: Now, most: u32) -> Result<u64> {
    let mut find =
        db.prepare_cached("SELECT id, kind, class, tenant FROM jobs WHERE state = 1 AND run_at <= ?1 ORDER BY run_at LIMIT ?2")?;
    let due: Vec<(JobId, String, u8, String)> = find
        .query_map(params![now.wall, most], |row| Ok((rows::id(row, 0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<Result<_>>()?;
    for (id, kind, class, tenant) in &due {
        super::set_state(db, *id, State::Ready)?;
        super::submit::enter_flow(db, kind, *class, tenant)?;
    }
    Ok(due.len() as u64)
}
