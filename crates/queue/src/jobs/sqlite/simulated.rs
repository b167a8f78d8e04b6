//! The statements of the SQLite ledger over a database in memory, with the time said by the caller: for the simulation and for checks.
//!
//! Invariants: each [`Call`] runs the very function that a node's ledger runs, in one transaction; what it changed in the tables is told by triggers
//! ([`Change`]), so nothing that a statement does goes unseen. A [`Mutation`] breaks one rule around a call, never inside of the product: with it a
//! checker proves that it can fail. What is judged is left to [`crate::simulation`].

mod picture;
mod watch;

use plinth_types::{TenantName, Timestamp};
use rusqlite::{Connection, Result, params};

use super::super::{
    Cancelled, ClaimWish, Claimed, End, Finish, Finished, Held, HeldState, JobId, KindSettings, NewJob, ReplayWish, Report, ScheduleRow,
    Submission, Submitted, SweepWish, Swept, WorkerId,
};
use super::{Now, claim, control, end, schema, submit, sweep};
use crate::simulation::Change;

pub use picture::{leftovers, picture};

/// The moment of a call, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// For leases: only goes forward.
    pub lease: i64,
    /// The wall clock: may jump.
    pub wall: i64,
}

/// What the ledger is asked.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "each is the call of the port with the same name")]
pub enum Call {
    Submit(Submission),
    Claim(ClaimWish),
    Heartbeat { worker: WorkerId, held: Vec<Held>, lease_millis: u64 },
    Finish(Finish),
    Report(Report),
    Cancel { tenant: TenantName, id: JobId },
    Replay(ReplayWish),
    Sweep(SweepWish),
    Release { node: String, living: WorkerId },
    SetKind(KindSettings),
    PutSchedule(ScheduleRow),
    Schedules,
    Fire { tenant: TenantName, name: String, seen: Timestamp, next: Option<Timestamp>, jobs: Vec<NewJob> },
}

/// What it answers.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "each is what the port's call of the same name gives")]
pub enum Answer {
    Submitted(Submitted),
    Claimed(Vec<Claimed>),
    Heartbeat(Vec<HeldState>),
    Finished(Finished),
    Cancelled(Option<Cancelled>),
    Replayed(u64),
    Swept(Swept),
    Released(u64),
    Done,
    Schedules(Vec<ScheduleRow>),
    Fired(bool),
}

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// An end is written whatever epoch it says.
    FinishIgnoresEpoch,
    /// A submission's key is not kept.
    KeyForgotten,
    /// Now and then a submission is acknowledged and rolled back.
    AcknowledgedTooEarly,
    /// A claim leaves the epoch as it was.
    EpochStands,
    /// Leases end by the wall clock.
    LeaseByWallClock,
    /// A lease that ran out is seen ten seconds late.
    SweepLate,
    /// What waits for a job is not let go on.
    FollowersForgotten,
    /// What waits for others is stored as if it did not.
    BeginsEarly,
    /// A job that is stored gets no place in line.
    NoPlaceInLine,
    /// A tick is fired whatever its caller saw.
    TickTwice,
    /// A replay brings back what was cancelled too.
    ReplayOfCancelled,
    /// A claim counts no attempt.
    AttemptNotCounted,
    /// One tenant is always first.
    OneTenantFirst,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::FinishIgnoresEpoch,
        Self::KeyForgotten,
        Self::AcknowledgedTooEarly,
        Self::EpochStands,
        Self::LeaseByWallClock,
        Self::SweepLate,
        Self::FollowersForgotten,
        Self::BeginsEarly,
        Self::NoPlaceInLine,
        Self::TickTwice,
        Self::ReplayOfCancelled,
        Self::AttemptNotCounted,
        Self::OneTenantFirst,
    ];
}

/// A ledger in memory.
pub struct Simulated {
    db: Connection,
    mutation: Option<Mutation>,
    /// How many submissions there were, for the mutation that loses some.
    submissions: u64,
}

impl Simulated {
    /// An empty one.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn new() -> Result<Self> {
        let db = Connection::open_in_memory()?;
        db.set_prepared_statement_cache_capacity(128);
        for step in schema::STEPS {
            db.execute_batch(step)?;
        }
        watch::install(&db)?;
        Ok(Self { db, mutation: None, submissions: 0 })
    }

    /// Empties it, and breaks this rule from here on.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn reset(&mut self, mutation: Option<Mutation>) -> Result<()> {
        watch::empty(&self.db)?;
        (self.mutation, self.submissions) = (mutation, 0);
        Ok(())
    }

    /// The database, to be looked at.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.db
    }

    /// Runs a call in one transaction; its answer, and what it changed.
    ///
    /// # Errors
    /// Those of SQLite; nothing is changed then.
    pub fn call(&mut self, now: Moment, call: &Call) -> Result<(Answer, Vec<Change>)> {
        let run = |sql| self.db.prepare_cached(sql)?.execute([]).map(|_| ());
        run("BEGIN")?;
        self.submissions += u64::from(matches!(call, Call::Submit(_)));
        let lose = self.mutation == Some(Mutation::AcknowledgedTooEarly) && self.submissions.is_multiple_of(7);
        let outcome =
            self.mutated(Now { lease: now.lease, wall: now.wall }, call).and_then(|answer| Ok((answer, watch::changes(&self.db)?)));
        match outcome {
            Ok((answer @ Answer::Submitted(_), _)) if lose => run("ROLLBACK").map(|()| (answer, Vec::new())),
            Ok(both) => run("COMMIT").map(|()| both),
            Err(error) => run("ROLLBACK").and(Err(error)),
        }
    }

    /// The call as it is, or with its rule broken.
    fn mutated(&self, now: Now, call: &Call) -> Result<Answer> {
        use Mutation as M;
        let db = &self.db;
        let run = |sql: &str, id: JobId| db.prepare_cached(sql)?.execute([id.as_bytes()]).map(|_| ());
        match (self.mutation, call) {
            (Some(M::FinishIgnoresEpoch), Call::Finish(finish)) => {
                let mut find = db.prepare_cached("SELECT epoch FROM jobs WHERE id = ?1")?;
                let epoch: i64 = find.query_row([finish.id.as_bytes()], |row| row.get(0))?;
                apply(db, now, &Call::Finish(Finish { epoch: epoch.unsigned_abs(), ..finish.clone() }))
            }
            (Some(M::KeyForgotten), Call::Submit(submission)) => {
                apply(db, now, &Call::Submit(Submission { key: None, ..submission.clone() }))
            }
            (Some(M::LeaseByWallClock), _) => apply(db, Now { lease: now.wall, ..now }, call),
            (Some(M::SweepLate), Call::Sweep(_)) => apply(db, Now { lease: now.lease - 10_000, ..now }, call),
            (Some(M::FollowersForgotten), Call::Finish(finish)) if matches!(finish.end, End::Succeeded(_)) => {
                run("DELETE FROM dependencies WHERE on_job = ?1", finish.id)?;
                apply(db, now, call)
            }
            (Some(M::BeginsEarly), Call::Submit(submission)) => {
                let mut early = submission.clone();
                early.jobs.iter_mut().for_each(|job| job.waits_for.clear());
                apply(db, now, &Call::Submit(early))
            }
            (Some(M::TickTwice), Call::Fire { tenant, name, jobs, next, .. }) => {
                let mut find = db.prepare_cached("SELECT coalesce(next_at, 0) FROM schedules WHERE tenant = ?1 AND name = ?2")?;
                let seen: i64 = find.query_row([tenant.as_str(), name], |row| row.get(0))?;
                control::fire(db, now, (tenant, name), seen, next.map(super::millis), jobs).map(Answer::Fired)
            }
            (mutation, call) => {
                let answer = apply(db, now, call)?;
                match (mutation, &answer, call) {
                    (Some(M::EpochStands), Answer::Claimed(claimed), _) => {
                        claimed.iter().try_for_each(|job| run("UPDATE jobs SET epoch = max(epoch - 1, 1) WHERE id = ?1", job.id))?;
                    }
                    (Some(M::AttemptNotCounted), Answer::Claimed(claimed), _) => {
                        claimed.iter().try_for_each(|job| run("UPDATE jobs SET attempt = min(attempt, 1) WHERE id = ?1", job.id))?;
                    }
                    (Some(M::NoPlaceInLine), Answer::Submitted(_), _) => db.execute_batch("DELETE FROM flows")?,
                    (Some(M::ReplayOfCancelled), _, Call::Replay(_)) => db.execute_batch("UPDATE jobs SET state = 2 WHERE state = 6")?,
                    (Some(M::OneTenantFirst), Answer::Claimed(_), _) => {
                        db.execute_batch("UPDATE flows SET pass = 0 WHERE tenant = (SELECT min(tenant) FROM flows)")?;
                    }
                    _ => {}
                }
                Ok(answer)
            }
        }
    }
}

/// The product's own functions.
fn apply(db: &Connection, now: Now, call: &Call) -> Result<Answer> {
    Ok(match call {
        Call::Submit(submission) => Answer::Submitted(submit::submit(db, now, submission)?),
        Call::Claim(wish) => Answer::Claimed(claim::claim(db, now, wish)?),
        Call::Heartbeat { worker, held, lease_millis } => Answer::Heartbeat(super::heartbeat(db, now, &worker.0, held, *lease_millis)?),
        Call::Finish(finish) => Answer::Finished(end::finish(db, now, finish)?),
        Call::Report(report) => Answer::Finished(end::report(db, now, report)?),
        Call::Cancel { tenant, id } => Answer::Cancelled(end::cancel(db, now, tenant, *id)?),
        Call::Replay(wish) => Answer::Replayed(end::replay(db, now, wish)?),
        Call::Sweep(wish) => Answer::Swept(sweep::sweep(db, now, wish)?),
        Call::Release { node, living } => Answer::Released(sweep::release(db, now, Some(node), &living.0)?),
        Call::SetKind(settings) => control::set_kind(db, settings).map(|()| Answer::Done)?,
        Call::PutSchedule(schedule) => control::put_schedule(db, schedule).map(|()| Answer::Done)?,
        Call::Schedules => Answer::Schedules(control::schedules(db, None)?),
        Call::Fire { tenant, name, seen, next, jobs } => {
            let (seen, next) = (super::millis(*seen), next.map(super::millis));
            Answer::Fired(control::fire(db, now, (tenant, name), seen, next, jobs)?)
        }
    })
}

/// Moves the lease of a job, as if its worker had been silent for long.
///
/// # Errors
/// Those of SQLite.
pub fn let_lease_run_out(db: &Connection, id: JobId) -> Result<()> {
    db.execute("UPDATE jobs SET lease_until = 0 WHERE id = ?1 AND state = 3", params![id.as_bytes()]).map(|_| ())
}
