//! Taking jobs: whose turn it is, how many of a kind may begin, and under which epoch.
//!
//! Start-time fair queueing over the rows of `flows`, as in SQLite. Several nodes claim at once: each locks flows that are free and,
//! within them, jobs that are free, so that none waits for another; a kind with limits is counted under the lock of its row. Locks are
//! taken in the order due jobs, kinds, flows, jobs, and only kinds and the first flow are waited for, so claims cannot block each other
//! for good.

use std::collections::BTreeMap;

use plinth_policy::jobs::RetryPolicy;
use sqlx::error::Error;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::super::{ClaimWish, Claimed, KindWish, rate};
use super::database::now_sql;
use super::flows::{self, Flow, Turn};
use super::{rows, sweep};

/// Flows that one claim may find empty before it gives up.
const EMPTY: usize = 256;
/// Jobs whose time has come, or is over, that are let go on, or ended, in one claim.
const DUE: u32 = 256;

/// Takes jobs. See [`super::super::Jobs::claim`].
pub(super) async fn claim(db: &mut PgConnection, (now, due): (i64, bool), wish: &ClaimWish) -> Result<Vec<Claimed>, Error> {
    if due {
        let_due(db, now, DUE).await?;
        sweep::sweep(db, now, sweep::Step::Expired, DUE).await?;
    }
    let mut room = room(db, now, wish).await?;
    let (mut taken, mut empty, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    // Each round takes an equal part of what is wanted from each flow in turn; a further one shares what the last one left.
    let mut first = true;
    while taken.len() < wish.most as usize && empty.len() < EMPTY {
        let kinds: Vec<&str> = room.iter().filter(|(_, room)| room.left > 0).map(|(kind, _)| kind.as_str()).collect();
        if kinds.is_empty() {
            break;
        }
        let left = wish.most as usize - taken.len();
        let turn = flows::in_turn(db, (&kinds, wish.lowest_class), left.min(EMPTY), &empty, first).await?;
        first = false;
        if turn.is_empty() {
            break;
        }
        let asked = share(turn.iter().map(|turn| &turn.flow), left, &room);
        let got = take(db, now, wish, &turn, &asked).await?;
        let mut counts = vec![0; turn.len()];
        for (at, job) in got {
            if let (Some(count), Some(room)) = (counts.get_mut(at), room.get_mut(&job.kind)) {
                *count += 1;
                room.left -= room.left.min(1);
                room.begun += 1;
            }
            taken.push(job);
        }
        let looked_at = || turn.iter().zip(asked.iter().zip(&counts)).filter(|(_, (asked, _))| **asked > 0);
        let counted: Vec<(&Turn, usize)> = looked_at().map(|(turn, (_, count))| (turn, *count)).collect();
        flows::count_taken(db, &counted).await?;
        // One that was emptied now keeps its place until it is found empty when its turn comes again.
        gone.extend(looked_at().filter(|(_, (_, got))| **got == 0).map(|(turn, _)| turn.flow.clone()));
        empty.extend(turn.iter().zip(asked.iter().zip(&counts)).filter(|(_, (asked, got))| got < asked).map(|(turn, _)| turn.flow.clone()));
    }
    flows::leave(db, &gone).await?;
    count_begun(db, now, &room).await?;
    Ok(taken)
}

/// How many of a kind may begin.
struct Room {
    left: u32,
    begun: usize,
    rate: Option<(f64, f64)>,
}

/// How many to ask of each flow: equal parts, no more of a kind than it has room for.
fn share<'a>(turn: impl ExactSizeIterator<Item = &'a Flow>, left: usize, room: &BTreeMap<String, Room>) -> Vec<usize> {
    let part = left.div_ceil(turn.len().max(1)).max(1);
    let mut left = left;
    let mut of_kind: BTreeMap<&str, usize> = room.iter().map(|(kind, room)| (kind.as_str(), room.left as usize)).collect();
    let ask = |flow: &'a Flow| {
        let kind = of_kind.get_mut(flow.kind.as_str());
        let most = kind.as_ref().map_or(0, |kind| part.min(left).min(**kind));
        if let Some(kind) = kind {
            *kind -= most;
        }
        left -= most;
        most
    };
    turn.map(ask).collect()
}

const TAKE: &str = concat!(
    "WITH picked AS MATERIALIZED (SELECT j.id, f.at FROM unnest($1::text[], $2::int2[], $3::text[], $4::int8[]) \
     WITH ORDINALITY AS f (kind, class, tenant, most, at), \
     LATERAL (SELECT id FROM jobs WHERE state = 2 AND kind = f.kind AND class = f.class AND tenant = f.tenant \
     ORDER BY priority, id LIMIT f.most FOR NO KEY UPDATE SKIP LOCKED) j), \
     taken AS (UPDATE jobs SET state = 3, epoch = epoch + 1, attempt = attempt + 1, worker = $5, started_at = $7, lease_until = ",
    now_sql!(),
    " + $6 FROM picked WHERE jobs.id = picked.id RETURNING picked.at, jobs.*) \
     SELECT t.at, t.id, t.tenant, t.kind, t.epoch, t.attempt, t.max_attempts, t.retry_base, t.retry_factor, t.retry_cap, \
     t.timeout, t.class, \
     t.actor, t.created_at, t.checkpoint, p.meta, p.bytes, p.digest, p.size FROM taken t JOIN payloads p ON p.id = t.id \
     ORDER BY t.at, t.priority, t.id"
);

/// Takes jobs of flows; each with the place of its flow.
async fn take(db: &mut PgConnection, now: i64, wish: &ClaimWish, turn: &[Turn], asked: &[usize]) -> Result<Vec<(usize, Claimed)>, Error> {
    let found = sqlx::query(TAKE)
        .bind(turn.iter().map(|turn| turn.flow.kind.as_str()).collect::<Vec<_>>())
        .bind(turn.iter().map(|turn| i16::from(turn.flow.class)).collect::<Vec<_>>())
        .bind(turn.iter().map(|turn| turn.flow.tenant.as_str()).collect::<Vec<_>>())
        .bind(asked.iter().map(|most| rows::signed(*most as u64)).collect::<Vec<_>>())
        .bind(&wish.worker.0)
        .bind(rows::signed(wish.lease_millis).min(i64::MAX / 4))
        .bind(now)
        .fetch_all(db)
        .await?;
    found.iter().map(|row| Ok((usize::try_from(row.try_get::<i64, _>(0)? - 1).unwrap_or(usize::MAX), claimed(row)?))).collect()
}

fn claimed(row: &PgRow) -> Result<Claimed, Error> {
    Ok(Claimed {
        id: rows::id(row, 1)?,
        tenant: rows::tenant(row, 2)?,
        kind: row.try_get(3)?,
        epoch: rows::count(row, 4)?,
        attempt: rows::count32(row, 5)?,
        retry: RetryPolicy {
            max_attempts: rows::count32(row, 6)?,
            base: std::time::Duration::from_millis(rows::count(row, 7)?),
            factor: rows::count32(row, 8)?,
            cap: std::time::Duration::from_millis(rows::count(row, 9)?),
        },
        timeout_millis: rows::count(row, 10)?,
        class: rows::class(row, 11)?,
        actor: row.try_get(12)?,
        created_at: rows::time(row, 13)?,
        checkpoint: row.try_get(14)?,
        payload: rows::payload(row, 15)?,
    })
}

/// How many of each wanted kind may begin now. Locks the rows of kinds with limits.
async fn room(db: &mut PgConnection, now: i64, wish: &ClaimWish) -> Result<BTreeMap<String, Room>, Error> {
    let mut room: BTreeMap<String, Room> = BTreeMap::new();
    for KindWish { kind, most } in &wish.kinds {
        room.entry(kind.clone()).or_insert(Room { left: (*most).min(wish.most), begun: 0, rate: None });
    }
    let kinds: Vec<&str> = room.keys().map(String::as_str).collect();
    let settings = "SELECT kind, paused, concurrency, rate, next_at FROM kinds WHERE kind = ANY($1) AND (paused OR concurrency IS NOT NULL \
         OR rate IS NOT NULL) ORDER BY kind FOR NO KEY UPDATE";
    let found = sqlx::query(settings).bind(kinds).fetch_all(&mut *db).await?;
    let mut limited: BTreeMap<String, u64> = BTreeMap::new();
    for row in &found {
        let kind: String = row.try_get(0)?;
        let Some(room) = room.get_mut(&kind) else { continue };
        if row.try_get(1)? {
            room.left = 0;
        }
        if let Some(rate) = row.try_get::<Option<f64>, _>(3)? {
            let next_at = row.try_get(4)?;
            room.left = room.left.min(rate::room(now, next_at, rate));
            room.rate = Some((rate, next_at));
        }
        if row.try_get::<Option<i64>, _>(2)?.is_some() {
            limited.insert(kind, rows::count(row, 2)?);
        }
    }
    if !limited.is_empty() {
        // After the locks and in a statement of its own, so that it sees what was claimed under them.
        let kinds: Vec<&str> = limited.keys().map(String::as_str).collect();
        let count = "SELECT k.kind, (SELECT count(*) FROM jobs WHERE state = 3 AND kind = k.kind) FROM unnest($1::text[]) AS k (kind)";
        for row in &sqlx::query(count).bind(kinds).fetch_all(&mut *db).await? {
            let (kind, running) = (row.try_get::<&str, _>(0)?, rows::count(row, 1)?);
            if let (Some(room), Some(limit)) = (room.get_mut(kind), limited.get(kind)) {
                room.left = room.left.min(u32::try_from(limit.saturating_sub(running)).unwrap_or(u32::MAX));
            }
        }
    }
    Ok(room)
}

/// Notes what has begun of kinds with a rate.
async fn count_begun(db: &mut PgConnection, now: i64, room: &BTreeMap<String, Room>) -> Result<(), Error> {
    for (kind, Room { begun, rate, .. }) in room {
        let Some((rate, next_at)) = rate.filter(|_| *begun > 0) else { continue };
        let next = rate::after(now, next_at, rate, *begun);
        sqlx::query("UPDATE kinds SET next_at = $2 WHERE kind = $1").bind(kind).bind(next).execute(&mut *db).await?;
    }
    Ok(())
}

/// Lets go on what waited for a moment that has come; how many.
pub(super) async fn let_due(db: &mut PgConnection, now: i64, most: u32) -> Result<u64, Error> {
    let sql = "WITH due AS MATERIALIZED (SELECT id FROM jobs WHERE state = 1 AND run_at <= $1 ORDER BY run_at LIMIT $2 \
         FOR NO KEY UPDATE SKIP LOCKED) UPDATE jobs SET state = 2 FROM due WHERE jobs.id = due.id RETURNING kind, class, tenant";
    let found = sqlx::query(sql).bind(now).bind(i64::from(most)).fetch_all(&mut *db).await?;
    let flow = |row: &PgRow| Ok::<_, Error>(Flow { kind: row.try_get(0)?, class: rows::class(row, 1)?, tenant: row.try_get(2)? });
    let flows = found.iter().map(flow).collect::<Result<_, _>>()?;
    flows::enter(db, &flows).await?;
    Ok(found.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_equal_and_within_the_room() {
        let flow = |kind: &str, tenant: &str| Flow { kind: kind.into(), class: 1, tenant: tenant.into() };
        let turn = [flow("a", "x"), flow("a", "y"), flow("b", "x")];
        let room = |a, b| [("a", a), ("b", b)].map(|(kind, left)| (kind.to_owned(), Room { left, begun: 0, rate: None })).into();
        assert_eq!(share(turn.iter(), 6, &room(9, 9)), [2, 2, 2]);
        assert_eq!(share(turn.iter(), 7, &room(9, 9)), [3, 3, 1]);
        assert_eq!(share(turn.iter(), 2, &room(9, 9)), [1, 1, 0]);
        assert_eq!(share(turn.iter(), 9, &room(4, 1)), [3, 1, 1]);
        assert_eq!(share(turn.iter(), 9, &room(0, 1)), [0, 0, 1]);
    }
}
