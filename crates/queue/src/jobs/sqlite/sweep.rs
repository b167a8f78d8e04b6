//! What nobody asks for and must happen: leases that ran out, time that came, what need not be kept.

use plinth_policy::jobs::State;
use plinth_types::Reason;
use rusqlite::{Connection, Result, params};

use super::super::{End, Failure, Finish, JobId, SweepWish, Swept};
use super::{Now, claim, end, rows};

/// One sweep. See [`super::super::Jobs::sweep`].
pub(super) fn sweep(db: &Connection, now: Now, wish: &SweepWish) -> Result<Swept> {
    let mut find = db.prepare_cached("SELECT id, epoch FROM jobs WHERE state = 3 AND lease_until < ?1 ORDER BY lease_until LIMIT ?2")?;
    let lost = pairs(find.query_map(params![now.lease, wish.most], |row| Ok((rows::id(row, 0)?, rows::count(row, 1)?)))?)?;
    let (recovered, died) = give_back(db, now, &lost, "the worker's lease ran out")?;
    Ok(Swept {
        recovered,
        died,
        due: claim::let_due(db, now, wish.most)?,
        expired: expire(db, now, wish.most)?,
        forgotten: forget(db, now, wish.most)?,
    })
}

/// Gives back what a node's former processes held. See [`super::super::Jobs::release`].
///
/// `None` for all nodes.
pub(super) fn release(db: &Connection, now: Now, node: Option<&str>, living: &str) -> Result<u64> {
    let mut find = db.prepare_cached(
        "SELECT id, epoch FROM jobs INDEXED BY jobs_leased \
         WHERE state = 3 AND worker <> ?2 AND (?1 IS NULL OR substr(worker, 1, length(?1) + 1) = ?1 || '/')",
    )?;
    let held = pairs(find.query_map(params![node, living], |row| Ok((rows::id(row, 0)?, rows::count(row, 1)?)))?)?;
    let (recovered, died) = give_back(db, now, &held, "the node's process ended")?;
    Ok(recovered + died)
}

fn pairs(found: impl Iterator<Item = Result<(JobId, u64)>>) -> Result<Vec<(JobId, u64)>> {
    found.collect()
}

/// Ends attempts whose worker is gone: the job is ready again at once, or dead when this was its last. How many of each.
fn give_back(db: &Connection, now: Now, held: &[(JobId, u64)], why: &str) -> Result<(u64, u64)> {
    let mut died = 0;
    for (id, epoch) in held {
        let failure = Failure { reason: Reason::WorkerLost, text: why.to_owned() };
        end::finish(db, now, &Finish { id: *id, epoch: *epoch, end: End::Retry { failure, after_millis: 0 } })?;
        let mut find = db.prepare_cached("SELECT state FROM jobs WHERE id = ?1")?;
        died += u64::from(find.query_row([id.as_bytes()], |row| rows::state(row, 0))?.ended());
    }
    Ok((held.len() as u64 - died, died))
}

/// Ends what was worthless before it began; how many.
pub(super) fn expire(db: &Connection, now: Now, most: u32) -> Result<u64> {
    let mut find = db.prepare_cached(
        "SELECT id FROM jobs WHERE expires_at IS NOT NULL AND state < 3 AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2",
    )?;
    let expired: Vec<JobId> = find.query_map(params![now.wall, most], |row| rows::id(row, 0))?.collect::<Result<_>>()?;
    for id in &expired {
        let failure = Failure { reason: Reason::DeadlineExceeded, text: "it had not begun when its time was over".into() };
        end::unbegun(db, now, *id, State::Dead, &failure)?;
    }
    Ok(expired.len() as u64)
}

fn forget(db: &Connection, now: Now, most: u32) -> Result<u64> {
    let mut find =
        db.prepare_cached("SELECT id FROM jobs WHERE keep_until IS NOT NULL AND keep_until <= ?1 ORDER BY keep_until LIMIT ?2")?;
    let old: Vec<JobId> = find.query_map(params![now.wall, most], |row| rows::id(row, 0))?.collect::<Result<_>>()?;
    for id in &old {
        for sql in [
            "DELETE FROM jobs WHERE id = ?1",
            "DELETE FROM payloads WHERE id = ?1",
            "DELETE FROM results WHERE id = ?1",
            "DELETE FROM attempts WHERE id = ?1",
            "DELETE FROM job_events WHERE id = ?1",
        ] {
            db.prepare_cached(sql)?.execute([id.as_bytes()])?;
        }
    }
    let mut find = db.prepare_cached("SELECT tenant, key FROM keys WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2")?;
    let stale: Vec<(String, String)> =
        find.query_map(params![now.wall, most], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_>>()?;
    for (tenant, key) in &stale {
        db.prepare_cached("DELETE FROM keys WHERE tenant = ?1 AND key = ?2")?.execute([tenant, key])?;
    }
    Ok(old.len() as u64)
}
