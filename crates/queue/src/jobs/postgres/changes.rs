//! What a transaction makes of the jobs that it has locked: the rules of ends, without the database.
//!
//! Rows come in as they stand under their locks, decisions are made here, one by one and in order, and [`super::apply`] writes what came
//! of them in a few statements. Invariants: a row is changed only while it is as the decision needs it (held under this epoch, not begun,
//! not ended); each job that ends is told of once and those that wait for it are looked for once ([`Changes::followers_of`]).

use std::collections::{BTreeMap, BTreeSet};

use plinth_policy::jobs::State;
use plinth_types::{Reason, TenantName};

use super::super::{Cancelled, End, Failure, Finish, Finished, Held, HeldState, JobId, OnFailure, Payload, WEBHOOK_KIND, WorkerId};
use super::flows::Flow;
use super::insert::{NewRow, tell};

/// A job as it is locked, with what may change.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) tenant: TenantName,
    pub(super) kind: String,
    pub(super) state: State,
    pub(super) class: u8,
    pub(super) epoch: i64,
    pub(super) attempt: i32,
    pub(super) max_attempts: i32,
    pub(super) cancel: bool,
    pub(super) waits: i32,
    pub(super) on_failure: OnFailure,
    pub(super) run_at: i64,
    pub(super) worker: Option<String>,
    pub(super) started_at: Option<i64>,
    pub(super) keep: i64,
    pub(super) webhook: bool,
    pub(super) progress: i16,
    /// The reason's slug and the text.
    pub(super) failure: Option<(String, String)>,
    pub(super) result_size: Option<i64>,
    pub(super) expires_at: Option<i64>,
    pub(super) ended_at: Option<i64>,
    pub(super) keep_until: Option<i64>,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FailedAttempt {
    pub(super) id: JobId,
    pub(super) epoch: i64,
    pub(super) attempt: i32,
    pub(super) worker: String,
    pub(super) started_at: i64,
    pub(super) failure: Failure,
}

/// What is to be written.
pub(super) struct Changes<'a> {
    pub(super) now: i64,
    pub(super) rows: BTreeMap<JobId, Row>,
    pub(super) changed: BTreeSet<JobId>,
    pub(super) results: BTreeMap<JobId, &'a Payload>,
    pub(super) attempts: Vec<FailedAttempt>,
    pub(super) new: Vec<NewRow<'static>>,
    pub(super) flows: BTreeSet<Flow>,
    /// Jobs that have ended and whose followers were not looked for.
    ended: BTreeMap<JobId, State>,
    /// Jobs that have ended and whose followers were found.
    pub(super) followed: Vec<JobId>,
}

impl<'a> Changes<'a> {
    pub(super) fn new(now: i64, rows: BTreeMap<JobId, Row>) -> Self {
        Self {
            now,
            rows,
            changed: BTreeSet::new(),
            results: BTreeMap::new(),
            attempts: Vec::new(),
            new: Vec::new(),
            flows: BTreeSet::new(),
            ended: BTreeMap::new(),
            followed: Vec::new(),
        }
    }

    fn held(&mut self, id: JobId, epoch: u64) -> Option<&mut Row> {
        let held = |row: &&mut Row| row.state == State::Running && u64::try_from(row.epoch) == Ok(epoch);
        self.rows.get_mut(&id).filter(held)
    }

    /// Ends an attempt.
    pub(super) fn finish(&mut self, finish: &'a Finish) -> Finished {
        let Some(row) = self.held(finish.id, finish.epoch) else { return Finished::Fenced };
        match &finish.end {
            End::Succeeded(result) => {
                row.result_size = Some(super::rows::signed(result.body.size()));
                row.progress = 1000;
                row.failure = None;
                self.results.insert(finish.id, result);
                self.end(finish.id, State::Succeeded);
            }
            End::Dead(failure) => {
                self.note_attempt(finish.id, failure);
                self.end(finish.id, State::Dead);
            }
            End::Cancelled => self.end_because(finish.id, State::Cancelled, Reason::JobCancelled, "cancelled while it ran"),
            End::Retry { failure, after_millis } => self.retry(finish.id, failure, *after_millis),
            End::Released { after_millis } => {
                if row.cancel {
                    self.end(finish.id, State::Cancelled);
                } else {
                    row.attempt = (row.attempt - 1).max(0);
                    self.again(finish.id, *after_millis);
                }
            }
        }
        Finished::Done
    }

    fn retry(&mut self, id: JobId, failure: &Failure, after_millis: u64) {
        self.note_attempt(id, failure);
        let Some(row) = self.rows.get(&id) else { return };
        if row.cancel {
            self.end(id, State::Cancelled);
        } else if row.attempt >= row.max_attempts {
            self.end(id, State::Dead);
        } else {
            self.again(id, after_millis);
        }
    }

    /// Ends the attempt of a worker that is gone; whether that was the job's last.
    pub(super) fn lose(&mut self, id: JobId, why: &str) -> bool {
        self.retry(id, &Failure { reason: Reason::WorkerLost, text: why.to_owned() }, 0);
        self.rows.get(&id).is_some_and(|row| row.state.ended())
    }

    /// What became of a job that a worker believes to hold; whether its lease is prolonged.
    pub(super) fn heartbeat(&mut self, worker: &WorkerId, held: Held) -> HeldState {
        match self.held(held.id, held.epoch) {
            Some(row) if row.worker.as_ref() == Some(&worker.0) => {
                if row.cancel {
                    HeldState::CancelAsked
                } else {
                    HeldState::Held
                }
            }
            _ => HeldState::Lost,
        }
    }

    /// Asks for the end of a job.
    pub(super) fn cancel(&mut self, tenant: &TenantName, id: JobId) -> Option<Cancelled> {
        let row = self.rows.get_mut(&id).filter(|row| row.tenant == *tenant)?;
        Some(match row.state {
            ended if ended.ended() => Cancelled::Was(ended),
            State::Running => {
                row.cancel = true;
                self.changed.insert(id);
                Cancelled::Asked
            }
            _ => {
                self.end_because(id, State::Cancelled, Reason::JobCancelled, "cancelled before it began");
                Cancelled::Ended
            }
        })
    }

    /// Ends what is worthless now.
    pub(super) fn expire(&mut self, id: JobId) {
        self.end_because(id, State::Dead, Reason::DeadlineExceeded, "it had not begun when its time was over");
    }

    /// Makes a dead letter ready again, with all its attempts and under a new epoch.
    pub(super) fn replay(&mut self, id: JobId) {
        let now = self.now;
        let Some(row) = self.rows.get_mut(&id).filter(|row| row.state == State::Dead) else { return };
        (row.epoch, row.attempt, row.cancel) = (row.epoch + 1, 0, false);
        (row.run_at, row.expires_at, row.ended_at, row.keep_until) = (now, None, None, None);
        row.state = State::Ready;
        self.enter(id);
    }

    /// Back in line, at once or after a pause.
    fn again(&mut self, id: JobId, after_millis: u64) {
        let now = self.now;
        let Some(row) = self.rows.get_mut(&id) else { return };
        row.run_at = now.saturating_add_unsigned(after_millis);
        row.state = if after_millis == 0 { State::Ready } else { State::Scheduled };
        self.enter(id);
    }

    /// Notes that a row has changed, and its flow when it is ready.
    fn enter(&mut self, id: JobId) {
        self.changed.insert(id);
        if let Some(row) = self.rows.get(&id).filter(|row| row.state == State::Ready) {
            self.flows.insert(Flow { kind: row.kind.clone(), class: row.class, tenant: row.tenant.as_str().to_owned() });
        }
    }

    fn note_attempt(&mut self, id: JobId, failure: &Failure) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        row.failure = Some((failure.reason.slug().to_owned(), failure.text.clone()));
        self.attempts.push(FailedAttempt {
            id,
            epoch: row.epoch,
            attempt: row.attempt,
            worker: row.worker.clone().unwrap_or_default(),
            started_at: row.started_at.unwrap_or(self.now),
            failure: failure.clone(),
        });
    }

    fn end_because(&mut self, id: JobId, state: State, reason: Reason, text: &str) {
        let Some(row) = self.rows.get_mut(&id).filter(|row| !row.state.ended()) else { return };
        row.failure = Some((reason.slug().to_owned(), text.to_owned()));
        self.end(id, state);
    }

    /// Ends a job that has not ended, whatever state it is in.
    fn end(&mut self, id: JobId, state: State) {
        let now = self.now;
        let Some(row) = self.rows.get_mut(&id).filter(|row| !row.state.ended()) else { return };
        row.state = state;
        (row.ended_at, row.keep_until, row.waits) = (Some(now), Some(now.saturating_add(row.keep)), 0);
        if row.webhook && row.kind != WEBHOOK_KIND {
            let (keep, epoch) = (row.keep.unsigned_abs(), row.epoch.unsigned_abs());
            self.new.push(tell(now, &row.tenant, (id, epoch), state, row.class, keep));
        }
        self.changed.insert(id);
        self.ended.insert(id, state);
    }

    /// Jobs that have ended since this was last asked: whoever waits for them is to be locked and handed to [`Changes::follow`].
    pub(super) fn followers_of(&mut self) -> BTreeMap<JobId, State> {
        let ended = std::mem::take(&mut self.ended);
        self.followed.extend(ended.keys());
        ended
    }

    /// Lets go on, or ends, those that waited for jobs that have ended: pairs of such a job and who waits for it. `locked` are their rows.
    pub(super) fn follow(&mut self, ended: &BTreeMap<JobId, State>, pairs: &[(JobId, JobId)], locked: BTreeMap<JobId, Row>) {
        for (id, row) in locked {
            // What was locked before may have been changed since, here and not in the database.
            self.rows.entry(id).or_insert(row);
        }
        for (on, id) in pairs {
            let (Some(state), Some(row)) = (ended.get(on), self.rows.get_mut(id)) else { continue };
            if row.state != State::Blocked {
                continue;
            }
            match row.on_failure {
                rule @ (OnFailure::Fail | OnFailure::Cancel) if *state != State::Succeeded => {
                    let next = if rule == OnFailure::Cancel { State::Cancelled } else { State::Dead };
                    let text = format!("job {on}, which this one waits for, is {state}");
                    self.end_because(*id, next, Reason::DependencyFailed, &text);
                }
                _ => {
                    row.waits = (row.waits - 1).max(0);
                    row.state = match (row.waits, row.run_at > self.now) {
                        (0, false) => State::Ready,
                        (0, true) => State::Scheduled,
                        _ => State::Blocked,
                    };
                    self.enter(*id);
                }
            }
        }
    }
}
