//! Storing submissions, many in one transaction: keys, what they wait for, and a place in line.
//!
//! Invariants: a submission is stored whole with its key or not at all, and what is wrong with one costs no other in its group. The jobs
//! that a submission waits for are locked (`FOR SHARE`) before they are looked at and until the commit: one that is about to end either
//! has ended before, and is then seen as ended, or ends after and sees who waits for it. A key is taken by inserting it: two nodes with
//! the same key meet in its unique index, the later one waits for the earlier one's commit and reads what that stored.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use plinth_policy::jobs::State;
use plinth_types::TenantName;
use sqlx::error::Error;
use sqlx::{PgConnection, Row};

use super::super::{IdempotencyKey, JobId, NewJob, Submission, Submitted};
use super::insert::{NewRow, column, flows_of, insert, place};
use super::{flows, rows};

/// What is there of the jobs that are waited for: whose, and in which state.
type Known = BTreeMap<JobId, (TenantName, State)>;
/// A key as it lies in the table, with its fingerprint and its jobs.
type Keys = BTreeMap<(String, String), (Vec<u8>, Vec<JobId>)>;

/// Stores submissions. See [`super::super::Jobs::submit`].
pub(super) async fn submit(db: &mut PgConnection, now: i64, group: &[Submission]) -> Result<Vec<Submitted>, Error> {
    let known = lock_waited_for(db, group.iter().flat_map(|submission| &submission.jobs)).await?;
    let missing: Vec<Option<JobId>> = group.iter().map(|submission| missing(submission, &known)).collect();
    let (mut taken, mut keys) = take_keys(db, now, group, &missing).await?;
    let (mut outcomes, mut new) = (Vec::with_capacity(group.len()), Vec::new());
    for (submission, missing) in group.iter().zip(missing) {
        let name = submission.key.as_ref().map(|key| name(submission, key));
        if let (Some(name), Some(key)) = (&name, &submission.key)
            && !taken.remove(name)
            && let Some((fingerprint, jobs)) = keys.get(name)
        {
            let same = *fingerprint == key.fingerprint;
            outcomes.push(if same { Submitted::Replayed(jobs.clone()) } else { Submitted::KeyReused });
            continue;
        }
        if let Some(missing) = missing {
            outcomes.push(Submitted::NoSuchJob(missing));
            continue;
        }
        if let (Some(name), Some(key)) = (name, &submission.key) {
            // For another of this group with the same key.
            keys.insert(name, (key.fingerprint.to_vec(), submission.jobs.iter().map(|job| job.id).collect()));
        }
        new.extend(placed(now, &submission.tenant, &submission.jobs, &known));
        outcomes.push(Submitted::Created);
    }
    insert(db, now, &new).await?;
    flows::enter(db, &flows_of(&new)).await?;
    Ok(outcomes)
}

/// Stores jobs without a key and without looking for what is missing.
pub(super) async fn store(db: &mut PgConnection, now: i64, tenant: &TenantName, jobs: &[NewJob]) -> Result<(), Error> {
    let known = lock_waited_for(db, jobs).await?;
    let new = placed(now, tenant, jobs, &known);
    insert(db, now, &new).await?;
    flows::enter(db, &flows_of(&new)).await
}

/// Jobs of one submission, each with what becomes of it.
fn placed<'a>(now: i64, tenant: &TenantName, jobs: &'a [NewJob], known: &Known) -> Vec<NewRow<'a>> {
    let mut among: BTreeMap<JobId, State> = BTreeMap::new();
    let mut new = Vec::with_capacity(jobs.len());
    for job in jobs {
        let state_of = |id: JobId| {
            let there = known.get(&id).filter(|(owner, _)| owner == tenant).map(|(_, state)| *state);
            among.get(&id).copied().or(there)
        };
        let placed = place(now, tenant, Cow::Borrowed(job), state_of);
        among.extend(placed.iter().map(|row| (row.job.id, row.state)));
        new.extend(placed);
    }
    new
}

/// Locks the jobs that are waited for and are not among these, and tells how they stand.
async fn lock_waited_for<'a>(db: &mut PgConnection, jobs: impl IntoIterator<Item = &'a NewJob>) -> Result<Known, Error> {
    let ids: BTreeSet<JobId> = jobs.into_iter().flat_map(|job| job.waits_for.iter().copied()).collect();
    if ids.is_empty() {
        return Ok(Known::new());
    }
    let ids: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes().as_slice()).collect();
    let sql = "SELECT id, tenant, state FROM jobs WHERE id = ANY($1) ORDER BY id FOR SHARE";
    let found = sqlx::query(sql).bind(ids).fetch_all(db).await?;
    found.iter().map(|row| Ok((rows::id(row, 0)?, (rows::tenant(row, 1)?, rows::state(row, 2)?)))).collect()
}

/// The first job that a submission waits for and that is not there.
fn missing(submission: &Submission, known: &Known) -> Option<JobId> {
    let own: BTreeSet<JobId> = submission.jobs.iter().map(|job| job.id).collect();
    let there = |id: &JobId| own.contains(id) || known.get(id).is_some_and(|(tenant, _)| *tenant == submission.tenant);
    submission.jobs.iter().flat_map(|job| &job.waits_for).find(|id| !there(id)).copied()
}

fn name(submission: &Submission, key: &IdempotencyKey) -> (String, String) {
    (submission.tenant.as_str().to_owned(), rows::text(&key.key).into_owned())
}

/// Inserts the keys of submissions that can be stored, and reads those that were there: which were inserted, and the others.
async fn take_keys(
    db: &mut PgConnection,
    now: i64,
    group: &[Submission],
    missing: &[Option<JobId>],
) -> Result<(BTreeSet<(String, String)>, Keys), Error> {
    let mut wanted: BTreeSet<(String, String)> = BTreeSet::new();
    let mut first: BTreeMap<(String, String), (&IdempotencyKey, Vec<u8>)> = BTreeMap::new();
    for (submission, missing) in group.iter().zip(missing) {
        let Some(key) = &submission.key else { continue };
        let name = name(submission, key);
        wanted.insert(name.clone());
        if missing.is_none() {
            first.entry(name).or_insert_with(|| (key, submission.jobs.iter().flat_map(|job| *job.id.as_bytes()).collect()));
        }
    }
    let mut taken = BTreeSet::new();
    let first: Vec<_> = first.into_iter().collect();
    if !first.is_empty() {
        // In the order of the keys, so that two groups do not wait for each other. One whose time is over is free.
        let sql = "INSERT INTO keys AS k (tenant, key, fingerprint, jobs, expires_at) \
             SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::int8[]) ON CONFLICT (tenant, key) DO UPDATE \
             SET fingerprint = excluded.fingerprint, jobs = excluded.jobs, expires_at = excluded.expires_at WHERE k.expires_at <= $6 \
             RETURNING tenant, key";
        let found = sqlx::query(sql)
            .bind(column(&first, |((tenant, _), _)| tenant.as_str()))
            .bind(column(&first, |((_, key), _)| key.as_str()))
            .bind(column(&first, |(_, (key, _))| key.fingerprint.as_slice()))
            .bind(column(&first, |(_, (_, jobs))| jobs.as_slice()))
            .bind(column(&first, |(_, (key, _))| now.saturating_add_unsigned(key.keep_millis)))
            .bind(now)
            .fetch_all(&mut *db)
            .await?;
        for row in &found {
            taken.insert((row.try_get(0)?, row.try_get(1)?));
        }
    }
    let mut keys = Keys::new();
    let others: Vec<_> = wanted.difference(&taken).collect();
    if !others.is_empty() {
        // A statement of its own: it sees what was committed while the insert waited. Those rows are locked, so none of them goes.
        let sql = "SELECT k.tenant, k.key, k.fingerprint, k.jobs FROM unnest($1::text[], $2::text[]) AS w (tenant, key) \
             JOIN keys k ON k.tenant = w.tenant AND k.key = w.key WHERE k.expires_at > $3";
        let query = sqlx::query(sql).bind(column(&others, |(tenant, _)| tenant.as_str())).bind(column(&others, |(_, key)| key.as_str()));
        for row in &query.bind(now).fetch_all(db).await? {
            let jobs = row.try_get::<&[u8], _>(3)?.chunks_exact(16).filter_map(JobId::from_slice).collect();
            keys.insert((row.try_get(0)?, row.try_get(1)?), (row.try_get(2)?, jobs));
        }
    }
    Ok((taken, keys))
}
